"""Erasure: a person's signed order, shredding, the record of it; crashes and restored copies change nothing."""

from __future__ import annotations

import asyncio
import errno
import json
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from assay.digests import sha256_bytes
from assay.errors import AssayError, PreconditionError
from assay.v1 import dataset_pb2, erasure_pb2, policy_pb2, tuning_job_pb2
from audit.ledger.evidence import read_zip
from audit.ledger.ledger import Ledger
from audit.verify.erasures import PAYLOADS
from audit.verify.trust import TrustFile
from audit.verify.verifier import verify_bundle
from gateway import references, subjects
from gateway.erasures import ErasureService, demand_within_retention, retention_end
from gateway.jobs import views
from gateway.jobs.transitions import Event
from gateway.statements import erasure_order_statement
from gateway.store import jobs, rows
from gateway.store.blobs import put_bytes, read_bytes
from gateway.store.tables import ErasureRow, FactRow, JobRow, ModelRow
from tests.gateway.acts import FAILED, dismiss, revoke, waive
from tests.gateway.conftest import House, messages, now
from tests.gateway.judged import ADAPTER, MODEL, NAME, approved, awaiting, decide, judged, outcome
from tests.gateway.test_approvals import grant
from tests.gateway.test_datasets import header
from tests.gateway.test_evidence import export


@pytest.fixture
def postgres_url(either_database: str) -> str:
    return either_database


DATASET = "units/credit/datasets/rows"
CODE = "data-subject-request"
WEIGHTS = sha256_bytes(b"weights")
"""What the adapter of a judged job consists of."""


async def erase(house: House, name: str = DATASET, by: str = "cora", signer: str = "", **changes: Any) -> Any:
    statement = erasure_order_statement(changes.pop("signed", name), CODE)
    statement["predicate"].update(changes)
    request = erasure_pb2.EraseResourceRequest(name=name, envelope=house.sign(signer or by, statement))
    return (await house.app.erasures.erase_resource(await house.caller(by), request)).erasure


async def quarantined(house: House) -> str:
    failed = policy_pb2.Verdict(outcome=policy_pb2.OUTCOME_FAIL, outcomes=[outcome("OUT", passed=False)])
    return await judged(house, failed)


async def appeal(house: House, text: str) -> tuning_job_pb2.TuningJob:
    request = tuning_job_pb2.AppealTuningJobRequest(name=NAME, reason=text)
    return (await house.app.jobs.appeal_tuning_job(await house.caller("rita"), request)).tuning_job


async def grounds(house: House) -> str:
    request = tuning_job_pb2.GetTuningJobRequest(name=NAME)
    job = (await house.app.jobs.get_tuning_job(await house.caller("cora"), request)).tuning_job
    return job.transitions[-1].reason


def bodies(house: House, kind: str) -> list[dict[str, Any]]:
    found = house.app.ledger.records(None, None, -1, 500)
    return [json.loads(r.body)["statement"]["predicate"] for r in found if r.type == kind]


async def refused(reason: str, call: Any) -> None:
    with pytest.raises(AssayError) as caught:
        await call
    assert caught.value.reason == reason


def holds(house: House, text: bytes) -> bool:
    return any(text in p.read_bytes() for p in house.app.settings.data.rglob("*") if p.is_file())


async def test_grounds_of_an_appeal_are_read_but_not_in_the_log(house: House) -> None:
    await quarantined(house)
    words = "row 17 is Mrs Doe, who asked us to"
    assert (await appeal(house, words)).transitions[-1].reason == words
    (filed,) = bodies(house, "appeal.filed")
    assert len(filed["grounds_commitment"]) == 64 and filed["transition"]["reason"] == ""
    assert not holds(house, words.encode())
    assert await grounds(house) == words


