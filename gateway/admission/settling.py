"""What is left to do once a job has come to rest: cards, and workers that still hold something of it."""

from __future__ import annotations

import asyncio
import json

from sqlalchemy import Connection

from assay.v1 import worker_pb2
from gateway.admission.cards import CardOffice
from gateway.admission.office import Known, Office, cost_of, stages_with, task_id
from gateway.jobs.transitions import State
from gateway.store import jobs, rows
from gateway.store.tables import JobRow

_KINDS = ("train", "prepare", "audit")
"""A training first: what computes is stopped though the audit worker be away."""
_LOOK_SECONDS = 1.0


async def settle(office: Office, cards: CardOffice, job: JobRow) -> None:
    """Does what the job's state leaves to do, then notes that nothing is left, if nobody moved the job meanwhile.

    Raises:
        UnavailableError: a worker cannot be reached; call again later.
    """
    state = State(job.state)
    known = await office.known(job)
    if state is State.PAUSED:
        if not await _rests(office, job, known):
            # Until it heeds the pause, or its worker ends it, there is more to note; a person may move the job first.
            await asyncio.sleep(_LOOK_SECONDS)
            return
    else:
        if state in (State.CANCELLED, State.FAILED):
            await _note(office, job, known, await _stop(office, job, known))
        for kind in _KINDS:
            await office.exchange.forget(office.peer(kind), task_id(job, kind, known.facts))
    # Last, since it ends the pipeline's interest in the job together with the card's record.
    if state in (State.QUARANTINED, State.AWAITING_APPROVAL):
        await cards.render(job.name)
    elif state is State.APPROVED:
        await cards.issue(job.name)
    await office.store.commit(lambda uow: _nothing_left(uow.connection, job))
    office.board.moved(job.name)


async def _rests(office: Office, job: JobRow, known: Known) -> bool:
    """Has the training pause, and notes what it has cost by now; whether it computes no more."""
    task = await office.exchange.pause(office.train, task_id(job, "train", known.facts))
    book = known.price_book(office.settings.price_book)
    cost = cost_of(book, stages_with(job, "train", task.meter.wall_ms / 1000))
    if cost > job.cost_usd_micros:
        await office.store.commit(lambda uow: jobs.note(uow.connection, job.name, {"cost_usd_micros": cost}))
    return task.state != worker_pb2.TASK_STATE_RUNNING


async def _stop(office: Office, job: JobRow, known: Known) -> dict[str, float]:
    """Ends a job's tasks; returns the seconds that each took by its supervisor's clock."""
    ids = {kind: task_id(job, kind, known.facts) for kind in _KINDS}
    tasks = {kind: await office.exchange.cancel(office.peer(kind), ids[kind]) for kind in _KINDS}
    return {kind: task.meter.wall_ms / 1000 for kind, task in tasks.items() if task.meter.wall_ms}


async def _note(office: Office, job: JobRow, known: Known, seconds: dict[str, float]) -> None:
    """Notes what the stages of a job without a result took, before their workers may forget it.

    Safe to repeat: a worker says the same of an ended task, and what a stage's signed statement said stands.
    """
    stages = {**seconds, **json.loads(job.stage_seconds)}
    book = known.price_book(office.settings.price_book)
    cost = max(job.cost_usd_micros, cost_of(book, stages))
    values = {"stage_seconds": json.dumps(stages, sort_keys=True), "cost_usd_micros": cost}
    await office.store.commit(lambda uow: jobs.note(uow.connection, job.name, values))


def _nothing_left(connection: Connection, job: JobRow) -> None:
    rows.update(connection, JobRow, {"name": job.name, "version": job.version}, {"needs_work": False})
