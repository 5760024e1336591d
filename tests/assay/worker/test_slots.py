"""The device slot and the queue before it: first come, first served, across processes; no dead waiter in the way."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from assay.worker.sandbox import _gpu_binds, cards_of
from assay.worker.slots import Slots

WAIT = """
import asyncio, sys
from pathlib import Path
from assay.worker.sandbox import cards_of
from assay.worker.slots import Slots

async def main(path, since, out, name):
    slots = Slots(Path(path), 1, poll_seconds=0.01)
    _, held = await slots.acquire(since)
    with open(out, "a") as file:
        file.write(name + "\\n")
    slots.release(held)

asyncio.run(main(*sys.argv[1:]))
"""


def at(second: int) -> str:
    return f"2026-01-01T00:00:{second:02d}.000Z"


def tickets(path: Path) -> list[Path]:
    return [p for p in path.with_name("slot.queue").iterdir() if not p.name.startswith(".")]


async def queued(path: Path, count: int) -> None:
    async with asyncio.timeout(60):
        while len(tickets(path)) != count:
            await asyncio.sleep(0.01)


@pytest.fixture
def waiters() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def waiter(path: Path, since: str, out: Path, name: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WAIT, str(path), since, str(out), name])


async def test_slots_are_counted_and_freed(tmp_path: Path) -> None:
    slots, others = (Slots(tmp_path / "slot", 2, poll_seconds=0.01) for _ in range(2))
    first, second = await slots.acquire(at(0)), await others.acquire(at(1))
    assert {first[0], second[0]} == {0, 1}
    waiting = asyncio.create_task(slots.acquire(at(2)))
    await queued(tmp_path / "slot", 1)
    assert not waiting.done()
    others.release(second[1])
    index, descriptor = await asyncio.wait_for(waiting, 60)
    assert index == second[0]
    slots.release(descriptor)
    slots.release(first[1])
    assert tickets(tmp_path / "slot") == []


async def test_who_came_first_goes_first_whoever_asks_again(tmp_path: Path) -> None:
    """A worker that frees the slot and has more to do stands behind the other worker's older task."""
    train, audit = (Slots(tmp_path / "slot", 1, poll_seconds=0.01) for _ in range(2))
    _, held = await train.acquire(at(0))
    order: list[str] = []

    async def turn(slots: Slots, since: str, name: str) -> None:
        _, mine = await slots.acquire(since)
        order.append(name)
        slots.release(mine)

    waiting = [asyncio.create_task(turn(train, at(9), "train again"))]
    await queued(tmp_path / "slot", 1)
    waiting += [asyncio.create_task(turn(audit, at(5), "audit")), asyncio.create_task(turn(audit, at(3), "prepare"))]
    await queued(tmp_path / "slot", 3)
    train.release(held)
    await asyncio.wait_for(asyncio.gather(*waiting), 60)
    assert order == ["prepare", "audit", "train again"]


async def test_the_order_holds_across_processes(tmp_path: Path, waiters: list[subprocess.Popen[bytes]]) -> None:
    path, out = tmp_path / "slot", tmp_path / "order"
    slots = Slots(path, 1, poll_seconds=0.01)
    _, held = await slots.acquire(at(0))
    for second in (4, 2, 3, 1):
        waiters.append(waiter(path, at(second), out, str(second)))
        await queued(path, len(waiters))
    slots.release(held)
    assert [await asyncio.to_thread(p.wait, 60) for p in waiters] == [0, 0, 0, 0]
    assert out.read_text().split() == ["1", "2", "3", "4"]


async def test_a_dead_waiter_blocks_nobody(tmp_path: Path, waiters: list[subprocess.Popen[bytes]]) -> None:
    path, out = tmp_path / "slot", tmp_path / "order"
    slots = Slots(path, 1, poll_seconds=0.01)
    _, held = await slots.acquire(at(0))
    waiters.append(waiter(path, at(1), out, "dead"))
    await queued(path, 1)
    waiters[0].kill()
    waiters[0].wait()
    assert len(tickets(path)) == 1  # it could not tidy up
    slots.release(held)
    _, again = await asyncio.wait_for(slots.acquire(at(2)), 60)
    slots.release(again)
    assert not out.exists() and tickets(path) == []


