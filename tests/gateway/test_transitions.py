"""The transition table: every event in every state, by every kind of actor, has its named outcome."""

from __future__ import annotations

import itertools
import json

import pytest

from assay.errors import PermissionDeniedError, PreconditionError
from assay.v1 import tuning_job_pb2
from audit.ledger.records import TYPES
from audit.verify.edges import EDGES
from gateway.jobs.transitions import RESTING, TABLE, WORK_AFTER, ActorKind, Event, Proposal, State, choose
from gateway.store.tables import JobRow

S, E = State, Event
LEGAL = {
    (E.RECEIVE, S.NONE): {S.RECEIVED},
    (E.PREPARE, S.RECEIVED): {S.PREPARING},
    (E.DENY, S.PREPARING): {S.DENIED},
    (E.QUEUE, S.PREPARING): {S.QUEUED},
    (E.TRAIN, S.QUEUED): {S.TRAINING},
    (E.AUDIT, S.TRAINING): {S.AUDITING},
    (E.QUARANTINE, S.AUDITING): {S.QUARANTINED},
    (E.PASS, S.AUDITING): {S.AWAITING_APPROVAL},
    (E.APPROVE, S.AWAITING_APPROVAL): {S.APPROVED},
    (E.REJECT, S.AWAITING_APPROVAL): {S.REJECTED},
    (E.REVOKE, S.APPROVED): {S.REVOKED, S.AWAITING_APPROVAL},
    (E.EXPIRE, S.APPROVED): {S.EXPIRED},
    (E.PAUSE, S.QUEUED): {S.PAUSED},
    (E.PAUSE, S.TRAINING): {S.PAUSED},
    (E.RESUME, S.PAUSED): {S.QUEUED, S.TRAINING},
    **{(E.CANCEL, s): {S.CANCELLED} for s in (S.RECEIVED, S.PREPARING, S.QUEUED, S.TRAINING, S.AUDITING, S.PAUSED,
                                              S.AWAITING_APPROVAL)},
    **{(E.FAIL, s): {S.FAILED} for s in (S.RECEIVED, S.PREPARING, S.QUEUED, S.TRAINING, S.AUDITING, S.PAUSED)},
    (E.APPEAL, S.DENIED): {S.DENIED},
    (E.APPEAL, S.QUARANTINED): {S.QUARANTINED},
    (E.APPEAL, S.REJECTED): {S.AWAITING_APPROVAL},
    (E.DISMISS, S.DENIED): {S.DENIED},
    (E.DISMISS, S.QUARANTINED): {S.QUARANTINED},
    (E.WAIVE, S.DENIED): {S.QUEUED},
    (E.WAIVE, S.QUARANTINED): {S.AWAITING_APPROVAL},
}  # fmt: skip


def proposal(state: State, *, good: bool, resume_to: State = S.QUEUED, cost: int = 0, **more: object) -> Proposal:
    plan = {"audit_plan": {"profile": "quick"}} if good else {}
    job = JobRow(
        name="units/credit/tuningJobs/a", unit="credit", creator="c", state=state, version=3, created_us=0,
        updated_us=0, request="{}", cap_usd_micros=100, resume_to=resume_to,
        cost_usd_micros=cost, decision=json.dumps({"allowed": good, **plan}), approved_until_us=10,
    )  # fmt: skip
    verdict = "OUTCOME_PASS" if good else "OUTCOME_FAIL"
    values = {"decision": json.dumps({"allowed": good, **plan}), "verdict": json.dumps({"outcome": verdict})}
    return Proposal(job, values, now_us=20, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("event", list(Event))
def test_every_event_in_every_state(event: Event, state: State) -> None:
    targets = set()
    for good in (True, False):
        for resume_to in (S.QUEUED, S.TRAINING):
            for actor, reason in itertools.product(ActorKind, ("drift", "signer-left")):
                try:
                    line = choose(event, actor, proposal(state, good=good, resume_to=resume_to, reason=reason))
                except PermissionDeniedError as error:
                    assert error.reason == "ACTOR"
                    assert (event, state) in LEGAL
                except PreconditionError as error:
                    assert error.reason == ("GUARD" if (event, state) in LEGAL else "JOB_STATE")
                else:
                    assert actor in line.actors
                    targets.add(line.target)
    assert targets == LEGAL.get((event, state), set())


@pytest.mark.parametrize(
    ("event", "state", "good"),
    [
        (E.QUEUE, S.PREPARING, False),
        (E.DENY, S.PREPARING, True),
        (E.TRAIN, S.QUEUED, False),
        (E.PASS, S.AUDITING, False),
        (E.QUARANTINE, S.AUDITING, True),
    ],
)
def test_policy_is_asked_again_by_the_guard(event: Event, state: State, good: bool) -> None:
    with pytest.raises(PreconditionError) as caught:
        choose(event, ActorKind.GATEWAY, proposal(state, good=good))
    assert caught.value.reason == "GUARD"
    choose(event, ActorKind.GATEWAY, proposal(state, good=not good))


def test_a_missing_signature_stops_approval() -> None:
    with pytest.raises(PreconditionError):
        choose(E.APPROVE, ActorKind.PERSON, proposal(S.AWAITING_APPROVAL, good=True, missing_roles=("ROLE_VALIDATOR",)))


def test_an_overspent_budget_stops_resumption_and_one_spent_to_the_cent_does_not() -> None:
    with pytest.raises(PreconditionError) as caught:
        choose(E.RESUME, ActorKind.PERSON, proposal(S.PAUSED, good=True, cost=101))
    assert "budget" in caught.value.message
    assert choose(E.RESUME, ActorKind.PERSON, proposal(S.PAUSED, good=True, cost=100)).target is S.QUEUED


def test_an_approval_does_not_lapse_early() -> None:
    early = proposal(S.APPROVED, good=True)
    with pytest.raises(PreconditionError):
        choose(E.EXPIRE, ActorKind.CLOCK, Proposal(early.job, early.values, now_us=9))


def test_a_denial_without_a_plan_cannot_be_waived_into_training() -> None:
    with pytest.raises(PreconditionError):
        choose(E.WAIVE, ActorKind.SIGNER, proposal(S.DENIED, good=False))


def test_the_table_agrees_with_what_the_verifier_holds_the_log_against() -> None:
    ours: dict[str, set[tuple[str, str]]] = {}
    for line in TABLE:
        assert TYPES[line.record_type].predicate == line.predicate_name
        assert not TYPES[line.record_type].signed
        ours.setdefault(line.record_type, set()).update((s.value, line.target.value) for s in line.sources)
    assert ours == {kind: set(pairs) for kind, pairs in EDGES.items()}


def test_states_are_the_contracts() -> None:
    assert {s.proto for s in State} == set(tuning_job_pb2.TuningJob.State.keys())
    assert set(WORK_AFTER) == set(State) - {S.NONE}
    assert not RESTING & {S.RECEIVED, S.PREPARING, S.QUEUED, S.TRAINING, S.AUDITING}
