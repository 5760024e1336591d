"""A real worker process, killed with SIGKILL in every state and started again."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import assay
from assay import bundle
from assay.v1 import worker_pb2 as pb
from assay.worker.client import WorkerClient

from .conftest import House

pytestmark = pytest.mark.isolation
SCRIPT = Path(__file__).parent / "worker_process.py"


class Process:
    """A worker process and a gateway's client of it."""

    def __init__(self, house: House, process: asyncio.subprocess.Process, client: WorkerClient) -> None:
        self.house, self.process, self.client = house, process, client

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()

    async def submit(self, task_id: str, order: dict[str, Any]) -> pb.Task:
        path = self.house.root / f"{task_id}.bin"
        if not path.exists():
            path.write_bytes(self.house.seal(task_id, "audit", order))
        return await self.client.submit(task_id, pb.TASK_KIND_AUDIT, path)

    async def until(self, task_id: str, state: pb.TaskState, step: int = 0) -> pb.Task:
        async for task in self.client.watch(task_id, timeout=60):
            if task.state == state and task.progress.step >= step:
                return task
        raise AssertionError(f"{task_id} ended as {pb.TaskState.Name(task.state)}: {task.reason}")


@asynccontextmanager
async def running(house: House) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(SCRIPT),
        str(house.folder),
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(assay.__file__).parent.parent), *sys.path])},
    )
    assert process.stderr is not None
    facts: dict[str, Any] = {}
    while facts.get("message") != "worker serves":
        line = await asyncio.wait_for(process.stderr.readline(), 60)
        assert line, "the worker did not start"
        facts = json.loads(line)
    client = WorkerClient(f"127.0.0.1:{facts['port']}", house.tls().channel_credentials())
    drain = asyncio.create_task(process.stderr.read())
    try:
        yield Process(house, process, client)
    finally:
        await client.close()
        if process.returncode is None:
            process.terminate()
            await asyncio.wait_for(process.wait(), 30)
        await drain


def sandbox_pid(house: House, task_id: str) -> int:
    state = json.loads((house.folder / "spool" / task_id / "state.json").read_text())
    return int(state["sandbox"][0])


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def check_result(worker: Process, task_id: str, trace: list[str]) -> pb.Task:
    done = await worker.until(task_id, pb.TASK_STATE_DONE)
    house = worker.house
    path = house.root / f"{task_id}.result"
    digest = await worker.client.fetch(task_id, path, expected_sha256=done.result_sha256)
    assert digest == done.result_sha256
    with path.open("rb") as stream:
        bundle.unseal(
            stream, house.sealing, house.keys().statement.public_key(), house.root / task_id, max_bytes=1 << 30
        )
    assert json.loads((house.root / task_id / "seen.json").read_text())["trace"] == trace
    return done


