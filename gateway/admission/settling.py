"""What is left to do once a job has come to rest: cards, and workers that still hold something of it."""

from __future__ import annotations

from sqlalchemy import Connection

from gateway.admission.cards import CardOffice
from gateway.admission.office import Office, task_id
from gateway.jobs.transitions import State
from gateway.store import rows
from gateway.store.tables import JobRow

_KINDS = ("prepare", "train", "audit")


async def settle(office: Office, cards: CardOffice, job: JobRow) -> None:
    """Does what the job's state leaves to do, then notes that nothing is left, if nobody moved the job meanwhile.

    Raises:
        UnavailableError: a worker cannot be reached; call again later.
    """
    state = State(job.state)
    if state is State.PAUSED:
        await office.exchange.pause(office.train, task_id(job, "train"))
    elif state in (State.CANCELLED, State.FAILED):
        for kind in _KINDS:
            await office.exchange.stop(office.peer(kind), task_id(job, kind))
    else:
        for kind in _KINDS:
            await office.exchange.forget(office.peer(kind), task_id(job, kind))
    # Last, since it ends the pipeline's interest in the job together with the card's record.
    if state in (State.QUARANTINED, State.AWAITING_APPROVAL):
        await cards.render(job.name)
    elif state is State.APPROVED:
        await cards.issue(job.name)
    await office.store.commit(lambda uow: _nothing_left(uow.connection, job))
    office.board.moved(job.name)


def _nothing_left(connection: Connection, job: JobRow) -> None:
    rows.update(connection, JobRow, {"name": job.name, "version": job.version}, {"needs_work": False})
