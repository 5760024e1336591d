"""The transition table: the only ways in which a tuning job changes its state.

```
RECEIVED → PREPARING → DENIED | QUEUED → TRAINING → AUDITING → QUARANTINED | AWAITING_APPROVAL → REJECTED | APPROVED
APPROVED → REVOKED | EXPIRED;  QUEUED, TRAINING ⇄ PAUSED;  anything under way or paused → CANCELLED | FAILED
APPROVED → AWAITING_APPROVAL when it is revoked for a signer: nothing is said against the model, and others sign
TRAINING → PAUSED also by a fault that left a checkpoint: there is no way out of FAILED, and none is needed
DENIED, QUARANTINED: an appeal leaves the state and so does its dismissal, a waiver leads back into the path
REJECTED: an appeal leads back to AWAITING_APPROVAL, where others than the refuser decide
```
A line names the event, the states it may happen in, the state it leads to, who may cause it, the record it leaves,
and a guard that must find nothing to object to. What is not in the table does not happen.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from assay.errors import PermissionDeniedError, PreconditionError
from gateway.statements import APPROVE_ANEW
from gateway.store.tables import JobRow


class State(StrEnum):
    """States of a job, named as in the contract without the prefix; ``NONE`` is before it exists."""

    NONE = "NONE"
    RECEIVED = "RECEIVED"
    PREPARING = "PREPARING"
    DENIED = "DENIED"
    QUEUED = "QUEUED"
    TRAINING = "TRAINING"
    AUDITING = "AUDITING"
    QUARANTINED = "QUARANTINED"
    AWAITING_APPROVAL = "AWAITING_APPROVAL"
    REJECTED = "REJECTED"
    APPROVED = "APPROVED"
    REVOKED = "REVOKED"
    EXPIRED = "EXPIRED"
    PAUSED = "PAUSED"
    CANCELLED = "CANCELLED"
    FAILED = "FAILED"

    @property
    def proto(self) -> str:
        """The state's name in the contract; ``NONE`` is its zero."""
        return "STATE_UNSPECIFIED" if self is State.NONE else f"STATE_{self.value}"


class Event(StrEnum):
    """What can happen to a job."""

    RECEIVE = "receive"
    PREPARE = "prepare"
    DENY = "deny"
    QUEUE = "queue"
    TRAIN = "train"
    AUDIT = "audit"
    QUARANTINE = "quarantine"
    PASS = "pass"  # noqa: S105
    APPROVE = "approve"
    REJECT = "reject"
    REVOKE = "revoke"
    EXPIRE = "expire"
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    FAIL = "fail"
    APPEAL = "appeal"
    DISMISS = "dismiss"
    WAIVE = "waive"


class ActorKind(StrEnum):
    """On whose behalf an event happens."""

    GATEWAY = "gateway"
    PERSON = "person"
    SIGNER = "signer"
    """A person whose signed statement is recorded just before, in the same unit of work."""
    CLOCK = "clock"


@dataclass(frozen=True)
class Proposal:
    """A change about to be made, as its guard sees it: the job, the columns to be set, what the caller proved, why."""

    job: JobRow
    values: Mapping[str, Any] = field(default_factory=dict)
    missing_roles: tuple[str, ...] = ()
    now_us: int = 0
    reason: str = ""


Guard = Callable[[Proposal], str]
"""Says what is in the way, or nothing."""


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    event: Event
    sources: frozenset[State]
    target: State
    actors: frozenset[ActorKind]
    record_type: str
    predicate_name: str
    guard: Guard


def _free(proposal: Proposal) -> str:
    return ""


def _decision(proposal: Proposal) -> dict[str, Any]:
    return dict(json.loads(proposal.values.get("decision") or proposal.job.decision or "{}"))


def _verdict_passes(proposal: Proposal) -> bool:
    verdict = json.loads(proposal.values.get("verdict") or "{}")
    return bool(verdict.get("outcome") == "OUTCOME_PASS")


def _allowed(proposal: Proposal) -> str:
    decision = _decision(proposal)
    return "" if decision.get("allowed") is True and decision.get("audit_plan") else "intake policy has not allowed it"


