"""Deployment permits: may this model digest run here, now, for this purpose?"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection

from assay import canonical, dsse
from assay.errors import PreconditionError, UnavailableError
from assay.v1 import audit_pb2, permit_pb2
from audit.ledger.records import RecordDraft
from audit.ledger.writer import UnitOfWork
from audit.verify.permit import outside
from gateway import key_registry, requests, standing, statements
from gateway.caller import ALL_UNITS, Caller, not_found
from gateway.identity_registry import OPERATOR, grants_behind
from gateway.jobs import views
from gateway.jobs.transitions import State
from gateway.key_registry import People
from gateway.names import unit_of
from gateway.settings import Settings
from gateway.signers import Doubt, doubt, quorum_of, who_left
from gateway.store import jobs, rows
from gateway.store.database import Store
from gateway.store.tables import JobRow, ModelRow, PermitRow
from gateway.witnesses import evidence_of
from policies.engine import PolicyEngine

_METHOD = "IssuePermit"
_DAY = 86_400


@dataclass(frozen=True)
class PermitService:
    """Domain service of permits."""

    settings: Settings
    store: Store
    key: Ed25519PrivateKey
    people: People
    policy: PolicyEngine

    async def issue_permit(
        self, caller: Caller, request: permit_pb2.IssuePermitRequest
    ) -> permit_pb2.IssuePermitResponse:
        """Signs a permit for an approved model and records it; the answer carries all that an offline check needs.

        Raises:
            NotFoundError: ``NOT_FOUND``.
            PreconditionError: ``NOT_APPROVED``, ``CARD_NOT_ISSUED``, ``SIGNER_ROLE`` when a signer has lost the role
                since or a thief may have granted it, ``SIGNER_KEY`` when a thief may have signed, ``KEY_IN_DOUBT`` when
                one may have brought in the permit key, ``PURPOSE``, ``TOO_LONG``,
                ``WAIVER_EXPIRED``, ``POLICY_CHANGED``, ``POLICY_LIVE``.
            AlreadyExistsError: ``REQUEST_ID`` for another content under the same id.
            UnavailableError: ``QUORUM_NOT_MET``: it is recorded, and is handed out to the same request once the
                witnesses have seen that.
        """
        caller.require_unit(unit_of(request.model), request.model)
        content = requests.digest(request)

        def work(uow: UnitOfWork) -> PermitRow:
            before = requests.answered(uow.connection, caller.subject, _METHOD, request.request_id, content)
            if before:
                return _require(uow.connection, before)
            row = self._issue(uow, caller, request)
            requests.remember(uow.connection, caller.subject, _METHOD, request.request_id, content, row.name)
            return row

        row = await self.store.commit(work)
        await self.store.published(row.record_index)
        return permit_pb2.IssuePermitResponse(permit=await self.store.fetch(lambda c: self._message(c, row)))

    async def check_permit(
        self, caller: Caller, request: permit_pb2.CheckPermitRequest
    ) -> permit_pb2.CheckPermitResponse:
        """Says whether a permit holds now for what the caller hashed; who doubts the answer verifies the permit.

        Raises:
            NotFoundError: ``NOT_FOUND``.
        """
        caller.require_unit(unit_of(request.name), request.name)

        def read(connection: Connection) -> permit_pb2.CheckPermitResponse:
            row = _require(connection, request.name)
            job = jobs.get(connection, row.job)
            reason = _objection(row, job, request, rows.micros(dt.datetime.now(dt.UTC)))
            model = rows.get(connection, ModelRow, name=row.model)
            signers = quorum_of(connection, job, model.card_sha256) if job and model else []
            found = Doubt()
            if job:
                found = doubt(connection, self.store.ledger, self.people, job, signers, row.record_index)
            if not reason and found.key:
                reason = f"{found.key} signed with a key that may have been in other hands"
            if not reason and found.role:
                reason = f"{found.role} signed by a grant that a thief may have made"
            if not reason and found.permit:
                reason = "its permit key was brought in by an order that a thief may have signed"
            if not reason and not self._covering(row)[1]:
                reason = "the witnesses have not cosigned its record yet"
            return permit_pb2.CheckPermitResponse(
                allowed=not reason, reason=reason, permit=self._message(connection, row)
            )

        return await self.store.fetch(read)

    async def revoke_permit(
        self, caller: Caller, request: permit_pb2.RevokePermitRequest
    ) -> permit_pb2.RevokePermitResponse:
        """Revokes a permit at once. Who checks offline learns of it at the latest when the permit ends.

        Raises:
            NotFoundError: ``NOT_FOUND``.
            InvalidInputError: ``REASON_CODE``.
            PreconditionError: ``PERMIT_REVOKED`` when it was revoked before.
        """
        caller.require_unit(unit_of(request.name), request.name)
        statements.check_code(request.reason, statements.REVOCATION_REASONS)

        def work(uow: UnitOfWork) -> PermitRow:
            row = _require(uow.connection, request.name)
            if row.revoked_us:
                raise PreconditionError("PERMIT_REVOKED", f"{row.name} was revoked before")
            return void_permit(uow, row, caller.subject, caller.trace_id, request.reason)

        row = await self.store.commit(work)
        return permit_pb2.RevokePermitResponse(permit=await self.store.fetch(lambda c: self._message(c, row)))

    def _issue(self, uow: UnitOfWork, caller: Caller, request: permit_pb2.IssuePermitRequest) -> PermitRow:
        model = rows.get(uow.connection, ModelRow, name=request.model)
        if model is None:
            raise not_found(request.model)
        job = jobs.get(uow.connection, model.job)
        if job is None or job.state != State.APPROVED:
            state = job.state if job else "no state"
            raise PreconditionError("NOT_APPROVED", f"{request.model} is {state}", remedy="have it approved first")
        if model.issued_version != job.version:
            raise PreconditionError(
                "CARD_NOT_ISSUED", f"the card of {request.model} is not issued yet", remedy="try again shortly"
            )
        self._demand_signers(uow.connection, job, model)
        purpose = views.request_of(job).purpose
        if request.purpose != purpose:
            raise PreconditionError(
                "PURPOSE", f"the model was approved for {purpose!r} only", remedy=f"ask for {purpose!r}"
            )
        standing.demand(uow.connection, self.policy, job, uow.now, request.environment)
        seconds = self._seconds(uow, request, job)
        signed = self._sign(uow, request, model, job, seconds, caller.subject)
        predicate = {
            **signed.predicate,
            "statement_sha256": hashlib.sha256(signed.payload).hexdigest(),
            "signature": base64.b64encode(signed.signature).decode(),
            "actor": caller.subject,
            "trace_id": caller.trace_id,
        }
        index = uow.append(RecordDraft(job.unit, "permit.issued", "permit", predicate, signed.subjects, job=job.name))
        row = PermitRow(
            name=signed.predicate["permit"],
            unit=job.unit,
            model=model.name,
            job=job.name,
            adapter_sha256=model.adapter_sha256,
            base_sha256=model.base_sha256,
            purpose=purpose,
            environment=request.environment,
            not_before_us=signed.not_before_us,
            not_after_us=signed.not_before_us + seconds * 1_000_000,
            evidence_root=signed.predicate["evidence_root"],
            statement=signed.payload,
            signature=signed.signature,
            record_index=index,
        )
        rows.insert(uow.connection, row)
        return row

    def _demand_signers(self, connection: Connection, job: JobRow, model: ModelRow) -> None:
        """Whoever signed holds the role, and no thief can have signed, granted it or brought in the permit key.

        Raises:
            PreconditionError: ``SIGNER_ROLE``, ``SIGNER_KEY``, ``KEY_IN_DOUBT``.
        """
        signers = quorum_of(connection, job, model.card_sha256)
        gone = who_left(connection, job, signers)
        found = doubt(connection, self.store.ledger, self.people, job, signers)
        remedy = "have the approval revoked for {}, and the model approved anew"
        if gone:
            raise PreconditionError(
                "SIGNER_ROLE",
                f"{gone} signed it, and no longer holds the role",
                remedy=f"{remedy.format(statements.SIGNER_LEFT)} by others",
            )
        if found.key:
            raise PreconditionError(
                "SIGNER_KEY",
                f"{found.key} signed, perhaps not in person",
                remedy=f"{remedy.format(statements.SIGNER_KEY)} by others",
            )
        if found.role:
            raise PreconditionError(
                "SIGNER_ROLE",
                f"{found.role} signed it by a grant that a thief may have made",
                remedy=f"grant the role anew if it was meant, {remedy.format(statements.SIGNER_LEFT)}",
            )
        if found.permit:
            raise PreconditionError(
                "KEY_IN_DOUBT",
                "a thief may have signed the order that brought in the permit key",
                remedy="assay key rotate permit DIR",
            )

    def _seconds(self, uow: UnitOfWork, request: permit_pb2.IssuePermitRequest, job: JobRow) -> int:
        """How long the permit lasts.

        Whoever checks it offline learns of no waiver's end, of no approval's and of no rule's beginning, so it ends
        with them.

        Raises:
            PreconditionError: ``TOO_LONG``, ``NOT_APPROVED`` when the approval has lapsed.
        """
        end = standing.ends(uow.connection, self.policy, job, uow.now, request.environment)
        left = end - uow.now.replace(microsecond=0)
        longest = min(self.settings.limits.permit_seconds, _DAY, int(left.total_seconds()))
        if longest < 1:
            raise PreconditionError(
                "NOT_APPROVED", f"the approval of {request.model} has lapsed", remedy="ask for a new job"
            )
        if request.valid_seconds > longest:
            raise PreconditionError(
                "TOO_LONG",
                f"a permit of {request.model} lasts at most {longest} seconds now",
                remedy="ask for fewer, or leave it out",
            )
        return request.valid_seconds or longest

    def _sign(
        self,
        uow: UnitOfWork,
        request: permit_pb2.IssuePermitRequest,
        model: ModelRow,
        job: JobRow,
        seconds: int,
        asker: str,
    ) -> _Signed:
        size, root = evidence_of(uow.connection, self.store.publication, model)
        start = uow.now.replace(microsecond=0)
        short = hashlib.sha256(f"{asker}\0{request.request_id}".encode()).hexdigest()[:32]
        predicate = {
            "permit": f"units/{job.unit}/permits/{short}",
            "model": model.name,
            "job": job.name,
            "creator": job.creator,
            "adapter_sha256": model.adapter_sha256,
            "base_sha256": model.base_sha256,
            "purpose": request.purpose,
            "environment": request.environment,
            "not_before": statements.rfc3339(start),
            "not_after": statements.rfc3339(start + dt.timedelta(seconds=seconds)),
            "evidence_root": root.hex(),
            "evidence_size": size,
        }
        subjects = (("adapter", model.adapter_sha256), ("base", model.base_sha256))
        payload = canonical.encode(dsse.statement("permit", predicate, subjects))
        envelope = dsse.sign_service(payload, self.key)
        signature = base64.b64decode(envelope["signatures"][0]["sig"])
        return _Signed(predicate, subjects, payload, signature, rows.micros(start))

    def _message(self, connection: Connection, row: PermitRow) -> permit_pb2.Permit:
        """The permit with proofs that lead to the first published checkpoint that covers it: always the same ones.

        Without one it has no proofs: such a permit holds nowhere.
        """
        model = rows.get(connection, ModelRow, name=row.model)
        job = jobs.get(connection, row.job)
        signed = quorum_of(connection, job, model.card_sha256) if job and model else []
        size, checkpoint = self._covering(row)
        held = [(a.subject, a.role, row.unit, a.record_index) for a in signed]
        # An offline check takes the keys from the trust file, and what has changed since from these.
        events = [event for event in key_registry.recorded(connection) if event.index < size]
        held += [(event.signer.subject, OPERATOR, ALL_UNITS, event.index) for event in events]
        grants = grants_behind(connection, self.store.ledger, self.people.root, held)
        card = model.card_index if model else row.record_index
        rests = {*(a.record_index for a in signed), *(e.index for e in events), *grants}
        # Who asked for the job may not have approved it, and its first record says who that is.
        asked = [r.index for r in self.store.ledger.records(row.unit, row.job, -1, 1) if r.index < size]
        # A void permit is older than the card of an approval since.
        indices = sorted(i for i in {row.record_index, card, *rests, *asked} if i < size)
        message = permit_pb2.Permit(
            name=row.name,
            model=row.model,
            adapter_sha256=row.adapter_sha256,
            base_sha256=row.base_sha256,
            purpose=row.purpose,
            environment=row.environment,
            not_before=rows.timestamp(row.not_before_us),
            not_after=rows.timestamp(row.not_after_us),
            evidence_root=row.evidence_root,
            statement=row.statement,
            signature=row.signature,
            approvals=[views.approval(a) for a in signed],
            proofs=[self._proof(i, size) for i in indices] if checkpoint else [],
            checkpoint=checkpoint,
            consistency=self._consistency(row, size) if checkpoint else [],
        )
        if row.revoked_us:
            message.revoke_time.CopyFrom(rows.timestamp(row.revoked_us))
        return message

    def _covering(self, row: PermitRow) -> tuple[int, bytes]:
        """The published checkpoint that a permit shows; size 0 and nothing while there is none."""
        try:
            return self.store.publication.covering(row.record_index)
        except UnavailableError:
            return 0, b""

    def _consistency(self, row: PermitRow, size: int) -> list[bytes]:
        """Shows that what people signed over is a prefix of the log that the permit's checkpoint is of."""
        signed = dsse.read_statement(row.statement)["predicate"]["evidence_size"]
        return self.store.ledger.consistency_proof(signed, size)

    def _proof(self, index: int, size: int) -> audit_pb2.RecordProof:
        ledger = self.store.ledger
        hashes = ledger.inclusion_proof(index, size)
        return audit_pb2.RecordProof(index=index, tree_size=size, hashes=hashes, body=ledger.record(index).body)


