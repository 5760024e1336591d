"""The end of a dataset's retention: work on it stops, its rows are shredded, and a record says so.

The datasheet's ``retention_days``, recorded with the upload, are the standing order; nobody signs another. Time is the
ledger writer's, so that the record of the erasure is never earlier than the end that it rests on. A job under way is
failed first, and the rows go once its worker holds nothing of it any more. A log that has ended takes no record of
either, and the orders in it stand: rows go then too.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from sqlalchemy import Connection, select

from assay.errors import AssayError
from audit.ledger.writer import UnitOfWork
from gateway.erasures import ErasureService
from gateway.jobs import machine
from gateway.jobs.board import Board
from gateway.jobs.transitions import ActorKind, Event
from gateway.replays import ReplayService
from gateway.store import jobs, rows
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
    replays: ReplayService

    async def end(self) -> list[str]:
        """Erases datasets whose time is over and that no job works on; returns their names.

        One that cannot be erased now is logged and tried again with the next call; the others go.
        """
        due = await self.store.commit(lambda uow: _due(uow.connection, rows.micros(_moment(uow))))
        return [name for name in due if await self._end(name)]

    async def _end(self, name: str) -> bool:
        try:
            stopped = await self.store.commit(lambda uow: self._stop(uow, name))
            for job in stopped:
                self.board.moved(job)
            await self._stop_replays(name)
            return await self.store.commit(lambda uow: self.erasures.expire(uow, name))
        except (AssayError, OSError) as error:
            _LOG.warning("retention of %s not ended: %s", name, getattr(error, "reason", type(error).__name__))
            return False

    async def _stop_replays(self, name: str) -> None:
        """Ends runs that are done again on the rows; a worker that cannot be reached may still hold them."""
        for job, key, task in await self.store.fetch(lambda c: self.erasures.replays(c, name)):
            if await self.replays.end(task):
                await self.store.commit(partial(_forgotten, job, key))

    def _stop(self, uow: UnitOfWork, name: str) -> list[str]:
        """Fails the jobs that would still read the rows; returns their names. None moves once the log has ended."""
        if uow.frozen:
            return []
        reason = f"RETENTION_OVER: the rows of {name} were to be erased by now"
        reading = [job.name for job in self.erasures.reading(uow.connection, name)]
        for job in reading:
            machine.transition(uow, job, machine.Change(Event.FAIL, self.subject, ActorKind.CLOCK, reason))
        return reading


def _moment(uow: UnitOfWork) -> datetime:
    """The ledger's time; of a log that has ended no later than this machine's: its newest record may lie ahead."""
    return min(uow.now, datetime.now(UTC)) if uow.frozen else uow.now


def _forgotten(job: str, key: str, uow: UnitOfWork) -> None:
    jobs.forget_replay(uow.connection, job, key)


def _due(c: Connection, now_us: int) -> list[str]:
    """Datasets that are here and whose end has come, the earliest first."""
    data, erasure = rows.table(DatasetRow).c, rows.table(ErasureRow).c
    gone = select(erasure.resource).where(erasure.resource == data.name).exists()
    ended = select(data.name).where(data.retention_end_us.between(1, now_us), ~gone)
    return list(c.execute(ended.order_by(data.retention_end_us)).scalars())
