"""A job's records are found by its first one: in every batch, past every lie, and in logs of an earlier release."""

from __future__ import annotations

import datetime as dt
import hashlib
import random
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, select

from audit.ledger import dialect, fsck, schema
from audit.ledger.backup import backup
from audit.ledger.batch import Batch
from audit.ledger.note import Verifier
from audit.ledger.records import RecordDraft
from audit.ledger.restore import restore
from audit.ledger.schema import CHECKPOINTS, RECORDS, TILES
from audit.ledger.store import StoredRecord, chain_ends
from audit.ledger.upgrade import upgrade
from audit.ledger.upkeep import examine
from tests.audit.ledger.ledger_world import ORIGIN, START, World, ed25519, refused
from tests.audit.ledger.storage import PostgresStorage
from tests.postgres_server import GATEWAY

EARLIER = Path(__file__).parents[2] / "data" / "ledger_before_job_first"
LOG = Verifier.of(ORIGIN, ed25519("log").public_key())

pytestmark = pytest.mark.usefixtures("ledger_database")


def job(n: int) -> str:
    return f"units/credit/tuningJobs/job-{hashlib.sha256(b'%d' % n).hexdigest()[:10]}"


def draft(name: str = "", unit: str = "credit") -> RecordDraft:
    predicate = {"actor": "a", "trace_id": "", **({"job": name} if name else {})}
    return RecordDraft(unit, "request.refused", "refusal", predicate)


def append(world: World, *names: str) -> None:
    """One batch."""
    world.ledger.run(lambda uow: [uow.append(draft(name)) for name in names])


def everything(world: World) -> list[StoredRecord]:
    return world.ledger.records(limit=10_000)


def firsts(engine: Engine) -> list[tuple[int, str, int | None]]:
    with engine.connect() as connection:
        columns = select(RECORDS.c.idx, RECORDS.c.job, RECORDS.c.job_first).order_by(RECORDS.c.idx)
        return [tuple(row) for row in connection.execute(columns)]


def demand_found(world: World) -> None:
    """Every job's records are those whose body names it, by scan; and the full check agrees."""
    stored = everything(world)
    jobs = {record.job for record in stored} - {""}
    assert jobs
    for name in jobs:
        assert world.ledger.records(job=name, limit=10_000) == [r for r in stored if r.job == name]
    seen: dict[str, int] = {}
    assert firsts(world.engine) == [
        (r.index, r.job, seen.setdefault(r.job, r.index) if r.job else None) for r in stored
    ]
    assert list(fsck.check(world.engine, LOG)) == []


def test_records_of_a_job_are_found_whatever_batch_began_it(world: World) -> None:
    pick = random.Random(5)
    for begin in range(0, 24, 3):
        append(world, *[job(pick.randrange(begin, begin + 9)) if pick.random() < 0.8 else "" for _ in range(20)])
    world.append(draft(job(99), "system"))  # the system's records may name a job too, and begin it here
    append(world, job(99), job(0))
    demand_found(world)
    assert {r.unit for r in world.ledger.records(job=job(99))} == {"system", "credit"}
    assert [r.unit for r in world.ledger.records(unit="credit", job=job(99))] == ["credit"]
    assert world.ledger.records(job=job(12345)) == []
    some = world.ledger.records(job=job(0), limit=3)
    assert world.ledger.records(job=job(0), after_index=some[0].index, limit=2) == some[1:]


def test_a_unit_that_is_undone_has_begun_no_job(world: World) -> None:
    def fails(uow: Any) -> None:
        uow.append(draft(job(1)))
        uow.append(draft(job(2)))
        raise KeyError("undone")

    for work in (fails, lambda uow: uow.append(draft(job(2))), fails, lambda uow: uow.append(draft(job(1)))):
        future = world.ledger.submit(work)
        assert (future.exception() is None) == (work is not fails)
    append(world, job(1), job(2))
    assert [(name, first) for _, name, first in firsts(world.engine)[1:]] == [
        (job(2), 1),
        (job(1), 2),
        (job(1), 2),
        (job(2), 1),
    ]
    demand_found(world)


