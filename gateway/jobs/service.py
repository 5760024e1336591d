"""Tuning jobs as clients reach them: ask, look, stop, go on, object, follow."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Connection

from assay import canonical
from assay.errors import AlreadyExistsError, InternalError, InvalidInputError, PreconditionError
from assay.v1 import policy_input_pb2, tuning_job_pb2
from audit.ledger import records
from audit.ledger.payloads import ScopeKeys
from audit.ledger.writer import UnitOfWork
from gateway import lineage, pages, requests, standing, words
from gateway.admission import account, capabilities, facts, hyperparameters, searching
from gateway.base_models import DIGEST, BaseModels
from gateway.caller import Caller, not_found
from gateway.erasures import demand_usable
from gateway.jobs import appeals, machine, pauses, views
from gateway.jobs.board import Board
from gateway.jobs.transitions import ActorKind, Event, State
from gateway.names import job_of, unit_of
from gateway.settings import Settings
from gateway.store import jobs, rows
from gateway.store.database import Store
from gateway.store.tables import DatasetRow, JobRow
from policies.engine import PolicyEngine

_METHOD = "CreateTuningJob"
_LOOK_AGAIN_SECONDS = 1.0


@dataclass(frozen=True)
class JobService:
    """Domain service of tuning jobs."""

    settings: Settings
    store: Store
    policy: PolicyEngine
    base_models: BaseModels
    board: Board
    keys: ScopeKeys
    train_worker: capabilities.Describes

    async def create_tuning_job(
        self, caller: Caller, request: tuning_job_pb2.CreateTuningJobRequest
    ) -> tuning_job_pb2.CreateTuningJobResponse:
        """Accepts a request, records it and answers at once; policy follows. With ``validate_only`` nothing is stored.

        Raises:
            NotFoundError: ``NOT_FOUND`` for a unit or dataset that is not there or not the caller's.
            InvalidInputError: ``OTHER_UNIT``, ``BASE_MODEL_UNKNOWN``, ``HYPERPARAMETERS``, ``SEARCH``, or
                ``BASE_MODEL_AMBIGUOUS`` for a teacher of which several revisions are installed.
            PreconditionError: ``METHOD_UNAVAILABLE``, or a reason of :func:`gateway.erasures.demand_usable`.
            ExhaustedError: ``UNIT_JOBS`` for a unit that has as many as its quota.
            AlreadyExistsError: ``JOB_EXISTS``, or ``REQUEST_ID`` for another content under the same id.
        """
        unit = unit_of(request.parent)
        caller.require_unit(unit, request.parent)
        if unit not in self.settings.units:
            raise not_found(request.parent)
        if unit_of(request.dataset) != unit:
            raise InvalidInputError(
                "OTHER_UNIT", "the dataset lies in another unit", remedy=f"upload it to {request.parent}"
            )
        hyperparameters.demand(request)
        searching.demand(request)
        base = self.base_models.get(request.base_model)
        await capabilities.demand(request.method, self.train_worker)
        name = f"{request.parent}/tuningJobs/{request.tuning_job_id}"
        if request.validate_only:
            return tuning_job_pb2.CreateTuningJobResponse(tuning_job=await self._preflight(caller, request, name, base))
        content = requests.digest(request)

        def work(uow: UnitOfWork) -> tuning_job_pb2.TuningJob:
            c = uow.connection
            before = requests.answered(c, caller.subject, _METHOD, request.request_id, content)
            if before:
                return self._whole(c, _require(c, before))
            if jobs.get(c, name) is not None:
                raise AlreadyExistsError("JOB_EXISTS", f"{name} exists", remedy="choose another tuning_job_id")
            account.demand_place(c, self.policy, request, uow.now)
            dataset = demand_usable(c, request.dataset, uow.now)
            lineage.parent_of(c, request)
            lineage.teacher_of(c, request, self.base_models)
            job = self._receive(uow, caller, request, name, dataset, base)
            requests.remember(c, caller.subject, _METHOD, request.request_id, content, name)
            return views.whole(c, job)

        message = await self.store.commit(work)
        self.board.moved(name)
        return tuning_job_pb2.CreateTuningJobResponse(tuning_job=message)

    async def trace_of(self, name: str) -> str:
        """The trace that asked for a job, given the job's or its model's resource name; empty where there is none."""
        job = job_of(name)
        if "/tuningJobs/" not in job:
            return ""
        row = await self.store.fetch(lambda connection: jobs.get(connection, job))
        return row.trace_id if row is not None else ""

    async def get_tuning_job(
        self, caller: Caller, request: tuning_job_pb2.GetTuningJobRequest
    ) -> tuning_job_pb2.GetTuningJobResponse:
        """Everything known of a job.

        Raises:
            NotFoundError: ``NOT_FOUND``.
        """
        caller.require_unit(unit_of(request.name), request.name)
        message = await self.store.fetch(
            lambda c: self._whole(c, _require(c, request.name), self._progress(request.name))
        )
        return tuning_job_pb2.GetTuningJobResponse(tuning_job=message)

    async def list_tuning_jobs(
        self, caller: Caller, request: tuning_job_pb2.ListTuningJobsRequest
    ) -> tuning_job_pb2.ListTuningJobsResponse:
        """A unit's jobs, newest first.

        Raises:
            NotFoundError: ``NOT_FOUND`` for a unit that the caller has no role in, or that never was.
            InvalidInputError: ``PAGE_TOKEN``.
        """
        unit = unit_of(request.parent)
        caller.require_unit(unit, request.parent)
        await self.store.require_unit(unit, request.parent)
        listing = pages.Listing.of(f"jobs {request.parent}", request)
        where = [rows.table(JobRow).c.unit == unit]

        def read(c: Connection) -> tuning_job_pb2.ListTuningJobsResponse:
            show = partial(self._summary, c)
            summaries, token = listing.read(
                c, JobRow, show, time="created_us", name="name", newest_first=True, where=where
            )
            return tuning_job_pb2.ListTuningJobsResponse(tuning_jobs=summaries, next_page_token=token)

        return await self.store.fetch(read)

    async def cancel_tuning_job(
        self, caller: Caller, request: tuning_job_pb2.CancelTuningJobRequest
    ) -> tuning_job_pb2.CancelTuningJobResponse:
        """Ends a job; a running task is stopped soon after.

        Raises:
            NotFoundError: ``NOT_FOUND``.
            PreconditionError: ``JOB_STATE`` when it has ended already.
        """
        message = await self._by_person(caller, request.name, Event.CANCEL, request.reason)
        return tuning_job_pb2.CancelTuningJobResponse(tuning_job=message)

    async def pause_tuning_job(
        self, caller: Caller, request: tuning_job_pb2.PauseTuningJobRequest
    ) -> tuning_job_pb2.PauseTuningJobResponse:
        """Pauses a queued or training job; the worker stops at its next checkpoint.

        Raises:
            NotFoundError: ``NOT_FOUND``.
            AbortedError: ``ETAG`` when the request names a version that is no longer the job's.
            PreconditionError: ``JOB_STATE``.
        """
        message = await self._by_person(caller, request.name, Event.PAUSE, request.reason, request.etag)
        return tuning_job_pb2.PauseTuningJobResponse(tuning_job=message)

    async def resume_tuning_job(
        self, caller: Caller, request: tuning_job_pb2.ResumeTuningJobRequest
    ) -> tuning_job_pb2.ResumeTuningJobResponse:
        """Lets a paused job go on where it stopped.

        Raises:
            NotFoundError: ``NOT_FOUND``.
            AbortedError: ``ETAG`` when the request names a version that is no longer the job's.
            PermissionDeniedError: ``OFFICERS_PAUSE`` when a compliance officer paused it.
            PreconditionError: ``JOB_STATE``, ``GUARD`` when the budget is spent, or a reason of
                :func:`gateway.standing.demand_intake`.
        """
        message = await self._by_person(caller, request.name, Event.RESUME, request.reason, request.etag)
        return tuning_job_pb2.ResumeTuningJobResponse(tuning_job=message)

    async def appeal_tuning_job(
        self, caller: Caller, request: tuning_job_pb2.AppealTuningJobRequest
    ) -> tuning_job_pb2.AppealTuningJobResponse:
        """Files an appeal.

        A denied or quarantined job stays as it is, and a waiver answers; a rejected one waits for others than the one
        who refused.

        The grounds are kept outside the log, under the job's key; the record commits to them.

        Raises:
            NotFoundError: ``NOT_FOUND``.
            PreconditionError: ``JOB_STATE``, ``SCOPE_ERASED`` for a job whose payloads were erased,
                ``APPEAL_LATE``, ``APPEAL_WAITS``, ``APPEAL_ENDED`` or ``NOT_APPEALABLE``.
        """
        message = await self._by_person(caller, request.name, Event.APPEAL, request.reason)
        return tuning_job_pb2.AppealTuningJobResponse(tuning_job=message)

    async def watch_tuning_job(
        self, caller: Caller, request: tuning_job_pb2.WatchTuningJobRequest
    ) -> AsyncIterator[tuning_job_pb2.WatchTuningJobResponse]:
        """Yields the job now, then at each change of state or progress; the last message says that it rests.

        Whether the caller may still watch is asked at the gate before each message.

        Raises:
            NotFoundError: ``NOT_FOUND``.
        """
        caller.require_unit(unit_of(request.name), request.name)
        shown, seen = b"", None
        async with self.board.watch(request.name) as moved:
            while True:
                now = await self.store.fetch(lambda c: jobs.moving(c, request.name)), self._progress(request.name)
                if now != seen:  # Else nothing is read or built: for days most looks find what the look before found.
                    seen = now
                    job = await self.store.fetch(lambda c: _require(c, request.name))
                    message = await self.store.fetch(partial(self._summary, job=job))
                    answer = tuning_job_pb2.WatchTuningJobResponse(tuning_job=message, resting=views.rests(job))
                    told = answer.SerializeToString(deterministic=True)
                    if told != shown:
                        shown = told
                        yield answer
                    if answer.resting:
                        return
                await moved(_LOOK_AGAIN_SECONDS)

    def _whole(
        self, connection: Connection, job: JobRow, progress: tuning_job_pb2.Progress | None = None
    ) -> tuning_job_pb2.TuningJob:
        """A job with everything known, people's words as long as nobody had them erased."""
        message = words.show(connection, self.keys, views.whole(connection, job, progress))
        for step in message.transitions:
            if step.event == Event.APPEAL:
                record = records.read(self.store.ledger.record(step.record_index).body)
                grounds = words.reference(record.predicate["grounds_commitment"])
                step.reason = words.shown(connection, self.keys, grounds)
        answer_by = appeals.due(self.policy, job, jobs.transitions(connection, job.name))
        if answer_by is not None:
            message.appeal_due_time.FromDatetime(answer_by)
        return message

    def _summary(self, connection: Connection, job: JobRow) -> tuning_job_pb2.TuningJob:
        return words.show(connection, self.keys, views.summary(job, self._progress(job.name)))

    def _keep(self, connection: Connection, job: JobRow, event: Event, reason: str) -> str:
        """The commitment to a person's words; a job whose payloads were erased can be cancelled, and keeps none."""
        try:
            return words.keep(connection, self.keys, job.unit, job.name, reason)
        except PreconditionError:
            if event is Event.CANCEL:
                return ""
            raise

    def _progress(self, name: str) -> tuning_job_pb2.Progress | None:
        return self.board.progress(name)

    async def _preflight(
        self,
        caller: Caller,
        request: tuning_job_pb2.CreateTuningJobRequest,
        name: str,
        base: policy_input_pb2.BaseModelFacts,
    ) -> tuning_job_pb2.TuningJob:
        """The job as it would be, with what policy says as far as it needs no rows."""
        now = dt.datetime.now(dt.UTC)
        await self.store.fetch(lambda c: account.demand_place(c, self.policy, request, now))
        dataset = await self.store.fetch(lambda c: demand_usable(c, request.dataset, now))
        nothing = policy_input_pb2.DataFacts()
        parent = await self.store.fetch(lambda c: lineage.parent_of(c, request))
        teacher = await self.store.fetch(lambda c: lineage.teacher_of(c, request, self.base_models))
        asked = facts.intake_input(self.settings, request, caller.subject, dataset, nothing, base, parent, teacher)
        message = tuning_job_pb2.TuningJob(
            name=name,
            dataset=request.dataset,
            base_model=request.base_model,
            purpose=request.purpose,
            method=request.method,
            hyperparameters=facts.hyperparameters(request, nothing, base.parameters).values,
            budget=request.budget,
            audit_profile=request.audit_profile,
            parent_model=request.parent_model,
            teacher=request.teacher if request.HasField("teacher") else None,
            search=request.search if request.HasField("search") else None,
            differential_privacy=request.differential_privacy if request.HasField("differential_privacy") else None,
            use=request.use if request.HasField("use") else None,
            creator=caller.subject,
        )
        message.decision.CopyFrom(self.policy.preflight(asked))
        message.decision.use_reading.CopyFrom(self.policy.read_use(asked))
        return message

    def _receive(
        self,
        uow: UnitOfWork,
        caller: Caller,
        request: tuning_job_pb2.CreateTuningJobRequest,
        name: str,
        dataset: DatasetRow,
        base: policy_input_pb2.BaseModelFacts,
    ) -> JobRow:
        now_us = rows.micros(uow.now)
        job = JobRow(
            name=name,
            unit=dataset.unit,
            creator=caller.subject,
            state=State.NONE.value,
            version=0,
            request=views.to_json(request),
            trace_id=caller.trace_id,
            cap_usd_micros=request.budget.max_usd_micros,
            created_us=now_us,
            updated_us=now_us,
        )
        teacher = (
            {lineage.TEACHER: lineage.teacher_id(request, self.base_models)} if request.HasField("teacher") else {}
        )
        change = machine.Change(
            Event.RECEIVE,
            caller.subject,
            ActorKind.PERSON,
            predicate={
                "request": canonical.from_message(request),
                "dataset_sha256": dataset.sha256,
                "base_sha256": base.sha256,
            },
            subjects=[("dataset", dataset.sha256), ("base", base.sha256)],
            facts={DIGEST: base.sha256, **teacher},
            trace_id=caller.trace_id,
        )
        return machine.receive(uow, job, change).job

    async def _by_person(
        self, caller: Caller, name: str, event: Event, reason: str, etag: str = ""
    ) -> tuning_job_pb2.TuningJob:
        caller.require_unit(unit_of(name), name)

        def work(uow: UnitOfWork) -> None:
            job = _require(uow.connection, name)
            if etag:
                machine.demand_etag(job, etag)
            values: dict[str, Any] = {"resume_to": job.state} if event is Event.PAUSE else {}
            predicate: dict[str, Any] = {}
            said = self._keep(uow.connection, job, event, reason)
            if event is Event.RESUME and job.state == State.PAUSED:
                pauses.demand(uow.connection, job, caller.subject)
                standing.demand_intake(uow.connection, self.policy, job, uow.now)
            if event is Event.APPEAL:
                appeals.demand(self.policy, job, jobs.transitions(uow.connection, name), uow.now)
                # A rejected job waits for people again, with a card of its own; a denied one stays as it is.
                stays = {"needs_work": job.needs_work, "reason": job.reason}
                values = {} if job.state == State.REJECTED else stays
                predicate, said = {"grounds_commitment": said}, ""
            change = machine.Change(
                event,
                caller.subject,
                ActorKind.PERSON,
                predicate=predicate,
                values=values,
                trace_id=caller.trace_id,
                words=said,
            )
            machine.transition(uow, name, change)

        await self.store.commit(work)
        self.board.moved(name)
        return await self.store.fetch(lambda c: self._whole(c, _require(c, name)))


def _require(connection: Connection, name: str) -> JobRow:
    job = jobs.get(connection, name)
    if job is None:
        raise not_found(name)
    if job.state == State.NONE:
        raise InternalError("JOB_ROW", f"{name} was never received")
    return job
