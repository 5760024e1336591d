"""Faults in the middle of a run, and bases and rows that do not fit: each named, none costs the last checkpoint."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

import assay
import trainer
from assay import sealed_file
from assay.digests import sha256_file
from assay.errors import AssayError, PreconditionError
from assay.modelfiles import read_base_manifest
from assay.worker import kept
from assay.worker.running import _foreign
from assay.worker.sandbox import TaskModule
from assay.worker.spool import State
from tests.assay.worker.conftest import House, ended, make_house, submit, until
from tests.e2e.e2e_world import chat_rows
from tests.trainer.test_train_task import context, weights
from tests.trainer.tiny_models import BASE_MODEL, tiny_models
from trainer import task
from trainer.recipes import loop, objectives
from trainer.recipes.plan import plan_batches
from trainer.settings import Settings

EVERY, FAULT_AT, WHOLE = 2, 6, 4
"""A checkpoint every second step; the fault comes in the work after step 5, so that step 4's is the last."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def undisturbed(models: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    ctx = context(models, tmp_path_factory.mktemp("whole"), chat_rows(40))
    task.run(ctx)
    return weights(ctx)


def when(due: Callable[[], bool], fault: Callable[[], Any], original: Callable[..., Any]) -> Callable[..., Any]:
    """A function that is replaced by a fault once."""

    def call(*arguments: Any, **more: Any) -> Any:
        return fault() if due() else original(*arguments, **more)

    return call


def refused() -> Any:
    return torch.empty(1 << 60)  # more than any address space


def no_memory() -> Any:
    raise MemoryError


def no_number() -> Any:
    return torch.full((8,), float("nan"), requires_grad=True)


