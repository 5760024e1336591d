"""Keeps a reserve of the machine's memory while a task runs, since its limit counts only what its processes map.

What no process maps is nobody's resident memory: files of ``memfd_create``, shared pages that were let go of, what lies
in sockets and pipes. Without a control group for each task the kernel counts it for the whole machine alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
RESERVE_PERCENT = 5
RESERVE_BYTES = 4 << 30
_FIRST = "1000"


class MemoryWatch:
    """The machine's memory during one attempt: 5 % of it, at most 4 GiB, stay available whoever takes the rest.

    Where less than twice as much is available at the start, half of that stays so.

    What a task may hold is its processes' own memory and all that came into use since it began and is no process's own,
    so that pages of files, which the kernel takes back by itself, count for nothing, and other processes' own memory is
    never laid to it. A task that may hold no more than the reserve is left alone: its end would mend nothing. Of
    several the one that may hold most goes first, and mostly its end is enough: each is borne for about as many looks
    as what it may hold goes into the machine's memory.

    Raises:
        OSError: the kernel does not tell.
    """

    def __init__(self) -> None:
        total, available, self._unowned = _look()
        self._reserve = min(RESERVE_BYTES, total * RESERVE_PERCENT // 100, available // 2)
        self._low = 0

    def verdict(self, private_bytes: int) -> str:
        """Why the task must end, as ``TASK_MEMORY: words``; empty while it may go on. Looks once.

        Args:
            private_bytes: resident memory of all its processes that is neither a file's nor shared.
        """
        total, available, unowned = _look()
        self._low = self._low + 1 if available < self._reserve else 0
        held = private_bytes + max(0, unowned - self._unowned)
        if held > self._reserve and self._low * held > total:
            return "TASK_MEMORY: the machine's memory is nearly used up, and the task may hold much of it"
        return ""


def first_to_go(pids: Iterable[int]) -> None:
    """Where memory runs out faster than anybody looks, has the kernel end these processes and their children first.

    They can take it back unless this process has CAP_SYS_RESOURCE.
    """
    for pid in pids:
        with contextlib.suppress(OSError):
            Path(f"/proc/{pid}/oom_score_adj").write_text(_FIRST)


def _look() -> tuple[int, int, int]:
    """Bytes of the machine's memory: all, what is available, and what is in use and no process's own."""
    lines = (line.split() for line in MEMINFO.read_text().splitlines())
    known = {words[0]: int(words[1]) << 10 for words in lines}
    total, available = known["MemTotal:"], known["MemAvailable:"]
    return total, available, total - available - known["AnonPages:"]
