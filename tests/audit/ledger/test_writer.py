from __future__ import annotations

import asyncio
import datetime as dt
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError as DuplicateRow

from assay.errors import AssayError, IntegrityError, PreconditionError, UnavailableError
from audit.ledger import dialect, fsck, postgres, tree
from audit.ledger.ledger import Ledger
from audit.ledger.note import Verifier, open_checkpoint
from audit.ledger.records import RecordDraft, read
from audit.ledger.writer import Sources, UnitOfWork
from tests.audit.ledger.ledger_world import ORIGIN, World, ed25519, refused

pytestmark = pytest.mark.usefixtures("ledger_database")


def draft(n: int = 0, unit: str = "credit") -> RecordDraft:
    return RecordDraft(unit, "dataset.created", "dataset", {"n": n})


def faults(world: World) -> list[str]:
    log = Verifier.of(ORIGIN, world.services["log"].public_key())
    return [fault.reason for fault in fsck.check(world.engine, log)]


def held(world: World) -> threading.Event:
    """Keeps the writer busy until the event is set, so that what is submitted meanwhile forms one batch."""
    entered, release = threading.Event(), threading.Event()

    def wait(_: UnitOfWork) -> None:
        entered.set()
        release.wait(10)

    world.ledger.submit(wait)
    assert entered.wait(10)
    return release


def test_a_new_log_opens_itself(world: World) -> None:
    record = read(world.ledger.record(0).body)
    assert (record.type, record.unit) == ("log.opened", "system")
    assert record.predicate["log_key"] == world.ledger.vkey
    assert world.ledger.size == 1


def test_records_of_one_batch_share_one_checkpoint(world: World) -> None:
    release = held(world)
    futures = [world.ledger.submit(lambda uow, n=n: uow.append(draft(n))) for n in range(10)]
    release.set()
    assert [f.result() for f in futures] == list(range(1, 11))
    assert world.ledger.checkpoint_at(5) is None
    assert world.ledger.covering_checkpoint(5) == (11, world.ledger.checkpoint())
    assert world.anchor.read() == world.ledger.checkpoint()
    assert faults(world) == []


def test_many_threads(world: World) -> None:
    with ThreadPoolExecutor(8) as pool:
        indices = list(pool.map(lambda n: world.ledger.run(lambda uow: uow.append(draft(n, f"u{n % 5}"))), range(300)))
    assert sorted(indices) == list(range(1, 301))
    ledger = world.ledger
    leaves = [r.leaf for r in ledger.records(limit=1000)]
    assert ledger.root(301) == tree.root_of(leaves)
    for index in (0, 1, 255, 256, 300):
        proof = ledger.inclusion_proof(index, 301)
        tree.verify_inclusion(index, 301, leaves[index], proof, ledger.root(301))
    tree.verify_consistency(200, 301, ledger.root(200), ledger.root(301), ledger.consistency_proof(200, 301))
    assert faults(world) == []


def test_a_unit_that_raises_is_undone_alone(world: World) -> None:
    migrate(world, "CREATE TABLE job (name TEXT PRIMARY KEY)")

    def good(uow: UnitOfWork, name: str) -> int:
        uow.connection.execute(text("INSERT INTO job VALUES (:n)"), {"n": name})
        return uow.append(draft())

    def bad(uow: UnitOfWork) -> None:
        good(uow, "bad")
        raise PreconditionError("NO", "no")

    release = held(world)
    first = world.ledger.submit(lambda uow: good(uow, "a"))
    second = world.ledger.submit(bad)
    twin = world.ledger.submit(lambda uow: good(uow, "a"))
    last = world.ledger.submit(lambda uow: good(uow, "b"))
    release.set()
    assert (first.result(), last.result()) == (1, 2)
    with pytest.raises(PreconditionError):
        second.result()
    with pytest.raises(DuplicateRow):
        twin.result()
    with world.engine.connect() as connection:
        assert connection.execute(text("SELECT name FROM job ORDER BY name")).scalars().all() == ["a", "b"]
    assert world.ledger.size == 3
    assert faults(world) == []


def migrate(world: World, statement: str) -> None:
    """Makes a table of the gateway's own, as migrations do."""
    engine = dialect.connect_for_migration(world.storage.migration_url)
    with engine.connect().execution_options(begin="IMMEDIATE") as connection:
        connection.exec_driver_sql(statement)
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("GRANT ALL ON job TO assay_writer")
        connection.commit()
    engine.dispose()


def test_rows_and_records_commit_together_and_index_is_final(world: World) -> None:
    migrate(world, "CREATE TABLE job (name TEXT PRIMARY KEY, record INTEGER)")

    def work(uow: UnitOfWork) -> tuple[int, dt.datetime]:
        index = uow.append(draft())
        uow.connection.execute(text("INSERT INTO job VALUES ('a', :i)"), {"i": index})
        return index, uow.now

    index, now = world.ledger.run(work)
    assert world.ledger.size == index + 1
    assert read(world.ledger.record(index).body).time == now


