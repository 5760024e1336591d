"""Attack 8: what an application connection may not do to the ledger, and what start-up says of missing guards."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DatabaseError

from audit.ledger import fsck, schema
from audit.ledger.ledger import Ledger
from audit.ledger.note import Verifier
from audit.ledger.records import RecordDraft
from audit.ledger.sqlite import check_enforcement, connect_engine, connect_migration_engine
from audit.ledger.writer import UnitOfWork
from tests.audit.ledger.ledger_world import ORIGIN, World, refused

FORBIDDEN = [
    "UPDATE log_record SET body = x'00' WHERE idx = 0",
    "UPDATE log_checkpoint SET note = x'00'",
    "UPDATE log_tile SET hashes = x'00'",
    "DELETE FROM log_record WHERE idx = 0",
    "DELETE FROM log_record",
    "DELETE FROM Log_Record",
    "INSERT INTO log_record SELECT * FROM log_record WHERE true ON CONFLICT DO UPDATE SET body = x'00'",
    "INSERT OR REPLACE INTO log_record SELECT * FROM log_record WHERE idx = 0",
    "REPLACE INTO log_checkpoint SELECT size, x'00' FROM log_checkpoint",
    "INSERT OR REPLACE INTO log_record SELECT idx + 1, leaf, body, unit, tseq + 1, type, job, job_first "
    "FROM log_record",
    "INSERT OR REPLACE INTO log_record SELECT idx + 1, zeroblob(32), body, unit, tseq, type, job, job_first "
    "FROM log_record",
    "INSERT INTO log_record SELECT idx + 1, zeroblob(32), body, 'credit', 1, type, job, job_first FROM log_record",
    "INSERT INTO log_record SELECT idx + 1, zeroblob(32), x'00', unit, tseq + 1, type, job, job_first FROM log_record",
    "INSERT INTO log_record SELECT idx + 1, zeroblob(32), CAST(replace(body, '\"tseq\":1', '\"tseq\":3') AS BLOB), "
    "unit, tseq + 2, type, job, job_first FROM log_record",
    "INSERT OR IGNORE INTO log_record SELECT idx + 2, zeroblob(32), body, unit, tseq + 1, type, job, job_first "
    "FROM log_record",
    "INSERT INTO log_record SELECT idx + 1, zeroblob(31), body, unit, tseq + 1, type, job, job_first FROM log_record",
    "INSERT INTO log_checkpoint SELECT size - 1, note FROM log_checkpoint",
    "INSERT INTO log_tile VALUES (0, 1, zeroblob(16352))",
    "INSERT INTO log_tile VALUES (0, 0, zeroblob(16))",
    "DROP TABLE log_record",
    "DROP TRIGGER log_record_guard",
    "DROP TRIGGER log_record_no_update",
    "DROP INDEX log_record_unit",
    "ALTER TABLE log_record ADD COLUMN x",
    "ALTER TABLE log_record RENAME TO gone",
    "ALTER TABLE log_record DROP COLUMN job",
    "CREATE TRIGGER soft BEFORE INSERT ON log_record BEGIN SELECT RAISE(IGNORE); END",
    "CREATE TEMP TRIGGER soft BEFORE INSERT ON log_record BEGIN SELECT RAISE(IGNORE); END",
    "CREATE UNIQUE INDEX sly ON log_record (type)",
    "CREATE TEMP TABLE log_record (idx)",
    "CREATE TEMP VIEW log_record AS SELECT 1",
    "CREATE TEMP TABLE other AS SELECT * FROM main.log_record",
    "CREATE TABLE temp.other (idx)",
    "CREATE TABLE temp.log_record (idx)",
    "CREATE TEMP VIEW other AS SELECT 1",
    "CREATE VIRTUAL TABLE temp.other USING fts5(idx)",
    "PRAGMA writable_schema = ON",
    "PRAGMA recursive_triggers = OFF",
    "PRAGMA synchronous = OFF",
    "PRAGMA journal_mode = DELETE",
    "PRAGMA ignore_check_constraints = ON",
    "PRAGMA schema_version = 1",
]


@pytest.mark.parametrize("statement", FORBIDDEN)
def test_app_connections_cannot_rewrite(world: World, statement: str) -> None:
    before = world.ledger.record(0)
    with world.engine.connect().execution_options(begin="IMMEDIATE") as connection:
        with pytest.raises(DatabaseError):
            connection.exec_driver_sql(statement)
        connection.rollback()
        check_enforcement(connection)
    assert world.ledger.record(0) == before
    world.append_one()


def test_a_shadow_that_is_renamed_into_place_swallows_no_record(world: World) -> None:
    """A name is looked for among the temporary tables first, and the writer keeps its connection."""

    def work(uow: UnitOfWork) -> None:
        for table in sorted(schema.TABLE_NAMES):
            uow.connection.exec_driver_sql(f"CREATE TEMP TABLE other AS SELECT * FROM main.{table}")
            uow.connection.exec_driver_sql(f"ALTER TABLE temp.other RENAME TO {table}")

    with pytest.raises(DatabaseError, match="not authorized"):
        world.ledger.run(work)
    last = world.append_one()
    raw = sqlite3.connect(world.database)
    assert raw.execute("SELECT MAX(idx) FROM log_record").fetchone() == (last,)
    raw.close()


def test_attached_under_another_name_it_is_still_guarded(world: World) -> None:
    with world.engine.connect() as connection:
        raw = connection.connection.driver_connection
        assert raw is not None
        raw.execute("ATTACH ? AS other", (str(world.database),))
        for statement in ("UPDATE other.log_record SET body = x'00'", "DELETE FROM other.log_record"):
            with pytest.raises(sqlite3.DatabaseError):
                raw.execute(statement)
        raw.execute("DETACH other")


def test_the_gateways_own_tables_are_free(world: World) -> None:
    with world.engine.connect().execution_options(begin="IMMEDIATE") as connection:
        for statement in (
            "CREATE TABLE job (name TEXT PRIMARY KEY, state TEXT)",
            "CREATE INDEX job_state ON job (state)",
            "INSERT INTO job VALUES ('a', 'x')",
            "UPDATE job SET state = 'y'",
            "INSERT OR REPLACE INTO job VALUES ('a', 'z')",
            "ALTER TABLE job ADD COLUMN n INTEGER",
            "DELETE FROM job",
            "DROP TABLE job",
        ):
            connection.exec_driver_sql(statement)
        connection.commit()


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TRIGGER log_record_guard",
        "DROP TRIGGER log_record_no_delete",
        "DROP TRIGGER log_checkpoint_guard",
        "DROP TRIGGER log_tile_no_update",
        "CREATE TRIGGER more BEFORE INSERT ON log_record BEGIN SELECT 1; END",
        "DROP INDEX log_record_unit",
        "DROP INDEX log_record_job_name",
        "CREATE UNIQUE INDEX sly ON log_record (type)",
        "CREATE INDEX Sly ON LOG_TILE (n)",
        "DROP INDEX log_record_job; CREATE INDEX log_record_job ON log_record (job_first) WHERE idx < 9",
    ],
)
def test_start_up_misses_a_guard_or_index(world: World, statement: str) -> None:
    world.ledger.close()
    raw = sqlite3.connect(world.database)
    raw.executescript(statement)
    raw.close()
    refused("GUARD_DRIFT", world.open().start)


def test_start_up_sees_a_softened_guard(world: World) -> None:
    world.ledger.close()
    raw = sqlite3.connect(world.database)
    raw.execute("DROP TRIGGER log_record_no_update")
    soft = schema.TRIGGERS["log_record_no_update"].replace(
        "SELECT RAISE(ABORT, 'log_record is append-only')", "SELECT 1"
    )
    raw.execute(soft)
    raw.close()
    refused("GUARD_DRIFT", world.open().start)
    migration = connect_migration_engine(world.database)
    refused("GUARD_DRIFT", lambda: schema.create(migration))
    migration.dispose()


def test_an_engine_without_authorizer_is_refused(world: World) -> None:
    world.ledger.close()
    world.engine = connect_migration_engine(world.database)
    refused("ENFORCEMENT_MISSING", world.open().start)


def test_triggers_hold_in_another_tool_too(world: World) -> None:
    raw = sqlite3.connect(world.database)
    for statement in (s for s in FORBIDDEN[:7] if "log_tile" not in s):
        with pytest.raises(sqlite3.DatabaseError):
            raw.execute(statement)
    raw.close()


def test_creating_twice_changes_nothing(tmp_path: Path) -> None:
    engine = connect_migration_engine(tmp_path / "a.db")
    schema.create(engine)
    schema.create(engine)
    engine.dispose()
    app = connect_engine(tmp_path / "a.db")
    with app.connect() as connection:
        check_enforcement(connection)
    app.dispose()


def test_a_database_in_memory_is_refused(world: World) -> None:
    engine = create_engine("sqlite://")
    refused("LEDGER_NOT_A_FILE", Ledger(engine, ORIGIN, world.services["log"], world.anchor).start)


def test_a_missing_table_is_refused_not_made(world: World, tmp_path: Path) -> None:
    engine = connect_engine(tmp_path / "empty.db")
    refused("GUARD_DRIFT", Ledger(engine, ORIGIN, world.services["log"], world.anchor).start)
    engine.dispose()


def test_attack_41_disk_full(world: World) -> None:
    """A batch that does not fit is refused whole; with room again the log goes on."""
    with world.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
    limit(world, int(pages or 0))
    big = RecordDraft("credit", "dataset.created", "dataset", {"t": "x" * 50_000})
    refused("LEDGER_WRITE_FAILED", lambda: [world.append(big) for _ in range(3)])
    size = world.ledger.size
    limit(world, 1 << 30)
    assert world.append_one() == size
    assert list(fsck.check(world.engine, Verifier.of(ORIGIN, world.services["log"].public_key()))) == []


def limit(world: World, pages: int) -> None:
    world.ledger.run(lambda uow: uow.connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}").scalar())


def test_what_a_statement_stores_is_not_in_its_error(world: World):
    """Errors are logged, and rows and datasheets may name people."""
    with pytest.raises(DatabaseError) as raised, world.engine.connect() as connection:
        connection.execute(text("INSERT INTO nowhere VALUES (:row)"), {"row": "jane@example.com"})
    assert "nowhere" in str(raised.value) and "jane" not in str(raised.value)
