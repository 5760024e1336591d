"""The end of a retention: work stops, rows are shredded, a record says so. The ledger's clock is moved here."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from assay.digests import sha256_bytes
from assay.errors import AbortedError, AlreadyExistsError, ExhaustedError, UnavailableError
from assay.subjects import INDEX_FILE
from assay.v1 import dataset_pb2
from audit.ledger.writer import Sources, UnitOfWork
from audit.verify.trust import TrustFile
from audit.verify.verifier import verify_bundle
from gateway.admission.exchange import Result
from gateway.cli.dataset import _describe
from gateway.erasures import ErasureService
from gateway.freezing import freeze, sign_order
from gateway.store import jobs, rows
from gateway.store.blobs import put_bytes
from gateway.store.tables import DatasetRow, ErasureRow, FactRow, JobRow, ModelRow
from tests.gateway.conftest import House, messages, now, schema_violations
from tests.gateway.judged import MODEL, NAME, approved
from tests.gateway.test_erasures import DATASET, bodies, erase, get, refused
from tests.gateway.test_evidence import export

DAYS = dt.timedelta(days=30)
SHEET = dataset_pb2.Datasheet(
    purposes=["support-replies"], licence="CC0-1.0", retention_days=30, provenance="Mrs Doe gave them."
)


@dataclass
class Clock:
    """The ledger's time: this machine's, moved on."""

    ahead: dt.timedelta = dt.timedelta()

    def __call__(self) -> dt.datetime:
        return dt.datetime.now(dt.UTC) + self.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("audit.ledger.ledger.system_sources", lambda: Sources(made, lambda: os.urandom(16).hex()))
    return made


@pytest.fixture
async def kept(clock: Clock, opened: Callable[[], House]) -> AsyncIterator[House]:
    made = opened()
    yield made
    await made.app.close()
    assert schema_violations(made.app) == []


async def upload(house: House, dataset: str = "rows", data: bytes = b"x\n" * 100, sheet: Any = SHEET) -> str:
    header = dataset_pb2.UploadDatasetHeader(
        parent="units/credit", dataset_id=dataset, format=dataset_pb2.DATASET_FORMAT_CHAT_JSONL, datasheet=sheet,
        request_id=str(uuid.uuid4()),
    )  # fmt: skip
    answer = await house.app.datasets.upload_dataset(await house.caller("rita"), messages(header, [data]))
    return answer.dataset.sha256


async def shown(house: House, name: str = DATASET) -> dataset_pb2.Dataset:
    return (await house.app.datasets.get_dataset(await house.caller("rita"), get(name))).dataset


async def end(house: House) -> list[str]:
    return await house.app.pipeline.retention.end()


async def test_rows_go_when_their_time_is_over_and_the_log_proves_it(kept: House, clock: Clock, tmp_path: Path) -> None:
    sha256 = await upload(kept)
    forever = await upload(kept, "forever", b"y\n", dataset_pb2.Datasheet(licence="CC0-1.0"))
    before = await shown(kept)
    assert before.retention_end_time.ToDatetime(dt.UTC) == before.create_time.ToDatetime(dt.UTC) + DAYS
    clock.ahead = DAYS - dt.timedelta(minutes=1)
    assert await end(kept) == [] and kept.app.blobs.exists("credit", sha256)
    clock.ahead = DAYS
    await refused("RETENTION_OVER", kept.app.jobs.create_tuning_job(await kept.caller("rita"), kept.request()))
    assert await end(kept) == [DATASET]
    assert not kept.app.blobs.exists("credit", sha256) and kept.app.blobs.exists("credit", forever)
    (executed,) = bodies(kept, "erasure.executed")
    assert (executed["reason_code"], executed["order_index"]) == ("retention-ended", before.record_index)
    assert executed["blobs"] == 1 and executed["payloads"] == 1, "the file, and the words of the provenance"
    assert bodies(kept, "erasure.ordered") == []
    after = await shown(kept)
    assert after.erased_index and after.datasheet.provenance == "payload erased"
    assert not (await shown(kept, "units/credit/datasets/forever")).HasField("retention_end_time")
    await refused("ERASED", kept.app.jobs.create_tuning_job(await kept.caller("rita"), kept.request()))
    assert await end(kept) == [] and len(bodies(kept, "erasure.executed")) == 1
    path = await export(kept, "anna", "units/-", [], tmp_path / "bundle.zip")
    report = verify_bundle(path, TrustFile.parse(kept.layout.trust.read_text()), clock())
    assert report.verdict == "valid", [c for c in report.checks if c.outcome != "passed"]


async def test_derived_files_go_and_models_are_named(
    kept: House, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(House, "upload", lambda self, who, unit="credit": upload(self))
    await approved(kept)
    names = ("train.jsonl", "validation.jsonl", "selection.jsonl", "private.bin")
    blobs = {f"prepare.{name}": put_bytes(kept.app.blobs, "credit", name.encode()).sha256 for name in names}
    await kept.app.store.commit(lambda u: jobs.establish(u.connection, NAME, blobs))
    clock.ahead = DAYS
    assert await end(kept) == [DATASET]
    assert not any(kept.app.blobs.exists("credit", sha256) for sha256 in blobs.values())
    (executed,) = bodies(kept, "erasure.executed")
    assert executed["affected_models"] == [MODEL] and executed["blobs"] == 5


def made(folder: Path, **contents: bytes) -> Result:
    """A result with these files, the underscores of whose names are dots."""
    files = {name.replace("_", "."): data for name, data in contents.items()}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return Result(folder, {name: sha256_bytes(data) for name, data in files.items()}, {}, {})


async def row_of(house: House, name: str = "first") -> JobRow:
    """A job on the unit's dataset that is being prepared."""
    created = await house.app.jobs.create_tuning_job(await house.caller("rita"), house.request(job=name))
    await house.app.store.commit(lambda u: jobs.note(u.connection, created.tuning_job.name, {"state": "PREPARING"}))
    row = house.app.store.read(lambda c: jobs.get(c, created.tuning_job.name))
    assert row is not None
    return row


