"""The writer: units of work in, committed records with a signed checkpoint out.

Two threads take turns, one at each of two stages. The first stage takes what waits (at most 64 units; nobody waits
for more), begins an immediate transaction, demands that the database's head is the one it remembers, runs every unit
in its own SAVEPOINT, writes records, tiles and the signed checkpoint, and commits. The second moves the anchor by
compare-and-swap and only then resolves futures. While one batch is being anchored the other thread writes the next,
and commits and swaps happen in one order. A unit that raises is rolled back alone. A failure before the commit loses
the batch and nothing else; a failure at the commit or the anchor stops the writer, because what is on disk is then for
:mod:`audit.ledger.startup` to find out. Nobody is ever told of a record that is not durable.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, NestedTransaction
from sqlalchemy.exc import DBAPIError, DisconnectionError, SQLAlchemyError

from assay.errors import AssayError, ExhaustedError, IntegrityError, PreconditionError, UnavailableError
from audit.ledger import dialect
from audit.ledger.anchor import Anchor
from audit.ledger.batch import Batch
from audit.ledger.database_errors import explain, while_serving
from audit.ledger.dialect import WriterLock
from audit.ledger.records import Prepared, RecordDraft
from audit.ledger.signer import LogSigner
from audit.ledger.startup import Head
from audit.ledger.store import quick_head

BATCH_UNITS = 64
MAX_WAITING = 4096
CLOCK_TOLERANCE = timedelta(seconds=2)
CLOCK_JUMP = timedelta(minutes=5)
"""How far the wall's clock may run ahead of the time that passed: what a verifier takes for the future, too."""

T = TypeVar("T")
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sources:
    """Where time and randomness come from; tests and golden files inject their own.

    Attributes:
        clock: the wall's, which people and time servers set.
        nonce: 128 random bits in hex.
        elapsed: seconds that have passed since some moment, which nobody sets; without it no jump of ``clock`` is told.
    """

    clock: Callable[[], datetime]
    nonce: Callable[[], str]
    elapsed: Callable[[], float] | None = None


@dataclass(frozen=True)
class Task:
    """A unit of work that waits."""

    work: Callable[[UnitOfWork], Any]
    future: Future[Any]


class UnitOfWork:
    """What a unit of work may touch: the transaction's connection, and the ledger's end.

    Attributes:
        now: the writer's time of this unit; every record of the unit carries it.
    """

    def __init__(self, connection: Connection, now: datetime, batch: Batch, nonce: Callable[[], str]) -> None:
        self.now = now
        self._connection = connection
        self._savepoint: NestedTransaction | None = None
        self._batch = batch
        self._nonce = nonce

    @property
    def connection(self) -> Connection:
        """The batch's transaction, inside this unit's SAVEPOINT; never commit or roll back on it."""
        if self._savepoint is None:
            self._savepoint = self._connection.begin_nested()
        return self._connection

    def settle(self, *, keep: bool) -> None:
        """For the writer: keeps or undoes what the unit did through its connection."""
        if self._savepoint is None:
            return
        if keep:
            self._savepoint.commit()
        else:
            self._savepoint.rollback()

    def append(self, draft: RecordDraft | Prepared) -> int:
        """Appends a record and returns its final index; it is durable once the unit's future resolves.

        Everybody waits for a unit of work: :func:`audit.ledger.records.prepare` does the costly part in another thread.

        Raises:
            InvalidInputError: what :func:`audit.ledger.records.encode` says.
        """
        return self._batch.append(draft, self.now, self._nonce())

    @property
    def frozen(self) -> bool:
        """Whether the log has ended, so that no record can follow."""
        return self._batch.frozen

    def demand_open(self) -> None:
        """Refuses where no record can follow: call it before an act that cannot be taken back.

        Raises:
            UnavailableError: ``LOG_FROZEN``.
        """
        self._batch.demand_open()


