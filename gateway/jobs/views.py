"""Rows as messages of the contract."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from typing import TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message
from sqlalchemy import Connection

from assay import dsse
from assay.v1 import approval_pb2, measurement_pb2, policy_pb2, tuning_job_pb2
from audit.cards import small_groups
from gateway.admission import quotes, searching
from gateway.jobs.machine import etag
from gateway.jobs.transitions import RESTING, State
from gateway.store import jobs, rows
from gateway.store.jobs import Brief
from gateway.store.tables import ApprovalRow, JobRow, PermitRow, TransitionRow

M = TypeVar("M", bound=Message)


def to_json(message: Message) -> str:
    """A message as it is kept in a row."""
    return json_format.MessageToJson(message, preserving_proto_field_name=True, indent=None, sort_keys=True)


def from_json(text: str, kind: type[M]) -> M:
    """A message from a row; an empty text is the empty message."""
    return json_format.Parse(text, kind()) if text else kind()


def request_of(job: JobRow | Brief) -> tuning_job_pb2.CreateTuningJobRequest:
    """The request that made the job."""
    return from_json(job.request, tuning_job_pb2.CreateTuningJobRequest)


def dataset_of(job: JobRow | Brief) -> str:
    """The dataset that a job was asked for; as plain JSON, since the message takes thirty times as long."""
    return str(json.loads(job.request).get("dataset", ""))


def outcomes(job: JobRow) -> Sequence[policy_pb2.RuleOutcome]:
    """What policy said of a job, rule by rule: of intake for a denied one, else of release."""
    if job.state == State.DENIED:
        return from_json(job.decision, policy_pb2.Decision).outcomes
    return from_json(job.verdict, policy_pb2.Verdict).outcomes


def rests(job: JobRow) -> bool:
    """Tells whether only a person's or the clock's act will move the job, and nothing is left to do for it."""
    return State(job.state) in RESTING and not job.needs_work


def whole(
    connection: Connection, job: JobRow, progress: tuning_job_pb2.Progress | None = None
) -> tuning_job_pb2.TuningJob:
    """A job with everything known, and of its rows what a card shows as well."""
    message = summary(job, progress)
    message.transitions.extend(_transition(t) for t in jobs.transitions(connection, job.name))
    if job.data:
        json_format.ParseDict(small_groups.shown(json.loads(job.data)), message.data)
    if job.audit:
        message.audit.CopyFrom(from_json(job.audit, measurement_pb2.AuditReport))
    message.quote.extend(quoted(connection, job, dt.datetime.now(dt.UTC)))
    trained = jobs.facts(connection, job.name).get("train.predicate")
    if trained:
        message.trials.extend(searching.read(json.loads(trained).get("claim", {})))
    return message


def quoted(connection: Connection, job: JobRow, now: dt.datetime) -> list[tuning_job_pb2.QuotedFigure]:
    """What was quoted for a job beside what it came to by now."""
    until = rows.micros(now)
    permits = rows.select_all(connection, PermitRow, job=job.name)
    permitted = [(p.not_before_us, min(p.not_after_us, p.revoked_us or until, until)) for p in permits]
    report = from_json(job.audit, measurement_pb2.AuditReport)
    spent = quotes.Spent.of(jobs.facts(connection, job.name), job.cost_usd_micros, report, permitted)
    return quotes.figures(spent) if spent is not None else []


def summary(job: JobRow, progress: tuning_job_pb2.Progress | None = None) -> tuning_job_pb2.TuningJob:
    """A job without history, audit and data facts."""
    request = request_of(job)
    message = tuning_job_pb2.TuningJob(
        name=job.name,
        state=State(job.state).proto,
        etag=etag(job.name, job.version),
        dataset=request.dataset,
        base_model=request.base_model,
        purpose=request.purpose,
        method=request.method,
        audit_profile=request.audit_profile,
        parent_model=request.parent_model,
        creator=job.creator,
        create_time=rows.timestamp(job.created_us),
        update_time=rows.timestamp(job.updated_us),
        model=job.model,
        reason=job.reason,
        stage_seconds=json.loads(job.stage_seconds),
        quote_usd_micros=job.quote_usd_micros,
        cost_usd_micros=job.cost_usd_micros,
        trace_id=job.trace_id,
    )
    for field in ("hyperparameters", "budget", "differential_privacy", "teacher", "search", "use"):
        if request.HasField(field):
            getattr(message, field).CopyFrom(getattr(request, field))
    if job.decision:
        message.decision.CopyFrom(from_json(job.decision, policy_pb2.Decision))
    if job.verdict:
        message.verdict.CopyFrom(from_json(job.verdict, policy_pb2.Verdict))
    if progress is not None:
        message.progress.CopyFrom(progress)
    return message


def approval(row: ApprovalRow, reason: str = "") -> approval_pb2.Approval:
    """A row as the contract's message, with its reason as far as it may be shown."""
    return approval_pb2.Approval(
        subject=row.subject,
        role=row.role,
        granted=row.granted,
        reason=reason,
        time=rows.timestamp(row.time_us),
        record_index=row.record_index,
        envelope=dsse.envelope_to_proto(json.loads(row.envelope)),
    )


def _transition(row: TransitionRow) -> tuning_job_pb2.Transition:
    return tuning_job_pb2.Transition(
        event=row.event,
        from_state=State(row.from_state).proto,
        to_state=State(row.to_state).proto,
        actor=row.actor,
        reason=row.reason,
        time=rows.timestamp(row.time_us),
        record_index=row.record_index,
        version=row.version,
    )
