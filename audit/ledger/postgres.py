"""PostgreSQL connections on which the ledger cannot be rewritten, and the lock that keeps a second writer out.

What SQLite needs an authorizer for, PostgreSQL does by roles: the gateway logs in as a member of ``assay_writer``, who
owns nothing and may not change, delete or truncate what the log holds; migrations run beforehand as a member of
``assay_owner``. That this is so, that the guards are in force and that a commit is on disk when it returns is checked
at start, and what makes a commit durable again in every batch. A password never stands in a URL: libpq reads it from
``PGPASSFILE`` or from the file that ``?passfile=`` names. Over a network nobody reads along or poses as the server: the
URL demands the server's certificate.

Reads see one snapshot (REPEATABLE READ). ``connection.execution_options(begin="IMMEDIATE")`` begins a transaction that
writes: it takes the batch lock first and then reads what is committed, so that one writer follows another.
"""

from __future__ import annotations

import ipaddress
import os
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError

from assay.errors import IntegrityError, InvalidInputError, PreconditionError, UnavailableError
from audit.ledger.postgres_guards import LOG_TABLES, OWNER, SCHEMA, check_guards

# Advisory locks of this database: a class of our own ("assa"), one lock for the writer's life, one for each batch.
_LOCK_CLASS = int.from_bytes(b"assa")
_WRITER_LOCK, _BATCH_LOCK = 1, 2
_PATIENCE = "2s"
# Seconds to let us in, and milliseconds for what was sent to be acknowledged: a host that vanished without a word would
# hold a thread of ours for the quarter of an hour in which the system sends again otherwise.
_REACH = {"connect_timeout": 10, "tcp_user_timeout": 60_000, "keepalives_idle": 30, "keepalives_interval": 10}
_OLDEST_VERSION = 150_000
# Temporary tables are looked for last: none may stand in for one of ours. A lock that is never freed must not hang us.
_OPTIONS = f"-c search_path={SCHEMA},pg_temp -c lock_timeout=10000 -c idle_session_timeout=0"
# What a setting must be for a commit that was answered to be on disk, whole. Any of them may change under a session.
_DURABLE = {"synchronous_commit": ("on", "remote_apply"), "fsync": ("on",), "full_page_writes": ("on",)}
_SETTINGS = ", ".join(f"current_setting('{name}')" for name in _DURABLE)
TAKE_BATCH_LOCK = f"SELECT {_SETTINGS}, pg_advisory_xact_lock({_LOCK_CLASS}, {_BATCH_LOCK})"
_BEGIN_IMMEDIATE = f"SET TRANSACTION ISOLATION LEVEL READ COMMITTED; {TAKE_BATCH_LOCK}"
# An ERROR with one of these at COMMIT says that the transaction is rolled back: serialization, deadlock, full disk.
_UNDONE = frozenset({"40001", "40P01", "53100"})
_POWERS = ("pg_execute_server_program", "pg_write_server_files", "pg_write_all_data", "pg_maintain")


def connect_engine(url: str) -> Engine:
    """Engine for the gateway and its ledger; safe to share between threads.

    Args:
        url: ``postgresql+psycopg://user@host/database`` of a login role that is a member of ``assay_writer``. Not
            through a pooler that shares sessions between transactions: the writer's lock belongs to a session.

    Raises:
        InvalidInputError: ``DATABASE_URL``. PreconditionError: ``POSTGRES_DRIVER_MISSING``.
    """
    return _engine(url, _OPTIONS)


def connect_migration_engine(url: str) -> Engine:
    """Engine for migrations before start; ``url`` is of a login role that may become ``assay_owner``, and does.

    Raises:
        InvalidInputError: ``DATABASE_URL``. PreconditionError: ``POSTGRES_DRIVER_MISSING``.
    """
    return _engine(url, f"{_OPTIONS} -c role={OWNER}")


