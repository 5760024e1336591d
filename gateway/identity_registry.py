"""Who holds which role: grants signed by operators, recorded in the ledger, revocable at once."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from sqlalchemy import Connection

from assay import dsse
from assay.errors import AlreadyExistsError, InvalidInputError, PermissionDeniedError, PreconditionError
from assay.v1 import identity_pb2
from audit.ledger import records
from audit.ledger.ledger import Ledger
from audit.ledger.records import RecordDraft
from audit.ledger.writer import UnitOfWork
from gateway import pages, statements
from gateway.caller import ALL_UNITS, SYSTEM_UNIT, Caller, not_found
from gateway.key_registry import People
from gateway.settings import Settings
from gateway.store import rows
from gateway.store.database import Store
from gateway.store.tables import GrantRow

OPERATOR = "ROLE_OPERATOR"
COMPLIANCE_OFFICER = "ROLE_COMPLIANCE_OFFICER"


@dataclass(frozen=True)
class IdentityRegistry:
    """Domain service of role grants."""

    settings: Settings
    store: Store
    people: People

    async def caller(self, subject: str, trace_id: str) -> Caller:
        """The subject with the roles that it holds now."""
        held = await self.store.fetch(lambda c: grants_of(c, subject))
        return Caller(subject, frozenset((g.role, g.unit) for g in held), trace_id)

    async def who_am_i(self, caller: Caller, request: identity_pb2.WhoAmIRequest) -> identity_pb2.WhoAmIResponse:
        """The caller in the gateway's eyes."""
        held = await self.store.fetch(lambda c: grants_of(c, caller.subject))
        return identity_pb2.WhoAmIResponse(subject=caller.subject, grants=[message_of(g) for g in held])

    async def list_role_grants(
        self, caller: Caller, request: identity_pb2.ListRoleGrantsRequest
    ) -> identity_pb2.ListRoleGrantsResponse:
        """Grants, oldest first; those of units that the caller has no role in are left out.

        Raises:
            InvalidInputError: ``PAGE_TOKEN``.
        """
        listing = pages.Listing.of("role grants", request)
        c = rows.table(GrantRow).c
        where: list[Any] = [] if request.include_revoked else [c.revoked_us == 0]
        if not caller.sees(ALL_UNITS):
            where.append(c.unit.in_([ALL_UNITS, *sorted({u for _, u in caller.grants})]))

        shown, token = await self.store.fetch(
            lambda c: listing.read(
                c, GrantRow, message_of, time="granted_us", name="grant_id", newest_first=False, where=where
            )
        )
        return identity_pb2.ListRoleGrantsResponse(role_grants=shown, next_page_token=token)

    async def grant_role(
        self, caller: Caller, request: identity_pb2.GrantRoleRequest
    ) -> identity_pb2.GrantRoleResponse:
        """Records a grant that an operator signed.

        Raises:
            InvalidInputError, IntegrityError: the envelope does not hold.
            PermissionDeniedError: ``SIGNER``, ``ROLE_MISSING``, or ``SELF_GRANT`` for a role granted to oneself.
            AlreadyExistsError: ``GRANT_EXISTS``; a grant's id is used once, so that a revoked grant cannot be replayed.
        """

        def work(uow: UnitOfWork) -> identity_pb2.RoleGrant:
            envelope = dsse.envelope_from_proto(request.envelope)
            verified = verify_signed(envelope, self.people, uow.now, caller.subject)
            signed = statements.read_grant(verified.statement)
            # As the offline verifier has it: an operator of one unit runs things there and makes nobody anything.
            require_live_role(uow.connection, caller.subject, OPERATOR, ALL_UNITS)
            if signed.subject == caller.subject:
                raise PermissionDeniedError(
                    "SELF_GRANT", "an operator cannot grant itself a role", remedy="ask another operator"
                )
            self._check_unit(signed.unit)
            self._check_person(signed.subject)
            return message_of(_issue(uow, signed, envelope))

        return identity_pb2.GrantRoleResponse(role_grant=await self.store.commit(work))

    async def revoke_role(
        self, caller: Caller, request: identity_pb2.RevokeRoleRequest
    ) -> identity_pb2.RevokeRoleResponse:
        """Records a revocation that an operator signed; it takes effect at once.

        Raises:
            InvalidInputError, IntegrityError: the envelope does not hold, or names another grant.
            PermissionDeniedError: ``SIGNER`` or ``ROLE_MISSING``.
            PreconditionError: ``GRANT_REVOKED`` when it was revoked before, ``LAST_OPERATOR`` when nobody could grant
                any more.
            NotFoundError: ``NOT_FOUND``.
        """

        def work(uow: UnitOfWork) -> identity_pb2.RoleGrant:
            envelope = dsse.envelope_from_proto(request.envelope)
            verified = verify_signed(envelope, self.people, uow.now, caller.subject)
            signed = statements.read_grant_revocation(verified.statement)
            if f"roleGrants/{signed.grant_id}" != request.name:
                raise InvalidInputError("STATEMENT", "the signed statement names another grant than the request")
            grant = rows.get(uow.connection, GrantRow, grant_id=signed.grant_id)
            if grant is None:
                raise not_found(request.name)
            require_live_role(uow.connection, caller.subject, OPERATOR, ALL_UNITS)
            if grant.revoked_us:
                raise PreconditionError("GRANT_REVOKED", "the grant was revoked before")
            if (grant.role, grant.unit) == (OPERATOR, ALL_UNITS) and self._is_last(uow.connection, grant.subject):
                raise PreconditionError(
                    "LAST_OPERATOR", "the last operator would be gone", remedy="grant another operator first"
                )
            uow.append(RecordDraft(SYSTEM_UNIT, "grant.revoked", "grant-revocation", {}, envelope=envelope))
            revoked = rows.micros(uow.now)
            rows.update(uow.connection, GrantRow, {"grant_id": grant.grant_id}, {"revoked_us": revoked})
            return message_of(GrantRow(**{**grant.model_dump(), "revoked_us": revoked}))

        return identity_pb2.RevokeRoleResponse(role_grant=await self.store.commit(work))

    def bootstrap(self, path: Path) -> int:
        """Records the operator's first grants, once: at a start that finds no grant at all. Returns how many.

        They are believed because they are signed under the people root by the subject whom they make operator:
            whoever could make this file holds the authority, and the record shows it.

        Raises:
            InvalidInputError: ``BOOTSTRAP`` when the file is missing or is not what it must be.
            IntegrityError: a signature does not hold.
        """
        if self.store.read(lambda c: rows.select_all(c, GrantRow)):
            return 0
        try:
            envelopes = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise InvalidInputError("BOOTSTRAP", f"cannot read {path.name}", remedy="run `assay init DIR`") from error
        if not isinstance(envelopes, list) or not envelopes:
            raise InvalidInputError("BOOTSTRAP", f"{path.name} holds no grants")

        def work(uow: UnitOfWork) -> int:
            opened = [(self.people.verify(e, uow.now), e) for e in envelopes]
            grants = [statements.read_grant(v.statement) for v, _ in opened]
            signers = {s.subject for v, _ in opened for s in v.signers}
            operators = {g.subject for g in grants if g.role == OPERATOR and g.unit == ALL_UNITS}
            if len(signers) != 1 or not signers <= operators:
                raise InvalidInputError(
                    "BOOTSTRAP", "the first grants must all be signed by the operator whom they name"
                )
            for grant, (_, envelope) in zip(grants, opened, strict=True):
                self._check_unit(grant.unit)
                _issue(uow, grant, envelope)
            return len(grants)

        return self.store.ledger.run(work)

    def _check_person(self, subject: str) -> None:
        if not subject.startswith(self.settings.people_prefix):
            raise InvalidInputError(
                "NOT_A_PERSON",
                f"{subject[:80]} can never call: it is no person of this installation",
                remedy=f"the names of people begin with {self.settings.people_prefix}",
            )

    def _is_last(self, connection: Connection, subject: str) -> bool:
        """Whether nobody who can call would be an operator of every unit without this one."""
        others = _operators(connection) - {subject}
        return not any(other.startswith(self.settings.people_prefix) for other in others)

    def _check_unit(self, unit: str) -> None:
        if unit != ALL_UNITS and unit not in self.settings.units:
            raise InvalidInputError(
                "UNIT", f"there is no unit {unit[:40]!r}", remedy=f"one of: -, {', '.join(self.settings.units)}"
            )


