"""Watches what a running task writes to the host's disk, since no quota binds a folder everywhere.

Two bounds, looked at once a second: what lies in the task's folders, files and bytes, and how deep; and what the file
system has left, which also sees files that were deleted while they are open. What is handed in meanwhile leaves more
than that free.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from assay.errors import ExhaustedError, UnavailableError
from assay.worker.folders import walk

MAX_FILES = 100_000
RESERVE_BYTES = 1 << 30
LEFT_BYTES = 2 * RESERVE_BYTES
"""What a task that is handed in leaves free: the reserve, below which running tasks end, and room for them to write. Of
a small file system it is a quarter, since a worker must be able to use it."""
_BLOCK = 512


def demand_room(place: Path | int, size: int) -> None:
    """Demands that so many bytes more leave :data:`LEFT_BYTES` free on the file system of a path or open file.

    Of a small one, a quarter.

    Raises:
        UnavailableError: ``DISK_FULL``, for which the gateway waits.
    """
    facts = os.statvfs(place)
    left = min(LEFT_BYTES, facts.f_blocks * facts.f_frsize // 4)
    if facts.f_bavail * facts.f_frsize - size < left:
        raise full(f"has no more than {left} bytes left, which are for the tasks that run")


def full(how: str) -> UnavailableError:
    """``DISK_FULL``: what is to be written waits until somebody has made room."""
    return UnavailableError("DISK_FULL", f"the worker's disk {how}", remedy="free space on the worker's disk")


class DiskWatch:
    """The disk of one attempt.

    Args:
        folders: where the task may write; all on one file system.
        limit_bytes: what they may hold together on disk; 0 for no limit of its own.
        reserve_bytes: free space below which the task is ended; where less than twice as much is free at the start,
            half of what is free.
        max_files: files and folders that they may hold together.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        limit_bytes: int,
        *,
        reserve_bytes: int = RESERVE_BYTES,
        max_files: int = MAX_FILES,
    ) -> None:
        self._folders = folders
        self._limit = limit_bytes
        self._max_files = max_files
        self._reserve = min(reserve_bytes, _free(folders[0]) // 2)

    def verdict(self) -> str:
        """Why the task must end, as ``TASK_DISK: words``; empty while it may go on."""
        if _free(self._folders[0]) < self._reserve:
            return "TASK_DISK: the worker's disk is nearly full"
        used = count = 0
        try:
            # What vanishes meanwhile or hides from this worker counts by free space.
            for entry in (entry for folder in self._folders for entry in walk(folder)):
                used, count = used + entry.status.st_blocks * _BLOCK, count + 1
                if count > self._max_files:
                    return f"TASK_DISK: the task wrote more than {self._max_files} files"
                if self._limit and used > self._limit:
                    return "TASK_DISK: the task wrote more than it may"
        except ExhaustedError as error:
            return f"{error.reason}: {error.message}"
        return ""


def _free(place: Path) -> int:
    facts = os.statvfs(place)
    return facts.f_bavail * facts.f_frsize
