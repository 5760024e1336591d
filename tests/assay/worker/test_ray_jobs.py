"""What the Ray engine makes of a cluster's and a supervisor's faults; nodes are real, the job service is a small one.

The contract of every engine, and a real cluster, are in test_engines.py.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from assay import dsse, provenance
from assay.identity import write_secret
from assay.worker import exchange
from assay.worker.settings import RaySettings
from assay.worker.spool import State
from assay.worker.supervisor import Supervisor

from .conftest import House, ended, submit, until
from .job_service import JobService

pytestmark = pytest.mark.isolation

NODE = (sys.executable, str(Path(__file__).parent / "node_process.py"))
ROWS = {"train.jsonl": b"{}\n", "validation.jsonl": b"{}\n"}
KEPT = "; the checkpoint of step 2 is kept"


@pytest.fixture
def service() -> Iterator[JobService]:
    service = JobService()
    yield service
    service.close()


def worker(house: House, service: JobService, heartbeat: float = 60.0, **changes: Any) -> Supervisor:
    token = house.folder / "ray-token.key"
    if not token.exists():
        write_secret(token, service.token.encode())
    ray = RaySettings(
        address=service.address,
        token_file=token,
        exchange=house.root / "exchange",
        node_dir=house.folder,
        command=NODE,
        poll_seconds=0.05,
        heartbeat_seconds=heartbeat,
    )
    return house.supervisor(ray=ray, **changes)


def train(house: House, steps: int = 3, **order: Any) -> bytes:
    """A task that seals a checkpoint after each step and stops before those whose gate is shut."""
    order = house.work_order(ROWS, steps=steps, gate="go", **{"fault": "nan", "fault_at": 99, **order})
    return house.seal("t1", "train", order, dict(ROWS))


def open_gate(house: House, *steps: int) -> None:
    for step in steps:
        (house.models / f"go-{step}").touch()


def keep_often(house: House) -> None:
    toml = house.folder / "worker.toml"
    toml.write_text(f"keep_seconds = 0.2\n{toml.read_text()}")


def kept_step(house: House) -> int:
    """Step of the checkpoint that lies in the exchange; 0 for none."""
    try:
        with (house.root / "exchange" / "t1" / exchange.WORK).open("rb") as stream:
            return int(exchange.read_work(stream, "t1", house.keys())["step"])
    except FileNotFoundError:
        return 0


async def at_step(supervisor: Supervisor, step: int) -> None:
    await until(lambda: supervisor.get("t1").progress.step >= step)


async def state(supervisor: Supervisor, wanted: State) -> None:
    await until(lambda: supervisor.get("t1").record.state is wanted)


async def metered(supervisor: Supervisor) -> None:
    await until(lambda: supervisor.get("t1").record.meter.wall_ms > 0)


def kill(supervisor: Supervisor) -> None:
    """As ``kill -9``: nothing is asked of the job, and the spool says what it said."""
    for runner in supervisor._runners:
        runner.cancel()


def trace(house: House, supervisor: Supervisor) -> list[str]:
    house.open_result(supervisor, "t1", house.root / "result")
    return list(json.loads((house.root / "result" / "seen.json").read_text())["trace"])


async def test_lost_nodes_do_not_cost_an_earlier_checkpoint(house: House, service: JobService) -> None:
    supervisor = worker(house, service, max_interruptions=0)
    await paused_at_two(house, supervisor)
    supervisor.resume("t1")
    await until(lambda: (house.root / "exchange" / "t1" / "2" / exchange.BEAT).exists())
    service.lose()
    record = (await ended(supervisor, "t1")).record
    assert record.state is State.PAUSED
    assert record.reason.startswith("TOO_MANY_INTERRUPTIONS") and record.reason.endswith(KEPT)
    await goes_on_from_two(house, supervisor)


async def test_a_node_that_dies_takes_no_checkpoint_with_it_that_was_kept(house: House, service: JobService) -> None:
    keep_often(house)
    supervisor = worker(house, service)
    await supervisor.start()
    await submit(supervisor, "t1", "train", train(house))
    open_gate(house, 0, 1)
    await at_step(supervisor, 2)
    await until(lambda: kept_step(house) == 2)
    await asyncio.sleep(1.0)  # what was written after the step that was just linked is kept by the next look
    service.lose()
    for step in (0, 1):
        (house.models / f"go-{step}").unlink()
    open_gate(house, 2)
    record = (await ended(supervisor, "t1")).record
    assert record.state is State.DONE, record.reason
    assert (record.attempts, record.interruptions) == (2, 1)
    assert trace(house, supervisor) == ["0", "1", "2"]
    await supervisor.stop()


async def test_what_cannot_be_kept_disturbs_no_training(house: House, service: JobService) -> None:
    keep_often(house)
    supervisor = worker(house, service)
    await supervisor.start()
    await submit(supervisor, "t1", "train", train(house))
    open_gate(house, 0)
    await until(lambda: kept_step(house) == 1)
    await asyncio.sleep(1.0)
    (house.root / "exchange" / "t1" / exchange.WORK).unlink()
    (house.root / "exchange" / "t1" / exchange.WORK).mkdir()  # no file can take its place
    open_gate(house, 1)
    await at_step(supervisor, 2)
    await asyncio.sleep(1.0)
    open_gate(house, 2)
    record = (await ended(supervisor, "t1")).record
    assert (record.state, record.attempts) == (State.DONE, 1), record.reason
    await supervisor.stop()


async def test_a_node_that_cannot_run_a_task_does_not_cost_its_checkpoint(house: House, service: JobService) -> None:
    supervisor = worker(house, service)
    await paused_at_two(house, supervisor)
    known = (house.folder / "gateway.pub").read_text()
    (house.folder / "gateway.pub").write_text(json.dumps({**json.loads(known), "permit_key": "00" * 32}))
    supervisor.resume("t1")
    record = (await ended(supervisor, "t1")).record
    assert record.state is State.PAUSED
    assert record.reason.startswith("BUNDLE_SIGNATURE") and record.reason.endswith(KEPT)
    (house.folder / "gateway.pub").write_text(known)
    await goes_on_from_two(house, supervisor)


async def test_a_checkpoint_larger_than_any_sealed_task_is_kept_and_opens_again(
    house: House, service: JobService
) -> None:
    toml = house.folder / "worker.toml"
    toml.write_text(f"max_task_bytes = {1 << 16}\n{toml.read_text()}")
    supervisor = worker(house, service)
    await paused_at_two(house, supervisor, tensors=10_000)
    assert (house.root / "exchange" / "t1" / exchange.WORK).stat().st_size > 1 << 17
    known = (house.folder / "gateway.pub").read_text()
    (house.folder / "gateway.pub").write_text(json.dumps({**json.loads(known), "permit_key": "00" * 32}))
    supervisor.resume("t1")
    record = (await ended(supervisor, "t1")).record
    assert record.reason.startswith("BUNDLE_SIGNATURE") and record.reason.endswith(KEPT)
    (house.folder / "gateway.pub").write_text(known)
    await goes_on_from_two(house, supervisor)


async def test_a_checkpoint_that_this_worker_did_not_seal_is_none(house: House, service: JobService) -> None:
    supervisor = worker(house, service)
    await paused_at_two(house, supervisor)
    work = house.root / "exchange" / "t1" / exchange.WORK
    sealed = bytearray(work.read_bytes())
    sealed[-1] ^= 1
    work.write_bytes(sealed)
    supervisor.resume("t1")
    record = (await ended(supervisor, "t1")).record
    assert record.state is State.FAILED and record.reason.startswith("BUNDLE_SIGNATURE")
    await supervisor.stop()


async def paused_at_two(house: House, supervisor: Supervisor, **order: Any) -> None:
    """Starts the supervisor with a task that is paused at its checkpoint of step 2."""
    await supervisor.start()
    await submit(supervisor, "t1", "train", train(house, **order))
    open_gate(house, 0, 1)
    await at_step(supervisor, 2)
    supervisor.pause("t1")
    await state(supervisor, State.PAUSED)


async def goes_on_from_two(house: House, supervisor: Supervisor) -> None:
    open_gate(house, 2)
    supervisor.resume("t1")
    last = await ended(supervisor, "t1")
    assert last.record.state is State.DONE, last.record.reason
    assert trace(house, supervisor) == ["0", "1", "2"]
    await supervisor.stop()


async def test_each_try_is_counted_once_however_often_its_supervisor_starts(house: House, service: JobService) -> None:
    began = time.monotonic()
    supervisor = worker(house, service)
    await supervisor.start()
    await submit(supervisor, "t1", "train", train(house))
    open_gate(house, 0, 1)
    for _ in range(2):
        await metered(supervisor)
        kill(supervisor)
        supervisor = worker(house, service)
        await supervisor.start()
    await at_step(supervisor, 2)
    supervisor.pause("t1")
    await state(supervisor, State.PAUSED)
    first, second = (house.root / "exchange" / "t1" / name for name in ("1", "2"))
    took = (exchange.read(first / exchange.END) or {})["meter"]
    assert took["wall_ms"] > 0 and asdict(supervisor.get("t1").record.meter) == took
    supervisor.resume("t1")
    await until((second / exchange.RECORD).exists)
    assert (exchange.read(second / exchange.RECORD) or {})["meter"] == took, "what the second try goes on from"
    open_gate(house, 2)
    last = await ended(supervisor, "t1")
    house.open_result(supervisor, "t1", house.root / "result")
    envelope = json.loads((house.root / "result" / "statement.json").read_bytes())
    verified = dsse.verify_service(envelope, house.keys().statement.public_key())
    meter = provenance.read_training(verified.statement)["meter"]
    assert took["wall_ms"] < meter["wall_ms"] == last.record.meter.wall_ms < 1000 * (time.monotonic() - began)
    assert meter["attempts"] == last.record.attempts == 2
    await supervisor.stop()


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_service_that_is_not_up_yet_is_asked_again(house: House, service: JobService, status: int) -> None:
    service.answers = status
    supervisor = worker(house, service)
    await supervisor.start()
    await submit(supervisor, "t1", "train", train(house))
    await asyncio.sleep(0.5)
    assert supervisor.get("t1").record.state is State.WAITING
    service.answers = 0
    open_gate(house, 0, 1, 2)
    last = await ended(supervisor, "t1")
    assert (last.record.state, last.record.attempts) == (State.DONE, 1), last.record.reason
    await supervisor.stop()


@pytest.mark.parametrize("gently", [False, True])
async def test_a_supervisor_that_starts_again_interrupts_nothing(
    house: House, service: JobService, gently: bool
) -> None:
    supervisor = worker(house, service, max_interruptions=0)
    await supervisor.start()
    await submit(supervisor, "t1", "train", train(house))
    open_gate(house, 0)
    for step in (1, 2):
        await at_step(supervisor, step)
        if gently:
            await supervisor.stop()
        else:
            kill(supervisor)
        supervisor = worker(house, service, max_interruptions=0)
        await supervisor.start()
        open_gate(house, step)
    record = (await ended(supervisor, "t1")).record
    assert record.state is State.DONE, record.reason
    assert (record.attempts, record.interruptions, len(service.submitted)) == (1, 0, 1)
    assert trace(house, supervisor) == ["0", "1", "2"]
    await supervisor.stop()


async def test_what_was_asked_for_and_what_happened_while_nobody_looked_is_found(
    house: House, service: JobService
) -> None:
    service.full = True
    supervisor = worker(house, service)
    await supervisor.start()
    await submit(supervisor, "t1", "train", train(house, fault_at=2))
    await until(lambda: bool(service.submitted))
    supervisor.pause("t1")
    kill(supervisor)
    supervisor = worker(house, service)
    await supervisor.start()
    service.full = False
    service.place()
    await state(supervisor, State.PAUSED)
    assert supervisor.get("t1").record.reason == ""

    supervisor.resume("t1")
    await state(supervisor, State.RUNNING)
    kill(supervisor)
    open_gate(house, 0, 1)
    await until((house.root / "exchange" / "t1" / "2" / exchange.END).exists)
    supervisor = worker(house, service)
    await supervisor.start()
    record = (await ended(supervisor, "t1")).record
    assert record.state is State.PAUSED and record.reason.startswith("LOSS_NOT_FINITE"), "its fault is told"
    (house.models / "mended").touch()
    await goes_on_from_two(house, supervisor)


async def test_a_task_left_by_an_earlier_life_can_be_cancelled(house: House, service: JobService) -> None:
    supervisor = worker(house, service)
    await supervisor.start()
    await submit(supervisor, "t1", "train", train(house))
    open_gate(house, 0)
    await at_step(supervisor, 1)
    kill(supervisor)
    supervisor = worker(house, service)
    await supervisor.start()
    assert (await supervisor.cancel("t1")).record.state is State.CANCELLED
    assert list((house.root / "exchange").iterdir()) == []
    await supervisor.stop()


async def test_a_job_that_the_cluster_stops_is_tried_again_from_its_checkpoint(
    house: House, service: JobService
) -> None:
    supervisor = worker(house, service)
    await supervisor.start()
    await submit(supervisor, "t1", "train", train(house))
    open_gate(house, 0, 1)
    await at_step(supervisor, 2)
    service.terminate()
    open_gate(house, 2)
    record = (await ended(supervisor, "t1")).record
    assert record.state is State.DONE, record.reason
    assert (record.attempts, record.interruptions) == (2, 1)
    assert trace(house, supervisor) == ["0", "1", "2"]
    await supervisor.stop()


async def test_only_what_has_a_place_runs_for_those_who_watch(house: House, service: JobService) -> None:
    service.full = True
    slot = os.open(house.root / "slot", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(slot, fcntl.LOCK_EX)
    supervisor = worker(house, service, heartbeat=5.0)
    await supervisor.start()
    seen = asyncio.create_task(states(supervisor))
    await submit(supervisor, "t1", "train", train(house))
    await until(lambda: bool(service.submitted))
    service.place()
    beat = house.root / "exchange" / "t1" / "1" / exchange.BEAT
    await until(lambda: (exchange.read(beat) or {}).get("n", 0) > 1)
    assert supervisor.get("t1").record.state is State.WAITING, "on its node, whose device another task has"
    os.close(slot)
    open_gate(house, 0)
    await at_step(supervisor, 1)
    assert supervisor.get("t1").record.state is State.RUNNING

    # The head is away and the node is silent: whether it runs is not known, so it is not said.
    service.answers = 503
    service.lose()
    await state(supervisor, State.WAITING)
    service.answers = 0
    await until(lambda: len(service.submitted) == 2)
    service.full = False
    service.place()
    open_gate(house, 1, 2)
    record = (await ended(supervisor, "t1")).record
    assert (record.state, record.interruptions) == (State.DONE, 1), record.reason
    assert await seen == ["WAITING", "RUNNING", "WAITING", "RUNNING", "DONE"]
    await supervisor.stop()


async def states(supervisor: Supervisor) -> list[str]:
    """The states of the task as a watcher sees them, each once."""
    found: list[str] = []
    await until(lambda: bool(supervisor.tasks()))
    async for snapshot in supervisor.watch("t1"):
        if found[-1:] != [str(snapshot.record.state)]:
            found.append(str(snapshot.record.state))
    return found
