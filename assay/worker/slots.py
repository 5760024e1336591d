"""Device slots: a machine's accelerator (or its cores) belongs to one task at a time, whichever worker runs it.

Who waits holds a *ticket*, a flock'ed file in a folder beside the slot files whose name sorts by when the task was
accepted. Only the oldest ticket may take a slot, so tasks run first come, first served across all workers of the
machine. Slots and tickets are locks of the kernel: a dead worker's slot is free and its tickets count for nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


@dataclass(frozen=True)
class _Ticket:
    """A place in the queue; it is alive as long as the descriptor is open."""

    path: Path
    descriptor: int


class Slots:
    """A number of slots that all workers of one machine share, and the queue before them."""

    def __init__(self, path: Path, count: int, *, poll_seconds: float = 0.1) -> None:
        self._paths = [path if i == 0 else path.with_name(f"{path.name}.{i}") for i in range(count)]
        self._queue = path.with_name(f"{path.name}.queue")
        self._poll = poll_seconds
        self._numbers = itertools.count()

    async def acquire(self, since: str) -> tuple[int, int]:
        """Waits for its turn and a free slot; returns the slot's index and the descriptor that holds it.

        Args:
            since: when the task was accepted, in a notation that sorts by time; the oldest goes first.

        Raises:
            OSError: a file of the queue cannot be made, opened or locked; nothing is held then.
        """
        ticket = None
        self._queue.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            while True:
                with self._door() as open_:
                    if open_:
                        ticket = ticket or self._draw(since)
                        if self._first() == ticket.path and (slot := self._free()) is not None:
                            return slot
                await asyncio.sleep(self._poll)
        finally:
            if ticket is not None:
                _throw_away(ticket.path, ticket.descriptor)

    def release(self, descriptor: int) -> None:
        """Frees a slot for whoever waits longest."""
        os.close(descriptor)

    @contextmanager
    def _door(self) -> Iterator[bool]:
        """The queue is looked at and changed by one process at a time; false where another is at it just now."""
        descriptor = _lock(self._queue / ".door")
        try:
            yield descriptor is not None
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def _draw(self, since: str) -> _Ticket:
        """A ticket, locked before anybody can see it unlocked, since the door is shut meanwhile."""
        path = self._queue / f"{since}~{os.getpid()}~{id(self)}~{next(self._numbers):09d}"
        descriptor = _lock(path)
        if descriptor is None:
            raise RuntimeError("a ticket that was just made is held by somebody else")
        return _Ticket(path, descriptor)

    def _first(self) -> Path | None:
        """The oldest ticket that somebody holds; those of the dead are thrown away on the way."""
        for path in sorted(p for p in self._queue.iterdir() if not p.name.startswith(".")):
            descriptor = _lock(path)
            if descriptor is None:
                return path
            _throw_away(path, descriptor)
        return None

    def _free(self) -> tuple[int, int] | None:
        for index, path in enumerate(self._paths):
            descriptor = _lock(path)
            if descriptor is not None:
                return index, descriptor
        return None


def _throw_away(path: Path, descriptor: int) -> None:
    """Ends a ticket that this holds; one that cannot be removed counts for nothing once it is closed."""
    with contextlib.suppress(OSError):
        path.unlink()
    os.close(descriptor)


def _lock(path: Path) -> int | None:
    """Opens and locks a file; None where another descriptor, of this or another process, holds it."""
    descriptor = os.open(path, _FLAGS, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            return None
        raise
    return descriptor
