"""People's decisions: signed by their own keys over card and evidence root, counted by role and by subject."""

from __future__ import annotations

import datetime as dt
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, func, select

from assay import dsse
from assay.errors import AlreadyExistsError, InvalidInputError, PermissionDeniedError, PreconditionError
from assay.v1 import approval_pb2, identity_pb2, tuning_job_pb2
from audit.ledger.payloads import ScopeKeys
from audit.ledger.records import RecordDraft
from audit.ledger.writer import UnitOfWork
from gateway import dismissals, pages, raises, standing, statements, waivers, words
from gateway.caller import ALL_UNITS, Caller, not_found
from gateway.erasures import demand_not_erased
from gateway.identity_registry import COMPLIANCE_OFFICER, holds_role, require_live_role, verify_signed
from gateway.jobs import appeals, machine, views
from gateway.jobs.board import Board
from gateway.jobs.transitions import ActorKind, Event, State
from gateway.key_registry import People
from gateway.names import unit_of
from gateway.permits import void_permits
from gateway.settings import Settings
from gateway.signers import doubt, quorum_of, who_left
from gateway.store import jobs, rows
from gateway.store.database import Store
from gateway.store.tables import ApprovalRow, DatasetRow, JobRow, ModelRow
from gateway.witnesses import evidence_of
from policies.authorization import Authorizer
from policies.engine import PolicyEngine

_LOG = logging.getLogger(__name__)
_SKEW = dt.timedelta(seconds=60)
_ISSUE_GRACE = dt.timedelta(seconds=60)

Envelope = Mapping[str, Any]
Statement = Mapping[str, Any]
SignedRequest = (
    approval_pb2.WaiveRulesRequest
    | approval_pb2.RaiseBudgetRequest
    | approval_pb2.DismissAppealRequest
    | approval_pb2.RevokeApprovalRequest
)
S = TypeVar(
    "S", statements.SignedWaiver, statements.SignedRaise, statements.SignedDismissal, statements.SignedRevocation
)


class CardIssuer(Protocol):
    """Makes the signed card of an approved job."""

    async def issue(self, job: str) -> None:
        """Renders, signs and records the card with its approvals; does nothing when that was done."""


