"""SQLite connections on which the ledger cannot be rewritten, and the lock that keeps a second writer out.

Every pooled connection has WAL, ``synchronous=FULL`` and recursive triggers, and an authorizer that refuses UPDATE,
DELETE, DROP and ALTER on the ledger's tables, triggers on them, whatever could stand in for them, and the pragmas
that would undo this. The gateway's own tables live in the same file and are not restricted. Migrations run before start
on :func:`connect_migration_engine`, which has no authorizer.

Transactions begin explicitly: ``BEGIN`` by default, ``BEGIN IMMEDIATE`` for
``connection.execution_options(begin="IMMEDIATE")``, which every transaction that writes must ask for, since SQLite
cannot upgrade a read snapshot that has grown stale.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, delete, event, false
from sqlalchemy.exc import DatabaseError, DBAPIError

from assay.errors import IntegrityError, PreconditionError
from audit.ledger.schema import TABLE_NAMES, TABLES, check_guards

_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA recursive_triggers=ON",
    "PRAGMA foreign_keys=ON",
    "PRAGMA busy_timeout=10000",
    # What is erased or masked is overwritten in the file, whatever the build's default.
    "PRAGMA secure_delete=ON",
)
_FROZEN_PRAGMAS = frozenset(
    {
        "writable_schema",
        "recursive_triggers",
        "synchronous",
        "journal_mode",
        "ignore_check_constraints",
        "schema_version",
    }
)
_REWRITES = frozenset({sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE, sqlite3.SQLITE_DROP_TABLE})
# A name is looked for in the temporary schema first. Nothing of any name is made there, since a table can be renamed.
# CREATE TABLE temp.x is no CREATE_TEMP_TABLE: where something is made is told by the database's name alone.
_MAKES = frozenset(
    {
        sqlite3.SQLITE_CREATE_TABLE,
        sqlite3.SQLITE_CREATE_TEMP_TABLE,
        sqlite3.SQLITE_CREATE_VIEW,
        sqlite3.SQLITE_CREATE_TEMP_VIEW,
        sqlite3.SQLITE_CREATE_VTABLE,
        sqlite3.SQLITE_CREATE_TEMP_TRIGGER,
    }
)
# For these the second argument is the table: what hangs on a ledger table is not changed while the log runs.
_ON_TABLE = frozenset(
    {
        sqlite3.SQLITE_ALTER_TABLE,
        sqlite3.SQLITE_CREATE_TRIGGER,
        sqlite3.SQLITE_DROP_TRIGGER,
        sqlite3.SQLITE_CREATE_INDEX,
        sqlite3.SQLITE_DROP_INDEX,
    }
)


def authorize(action: int, first: str | None, second: str | None, database: str | None, trigger: str | None) -> int:
    """SQLite authorizer callback: forbids whatever would rewrite the ledger or take its guards away."""
    one, two = (first or "").lower(), (second or "").lower()
    if action in _REWRITES and one in TABLE_NAMES:
        return sqlite3.SQLITE_DENY
    if action in _MAKES and database == "temp":
        return sqlite3.SQLITE_DENY
    if action in _ON_TABLE and two in TABLE_NAMES:
        return sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_PRAGMA and one in _FROZEN_PRAGMAS and second is not None:
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK


def connect_engine(path: Path) -> Engine:
    """Engine over the file at ``path`` for the gateway and its ledger; safe to share between threads.

    Args:
        path: the database; its folder must exist. Tables are made by :func:`audit.ledger.schema.create`.
    """
    return _engine(path, guarded=True)


def connect_migration_engine(path: Path) -> Engine:
    """Engine without the authorizer, for migrations before start; dispose of it before the ledger starts."""
    return _engine(path, guarded=False)


def check_enforcement(connection: Connection) -> None:
    """Demands that guards, pragmas and authorizer are in force on this connection.

    Raises:
        IntegrityError: ``GUARD_DRIFT`` or ``ENFORCEMENT_MISSING``.
    """
    check_guards(connection)
    expected = {"journal_mode": "wal", "synchronous": 2, "recursive_triggers": 1, "writable_schema": 0}
    for pragma, wanted in expected.items():
        found = connection.exec_driver_sql(f"PRAGMA {pragma}").scalar()
        if found != wanted:
            raise IntegrityError("ENFORCEMENT_MISSING", f"pragma {pragma} is {found}, not {wanted}")
    for table in TABLES:
        try:
            connection.execute(delete(table).where(false()))
        except DatabaseError as error:
            if "not authorized" in str(error.orig):
                continue
            raise
        raise IntegrityError("ENFORCEMENT_MISSING", f"the authorizer lets a DELETE on {table.name} through")


def surely_undone(error: DBAPIError) -> bool:
    """True for a full disk or a busy file: SQLite has undone the transaction, and the next batch checks the head."""
    return getattr(error.orig, "sqlite_errorcode", -1) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY)


class WriterLock:
    """An exclusive lock beside the database, held while a ledger writes; the kernel frees it when the process dies."""

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(database.name + ".writer-lock")
        self._fd = -1

    def acquire(self) -> None:
        """Takes the lock.

        Raises:
            PreconditionError: ``LEDGER_IN_USE`` when another process or ledger holds it.
        """
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(fd)
            raise PreconditionError(
                "LEDGER_IN_USE", "another process writes to this ledger", remedy="stop the gateway, then try again"
            ) from error
        self._fd = fd

    def check(self) -> None:
        """Nothing to ask: the kernel frees the lock only when its holder ends."""

    def release(self) -> None:
        """Gives the lock back; safe to repeat."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def writer_lock(engine: Engine) -> WriterLock:
    """The lock that belongs to an engine's database file.

    Raises:
        PreconditionError: ``LEDGER_NOT_A_FILE`` for a database in memory, which cannot be locked or survive.
    """
    database = engine.url.database
    if not database or database == ":memory:":
        raise PreconditionError("LEDGER_NOT_A_FILE", "the ledger needs a database file")
    return WriterLock(Path(database))


def _engine(path: Path, *, guarded: bool) -> Engine:
    # Parameters hold rows and datasheets, and the text of an error is logged.
    engine = create_engine(f"sqlite:///{path}", pool_size=8, max_overflow=24, pool_timeout=60, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        for pragma in _PRAGMAS:
            connection.execute(pragma)
        if guarded:
            connection.set_authorizer(authorize)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        immediate = connection.get_execution_options().get("begin") == "IMMEDIATE"
        driver: Any = connection.connection.driver_connection
        # On the driver's own connection: an execution context of SQLAlchemy's costs as much as a row's insert or two.
        driver.execute("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine
