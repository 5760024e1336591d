"""A fault in training that leaves a checkpoint: the job pauses with a record, and goes on or ends as its people say."""

from __future__ import annotations

import asyncio
import errno
import math
import os
import shutil
import signal
from datetime import timedelta
from typing import Any

import pytest

from assay.errors import ExhaustedError, InternalError, InvalidInputError, UnavailableError
from assay.v1 import tuning_job_pb2 as pb
from assay.worker.client import WorkerClient
from audit.ledger.records import read
from gateway.jobs.board import Board
from gateway.store import jobs
from tests.gateway.test_pipeline import CLEAN, NAME, Street, spooled, street
from tests.gateway.test_replays import replay

__all__ = ["street"]
pytestmark = pytest.mark.isolation
REASONS = {
    "memory": "TASK_MEMORY: memory ran out; remedy: give the worker more memory,",
    "nan": "LOSS_NOT_FINITE: the loss of step 8 is no number; remedy: lower the learning rate",
    "base": "BASE_MODEL_CHANGED: the base model is not the one that was decided on",
}


async def resume(street: Street) -> None:
    asked = pb.ResumeTuningJobRequest(name=NAME, reason="mended")
    await street.app.jobs.resume_tuning_job(await street.caller("rita"), asked)


@pytest.mark.parametrize("fault", REASONS)
async def test_a_fault_pauses_the_job_with_a_record_and_the_requester_lets_it_go_on(street: Street, fault: str) -> None:
    await street.ask(train=fault)
    job = await street.rest()
    assert job.state == pb.TuningJob.STATE_PAUSED
    assert job.reason.startswith(REASONS[fault]) and job.reason.endswith("; the checkpoint of step 7 is kept")
    assert street.types(NAME) == [*CLEAN[:4], "job.paused"]
    last = street.app.ledger.records("credit", NAME, -1, 99)[-1]
    assert read(last.body).predicate["transition"]["reason"] == job.reason
    assert "work" in spooled(street) and "task.bin" in spooled(street)
    street.workers.open_gate("mended")
    await resume(street)
    assert (await street.rest()).state == pb.TuningJob.STATE_AWAITING_APPROVAL
    assert street.types(NAME) == [*CLEAN[:4], "job.paused", "job.resumed", *CLEAN[4:]]
    assert spooled(street) == []


async def test_the_fault_pauses_again_where_nothing_was_mended_and_a_cancelled_job_leaves_nothing(
    street: Street,
) -> None:
    await street.ask(train="disk")
    await street.rest()
    await resume(street)
    job = await street.rest()
    # The tiny task makes its folder once; the second attempt finds it there.
    assert job.state == pb.TuningJob.STATE_PAUSED and job.reason.startswith("TASK_CRASHED")
    rita = await street.caller("rita")
    await street.app.jobs.cancel_tuning_job(rita, pb.CancelTuningJobRequest(name=NAME, reason="not needed"))
    assert (await street.rest()).state == pb.TuningJob.STATE_CANCELLED
    assert spooled(street) == []


