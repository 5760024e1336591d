"""The gateway's side of one worker: what a quiet or stuck worker does to it, its threads, and its room on disk."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from assay.errors import NotFoundError, UnavailableError
from assay.v1 import worker_pb2
from assay.worker import disk as worker_disk
from assay.worker import memory
from gateway.admission import exchange as module
from gateway.admission.exchange import Ended, Exchange, Peer, Task
from gateway.admission.office import _NO_ROOM
from gateway.replays import _show
from gateway.store.blobs import put_bytes
from tests.gateway.conftest import House

JOB = "units/credit/tuningJobs/first"
WAITING = worker_pb2.Task(task_id="t", state=worker_pb2.TASK_STATE_WAITING)
DONE = worker_pb2.Task(task_id="t", state=worker_pb2.TASK_STATE_DONE)


@dataclass
class Quiet:
    """A worker that says one thing of a task, then nothing until ``go``; and answers when it is asked, or does not."""

    alive: bool = True
    knows: bool = True
    go: asyncio.Event = field(default_factory=asyncio.Event)
    asked: int = 0
    half: bytes = b"half"

    async def describe(self) -> worker_pb2.Worker:
        self.asked += 1
        if not self.alive:
            raise UnavailableError("WORKER_UNREACHABLE", "the worker does not answer: DEADLINE_EXCEEDED")
        return worker_pb2.Worker()

    async def resume(self, task_id: str) -> worker_pb2.Task:
        return WAITING

    async def watch(self, task_id: str) -> AsyncIterator[worker_pb2.Task]:
        if not self.knows:
            raise NotFoundError("TASK_UNKNOWN", "this worker holds no such task")
        yield WAITING
        await self.go.wait()
        yield DONE

    async def submit(self, task_id: str, kind: Any, sealed: Path) -> worker_pb2.Task:
        await self.go.wait()
        self.knows = True
        return WAITING

    async def fetch(self, task_id: str, into: Path, *, expected_sha256: str = "") -> str:
        into.write_bytes(self.half)
        await self.go.wait()
        return ""


def peer(worker: Any) -> Peer:
    return Peer(worker, X25519PrivateKey.generate().public_key(), Ed25519PrivateKey.generate().public_key())


def task(**blobs: str) -> Task:
    return Task("t", "train", JOB, "credit", {}, {}, blobs)


async def look(_: worker_pb2.Task) -> None:
    """Nobody moves the job."""


@pytest.fixture
def swift(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.02)
    monkeypatch.setattr(module, "_QUIET_SECONDS", 0.1)


def exchange_of(house: House) -> Exchange:
    return house.app.replays.office.exchange


async def test_a_task_that_is_quiet_for_long_is_no_worker_that_stands_still(swift: None, house: House) -> None:
    worker, board = Quiet(), house.app.board
    following = asyncio.create_task(exchange_of(house).follow(peer(worker), task(), look))
    while worker.asked < 3:
        await asyncio.sleep(0.02)
    assert not following.done() and board.silent_seconds(JOB) < 1.0
    worker.go.set()
    assert (await following).done


@pytest.mark.parametrize("where", ["watch", "submit", "fetch"])
async def test_a_worker_that_stands_still_is_noticed_wherever_it_is_waited_for(
    swift: None, house: House, where: str
) -> None:
    worker, exchange = Quiet(alive=False, knows=where != "submit"), exchange_of(house)
    with pytest.raises(UnavailableError) as caught:
        async with asyncio.timeout(10):
            if where == "fetch":
                async with exchange.result(peer(worker), task(), Ended(DONE), look):
                    pytest.fail("there is no result")
            await exchange.follow(peer(worker), task(), look)
    assert caught.value.reason == "WORKER_UNREACHABLE" and worker.asked == 1
    assert list((house.app.settings.data / "blobs" / "tmp").iterdir()) == []


async def test_tasks_that_are_sealed_take_no_thread_that_calls_read_with(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, exchange, worker = threading.Event(), exchange_of(house), Quiet()
    worker.go.set()
    monkeypatch.setattr(Exchange, "_seal", lambda *_: go.wait(30) and Path("sealed"))
    handed = [asyncio.create_task(exchange._submit(peer(worker), task())) for _ in range(40)]
    await asyncio.sleep(0.1)
    try:
        assert await asyncio.wait_for(house.app.store.fetch(lambda _: "read"), 5) == "read"
    finally:
        go.set()
    await asyncio.gather(*handed)


async def test_a_folder_stays_as_long_as_a_thread_writes_to_it(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is cut off while it is sealed must leave no rows in the clear."""
    begun, go, exchange = threading.Event(), threading.Event(), exchange_of(house)

    def seal(_: Exchange, peer: Peer, task: Task, scratch: Path) -> Path:
        begun.set()
        go.wait(30)
        (scratch / "plain").write_bytes(b"rows")
        return scratch / "plain"

    monkeypatch.setattr(Exchange, "_seal", seal)
    handing = asyncio.create_task(exchange._submit(peer(Quiet()), task()))
    while not begun.is_set():
        await asyncio.sleep(0.01)
    handing.cancel()
    await asyncio.sleep(0.1)
    assert not handing.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await handing
    assert list((house.app.settings.data / "blobs" / "tmp").iterdir()) == []


