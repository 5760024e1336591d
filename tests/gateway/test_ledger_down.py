"""The ledger fails while the gateway works: nothing starts, and nothing is answered, that is not on record."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from assay.errors import AssayError
from assay.v1 import tuning_job_pb2 as pb
from audit.ledger.anchor import FileAnchor
from gateway.admission.office import Office
from gateway.jobs.transitions import Event
from gateway.store import jobs
from policies.engine import PolicyEngine
from tests.gateway.conftest import House
from tests.gateway.judged import awaiting, decide, state
from tests.gateway.test_pipeline import CLEAN, NAME
from tests.gateway.test_pipeline_kill import ask, at_home, gateway
from tests.gateway.workers import Workers


async def limit(house: House, pages: int) -> None:
    """A disk with room for so many pages of the database, as SQLite itself sees it."""
    pragma = f"PRAGMA max_page_count = {pages}"
    await house.app.store.commit(lambda u: u.connection.exec_driver_sql(pragma).scalar())


async def fill(house: House) -> None:
    pages = house.app.store.read(lambda c: c.exec_driver_sql("PRAGMA page_count").scalar())
    await limit(house, int(pages or 0))


def broken(*_: object) -> None:
    raise OSError(5, "Input/output error")


def tasks(workers: Workers, kind: str) -> list[dict[str, Any]]:
    """What the workers know of a kind of task."""
    found = workers.layout.root.glob(f"services/*-worker/spool/*.{kind}.1/state.json")
    return [json.loads(path.read_text()) for path in found]


def fail_at(event: Event, fault: Callable[[House], Any], house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the medium fail right before the change of state is written, once."""
    change, armed = Office.change, [True]

    async def failing(self: Office, job: Any, what: Event, **more: Any) -> None:
        if what is event and armed.pop():
            armed.append(False)
            await fault(house)
        await change(self, job, what, **more)

    monkeypatch.setattr(Office, "change", failing)


@pytest.mark.isolation
async def test_attack_41_no_job_starts_without_its_record_on_a_full_disk(
    workers: Workers, engine: PolicyEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The work order does not fit: the train worker hears nothing until there is room and a record."""
    full = asyncio.Event()

    async def fault(house: House) -> None:
        await fill(house)
        house.app.pipeline.worker_errors = 0
        full.set()

    async with at_home(workers.layout, engine) as house:
        await ask(house)
        fail_at(Event.TRAIN, fault, house, monkeypatch)
        running = asyncio.create_task(house.app.pipeline.run())
        await asyncio.wait_for(full.wait(), 60)
        while not house.app.pipeline.worker_errors:
            await asyncio.sleep(0.05)
        assert state(house) == "QUEUED" and "training.ordered" not in house.types(NAME)
        assert len(tasks(workers, "prepare")) == 1 and tasks(workers, "train") == []
        assert house.app.ledger.stopped == ""
        await limit(house, 1 << 30)
        while house.app.store.read(lambda c: jobs.get(c, NAME)).needs_work:  # type: ignore[union-attr]
            await asyncio.sleep(0.05)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert house.types(NAME) == CLEAN
    (task,) = tasks(workers, "train")
    assert (task["state"], task["attempts"]) == ("DONE", 1)


@pytest.mark.isolation
@pytest.mark.parametrize(("event", "last"), [(Event.QUEUE, "intake.decided"), (Event.TRAIN, "training.ordered")])
async def test_attack_41_no_job_starts_when_the_anchor_fails(
    workers: Workers, engine: PolicyEngine, monkeypatch: pytest.MonkeyPatch, event: Event, last: str
) -> None:
    """Its flush fails under a decision or an order: the pipeline ends, and a restart goes on from there."""

    async def cut(_: House) -> None:
        monkeypatch.setattr(FileAnchor, "swap", broken)

    async with at_home(workers.layout, engine) as house:
        await ask(house)
        fail_at(event, cut, house, monkeypatch)
        with pytest.raises(AssayError) as caught:
            await asyncio.wait_for(house.app.pipeline.run(), 60)
        assert caught.value.reason == "LEDGER_STOPPED" and house.app.ledger.stopped == "OSError"
        assert last not in house.types(NAME) and tasks(workers, "train") == []
    monkeypatch.undo()
    async with at_home(workers.layout, engine) as house:
        assert house.types(NAME)[-1] == last, "what was committed before the anchor failed is found at the start"
    assert await gateway(workers.layout) == 0
    async with at_home(workers.layout, engine) as house:
        assert house.types(NAME) == CLEAN
    assert [task["attempts"] for task in tasks(workers, "train")] == [1]


async def test_attack_41_on_a_full_disk_each_request_is_recorded_or_refused(house: House) -> None:
    await house.upload("rita")
    rita = await house.caller("rita")
    await fill(house)
    taken: list[str] = []
    with pytest.raises(AssayError) as caught:
        for n in range(200):
            answer = await house.app.jobs.create_tuning_job(rita, house.request(job=f"job-{n}"))
            taken.append(answer.tuning_job.name)
    assert caught.value.reason == "LEDGER_WRITE_FAILED"
    assert "disk of the database is full" in caught.value.message and "free space" in caught.value.remedy
    refused = house.request(job=f"job-{len(taken)}")
    name = f"units/credit/tuningJobs/{refused.tuning_job_id}"
    with pytest.raises(AssayError, match="does not exist"):
        await house.app.jobs.get_tuning_job(rita, pb.GetTuningJobRequest(name=name))
    assert house.types(name) == [] and all(house.types(other) == ["job.received"] for other in taken)
    await limit(house, 1 << 30)
    assert (await house.app.jobs.create_tuning_job(rita, refused)).tuning_job.name == name


async def test_attack_41_an_approval_is_not_acknowledged_when_the_anchor_fails(
    opened: Callable[[], House], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Both people are told that it failed; after a restart rows and records say the same."""
    first = opened()
    await awaiting(first)
    await decide(first, "cora", "compliance_officer")
    with monkeypatch.context() as patch:
        patch.setattr(FileAnchor, "swap", broken)
        with pytest.raises(AssayError) as caught:
            await decide(first, "vik", "validator")
    assert caught.value.reason == "LEDGER_STOPPED"
    with pytest.raises(AssayError, match="stopped"):
        await first.app.jobs.create_tuning_job(await first.caller("rita"), first.request(job="second"))
    await first.app.close()
    second = opened()
    recorded = [t for t in second.types(NAME) if t in ("approval.decided", "job.approved")]
    assert (state(second), recorded) == ("APPROVED", ["approval.decided", "approval.decided", "job.approved"])
    assert second.types("units/credit/tuningJobs/second") == []
    await second.app.close()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.02)


