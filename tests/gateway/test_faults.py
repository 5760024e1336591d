"""A fault in training that leaves a checkpoint: the job pauses with a record, and goes on or ends as its people say."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from typing import Any

import pytest

from assay.errors import ExhaustedError, InternalError, UnavailableError
from assay.v1 import tuning_job_pb2 as pb
from assay.worker.client import WorkerClient
from audit.ledger.records import read
from gateway.jobs.board import Board
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


@pytest.mark.parametrize("how", ["stopped", "killed"])
async def test_a_worker_that_stops_answering_pauses_the_job(impatient: None, street: Street, how: str) -> None:
    object.__setattr__(street.app.settings.limits, "worker_silence_seconds", 2)
    await street.ask(gate_train="go")
    await street.until("TRAINING", progress=True)
    process = street.workers.processes["train-worker"]
    if how == "stopped":
        os.kill(process.pid, signal.SIGSTOP)
    else:
        await street.workers.kill("train-worker")
    try:
        job = await asyncio.wait_for(street.until("PAUSED"), 60)
    finally:
        if how == "stopped":
            os.kill(process.pid, signal.SIGCONT)
    assert job.reason.startswith("WORKER_SILENT: the train worker has not answered for 2 s")
    assert street.types(NAME) == [*CLEAN[:4], "job.paused"]
    if how == "killed":
        await street.workers.start("train-worker")
    assert (await street.rest()).state == pb.TuningJob.STATE_PAUSED
    street.workers.open_gate("go")
    await resume(street)
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
