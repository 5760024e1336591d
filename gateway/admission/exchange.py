"""Sealed tasks out, sealed results in: the gateway's side of one worker.

A task's id follows from its job, and its content from what is stored, so that handing it in again after a crash is
the same task. What comes back is believed only after the worker's signature, the binding to task, job and order, and
every file's digest held.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Protocol, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from assay import bundle, canonical, dsse, provenance
from assay.digests import folder_manifest, sha256_bytes, sha256_file
from assay.errors import IntegrityError, NotFoundError, PreconditionError
from assay.v1 import worker_pb2
from gateway.store import disk
from gateway.store.blobs import FileBlobStore, copy_out

T = TypeVar("T")

STATEMENT_FILE = "statement.json"
PRIVATE_FILE = "private.bin"
ADAPTER_FOLDER = "adapter"
_LOOK_SECONDS = 1.0
_QUIET_SECONDS = 20.0
"""After so long without a word its worker is asked for one: a task may wait or be quiet for long, no worker is deaf."""
_COMPUTED_AT_ONCE = 2

KINDS: Mapping[str, worker_pb2.TaskKind] = {
    "prepare": worker_pb2.TASK_KIND_PREPARE,
    "train": worker_pb2.TASK_KIND_TRAIN,
    "audit": worker_pb2.TASK_KIND_AUDIT,
}
PREDICATES: Mapping[str, str] = {"prepare": "preparation", "audit": "audit"}


class Worker(Protocol):
    """What the exchange needs of :class:`assay.worker.client.WorkerClient`."""

    async def describe(self) -> worker_pb2.Worker:
        """Who the worker is; one that stands still does not answer."""

    async def submit(self, task_id: str, kind: worker_pb2.TaskKind, sealed: Path) -> worker_pb2.Task:
        """Hands in a task; idempotent, and a paused task goes on."""

    def watch(self, task_id: str) -> AsyncIterator[worker_pb2.Task]:
        """Yields the task on every change, until it ends or pauses."""

    async def fetch(self, task_id: str, into: Path, *, expected_sha256: str = "") -> str:
        """Writes the sealed result."""

    async def pause(self, task_id: str) -> worker_pb2.Task:
        """Asks for a stop at the next checkpoint."""

    async def resume(self, task_id: str) -> worker_pb2.Task:
        """Goes on from the checkpoint."""

    async def cancel(self, task_id: str) -> worker_pb2.Task:
        """Ends the task."""

    async def release(self, task_id: str) -> None:
        """Lets the worker forget the result."""


@dataclass(frozen=True)
class Peer:
    """A worker: how it is reached, and the public keys it is known by."""

    client: Worker
    sealing_key: X25519PublicKey
    statement_key: Ed25519PublicKey


@dataclass(frozen=True)
class Task:
    """What a worker is to do.

    Attributes:
        task_id: the same for ever for this job, stage and attempt.
        kind: ``prepare``, ``train`` or ``audit``.
        job: resource name.
        unit: the job's unit, whose files these are.
        order: float-free instructions, as they travel.
        seen_order: the order as the task sees it (for ``train`` the predicate of the signed work order).
        blobs: stored files by the path that they get, as digests.
        secrets: small files by path that are stored nowhere: they travel sealed and are in no order.
    """

    task_id: str
    kind: str
    job: str
    unit: str
    order: Mapping[str, Any]
    seen_order: Mapping[str, Any]
    blobs: Mapping[str, str]
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Result:
    """A result that was checked: its files in a scratch folder, and the worker's signed statement."""

    folder: Path
    files: Mapping[str, str]
    envelope: Mapping[str, Any]
    predicate: Mapping[str, Any] = field(repr=False)

    @property
    def seconds(self) -> float:
        """Wall seconds by the supervisor's clock, all attempts together."""
        return int(self.predicate["meter"]["wall_ms"]) / 1000.0


@dataclass(frozen=True)
class Ended:
    """How a task ended: ``DONE``, ``FAILED`` with its reason, or ``PAUSED`` by the fault that its reason names."""

    task: worker_pb2.Task

    @property
    def done(self) -> bool:
        """True when there is a result."""
        return self.task.state == worker_pb2.TASK_STATE_DONE

    @property
    def seconds(self) -> float:
        """Wall seconds by the supervisor's clock, all attempts together."""
        return self.task.meter.wall_ms / 1000.0

    @property
    def may_go_on(self) -> bool:
        """True when the worker kept a checkpoint that the task can go on from."""
        return self.task.state == worker_pb2.TASK_STATE_PAUSED


async def _nothing() -> None:
    """There is nothing to do."""


