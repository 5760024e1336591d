"""Every application-level refusal of an authenticated caller goes into the ledger; a flood is counted."""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import dataclass, field
from math import inf
from time import monotonic

from assay.errors import AssayError, Refusal
from audit.ledger.records import REFUSALS_UNIT, REFUSED, RecordDraft
from gateway.settings import Limits
from gateway.store.database import Store

_LOG = logging.getLogger(__name__)
_WINDOW_SECONDS = 60.0
_MAX_SUBJECTS = 10_000


@dataclass
class _Window:
    """Refusals in one minute: of one subject, or of all."""

    opened: float
    recorded: int = 0
    surplus: int = 0


@dataclass(frozen=True)
class RefusalRecorder:
    """Records refusals, at most so many a minute for one subject and at most so many for all.

    When a subject's minute is over, one record more tells how many were left out, and when everybody's is, one of the
    log itself how many were left out beside those. Refusals go to a chain of their own: neither a unit's chain nor the
    installation's may grow by what strangers try, since bundles of evidence carry both whole.
    """

    store: Store
    limits: Limits
    _windows: OrderedDict[str, _Window] = field(default_factory=OrderedDict)
    _all: _Window = field(default_factory=lambda: _Window(-inf))

    async def record(self, subject: str, method: str, error: AssayError, trace_id: str = "") -> None:
        """Records one refusal. Never raises: the caller gets its answer either way, and a failure is logged."""
        await self.settle()
        window = self._windows.setdefault(subject, _Window(monotonic()))
        if window.recorded >= self.limits.refusals_per_minute:
            window.surplus += 1
        elif self._has_room(1):
            window.recorded += 1
            await self._tell(subject, trace_id, method, Refusal.of(error), 0)

    async def settle(self) -> None:
        """Records what was only counted in minutes that are over, or of the oldest subjects beyond the most."""
        now = monotonic()
        if now - self._all.opened >= _WINDOW_SECONDS:
            await self._end_all(now)
        # Each once: what cannot be recorded is put back, and asked for again the next time.
        for subject, window in list(self._windows.items()):  # in the order in which they opened
            if now - window.opened < _WINDOW_SECONDS and len(self._windows) < _MAX_SUBJECTS:
                return
            await self._end(subject)

    async def flush(self) -> None:
        """Records all that was only counted; at the end of service."""
        for subject in list(self._windows):
            await self._end(subject)
        await self._end_all(monotonic())

    def _has_room(self, refusals: int) -> bool:
        """Takes the place of one record in everybody's minute; where none is left, ``refusals`` are counted only."""
        if self._all.recorded >= self.limits.all_refusals_per_minute:
            self._all.surplus += refusals
            return False
        self._all.recorded += 1
        return True

    async def _end(self, subject: str) -> None:
        window = self._windows.pop(subject, None)
        if window is not None and window.surplus and self._has_room(window.surplus):
            await self._tell(subject, "", "", Refusal("", "SURPLUS"), window.surplus)

    async def _end_all(self, now: float) -> None:
        surplus = self._all.surplus
        self._all.opened, self._all.recorded, self._all.surplus = now, 0, 0
        if surplus:
            await self._tell(self.store.ledger.origin, "", "", Refusal("", "SURPLUS"), surplus)

    async def _tell(self, subject: str, trace_id: str, method: str, refusal: Refusal, surplus: int) -> None:
        try:
            await self._append(subject, trace_id, method, refusal, surplus)
        except Exception as fault:
            # Counted, to be told when this minute is over; by name not of more subjects than there may be.
            if subject in self._windows or len(self._windows) < _MAX_SUBJECTS:
                self._windows.setdefault(subject, _Window(monotonic())).surplus += surplus or 1
            else:
                self._all.surplus += surplus or 1
            _LOG.error("refusal not recorded: %s", type(fault).__name__)

    async def _append(self, subject: str, trace_id: str, method: str, refusal: Refusal, surplus: int) -> None:
        predicate = {
            "actor": subject,
            "trace_id": trace_id,
            "method": method,
            "code": refusal.code,
            "reason": refusal.reason,
            "fields": [f[:128] for f in refusal.fields],
            "surplus": surplus,
        }
        await self.store.commit(lambda uow: uow.append(RecordDraft(REFUSALS_UNIT, REFUSED, "refusal", predicate)))
