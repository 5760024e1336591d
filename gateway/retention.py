"""The end of a dataset's retention: work on it stops, its rows are shredded, and a record says so.

The datasheet's ``retention_days``, recorded with the upload, are the standing order; nobody signs another. Time is the
ledger writer's, so that the record of the erasure is never earlier than the end that it rests on. A job under way is
failed first, and the rows go once its worker holds nothing of it any more.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from assay.errors import AssayError
from audit.ledger.writer import UnitOfWork
from gateway.erasures import ErasureService, retention_end
from gateway.jobs import machine
from gateway.jobs.board import Board
from gateway.jobs.transitions import ActorKind, Event
from gateway.store import rows
from gateway.store.database import Store
from gateway.store.tables import DatasetRow, ErasureRow

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class RetentionService:
    """Ends retentions; called again and again by the pipeline."""

    subject: str
    store: Store
    erasures: ErasureService
    board: Board

    async def end(self) -> list[str]:
        """Erases datasets whose time is over and that no job works on; returns their names.

        One that cannot be erased now is logged and tried again with the next call; the others go.
        """
        kept = await self.store.fetch(_kept)
        due = await self.store.commit(lambda uow: [name for name, end in kept if uow.now >= end]) if kept else []
        return [name for name in due if await self._end(name)]

    async def _end(self, name: str) -> bool:
        try:
            stopped = await self.store.commit(lambda uow: self._stop(uow, name))
            for job in stopped:
                self.board.moved(job)
            return await self.store.commit(lambda uow: self.erasures.expire(uow, name))
        except (AssayError, OSError) as error:
            _LOG.warning("retention of %s not ended: %s", name, getattr(error, "reason", type(error).__name__))
            return False

    def _stop(self, uow: UnitOfWork, name: str) -> list[str]:
        """Fails the jobs that would still read the rows; returns their names."""
        reason = f"RETENTION_OVER: the rows of {name} were to be erased by now"
        jobs = [job.name for job in self.erasures.reading(uow.connection, name)]
        for job in jobs:
            machine.transition(uow, job, machine.Change(Event.FAIL, self.subject, ActorKind.CLOCK, reason))
        return jobs


def _kept(c: Connection) -> list[tuple[str, datetime]]:
    """Datasets that are here and have an end, with it."""
    gone = {row.resource for row in rows.select_all(c, ErasureRow)}
    found = [(row.name, retention_end(row)) for row in rows.select_all(c, DatasetRow) if row.name not in gone]
    return [(name, end) for name, end in found if end is not None]
