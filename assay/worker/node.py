"""``python -m assay.worker.node DIR TRY``: one attempt on a machine that another one's supervisor found.

The entry point of a Ray job. ``DIR`` is the worker's folder on this node (settings, keys, models), ``TRY`` a folder of
:mod:`assay.worker.exchange`. Runs the sealed task by the engine of this machine, in the same sandbox and under the same
device slots, and hands back the sealed result. What is plain exists in this node's spool only, while the attempt runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import secrets
import shutil
import signal
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from assay import bundle, durable
from assay.errors import AssayError, IntegrityError, PermissionDeniedError
from assay.worker import admit, exchange, kept, recovery
from assay.worker.attempt import Progress
from assay.worker.engine import Ended, Events, ThisMachine
from assay.worker.folders import remove, walk
from assay.worker.launch import work_key
from assay.worker.sandbox import TaskModule
from assay.worker.settings import TASK_MODULES, WorkerKeys, WorkerSettings
from assay.worker.spool import LOST_FOUND, RESULT_FILE, MeterTotals, Spool, TaskRecord, record_of

_BEAT_SECONDS = 1.0
_ROOM = 256 << 20
"""Bytes of the exchange that keeping checkpoints leaves to everything else."""
_GONE = (errno.ENOENT, errno.ESTALE)
_LOG = logging.getLogger("assay.worker")


async def run(folder: Path, attempt: Path, table: Mapping[str, TaskModule] | None = None) -> int:
    """Runs one try to its end and returns an exit status; 0 also for a task that failed and said so.

    Args:
        folder: the worker's folder on this node.
        attempt: the try's folder in the exchange.
        table: which module runs for which kind; the installed ones by default.
    """
    settings, keys = WorkerSettings.load(folder), WorkerKeys.load(folder)
    modules = table or {str(kind): TaskModule.installed(TASK_MODULES[kind]) for kind in settings.kinds}
    with _own_spool(folder / "node-spool") as spool:
        node = _Node(attempt, spool, ThisMachine(folder, spool, settings, keys, modules), settings, keys)
        try:
            ended = await node.run()
        except AssayError as error:
            ended = Ended("failed", node.meter, f"{error.reason}: {error.message}"[:2000])
        exchange.publish(attempt / exchange.END, {**node.signs(), **asdict(ended)})
    return 0


class _Node:
    """One try."""

    def __init__(
        self, attempt: Path, spool: Spool, engine: ThisMachine, settings: WorkerSettings, keys: WorkerKeys
    ) -> None:
        self._attempt, self._spool, self._engine = attempt, spool, engine
        self._settings, self._keys = settings, keys
        self._progress, self._placed = Progress(), False
        self.meter = MeterTotals()

    async def run(self) -> Ended:
        record = self._admit()
        for sign in (signal.SIGTERM, signal.SIGINT):
            # Killed at once, the node would leave the opened task behind.
            end = f"{exchange.NODE_STOPPED}: the cluster stopped this job"
            asyncio.get_running_loop().add_signal_handler(sign, self._engine.kill, record.task_id, end)
        beat, over = asyncio.create_task(self._beat(record.task_id)), asyncio.Event()
        keeping = asyncio.create_task(self._keep(record, over))
        try:
            number, place = await self._engine.acquire(record.accepted)
            try:
                events = Events(self._place, lambda found: None, self._show, self._count, self._wish)
                ended = await self._engine.run(record, number, events)
            except AssayError as error:
                # As on the supervisor's own machine: its outputs may be refused and its checkpoint good.
                fault = f"{error.reason}: {error.message}"[:2000]
                reason = await asyncio.to_thread(self._engine.after_fault, record, fault)
                ended = Ended("paused" if reason else "failed", self.meter, reason or fault)
            finally:
                self._engine.release(place)
                over.set()
            # In a thread, so that it beats on: large checkpoints take longer than its silence is borne.
            if ended.kind == "done":
                await asyncio.to_thread(self._hand_over, self._spool.folder(record.task_id) / RESULT_FILE)
            elif ended.kind == "paused":
                # What is still being kept must not take the place of what follows. Other ends wait for nothing: the
                # cluster soon kills what was cancelled, and plain rows lie here.
                await keeping
                await asyncio.to_thread(self._seal_work, record, self._work(record))
        finally:
            over.set()
            beat.cancel()
        return ended

    def signs(self) -> dict[str, Any]:
        """Whether it has a device slot, how far it is, and what all its attempts took so far."""
        return {"placed": self._placed, "progress": asdict(self._progress), "meter": asdict(self.meter)}

    def _admit(self) -> TaskRecord:
        """Takes the task into this node's spool; believes the record only where the sealed manifest says the same."""
        raw = exchange.read(self._attempt / exchange.RECORD)
        if raw is None:
            raise IntegrityError("RECORD_MISSING", "the try holds no readable record")
        record = replace(record_of(raw), sandbox=None)
        self.meter = record.meter
        if record.task_id != self._attempt.parent.name:
            raise PermissionDeniedError("TASK_BINDING", "the record is of another task")
        incoming, size = self._spool.incoming(), self._settings.max_task_bytes
        shutil.copyfile(self._attempt.parent / exchange.TASK, incoming)
        admitted = admit.inspect(incoming, record.task_id, record.kind, self._keys, max_bytes=size)
        if (record.job, record.unit) != (admitted.job, admitted.unit):
            raise PermissionDeniedError("TASK_BINDING", "the record names another job than the sealed task")
        self._spool.admit(record, incoming)
        self._open_work(record)
        return record

    def _open_work(self, record: TaskRecord) -> None:
        sealed = self._attempt.parent / exchange.WORK
        if not sealed.exists():
            return
        signer, work = self._keys.statement.public_key(), self._work(record)
        with sealed.open("rb") as stream:
            exchange.read_work(stream, record.task_id, self._keys)
            stream.seek(0)
            bundle.unseal(stream, self._keys.seal, signer, work, max_bytes=bundle.MAX_SEALED)

    def _work(self, record: TaskRecord) -> Path:
        return self._spool.folder(record.task_id) / "work"

    async def _keep(self, record: TaskRecord, over: asyncio.Event) -> None:
        """Leaves a running training's checkpoints in the exchange from time to time: the node may die with its disk."""
        held: frozenset[tuple[str, int]] = frozenset()
        while record.kind == "train" and not over.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.keep_seconds):
                    await over.wait()
                    return
            try:
                held = await asyncio.to_thread(self._keep_once, record, held)
            except (AssayError, OSError) as error:
                # Such as a full exchange: the training goes on, and the next time may be better.
                facts = {"task_id": record.task_id, "error": getattr(error, "reason", type(error).__name__)}
                _LOG.warning("no checkpoint kept", extra={"facts": facts})

    def _keep_once(self, record: TaskRecord, held: frozenset[tuple[str, int]]) -> frozenset[tuple[str, int]]:
        """Seals what a training has written, unless it is what is ``held``; returns what is held now, with inodes."""
        with tempfile.TemporaryDirectory(dir=self._spool.root, prefix=".kept-") as name:
            found = frozenset(_linked(self._work(record), Path(name)))
            room = shutil.disk_usage(self._attempt).free - sum((Path(name) / path).stat().st_size for path, _ in found)
            if room < _ROOM:
                raise OSError(errno.ENOSPC, "the exchange has no room for the checkpoints")
            if found - held and kept.newest(Path(name), work_key(self._keys, record)):
                self._seal_work(record, Path(name))
            return found

    def _seal_work(self, record: TaskRecord, work: Path) -> None:
        files, step = dict(_plain_files(work)), kept.newest(work, work_key(self._keys, record))
        named = {"task_id": record.task_id, "job": record.job, "unit": record.unit}
        facts = {**named, "order": {}, "kind": "work", "step": step}
        partial = self._attempt.parent / f".{exchange.WORK}.{secrets.token_hex(4)}"
        try:
            with partial.open("wb") as stream:
                bundle.seal(files, facts, self._keys.seal.public_key(), self._keys.statement, stream)
                durable.flush(stream)
            if not (self._attempt / exchange.GIVEN_UP).exists():
                partial.rename(self._attempt.parent / exchange.WORK)
        finally:
            partial.unlink(missing_ok=True)

    def _hand_over(self, result: Path) -> None:
        with result.open("rb") as source, durable.replacing(self._attempt / exchange.RESULT) as sink:
            shutil.copyfileobj(source, sink)

    async def _beat(self, task_id: str) -> None:
        count = 0
        while True:
            count += 1
            try:
                await asyncio.to_thread(exchange.publish, self._attempt / exchange.BEAT, {"n": count, **self.signs()})
            except OSError as error:
                # Of a share that is full or errs the supervisor hears by this silence, and bears it for a while.
                if error.errno in _GONE:
                    self._engine.kill(task_id, "NODE_FORGOTTEN: the try's folder is gone")
                    return
            with contextlib.suppress(OSError):
                self._heed(task_id)
            await asyncio.sleep(_BEAT_SECONDS)

    def _heed(self, task_id: str) -> None:
        if (self._attempt / exchange.CANCEL).exists():
            self._engine.kill(task_id, "TASK_CANCELLED: ended on request")
        elif (self._attempt / exchange.PAUSE).exists():
            self._engine.pause(task_id)
        else:
            self._engine.unpause(task_id)

    def _wish(self) -> str:
        if (self._attempt / exchange.CANCEL).exists():
            return "cancel"
        return "pause" if (self._attempt / exchange.PAUSE).exists() else ""

    def _place(self, placed: bool) -> None:
        self._placed = placed

    def _show(self, progress: Progress) -> None:
        self._progress = progress

    def _count(self, totals: MeterTotals) -> None:
        self.meter = totals


