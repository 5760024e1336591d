"""Erasure: an order that a person signs, the shredding, and the record of it. Records and proofs stay.

For a dataset whose retention is over, the datasheet is the order (:mod:`gateway.retention`).

The order is recorded first and alone, so that whatever cuts it off later, a crash or a full disk, leaves an order that
is carried out: by the running gateway (:meth:`ErasureService.carry_out`), or at its next start. Shredding destroys the
scope's data key and payloads and, for a dataset, the data keys of its file and of what was split from it, for a job
those of its adapter. What was ordered before its log ended is shredded all the same, without a record. A data
subject's rows lie in files with those of others: its order names every dataset that holds them and every model that
they have reached, and no new work begins on those datasets. At every start whatever was ordered is shredded again,
before anything is served: a restored copy may have brought keys, files or rows back.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import accumulate
from typing import Any

from sqlalchemy import Connection, select

from assay import dsse
from assay.errors import (
    AlreadyExistsError,
    AssayError,
    InternalError,
    InvalidInputError,
    PermissionDeniedError,
    PreconditionError,
)
from assay.v1 import dataset_pb2, erasure_pb2
from audit.ledger import payloads, records
from audit.ledger.payloads import ScopeKeys
from audit.ledger.records import RecordDraft
from audit.ledger.schema import RECORDS
from audit.ledger.writer import UnitOfWork
from gateway import lineage, references, statements, subjects
from gateway.caller import SYSTEM_UNIT, Caller, not_found
from gateway.identity_registry import COMPLIANCE_OFFICER, require_live_role, verify_signed
from gateway.jobs import views
from gateway.jobs.transitions import RESTING, Event, State
from gateway.key_registry import People
from gateway.names import unit_of
from gateway.settings import Settings
from gateway.store import jobs, rows
from gateway.store.blobs import BlobStore
from gateway.store.database import Store
from gateway.store.tables import ApprovalRow, DatasetRow, ErasureRow, FactRow, JobRow
from gateway.words import ERASED_TEXT

_LOG = logging.getLogger(__name__)
_SCANNED = "erasure.scanned"
_RESTRICTED = "erasure.subject"
_PREPARED = "prepare.predicate"
RETENTION_ENDED = "retention-ended"
_MOST_NAMED = 500
_MODEL_BYTES, _DATASET_BYTES = 16_000, 4_000
"""Room for names in a record; the answer to the order names all of them."""
_WITH_REASONS = (Event.WAIVE, Event.DISMISS, Event.RESUME)
"""Events by which a person other than an approver answers for a job, in words."""
_TYPES = ("erasure.ordered", "erasure.executed")
_OWED, _UNRECORDED = -1, -2
"""In the place of the executing record's index: it is still to come; it never will, since the log has ended."""
_LIVE = (State.APPROVED, State.AWAITING_APPROVAL)
"""States of a job whose model runs, or may soon."""


