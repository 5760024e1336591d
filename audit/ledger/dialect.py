"""What differs between databases, behind one seam: one module a database, chosen by its dialect's name.

Everything else in the ledger is SQL that both understand. ``begin="IMMEDIATE"`` among a connection's execution options
asks, on both, for a transaction that may write and that waits for the one before it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from sqlalchemy import Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from assay.errors import InvalidInputError
from audit.ledger import postgres, sqlite


class WriterLock(Protocol):
    """Keeps a second writer out for as long as it is held; the system frees it when its holder dies."""

    def acquire(self) -> None:
        """Takes the lock.

        Raises:
            PreconditionError: ``LEDGER_IN_USE`` when another process or ledger holds it.
        """
        ...

    def check(self) -> None:
        """Demands, before every batch, that the lock is still held.

        Raises:
            PreconditionError: ``LEDGER_LOCK_LOST``.
        """
        ...

    def release(self) -> None:
        """Gives the lock back; safe to repeat."""
        ...


class Dialect(Protocol):
    """What the ledger needs a database to do in its own way."""

    def writer_lock(self, engine: Engine) -> WriterLock:
        """The lock of an engine's database.

        Raises:
            PreconditionError: when such a database cannot hold a ledger.
        """
        ...

    def check_enforcement(self, connection: Connection) -> None:
        """Demands that what keeps the tables append-only and durable is in force on this connection.

        Raises:
            IntegrityError: ``GUARD_DRIFT`` or ``ENFORCEMENT_MISSING``.
        """
        ...

    def surely_undone(self, error: DBAPIError) -> bool:
        """Whether a COMMIT that failed so has certainly been rolled back; else a restart must find out."""
        ...


_DIALECTS: dict[str, Dialect] = {"sqlite": sqlite, "postgresql": postgres}


def of(engine: Engine) -> Dialect:
    """The dialect of an engine.

    Raises:
        InvalidInputError: ``DATABASE_UNKNOWN``.
    """
    return _known(engine.dialect.name)


def connect(url: str) -> Engine:
    """Engine for the gateway and its ledger, on which the ledger cannot be rewritten.

    Args:
        url: ``sqlite:////absolute/path`` or ``postgresql+psycopg://user@host/database``.

    Raises:
        InvalidInputError: ``DATABASE_URL`` or ``DATABASE_UNKNOWN``.
    """
    name = dialect_name(url)
    return postgres.connect_engine(url) if name == "postgresql" else sqlite.connect_engine(sqlite_path(url))


def connect_for_migration(url: str) -> Engine:
    """Engine that may make and change tables, for before start; dispose of it before the ledger starts.

    Raises:
        InvalidInputError: ``DATABASE_URL`` or ``DATABASE_UNKNOWN``.
    """
    if dialect_name(url) == "postgresql":
        return postgres.connect_migration_engine(url)
    return sqlite.connect_migration_engine(sqlite_path(url))


def dialect_name(url: str) -> str:
    """``sqlite`` or ``postgresql``.

    Raises:
        InvalidInputError: ``DATABASE_URL`` or ``DATABASE_UNKNOWN``.
    """
    try:
        name = make_url(url).get_backend_name()
    except ArgumentError as error:
        raise InvalidInputError(
            "DATABASE_URL", "the database's address is not a URL", remedy="postgresql+psycopg://user@host/database"
        ) from error
    _known(name)
    return name


def sqlite_path(url: str) -> Path:
    """The file that a SQLite URL names.

    Raises:
        InvalidInputError: ``DATABASE_URL`` unless it names one by its absolute path.
    """
    path = Path(make_url(url).database or "")
    if not path.is_absolute():
        raise InvalidInputError(
            "DATABASE_URL", "a SQLite database is named by its absolute path", remedy="sqlite:////absolute/path"
        )
    return path


def _known(name: str) -> Dialect:
    found = _DIALECTS.get(name)
    if found is None:
        raise InvalidInputError(
            "DATABASE_UNKNOWN", f"{name} cannot hold a ledger", remedy="use sqlite or postgresql+psycopg"
        )
    return found