def test_nothing_of_an_empty_name_is_found(world: World) -> None:
    append(world, "", job(1), "")
    assert world.ledger.records(job="") == []


@contextmanager
def another_tool(world: World) -> Iterator[Any]:
    """A connection of somebody who may insert, and that keeps nothing."""
    if isinstance(world.storage, PostgresStorage):
        dsn = world.storage.cluster.dsn(world.storage.name, GATEWAY)
        with psycopg.connect(dsn, options="-c search_path=assay,pg_temp") as connection:
            yield connection
            connection.rollback()
    else:
        raw = sqlite3.connect(world.database, isolation_level=None)
        raw.execute("BEGIN IMMEDIATE")
        yield raw
        raw.close()


def insert(connection: Any, row: Sequence[Any]) -> str:
    """What the database says of a row; an empty text when it takes it."""
    marker = "?" if isinstance(connection, sqlite3.Connection) else "%s"
    try:
        connection.execute(f"INSERT INTO log_record VALUES ({', '.join([marker] * len(row))})", row)
    except (sqlite3.Error, psycopg.Error) as error:
        connection.execute("ROLLBACK")
        return str(error)
    return ""


def next_row(world: World, name: str) -> tuple[Any, ...]:
    """The row of the next record, but for its last column."""
    with world.engine.connect() as connection:
        batch = Batch(ORIGIN, world.ledger.size, chain_ends(connection), None)
    batch.append(draft(name), START + dt.timedelta(hours=1), "0" * 32)
    return tuple(batch.rows[0])


# Records 1 to 4 are of job 1, job 2, job 1 and none; 5 is next.
TRUTHS = {
    "of a known job": (job(1), 1),
    "of the other": (job(2), 2),
    "of a new one": (job(3), 5),
    "of none": ("", None),
}
LIES = {
    "nothing though there is a job": (job(1), None),
    "nothing though it begins one": (job(3), None),
    "itself though the job has begun": (job(1), 5),
    "another record of the job": (job(1), 3),
    "another job's first": (job(1), 2),
    "an older record though it begins the job": (job(3), 1),
    "a record of no job": (job(1), 4),
    "a record to come": (job(3), 6),
    "a record that never was": (job(1), -1),
    "itself though of no job": ("", 5),
    "another's though of no job": ("", 1),
}


@pytest.fixture
def told(world: World) -> World:
    append(world, job(1), job(2), job(1), "")
    return world


@pytest.mark.parametrize("claim", TRUTHS.values(), ids=TRUTHS.keys())
def test_another_tool_may_tell_the_truth(told: World, claim: tuple[str, int | None]) -> None:
    """Else the refusals below would say nothing."""
    with another_tool(told) as connection:
        assert insert(connection, (*next_row(told, claim[0]), claim[1])) == ""


@pytest.mark.parametrize("claim", LIES.values(), ids=LIES.keys())
def test_a_lie_about_the_first_record_is_refused(told: World, claim: tuple[str, int | None]) -> None:
    with another_tool(told) as connection:
        assert "log_record takes only the next leaf" in insert(connection, (*next_row(told, claim[0]), claim[1]))
    assert told.append_one() == 5


@pytest.mark.parametrize(("index", "claim"), [(3, "3"), (3, "2"), (1, "3"), (2, "NULL"), (4, "1"), (0, "0")])
def test_the_full_check_finds_what_the_owner_changed(told: World, index: int, claim: str) -> None:
    told.ledger.close()
    told.storage.tamper(f"UPDATE log_record SET job_first = {claim} WHERE idx = {index}")
    assert {(f.reason, f.index) for f in fsck.check(told.engine, LOG)} == {("COLUMN_MISMATCH", index)}


