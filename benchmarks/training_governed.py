"""One training task for ``benchmarks/training.py``, ``governed`` or ``bare``: prints one JSON line.

``governed`` seals the rows to a train worker with keys of its own, which opens them in its sandbox, proves the cut-off,
trains, meters, writes checkpoints, streams its progress and seals a signed result, which is opened. ``bare`` calls the
same task as a function, with no checkpoint and nobody listening. Whoever waits for this process learns from the kernel
what it computed from its first instruction to its last. ``unwaited_seconds`` is what that leaves out: CPU seconds of
the sandbox, by the worker's meter, as far as bubblewrap has not waited for its processes. The meter looks four times a
second and once when the task says that it is done; of how the sandbox's last process ends it may miss a quarter second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from assay.worker.spool import State
from benchmarks import offline
from benchmarks.gpu_check import Worker


async def governed(prepared: Path, settings: Mapping[str, Any], folder: Path) -> float:
    """The whole way through a worker; CPU seconds of the sandbox by its meter."""
    worker = Worker(folder / "worker", offline.MODELS)
    files = {name: (prepared / name).read_bytes() for name in ("train.jsonl", "validation.jsonl")}
    hyperparameters = {k: str(v) if isinstance(v, float) else v for k, v in settings.items()}
    order = {**offline.order(settings), "hyperparameters": hyperparameters}
    await worker.supervisor.start()
    try:
        await worker.submit("task", files, order)
        last = await worker.follow("task")
    finally:
        await worker.supervisor.stop()
    if last.record.state is not State.DONE:
        raise SystemExit(f"the governed run ended {last.record.state.value}: {last.record.reason}")
    worker.result("task", folder / "result")
    return last.record.meter.cpu_ms / 1000


def bare(prepared: Path, settings: Mapping[str, Any], folder: Path) -> float:
    """The task alone, in this process."""
    from trainer import task
    from trainer.recipes import checkpoints

    checkpoints.save = lambda *_: None
    task.run(offline.context("train", offline.order(settings), prepared, folder))
    return 0.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("governed", "bare"))
    parser.add_argument("--prepared", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--settings", type=json.loads, required=True)
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True)
    if options.kind == "governed":
        inside = asyncio.run(governed(options.prepared, options.settings, options.folder))
    else:
        inside = bare(options.prepared, options.settings, options.folder)
    times = os.times()
    unwaited = max(0.0, inside - times.children_user - times.children_system)
    print(json.dumps({"unwaited_seconds": unwaited}), flush=True)
    if options.kind == "bare":
        os._exit(0)  # as a sandbox's process does, so that not ending tidily is no gain of governance


if __name__ == "__main__":
    main()
