"""A signed raise of a job's budget: another person than the maker answers for more money, and the job goes on."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from assay.errors import InvalidInputError, PreconditionError
from assay.v1 import policy_input_pb2, policy_pb2
from audit.ledger.records import RecordDraft
from audit.ledger.writer import UnitOfWork
from gateway import standing, statements
from gateway.admission import account
from gateway.caller import Caller
from gateway.history import INTAKE_QUESTION
from gateway.identity_registry import COMPLIANCE_OFFICER, require_live_role
from gateway.jobs import machine, views
from gateway.jobs.transitions import ActorKind, Event, State
from gateway.store import jobs
from gateway.store.tables import JobRow
from policies.engine import PolicyEngine
from policies.rule import GOOD


def raise_budget(
    uow: UnitOfWork,
    policy: PolicyEngine,
    job: JobRow,
    caller: Caller,
    signed: statements.SignedRaise,
    envelope: Mapping[str, Any],
) -> JobRow:
    """Records the raise and resumes the job at its checkpoint; the caller has checked signature, version and maker.

    Intake policy is asked again with the new bound, since its rules on money hold for a raise as for a request; rules
    that a waiver set aside stay so.

    Raises:
        PermissionDeniedError: ``ROLE_MISSING``.
        PreconditionError: ``JOB_STATE`` for a job that is not paused, ``POLICY`` naming the rules that would refuse it,
            or a reason of :func:`gateway.standing.demand_intake`.
        InvalidInputError: ``BUDGET_NOT_RAISED``.
    """
    require_live_role(uow.connection, caller.subject, COMPLIANCE_OFFICER, job.unit)
    if job.state != State.PAUSED:
        raise PreconditionError("JOB_STATE", f"a job in {job.state} has no budget to raise", remedy="send a new job")
    least = max(job.cap_usd_micros, job.cost_usd_micros)
    if signed.max_usd_micros <= least:
        raise InvalidInputError(
            "BUDGET_NOT_RAISED",
            f"the job may cost {job.cap_usd_micros} and has cost {job.cost_usd_micros} millionths of a dollar",
            remedy=f"sign a bound above {least}",
        )
    standing.demand_intake(uow.connection, policy, job, uow.now)
    _demand_policy(uow, policy, job, signed.max_usd_micros, uow.now)
    index = uow.append(RecordDraft(job.unit, "budget.raised", "budget-raise", {}, envelope=envelope, job=job.name))
    change = machine.Change(
        Event.RESUME,
        caller.subject,
        ActorKind.SIGNER,
        predicate={"raise_index": index, "max_usd_micros": signed.max_usd_micros},
        values={"cap_usd_micros": signed.max_usd_micros},
        words=signed.reason_commitment,
        trace_id=caller.trace_id,
    )
    return machine.transition(uow, job.name, change).job


def _demand_policy(uow: UnitOfWork, policy: PolicyEngine, job: JobRow, bound: int, now: dt.datetime) -> None:
    known = jobs.facts(uow.connection, job.name)
    question = views.from_json(known[INTAKE_QUESTION], policy_input_pb2.IntakeInput)
    question.request.budget_usd_micros = bound
    question.account.CopyFrom(account.read(uow.connection, job, now))
    before = views.from_json(job.decision, policy_pb2.Decision)
    refused_before = {o.rule_id for o in before.outcomes if o.outcome not in GOOD}
    fired = sorted({o.rule_id for o in policy.decide(question).outcomes if o.outcome not in GOOD} - refused_before)
    if fired:
        raise PreconditionError(
            "POLICY",
            f"with that bound the job would be refused by {', '.join(fired)[:200]}",
            remedy="sign a lower bound",
        )
