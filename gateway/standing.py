"""Whether what was decided still stands: under the policy in force now, on this day, with the waivers that still hold.

A decision and a verdict bind the digests of rules and limits that they were made by, and the day. When others are in
force since, by another bundle or by the dates of the same rules, the question that was stored is asked again: intake's
before a waiver, a resumption and the work order, release's before anybody signs or gets a permit. So neither a policy
that was swapped meanwhile nor a rule that was to begin can let anything through that it would refuse. A trained model
is asked of intake's rules those that reach back and that were not asked then. The rules of stage ``live`` are asked
each time.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from assay.errors import PreconditionError
from assay.v1 import policy_input_pb2, policy_pb2
from gateway.history import INTAKE_QUESTION, RELEASE_QUESTION
from gateway.jobs import views
from gateway.jobs.transitions import State
from gateway.store import jobs, rows
from gateway.store.tables import JobRow
from policies.engine import PolicyEngine
from policies.rule import AT_INTAKE, AT_RELEASE, GOOD

_DAY_US = 86_400 * 1_000_000


class LapsedError(PreconditionError):
    """What was decided does not stand any more."""


def demand_intake(
    connection: Connection, policy: PolicyEngine, job: JobRow, now: dt.datetime, waiving: Iterable[str] = ()
) -> None:
    """Refuses to let a job train when what intake policy answered would not stand now.

    The account is that of the stored question: quotas, money and epsilon were reserved then.

    Args:
        connection: to read on.
        policy: in force.
        job: decided on before.
        now: of the act.
        waiving: rules that a waiver being signed sets aside.

    Raises:
        LapsedError: ``WAIVER_EXPIRED`` or ``POLICY_CHANGED``, as :func:`demand`.
    """
    known = jobs.facts(connection, job.name)
    waived = _waived(known, now.date()).union(waiving)
    question = _intake(policy, job, known, now.date())
    if question is not None:
        question.request.budget_usd_micros = job.cap_usd_micros
        said = policy.decide(question).outcomes
        _refuse("POLICY_CHANGED", "the policy in force since would refuse it", said, waived)


def demand(
    connection: Connection, policy: PolicyEngine, job: JobRow, now: dt.datetime, environment: str | None = None
) -> None:
    """Refuses when the job's verdict would not stand now.

    Args:
        connection: to read on.
        policy: in force.
        job: judged before.
        now: of the act.
        environment: where a permit would let the model run; None where no permit is asked for.

    Raises:
        LapsedError: ``WAIVER_EXPIRED`` when a waiver that let the job on has run out, ``POLICY_CHANGED`` when the
            rules in force would refuse what those before passed, or what they were not asked (:func:`_begun`),
            ``POLICY_LIVE`` when a rule of the model's life does not hold, each naming the rules.
    """
    known, day = jobs.facts(connection, job.name), now.date()
    waived = _waived(known, day)
    asked = _intake(policy, job, known, day)
    if asked is not None:
        _refuse("POLICY_CHANGED", "rules that began since would refuse it", _begun(policy, job, asked), waived)
    if RELEASE_QUESTION not in known:
        return
    question = views.from_json(known[RELEASE_QUESTION], policy_input_pb2.ReleaseInput)
    question.as_of = day.isoformat()
    verdict = views.from_json(job.verdict, policy_pb2.Verdict)
    if not _same_rules(policy, AT_RELEASE, verdict, question.request.unit, day):
        said = policy.judge(question).outcomes
        _refuse("POLICY_CHANGED", "the policy in force since would refuse it", said, waived)
    if environment is not None:
        question.live.CopyFrom(_life(connection, job, now, environment))
        _refuse("POLICY_LIVE", "it may not be used further", policy.renew(question).outcomes, waived)


def ends(connection: Connection, policy: PolicyEngine, job: JobRow, now: dt.datetime, environment: str) -> dt.datetime:
    """When what was decided on an approved job ends by itself, as far as can be told until the end of tomorrow (UTC).

    With the approval, with the last day of a waiver, or with this day where the rules of tomorrow would refuse it.
    Arguments are those of :func:`demand`.
    """
    found = [rows.moment(job.approved_until_us)]
    found += [_midnight_after(_last_day(waiver)) for waiver in _waivers(jobs.facts(connection, job.name))]
    tomorrow = _midnight_after(now.date())
    try:
        demand(connection, policy, job, tomorrow, environment)
    except LapsedError:
        found.append(tomorrow)
    return min(found)


def _same_rules(
    policy: PolicyEngine,
    stages: Sequence[str],
    answer: policy_pb2.Decision | policy_pb2.Verdict,
    unit: str,
    day: dt.date,
) -> bool:
    """Whether an answer is by the rules and limits that are in force on a day."""
    if (answer.bundle_sha256, answer.limits_sha256) != (policy.pack.bundle_sha256, policy.pack.limits_sha256):
        return False
    return policy.same_rules(stages, unit, dt.date.fromisoformat(answer.as_of), day)


def _intake(
    policy: PolicyEngine, job: JobRow, known: Mapping[str, str], day: dt.date
) -> policy_input_pb2.IntakeInput | None:
    """Intake's question as of a day; None where the answer is by the rules of that day, or nothing was asked."""
    if INTAKE_QUESTION not in known:
        return None
    question = views.from_json(known[INTAKE_QUESTION], policy_input_pb2.IntakeInput)
    decision = views.from_json(job.decision, policy_pb2.Decision)
    if _same_rules(policy, AT_INTAKE, decision, question.request.unit, day):
        return None
    question.as_of = day.isoformat()
    return question


