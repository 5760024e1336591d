"""What every step of the pipeline works with, and how it moves a job."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from assay.digests import sha256_bytes
from assay.errors import AbortedError, AssayError, IntegrityError, InternalError, PreconditionError
from assay.modelfiles import ADAPTER_CONFIG
from assay.subjects import INDEX_FILE
from assay.v1 import policy_input_pb2, tuning_job_pb2, worker_pb2
from audit.ledger.writer import UnitOfWork
from gateway import references
from gateway.admission.exchange import ADAPTER_FOLDER, Ended, Exchange, Peer, Result, Task
from gateway.admission.facts import run_cost
from gateway.admission.quotes import PRICES
from gateway.base_models import BaseModels
from gateway.history import INTAKE_QUESTION
from gateway.jobs import machine, views
from gateway.jobs.board import Board
from gateway.jobs.transitions import ActorKind, Event
from gateway.settings import PriceBook, Settings
from gateway.store import disk, jobs, rows
from gateway.store.blobs import Blob, FileBlobStore, put
from gateway.store.database import Store
from gateway.store.tables import DatasetRow, JobRow
from policies.engine import PolicyEngine

_SAME_FOR_MANY = frozenset({sha256_bytes(b""), sha256_bytes(b"[]")})
"""Digests of an empty split, and of the manifest of no canaries."""
_CONFIGURATION = f"{ADAPTER_FOLDER}/{ADAPTER_CONFIG}"
"""Tells of no row, and is often another adapter's too."""
_NO_ROOM = (
    "DISK_FULL",
    "TASK_DISK: the worker's disk",
    "TASK_MEMORY: the machine's memory",
    "TASK_MEMORY: the kernel killed",
)
"""What a worker says of a task that ended for want of room on its machine, whoever took it. A task that fills its own
temporary folder says ``DISK_FULL`` too, and is tried as often."""

LOST = "train_lost"
"""The stage of what a train worker computed of a job and then lost, with its spool: whole seconds that were noted."""


class TaskFailedError(AssayError):
    """A worker's task ended in a fault; ``reason`` is the worker's code."""

    code = "INTERNAL"


