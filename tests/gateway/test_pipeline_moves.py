"""Jobs that people, the clock or an absent worker move at an awkward moment: turns, what is stored, what is paid."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any, BinaryIO

import pytest

from assay.errors import UnavailableError
from assay.v1 import dataset_pb2, erasure_pb2, lineage_pb2
from assay.v1 import tuning_job_pb2 as pb
from gateway.admission import office
from gateway.admission.exchange import Exchange, Peer
from gateway.admission.office import Office
from gateway.history import INTAKE_QUESTION
from gateway.jobs.machine import Change, transition
from gateway.jobs.transitions import ActorKind, Event
from gateway.statements import erasure_order_statement
from gateway.store import jobs
from gateway.store.blobs import Blob, BlobStore, put, read_bytes
from gateway.store.tables import JobRow
from tests.gateway.test_pipeline import NAME, SHEET, Street, street

__all__ = ["street"]
pytestmark = pytest.mark.isolation
SECOND = "units/credit/tuningJobs/second"


async def move(street: Street, how: str, name: str = NAME) -> None:
    """As a person does, or the clock at the end of a retention."""
    rita = await street.caller("rita")
    if how == "cancelled":
        await street.app.jobs.cancel_tuning_job(rita, pb.CancelTuningJobRequest(name=name, reason="not needed"))
    elif how == "paused":
        await street.app.jobs.pause_tuning_job(rita, pb.PauseTuningJobRequest(name=name, reason="night"))
    else:
        over = Change(Event.FAIL, "clock", ActorKind.CLOCK, "RETENTION_OVER: the rows were to be erased by now")
        await street.app.store.commit(lambda u: transition(u, name, over) and None)
        street.app.pipeline.office.board.moved(name)


@pytest.mark.parametrize("how", ["cancelled", "paused", "failed"])
async def test_a_job_that_waits_for_its_turn_leaves_the_queue_when_it_is_moved(street: Street, how: str) -> None:
    await street.ask(gate_train="go")
    await street.until("TRAINING", progress=True)
    second = await street.ask("second")
    await street.until("QUEUED", second)
    await move(street, how, second)
    job = await asyncio.wait_for(street.rest(second), 10)
    assert pb.TuningJob.State.Name(job.state) == f"STATE_{how.upper()}"
    assert (await street.job()).state == pb.TuningJob.STATE_TRAINING, "the one before it is not done yet"


async def test_a_worker_that_was_away_gives_no_slot_of_a_running_job_to_another(street: Street) -> None:
    await street.ask(gate_train="go")
    await street.until("TRAINING", progress=True)
    second = await street.ask("second", gate_train="go")
    await street.until("QUEUED", second)
    await street.workers.kill("train-worker")
    while not street.app.pipeline.worker_errors:
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)
    await street.workers.start("train-worker")
    await street.until("TRAINING", progress=True)
    assert (await street.job(second)).state == pb.TuningJob.STATE_QUEUED
    await move(street, "cancelled")
    assert (await asyncio.wait_for(street.rest(), 10)).state == pb.TuningJob.STATE_CANCELLED
    street.workers.open_gate("go")
    assert (await street.rest(second)).state == pb.TuningJob.STATE_AWAITING_APPROVAL


@pytest.mark.parametrize(
    ("event", "how"),
    [
        (Event.DENY, "cancelled"),
        (Event.QUEUE, "cancelled"),
        (Event.AUDIT, "cancelled"),
        (Event.AUDIT, "failed"),
        (Event.AUDIT, "paused"),
        (Event.PASS, "cancelled"),
    ],
)
async def test_what_was_stored_when_a_job_is_moved_in_that_moment_does_not_stay(
    street: Street, monkeypatch: pytest.MonkeyPatch, event: Event, how: str
) -> None:
    change, stored = Office.change, set[str]()

    def noted(store: BlobStore, unit: str, source: BinaryIO) -> Blob:
        blob = put(store, unit, source)
        stored.add(blob.sha256)
        return blob

    async def moved(self: Office, job: JobRow, asked: Event, **more: Any) -> None:
        if asked is event and not moves:
            moves.append(how)
            await move(street, how)
        await change(self, job, asked, **more)
        stored.clear()

    moves: list[str] = []
    monkeypatch.setattr(office, "put", noted)
    monkeypatch.setattr(Office, "change", moved)
    await street.ask(**({"pii": 0.9} if event is Event.DENY else {}))
    job = await street.rest()
    assert pb.TuningJob.State.Name(job.state) == f"STATE_{how.upper()}" and moves
    lost = set(stored)
    left = [read_bytes(street.app.blobs, "credit", digest) for digest in here(street, lost)]
    # The adapter's configuration tells of no row, and what is empty is the same for many jobs.
    assert lost and [data for data in left if b"peft_type" not in data and data not in (b"", b"[]")] == []
    if how == "paused":
        rita = await street.caller("rita")
        await street.app.jobs.resume_tuning_job(rita, pb.ResumeTuningJobRequest(name=NAME, reason="day"))
        assert (await street.rest()).state == pb.TuningJob.STATE_AWAITING_APPROVAL
        assert here(street, lost) == lost


@pytest.mark.parametrize("event", [Event.QUEUE, Event.DENY])
async def test_rows_of_somebody_erased_while_a_job_is_decided_are_not_let_in(
    street: Street, monkeypatch: pytest.MonkeyPatch, event: Event
) -> None:
    """The order finds the subject in another dataset, and nothing yet in the one that is being decided."""
    sheet = dataset_pb2.Datasheet()
    sheet.CopyFrom(SHEET)
    sheet.group_field = "customer"
    await street.ask(sheet=sheet, subjects=["anna@example.org"])
    await street.rest()
    cora = await street.caller("cora")
    asked = lineage_pb2.GetLineageRequest(name="units/credit", subject="anna@example.org")
    anna = (await street.app.lineage.get_lineage(cora, asked)).lineage.name
    change, decided = Office.change, list[Event]()

    async def erased(self: Office, job: JobRow, event: Event, **more: Any) -> None:
        if job.name == SECOND and event in (Event.QUEUE, Event.DENY):
            decided.append(event)
            if len(decided) == 1:
                envelope = street.sign("cora", erasure_order_statement(anna, "data-subject-request"))
                order = erasure_pb2.EraseResourceRequest(name=anna, envelope=envelope)
                ordered = (await street.app.erasures.erase_resource(cora, order)).erasure
                assert list(ordered.affected_datasets) == ["units/credit/datasets/first"]
        await change(self, job, event, **more)

    monkeypatch.setattr(Office, "change", erased)
    behaviour = {"pii": 0.9} if event is Event.DENY else {}
    await street.ask("second", sheet=sheet, subjects=["carl@example.org", "anna@example.org"], **behaviour)
    job = await street.rest(SECOND)
    assert decided == [event, Event.DENY]
    (outcome,) = job.decision.outcomes
    assert job.state == pb.TuningJob.STATE_DENIED and outcome.message.startswith("SUBJECT_ERASED")
    assert job.stage_seconds["prepare"] > 0 and job.cost_usd_micros > 0
    assert not outcome.waivable_by


def here(street: Street, digests: set[str]) -> set[str]:
    """Those of the files that still lie in the unit's store."""
    return {digest for digest in digests if street.app.blobs.exists("credit", digest)}


