"""Whose pause it is: what a compliance officer stopped does not go on by the word of whoever asked for the job."""

from __future__ import annotations

from sqlalchemy import Connection

from assay.errors import PermissionDeniedError
from gateway.identity_registry import COMPLIANCE_OFFICER, held_role, holds_role
from gateway.jobs.transitions import Event
from gateway.store import jobs
from gateway.store.tables import JobRow


def demand(connection: Connection, job: JobRow, subject: str) -> None:
    """Refuses to let a job go on that a compliance officer paused, but for an officer who did not ask for the job.

    Raises:
        PermissionDeniedError: ``OFFICERS_PAUSE``.
    """
    steps = jobs.transitions(connection, job.name)
    pause = next((step for step in reversed(steps) if step.event == Event.PAUSE), None)
    if pause is None or pause.actor == job.creator:
        return
    if not held_role(connection, pause.actor, COMPLIANCE_OFFICER, job.unit, pause.time_us):
        return
    if subject == job.creator or not holds_role(connection, subject, COMPLIANCE_OFFICER, job.unit):
        raise PermissionDeniedError(
            "OFFICERS_PAUSE",
            f"{pause.actor} paused {job.name} as compliance officer",
            remedy="ask a compliance officer who did not ask for the job to let it go on",
        )
