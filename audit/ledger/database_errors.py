"""What a database's error means to whoever runs it: a name, a sentence and a remedy in place of a driver's trace."""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DBAPIError, DisconnectionError, NoSuchTableError
from sqlalchemy.exc import TimeoutError as NoConnectionError

from assay.errors import AssayError, IntegrityError, PermissionDeniedError, PreconditionError, UnavailableError

_SQLITE = {
    sqlite3.SQLITE_CORRUPT: "damaged",
    sqlite3.SQLITE_NOTADB: "damaged",
    sqlite3.SQLITE_FULL: "full",
    sqlite3.SQLITE_BUSY: "busy",
    sqlite3.SQLITE_LOCKED: "busy",
    sqlite3.SQLITE_CANTOPEN: "away",
    sqlite3.SQLITE_IOERR: "away",
    sqlite3.SQLITE_PERM: "away",
    sqlite3.SQLITE_READONLY: "away",
}
# PostgreSQL's by SQLSTATE, whole or by its class: no connection, no such login or database, shutting down, too many.
_POSTGRES = {
    "XX001": "damaged",
    "XX002": "damaged",
    "53100": "full",
    "42501": "forbidden",
    "42P01": "empty",
    "3F000": "empty",
    "08": "away",
    "28": "away",
    "3D": "away",
    "53": "away",
    "57": "away",
    "58": "away",
}


def explain(error: BaseException) -> AssayError | None:
    """The error of ours that says what ``error`` means; None unless it is a database's and tells more than our fault.

    The driver's own text is left out: it may quote a row.

    Returns:
        ``DATABASE_DAMAGED`` (exit 10), ``DATABASE_UNREACHABLE``, ``DATABASE_BUSY``, ``DISK_FULL``,
        ``DATABASE_FORBIDDEN`` or ``DATABASE_NOT_MIGRATED``; its cause is ``error``.
    """
    kind = _kind(error)
    if kind not in _MEANINGS:
        return None
    made, reason, message, remedy = _MEANINGS[kind]
    named = made(reason, message, remedy=remedy)
    named.__cause__ = error
    return named


def while_serving(error: BaseException) -> BaseException:
    """What whoever waits for a running ledger hears of ``error``: its meaning where it is about the database's state.

    What a login may not do, or tables that are not there, would look like a refusal of who called.
    """
    named = explain(error)
    return named if isinstance(named, (UnavailableError, IntegrityError)) else error


def _kind(error: BaseException) -> str:
    if isinstance(error, NoSuchTableError):
        return "empty"
    if isinstance(error, (DisconnectionError, NoConnectionError)):
        return "away"
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, sqlite3.Error):
        if str(cause).startswith("no such table"):
            return "empty"
        return _SQLITE.get(getattr(cause, "sqlite_errorcode", 0) & 0xFF, "")
    if type(cause).__module__.partition(".")[0] != "psycopg":
        return ""
    state = getattr(cause, "sqlstate", None)
    if state is None:
        # A connection that was refused or has ended has no code; a role that may not be taken is told in words alone.
        lost = type(cause).__name__ == "OperationalError"
        return "forbidden" if lost and "set role" in str(cause) else "away" if lost else ""
    return _POSTGRES.get(state) or _POSTGRES.get(state[:2], "")


_MEANINGS: dict[str, tuple[type[AssayError], str, str, str]] = {
    "damaged": (
        IntegrityError,
        "DATABASE_DAMAGED",
        "the database's file is damaged",
        "stop the gateway, keep the file as evidence, and restore a backup: docs/ledger.md, check, backup, restore",
    ),
    "full": (UnavailableError, "DISK_FULL", "the disk of the database is full", "free space on it"),
    "busy": (UnavailableError, "DATABASE_BUSY", "another process holds the database", "try again"),
    "away": (
        UnavailableError,
        "DATABASE_UNREACHABLE",
        "the database cannot be reached, read or written",
        "a file: is its disk there and sound, and does it belong to the user that runs this? PostgreSQL: is it "
        "running, and does the login role's password stand in PGPASSFILE?",
    ),
    "forbidden": (
        PermissionDeniedError,
        "DATABASE_FORBIDDEN",
        "the database does not let this login do that",
        "assay ledger migrate needs --as with a login that may become assay_owner, never the gateway's; what else a "
        "login needs: docs/installation.md, PostgreSQL",
    ),
    "empty": (
        PreconditionError,
        "DATABASE_NOT_MIGRATED",
        "the database has not the tables of an installation",
        "a file: start the gateway once; PostgreSQL: assay ledger migrate DIR --as URL",
    ),
}