async def test_a_replay_that_faults_says_so_and_leaves_nothing(street: Street) -> None:
    street.workers.open_gate("mended")
    await street.ask(train="memory")
    await street.rest()
    (street.workers.gates / "mended").unlink()
    found = await replay(street)
    assert (found.verdict, found.reason) == (pb.Replay.VERDICT_NOT_REPLAYABLE, "TASK_MEMORY")
    assert spooled(street) == []


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that pings its workers every second, and does not wait long for a connection."""
    options = {
        "grpc.keepalive_time_ms": 1_000,
        "grpc.keepalive_timeout_ms": 1_000,
        "grpc.http2.ping_timeout_ms": 1_000,
        "grpc.http2.max_pings_without_data": 0,
        "grpc.min_reconnect_backoff_ms": 1_000,
    }
    monkeypatch.setattr("assay.worker.client._KEEPALIVE", tuple(options.items()))
    monkeypatch.setattr("assay.worker.client._UNARY_SECONDS", 2.0)
    monkeypatch.setattr("gateway.admission.exchange._QUIET_SECONDS", 2.0)


@pytest.mark.parametrize("how", ["stopped", "killed", "stuck"])
async def test_a_worker_that_stops_answering_pauses_the_job(impatient: None, street: Street, how: str) -> None:
    object.__setattr__(street.app.settings.limits, "worker_silence_seconds", 2)
    await street.ask(gate_train="go")
    await street.until("TRAINING", progress=True)
    process = street.workers.processes["train-worker"]
    if how == "stopped":
        os.kill(process.pid, signal.SIGSTOP)
    elif how == "stuck":
        os.kill(process.pid, signal.SIGUSR1)
    else:
        await street.workers.kill("train-worker")
    try:
        job = await asyncio.wait_for(street.until("PAUSED"), 60)
    finally:
        if how == "stopped":
            os.kill(process.pid, signal.SIGCONT)
        street.workers.open_gate("stir")
    assert job.reason.startswith("WORKER_SILENT: the train worker has not answered for 2 s")
    assert street.types(NAME) == [*CLEAN[:4], "job.paused"]
    if how == "killed":
        await street.workers.start("train-worker")
    assert (await street.rest()).state == pb.TuningJob.STATE_PAUSED
    street.workers.open_gate("go")
    await resume(street)
    assert (await street.rest()).state == pb.TuningJob.STATE_AWAITING_APPROVAL


async def test_while_the_train_worker_is_away_jobs_stay_queued_and_nobody_has_to_let_them_go_on(
    impatient: None, street: Street
) -> None:
    object.__setattr__(street.app.settings.limits, "worker_silence_seconds", 1)
    await street.workers.kill("train-worker")
    names = [await street.ask(), await street.ask("second")]
    for name in names:
        await street.until("QUEUED", name)
    await asyncio.sleep(5.0)
    for name in names:
        assert street.types(name) == CLEAN[:3], "no leave to train is signed that nobody can take"
    assert any(["has not answered" in (await street.job(name)).progress.message for name in names])
    await street.workers.start("train-worker")
    for name in names:
        assert (await street.rest(name)).state == pb.TuningJob.STATE_AWAITING_APPROVAL


async def test_what_a_worker_computed_and_lost_counts_for_the_cap_and_the_bill(
    impatient: None, street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.admission.training._NOTE_SECONDS", 0.2)
    await street.ask(gate_train="go")
    await street.until("TRAINING", progress=True)
    prepared = math.ceil((await street.job()).stage_seconds["prepare"])
    while (noted := (await street.job()).cost_usd_micros) < 28 * (prepared + 3):
        await asyncio.sleep(0.1)
    await street.workers.kill("train-worker")
    shutil.rmtree(street.layout.service("train-worker") / "spool")
    street.workers.open_gate("go")
    await street.workers.start("train-worker")
    job = await street.rest()
    took = dict(job.stage_seconds)
    assert job.state == pb.TuningJob.STATE_AWAITING_APPROVAL and took["train_lost"] >= 3.0 > took["train"]
    spent = math.ceil(took["train"] + took["train_lost"]) + math.ceil(took["prepare"] + took["audit"])
    assert job.cost_usd_micros == 28 * spent > noted


@pytest.mark.parametrize("stage", ["prepare", "audit"])
async def test_a_machine_that_had_no_room_costs_a_job_nothing_but_time(street: Street, stage: str) -> None:
    await street.ask(full=stage)
    async with asyncio.timeout(30):
        while f"again.{stage}.1" not in await street.app.store.fetch(lambda c: jobs.facts(c, NAME)):
            await asyncio.sleep(0.05)
    street.workers.open_gate("mended")
    assert (await street.rest()).state == pb.TuningJob.STATE_AWAITING_APPROVAL
    assert street.types(NAME) == CLEAN and spooled(street) == []


async def test_a_machine_that_never_has_room_ends_a_job_after_a_few_tries(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.admission.pipeline._MAX_ATTEMPTS", 2)
    await street.ask(full="audit")
    job = await street.rest()
    assert job.state == pb.TuningJob.STATE_FAILED
    assert job.reason == "DISK_FULL: the disk is full; remedy: free space on the worker's disk"
    assert spooled(street) == []


async def test_a_result_waits_for_room_on_the_gateways_disk(street: Street, monkeypatch: pytest.MonkeyPatch) -> None:
    await street.ask(gate_train="go")
    await street.until("TRAINING", progress=True)
    monkeypatch.setattr("gateway.store.disk.RESERVE_BYTES", 1 << 60)
    street.workers.open_gate("go")
    async with asyncio.timeout(60):
        while "waiting: DISK_FULL: the gateway's disk has no more" not in (await street.job()).progress.message:
            await asyncio.sleep(0.1)
    monkeypatch.undo()
    assert (await street.rest()).state == pb.TuningJob.STATE_AWAITING_APPROVAL


@pytest.mark.parametrize(("state", "stage"), [("PREPARING", "prepare"), ("AUDITING", "audit")])
async def test_a_job_waits_for_an_audit_worker_that_does_not_answer_and_says_so(
    impatient: None, street: Street, state: str, stage: str
) -> None:
    object.__setattr__(street.app.settings.limits, "worker_silence_seconds", 1)
    gate: dict[str, Any] = {f"gate_{stage}": "go"}
    await street.ask(**gate)
    await street.until(state, progress=True)
    await street.workers.kill("audit-worker")

    async def told() -> str:
        while "has not answered" not in (job := await street.job()).progress.message:
            await asyncio.sleep(0.2)
        assert job.progress.stage == stage
        return job.progress.message

    message = await asyncio.wait_for(told(), 120)
    assert message.startswith("the worker has not answered for ")
    await street.workers.start("audit-worker")
    street.workers.open_gate("go")
    assert (await street.rest()).state == pb.TuningJob.STATE_AWAITING_APPROVAL
    assert street.types(NAME) == CLEAN, "waiting leaves nothing in the ledger"


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("method", "error", "times", "shown"),
    [
        ("submit", UnavailableError("DISK_FULL", "the worker's disk is full", remedy="free space"), 8, "the worker's"),
        ("submit", FULL, 8, "the gateway's"),
        ("fetch", FULL, 8, "the gateway's"),
        ("submit", ExhaustedError("LEDGER_BUSY", "too many units of work wait for the ledger"), 8, "LEDGER_BUSY"),
        ("submit", InvalidInputError("UNKNOWN_FIELDS", "the worker's release is older"), 8, "UNKNOWN_FIELDS"),
        ("submit", InternalError("WORKER_FAULT", "the worker failed: OSError"), 1, ""),
    ],
)
async def test_what_passes_costs_a_trained_job_nothing_but_time(
    street: Street, monkeypatch: pytest.MonkeyPatch, method: str, error: Exception, times: int, shown: str
) -> None:
    call, report, left, messages = getattr(WorkerClient, method), Board.report, times, list[str]()

    def heard(board: Board, job: str, progress: pb.Progress) -> None:
        messages.append(progress.message)
        report(board, job, progress)

    async def failing(client: WorkerClient, task_id: str, *rest: Any, **more: Any) -> Any:
        nonlocal left
        if left and task_id.endswith(".audit.1"):
            left -= 1
            raise error
        return await call(client, task_id, *rest, **more)

    monkeypatch.setattr(WorkerClient, method, failing)
    monkeypatch.setattr(Board, "report", heard)
    monkeypatch.setattr("gateway.admission.pipeline._FULL", timedelta(seconds=1))
    await street.ask()
    assert (await street.rest()).state == pb.TuningJob.STATE_AWAITING_APPROVAL
    assert left == 0 and any(shown in message for message in messages)
    assert street.types(NAME) == CLEAN, "waiting leaves nothing in the ledger"


@pytest.mark.parametrize("reason", ["TASK_TOO_LARGE", "BUNDLE_TOO_LARGE"])
async def test_what_does_not_pass_fails_the_job_with_its_remedy(
    street: Street, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    async def refuse(*_: Any, **__: Any) -> None:
        raise ExhaustedError(reason, "it is larger than what is taken", remedy="send less")

    monkeypatch.setattr(WorkerClient, "submit", refuse)
    await street.ask()
    job = await asyncio.wait_for(street.rest(), 20)
    assert job.state == pb.TuningJob.STATE_FAILED
    assert job.reason == f"{reason}: it is larger than what is taken; remedy: send less"
    assert street.types(NAME) == [*CLEAN[:2], "job.failed"]
