"""Applies one line of the transition table inside the ledger's unit of work: guard, rows and record, or nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from assay import canonical
from assay.errors import AbortedError, InternalError
from audit.ledger.records import RecordDraft
from audit.ledger.writer import UnitOfWork
from gateway.jobs.transitions import WORK_AFTER, ActorKind, Event, Proposal, State, choose
from gateway.store import jobs, rows
from gateway.store.tables import JobRow, TransitionRow
from gateway.words import reference


@dataclass(frozen=True)
class Change:
    """What is to happen to a job, and why.

    Attributes:
        event: the table's event.
        actor: subject that causes it.
        kind: on whose behalf.
        reason: why, in the gateway's own words; recorded, so never row content.
        words: commitment to what a person typed instead; the record names it, the rows refer to it.
        predicate: members of the record besides the common ones; float-free.
        subjects: digests that the record binds.
        values: columns to set.
        facts: facts to establish.
        trace_id: trace of the call or task behind it.
        version: version of the job that the actor saw; ``None`` when the state alone matters.
        missing_roles: roles that the quorum still lacks.
    """

    event: Event
    actor: str
    kind: ActorKind
    reason: str = ""
    predicate: Mapping[str, Any] = field(default_factory=dict)
    subjects: Sequence[tuple[str, str]] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    trace_id: str = ""
    version: int | None = None
    missing_roles: tuple[str, ...] = ()
    words: str = ""


@dataclass(frozen=True)
class Changed:
    """The job after a change, and the ledger index of its record."""

    job: JobRow
    index: int


def etag(name: str, version: int) -> str:
    """The etag of a version of a job: it changes with every change of state and says nothing else."""
    return hashlib.sha256(canonical.encode({"name": name, "version": version})).hexdigest()[:32]


def demand_etag(job: JobRow, *etags: str) -> None:
    """Demands that whoever acts has seen the job as it is.

    Raises:
        AbortedError: ``ETAG`` when one of the etags is not that of the job's version.
    """
    if {*etags} != {etag(job.name, job.version)}:
        raise AbortedError(
            "ETAG", f"{job.name} is no longer the version that was acted on", remedy="read it again, then decide"
        )


def receive(work: UnitOfWork, job: JobRow, change: Change) -> Changed:
    """Brings a job into being; ``job`` is the row to insert, in state ``NONE`` and version 0."""
    if job.state != State.NONE or job.version != 0:
        raise InternalError("JOB_ROW", "a new job starts in NONE at version 0")
    rows.insert(work.connection, job)
    return _apply(work, job, change)


def transition(work: UnitOfWork, name: str, change: Change) -> Changed:
    """Changes the state of a job.

    Runs inside a SAVEPOINT of the ledger's batch: whatever is raised here undoes the row, the record and the history
    together.

    Raises:
        PreconditionError: ``JOB_STATE`` or ``GUARD``.
        PermissionDeniedError: ``ACTOR``.
        AbortedError: ``STALE`` when ``change.version`` is no longer the job's.
    """
    job = jobs.get(work.connection, name)
    if job is None:
        raise InternalError("JOB_ROW", f"{name} has no row")
    if change.version is not None and change.version != job.version:
        raise AbortedError("STALE", f"{name} changed meanwhile", remedy="read it again and decide again")
    return _apply(work, job, change)


def _apply(work: UnitOfWork, job: JobRow, change: Change) -> Changed:
    now_us = rows.micros(work.now)
    line = choose(change.event, change.kind, Proposal(job, change.values, change.missing_roles, now_us, change.reason))
    source, version = State(job.state), job.version + 1
    step = {
        "event": line.event.value,
        "from": source.value,
        "to": line.target.value,
        "version": version,
        "reason": change.reason,
    }
    reason = reference(change.words) if change.words else change.reason
    predicate = {
        **change.predicate,
        **({"reason_commitment": change.words} if change.words else {}),
        "job": job.name,
        "actor": change.actor,
        "trace_id": change.trace_id,
        "transition": step,
    }
    index = work.append(
        RecordDraft(
            unit=job.unit,
            type=line.record_type,
            predicate_name=line.predicate_name,
            predicate=predicate,
            subjects=tuple(change.subjects),
            job=job.name,
        )
    )
    history = TransitionRow(
        job=job.name,
        version=version,
        event=line.event.value,
        from_state=source.value,
        to_state=line.target.value,
        actor=change.actor,
        reason=reason,
        time_us=now_us,
        record_index=index,
    )
    rows.insert(work.connection, history)
    jobs.establish(work.connection, job.name, change.facts)
    values = {
        "needs_work": WORK_AFTER[line.target],
        "reason": reason if line.target in _EXPLAINED else "",
        "next_us": 0,
        "attempts": 0,
        **change.values,
        "state": line.target.value,
        "updated_us": now_us,
    }
    return Changed(jobs.change(work.connection, job, values), index)


_EXPLAINED = frozenset(
    {
        State.DENIED,
        State.QUARANTINED,
        State.REJECTED,
        State.PAUSED,
        State.CANCELLED,
        State.FAILED,
        State.REVOKED,
        State.EXPIRED,
    }
)
