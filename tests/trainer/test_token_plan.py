"""No honest run trains more tokens than intake planned: fractions of epochs, Poisson draws, few rows, searches."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from assay import token_plan
from assay.dp_sgd import Sampling
from assay.v1 import policy_input_pb2
from gateway.admission import facts
from tests.e2e.e2e_world import chat_rows
from tests.trainer.test_train_task import context
from tests.trainer.tiny_models import tiny_models
from trainer import task
from trainer.recipes.plan import plan_batches
from trainer.settings import Settings

EPOCHS = (0.001, 0.1, 0.5, 0.99, 1.0, 1.1, 1.83, 2.0, 2.01, 3.0)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models(tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize("epochs", EPOCHS)
@pytest.mark.parametrize("batch", [1, 8, 64])
def test_a_plan_of_batches_trains_what_intake_plans_and_no_more(epochs: float, batch: int) -> None:
    for seed in range(40):
        rng = random.Random(seed)
        lengths = [round(rng.paretovariate(1.1) * 20) for _ in range(rng.randint(1, 60))]
        plan = plan_batches(lengths, Settings(epochs=epochs, batch_size=batch, seed=seed))
        steps = [sum(lengths[i] for i in step) for step in plan.batches]
        assert 0 < sum(steps) <= token_plan.most(sum(lengths), epochs, max(lengths)), (seed, lengths)
        if epochs == int(epochs):
            assert sum(steps) == epochs * sum(lengths) and plan.steps == epochs * plan.steps_per_epoch
        elif plan.steps > 1:
            largest = sum(sorted(lengths)[-batch:])
            assert sum(steps) > epochs * sum(lengths) - largest - 1, "it ends before the step that would be too much"


@pytest.mark.parametrize(("epochs", "runs"), [(e, r) for e in EPOCHS for r in (1, 6)])
def test_runs_that_keep_to_their_share_keep_to_the_plan_of_all(epochs: float, runs: int) -> None:
    for tokens in (1, 7, 999, 10**9 + 1):
        assert runs * token_plan.share(tokens, epochs) <= token_plan.most(tokens, epochs, 0, runs)
        assert token_plan.most(tokens, epochs, 0, runs) < runs * (epochs * tokens + 1)


@pytest.mark.parametrize("epochs", EPOCHS)
@pytest.mark.parametrize(("units", "batch"), [(100, 32), (72, 32), (200, 64), (40, 8), (5, 8), (1, 1), (20_000, 256)])
def test_a_private_run_draws_what_its_epochs_allow(units: int, batch: int, epochs: float) -> None:
    sampling = Sampling.of(units, batch, epochs)
    assert sampling.steps == 1 or sampling.steps * sampling.rate <= epochs + 1e-9
    assert (sampling.steps + 1) * sampling.rate > epochs - 1e-9


@pytest.mark.parametrize(
    ("rows", "order"),
    [
        (30, {"hyperparameters": {"epochs": "1.1", "batch_size": 8}}),
        (30, {"hyperparameters": {"epochs": "0.01", "batch_size": 8}}),
        (10, {"hyperparameters": {"epochs": "1.5", "batch_size": 32}}),
        (30, {"hyperparameters": {"epochs": "1.3", "batch_size": 8, "lora_rank": 4},
              "search": {"trials": [{"learning_rate": "0.001"}, {"learning_rate": "0.0005"}]}}),
        (30, {"hyperparameters": {"epochs": "1.3", "batch_size": 8, "early_stopping": True}}),
        (25, {"hyperparameters": {"epochs": "1", "batch_size": 8},
              "differential_privacy": {"epsilon": "8", "delta": "0.001", "noise_multiplier": "2"}}),
        (25, {"hyperparameters": {"epochs": "7", "batch_size": 9},
              "differential_privacy": {"epsilon": "8", "delta": "0.001", "noise_multiplier": "4"}}),
    ],
)  # fmt: skip
def test_a_job_whose_cap_is_what_intake_plans_reaches_its_end(
    models: Path, tmp_path: Path, rows: int, order: dict[str, Any]
) -> None:
    numbers = {"learning_rate": "0.001", **order["hyperparameters"]}
    once = task.run(context(models, tmp_path / "once", chat_rows(rows), hyperparameters={**numbers, "epochs": "1"}))
    known = policy_input_pb2.DataFacts(
        train_rows=rows, train_tokens=once["trained_tokens"], longest_row_tokens=_longest(models, tmp_path, rows)
    )
    asked = policy_input_pb2.RequestFacts(
        method="lora", epochs=float(numbers["epochs"]), batch_size=int(numbers["batch_size"])
    )
    if "differential_privacy" in order:
        asked.differential_privacy.unit = "row"
    if "search" in order:
        asked.search.learning_rates.extend([0.001, 0.0005])
    cap = facts.planned_tokens(asked, known)
    ctx = context(models, tmp_path / "capped", chat_rows(rows), **order, max_train_tokens=cap)
    (ctx.inputs / "selection.jsonl").write_bytes(chat_rows(8))
    assert 0 < task.run(ctx)["trained_tokens"] <= cap


def _longest(models: Path, folder: Path, rows: int) -> int:
    from trainer.task import _job

    job = _job(context(models, folder / "rows", chat_rows(rows)), Settings())
    return max(row.longest for row in job.train.rows)
