"""Tuning with differential privacy: what is drawn, clipped, noised, accounted and kept secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from assay import sealed_file
from assay.dp_sgd import Sampling, most_epsilon
from assay.errors import InvalidInputError
from assay.modelfiles import lora_b_moved
from assay.worker.task import TaskContext, TaskPaused
from audit.probes.accounting import Mechanism
from tests.e2e.e2e_world import chat_rows
from tests.trainer.test_train_task import context, weights
from tests.trainer.tiny_models import tiny_models
from trainer import task
from trainer.recipes.private import PrivateRun, Target

PRIVACY = {"epsilon": "8", "delta": "0.001"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models(tmp_path_factory.mktemp("models"))


def private(models: Path, folder: Path, rows: bytes = b"", **order: Any) -> TaskContext:
    return context(models, folder, rows or chat_rows(40), **{"differential_privacy": PRIVACY, **order})


def test_the_achieved_epsilon_is_within_the_target_and_another_accountant_agrees(models: Path, tmp_path: Path) -> None:
    ctx = private(models, tmp_path)
    claim = task.run(ctx)
    said = claim["differential_privacy"]
    assert lora_b_moved(ctx.outputs / "adapter")
    assert said["unit"] == "row" and said["accountant"] == "opacus prv" and said["steps"] == claim["steps"] == 10
    assert 7.5 < float(said["epsilon"]) <= 8.0
    accounted = Mechanism.of(said).accounted()
    assert accounted <= float(said["epsilon"]) and abs(accounted - float(said["epsilon"])) < 0.2


def test_a_noise_multiplier_is_the_noise_and_spends_no_more_than_was_reserved(models: Path, tmp_path: Path) -> None:
    from opacus.accountants import PRVAccountant

    reserved = most_epsilon(1.3, Sampling.of(40, 8, 2.0), 0.001)
    asked = {"noise_multiplier": "1.3", "epsilon": str(reserved), "delta": "0.001"}
    ctx = private(models, tmp_path, differential_privacy=asked)
    said = task.run(ctx)["differential_privacy"]
    assert said["target"] == "noise_multiplier" and float(said["noise_multiplier"]) == 1.3
    accountant = PRVAccountant()
    accountant.history = [(1.3, float(said["sampling_rate"]), said["steps"])]
    assert float(said["epsilon"]) == pytest.approx(accountant.get_epsilon(0.001))
    assert Mechanism.of(said).accounted() <= float(said["epsilon"]) <= float(said["reserved_epsilon"]) == reserved


def test_more_than_was_reserved_is_never_spent(models: Path, tmp_path: Path) -> None:
    asked = {"noise_multiplier": "0.5", "epsilon": "3", "delta": "0.001"}
    with pytest.raises(InvalidInputError) as raised:
        task.run(private(models, tmp_path, differential_privacy=asked))
    assert raised.value.reason == "PRIVACY_OVERSPENT" and not (tmp_path / "out" / "adapter").exists()


def test_rows_without_an_answer_are_counted_as_they_are_at_intake(models: Path, tmp_path: Path) -> None:
    """The sampling rate is of all rows of the split, which the gateway knows, and not of those that teach something."""
    mute = {"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi", "weight": 0}]}
    claim = task.run(private(models, tmp_path, chat_rows(40) + 10 * (json.dumps(mute).encode() + b"\n")))
    assert (claim["rows"], claim["rows_without_target"]) == (40, 10)
    assert float(claim["differential_privacy"]["sampling_rate"]) == pytest.approx(8 / 50)


def test_nothing_of_the_drawn_rows_is_recorded(models: Path, tmp_path: Path) -> None:
    ctx = private(models, tmp_path)
    sent: list[bytes] = []
    object.__setattr__(ctx, "send", sent.append)
    claim = task.run(ctx)
    assert claim["losses"] == [] and claim["train_loss"] is None
    assert all("loss" not in json.loads(line)["metrics"] for line in sent)
    again = task.run(private(models, tmp_path / "again"))
    assert claim["trained_tokens"] == again["trained_tokens"]


def test_no_seed_repeats_the_noise(models: Path, tmp_path: Path) -> None:
    first, second = (private(models, tmp_path / name) for name in ("first", "second"))
    task.run(first)
    task.run(second)
    assert weights(first) != weights(second)


def test_a_paused_private_run_goes_on_exactly_and_its_secret_is_nowhere_in_the_clear(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = bytes(range(100, 132))
    monkeypatch.setattr("trainer.recipes.private.token_bytes", lambda count: secret)
    whole = private(models, tmp_path / "whole")
    task.run(whole)
    parts = private(models, tmp_path / "parts")
    object.__setattr__(parts, "send", lambda line: parts.pause_flag.touch() if json.loads(line)["step"] == 4 else None)
    with pytest.raises(TaskPaused):
        task.run(parts)
    parts.pause_flag.unlink()
    for path in (p for p in tmp_path.rglob("*") if p.is_file()):
        assert secret not in path.read_bytes()
    kept = next(parts.work.rglob("step-*"))
    assert secret in sealed_file.read(kept, bytes(32))[1]
    monkeypatch.setattr("trainer.recipes.private.token_bytes", lambda count: bytes(count))
    object.__setattr__(parts, "send", lambda line: None)
    task.run(parts)
    assert weights(parts) == weights(whole)


def test_a_rows_gradient_is_clipped_whatever_the_row_says(models: Path, tmp_path: Path) -> None:
    """Sum of clipped gradients without noise: its norm is at most rows times the clipping norm, and really reached."""
    run = one_run(models, tmp_path)
    rows = run.job.train.rows[:8]
    run._row_gradients(rows)
    norms = sum(run.model.masters[n].grad_sample.flatten(1).norm(dim=1) ** 2 for n in run.model.masters) ** 0.5
    assert norms.shape == (8,) and float(norms.min()) > 0
    run._private.max_grad_norm = float(norms.min()) / 2
    run._private.clip_and_accumulate()
    total = sum(float(run.model.masters[n].summed_grad.norm()) ** 2 for n in run.model.masters) ** 0.5
    assert 0 < total <= 8 * run._private.max_grad_norm * 1.0001


def test_each_row_has_the_gradient_that_it_has_alone(models: Path, tmp_path: Path) -> None:
    import torch

    run = one_run(models, tmp_path)
    rows = run.job.train.rows[:4]
    run._row_gradients(rows)
    together = {n: m.grad_sample.clone() for n, m in run.model.masters.items()}
    for i, row in enumerate(rows):
        run._row_gradients([row])
        for name, master in run.model.masters.items():
            scale = float(together[name].abs().max()) + 1e-9
            assert torch.allclose(master.grad_sample[0], together[name][i], atol=0.03 * scale), name


def test_an_empty_draw_is_a_step_of_noise_alone(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = one_run(models, tmp_path)
    before = {n: m.detach().clone() for n, m in run.model.masters.items()}
    monkeypatch.setattr(run, "draw", list)
    run.step()
    assert run.state.step == 1
    assert all(bool((m != before[n]).any()) for n, m in run.model.masters.items())


def test_rows_are_drawn_one_by_one_by_the_stated_probability(models: Path, tmp_path: Path) -> None:
    """200 draws of 40 rows at 0.2: 1600 expected, standard deviation 36; and the sizes differ, as they must."""
    run = one_run(models, tmp_path)
    sizes = []
    for step in range(200):
        run.state.step = step
        sizes.append(len(run.draw()))
    assert run.sampling.rate == 0.2 and abs(sum(sizes) - 1600) < 5 * 36
    assert len(set(sizes)) > 5


@pytest.mark.parametrize("method", ["dpo", "dpo-ipo", "classification"])
def test_methods_that_the_accountant_does_not_describe_are_refused(models: Path, tmp_path: Path, method: str) -> None:
    with pytest.raises(InvalidInputError) as raised:
        task.run(private(models, tmp_path, method=method))
    assert raised.value.reason == "PRIVACY_METHOD"


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"epsilon": "8"},
        {"noise_multiplier": "1", "delta": "0.1"},
        {"noise_multiplier": "0", "epsilon": "8", "delta": "0.1"},
        {"epsilon": "nan", "delta": "0.1"},
        {"epsilon": 0, "delta": 0.1},
    ],
)
def test_a_target_without_meaning_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError) as raised:
        Target.from_order({"differential_privacy": wrong}, "lora")
    assert raised.value.reason == "PRIVACY_TARGET"


def one_run(models: Path, folder: Path) -> PrivateRun:
    """A run before its first step, by the order of the tests."""
    from trainer.recipes.loop import run_of
    from trainer.settings import Settings

    ctx = private(models, folder)
    job = task._job(ctx, Settings.from_order({**ctx.order["hyperparameters"], "lora_dropout": 0}, 5))
    run = run_of(job, ctx)
    assert isinstance(run, PrivateRun)
    run.restore()
    run.prepare()
    run.model.backbone.train()
    return run
