"""A signed waiver: another person than the maker answers for the rules that refused a job, and it goes on."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from assay.errors import InvalidInputError, PreconditionError
from assay.v1 import policy_input_pb2
from audit.ledger.records import RecordDraft
from audit.ledger.writer import UnitOfWork
from gateway import lineage, standing, statements
from gateway.admission import account
from gateway.caller import Caller
from gateway.erasures import demand_not_erased, demand_usable
from gateway.history import INTAKE_QUESTION
from gateway.identity_registry import require_live_role
from gateway.jobs import appeals, machine, views
from gateway.jobs.transitions import ActorKind, Event, State
from gateway.store import jobs
from gateway.store.tables import JobRow
from policies.engine import PolicyEngine
from policies.rule import GOOD


def check(uow: UnitOfWork, policy: PolicyEngine, job: JobRow, caller: Caller, signed: statements.SignedWaiver) -> None:
    """Demands that the waiver names every rule that stands in the way and none else, by who may waive each, in time.

    Raises:
        PreconditionError: ``JOB_STATE``, ``WAIVER_EXPIRED``, ``RULES_LEFT``, ``NOT_WAIVABLE``, ``WAIVER_TOO_LONG``, or
            a reason of :func:`gateway.erasures.demand_not_erased`, :func:`gateway.erasures.demand_usable` or
            :func:`gateway.standing.demand_intake`.
        InvalidInputError: ``STATEMENT`` for a rule that did not fire.
        PermissionDeniedError: ``ROLE_MISSING``, ``MAKER_CHECKER`` for who filed the appeal that waits.
    """
    if job.state not in (State.DENIED, State.QUARANTINED) or (job.state == State.QUARANTINED and job.needs_work):
        raise PreconditionError("JOB_STATE", f"a job in {job.state} has no rules to waive")
    demand_not_erased(uow.connection, job.name)
    appeal = appeals.waiting(job, jobs.transitions(uow.connection, job.name))
    if appeal is not None:
        # A waiver is the yes to it.
        appeals.refuse_filer(appeal, caller.subject)
    if signed.expires < uow.now.date().isoformat():
        raise PreconditionError("WAIVER_EXPIRED", "the waiver has expired")
    if job.state == State.DENIED:
        # It would go on to train on the rows, and from the adapter that it names or by its answers.
        request = views.request_of(job)
        demand_usable(uow.connection, request.dataset, uow.now)
        for model in sorted(lineage.learns_from(request)):
            demand_not_erased(uow.connection, lineage.job_of(uow.connection, model))
    fired = {o.rule_id: o for o in views.outcomes(job) if o.outcome not in GOOD}
    if set(signed.rules) - set(fired):
        odd = ", ".join(sorted(set(signed.rules) - set(fired)))
        raise InvalidInputError("STATEMENT", f"these rules did not fire: {odd[:200]}")
    if set(fired) - set(signed.rules):
        left = ", ".join(sorted(set(fired) - set(signed.rules)))
        raise PreconditionError(
            "RULES_LEFT", f"the job would still be refused by {left[:200]}", remedy="waive all or none"
        )
    for rule_id, outcome in fired.items():
        if not outcome.waivable_by:
            raise PreconditionError("NOT_WAIVABLE", f"{rule_id} cannot be waived")
        longest = uow.now.date() + dt.timedelta(days=outcome.waiver_days)
        if outcome.waiver_days and signed.expires > longest.isoformat():
            raise PreconditionError(
                "WAIVER_TOO_LONG",
                f"{rule_id} may be waived for {outcome.waiver_days} days at most",
                remedy=f"sign a waiver that expires on {longest} or before",
            )
        require_live_role(uow.connection, caller.subject, statements.role_name(outcome.waivable_by), job.unit)
    if job.state == State.DENIED:
        standing.demand_intake(uow.connection, policy, job, uow.now, signed.rules)


def waive_rules(
    uow: UnitOfWork, job: JobRow, caller: Caller, signed: statements.SignedWaiver, envelope: Mapping[str, Any]
) -> JobRow:
    """Records a checked waiver and moves the job back into the path, where it reserves what it may use up."""
    index = uow.append(RecordDraft(job.unit, "rules.waived", "waiver", {}, envelope=envelope, job=job.name))
    told = {**asdict(signed), "subject": caller.subject, "index": index}
    change = machine.Change(
        Event.WAIVE,
        caller.subject,
        ActorKind.SIGNER,
        predicate={"rules": list(signed.rules), "waiver_index": index, "expires": signed.expires},
        words=signed.reason_commitment,
        facts={f"waiver.{job.version}": json.dumps(told)},
        trace_id=caller.trace_id,
    )
    changed = machine.transition(uow, job.name, change)
    if changed.job.state == State.QUEUED:
        asked = jobs.facts(uow.connection, job.name)[INTAKE_QUESTION]
        question = views.from_json(asked, policy_input_pb2.IntakeInput)
        account.reserve(uow, changed.index, job, question, None)
    return changed.job
