"""The folder through which a supervisor and its nodes pass sealed bytes, when attempts run on other machines.

``<exchange>/<task id>/``: ``task.bin``, the task as the gateway sealed it; ``work.bin``, the checkpoints of an attempt
that paused, or of a training as it runs, sealed by their worker to itself; and one folder a try, ``1``, ``2`` and so
on, since a node that was given up may still be writing:

* ``record.json`` from the supervisor: the task's record, with the attempt that this try is and what those before took;
* ``pause`` and ``cancel`` from the supervisor, empty files;
* ``beat.json`` from the node, again and again: whether it has a device slot, progress, and what all attempts took;
* ``result.bin`` from the node, sealed for the gateway, then ``end.json``: how it ended. Nothing follows.

Nothing here is plain data, and nothing here is believed: the node verifies the task's seal, the gateway the result's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from assay import bundle, durable
from assay.errors import PermissionDeniedError
from assay.worker.settings import WorkerKeys

TASK, WORK, RECORD, RESULT = "task.bin", "work.bin", "record.json", "result.bin"
NODE_STOPPED = "NODE_STOPPED"
"""Reason of a try that the cluster ended, unasked by us."""
BEAT, END, PAUSE, CANCEL, GIVEN_UP = "beat.json", "end.json", "pause", "cancel", "given-up"


def publish(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a JSON object that a reader sees whole or not at all."""
    with durable.replacing(path) as stream:
        stream.write(json.dumps(value).encode())


def read(path: Path) -> dict[str, Any] | None:
    """A JSON object, or None where there is none yet."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def read_work(stream: BinaryIO, task_id: str, keys: WorkerKeys) -> dict[str, Any]:
    """Manifest of a sealed checkpoint; its ``step`` is that of the newest whole one, 0 where there is none.

    No cap on what others send bounds it: this worker sealed it, and what was paid for must open again.

    Raises:
        PermissionDeniedError: ``WORK_BINDING`` for another task's.
        AssayError: whatever :func:`assay.bundle.read_manifest` refuses.
    """
    manifest = bundle.read_manifest(stream, keys.seal, keys.statement.public_key(), max_bytes=bundle.MAX_SEALED)
    if manifest.get("kind") != "work" or manifest.get("task_id") != task_id:
        raise PermissionDeniedError("WORK_BINDING", "the checkpoint belongs to another task")
    return manifest


def newest_try(task: Path) -> int:
    """Number of a task's newest try; 0 before the first."""
    return max((int(p.name) for p in task.glob("[0-9]*") if p.name.isdecimal()), default=0)
