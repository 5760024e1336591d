"""A run done again: the same bits, other bits with what differs, and runs that cannot be repeated."""

from __future__ import annotations

import asyncio
import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from assay.errors import NotFoundError, PreconditionError, UnavailableError
from assay.v1 import erasure_pb2, policy_input_pb2
from assay.v1 import tuning_job_pb2 as pb
from assay.worker.client import WorkerClient
from gateway import lineage
from gateway.cli.replay import describe
from gateway.replays import Outcome, within
from gateway.statements import erasure_order_statement
from gateway.store import jobs, rows
from gateway.store.tables import ErasureRow
from tests.gateway.test_pipeline import NAME, Street, spooled, street
from tests.gateway.test_retention import Clock, clock

__all__ = ["clock", "street"]
REPLAYED = "training.replayed"


async def replay(street: Street, who: str = "vik", name: str = NAME) -> pb.Replay:
    """Follows a replay to its end."""
    calls = street.app.replays.replay_tuning_job(await street.caller(who), pb.ReplayTuningJobRequest(name=name))
    return [event async for event in calls][-1].replay


async def held(street: Street, place: str) -> tuple[asyncio.Task[pb.Replay], Path]:
    """A replay that waits at its gate on the worker, which has a file at ``place`` of the task's folder."""
    await street.ask(gate_train="go")
    await street.until("TRAINING", progress=True)
    street.workers.open_gate("go")
    await street.rest()
    (street.workers.gates / "go").unlink()
    again = asyncio.create_task(replay(street))
    there = street.layout.service("train-worker") / "spool" / "credit.first.replay.1" / place
    while not (there.is_dir() or (there.exists() and there.read_text())):
        await asyncio.sleep(0.05)
    return again, there


async def erase(street: Street, resource: str) -> None:
    """As an erasure leaves it; orders of people have tests of their own."""
    row = ErasureRow(resource=resource, unit="credit", reason_code="DATA_SUBJECT", order_index=1)
    await street.app.store.commit(lambda uow: rows.insert(uow.connection, row))


async def test_the_same_bits_are_reproduced_and_recorded(street: Street) -> None:
    await street.ask()
    job = await street.rest()
    first, second = await replay(street), await replay(street, "cora")
    assert first.verdict == second.verdict == pb.Replay.VERDICT_REPRODUCED, first
    assert (first.number, second.number) == (1, 2) and not first.differences
    assert first.adapter_sha256 == first.replayed_sha256
    assert street.types(NAME)[-2:] == [REPLAYED, REPLAYED]
    assert (await street.job()).state == job.state
    assert spooled(street) == []


@pytest.mark.parametrize(
    ("verdict", "differs", "before", "after", "near"),
    [
        ("DIFFERS", True, "1.5", "1.55", True),
        ("DIFFERS", True, "1.5", "1.551", False),
        ("DIFFERS", True, "1.5", "1.45", True),
        ("DIFFERS", True, "NaN", "1.5", False),
        ("DIFFERS", True, "1.5", "", False),
        ("DIFFERS", True, "", "1.5", False),
        ("DIFFERS", False, "1.5", "1.5", False),
        ("REPRODUCED", True, "1.5", "1.5", False),
    ],
)
def test_only_another_environment_has_a_tolerance(
    verdict: str, differs: bool, before: str, after: str, near: bool
) -> None:
    found = Outcome(verdict, validation_loss=after, differences=({"name": "threads"},) if differs else ())
    assert within(0.05, before, found) == near


async def test_rows_that_are_read_again_are_not_erased_and_at_their_end_the_replay_is(street: Street) -> None:
    """A call that was cut off leaves its task to the worker, which holds the rows."""
    again, files = await held(street, "in/files")
    again.cancel()
    await asyncio.gather(again, return_exceptions=True)
    cora, dataset = await street.caller("cora"), "units/credit/datasets/first"
    order = street.sign("cora", erasure_order_statement(dataset, "data-subject-request"))
    request = erasure_pb2.EraseResourceRequest(name=dataset, envelope=order)
    with pytest.raises(PreconditionError) as caught:
        await street.app.erasures.erase_resource(cora, request)
    assert caught.value.reason == "JOBS_UNDER_WAY" and "assay job replay" in caught.value.remedy
    assert files.exists()
    await street.app.pipeline.retention._stop_replays(dataset)
    assert spooled(street) == []
    assert (await street.app.erasures.erase_resource(cora, request)).erasure.blobs
    assert (await replay(street)).reason == "ERASED"