async def test_weights_of_a_job_that_rests_unapproved_go_with_it(opened: Callable[[], House], tmp_path: Path) -> None:
    """What was measured to leak can be destroyed; its digests stay in the log, and no restored copy brings it back."""
    house = opened()
    await quarantined(house)
    shutil.copytree(house.app.settings.data / "blobs", tmp_path / "backup")
    made = await erase(house, NAME)
    assert made.blobs == 1 and not house.app.blobs.exists("credit", WEIGHTS)
    model = house.app.store.read(lambda c: rows.get(c, ModelRow, name=MODEL))
    assert model is not None and house.app.blobs.exists("credit", model.card_sha256) and WEIGHTS in model.files

    def forget(uow: Any) -> None:
        uow.connection.execute(rows.table(ErasureRow).delete())
        uow.connection.execute(rows.table(FactRow).delete().where(rows.table(FactRow).c.key.like("erasure.%")))

    await house.app.store.commit(forget)
    await house.app.close()
    shutil.rmtree(house.app.settings.data / "blobs")
    shutil.copytree(tmp_path / "backup", house.app.settings.data / "blobs")
    house = opened()
    assert not house.app.blobs.exists("credit", WEIGHTS) and len(bodies(house, "erasure.executed")) == 1
    await house.app.close()


async def test_weights_of_an_approved_model_go_once_it_is_revoked(house: House) -> None:
    await approved(house)
    await refused("JOB_STATE", erase(house, NAME))
    await revoke(house)
    assert house.app.blobs.exists("credit", WEIGHTS)
    await grant(house, "olga", "compliance_officer")
    assert (await erase(house, NAME, by="olga")).blobs == 1 and not house.app.blobs.exists("credit", WEIGHTS)


@pytest.mark.parametrize("taught", [False, True])
async def test_weights_that_a_job_under_way_learns_from_are_not_erased(house: House, taught: bool) -> None:
    await quarantined(house)
    learns = {"method": "distillation", "teacher": tuning_job_pb2.Teacher(name=MODEL)}
    asked = house.request(job="child", **(learns if taught else {"parent_model": MODEL}))
    child = (await house.app.jobs.create_tuning_job(await house.caller("rita"), asked)).tuning_job.name
    await refused("JOBS_UNDER_WAY", erase(house, NAME))
    await house.app.store.commit(lambda u: jobs.note(u.connection, child, {"state": "DENIED", "needs_work": False}))
    assert (await erase(house, NAME)).blobs == 1


async def test_files_that_another_model_has_too_stay_with_it(house: House) -> None:
    await quarantined(house)
    twin = ModelRow(
        name=f"{MODEL}-twin", unit="credit", job=f"{NAME}-twin", adapter_sha256=ADAPTER, base_model="b", created_us=1,
        files=json.dumps([{"path": "a", "sha256": WEIGHTS, "size": 7}]), base_sha256="b" * 64,
    )  # fmt: skip
    await house.app.store.commit(lambda uow: rows.insert(uow.connection, twin))
    assert (await erase(house, NAME)).blobs == 0 and house.app.blobs.exists("credit", WEIGHTS)


async def test_the_configuration_stays_since_another_job_may_be_storing_the_same_bytes(house: House) -> None:
    """Nothing names them for that job yet."""
    await quarantined(house)
    config = put_bytes(house.app.blobs, "credit", b"rank 8").sha256
    paths = {"adapter_config.json": config, "adapter_model.safetensors": WEIGHTS}
    files = json.dumps([{"path": path, "sha256": sha256, "size": 7} for path, sha256 in paths.items()])
    await house.app.store.commit(lambda u: rows.update(u.connection, ModelRow, {"name": MODEL}, {"files": files}))
    assert (await erase(house, NAME)).blobs == 1
    assert house.app.blobs.exists("credit", config) and not house.app.blobs.exists("credit", WEIGHTS)


@pytest.mark.parametrize("taught", [False, True])
async def test_no_waiver_leads_a_job_on_from_weights_that_were_destroyed(house: House, taught: bool) -> None:
    await judged(house, FAILED, until=Event.DENY)
    model, made = "units/credit/models/before", "units/credit/tuningJobs/before"
    learns = {"teacher": tuning_job_pb2.Teacher(name=model)} if taught else {"parent_model": model}

    def note(uow: Any) -> None:
        c, row = uow.connection, ModelRow(
            name=model, unit="credit", job=made, adapter_sha256=ADAPTER, base_model="b", created_us=1, files="[]",
            base_sha256="b" * 64,
        )  # fmt: skip
        job = jobs.get(c, NAME)
        assert job is not None
        asked = views.request_of(job)
        asked.MergeFrom(tuning_job_pb2.CreateTuningJobRequest(**learns))
        jobs.note(c, NAME, {"request": views.to_json(asked)})
        rows.insert(c, row)
        rows.insert(c, ErasureRow(resource=made, unit="credit", reason_code=CODE, order_index=3, executed_index=4))

    await house.app.store.commit(note)
    await refused("ERASED", waive(house))
    await house.app.store.commit(lambda u: u.connection.execute(rows.table(ErasureRow).delete()))
    await waive(house)