@dataclass(frozen=True)
class Office:
    """Everything that the steps need, passed explicitly."""

    settings: Settings
    store: Store
    blobs: FileBlobStore
    policy: PolicyEngine
    base_models: BaseModels
    board: Board
    exchange: Exchange
    train: Peer
    audit: Peer

    def peer(self, kind: str) -> Peer:
        """The worker that does tasks of this kind."""
        return self.train if kind == "train" else self.audit

    async def change(
        self,
        job: JobRow,
        event: Event,
        *,
        reason: str = "",
        predicate: Mapping[str, Any] | None = None,
        subjects: Sequence[tuple[str, str]] = (),
        values: Mapping[str, Any] | None = None,
        facts: Mapping[str, str] | None = None,
        before: Any = None,
        after: Callable[[UnitOfWork, int], None] | None = None,
    ) -> None:
        """Moves a job on the gateway's own behalf, if nobody moved it since ``job`` was read.

        Args:
            job: the job as read.
            event: the table's event.
            reason: why, in words.
            predicate: members of the record.
            subjects: digests that the record binds.
            values: columns to set.
            facts: facts to establish.
            before: called with the unit of work first, for rows and records that commit together with the change.
            after: called last, with the index of the change's record.

        Raises:
            AbortedError: ``STALE`` when somebody moved it.
        """
        change = machine.Change(
            event,
            self.settings.subject,
            ActorKind.GATEWAY,
            reason,
            predicate or {},
            subjects,
            values or {},
            facts or {},
            trace_id=job.trace_id,
            version=job.version,
        )

        def work(uow: UnitOfWork) -> None:
            if before is not None:
                before(uow)
            changed = machine.transition(uow, job.name, change)
            if after is not None:
                after(uow, changed.index)

        await self.store.commit(work)
        self.board.moved(job.name)

    @asynccontextmanager
    async def keeping(self, job: JobRow, result: Result, names: Iterable[str]) -> AsyncIterator[Mapping[str, Blob]]:
        """Stores files of a result for the change that the block makes; gives them by name.

        They go again where storing or the block fails: no erasure would ever find what nothing names. A job that comes
        there again has them from its worker once more. Where the gateway itself ends meanwhile, its next start does it.

        Raises:
            UnavailableError: ``DISK_FULL``.
            IntegrityError: ``STATEMENT_FILES`` for a file that is not what the worker signed any more.
        """
        files = {name: result.files[name] for name in names}
        mark = await asyncio.to_thread(self.blobs.mark, job.unit, files.values())
        try:
            yield await self.exchange.compute(lambda: self._put(job.unit, result.folder, files))
        except Exception as error:
            # Whether a log that stopped has taken the change, only the next start can tell.
            if not (isinstance(error, AssayError) and error.reason == "LEDGER_STOPPED"):
                await self._drop(job, files)
                mark.unlink()
            raise
        mark.unlink()

    def _put(self, unit: str, folder: Path, files: Mapping[str, str]) -> dict[str, Blob]:
        disk.demand_room(self.settings.data, sum((folder / name).stat().st_size for name in files))
        kept: dict[str, Blob] = {}
        for name, sha256 in files.items():
            with (folder / name).open("rb") as stream:
                kept[name] = put(self.blobs, unit, stream)
            if kept[name].sha256 != sha256:
                raise IntegrityError("STATEMENT_FILES", "a file changed while it was stored")
        return kept

    async def _drop(self, job: JobRow, files: Mapping[str, str]) -> None:
        """Removes files that nothing names, but for what another job may be storing at this moment, the same bytes."""
        needed, twin = await self.store.fetch(
            lambda c: (references.needed(c, job.unit), references.prepared_beside(c, job))
        )
        same = {_CONFIGURATION} | ({INDEX_FILE} if twin else set())
        for digest in {files[name] for name in files.keys() - same} - needed - _SAME_FOR_MANY:
            await asyncio.to_thread(self.blobs.delete, job.unit, digest)

    async def demand_room_there(self, job: JobRow, task: Task, ended: Ended) -> None:
        """Has a preparation or an audit done again that ended for want of room on its machine.

        What it took is nobody's fault and is not counted. The pipeline tries a few times.

        Raises:
            PreconditionError: ``DISK_FULL``, ``TASK_DISK`` or ``TASK_MEMORY``; the next try is another task.
        """
        if not ended.task.reason.startswith(_NO_ROOM):
            return
        error = failed(task.kind, ended.task.reason)
        # Forgotten first: cut off in between, the same task still says how it ended.
        await self.exchange.forget(self.peer(task.kind), task.task_id)
        key = f"{jobs.AGAIN}{task.kind}.{task.task_id.rpartition('.')[2]}"
        await self.store.commit(lambda uow: jobs.establish(uow.connection, job.name, {key: error.reason}))
        words, _, remedy = error.message.partition("; remedy: ")
        raise PreconditionError(error.reason, words, remedy=remedy or "make room on the worker's machine")

    async def known(self, job: JobRow) -> Known:
        """What has been established about a job."""

        def read(connection: Connection) -> Known:
            dataset = rows.get(connection, DatasetRow, name=views.request_of(job).dataset)
            if dataset is None:
                raise InternalError("JOB_ROW", f"the dataset of {job.name} has no row")
            return Known(dataset, jobs.facts(connection, job.name))

        return await self.store.fetch(read)

    def spent(self, job: JobRow, book: PriceBook, stage: str, seconds: float) -> dict[str, Any]:
        """Columns for a stage that took so many seconds by its supervisor's clock."""
        stages = stages_with(job, stage, seconds)
        cost = cost_of(book, stages)
        return {"stage_seconds": json.dumps(stages, sort_keys=True), "cost_usd_micros": cost}

    async def look(self, job: JobRow, kind: str, task: worker_pb2.Task, parameters: int = 0) -> None:
        """Shows a task's progress and meter to those who watch the job, and notices when a person moved the job.

        Args:
            job: the job as read.
            kind: the task's kind.
            task: as its worker sees it now.
            parameters: of the base model, where the task trains it.

        Raises:
            AbortedError: ``STALE``; the pipeline then looks at the job anew.
        """
        progress = tuning_job_pb2.Progress()
        progress.CopyFrom(task.progress)
        progress.stage = kind
        if task.HasField("meter"):
            progress.meter.CopyFrom(task.meter)
        if parameters and "tokens" in progress.metrics:
            progress.flop = 6.0 * parameters * progress.metrics["tokens"]
        self.board.report(job.name, progress)
        row = await self.store.fetch(lambda c: jobs.get(c, job.name))
        if row is None or row.version != job.version:
            raise AbortedError("STALE", f"{job.name} changed meanwhile")


