"""Roles as the log's grants say: who held what, at which index."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from assay.dsse import Signer

OPERATOR, COMPLIANCE_OFFICER, VALIDATOR = "operator", "compliance_officer", "validator"
QUORUM = (COMPLIANCE_OFFICER, VALIDATOR)
EVERY_UNIT = "-"


@dataclass(frozen=True)
class Grant:
    """A role held by a subject in a unit."""

    subject: str
    role: str
    unit: str


@dataclass
class Roles:
    """Grants in force while the log is replayed.

    The first grants of a log are signed by an operator whose own grant may come later among them: the *founder*, who
    is the trust file's operator, or else the signer of the log's first grant, which the report then says.
    """

    founder: str = ""
    grants: dict[str, Grant] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)

    def holds(self, subject: str, role: str, unit: str) -> bool:
        """Tells whether a live grant gives ``subject`` the role in ``unit``."""
        return any(self._live[Grant(subject, role, held)] > 0 for held in (unit, EVERY_UNIT))

    def may_grant(self, signer: Signer) -> bool:
        """Tells whether ``signer`` may grant and revoke roles: an operator for every unit, or the founder."""
        if not self.founder:
            self.founder = signer.subject
        operator = self.holds(signer.subject, OPERATOR, EVERY_UNIT)
        return operator or (signer.subject == self.founder and not self._founder_dismissed)

    def grant(self, grant_id: str, grant: Grant) -> None:
        """Puts a grant into force."""
        self.known.add(grant_id)
        if grant_id in self.grants:
            self._live[self.grants[grant_id]] -= 1
        self.grants[grant_id] = grant
        self._live[grant] += 1

    def revoke(self, grant_id: str) -> None:
        """Ends a grant; a founder who loses the operator's role is founder no more."""
        ended = self.grants.pop(grant_id)
        self._live[ended] -= 1
        if ended.role == OPERATOR and ended.subject == self.founder:
            self._founder_dismissed = True

    _founder_dismissed: bool = False
    # How many live grants give the same: asked at every act, so that going through all of them would take the square.
    _live: Counter[Grant] = field(default_factory=Counter)


def role_name(text: object) -> str:
    """A role in lower case without the contract's prefix."""
    return text.removeprefix("ROLE_").lower() if isinstance(text, str) else ""
