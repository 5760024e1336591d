"""What the Ray engine makes of a cluster's and a supervisor's faults; nodes are real, the job service is a small one.

The contract of every engine, and a real cluster, are in test_engines.py.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

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


async def at_step(supervisor: Supervisor, step: int) -> None:
    await until(lambda: supervisor.get("t1").progress.step >= step)


async def state(supervisor: Supervisor, wanted: State) -> None:
    await until(lambda: supervisor.get("t1").record.state is wanted)


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


async def paused_at_two(house: House, supervisor: Supervisor) -> None:
    """Starts the supervisor with a task that is paused at its checkpoint of step 2."""
    await supervisor.start()
    await submit(supervisor, "t1", "train", train(house))
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
