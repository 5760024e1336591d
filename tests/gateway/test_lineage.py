"""Lineage: from a data subject or a dataset to every adapter and permit, within one unit, by keyed handles."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import uuid
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from rich.console import Console

from assay.errors import AssayError, ExhaustedError, UnavailableError
from assay.subjects import INDEX_FILE, IndexMaker
from assay.v1 import erasure_pb2, permit_pb2, policy_input_pb2, tuning_job_pb2
from assay.v1 import lineage_pb2 as pb
from audit.verify.trust import TrustFile
from audit.verify.verifier import verify_bundle
from gateway import lineage, search_log, subjects
from gateway.cli.dataset import describe_lineage
from gateway.jobs import views
from gateway.rpc import errors
from gateway.statements import erasure_order_statement
from gateway.store import jobs, rows
from gateway.store.blobs import put_bytes
from gateway.store.tables import DatasetRow, ModelRow
from tests.gateway.conftest import House, now
from tests.gateway.judged import ADAPTER, MODEL, NAME, approved
from tests.gateway.test_erasures import DATASET, bodies, refused
from tests.gateway.test_evidence import export

SUBJECT = "customer 0815"
UNIT = "units/credit"
HOLDS, ASKED = pb.LINEAGE_RELATION_HOLDS_SUBJECT, pb.LINEAGE_RELATION_ASKED


@pytest.fixture
def postgres_url(either_database: str) -> str:
    return either_database


async def ask(house: House, name: str = UNIT, subject: str = "", by: str = "cora") -> pb.Lineage:
    request = pb.GetLineageRequest(name=name, subject=subject)
    return (await house.app.lineage.get_lineage(await house.caller(by), request)).lineage


async def index(house: House, job: str, *values: str, folder: Path, unit: str = "credit") -> str:
    """Gives a job's dataset the index that its prepare task would have left; returns its digest."""
    maker = IndexMaker(house.app.blobs.unit_keys(unit, create=True).subject_key)
    for number, value in enumerate(values, 1):
        maker.note(number, value)
    maker.write(folder / INDEX_FILE)
    blob = put_bytes(house.app.blobs, unit, (folder / INDEX_FILE).read_bytes())
    await house.app.store.commit(lambda u: jobs.establish(u.connection, job, {subjects.FACT: blob.sha256}))
    return blob.sha256


async def going_on(house: House, short: str, parent: str, taught: bool = False) -> str:
    """A model of a job on a dataset of its own that goes on from another model, or learns its answers."""
    await house.upload("rita", dataset=f"for-{short}", data=short.encode() + b"\n")
    learns = {"method": "distillation", "teacher": tuning_job_pb2.Teacher(name=parent)}
    asked = house.request(job=short, dataset=f"for-{short}", **(learns if taught else {"parent_model": parent}))
    job = (await house.app.jobs.create_tuning_job(await house.caller("rita"), asked)).tuning_job.name
    model = ModelRow(
        name=job.replace("/tuningJobs/", "/models/"), unit="credit", job=job, files="[]", adapter_sha256="ae" * 32,
        base_model="b", base_sha256="ba" * 32, created_us=1,
    )  # fmt: skip
    await house.app.store.commit(lambda uow: rows.insert(uow.connection, model))
    return model.name


async def permitted(house: House) -> str:
    request = permit_pb2.IssuePermitRequest(
        model=MODEL, purpose="support-replies", environment="production-eu", request_id=str(uuid.uuid4())
    )
    return (await house.app.permits.issue_permit(await house.caller("dana"), request)).permit.name


async def erase(house: House, name: str, code: str = "data-subject-request") -> erasure_pb2.Erasure:
    envelope = house.sign("cora", erasure_order_statement(name, code))
    request = erasure_pb2.EraseResourceRequest(name=name, envelope=envelope)
    return (await house.app.erasures.erase_resource(await house.caller("cora"), request)).erasure


