"""Who signed for a model: whether they hold their roles still, and what of it a thief may have signed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from assay.errors import PermissionDeniedError, PreconditionError
from audit.ledger import records
from audit.ledger.evidence import Entry
from audit.ledger.ledger import Ledger
from audit.ledger.tree import leaf_hash
from audit.verify import grants
from audit.verify.grants import Shown
from audit.verify.keys import PERMIT, Use
from audit.verify.trust import TrustFile
from gateway import key_registry
from gateway.caller import ALL_UNITS
from gateway.identity_registry import OPERATOR, grants_behind, held_role, holds_role
from gateway.jobs.transitions import Event
from gateway.key_registry import NOW, People
from gateway.store import jobs, rows
from gateway.store.tables import ApprovalRow, GrantRow, JobRow


@dataclass(frozen=True)
class Doubt:
    """What a thief may have signed of that which a permit would rest on.

    Attributes:
        role: whose role only grants in doubt give, when signing or today, such as ``SUBJECT as ROLE``; empty for none.
        key: a subject whose approval is in doubt; empty for none.
        permit: whether the order that brought in the permit key is.
    """

    role: str = ""
    key: str = ""
    permit: bool = False


def quorum_of(connection: Connection, job: JobRow, card: str) -> list[ApprovalRow]:
    """The grants by which a job was approved: of those who held the role then; none while it is not approved."""
    steps = jobs.transitions(connection, job.name)
    approved = next((step.time_us for step in reversed(steps) if step.event == Event.APPROVE), 0)
    signed = rows.select_all(connection, ApprovalRow, order_by="time_us", job=job.name, card_sha256=card, granted=True)
    return [a for a in signed if held_role(connection, a.subject, a.role, job.unit, approved)]


def who_left(connection: Connection, job: JobRow, signers: Sequence[ApprovalRow]) -> str:
    """Who signed and does not hold the role today, such as ``SUBJECT as ROLE``; empty for nobody.

    Who has lost it cannot carry a new permit.
    """
    gone = (a for a in signers if not holds_role(connection, a.subject, a.role, job.unit))
    return next((f"{a.subject} as {a.role}" for a in gone), "")


def doubt(
    connection: Connection,
    ledger: Ledger,
    people: People,
    job: JobRow,
    signers: Sequence[ApprovalRow],
    index: int = NOW,
) -> Doubt:
    """What is in doubt as the offline check has it (:mod:`audit.verify.grants`), which asks it of the same records.

    A grant whose record cannot be read yet, as in a batch that is being written, gives nobody anything.

    Args:
        connection: where the rows are.
        ledger: where the records are.
        people: whose keys hold.
        job: that was approved.
        signers: who signed for it.
        index: of the permit's record, by whose key it is judged.

    Raises:
        PreconditionError: ``TRUST_OPERATOR``, as :func:`grants_in_doubt` has it.
    """
    if not people.table.compromised:
        return Doubt()
    held = [(a.subject, a.role, job.unit, ledger.size) for a in signers]
    events = key_registry.recorded(connection)
    held += [(event.signer.subject, OPERATOR, ALL_UNITS, event.index) for event in events]
    indices = grants_behind(connection, ledger, people.root, held) | {event.index for event in events}
    shown = _read(ledger, people.trust, indices)
    roles = (f"{a.subject} as {a.role}" for a in signers if not _firm(connection, shown, job, a))
    keys = (a.subject for a in signers if shown.in_doubt(Use(a.record_index, a.subject, a.keyid)))
    permit = shown.table.at(PERMIT, index)
    return Doubt(next(roles, ""), next(keys, ""), permit is not None and permit.begin in shown.doubtful)


def grants_in_doubt(connection: Connection, ledger: Ledger, trust: TrustFile) -> list[GrantRow]:
    """Live grants that a thief may have made, oldest first; the founding operator's own role needs none.

    Raises:
        PreconditionError: ``TRUST_OPERATOR`` where the trust file names another founding operator than the log.
    """
    granted = rows.select_all(connection, GrantRow, order_by="record_index")
    events = {event.index for event in key_registry.recorded(connection)}
    shown = _read(ledger, trust, events | {g.record_index for g in granted})
    live = [g for g in granted if not g.revoked_us and g.record_index in shown.doubtful]
    return [g for g in live if (g.subject, g.role) != (shown.founder, OPERATOR)]


def _read(ledger: Ledger, trust: TrustFile, indices: Iterable[int]) -> Shown:
    bodies = ((index, ledger.record(index).body) for index in sorted(indices))
    try:
        return grants.read((Entry(i, body, leaf_hash(body), records.read(body)) for i, body in bodies), trust)
    except PermissionDeniedError as error:
        raise PreconditionError(
            "TRUST_OPERATOR",
            f"by the line `operator` of trust.txt the log's grants do not hold: {error.message}",
            remedy="`assay doctor` says who signed the first: mend that line, then start the gateway again",
        ) from error


def _firm(connection: Connection, shown: Shown, job: JobRow, signed: ApprovalRow) -> bool:
    """Whether grants that are not in doubt gave a signer the role when signing, and give it today."""
    held = rows.select_all(connection, GrantRow, subject=signed.subject, role=signed.role)
    known = {entry.index for entry in shown.entries} - shown.doubtful
    firm = [g for g in held if g.unit in (job.unit, ALL_UNITS) and g.record_index in known]
    before = (g for g in firm if g.record_index < signed.record_index)
    return any(not g.revoked_us or signed.time_us <= g.revoked_us for g in before) and any(
        not g.revoked_us for g in firm
    )