def stages_with(job: JobRow, stage: str, seconds: float) -> dict[str, float]:
    """Seconds by stage, with those of one stage as they are by now."""
    return {**json.loads(job.stage_seconds), stage: seconds}


def cost_of(book: PriceBook, stages: Mapping[str, float]) -> int:
    """What stages have cost, by their supervisors' clocks."""
    trained, measured = ([stages.get(stage, 0.0) for stage in pair] for pair in (("train", LOST), ("prepare", "audit")))
    return run_cost(book, sum(trained), sum(measured))


def audit_left(book: PriceBook, stages: Mapping[str, float]) -> int:
    """What the quote still holds for the audit, in millionths of a US dollar; 0 where preparation took it all."""
    return max(0, book.audit_seconds - math.ceil(stages.get("prepare", 0.0))) * book.price


@dataclass(frozen=True)
class Known:
    """A job's dataset and the facts established about the job."""

    dataset: DatasetRow
    facts: Mapping[str, str]

    def json(self, key: str) -> Any:
        """A fact that is JSON.

        Raises:
            InternalError: ``FACT_MISSING``; a job cannot be in a state without the facts that lead to it.
        """
        return json.loads(self.text(key))

    def decided(self) -> policy_input_pb2.RequestFacts:
        """The request as intake policy was told of it."""
        return self._question().request

    def base(self) -> policy_input_pb2.BaseModelFacts:
        """The base model as intake policy was told of it: what its id stands for later changes no job."""
        return self._question().base_model

    def _question(self) -> policy_input_pb2.IntakeInput:
        return views.from_json(self.text(INTAKE_QUESTION), policy_input_pb2.IntakeInput)

    def price_book(self, present: PriceBook) -> PriceBook:
        """The prices that the job was quoted; the ``present`` ones for a job of before they were kept."""
        return PriceBook.model_validate_json(self.facts[PRICES]) if PRICES in self.facts else present

    def text(self, key: str) -> str:
        """A fact as text.

        Raises:
            InternalError: ``FACT_MISSING``.
        """
        if key not in self.facts:
            raise InternalError("FACT_MISSING", f"{key} was never established")
        return self.facts[key]


def task_id(job: JobRow, kind: str, known: Mapping[str, str]) -> str:
    """The id of a job's task of a kind: it follows from what is known, so that after a crash it is the same task."""
    unit, short = job.unit, job.name.rsplit("/", 1)[-1]
    number = 1 + sum(key.startswith(f"{jobs.AGAIN}{kind}.") for key in known)
    return f"{unit}.{short}.{kind}.{number}"


def make_task(
    job: JobRow,
    known: Known,
    kind: str,
    order: Mapping[str, Any],
    blobs: Mapping[str, str],
    seen: Mapping[str, Any] | None = None,
    secrets: Mapping[str, bytes] | None = None,
) -> Task:
    """A task of a job; ``seen`` is the order as the task sees it where that is not the order as it travels."""
    seen_order = order if seen is None else seen
    return Task(task_id(job, kind, known.facts), kind, job.name, job.unit, order, seen_order, blobs, secrets or {})


def words_of(error: AssayError) -> str:
    """An error as a job's reason has it."""
    remedy = f"; remedy: {error.remedy}" if error.remedy else ""
    return f"{error.reason}: {error.message}{remedy}"


def failed(kind: str, reason: str) -> TaskFailedError:
    """The error for a task that its worker ended with ``CODE: words``."""
    code, _, words = reason.partition(":")
    return TaskFailedError(code.strip() or "TASK_FAILED", words.strip() or f"the {kind} task failed")