def plan_of(told: World, **asked: Any) -> list[str]:
    """How SQLite answers a question for records."""
    if isinstance(told.storage, PostgresStorage):
        pytest.skip("PostgreSQL's planner goes by statistics: a table of five rows is scanned")
    seen: list[str] = []
    with told.engine.connect() as connection:
        raw: Any = connection.connection.driver_connection
        raw.set_trace_callback(seen.append)
    told.ledger.records(**asked)
    raw.set_trace_callback(None)
    query = next(statement for statement in seen if statement.startswith("SELECT"))
    return [row[3] for row in raw.execute(f"EXPLAIN QUERY PLAN {query}")]


def test_a_search_reads_the_jobs_rows_only(told: World) -> None:
    plan = plan_of(told, unit="credit", job=job(1))
    assert plan[0] == "SEARCH log_record USING INDEX log_record_job (job_first=? AND rowid>? AND rowid<?)"
    assert "SEARCH log_record_1 USING INDEX log_record_job_name (job=?)" in plan[-1]


def test_a_page_of_a_units_records_begins_where_the_one_before_ended_and_sorts_nothing(told: World) -> None:
    plan = plan_of(told, unit="credit", after_index=2)
    assert plan[0] == "SEARCH log_record USING INDEX log_record_unit (unit=? AND tseq>?)"
    assert "SEARCH log_record_1 USING INTEGER PRIMARY KEY (rowid=?)" in plan[-1]
    assert not any("TEMP B-TREE" in step for step in plan)


def test_a_units_records_come_in_log_order_page_by_page_from_any_place(world: World) -> None:
    for number in range(30):
        of_job = job(number % 4) if number % 3 else ""
        world.append(draft(of_job) if number % 5 else draft(unit="claims"))
    stored = everything(world)
    for unit in ("credit", "claims"):
        own = [r for r in stored if r.unit == unit]
        for limit in (1, 4, 100):
            seen: list[StoredRecord] = []
            while page := world.ledger.records(unit=unit, after_index=seen[-1].index if seen else -1, limit=limit):
                seen += page
            assert seen == own
        for place in range(-1, 32):  # records of other units and of none that is there among them
            assert world.ledger.records(unit=unit, after_index=place) == [r for r in own if r.index > place]


def age(world: World) -> None:
    """Puts the log into tables as the release before made them, through its guards; the ledger is closed."""
    world.ledger.close()
    with world.engine.connect() as connection:
        records, tiles, notes = (
            [tuple(row) for row in connection.execute(select(t))] for t in (RECORDS, TILES, CHECKPOINTS)
        )
    world.engine.dispose()
    world.storage.lose()
    engine = dialect.connect_for_migration(world.storage.migration_url)
    is_file = engine.dialect.name == "sqlite"
    script = (EARLIER / ("sqlite.sql" if is_file else "postgres.sql")).read_text()
    marker = "?" if is_file else "%s"
    with engine.begin() as connection:
        raw: Any = connection.connection.driver_connection
        raw.executescript(script) if is_file else raw.execute(script)
        for name, rows in (("log_record", [r[:7] for r in records]), ("log_tile", tiles), ("log_checkpoint", notes)):
            raw.cursor().executemany(f"INSERT INTO {name} VALUES ({', '.join([marker] * len(rows[0]))})", rows)
    engine.dispose()
    world.engine = dialect.connect(world.storage.url)
    world.ledger = world.open()


def bring_up(world: World) -> None:
    engine = dialect.connect_for_migration(world.storage.migration_url)
    try:
        upgrade(engine)
    finally:
        engine.dispose()


@pytest.fixture
def aged(world: World) -> World:
    """A log of an earlier release with a full tile."""
    pick = random.Random(7)
    for _ in range(10):
        append(world, *[job(pick.randrange(40)) if pick.random() < 0.9 else "" for _ in range(30)])
    return world


