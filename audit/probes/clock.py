"""The audit's time limit. Work is cut between batches, so that what was measured stays measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from assay.errors import ExhaustedError


@dataclass(frozen=True)
class Clock:
    """Counts down from ``limit`` seconds; a limit of 0 never runs out.

    Attributes:
        limit: seconds in all.
        now: monotonic time in seconds.
        started: time at which the count began.
    """

    limit: float
    now: Callable[[], float] = time.monotonic
    started: float = field(default=-1.0)

    @classmethod
    def start(cls, limit: float, now: Callable[[], float] = time.monotonic) -> Clock:
        """Begins to count."""
        return cls(limit, now, now())

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self.now() - self.started

    def check(self) -> None:
        """Raises ``AUDIT_TIME_LIMIT`` when the time is up."""
        if self.limit and self.elapsed > self.limit:
            raise ExhaustedError(
                "AUDIT_TIME_LIMIT",
                f"the audit's {self.limit:g} seconds ran out",
                remedy="ask for an audit profile with a longer limit, or tune with shorter rows",
            )