@dataclass(frozen=True)
class ErasureService:
    """Domain service of erasures."""

    settings: Settings
    store: Store
    blobs: BlobStore
    keys: ScopeKeys
    people: People

    async def erase_resource(
        self, caller: Caller, request: erasure_pb2.EraseResourceRequest
    ) -> erasure_pb2.EraseResourceResponse:
        """Records a signed order, shreds, and records that. Bytes that another dataset holds too stay until its end.

        Raises:
            NotFoundError: ``NOT_FOUND``.
            PermissionDeniedError: ``SIGNER``, ``ROLE_MISSING``, or ``MAKER_CHECKER`` for a job in which one has signed.
            PreconditionError: ``JOBS_UNDER_WAY`` while a job works on it, ``JOB_STATE`` for a job that is approved or
                waits for approval.
            AlreadyExistsError: ``ERASED_BEFORE``.
            InvalidInputError, IntegrityError: the envelope does not hold, or orders another erasure (``STATEMENT``).
        """
        caller.require_unit(unit_of(request.name), request.name)
        envelope = dsse.envelope_from_proto(request.envelope)
        seen: dict[str, Sequence[int]] = {}
        if subjects.handle_in(request.name):
            search = partial(self.store.read, lambda c: self._holding(c, request.name, seen))
            await self.store.searches.run(caller.subject, search)
        await self.store.commit(lambda uow: self._order(uow, caller, request.name, envelope, seen))
        erasure = await self.store.commit(lambda uow: self._execute(uow, request.name, caller.trace_id, seen))
        return erasure_pb2.EraseResourceResponse(erasure=erasure)

    async def carry_out(self) -> list[str]:
        """Carries out what was ordered and never was, such as of an order whose disk was full; returns its names.

        One that cannot be carried out now is logged and tried again with the next call; the others go.
        """
        done = []
        for row in await self.store.fetch(
            lambda c: rows.select_all(c, ErasureRow, order_by="order_index", executed_index=_OWED)
        ):
            seen: dict[str, Sequence[int]] = {}
            try:
                await self.store.fetch(partial(self._holding, name=row.resource, seen=seen))
                await self.store.commit(partial(self._execute, name=row.resource, trace_id="", seen=seen))
                done.append(row.resource)
            except (AssayError, OSError) as error:
                _LOG.warning("erasure of %s waits: %s", row.resource, getattr(error, "reason", type(error).__name__))
        return done

    def reading(self, c: Connection, dataset: str) -> list[JobRow]:
        """Jobs under way on a dataset, paused ones too: they would still read its rows."""
        return [
            job
            for job in _jobs_on(c, unit_of(dataset), {dataset})
            if State(job.state) not in RESTING or job.state == State.PAUSED
        ]

    def replays(self, c: Connection, dataset: str) -> list[tuple[str, str, str]]:
        """Job, fact and task of every replay that may still read a dataset's rows."""
        found = ((job.name, jobs.replaying(c, job.name)) for job in _jobs_on(c, unit_of(dataset), {dataset}))
        return [(name, key, task) for name, replays in found for key, task in replays.items()]

    def expire(self, uow: UnitOfWork, dataset: str) -> bool:
        """Erases a dataset whose retention is over by ``uow.now``; False while a job works on it, or when it is gone.

        Under a log that has ended no job moves any more, and the record that is the order stands.
        """
        c = uow.connection
        row = rows.get(c, DatasetRow, name=dataset)
        end = retention_end(row) if row is not None else None
        if row is None or end is None or uow.now < end or rows.get(c, ErasureRow, resource=dataset) is not None:
            return False
        if not uow.frozen and any(_under_way(c, job) for job in _jobs_on(c, row.unit, {dataset})):
            return False
        order = ErasureRow(resource=dataset, unit=row.unit, reason_code=RETENTION_ENDED, order_index=row.record_index)
        rows.insert(c, order)
        self._execute(uow, dataset, "")
        return True

    def resume(self) -> int:
        """Shreds again whatever was ordered, and records what no record says yet; returns how many of those.

        Call it at start, before anything is served. Blocks.
        """
        ledger, unit = self.store.ledger, rows.table(ErasureRow).c.unit
        ledger.run(self._learn)
        units = self.store.read(lambda c: c.execute(select(unit).distinct()).scalars().all())
        return sum(ledger.run(partial(self._resume, unit=unit)) for unit in units)

    def _resume(self, uow: UnitOfWork, unit: str) -> int:
        """What the files of a unit are named by is looked up once for all its erasures: they grow with its history."""
        c, left = uow.connection, 0
        going = references.erasable(c, unit)
        for row in rows.select_all(c, ErasureRow, order_by="order_index", unit=unit):
            if row.executed_index < 0 and not uow.frozen:
                self._execute(uow, row.resource, "")
                left += 1
            else:
                self._shred(c, row, going)
        return left

    def _order(
        self,
        uow: UnitOfWork,
        caller: Caller,
        name: str,
        envelope: Mapping[str, Any],
        seen: dict[str, Sequence[int]],
    ) -> None:
        c, unit = uow.connection, unit_of(name)
        verified = verify_signed(envelope, self.people, uow.now, caller.subject)
        signed = statements.read_erasure_order(verified.statement)
        if signed.resource != name:
            raise InvalidInputError("STATEMENT", "the signed order names another resource than the request")
        require_live_role(c, caller.subject, COMPLIANCE_OFFICER, unit)
        known = rows.get(c, ErasureRow, resource=name)
        if known is not None and known.executed_index >= 0:
            raise AlreadyExistsError("ERASED_BEFORE", f"{name} was erased by record {known.executed_index}")
        if known is not None:
            uow.demand_open()
            return
        self._demand_free(c, unit, name, seen)
        _demand_undecided(c, name, caller.subject)
        index = uow.append(RecordDraft(unit, "erasure.ordered", "erasure-order", {}, envelope=envelope))
        rows.insert(c, ErasureRow(resource=name, unit=unit, reason_code=signed.reason_code, order_index=index))
        job = jobs.get(c, name)
        if job is not None and job.model:
            # Not as it is carried out: what an earlier build ordered took words alone.
            jobs.establish(c, name, {references.WEIGHTS: str(index)})

    def _demand_free(self, c: Connection, unit: str, name: str, seen: dict[str, Sequence[int]]) -> None:
        """The resource exists, or is a subject who may yet come, and nobody is working on it."""
        dataset = rows.get(c, DatasetRow, name=name)
        job = jobs.get(c, name)
        held = self._holding(c, name, seen)
        # A subject of whom nothing is known may stand in rows that no job has read, or come with a later upload.
        awaited = bool(subjects.handle_in(name)) and unit in self.settings.units
        if dataset is None and job is None and not awaited and not held and not payloads.commitments(c, unit, name):
            raise not_found(name)
        on = [job, *lineage.learning_from(c, unit, job.model)] if job else _jobs_on(c, unit, {name, *held})
        busy = [j.name for j in on if _under_way(c, j)]
        if busy:
            raise PreconditionError(
                "JOBS_UNDER_WAY",
                f"{', '.join(busy[:5])} is under way or being replayed",
                remedy="cancel it, or wait until it rests; a replay that was cut off ends by `assay job replay`",
            )

    def _execute(
        self, uow: UnitOfWork, name: str, trace_id: str, seen: dict[str, Sequence[int]] | None = None
    ) -> erasure_pb2.Erasure:
        """Shreds and records it; what is recorded already, or by nothing any more, is only shredded again."""
        c = uow.connection
        row = rows.get(c, ErasureRow, resource=name)
        if row is None:
            raise InternalError("ERASURE_ROW", f"{name} was not ordered to be erased")
        shredded = self._shred(c, row, references.erasable(c, row.unit))
        held = self._holding(c, name, seen)
        affected = sorted(m.name for m in lineage.reach(c, row.unit, {name, *held}, rows.micros(uow.now)).models)
        left = subjects.live(c, list(held))
        for dataset in left:
            _restrict(c, dataset, row.order_index)
        named, models = shredded.commitments[:_MOST_NAMED], _fitting(affected, _MODEL_BYTES)
        predicate: dict[str, Any] = {
            "resource": name,
            "reason_code": row.reason_code,
            "order_index": row.order_index,
            "commitments": named,
            "commitments_left_out": len(shredded.commitments) - len(named),
            "payloads": len(shredded.commitments),
            "blobs": shredded.blobs,
            "affected_models": models,
            "actor": self.settings.subject,
            "trace_id": trace_id,
        }
        if len(models) < len(affected):
            predicate["affected_models_left_out"] = len(affected) - len(models)
        if subjects.handle_in(name):
            datasets = _fitting(left, _DATASET_BYTES)
            predicate["affected_datasets"] = datasets
            if len(datasets) < len(left):
                predicate["affected_datasets_left_out"] = len(left) - len(datasets)
        index = row.executed_index
        if index < 0:
            record = RecordDraft(row.unit, "erasure.executed", "erasure", predicate)
            index = _UNRECORDED if uow.frozen else uow.append(record)
            rows.update(c, ErasureRow, {"resource": name}, {"executed_index": index})
        return erasure_pb2.Erasure(
            name=name,
            reason_code=row.reason_code,
            order_index=row.order_index,
            executed_index=index,
            commitments=named,
            payloads=len(shredded.commitments),
            blobs=shredded.blobs,
            affected_models=affected,
            affected_datasets=left,
        )

    def _shred(self, c: Connection, row: ErasureRow, going: Mapping[str, Set[str]]) -> _Shredded:
        """Keys first: what cannot be read any more is gone, whatever happens to the rest. Safe to repeat.

        ``going``: what :func:`gateway.references.erasable` says of the unit.
        """
        gone = payloads.shred(c, self.keys, row.unit, row.resource)
        _blank(c, row.resource)
        digests = going.get(row.resource, frozenset())
        for digest in sorted(digests):
            self.blobs.delete(row.unit, digest)
        # Not how many were still there: after a crash midway the count is that of the whole erasure.
        return _Shredded(gone, len(digests))

    def _holding(
        self, c: Connection, name: str, seen: dict[str, Sequence[int]] | None = None
    ) -> Mapping[str, Sequence[int]]:
        """A subject's rows by dataset; none for another resource.

        ``seen`` goes from a search ahead to the unit of work: an index never changes under its digest, so that the
        ledger's writer reads only those that came meanwhile.
        """
        handle = subjects.handle_in(name)
        return subjects.holding(c, self.blobs, unit_of(name), handle, seen) if handle else {}

    def _learn(self, uow: UnitOfWork) -> None:
        """Takes over orders and executions that the log has and the rows have not: the log is what counts."""
        c, key = uow.connection, {"job": SYSTEM_UNIT, "key": _SCANNED}
        mark = rows.get(c, FactRow, **key)
        begin = int(mark.value) if mark is not None else 0
        query = select(RECORDS.c.idx, RECORDS.c.body).where(RECORDS.c.idx >= begin, RECORDS.c.type.in_(_TYPES))
        for index, body in c.execute(query.order_by(RECORDS.c.idx)).all():
            record = records.read(bytes(body))
            name = str(record.predicate["resource"])
            known = rows.get(c, ErasureRow, resource=name)
            if record.type == "erasure.executed":
                if known is None:
                    _insert(c, record, index, int(record.predicate["order_index"]))
                rows.update(c, ErasureRow, {"resource": name}, {"executed_index": index})
                for dataset in record.predicate.get("affected_datasets", ()):
                    _restrict(c, str(dataset), int(record.predicate["order_index"]))
                if jobs.get(c, name) is not None and record.predicate["blobs"]:
                    jobs.establish(c, name, {references.WEIGHTS: str(record.predicate["order_index"])})
            elif known is None:
                _insert(c, record, _OWED, index)
        value = str(self.store.ledger.size)
        if mark is None:
            rows.insert(c, FactRow(**key, value=value))
        else:
            rows.update(c, FactRow, key, {"value": value})


