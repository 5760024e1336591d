"""Replays: a job's training done again from its sealed bundle, by the order that was signed, and compared bit by bit.

A replay is an ordinary train task under an id of its own; the job stays in the state that it is in. The worker's
statement about it goes into the ledger with the verdict: REPRODUCED, DIFFERS (with what differs in the environment), or
NOT_REPLAYABLE for a run whose noise is nobody's to know, and for rows that are gone. A call that is cut off leaves the
task to its worker, and the next call joins it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from sqlalchemy import Connection

from assay import dsse, modelfiles, provenance
from assay.errors import PreconditionError
from assay.v1 import tuning_job_pb2 as pb
from assay.v1 import worker_pb2
from audit.ledger import records
from audit.ledger.records import RecordDraft
from audit.ledger.writer import UnitOfWork
from gateway import lineage
from gateway.admission.exchange import ADAPTER_FOLDER, Task
from gateway.admission.office import Office
from gateway.admission.training import train_task
from gateway.caller import Caller, not_found
from gateway.erasures import demand_not_erased, demand_usable
from gateway.jobs import views
from gateway.jobs.transitions import Event
from gateway.names import unit_of
from gateway.store import jobs
from gateway.store.tables import JobRow

REPRODUCED, DIFFERS, NOT_REPLAYABLE = "REPRODUCED", "DIFFERS", "NOT_REPLAYABLE"
_MOST_DIFFERENCES = 100


@dataclass(frozen=True)
class Trained:
    """The run that is to be repeated, as the ledger has it."""

    job: JobRow
    number: int
    index: int
    adapter_sha256: str
    statement: Mapping[str, Any]

    @property
    def claim(self) -> Mapping[str, Any]:
        """What the run claimed."""
        claim: Mapping[str, Any] = provenance.read_training(self.statement)["claim"]
        return claim


@dataclass(frozen=True)
class Outcome:
    """What came of a replay."""

    verdict: str
    reason: str = ""
    adapter_sha256: str = ""
    validation_loss: str = ""
    differences: tuple[Mapping[str, str], ...] = ()
    envelope: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class ReplayService:
    """Domain service of replays."""

    office: Office
    _running: dict[str, set[asyncio.Task[Outcome]]] = field(default_factory=dict, repr=False)

    async def replay_tuning_job(
        self, caller: Caller, request: pb.ReplayTuningJobRequest
    ) -> AsyncIterator[pb.ReplayTuningJobResponse]:
        """Yields progress, and at last the recorded result.

        Raises:
            NotFoundError: ``NOT_FOUND``.
            PreconditionError: ``JOB_NOT_TRAINED``; ``RETENTION_OVER`` where the rows' time is over, also meanwhile.
            UnavailableError: the worker cannot be reached; call again.
        """
        caller.require_unit(unit_of(request.name), request.name)
        trained = await self.office.store.fetch(lambda c: self._trained(c, request.name))
        # The newest alone, since a caller may read slowly, or nothing at all for days.
        shown: asyncio.Queue[worker_pb2.Task | None] = asyncio.Queue(1)
        running = asyncio.create_task(self._run(trained, shown))
        running.add_done_callback(lambda _: _show(shown, None))
        beside = self._running.setdefault(_task_id(trained), set())
        beside.add(running)
        try:
            while (task := await shown.get()) is not None:
                yield pb.ReplayTuningJobResponse(progress=task.progress)
            if running.cancelled():
                words = f"the rows of {views.request_of(trained.job).dataset} are to be erased"
                raise PreconditionError("RETENTION_OVER", words, remedy="they cannot be trained on any more")
            outcome = running.result()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            beside.discard(running)
            if not beside:
                self._running.pop(_task_id(trained), None)
        tolerance = self.office.policy.replay_tolerance
        message = await self.office.store.commit(lambda uow: _record(uow, caller, trained, outcome, tolerance))
        await self.office.exchange.forget(self.office.train, _task_id(trained))
        yield pb.ReplayTuningJobResponse(replay=message)

    def _trained(self, c: Connection, name: str) -> Trained:
        job = jobs.get(c, name)
        if job is None:
            raise not_found(name)
        index = next((t.record_index for t in jobs.transitions(c, name) if t.event == Event.AUDIT), None)
        if index is None:
            raise PreconditionError("JOB_NOT_TRAINED", f"{name} has no adapter yet", remedy="wait until it is trained")
        predicate = records.read(self.office.store.ledger.record(index).body).predicate
        statement = dsse.read_statement(dsse.envelope_payload(predicate["statement"]))
        number = 1 + sum(1 for key in jobs.facts(c, name) if key.startswith(jobs.REPLAY))
        return Trained(job, number, index, predicate["adapter_sha256"], statement)

    async def end(self, task_id: str) -> bool:
        """Ends a replay whose rows are to go; False where that must be done once more.

        What a call was just handing in may reach the worker after it was told to end it.

        Raises:
            UnavailableError: the worker cannot be reached; it may still hold the rows.
        """
        # One that has ended stays among them for as long as its caller reads nothing.
        following = [one for one in self._running.get(task_id, ()) if not one.done()]
        for one in following:
            one.cancel()
        await asyncio.gather(*following, return_exceptions=True)
        exchange, peer = self.office.exchange, self.office.train
        await exchange.cancel(peer, task_id)
        if following:
            return False
        await exchange.forget(peer, task_id)
        return True

    def _begin(self, trained: Trained, uow: UnitOfWork) -> str:
        """Notes that the rows are read again, so that no erasure believes them free; or says what is in the way.

        Raises:
            PreconditionError: ``RETENTION_OVER``. It is no verdict, which would say that no worker holds the rows.
        """
        obstacle = self._obstacle(uow.connection, trained)
        if not obstacle:
            demand_usable(uow.connection, views.request_of(trained.job).dataset, uow.now)
            jobs.establish(uow.connection, trained.job.name, {f"{jobs.BEGUN}{trained.number}": _task_id(trained)})
        return obstacle

    def _obstacle(self, c: Connection, trained: Trained) -> str:
        """Why the run cannot be repeated, as a stable word; empty when it can."""
        if trained.claim.get("differential_privacy"):
            return "DIFFERENTIAL_PRIVACY"
        job = trained.job
        request = views.request_of(job)
        known = jobs.facts(c, job.name)
        read = ("train", "validation", *(("selection",) if request.HasField("search") else ()))
        stored = [known.get(f"prepare.{split}.jsonl", "") for split in read]
        named = [job.name, request.dataset]
        if request.parent_model:
            stored += lineage.files_of(c, request.parent_model).values()
            named.append(lineage.job_of(c, request.parent_model))
        try:
            for name in named:
                demand_not_erased(c, name)
        except PreconditionError as error:
            return error.reason
        return "" if all(s and self.office.blobs.exists(job.unit, s) for s in stored) else "BUNDLE_ABSENT"

    async def _run(self, trained: Trained, shown: asyncio.Queue[worker_pb2.Task | None]) -> Outcome:
        office = self.office
        # Within what `end` ends: no fact tells of a replay that nobody could end.
        obstacle = await office.store.commit(partial(self._begin, trained))
        if obstacle:
            return Outcome(NOT_REPLAYABLE, obstacle)

        async def look(task: worker_pb2.Task) -> None:
            _show(shown, task)

        task = await self._task(trained)
        ended = await office.exchange.follow(office.train, task, look)
        if ended.may_go_on:
            # No person resumes a replay, so its checkpoint is of no use.
            await office.exchange.cancel(office.train, task.task_id)
        if not ended.done:
            return Outcome(NOT_REPLAYABLE, ended.task.reason.partition(":")[0][:63] or "TASK_FAILED")
        async with office.exchange.result(office.train, task, ended, look) as result:
            folder = result.folder / ADAPTER_FOLDER
            checked = await office.exchange.compute(partial(modelfiles.check_adapter_folder, folder))
            statement = dsse.read_statement(dsse.envelope_payload(result.envelope))
            found = provenance.differences(provenance.lock_of(trained.statement), provenance.lock_of(statement))
            found += _of_claims(trained.claim, result.predicate["claim"])
            return Outcome(
                REPRODUCED if checked.sha256 == trained.adapter_sha256 else DIFFERS,
                adapter_sha256=checked.sha256,
                validation_loss=str(result.predicate["claim"].get("validation_loss") or ""),
                differences=tuple(found[:_MOST_DIFFERENCES]),
                envelope=result.envelope,
            )

    async def _task(self, trained: Trained) -> Task:
        known = await self.office.known(trained.job)
        return replace(await train_task(self.office, trained.job, known), task_id=_task_id(trained))


def _show(shown: asyncio.Queue[worker_pb2.Task | None], task: worker_pb2.Task | None) -> None:
    """Puts the newest in the place of what nobody has read."""
    if shown.full():
        shown.get_nowait()
    shown.put_nowait(task)


def _of_claims(*claims: Mapping[str, Any]) -> list[dict[str, str]]:
    """What no lock says: of how many environments a resumed run has bits, and how memory made it split its batches."""
    many = [max(1, len(claim.get("environments", ()))) for claim in claims]
    parts = [int(claim.get("micro_batch_tokens", 0)) for claim in claims]
    found = [("environments", many)] if max(many) > 1 else []
    found += [("micro_batch_tokens", parts)] if parts[0] != parts[1] else []
    return [{"name": name, "recorded": str(before), "now": str(after)} for name, (before, after) in found]


def within(tolerance: float, before: str, outcome: Outcome) -> bool:
    """Whether another adapter may be what another environment explains: validation losses so near, in nats a token."""
    if outcome.verdict != DIFFERS or not (outcome.differences and before and outcome.validation_loss):
        return False
    # A NaN lies within nothing. Both are decimals of a few digits, whose difference need not be one in binary.
    return abs(float(before) - float(outcome.validation_loss)) <= tolerance * (1 + 1e-9)


def _task_id(trained: Trained) -> str:
    """Follows from the job and the replay's number, so that a call after a crash finds the same task."""
    return f"{trained.job.unit}.{trained.job.name.rsplit('/', 1)[-1]}.replay.{trained.number}"


