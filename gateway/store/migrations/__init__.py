"""Makes and changes the tables: Alembic revisions, run before the ledger opens the database.

On SQLite at every start. On PostgreSQL by ``assay ledger migrate``, as another login than the gateway's, which must not
be able to change a table; the gateway only demands that it was done.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from assay.errors import PreconditionError, UnavailableError
from audit.ledger.payloads import PAYLOADS
from audit.ledger.postgres_guards import SCHEMA, WRITER
from gateway.store.tables import Row


def migrate(engine: Engine) -> str:
    """Brings the database to the newest revision, in one transaction; does nothing when it is there.

    Returns:
        That revision.

    Args:
        engine: may change the schema; dispose of it before the ledger starts.

    Raises:
        PreconditionError: ``DATABASE_NEWER``.
    """
    config = _config()
    with engine.connect().execution_options(begin="IMMEDIATE") as connection, connection.begin():
        _demand_known(MigrationContext.configure(connection).get_current_revision())
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        if connection.dialect.name == "postgresql":
            _grant(connection)
        return str(MigrationContext.configure(connection).get_current_revision())


def demand_newest(engine: Engine) -> None:
    """Demands that somebody else has brought the database to the newest revision.

    Raises:
        PreconditionError: ``DATABASE_NOT_MIGRATED`` or ``DATABASE_NEWER``. UnavailableError: ``DATABASE_UNREACHABLE``.
    """
    wanted = ScriptDirectory.from_config(_config()).get_current_head()
    try:
        with engine.connect() as connection:
            found = MigrationContext.configure(connection).get_current_revision()
    except SQLAlchemyError as error:
        if getattr(error.__cause__, "sqlstate", None) == _NOT_ALLOWED:
            found = None
        else:
            raise UnavailableError(
                "DATABASE_UNREACHABLE",
                f"PostgreSQL at {engine.url.render_as_string(hide_password=True)} does not let us in",
                remedy="is it running, and does the login role's password stand in PGPASSFILE?",
            ) from error
    _demand_known(found)
    if found != wanted:
        raise PreconditionError(
            "DATABASE_NOT_MIGRATED",
            f"the database is at revision {found or 'none'}, and this release needs {wanted}",
            remedy="assay ledger migrate DIR --as postgresql+psycopg://MIGRATOR@HOST/DATABASE",
        )


def _demand_known(found: str | None) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if found is not None and found not in known:
        raise PreconditionError(
            "DATABASE_NEWER",
            f"the database is at revision {found}, which this release does not know: a newer one has been here",
            remedy="install that release again; to go back, restore the backup from before the upgrade",
        )


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    return config


def _grant(connection: Connection) -> None:
    """The gateway's own rows may change; the ledger's tables have grants and guards of their own."""
    names = ", ".join(f"{SCHEMA}.{name}" for name in sorted([*Row.metadata.tables, PAYLOADS.name]))
    connection.exec_driver_sql(f"REVOKE ALL ON {names} FROM PUBLIC")
    connection.exec_driver_sql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {names} TO {WRITER}")
    connection.exec_driver_sql(f"GRANT SELECT ON {SCHEMA}.alembic_version TO {WRITER}")


_NOT_ALLOWED = "42501"  # insufficient_privilege: the table of revisions is there, and not granted yet
