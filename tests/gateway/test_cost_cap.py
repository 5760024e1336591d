"""The cap on a job's money while it trains: what is quoted may be spent, and not a started second more."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from assay.v1 import tuning_job_pb2, worker_pb2
from gateway.admission.facts import quote
from gateway.admission.office import Office, cost_of
from gateway.admission.training import CostCapReached, _Watcher
from gateway.store.tables import JobRow
from tests.gateway.test_quotes import BOOK

TOKENS = 91_001
TRAIN = 304
"""Seconds that so many tokens are quoted by the price book, with 120 for preparation and audit."""


async def _noop(*_: Any) -> None:
    """What is shown and noted on the way is no part of these tests."""


OFFICE = cast(
    Office,
    SimpleNamespace(look=_noop, store=SimpleNamespace(commit=_noop)),
)


def watcher(prepare: float, budget: int) -> _Watcher:
    stages = {"prepare": prepare}
    job = JobRow(
        name="units/credit/tuningJobs/a", unit="credit", creator="c", state="TRAINING", version=4, created_us=0,
        updated_us=0, request="{}", cap_usd_micros=budget, stage_seconds=json.dumps(stages),
        cost_usd_micros=cost_of(BOOK, stages),
    )  # fmt: skip
    return _Watcher(OFFICE, job, BOOK, 0)


async def trains(watched: _Watcher, seconds: float) -> None:
    meter = tuning_job_pb2.Meter(wall_ms=round(seconds * 1000))
    await watched.look(worker_pb2.Task(state=worker_pb2.TASK_STATE_RUNNING, meter=meter))


@pytest.mark.parametrize("prepare", [0.0, 0.4, 30.0, 29.7, 119.5, 120.0])
async def test_a_job_that_takes_what_it_was_quoted_is_never_stopped_by_a_budget_of_its_quote(prepare: float) -> None:
    budget = quote(BOOK, "lora", TOKENS)
    watched = watcher(prepare, budget)
    for second in range(TRAIN + 1):
        await trains(watched, second)
    assert cost_of(BOOK, {"prepare": prepare, "train": TRAIN, "audit": 120.0 - prepare}) == budget
    with pytest.raises(CostCapReached):
        await trains(watched, TRAIN + 0.001)


async def test_a_preparation_of_more_than_was_quoted_is_taken_from_training() -> None:
    watched = watcher(125.0, quote(BOOK, "lora", TOKENS))
    assert watched.kept == 0
    await trains(watched, TRAIN - 5)
    with pytest.raises(CostCapReached):
        await trains(watched, TRAIN - 4.5)
