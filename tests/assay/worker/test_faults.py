"""A fault in a train task that has a whole checkpoint is a named pause, and the task goes on once it is mended."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest

from assay import sealed_file
from assay.worker.attempt import _Deafness, _LogDrain, _Silence
from assay.worker.kept import after_fault, newest
from assay.worker.spool import State, TaskRecord
from trainer.recipes.checkpoints import RunState

from .conftest import House, ended, submit, until

pytestmark = pytest.mark.isolation
ROWS = {"train.jsonl": b"{}\n", "validation.jsonl": b"{}\n"}
KEPT = "; the checkpoint of step 2 is kept"
FAULTS = {
    "nan": "LOSS_NOT_FINITE: the loss is not a finite number; remedy: lower the learning rate",
    "disk full": "DISK_FULL: there is no room for the checkpoint; remedy: free space",
    "disk": "TASK_DISK: the task wrote more than it may",
    "memory": "TASK_MEMORY: the task used more memory than it may",
    "torch": "TASK_MEMORY: memory ran out; remedy: give the worker more memory, or ask for shorter rows",
    "silent": "TASK_SILENT: the task neither spoke nor computed for 2 s",
    "time": "TASK_TIMEOUT: the task ran longer than it may",
    "killed": "TASK_CRASHED: the task was ended by signal 9",
}


def limits(house: House, fault: str) -> Any:
    changes = {
        "memory": {"memory_bytes": 200 << 20},
        "disk": {"disk_bytes": 32 << 20},
        "torch": {"data_bytes": 8 << 30},
        "silent": {"silent_seconds": 2},
        "time": {"wall_seconds": 6},
    }
    return house.settings().limits.model_copy(update=changes.get(fault, {}))


def sealed(house: House, fault: str) -> bytes:
    order = house.work_order(ROWS, steps=4, fault=fault, fault_at=2)
    return house.seal("t1", "train", order, dict(ROWS))


def held(house: House) -> set[str]:
    return set(os.listdir(house.folder / "spool" / "t1"))


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_after_a_checkpoint_pauses_and_what_is_mended_goes_on(house: House, fault: str) -> None:
    supervisor = house.supervisor(limits=limits(house, fault))
    await supervisor.start()
    await submit(supervisor, "t1", "train", sealed(house, fault))
    record = (await ended(supervisor, "t1")).record
    assert (record.state, record.reason) == (State.PAUSED, FAULTS[fault] + KEPT)
    assert held(house) == {"state.json", "task.bin", "work", "log.txt"}
    await supervisor.stop()

    (house.models / "mended").touch()
    supervisor = house.supervisor()
    await supervisor.start()
    assert supervisor.get("t1").record == record, "a restart changes nothing"
    assert held(house) == {"state.json", "task.bin", "work", "log.txt"}
    assert supervisor.resume("t1").record.reason == ""
    record = (await ended(supervisor, "t1")).record
    assert (record.state, record.reason, record.attempts) == (State.DONE, "", 2)
    house.open_result(supervisor, "t1", house.root / "result")
    await supervisor.stop()
    assert json.loads((house.root / "result" / "seen.json").read_text())["trace"] == ["0", "1", "2", "3"]


@pytest.mark.parametrize("fault", ["token cap", "long head", "damaged", "hostile"])
async def test_without_a_whole_checkpoint_or_a_way_on_the_task_fails_and_nothing_stays(
    house: House, fault: str
) -> None:
    supervisor = house.supervisor()
    await supervisor.start()
    await submit(supervisor, "t1", "train", sealed(house, fault))
    record = (await ended(supervisor, "t1")).record
    code = {"token cap": "TOKEN_CAP", "long head": "SEALED_FILE_HEAD"}.get(fault, "LOSS_NOT_FINITE")
    assert record.state is State.FAILED and record.reason.startswith(code) and "is kept" not in record.reason
    # Its end is told before its sealed task is cleared away.
    await supervisor.stop()
    assert held(house) == {"state.json", "log.txt"}


async def test_an_environment_that_no_statement_holds_is_refused_before_anything_is_trained(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("assay.provenance.MAX_PACKAGES", 100)
    supervisor = house.supervisor()
    await supervisor.start()
    await submit(supervisor, "t1", "train", sealed(house, "nan"))
    await submit(supervisor, "t2", "prepare", house.seal("t2", "prepare", {}))
    record = (await ended(supervisor, "t1")).record
    assert record.state is State.FAILED and record.reason.startswith("ENVIRONMENT_TOO_LARGE: ")
    assert record.meter.wall_ms == 0
    assert (await ended(supervisor, "t2")).record.state is State.DONE, "whose statement lists no packages"
    await supervisor.stop()


async def test_a_task_that_faulted_can_be_cancelled_and_leaves_nothing(house: House) -> None:
    supervisor = house.supervisor()
    await supervisor.start()
    await submit(supervisor, "t1", "train", sealed(house, "nan"))
    assert (await ended(supervisor, "t1")).record.state is State.PAUSED
    assert (await supervisor.cancel("t1")).record.state is State.CANCELLED
    assert held(house) == {"state.json"}
    await supervisor.stop()


async def test_only_training_is_paused_by_a_fault(house: House) -> None:
    supervisor = house.supervisor()
    await supervisor.start()
    order = {"steps": 4, "fault": "nan", "fault_at": 2}
    await submit(supervisor, "t1", "prepare", house.seal("t1", "prepare", order))
    assert (await ended(supervisor, "t1")).record.state is State.FAILED
    # Its end is told before its sealed task is cleared away.
    await supervisor.stop()
    assert held(house) == {"state.json", "log.txt"}


async def test_interruptions_without_end_pause_too_and_count_anew_after_that(house: House) -> None:
    supervisor = house.supervisor()
    await supervisor.start()
    await submit(supervisor, "t1", "train", sealed(house, "nan"))
    await ended(supervisor, "t1")
    await supervisor.stop()
    path = house.folder / "spool" / "t1" / "state.json"
    state = json.loads(path.read_text())
    path.write_text(json.dumps({**state, "state": "WAITING", "reason": "", "interruptions": 6}))
    supervisor = house.supervisor()
    await supervisor.start()
    record = (await ended(supervisor, "t1")).record
    assert record.state is State.PAUSED
    assert record.reason == f"TOO_MANY_INTERRUPTIONS: the worker died again and again in this task{KEPT}"
    (house.models / "mended").touch()
    supervisor.resume("t1")
    assert (await ended(supervisor, "t1")).record.state is State.DONE
    await supervisor.stop()


CONTROL = Path("/sys/fs/cgroup")
LITTLE = 128 << 20
V1 = {"memory.limit_in_bytes": LITTLE, "memory.memsw.limit_in_bytes": LITTLE}
V2 = {"memory.max": LITTLE, "memory.swap.max": 0}
"""Files of a control group: of memory, and of swap, which not every kernel accounts for."""


def make_group(place: Path, limits: dict[str, int]) -> None:
    place.mkdir()
    memory, swap = limits
    try:
        (place / memory).write_text(str(limits[memory]))
        if (place / swap).exists():
            (place / swap).write_text(str(limits[swap]))
    except OSError:
        place.rmdir()
        raise


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group of little memory; skipped aloud where none can be made."""
    # Where both versions are mounted, one of them alone has the controller.
    switch = CONTROL / "cgroup.subtree_control"
    second = switch.exists() and "memory" in switch.read_text().split()
    place = (CONTROL if second else CONTROL / "memory") / f"assay-test-{os.getpid()}"
    try:
        make_group(place, V2 if second else V1)
    except OSError as error:
        pytest.skip(f"THE KERNEL'S KILL FOR MEMORY NOT TESTED: no control group for it can be made here ({error})")
    yield place
    place.rmdir()


