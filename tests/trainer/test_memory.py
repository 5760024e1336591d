"""Batches that do not fit are read in parts: the same gradient, a bounded memory, and the same bits after a resume."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from assay.pinned import assay_home
from assay.worker.task import TaskContext, TaskPaused
from tests.e2e.e2e_world import chat_rows
from tests.trainer.test_objectives import LABELS, decisions, pairs
from tests.trainer.test_search import go_on, searching, stop
from tests.trainer.test_train_task import context, weights
from tests.trainer.tiny_models import BASE_MODEL, tiny_models
from trainer import task
from trainer.device import Device
from trainer.recipes import memory, objectives
from trainer.recipes.loop import Run
from trainer.recipes.memory import Shape
from trainer.recipes.plan import in_parts
from trainer.recipes.private import _sizes
from trainer.recipes.rows import EncodedRow
from trainer.settings import Settings

GIB = 1 << 30
SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models(tmp_path_factory.mktemp("models"))


def rows_of(*lengths: int) -> list[EncodedRow]:
    return [EncodedRow((1,) * n, (False,) + (True,) * (n - 1), 1.0) for n in lengths]


def lengths(parts: Any) -> list[list[int]]:
    return [[row.length for row in part] for part in parts]


def bounded(ctx: TaskContext, memory_bytes: int) -> TaskContext:
    object.__setattr__(ctx, "memory_bytes", memory_bytes)
    return ctx


def parted(rows: list[EncodedRow], tokens: int) -> list[list[int]]:
    return lengths(in_parts(rows, lambda row: (row.length,), (tokens,)))


def test_parts_hold_every_row_once_in_order_and_no_more_tokens_than_they_may() -> None:
    rows = rows_of(3, 4, 5, 9, 2, 2)
    assert parted(rows, 8) == [[3, 4], [5], [9], [2, 2]]
    assert parted(rows, 7) == [[3, 4], [5], [9], [2, 2]]
    assert parted(rows, 0) == [[3, 4, 5, 9, 2, 2]]
    assert parted(rows, 1) == [[3], [4], [5], [9], [2], [2]]
    assert parted([], 8) == []


def test_a_private_run_splits_between_units_and_never_inside_one() -> None:
    units = [rows_of(3, 4), rows_of(5), rows_of(9), rows_of(2)]
    sizes = {most: [len(part) for part in in_parts(units, _sizes, most)] for most in ((8, 8), (8, 0), (2, 0))}
    assert sizes == {(8, 8): [1, 1, 1, 1], (8, 0): [4], (2, 0): [1, 2, 1]}


@pytest.mark.parametrize("method", ["lora", "classification", "dpo"])
def test_the_gradient_of_the_parts_is_that_of_the_batch(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(task, "choose_device", lambda: Device("cpu", "float32", "test"))
    order: dict[str, Any] = {"method": method}
    found = [json.loads(line) for line in chat_rows(16).splitlines()]
    if method == "dpo":
        found = [{**row, "rejected": "No."} for row in found]
    if method == "classification":
        order["labels"] = ["yes", "no"]
        for row in found:
            row["messages"][-1]["content"] = "yes"
    rows = b"".join(json.dumps(row).encode() + b"\n" for row in found)
    ctx = context(models, tmp_path, rows, **order)
    job = task._job(ctx, Settings.from_order({"lora_rank": 4, "batch_size": 16, "seed": 5}))
    run = Run(job, ctx)
    run.prepare()
    assert len(job.train.rows) == 16

    def gradients(tokens: int) -> tuple[float, dict[str, torch.Tensor]]:
        run.state.micro_batch_tokens = tokens
        loss = float(run._gradients_of_my_share(job.train.rows))
        return loss, {n: m.grad.clone() for n, m in run.model.masters.items() if m.grad is not None}

    (whole, together), (parts, added) = gradients(0), gradients(1)
    assert parts == pytest.approx(whole, rel=1e-5)
    assert together.keys() == added.keys() and max(float(g.abs().max()) for g in together.values()) > 0
    for name, gradient in together.items():
        torch.testing.assert_close(added[name], gradient, rtol=1e-3, atol=1e-6)


def test_how_a_batch_is_split_is_stated_and_stays_as_it_was_on_another_machine(models: Path, tmp_path: Path) -> None:
    whole = bounded(context(models, tmp_path / "whole", chat_rows(40)), 4 * GIB)
    claim = task.run(whole)
    one_by_one = bounded(context(models, tmp_path / "one", chat_rows(40)), GIB)
    alone = task.run(one_by_one)
    assert alone["micro_batch_tokens"] == 1 and "each row is read by itself" in alone["micro_batch_why"]
    assert weights(one_by_one) != weights(whole)

    parts = bounded(context(models, tmp_path / "parts", chat_rows(40)), 4 * GIB)
    object.__setattr__(parts, "send", lambda line: parts.pause_flag.touch() if json.loads(line)["step"] == 4 else None)
    with pytest.raises(TaskPaused):
        task.run(parts)
    parts.pause_flag.unlink()
    resumed = task.run(bounded(parts, GIB))
    assert resumed["micro_batch_tokens"] == claim["micro_batch_tokens"] > 1
    assert resumed["micro_batch_why"] == claim["micro_batch_why"] != alone["micro_batch_why"]
    assert claim["micro_batch_why"].startswith("the largest power of two of tokens that fits into 60 % of the memory")
    unbounded = task.run(context(models, tmp_path / "unbounded", chat_rows(8)))
    assert unbounded["micro_batch_tokens"] == 0 and "nothing bounds a pass" in unbounded["micro_batch_why"]
    assert weights(parts) == weights(whole)


@pytest.mark.parametrize("method", ["lora", "classification", "dpo"])
def test_what_is_only_measured_holds_no_more_than_a_step_also_on_a_larger_machine(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Validation, the judging of a search's trials and the reference of preferences, before and after a pause."""
    plain, held = objectives.scored_nll, []

    def scored(model: Any, rows: Any, device: Any) -> Any:
        held.append(len(rows))
        return plain(model, rows, device)

    monkeypatch.setattr(objectives, "scored_nll", scored)
    rows = pairs(60) if method == "dpo" else decisions(60)
    made = bounded(searching(models, tmp_path, [{"learning_rate": "0.02"}], rows, method=method, labels=LABELS), GIB)
    stop(made, 3, made.pause_flag.touch)
    with pytest.raises(TaskPaused):
        task.run(made)
    claim = go_on(bounded(made, 64 * GIB))
    assert claim["micro_batch_tokens"] == 1 and claim["search"]["selection_rows"] == 20
    # Both answers of a pair and both labels of a row are compared in one pass.
    assert set(held) == {1 if method == "lora" else 2}


