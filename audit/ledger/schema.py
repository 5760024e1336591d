"""The ledger's tables, and the guards that keep them append-only in SQLite.

:mod:`audit.ledger.postgres_guards` has those of PostgreSQL, which make the same promises.
Guards are triggers because they travel with the file: whoever opens it with another tool meets them too. They refuse
UPDATE, DELETE and any INSERT that is not the next one, in the log and in its unit's chain. ``INSERT OR REPLACE``
deletes silently unless recursive triggers are on, and a REPLACE that hits another unique column passes a plain index
guard; hence no UNIQUE column beyond the primary keys. A twin of an older leaf is refused without an index on leaves,
which are random and would dirty a page a record: the body must name the row's unit, number and type, and a number
is taken once. A file's owner can always edit the file: the anchor and the signed checkpoints are for that.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Connection, Engine, Index, Integer, LargeBinary, Table, text
from sqlmodel import Field, SQLModel

from assay.errors import IntegrityError
from audit.ledger import postgres_guards

# SQLite makes a rowid alias only of a column declared INTEGER; elsewhere the log may outgrow 32 bits.
_Int = BigInteger().with_variant(Integer(), "sqlite")


class LogRecord(SQLModel, table=True):
    """One leaf: its hash, its exact bytes, and columns copied from them for finding it."""

    __tablename__ = "log_record"
    __table_args__ = (
        Index("log_record_unit", "unit", "tseq"),
        Index("log_record_job", "job", "idx", sqlite_where=text("job <> ''"), postgresql_where=text("job <> ''")),
    )

    idx: int = Field(sa_column=Column(_Int, primary_key=True, autoincrement=False))
    leaf: bytes = Field(sa_column=Column(LargeBinary(32), nullable=False))
    body: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    unit: str
    tseq: int = Field(sa_column=Column(_Int, nullable=False))
    type: str
    job: str


class LogTile(SQLModel, table=True):
    """A full tile: 256 hashes of tile level ``level``, then the 255 interior ones; 511 hashes of 32 bytes."""

    __tablename__ = "log_tile"

    level: int = Field(sa_column=Column(_Int, primary_key=True, autoincrement=False))
    n: int = Field(sa_column=Column(_Int, primary_key=True, autoincrement=False))
    hashes: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class LogCheckpoint(SQLModel, table=True):
    """A signed checkpoint of the tree of ``size`` leaves."""

    __tablename__ = "log_checkpoint"

    size: int = Field(sa_column=Column(_Int, primary_key=True, autoincrement=False))
    note: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


RECORDS: Table = LogRecord.__table__  # type: ignore[attr-defined]
TILES: Table = LogTile.__table__  # type: ignore[attr-defined]
CHECKPOINTS: Table = LogCheckpoint.__table__  # type: ignore[attr-defined]
TABLES = (RECORDS, TILES, CHECKPOINTS)
TABLE_NAMES = frozenset(table.name for table in TABLES)


def _refuse(table: str, verb: str) -> str:
    return (
        f"CREATE TRIGGER {table}_no_{verb} BEFORE {verb.upper()} ON {table} "
        f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
    )


def _guard(table: str, condition: str, message: str) -> str:
    return (
        f"CREATE TRIGGER {table}_guard BEFORE INSERT ON {table} WHEN {condition} "
        f"BEGIN SELECT RAISE(ABORT, '{message}'); END"
    )


TRIGGERS = {
    **{f"{t}_no_{verb}": _refuse(t, verb) for t in sorted(TABLE_NAMES) for verb in ("update", "delete")},
    "log_record_guard": _guard(
        "log_record",
        "NEW.idx IS NOT (SELECT COALESCE(MAX(idx) + 1, 0) FROM log_record) OR length(NEW.leaf) IS NOT 32 "
        "OR NEW.tseq IS NOT (SELECT COALESCE(MAX(tseq) + 1, 1) FROM log_record WHERE unit = NEW.unit) "
        """OR NOT instr(NEW.body, CAST(',"tenant":"' || NEW.unit || '","tprev":' AS BLOB)) """
        """OR substr(NEW.body, -length(',"tseq":' || NEW.tseq || ',"type":"' || NEW.type || '","v":1}')) IS NOT """
        """CAST(',"tseq":' || NEW.tseq || ',"type":"' || NEW.type || '","v":1}' AS BLOB)""",
        "log_record takes only the next leaf",
    ),
    "log_tile_guard": _guard(
        "log_tile",
        "NEW.n IS NOT (SELECT COALESCE(MAX(n) + 1, 0) FROM log_tile WHERE level = NEW.level) "
        "OR length(NEW.hashes) IS NOT 16352",
        "log_tile takes only the next tile",
    ),
    "log_checkpoint_guard": _guard(
        "log_checkpoint",
        "NEW.size <= (SELECT COALESCE(MAX(size), 0) FROM log_checkpoint) OR NEW.size < 1",
        "log_checkpoint takes only a larger tree",
    ),
}


def create(engine: Engine) -> None:
    """Creates tables and guards where they are absent; safe to repeat. Needs an engine for migrations.

    Raises:
        IntegrityError: ``GUARD_DRIFT`` when a guard of that name exists with another text.
    """
    with engine.begin() as connection:
        create_on(connection)


def create_on(connection: Connection) -> None:
    """As :func:`create`, within the caller's transaction (migrations).

    Raises:
        IntegrityError: ``GUARD_DRIFT``.
    """
    SQLModel.metadata.create_all(connection, tables=list(TABLES), checkfirst=True)
    if connection.dialect.name == "postgresql":
        postgres_guards.create_guards(connection)
    else:
        present = _triggers(connection)
        for name, sql in TRIGGERS.items():
            if name not in present:
                connection.exec_driver_sql(sql)
    check_guards(connection)


def check_guards(connection: Connection) -> None:
    """Demands that every guard is there with exactly its text, and that no other trigger hangs on the ledger's tables.

    Raises:
        IntegrityError: ``GUARD_DRIFT`` with the trigger's name.
    """
    if connection.dialect.name == "postgresql":
        postgres_guards.check_guards(connection)
        return
    present = _triggers(connection)
    for name in sorted(present.keys() | TRIGGERS.keys()):
        if present.get(name) != TRIGGERS.get(name):
            raise IntegrityError("GUARD_DRIFT", f"trigger {name} is missing, foreign or has another text")


def _triggers(connection: Connection) -> dict[str, str]:
    rows = connection.exec_driver_sql(
        "SELECT name, sql, tbl_name FROM sqlite_master WHERE type = 'trigger' "
        "UNION ALL SELECT name, sql, tbl_name FROM sqlite_temp_master WHERE type = 'trigger'"
    )
    return {str(row[0]): str(row[1]) for row in rows if str(row[2]).lower() in TABLE_NAMES}