@dataclass(frozen=True)
class ApprovalService:
    """Domain service of approvals, waivers and revocations."""

    settings: Settings
    store: Store
    policy: PolicyEngine
    board: Board
    people: People
    cards: CardIssuer
    keys: ScopeKeys
    authorizer: Authorizer

    async def list_pending_approvals(
        self, caller: Caller, request: approval_pb2.ListPendingApprovalsRequest
    ) -> approval_pb2.ListPendingApprovalsResponse:
        """Jobs that wait for people, oldest first, with everything that must be signed.

        For all units together they are those of each unit for which the caller may ask by itself.

        Raises:
            NotFoundError: ``NOT_FOUND`` for a unit that the caller has no role in.
            InvalidInputError: ``PAGE_TOKEN``.
            UnavailableError: ``QUORUM_NOT_MET``: nobody is asked to sign over what the witnesses have not seen.
        """
        unit, c = unit_of(request.parent), rows.table(JobRow).c
        where: list[Any] = [c.state == State.AWAITING_APPROVAL.value, c.needs_work.is_(False)]
        if unit != ALL_UNITS:
            caller.require_unit(unit, request.parent)
            await self.store.require_unit(unit, request.parent)
            where.append(c.unit == unit)
        else:
            may = [u for u in self.settings.units if caller.may("ListPendingApprovals", u, self.authorizer)]
            where.append(c.unit.in_(may))
        listing = pages.Listing.of(f"approvals {request.parent}", request)

        def read(c: Connection) -> approval_pb2.ListPendingApprovalsResponse:
            show = partial(self._pending, c)
            pending, token = listing.read(
                c, JobRow, show, time="updated_us", name="name", newest_first=False, where=where
            )
            return approval_pb2.ListPendingApprovalsResponse(pending_approvals=pending, next_page_token=token)

        newest = await self.store.fetch(lambda c: self._newest_card(c, where))
        if newest >= 0:
            await self.store.published(newest)
        return await self.store.fetch(read)

    async def decide_approval(
        self, caller: Caller, request: approval_pb2.DecideApprovalRequest
    ) -> approval_pb2.DecideApprovalResponse:
        """Records a signed grant or refusal.

        The last grant of the quorum approves the job and its card is issued; one refusal ends it.

        Raises:
            NotFoundError: ``NOT_FOUND``.
            AbortedError: ``ETAG`` when the job is no longer the one that was signed.
            PreconditionError: ``NOT_PENDING``, ``ROLE_NOT_MISSING``, ``WAIVER_EXPIRED``, ``POLICY_CHANGED``.
            PermissionDeniedError: ``SIGNER``, ``MAKER_CHECKER``, ``ROLE_MISSING``, ``REFUSER`` on an appeal.
            AlreadyExistsError: ``SIGNED_BEFORE`` for a subject or key that has signed this card.
            InvalidInputError, IntegrityError: the envelope does not hold, or signs other things than are pending
                (``SIGNED_OTHER``), or other words than came with it (``COMMITMENT_MISMATCH``).
        """
        caller.require_unit(unit_of(request.name), request.name)
        envelope = dsse.envelope_from_proto(request.envelope)
        approval, approved = await self.store.commit(lambda uow: self._decide(uow, caller, request, envelope))
        self.board.moved(request.name)
        if approved:
            try:
                await self.cards.issue(request.name)
            except Exception:
                # The approval stands; the pipeline issues the card once the grace is over.
                _LOG.exception("card of %s not issued yet", request.name)
            self.board.moved(request.name)
        message = await self.store.fetch(lambda c: self._whole(c, _require(c, request.name)))
        return approval_pb2.DecideApprovalResponse(approval=approval, tuning_job=message)

    async def waive_rules(
        self, caller: Caller, request: approval_pb2.WaiveRulesRequest
    ) -> approval_pb2.WaiveRulesResponse:
        """Records a signed waiver of every rule that stands in the way, and moves the job back into the path.

        Raises:
            NotFoundError: ``NOT_FOUND``.
            AbortedError: ``ETAG``.
            PreconditionError: ``JOB_STATE``, ``NOT_WAIVABLE``, ``RULES_LEFT``, ``WAIVER_EXPIRED``,
                ``WAIVER_TOO_LONG``.
            PermissionDeniedError: ``SIGNER``, ``MAKER_CHECKER``, ``ROLE_MISSING``.
            InvalidInputError, IntegrityError: the envelope does not hold.
        """

        def act(uow: UnitOfWork, job: JobRow, signed: statements.SignedWaiver, envelope: Envelope) -> JobRow:
            _refuse_maker(job, caller)
            _refuse_uploader(uow.connection, job, caller)
            waivers.check(uow, self.policy, job, caller, signed)
            said = [
                (request.reason, signed.reason_commitment),
                (request.compensating_control, signed.compensating_control_commitment),
            ]
            words.accept(uow.connection, self.keys, job.unit, job.name, said)
            return waivers.waive_rules(uow, job, caller, signed, envelope)

        message = await self._act(caller, request, statements.read_waiver, act)
        return approval_pb2.WaiveRulesResponse(tuning_job=message)

    async def raise_budget(
        self, caller: Caller, request: approval_pb2.RaiseBudgetRequest
    ) -> approval_pb2.RaiseBudgetResponse:
        """Records a signed raise of a paused job's budget, and lets the job go on where it stopped.

        Raises:
            NotFoundError: ``NOT_FOUND``.
            AbortedError: ``ETAG``.
            PreconditionError: ``JOB_STATE`` or ``POLICY``.
            PermissionDeniedError: ``SIGNER``, ``MAKER_CHECKER``, ``ROLE_MISSING``.
            InvalidInputError, IntegrityError: the envelope does not hold, or ``BUDGET_NOT_RAISED``.
        """

        def act(uow: UnitOfWork, job: JobRow, signed: statements.SignedRaise, envelope: Envelope) -> JobRow:
            _refuse_maker(job, caller)
            words.accept(uow.connection, self.keys, job.unit, job.name, [(request.reason, signed.reason_commitment)])
            return raises.raise_budget(uow, self.policy, job, caller, signed, envelope)

        message = await self._act(caller, request, statements.read_raise, act)
        return approval_pb2.RaiseBudgetResponse(tuning_job=message)

    async def dismiss_appeal(
        self, caller: Caller, request: approval_pb2.DismissAppealRequest
    ) -> approval_pb2.DismissAppealResponse:
        """Records a signed no to an appeal against policy's refusal; the job stays as it is.

        Raises:
            NotFoundError: ``NOT_FOUND``.
            AbortedError: ``ETAG``.
            PreconditionError: ``NO_APPEAL``.
            PermissionDeniedError: ``SIGNER``, ``MAKER_CHECKER``, ``ROLE_MISSING``.
            InvalidInputError, IntegrityError: the envelope does not hold.
        """

        def act(uow: UnitOfWork, job: JobRow, signed: statements.SignedDismissal, envelope: Envelope) -> JobRow:
            _refuse_maker(job, caller)
            words.accept(uow.connection, self.keys, job.unit, job.name, [(request.reason, signed.reason_commitment)])
            return dismissals.dismiss_appeal(uow, job, caller, signed, envelope)

        message = await self._act(caller, request, statements.read_dismissal, act)
        return approval_pb2.DismissAppealResponse(tuning_job=message)

    async def revoke_approval(
        self, caller: Caller, request: approval_pb2.RevokeApprovalRequest
    ) -> approval_pb2.RevokeApprovalResponse:
        """Records a signed revocation: the job is no longer approved and every permit of it is void.

        One for a signer, who has lost the role or whose key a thief may have had, says nothing against the model: it
        waits for other people, with a new card.

        Raises:
            NotFoundError: ``NOT_FOUND``.
            AbortedError: ``ETAG``.
            PreconditionError: ``JOB_STATE``, or ``SIGNERS_HOLD`` when it is for a signer and none is at fault.
            PermissionDeniedError: ``SIGNER`` or ``ROLE_MISSING``.
            InvalidInputError, IntegrityError: the envelope does not hold.
        """

        def act(uow: UnitOfWork, job: JobRow, signed: statements.SignedRevocation, envelope: Envelope) -> JobRow:
            require_live_role(uow.connection, caller.subject, COMPLIANCE_OFFICER, job.unit)
            if job.state != State.APPROVED:
                raise PreconditionError("JOB_STATE", f"a job in {job.state} has no approval to revoke")
            if signed.reason in statements.APPROVE_ANEW:
                self._demand_fault(uow.connection, job, signed.reason)
            index = uow.append(
                RecordDraft(job.unit, "approval.revoked", "revocation", {}, envelope=envelope, job=job.name)
            )
            void_permits(uow, job.name, caller.subject, caller.trace_id, "approval-revoked")
            change = machine.Change(
                Event.REVOKE,
                caller.subject,
                ActorKind.SIGNER,
                signed.reason,
                {"revocation_index": index},
                trace_id=caller.trace_id,
            )
            return machine.transition(uow, job.name, change).job

        message = await self._act(caller, request, statements.read_revocation, act)
        return approval_pb2.RevokeApprovalResponse(tuning_job=message)

    async def _act(
        self,
        caller: Caller,
        request: SignedRequest,
        read: Callable[[Statement], S],
        act: Callable[[UnitOfWork, JobRow, S, Envelope], JobRow],
    ) -> tuning_job_pb2.TuningJob:
        """Does what a person signed, in one commit, if it was signed by the caller over the job as it stands."""
        caller.require_unit(unit_of(request.name), request.name)
        envelope = dsse.envelope_from_proto(request.envelope)

        def work(uow: UnitOfWork) -> tuning_job_pb2.TuningJob:
            job = _require(uow.connection, request.name)
            signed = read(verify_signed(envelope, self.people, uow.now, caller.subject).statement)
            self._bind(job, request.etag, signed.job, signed.etag)
            return self._whole(uow.connection, act(uow, job, signed, envelope))

        message = await self.store.commit(work)
        self.board.moved(request.name)
        return message

    def _decide(
        self,
        uow: UnitOfWork,
        caller: Caller,
        request: approval_pb2.DecideApprovalRequest,
        envelope: Envelope,
    ) -> tuple[approval_pb2.Approval, bool]:
        c = uow.connection
        job = _require(c, request.name)
        verified = verify_signed(envelope, self.people, uow.now, caller.subject)
        signed = statements.read_approval(verified.statement)
        self._bind(job, request.etag, signed.job, signed.etag)
        if job.state != State.AWAITING_APPROVAL or job.needs_work:
            raise PreconditionError("NOT_PENDING", f"{job.name} does not wait for approval")
        demand_not_erased(c, job.name)
        _refuse_maker(job, caller)
        _refuse_uploader(c, job, caller)
        appeal = appeals.waiting(job, jobs.transitions(c, job.name))
        if appeal is not None:
            appeals.refuse_filer(appeal, caller.subject)
        pending = self._pending(c, job)
        _same(signed, pending)
        keyid = verified.signers[0].keyid
        # First: whoever missed the answer to a grant learns that it counted, and not that none is missing.
        for known in _approvals(c, job.name, pending.card_sha256):
            if known.subject == caller.subject or known.keyid == keyid:
                raise AlreadyExistsError("SIGNED_BEFORE", "this person or key has decided on this card already")
        self._check_age(signed, uow.now)
        role = statements.role_name(signed.role)
        granted = signed.decision == statements.GRANT
        self._check_role(c, job, caller, role, pending, granted=granted)
        if granted:
            standing.demand(c, self.policy, job, uow.now)
        for known in rows.select_all(c, ApprovalRow, job=job.name, granted=False):
            if known.subject == caller.subject or known.keyid == keyid:
                raise PermissionDeniedError("REFUSER", "who refused the job cannot decide on the appeal")
        words.accept(c, self.keys, job.unit, job.name, [(request.reason, signed.reason_commitment)])
        index = uow.append(RecordDraft(job.unit, "approval.decided", "approval", {}, envelope=envelope, job=job.name))
        row = ApprovalRow(
            job=job.name,
            card_sha256=pending.card_sha256,
            subject=caller.subject,
            keyid=keyid,
            role=role,
            granted=granted,
            reason=words.reference(signed.reason_commitment),
            time_us=rows.micros(uow.now),
            record_index=index,
            envelope=json.dumps(dict(envelope)),
        )
        rows.insert(c, row)
        return self._shown(c, row), self._move(uow, job, caller, row, index, signed.reason_commitment)

    def _whole(self, connection: Connection, job: JobRow) -> tuning_job_pb2.TuningJob:
        return words.show(connection, self.keys, views.whole(connection, job))

    def _shown(self, connection: Connection, row: ApprovalRow) -> approval_pb2.Approval:
        return views.approval(row, words.shown(connection, self.keys, row.reason))

    def _move(self, uow: UnitOfWork, job: JobRow, caller: Caller, row: ApprovalRow, index: int, said: str) -> bool:
        """Ends the wait: a refusal rejects, the last missing grant approves. True when approved."""
        missing = self._missing(uow.connection, job, row.card_sha256)
        if row.granted and missing:
            return False
        predicate = {"approval_index": index, "card_sha256": row.card_sha256}
        if not row.granted:
            change = machine.Change(
                Event.REJECT,
                caller.subject,
                ActorKind.PERSON,
                predicate=predicate,
                trace_id=caller.trace_id,
                words=said,
            )
        else:
            lapses = uow.now + dt.timedelta(days=self.settings.limits.approval_days)
            values = {"approved_until_us": rows.micros(lapses), "next_us": rows.micros(uow.now + _ISSUE_GRACE)}
            change = machine.Change(
                Event.APPROVE,
                caller.subject,
                ActorKind.PERSON,
                "the quorum has signed",
                {**predicate, "approved_until": statements.rfc3339(lapses)},
                values=values,
                trace_id=caller.trace_id,
                missing_roles=missing,
            )
        machine.transition(uow, job.name, change)
        return row.granted

    def _demand_fault(self, connection: Connection, job: JobRow, reason: str) -> None:
        """A revocation for a signer is for one who left, or whose key or role is in doubt: it prolongs an approval."""
        model = rows.get(connection, ModelRow, name=job.model)
        signers = quorum_of(connection, job, model.card_sha256) if model is not None else []
        found = doubt(connection, self.store.ledger, self.people, job, signers)
        left = who_left(connection, job, signers) or found.role
        if not (left if reason == statements.SIGNER_LEFT else found.key):
            raise PreconditionError(
                "SIGNERS_HOLD",
                f"{reason}: everybody who signed holds the role, with neither role nor key in doubt",
                remedy=f"name what is wrong with the model: {', '.join(statements.REVOCATION_REASONS)}",
            )

    def _pending(self, connection: Connection, job: JobRow) -> approval_pb2.PendingApproval:
        model = rows.get(connection, ModelRow, name=job.model)
        if model is None or model.card_version != job.version:
            raise PreconditionError("NOT_PENDING", f"the card of {job.name} is not rendered yet")
        size, root = evidence_of(connection, self.store.publication, model)
        signed = _approvals(connection, job.name, model.card_sha256)
        shown = views.summary(job)
        return approval_pb2.PendingApproval(
            tuning_job=job.name,
            etag=machine.etag(job.name, job.version),
            creator=job.creator,
            verdict=shown.verdict,
            card_sha256=model.card_sha256,
            card_record_index=model.card_index,
            evidence_root=root.hex(),
            evidence_size=size,
            adapter_sha256=model.adapter_sha256,
            base_sha256=model.base_sha256,
            purpose=shown.purpose,
            audit_profile=shown.audit_profile,
            use=shown.use if shown.HasField("use") else None,
            use_reading=shown.decision.use_reading if shown.decision.HasField("use_reading") else None,
            missing_roles=self._missing(connection, job, model.card_sha256),
            approvals=[self._shown(connection, a) for a in signed],
        )

    def _newest_card(self, connection: Connection, where: Sequence[Any]) -> int:
        """Index of the newest card among jobs that wait; -1 for none."""
        model = rows.table(ModelRow)
        newest = select(func.max(model.c.card_index)).join(
            rows.table(JobRow), rows.table(JobRow).c.model == model.c.name
        )
        found = connection.execute(newest.where(*where)).scalar()
        return -1 if found is None else int(found)

    def _quorum(self) -> list[str]:
        return [identity_pb2.Role.Name(role) for role in self.policy.quorum()]

    def _missing(self, connection: Connection, job: JobRow, card_sha256: str) -> tuple[str, ...]:
        """Roles of the quorum that nobody has signed under who holds them now; one asked for twice needs two people."""
        left = self._quorum()
        for row in _approvals(connection, job.name, card_sha256):
            if row.granted and row.role in left and holds_role(connection, row.subject, row.role, job.unit):
                left.remove(row.role)
        return tuple(left)

    def _check_role(
        self,
        connection: Connection,
        job: JobRow,
        caller: Caller,
        role: str,
        pending: approval_pb2.PendingApproval,
        *,
        granted: bool,
    ) -> None:
        require_live_role(connection, caller.subject, role, job.unit)
        missing = {identity_pb2.Role.Name(r) for r in pending.missing_roles}
        if granted and role not in missing:
            raise PreconditionError("ROLE_NOT_MISSING", f"no signature under {role} is missing")
        if not granted and role not in self._quorum():
            raise PermissionDeniedError("ROLE_MISSING", f"{role} has no say in this approval")

    def _check_age(self, signed: statements.SignedApproval, now: dt.datetime) -> None:
        at = statements.parse_time(signed.signed_at, "approval")
        if not now - dt.timedelta(seconds=self.settings.limits.signature_age_seconds) <= at <= now + _SKEW:
            raise PreconditionError("SIGNATURE_AGE", "the signature is too old or from the future", remedy="sign again")

    def _bind(self, job: JobRow, etag: str, signed_job: str, signed_etag: str) -> None:
        if signed_job != job.name:
            raise InvalidInputError("SIGNED_OTHER", "the signed statement is about another job")
        machine.demand_etag(job, etag, signed_etag)