async def test_a_subject_leads_to_rows_jobs_models_their_descendants_and_permits(house: House, tmp_path: Path) -> None:
    await approved(house)
    await index(house, NAME, "someone", SUBJECT, "someone", SUBJECT, folder=tmp_path)
    permit = await permitted(house)
    child = await going_on(house, "second", MODEL)
    grandchild = await going_on(house, "third", child, taught=True)
    found = await ask(house, subject=f"  {SUBJECT}\n")
    assert found.name.startswith("units/credit/dataSubjects/") and SUBJECT not in str(found)
    (dataset,) = found.datasets
    assert (dataset.name, list(dataset.rows), dataset.row_count) == (DATASET, [2, 4], 2)
    assert dataset.relation == HOLDS
    assert [j.name for j in found.jobs] == [NAME, f"{UNIT}/tuningJobs/second", f"{UNIT}/tuningJobs/third"]
    assert [(m.name, m.inherited_from) for m in found.models] == [(MODEL, ""), (child, MODEL), (grandchild, child)]
    assert found.models[0].adapter_sha256 == ADAPTER
    assert [(p.name, p.model, p.environment) for p in found.permits] == [(permit, MODEL, "production-eu")]
    assert {n.dataset for n in found.not_searched} == {f"{UNIT}/datasets/for-second", f"{UNIT}/datasets/for-third"}
    assert await ask(house, found.name) == found, "the handle asks the same as the value"
    revoked = permit_pb2.RevokePermitRequest(name=permit, reason="superseded")
    await house.app.permits.revoke_permit(await house.caller("dana"), revoked)
    assert not (await ask(house, subject=SUBJECT)).permits


async def test_somebody_of_whom_nothing_is_known_gets_an_empty_answer_that_says_what_was_not_searched(
    house: House, tmp_path: Path
) -> None:
    await approved(house)
    await index(house, NAME, "someone", folder=tmp_path)
    await house.upload("rita", dataset="plain", data=b"a\n")
    sheet = json.dumps({"group_field": "customer"})
    await house.upload("rita", dataset="unread", data=b"b\n")
    where = {"name": f"{UNIT}/datasets/unread"}
    await house.app.store.commit(lambda uow: rows.update(uow.connection, DatasetRow, where, {"datasheet": sheet}))
    found = await ask(house, subject=SUBJECT)
    assert not (found.datasets or found.jobs or found.models or found.permits)
    assert {n.dataset.rsplit("/", 1)[-1]: n.reason for n in found.not_searched} == {
        "plain": pb.NOT_SEARCHED_REASON_NO_GROUP_FIELD, "unread": pb.NOT_SEARCHED_REASON_ROWS_NOT_READ
    }  # fmt: skip


async def test_a_dataset_leads_to_its_models_and_to_its_other_versions(house: House, tmp_path: Path) -> None:
    await approved(house)
    await index(house, NAME, "a", "b", "b", folder=tmp_path)
    await house.upload("rita", dataset="twin")
    await house.upload("rita", dataset="next", data=b"next\n")
    await house.upload("rita", dataset="alien", data=b"alien\n")
    for short, values in (("next", ("b", "c")), ("alien", ("d",))):
        asked = house.request(job=short, dataset=short)
        job = (await house.app.jobs.create_tuning_job(await house.caller("rita"), asked)).tuning_job.name
        await index(house, job, *values, folder=tmp_path)
    found = await ask(house, DATASET)
    assert [(d.name.rsplit("/", 1)[-1], d.relation, d.row_count, d.shared_subjects) for d in found.datasets] == [
        ("next", pb.LINEAGE_RELATION_SHARES_SUBJECTS, 2, 1),
        ("twin", pb.LINEAGE_RELATION_SAME_BYTES, 0, 0),
        ("rows", ASKED, 3, 0),
    ]
    assert [m.name for m in found.models] == [MODEL] and [j.name for j in found.jobs] == [NAME]


async def test_a_unit_that_the_settings_name_no_more_still_says_whose_rows_it_holds(
    house: House, tmp_path: Path
) -> None:
    await approved(house)
    await index(house, NAME, SUBJECT, folder=tmp_path)
    settings = house.app.settings.model_copy(update={"units": ("claims",)})
    lineage = dataclasses.replace(house.app.lineage, settings=settings)
    request = pb.GetLineageRequest(name=UNIT, subject=SUBJECT)
    found = (await lineage.get_lineage(await house.caller("cora"), request)).lineage
    assert [d.name for d in found.datasets] == [DATASET]