async def test_killed_while_waiting(house: House) -> None:
    slot = os.open(house.root / "slot", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(slot, fcntl.LOCK_EX)
    async with running(house) as worker:
        assert (await worker.submit("t1", {"steps": 1})).state == pb.TASK_STATE_WAITING
        await worker.kill()
    os.close(slot)
    async with running(house) as worker:
        assert (await check_result(worker, "t1", ["0"])).attempts == 1


async def test_killed_while_running_goes_on_from_the_checkpoint(house: House) -> None:
    (house.models / "go-0").touch()
    async with running(house) as worker:
        await worker.submit("t1", {"steps": 3, "gate": "go"})
        await worker.until("t1", pb.TASK_STATE_RUNNING, step=1)
        pid = sandbox_pid(house, "t1")
        assert alive(pid)
        await worker.kill()
        # No orphan goes on computing: the sandbox dies with its worker.
        for _ in range(500):
            if not alive(pid):
                break
            await asyncio.sleep(0.02)
        assert not alive(pid)
    assert (house.folder / "spool" / "t1" / "in" / "files" / "dataset").exists()
    for step in (1, 2):
        (house.models / f"go-{step}").touch()
    async with running(house) as worker:
        done = await check_result(worker, "t1", ["0", "1", "2"])
        assert done.attempts == 2
    assert not (house.folder / "spool" / "t1" / "in").exists()


async def test_a_pause_asked_for_before_the_kill_is_kept(house: House) -> None:
    (house.models / "go-0").touch()
    async with running(house) as worker:
        await worker.submit("t1", {"steps": 2, "gate": "go"})
        await worker.until("t1", pb.TASK_STATE_RUNNING, step=1)
        # The sandbox is stopped so that the pause cannot happen before the kill.
        os.kill(sandbox_pid(house, "t1"), signal.SIGSTOP)
        await worker.client.pause("t1")
        await worker.kill()
    (house.models / "go-1").touch()
    async with running(house) as worker:
        tasks = (await worker.client.describe()).tasks
        assert tasks[0].state in (pb.TASK_STATE_PAUSED, pb.TASK_STATE_WAITING, pb.TASK_STATE_RUNNING)
        assert tasks[0].state == pb.TASK_STATE_PAUSED
        await worker.client.resume("t1")
        await check_result(worker, "t1", ["0", "1"])


async def test_killed_when_done_keeps_the_result_until_released(house: House) -> None:
    async with running(house) as worker:
        await worker.submit("t1", {"steps": 1})
        first = await worker.until("t1", pb.TASK_STATE_DONE)
        await worker.kill()
    async with running(house) as worker:
        again = await check_result(worker, "t1", ["0"])
        assert (again.result_sha256, again.attempts) == (first.result_sha256, 1)
        await worker.client.release("t1")
        await worker.kill()
    async with running(house) as worker:
        tombstone = await worker.submit("t1", {"steps": 1})
        assert tombstone.state == pb.TASK_STATE_DONE
        assert tombstone.result_sha256 == first.result_sha256
        assert list((await worker.client.describe()).tasks) == []


async def test_sigterm_ends_it_with_status_zero(house: House) -> None:
    async with running(house) as worker:
        await worker.submit("t1", {"steps": 1, "gate": "never"})
        await worker.until("t1", pb.TASK_STATE_RUNNING)
        worker.process.terminate()
        assert await asyncio.wait_for(worker.process.wait(), 30) == 0
    state = json.loads((house.folder / "spool" / "t1" / "state.json").read_text())
    assert state["state"] == "WAITING"


async def test_a_second_worker_on_the_same_folder_ends_nothing(house: House) -> None:
    """It must not take a running attempt for one that a crash left."""
    (house.models / "go-0").touch()
    async with running(house) as worker:
        await worker.submit("t1", {"steps": 2, "gate": "go"})
        await worker.until("t1", pb.TASK_STATE_RUNNING, step=1)
        command = [sys.executable, "-m", "assay.worker", "--dir", str(house.folder)]
        there = {**os.environ, "PYTHONPATH": str(Path(assay.__file__).parent.parent)}
        second = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE, env=there)
        _, said = await asyncio.wait_for(second.communicate(), 60)
        assert second.returncode == 78 and b"WORKER_RUNS" in said
        (house.models / "go-1").touch()
        assert (await check_result(worker, "t1", ["0", "1"])).attempts == 1


async def test_a_worker_in_an_environment_that_no_statement_holds_does_not_start(house: House) -> None:
    for number in range(600):
        place = house.root / "site" / f"a_package_{number}-1.0.dist-info"
        place.mkdir(parents=True)
        (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: a-package-{number}\nVersion: 1.0\n")
    command = [sys.executable, "-m", "assay.worker", "--dir", str(house.folder)]
    path = os.pathsep.join([str(Path(assay.__file__).parent.parent), str(house.root / "site")])
    worker = await asyncio.create_subprocess_exec(
        *command, stderr=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
    )
    _, said = await asyncio.wait_for(worker.communicate(), 60)
    assert worker.returncode == 78 and b"ENVIRONMENT_TOO_LARGE" in said and b"remedy: " in said
