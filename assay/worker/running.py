"""Inside the sandbox, once the cut-off is proven: imports the allow-listed task module, runs it, tells how it ended."""

from __future__ import annotations

import base64
import contextlib
import errno
import importlib
import json
import os
import re
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from assay.errors import AssayError, origin
from assay.worker.entry import EXIT_DONE, EXIT_FAILED, EXIT_NOT_ISOLATED, EXIT_PAUSED, MAX_LINE
from assay.worker.task import PAUSE_FLAG, TaskContext, TaskPaused

_TORCH_CPU = re.compile(r"DefaultCPUAllocator: (can't allocate|not enough) memory")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_CLOSE_SECONDS = 30.0
_EXITS = {"done": EXIT_DONE, "paused": EXIT_PAUSED, "failed": EXIT_FAILED}


def serve(descriptor: int) -> int:
    """Waits for the order on the inherited socket, runs it, reports; returns the exit code."""
    channel = socket.socket(fileno=descriptor)
    lines = channel.makefile("rb")
    order = lines.readline(MAX_LINE)
    if not order:
        # The supervisor did not accept the proof, or died.
        return EXIT_NOT_ISOLATED
    end = run(json.loads(order)["run"], channel.sendall)
    channel.sendall(json.dumps({"type": "end", **end}).encode() + b"\n")
    # The supervisor measures this process tree once more, then closes its end.
    channel.settimeout(_CLOSE_SECONDS)
    with contextlib.suppress(OSError):
        lines.readline(1)
    return _EXITS[end["outcome"]]


def run(order: Mapping[str, Any], send: Callable[[bytes], None]) -> dict[str, Any]:
    """Runs one task to its end.

    Args:
        order: task id, kind, order, secret and module, as :class:`assay.worker.attempt.Handover` wrote them.
        send: takes bytes for the supervisor.

    Returns:
        The message that ends the exchange: ``outcome`` and what belongs to it.
    """
    return outcome_of(lambda: importlib.import_module(order["module"]).run(_context(order, send)))


def outcome_of(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Does a task's work; how it ended, as :func:`run` returns it."""
    try:
        claim = work()
        json.dumps(claim)  # a claim that does not fit the channel is the task's fault and is told as such
        return {"outcome": "done", "claim": claim}
    except TaskPaused:
        return {"outcome": "paused"}
    except AssayError as error:
        print(*origin(error), sep="\n", file=sys.stderr)
        return {
            "outcome": "failed",
            "code": error.code,
            "reason": error.reason,
            "message": error.message[:500],
            "remedy": error.remedy[:500],
            "violations": [[v.field[:200], v.description[:300]] for v in error.violations[:50]],
        }
    except Exception as error:
        print(*origin(error), sep="\n", file=sys.stderr)
        return {"outcome": "failed", **_foreign(error)}


def _foreign(error: Exception) -> dict[str, str]:
    """Tells a refused allocation and a full disk by name; torch has a class for the first on a GPU alone."""
    words = str(error)[:1000]
    no_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if no_memory or (isinstance(error, RuntimeError) and _TORCH_CPU.search(words)):
        remedy = "give the worker more memory, or ask for shorter rows"
        return {"reason": "TASK_MEMORY", "message": "memory ran out", "remedy": remedy}
    if (isinstance(error, OSError) and error.errno in _FULL) or os.strerror(errno.ENOSPC) in words:
        return {"reason": "DISK_FULL", "message": "the disk is full", "remedy": "free space on the worker's disk"}
    # The text of a foreign error may quote a row, so only its type leaves the sandbox.
    return {"reason": "TASK_CRASHED", "message": f"the task ended by {type(error).__name__}"}


def _context(order: Mapping[str, Any], send: Callable[[bytes], None]) -> TaskContext:
    root = Path("/task")
    return TaskContext(
        task_id=order["task_id"],
        kind=order["kind"],
        order=order["order"],
        inputs=root / "in" / "files",
        outputs=root / "out",
        work=root / "work",
        models=Path("/models"),
        secret=base64.b64decode(order["secret"]),
        pause_flag=root / "control" / PAUSE_FLAG,
        send=send,
        work_key=base64.b64decode(order["work_key"]),
        processes=order["processes"],
        environment=order["environment"],
        memory_bytes=order["memory_bytes"],
    )