async def test_what_was_stored_for_a_change_that_failed_goes_and_what_others_have_stays(
    kept: House, tmp_path: Path
) -> None:
    await upload(kept)
    job, blobs = await row_of(kept), kept.app.blobs
    result = made(tmp_path, own=b"own", fact=b"a fact", model=b"a model's", empty=b"", none=b"[]")
    fact, model = result.files["fact"], result.files["model"]
    other = ModelRow(
        name=MODEL, unit="credit", job=NAME, files=json.dumps([{"path": "a", "sha256": model, "size": 9}]),
        adapter_sha256="a" * 64, base_model="b", base_sha256="b" * 64, created_us=0,
    )  # fmt: skip

    def take(uow: UnitOfWork) -> None:
        rows.insert(uow.connection, other)
        twin = job.model_copy(update={"name": "units/credit/tuningJobs/other"})
        rows.insert(uow.connection, twin)
        jobs.establish(uow.connection, twin.name, {"prepare.validation.jsonl": fact})

    await kept.app.store.commit(take)
    office = kept.app.replays.office
    with pytest.raises(ExhaustedError):
        async with office.keeping(job, result, result.files) as stored:
            assert {name: blob.sha256 for name, blob in stored.items()} == result.files
            assert all(blobs.exists("credit", digest) for digest in result.files.values())
            raise ExhaustedError("LEDGER_BUSY", "too much waits")
    assert [name for name, digest in result.files.items() if not blobs.exists("credit", digest)] == ["own"]
    with pytest.raises(UnavailableError):
        async with office.keeping(job, result, ["own"]):
            raise UnavailableError("LEDGER_STOPPED", "nobody knows whether it was recorded")
    assert blobs.exists("credit", result.files["own"])
    assert len(marks(kept)) == 1


