"""Roles as the log's grants say: who held what, at which index."""

from __future__ import annotations

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
        units = (unit, EVERY_UNIT)
        return any(g.subject == subject and g.role == role and g.unit in units for g in self.grants.values())

    def may_grant(self, signer: Signer) -> bool:
        """Tells whether ``signer`` may grant and revoke roles: an operator for every unit, or the founder."""
        if not self.founder:
            self.founder = signer.subject
        operators = {g.subject for g in self.grants.values() if g.role == OPERATOR and g.unit == EVERY_UNIT}
        return signer.subject in operators or (signer.subject == self.founder and not self._founder_dismissed)

    def grant(self, grant_id: str, grant: Grant) -> None:
        """Puts a grant into force."""
        self.known.add(grant_id)
        self.grants[grant_id] = grant

    def revoke(self, grant_id: str) -> None:
        """Ends a grant; a founder who loses the operator's role is founder no more."""
        ended = self.grants.pop(grant_id)
        if ended.role == OPERATOR and ended.subject == self.founder:
            self._founder_dismissed = True

    _founder_dismissed: bool = False


def role_name(text: object) -> str:
    """A role in lower case without the contract's prefix."""
    return text.removeprefix("ROLE_").lower() if isinstance(text, str) else ""