def test_more_memory_or_a_smaller_model_lets_more_tokens_in() -> None:
    small = Shape(layers=30, hidden=576, inner=1536, heads=9, attended=960, vocabulary=49152)
    large = Shape(layers=80, hidden=8192, inner=28672, heads=64, attended=10240, vocabulary=128256)

    def most(shape: Shape, memory_bytes: int, parameters: int, *, whole: bool = False) -> int:
        return memory.most_tokens(shape, memory_bytes, 2 * parameters, 2, 0, whole=whole)

    assert most(small, 16 * GIB, 135_000_000) > most(small, 4 * GIB, 135_000_000) >= 512
    assert most(small, 16 * GIB, 135_000_000) > most(small, 16 * GIB, 135_000_000, whole=True)
    assert most(large, 80 * GIB, 70_000_000_000) == 1
    assert most(large, 640 * GIB, 70_000_000_000) >= 1024
    assert most(small, 0, 135_000_000) == 0


def test_a_configuration_without_the_usual_names_is_read_all_the_same(tmp_path: Path) -> None:
    models = tiny_models(tmp_path, **SMALL)
    shape = Shape.read(models / BASE_MODEL / "files")
    assert (shape.layers, shape.hidden, shape.inner, shape.heads, shape.attended) == (2, 64, 128, 4, 16 * 8)


MEASURE = """
import json, resource, sys
import torch
from pathlib import Path
from trainer.device import choose_device
from trainer.recipes.lora import load
from trainer.recipes.objectives import Likelihood
from trainer.recipes.rows import EncodedRow
from trainer.settings import Settings
files, rows, length = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
model = load(files, Settings(), choose_device(), length)
def step(count):
    ids = [tuple((7 * i + 11 * j + 3) % 900 for i in range(length)) for j in range(count)]
    batch = [EncodedRow(row, (False,) + (True,) * (length - 1), 1.0) for row in ids]
    Likelihood().losses(model, batch, choose_device()).sum().backward()
step(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
step(rows)
print(json.dumps([before << 10, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "length"), [(8, 200), (2, 800)])
def test_the_estimate_holds_what_a_step_on_real_weights_takes(rows: int, length: int) -> None:
    files = assay_home() / "models" / BASE_MODEL / "files"
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(files), str(rows), str(length)], capture_output=True, text=True, check=True
    )
    before, after = json.loads(done.stdout.splitlines()[-1])
    device = task.choose_device()
    width = length if memory.keeps_attention(device, length) else 0
    estimated = rows * length * memory.bytes_of_token(Shape.read(files), device.torch_dtype().itemsize, width)
    told = ", ".join(f"{name} {size / GIB:.2f}" for name, size in (("before", before), ("after", after)))
    print(f"{rows} rows of {length} tokens: {told}, estimated {estimated / GIB:.2f} GiB")
    # What the one row took before is part of what the batch takes; the share that is kept free covers the rest.
    assert after - before < estimated / memory._SHARE
    assert estimated < 3 * (after - before)
