"""The clock of an appeal: until when one may be filed, which rules allow it, and when it must be answered."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from assay.errors import PermissionDeniedError, PreconditionError
from gateway.jobs import views
from gateway.jobs.transitions import Event, State
from gateway.store import rows
from gateway.store.tables import JobRow, TransitionRow
from policies.engine import PolicyEngine
from policies.rule import GOOD

_REFUSALS = (Event.DENY, Event.QUARANTINE, Event.REJECT)
_ANEW = "ask for a new job"
_ANSWERS = (*_REFUSALS, Event.WAIVE, Event.DISMISS, Event.APPROVE)
_WHERE_IT_WAITS = (State.DENIED, State.QUARANTINED, State.AWAITING_APPROVAL)


def demand(policy: PolicyEngine, job: JobRow, steps: Sequence[TransitionRow], now: dt.datetime) -> None:
    """Refuses an appeal that comes too late, is the second while one waits, or is against rules that allow none.

    Raises:
        PreconditionError: ``APPEAL_LATE``, ``APPEAL_WAITS``, ``APPEAL_ENDED`` or ``NOT_APPEALABLE``.
    """
    days = policy.days("appeal_days")
    refused = next((step.time_us for step in reversed(steps) if step.event in _REFUSALS), None)
    if refused is not None and rows.micros(now) > refused + _micros(days):
        raise PreconditionError("APPEAL_LATE", f"an appeal is filed within {days} days of the refusal", remedy=_ANEW)
    if due(policy, job, steps) is not None:
        raise PreconditionError("APPEAL_WAITS", "an appeal waits for its answer already")
    if _last(steps, *_REFUSALS, Event.DISMISS) == Event.DISMISS:
        raise PreconditionError("APPEAL_ENDED", "an appeal against this refusal was dismissed", remedy=_ANEW)
    if job.state == State.REJECTED:
        if sum(step.event == Event.REJECT for step in steps) > 1:
            raise PreconditionError("APPEAL_ENDED", "two people have refused it", remedy=_ANEW)
        return
    fired = [outcome.rule_id for outcome in views.outcomes(job) if outcome.outcome not in GOOD]
    known = {rule.id: rule for rule in policy.pack.rules}
    if fired and all(rule_id in known and not known[rule_id].appealable for rule_id in fired):
        raise PreconditionError(
            "NOT_APPEALABLE", f"{', '.join(fired)} cannot be appealed", remedy="mend what the rules name"
        )


def due(policy: PolicyEngine, job: JobRow, steps: Sequence[TransitionRow]) -> dt.datetime | None:
    """When the newest appeal must be answered, while nobody has answered it."""
    appeal = waiting(job, steps)
    return None if appeal is None else rows.moment(appeal.time_us + _micros(policy.days("appeal_answer_days")))


def waiting(job: JobRow, steps: Sequence[TransitionRow]) -> TransitionRow | None:
    """The newest appeal, while nobody has answered it."""
    if job.state not in _WHERE_IT_WAITS:
        return None
    for step in reversed(steps):
        if step.event == Event.APPEAL:
            return step
        if step.event in _ANSWERS:
            return None
    return None


def refuse_filer(appeal: TransitionRow, subject: str) -> None:
    """Who filed an appeal does not answer it: with no waiver, no dismissal and no decision on the model.

    Raises:
        PermissionDeniedError: ``MAKER_CHECKER``.
    """
    if appeal.actor == subject:
        raise PermissionDeniedError(
            "MAKER_CHECKER", "who filed an appeal cannot decide on it", remedy="ask another person"
        )


def _last(steps: Sequence[TransitionRow], *events: Event) -> str:
    """The newest of some events that happened; empty for none."""
    return next((step.event for step in reversed(steps) if step.event in events), "")


def _micros(days: int) -> int:
    return days * 86_400 * 1_000_000