class Writer:
    """Two threads that take turns. ``head`` is replaced as a whole after every batch, so that readers see one moment.

    What is readable through ``head`` is committed, signed and anchored; ``_tip`` is committed and may not be anchored
    yet. ``_writing`` (under the gate) says that a thread is at the first stage; ``_anchoring`` is the second.
    """

    def __init__(
        self,
        engine: Engine,
        lock: WriterLock,
        origin: str,
        signer: LogSigner,
        anchor: Anchor,
        head: Head,
        sources: Sources,
        committed: Callable[[int], None],
    ) -> None:
        self.head = self._tip = head
        self.stopped: str = ""
        self._engine = engine
        self._lock = lock
        self._origin = origin
        self._signer = signer
        self._anchor = anchor
        self._sources = sources
        self._told: tuple[datetime, float] | None = None
        self._follows = head.frozen  # nothing follows its last record: a frozen log is served under any clock
        self._committed = committed
        self._connection: Connection | None = None
        self._gate = threading.Condition()
        self._waiting: deque[Task] = deque()
        self._writing = self._closing = False
        self._anchoring = threading.Lock()
        self._threads = [threading.Thread(target=self._loop, name=f"ledger-writer-{n}", daemon=True) for n in (1, 2)]

    def start(self) -> None:
        """Starts the threads, and the time that the clock is compared with."""
        if self._sources.elapsed is not None:
            self._told = (self._sources.clock(), self._sources.elapsed())
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Finishes what waits, refuses what comes, ends the threads; safe to repeat."""
        with self._gate:
            self._closing = True
            self._gate.notify_all()
        for thread in self._threads:
            thread.join()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def halt(self, reason: str) -> None:
        """Refuses what waits and what comes; the batch in progress may still commit. The first reason stays."""
        with self._gate:
            self.stopped = self.stopped or reason

    def follow_newest_record(self) -> None:
        """From now on a clock that is behind the newest record is not refused: that record's time is taken for it."""
        self._follows = True

    def submit(self, work: Callable[[UnitOfWork], T]) -> Future[T]:
        """Queues a unit of work.

        Raises:
            UnavailableError: ``LEDGER_CLOSED`` or ``LEDGER_STOPPED``.
            ExhaustedError: ``LEDGER_BUSY`` when too much waits.
        """
        future: Future[T] = Future()
        with self._gate:
            if self._closing:
                raise UnavailableError("LEDGER_CLOSED", "the ledger is closed")
            if self.stopped:
                raise self._stopped_error()
            if len(self._waiting) >= MAX_WAITING:
                raise ExhaustedError("LEDGER_BUSY", "too many units of work wait for the ledger")
            self._waiting.append(Task(work, future))
            if not self._writing:
                self._gate.notify()
        return future

    def _loop(self) -> None:
        while batch := self._gather():
            self._run([task for task in batch if task.future.set_running_or_notify_cancel()])

    def _gather(self) -> list[Task]:
        """Waits for its turn and for work, and takes what is there; nothing once the writer is closed.

        Nobody waits for a fuller batch: the commit in progress is what lets the next one gather.
        """
        with self._gate:
            while self._writing or not self._waiting:
                if self._closing and not self._waiting:
                    return []
                self._gate.wait()
            self._writing = True
            return [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH_UNITS))]

    def _yield_turn(self) -> None:
        """Lets the other thread begin to write."""
        with self._gate:
            self._writing = False
            if self._waiting or self._closing:
                self._gate.notify_all()

    def _run(self, tasks: list[Task]) -> None:
        """Both stages for one batch; the second is entered before the first is left, so that order is kept."""
        outcomes: list[Callable[[], None]] = []
        before = after = self._tip
        failure: AssayError | None = None
        try:
            if self.stopped:
                failure = self._stopped_error()
            elif tasks:
                after = self._tip = self._transact(tasks, outcomes)
        except (SQLAlchemyError, self._engine.dialect.loaded_dbapi.Error) as error:
            _logger.error("a ledger batch failed before its commit: %s", type(error).__name__)
            failure = _write_failed(error)
        except BaseException as error:
            failure = self._stop(error)
        with self._anchoring:
            self._yield_turn()
            if failure is None:
                failure = self._settle(before, after, outcomes)
            if failure is not None:
                _fail(tasks, failure)

    def _settle(self, before: Head, after: Head, outcomes: list[Callable[[], None]]) -> AssayError | None:
        """Anchors a committed batch and tells everybody; returns why it could not."""
        if self.stopped:
            return self._stopped_error()
        if after is not before:
            try:
                self._anchor.swap(before.note, after.note)
            except BaseException as error:
                return self._stop(error)
            self.head = after
        for resolve in outcomes:
            resolve()
        if after is not before:
            self._committed(after.size)
        return None

    def _transact(self, tasks: list[Task], outcomes: list[Callable[[], None]]) -> Head:
        """Runs the units and commits; returns the head after it, which is the old one when nothing was appended.

        The connection is kept from batch to batch, since taking one out of the pool and giving it back costs as much
        as an insert; one on which anything failed is thrown away, and its transaction with it.
        """
        connection, self._connection = self._connection, None
        if connection is None:
            connection = self._engine.connect().execution_options(begin="IMMEDIATE")
        try:
            head = self._write(connection, tasks, outcomes)
        except BaseException:
            # Rolled back first: a closed SQLite connection keeps its lock while anything still refers to a statement.
            with suppress(SQLAlchemyError, self._engine.dialect.loaded_dbapi.Error):
                connection.rollback()
            connection.invalidate()
            connection.close()
            raise
        self._connection = connection
        return head

    def _write(self, connection: Connection, tasks: list[Task], outcomes: list[Callable[[], None]]) -> Head:
        head = self._tip
        transaction = connection.begin()
        self._lock.check()
        size, note = quick_head(connection)
        if size != head.size or note != (head.note if size else None):
            raise IntegrityError("LEDGER_HEAD_MOVED", f"the database has {size} records, not {head.size}")
        batch = Batch(self._origin, head.size, dict(head.chains), head.time, head.frozen)
        for task in tasks:
            outcomes.append(self._unit(connection, task, batch))
        if batch.rows:
            head = batch.write(connection, head, self._signer)
        try:
            transaction.commit()
        except SQLAlchemyError as error:
            if isinstance(error, DBAPIError) and dialect.of(self._engine).surely_undone(error):
                raise
            raise _CommitUnknownError from error
        return head

    def _unit(self, connection: Connection, task: Task, batch: Batch) -> Callable[[], None]:
        """Runs one unit in a SAVEPOINT; returns what resolves its future once the batch is durable."""
        mark = batch.mark()
        try:
            unit = UnitOfWork(connection, self._now(batch.newest), batch, self._sources.nonce)
        except PreconditionError as error:
            return _raiser(task.future, error)
        try:
            result = task.work(unit)
            unit.settle(keep=True)
        except BaseException as error:
            # An I/O error may have ended the whole transaction; then this rollback raises, and the batch is lost.
            unit.settle(keep=False)
            if connection.invalidated:  # the transaction went with the connection, and with it the units before
                raise DisconnectionError("the database's connection has ended") from error
            batch.undo(mark)
            return _raiser(task.future, while_serving(error))
        return _setter(task.future, result)

    def _now(self, newest: datetime | None) -> datetime:
        now = self._sources.clock().astimezone(UTC)
        if newest is not None and now < newest - CLOCK_TOLERANCE:
            if self._follows:
                return newest
            raise PreconditionError(
                "CLOCK_REGRESSED",
                f"the newest record is of {_time(newest)}, and this machine's clock says {_time(now)}: it is behind, "
                "or was ahead when that record was written",
                remedy="set the clock if it is behind, and the ledger goes on by itself; if it was ahead, the ledger "
                "goes on when that time has come, or ends: assay ledger freeze DIR --reason-code clock-ahead",
            )
        self._demand_steady(now)
        return now

    def _demand_steady(self, now: datetime) -> None:
        """A clock set ahead by mistake is told before its time is signed, for no record may follow until it has come.

        Raises:
            PreconditionError: ``CLOCK_JUMPED``.
        """
        if self._sources.elapsed is None:
            return
        elapsed = self._sources.elapsed()
        if self._told is not None:
            ahead = now - self._told[0] - timedelta(seconds=elapsed - self._told[1])
            if ahead > CLOCK_JUMP:
                raise PreconditionError(
                    "CLOCK_JUMPED",
                    f"this machine's clock says {_time(now)}: it went {ahead.total_seconds():.0f} s further than the "
                    "time that passed",
                    remedy="set the clock if that is wrong, and the ledger goes on by itself; if it is right, as after "
                    "a pause of the machine, restart the gateway",
                )
        self._told = (now, elapsed)

    def _stop(self, cause: BaseException) -> AssayError:
        reason = cause.reason if isinstance(cause, AssayError) else type(cause).__name__
        with self._gate:
            self.stopped = self.stopped or reason
        _logger.critical("the ledger stopped: %s", reason)
        return self._stopped_error()

    def _stopped_error(self) -> AssayError:
        return UnavailableError(
            "LEDGER_STOPPED",
            f"the ledger stopped: {self.stopped}",
            remedy="restart the gateway; its start-up checks say what is wrong",
        )


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


class _CommitUnknownError(Exception):
    """The commit's outcome is unknown: no more writing before a restart."""


def _write_failed(error: BaseException) -> AssayError:
    named = explain(error)
    why, remedy = (f": {named.message}", named.remedy) if named is not None else ("", "")
    message = f"the ledger's database refused the write{why}; nothing was recorded"
    failure = UnavailableError("LEDGER_WRITE_FAILED", message, remedy=remedy)
    failure.__cause__ = error
    return failure


def _fail(tasks: list[Task], error: AssayError) -> None:
    for task in tasks:
        task.future.set_exception(error)


def _setter(future: Future[Any], result: Any) -> Callable[[], None]:
    return lambda: future.set_result(result)


def _raiser(future: Future[Any], error: BaseException) -> Callable[[], None]:
    return lambda: future.set_exception(error)
