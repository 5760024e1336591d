"""The worker's durable memory: one folder a task, its state written atomically before anything else believes it.

Layout of ``spool/<task id>``: ``state.json``; ``meter.json`` where the meter has gone on since; ``task.bin`` (the
sealed task); ``result.bin`` (the sealed result); ``work`` (survives restarts and pauses where the kind goes on from
it); ``in``, ``out``, ``control`` and ``log.txt`` of the present attempt. Names with a leading dot are unfinished and
are removed at start. A tombstone is a folder with ``state.json`` alone: a task id is never used twice.
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from assay import durable
from assay.errors import IntegrityError
from assay.worker.folders import remove, walk

STATE_FILE, TASK_FILE, RESULT_FILE, LOG_FILE = "state.json", "task.bin", "result.bin", "log.txt"
METER_FILE = "meter.json"
LOST_FOUND = "lost+found"
"""What the file system itself puts into a folder that is a volume of its own."""
_GOING_ON = ("train", "audit")
"""Kinds that go on from ``work``, which they keep sealed or without rows. A preparation unpacks its rows there, begins
anew, and leaves nothing that helps."""


class State(StrEnum):
    """How far a task is; the names of ``assay.v1.TaskState`` without their prefix."""

    WAITING = "WAITING"
    RUNNING = "RUNNING"
    DONE = "DONE"
    FAILED = "FAILED"
    PAUSED = "PAUSED"
    CANCELLED = "CANCELLED"


ENDED = frozenset({State.DONE, State.FAILED, State.CANCELLED})


@dataclass(frozen=True)
class MeterTotals:
    """What all attempts of a task took together, by the supervisor's clock."""

    wall_ms: int = 0
    cpu_ms: int = 0
    max_rss_bytes: int = 0
    energy_uwh: int = 0
    energy_method: str = ""

    def plus(self, other: MeterTotals) -> MeterTotals:
        """Adds an attempt."""
        return MeterTotals(
            self.wall_ms + other.wall_ms,
            self.cpu_ms + other.cpu_ms,
            max(self.max_rss_bytes, other.max_rss_bytes),
            self.energy_uwh + other.energy_uwh,
            other.energy_method or self.energy_method,
        )


@dataclass(frozen=True)
class TaskRecord:
    """One task as ``state.json`` keeps it.

    Attributes:
        task_id: id chosen by the gateway.
        kind: ``prepare``, ``train`` or ``audit``.
        state: how far it is.
        sha256: hex digest of the sealed task as first received.
        manifest_sha256: hex digest of its canonical manifest: what makes a re-sealed task the same task.
        job: resource name of the job.
        unit: business unit of the job.
        accepted: RFC 3339 time of acceptance.
        sequence: order of acceptance; the queue is first in, first out.
        attempts: times that the sandbox was started.
        interruptions: attempts that died with their worker or their node.
        reason: why it failed, or was paused by a fault, ``CODE: words``.
        result_sha256: hex digest of the sealed result.
        pause_requested: a pause was asked for and has not happened yet.
        cancel_requested: a cancellation was asked for and has not finished yet.
        released: the result is stored elsewhere; this is a tombstone.
        started: RFC 3339 time of the first attempt's start, or empty.
        sandbox: host pid and start time of the present sandbox's first process, or empty.
        meter: totals of all attempts, of the present one up to its last saving or :meth:`Spool.note`.
        traceparent: W3C trace context of the call that submitted it, or empty.
    """

    task_id: str
    kind: str
    state: State
    sha256: str
    manifest_sha256: str
    job: str
    unit: str
    accepted: str
    sequence: int
    attempts: int = 0
    interruptions: int = 0
    reason: str = ""
    result_sha256: str = ""
    pause_requested: bool = False
    cancel_requested: bool = False
    released: bool = False
    started: str = ""
    sandbox: tuple[int, str] | None = None
    meter: MeterTotals = MeterTotals()
    traceparent: str = ""

    @property
    def resting(self) -> tuple[str, ...]:
        """What its folder keeps, beside its state, while it has not ended and no attempt runs."""
        return (TASK_FILE, "work") if self.kind in _GOING_ON else (TASK_FILE,)


