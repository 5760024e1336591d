"""The train task end to end on a tiny random Llama with the real tokenizer: plumbing, exact resume, named faults."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from assay import canonical
from assay.errors import IntegrityError, InvalidInputError, PreconditionError
from assay.modelfiles import check_adapter_folder, lora_b_moved, read_base_manifest
from assay.worker.task import TaskContext, TaskPaused
from tests.e2e.e2e_world import chat_rows
from tests.trainer.tiny_models import BASE_MODEL, tiny_models
from trainer import task
from trainer.recipes.plan import plan_batches
from trainer.settings import Settings


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models(tmp_path_factory.mktemp("models"))


def context(models: Path, folder: Path, rows: bytes = b"", **order: Any) -> TaskContext:
    """A context in ``folder``; ``order`` replaces members of the work order."""
    for name in ("in", "out", "work"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "in" / "train.jsonl").write_bytes(rows)
    (folder / "in" / "validation.jsonl").write_bytes(chat_rows(8))
    wanted = {
        "base_model": BASE_MODEL,
        "base_sha256": read_base_manifest(models / BASE_MODEL).sha256,
        "hyperparameters": {
            "epochs": "2.0", "learning_rate": "0.01", "batch_size": 8, "lora_rank": 4, "lora_dropout": "0.1",
            "seed": 5,
        },
        "max_train_tokens": 1_000_000,
    } | order  # fmt: skip
    sent: list[bytes] = []
    return TaskContext(
        task_id="t", kind="train", order=wanted, inputs=folder / "in", outputs=folder / "out", work=folder / "work",
        models=models, secret=b"", pause_flag=folder / "pause", send=sent.append, work_key=bytes(32),
    )  # fmt: skip


def weights(ctx: TaskContext) -> bytes:
    return (ctx.outputs / "adapter" / "adapter_model.safetensors").read_bytes()


def test_a_run_leaves_an_adapter_that_may_be_loaded_and_a_float_free_claim(models: Path, tmp_path: Path):
    ctx = context(models, tmp_path, chat_rows(40))
    claim = task.run(ctx)
    check_adapter_folder(ctx.outputs / "adapter")
    assert lora_b_moved(ctx.outputs / "adapter")
    assert canonical.decode((ctx.outputs / "training.json").read_bytes()) == claim
    assert claim["trained_tokens"] > 0 and float(claim["train_seconds"]) > 0
    assert len(claim["losses"]) == claim["steps"] == 10
    assert math.isfinite(float(claim["validation_loss"]))


def test_a_paused_run_ends_bit_for_bit_as_an_uninterrupted_one(models: Path, tmp_path: Path):
    whole = context(models, tmp_path / "whole", chat_rows(40))
    task.run(whole)
    parts = context(models, tmp_path / "parts", chat_rows(40))

    def pause_at_four(line: bytes) -> None:
        message = json.loads(line)
        if message["step"] == 4:
            parts.pause_flag.touch()

    object.__setattr__(parts, "send", pause_at_four)
    with pytest.raises(TaskPaused):
        task.run(parts)
    assert not (parts.outputs / "adapter").exists()
    parts.pause_flag.unlink()
    object.__setattr__(parts, "send", lambda line: None)
    task.run(parts)
    assert weights(parts) == weights(whole)


@pytest.mark.parametrize("trials", [[], [{"learning_rate": "0.01"}, {"learning_rate": "0.001"}]])
def test_a_run_that_goes_on_in_another_environment_says_so(models: Path, tmp_path: Path, trials: list[dict[str, str]]):
    ctx = context(models, tmp_path, chat_rows(40), **({"search": {"trials": trials}} if trials else {}))
    (ctx.inputs / "selection.jsonl").write_bytes(chat_rows(8))
    here, elsewhere = "a" * 64, "b" * 64
    object.__setattr__(ctx, "environment", here)
    object.__setattr__(ctx, "send", lambda line: ctx.pause_flag.touch() if json.loads(line)["step"] == 4 else None)
    with pytest.raises(TaskPaused):
        task.run(ctx)
    ctx.pause_flag.unlink()
    object.__setattr__(ctx, "send", lambda line: None)
    object.__setattr__(ctx, "environment", elsewhere)
    assert task.run(ctx)["environments"] == [here, elsewhere]
    again = context(models, tmp_path / "again", chat_rows(40))
    object.__setattr__(again, "environment", here)
    assert task.run(again)["environments"] == [here]


def test_a_damaged_or_foreign_checkpoint_is_refused(models: Path, tmp_path: Path):
    ctx = context(models, tmp_path, chat_rows(40))
    object.__setattr__(ctx, "send", lambda line: ctx.pause_flag.touch() if json.loads(line)["step"] == 2 else None)
    with pytest.raises(TaskPaused):
        task.run(ctx)
    ctx.pause_flag.unlink()
    state = next(ctx.work.rglob("step-*"))
    data = bytearray(state.read_bytes())
    whole = bytes(data)
    data[-1] ^= 1
    state.write_bytes(bytes(data))
    with pytest.raises(IntegrityError) as raised:
        task.run(ctx)
    assert raised.value.reason == "CHECKPOINT_DAMAGED"
    state.write_bytes(whole)
    (ctx.inputs / "train.jsonl").write_bytes(chat_rows(41))
    with pytest.raises(IntegrityError) as raised:
        task.run(ctx)
    assert raised.value.reason == "CHECKPOINT_FOREIGN"


def test_a_spent_token_cap_is_named(models: Path, tmp_path: Path):
    with pytest.raises(PreconditionError) as raised:
        task.run(context(models, tmp_path, chat_rows(40), max_train_tokens=500))
    assert raised.value.reason == "TOKEN_CAP" and raised.value.remedy


def test_a_changed_base_model_is_named(models: Path, tmp_path: Path):
    with pytest.raises(IntegrityError) as raised:
        task.run(context(models, tmp_path, chat_rows(8), base_sha256="0" * 64))
    assert raised.value.reason == "BASE_MODEL_CHANGED"


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (b"", "NO_TRAINABLE_ROWS"),
        (b'{"messages": [{"role": "user", "content": "only a question"}]}\n', "NO_TRAINABLE_ROWS"),
        (b"not json\n", "ROW_MALFORMED"),
        (b'{"messages": []}\n', "ROW_MALFORMED"),
        (b'{"messages": [{"role": "assistant", "content": 7}]}\n', "ROW_MALFORMED"),
        (b'{"messages": [{"role": "assistant", "content": "a", "weight": 3}]}\n', "ROW_MALFORMED"),
    ],
)
def test_rows_that_cannot_be_used_are_named(models: Path, tmp_path: Path, rows: bytes, reason: str):
    with pytest.raises(InvalidInputError) as raised:
        task.run(context(models, tmp_path, rows))
    assert raised.value.reason == reason


def test_an_unstable_run_is_stopped(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import torch

    from trainer.recipes import objectives

    monkeypatch.setattr(
        objectives, "row_losses", lambda m, rows, d: torch.full((len(rows),), float("nan"), requires_grad=True)
    )
    with pytest.raises(PreconditionError) as raised:
        task.run(context(models, tmp_path, chat_rows(16)))
    assert raised.value.reason == "LOSS_NOT_FINITE"


@pytest.mark.parametrize("early_stopping", [False, True])
def test_a_validation_loss_that_is_no_number_is_a_fault(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, early_stopping: bool
):
    """Else early stopping would take it for a run that got worse, and its statement would say NaN."""
    from trainer.recipes.loop import Run

    monkeypatch.setattr(Run, "watch", lambda run: {"loss": float("nan")})
    hyperparameters = {"epochs": "1", "batch_size": 8, "early_stopping": early_stopping}
    with pytest.raises(PreconditionError) as raised:
        task.run(context(models, tmp_path, chat_rows(16), hyperparameters=hyperparameters))
    assert raised.value.reason == "LOSS_NOT_FINITE" and "validation" in raised.value.message


@pytest.mark.parametrize(
    "wrong", [{"epochs": "nan"}, {"epochs": 0}, {"learning_rate": -1}, {"batch_size": "x"}, {"magic": 1}, {"seed": -1}]
)
def test_hyperparameters_out_of_range_are_named(wrong: dict[str, Any]):
    with pytest.raises(InvalidInputError) as raised:
        Settings.from_order(wrong)
    assert raised.value.reason == "HYPERPARAMETERS"


def test_each_epoch_visits_every_row_once_in_an_order_that_the_seed_decides():
    lengths = [10 + i % 7 for i in range(45)]
    plan = plan_batches(lengths, Settings(epochs=2.0, batch_size=8, seed=1))
    assert plan.steps == 12 and plan.steps_per_epoch == 6
    for epoch in (plan.batches[:6], plan.batches[6:]):
        assert sorted(i for batch in epoch for i in batch) == list(range(45))
    assert plan == plan_batches(lengths, Settings(epochs=2.0, batch_size=8, seed=1))
    assert plan != plan_batches(lengths, Settings(epochs=2.0, batch_size=8, seed=2))


def test_attack_21_rows_that_were_swapped_after_they_were_staged_are_named(models: Path, tmp_path: Path):
    ctx = context(models, tmp_path, chat_rows(8), train_sha256="0" * 64)
    with pytest.raises(IntegrityError) as raised:
        task.run(ctx)
    assert raised.value.reason == "ROWS_CHANGED" and not (ctx.outputs / "adapter").exists()


def test_attack_21_a_base_model_that_was_swapped_after_the_decision_is_named(models: Path, tmp_path: Path):
    with pytest.raises(IntegrityError) as raised:
        task.run(context(models, tmp_path, chat_rows(8), base_sha256="1" * 64))
    assert raised.value.reason == "BASE_MODEL_CHANGED"


@pytest.mark.parametrize(("trials", "load"), [(0, 1), (2, 1), (2, 2)])
def test_attack_21_a_base_model_that_is_swapped_between_its_hash_and_a_load_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trials: int, load: int
):
    """Also before a later trial of a search, since every trial loads it anew."""
    from transformers import AutoModelForCausalLM

    own = tiny_models(tmp_path / "models")
    found = own / BASE_MODEL / "files" / "model.safetensors"
    real, loads = AutoModelForCausalLM.from_pretrained, []

    def swapping(*args: Any, **kwargs: Any) -> Any:
        loads.append(args)
        if len(loads) == load:
            data = bytearray(found.read_bytes())
            data[-1] ^= 1
            found.write_bytes(data)
        return real(*args, **kwargs)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", swapping)
    asked = {"search": {"trials": [{"learning_rate": "0.001"}] * trials}} if trials else {}
    ctx = context(own, tmp_path, chat_rows(16), **asked)
    (ctx.inputs / "selection.jsonl").write_bytes(chat_rows(8))
    with pytest.raises(IntegrityError) as raised:
        task.run(ctx)
    assert raised.value.reason == "BASE_FILES_DIGEST" and "model.safetensors" in raised.value.message
    assert len(loads) == load and not (ctx.outputs / "adapter").exists()


def test_weights_that_were_loaded_do_not_change_with_their_file(tmp_path: Path):
    """In the file's own format they were views of it, mapped into memory."""
    import torch

    from trainer.device import Device
    from trainer.recipes.lora import load

    own = tiny_models(tmp_path / "models")
    files = own / BASE_MODEL / "files"
    model = load(files, Settings(), Device("cpu", "bfloat16", ""), 100)
    before = {n: p.detach().clone() for n, p in model.backbone.named_parameters()}
    with (files / "model.safetensors").open("r+b") as stream:
        stream.seek(-(1 << 16), 2)
        stream.write(bytes(1 << 16))
    assert all(torch.equal(before[n], p) for n, p in model.backbone.named_parameters())


@pytest.mark.parametrize(("number_format", "copied"), [("bfloat16", True), ("float32", False)])
def test_only_weights_in_the_files_own_format_are_copied(models: Path, number_format: str, copied: bool):
    """Copies of the others took 400 MiB of a task's highest memory."""
    import torch
    from transformers import AutoModelForCausalLM

    from trainer.recipes.lora import _leave_files

    files = models / BASE_MODEL / "files"
    base = AutoModelForCausalLM.from_pretrained(files, dtype=getattr(torch, number_format))
    before = [p.data for p in base.parameters()]
    _leave_files(base, files)
    assert {p.data_ptr() != b.data_ptr() for p, b in zip(base.parameters(), before, strict=True)} == {copied}