def marks(house: House) -> list[Path]:
    """What says that something may be stored which nothing names."""
    return list((house.app.settings.data / "blobs" / "unnamed").iterdir())


async def test_an_upload_whose_batch_failed_after_its_file_was_there_goes_at_the_next_start(
    opened: Callable[[], House], monkeypatch: pytest.MonkeyPatch
) -> None:
    house = opened()
    sha256 = await upload(house, "other", b"y\n" * 100)
    commit = house.app.datasets.store.commit

    async def failing(work: Callable[[UnitOfWork], Any]) -> Any:
        def whole(uow: UnitOfWork) -> None:
            work(uow)
            raise ExhaustedError("LEDGER_BUSY", "the batch did not go through")

        return await commit(whole)

    with monkeypatch.context() as broken:
        broken.setattr(type(house.app.datasets.store), "commit", lambda self, work: failing(work))
        with pytest.raises(ExhaustedError):
            await upload(house)
        lost = sha256_bytes(b"x\n" * 100)
        assert house.app.blobs.exists("credit", lost) and len(marks(house)) == 1
        # The same bytes as another dataset's: named, whatever becomes of this upload.
        with pytest.raises(ExhaustedError):
            await upload(house, "again", b"y\n" * 100)
    with pytest.raises(AlreadyExistsError):
        await upload(house, "other", b"z\n" * 100)
    assert len(marks(house)) == 2
    await house.app.close()
    house = opened()
    assert not house.app.blobs.exists("credit", lost) and house.app.blobs.exists("credit", sha256)
    assert marks(house) == [] and not house.app.blobs.exists("credit", sha256_bytes(b"z\n" * 100))
    await house.app.close()


async def test_what_a_killed_gateway_was_storing_goes_at_the_next_start_but_for_what_was_named(
    opened: Callable[[], House], tmp_path: Path
) -> None:
    house = opened()
    await upload(house)
    job, result = await row_of(house), made(tmp_path, own=b"own", fact=b"a fact")
    with pytest.raises(asyncio.CancelledError):
        async with house.app.replays.office.keeping(job, result, result.files):
            fact = {"prepare.validation.jsonl": result.files["fact"]}
            await house.app.store.commit(lambda u: jobs.establish(u.connection, job.name, fact))
            raise asyncio.CancelledError
    assert len(marks(house)) == 1
    await house.app.close()
    house = opened()
    assert [n for n, digest in result.files.items() if house.app.blobs.exists("credit", digest)] == ["fact"]
    assert marks(house) == []
    await house.app.close()


async def test_what_was_stored_before_another_file_could_not_be_goes(kept: House, tmp_path: Path) -> None:
    await upload(kept)
    job, result = await row_of(kept), made(tmp_path, first=b"first", second=b"second")
    (tmp_path / "second").unlink()
    with pytest.raises(FileNotFoundError):
        async with kept.app.replays.office.keeping(job, result, ["first", "second"]):
            pytest.fail("the change is not made")
    assert not kept.app.blobs.exists("credit", result.files["first"])


@pytest.mark.parametrize("beside", [False, True])
async def test_the_index_of_subjects_stays_while_another_job_on_the_dataset_may_be_storing_it(
    kept: House, tmp_path: Path, beside: bool
) -> None:
    await upload(kept)
    job, result = await row_of(kept), made(tmp_path, subjects_idx=b"the same for every job on the dataset")
    if beside:
        await row_of(kept, "second")
    with pytest.raises(AbortedError):
        async with kept.app.replays.office.keeping(job, result, [INDEX_FILE]):
            raise AbortedError("STALE", "somebody moved it")
    assert kept.app.blobs.exists("credit", result.files[INDEX_FILE]) is beside


