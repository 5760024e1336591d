"""Where an attempt at a task runs: the protocol behind which the supervisor stands, and this machine as one answer.

The supervisor queues, retries and remembers; an engine finds a place and brings one attempt to its end. What every
engine must hold is written down as one suite of tests, ``tests/assay/worker/test_engines.py``, that runs on each.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from assay import provenance
from assay.worker import finish, kept
from assay.worker.attempt import Attempt, Progress
from assay.worker.launch import Callbacks, Launcher, work_key
from assay.worker.meter import process_started
from assay.worker.sandbox import TaskModule
from assay.worker.settings import WorkerKeys, WorkerSettings
from assay.worker.slots import Slots
from assay.worker.spool import MeterTotals, Spool, TaskRecord
from assay.worker.statement import Lock
from assay.worker.task import PAUSE_FLAG


@dataclass(frozen=True)
class Events:
    """What the supervisor wants to hear of an attempt; all are called on its event loop.

    Attributes:
        placed: whether the attempt runs, or waits for a place; it waits until the first call.
        sandbox: host pid and start time of the sandbox's first process, where it runs on this machine.
        progress: what the task told about itself.
        metered: what the task took so far, this attempt and those before it together.
        wish: asked when an attempt can be reached: ``pause``, ``cancel`` or nothing, wished for before that.
    """

    placed: Callable[[bool], None]
    sandbox: Callable[[tuple[int, str]], None]
    progress: Callable[[Progress], None]
    metered: Callable[[MeterTotals], None]
    wish: Callable[[], str]


@dataclass(frozen=True)
class Ended:
    """How an attempt ended.

    Attributes:
        kind: ``done``: the sealed result lies in the task's spool folder; ``paused``: may go on from its checkpoint;
            ``failed``: for good; ``lost``: its machine went away, and the supervisor may try again; ``left``: it has
            not ended, and the supervisor's next start goes on with it.
        meter: what the task took, this attempt and those before it together. Whoever runs an attempt adds it to what
            was taken before it, so that nobody has to know what of it was counted already.
        reason: why it failed, was lost, or was paused by a fault, ``CODE: words``; empty where a pause was asked for.
        result_sha256: hex digest of the sealed result.
    """

    kind: str
    meter: MeterTotals
    reason: str = ""
    result_sha256: str = ""


class Engine(Protocol):
    """Runs attempts, each in the sandbox, each from sealed bytes to sealed bytes."""

    async def acquire(self, since: str) -> tuple[int, int]:
        """Waits for a place, oldest ``since`` first; returns its number and what :meth:`release` takes."""

    def release(self, place: int) -> None:
        """Gives a place back."""

    async def run(self, record: TaskRecord, number: int, events: Events) -> Ended:
        """Brings a task that was admitted to the spool to the end of one attempt.

        Where :meth:`left` says so, that is the attempt that an earlier life of the supervisor left.

        Raises:
            AssayError: the sandbox cannot be started, an input cannot be opened, the outputs are refused.
        """

    def left(self, record: TaskRecord) -> bool:
        """Whether a running task's present attempt is there to go on with, although its supervisor began anew."""

    def pause(self, task_id: str) -> None:
        """Asks a running attempt to end at its next checkpoint; nothing when there is none.

        One that goes on for ``limits.pause_seconds`` is ended as ``TASK_PAUSE_IGNORED``.
        """

    def unpause(self, task_id: str) -> None:
        """Takes back a pause that has not happened yet."""

    def kill(self, task_id: str, reason: str) -> None:
        """Ends a running attempt at once; nothing when there is none."""

    def detach(self) -> None:
        """The supervisor stops: every :meth:`run` must return soon, so that the next start can go on from there."""

    def after_fault(self, record: TaskRecord, fault: str) -> str:
        """The fault and the checkpoint that a task without an attempt can go on from; empty where it failed for good.

        Args:
            record: the task.
            fault: ``CODE: words``.
        """

    def forget(self, task_id: str) -> None:
        """Removes what is kept of an ended task outside its spool folder."""


