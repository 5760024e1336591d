"""A prepare task is given what the models that its own comes of were trained on, as far as it is still there."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from assay.errors import AbortedError
from assay.v1 import tuning_job_pb2
from gateway import lineage
from gateway.admission import intake
from gateway.admission.exchange import Task
from gateway.jobs import machine
from gateway.jobs.transitions import ActorKind, Event, State
from gateway.store import jobs, rows
from gateway.store.blobs import put_bytes
from gateway.store.tables import DatasetRow, JobRow
from tests.gateway.conftest import House
from tests.gateway.judged import MODEL, NAME, approved
from tests.gateway.test_erasures import DATASET, refused
from tests.gateway.test_lineage import SUBJECT, UNIT, ask, erase, going_on, index


async def trained_on(house: House, job: str) -> str:
    """Gives a job the train file that its prepare task would have left; returns its digest."""
    blob = put_bytes(house.app.blobs, "credit", f"rows of {job}\n".encode())
    facts = {"prepare.train.jsonl": blob.sha256, "prepare.predicate": "{}"}
    await house.app.store.commit(lambda u: jobs.establish(u.connection, job, facts))
    return blob.sha256


async def row(house: House, job: str) -> JobRow:
    found = await house.app.store.fetch(lambda c: jobs.get(c, job))
    assert found is not None
    return found


async def begun(house: House, short: str) -> Task:
    """The prepare task of a job that was begun."""
    office, name = house.app.pipeline.office, f"{UNIT}/tuningJobs/{short}"
    await intake.begin(office, await row(house, name))
    job = await row(house, name)
    assert job.state == State.PREPARING
    return intake.prepare_task(office, job, await office.known(job))


async def test_the_task_carries_the_train_files_of_parents_teachers_and_theirs_each_once(house: House) -> None:
    await approved(house)
    first = await trained_on(house, NAME)
    child = await going_on(house, "second", MODEL)
    second = await trained_on(house, f"{UNIT}/tuningJobs/second")
    taught = await going_on(house, "third", child, taught=True)
    third = await trained_on(house, f"{UNIT}/tuningJobs/third")
    await house.upload("rita", dataset="for-last", data=b"last\n")
    teacher = tuning_job_pb2.Teacher(name=MODEL)
    asked = house.request(job="last", dataset="for-last", parent_model=taught, teacher=teacher, method="distillation")
    await house.app.jobs.create_tuning_job(await house.caller("rita"), asked)
    task = await begun(house, "last")
    dataset = task.blobs["dataset"]
    assert task.blobs == {
        "dataset": dataset, "parents/1.jsonl": first, "parents/2.jsonl": second, "parents/3.jsonl": third
    }  # fmt: skip
    assert task.order["parents"] == 3 and "unread_parents" not in task.order
    lone = await house.app.store.fetch(lambda c: lineage.jobs_before(c, house.request()))
    assert lone == []


async def test_a_job_without_a_parent_has_the_order_that_it_always_had(house: House) -> None:
    await house.upload("rita")
    await house.app.jobs.create_tuning_job(await house.caller("rita"), house.request())
    task = await begun(house, "first")
    assert set(task.blobs) == {"dataset"} and not {"parents", "unread_parents"} & set(task.order)
    assert lineage.ROWS not in await house.app.store.fetch(lambda c: jobs.facts(c, NAME))


async def test_rows_that_were_erased_or_may_not_be_read_are_counted(house: House, tmp_path: Path) -> None:
    await approved(house)
    await trained_on(house, NAME)
    await index(house, NAME, SUBJECT, folder=tmp_path)
    child = await going_on(house, "second", MODEL)
    second = await trained_on(house, f"{UNIT}/tuningJobs/second")
    await going_on(house, "third", child)
    await going_on(house, "fourth", child)
    await erase(house, (await ask(house, subject=SUBJECT)).name)
    task = await begun(house, "third")
    assert task.order["parents"] == task.order["unread_parents"] == 1 and task.blobs["parents/1.jsonl"] == second
    where = {"name": f"{UNIT}/tuningJobs/second"}
    rest = {"state": State.REJECTED.value, "needs_work": False}
    await house.app.store.commit(lambda u: rows.update(u.connection, JobRow, where, rest) and None)
    await refused("JOBS_UNDER_WAY", erase(house, f"{UNIT}/datasets/for-second"))
    assert house.app.blobs.exists("credit", second), "as long as the third is prepared with it"
    stop = "UPDATE tuning_job SET state = 'CANCELLED', needs_work = false WHERE name LIKE '%/third'"
    await house.app.store.commit(lambda u: u.connection.exec_driver_sql(stop) and None)
    await erase(house, f"{UNIT}/datasets/for-second")
    assert not house.app.blobs.exists("credit", second)
    task = await begun(house, "fourth")
    assert task.order["unread_parents"] == 2 and "parents" not in task.order and set(task.blobs) == {"dataset"}


async def test_rows_past_their_retention_are_not_read_and_a_preparation_that_reads_them_ends(house: House) -> None:
    await approved(house)
    await trained_on(house, NAME)
    await going_on(house, "second", MODEL)
    await begun(house, "second")
    reading = await house.app.store.fetch(lambda c: house.app.erasures.reading(c, DATASET))
    assert [job.name for job in reading] == [f"{UNIT}/tuningJobs/second"]
    change = machine.Change(Event.FAIL, house.app.settings.subject, ActorKind.CLOCK, "RETENTION_OVER")
    await house.app.store.commit(lambda u: machine.transition(u, reading[0].name, change))
    assert await house.app.store.fetch(lambda c: house.app.erasures.reading(c, DATASET)) == []
    values = {"retention_end_us": rows.micros(dt.datetime.now(dt.UTC) - dt.timedelta(days=35))}
    where = {"name": DATASET}
    await house.app.store.commit(lambda u: rows.update(u.connection, DatasetRow, where, values) and None)
    await going_on(house, "third", MODEL)
    assert (await begun(house, "third")).order["unread_parents"] == 1


async def test_an_erasure_between_reading_and_beginning_begins_the_job_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await approved(house)
    first = await trained_on(house, NAME)
    await going_on(house, "second", MODEL)
    job, office = await row(house, f"{UNIT}/tuningJobs/second"), house.app.pipeline.office
    real, calls = intake._parents, []

    def erased_meanwhile(*args: object) -> object:
        calls.append(args)
        found = real(*args)  # type: ignore[arg-type]
        if len(calls) == 1:
            office.blobs.delete("credit", first)
        return found

    monkeypatch.setattr(intake, "_parents", erased_meanwhile)
    with pytest.raises(AbortedError) as caught:
        await intake.begin(office, job)
    assert caught.value.reason == "STALE" and (await row(house, job.name)).state == State.RECEIVED
    assert (await begun(house, "second")).order["unread_parents"] == 1
