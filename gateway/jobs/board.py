"""What moves: progress of running stages, and a bell for those who watch a job; in memory only."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from time import monotonic

from assay.v1 import tuning_job_pb2


class Board:
    """Progress by job, and watchers to wake. Used from one event loop."""

    def __init__(self) -> None:
        self._progress: dict[str, tuning_job_pb2.Progress] = {}
        self._watchers: dict[str, set[asyncio.Event]] = {}
        self._work = asyncio.Event()
        self._answered: dict[str, float] = {}

    def progress(self, job: str) -> tuning_job_pb2.Progress | None:
        """Last progress of the stage under way."""
        return self._progress.get(job)

    def report(self, job: str, progress: tuning_job_pb2.Progress) -> None:
        """Notes progress and wakes the job's watchers."""
        self._progress[job] = progress
        self._ring(job)

    def answered(self, job: str) -> None:
        """Notes that the worker of the job's stage has answered."""
        self._answered[job] = monotonic()

    def silent_seconds(self, job: str) -> float:
        """Seconds since the worker of the job's stage last answered; from the first asking where it never did."""
        return monotonic() - self._answered.setdefault(job, monotonic())

    def moved(self, job: str) -> None:
        """Says that a job changed its state: its progress is over, watchers and the pipeline look again."""
        self._progress.pop(job, None)
        self._answered.pop(job, None)
        self._ring(job)
        self._work.set()

    def _ring(self, job: str) -> None:
        for bell in self._watchers.get(job, ()):
            bell.set()

    @asynccontextmanager
    async def watch(self, job: str) -> AsyncIterator[Callable[[float], Coroutine[None, None, None]]]:
        """Gives a function that waits for the job's next movement, or so many seconds, whichever comes first."""
        bell = asyncio.Event()
        self._watchers.setdefault(job, set()).add(bell)
        try:
            yield lambda seconds: _await(bell, seconds)
        finally:
            self._watchers[job].discard(bell)
            if not self._watchers[job]:
                del self._watchers[job]

    async def work(self, seconds: float) -> None:
        """Waits until some job has moved, or so many seconds."""
        await _await(self._work, seconds)


async def _await(bell: asyncio.Event, seconds: float) -> None:
    # Not wait_for: when the bell rings in the moment of a cancellation, it would swallow the cancellation.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await bell.wait()
    bell.clear()
