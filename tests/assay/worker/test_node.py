"""A node by itself: one try in the exchange, run by the process that a Ray job would start."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

import assay
from assay import bundle
from assay.worker import exchange, node
from assay.worker.engine import Ended
from assay.worker.folders import walk
from assay.worker.spool import Spool, State, TaskRecord

from .conftest import JOB, House

pytestmark = pytest.mark.isolation

HERE = Path(__file__).parent


def lay_out(house: House, **changes: Any) -> Path:
    """A try of a task that does two steps; returns its folder."""
    attempt = house.root / "exchange" / "t1" / "1"
    attempt.mkdir(parents=True)
    (attempt.parent / exchange.TASK).write_bytes(house.seal("t1", "prepare", {"steps": 2}))
    facts = {"task_id": "t1", "kind": "prepare", "state": State.RUNNING, "sha256": "0" * 64}
    facts |= {"manifest_sha256": "0" * 64, "job": JOB, "unit": "credit", "accepted": "2026-01-01T00:00:00Z"}
    record = TaskRecord(**{**facts, "sequence": 1, "attempts": 1, **changes})
    exchange.publish(attempt / exchange.RECORD, asdict(record))
    return attempt


def run_node(house: House, attempt: Path, program: str = "node_process.py") -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(HERE / program), str(house.folder), str(attempt)],
        env={"PYTHONPATH": str(Path(assay.__file__).parent.parent), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    end = json.loads((attempt / exchange.END).read_text())
    assert list((house.folder / "node-spool").iterdir()) == []
    return dict(end)


def test_a_try_leaves_a_sealed_result_and_its_end(house: House) -> None:
    attempt = lay_out(house)
    end = run_node(house, attempt)
    assert (end["kind"], end["reason"]) == ("done", "")
    assert (attempt / exchange.RESULT).stat().st_size > 1000
    assert exchange.read(attempt / exchange.BEAT)


def test_a_try_that_nests_folders_leaves_nothing_of_them(house: House) -> None:
    attempt = lay_out(house)
    (attempt.parent / exchange.TASK).write_bytes(house.seal("t1", "prepare", {"behaviour": "nest"}))
    end = run_node(house, attempt)
    assert (end["kind"], end["reason"].partition(":")[0]) == ("failed", "TASK_DISK")


@pytest.mark.parametrize("changes", [{"job": "units/other/tuningJobs/j2"}, {"unit": "other"}, {"task_id": "t2"}])
def test_a_record_that_says_other_than_the_sealed_task_is_not_believed(house: House, changes: dict[str, str]) -> None:
    end = run_node(house, lay_out(house, **changes))
    assert end["kind"] == "failed"
    assert end["reason"].startswith("TASK_BINDING:")


def test_a_cancelled_try_never_opens_its_inputs(house: House) -> None:
    attempt = lay_out(house)
    (attempt / exchange.CANCEL).touch()
    end = run_node(house, attempt)
    assert (end["kind"], end["reason"]) == ("failed", "TASK_CANCELLED: ended on request")


def test_a_try_paused_before_it_began_is_paused_with_an_empty_checkpoint(house: House) -> None:
    attempt = lay_out(house)
    (attempt / exchange.PAUSE).touch()
    assert run_node(house, attempt)["kind"] == "paused"
    (attempt / exchange.PAUSE).unlink()
    (attempt / exchange.END).unlink()
    assert run_node(house, attempt)["kind"] == "done"


async def test_a_node_beats_while_it_seals_a_checkpoint(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = lay_out(house)
    beats, seal = [], bundle.seal

    def number() -> int:
        return int((exchange.read(attempt / exchange.BEAT) or {"n": 0})["n"])

    def slowly(*arguments: Any) -> str:
        beats.append(number())
        deadline = time.monotonic() + 10
        while number() <= beats[0] + 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        beats.append(number())
        return seal(*arguments)

    class Engine:
        """One that pauses the task at once."""

        def __getattr__(self, name: str) -> Any:
            return lambda *arguments: None

        async def acquire(self, since: str) -> tuple[int, int]:
            return 0, 0

        async def run(self, record: TaskRecord, number: int, events: Any) -> Ended:
            return Ended("paused", record.meter)

    monkeypatch.setattr(node, "_BEAT_SECONDS", 0.02)
    monkeypatch.setattr(bundle, "seal", slowly)
    spool = Spool(house.root / "node-spool")
    one: Any = Engine()
    ended = await node._Node(attempt, spool, one, house.settings(), house.keys()).run()
    assert ended.kind == "paused" and beats[1] > beats[0] + 1
    assert (attempt.parent / exchange.WORK).exists()


@pytest.mark.parametrize(
    ("number", "ends"),
    [(errno.ENOSPC, False), (errno.EIO, False), (errno.EMFILE, False), (errno.ENOENT, True), (errno.ESTALE, True)],
)
async def test_a_full_exchange_ends_no_training_and_one_that_is_gone_does(
    house: House, monkeypatch: pytest.MonkeyPatch, number: int, ends: bool
) -> None:
    attempt, killed, tried = lay_out(house), [], []

    def publish(path: Path, value: Any) -> None:
        tried.append(value["n"])
        raise OSError(number, "no")

    class Engine:
        def __getattr__(self, name: str) -> Any:
            return lambda *arguments: killed.append(arguments) if name == "kill" else None

    monkeypatch.setattr(node, "_BEAT_SECONDS", 0.01)
    monkeypatch.setattr(exchange, "publish", publish)
    one: Any = Engine()
    beats = node._Node(attempt, Spool(house.root / "node-spool"), one, house.settings(), house.keys())._beat("t1")
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(beats, 0.5)
    assert (len(killed), len(tried) > 2) == ((1, False) if ends else (0, True))


async def test_a_wish_that_cannot_be_read_just_now_is_heeded_later(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that stops beating is given up, and one that no longer looks goes on computing for nobody."""
    attempt, killed, exists, failures = lay_out(house), list[str](), Path.exists, [errno.EIO, errno.EIO]

    def look(path: Path) -> bool:
        if path.name == exchange.CANCEL and failures:
            number = failures.pop()
            raise OSError(number, os.strerror(number))
        return exists(path)

    class Engine:
        def __getattr__(self, name: str) -> Any:
            return lambda *arguments: killed.append(arguments[1]) if name == "kill" else None

    monkeypatch.setattr(node, "_BEAT_SECONDS", 0.01)
    monkeypatch.setattr(Path, "exists", look)
    (attempt / exchange.CANCEL).touch()
    one: Any = Engine()
    beats = node._Node(attempt, Spool(house.root / "node-spool"), one, house.settings(), house.keys())._beat("t1")
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(beats, 0.5)
    assert not failures and killed[0] == "TASK_CANCELLED: ended on request"