@pytest.mark.parametrize(
    ("behaviour", "stage"),
    [
        ({"prepare": "fault"}, "prepare"),
        ({"train": "fault"}, "train"),
        ({"audit": "other-canaries"}, "audit"),
        ({"gate_prepare": "never"}, "prepare"),
        ({"gate_train": "never"}, "train"),
        ({"gate_audit": "never"}, "audit"),
    ],
)
async def test_what_a_job_that_fails_or_is_cancelled_took_is_counted_to_its_end_and_once(
    street: Street, monkeypatch: pytest.MonkeyPatch, behaviour: dict, stage: str
) -> None:
    forget, cuts = Exchange.forget, 2

    async def cut_off(exchange: Exchange, peer: Peer, task_id: str) -> None:
        nonlocal cuts
        await forget(exchange, peer, task_id)
        if cuts:
            cuts -= 1
            raise UnavailableError("WORKER_UNREACHABLE", "as when one of the two starts anew in between")

    monkeypatch.setattr(Exchange, "forget", cut_off)
    await street.ask(**behaviour)
    if "never" in behaviour.values():
        await street.until({"prepare": "PREPARING", "train": "TRAINING", "audit": "AUDITING"}[stage], progress=True)
        await move(street, "cancelled")
    job = await street.rest()
    assert job.state in (pb.TuningJob.STATE_FAILED, pb.TuningJob.STATE_CANCELLED) and cuts == 0
    (state,) = street.layout.root.glob(f"services/*-worker/spool/credit.first.{stage}.1/state.json")
    assert job.stage_seconds[stage] == json.loads(state.read_text())["meter"]["wall_ms"] / 1000 > 0
    took = {kind: job.stage_seconds.get(kind, 0.0) for kind in ("prepare", "train", "audit")}
    assert job.cost_usd_micros == 28 * (math.ceil(took["train"]) + math.ceil(took["prepare"] + took["audit"]))
    await street.ask("second")
    await street.until("QUEUED", SECOND)
    question = await street.app.store.fetch(lambda c: jobs.facts(c, SECOND)[INTAKE_QUESTION])
    reserved = 0 if stage == "prepare" else job.cost_usd_micros
    assert int(json.loads(question)["account"].get("unit_usd_micros", 0)) == reserved


async def test_a_task_that_somebody_else_ended_fails_its_job(street: Street) -> None:
    await street.ask(gate_train="never")
    await street.until("TRAINING", progress=True)
    await street.app.pipeline.office.train.client.cancel("credit.first.train.1")
    job = await street.rest()
    assert job.state == pb.TuningJob.STATE_FAILED and job.reason.startswith("TASK_CANCELLED")