@pytest.mark.parametrize("fault", ["kernel", "rank"])
async def test_what_the_kernel_kills_for_want_of_memory_is_named(house: House, group: Path, fault: str) -> None:
    supervisor = house.supervisor()
    await supervisor.start()
    await submit(supervisor, "t1", "train", sealed(house, fault))
    await until(lambda: supervisor.get("t1").progress.message == "waiting to be limited")
    sandbox = supervisor.get("t1").record.sandbox
    assert sandbox is not None
    for process in psutil.Process(sandbox[0]).children(recursive=True):
        (group / "cgroup.procs").write_text(str(process.pid))
    (house.models / "hoard").touch()
    record = (await ended(supervisor, "t1")).record
    await supervisor.stop()
    assert record.state is State.PAUSED
    assert record.reason == f"TASK_MEMORY: the kernel killed the task because memory ran out{KEPT}"


def test_silence_counts_only_while_somebody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("assay.worker.attempt.time.monotonic", lambda: clock[0])

    def looks(silence: _Silence, seconds: float, every: float, cpu_ms: float = 0.0) -> bool:
        found = False
        for _ in range(round(seconds / every)):
            clock[0] += every
            found = silence.too_long(round(cpu_ms * clock[0])) or found
        return found

    assert not looks(_Silence(10), 9.9, 0.25) and looks(_Silence(10), 10.5, 0.25)
    assert not looks(_Silence(10), 4000, 1000), "the worker itself was away"
    assert not looks(_Silence(10), 60, 0.25, cpu_ms=50), "it computes"
    assert not looks(_Silence(0), 60, 0.25), "switched off"
    spoken = _Silence(10)
    assert not looks(spoken, 9, 0.25)
    spoken.broken()
    assert not looks(spoken, 9, 0.25) and looks(spoken, 2, 0.25)


