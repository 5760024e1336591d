"""What a witness last signed of each log: one SQLite file, read and advanced in one transaction.

The check of the old size, the proof and the new row happen under one write lock, so that two requests cannot both
advance the same tree, in threads or in processes. A row is on disk (``synchronous=FULL``) before anybody is answered.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from audit.ledger.tree import EMPTY_ROOT

_SCHEMA = """
CREATE TABLE IF NOT EXISTS log (
  origin TEXT PRIMARY KEY,
  size INTEGER NOT NULL,
  root BLOB NOT NULL,
  note BLOB NOT NULL,
  fork TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE TRIGGER IF NOT EXISTS log_never_shrinks BEFORE UPDATE ON log
  WHEN NEW.size < OLD.size OR NEW.origin <> OLD.origin OR (OLD.fork <> '' AND NEW.fork <> OLD.fork)
  BEGIN SELECT RAISE(ABORT, 'a witness forgets nothing'); END;
CREATE TRIGGER IF NOT EXISTS log_stays BEFORE DELETE ON log
  BEGIN SELECT RAISE(ABORT, 'a witness forgets nothing'); END;
"""


@dataclass(frozen=True)
class Seen:
    """The newest checkpoint that was cosigned of a log.

    Attributes:
        size: its size; 0 before the first.
        root: its root.
        note: the note with the log's and this witness's lines; empty before the first.
        fork: name of the file that proves that the log forked; once set, nothing of this log is signed any more.
    """

    size: int = 0
    root: bytes = EMPTY_ROOT
    note: bytes = b""
    fork: str = ""


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps others from opening a store in a folder meanwhile: who makes a file WAL waits for no lock, and fails."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class WitnessStore:
    """The file; safe for threads, and for several processes on one file."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10.0)
        with _alone(path.parent):
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "recursive_triggers=ON", "trusted_schema=OFF"):
                self._connection.execute(f"PRAGMA {pragma}")
            self._connection.executescript(_SCHEMA)

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._connection.close()

    def seen(self, origin: str) -> Seen:
        """What was last cosigned of a log."""
        with self._lock:
            return self._read(origin)

    def advance(self, origin: str, decide: Callable[[Seen], Seen]) -> Seen:
        """Replaces what was seen by what ``decide`` makes of it, durably before returning.

        What ``decide`` raises leaves everything as it was.
        """
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                new = decide(self._read(origin))
                self._connection.execute(
                    "INSERT INTO log (origin, size, root, note, fork) VALUES (?, ?, ?, ?, ?) ON CONFLICT (origin) "
                    "DO UPDATE SET size = excluded.size, root = excluded.root, note = excluded.note, "
                    "fork = excluded.fork",
                    (origin, new.size, new.root, new.note, new.fork),
                )
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        return new

    def _read(self, origin: str) -> Seen:
        row = self._connection.execute("SELECT size, root, note, fork FROM log WHERE origin = ?", (origin,)).fetchone()
        return Seen() if row is None else Seen(*row)