def _denied(proposal: Proposal) -> str:
    return "intake policy allows it" if _decision(proposal).get("allowed") is True else ""


def _planned(proposal: Proposal) -> str:
    return "" if _decision(proposal).get("audit_plan") else "there is no audit plan, so it could never be released"


def _passes(proposal: Proposal) -> str:
    return "" if _verdict_passes(proposal) else "release policy has not passed it"


def _fails(proposal: Proposal) -> str:
    return "release policy passes it" if _verdict_passes(proposal) else ""


def _quorum(proposal: Proposal) -> str:
    return f"still to sign: {', '.join(proposal.missing_roles)}" if proposal.missing_roles else ""


def _lapsed(proposal: Proposal) -> str:
    return "" if 0 < proposal.job.approved_until_us <= proposal.now_us else "the approval has not lapsed"


def _against_model(proposal: Proposal) -> str:
    return f"{proposal.reason} says nothing against the model" if proposal.reason in APPROVE_ANEW else ""


def _against_signer(proposal: Proposal) -> str:
    return "" if proposal.reason in APPROVE_ANEW else "its signers are in order"


def _resume_to(target: State) -> Guard:
    def guard(proposal: Proposal) -> str:
        job = proposal.job
        if job.resume_to != target:
            return f"it was not paused in {target}"
        cap = int(proposal.values.get("cap_usd_micros", job.cap_usd_micros))
        raised = cap > job.cap_usd_micros
        # To have cost just the cap is no overrun: release policy lets it pass.
        spent = job.cost_usd_micros > cap or (job.reason.startswith("COST_CAP") and not raised)
        return "its budget is spent: raise it" if spent else ""

    return guard


_UNDER_WAY = frozenset({State.RECEIVED, State.PREPARING, State.QUEUED, State.TRAINING, State.AUDITING})
_GATEWAY = frozenset({ActorKind.GATEWAY})
_PERSON = frozenset({ActorKind.PERSON})
_SIGNER = frozenset({ActorKind.SIGNER})
_CLOCK = frozenset({ActorKind.CLOCK})


def _line(
    event: Event,
    sources: State | frozenset[State],
    target: State,
    actors: frozenset[ActorKind],
    record: str,
    guard: Guard = _free,
) -> Line:
    record_type, predicate = record.split(":")
    return Line(
        event,
        sources if isinstance(sources, frozenset) else frozenset({sources}),
        target,
        actors,
        record_type,
        predicate,
        guard,
    )