def test_a_pause_is_enforced_by_looked_at_time_and_may_be_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, flag = [0.0], tmp_path / "pause"
    monkeypatch.setattr("assay.worker.attempt.time.monotonic", lambda: clock[0])

    def looks(deafness: _Deafness, seconds: float, every: float) -> bool:
        found = False
        for _ in range(round(seconds / every)):
            clock[0] += every
            found = deafness.too_long() or found
        return found

    deafness = _Deafness(flag, 10)
    assert not looks(deafness, 60, 0.25), "nobody asked"
    flag.touch()
    assert not looks(deafness, 9.5, 0.25)
    flag.unlink()
    assert not looks(deafness, 60, 0.25), "it was taken back"
    flag.touch()
    assert not looks(deafness, 9.5, 0.25) and looks(deafness, 1, 0.25)
    assert not looks(_Deafness(flag, 10), 4000, 1000), "the worker itself was away"


async def test_who_ignores_a_pause_is_ended_and_goes_on_from_its_checkpoint(house: House) -> None:
    supervisor = house.supervisor(limits=house.settings().limits.model_copy(update={"pause_seconds": 1}))
    await supervisor.start()
    await submit(supervisor, "t1", "train", sealed(house, "deaf"))
    await until(lambda: supervisor.get("t1").progress.message == "not listening")
    supervisor.pause("t1")
    paused = (await ended(supervisor, "t1")).record
    words = "TASK_PAUSE_IGNORED: the task went on for 1 s after it was to pause"
    assert (paused.state, paused.reason) == (State.PAUSED, words + KEPT)
    assert paused.meter.wall_ms >= 1000, "what it took until then counts"
    (house.models / "mended").touch()
    supervisor.resume("t1")
    record = (await ended(supervisor, "t1")).record
    assert (record.state, record.attempts) == (State.DONE, 2) and record.meter.wall_ms > paused.meter.wall_ms
    await supervisor.stop()


def test_a_reason_stays_within_what_a_record_takes() -> None:
    record = TaskRecord("t", "train", State.RUNNING, "", "", "", "", "", 1)
    reason = after_fault(record, "X: " + "y" * 5000, 7)
    assert len(reason) <= 2000 and reason.endswith("; the checkpoint of step 7 is kept")
    assert after_fault(record, "TASK_CANCELLED: ended on request", 7) == after_fault(record, "X: y", 0) == ""


def test_of_a_head_only_the_beginning_is_read(tmp_path: Path) -> None:
    """Parsed, what a hostile task wrote there may take twenty times its length of the supervisor's memory."""
    key, path = bytes(32), tmp_path / "checkpoints" / "step-00000007"
    path.parent.mkdir()

    def step(head: bytes) -> int:
        sealed_file.write(path, head, b"", key)
        return newest(tmp_path, key)

    state = asdict(RunState("f" * 64, step=7, seconds=1.5, curve=[(1, 0.5)]))
    assert step(json.dumps(state).encode()) == step(b'{"step": 7}') == step(b'{"step": 7, "curve": [[[[[') == 7
    for value in (b"0", b'"7"', b"7.5", b"-7", b"1" * 17, b"null", b"7"[:0]):
        assert step(b'{"step": %s}' % value) == 0
    assert step(b"") == step(b"[]") == step(b'{"a": {"step": 7}}') == 0
    assert step(b'{"a": "%s", "step": 7}' % (b"x" * 5000)) == 0


def test_a_checkpoint_of_a_trial_is_one_to_go_on_from(tmp_path: Path) -> None:
    key = bytes(32)

    def put(name: str, step: object) -> Path:
        path = tmp_path / "checkpoints" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        sealed_file.write(path, json.dumps({"step": step}).encode(), b"", key)
        return path

    folder = tmp_path / "checkpoints"
    put("trials", 9)
    (folder / "trial-09").symlink_to(tmp_path)
    put("../step-00000007", 7)
    assert newest(tmp_path, key) == 0, "neither the list of trials nor what a link leads to"
    put("trial-01/step-00000004", 4)
    last = put("trial-02/step-00000002", 2)
    assert newest(tmp_path, key) == 2
    last.write_bytes(last.read_bytes()[:-1])
    assert newest(tmp_path, key) == 4


async def test_a_log_that_the_disk_does_not_take_ends_nothing() -> None:
    ours, theirs = os.pipe()
    drain = _LogDrain(os.fdopen(ours, "rb"), Path("/dev/full"), 1 << 20)
    os.write(theirs, b"words")
    await asyncio.sleep(0.05)
    os.write(theirs, b"last words")
    os.close(theirs)
    drain.close()