def test_a_unit_without_records_signs_nothing(world: World) -> None:
    before = world.ledger.checkpoint()
    assert world.ledger.run(lambda uow: "done") == "done"
    assert world.ledger.checkpoint() == before


def test_chains_link_within_and_across_batches(world: World) -> None:
    world.ledger.run(lambda uow: [uow.append(draft(n)) for n in range(3)])
    world.append(draft(3))
    world.append(draft(0, "support"))
    chain = [world.ledger.record(i) for i in range(1, 5)]
    said = [read(r.body) for r in chain]
    assert [r.sequence for r in said] == [1, 2, 3, 4]
    assert [r.previous for r in said] == [None, *(r.leaf.hex() for r in chain[:3])]
    assert read(world.ledger.record(5).body).sequence == 1


def test_attack_13_clock_set_back(world: World) -> None:
    world.append(draft())
    true_time = world.clock.now
    world.clock.now = true_time - dt.timedelta(seconds=1)
    world.append(draft(1))
    world.clock.now = true_time - dt.timedelta(days=1)
    refused("CLOCK_REGRESSED", lambda: world.append(draft(2)))
    world.clock.now = true_time
    world.append(draft(3))
    assert world.ledger.size == 4


def test_clock_is_remembered_over_a_restart(world: World) -> None:
    world.append(draft())
    world.ledger.close()
    world.clock.now -= dt.timedelta(days=1)
    world.ledger = world.open()
    world.ledger.start()
    refused("CLOCK_REGRESSED", lambda: world.append(draft()))


def test_a_clock_that_was_ahead_is_told_with_both_times(world: World) -> None:
    world.append(draft())
    world.clock.now -= dt.timedelta(hours=1)
    with pytest.raises(AssayError) as caught:
        world.append(draft(1))
    assert "2026-11-24T12:00:00Z" in caught.value.message and "2026-11-24T11:00:00Z" in caught.value.message
    assert "--reason-code clock-ahead" in caught.value.remedy


def test_a_clock_that_jumps_ahead_is_refused_before_its_time_is_signed(world: World) -> None:
    world.ledger.close()
    passed = [0.0]
    sources = Sources(world.clock, world.nonces, lambda: passed[0])
    world.ledger = Ledger(world.engine, ORIGIN, world.services["log"], world.anchor, sources=sources)
    world.ledger.start()
    size = world.ledger.size
    world.clock.now += dt.timedelta(hours=1)
    refused("CLOCK_JUMPED", lambda: world.append(draft()))
    assert world.ledger.size == size and world.ledger.stopped == ""
    passed[0] += 3600  # an hour that has passed, and a clock that is a little fast or was set a little ahead
    world.clock.now += dt.timedelta(minutes=4)
    world.append(draft())
    world.clock.now += dt.timedelta(minutes=4)
    world.append(draft(1))
    world.clock.now += dt.timedelta(hours=1)
    refused("CLOCK_JUMPED", lambda: world.append(draft(2)))
    world.ledger.close()
    world.ledger = Ledger(world.engine, ORIGIN, world.services["log"], world.anchor, sources=sources)
    world.ledger.start()  # by who restarts it the clock is right, as after weeks of quiet
    world.append(draft(2))


def test_the_last_record_of_a_log_ahead_of_the_clock_has_its_newest_records_time(world: World) -> None:
    world.append(draft())
    newest = read(world.ledger.record(1).body).time
    world.clock.now -= dt.timedelta(hours=1)
    world.ledger.follow_newest_record()
    world.append(draft(1))
    assert read(world.ledger.record(2).body).time == newest


def test_subscribers_hear_of_commits_and_cannot_break_them(world: World) -> None:
    heard: list[int] = []

    def broken(size: int) -> None:
        raise ValueError

    world.ledger.subscribe(broken)
    unsubscribe = world.ledger.subscribe(heard.append)
    world.append(draft())
    world.append(draft())
    world.ledger.run(lambda uow: None)
    unsubscribe()
    world.append(draft())
    assert heard == [2, 3]


def test_from_asyncio(world: World) -> None:
    async def append() -> int:
        return await asyncio.wrap_future(world.ledger.submit(lambda uow: uow.append(draft())))

    async def many() -> list[int]:
        return list(await asyncio.gather(*(append() for _ in range(20))))

    assert sorted(asyncio.run(many())) == list(range(1, 21))


def test_cancelled_work_is_not_done(world: World) -> None:
    release = held(world)
    future = world.ledger.submit(lambda uow: uow.append(draft()))
    assert future.cancel()
    release.set()
    assert world.append(draft(1)) == 1