@pytest.mark.parametrize("paused", [False, True])
async def test_a_job_under_way_is_failed_first_and_the_rows_go_once_it_rests(
    kept: House, clock: Clock, paused: bool
) -> None:
    sha256 = await upload(kept)
    name = (await kept.app.jobs.create_tuning_job(await kept.caller("rita"), kept.request())).tuning_job.name
    if paused:
        where = "UPDATE tuning_job SET state = 'PAUSED', resume_to = 'TRAINING', needs_work = false"
        await kept.app.store.commit(lambda u: u.connection.exec_driver_sql(where) and None)
    clock.ahead = DAYS
    assert await end(kept) == [] and kept.app.blobs.exists("credit", sha256)
    job = kept.app.store.read(lambda c: jobs.get(c, name))
    assert job is not None and job.state == "FAILED" and job.reason.startswith("RETENTION_OVER") and job.needs_work
    assert await end(kept) == [], "its worker may still hold rows"
    await kept.app.store.commit(lambda u: jobs.note(u.connection, name, {"needs_work": False}))
    assert await end(kept) == [DATASET] and not kept.app.blobs.exists("credit", sha256)
    assert kept.types(name)[-1] == "job.failed"


async def test_bytes_that_another_dataset_still_needs_stay_until_its_end(kept: House, clock: Clock) -> None:
    longer = dataset_pb2.Datasheet(licence="CC0-1.0", retention_days=60)
    sha256 = await upload(kept)
    await upload(kept, "twin", sheet=longer)
    clock.ahead = DAYS
    assert await end(kept) == [DATASET] and kept.app.blobs.exists("credit", sha256)
    clock.ahead = 2 * DAYS
    assert await end(kept) == ["units/credit/datasets/twin"] and not kept.app.blobs.exists("credit", sha256)