class ThisMachine:
    """Runs attempts here, one a device slot; all workers of the machine share the slots."""

    def __init__(
        self,
        folder: Path,
        spool: Spool,
        settings: WorkerSettings,
        keys: WorkerKeys,
        modules: Mapping[str, TaskModule],
    ) -> None:
        self._spool, self._settings, self._keys, self._modules = spool, settings, keys, modules
        self._launcher = Launcher(folder, spool, settings, keys, modules)
        self._slots = Slots(settings.slot_file, settings.slots)
        self._attempts: dict[str, Attempt] = {}

    async def acquire(self, since: str) -> tuple[int, int]:
        """Waits for a device slot of this machine."""
        return await self._slots.acquire(since)

    def release(self, place: int) -> None:
        """Frees the slot."""
        self._slots.release(place)

    async def run(self, record: TaskRecord, number: int, events: Events) -> Ended:
        """Runs one attempt in a sandbox of this machine and seals its result."""
        task_id = record.task_id
        events.placed(True)
        admitted = await asyncio.to_thread(self._launcher.admitted, record)
        callbacks = Callbacks(
            started=lambda pid: events.sandbox((pid, process_started(pid))),
            progress=events.progress,
            metered=lambda totals: events.metered(record.meter.plus(totals)),
        )
        # Taken before the task starts: what is upgraded on this machine meanwhile did not compute its bits.
        taken = await asyncio.to_thread(Lock.take, self._settings, self._modules[record.kind])
        if record.kind == "train":
            provenance.demand_room(taken.packages)
        attempt = await asyncio.to_thread(self._launcher.attempt, record, admitted, number, callbacks, taken.sha256)
        self._attempts[task_id] = attempt
        try:
            wish = events.wish()
            if wish == "pause":
                self.pause(task_id)
            if wish == "cancel":
                return Ended("failed", record.meter, "TASK_CANCELLED: ended on request")
            outcome = await attempt.run()
        finally:
            del self._attempts[task_id]
        whole = replace(record, meter=record.meter.plus(outcome.meter))
        # Now, since what comes after may be refused.
        events.metered(whole.meter)
        if outcome.kind == "failed":
            return await asyncio.to_thread(self._faulted, whole, outcome.reason)
        if outcome.kind == "paused":
            return Ended("paused", whole.meter)
        digest = await asyncio.to_thread(
            finish.make_result,
            self._spool.folder(task_id),
            whole,
            admitted,
            outcome,
            self._settings,
            self._keys,
            taken,
        )
        return Ended("done", whole.meter, result_sha256=digest)

    def _faulted(self, record: TaskRecord, fault: str) -> Ended:
        """A fault after a whole checkpoint is a pause: what was paid for is not thrown away."""
        reason = self.after_fault(record, fault)
        return Ended("paused" if reason else "failed", record.meter, reason or fault)

    def left(self, record: TaskRecord) -> bool:
        """No: a sandbox dies with its worker."""
        return False

    def pause(self, task_id: str) -> None:
        """Shows the task its pause flag."""
        # Before an attempt has its folders there is nothing to touch; it asks for the wish itself.
        with contextlib.suppress(FileNotFoundError):
            self._flag(task_id).touch()

    def unpause(self, task_id: str) -> None:
        """Takes the pause flag away."""
        self._flag(task_id).unlink(missing_ok=True)

    def kill(self, task_id: str, reason: str) -> None:
        """Ends the sandbox."""
        attempt = self._attempts.get(task_id)
        if attempt is not None:
            attempt.kill(reason)

    def detach(self) -> None:
        """Asks every task for a checkpoint: its sandbox would die with the worker."""
        for task_id in self._attempts:
            self.pause(task_id)

    def after_fault(self, record: TaskRecord, fault: str) -> str:
        """The newest whole checkpoint lies in the task's work folder."""
        work = self._spool.folder(record.task_id) / "work"
        return kept.after_fault(record, fault, kept.newest(work, work_key(self._keys, record)))

    def forget(self, task_id: str) -> None:
        """Nothing is kept outside the spool folder."""

    def _flag(self, task_id: str) -> Path:
        return self._spool.folder(task_id) / "control" / PAUSE_FLAG