def grants_of(connection: Connection, subject: str) -> list[GrantRow]:
    """The grants that a subject holds now, oldest first."""
    return rows.select_all(connection, GrantRow, order_by="granted_us", subject=subject, revoked_us=0)


def require_live_role(connection: Connection, subject: str, role: str, unit: str) -> None:
    """Demands that a grant holds in this very unit of work, whatever the caller held when it came.

    Raises:
        PermissionDeniedError: ``ROLE_MISSING``.
    """
    _as_caller(connection, subject).require_role(unit, role)


def holds_role(connection: Connection, subject: str, role: str, unit: str) -> bool:
    """Tells whether a grant gives a subject the role in a unit now."""
    return _as_caller(connection, subject).holds(role, unit)


def held_role(connection: Connection, subject: str, role: str, unit: str, at_us: int) -> bool:
    """Tells whether a subject held a role in a unit at a moment, in microseconds since 1970."""
    grants = rows.select_all(connection, GrantRow, subject=subject, role=role)
    return any(
        g.unit in (unit, ALL_UNITS) and g.granted_us <= at_us and (not g.revoked_us or at_us <= g.revoked_us)
        for g in grants
    )


def grants_behind(
    connection: Connection, ledger: Ledger, root: x509.Certificate, held: Iterable[tuple[str, str, str, int]]
) -> set[int]:
    """Record indices of the grants that show, without the whole log, that people held their roles.

    They are each person's own grant, the grant that made its signer an operator, and so on up to the founder's.

    Args:
        connection: where the grants' rows are.
        ledger: where their records are.
        root: the people root.
        held: subject, role and unit to be shown, and the record before which the grant must lie.
    """
    found: set[int] = set()
    queue = list(held)
    while queue:
        subject, role, unit, before = queue.pop()
        for grant in rows.select_all(connection, GrantRow, order_by="record_index", subject=subject, role=role):
            if grant.record_index in found or grant.record_index >= before or grant.unit not in (unit, ALL_UNITS):
                continue
            found.add(grant.record_index)
            record = records.read(ledger.record(grant.record_index).body)
            signers = dsse.verify_person(record.envelope(), root, record.time).signers
            queue += [(s.subject, OPERATOR, ALL_UNITS, grant.record_index) for s in signers]
    return found