async def test_another_unit_has_other_handles_and_learns_nothing(house: House, tmp_path: Path) -> None:
    await approved(house)
    await index(house, NAME, SUBJECT, folder=tmp_path)
    theirs = await ask(house, "units/claims", SUBJECT, by="mia")
    ours = await ask(house, subject=SUBJECT)
    assert theirs.name.rsplit("/", 1)[-1] != ours.name.rsplit("/", 1)[-1] and not theirs.datasets
    for name in (UNIT, DATASET, ours.name):
        await refused("NOT_FOUND", ask(house, name, SUBJECT if name == UNIT else "", by="mia"))
    await refused("NOT_FOUND", ask(house, f"{UNIT}/datasets/none"))
    await refused("NOT_FOUND", ask(house, "units/nowhere", "x", by="anna"))
    moved = ours.name.replace("units/credit", "units/claims")
    assert not (await ask(house, moved, by="mia")).datasets


@pytest.mark.parametrize(("name", "subject"), [(UNIT, ""), (UNIT, "  "), (DATASET, "x")])
async def test_a_subject_goes_with_a_unit_alone(house: House, name: str, subject: str) -> None:
    with pytest.raises(AssayError) as caught:
        await ask(house, name, subject)
    assert caught.value.reason == "SUBJECT" and caught.value.violations[0].field == "subject"


async def test_an_erasure_order_of_a_subject_names_every_adapter_and_the_rows_go_on_no_further(
    house: House, tmp_path: Path
) -> None:
    await approved(house)
    await index(house, NAME, SUBJECT, folder=tmp_path)
    child = await going_on(house, "second", MODEL)
    name = (await ask(house, subject=SUBJECT)).name
    made = await erase(house, name)
    assert list(made.affected_models) == [MODEL, child] and list(made.affected_datasets) == [DATASET]
    (executed,) = bodies(house, "erasure.executed")
    assert executed["affected_models"] == [MODEL, child] and executed["affected_datasets"] == [DATASET]
    assert executed["resource"] == name
    everything = [p.read_bytes() for p in house.app.settings.data.rglob("*") if p.is_file()]
    assert not any(SUBJECT.encode() in data for data in everything), "the value is nowhere"
    for only in (True, False):
        asked = house.request(job="again", validate_only=only)
        await refused("SUBJECT_ERASED", house.app.jobs.create_tuning_job(await house.caller("rita"), asked))
    again = await erase(house, DATASET)
    assert list(again.affected_models) == [MODEL, child]
    (dataset,) = (await ask(house, name)).datasets
    assert dataset.erased_index == again.executed_index, "the model lives, so its lineage is still known"
    await refused("ERASED_BEFORE", erase(house, name))
    path = await export(house, "anna", "units/-", [], tmp_path / "bundle.zip")
    report = verify_bundle(path, TrustFile.parse(house.layout.trust.read_text()), now())
    assert report.verdict == "valid", [c for c in report.checks if c.outcome != "passed"]


async def test_the_index_goes_with_its_dataset_when_nothing_was_trained_on_it(house: House, tmp_path: Path) -> None:
    await house.upload("rita")
    job = (await house.app.jobs.create_tuning_job(await house.caller("rita"), house.request())).tuning_job.name
    digest = await index(house, job, SUBJECT, folder=tmp_path)
    subject = (await ask(house, subject=SUBJECT)).name
    await refused("JOBS_UNDER_WAY", erase(house, subject))
    stop = "UPDATE tuning_job SET state = 'DENIED', needs_work = false"
    await house.app.store.commit(lambda u: u.connection.exec_driver_sql(stop) and None)
    assert (await erase(house, DATASET)).blobs == 2 and not house.app.blobs.exists("credit", digest)
    assert not (await erase(house, subject)).affected_datasets


