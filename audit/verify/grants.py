"""Roles and keys by the grants and key events that somebody shows, and what of it a thief may have signed.

Whoever checks a permit has these records and not the whole log. The gateway asks the same before it issues one.

A key that may have been in other hands may have made anybody anything. So what it signed since then is *in doubt*, and
so is what rests on that: whatever is signed with a key that an event in doubt brought in, or by an operator whose own
grants are all in doubt. A grant in doubt gives no role. A revocation counts whoever signed it: it only takes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from assay import dsse
from assay.dsse import Signer
from assay.errors import PermissionDeniedError
from assay.key_events import EVENTS
from audit.ledger.evidence import Entry
from audit.verify import keys
from audit.verify.keys import KeyTable, Use
from audit.verify.people import Grant, Roles, role_name
from audit.verify.trust import TrustFile

GRANTS = ("grant.issued", "grant.revoked")


@dataclass(frozen=True)
class Shown:
    """What the records shown come to.

    Attributes:
        entries: grants, revocations and key events, by index.
        table: keys after the last of them.
        founder: the operator whom the trust file names, or else the signer of the first grant.
        doubtful: indices of the grants and key events in doubt.
    """

    entries: tuple[Entry, ...]
    table: KeyTable
    founder: str
    doubtful: frozenset[int]

    def roles(self, before: int | None = None) -> Roles:
        """Who held what just before a record, or after the last one, by the grants that are not in doubt."""
        roles = Roles(founder=self.founder)
        for entry in self.entries:
            if (before is None or entry.index < before) and entry.index not in self.doubtful:
                _apply(roles, entry)
        return roles

    def in_doubt(self, use: Use) -> bool:
        """Tells whether a thief may have signed a record: with a stolen key, or with one that a thief brought in."""
        return _in_doubt(self.table, use, self.doubtful)


def read(entries: Iterable[Entry], trust: TrustFile) -> Shown:
    """Reads the grants and key events among records, each judged by those before it; other records are passed over.

    Raises:
        PermissionDeniedError: ``ROLE_MISSING`` for a grant or an event that no operator signed.
        AssayError: a signature or an event does not hold.
    """
    system = tuple(entry for entry in entries if entry.record.type in (*GRANTS, *EVENTS))
    roles, table = Roles(founder=trust.operator), KeyTable.of(trust)
    for entry in system:
        if entry.record.type in EVENTS:
            keys.take(table, entry.index, entry.record, trust, roles.may_grant)
            continue
        verified = dsse.verify_person(
            entry.record.envelope(), trust.people_root, entry.record.time, trust.relying_party
        )
        for signer in verified.signers:
            table.demand_person(signer, entry.index)
        other = next((signer.subject for signer in verified.signers if not roles.may_grant(signer)), "")
        if other:
            who = f"by {other}, where the founding operator is {roles.founder}"
            raise PermissionDeniedError("ROLE_MISSING", f"a grant is not signed by an operator, but {who}")
        _apply(roles, entry)
    return Shown(system, table, roles.founder, _doubtful(system, table, roles.founder))


def _doubtful(entries: Sequence[Entry], table: KeyTable, founder: str) -> frozenset[int]:
    """Which grants and events are in doubt; found in log order, since whatever one rests on lies before it."""
    roles, found = Roles(founder=founder), set[int]()
    signed: dict[int, list[Use]] = defaultdict(list)
    for use in table.uses:
        signed[use.index].append(use)
    for entry in entries:
        # By nobody noted are events that a person's key signed about itself, for which the people root vouches.
        firm = all(
            not _in_doubt(table, use, found) and roles.may_grant(Signer(use.name, use.keyid))
            for use in signed[entry.index]
        )
        if firm or entry.record.type == "grant.revoked":
            _apply(roles, entry)
        else:
            found.add(entry.index)
    return frozenset(found)


def _in_doubt(table: KeyTable, use: Use, doubtful: AbstractSet[int]) -> bool:
    term = table.find(use.name, use.keyid)
    return term is not None and (term.doubtful(use.index) or term.begin in doubtful)


def _apply(roles: Roles, entry: Entry) -> None:
    said = entry.record.predicate
    grant_id = str(said.get("grant_id", ""))
    if entry.record.type == "grant.issued":
        roles.grant(grant_id, Grant(str(said.get("subject")), role_name(said.get("role")), str(said.get("unit"))))
    elif entry.record.type == "grant.revoked" and grant_id in roles.grants:
        roles.revoke(grant_id)