class Spool:
    """The folders of one worker's tasks."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        root.chmod(0o700)

    def load(self) -> list[TaskRecord]:
        """Reads every task, oldest first, and removes what a crash left unfinished or plain; no sandbox runs meanwhile.

        What is plain goes also where this raises: a worker that does not start must not leave rows lying there. Where
        the system does not let it read a state, ``work`` stays: it may be a checkpoint, and come back with the state.

        Raises:
            IntegrityError: ``SPOOL_DAMAGED`` when a state file cannot be read; nothing is guessed.
            OSError: something cannot be removed.
        """
        records, damaged = [], []
        for folder in sorted(self.root.iterdir()):
            if folder.name == LOST_FOUND:
                continue
            if folder.name.startswith("."):
                remove(folder)
                continue
            for unfinished in folder.glob(".*"):
                remove(unfinished)
            kept: tuple[str, ...] = ()
            try:
                records.append(_read(folder))
                kept = records[-1].resting
            except IntegrityError as error:
                damaged.append(error)
                kept = ("work",) if _hidden(error) else ()
            for name in {"in", "out", "work"}.difference(kept) if folder.is_dir() else ():
                remove(folder / name)
        if damaged:
            raise damaged[0]
        return sorted(records, key=lambda record: record.sequence)

    def incoming(self) -> Path:
        """A new place for bytes that are not yet a task."""
        return self.root / f".incoming-{secrets.token_hex(8)}"

    def admit(self, record: TaskRecord, sealed: Path) -> None:
        """Makes a task of received bytes: after this returns, no crash loses it; where it raises, nothing stays."""
        staging = self.root / f".new-{secrets.token_hex(8)}"
        staging.mkdir(mode=0o700)
        try:
            os.rename(sealed, staging / TASK_FILE)
            _write(staging, record)
            os.rename(staging, self.folder(record.task_id))
        except BaseException:
            # It is handed in again every second: what stayed would fill the disk.
            remove(staging)
            raise
        durable.sync(self.root)

    def folder(self, task_id: str) -> Path:
        """The folder of a task."""
        return self.root / task_id

    def save(self, record: TaskRecord) -> None:
        """Replaces a task's state atomically and durably."""
        _write(self.folder(record.task_id), record)
        (self.folder(record.task_id) / METER_FILE).unlink(missing_ok=True)

    def note(self, record: TaskRecord) -> None:
        """Keeps a task's meter over the worker's death, but not over the machine's: it is taken every second.

        In a file of its own, so that what a lost disk cache leaves of it costs seconds of a meter and never a state.
        """
        target = self.folder(record.task_id) / METER_FILE
        staging = target.with_name(f".{METER_FILE}")
        staging.write_text(json.dumps(dataclasses.asdict(record.meter)))
        os.replace(staging, target)

    def prepare_attempt(self, task_id: str, uid: int) -> None:
        """Makes the folders of an attempt; ``work`` keeps what an earlier attempt left.

        Raises:
            ExhaustedError: ``TASK_DISK`` where that is nested too deep to be handed over.
        """
        folder = self.folder(task_id)
        for name in ("in", "out", "control"):
            remove(folder / name)
            (folder / name).mkdir()
        (folder / "work").mkdir(exist_ok=True)
        for name in ("in", "out", "control", "work"):
            # Whatever the umask; the spool itself is closed to everybody else.
            (folder / name).chmod(0o755)
        if os.geteuid() == 0:
            for place in (folder / "out", folder / "work"):
                _give(place, uid)

    def clear(self, task_id: str, *, keep: tuple[str, ...]) -> None:
        """Removes everything of a task but its state and ``keep``; plaintext first, and of that what no task wrote.

        Raises:
            OSError: something cannot be removed.
        """
        folder = self.folder(task_id)
        names = sorted(os.listdir(folder), key=lambda name: (name != "in", name not in ("out", "work")))
        for name in names:
            # A leading dot is a state file that is just being written.
            if name not in (STATE_FILE, METER_FILE, *keep) and not name.startswith("."):
                remove(folder / name)


def record_of(raw: Mapping[str, Any]) -> TaskRecord:
    """A task record from its JSON object.

    Raises:
        IntegrityError: ``RECORD_DAMAGED``.
    """
    try:
        facts = {**raw, "state": State(raw["state"]), "meter": MeterTotals(**raw["meter"])}
        facts["sandbox"] = tuple(raw["sandbox"]) if raw["sandbox"] else None
        return TaskRecord(**facts)
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError("RECORD_DAMAGED", "a task's record cannot be read") from error


def _read(folder: Path) -> TaskRecord:
    # Not moved elsewhere: what else a folder may hold is cleared in the spool alone.
    remedy = f"remove its folder, `rm -r {shlex.quote(str(folder))}`; the gateway submits the task again"
    try:
        record = record_of(json.loads((folder / STATE_FILE).read_bytes()))
    except (OSError, ValueError, IntegrityError) as error:
        words = f"the state of task {folder.name!r} cannot be read"
        if isinstance(error, PermissionError):
            remedy = f"make {folder} this worker's own again, or {remedy}"
        raise IntegrityError("SPOOL_DAMAGED", words, remedy=remedy) from error
    if record.task_id != folder.name:
        words = f"folder {folder.name!r} holds the state of another task"
        raise IntegrityError("SPOOL_DAMAGED", words, remedy=remedy)
    meter = _noted(folder)
    return dataclasses.replace(record, meter=meter) if meter.wall_ms > record.meter.wall_ms else record


def _hidden(error: IntegrityError) -> bool:
    """Whether a state is there and the system does not let it be read just now."""
    cause = error.__cause__
    return isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError | NotADirectoryError)


def _noted(folder: Path) -> MeterTotals:
    """What was noted of a task's meter; nothing where it cannot be read, since its state says what it took before."""
    try:
        raw = json.loads((folder / METER_FILE).read_bytes())
        return MeterTotals(**{field: type(getattr(MeterTotals(), field))(value) for field, value in raw.items()})
    except (OSError, ValueError, TypeError, AttributeError):
        return MeterTotals()


def _write(folder: Path, record: TaskRecord) -> None:
    durable.write(folder / STATE_FILE, json.dumps(dataclasses.asdict(record), sort_keys=True).encode())


def _give(place: Path, uid: int) -> None:
    """Hands a tree to the sandbox's uid without following links that an earlier attempt may have left."""
    os.chown(place, uid, uid, follow_symlinks=False)
    for entry in walk(place):
        os.chown(entry.name, uid, uid, dir_fd=entry.folder, follow_symlinks=False)