async def test_rows_whose_time_ends_while_a_replay_is_handed_in_reach_no_worker(
    clock: Clock, street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    await street.ask()
    await street.rest()
    submit, held, go = WorkerClient.submit, asyncio.Event(), asyncio.Event()

    async def slowly(client: WorkerClient, *what: Any) -> Any:
        held.set()
        await go.wait()
        return await submit(client, *what)

    monkeypatch.setattr(WorkerClient, "submit", slowly)
    again = asyncio.create_task(replay(street))
    await held.wait()
    clock.ahead = dt.timedelta(days=366)
    retention = street.app.pipeline.retention
    assert await retention.end() == [], "what was being handed in may arrive yet"
    go.set()
    for call in (again, replay(street)):
        with pytest.raises(PreconditionError) as caught:
            await call
        assert caught.value.reason == "RETENTION_OVER", "and nobody begins it again meanwhile"
    assert await retention.end() == ["units/credit/datasets/first"]
    assert spooled(street) == [] and REPLAYED not in street.types(NAME)
    assert not (street.layout.service("train-worker") / "spool" / "credit.first.replay.1").exists()


async def test_a_caller_who_reads_no_more_holds_up_no_erasure(clock: Clock, street: Street) -> None:
    """A call may last for days, and what was sent to it waits until it is read."""
    await street.ask()
    await street.rest()
    caller, request = await street.caller("vik"), pb.ReplayTuningJobRequest(name=NAME)
    calls = street.app.replays.replay_tuning_job(caller, request)
    assert (await anext(calls)).progress is not None
    clock.ahead = dt.timedelta(days=366)
    retention = street.app.pipeline.retention
    await retention.end()
    assert await retention.end() == ["units/credit/datasets/first"] and spooled(street) == []
    await calls.aclose()  # type: ignore[attr-defined]


async def test_other_bits_differ_and_what_changed_is_named(street: Street) -> None:
    await street.ask(claim={"validation_loss": "1.5"})
    await street.rest()
    street.workers.open_gate("drift")
    path = street.layout.service("train-worker") / "worker.toml"
    path.write_text(path.read_text() + 'cpu_isa = "AVX2"\n')
    await street.workers.kill("train-worker")
    await street.workers.start("train-worker")
    found = await replay(street)
    assert found.verdict == pb.Replay.VERDICT_DIFFERS and found.replayed_sha256 != found.adapter_sha256
    assert [(d.name, d.recorded, d.now) for d in found.differences] == [("ONEDNN_MAX_CPU_ISA", "default", "AVX2")]
    assert (found.within_tolerance, found.tolerance) == (True, "0.05")
    assert "  within the tolerance declared for another environment, 0.05 nats a token" in list(describe(found))


async def test_a_run_that_was_resumed_in_another_environment_is_known_as_one(street: Street) -> None:
    await street.ask(gate_train="go")
    await street.until("TRAINING", progress=True)
    rita = await street.caller("rita")
    await street.app.jobs.pause_tuning_job(rita, pb.PauseTuningJobRequest(name=NAME, reason="upgrade"))
    await street.rest()
    path = street.layout.service("train-worker") / "worker.toml"
    path.write_text(path.read_text() + 'cpu_isa = "AVX2"\n')
    await street.workers.kill("train-worker")
    await street.workers.start("train-worker")
    street.workers.open_gate("go")
    await street.app.jobs.resume_tuning_job(rita, pb.ResumeTuningJobRequest(name=NAME, reason="upgraded"))
    await street.rest()
    found = await replay(street)
    assert [(d.name, d.recorded, d.now) for d in found.differences] == [("environments", "2", "1")]


async def test_a_replay_that_was_resumed_in_another_environment_is_known_as_one(street: Street) -> None:
    again, _ = await held(street, "work/environments")
    path = street.layout.service("train-worker") / "worker.toml"
    path.write_text(path.read_text() + 'cpu_isa = "AVX2"\n')
    await street.workers.kill("train-worker")
    with pytest.raises(UnavailableError):
        await again
    await street.workers.start("train-worker")
    street.workers.open_gate("go")
    found = await replay(street)
    assert found.number == 1
    assert ("environments", "1", "2") in [(d.name, d.recorded, d.now) for d in found.differences]


async def test_two_who_ask_at_once_follow_one_replay(street: Street) -> None:
    await street.ask(gate_train="go")
    await street.until("TRAINING", progress=True)
    street.workers.open_gate("go")
    await street.rest()
    first, second = await asyncio.gather(replay(street), replay(street, "cora"))
    assert first == second and street.types(NAME).count(REPLAYED) == 1


async def test_a_call_that_is_cut_off_leaves_the_task_for_the_next(street: Street) -> None:
    await street.ask(gate_train="go")
    await street.until("TRAINING", progress=True)
    street.workers.open_gate("go")
    await street.rest()
    (street.workers.gates / "go").unlink()
    calls = street.app.replays.replay_tuning_job(await street.caller("vik"), pb.ReplayTuningJobRequest(name=NAME))
    async for event in calls:
        if event.progress.step:
            break
    await calls.aclose()  # type: ignore[attr-defined]
    street.workers.open_gate("go")
    found = await replay(street)
    assert found.verdict == pb.Replay.VERDICT_REPRODUCED and found.number == 1


async def test_rows_that_are_gone_cannot_be_replayed(street: Street) -> None:
    await street.ask()
    await street.rest()
    known = await street.app.store.fetch(lambda c: jobs.facts(c, NAME))
    street.app.blobs.delete("credit", known["prepare.train.jsonl"])
    found = await replay(street)
    assert (found.verdict, found.reason) == (pb.Replay.VERDICT_NOT_REPLAYABLE, "BUNDLE_ABSENT")
    assert found.replayed_sha256 == "" and street.types(NAME)[-1] == REPLAYED


async def test_a_search_is_replayed_with_the_rows_that_decided_between_its_trials(street: Street) -> None:
    search, once = policy_input_pb2.Search(learning_rates=[1e-4, 2e-4]), pb.Hyperparameters(epochs=1)
    await street.ask(asked={"search": search, "hyperparameters": once})
    await street.rest()
    assert (await replay(street)).verdict == pb.Replay.VERDICT_REPRODUCED
    known = await street.app.store.fetch(lambda c: jobs.facts(c, NAME))
    street.app.blobs.delete("credit", known["prepare.selection.jsonl"])
    assert (await replay(street)).reason == "BUNDLE_ABSENT"


async def test_erased_rows_cannot_be_trained_on_again(street: Street) -> None:
    await street.ask()
    await street.rest()
    await erase(street, "units/credit/datasets/first")
    found = await replay(street)
    assert (found.verdict, found.reason) == (pb.Replay.VERDICT_NOT_REPLAYABLE, "ERASED")


async def test_a_run_whose_start_is_gone_cannot_be_replayed(street: Street) -> None:
    """A run that went on from a model needs that model's adapter, and what an erasure took from it stays taken."""
    await street.ask()
    first = await street.rest()
    await street.approve(NAME)
    await street.ask("second", asked={"parent_model": first.model})
    second = await street.rest("units/credit/tuningJobs/second")
    assert (await replay(street, name=second.name)).verdict == pb.Replay.VERDICT_REPRODUCED
    files = await street.app.store.fetch(lambda c: lineage.files_of(c, first.model))
    street.app.blobs.delete("credit", next(iter(files.values())))
    assert (await replay(street, name=second.name)).reason == "BUNDLE_ABSENT"
    await erase(street, NAME)
    assert (await replay(street, name=second.name)).reason == "ERASED"


async def test_a_private_run_cannot_be_replayed(street: Street) -> None:
    """Its noise is nobody's to know again."""
    asked = {
        "differential_privacy": policy_input_pb2.DifferentialPrivacy(noise_multiplier=1.1, delta=0.00001),
        "hyperparameters": pb.Hyperparameters(epochs=1.5, batch_size=16),
    }
    await street.ask(asked=asked)
    await street.rest()
    found = await replay(street)
    assert (found.verdict, found.reason) == (pb.Replay.VERDICT_NOT_REPLAYABLE, "DIFFERENTIAL_PRIVACY")


@pytest.mark.parametrize(("who", "error"), [("carl", NotFoundError), ("vik", PreconditionError)])
async def test_what_is_not_trained_or_not_ones_own(street: Street, who: str, error: Any) -> None:
    await street.ask(gate_prepare="never")
    name = NAME if who == "vik" else NAME.replace("credit", "claims")
    with pytest.raises(error):
        await replay(street, who, name)