async def test_an_order_for_a_dataset_waits_for_nobodys_search(house: House) -> None:
    await house.upload("rita")
    house.app.store.searches.close()
    assert (await erase(house)).blobs == 1


@pytest.mark.parametrize("prepare", [approved, quarantined])
async def test_a_job_that_an_earlier_build_erased_keeps_its_weights(opened: Callable[[], House], prepare: Any) -> None:
    """Its order, carried out or not, took words alone, and its model may be approved."""
    house = opened()
    await prepare(house)
    old = ErasureRow(resource=NAME, unit="credit", reason_code=CODE, order_index=3)
    await house.app.store.commit(lambda uow: rows.insert(uow.connection, old))
    await house.app.close()
    for _ in range(2):
        house = opened()
        assert house.app.blobs.exists("credit", WEIGHTS)
        await house.app.close()


async def test_an_erased_job_shows_that_it_was_and_every_proof_stands(house: House, tmp_path: Path) -> None:
    await quarantined(house)
    await appeal(house, "row 17 is Mrs Doe")
    (filed,) = bodies(house, "appeal.filed")
    erasure = await erase(house, NAME)
    assert list(erasure.commitments) == [filed["grounds_commitment"]] and erasure.payloads == 1
    assert await grounds(house) == "payload erased"
    (ordered,), (executed,) = bodies(house, "erasure.ordered"), bodies(house, "erasure.executed")
    assert ordered["resource"] == executed["resource"] == NAME
    assert executed["commitments"] == [filed["grounds_commitment"]]
    path = await export(house, "anna", "units/-", [], tmp_path / "bundle.zip")
    report = verify_bundle(path, TrustFile.parse(house.layout.trust.read_text()), now())
    assert report.verdict == "valid", [c for c in report.checks if c.outcome != "passed"]
    assert "1 erased" in next(c.detail for c in report.checks if c.name == PAYLOADS)
    assert any("payload erased" in text for text in report.not_checked)
    await refused("SCOPE_ERASED", appeal(house, "again"))