def _record(uow: UnitOfWork, caller: Caller, trained: Trained, outcome: Outcome, tolerance: float) -> pb.Replay:
    """Records the outcome once; two callers who followed the same replay get the same record."""
    name, key = trained.job.name, f"{jobs.REPLAY}{trained.number}"
    known = jobs.facts(uow.connection, name)
    if key in known:
        return views.from_json(known[key], pb.Replay)
    before = str(trained.claim.get("validation_loss") or "")
    near = within(tolerance, before, outcome)
    predicate = {
        "job": name,
        "actor": caller.subject,
        "trace_id": caller.trace_id,
        "number": trained.number,
        "verdict": outcome.verdict,
        "reason": outcome.reason,
        "training_index": trained.index,
        "adapter_sha256": trained.adapter_sha256,
        "replayed_sha256": outcome.adapter_sha256,
        "differences": [dict(d) for d in outcome.differences],
        "validation_loss": before,
        "replayed_validation_loss": outcome.validation_loss,
        "tolerance": f"{tolerance:g}",
        "within_tolerance": near,
        **({"statement": outcome.envelope} if outcome.envelope else {}),
    }
    subjects = [("adapter", trained.adapter_sha256)]
    index = uow.append(RecordDraft(trained.job.unit, "training.replayed", "replay", predicate, subjects, job=name))
    message = pb.Replay(
        tuning_job=name,
        number=trained.number,
        verdict=f"VERDICT_{outcome.verdict}",
        reason=outcome.reason,
        adapter_sha256=trained.adapter_sha256,
        replayed_sha256=outcome.adapter_sha256,
        differences=[pb.EnvironmentDifference(**d) for d in outcome.differences],
        validation_loss=before,
        replayed_validation_loss=outcome.validation_loss,
        record_index=index,
        tolerance=f"{tolerance:g}",
        within_tolerance=near,
    )
    jobs.establish(uow.connection, name, {key: views.to_json(message)})
    return message
