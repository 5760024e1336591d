"""The loop that moves jobs: claim by lease, take one step at a time, give back when a job rests.

Nothing here needs to survive: a killed gateway is followed by another that claims the same jobs, finds what was
established, asks the workers for the tasks they hold, and goes on. A version number guards every change, so that two
drivers of one job cannot both move it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeGuard

from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from sqlalchemy import Connection, func, select

from assay.errors import (
    AbortedError,
    AssayError,
    InternalError,
    PreconditionError,
    UnavailableError,
)
from assay.v1 import tuning_job_pb2
from audit.ledger.writer import UnitOfWork
from gateway.admission import intake, release, settling, training
from gateway.admission.cards import CardOffice
from gateway.admission.office import Office, words_of
from gateway.jobs import machine
from gateway.jobs.transitions import ActorKind, Event, State
from gateway.permits import void_permits
from gateway.retention import RetentionService
from gateway.store import disk, jobs, rows
from gateway.store.jobs import Lease
from gateway.store.tables import JobRow

_LOG = logging.getLogger(__name__)
_TRACER = trace.get_tracer("assay.gateway")
_LEASE = timedelta(seconds=30)
_RENEW_SECONDS = 8.0
_IDLE_SECONDS = 0.5
_LAPSE_SECONDS = 30.0
_RETAIN_SECONDS = 30.0
_AT_ONCE = 64
_PREPARED_AT_ONCE = 16
"""Of one unit."""
_MAX_ATTEMPTS = 5
_MAX_BACKOFF = 30.0
_UNREACHABLE = timedelta(seconds=1)
_FULL = timedelta(seconds=10)
"""A task that finds no room on a disk is sealed anew at every try."""
_ENDED = ("LEDGER_STOPPED", "LEDGER_CLOSED")
_WAITED_FOR = ("LEDGER_BUSY", "CLOCK_REGRESSED", "CLOCK_JUMPED", "DATABASE_DAMAGED", "UNKNOWN_FIELDS")
_STEPS = {
    State.RECEIVED: intake.begin,
    State.PREPARING: intake.prepare,
    State.QUEUED: training.order,
    State.TRAINING: training.train,
    State.AUDITING: release.audit,
}
_STAGES = {State.PREPARING: "prepare", State.QUEUED: "train", State.TRAINING: "train", State.AUDITING: "audit"}
"""The stage that a job is in or waits for, each of which needs a worker."""


@dataclass(frozen=True)
class PipelineStats:
    """Numbers for metrics."""

    jobs_by_state: Mapping[str, int]
    in_flight: int
    worker_errors: int


@dataclass
class Pipeline:
    """Drives every job that has work left. One instance a process."""

    office: Office
    cards: CardOffice
    retention: RetentionService
    owner: str = field(default_factory=lambda: secrets.token_hex(8))
    worker_errors: int = 0
    _driven: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _waiting: dict[str, str] = field(default_factory=dict)

    async def run(self) -> None:
        """Runs until cancelled; jobs under way are left as they are, for the next run to take up.

        What passes, such as a full disk, a wrong clock or a database that is away, is waited for.

        Raises:
            UnavailableError: ``LEDGER_STOPPED`` or ``LEDGER_CLOSED``: nothing can be recorded, so nothing may happen.
        """
        helpers: list[asyncio.Task[None]] = []
        try:
            # The ledger's writer lock says that no other process writes here, so a lease found now is a dead one's.
            await self._persist(self._release_all)
            helpers += [asyncio.create_task(work) for work in (self._renew(), self._lapse(), self._retain())]
            while True:
                await self._persist(self._claim)
                await self.office.board.work(_IDLE_SECONDS)
        finally:
            under_way = [*helpers, *self._driven.values()]
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def _persist(self, act: Callable[[], Awaitable[None]]) -> None:
        """Does what the loop cannot go on without, again and again until it works; each trouble is logged once.

        A fault that nobody has named may be one of ours: it ends the gateway after a few attempts, for who supervises
        it to see.

        Raises:
            UnavailableError: ``LEDGER_STOPPED`` or ``LEDGER_CLOSED``.
        """
        trouble, attempts = "", 0
        while True:
            if self.office.store.ledger.stopped:
                raise UnavailableError("LEDGER_STOPPED", "the ledger stopped", remedy="restart the gateway")
            try:
                await act()
                break
            except Exception as error:
                named = error if isinstance(error, AssayError) else None
                found = named.reason if named else type(error).__name__
                if found in _ENDED or (named is None and attempts >= _MAX_ATTEMPTS):
                    raise
                if found != trouble:
                    _LOG.error("no job moves: %s", words_of(named) if named else found, exc_info=named is None)
                trouble, attempts = found, attempts + 1
            await asyncio.sleep(_backoff(attempts).total_seconds())
        if trouble:
            _LOG.warning("jobs move again after %s", trouble)

    async def stats(self) -> PipelineStats:
        """Jobs by state, jobs being driven, and calls to workers that failed."""
        c = rows.table(JobRow).c

        def read(connection: Connection) -> dict[str, int]:
            found = connection.execute(select(c.state, func.count()).group_by(c.state)).all()
            return {str(state): int(count) for state, count in found}

        return PipelineStats(await self.office.store.fetch(read), len(self._driven), self.worker_errors)

    async def _release_all(self) -> None:
        await self.office.store.commit(lambda uow: jobs.release_all(uow.connection))

    async def _claim(self) -> None:
        """Takes up what has a step to take. A queued job waits for its turn in its row, where people can move it."""
        now = rows.micros(datetime.now(UTC))
        most = (_AT_ONCE, self._slots, _PREPARED_AT_ONCE)
        names = await self.office.store.fetch(lambda c: jobs.claimable(c, now, *most))
        for name in [n for n in names if n not in self._driven][: _AT_ONCE - len(self._driven)]:
            lease = Lease(self.owner, now + _LEASE // timedelta(microseconds=1))
            if await self.office.store.commit(partial(_claimed, name, lease, now)):
                self._driven[name] = asyncio.create_task(self._drive(name))

    async def _drive(self, name: str) -> None:
        """Takes a job as far as it goes; whatever happens, the lease is given back."""
        pause, waits = timedelta(), ""
        attempts = 0
        try:
            while (job := await self._due(name)) is not None:
                attempts = job.attempts
                with _span(job):
                    await self._step(job)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            if _waits(error):
                self.worker_errors += 1
                pause, waits = _FULL if error.reason == "DISK_FULL" else _UNREACHABLE, error.reason
                # It tries every few seconds; one line says what for.
                if self._waiting.get(name) != waits:
                    _LOG.warning("%s waits: %s", name, waits)
                await self._quietly(self._tell(name, error))
            else:
                attempts += 1
                pause = await self._stumble(name, attempts, error)
        finally:
            self._driven.pop(name, None)
            self._waiting.pop(name, None)
            if waits:
                self._waiting[name] = waits
        await self._quietly(self._give_back(name, attempts if pause else 0, pause))

    async def _step(self, job: JobRow) -> None:
        """One step; a job that somebody else moved meanwhile is simply looked at anew.

        Raises:
            UnavailableError: ``DISK_FULL`` when there is no room for its files here, or whatever the step raises.
        """
        state = State(job.state)
        with disk.named(), contextlib.suppress(AbortedError):
            if state in _STEPS:
                await _STEPS[state](self.office, job)
            else:
                await settling.settle(self.office, self.cards, job)

    async def _stumble(self, name: str, attempts: int, error: Exception) -> timedelta:
        """A refused result fails the job at once; what may pass is tried again, and fails the job in the end."""
        passing = not isinstance(error, AssayError) or isinstance(error, (PreconditionError, InternalError))
        if passing:
            _LOG.exception("step of %s failed", name)
        job = await self._read(name)
        if job is None:
            return timedelta()
        if State(job.state) in _STEPS and (not passing or attempts >= _MAX_ATTEMPTS):
            reason = words_of(error) if isinstance(error, AssayError) else f"GATEWAY_FAULT: {type(error).__name__}"
            with contextlib.suppress(AbortedError):
                await self.office.change(job, Event.FAIL, reason=reason[:2000])
            return timedelta()
        return _backoff(attempts)

    async def _tell(self, name: str, error: AssayError) -> None:
        """Tells those who watch a job what it waits for.

        It does not train for ever with a worker that does not answer: it pauses, and its people hear of it. One whose
        worker prepares or audits holds no device and has nothing that could be lost, nor has one that is queued: it
        waits.
        """
        job = await self._read(name)
        if job is None or State(job.state) not in _STAGES:
            return
        message = f"waiting: {words_of(error)}"
        if error.reason == "WORKER_UNREACHABLE":
            silent, limit = self.office.board.silent_seconds(name), self.office.settings.limits.worker_silence_seconds
            if State(job.state) is State.TRAINING and silent >= limit:
                reason = f"WORKER_SILENT: the train worker has not answered for {limit} s; what it has of the run stays"
                await training.pause(self.office, job, f"{reason} with it", job.cost_usd_micros)
                return
            message = f"the worker has not answered for {silent:.0f} s; waiting for it"
        self.office.board.report(name, tuning_job_pb2.Progress(stage=_STAGES[State(job.state)], message=message))

    async def _give_back(self, name: str, attempts: int, pause: timedelta) -> None:
        def work(uow: UnitOfWork) -> None:
            values: dict[str, object] = {"attempts": attempts}
            if pause:
                values["next_us"] = rows.micros(datetime.now(UTC) + pause)
            jobs.release(uow.connection, name, self.owner, values)

        await self.office.store.commit(work)
        if not pause:
            self.office.board.moved(name)

    @property
    def _slots(self) -> int:
        return self.office.settings.workers["train"].slots

    async def _due(self, name: str) -> JobRow | None:
        return await self.office.store.fetch(lambda c: jobs.due(c, name, self._slots))

    async def _read(self, name: str) -> JobRow | None:
        return await self.office.store.fetch(lambda c: jobs.get(c, name))

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(_RENEW_SECONDS)
            names = list(self._driven)
            if names:
                until = rows.micros(datetime.now(UTC) + _LEASE)
                await self._quietly(self.office.store.commit(partial(_renewal, names, Lease(self.owner, until))))

    async def _lapse(self) -> None:
        """Lets approvals lapse whose time is over; their permits are void."""
        while True:
            now = rows.micros(datetime.now(UTC))
            await self._quietly(self._expire_all(now))
            await asyncio.sleep(_LAPSE_SECONDS)

    async def _retain(self) -> None:
        """Carries out erasures that were cut off, and ends the retention of datasets whose time is over."""
        while True:
            await self._quietly(self.retention.erasures.carry_out())
            await self._quietly(self.retention.end())
            await asyncio.sleep(_RETAIN_SECONDS)

    async def _quietly(self, call: Awaitable[object]) -> None:
        """Waits for housekeeping; what fails, however, is logged, and tried again next time."""
        try:
            await call
        except AssayError as error:
            _LOG.warning("housekeeping failed: %s", error.reason)
        except Exception:
            _LOG.exception("housekeeping failed")

    async def _expire_all(self, now_us: int) -> None:
        for name in await self.office.store.fetch(partial(_lapsed, now_us)):
            await self._quietly(self._expire(name))

    async def _expire(self, name: str) -> None:
        actor = self.office.settings.subject
        change = machine.Change(Event.EXPIRE, actor, ActorKind.CLOCK, "the approval has lapsed")

        def work(uow: UnitOfWork) -> None:
            machine.transition(uow, name, change)
            void_permits(uow, name, actor, "", "approval-lapsed")

        await self.office.store.commit(work)
        self.office.board.moved(name)


def _claimed(name: str, lease: Lease, now_us: int, uow: UnitOfWork) -> bool:
    return jobs.claim(uow.connection, name, lease, now_us)


def _renewal(names: list[str], lease: Lease, uow: UnitOfWork) -> None:
    jobs.renew(uow.connection, names, lease)


def _lapsed(now_us: int, connection: Connection) -> Sequence[str]:
    return jobs.lapsed(connection, now_us)


def _waits(error: Exception) -> TypeGuard[AssayError]:
    """Whether something is not there just now: that is not the job's fault, so it does not count against it.

    Nor is a clock that somebody must set, a database that somebody must restore, or a worker of an older release.
    """
    return isinstance(error, UnavailableError) or (isinstance(error, AssayError) and error.reason in _WAITED_FOR)


def _backoff(attempts: int) -> timedelta:
    return timedelta(seconds=min(0.5 * 2 ** min(attempts, 10), _MAX_BACKOFF))


@contextlib.contextmanager
def _span(job: JobRow) -> Iterator[None]:
    """A span in the trace that the request started, so that one trace leads from the call to the permit."""
    parent = None
    if len(job.trace_id) == 32:
        trace_id = int(job.trace_id, 16)
        remote = SpanContext(trace_id, (trace_id & (2**64 - 1)) or 1, True, TraceFlags(TraceFlags.SAMPLED))
        parent = trace.set_span_in_context(NonRecordingSpan(remote))
    with _TRACER.start_as_current_span(f"job.{job.state.lower()}", context=parent) as span:
        span.set_attributes({"assay.unit": job.unit, "assay.state": job.state})
        yield
