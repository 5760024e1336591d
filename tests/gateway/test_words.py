"""What people type: nowhere in the log, read by whoever may, and erased with what it is about."""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from pathlib import Path
from typing import Any

import pytest

from assay import canonical
from assay.errors import AssayError
from assay.v1 import approval_pb2, dataset_pb2, identity_pb2, measurement_pb2, model_pb2, permit_pb2, policy_pb2
from assay.v1 import tuning_job_pb2 as pb
from audit.ledger.backup import backup
from audit.ledger.writer import UnitOfWork
from gateway import statements
from gateway.jobs import machine, views
from gateway.statements import approval_statement, opening, waiver_statement
from gateway.store import jobs, rows
from gateway.store.tables import DatasetRow
from tests.gateway.conftest import House, messages, now
from tests.gateway.judged import NAME, SOME, approved, attested, awaiting, decide, judged, outcome, pending
from tests.gateway.test_approvals import card
from tests.gateway.test_erasures import DATASET, bodies, erase, get, holds
from tests.gateway.test_permits import issued

WORDS = "row 17 is Mrs Doe"
ERASED = "payload erased"


async def job(house: House, name: str = NAME) -> pb.TuningJob:
    request = pb.GetTuningJobRequest(name=name)
    return (await house.app.jobs.get_tuning_job(await house.caller("cora"), request)).tuning_job


def said_in_the_log(house: House, text: str = WORDS) -> bool:
    return any(text.encode() in r.body for r in house.app.ledger.records(None, None, -1, 500))


async def refused(reason: str, call: Any) -> None:
    with pytest.raises(AssayError) as caught:
        await call
    assert caught.value.reason == reason, caught.value.diagnostics()


async def queued(house: House) -> None:
    """Moves the job to where it can be paused, as a preparation would."""
    plan = measurement_pb2.AuditPlan(profile="quick", seed=1)
    decision = policy_pb2.Decision(allowed=True, outcomes=[outcome("IN", passed=True)], audit_plan=plan)
    predicate = {
        "decision": canonical.from_message(decision),
        "data_facts_sha256": SOME,
        "statement": attested(house, "audit", "preparation", NAME),
        "quote_usd_micros": 1,
    }
    gateway = (house.app.settings.subject, machine.ActorKind.GATEWAY)

    def work(uow: UnitOfWork) -> None:
        machine.transition(uow, NAME, machine.Change(machine.Event.PREPARE, *gateway))
        values = {"decision": views.to_json(decision)}
        machine.transition(uow, NAME, machine.Change(machine.Event.QUEUE, *gateway, "", predicate, values=values))

    await house.app.store.commit(work)


@pytest.mark.parametrize("event", ["pause", "resume", "cancel"])
async def test_a_reason_is_read_but_not_in_the_log_and_goes_with_the_job(house: House, event: str) -> None:
    await house.upload("rita")
    rita, service = await house.caller("rita"), house.app.jobs
    await service.create_tuning_job(rita, house.request())

    acts = {
        "pause": (service.pause_tuning_job, pb.PauseTuningJobRequest),
        "resume": (service.resume_tuning_job, pb.ResumeTuningJobRequest),
        "cancel": (service.cancel_tuning_job, pb.CancelTuningJobRequest),
    }
    if event != "cancel":
        await queued(house)
        await service.pause_tuning_job(rita, pb.PauseTuningJobRequest(name=NAME, reason="night"))
    if event != "pause":
        call, kind = acts[event]
        await call(rita, kind(name=NAME, reason=WORDS))  # type: ignore[operator]
    else:
        await service.resume_tuning_job(rita, pb.ResumeTuningJobRequest(name=NAME, reason="day"))
        await service.pause_tuning_job(rita, pb.PauseTuningJobRequest(name=NAME, reason=WORDS))
    assert (await job(house)).transitions[-1].reason == WORDS
    listed = (await service.list_tuning_jobs(rita, pb.ListTuningJobsRequest(parent="units/credit"))).tuning_jobs
    assert listed[0].reason == ("" if event == "resume" else WORDS)
    record = bodies(house, {"pause": "job.paused", "resume": "job.resumed", "cancel": "job.cancelled"}[event])[-1]
    assert record["transition"]["reason"] == "" and len(record["reason_commitment"]) == 64
    assert not holds(house, WORDS.encode())
    if event != "cancel":
        await service.cancel_tuning_job(rita, pb.CancelTuningJobRequest(name=NAME, reason="enough"))
    await house.app.store.commit(lambda u: jobs.note(u.connection, NAME, {"needs_work": False}))  # workers are told
    await erase(house, NAME)
    shown = await job(house)
    assert shown.reason == ERASED
    assert {t.reason for t in shown.transitions if t.event in acts} == {ERASED}


