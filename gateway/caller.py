"""Who calls, as every domain service sees it."""

from __future__ import annotations

from dataclasses import dataclass

from assay.errors import NotFoundError, PermissionDeniedError
from policies.authorization import Authorizer, Principal

ALL_UNITS = "-"
SYSTEM_UNIT = "system"
"""The installation's own chain in the ledger; never a business unit."""
_LONGEST = 200
"""Characters of a name that an answer repeats: all of it must fit a client's header."""


@dataclass(frozen=True)
class Caller:
    """An authenticated subject with the roles it holds at this moment.

    Attributes:
        subject: SPIFFE-style URI of the client certificate.
        grants: pairs of role (enum name, such as ``ROLE_VALIDATOR``) and unit (``-`` means every unit).
        trace_id: hex trace id of the call; goes into records.
    """

    subject: str
    grants: frozenset[tuple[str, str]]
    trace_id: str = ""

    def holds(self, role: str, unit: str) -> bool:
        """Tells whether the caller holds ``role`` in ``unit``; ``-`` asks for it in every unit."""
        return (role, unit) in self.grants or (role, ALL_UNITS) in self.grants

    def sees(self, unit: str) -> bool:
        """Tells whether the caller holds any role in ``unit``; ``-`` asks for a role in every unit."""
        return any(u in (unit, ALL_UNITS) for _, u in self.grants)

    def may(self, action: str, unit: str, authorizer: Authorizer) -> bool:
        """Tells whether policy permits the caller an RPC in ``unit``; ``-`` asks about all units at once."""
        return authorizer.authorize(Principal(self.subject, self.grants), action, unit).allowed

    def require_unit(self, unit: str, what: str) -> None:
        """Refuses a unit that the caller has no role in, in the same words as for a thing that does not exist.

        Raises:
            NotFoundError: ``NOT_FOUND``; existence in another unit is not revealed.
        """
        if not self.sees(unit):
            raise not_found(what)

    def require_role(self, unit: str, *roles: str) -> None:
        """Demands one of ``roles`` in ``unit``.

        Raises:
            PermissionDeniedError: ``ROLE_MISSING``.
        """
        if not any(self.holds(role, unit) for role in roles):
            raise PermissionDeniedError(
                "ROLE_MISSING",
                f"this needs {' or '.join(roles)} in unit {unit!r}",
                remedy="ask an operator for the role",
            )


def not_found(what: str) -> NotFoundError:
    """The one answer for what is not there and for what the caller may not know of."""
    name = what if len(what) <= _LONGEST else f"{what[:_LONGEST]}…"
    return NotFoundError("NOT_FOUND", f"{name} does not exist, or you hold no role in its unit")
