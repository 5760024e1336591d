"""The lineage as it is asked for: from a data subject or a dataset to every adapter and permit that it has reached."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection, select

from assay.errors import FieldViolation, InvalidInputError
from assay.subjects import SubjectIndex
from assay.v1 import dataset_pb2, policy_input_pb2
from assay.v1 import lineage_pb2 as pb
from gateway import subjects
from gateway.caller import Caller, not_found
from gateway.erasures import erased_by
from gateway.jobs import views
from gateway.jobs.transitions import State
from gateway.lineage import Reach, reach
from gateway.names import unit_of
from gateway.search_log import SearchLog
from gateway.settings import Settings
from gateway.store import jobs, rows
from gateway.store.blobs import FileBlobStore
from gateway.store.database import Store
from gateway.store.tables import DatasetRow, ErasureRow, JobRow

_MOST_ROWS = 1000


@dataclass(frozen=True)
class LineageService:
    """Domain service of lineage."""

    settings: Settings
    store: Store
    blobs: FileBlobStore
    log: SearchLog

    async def get_lineage(self, caller: Caller, request: pb.GetLineageRequest) -> pb.GetLineageResponse:
        """Follows a subject or a dataset. A subject of whom nothing is known gets an empty answer, not an error.

        Raises:
            NotFoundError: ``NOT_FOUND`` for a dataset that is not there and for a unit that is not the caller's.
            InvalidInputError: ``SUBJECT`` for a unit without a subject, or a subject beside another name.
            ExhaustedError: as :meth:`SearchLog.note` says, of a subject.
            UnavailableError: likewise.
        """
        unit = unit_of(request.name)
        caller.require_unit(unit, request.name)
        if unit not in self.settings.units and not self.blobs.folder(unit).is_dir():
            raise not_found(request.name)
        bare = request.name.count("/") == 1
        if bare != bool(request.subject.strip()):
            raise InvalidInputError(
                "SUBJECT",
                "the name of the unit goes with a subject, any other name without one",
                violations=[FieldViolation("subject", "give it with units/UNIT, and only then")],
                remedy="pass --subject, or name a dataset or units/UNIT/dataSubjects/HANDLE",
            )
        name = subjects.name_of(self.blobs, unit, request.subject) if bare else request.name
        found = (
            partial(self._subject, caller, unit, name)
            if subjects.handle_in(name)
            else partial(self.store.read, lambda c: self._of_dataset(c, unit, name))
        )
        return pb.GetLineageResponse(lineage=await self.store.searches.run(caller.subject, found))

    def _subject(self, caller: Caller, unit: str, name: str) -> pb.Lineage:
        self.log.note(caller, name)
        return self.store.read(lambda c: self._of_subject(c, unit, name))

    def _of_subject(self, c: Connection, unit: str, name: str) -> pb.Lineage:
        sizes: dict[str, int] = {}
        held = subjects.holding(c, self.blobs, unit, subjects.handle_in(name), sizes=sizes)
        every = _datasets(c, unit)
        found = [_dataset(c, row, pb.LINEAGE_RELATION_HOLDS_SUBJECT) for row in every if row.name in held]
        for dataset in found:
            dataset.row_count = len(held[dataset.name])
            dataset.rows.extend(held[dataset.name][:_MOST_ROWS])
        answer = _answer(name, found, reach(c, unit, held, _now()))
        answer.not_searched.extend(_not_searched(c, unit, every, sizes))
        return answer

    def _of_dataset(self, c: Connection, unit: str, name: str) -> pb.Lineage:
        every = _datasets(c, unit)
        asked = next((row for row in every if row.name == name), None)
        if asked is None:
            raise not_found(name)
        known = subjects.digests(c, unit, jobs.briefs(c, unit))
        index = self._index(unit, known, name)
        found = []
        for row in every:
            # One other index at a time: each may hold 250,000 rows.
            other = index if row is asked else self._index(unit, known, row.name)
            shared = index.shared_with(other) if index is not None and other is not None and row is not asked else 0
            if row is asked:
                relation = pb.LINEAGE_RELATION_ASKED
            elif row.sha256 == asked.sha256:
                relation = pb.LINEAGE_RELATION_SAME_BYTES
            elif shared:
                relation = pb.LINEAGE_RELATION_SHARES_SUBJECTS
            else:
                continue
            dataset = _dataset(c, row, relation)
            dataset.row_count, dataset.shared_subjects = len(other) if other is not None else 0, shared
            found.append(dataset)
        same = [row.name for row in every if row.sha256 == asked.sha256]
        return _answer(name, found, reach(c, unit, same, _now()))

    def _index(self, unit: str, known: Mapping[str, str], dataset: str) -> SubjectIndex | None:
        return subjects.index_at(self.blobs, unit, known[dataset]) if dataset in known else None


def _datasets(c: Connection, unit: str) -> list[DatasetRow]:
    return rows.select_all(c, DatasetRow, order_by="created_us", unit=unit)[::-1]


def _dataset(c: Connection, row: DatasetRow, relation: pb.LineageRelation) -> pb.LineageDataset:
    dataset = pb.LineageDataset(name=row.name, relation=relation, sha256=row.sha256)
    erasure = rows.get(c, ErasureRow, resource=row.name)
    index = erased_by(erasure) if erasure is not None else None
    if index is not None:
        dataset.erased_index = index
    return dataset


def _not_searched(
    c: Connection, unit: str, datasets: Sequence[DatasetRow], sizes: Mapping[str, int]
) -> Iterator[pb.NotSearched]:
    """Datasets in which the subject's rows may stand unseen. ``sizes``: of the indexes searched, by digest."""
    every = jobs.briefs(c, unit)
    known = subjects.digests(c, unit, every)
    asked = rows.table(JobRow).c
    query = select(asked.name, asked.data).where(asked.unit == unit, asked.data != "")
    read: dict[str, str] = {job: data for job, data in c.execute(query)}
    facts = {views.dataset_of(job): read[job.name] for job in every if job.name in read}
    for row in datasets:
        erased = rows.get(c, ErasureRow, resource=row.name) is not None
        size = sizes.get(known.get(row.name, ""))
        if size is not None:
            # Nothing was learned from a row that was refused: it is gone with the file.
            left = 0 if erased else _left_out(facts.get(row.name, ""), size)
            if left:
                why = pb.NOT_SEARCHED_REASON_ROWS_NOT_READABLE
                yield pb.NotSearched(dataset=row.name, reason=why, row_count=left)
            continue
        if not views.from_json(row.datasheet, dataset_pb2.Datasheet).group_field:
            why = pb.NOT_SEARCHED_REASON_NO_GROUP_FIELD
        elif erased:
            why = pb.NOT_SEARCHED_REASON_ERASED
        else:
            why = pb.NOT_SEARCHED_REASON_ROWS_NOT_READ
        yield pb.NotSearched(dataset=row.name, reason=why)


def _left_out(facts: str, size: int) -> int:
    """Rows that a dataset's index of this size does not hold, all of them refused: nobody could read whom they name."""
    data = views.from_json(facts, policy_input_pb2.DataFacts)
    return max(0, data.rows - size) if data.invalid_rows else 0


def _answer(name: str, datasets: Sequence[pb.LineageDataset], reached: Reach) -> pb.Lineage:
    states = {job.name: State(job.state).proto for job in reached.jobs}
    return pb.Lineage(
        name=name,
        datasets=datasets,
        jobs=[
            pb.LineageJob(name=job.name, dataset=views.dataset_of(job), state=states[job.name]) for job in reached.jobs
        ],
        models=[
            pb.LineageModel(
                name=model.name,
                job=model.job,
                state=states[model.job],
                adapter_sha256=model.adapter_sha256,
                inherited_from=reached.parents.get(model.name, ""),
            )
            for model in reached.models
        ],
        permits=[
            pb.LineagePermit(
                name=permit.name,
                model=permit.model,
                environment=permit.environment,
                purpose=permit.purpose,
                not_after=rows.timestamp(permit.not_after_us),
            )
            for permit in reached.permits
        ],
    )


def _now() -> int:
    return rows.micros(dt.datetime.now(dt.UTC))