async def test_nobody_signs_for_a_job_whose_erasure_is_ordered(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its order waits for a disk with room: once that is there, it would shred the reasons of a model that runs."""
    await quarantined(house)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ErasureService, "_shred", full)
    with pytest.raises(OSError):
        await erase(house, NAME)
    await refused("ERASED", waive(house))
    await house.app.store.commit(lambda u: jobs.note(u.connection, NAME, {"state": "AWAITING_APPROVAL"}))
    await refused("ERASED", decide(house, "vik", "validator"))


async def test_reasons_that_carry_a_model_are_not_erased(house: House) -> None:
    """An officer alone would shred why their own signature let the model run, and permits would go on."""
    await awaiting(house)
    await refused("JOB_STATE", erase(house, NAME))
    await decide(house, "cora", "compliance_officer")
    await decide(house, "vik", "validator")
    await refused("JOB_STATE", erase(house, NAME))
    await revoke(house)
    await refused("MAKER_CHECKER", erase(house, NAME))
    await grant(house, "olga", "compliance_officer")
    assert (await erase(house, NAME, by="olga")).payloads == 2


async def test_who_waived_or_dismissed_erases_no_reasons(house: House) -> None:
    await quarantined(house)
    await appeal(house, "row 17 is Mrs Doe")
    await dismiss(house)
    await house.app.pipeline.cards.render(NAME)
    await refused("MAKER_CHECKER", erase(house, NAME))


async def test_a_bundle_discloses_payloads_that_nobody_had_erased(house: House, tmp_path: Path) -> None:
    await quarantined(house)
    await appeal(house, "row 17 is fictional")
    (filed,) = bodies(house, "appeal.filed")
    path = await export(house, "anna", "units/credit", [NAME], tmp_path / "bundle.zip")
    files = read_zip(path.read_bytes())
    assert files[f"payloads/{filed['grounds_commitment']}"][32:] == b"row 17 is fictional"
    trust = TrustFile.parse(house.layout.trust.read_text())
    report = verify_bundle(path, trust, now())
    assert report.verdict == "valid", [c for c in report.checks if c.outcome != "passed"]
    assert "1 open their commitments" in next(c.detail for c in report.checks if c.name == PAYLOADS)


async def test_an_erased_dataset_is_gone_and_its_models_are_named(house: House) -> None:
    await approved(house)
    row = (await house.app.datasets.get_dataset(await house.caller("rita"), get(DATASET))).dataset
    assert house.app.blobs.exists("credit", row.sha256)
    erasure = await erase(house)
    assert (
        erasure.blobs == 1 and list(erasure.affected_models) == [MODEL] and erasure.executed_index > erasure.order_index
    )
    assert not house.app.blobs.exists("credit", row.sha256)
    await refused("ERASED", house.app.jobs.create_tuning_job(await house.caller("rita"), house.request(job="next")))
    await refused("ERASED_BEFORE", erase(house))
    assert len(bodies(house, "erasure.ordered")) == 1


def get(name: str) -> dataset_pb2.GetDatasetRequest:
    return dataset_pb2.GetDatasetRequest(name=name)


async def test_splits_go_with_their_dataset(house: House) -> None:
    await approved(house)
    names = ("train.jsonl", "validation.jsonl", "selection.jsonl", "test.jsonl", "private.bin")
    blobs = {name: put_bytes(house.app.blobs, "credit", name.encode()).sha256 for name in names}
    facts = {f"prepare.{name}": sha for name, sha in blobs.items()}
    await house.app.store.commit(lambda u: jobs.establish(u.connection, NAME, facts))
    assert (await erase(house)).blobs == 6
    assert not any(house.app.blobs.exists("credit", sha) for sha in blobs.values())


async def test_what_other_things_are_made_of_stays_whatever_dataset_had_the_same_bytes(house: House) -> None:
    """A model's files and cards, the report of its audit, and its index of subjects."""
    await approved(house)
    blobs = house.app.blobs
    card = house.app.store.read(lambda c: rows.get(c, ModelRow, name=MODEL))
    assert card is not None
    named = (card.card_sha256, card.card_pdf_sha256, card.issued_pdf_sha256)
    stays = [b"weights", b"report", b"index", *(read_bytes(blobs, "credit", sha256) for sha256 in named)]
    goes = [b"split", b"nobody else's"]
    facts = {"audit.report": b"report", subjects.FACT: b"index", "prepare.train.jsonl": b"split"}

    digests = {key: sha256_bytes(data) for key, data in facts.items()}
    await house.app.store.commit(lambda uow: jobs.establish(uow.connection, NAME, digests))
    for number, data in enumerate((*stays, *goes)):
        await house.upload("rita", dataset=f"d{number}", data=data)
    await erase(house)
    for number in range(len(stays) + len(goes)):
        await erase(house, f"units/credit/datasets/d{number}")
    assert [blobs.exists("credit", sha256_bytes(data)) for data in stays] == [True] * 6
    assert [blobs.exists("credit", sha256_bytes(data)) for data in goes] == [False] * 2
    assert house.app.store.read(lambda c: references.needed(c, "credit")) >= {sha256_bytes(data) for data in stays}


@pytest.mark.parametrize("audited", [False, True])
async def test_the_canaries_of_an_audit_go_with_the_rows_whose_values_they_may_hold(
    house: House, audited: bool
) -> None:
    await approved(house)
    stored = put_bytes(house.app.blobs, "credit", b"canaries").sha256 if audited else sha256_bytes(b"canaries")
    columns = {"decision": json.dumps({"audit_plan": {"canary_manifest_sha256": stored}})}

    def note(uow: Any) -> None:
        rows.update(uow.connection, JobRow, {"name": NAME}, columns)
        jobs.establish(uow.connection, NAME, {"audit.report": sha256_bytes(b"report")} if audited else {})

    await house.app.store.commit(note)
    assert (stored in house.app.store.read(lambda c: references.needed(c, "credit"))) is audited
    assert (await erase(house)).blobs == 1 + audited and not house.app.blobs.exists("credit", stored)


async def test_nobody_else_may_order_it(house: House) -> None:
    await approved(house)
    await refused("ROLE_MISSING", erase(house, by="rita"))
    await refused("ROLE_MISSING", erase(house, by="vik"))
    await refused("NOT_FOUND", erase(house, by="mia"))
    await refused("SIGNER", erase(house, by="cora", signer="vik"))
    assert bodies(house, "erasure.ordered") == [] and bodies(house, "erasure.executed") == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"signed": "units/credit/datasets/other"}, "STATEMENT"),
        ({"reason_code": "Mrs Doe asked"}, "REASON_CODE"),
        ({"order_id": "x"}, "STATEMENT"),
        ({"comment": "Mrs Doe asked"}, "STATEMENT"),
        ({"reason_code": 7}, "STATEMENT"),
    ],
    ids=str,
)
async def test_orders_that_do_not_hold(house: House, changes: dict[str, Any], reason: str) -> None:
    await approved(house)
    await refused(reason, erase(house, **changes))
    assert bodies(house, "erasure.ordered") == []