@dataclass(frozen=True)
class _Shredded:
    """Commitments whose payloads are gone, and how many files were named."""

    commitments: list[str]
    blobs: int


def _jobs_on(c: Connection, unit: str, datasets: Collection[str]) -> list[JobRow]:
    """Every job of a unit on one of its datasets, and those whose preparation reads what a parent was trained on."""
    every = jobs.briefs(c, unit)
    on = {job.name for job in every if views.dataset_of(job) in datasets}
    working = (job.name for job in every if State(job.state) not in RESTING or job.state == State.PAUSED)
    beside = {name for name in working if lineage.reads(c, name, on) and _PREPARED not in jobs.facts(c, name)}
    found = (jobs.get(c, job.name) for job in every if job.name in on | beside)
    return [job for job in found if job is not None]


def _insert(c: Connection, record: records.Record, executed_index: int, order_index: int) -> None:
    resource, code = str(record.predicate["resource"]), str(record.predicate["reason_code"])
    row = ErasureRow(resource=resource, unit=record.unit, reason_code=code, order_index=order_index)
    rows.insert(c, row.model_copy(update={"executed_index": executed_index}))


def _restrict(c: Connection, dataset: str, order_index: int) -> None:
    """Notes that a dataset holds rows of an erased subject; the first order is as good a reason as the next."""
    if rows.get(c, FactRow, job=dataset, key=_RESTRICTED) is None:
        rows.insert(c, FactRow(job=dataset, key=_RESTRICTED, value=str(order_index)))


