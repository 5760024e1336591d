"""Every application-level refusal of an authenticated caller goes into the ledger; a flood is counted."""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import dataclass, field
from time import monotonic

from assay.errors import AssayError, Refusal
from audit.ledger.records import RecordDraft
from gateway.caller import SYSTEM_UNIT, Caller
from gateway.store.database import Store

_LOG = logging.getLogger(__name__)
_WINDOW_SECONDS = 60.0
_MAX_SUBJECTS = 10_000


@dataclass
class _Window:
    """Refusals of one subject in one minute."""

    opened: float
    recorded: int = 0
    surplus: int = 0


@dataclass(frozen=True)
class RefusalRecorder:
    """Records refusals, at most so many a minute for one subject.

    The next record of that subject tells how many were left out. Refusals go to the installation's own chain: a unit's
    chain must not grow by what strangers try against it.
    """

    store: Store
    per_minute: int
    _windows: OrderedDict[str, _Window] = field(default_factory=OrderedDict)

    async def record(self, caller: Caller, method: str, error: AssayError) -> None:
        """Records one refusal. Never raises: the caller gets its answer either way, and a failure is logged."""
        window = self._window(caller.subject)
        if window.recorded >= self.per_minute:
            window.surplus += 1
            return
        window.recorded += 1
        surplus, window.surplus = window.surplus, 0
        try:
            await self._append(caller.subject, caller.trace_id, method, Refusal.of(error), surplus)
        except Exception as fault:
            window.surplus += surplus + 1
            _LOG.error("refusal not recorded: %s", type(fault).__name__)

    async def flush(self) -> None:
        """Records what was only counted; at the end of service."""
        for subject, window in list(self._windows.items()):
            surplus, window.surplus = window.surplus, 0
            if surplus:
                await self._append(subject, "", "", Refusal("", "SURPLUS"), surplus)

    def _window(self, subject: str) -> _Window:
        now, known = monotonic(), self._windows.pop(subject, None)
        if known is None or now - known.opened >= _WINDOW_SECONDS:
            known = _Window(now, 0, known.surplus if known else 0)
        self._windows[subject] = known
        if len(self._windows) > _MAX_SUBJECTS:
            self._windows.popitem(last=False)
        return known

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
        await self.store.commit(
            lambda uow: uow.append(RecordDraft(SYSTEM_UNIT, "request.refused", "refusal", predicate))
        )