def test_a_try_that_faults_after_a_checkpoint_leaves_it_sealed_and_the_next_goes_on(house: House) -> None:
    files = {"train.jsonl": b"{}\n", "validation.jsonl": b"{}\n"}
    attempt = lay_out(house, kind="train")
    order = house.work_order(files, steps=3, fault="nan", fault_at=2)
    (attempt.parent / exchange.TASK).write_bytes(house.seal("t1", "train", order, files))
    end = run_node(house, attempt)
    assert end["kind"] == "paused" and end["reason"].startswith("LOSS_NOT_FINITE")
    assert end["reason"].endswith("; the checkpoint of step 2 is kept")
    assert b"step-00000002" not in (attempt.parent / exchange.WORK).read_bytes(), "sealed, names and all"
    (house.models / "mended").touch()
    (attempt / exchange.END).unlink()
    end = run_node(house, attempt)
    assert (end["kind"], end["reason"], end["progress"]["step"]) == ("done", "", 3)


def test_what_a_running_task_puts_in_a_files_place_is_not_read(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may swap a name between the look and the link: the link is then to the link itself, and is taken away."""
    work, into = house.root / "work", house.root / "into"
    (work / "checkpoints").mkdir(parents=True)
    into.mkdir()
    (work / "checkpoints" / "step-00000002").write_bytes(b"whole")
    (work / "checkpoints" / ".partial").write_bytes(b"half")
    (work / "plain-link").symlink_to(house.folder / "seal.key")
    assert [name for name, _ in node._linked(work, into)] == ["checkpoints/step-00000002"]
    regular = (work / "checkpoints" / "step-00000002").lstat()
    swapped = [replace(entry, status=regular) for entry in [*walk(work)] if entry.name == "plain-link"]
    assert len(swapped) == 1
    folder = os.open(work, os.O_RDONLY)
    monkeypatch.setattr(node, "walk", lambda top: iter([replace(swapped[0], folder=folder)]))
    assert [name for name, _ in node._linked(work, into)] == [] and not os.path.lexists(into / "plain-link")
    os.close(folder)
    monkeypatch.undo()
    assert [name for name, _ in node._plain_files(into)] == ["checkpoints/step-00000002"]