async def test_a_signers_reason_is_committed_to_and_read_by_people(house: House) -> None:
    await awaiting(house)
    found, said = await pending(house), opening(WORDS)
    statement = approval_statement(found, granted=False, role="validator", reason=said, signed_at=now())
    request = approval_pb2.DecideApprovalRequest(
        name=NAME, etag=found.etag, envelope=house.sign("vik", statement), reason=said
    )
    answer = await house.app.approvals.decide_approval(await house.caller("vik"), request)
    assert answer.approval.reason == answer.tuning_job.reason == WORDS
    (signed,), (moved,) = bodies(house, "approval.decided"), bodies(house, "job.rejected")
    assert signed["reason_commitment"] == moved["reason_commitment"] == statements.commitment_of(said)
    assert not holds(house, WORDS.encode())
    await erase(house, NAME)
    assert (await job(house)).reason == ERASED


async def test_a_waivers_words_are_on_the_card_and_not_in_the_log(house: House) -> None:
    failed = policy_pb2.Verdict(
        outcome=policy_pb2.OUTCOME_FAIL,
        outcomes=[outcome("OUT", passed=False, waivable_by="ROLE_COMPLIANCE_OFFICER")],
    )
    await judged(house, failed)
    said, instead = opening(WORDS), opening("Mr Roe looks at every answer")
    expires = now().date() + dt.timedelta(days=3)
    etag = (await job(house)).etag
    envelope = house.sign("cora", waiver_statement(NAME, etag, ["OUT"], said, instead, expires))
    request = approval_pb2.WaiveRulesRequest(
        name=NAME, etag=etag, envelope=envelope, reason=said, compensating_control=instead
    )
    swapped = approval_pb2.WaiveRulesRequest(
        name=NAME, etag=etag, envelope=envelope, reason=instead, compensating_control=said
    )
    cora = await house.caller("cora")
    await refused("COMMITMENT_MISMATCH", house.app.approvals.waive_rules(cora, swapped))
    await house.app.approvals.waive_rules(cora, request)
    await house.app.pipeline.cards.render(NAME)
    found = await house.app.store.fetch(lambda c: jobs.facts(c, NAME))
    assert not any(WORDS in value or "Mr Roe" in value for value in found.values())
    assert not said_in_the_log(house) and not said_in_the_log(house, "Mr Roe")
    assert (await job(house)).transitions[-1].reason == WORDS
    twin = await card(house, model_pb2.CARD_FORMAT_JSON)
    assert WORDS.encode() in twin and b"Mr Roe looks at every answer" in twin


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (opening(WORDS), "COMMITMENT_MISMATCH"),
        (identity_pb2.Opening(), "COMMITMENT_SALT"),
        (identity_pb2.Opening(salt=bytes(31), text=WORDS), "COMMITMENT_SALT"),
    ],
    ids=["another salt", "nothing", "a short salt"],
)
async def test_other_words_than_were_signed_are_refused(house: House, other: identity_pb2.Opening, reason: str) -> None:
    await awaiting(house)
    found, said = await pending(house), opening(WORDS)
    statement = approval_statement(found, granted=True, role="validator", reason=said, signed_at=now())
    request = approval_pb2.DecideApprovalRequest(
        name=NAME, etag=found.etag, envelope=house.sign("vik", statement), reason=other
    )
    await refused(reason, house.app.approvals.decide_approval(await house.caller("vik"), request))
    assert bodies(house, "approval.decided") == [] and not holds(house, WORDS.encode())


async def test_blank_words_are_none(house: House) -> None:
    await awaiting(house)
    found, said = await pending(house), opening(" \n")
    statement = approval_statement(found, granted=True, role="validator", reason=said, signed_at=now())
    request = approval_pb2.DecideApprovalRequest(
        name=NAME, etag=found.etag, envelope=house.sign("vik", statement), reason=said
    )
    await refused("WORDS_MISSING", house.app.approvals.decide_approval(await house.caller("vik"), request))


async def test_what_ends_something_has_a_code_and_no_words(house: House) -> None:
    await approved(house)
    permit, dana = await issued(house), await house.caller("dana")
    typed = permit_pb2.RevokePermitRequest(name=permit.name, reason="Mrs Doe asked")
    await refused("REASON_CODE", house.app.permits.revoke_permit(dana, typed))
    for build in (
        lambda: statements.revocation_statement(NAME, "0" * 32, "Mrs Doe asked"),
        lambda: statements.grant_revocation_statement("g-1", "Mrs Doe left"),
    ):
        with pytest.raises(AssayError, match="no reason"):
            build()
    etag = (await job(house)).etag
    forced = {**statements.revocation_statement(NAME, etag, "drift")}
    forced["predicate"] = {**forced["predicate"], "reason": "Mrs Doe asked"}
    request = approval_pb2.RevokeApprovalRequest(name=NAME, etag=etag, envelope=house.sign("cora", forced))
    await refused("REASON_CODE", house.app.approvals.revoke_approval(await house.caller("cora"), request))
    assert not said_in_the_log(house, "Mrs Doe")


