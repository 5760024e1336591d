"""The supervisor: accepts sealed tasks, queues them for a device slot, runs them in the sandbox, seals and signs.

What holds at any moment, also after ``kill -9``: a task that was accepted is in the spool; its state file says how
far it is; a result exists whole or not at all; an id is never used for two tasks. All state changes happen on one
event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from opentelemetry import trace
from opentelemetry.propagate import extract

from assay.errors import AlreadyExistsError, AssayError, NotFoundError, PreconditionError
from assay.worker import admit, recovery
from assay.worker.attempt import Progress, fault_words
from assay.worker.engine import Ended, Engine, Events, ThisMachine
from assay.worker.ray_jobs import RayJobs
from assay.worker.sandbox import TaskModule
from assay.worker.settings import WorkerKeys, WorkerSettings
from assay.worker.spool import ENDED, LOG_FILE, RESULT_FILE, TASK_FILE, Spool, State, TaskRecord

_LOG = logging.getLogger("assay.worker")
_TRACER = trace.get_tracer("assay.worker")
_WATCH_SECONDS = 0.1
RETRY_SECONDS = 5.0
"""Between attempts to write down what became of a task, and after a fault of the queue's own."""


@dataclass(frozen=True)
class Snapshot:
    """A task as seen now."""

    record: TaskRecord
    progress: Progress


