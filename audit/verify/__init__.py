"""The stand-alone verifier: believes a trust file, and nothing that comes with a bundle or permit.

It needs the standard library, ``cryptography`` and the pure format modules of ``assay`` and ``audit.ledger``; no
database, server or network. A tour: :mod:`~audit.verify.trust` (whom to believe about what),
:mod:`~audit.verify.checkpoint` (a checkpoint opened by it), :mod:`~audit.verify.archive` (from hostile bytes to entries
under one checkpoint), :mod:`~audit.verify.people` (roles as grants say), :mod:`~audit.verify.grants` (the same from
grants alone, and what of it a thief may have signed), :mod:`~audit.verify.replay` (the log replayed in order on a
:mod:`~audit.verify.state`: the installation's own records in :mod:`~audit.verify.governance`, people's acts on jobs in
:mod:`~audit.verify.acts`, services' results in :mod:`~audit.verify.results`, what a job's records say of one another in
:mod:`~audit.verify.agreement`, changes of state in :mod:`~audit.verify.transitions`), :mod:`~audit.verify.verifier`
(all checks and the verdict), :mod:`~audit.verify.report`, :mod:`~audit.verify.permit` (may this model run here, now?).
``python -m audit.verify BUNDLE --trust FILE`` is its command.
"""

from audit.verify.report import EXIT_CODES, Report
from audit.verify.trust import TrustFile
from audit.verify.verifier import verify_bundle

__all__ = ["EXIT_CODES", "Report", "TrustFile", "verify_bundle"]
