"""What a unit and a dataset have used up: facts for policy, and the entry that a decision to train reserves.

An entry is made in the unit of work that lets a job train, and no event takes it back: a cancelled job may have shown
its rows to somebody, and the epsilon of a search is that of all its trials. Money counts as the quote, or as what the
job has cost where that is more, until the job has ended and is settled; then as what it cost.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, func, select

from assay.dp_sgd import ROW
from assay.errors import AbortedError, ExhaustedError
from assay.v1 import policy_input_pb2, tuning_job_pb2
from audit.ledger.writer import UnitOfWork
from gateway.admission.facts import unit_of
from gateway.jobs import views
from gateway.jobs.transitions import State
from gateway.store import rows
from gateway.store.tables import BudgetRow, JobRow, TransitionRow
from policies import inputs
from policies.engine import PolicyEngine

MICROS = 1_000_000
_SHOWN = 100
_ENDED = tuple(state.value for state in (
    State.DENIED, State.QUARANTINED, State.AWAITING_APPROVAL, State.REJECTED, State.APPROVED, State.REVOKED,
    State.EXPIRED, State.CANCELLED, State.FAILED,
))  # fmt: skip


def read(connection: Connection, job: JobRow, now: dt.datetime) -> policy_input_pb2.AccountFacts:
    """What was used up before this job asked; sums cover everything, the entries shown are the newest hundred."""
    dataset = views.request_of(job).dataset
    day = _day(now)
    month = rows.micros(day.replace(day=1))
    budget, table = rows.table(BudgetRow).c, rows.table(JobRow).c
    epsilon = _sum(connection, budget.epsilon_micros, budget.dataset == dataset, budget.job != job.name)
    others = (table.name != job.name, table.unit == job.unit, table.created_us <= job.created_us)
    of_today, under_way = table.created_us >= rows.micros(day), table.state.not_in(_ENDED)
    out = policy_input_pb2.AccountFacts(
        dataset_epsilon_micros=epsilon,
        unit_jobs_today=_count(connection, *others, of_today),
        unit_jobs_under_way=_count(connection, *others, under_way),
        unit_jobs=_counted(connection, *others, of_today | under_way),
    )
    if epsilon:
        of = select(budget.privacy_unit).where(
            budget.dataset == dataset, budget.job != job.name, budget.privacy_unit != ""
        )
        out.dataset_privacy_units.extend(connection.execute(of.distinct().order_by(budget.privacy_unit)).scalars())
        out.dataset_entries.extend(_newest(connection, budget.dataset == dataset, budget.epsilon_micros > 0))
    spent = _spent(connection, job, month)
    out.unit_usd_micros = spent
    if spent:
        out.unit_entries.extend(_newest(connection, budget.unit == job.unit, budget.reserved_us >= month))
    return out


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
        ("unit_jobs_a_day", table.created_us >= rows.micros(_day(now)), "were asked for today"),
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
    *,
    decided: bool = True,
) -> None:
    """Reserves what an allowed job may use up, in the unit of work that allows it.

    Args:
        uow: of the change to QUEUED.
        record_index: of the record that allows it.
        job: the job, as read before the change.
        question: what policy was told.
        decided: policy allowed it on the account in ``question``, which must still be the account; False for a waiver,
            where a person answers for it.

    Raises:
        AbortedError: ``STALE`` when another job has reserved since the question was asked.
    """
    known = rows.get(uow.connection, BudgetRow, job=job.name)
    if known is not None:
        return
    if decided and _sums(read(uow.connection, job, uow.now)) != _sums(question.account):
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


def _sums(account: policy_input_pb2.AccountFacts) -> tuple[int, int, tuple[str, ...]]:
    """What reservations of others change; the number of jobs is a quota and not a sum that can be overspent."""
    return account.dataset_epsilon_micros, account.unit_usd_micros, tuple(account.dataset_privacy_units)


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


def _day(now: dt.datetime) -> dt.datetime:
    return dt.datetime(now.year, now.month, now.day, tzinfo=dt.UTC)


def _sum(connection: Connection, column: Any, *where: Any) -> int:
    return int(connection.execute(select(func.coalesce(func.sum(column), 0)).where(*where)).scalar_one())


def _count(connection: Connection, *where: Any) -> int:
    return int(connection.execute(select(func.count()).select_from(rows.table(JobRow)).where(*where)).scalar_one())


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