def verify_signed(envelope: Mapping[str, Any], people: People, now: dt.datetime, subject: str) -> dsse.VerifiedEnvelope:
    """Verifies a person's envelope and demands that the caller, and nobody else, signed it.

    Raises:
        InvalidInputError, IntegrityError: the envelope does not hold.
        PermissionDeniedError: ``SIGNER``.
    """
    verified = people.verify(envelope, now)
    if [s.subject for s in verified.signers] != [subject]:
        raise PermissionDeniedError(
            "SIGNER", "the statement must be signed by the caller alone", remedy="sign with your own key"
        )
    return verified


def message_of(row: GrantRow) -> identity_pb2.RoleGrant:
    """A row as the contract's message."""
    grant = identity_pb2.RoleGrant(
        name=f"roleGrants/{row.grant_id}",
        subject=row.subject,
        role=row.role,
        unit=row.unit,
        grant_time=rows.timestamp(row.granted_us),
        record_index=row.record_index,
    )
    if row.revoked_us:
        grant.revoke_time.CopyFrom(rows.timestamp(row.revoked_us))
    return grant


def _as_caller(connection: Connection, subject: str) -> Caller:
    return Caller(subject, frozenset((g.role, g.unit) for g in grants_of(connection, subject)))


def _issue(uow: UnitOfWork, signed: statements.SignedGrant, envelope: Mapping[str, Any]) -> GrantRow:
    if rows.get(uow.connection, GrantRow, grant_id=signed.grant_id) is not None:
        raise AlreadyExistsError("GRANT_EXISTS", f"roleGrants/{signed.grant_id} exists", remedy="choose a new grant_id")
    index = uow.append(RecordDraft(SYSTEM_UNIT, "grant.issued", "grant", {}, envelope=envelope))
    row = GrantRow(
        grant_id=signed.grant_id,
        subject=signed.subject,
        role=statements.role_name(signed.role),
        unit=signed.unit,
        granted_us=rows.micros(uow.now),
        record_index=index,
    )
    rows.insert(uow.connection, row)
    return row


def _operators(connection: Connection) -> set[str]:
    held = rows.select_all(connection, GrantRow, role=OPERATOR, revoked_us=0)
    return {g.subject for g in held if g.unit == ALL_UNITS}