def no_room() -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("fault", "reason"),
    [(no_memory, "TASK_MEMORY"), (refused, "TASK_MEMORY"), (no_number, "LOSS_NOT_FINITE"), (no_room, "DISK_FULL")],
)
def test_a_fault_leaves_a_checkpoint_from_which_the_same_bits_come(
    models: Path,
    undisturbed: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[], Any],
    reason: str,
) -> None:
    ctx = context(models, tmp_path, chat_rows(40))
    calls = [0]

    def sixth() -> bool:
        calls[0] += 1
        return calls[0] == (FAULT_AT // EVERY if fault is no_room else FAULT_AT)

    monkeypatch.setattr(loop, "CHECKPOINT_STEPS", EVERY)
    with monkeypatch.context() as broken:
        if fault is no_room:
            broken.setattr(sealed_file, "write", when(sixth, fault, sealed_file.write))
        else:
            broken.setattr(objectives, "row_losses", when(sixth, fault, objectives.row_losses))
        with pytest.raises((AssayError, MemoryError, RuntimeError)) as raised:
            task.run(ctx)
    error = raised.value
    told = error.reason if isinstance(error, AssayError) else _foreign(error)["reason"]
    assert told == reason
    assert not (ctx.outputs / "adapter").exists()
    assert kept.newest(ctx.work, ctx.work_key) == WHOLE
    assert kept.newest(ctx.work, b"x" * 32) == 0, "of another task"
    claim = task.run(ctx)
    assert claim["steps"] == 10 and claim["damaged_checkpoints"] == 0
    assert weights(ctx) == undisturbed


def test_no_checkpoint_is_written_of_an_adapter_that_is_not_finite(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gradient without end under a finite loss; the next loss would tell, and the checkpoint between is worthless."""
    ctx, step, calls = context(models, tmp_path, chat_rows(40)), torch.optim.AdamW.step, [0]

    def endless(optimizer: Any, *arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == FAULT_AT:
            optimizer.param_groups[0]["params"][0].grad.fill_(float("inf"))
        return step(optimizer, *arguments)

    monkeypatch.setattr(loop, "CHECKPOINT_STEPS", EVERY)
    monkeypatch.setattr(torch.optim.AdamW, "step", endless)
    with pytest.raises(PreconditionError) as raised:
        task.run(ctx)
    assert raised.value.reason == "LOSS_NOT_FINITE" and f"after step {FAULT_AT}" in raised.value.message
    assert kept.newest(ctx.work, ctx.work_key) == WHOLE


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "TASK_MEMORY"),
        (RuntimeError("shapes cannot be multiplied"), "TASK_CRASHED"),
        (OSError(errno.EDQUOT, "quota"), "DISK_FULL"),
        (ValueError("I/O error: No space left on device (os error 28)"), "DISK_FULL"),
        (OSError(errno.EACCES, "a row's words"), "TASK_CRASHED"),
    ],
)
def test_a_librarys_error_is_told_by_name_and_never_by_its_words(error: Exception, reason: str) -> None:
    told = _foreign(error)
    assert told["reason"] == reason and str(error) not in told["message"]


def test_a_tokenizer_with_more_tokens_than_the_embedding_is_named_before_the_first_step(tmp_path: Path) -> None:
    ctx = context(tiny_models(tmp_path / "models", vocab_size=40_000), tmp_path / "run", chat_rows(8))
    with pytest.raises(PreconditionError) as raised:
        task.run(ctx)
    assert raised.value.reason == "TOKENIZER_MISMATCH" and raised.value.remedy
    assert "49151" in raised.value.message and "40000" in raised.value.message
    assert not list(ctx.work.iterdir()) and not list(ctx.outputs.iterdir())


def test_a_larger_embedding_is_padding_and_is_no_mismatch(tmp_path: Path) -> None:
    ctx = context(tiny_models(tmp_path / "models", vocab_size=49_216), tmp_path / "run", chat_rows(8))
    assert task.run(ctx)["steps"] == 2


def test_a_tokenizer_without_a_chat_template_is_named(tmp_path: Path) -> None:
    with pytest.raises(PreconditionError) as raised:
        task.run(context(tiny_models(tmp_path / "models", template=False), tmp_path / "run", chat_rows(8)))
    assert raised.value.reason == "TOKENIZER_MISMATCH" and "chat template" in raised.value.message


def chat(answer: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": answer, **more}]}


def test_rows_longer_than_the_context_are_cut_counted_and_named(tmp_path: Path) -> None:
    """Row 2 loses its beginning; row 3 has a scored answer only before a long one that is not scored."""
    lost = chat("Because.")
    lost["messages"] += [{"role": "user", "content": "And?"}, chat("so on " * 200, weight=0)["messages"][1]]
    rows = [chat("Because."), chat("because " * 200), lost, chat("Just so.")]
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    ctx = context(tiny_models(tmp_path / "models", max_position_embeddings=64), tmp_path / "run", data)
    told: list[str] = []
    ctx = replace(ctx, send=lambda line: told.append(json.loads(line)["message"]))
    claim = task.run(ctx)
    assert (claim["row_tokens"], claim["cut_rows"], claim["cut_row_numbers"]) == (64, 2, [2, 3])
    assert (claim["rows_without_target"], claim["row_numbers_without_target"]) == (1, [3])
    assert claim["rows"] == 3 and claim["validation_cut_rows"] == 0
    assert "2 of 4 rows are longer than 64 tokens and lose their beginning" in told
    assert claim["hyperparameters"]["max_row_tokens"] == 1024, "asked for; the base model has less"


def test_no_step_of_a_planned_run_is_empty() -> None:
    for count in (1, 7, 8, 9, 65):
        for size in (1, 2, 8, 256):
            plan = plan_batches([10] * count, Settings(epochs=1.5, batch_size=size))
            assert plan.steps >= 1 and min(len(batch) for batch in plan.batches) >= 1


@pytest.fixture
def real(tmp_path: Path) -> House:
    """A worker whose train tasks are the real trainer's, with a tiny base."""
    house = make_house(tmp_path)
    tiny_models(house.models)
    return house


@pytest.mark.slow
@pytest.mark.isolation
@pytest.mark.timeout(600)
async def test_a_real_run_that_stops_answering_goes_on_to_the_same_bits(real: House) -> None:
    packages = tuple(Path(package.__file__).parent for package in (assay, trainer))
    table = {kind: TaskModule("trainer.task", packages) for kind in ("prepare", "train", "audit")}
    files = {"train.jsonl": chat_rows(240), "validation.jsonl": chat_rows(8)}
    order = real.work_order(
        files, base_model=BASE_MODEL, base_sha256=read_base_manifest(real.models / BASE_MODEL).sha256, seed=5,
        hyperparameters={"epochs": "3.0", "lora_rank": 4}, max_train_tokens=10_000_000,
    )  # fmt: skip
    supervisor = real.supervisor(table, limits=real.settings().limits.model_copy(update={"silent_seconds": 3}))
    await supervisor.start()
    for name in ("left", "stopped"):
        await submit(supervisor, name, "train", real.seal(name, "train", order, files))
        if name == "stopped":
            await until(lambda: supervisor.get("stopped").progress.step >= 27, 300)
            sandbox = supervisor.get("stopped").record.sandbox
            assert sandbox is not None
            for process in psutil.Process(sandbox[0]).children(recursive=True):
                process.send_signal(signal.SIGSTOP)
            record = (await ended(supervisor, name)).record
            assert record.state is State.PAUSED and record.reason.startswith("TASK_SILENT")
            assert record.reason.endswith("; the checkpoint of step 25 is kept")
            supervisor.resume(name)
        record = (await ended(supervisor, name)).record
        assert record.state is State.DONE, record.reason
        real.open_result(supervisor, name, real.root / name)
    await supervisor.stop()
    adapters = [sha256_file(real.root / n / "adapter" / "adapter_model.safetensors") for n in ("left", "stopped")]
    assert adapters[0] == adapters[1]
