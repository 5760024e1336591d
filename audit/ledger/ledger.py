"""The face of the log: append through units of work, read records, checkpoints and proofs."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from assay.errors import IntegrityError, InvalidInputError, NotFoundError, UnavailableError
from audit.ledger import dialect, tree
from audit.ledger.anchor import Anchor
from audit.ledger.database_errors import explain
from audit.ledger.dialect import WriterLock
from audit.ledger.edge import TreeReader
from audit.ledger.note import Verifier
from audit.ledger.records import SYSTEM_UNIT, RecordDraft
from audit.ledger.signer import LogSigner
from audit.ledger.startup import Head, load_head
from audit.ledger.store import LogStore, StoredRecord
from audit.ledger.writer import Sources, UnitOfWork, Writer

__all__ = ["Ledger", "StoredRecord", "UnitOfWork"]

T = TypeVar("T")
_logger = logging.getLogger(__name__)


def system_sources() -> Sources:
    """This machine's clocks and randomness; what passes while it sleeps counts as passed."""
    return Sources(
        lambda: datetime.now(UTC), lambda: os.urandom(16).hex(), lambda: time.clock_gettime(time.CLOCK_BOOTTIME)
    )


class Ledger:
    """One log over one database, written by one process.

    Everything readable here is committed, signed and anchored. Tables must exist (:func:`audit.ledger.schema.create`)
    and the engine be one of :func:`audit.ledger.dialect.connect`. With a ``post_quantum`` key every checkpoint
    carries a second signature line.
    """

    def __init__(
        self,
        engine: Engine,
        origin: str,
        signer: Ed25519PrivateKey,
        anchor: Anchor,
        *,
        post_quantum: MLDSA44PrivateKey | None = None,
        sources: Sources | None = None,
    ) -> None:
        self.origin = origin
        self._engine = engine
        self._signer = LogSigner(origin, signer, post_quantum)
        self._anchor = anchor
        self._sources = sources or system_sources()
        self._store = LogStore(engine)
        self._lock: WriterLock | None = None
        self._writer: Writer | None = None
        self._subscribers: dict[object, Callable[[int], None]] = {}
        self._subscribing = threading.Lock()

    def start(self, demand: Callable[[], None] = lambda: None) -> None:
        """Takes the writer's lock, runs the start-up checks and starts the writer; an empty log gets its first record.

        Args:
            demand: what else must hold: called once the log can be read and before any record is signed. What it raises
                ends the start.

        Raises:
            UnavailableError: ``LEDGER_UNAVAILABLE`` when database or anchor fail as media. IntegrityError:
            ``DATABASE_DAMAGED``.
            PreconditionError: ``LEDGER_IN_USE``, ``ANCHOR_IN_USE`` or ``LEDGER_NOT_A_FILE``. IntegrityError: what
            :func:`audit.ledger.startup.load_head` and :meth:`audit.ledger.dialect.Dialect.check_enforcement` say.
        """
        database = dialect.of(self._engine)
        lock = database.writer_lock(self._engine)
        lock.acquire()
        try:
            self._anchor.acquire()
            with self._engine.connect() as connection:
                database.check_enforcement(connection)
            head = load_head(self._store, self.origin, self._signer, self._anchor)
            writer = Writer(
                self._engine, lock, self.origin, self._signer, self._anchor, head, self._sources, self._publish
            )
            writer.start()
        except (OSError, SQLAlchemyError, self._engine.dialect.loaded_dbapi.Error) as error:
            self._anchor.close()
            lock.release()
            named = explain(error)
            if isinstance(named, IntegrityError):
                raise named from error
            raise UnavailableError(
                "LEDGER_UNAVAILABLE",
                f"the ledger's database or anchor cannot be used: {type(error).__name__}",
                remedy="look at the disk, its space and the folder's permissions, then start again; nothing was signed",
            ) from error
        except BaseException:
            self._anchor.close()
            lock.release()
            raise
        self._lock, self._writer = lock, writer
        try:
            demand()
            if head.size == 0:
                self.run(self._open)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Finishes what waits and frees anchor and lock; safe to repeat."""
        if self._writer is not None:
            self._writer.close()
            self._anchor.close()
        if self._lock is not None:
            self._lock.release()

    def submit(self, work: Callable[[UnitOfWork], T]) -> Future[T]:
        """Queues a unit of work; the future resolves when its records are durable, signed and anchored.

        The work runs in the writer's thread inside the batch's transaction and its own SAVEPOINT. What it raises is
        rolled back and raised from the future. Keep it short: everybody waits for it. From asyncio: ``await
        asyncio.wrap_future(...)``.

        Raises:
            UnavailableError: ``LEDGER_NOT_STARTED``, ``LEDGER_CLOSED`` or ``LEDGER_STOPPED``.
            ExhaustedError: ``LEDGER_BUSY``.
        """
        return self._started().submit(work)

    def run(self, work: Callable[[UnitOfWork], T]) -> T:
        """As :meth:`submit`, and waits. Never call it from the writer's thread (a unit of work or a subscriber)."""
        return self.submit(work).result()

    def subscribe(self, callback: Callable[[int], None]) -> Callable[[], None]:
        """Calls ``callback(size)`` in the writer's thread after every commit that appended; returns what ends it."""
        token = object()
        with self._subscribing:
            self._subscribers[token] = callback

        def unsubscribe() -> None:
            with self._subscribing:
                self._subscribers.pop(token, None)

        return unsubscribe

    @property
    def verifier(self) -> Verifier:
        """What others check this log's checkpoints with."""
        return self._signer.verifier

    @property
    def vkey(self) -> str:
        """The log key as a trust file names it."""
        return self._signer.verifier.vkey()

    @property
    def size(self) -> int:
        """Number of records."""
        return self._head().size

    @property
    def stopped(self) -> str:
        """Why the ledger stopped; empty while it works."""
        return self._started().stopped

    def stop(self, reason: str) -> None:
        """Signs nothing more until a restart, whose checks must then pass: what waits and what comes is refused."""
        self._started().halt(reason)

    def follow_newest_record(self) -> None:
        """Lets the last record of a log whose records lie in the future be written: under the newest one's time."""
        self._started().follow_newest_record()

    def checkpoint(self) -> bytes:
        """The newest signed checkpoint, which the witnesses may not have seen yet."""
        return self._head().note

    def head(self) -> tuple[int, bytes]:
        """Size and note of the newest signed checkpoint, of one moment."""
        head = self._head()
        return head.size, head.note

    def checkpoint_at(self, size: int) -> bytes | None:
        """The checkpoint signed for exactly ``size`` records; None when none was, since a batch signs once."""
        return self._store.checkpoint_at(size) if 0 < size <= self.size else None

    def covering_checkpoint(self, index: int) -> tuple[int, bytes]:
        """Size and note of the first checkpoint whose tree includes ``index``: an approval signs over it.

        Raises:
            NotFoundError: ``RECORD_NOT_FOUND``.
        """
        found = self._store.covering_checkpoint(index) if 0 <= index < self.size else None
        if found is None:
            raise _no_record(index)
        return found

    def root(self, size: int) -> bytes:
        """Root of the first ``size`` records.

        Raises:
            InvalidInputError: ``PROOF_RANGE`` beyond the log.
        """
        return tree.root(size, self._reader(size).read)

    def record(self, index: int) -> StoredRecord:
        """The record at ``index``.

        Raises:
            NotFoundError: ``RECORD_NOT_FOUND``.
        """
        stored = self._store.record(index) if 0 <= index < self.size else None
        if stored is None:
            raise _no_record(index)
        return stored

    def records(
        self, unit: str | None = None, job: str | None = None, after_index: int = -1, limit: int = 50
    ) -> list[StoredRecord]:
        """Records in log order with a greater index, at most ``limit``; None means any unit or job."""
        return self._store.records(unit, job, after_index, self.size, limit)

    def records_at(self, indices: Sequence[int]) -> list[StoredRecord]:
        """The records at these indices, each named once, in log order.

        Raises:
            NotFoundError: ``RECORD_NOT_FOUND``.
        """
        found = self._store.records_at([index for index in indices if index < self.size])
        if len(found) != len(indices):
            raise _no_record(min(set(indices) - {record.index for record in found}))
        return found

    def indices(self, unit: str, job: str | None = None, *, below: int, limit: int, without: str = "") -> list[int]:
        """Where a unit's records lie: as :meth:`audit.ledger.store.LogStore.indices` has it."""
        return self._store.indices(unit, job, min(below, self.size), limit, without)

    def weight(self, indices: Sequence[int]) -> int:
        """Bytes of the records at these indices, none of which is read."""
        return self._store.weight(indices)

    def units(self) -> list[str]:
        """Names of all chains, the installation's own among them."""
        return self._store.units()

    def inclusion_proof(self, index: int, size: int) -> list[bytes]:
        """Sibling hashes from leaf ``index`` to the root at ``size``.

        Raises:
            InvalidInputError: ``PROOF_RANGE``.
        """
        return tree.inclusion_proof(index, size, self._reader(size).read)

    def tile(self, level: int, n: int, width: int) -> bytes:
        """The first ``width`` hashes of a tile of c2sp.org/tlog-tiles: nodes of level ``8 level`` from ``256 n`` on.

        Raises:
            InternalError: ``NODE_UNKNOWN`` beyond the log.
        """
        return b"".join(self._reader(self.size).read([(8 * level, 256 * n + i) for i in range(width)]))

    def consistency_proof(self, old: int, new: int) -> list[bytes]:
        """Hashes that show size ``old`` to be a prefix of size ``new``.

        Raises:
            InvalidInputError: ``PROOF_RANGE``.
        """
        return tree.consistency_proof(old, new, self._reader(new).read)

    def _open(self, unit: UnitOfWork) -> None:
        predicate = {
            "event": "opened",
            "origin": self.origin,
            "log_key": self.vkey,
            "actor": self.origin,
            "trace_id": "",
        }
        unit.append(RecordDraft(SYSTEM_UNIT, "log.opened", "log-event", predicate))

    def _publish(self, size: int) -> None:
        with self._subscribing:
            callbacks = list(self._subscribers.values())
        for callback in callbacks:
            try:
                callback(size)
            except Exception:
                _logger.exception("a subscriber of the ledger failed")

    def _reader(self, size: int) -> TreeReader:
        edge = self._head().edge
        if not 0 <= size <= edge.size:
            raise InvalidInputError("PROOF_RANGE", f"the log has {edge.size} records, not {size}")
        return TreeReader(edge, self._store.tile)

    def _head(self) -> Head:
        return self._started().head

    def _started(self) -> Writer:
        if self._writer is None:
            raise UnavailableError("LEDGER_NOT_STARTED", "the ledger has not been started")
        return self._writer


def _no_record(index: int) -> NotFoundError:
    return NotFoundError("RECORD_NOT_FOUND", f"the log has no record {index}")