async def test_what_is_not_there_cannot_be_erased(house: House) -> None:
    await refused("NOT_FOUND", erase(house, "units/credit/datasets/nothing"))
    await refused("NOT_FOUND", erase(house, "units/credit/tuningJobs/nothing"))
    await refused("NOT_FOUND", erase(house, "units/nowhere/dataSubjects/" + "0" * 64))


async def test_a_dataset_under_work_is_not_erased(house: House) -> None:
    await house.upload("rita")
    await house.app.jobs.create_tuning_job(await house.caller("rita"), house.request())
    await refused("JOBS_UNDER_WAY", erase(house))
    await refused("JOBS_UNDER_WAY", erase(house, NAME))
    assert bodies(house, "erasure.ordered") == []


async def test_bytes_that_another_dataset_holds_go_with_the_last_of_them(house: House) -> None:
    """A file is uploaded again to get another datasheet; both can be ordered to be erased, one after the other."""
    await house.upload("rita")
    await house.upload("rita", dataset="twin")
    rita = await house.caller("rita")
    sha256 = (await house.app.datasets.get_dataset(rita, get("units/credit/datasets/twin"))).dataset.sha256
    assert (await erase(house)).blobs == 0 and house.app.blobs.exists("credit", sha256)
    assert (await erase(house, "units/credit/datasets/twin")).blobs == 1
    assert not house.app.blobs.exists("credit", sha256)


async def test_the_same_bytes_uploaded_anew_live_on(opened: Callable[[], House]) -> None:
    first = opened()
    await first.upload("rita")
    await erase(first)
    await first.upload("rita", dataset="again")
    await first.app.close()
    second = opened()
    row = (
        await second.app.datasets.get_dataset(await second.caller("rita"), get("units/credit/datasets/again"))
    ).dataset
    assert second.app.blobs.exists("credit", row.sha256)
    await second.app.close()


async def test_an_upload_that_is_sent_again_brings_no_erased_rows_back(house: House) -> None:
    rita, first, data = await house.caller("rita"), header(), b"row 17 is Mrs Doe"
    sent = (await house.app.datasets.upload_dataset(rita, messages(first, [data]))).dataset
    executed = (await erase(house)).executed_index
    again = (await house.app.datasets.upload_dataset(rita, messages(first, [data]))).dataset
    assert again.name == sent.name and again.erased_index == executed
    assert not house.app.blobs.exists("credit", sent.sha256)


