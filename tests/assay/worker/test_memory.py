"""What ends a task when the machine's memory is nearly used up: how much is kept, and whose task goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay.worker import memory
from assay.worker.memory import MemoryWatch
from assay.worker.meter import tree
from assay.worker.spool import State

from .conftest import House, ended, submit, until

GIB = 1 << 30


class Machine:
    """Memory as the kernel tells it, moved by a test: using a real machine's up would end more than the test."""

    def __init__(self, folder: Path, total: int = 100 * GIB) -> None:
        self.path, self._total = folder / "meminfo", total
        self.holds(available=total * 9 // 10, own=total // 20)

    def holds(self, *, available: int, own: int) -> None:
        """``own`` is private memory of processes; what is neither that nor available is no process's own."""
        told = {"MemTotal": self._total, "MemAvailable": available, "AnonPages": own}
        partial = self.path.with_suffix(".part")
        partial.write_text("".join(f"{name + ':':<16}{size >> 10:>8} kB\n" for name, size in told.items()))
        partial.rename(self.path)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(tmp_path)
    monkeypatch.setattr(memory, "MEMINFO", machine.path)
    return machine


def looks(watch: MemoryWatch, rss_bytes: int, most: int = 1000) -> int:
    """How often a task of so much resident memory is looked at until it must end; 0 where it need not."""
    return next((n for n in range(1, most + 1) if watch.verdict(rss_bytes)), 0)


@pytest.mark.parametrize(
    ("total", "at_start", "reserve"),
    [(20 * GIB, 18 * GIB, 1 * GIB), (1000 * GIB, 900 * GIB, 4 * GIB), (20 * GIB, 1 * GIB, GIB // 2)],
)
def test_a_small_part_of_the_machine_stays_available(
    total: int, at_start: int, reserve: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(tmp_path, total)
    monkeypatch.setattr(memory, "MEMINFO", machine.path)
    machine.holds(available=at_start, own=0)
    watch = MemoryWatch()
    machine.holds(available=reserve, own=total - reserve)
    assert looks(watch, total) == 0
    machine.holds(available=reserve - 1024, own=total - reserve)
    assert watch.verdict(total + 1).startswith("TASK_MEMORY: the machine's memory is nearly used up")


def test_what_no_process_maps_ends_the_task_that_may_hold_it(machine: Machine) -> None:
    watch = MemoryWatch()
    machine.holds(available=3 * GIB, own=5 * GIB)
    assert 0 < looks(watch, 60 << 20) <= 2


def test_a_small_task_is_left_alone_where_others_took_the_memory(machine: Machine) -> None:
    machine.holds(available=50 * GIB, own=5 * GIB)
    watch = MemoryWatch()
    machine.holds(available=1 * GIB, own=54 * GIB)
    assert looks(watch, 1 * GIB) == 0
    assert looks(watch, 5 * GIB) > 0


def test_of_several_tasks_the_largest_goes_first_and_the_others_once_that_was_not_enough(machine: Machine) -> None:
    large, small, patient = MemoryWatch(), MemoryWatch(), MemoryWatch()
    machine.holds(available=3 * GIB, own=92 * GIB)
    assert (looks(large, 60 * GIB), looks(small, 7 * GIB)) == (2, 15)
    assert looks(patient, 20 * GIB, most=5) == 0
    machine.holds(available=63 * GIB, own=32 * GIB)
    assert patient.verdict(20 * GIB) == ""
    machine.holds(available=3 * GIB, own=92 * GIB)
    assert looks(patient, 20 * GIB) == 6, "what was borne before there was enough again does not count"


@pytest.mark.isolation
async def test_where_memory_runs_out_at_once_the_kernel_ends_a_task_first(house: House) -> None:
    supervisor = house.supervisor()
    await supervisor.start()
    (house.models / "go-0").touch()
    await submit(supervisor, "t1", "prepare", house.seal("t1", "prepare", {"steps": 2, "gate": "go"}))
    await until(lambda: supervisor.get("t1").progress.step > 0)
    sandbox = supervisor.get("t1").record.sandbox
    assert sandbox is not None
    found = {p: Path(f"/proc/{p.pid}/oom_score_adj").read_text() for p in tree(sandbox[0])}
    await supervisor.cancel("t1")
    await supervisor.stop()
    assert len(found) >= 2 and set(found.values()) == {"1000\n"}


@pytest.mark.isolation
async def test_a_sandbox_ends_before_the_machines_memory_does(house: House, machine: Machine) -> None:
    supervisor = house.supervisor(limits=house.settings().limits.model_copy(update={"wall_seconds": 20}))
    await supervisor.start()
    (house.models / "go-0").touch()
    await submit(supervisor, "t1", "prepare", house.seal("t1", "prepare", {"steps": 2, "gate": "go"}))
    await until(lambda: supervisor.get("t1").progress.step > 0)
    machine.holds(available=3 * GIB, own=5 * GIB)
    record = (await ended(supervisor, "t1")).record
    await supervisor.stop()
    assert record.state is State.FAILED
    assert record.reason.startswith("TASK_MEMORY: the machine's memory is nearly used up")