@contextlib.contextmanager
def _own_spool(root: Path) -> Iterator[Spool]:
    """A spool of this process alone; those of nodes that died are emptied first, with what still runs over them.

    Raises:
        OSError: one cannot be emptied. What a node leaves may be plain, so it is not passed over.
    """
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    for old in [p for p in root.iterdir() if not p.name.startswith(".") and p.name != LOST_FOUND]:
        descriptor = os.open(old / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            recovery.end_strays(old)
            remove(old)
        finally:
            os.close(descriptor)
    own = root / secrets.token_hex(8)
    staging = root / f".{own.name}"
    staging.mkdir(mode=0o700)
    descriptor = os.open(staging / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    staging.rename(own)
    try:
        yield Spool(own / "tasks")
    finally:
        try:
            remove(own)
        finally:
            os.close(descriptor)


def _linked(folder: Path, into: Path) -> Iterator[tuple[str, int]]:
    """Links a folder's finished files into a private one, and tells each with its inode.

    The task still runs, and may put another file, or a link to anywhere, in the place of a name between two looks: what
    is read is what was linked here, and no name of the task's is followed.
    """
    for entry in walk(folder):
        if stat.S_ISREG(entry.status.st_mode) and not entry.name.startswith("."):
            target = into / entry.path
            target.parent.mkdir(parents=True, exist_ok=True)
            # One that is gone by now was an older checkpoint.
            with contextlib.suppress(FileNotFoundError):
                os.link(entry.name, target, src_dir_fd=entry.folder, follow_symlinks=False)
                status = target.lstat()
                if stat.S_ISREG(status.st_mode):
                    yield entry.path, status.st_ino
                else:
                    target.unlink()


def _plain_files(folder: Path) -> list[tuple[str, Path]]:
    """A checkpoint's files; links and the like are left out, since a task could point them anywhere."""
    return [(entry.path, folder / entry.path) for entry in walk(folder) if stat.S_ISREG(entry.status.st_mode)]


def main() -> int:
    """Runs the try that the command line names."""
    _, folder, attempt = sys.argv
    return asyncio.run(run(Path(folder), Path(attempt)))


if __name__ == "__main__":
    sys.exit(main())