class Supervisor:
    """One worker's tasks.

    Args:
        folder: the worker's directory; the spool lies in it.
        settings: ``worker.toml``.
        keys: the worker's keys.
        modules: which module runs for which kind: an allow-list made by this process, never by a caller.
    """

    def __init__(
        self, folder: Path, settings: WorkerSettings, keys: WorkerKeys, modules: Mapping[str, TaskModule]
    ) -> None:
        self.settings = settings
        self.keys = keys
        self._modules: dict[str, TaskModule] = {kind: modules[kind] for kind in settings.kinds}
        self._spool = Spool(folder / "spool")
        self._engine: Engine = (
            ThisMachine(folder, self._spool, settings, keys, self._modules)
            if settings.ray is None
            else RayJobs(folder, self._spool, settings.ray, settings, keys)
        )
        self._records: dict[str, TaskRecord] = {}
        self._progress: dict[str, Progress] = {}
        self._changed: dict[str, asyncio.Event] = {}
        self._busy: set[str] = set()
        self._queued: set[str] = set()
        self._runners: list[asyncio.Task[None]] = []
        self._unsettled: dict[str, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._admitting = asyncio.Lock()
        self._stopping = False

    async def start(self) -> None:
        """Reads the spool, mends what a crash left, and starts working.

        Raises:
            IntegrityError: ``SPOOL_DAMAGED``.
        """
        for record in await asyncio.to_thread(recovery.recover, self._spool, self._engine.left):
            self._records[record.task_id] = record
            self._queued.add(record.task_id)
            if record.state in ENDED:
                await asyncio.to_thread(self._engine.forget, record.task_id)
        self._runners = [asyncio.create_task(self._runner()) for _ in range(self.settings.slots)]

    async def stop(self, grace_seconds: float = 10.0) -> None:
        """Stops working: running tasks get a moment to write a checkpoint, and go on after the next start."""
        self._stopping = True
        self._engine.detach()
        deadline = asyncio.get_running_loop().time() + grace_seconds
        while self._busy:
            if asyncio.get_running_loop().time() > deadline:
                for task_id in self._busy:
                    self._engine.kill(task_id, "WORKER_STOPPED: the worker stopped")
            await asyncio.sleep(0.05)
        left = [*self._runners, *self._unsettled.values()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def tasks(self) -> list[Snapshot]:
        """Every task, oldest first, tombstones included."""
        return [self.get(record.task_id) for record in sorted(self._records.values(), key=lambda r: r.sequence)]

    def get(self, task_id: str) -> Snapshot:
        """A task as it is now: one whose attempt waits for a place in its engine's own queue waits.

        Raises:
            NotFoundError: ``TASK_UNKNOWN``.
        """
        record = self._held(task_id)
        if record.state is State.RUNNING and task_id in self._queued:
            record = replace(record, state=State.WAITING)
        return Snapshot(record, self._progress.get(task_id, Progress()))

    def incoming(self) -> Path:
        """Where a caller puts the bytes of a sealed task before :meth:`submit`."""
        return self._spool.incoming()

    async def known(self, task_id: str, kind: str, sha256: str) -> Snapshot | None:
        """Answers at once when exactly these bytes were submitted before; a paused task goes on."""
        record = self._records.get(task_id)
        if record is None or record.kind != kind or record.sha256 != sha256:
            return None
        return self.resume(task_id) if record.state is State.PAUSED else self.get(task_id)

    async def submit(self, task_id: str, kind: str, sha256: str, sealed: Path, traceparent: str = "") -> Snapshot:
        """Accepts a sealed task, or answers for the same task handed in before, also when it was sealed anew.

        Args:
            task_id: id chosen by the gateway; a legal folder name (the wire checks the pattern).
            kind: what the task does.
            sha256: hex digest of the bytes in ``sealed``, already compared by the caller.
            sealed: a file made at :meth:`incoming`; taken over on acceptance.
            traceparent: W3C trace context, or empty.

        Raises:
            PreconditionError: ``TASK_KIND`` for a kind that is not this worker's; ``WORKER_STOPPING``.
            AlreadyExistsError: ``TASK_ID_TAKEN`` when the id was used for other content.
            AssayError: whatever :func:`assay.worker.admit.inspect` refuses.
        """
        if kind not in self._modules:
            raise PreconditionError("TASK_KIND", f"this worker does not do {kind!r} tasks")
        if self._stopping:
            raise PreconditionError("WORKER_STOPPING", "the worker is stopping", remedy="submit again later")
        size = self.settings.max_task_bytes
        admitted = await asyncio.to_thread(admit.inspect, sealed, task_id, kind, self.keys, max_bytes=size)
        # Shielded: a gateway that dies meanwhile must not leave a task on disk that this process does not know.
        return await asyncio.shield(self._admit(task_id, kind, sha256, sealed, admitted, traceparent))

    async def watch(self, task_id: str) -> AsyncIterator[Snapshot]:
        """Yields the task now and on every change, until it ends or pauses.

        Raises:
            NotFoundError: ``TASK_UNKNOWN``.
        """
        while True:
            event = self._changed.setdefault(task_id, asyncio.Event())
            snapshot = self.get(task_id)
            yield snapshot
            if snapshot.record.state in ENDED or snapshot.record.state is State.PAUSED:
                return
            await event.wait()
            # Only the latest state is of interest; a chatty task must not fill the wire.
            await asyncio.sleep(_WATCH_SECONDS)

    def pause(self, task_id: str) -> Snapshot:
        """Asks a task to stop at its next checkpoint; one that waits is paused at once.

        One that ended stays as it is: whoever asks is told what it took.
        """
        record = self._held(task_id)
        if record.state is State.WAITING:
            self._save(replace(record, state=State.PAUSED))
        elif record.state is State.RUNNING:
            self._save(replace(record, pause_requested=True))
            self._engine.pause(task_id)
        return self.get(task_id)

    def resume(self, task_id: str) -> Snapshot:
        """Lets a paused task go on from its checkpoint, or takes back a pause that has not happened yet.

        Raises:
            PreconditionError: ``TASK_ENDED``.
        """
        record = self._held(task_id)
        if record.state in ENDED:
            raise PreconditionError("TASK_ENDED", "a task that ended cannot be resumed")
        if record.state is State.PAUSED:
            self._save(replace(record, state=State.WAITING, pause_requested=False, reason="", interruptions=0))
            self._wake.set()
        elif record.pause_requested:
            self._save(replace(record, pause_requested=False))
            self._engine.unpause(task_id)
        return self.get(task_id)

    async def cancel(self, task_id: str) -> Snapshot:
        """Ends a task and removes its files; returns when they are gone. A finished, unreleased result goes as well."""
        record = self._held(task_id)
        if record.released or record.state in (State.FAILED, State.CANCELLED):
            return self.get(task_id)
        self._save(replace(record, cancel_requested=True))
        self._engine.kill(task_id, "TASK_CANCELLED: ended on request")
        while self._in_hand(task_id):
            await self._changed.setdefault(task_id, asyncio.Event()).wait()
        await self._end(task_id, State.CANCELLED, "", keep=())
        return self.get(task_id)

    async def release(self, task_id: str) -> None:
        """Forgets a stored result and leaves a tombstone; releasing twice is the same as once.

        Raises:
            PreconditionError: ``TASK_NOT_ENDED``.
        """
        record = self._held(task_id)
        if record.state not in ENDED:
            raise PreconditionError("TASK_NOT_ENDED", "the task has not ended, so there is nothing to release")
        if not record.released:
            self._save(replace(record, released=True))
        await asyncio.to_thread(self._spool.clear, task_id, keep=())

    def result(self, task_id: str) -> Path:
        """The sealed result of a finished task.

        Raises:
            PreconditionError: ``TASK_NOT_DONE`` or ``RESULT_RELEASED``.
        """
        record = self._held(task_id)
        if record.released:
            raise PreconditionError("RESULT_RELEASED", "the result was released and is no longer here")
        if record.state is not State.DONE:
            raise PreconditionError("TASK_NOT_DONE", "the task has no result")
        return self._spool.folder(task_id) / RESULT_FILE

    async def _admit(
        self, task_id: str, kind: str, sha256: str, sealed: Path, admitted: admit.Admitted, traceparent: str
    ) -> Snapshot:
        async with self._admitting:
            known = self._records.get(task_id)
            if known is not None:
                if known.kind != kind or known.manifest_sha256 != admitted.manifest_sha256:
                    raise AlreadyExistsError("TASK_ID_TAKEN", "the id belongs to a task with other content")
                return self.resume(task_id) if known.state is State.PAUSED else self.get(task_id)
            record = TaskRecord(
                task_id=task_id,
                kind=kind,
                state=State.WAITING,
                sha256=sha256,
                manifest_sha256=admitted.manifest_sha256,
                job=admitted.job,
                unit=admitted.unit,
                accepted=_now(),
                sequence=1 + max((r.sequence for r in self._records.values()), default=0),
                traceparent=traceparent,
            )
            await asyncio.to_thread(self._spool.admit, record, sealed)
            self._records[task_id] = record
            self._wake.set()
            _LOG.info("task accepted", extra={"facts": {"task_id": task_id, "kind": kind}})
            return self.get(task_id)

    async def _runner(self) -> None:
        while True:
            waiting = self._next()
            if waiting is None:
                self._wake.clear()
                await self._wake.wait()
                continue
            try:
                number, place = await self._engine.acquire(waiting.accepted)
                try:
                    record = self._next()
                    if record is not None:
                        await self._run(record, number)
                finally:
                    self._engine.release(place)
            except Exception:
                # Neither one task's fault, which was marked below, nor a slot that cannot be had may stop the queue.
                _LOG.exception("runner fault")
                await asyncio.sleep(RETRY_SECONDS)

    def _next(self) -> TaskRecord | None:
        """The next task to run; first of all those that run already, left by an earlier life.

        None that is being ended: whoever cancels it, or has yet to settle its last attempt, sees it to its end.
        """
        open_ = [r for r in self._records.values() if r.state in (State.WAITING, State.RUNNING)]
        idle = [r for r in open_ if not (r.cancel_requested or self._in_hand(r.task_id))]
        return None if self._stopping else min(idle, key=lambda r: (r.state is State.WAITING, r.sequence), default=None)

    def _in_hand(self, task_id: str) -> bool:
        """Whether somebody sees to its attempt, or to what is left of one."""
        return task_id in self._busy or task_id in self._unsettled

    async def _run(self, record: TaskRecord, number: int) -> None:
        self._busy.add(record.task_id)
        try:
            await self._run_once(record, number)
        finally:
            self._busy.discard(record.task_id)
            self._notify(record.task_id)

    async def _run_once(self, record: TaskRecord, number: int) -> None:
        task_id = record.task_id
        left = record.state is State.RUNNING
        if not left and record.interruptions > self.settings.max_interruptions:
            words = "TOO_MANY_INTERRUPTIONS: the worker died again and again in this task"
            await self._give_up(record, f"{words}; {record.reason}" if record.reason else words)
            return
        attempts = record.attempts if left else record.attempts + 1
        record = replace(record, state=State.RUNNING, attempts=attempts, started=record.started or _now(), sandbox=None)
        self._queued.add(task_id)
        self._save(record)
        context = extract({"traceparent": record.traceparent}) if record.traceparent else None
        with _TRACER.start_as_current_span("worker.task", context=context) as span:
            span.set_attributes({"assay.task_id": task_id, "assay.kind": record.kind, "assay.attempt": record.attempts})
            try:
                ended = await self._engine.run(record, number, self._events(record))
                self._save(replace(self._records[task_id], sandbox=None, meter=ended.meter))
                span.set_attribute("assay.outcome", ended.kind)
                await self._settle(task_id, ended)
            except AssayError as error:
                await self._give_up(record, f"{error.reason}: {error.message}"[:2000])
            except asyncio.CancelledError:
                raise
            except Exception as error:
                _LOG.exception("task fault", extra={"facts": {"task_id": task_id}})
                await self._give_up(record, fault_words(error))

    async def _give_up(self, record: TaskRecord, fault: str) -> None:
        if not await self._settled(record, fault):
            # It has no attempt any more, so it keeps no slot; nor is it run again, which would count for nothing.
            self._unsettled[record.task_id] = asyncio.create_task(self._settle_later(record, fault))

    async def _settle_later(self, record: TaskRecord, fault: str) -> None:
        try:
            await asyncio.sleep(RETRY_SECONDS)
            while not await self._settled(record, fault):
                await asyncio.sleep(RETRY_SECONDS)
        finally:
            del self._unsettled[record.task_id]
            self._notify(record.task_id)
            self._wake.set()

    async def _settled(self, record: TaskRecord, fault: str) -> bool:
        try:
            reason = await asyncio.to_thread(self._engine.after_fault, record, fault)
            ended = Ended("paused" if reason else "failed", record.meter, reason or fault)
            await self._settle(record.task_id, ended)
            return True
        except Exception:
            # Nothing can be written or removed, so nothing else can be said of the task; somebody must make room.
            _LOG.exception("an ended task cannot be settled", extra={"facts": {"task_id": record.task_id}})
            return False

    def _events(self, record: TaskRecord) -> Events:
        task_id = record.task_id
        return Events(
            placed=lambda placed: self._place(task_id, placed),
            sandbox=lambda found: self._save(replace(self._records[task_id], sandbox=found)),
            progress=lambda progress: self._show(task_id, progress),
            metered=lambda totals: self._note(replace(self._records[task_id], meter=totals)),
            wish=lambda: self._wish(task_id),
        )

    def _wish(self, task_id: str) -> str:
        record = self._records[task_id]
        if record.cancel_requested:
            return "cancel"
        return "pause" if record.pause_requested or self._stopping else ""

    async def _settle(self, task_id: str, ended: Ended) -> None:
        record = self._records[task_id]
        if record.state in ENDED:
            # Before something else went wrong: its end stands.
            return
        if record.cancel_requested:
            await self._end(task_id, State.CANCELLED, "", keep=())
        elif ended.kind == "done":
            await self._end(task_id, State.DONE, "", keep=(RESULT_FILE,), result_sha256=ended.result_sha256)
        elif ended.kind == "left":
            return
        elif ended.kind in ("paused", "lost") or self._stopping:
            faulted = ended.kind == "paused" and bool(ended.reason)
            left = (*record.resting, LOG_FILE) if faulted else record.resting
            await asyncio.to_thread(self._spool.clear, task_id, keep=left)
            record = self._records[task_id]
            state = State.PAUSED if record.pause_requested or faulted else State.WAITING
            lost = record.interruptions + (ended.kind == "lost")
            self._save(replace(record, state=state, pause_requested=False, interruptions=lost, reason=ended.reason))
            self._wake.set()
        else:
            await self._end(task_id, State.FAILED, ended.reason)

    async def _end(
        self, task_id: str, state: State, reason: str, *, keep: tuple[str, ...] = (LOG_FILE,), result_sha256: str = ""
    ) -> None:
        # Plaintext first, then the state, then the sealed task: a crash in between repeats work or leaves sealed bytes
        # that recovery removes; it never leaves plaintext of an ended task, nor an accepted task without its bytes.
        await asyncio.to_thread(self._spool.clear, task_id, keep=(*keep, TASK_FILE))
        record = replace(
            self._records[task_id],
            state=state,
            reason=reason,
            result_sha256=result_sha256,
            pause_requested=False,
            cancel_requested=False,
            sandbox=None,
        )
        self._spool.save(record)
        self._records[task_id] = record
        await asyncio.to_thread(self._spool.clear, task_id, keep=keep)
        await asyncio.to_thread(self._engine.forget, task_id)
        self._notify(task_id)
        facts = {"task_id": task_id, "kind": record.kind, "state": state.value, "reason": reason.partition(":")[0]}
        _LOG.info("task ended", extra={"facts": facts})

    def _save(self, record: TaskRecord) -> None:
        self._spool.save(record)
        self._records[record.task_id] = record
        self._notify(record.task_id)

    def _note(self, record: TaskRecord) -> None:
        """As :meth:`_save` of a record whose meter alone has changed, without waiting for the disk every second."""
        self._spool.note(record)
        self._records[record.task_id] = record
        self._notify(record.task_id)

    def _held(self, task_id: str) -> TaskRecord:
        record = self._records.get(task_id)
        if record is None:
            raise NotFoundError("TASK_UNKNOWN", "this worker holds no such task")
        return record

    def _place(self, task_id: str, placed: bool) -> None:
        if placed == (task_id in self._queued):
            (self._queued.discard if placed else self._queued.add)(task_id)
            self._notify(task_id)

    def _show(self, task_id: str, progress: Progress) -> None:
        self._progress[task_id] = progress
        self._notify(task_id)

    def _notify(self, task_id: str) -> None:
        event = self._changed.pop(task_id, None)
        if event is not None:
            event.set()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