@dataclass(frozen=True)
class Exchange:
    """The gateway's keys and scratch space, and one method a step of the exchange.

    Attributes:
        blobs: of the units' files.
        sealing_key: opens results.
        order_key: signs tasks.
        max_bytes: of a result, opened.
        answered: called with the job's name whenever the worker that does its task has said something.
        threads: for what computes long, so that it takes none that every call and the pipeline read with.
    """

    blobs: FileBlobStore
    sealing_key: X25519PrivateKey
    order_key: Ed25519PrivateKey
    max_bytes: int
    answered: Callable[[str], None]
    threads: ThreadPoolExecutor = field(
        default_factory=partial(ThreadPoolExecutor, _COMPUTED_AT_ONCE, "exchange"), repr=False
    )

    def close(self) -> None:
        """Begins nothing more on the threads; what computes ends by itself."""
        self.threads.shutdown(wait=False, cancel_futures=True)

    async def compute(self, work: Callable[[], T]) -> T:
        """Seals, opens, stores or checks files on the exchange's threads.

        It ends no earlier than its thread, also when it is cancelled: nothing may be written any more to a folder of
        plaintext that then goes.
        """
        running = self.threads.submit(work)
        try:
            return await asyncio.wrap_future(running)
        except asyncio.CancelledError:
            if not running.cancel():
                await asyncio.gather(asyncio.wrap_future(running), return_exceptions=True)
            raise

    async def follow(
        self,
        peer: Peer,
        task: Task,
        look: Callable[[worker_pb2.Task], Any],
        unknown: Callable[[], Awaitable[None]] = _nothing,
    ) -> Ended:
        """Sees a task through to its end: hands it in when the worker does not know it, resumes it when it is paused.

        A task that a fault pauses while it is followed has ended here: somebody must mend the fault first.

        Args:
            peer: the worker.
            task: what it is to do.
            look: an async function that is called with the task's latest state at every change and at least every
                second; what it raises ends the following (the task itself goes on).
            unknown: an async function that is called before the task is handed in, since its worker does not know it.

        Raises:
            UnavailableError: the worker cannot be reached, or stands still; call again later. ``DISK_FULL`` where the
                gateway has no room for the sealed task.
            IntegrityError: ``TASK_CANCELLED`` when somebody else had the worker end it.
        """
        await self.resume(peer, task.task_id)
        while True:
            try:
                last = await self._watch(peer, task, look)
            except NotFoundError:
                await unknown()
                await self._submit(peer, task)
                continue
            if last.state in (worker_pb2.TASK_STATE_DONE, worker_pb2.TASK_STATE_FAILED):
                return Ended(last)
            if last.state == worker_pb2.TASK_STATE_CANCELLED:
                raise IntegrityError("TASK_CANCELLED", "the worker's task was cancelled by somebody else")
            if last.state == worker_pb2.TASK_STATE_PAUSED:
                if last.reason:
                    return Ended(last)
                await self.resume(peer, task.task_id)

    @asynccontextmanager
    async def result(
        self, peer: Peer, task: Task, ended: Ended, look: Callable[[worker_pb2.Task], Any]
    ) -> AsyncIterator[Result]:
        """Fetches, opens and checks a result; its files live as long as the context.

        Args:
            peer: the worker.
            task: what it did.
            ended: that it did.
            look: as for :meth:`follow`, called while the result is fetched.

        Raises:
            UnavailableError: the worker cannot be reached, or stands still; ``DISK_FULL`` where there is no room here.
            IntegrityError: a ``BUNDLE_`` reason, ``STATEMENT_BINDING``, ``STATEMENT_FILES``, or ``RESULT_LOST``.
        """
        with self.blobs.scratch() as scratch:
            sealed = scratch / "result.bin"

            async def watched() -> None:
                # How large it is nobody said: as soon as what has come could not be opened beside itself, it ends.
                disk.demand_room(scratch, sum(file.stat().st_size for file in scratch.iterdir()))
                await look(ended.task)

            await watched()
            try:
                fetch = peer.client.fetch(task.task_id, sealed, expected_sha256=ended.task.result_sha256)
                await self._heard(peer, task, fetch, watched)
            except PreconditionError as error:
                if error.reason == "RESULT_RELEASED":
                    raise IntegrityError("RESULT_LOST", "the worker no longer has the result") from error
                raise
            disk.demand_room(scratch, sealed.stat().st_size)
            yield await self.compute(partial(self._open, peer, task, sealed, scratch / "files"))

    async def cancel(self, peer: Peer, task_id: str) -> worker_pb2.Task:
        """Ends a task and returns it with all that it took; one that is unknown has taken nothing."""
        try:
            return await peer.client.cancel(task_id)
        except NotFoundError:
            return worker_pb2.Task(task_id=task_id)

    async def pause(self, peer: Peer, task_id: str) -> worker_pb2.Task:
        """Asks a task to pause and returns it with all that it took; one that is unknown has taken nothing."""
        return await _asked(peer.client.pause(task_id)) or worker_pb2.Task(task_id=task_id)

    async def resume(self, peer: Peer, task_id: str) -> None:
        """Lets a paused task go on; one that is unknown or has ended needs no leave."""
        await _asked(peer.client.resume(task_id))

    async def forget(self, peer: Peer, task_id: str) -> None:
        """Lets a worker forget a task whose result is stored here, or that failed."""
        try:
            await peer.client.release(task_id)
        except NotFoundError:
            return
        except PreconditionError as error:
            if error.reason != "TASK_NOT_ENDED":
                raise

    async def _watch(self, peer: Peer, task: Task, look: Callable[[worker_pb2.Task], Any]) -> worker_pb2.Task:
        """Follows one stream; looks at least every second, also when nothing comes."""
        stream = aiter(peer.client.watch(task.task_id))
        last = worker_pb2.Task(task_id=task.task_id)
        try:
            while True:
                try:
                    last = await self._heard(peer, task, anext(stream), partial(look, last))
                except StopAsyncIteration:
                    return last
                self.answered(task.job)
                await look(last)
        finally:
            await stream.aclose()  # type: ignore[attr-defined]

    async def _heard(self, peer: Peer, task: Task, call: Awaitable[T], look: Callable[[], Awaitable[None]]) -> T:
        """Waits for what a worker says; looks every second, and asks a worker that is quiet whether it is there.

        Raises:
            UnavailableError: ``WORKER_UNREACHABLE``, also of one whose connection stands and which does not answer.
        """
        coming, heard = asyncio.ensure_future(call), monotonic()
        try:
            while not (await asyncio.wait({coming}, timeout=_LOOK_SECONDS))[0]:
                if monotonic() - heard >= _QUIET_SECONDS:
                    await peer.client.describe()
                    self.answered(task.job)
                    heard = monotonic()
                await look()
            return coming.result()
        finally:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)

    async def _submit(self, peer: Peer, task: Task) -> None:
        with self.blobs.scratch() as scratch:
            sealed = await self.compute(partial(self._seal, peer, task, scratch))
            # Nobody looks meanwhile: cut off in the moment that it is taken, a task would be there and nobody know it.
            await self._heard(peer, task, peer.client.submit(task.task_id, KINDS[task.kind], sealed), _nothing)

    def _seal(self, peer: Peer, task: Task, scratch: Path) -> Path:
        # In the clear, and sealed.
        disk.demand_room(scratch, 2 * sum(self.blobs.size(task.unit, sha256) for sha256 in task.blobs.values()))
        files: dict[str, Path] = {}
        for number, (path, sha256) in enumerate(sorted(task.blobs.items())):
            plain = scratch / f"{number}.part"
            copy_out(self.blobs, task.unit, sha256, plain)
            files[path] = plain
        manifest = {
            "task_id": task.task_id,
            "kind": task.kind,
            "job": task.job,
            "unit": task.unit,
            "order": canonical.float_free(task.order),
        }
        sealed = scratch / "sealed.bin"
        with sealed.open("xb") as out:
            bundle.seal({**files, **task.secrets}, manifest, peer.sealing_key, self.order_key, out)
        for plain in files.values():
            plain.unlink()
        return sealed

    def _open(self, peer: Peer, task: Task, sealed: Path, into: Path) -> Result:
        with sealed.open("rb") as source:
            manifest = bundle.unseal(source, self.sealing_key, peer.statement_key, into, max_bytes=self.max_bytes)
        named = {"task_id": task.task_id, "job": task.job, "unit": task.unit, "kind": "result"}
        if {k: manifest.get(k) for k in named} != named:
            raise IntegrityError("STATEMENT_BINDING", "the result belongs to another task")
        try:
            envelope = json.loads((into / STATEMENT_FILE).read_bytes())
        except (OSError, ValueError) as error:
            raise IntegrityError("STATEMENT_FILES", "the result carries no statement") from error
        verified = dsse.verify_service(envelope, peer.statement_key)
        train = task.kind == "train" and provenance.is_training(verified.statement)
        predicate = provenance.read_training(verified.statement) if train else verified.predicate
        bound = {
            "task_id": task.task_id,
            "job": task.job,
            "kind": task.kind,
            "order_sha256": sha256_bytes(canonical.encode(canonical.float_free(task.seen_order))),
        }
        known = train or verified.predicate_name == PREDICATES.get(task.kind)
        if not known or {k: predicate.get(k) for k in bound} != bound:
            raise IntegrityError("STATEMENT_BINDING", "the worker's statement is about another task or order")
        return Result(into, _check_files(into, verified.statement), envelope, predicate)


async def _asked(call: Awaitable[worker_pb2.Task]) -> worker_pb2.Task | None:
    """The answer to a call about a task; None where it is unknown to the worker, or has ended and cannot go on."""
    try:
        return await call
    except NotFoundError:
        return None
    except PreconditionError as error:
        if error.reason != "TASK_ENDED":
            raise
        return None


def _check_files(folder: Path, statement: Mapping[str, Any]) -> dict[str, str]:
    """Demands that the statement's subjects are exactly the files here; returns digests by path."""
    found = {
        path.relative_to(folder).as_posix(): sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / STATEMENT_FILE
    }
    wanted = dict(found)
    if (folder / ADAPTER_FOLDER).is_dir():
        wanted[ADAPTER_FOLDER] = folder_manifest(folder / ADAPTER_FOLDER).sha256
    signed = [(s["name"], s["digest"]["sha256"]) for s in statement["subject"]]
    if sorted(signed) != sorted(wanted.items()):
        raise IntegrityError("STATEMENT_FILES", "the files are not those that the worker's statement names")
    return found