@pytest.mark.parametrize("point", ["before the shredding", "after the shredding"])
async def test_a_crash_after_the_order_is_made_good_at_the_next_start(
    opened: Callable[[], House], monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    first = opened()
    await quarantined(first)
    await appeal(first, "row 17 is Mrs Doe")
    real = ErasureService._shred

    def crash(self: ErasureService, *arguments: Any) -> Any:
        if point == "after the shredding":
            real(self, *arguments)
        raise RuntimeError("power cut")

    monkeypatch.setattr(ErasureService, "_shred", crash)
    with pytest.raises(RuntimeError):
        await erase(first, NAME)
    assert len(bodies(first, "erasure.ordered")) == 1 and bodies(first, "erasure.executed") == []
    await first.app.close()
    monkeypatch.undo()
    second = opened()
    (executed,) = bodies(second, "erasure.executed")
    assert executed["resource"] == NAME and len(executed["commitments"]) == 1
    assert await grounds(second) == "payload erased"
    assert second.app.erasures.resume() == 0 and len(bodies(second, "erasure.executed")) == 1
    await second.app.close()


async def test_attack_40_a_restored_backup_is_shredded_again_before_serving(
    opened: Callable[[], House], tmp_path: Path
) -> None:
    """Files and rows of before the erasure come back beside the log that knows of it."""
    first = opened()
    await approved(first)
    sha256 = (await first.app.datasets.get_dataset(await first.caller("rita"), get(DATASET))).dataset.sha256
    data = first.app.settings.data
    shutil.copytree(data / "blobs", tmp_path / "backup")
    await erase(first)
    size = first.app.ledger.size
    await first.app.close()
    shutil.rmtree(data / "blobs")
    shutil.copytree(tmp_path / "backup", data / "blobs")
    second = opened()
    assert not second.app.blobs.exists("credit", sha256)
    assert second.app.ledger.size == size and len(bodies(second, "erasure.executed")) == 1
    await second.app.close()


async def test_attack_40_rows_that_forgot_the_erasure_learn_it_from_the_log(opened: Callable[[], House]) -> None:
    first = opened()
    await first.upload("rita")
    await erase(first)

    def forget(uow: Any) -> None:
        uow.connection.execute(rows.table(ErasureRow).delete())
        uow.connection.execute(rows.table(FactRow).delete().where(rows.table(FactRow).c.key == "erasure.scanned"))

    await first.app.store.commit(forget)
    await first.app.close()
    second = opened()
    await refused("ERASED_BEFORE", erase(second))
    assert len(bodies(second, "erasure.ordered")) == len(bodies(second, "erasure.executed")) == 1
    await second.app.close()


async def test_adapters_stay_but_are_named(house: House) -> None:
    await approved(house)
    await erase(house)
    (executed,) = bodies(house, "erasure.executed")
    assert executed["affected_models"] == [MODEL] and ADAPTER not in json.dumps(executed)


async def test_no_work_begins_on_rows_past_their_retention_and_the_refusal_is_recorded(house: House) -> None:
    from gateway.store.tables import DatasetRow

    rita, first = await house.caller("rita"), header()
    first.datasheet.retention_days = 365
    await house.app.datasets.upload_dataset(rita, messages(first, [b"x\n" * 100]))
    row = await house.app.store.fetch(lambda c: rows.get(c, DatasetRow, name=DATASET))
    assert row is not None
    end = retention_end(row)
    assert end is not None and end - rows.moment(row.created_us) == timedelta(days=365)
    demand_within_retention(row, end - timedelta(seconds=1))
    with pytest.raises(PreconditionError) as caught:
        demand_within_retention(row, end)
    assert caught.value.reason == "RETENTION_OVER" and "by itself" in caught.value.remedy

    def age(uow: Any) -> None:
        rows.update(uow.connection, DatasetRow, {"name": DATASET}, {"retention_end_us": row.created_us})

    await house.app.store.commit(age)
    await refused("RETENTION_OVER", house.app.jobs.create_tuning_job(rita, house.request()))


async def test_an_order_whose_caller_went_away_is_carried_out(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its deadline, Ctrl-C or a lost connection falls between the two records."""
    await house.upload("rita")
    handed_in, submit = asyncio.Event(), Ledger.submit

    def submitted(ledger: Ledger, work: Any) -> Any:
        handed_in.set()
        return submit(ledger, work)

    monkeypatch.setattr(Ledger, "submit", submitted)
    call = asyncio.create_task(erase(house))
    await handed_in.wait()
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert call.cancelled()
    async with asyncio.timeout(20):
        while not bodies(house, "erasure.ordered"):
            await asyncio.sleep(0.01)
    assert await house.app.erasures.carry_out() == [DATASET] and len(bodies(house, "erasure.executed")) == 1
    assert await house.app.erasures.carry_out() == []


async def test_an_order_that_a_full_disk_cut_off_is_carried_out_by_the_running_gateway(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.upload("rita")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full_disk:
        full_disk.setattr(ErasureService, "_shred", full)
        with pytest.raises(OSError):
            await erase(house)
        assert await house.app.erasures.carry_out() == []
    with pytest.raises(PreconditionError) as caught:
        await house.app.jobs.create_tuning_job(await house.caller("rita"), house.request())
    assert caught.value.reason == "ERASED" and "was ordered" in caught.value.message
    running = asyncio.create_task(house.app.pipeline.run())
    async with asyncio.timeout(20):
        while not bodies(house, "erasure.executed"):
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    with pytest.raises(PreconditionError) as caught:
        await house.app.jobs.create_tuning_job(await house.caller("rita"), house.request())
    assert caught.value.reason == "ERASED" and "was erased" in caught.value.message