def _fitting(names: Sequence[str], most_bytes: int) -> list[str]:
    """As many of the names, from the first on, as have room in a record."""
    sizes = accumulate(len(name) + 3 for name in names[:_MOST_NAMED])
    return [name for name, size in zip(names, sizes, strict=False) if size <= most_bytes]


def _under_way(c: Connection, job: JobRow) -> bool:
    """A paused job is to go on, and one that rests with work left has a task to stop or a card to render."""
    state = State(job.state)
    return state not in RESTING or state is State.PAUSED or job.needs_work or bool(jobs.replaying(c, job.name))


def _demand_undecided(c: Connection, name: str, subject: str) -> None:
    """A job's reasons and adapter stay while it may run or waits for signatures, and nobody shreds their own reasons.

    Raises:
        PreconditionError: ``JOB_STATE``.
        PermissionDeniedError: ``MAKER_CHECKER``.
    """
    job = jobs.get(c, name)
    if job is None:
        return
    if job.state in _LIVE:
        raise PreconditionError(
            "JOB_STATE",
            f"a job in {job.state} keeps its adapter and the reasons of its people",
            remedy="revoke its approval first, or cancel the job",
        )
    told = {step.actor for step in jobs.transitions(c, name) if step.event in _WITH_REASONS}
    if subject in told or rows.get(c, ApprovalRow, job=name, subject=subject) is not None:
        raise PermissionDeniedError(
            "MAKER_CHECKER",
            "whose own reasons are kept with a job cannot order its erasure",
            remedy="ask another compliance officer",
        )