async def test_one_that_cannot_go_does_not_hold_up_the_others(
    kept: House, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await upload(kept), await upload(kept, "second", b"y\n")
    real = kept.app.blobs.delete

    def stuck(unit: str, sha256: str) -> None:
        if sha256 == first:
            raise OSError("disk")
        real(unit, sha256)

    monkeypatch.setattr(kept.app.blobs, "delete", stuck)
    clock.ahead = DAYS
    assert await end(kept) == ["units/credit/datasets/second"] and not kept.app.blobs.exists("credit", second)
    assert len(bodies(kept, "erasure.executed")) == 1
    monkeypatch.undo()
    assert await end(kept) == [DATASET]


async def test_housekeeping_goes_on_after_whatever_happened_to_it_once(
    kept: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk error is no reason to end no retention any more."""
    tried: dict[str, int] = {}

    def failing(name: str) -> Callable[..., Any]:
        async def fail(*_: Any) -> Any:
            tried[name] = tried.get(name, 0) + 1
            raise OSError("unable to open database file")

        return fail

    monkeypatch.setattr("gateway.admission.pipeline._RETAIN_SECONDS", 0.01)
    monkeypatch.setattr("gateway.admission.pipeline._LAPSE_SECONDS", 0.01)
    monkeypatch.setattr(type(kept.app.pipeline.retention), "end", failing("end"))
    monkeypatch.setattr(type(kept.app.pipeline), "_expire_all", failing("expire"))
    helpers = [asyncio.create_task(work) for work in (kept.app.pipeline._retain(), kept.app.pipeline._lapse())]
    while min(tried.get("end", 0), tried.get("expire", 0)) < 3:
        await asyncio.sleep(0.01)
        assert not any(helper.done() for helper in helpers)
    for helper in helpers:
        helper.cancel()
    await asyncio.gather(*helpers, return_exceptions=True)


async def age(house: House, name: str = DATASET) -> None:
    """Has a dataset's days be over."""

    def work(uow: UnitOfWork) -> None:
        over = {"retention_end_us": rows.micros(uow.now)}
        rows.update(uow.connection, DatasetRow, {"name": name}, over)

    await house.app.store.commit(work)


async def frozen(house: House, code: str = "retired") -> None:
    await house.app.close()
    freeze(house.app.settings, sign_order(house.layout.person("oscar"), house.app.settings.origin, code))


async def test_under_a_frozen_log_the_datasheets_order_is_carried_out_without_a_record(
    opened: Callable[[], House], tmp_path: Path
) -> None:
    """The order stands in the log, and a job that moves no more holds up nothing."""
    house = opened()
    sha256 = await upload(house)
    later = await upload(house, "later", b"y\n")
    await house.app.jobs.create_tuning_job(await house.caller("rita"), house.request())
    await age(house)
    await frozen(house)
    house = opened()
    size = house.app.ledger.size
    assert await end(house) == [DATASET] and await end(house) == [] and await house.app.erasures.carry_out() == []
    assert not house.app.blobs.exists("credit", sha256) and house.app.blobs.exists("credit", later)
    gone = await shown(house)
    assert gone.datasheet.provenance == "payload erased" and gone.erased_index == gone.record_index
    assert "as its datasheet orders, without a record" in "".join(_describe(gone))
    put_bytes(house.app.blobs, "credit", b"x\n" * 100)
    await house.app.close()
    house = opened()
    assert not house.app.blobs.exists("credit", sha256) and house.app.ledger.size == size
    path = await export(house, "anna", "units/-", [], tmp_path / "bundle.zip")
    await house.app.close()
    report = verify_bundle(path, TrustFile.parse(house.layout.trust.read_text()), now())
    assert report.verdict == "valid", [c for c in report.checks if c.outcome != "passed"]


async def test_an_order_that_the_end_of_the_log_overtook_is_carried_out_and_the_gateway_starts(
    opened: Callable[[], House], monkeypatch: pytest.MonkeyPatch
) -> None:
    house = opened()
    sha256 = await upload(house)

    def full(*_: Any) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as full_disk:
        full_disk.setattr(ErasureService, "_shred", full)
        with pytest.raises(OSError):
            await erase(house)
    await frozen(house)
    house = opened()
    assert not house.app.blobs.exists("credit", sha256) and bodies(house, "erasure.executed") == []
    assert await house.app.erasures.carry_out() == [DATASET] and await house.app.erasures.carry_out() == []
    (ordered,) = [r.index for r in house.app.ledger.records(None, None, -1, 500) if r.type == "erasure.ordered"]
    assert (await shown(house)).erased_index == ordered
    await refused("LOG_FROZEN", erase(house))
    await house.app.close()


async def test_a_log_that_ended_in_the_future_ends_no_retention_early(
    clock: Clock, opened: Callable[[], House]
) -> None:
    house = opened()
    sha256 = await upload(house)
    clock.ahead = 2 * DAYS
    await upload(house, "later", b"y\n")
    clock.ahead = dt.timedelta()
    await frozen(house, "clock-ahead")
    house = opened()
    assert await end(house) == [] and house.app.blobs.exists("credit", sha256)
    await house.app.close()


async def test_after_a_restart_a_restored_file_goes_again_and_forgotten_rows_are_learnt(
    clock: Clock, opened: Callable[[], House]
) -> None:
    first = opened()
    sha256 = await upload(first)
    clock.ahead = DAYS
    assert await end(first) == [DATASET]
    put_bytes(first.app.blobs, "credit", b"x\n" * 100)

    def forget(uow: Any) -> None:
        uow.connection.execute(rows.table(ErasureRow).delete())
        uow.connection.execute(rows.table(FactRow).delete().where(rows.table(FactRow).c.key == "erasure.scanned"))

    await first.app.store.commit(forget)
    await first.app.close()
    second = opened()
    assert not second.app.blobs.exists("credit", sha256) and (await shown(second)).erased_index
    assert len(bodies(second, "erasure.executed")) == 1
    await second.app.close()


async def test_the_pipeline_ends_retentions_by_itself(kept: House, clock: Clock) -> None:
    sha256 = await upload(kept)
    clock.ahead = DAYS
    running = asyncio.create_task(kept.app.pipeline.run())
    try:
        for _ in range(100):
            await asyncio.sleep(0.1)
            if bodies(kept, "erasure.executed"):
                break
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert not kept.app.blobs.exists("credit", sha256) and len(bodies(kept, "erasure.executed")) == 1
