"""kill -9 of the gateway and of each worker at every state: the job ends as it would, no record missing or doubled.

On the real weights one job is killed at each state that it comes through, and stands still once, paused. Killing in
and right after every single commit is the business of ``tests/gateway/test_pipeline_kill.py`` and, for what people and
the clock do, ``tests/gateway/test_acts_kill.py``.
"""

from __future__ import annotations

import collections

import pytest
from e2e_world import SERVICES, Bank, State, chat_rows

from assay.v1 import tuning_job_pb2
from gateway.jobs import transitions
from gateway.jobs.transitions import TABLE, WORK_AFTER, Event

ON_THE_WAY = ("RECEIVED", "PREPARING", "QUEUED", "TRAINING", "PAUSED", "TRAINING", "AUDITING")
"""States at which one job is killed, in the order in which it comes through them."""
VERDICTS = ("QUARANTINED", "AWAITING_APPROVAL")
"""How that job ends; whichever it is, it is killed there too, with its card still to be rendered."""
OTHER_JOBS = ("DENIED", "CANCELLED")
"""States that jobs of their own are killed at."""
BY_PEOPLE = ("APPROVED", "REJECTED", "REVOKED", "EXPIRED", "FAILED")
"""No worker has a task then: ``tests/gateway`` kills the gateway in each, and the acts there have no worker at all."""
EXPECTED = [
    "job.received", "job.preparing", "intake.decided", "training.ordered", "job.paused", "job.resumed",
    "training.completed", "audit.completed", "release.decided", "card.rendered",
]  # fmt: skip


def state(name: str) -> int:
    return int(getattr(State, f"STATE_{name}"))


def check(bank: Bank, name: str, expected: list[str]) -> None:
    """Every record that must be there, once and in order, and every change of state under its own version."""
    records = bank.records(name)
    assert [r["type"] for r in records] == expected, bank.log_tail()
    moves = [r["statement"]["predicate"]["transition"] for r in records if "transition" in r["statement"]["predicate"]]
    versions = [m["version"] for m in moves]
    assert versions == sorted(set(versions))
    assert not {k: n for k, n in collections.Counter(t.event for t in bank.get(name).transitions).items() if n > 1}


def test_every_state_has_its_case():
    """A state that is new in the transition table needs a case here."""
    known = {s.value for s in transitions.State} - {"NONE"}
    assert known == {*ON_THE_WAY, *VERDICTS, *OTHER_JOBS, *BY_PEOPLE}
    assert known == {line.target.value for line in TABLE}
    under_way = next(line.sources for line in TABLE if line.event is Event.FAIL)
    assert {s.value for s in under_way} <= set(ON_THE_WAY)
    idle = {s.value for s, work in WORK_AFTER.items() if not work}
    assert idle <= set(BY_PEOPLE)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("service", [*SERVICES, "everything"])
def test_a_killed_service_loses_and_repeats_nothing(own_bank: Bank, service: str):
    names = SERVICES if service == "everything" else (service,)

    def kill() -> None:
        for name in names:
            own_bank.kill(name)
        own_bank.start(*names)

    own_bank.start()
    own_bank.upload("rows", chat_rows(260))
    job = own_bank.create("job", "rows").name
    seen: list[str] = []
    ends = {state(v) for v in VERDICTS}
    for number, wanted in enumerate(ON_THE_WAY):
        if wanted == "PAUSED":
            with own_bank.as_person("rita") as rita:
                rita.jobs.PauseTuningJob(tuning_job_pb2.PauseTuningJobRequest(name=job, reason="lunch"))
        # A short state may be over before it is seen; then the kill meets the next one.
        reached = own_bank.wait(job, {state(s) for s in ON_THE_WAY[number:]} | ends, 600).state
        seen.append(State.Name(reached).removeprefix("STATE_"))
        kill()
        if wanted == "PAUSED":
            assert own_bank.get(job).state == state("PAUSED")
            with own_bank.as_person("rita") as rita:
                rita.jobs.ResumeTuningJob(tuning_job_pb2.ResumeTuningJobRequest(name=job, reason="back"))
    assert {"TRAINING", "PAUSED", "AUDITING"} <= set(seen), seen
    own_bank.wait(job, ends, 900)
    kill()
    ended = own_bank.rest(job, 900)
    assert ended.state in ends, f"{State.Name(ended.state)} {ended.reason}\n{own_bank.log_tail()}"
    check(own_bank, job, EXPECTED)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("service", SERVICES)
def test_a_job_that_ended_early_stays_ended(own_bank: Bank, service: str):
    own_bank.start()
    own_bank.upload("few", chat_rows(20))
    denied = own_bank.create("denied", "few").name
    own_bank.wait(denied, {state("DENIED")})
    own_bank.kill(service)
    own_bank.start(service)
    assert own_bank.rest(denied).state == state("DENIED")
    check(own_bank, denied, ["job.received", "job.preparing", "intake.decided"])

    own_bank.upload("rows", chat_rows(260))
    cancelled = own_bank.create("cancelled", "rows").name
    own_bank.wait(cancelled, {state("TRAINING")})
    with own_bank.as_person("rita") as rita:
        rita.jobs.CancelTuningJob(tuning_job_pb2.CancelTuningJobRequest(name=cancelled, reason="no longer needed"))
    own_bank.kill(service)
    own_bank.start(service)
    assert own_bank.rest(cancelled).state == state("CANCELLED")
    records = ["job.received", "job.preparing", "intake.decided", "training.ordered", "job.cancelled"]
    check(own_bank, cancelled, records)