@dataclass(frozen=True)
class _Signed:
    """A permit's statement as signed."""

    predicate: Mapping[str, Any]
    subjects: tuple[tuple[str, str], ...]
    payload: bytes
    signature: bytes
    not_before_us: int


def void_permits(uow: UnitOfWork, job: str, actor: str, trace_id: str, reason: str) -> int:
    """Revokes every permit of a job that still holds, within a unit of work; returns how many."""
    held = rows.select_all(uow.connection, PermitRow, order_by="record_index", job=job, revoked_us=0)
    for row in held:
        void_permit(uow, row, actor, trace_id, reason)
    return len(held)


def void_permit(uow: UnitOfWork, row: PermitRow, actor: str, trace_id: str, reason: str) -> PermitRow:
    """Revokes a permit within a unit of work."""
    predicate = {"permit": row.name, "job": row.job, "reason": reason, "actor": actor, "trace_id": trace_id}
    uow.append(RecordDraft(row.unit, "permit.revoked", "permit-revocation", predicate, job=row.job))
    values = {"revoked_us": rows.micros(uow.now), "revoke_reason": reason}
    rows.update(uow.connection, PermitRow, {"name": row.name}, values)
    return PermitRow(**{**row.model_dump(), **values})


def _objection(row: PermitRow, job: JobRow | None, request: permit_pb2.CheckPermitRequest, now_us: int) -> str:
    """The first thing that is in the way, or nothing."""
    if row.revoked_us:
        return f"revoked: {row.revoke_reason}"
    if job is None or job.state != State.APPROVED:
        return "the model's approval no longer holds"
    if now_us < row.not_before_us:
        return "not valid yet"
    if now_us >= row.not_after_us:
        return "expired"
    compared = {
        "adapter digest": (request.adapter_sha256, row.adapter_sha256),
        "base model digest": (request.base_sha256, row.base_sha256),
        "purpose": (request.purpose, row.purpose),
        "environment": (request.environment, row.environment),
    }
    wrong = [what for what, (asked, permitted) in compared.items() if asked != permitted]
    if wrong:
        return f"another {wrong[0]} than permitted"
    return outside(request.place, views.request_of(job).use.jurisdictions) if request.place else ""


def _require(connection: Connection, name: str) -> PermitRow:
    row = rows.get(connection, PermitRow, name=name)
    if row is None:
        raise not_found(name)
    return row
