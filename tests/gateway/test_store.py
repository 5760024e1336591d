"""Schema and rows: migrations make exactly the tables that the code states, once, and rows keep what they are given."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, inspect
from sqlalchemy.exc import IntegrityError

from assay.errors import AbortedError
from audit.ledger.payloads import PAYLOADS
from audit.ledger.schema import TABLE_NAMES, check_guards
from audit.ledger.sqlite import connect_migration_engine
from gateway.erasures import retention_end
from gateway.store import jobs, migrations, rows
from gateway.store.migrations import migrate
from gateway.store.rows import Position
from gateway.store.tables import DatasetRow, FactRow, JobRow, PermitRow, Row


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    made = connect_migration_engine(tmp_path / "assay.db")
    migrate(made)
    return made


def earlier(tmp_path: Path, revision: str) -> Engine:
    """A database as the release of that revision made it."""
    made, config = connect_migration_engine(tmp_path / "earlier.db"), migrations._config()
    with made.connect().execution_options(begin="IMMEDIATE") as connection, connection.begin():
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    return made


def test_migrations_make_the_tables_that_the_code_states(engine: Engine) -> None:
    ours = set(Row.metadata.tables)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={"include_name": lambda name, kind, _: kind != "table" or name in ours, "compare_type": True},
        )
        assert compare_metadata(context, Row.metadata) == []
        names = {"include_name": lambda name, kind, _: kind != "table" or name == "log_payload", "compare_type": True}
        assert compare_metadata(MigrationContext.configure(connection, opts=names), PAYLOADS.metadata) == []
        check_guards(connection)
    assert set(inspect(engine).get_table_names()) == ours | TABLE_NAMES | {"log_payload", "alembic_version"}


def test_migrating_again_changes_nothing(engine: Engine) -> None:
    with engine.begin() as connection:
        rows.insert(connection, dataset(1))
    migrate(engine)
    with engine.connect() as connection:
        assert rows.get(connection, DatasetRow, name="d1") == dataset(1)


def test_a_migration_that_fails_leaves_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from audit.ledger import schema

    def broken(connection: object) -> None:
        real(connection)  # type: ignore[arg-type]
        raise RuntimeError("the power went")

    real = schema.create_on
    monkeypatch.setattr(schema, "create_on", broken)
    made = connect_migration_engine(tmp_path / "assay.db")
    with pytest.raises(RuntimeError):
        migrate(made)
    assert inspect(made).get_table_names() == []


def test_the_ledgers_tables_of_an_earlier_release_are_brought_up_to_date(tmp_path: Path) -> None:
    engine = earlier(tmp_path, "0005")
    script = Path(__file__).parents[1] / "data" / "ledger_before_job_first" / "sqlite.sql"
    raw: Any = engine.raw_connection().driver_connection
    raw.executescript("".join(f"DROP TABLE {name};" for name in TABLE_NAMES) + script.read_text())
    assert migrate(engine) == "0008"
    with engine.connect() as connection:
        check_guards(connection)
    assert "job_first" in {column["name"] for column in inspect(engine).get_columns("log_record")}


def test_the_provenance_of_an_earlier_release_leaves_rows_and_questions(tmp_path: Path) -> None:
    """The words lie sealed already; the row and what policy was asked had them in the clear, in every copy."""
    words, commitment = "row 17 is Mrs Doe of Élm Street", "c" * 64
    engine = earlier(tmp_path, "0006")
    raw: Any = engine.raw_connection().driver_connection
    raw.executescript("DROP TABLE log_record; CREATE TABLE log_record (idx INTEGER, body BLOB);")
    for index, said in enumerate(({"provenance_commitment": commitment}, {}, {})):
        sheet = json.dumps({"licence": "CC0-1.0", "provenance": words} if index < 2 else {})
        body = json.dumps({"statement": {"predicate": said}}).encode()
        raw.execute("INSERT INTO log_record VALUES (?, ?)", (index, body))
        values = (f"d{index}", "credit", 1, sheet, "0" * 64, 1, "c", 5, index)
        raw.execute(f"INSERT INTO dataset VALUES ({', '.join('?' * 9)})", values)
    asked = json.dumps({"datasheet": {"provenance": words}, "request": {"unit": "credit"}})
    for job, key in (("j", "question.intake"), ("j", "question.release"), ("j", "other")):
        raw.execute("INSERT INTO job_fact VALUES (?, ?, ?)", (job, key, asked))
    raw.commit()
    assert migrate(engine) == "0008"
    with engine.connect() as connection:
        kept = {row.name: row for row in rows.select_all(connection, DatasetRow)}
        facts = {row.key: json.loads(row.value) for row in rows.select_all(connection, FactRow, job="j")}
    assert kept["d0"].provenance == f"words:{commitment}"
    assert json.loads(kept["d0"].datasheet) == {"licence": "CC0-1.0", "provenance": "*" * len(words)}
    assert kept["d1"].provenance == "" and json.loads(kept["d1"].datasheet)["provenance"] == words, "it is recorded"
    assert (kept["d2"].provenance, kept["d2"].datasheet) == ("", "{}")
    masked = {"datasheet": {"provenance": "*" * len(words)}, "request": {"unit": "credit"}}
    assert facts["question.intake"] == facts["question.release"] == masked and facts["other"] == json.loads(asked)


def test_datasets_of_an_earlier_release_get_the_end_of_their_retention(tmp_path: Path) -> None:
    engine, created = earlier(tmp_path, "0007"), 1_700_000_000_000_000
    raw: Any = engine.raw_connection().driver_connection
    for name, sheet in (("kept", '{"retention_days": 30}'), ("forever", '{"licence": "CC0-1.0"}')):
        values = (name, "credit", 1, sheet, "", "0" * 64, 1, "c", created, 0)
        columns = "name, unit, format, datasheet, provenance, sha256, size_bytes, creator, created_us, record_index"
        raw.execute(f"INSERT INTO dataset ({columns}) VALUES ({', '.join('?' * 10)})", values)
    raw.commit()
    assert migrate(engine) == "0008"
    with engine.connect() as connection:
        ends = {row.name: retention_end(row) for row in rows.select_all(connection, DatasetRow)}
    assert ends == {"kept": rows.moment(created) + dt.timedelta(days=30), "forever": None}


def dataset(number: int, created_us: int = 5) -> DatasetRow:
    return DatasetRow(
        name=f"d{number}", unit="credit", format=1, datasheet="{}", sha256="0" * 64, size_bytes=2**40, creator="c",
        created_us=created_us, record_index=number,
    )  # fmt: skip


def test_rows_keep_what_they_are_given(engine: Engine) -> None:
    permit = PermitRow(
        name="p", unit="credit", model="m", job="j", adapter_sha256="a", base_sha256="b", purpose="x", environment="e",
        not_before_us=1, not_after_us=2**50, evidence_root="r", statement=b"\x00\xff", signature=b"s", record_index=3,
    )  # fmt: skip
    with engine.begin() as connection:
        rows.insert(connection, permit)
        assert rows.get(connection, PermitRow, name="p") == permit
        assert rows.get(connection, PermitRow, name="q") is None
        with pytest.raises(IntegrityError):
            rows.insert(connection, permit)


def test_pages_are_stable_when_times_are_equal(engine: Engine) -> None:
    with engine.begin() as connection:
        for number, time in ((1, 5), (2, 5), (3, 5), (4, 6), (5, 4)):
            rows.insert(connection, dataset(number, time))
        for newest, wanted in ((True, ["d4", "d3", "d2", "d1", "d5"]), (False, ["d5", "d1", "d2", "d3", "d4"])):
            seen: list[str] = []
            after = None
            while True:
                found = rows.page(
                    connection, DatasetRow, time="created_us", name="name", size=2, after=after, newest_first=newest
                )
                seen += [r.name for r in found[:2]]
                if len(found) <= 2:
                    break
                after = Position(found[1].created_us, found[1].name)
            assert seen == wanted


def test_a_stale_version_changes_nothing(engine: Engine) -> None:
    row = JobRow(
        name="j", unit="credit", creator="c", state="RECEIVED", version=1, request="{}", created_us=1, updated_us=1
    )
    with engine.begin() as connection:
        rows.insert(connection, row)
        moved = jobs.change(connection, row, {"state": "PREPARING"})
        assert (moved.version, moved.state) == (2, "PREPARING")
        with pytest.raises(AbortedError):
            jobs.change(connection, row, {"state": "CANCELLED"})
        assert jobs.get(connection, "j") == moved


def test_times() -> None:
    stamp = rows.timestamp(1_700_000_000_123_456)
    assert rows.micros(rows.moment(1_700_000_000_123_456)) == 1_700_000_000_123_456
    assert stamp.ToMicroseconds() == 1_700_000_000_123_456
