"""The one writer: units of work in, committed records with a signed checkpoint out.

One thread takes what waits (at most 64 units or 10 ms), begins an immediate transaction, demands that the database's
head is the one it remembers, runs every unit in its own SAVEPOINT, writes records, tiles and the signed checkpoint,
commits, moves the anchor by compare-and-swap, and only then resolves futures. A unit that raises is rolled back
alone. A failure before the commit loses the batch and nothing else; a failure at the commit or the anchor stops the
writer, because what is on disk is then for :mod:`audit.ledger.startup` to find out. Nobody is ever told of a record
that is not durable.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, NestedTransaction, insert
from sqlalchemy.exc import DBAPIError, DisconnectionError, SQLAlchemyError

from assay.errors import AssayError, ExhaustedError, IntegrityError, PreconditionError, UnavailableError
from audit.ledger import dialect, records, tree
from audit.ledger.anchor import Anchor
from audit.ledger.dialect import WriterLock
from audit.ledger.edge import Edge, Tile, TreeReader
from audit.ledger.note import Checkpoint
from audit.ledger.records import Place, RecordDraft
from audit.ledger.schema import CHECKPOINTS, RECORDS, TILES
from audit.ledger.signer import LogSigner
from audit.ledger.startup import Head
from audit.ledger.store import ChainEnd, LogStore, quick_head

BATCH_UNITS = 64
BATCH_SECONDS = 0.010
MAX_WAITING = 4096
CLOCK_TOLERANCE = timedelta(seconds=2)

T = TypeVar("T")
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sources:
    """Where time and randomness come from; tests and golden files inject their own."""

    clock: Callable[[], datetime]
    nonce: Callable[[], str]


@dataclass(frozen=True)
class Task:
    """A unit of work that waits."""

    work: Callable[[UnitOfWork], Any]
    future: Future[Any]


@dataclass
class Pending:
    """What a batch has gathered so far; a mark lets one unit be undone."""

    origin: str
    first: int
    chains: dict[str, ChainEnd]
    newest: datetime | None
    rows: list[dict[str, Any]] = field(default_factory=list)

    def mark(self) -> tuple[int, dict[str, ChainEnd], datetime | None]:
        """A point to come back to."""
        return len(self.rows), dict(self.chains), self.newest

    def undo(self, mark: tuple[int, dict[str, ChainEnd], datetime | None]) -> None:
        """Forgets everything after the mark."""
        count, self.chains, self.newest = mark
        del self.rows[count:]

    def append(self, draft: RecordDraft, now: datetime, nonce: str) -> int:
        """Encodes a record at the next place and returns its index."""
        end = self.chains.get(draft.unit)
        sequence, previous = (1, None) if end is None else (end.sequence + 1, end.leaf.hex())
        encoded = records.encode(draft, Place(self.origin, sequence, previous, now, nonce))
        leaf = tree.leaf_hash(encoded.body)
        index = self.first + len(self.rows)
        self.rows.append(
            {
                "idx": index,
                "leaf": leaf,
                "body": encoded.body,
                "unit": draft.unit,
                "tseq": sequence,
                "type": draft.type,
                "job": encoded.job,
            }
        )
        self.chains[draft.unit] = ChainEnd(sequence, leaf)
        self.newest = now if self.newest is None else max(self.newest, now)
        return index


class UnitOfWork:
    """What a unit of work may touch: the transaction's connection, and the ledger's end.

    Attributes:
        now: the writer's time of this unit; every record of the unit carries it.
    """

    def __init__(self, connection: Connection, now: datetime, pending: Pending, nonce: Callable[[], str]) -> None:
        self.now = now
        self._connection = connection
        self._savepoint: NestedTransaction | None = None
        self._pending = pending
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

    def append(self, draft: RecordDraft) -> int:
        """Appends a record and returns its final index; it is durable once the unit's future resolves.

        Raises:
            InvalidInputError: what :func:`audit.ledger.records.encode` says.
        """
        return self._pending.append(draft, self.now, self._nonce())

    @property
    def size_after(self) -> int:
        """Size of the log after the records appended so far; the batch's checkpoint may be of a larger tree."""
        return self._pending.first + len(self._pending.rows)