def check_url(url: str) -> URL:
    """Demands an address of PostgreSQL: driver named, no password, and TLS where it leads to another machine.

    Raises:
        InvalidInputError: ``DATABASE_URL``.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise _bad_url("it is not a URL", _EXAMPLE) from error
    if parsed.drivername != "postgresql+psycopg":
        raise _bad_url("it does not name PostgreSQL and its driver", _EXAMPLE)
    if parsed.password is not None or "password" in parsed.query:
        remedy = "write it into a file that only this user may read; name that in PGPASSFILE or as ?passfile=FILE"
        raise _bad_url("a password stands in it", remedy)
    if parsed.query.get("sslmode") != "verify-full" and _leaves_the_machine(parsed):
        remedy = (
            "add ?sslmode=verify-full&sslrootcert=FILE, FILE with the root of the server's certificate, or `system`"
        )
        raise _bad_url("it is on another machine and does not demand that machine's certificate", remedy)
    return parsed


def check_enforcement(connection: Connection) -> None:
    """Demands that commits are durable, that guards are in force, and that this login cannot take them away.

    Raises:
        IntegrityError: ``GUARD_DRIFT`` or ``ENFORCEMENT_MISSING``.
    """
    version = int(connection.exec_driver_sql("SHOW server_version_num").scalar() or 0)
    _demand(version >= _OLDEST_VERSION, f"this PostgreSQL is {version // 10_000}; 15 or newer is needed")
    for name, values in (
        _DURABLE | {"transaction_read_only": ("off",), "session_replication_role": ("origin",)}
    ).items():
        _demand_setting(name, values, connection.exec_driver_sql(f"SHOW {name}").scalar())
    check_guards(connection)
    row = connection.execute(_ROLE_QUERY, {"schema": SCHEMA, "tables": list(LOG_TABLES), "powers": list(_POWERS)})
    for fault, holds in row.mappings().one().items():
        _demand(not holds, f"the gateway's login {fault}")


def surely_undone(error: DBAPIError) -> bool:
    """True when the server itself said that the COMMIT was rolled back; a lost connection says nothing."""
    return getattr(error.orig, "sqlstate", None) in _UNDONE


class AdvisoryLock:
    """A session's advisory lock, held by a connection of its own; the server frees it when that connection ends."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._session: Any = None

    def acquire(self) -> None:
        """Takes the lock.

        Raises:
            PreconditionError: ``LEDGER_IN_USE`` when another session holds it.
            UnavailableError: ``DATABASE_UNREACHABLE``.
        """
        driver = self._engine.dialect.loaded_dbapi
        try:
            pooled = self._engine.raw_connection()
        except (driver.Error, DBAPIError) as error:
            raise UnavailableError(
                "DATABASE_UNREACHABLE",
                f"PostgreSQL at {self._engine.url.render_as_string(hide_password=True)} does not let us in",
                remedy="is it running, and does the login role's password stand in PGPASSFILE?",
            ) from error
        session: Any = pooled.driver_connection
        pooled.detach()
        session.autocommit = True
        try:
            # The server may take a moment to see that a writer before us has died.
            session.execute(f"SET lock_timeout = '{_PATIENCE}'")
            session.execute(f"SELECT pg_advisory_lock({_LOCK_CLASS}, {_WRITER_LOCK})")
        except driver.errors.LockNotAvailable as error:
            session.close()
            raise PreconditionError(
                "LEDGER_IN_USE", "another process writes to this ledger", remedy="stop the gateway, then try again"
            ) from error
        self._session = session

    def check(self) -> None:
        """Demands that the session lives, and with it the lock.

        Raises:
            PreconditionError: ``LEDGER_LOCK_LOST``.
        """
        driver_error = self._engine.dialect.loaded_dbapi.Error
        try:
            self._session.execute("SELECT 1")
        except driver_error as error:
            raise PreconditionError(
                "LEDGER_LOCK_LOST", "the connection that held the writer's lock has ended; another may hold it now"
            ) from error

    def release(self) -> None:
        """Ends the session and so gives the lock back; safe to repeat."""
        if self._session is not None:
            self._session.close()
            self._session = None


def writer_lock(engine: Engine) -> AdvisoryLock:
    """The lock of an engine's database."""
    return AdvisoryLock(engine)


def _engine(url: str, options: str) -> Engine:
    parsed = check_url(url)
    reach = {name: value for name, value in _REACH.items() if name not in parsed.query}
    arguments = {"options": options, "application_name": "assay", **reach}
    try:
        engine = create_engine(
            parsed,
            pool_size=8,
            max_overflow=24,
            pool_timeout=60,
            pool_pre_ping=True,
            isolation_level="REPEATABLE READ",
            hide_parameters=True,
            connect_args=arguments,
        )
    except ModuleNotFoundError as error:
        raise PreconditionError(
            "POSTGRES_DRIVER_MISSING", "psycopg is not installed", remedy="pip install -c constraints.txt '.[postgres]'"
        ) from error

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        if connection.get_execution_options().get("begin") != "IMMEDIATE":
            return
        session: Any = connection.connection.driver_connection
        cursor = session.execute(_BEGIN_IMMEDIATE)
        cursor.nextset()
        for (name, values), found in zip(_DURABLE.items(), cursor.fetchone(), strict=False):
            _demand_setting(name, values, found)

    return engine


