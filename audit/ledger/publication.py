"""What of the log others may see: the newest checkpoint that a quorum of witnesses has cosigned.

A record is durable when its batch commits. It *leaves the house* (in a permit, an evidence bundle, as an approval's
evidence root, over HTTP) only under a published checkpoint, so that nobody outside ever holds a promise that the
witnesses have not seen. Under ``quorum none`` every checkpoint is published at once, and the bundle says so.
"""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Protocol

from assay.errors import UnavailableError
from audit.ledger.ledger import Ledger
from audit.ledger.quorum import QuorumPolicy


class Publication(Protocol):
    """The published side of a log."""

    @property
    def policy(self) -> QuorumPolicy:
        """Who must have cosigned."""
        ...

    @property
    def state(self) -> str:
        """Empty while all is well; else ``QUORUM_NOT_MET``, ``LOG_FORKED`` or ``LOG_ROLLED_BACK``, and why."""
        ...

    def latest(self) -> tuple[int, bytes]:
        """Size and note of the newest published checkpoint.

        Raises:
            UnavailableError: ``QUORUM_NOT_MET`` when none was published yet.
        """
        ...

    def at(self, size: int) -> bytes:
        """The note published for exactly ``size`` records; empty when none was."""
        ...

    def covering(self, index: int) -> tuple[int, bytes]:
        """Size and note of the first published checkpoint whose tree includes ``index``.

        The size and what was signed are always the same; the note gains cosignatures.

        Raises:
            UnavailableError: ``QUORUM_NOT_MET`` while there is none.
        """
        ...

    def covered(self, index: int) -> Future[None]:
        """Resolves when a published checkpoint includes ``index``."""
        ...

    def close(self) -> None:
        """Ends what runs in the background."""
        ...


class Unwitnessed:
    """``quorum none``: what the log signed is published."""

    def __init__(self, ledger: Ledger, policy: QuorumPolicy | None = None) -> None:
        self.policy = policy or QuorumPolicy()
        self.state = ""
        self._ledger = ledger

    def latest(self) -> tuple[int, bytes]:
        """Size and note of the newest checkpoint."""
        return self._ledger.head()

    def at(self, size: int) -> bytes:
        """The note of exactly ``size`` records, or nothing."""
        return self._ledger.checkpoint_at(size) or b""

    def covering(self, index: int) -> tuple[int, bytes]:
        """The first checkpoint that includes ``index``."""
        return self._ledger.covering_checkpoint(index)

    def covered(self, index: int) -> Future[None]:
        """Resolved: every record is covered once it is committed."""
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def close(self) -> None:
        """Nothing runs."""


_SCHEMA = """
CREATE TABLE IF NOT EXISTS published (id INTEGER PRIMARY KEY, size INTEGER NOT NULL, note BLOB NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS published_size ON published (size, id);
CREATE TRIGGER IF NOT EXISTS published_no_update BEFORE UPDATE ON published
  BEGIN SELECT RAISE(ABORT, 'published is append-only'); END;
CREATE TRIGGER IF NOT EXISTS published_no_delete BEFORE DELETE ON published
  BEGIN SELECT RAISE(ABORT, 'published is append-only'); END;
CREATE TRIGGER IF NOT EXISTS published_never_shrinks BEFORE INSERT ON published
  WHEN NEW.size < (SELECT COALESCE(MAX(size), 0) FROM published)
    OR NEW.id IS NOT (SELECT COALESCE(MAX(id), 0) + 1 FROM published)
  BEGIN SELECT RAISE(ABORT, 'published takes only the next note'); END;
"""


class PublishedNotes:
    """Cosigned notes in a small file of their own, append-only; a note that gains cosignatures is added again.

    The file is apart from the ledger's database, so that it is one more memory that a rollback must also find.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10.0)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "recursive_triggers=ON"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.executescript(_SCHEMA)

    def add(self, size: int, note: bytes) -> None:
        """Appends a note, durably before returning."""
        with self._lock:
            self._connection.execute(
                "INSERT INTO published (id, size, note) "
                "VALUES ((SELECT COALESCE(MAX(id), 0) + 1 FROM published), ?, ?)",
                (size, note),
            )

    def latest(self) -> tuple[int, bytes]:
        """Size and note of the newest; size 0 and nothing before the first."""
        return self._one("SELECT size, note FROM published ORDER BY id DESC LIMIT 1")

    def at(self, size: int) -> bytes:
        """The newest note of a size, or nothing."""
        return self._one("SELECT size, note FROM published WHERE size = ? ORDER BY id DESC LIMIT 1", size)[1]

    def covering(self, index: int) -> tuple[int, bytes]:
        """The first size that includes ``index``, and its newest note, with all cosignatures; 0 and nothing if none."""
        return self._one("SELECT size, note FROM published WHERE size > ? ORDER BY size, id DESC LIMIT 1", index)

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._connection.close()

    def _one(self, query: str, *values: int) -> tuple[int, bytes]:
        with self._lock:
            row = self._connection.execute(query, values).fetchone()
        return (0, b"") if row is None else (int(row[0]), bytes(row[1]))


def not_met(policy: QuorumPolicy, why: str) -> UnavailableError:
    """The refusal of whatever would leave the house without its witnesses."""
    return UnavailableError(
        "QUORUM_NOT_MET",
        f"the witnesses have not cosigned yet ({policy.describe()}): {why}",
        remedy="start the witness (`assay witness serve DIR`), then repeat the same request; nothing is lost",
    )
