"""kill -9 of the gateway and of each worker at every state: the job ends as it would, no record missing or doubled."""

from __future__ import annotations

import collections

import pytest
from e2e_world import Bank, State, chat_rows

RESTING = {State.STATE_QUARANTINED, State.STATE_AWAITING_APPROVAL}
STATES = ("RECEIVED", "PREPARING", "QUEUED", "TRAINING", "AUDITING")
EXPECTED = [
    "job.received", "job.preparing", "intake.decided", "training.ordered", "training.completed", "audit.completed",
    "release.decided", "card.rendered",
]  # fmt: skip


def _types(bank: Bank, name: str) -> list[str]:
    return [r["type"] for r in bank.records(name)]


def _check(bank: Bank, name: str, killed: str) -> None:
    job = bank.rest(name)
    assert job.state in RESTING, f"after killing {killed}: {State.Name(job.state)} {job.reason}\n{bank.log_tail()}"
    found = _types(bank, name)
    assert found == EXPECTED, f"after killing {killed}: {found}"
    versions = [r["statement"]["predicate"]["transition"]["version"] for r in bank.records(name)
                if "transition" in r["statement"]["predicate"]]  # fmt: skip
    assert versions == sorted(set(versions))
    doubled = {k: n for k, n in collections.Counter(t.event for t in job.transitions).items() if n > 1}
    assert not doubled


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("service", ["gateway", "train-worker", "audit-worker"])
def test_a_killed_service_loses_and_repeats_nothing(own_bank: Bank, service: str):
    own_bank.start()
    own_bank.upload("rows", chat_rows(260))
    for number, state in enumerate(STATES):
        job = own_bank.create(f"job-{number}", "rows")
        wanted = getattr(State, f"STATE_{state}")
        later = {getattr(State, f"STATE_{s}") for s in STATES[number:]} | RESTING
        own_bank.wait(job.name, later)
        reached = own_bank.get(job.name).state
        own_bank.kill(service)
        own_bank.start(service)
        _check(own_bank, job.name, f"{service} at {state} (seen: {State.Name(reached)}, wanted {wanted})")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_everything_killed_at_once_goes_on(own_bank: Bank):
    own_bank.start()
    own_bank.upload("rows", chat_rows(260))
    job = own_bank.create("job", "rows")
    own_bank.wait(job.name, {State.STATE_TRAINING, State.STATE_AUDITING} | RESTING)
    for service in list(own_bank.processes):
        own_bank.kill(service)
    own_bank.start()
    _check(own_bank, job.name, "everything")