def _begun(
    policy: PolicyEngine, job: JobRow, question: policy_input_pb2.IntakeInput
) -> Sequence[policy_pb2.RuleOutcome]:
    """What the rules of intake say of a trained model that reach back and that did not apply when it was decided on."""
    before = views.from_json(job.decision, policy_pb2.Decision).outcomes
    asked = {outcome.rule_id for outcome in before if outcome.outcome != policy_pb2.OUTCOME_NOT_APPLICABLE}
    said = policy.decide(question).outcomes
    return [o for o in said if o.rule_id not in asked and policy.reaches_back(o.rule_id)]


def _midnight_after(day: dt.date) -> dt.datetime:
    return dt.datetime.combine(day, dt.time(), dt.UTC) + dt.timedelta(days=1)


def _waived(known: Mapping[str, str], day: dt.date) -> frozenset[str]:
    """Rules that waivers set aside on a day; every one of them must last, also where others refuse too."""
    waivers = _waivers(known)
    expired = sorted({rule for waiver in waivers if _last_day(waiver) < day for rule in waiver["rules"]})
    if expired:
        raise LapsedError(
            "WAIVER_EXPIRED", f"the waiver of {', '.join(expired)} has expired", remedy="ask for a new job"
        )
    return frozenset(rule for waiver in waivers for rule in waiver["rules"])


def _waivers(known: Mapping[str, str]) -> list[dict[str, Any]]:
    return [json.loads(value) for key, value in known.items() if key.startswith("waiver.")]


def _last_day(waiver: Mapping[str, Any]) -> dt.date:
    """The last day of a waiver; of one from an earlier release that names none that can be read, long ago."""
    try:
        return dt.date.fromisoformat(waiver["expires"])
    except ValueError:
        return dt.date.min


def _refuse(reason: str, words: str, outcomes: Sequence[policy_pb2.RuleOutcome], waived: frozenset[str]) -> None:
    fired = [o for o in outcomes if o.outcome not in GOOD and o.rule_id not in waived]
    if fired:
        said = "; ".join(f"{outcome.rule_id}: {outcome.message}" for outcome in fired)
        raise LapsedError(reason, f"{words}: {said[:1000]}", remedy=fired[0].fix or "ask for a new job")


def _life(connection: Connection, job: JobRow, now: dt.datetime, environment: str) -> policy_input_pb2.LiveFacts:
    steps, now_us = jobs.transitions(connection, job.name), rows.micros(now)
    # An audit is recorded with the verdict on it, by the change out of AUDITING.
    audited = next((step.time_us for step in steps if step.from_state == State.AUDITING), now_us)
    approved = next((step.time_us for step in reversed(steps) if step.to_state == State.APPROVED), now_us)
    return policy_input_pb2.LiveFacts(
        days_since_audit=max(0, (now_us - audited) // _DAY_US),
        days_since_approval=max(0, (now_us - approved) // _DAY_US),
        environment=environment,
    )