def trouble(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "gateway.admission.pipeline" and r.levelname == "ERROR"]


async def test_a_fault_that_nobody_has_named_ends_the_pipeline(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be one of ours, and a gateway that does nothing and looks well would hide it."""
    monkeypatch.setattr("gateway.admission.pipeline._backoff", lambda _: dt.timedelta(milliseconds=20))
    tried: list[int] = []

    def broken(*_: object) -> None:
        tried.append(1)
        raise KeyError("a fault")

    monkeypatch.setattr("gateway.store.jobs.claimable", broken)
    with pytest.raises(KeyError):
        await asyncio.wait_for(house.app.pipeline.run(), 30)
    assert len(tried) > 2


@pytest.mark.parametrize("what", ["clock", "read", "write", "release"])
async def test_what_passes_does_not_end_the_pipeline(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    """A wrong clock, or a database that refuses: nothing moves, it is said once, and it goes on by itself."""
    monkeypatch.setattr("gateway.admission.pipeline._backoff", lambda _: dt.timedelta(milliseconds=20))
    await house.upload("rita")
    await house.app.jobs.create_tuning_job(await house.caller("rita"), house.request())
    faults: list[str] = []

    def full(*_: object) -> None:
        faults.append(what)
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise OperationalError("UPDATE job", {}, error)

    with monkeypatch.context() as patch:
        if what == "clock":
            behind = replace(house.app.ledger._sources, clock=lambda: dt.datetime.now(dt.UTC) - dt.timedelta(minutes=1))
            patch.setattr(house.app.ledger._started(), "_sources", behind)
        else:
            target = {"read": "claimable", "write": "claim", "release": "release_all"}[what]
            patch.setattr(f"gateway.store.jobs.{target}", full)
        running = asyncio.create_task(house.app.pipeline.run())
        await until(lambda: bool(trouble(caplog)))
        await asyncio.sleep(0.2)
        assert not running.done() and state(house) == "RECEIVED" and len(trouble(caplog)) == 1
        named = "CLOCK_REGRESSED" if what == "clock" else "DISK_FULL"
        assert named in trouble(caplog)[0] and "remedy" in trouble(caplog)[0] and (what == "clock" or len(faults) > 1)
    await until(lambda: state(house) != "RECEIVED")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