async def test_an_erased_job_can_still_be_cancelled_and_keeps_no_words(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An earlier release erased a job that waited for people."""
    monkeypatch.setattr("gateway.erasures._demand_undecided", lambda *_: None)
    await awaiting(house)
    await erase(house, NAME)
    rita = await house.caller("rita")
    answer = await house.app.jobs.cancel_tuning_job(rita, pb.CancelTuningJobRequest(name=NAME, reason=WORDS))
    assert answer.tuning_job.state == pb.TuningJob.STATE_CANCELLED and answer.tuning_job.reason == ""
    assert not holds(house, WORDS.encode())
    await refused("JOB_STATE", house.app.jobs.cancel_tuning_job(rita, pb.CancelTuningJobRequest(name=NAME, reason="x")))


async def test_a_datasets_provenance_is_not_in_the_log_and_goes_with_it(house: House) -> None:
    sheet = dataset_pb2.Datasheet(purposes=["support-replies"], licence="CC0-1.0", provenance=f"Collected: {WORDS}")
    header = dataset_pb2.UploadDatasetHeader(
        parent="units/credit", dataset_id="rows", format=dataset_pb2.DATASET_FORMAT_CHAT_JSONL, datasheet=sheet,
        request_id=str(uuid.uuid4()),
    )  # fmt: skip
    rita = await house.caller("rita")
    kept = (await house.app.datasets.upload_dataset(rita, messages(header, [b"x\n" * 100]))).dataset
    assert kept.datasheet.provenance.endswith(WORDS)
    (created,) = bodies(house, "dataset.created")
    assert "provenance" not in created["datasheet"] and len(created["provenance_commitment"]) == 64
    assert canonical.encode(created["datasheet"]) and not said_in_the_log(house)
    erasure = await erase(house)
    assert list(erasure.commitments) == [created["provenance_commitment"]]
    assert (await house.app.datasets.get_dataset(rita, get(DATASET))).dataset.datasheet.provenance == ERASED


async def test_provenance_is_in_no_file_and_no_backup_and_policy_knows_its_length(house: House, tmp_path: Path) -> None:
    text = f"{WORDS} of Elm Street"
    sheet = dataset_pb2.Datasheet(purposes=["support-replies"], licence="CC0-1.0", provenance=text)
    header = dataset_pb2.UploadDatasetHeader(
        parent="units/credit", dataset_id="rows", format=dataset_pb2.DATASET_FORMAT_CHAT_JSONL, datasheet=sheet,
        request_id=str(uuid.uuid4()),
    )  # fmt: skip
    rita, settings = await house.caller("rita"), house.app.settings
    service = house.app.datasets
    first = await service.upload_dataset(rita, messages(header, [b"x\n" * 100]))
    again = await service.upload_dataset(rita, messages(header, [b"x\n" * 100]))
    listed = await service.list_datasets(rita, dataset_pb2.ListDatasetsRequest(parent="units/credit"))
    assert {d.datasheet.provenance for d in (first.dataset, again.dataset, *listed.datasets)} == {text}
    row = house.app.store.read(lambda c: rows.get(c, DatasetRow, name=DATASET))
    assert row is not None
    seen = views.from_json(row.datasheet, dataset_pb2.Datasheet)
    assert seen.provenance == "*" * len(text), "a rule asks for so many characters, and its message has none of them"
    await asyncio.to_thread(backup, settings.database, house.app.ledger.verifier, tmp_path / "backup")
    before = found_in(text, settings.data, tmp_path / "backup")
    await erase(house)
    assert before == found_in(text, settings.data) == []


def found_in(text: str, *folders: Path) -> list[Path]:
    """Files that hold a text as it is: the database, its write-ahead log, and whatever lies beside them."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert any(path.name == "assay.db" for path in files)
    return [path for path in files if text.encode() in path.read_bytes()]


async def test_two_signers_may_say_the_same(house: House) -> None:
    """Equal words have different salts, and neither commitment says that they are equal."""
    await awaiting(house)
    await decide(house, "cora", "compliance_officer")
    await decide(house, "vik", "validator")
    first, second = bodies(house, "approval.decided")
    assert first["reason_commitment"] != second["reason_commitment"]
