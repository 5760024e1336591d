"""Whether what was decided still stands: under the policy in force now, on this day, with the waivers that still hold.

A verdict binds the digests of rules and limits that it was made by, and the day. When others are in force since, by
another bundle or by the dates of the same rules, the question that was stored is asked again before anybody signs or
gets a permit, so that neither a policy that was swapped after a verdict nor a rule that was to begin after it can let
anything through that it would refuse. The rules of stage ``live`` are asked each time.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from assay.errors import PreconditionError
from assay.v1 import policy_input_pb2, policy_pb2
from gateway.history import RELEASE_QUESTION
from gateway.jobs import views
from gateway.jobs.transitions import State
from gateway.store import jobs, rows
from gateway.store.tables import JobRow
from policies.engine import PolicyEngine
from policies.rule import GOOD

_DAY_US = 86_400 * 1_000_000


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
        PreconditionError: ``WAIVER_EXPIRED`` when a waiver that let the job on has run out, ``POLICY_CHANGED`` when
            the rules in force would refuse what those before passed, ``POLICY_LIVE`` when a rule of the model's life
            does not hold, each naming the rules.
    """
    known = jobs.facts(connection, job.name)
    waivers = _waivers(known)
    expired = sorted({rule for waiver in waivers if _last_day(waiver) < now.date() for rule in waiver["rules"]})
    if expired:
        raise PreconditionError(
            "WAIVER_EXPIRED", f"the waiver of {', '.join(expired)} has expired", remedy="ask for a new job"
        )
    waived = frozenset(rule for waiver in waivers for rule in waiver["rules"])
    if RELEASE_QUESTION not in known:
        return
    question = views.from_json(known[RELEASE_QUESTION], policy_input_pb2.ReleaseInput)
    question.as_of = now.date().isoformat()
    if not _same_rules(policy, job, question.request.unit, now.date()):
        _refuse("POLICY_CHANGED", "the policy in force since would refuse it", policy.judge(question), waived)
    if environment is not None:
        question.live.CopyFrom(_life(connection, job, now, environment))
        _refuse("POLICY_LIVE", "it may not be used further", policy.renew(question), waived)


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
    except PreconditionError:
        found.append(tomorrow)
    return min(found)


def _same_rules(policy: PolicyEngine, job: JobRow, unit: str, day: dt.date) -> bool:
    """Whether the job's verdict is by the rules and limits that are in force on a day."""
    verdict = views.from_json(job.verdict, policy_pb2.Verdict)
    if (verdict.bundle_sha256, verdict.limits_sha256) != (policy.pack.bundle_sha256, policy.pack.limits_sha256):
        return False
    return policy.same_release_rules(unit, dt.date.fromisoformat(verdict.as_of), day)


def _midnight_after(day: dt.date) -> dt.datetime:
    return dt.datetime.combine(day, dt.time(), dt.UTC) + dt.timedelta(days=1)


def _waivers(known: Mapping[str, str]) -> list[dict[str, Any]]:
    return [json.loads(value) for key, value in known.items() if key.startswith("waiver.")]


def _last_day(waiver: Mapping[str, Any]) -> dt.date:
    """The last day of a waiver; of one from an earlier release that names none that can be read, long ago."""
    try:
        return dt.date.fromisoformat(waiver["expires"])
    except ValueError:
        return dt.date.min


def _refuse(reason: str, words: str, verdict: policy_pb2.Verdict, waived: frozenset[str]) -> None:
    fired = [o for o in verdict.outcomes if o.outcome not in GOOD and o.rule_id not in waived]
    if fired:
        said = "; ".join(f"{outcome.rule_id}: {outcome.message}" for outcome in fired)
        raise PreconditionError(reason, f"{words}: {said[:1000]}", remedy=fired[0].fix or "ask for a new job")


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