def test_bad_drafts_are_refused_and_leave_nothing(world: World) -> None:
    refused("RECORD_MALFORMED", lambda: world.append(RecordDraft("credit", "job.unknown", "x", {})))
    refused("NOT_CANONICAL", lambda: world.append(RecordDraft("credit", "dataset.created", "dataset", {"x": 0.5})))
    assert world.ledger.size == 1


def test_reading_and_listing(world: World) -> None:
    job = "units/credit/tuningJobs/a"
    world.append(draft())
    world.append(RecordDraft("credit", "job.preparing", "transition", {"job": job}))
    world.append(draft(1, "support"))
    ledger = world.ledger
    assert [r.index for r in ledger.records("credit")] == [1, 2]
    assert [r.index for r in ledger.records(None, job)] == [2]
    assert [r.index for r in ledger.records(None, None, 1, 1)] == [2]
    assert ledger.records("nobody") == []
    for index in (-1, 4, 2**62):
        refused("RECORD_NOT_FOUND", lambda i=index: ledger.record(i))
        refused("RECORD_NOT_FOUND", lambda i=index: ledger.covering_checkpoint(i))
    for call in (
        lambda: ledger.root(5),
        lambda: ledger.inclusion_proof(4, 4),
        lambda: ledger.inclusion_proof(0, 5),
        lambda: ledger.consistency_proof(0, 4),
        lambda: ledger.consistency_proof(1, 5),
    ):
        refused("PROOF_RANGE", call)


def test_checkpoint_is_the_logs(world: World) -> None:
    world.append(draft())
    log = Verifier.of(ORIGIN, world.services["log"].public_key())
    checkpoint = open_checkpoint(world.ledger.checkpoint(), log)
    assert (checkpoint.size, checkpoint.root) == (2, world.ledger.root(2))


def test_before_start_and_after_close(tmp_path: Path) -> None:
    world = World(tmp_path)
    refused("LEDGER_NOT_STARTED", lambda: world.append(draft()))
    world.start()
    world.append(draft())
    world.close()
    world.ledger.close()
    refused("LEDGER_CLOSED", lambda: world.append(draft()))


def test_close_finishes_what_waits(world: World) -> None:
    release = held(world)
    futures = [world.ledger.submit(lambda uow: uow.append(draft())) for _ in range(100)]
    threading.Timer(0.05, release.set).start()
    world.ledger.close()
    assert [f.result() for f in futures] == list(range(1, 101))


def test_attack_6_two_ledgers_on_one_database(world: World) -> None:
    refused("LEDGER_IN_USE", world.open().start)


def test_attack_6_head_moved_under_the_writer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that got around the lock: the first one notices and stops, before it signs anything."""
    monkeypatch.setattr(postgres, "_WRITER_LOCK", 3)
    world.database.with_name(world.database.name + ".writer-lock").unlink(missing_ok=True)
    other = world.open()
    other.start()
    other.run(lambda uow: uow.append(draft(1)))
    refused("LEDGER_STOPPED", lambda: world.append(draft(2)))
    assert world.ledger.stopped == "LEDGER_HEAD_MOVED"
    refused("LEDGER_STOPPED", lambda: world.append(draft(3)))
    other.run(lambda uow: uow.append(draft(4)))
    other.close()
    assert faults(world) == []


class FailingAnchor:
    """An anchor whose medium fails on demand."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.error = inner, None

    def read(self) -> bytes | None:
        return self.inner.read()

    def interrupted(self) -> bool:
        return self.inner.interrupted()

    def acquire(self) -> None:
        self.inner.acquire()

    def close(self) -> None:
        self.inner.close()

    def swap(self, expected: bytes | None, new: bytes) -> None:
        if self.error is not None:
            raise self.error
        self.inner.swap(expected, new)


@pytest.mark.parametrize("error", [OSError(5, "I/O error"), IntegrityError("ANCHOR_CONFLICT", "moved")])
def test_attack_41_anchor_fails(tmp_path: Path, error: Exception) -> None:
    world = World(tmp_path)
    world.anchor = FailingAnchor(world.anchor)  # type: ignore[assignment]
    world.ledger = world.open()
    world.start()
    published = world.ledger.checkpoint()
    world.anchor.error = error  # type: ignore[attr-defined]
    future = world.ledger.submit(lambda uow: uow.append(draft()))
    with pytest.raises(UnavailableError) as caught:
        future.result()
    assert caught.value.reason == "LEDGER_STOPPED"
    assert world.ledger.checkpoint() == published
    assert world.ledger.size == 1
    refused("LEDGER_STOPPED", lambda: world.append(draft()))
    world.ledger.close()
    world.anchor.error = None  # type: ignore[attr-defined]
    world.ledger = world.open()
    world.start()
    assert world.ledger.size == 2
    assert world.anchor.read() == world.ledger.checkpoint()
    world.close()


def test_a_key_that_is_not_the_logs(world: World) -> None:
    world.append(draft())
    world.ledger.close()
    refused("NOTE_SIGNATURE_BAD", world.open(ed25519("attacker")).start)
