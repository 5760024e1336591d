"""Tasks of the tests: real worker, real sandbox, and done in milliseconds.

The dataset's first line is a JSON object that says how to behave; it travels with the rows from task to task.
"""

import errno
import json
import os
import time
from pathlib import Path

from assay.worker.task import TaskContext, TaskPaused


def behaviour(path: Path) -> dict:
    """What the dataset's first line asks for."""
    return json.loads(path.read_text().splitlines()[0])


def wait(context: TaskContext, asked: dict, kind: str) -> None:
    """Waits for the gate of this stage, if there is one; pauses when asked to, unless it is deaf; counts its starts.

    Where its disk is full, it ends.
    """
    if asked.get("full") == kind and not (context.models / "mended").exists():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    starts = context.work / "starts"
    starts.write_text(str(int(starts.read_text()) + 1 if starts.exists() else 1))
    with (context.work / "environments").open("a") as stream:
        stream.write(context.environment + "\n")
    gate = asked.get(f"gate_{kind}")
    step = 0
    while gate and not (context.models / gate).exists():
        if context.should_pause() and not asked.get("deaf"):
            raise TaskPaused
        step += 1
        context.progress(step, 0, "waiting for the gate", tokens=100.0 * step)
        time.sleep(0.05)
