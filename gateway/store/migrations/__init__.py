"""Makes and changes the tables: Alembic revisions, run at every start before the ledger opens the database."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine


def migrate(engine: Engine) -> None:
    """Brings the database to the newest revision, in one transaction; does nothing when it is there.

    Args:
        engine: may change the schema; dispose of it before the ledger starts.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    with engine.connect().execution_options(begin="IMMEDIATE") as connection, connection.begin():
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