def test_a_log_of_an_earlier_release_is_brought_up_to_date(aged: World) -> None:
    before, root, note = everything(aged), aged.ledger.root(301), aged.ledger.checkpoint()
    numbers = [(r.unit, r.unit_sequence) for r in before]
    age(aged)
    refused("GUARD_DRIFT", aged.ledger.start)
    bring_up(aged)
    aged.ledger = aged.open()
    aged.ledger.start()
    assert everything(aged) == before
    assert [(r.unit, r.unit_sequence) for r in everything(aged)] == numbers
    assert (aged.ledger.root(301), aged.ledger.checkpoint()) == (root, note)
    demand_found(aged)
    append(aged, job(3), job(1000), "")
    demand_found(aged)
    bring_up(aged)  # again: nothing to do
    assert list(examine(aged.engine, LOG, aged.anchor)) == []


def test_it_is_as_one_that_was_made_now(aged: World) -> None:
    there = firsts(aged.engine)
    age(aged)
    bring_up(aged)
    with aged.engine.connect() as connection:
        schema.check_guards(connection)
    assert firsts(aged.engine) == there


def test_the_full_check_asks_for_it_and_the_hash_check_does_not(aged: World) -> None:
    age(aged)
    refused("LEDGER_NOT_UPGRADED", lambda: list(fsck.check(aged.engine, LOG)))
    assert list(fsck.check_hashes(aged.engine, LOG)) == []


def test_an_earlier_log_whose_guards_were_changed_is_not_brought_up(aged: World) -> None:
    """New guards would cover up what the next start had named."""
    age(aged)
    if isinstance(aged.storage, PostgresStorage):
        aged.storage.sql("ALTER TABLE log_record DISABLE TRIGGER ALL; ALTER TABLE log_record ENABLE TRIGGER ALL")
    else:
        raw = sqlite3.connect(aged.database)
        raw.executescript("DROP TRIGGER log_record_guard")
        raw.close()
    refused("GUARD_DRIFT", lambda: bring_up(aged))
    refused("LEDGER_NOT_UPGRADED", lambda: list(fsck.check(aged.engine, LOG)))


def test_an_upgrade_that_fails_changes_nothing(aged: World, monkeypatch: pytest.MonkeyPatch) -> None:
    age(aged)

    def broken(connection: object) -> None:
        real(connection)  # type: ignore[arg-type]
        raise RuntimeError("the power went")

    real = schema.create_on
    monkeypatch.setattr(schema, "create_on", broken)
    with pytest.raises(RuntimeError):
        bring_up(aged)
    monkeypatch.undo()
    refused("LEDGER_NOT_UPGRADED", lambda: list(fsck.check(aged.engine, LOG)))
    bring_up(aged)  # the earlier guards are whole, else it would refuse
    assert list(fsck.check(aged.engine, LOG)) == []


def test_a_backup_of_an_earlier_release_is_restored(aged: World) -> None:
    if isinstance(aged.storage, PostgresStorage):
        pytest.skip("backups of PostgreSQL are pg_basebackup's")
    before, folder = everything(aged), aged.folder / "backup"
    backup(aged.database, LOG, folder)
    age(aged)
    shutil.copy(aged.database, folder / "assay.db")
    manifest = (folder / "manifest.json").read_text().splitlines()
    digest = hashlib.sha256((folder / "assay.db").read_bytes()).hexdigest()
    lines = [f' "database_sha256": "{digest}",' if "database_sha256" in line else line for line in manifest]
    (folder / "manifest.json").write_text("\n".join(lines))
    aged.engine.dispose()
    aged.storage.lose()
    assert restore(aged.database, aged.anchor, LOG, folder).from_backup == len(before)
    aged.engine = dialect.connect(aged.storage.url)
    aged.ledger = aged.open()
    aged.ledger.start()
    assert everything(aged) == before
    demand_found(aged)
