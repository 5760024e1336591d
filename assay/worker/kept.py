"""What a task that ended by a fault left to go on from: its newest whole checkpoint, if there is one.

A train task that faults with a checkpoint is paused instead of failed: who asked for the job sees the fault, and lets
it go on once that is mended, or cancels it. Where nothing can come of going on, the task fails for good.
"""

from __future__ import annotations

import contextlib
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from assay import sealed_file
from assay.errors import IntegrityError
from assay.worker.spool import TaskRecord
from assay.worker.task import CHECKPOINTS

_NAME = re.compile(r"step-[0-9]{1,15}")
_TRIAL = re.compile(r"trial-[0-9]{1,3}")
"""Folder of checkpoints of one trial of a search."""
_STEP = re.compile(rb'\{(?:"\w+": (?:"[^"\\]*"|[-+.\w]+), )*"step": ([0-9]{1,16})[,}]')
_BEGINNING = 4096
_MOST_WORDS = 1900
_FINAL = frozenset(
    {"TOKEN_CAP", "CHECKPOINT_DAMAGED", "CHECKPOINT_FOREIGN", "ROWS_CHANGED", "PARENT_CHANGED", "SEALED_FILE_HEAD"}
)
"""Faults that the same order meets again wherever it goes on."""
_ENDED_ON_PURPOSE = frozenset({"TASK_CANCELLED", "WORKER_STOPPED", "NODE_FORGOTTEN"})


def after_fault(record: TaskRecord, reason: str, step: int) -> str:
    """The fault and the checkpoint that the task can go on from; empty where it has failed for good.

    Args:
        record: the task, whose sandbox is gone.
        reason: the fault, ``CODE: words``.
        step: step of its newest whole checkpoint; 0 where there is none.
    """
    if not step or record.kind != "train" or reason.partition(":")[0] in _FINAL | _ENDED_ON_PURPOSE:
        return ""
    return f"{reason[:_MOST_WORDS]}; the checkpoint of step {step} is kept"


def newest(work: Path, key: bytes) -> int:
    """Step of the newest checkpoint that is whole, in its trial where there are several; 0 where there is none.

    Args:
        work: the task's ``work`` folder.
        key: the task's own key, see :class:`assay.worker.task.TaskContext`.
    """
    folder = work / CHECKPOINTS
    for path in (*_plain_files(folder), *(p for trial in _trials(folder) for p in _plain_files(trial))):
        try:
            head = sealed_file.head(path, key)
        except IntegrityError:
            continue
        except OSError:
            # It may be whole: what a disk or a limit keeps from being read just now is not thrown away.
            return max(1, int(path.name.partition("-")[2]))
        # The task has the key and may write what it likes; parsed, a head may take twenty times its length.
        found = _STEP.match(head[:_BEGINNING])
        if found is not None and 0 < int(found[1]) < 1 << 53:
            return int(found[1])
    return 0


def _trials(folder: Path) -> list[Path]:
    """Folders of a search's trials, the last first."""
    with contextlib.suppress(OSError):
        if stat.S_ISDIR(folder.lstat().st_mode):
            return sorted((path for path in folder.iterdir() if _TRIAL.fullmatch(path.name)), reverse=True)
    return []


def _plain_files(folder: Path) -> Iterator[Path]:
    """Checkpoints by name, newest first; whatever else a task may have put there is neither followed nor opened."""
    # What cannot be listed or looked at holds nothing to go on from.
    with contextlib.suppress(OSError):
        if stat.S_ISDIR(folder.lstat().st_mode):
            for path in sorted(folder.iterdir(), reverse=True):
                if _NAME.fullmatch(path.name) and stat.S_ISREG(path.lstat().st_mode):
                    yield path