TABLE: tuple[Line, ...] = (
    _line(Event.RECEIVE, State.NONE, State.RECEIVED, _PERSON, "job.received:request"),
    _line(Event.PREPARE, State.RECEIVED, State.PREPARING, _GATEWAY, "job.preparing:transition"),
    _line(Event.DENY, State.PREPARING, State.DENIED, _GATEWAY, "intake.decided:decision", _denied),
    _line(Event.QUEUE, State.PREPARING, State.QUEUED, _GATEWAY, "intake.decided:decision", _allowed),
    _line(Event.TRAIN, State.QUEUED, State.TRAINING, _GATEWAY, "training.ordered:work-order", _planned),
    _line(Event.AUDIT, State.TRAINING, State.AUDITING, _GATEWAY, "training.completed:training"),
    _line(Event.QUARANTINE, State.AUDITING, State.QUARANTINED, _GATEWAY, "release.decided:verdict", _fails),
    _line(Event.PASS, State.AUDITING, State.AWAITING_APPROVAL, _GATEWAY, "release.decided:verdict", _passes),
    _line(Event.APPROVE, State.AWAITING_APPROVAL, State.APPROVED, _PERSON, "job.approved:transition", _quorum),
    _line(Event.REJECT, State.AWAITING_APPROVAL, State.REJECTED, _PERSON, "job.rejected:transition"),
    _line(Event.REVOKE, State.APPROVED, State.REVOKED, _SIGNER, "job.revoked:transition", _against_model),
    _line(Event.REVOKE, State.APPROVED, State.AWAITING_APPROVAL, _SIGNER, "job.revoked:transition", _against_signer),
    _line(Event.EXPIRE, State.APPROVED, State.EXPIRED, _CLOCK, "job.expired:transition", _lapsed),
    _line(
        Event.PAUSE,
        frozenset({State.QUEUED, State.TRAINING}),
        State.PAUSED,
        _PERSON | _GATEWAY,
        "job.paused:transition",
    ),
    _line(
        Event.RESUME, State.PAUSED, State.QUEUED, _PERSON | _SIGNER, "job.resumed:transition", _resume_to(State.QUEUED)
    ),
    _line(
        Event.RESUME,
        State.PAUSED,
        State.TRAINING,
        _PERSON | _SIGNER,
        "job.resumed:transition",
        _resume_to(State.TRAINING),
    ),
    _line(
        Event.CANCEL,
        _UNDER_WAY | {State.PAUSED, State.AWAITING_APPROVAL},
        State.CANCELLED,
        _PERSON,
        "job.cancelled:transition",
    ),
    # The clock: when the retention of the rows is over, also of a job that is paused.
    _line(Event.FAIL, _UNDER_WAY | {State.PAUSED}, State.FAILED, _GATEWAY | _CLOCK, "job.failed:transition"),
    _line(Event.APPEAL, State.DENIED, State.DENIED, _PERSON, "appeal.filed:appeal"),
    _line(Event.APPEAL, State.QUARANTINED, State.QUARANTINED, _PERSON, "appeal.filed:appeal"),
    _line(Event.APPEAL, State.REJECTED, State.AWAITING_APPROVAL, _PERSON, "appeal.filed:appeal"),
    _line(Event.DISMISS, State.DENIED, State.DENIED, _SIGNER, "appeal.answered:transition"),
    _line(Event.DISMISS, State.QUARANTINED, State.QUARANTINED, _SIGNER, "appeal.answered:transition"),
    _line(Event.WAIVE, State.DENIED, State.QUEUED, _SIGNER, "job.waived:transition", _planned),
    _line(Event.WAIVE, State.QUARANTINED, State.AWAITING_APPROVAL, _SIGNER, "job.waived:transition"),
)

WORK_AFTER: Mapping[State, bool] = {
    State.RECEIVED: True,
    State.PREPARING: True,
    State.QUEUED: True,
    State.TRAINING: True,
    State.AUDITING: True,
    # a card is still to be rendered or issued
    State.QUARANTINED: True,
    State.AWAITING_APPROVAL: True,
    State.APPROVED: True,
    # a worker may still hold a task that must stop
    State.PAUSED: True,
    State.CANCELLED: True,
    State.FAILED: True,
    State.DENIED: True,
    State.REJECTED: False,
    State.REVOKED: False,
    State.EXPIRED: False,
}
"""Whether the pipeline has anything left to do once a job has come into a state."""

RESTING = frozenset(State) - _UNDER_WAY - {State.NONE}
"""States that only a person's or the clock's act leaves."""


def choose(event: Event, actor: ActorKind, proposal: Proposal) -> Line:
    """The line that applies.

    Raises:
        PreconditionError: ``JOB_STATE`` when the event cannot happen in the job's state, ``GUARD`` when a guard
            objects.
        PermissionDeniedError: ``ACTOR`` when it may not be caused on this actor's behalf.
    """
    state = State(proposal.job.state)
    lines = [line for line in TABLE if line.event is event and state in line.sources]
    if not lines:
        raise PreconditionError(
            "JOB_STATE", f"a job in {state} cannot {event}", metadata={"state": state.value, "event": event.value}
        )
    if not any(actor in line.actors for line in lines):
        raise PermissionDeniedError("ACTOR", f"{actor} may not {event} a job in {state}")
    objections = []
    for line in lines:
        objection = line.guard(proposal)
        if not objection:
            return line
        objections.append(objection)
    raise PreconditionError("GUARD", f"a job in {state} cannot {event} now: {'; '.join(objections)}")