async def test_an_order_for_a_subject_whose_rows_no_job_has_read_is_remembered(house: House, tmp_path: Path) -> None:
    """It comes before the first job reads the upload, and before the next upload comes."""
    await house.upload("rita")
    name = (await ask(house, subject=SUBJECT)).name
    made = await erase(house, name)
    assert (made.payloads, made.blobs, list(made.affected_datasets), list(made.affected_models)) == (0, 0, [], [])
    job = (await house.app.jobs.create_tuning_job(await house.caller("rita"), house.request())).tuning_job.name
    found = subjects.index_at(house.app.blobs, "credit", await index(house, job, "other", SUBJECT, folder=tmp_path))
    assert found is not None
    (erased,) = house.app.store.read(lambda c: subjects.erased_in(c, "credit", found))
    assert (erased.order_index, list(erased.rows)) == (made.order_index, [2])
    await refused("ERASED_BEFORE", erase(house, name))
    path = await export(house, "anna", "units/-", [], tmp_path / "bundle.zip")
    report = verify_bundle(path, TrustFile.parse(house.layout.trust.read_text()), now())
    assert report.verdict == "valid", [c for c in report.checks if c.outcome != "passed"]


async def test_what_a_restored_database_forgot_of_a_subjects_erasure_is_learnt_from_the_log(
    house: House, tmp_path: Path
) -> None:
    from gateway.store.tables import ErasureRow, FactRow

    await approved(house)
    await index(house, NAME, SUBJECT, folder=tmp_path)
    await erase(house, (await ask(house, subject=SUBJECT)).name)

    def forget(uow: Any) -> None:
        uow.connection.execute(rows.table(ErasureRow).delete())
        uow.connection.execute(rows.table(FactRow).delete().where(rows.table(FactRow).c.key.like("erasure.%")))

    await house.app.store.commit(forget)
    assert house.app.erasures.resume() == 0
    asked = house.request(job="again")
    await refused("SUBJECT_ERASED", house.app.jobs.create_tuning_job(await house.caller("rita"), asked))


async def test_people_see_tables(house: House, tmp_path: Path) -> None:
    await approved(house)
    await index(house, NAME, *[SUBJECT] * 25, folder=tmp_path)
    await permitted(house)
    await house.upload("rita", dataset="plain", data=b"a\n")
    console = Console(width=200, record=True)
    with console.capture() as shown:
        for item in describe_lineage(await ask(house, subject=SUBJECT)):
            console.print(item)
    text = shown.get()
    assert "holds subject" in text and "1, 2, 3" in text and " 20 …" in text and "20, 21" not in text
    assert MODEL in text and "production-eu" in text and "not searched: units/credit/datasets/plain (no group" in text


async def test_the_tokens_of_a_chain_are_those_of_every_job_by_the_larger_figure(house: House) -> None:
    """Of a job that neither quotes nor claims anything, its cap counts; a teacher's tokens are nobody's chain."""
    await approved(house)
    child = await going_on(house, "second", MODEL)
    grandchild = await going_on(house, "third", child)
    taught = await going_on(house, "fourth", grandchild, taught=True)
    asked = house.request(job="fifth", dataset="rows", parent_model=grandchild)
    capped = asked.budget.max_train_tokens

    async def total(parent: str) -> int:
        asked.parent_model = parent
        parent_facts = await house.app.store.fetch(lambda c: lineage.parent_of(c, asked))
        assert parent_facts is not None
        return parent_facts.train_tokens

    async def note(job: str, **facts: object) -> None:
        values = {key.replace("_", "."): json.dumps(value) for key, value in facts.items()}
        await house.app.store.commit(lambda u: jobs.establish(u.connection, f"{UNIT}/tuningJobs/{job}", values))

    first = await total(MODEL)
    assert await total(grandchild) == first + 2 * capped and await total(taught) == capped
    await note("second", quote={"train_tokens": 700})
    assert await total(grandchild) == first + 700 + capped
    await note("second", train_predicate={"claim": {"trained_tokens": 900}})
    await note("third", quote={"train_tokens": 500}, train_predicate={"claim": {"trained_tokens": float("nan")}})
    assert (await total(child), await total(grandchild)) == (first + 900, first + 900 + 500)


