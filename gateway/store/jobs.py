"""Rows of jobs: reading, the guarded change of version, established facts, and leases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, and_, func, or_, select

from assay.errors import AbortedError, IntegrityError
from gateway.store import rows
from gateway.store.tables import FactRow, JobRow, TransitionRow

BEGUN, REPLAY = "replaying.", "replay."
"""Facts of a replay by its number: that it began, with the task's id, and what came of it."""
AGAIN = "again."
"""Facts of a task that ended for want of room on its machine, by kind and number: why; the next has another id."""


@dataclass(frozen=True)
class Lease:
    """Leave to work on jobs until a moment; renewed by its owner, taken over by others once it lapsed."""

    owner: str
    until_us: int


@dataclass(frozen=True)
class Brief:
    """Of a job what stands before its long texts in the row: whoever reads behind those reads them all."""

    name: str
    state: str
    request: str


def get(connection: Connection, name: str) -> JobRow | None:
    """The job, if it exists."""
    return rows.get(connection, JobRow, name=name)


def briefs(connection: Connection, unit: str) -> list[Brief]:
    """A unit's jobs, oldest first."""
    c = rows.table(JobRow).c
    query = select(c.name, c.state, c.request).where(c.unit == unit).order_by(c.created_us, c.name)
    return [Brief(*row) for row in connection.execute(query)]


def moving(connection: Connection, name: str) -> tuple[Any, ...] | None:
    """Columns of a job, one of which moves with all that watchers are shown of its row; None where there is no job."""
    c = rows.table(JobRow).c
    query = select(c.version, c.needs_work, c.cost_usd_micros, c.stage_seconds).where(c.name == name)
    found = connection.execute(query).first()
    return None if found is None else tuple(found)


def change(connection: Connection, job: JobRow, values: Mapping[str, Any]) -> JobRow:
    """Sets columns and moves the version on by one, if the job is still at the version that ``job`` was read at.

    Raises:
        AbortedError: ``STALE`` when it is not.
    """
    new = {**values, "version": job.version + 1}
    if rows.update(connection, JobRow, {"name": job.name, "version": job.version}, new) != 1:
        raise AbortedError("STALE", f"{job.name} changed meanwhile", remedy="read it again and decide again")
    return JobRow(**{**job.model_dump(), **new})


def note(connection: Connection, name: str, values: Mapping[str, Any]) -> None:
    """Sets columns that are no part of the state and leave the version alone: costs, leases, what is left to do."""
    rows.update(connection, JobRow, {"name": name}, dict(values))


def transitions(connection: Connection, name: str) -> list[TransitionRow]:
    """Every change of a job's state, oldest first."""
    return rows.select_all(connection, TransitionRow, order_by="version", job=name)


def facts(connection: Connection, name: str) -> dict[str, str]:
    """What has been established about a job, by key."""
    return {f.key: f.value for f in rows.select_all(connection, FactRow, job=name)}


def digests(connection: Connection, unit: str) -> list[tuple[str, str, str]]:
    """Job, key and value of a unit's facts that are as long as a digest in hex, such as those of stored files."""
    c = rows.table(FactRow).c
    # A length is known once the whole text was read: what policy was asked is nearly all of a job's facts.
    query = facts_of(unit).where(c.key.not_like("question.%"), func.length(c.value) == 64)
    return [(row.job, row.key, row.value) for row in connection.execute(query)]


def facts_of(unit: str) -> Select[Any]:
    """Asks for the facts of a unit's jobs by the jobs' names: what a range of names holds, a database's locale says."""
    fact, job = rows.table(FactRow), rows.table(JobRow).c
    return select(fact).join(rows.table(JobRow), job.name == fact.c.job).where(job.unit == unit)


def establish(connection: Connection, name: str, values: Mapping[str, str]) -> None:
    """Notes facts for good.

    Raises:
        IntegrityError: ``FACT_CHANGED`` when one is already known with another value.
    """
    known = facts(connection, name)
    for key, value in values.items():
        if known.get(key, value) != value:
            raise IntegrityError("FACT_CHANGED", f"{key} of {name} is already established and differs")
        if key not in known:
            rows.insert(connection, FactRow(job=name, key=key, value=value))


def replaying(connection: Connection, name: str) -> dict[str, str]:
    """Replays of a job that began and have no result, also those whose call was cut off: fact to task."""
    known = facts(connection, name)
    begun = {key: task for key, task in known.items() if key.startswith(BEGUN)}
    return {key: task for key, task in begun.items() if f"{REPLAY}{key.removeprefix(BEGUN)}" not in known}


