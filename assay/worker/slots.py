"""Device slots: a machine's accelerator (or its cores) belongs to one task at a time, whichever worker runs it."""

from __future__ import annotations

import asyncio
import fcntl
import os
from pathlib import Path


class Slots:
    """A number of flock'ed files that all workers of one machine share; the kernel frees a dead worker's slot."""

    def __init__(self, path: Path, count: int, *, poll_seconds: float = 0.1) -> None:
        self._paths = [path if i == 0 else path.with_name(f"{path.name}.{i}") for i in range(count)]
        self._poll = poll_seconds
        path.parent.mkdir(parents=True, exist_ok=True)

    async def acquire(self) -> tuple[int, int]:
        """Waits for a free slot and returns its index and the descriptor that holds it."""
        while True:
            for index, path in enumerate(self._paths):
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return index, descriptor
                except BlockingIOError:
                    os.close(descriptor)
            await asyncio.sleep(self._poll)

    async def release(self, descriptor: int) -> None:
        """Frees a slot, then waits two polls, so that another worker's queue gets its turn."""
        os.close(descriptor)
        await asyncio.sleep(2 * self._poll)