def _same(signed: statements.SignedApproval, pending: approval_pb2.PendingApproval) -> None:
    """Demands that every digest, index and purpose signed is the pending one."""
    wanted = {
        "card_sha256": pending.card_sha256,
        "card_index": pending.card_record_index,
        "evidence_root": pending.evidence_root,
        "evidence_size": pending.evidence_size,
        "adapter_sha256": pending.adapter_sha256,
        "base_sha256": pending.base_sha256,
        "purpose": pending.purpose,
    }
    wrong = [name for name, value in wanted.items() if getattr(signed, name) != value]
    if wrong:
        raise InvalidInputError(
            "SIGNED_OTHER", f"the statement signs another {', '.join(wrong)}", remedy="read it again, then sign"
        )


def _refuse_maker(job: JobRow, caller: Caller) -> None:
    if caller.subject == job.creator:
        raise PermissionDeniedError(
            "MAKER_CHECKER", "who asked for a job cannot decide on it", remedy="ask another person"
        )


def _refuse_uploader(connection: Connection, job: JobRow, caller: Caller) -> None:
    dataset = rows.get(connection, DatasetRow, name=views.request_of(job).dataset)
    if dataset is not None and dataset.creator == caller.subject:
        raise PermissionDeniedError(
            "MAKER_CHECKER", "who uploaded the rows of a job cannot decide on it", remedy="ask another person"
        )


def _approvals(connection: Connection, job: str, card_sha256: str) -> list[ApprovalRow]:
    return rows.select_all(connection, ApprovalRow, order_by="time_us", job=job, card_sha256=card_sha256)


def _require(connection: Connection, name: str) -> JobRow:
    job = jobs.get(connection, name)
    if job is None:
        raise not_found(name)
    return job