def erased_by(row: ErasureRow) -> int | None:
    """Index of the record by which it is gone: of the order, where the log had ended; None while it is still here."""
    if row.executed_index == _OWED:
        return None
    return row.order_index if row.executed_index == _UNRECORDED else row.executed_index


def demand_not_erased(c: Connection, resource: str) -> None:
    """Refuses work on what was ordered to be erased, and on a dataset with rows of a subject that was.

    Raises:
        PreconditionError: ``ERASED`` or ``SUBJECT_ERASED``.
    """
    row = rows.get(c, ErasureRow, resource=resource)
    if row is not None:
        index = erased_by(row)
        said = f"the erasure of {resource} was ordered" if index is None else f"{resource} was erased"
        remedy = "ask for a new job" if "/tuningJobs/" in resource else "upload a dataset under another name"
        raise PreconditionError(
            "ERASED", f"{said} by record {row.order_index if index is None else index}", remedy=remedy
        )
    restricted = rows.get(c, FactRow, job=resource, key=_RESTRICTED)
    if restricted is not None:
        raise PreconditionError(
            "SUBJECT_ERASED",
            f"{resource} holds rows of a data subject whose erasure was ordered by record {restricted.value}",
            remedy="upload it without those rows under another name, and erase this one",
        )


def _blank(c: Connection, dataset: str) -> None:
    """Takes provenance out of a row that holds the words: of a release that recorded them too."""
    found = rows.get(c, DatasetRow, name=dataset)
    if found is None or found.provenance:
        return
    sheet = views.from_json(found.datasheet, dataset_pb2.Datasheet)
    if sheet.provenance:
        sheet.provenance = ERASED_TEXT
        rows.update(c, DatasetRow, {"name": dataset}, {"datasheet": views.to_json(sheet)})


def demand_within_retention(dataset: DatasetRow, now: datetime) -> None:
    """Refuses new work on rows that were to be erased by now; the refusal is recorded like every other.

    Raises:
        PreconditionError: ``RETENTION_OVER``.
    """
    end = retention_end(dataset)
    if end is not None and now >= end:
        raise PreconditionError(
            "RETENTION_OVER",
            f"the rows of {dataset.name} were to be erased by {end.date().isoformat()}",
            remedy="the gateway erases it by itself; upload anew what may be kept longer",
        )


def demand_usable(c: Connection, dataset: str, now: datetime) -> DatasetRow:
    """A dataset that new work may begin on: its rows are here, and may be worked on.

    Raises:
        NotFoundError: ``NOT_FOUND``.
        PreconditionError: ``ERASED``, ``SUBJECT_ERASED`` or ``RETENTION_OVER``.
    """
    row = rows.get(c, DatasetRow, name=dataset)
    if row is None:
        raise not_found(dataset)
    demand_not_erased(c, dataset)
    demand_within_retention(row, now)
    return row


def retention_end(dataset: DatasetRow) -> datetime | None:
    """When the datasheet's days are over, counted from the upload; None where it names no days."""
    return rows.moment(dataset.retention_end_us) if dataset.retention_end_us else None


def retention_days(datasheet: str) -> int:
    """For how many days a datasheet, as a row keeps it, lets the rows be kept; 0 where it does not say."""
    return int(json.loads(datasheet).get("retention_days", 0))