def _leaves_the_machine(url: URL) -> bool:
    """Whether any host that libpq may try is another than a socket of this machine or its loopback."""
    if "service" in url.query or "PGSERVICE" in os.environ:
        return True
    query = [url.query.get(name, "") for name in ("host", "hostaddr")]
    named = [url.host or "", *(part for one in query for part in ([one] if isinstance(one, str) else one))]
    if not any(named):
        named = [os.environ.get("PGHOST", ""), os.environ.get("PGHOSTADDR", "")]
    return not all(map(_here, ",".join(named).split(",")))


def _here(host: str) -> bool:
    if host in ("", "localhost") or host.startswith(("/", "@")):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bad_url(why: str, remedy: str) -> InvalidInputError:
    return InvalidInputError("DATABASE_URL", f"the database's address: {why}", remedy=remedy)


_EXAMPLE = "postgresql+psycopg://user@host/database?sslmode=verify-full&sslrootcert=FILE"


def _demand_setting(name: str, values: tuple[str, ...], found: object) -> None:
    _demand(found in values, f"{name} is {found}, not {' or '.join(values)}")


def _demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise IntegrityError("ENFORCEMENT_MISSING", otherwise, remedy="docs/installation.md, PostgreSQL")


# Each column is something that the login must not be able to do, by itself or as any role that it may become.
_ROLE_QUERY = text(
    """
    WITH mine AS (SELECT oid, rolname, rolsuper, rolcreaterole FROM pg_roles
                  WHERE pg_has_role(session_user, oid, 'MEMBER')),
         log AS (SELECT oid, relowner FROM pg_class
                 WHERE relnamespace = to_regnamespace(:schema) AND relname = ANY(:tables))
    SELECT
      current_user <> session_user AS "acts as another role than it logged in as",
      (SELECT bool_or(rolsuper) FROM mine) AS "is a superuser",
      (SELECT bool_or(rolcreaterole) FROM mine) AS "may make roles, and so become the owner",
      EXISTS (SELECT 1 FROM log JOIN mine ON mine.oid = log.relowner) AS "can become the ledger's owner",
      EXISTS (SELECT 1 FROM mine WHERE rolname = ANY(:powers)) AS "has a power over every table or the server's files",
      EXISTS (SELECT 1 FROM pg_namespace n JOIN mine ON mine.oid = n.nspowner WHERE n.oid = to_regnamespace(:schema))
        AS "owns the ledger's schema",
      EXISTS (SELECT 1 FROM pg_database d JOIN mine ON mine.oid = d.datdba WHERE d.datname = current_database())
        AS "owns the database",
      EXISTS (SELECT 1 FROM log, mine WHERE has_any_column_privilege(mine.oid, log.oid, 'UPDATE'))
        AS "may UPDATE the ledger",
      EXISTS (SELECT 1 FROM log, mine WHERE has_table_privilege(mine.oid, log.oid, 'DELETE'))
        AS "may DELETE from the ledger",
      EXISTS (SELECT 1 FROM log, mine WHERE has_table_privilege(mine.oid, log.oid, 'TRUNCATE'))
        AS "may TRUNCATE the ledger",
      EXISTS (SELECT 1 FROM log, mine WHERE has_table_privilege(mine.oid, log.oid, 'TRIGGER'))
        AS "may put triggers on the ledger",
      EXISTS (SELECT 1 FROM pg_namespace n, mine WHERE has_schema_privilege(mine.oid, n.oid, 'CREATE'))
        AS "may make tables that shadow the ledger's",
      EXISTS (SELECT 1 FROM mine WHERE has_database_privilege(mine.oid, current_database(), 'TEMP'))
        AS "may make temporary tables that shadow the ledger's",
      EXISTS (SELECT 1 FROM mine WHERE has_parameter_privilege(mine.oid, 'session_replication_role', 'SET'))
        AS "may set session_replication_role"
    """
)
