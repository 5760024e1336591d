"""What a unit and a dataset have used up: facts for policy, and the entry that a decision to train reserves.

An entry is made in the unit of work that lets a job train, and no event takes it back: a cancelled job may have shown
its rows to somebody, and the epsilon of a search is that of all its trials. Money counts as the quote, or as what the
job has cost where that is more, until the job has ended and is settled; then as what it cost.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select

from assay.dp_sgd import ROW
from assay.errors import AbortedError, ExhaustedError
from assay.v1 import policy_input_pb2, tuning_job_pb2
from audit.ledger.writer import UnitOfWork
from gateway.jobs import views
from gateway.jobs.transitions import Event, State
from gateway.names import unit_of
from gateway.store import rows
from gateway.store.tables import BudgetRow, DatasetRow, JobRow, TransitionRow
from policies import inputs
from policies.engine import PolicyEngine

MICROS = 1_000_000
_SHOWN = 100
_ENDED = tuple(state.value for state in (
    State.DENIED, State.QUARANTINED, State.AWAITING_APPROVAL, State.REJECTED, State.APPROVED, State.REVOKED,
    State.EXPIRED, State.CANCELLED, State.FAILED,
))  # fmt: skip


@dataclass(frozen=True)
class Reserved:
    """What other jobs have reserved, which only a reservation adds to: their costs grow while a decision is stored.

    Attributes:
        epsilon_micros: of the dataset, under whatever name, in millionths.
        privacy_units: that this epsilon is of.
        usd_micros: quotes of the unit in the month, in millionths of a US dollar.
    """

    epsilon_micros: int
    privacy_units: tuple[str, ...]
    usd_micros: int


def read(connection: Connection, job: JobRow, now: dt.datetime) -> policy_input_pb2.AccountFacts:
    """What was used up before this job asked; sums cover everything, the entries shown are the newest hundred."""
    day, month = _day(now), _month(now)
    budget, table = rows.table(BudgetRow).c, rows.table(JobRow).c
    by_others = reserved(connection, job, now)
    epsilon = by_others.epsilon_micros
    others = (table.name != job.name, table.unit == job.unit, table.created_us <= job.created_us)
    of_today, under_way = table.created_us >= day, table.state.not_in(_ENDED)
    out = policy_input_pb2.AccountFacts(
        dataset_epsilon_micros=epsilon,
        unit_jobs_today=_count(connection, *others, of_today),
        unit_jobs_under_way=_count(connection, *others, under_way),
        unit_jobs=_counted(connection, *others, of_today | under_way),
    )
    if epsilon:
        out.dataset_privacy_units.extend(by_others.privacy_units)
        out.dataset_entries.extend(_newest(connection, budget.dataset.in_(_same_bytes(job)), budget.epsilon_micros > 0))
    spent = _spent(connection, job, month)
    out.unit_usd_micros = spent
    if spent:
        out.unit_entries.extend(_newest(connection, budget.unit == job.unit, budget.reserved_us >= month))
    tries = _tries(connection, job)
    out.dataset_jobs_judged, out.dataset_jobs_held_back = sum(tries.values()), tries.get(Event.QUARANTINE.value, 0)
    return out


def reserved(connection: Connection, job: JobRow, now: dt.datetime) -> Reserved:
    """What jobs other than this one have reserved of the same bytes and unit by now."""
    budget = rows.table(BudgetRow).c
    others = budget.job != job.name
    of_dataset = (others, budget.dataset.in_(_same_bytes(job)))
    units = select(budget.privacy_unit).where(*of_dataset, budget.privacy_unit != "").distinct()
    return Reserved(
        epsilon_micros=_sum(connection, budget.epsilon_micros, *of_dataset),
        privacy_units=tuple(connection.execute(units.order_by(budget.privacy_unit)).scalars()),
        usd_micros=_sum(
            connection, budget.usd_micros, others, budget.unit == job.unit, budget.reserved_us >= _month(now)
        ),
    )


def demand_place(
    connection: Connection, policy: PolicyEngine, request: tuning_job_pb2.CreateTuningJobRequest, now: dt.datetime
) -> None:
    """Refuses a job of a unit that has as many as policy's quota lets it have, before anything is done for it.

    Policy's own rule is asked once the rows were read, which costs a preparation for every job that it refuses.

    Raises:
        ExhaustedError: ``UNIT_JOBS``.
    """
    table = rows.table(JobRow).c
    mine = table.unit == unit_of(request.parent)
    for limit, where, what in (
        ("unit_jobs_a_day", table.created_us >= _day(now), "were asked for today"),
        ("unit_jobs_under_way", table.state.not_in(_ENDED), "are under way"),
    ):
        most, found = policy.most(limit, request.audit_profile), _count(connection, mine, where)
        if most is not None and found >= most:
            raise ExhaustedError(
                "UNIT_JOBS",
                f"{found} jobs of {request.parent} {what}, and limits.{limit} is {most}",
                remedy="wait for a job to end, or for tomorrow (UTC); the owner of the policy sets the limit",
            )


def reserve(
    uow: UnitOfWork,
    record_index: int,
    job: JobRow,
    question: policy_input_pb2.IntakeInput,
    by_others: Reserved | None,
) -> None:
    """Reserves what an allowed job may use up, in the unit of work that allows it.

    Args:
        uow: of the change to QUEUED.
        record_index: of the record that allows it.
        job: the job, as read before the change.
        question: what policy was told.
        by_others: what others had reserved when policy allowed it, which they must still have; None for a waiver,
            where a person answers for it.

    Raises:
        AbortedError: ``STALE`` when another job has reserved since the question was asked.
    """
    known = rows.get(uow.connection, BudgetRow, job=job.name)
    if known is not None:
        return
    if by_others is not None and reserved(uow.connection, job, uow.now) != by_others:
        raise AbortedError("STALE", f"the account of {job.unit} changed meanwhile", remedy="it is decided again")
    entry = BudgetRow(
        job=job.name,
        unit=job.unit,
        dataset=views.request_of(job).dataset,
        epsilon_micros=epsilon_micros(question.request),
        privacy_unit=_privacy_unit(question.request),
        usd_micros=question.request.quote_usd_micros,
        reserved_us=rows.micros(uow.now),
        record_index=record_index,
    )
    rows.insert(uow.connection, entry)


def epsilon_micros(request: policy_input_pb2.RequestFacts) -> int:
    """Epsilon that all trials together may spend, in millionths, rounded up so that no budget is overspent; 0 for none.

    Trials add up (basic composition): each of them reads the same rows.
    """
    privacy = request.differential_privacy
    return math.ceil(privacy.epsilon * inputs.trials(request.search) * MICROS) if privacy.HasField("epsilon") else 0


def _privacy_unit(request: policy_input_pb2.RequestFacts) -> str:
    return (request.differential_privacy.unit or ROW) if request.HasField("differential_privacy") else ""


def _day(now: dt.datetime) -> int:
    """Where the day begins, in microseconds."""
    return rows.micros(dt.datetime(now.year, now.month, now.day, tzinfo=dt.UTC))


def _month(now: dt.datetime) -> int:
    """Where the month begins, in microseconds."""
    return rows.micros(dt.datetime(now.year, now.month, 1, tzinfo=dt.UTC))


def _spent(connection: Connection, job: JobRow, month: int) -> int:
    """Money of the unit in the month: the quote of what is under way, the cost of what has ended.

    What a job's workers metered to its end is known when nothing is left to do for it, and not before.
    """
    budget, table = rows.table(BudgetRow), rows.table(JobRow)
    statement = (
        select(budget.c.usd_micros, table.c.cost_usd_micros, table.c.state, table.c.needs_work)
        .join(table, table.c.name == budget.c.job)
        .where(budget.c.unit == job.unit, budget.c.reserved_us >= month, budget.c.job != job.name)
    )
    found = connection.execute(statement).all()
    return sum(int(cost if state in _ENDED and not left else max(quote, cost)) for quote, cost, state, left in found)


def _sum(connection: Connection, column: Any, *where: Any) -> int:
    return int(connection.execute(select(func.coalesce(func.sum(column), 0)).where(*where)).scalar_one())


def _count(connection: Connection, *where: Any) -> int:
    return int(connection.execute(select(func.count()).select_from(rows.table(JobRow)).where(*where)).scalar_one())


def _same_bytes(job: JobRow) -> Any:
    """Names of the unit's datasets that are the same file as the job's, its own among them.

    What is used up is so by the file's digest and not by name: whoever asks again may upload it under another one.
    """
    data = rows.table(DatasetRow).c
    own = select(data.sha256).where(data.name == views.request_of(job).dataset)
    return select(data.name).where(data.unit == job.unit, data.sha256.in_(own))


def _tries(connection: Connection, job: JobRow) -> dict[str, int]:
    """How many other jobs of the unit release policy let on, and held back, that were let train on the same bytes.

    A waiver that let a job on later does not change what policy had said.
    """
    budget, step = rows.table(BudgetRow).c, rows.table(TransitionRow).c
    statement = (
        select(step.event, func.count())
        .where(budget.dataset.in_(_same_bytes(job)), budget.job != job.name, budget.unit == job.unit)
        .where(step.job == budget.job, step.event.in_((Event.PASS.value, Event.QUARANTINE.value)))
        .group_by(step.event)
    )
    return {str(event): int(count) for event, count in connection.execute(statement)}


def _counted(connection: Connection, *where: Any) -> Sequence[policy_input_pb2.CountedJob]:
    """The newest of the jobs that count, each with the record of its request, which is a job's first step."""
    job, step = rows.table(JobRow).c, rows.table(TransitionRow).c
    statement = (
        select(job.name, job.created_us, job.state, step.record_index)
        .where(*where, step.job == job.name, step.version == 1)
        .order_by(job.created_us.desc(), job.name)
        .limit(_SHOWN)
    )
    return [
        policy_input_pb2.CountedJob(
            job=name, day=rows.moment(created).date().isoformat(), state=state, record_index=index
        )
        for name, created, state, index in connection.execute(statement)
    ]


def _newest(connection: Connection, *where: Any) -> Sequence[policy_input_pb2.BudgetEntry]:
    table = rows.table(BudgetRow)
    statement = select(table).where(*where).order_by(table.c.reserved_us.desc(), table.c.job).limit(_SHOWN)
    return [
        policy_input_pb2.BudgetEntry(
            job=found["job"],
            epsilon_micros=found["epsilon_micros"],
            privacy_unit=found["privacy_unit"],
            usd_micros=found["usd_micros"],
            day=rows.moment(found["reserved_us"]).date().isoformat(),
            record_index=found["record_index"],
        )
        for found in connection.execute(statement).mappings()
    ]