async def test_rows_whose_subject_nobody_could_read_are_said_not_to_be_searched(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await approved(house)
    await index(house, NAME, SUBJECT, "someone", folder=tmp_path)

    async def found(**facts: int) -> list[tuple[str, pb.NotSearchedReason, int]]:
        data = views.to_json(policy_input_pb2.DataFacts(**facts))
        await house.app.store.commit(lambda uow: jobs.note(uow.connection, NAME, {"data": data}))
        return [(n.dataset, n.reason, n.row_count) for n in (await ask(house, subject=SUBJECT)).not_searched]

    assert await found(rows=2, valid_rows=1, invalid_rows=1) == [], "a refused row that names somebody is in the index"
    left = [(DATASET, pb.NOT_SEARCHED_REASON_ROWS_NOT_READABLE, 3)]
    opened = MagicMock(side_effect=subjects.index_at)
    with monkeypatch.context() as counted:
        counted.setattr(subjects, "index_at", opened)
        assert await found(rows=5, valid_rows=2, invalid_rows=3) == left
    opened.assert_called_once()
    console = Console(width=200)
    with console.capture() as text:
        for item in describe_lineage(await ask(house, subject=SUBJECT)):
            console.print(item)
    assert f"not searched: 3 rows of {DATASET} (rows not readable)" in text.get()
    await erase(house, DATASET)
    assert await found(rows=5, valid_rows=2, invalid_rows=3) == [], "they are gone, and nothing was learned from them"


def noted(house: House) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (house.app.settings.folder / search_log.FILE).read_text().splitlines()]


async def test_every_search_for_a_subject_leaves_a_line_without_the_value(house: House, tmp_path: Path) -> None:
    await approved(house)
    await index(house, NAME, SUBJECT, folder=tmp_path)
    await ask(house, DATASET)
    size = house.app.ledger.size
    unknown = (await ask(house, subject="nobody at all", by="anna")).name
    await ask(house, unknown)
    handle = unknown.rsplit("/", 1)[-1]
    assert [(line["caller"], line["unit"], line["handle"]) for line in noted(house)] == [
        (house.subject("anna"), "credit", handle), (house.subject("cora"), "credit", handle)
    ]  # fmt: skip
    path = house.app.settings.folder / search_log.FILE
    assert "nobody" not in path.read_text() and path.stat().st_mode & 0o077 == 0
    assert noted(house)[0]["time"].startswith(f"{now():%Y-%m-%d}")
    assert house.app.ledger.size == size, "the log, which forgets nothing, has no word of it"


async def test_a_caller_tries_no_more_values_in_a_day_than_the_settings_say(house: House, tmp_path: Path) -> None:
    await approved(house)
    path, yesterday = house.app.settings.folder / search_log.FILE, now() - dt.timedelta(days=1)
    lines = [{"time": f"{day:%Y-%m-%d}T00:00:00Z", "caller": house.subject("anna")} for day in (yesterday, now())]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"time": "cut o')
    lineage = dataclasses.replace(house.app.lineage, log=search_log.SearchLog(path, 2))

    async def search(by: str, name: str = UNIT, subject: str = "") -> None:
        await lineage.get_lineage(await house.caller(by), pb.GetLineageRequest(name=name, subject=subject))

    await search("anna", subject="C-1")
    with pytest.raises(ExhaustedError, match="2 data subjects today") as caught:
        await search("anna", subject="C-2")
    assert caught.value.reason == "TOO_MANY_SEARCHES" and "limits.subject_searches_per_day" in caught.value.remedy
    assert errors.is_refusal(caught.value), "and the log gets it"
    await search("anna", DATASET)
    await search("cora", subject="C-2")
    whole = [line for line in path.read_text().splitlines() if line.endswith("}")]
    assert [json.loads(line)["caller"] for line in whole[2:]] == [house.subject("anna"), house.subject("cora")]


async def test_a_search_that_cannot_be_written_down_is_not_made(house: House) -> None:
    (house.app.settings.folder / search_log.FILE).mkdir()
    with pytest.raises(UnavailableError) as caught:
        await ask(house, subject=SUBJECT)
    assert caught.value.reason == "SEARCH_NOT_WRITTEN" and SUBJECT not in caught.value.diagnostics()