async def test_a_result_that_cannot_be_opened_beside_itself_is_not_fetched_to_its_end(
    swift: None, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be fetched again whole at every try."""
    free = worker_disk.RESERVE_BYTES + (1 << 20)
    monkeypatch.setattr("gateway.store.disk.shutil.disk_usage", lambda _: type("Usage", (), {"free": free}))
    with pytest.raises(UnavailableError) as caught:
        async with exchange_of(house).result(peer(Quiet(half=bytes(1 << 21))), task(), Ended(DONE), look):
            pytest.fail("there is no room for it")
    assert caught.value.reason == "DISK_FULL"


async def test_nothing_is_sealed_or_fetched_that_would_take_the_disks_reserve(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 1 << 20
    blob = put_bytes(house.app.blobs, "credit", bytes(size))
    free = worker_disk.RESERVE_BYTES + 2 * size + (1 << 16)
    monkeypatch.setattr("gateway.store.disk.shutil.disk_usage", lambda _: type("Usage", (), {"free": free}))
    exchange, folder = exchange_of(house), tmp_path / "scratch"
    folder.mkdir()
    assert exchange._seal(peer(Quiet()), task(a=blob.sha256), folder).exists()
    (folder / "sealed.bin").unlink()
    free -= 1 << 17
    with pytest.raises(UnavailableError) as caught:
        exchange._seal(peer(Quiet()), task(a=blob.sha256), folder)
    assert caught.value.reason == "DISK_FULL" and list(folder.iterdir()) == []
    free = worker_disk.RESERVE_BYTES - 1
    with pytest.raises(UnavailableError):
        async with exchange.result(peer(Quiet()), task(), Ended(DONE), look):
            pytest.fail("there is no room for it")


def test_what_a_machine_has_no_room_for_is_known_by_its_workers_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(bytes(1 << 16))
    disk = worker_disk.DiskWatch([tmp_path], 1)
    assert disk.verdict() and not disk.verdict().startswith(_NO_ROOM), "its own limit"
    monkeypatch.setattr(worker_disk, "_free", lambda _: 0)
    assert disk.verdict().startswith(_NO_ROOM)
    looks = iter([(100, 80, 0), (100, 1, 90), (100, 1, 90), (100, 1, 90)])
    monkeypatch.setattr(memory, "_look", lambda: next(looks))
    low = memory.MemoryWatch()
    assert any(low.verdict(90).startswith(_NO_ROOM) for _ in range(3))


def test_a_caller_who_reads_nothing_is_kept_the_newest_alone() -> None:
    shown: asyncio.Queue[worker_pb2.Task | None] = asyncio.Queue(1)
    for number in range(5000):
        _show(shown, worker_pb2.Task(attempts=number))
    assert shown.qsize() == 1 and cast(worker_pb2.Task, shown.get_nowait()).attempts == 4999
