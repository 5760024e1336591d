"""Threads of their own for what computes long, so that it takes none that every call and the pipeline read with."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

T = TypeVar("T")

_AT_ONCE = 2
"""Searches that compute at once; they share one interpreter, so that more would not be sooner."""


@dataclass(frozen=True)
class Searches:
    """Runs searches, exports and the like: one at a time for one subject, whose others wait."""

    _threads: ThreadPoolExecutor = field(default_factory=partial(ThreadPoolExecutor, _AT_ONCE, "search"), repr=False)
    _turns: defaultdict[str, asyncio.Lock] = field(default_factory=partial(defaultdict, asyncio.Lock), repr=False)

    async def run(self, subject: str, search: Callable[[], T]) -> T:
        """Runs a search of a subject's when it has its turn.

        Nobody can end a thread that computes, so a search that was given up has its turn until it ends.
        """
        turn = self._turns[subject]
        await turn.acquire()
        searching = asyncio.get_running_loop().run_in_executor(self._threads, search)
        searching.add_done_callback(lambda _: turn.release())
        return await asyncio.shield(searching)

    def close(self) -> None:
        """Begins no further search; one that is computing ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)