class Writer:
    """The writer thread. ``head`` is replaced as a whole after every batch, so that readers see one moment."""

    def __init__(
        self,
        engine: Engine,
        lock: WriterLock,
        store: LogStore,
        origin: str,
        signer: LogSigner,
        anchor: Anchor,
        head: Head,
        sources: Sources,
        committed: Callable[[int], None],
    ) -> None:
        self.head = head
        self.stopped: str = ""
        self._engine = engine
        self._lock = lock
        self._store = store
        self._origin = origin
        self._signer = signer
        self._anchor = anchor
        self._sources = sources
        self._committed = committed
        self._queue: queue.Queue[Task | None] = queue.Queue(MAX_WAITING)
        self._gate = threading.Lock()
        self._closing = False
        self._thread = threading.Thread(target=self._loop, name="ledger-writer", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def close(self) -> None:
        """Finishes what waits, refuses what comes, ends the thread; safe to repeat."""
        with self._gate:
            first, self._closing = not self._closing, True
        if first:
            self._queue.put(None)
        self._thread.join()

    def halt(self, reason: str) -> None:
        """Refuses what waits and what comes; the batch in progress may still commit. The first reason stays."""
        with self._gate:
            self.stopped = self.stopped or reason

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
            try:
                self._queue.put_nowait(Task(work, future))
            except queue.Full as error:
                raise ExhaustedError("LEDGER_BUSY", "too many units of work wait for the ledger") from error
        return future

    def _loop(self) -> None:
        more = True
        while more:
            batch, more = self._gather()
            live = [task for task in batch if task.future.set_running_or_notify_cancel()]
            if self.stopped:
                _fail(live, self._stopped_error())
            elif live:
                self._run(live)

    def _gather(self) -> tuple[list[Task], bool]:
        """Waits for one task, then takes what else is there; a commit in progress is what lets a batch gather."""
        batch: list[Task] = []
        item = self._queue.get()
        deadline = time.monotonic() + BATCH_SECONDS
        while item is not None:
            batch.append(item)
            if len(batch) == BATCH_UNITS or time.monotonic() > deadline:
                return batch, True
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return batch, True
        return batch, False

    def _run(self, batch: list[Task]) -> None:
        outcomes: list[Callable[[], None]] = []
        before = self.head
        try:
            head = self._transact(batch, outcomes)
            if head is not before:
                self._anchor.swap(before.note, head.note)
        except SQLAlchemyError as error:
            _logger.error("a ledger batch failed before its commit: %s", type(error).__name__)
            _fail(batch, _write_failed(error))
            return
        except BaseException as error:
            self._stop(batch, error)
            return
        self.head = head
        for resolve in outcomes:
            resolve()
        if head is not before:
            self._committed(head.size)

    def _transact(self, batch: list[Task], outcomes: list[Callable[[], None]]) -> Head:
        """Runs the units and commits; returns the head after it, which is the old one when nothing was appended."""
        head = self.head
        with self._engine.connect().execution_options(begin="IMMEDIATE") as connection:
            transaction = connection.begin()
            self._lock.check()
            size, note = quick_head(connection)
            if size != head.size or note != (head.note if size else None):
                raise IntegrityError("LEDGER_HEAD_MOVED", f"the database has {size} records, not {head.size}")
            pending = Pending(self._origin, head.size, dict(head.chains), head.time)
            for task in batch:
                outcomes.append(self._unit(connection, task, pending))
            if pending.rows:
                head = self._write(connection, head, pending)
            try:
                transaction.commit()
            except SQLAlchemyError as error:
                connection.invalidate()
                if isinstance(error, DBAPIError) and dialect.of(self._engine).surely_undone(error):
                    raise
                raise _CommitUnknownError from error
        return head

    def _unit(self, connection: Connection, task: Task, pending: Pending) -> Callable[[], None]:
        """Runs one unit in a SAVEPOINT; returns what resolves its future once the batch is durable."""
        mark = pending.mark()
        try:
            unit = UnitOfWork(connection, self._now(pending.newest), pending, self._sources.nonce)
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
            pending.undo(mark)
            return _raiser(task.future, error)
        return _setter(task.future, result)

    def _write(self, connection: Connection, head: Head, pending: Pending) -> Head:
        edge, tiles = head.edge.extend([row["leaf"] for row in pending.rows])
        connection.execute(insert(RECORDS), pending.rows)
        if tiles:
            rows = [{"level": tile.level, "n": tile.n, "hashes": tile.hashes} for tile in tiles]
            connection.execute(insert(TILES), rows)
        checkpoint = Checkpoint(self._origin, edge.size, self._root(edge, tiles))
        note = self._signer.sign(checkpoint, pending.newest or self._sources.clock())
        connection.execute(insert(CHECKPOINTS), {"size": edge.size, "note": note})
        return Head(edge, pending.chains, pending.newest, note)

    def _root(self, edge: Edge, tiles: list[Tile]) -> bytes:
        """Root of the new tree; tiles of this batch are not yet visible to other connections."""
        fresh = {(tile.level, tile.n): tile.hashes for tile in tiles}
        reader = TreeReader(
            edge, lambda level, n: fresh[level, n] if (level, n) in fresh else self._store.tile(level, n)
        )
        return tree.root(edge.size, reader.read)

    def _now(self, newest: datetime | None) -> datetime:
        now = self._sources.clock().astimezone(UTC)
        if newest is not None and now < newest - CLOCK_TOLERANCE:
            raise PreconditionError(
                "CLOCK_REGRESSED",
                "this machine's clock is behind the newest record",
                remedy="set the clock; the ledger goes on by itself",
            )
        return now

    def _stop(self, batch: list[Task], cause: BaseException) -> None:
        reason = cause.reason if isinstance(cause, AssayError) else type(cause).__name__
        with self._gate:
            self.stopped = reason
        _logger.critical("the ledger stopped: %s", reason)
        _fail(batch, self._stopped_error())

    def _stopped_error(self) -> AssayError:
        return UnavailableError(
            "LEDGER_STOPPED",
            f"the ledger stopped: {self.stopped}",
            remedy="restart the gateway; its start-up checks say what is wrong",
        )


class _CommitUnknownError(Exception):
    """The commit's outcome is unknown: no more writing before a restart."""


def _write_failed(error: BaseException) -> AssayError:
    failure = UnavailableError("LEDGER_WRITE_FAILED", "the ledger's database refused the write; nothing was recorded")
    failure.__cause__ = error
    return failure


def _fail(batch: list[Task], error: AssayError) -> None:
    for task in batch:
        task.future.set_exception(error)


def _setter(future: Future[Any], result: Any) -> Callable[[], None]:
    return lambda: future.set_result(result)


def _raiser(future: Future[Any], error: BaseException) -> Callable[[], None]:
    return lambda: future.set_exception(error)