async def test_a_dead_holder_frees_its_slot(tmp_path: Path, waiters: list[subprocess.Popen[bytes]]) -> None:
    path, said = tmp_path / "slot", tmp_path / "held"
    hold = WAIT.replace("    slots.release(held)", "    import time; time.sleep(600)")
    process = subprocess.Popen([sys.executable, "-c", hold, str(path), at(0), str(said), "held"])
    waiters.append(process)
    async with asyncio.timeout(60):
        while not said.exists():
            await asyncio.sleep(0.01)
    slots = Slots(path, 1, poll_seconds=0.01)
    waiting = asyncio.create_task(slots.acquire(at(1)))
    await queued(path, 1)
    assert not waiting.done()
    process.kill()
    _, held = await asyncio.wait_for(waiting, 60)
    slots.release(held)


async def test_a_waiter_that_gives_up_leaves_no_ticket(tmp_path: Path) -> None:
    slots = Slots(tmp_path / "slot", 1, poll_seconds=0.01)
    _, held = await slots.acquire(at(0))
    waiting = asyncio.create_task(slots.acquire(at(1)))
    await queued(tmp_path / "slot", 1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert tickets(tmp_path / "slot") == []
    slots.release(held)


async def test_a_queue_that_was_removed_is_made_again(tmp_path: Path) -> None:
    slots = Slots(tmp_path / "slot", 1, poll_seconds=0.01)
    slots.release((await slots.acquire(at(0)))[1])
    shutil.rmtree(tmp_path / "slot.queue")
    slots.release((await slots.acquire(at(1)))[1])


async def test_a_ticket_that_cannot_be_removed_or_a_lock_that_cannot_be_had_keeps_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slots, before = Slots(tmp_path / "slot", 1, poll_seconds=0.01), len(os.listdir("/proc/self/fd"))

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    with monkeypatch.context() as broken:
        broken.setattr("assay.worker.slots.fcntl.flock", refuse)
        with pytest.raises(OSError, match="No locks"):
            await slots.acquire(at(0))
    assert len(os.listdir("/proc/self/fd")) == before
    with monkeypatch.context() as broken:
        broken.setattr(Path, "unlink", refuse)
        slots.release((await slots.acquire(at(0)))[1])
    assert len(os.listdir("/proc/self/fd")) == before and len(tickets(tmp_path / "slot")) == 1
    slots.release((await asyncio.wait_for(slots.acquire(at(1)), 60))[1])
    assert tickets(tmp_path / "slot") == []


@pytest.mark.parametrize(
    ("cards", "slots", "dealt"),
    [
        ((), 2, [(), ()]),
        ((0,), 1, [(0,)]),
        ((3,), 2, [(3,), (3,)]),
        ((0, 1, 2, 3), 1, [(0, 1, 2, 3)]),
        ((0, 1, 2, 10), 2, [(0, 2), (1, 10)]),
        ((0, 1), 3, [(0,), (1,), (0,)]),
    ],
)
def test_gpus_are_dealt_out_to_slots(tmp_path: Path, cards: tuple[int, ...], slots: int, dealt: list[tuple[int, ...]]):
    for name in (*(f"nvidia{n}" for n in cards), "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert [cards_of(slot, slots, tmp_path) for slot in range(slots)] == dealt


def test_a_task_is_shown_the_nodes_of_its_own_gpus_alone(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset", "kfd"):
        (tmp_path / name).touch()
    for name in ("dri/renderD128", "dri/renderD129", "nvidia-caps/nvidia-cap1"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    binds = _gpu_binds((1,), tmp_path)
    shown = [binds[at + 1] for at, word in enumerate(binds) if word == "--dev-bind-try"]
    assert shown == [str(tmp_path / name) for name in ("nvidia1", "nvidiactl", "nvidia-uvm", "nvidia-uvm-tools")]
    assert "/sys/devices" in binds
    assert _gpu_binds((), tmp_path) == [] == _gpu_binds((2,), tmp_path), "neither a driver nor /sys for nothing"
