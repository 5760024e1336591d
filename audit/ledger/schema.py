"""The ledger's tables, and the guards that keep them append-only in SQLite.

:mod:`audit.ledger.postgres_guards` has those of PostgreSQL, which make the same promises.
Guards are triggers because they travel with the file: whoever opens it with another tool meets them too. They refuse
UPDATE, DELETE and any INSERT that is not the next one, in the log and in its unit's chain. ``INSERT OR REPLACE``
deletes silently unless recursive triggers are on, and a REPLACE that hits another unique column passes a plain index
guard; hence no UNIQUE column beyond the primary keys. A twin of an older leaf is refused without an index on leaves,
which are random and would dirty a page a record: the body must name the row's unit, number and type, and a number
is taken once. A file's owner can always edit the file: the anchor and the signed checkpoints are for that.

A job's records are found by ``job_first``, the index of the job's first record, for the same reason: names are random,
and an index over the name of every record would dirty a page a job and batch, while those who work at one time began
near each other. Only a job's first record stands in an index under its name. The guard lets no row say another first
record than the one that is there, or itself where none is.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import BigInteger, Column, Connection, Engine, Index, Integer, LargeBinary, Table, text
from sqlalchemy.schema import CreateIndex
from sqlmodel import Field, SQLModel

from assay.errors import IntegrityError
from audit.ledger import postgres_guards

# SQLite makes a rowid alias only of a column declared INTEGER; elsewhere the log may outgrow 32 bits.
_Int = BigInteger().with_variant(Integer(), "sqlite")
_FIRST = text("job_first = idx")


class LogRecord(SQLModel, table=True):
    """One leaf: its hash, its exact bytes, and columns for finding it.

    Unit, number, type and job are copied from the bytes. ``job_first`` is the index of the job's first record; NULL for
    a record of no job.
    """

    __tablename__ = "log_record"
    __table_args__ = (
        Index("log_record_unit", "unit", "tseq"),
        Index("log_record_job", "job_first"),
        Index("log_record_job_name", "job", sqlite_where=_FIRST, postgresql_where=_FIRST),
    )

    idx: int = Field(sa_column=Column(_Int, primary_key=True, autoincrement=False))
    leaf: bytes = Field(sa_column=Column(LargeBinary(32), nullable=False))
    body: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    unit: str
    tseq: int = Field(sa_column=Column(_Int, nullable=False))
    type: str
    job: str
    job_first: int | None = Field(sa_column=Column(_Int, nullable=True))


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


# What keeps a row out. A record ends in ,"tenant":"UNIT","tprev":HASH,"ts":"TIME","tseq":N,"type":"TYPE","v":1} and is
# read from its end, where 25 bytes are beside N and TYPE, and 122 before them beside UNIT, or 60 in a unit's first
# record, whose HASH is null.
_NOT_THE_NEXT = (
    "NEW.idx IS NOT COALESCE((SELECT idx + 1 FROM log_record ORDER BY idx DESC LIMIT 1), 0)",
    "NEW.tseq IS NOT COALESCE((SELECT tseq + 1 FROM log_record WHERE unit = NEW.unit ORDER BY tseq DESC LIMIT 1), 1)",
    "NEW.job_first IS NOT CASE WHEN NEW.job <> '' THEN "
    "COALESCE((SELECT idx FROM log_record WHERE job = NEW.job AND job_first = idx), NEW.idx) END",
    "length(NEW.leaf) IS NOT 32",
    "substr(NEW.body, -25 - length(NEW.tseq) - length(NEW.type)) IS NOT "
    """CAST(',"tseq":' || NEW.tseq || ',"type":"' || NEW.type || '","v":1}' AS BLOB)""",
    "substr(NEW.body, -CASE NEW.tseq WHEN 1 THEN 85 ELSE 147 END - length(NEW.unit) - length(NEW.tseq) "
    "- length(NEW.type), 21 + length(NEW.unit)) IS NOT "
    """CAST(',"tenant":"' || NEW.unit || '","tprev":' AS BLOB)""",
)

TRIGGERS = {
    **{f"{t}_no_{verb}": _refuse(t, verb) for t in sorted(TABLE_NAMES) for verb in ("update", "delete")},
    "log_record_guard": _guard("log_record", " OR ".join(_NOT_THE_NEXT), "log_record takes only the next leaf"),
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
    """Creates tables, indexes and guards where they are absent; safe to repeat. Needs an engine for migrations.

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
    for index in RECORDS.indexes:
        index.create(connection, checkfirst=True)
    if connection.dialect.name == "postgresql":
        postgres_guards.create_guards(connection)
    else:
        present = _hangs_on_tables(connection, "trigger")
        for name, sql in TRIGGERS.items():
            if name not in present:
                connection.exec_driver_sql(sql)
    check_guards(connection)


def check_guards(connection: Connection) -> None:
    """Demands that every guard is there with exactly its text, and that nothing else hangs on the ledger's tables.

    Indexes count: one more that is UNIQUE would let a REPLACE reach an older row; one less would leave a batch to scan.

    Raises:
        IntegrityError: ``GUARD_DRIFT`` with the name of the trigger or index.
    """
    if connection.dialect.name == "postgresql":
        postgres_guards.check_guards(connection)
        return
    check_triggers(connection, TRIGGERS)
    wanted = {str(index.name): str(CreateIndex(index).compile(connection)) for index in RECORDS.indexes}
    _demand_equal("index", _hangs_on_tables(connection, "index"), wanted)


def check_triggers(connection: Connection, wanted: Mapping[str, str]) -> None:
    """Demands exactly these triggers in SQLite, by name and text.

    Raises:
        IntegrityError: ``GUARD_DRIFT`` with the trigger's name.
    """
    _demand_equal("trigger", _hangs_on_tables(connection, "trigger"), wanted)


def _demand_equal(what: str, present: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    for name in sorted(present.keys() | wanted.keys()):
        if present.get(name) != wanted.get(name):
            raise IntegrityError("GUARD_DRIFT", f"{what} {name} is missing, foreign or has another text")


def _hangs_on_tables(connection: Connection, kind: str) -> dict[str, str]:
    """Name and text of every trigger or index on the ledger's tables, but for those that a primary key makes."""
    rows = connection.exec_driver_sql(
        "SELECT name, sql, tbl_name FROM sqlite_master WHERE type = ? AND sql IS NOT NULL "
        "UNION ALL SELECT name, sql, tbl_name FROM sqlite_temp_master WHERE type = ? AND sql IS NOT NULL",
        (kind, kind),
    )
    return {str(row[0]): str(row[1]) for row in rows if str(row[2]).lower() in TABLE_NAMES}
