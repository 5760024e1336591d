"""What a task module sees inside the sandbox: its order, its folders, and a way to tell how far it is.

A task module has one function ``run(context: TaskContext) -> dict``; the dict is the task's *claim*, which the
supervisor writes into its statement beside what it measured itself. Standard library only: this is imported before
the cut-off is proven.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHECKPOINTS = "checkpoints"
"""Folder in ``work`` of checkpoints, each one file ``step-<n>`` sealed under the task's ``work_key`` by
:mod:`assay.sealed_file`, whose head is a JSON object with ``step`` after nothing but texts and numbers; of a search in
a folder ``trial-<n>`` for each trial."""

PAUSE_FLAG = "pause"
"""File in ``control`` that is there while a pause is asked for."""

RANK_LOST = "RANK_LOST"
"""Reason by which a training says that one of its own processes ended without a word, as the kernel ends one."""


class TaskPaused(Exception):
    """Raised by a task after it wrote a checkpoint into ``work``, when :meth:`TaskContext.should_pause` said so."""


@dataclass(frozen=True)
class TaskContext:
    """One task as its module sees it.

    Attributes:
        task_id: id chosen by the gateway.
        kind: ``prepare``, ``train`` or ``audit``.
        order: what to do; for ``train`` the predicate of the signed work order, already verified.
        inputs: opened files of the sealed task, read-only; ``inputs/private`` holds what this worker sealed to itself
            earlier.
        outputs: what the task hands back; ``outputs/private`` leaves only sealed to this worker.
        work: scratch folder that survives pauses and restarts; start from a checkpoint found here.
        models: base models, read-only.
        secret: 32 bytes derived for the job (canaries); empty for ``train``.
        work_key: 32 bytes of the task's own, the same in every attempt: what ``work`` keeps is encrypted with them.
        processes: processes that the worker's operator lets a training share its rows out to.
        environment: digest of the environment lock of this attempt (:mod:`assay.worker.lock`); empty outside a worker.
        memory_bytes: of the machine's memory that the task is to use at most; 0 outside a worker.
    """

    task_id: str
    kind: str
    order: dict[str, Any]
    inputs: Path
    outputs: Path
    work: Path
    models: Path
    secret: bytes = field(repr=False)
    pause_flag: Path = field(repr=False)
    send: Callable[[bytes], None] = field(repr=False)
    work_key: bytes = field(default=b"", repr=False)
    processes: int = 1
    environment: str = ""
    memory_bytes: int = 0

    def progress(
        self, step: int, steps: int, message: str = "", seconds_left: float | None = None, **metrics: float
    ) -> None:
        """Tells how far the task is.

        Args:
            step: steps done.
            steps: steps in all, 0 while unknown.
            message: one line for people; never row content.
            seconds_left: None while unknown.
            **metrics: named numbers of the moment; non-finite ones are left out.
        """
        line = {
            "type": "progress",
            "step": int(step),
            "steps": int(steps),
            "message": message[:200],
            "seconds_left": None if seconds_left is None or not math.isfinite(seconds_left) else float(seconds_left),
            "metrics": {name: float(value) for name, value in metrics.items() if math.isfinite(value)},
        }
        self.send(json.dumps(line, allow_nan=False).encode() + b"\n")

    def should_pause(self) -> bool:
        """Whether a person or the cost cap asked for a pause: write a checkpoint, then raise :class:`TaskPaused`."""
        return self.pause_flag.exists()
