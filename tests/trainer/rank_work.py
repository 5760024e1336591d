"""What processes do in tests of how they work together: without a model, and imported in a moment by each of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from assay.modelfiles import BaseManifest
from assay.worker.task import TaskContext
from trainer import task
from trainer.device import Device
from trainer.recipes import ranks
from trainer.recipes.launcher import Work, carry_out
from trainer.recipes.loop import TuneJob
from trainer.recipes.ranks import Ranks
from trainer.recipes.rows import NO_ROWS
from trainer.settings import Settings


def together(work: Work, folder: Path, processes: int, send: Callable[[bytes], None] = print) -> dict[str, Any]:
    """Lets processes work without a model."""
    job = TuneJob(
        BaseManifest("", "", "", 0, (), ""), folder, NO_ROWS, NO_ROWS, "lora", None, Settings(),
        Device("cpu", "float32", ""), folder, "", 0, 0, task._stopped, bytes(32),
        ranks=Ranks(processes, backend="gloo"),
    )  # fmt: skip
    return carry_out(work, job, TaskContext("t", "train", {}, *[folder] * 4, b"", folder / "pause", send))


def alike(job: TuneJob, context: TaskContext) -> dict[str, Any]:
    """Sums and agreements of three processes, of which each brings other numbers and the last has no gradient."""
    ranks._BUCKET = 5  # type: ignore[misc]
    number = job.ranks.number
    parameters = [torch.nn.Parameter(torch.zeros(2, 2)), torch.nn.Parameter(torch.zeros(3))]
    if number < 2:
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, 10.0**number)
    job.ranks.sum_gradients(parameters)
    job.ranks.reseed(1, 1)
    draws = torch.zeros(3)
    draws[number] = torch.rand(())
    job.ranks.demand_one_adapter(3, {"a": parameters[0].grad, "b": parameters[1].grad})  # type: ignore[dict-item]
    return {
        "sums": [p.grad.tolist() for p in parameters if p.grad is not None],
        "total": float(job.ranks.total(torch.tensor(number + 1.0))),
        "decided": job.ranks.decided(7.5 if number == 0 else -1.0),
        "draws": len(set(job.ranks.total(draws).tolist())),
        "threads": torch.get_num_threads(),
    }


def unlike(job: TuneJob, context: TaskContext) -> dict[str, Any]:
    """The second process holds another adapter than the first."""
    job.ranks.demand_one_adapter(25, {"a": torch.full((3,), float(job.ranks.number))})
    job.ranks.meet()
    return {}


def mute(job: TuneJob, context: TaskContext) -> dict[str, Any]:
    """The second process is gone without a word before the others need it."""
    if job.ranks.number == 1:
        os._exit(3)
    job.ranks.meet()
    return {}


def broken(job: TuneJob, context: TaskContext) -> dict[str, Any]:
    """The second process ends by a library's error, whose words may quote a row."""
    if job.ranks.number == 1:
        raise ValueError("a row's words")
    job.ranks.meet()
    return {}


def no_memory(job: TuneJob, context: TaskContext) -> dict[str, Any]:
    """The second process asks for more than any address space."""
    if job.ranks.number == 1:
        torch.empty(1 << 60)
    job.ranks.meet()
    return {}


def linger(job: TuneJob, context: TaskContext) -> dict[str, Any]:
    """Every process is there, and stays."""
    job.ranks.meet()
    context.progress(1, 1, "all are here")
    time.sleep(120)
    return {}