def forget_replay(connection: Connection, name: str, key: str) -> None:
    """Takes away that a replay began: its worker holds nothing of it any more."""
    c = rows.table(FactRow).c
    connection.execute(rows.table(FactRow).delete().where(c.job == name, c.key == key))


def turns(connection: Connection, slots: int) -> Sequence[str]:
    """Names of queued jobs whose turn to train has come: first come, first served, as far as slots are free.

    A job holds its slot as long as it is TRAINING, whoever attends to it.
    """
    c = rows.table(JobRow).c
    working = c.needs_work.is_(True)
    training = connection.execute(select(func.count()).where(working, c.state == "TRAINING")).scalar_one()
    queued = select(c.name).where(working, c.state == "QUEUED").order_by(c.updated_us, c.name)
    return list(connection.execute(queued.limit(max(0, slots - training))).scalars())


def due(connection: Connection, name: str, slots: int) -> JobRow | None:
    """The job, if there is a step to take now; None also for one that is queued and whose turn has not come."""
    job = get(connection, name)
    if job is None or not job.needs_work or (job.state == "QUEUED" and name not in turns(connection, slots)):
        return None
    return job


def claimable(connection: Connection, now_us: int, limit: int, slots: int, each: int) -> Sequence[str]:
    """Names of jobs with a step to take and no living lease: those that train, then the first of every unit, the next.

    A training is held to its money by whoever attends to it. Within a unit, who is longest unattended comes first. Of
    those that policy has not decided on, no more than ``each`` of a unit are attended to at once: preparing takes long,
    and whoever asks for many jobs must not take every place from the others.
    """
    c = rows.table(JobRow).c
    free = or_(c.lease_owner == "", c.lease_until_us < now_us)
    ready = or_(c.state != "QUEUED", c.name.in_(turns(connection, slots)))
    early = c.state.in_(("RECEIVED", "PREPARING"))
    step = and_(c.next_us <= now_us, ready)
    # Who is attended to comes first, and so counts; what waits for its turn must not put its unit's audit last.
    number = func.row_number().over(partition_by=(c.unit, early), order_by=(free, c.next_us, c.created_us, c.name))
    place = select(c.name, number.label("number")).where(and_(c.needs_work.is_(True), or_(~free, step))).subquery()
    statement = (
        select(c.name)
        .join(place, place.c.name == c.name)
        .where(and_(c.needs_work.is_(True), free, step, or_(~early, place.c.number <= each)))
        .order_by(c.state != "TRAINING", place.c.number, c.next_us, c.created_us, c.name)
        .limit(limit)
    )
    return list(connection.execute(statement).scalars())


def claim(connection: Connection, name: str, lease: Lease, now_us: int) -> bool:
    """Takes the lease of a job unless another owner's is alive; compare-and-set, so that one of two claimants wins."""
    t = rows.table(JobRow)
    free = or_(t.c.lease_owner.in_(("", lease.owner)), t.c.lease_until_us < now_us)
    statement = (
        t.update()
        .where(and_(t.c.name == name, t.c.needs_work.is_(True), free))
        .values(lease_owner=lease.owner, lease_until_us=lease.until_us)
    )
    return connection.execute(statement).rowcount == 1


def renew(connection: Connection, names: Sequence[str], lease: Lease) -> None:
    """Moves the end of the leases that ``lease.owner`` holds on these jobs."""
    t = rows.table(JobRow)
    held = and_(t.c.name.in_(list(names)), t.c.lease_owner == lease.owner)
    connection.execute(t.update().where(held).values(lease_until_us=lease.until_us))


def release(connection: Connection, name: str, owner: str, values: Mapping[str, Any]) -> None:
    """Gives a lease back and sets columns, if ``owner`` still holds it."""
    t = rows.table(JobRow)
    held = and_(t.c.name == name, t.c.lease_owner == owner)
    connection.execute(t.update().where(held).values(lease_owner="", lease_until_us=0, **values))


def release_all(connection: Connection) -> None:
    """Frees every lease; only for the sole process that may write to this database."""
    t = rows.table(JobRow)
    connection.execute(t.update().where(t.c.lease_owner != "").values(lease_owner="", lease_until_us=0))


def lapsed(connection: Connection, now_us: int) -> Sequence[str]:
    """Names of approved jobs whose approval has run out."""
    c = rows.table(JobRow).c
    due = and_(c.state == "APPROVED", c.approved_until_us > 0, c.approved_until_us <= now_us)
    return list(connection.execute(select(c.name).where(due)).scalars())
