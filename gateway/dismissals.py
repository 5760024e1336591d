"""A signed dismissal: another person than the maker says no to an appeal, and its clock stops."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from assay.errors import PreconditionError
from audit.ledger.records import RecordDraft
from audit.ledger.writer import UnitOfWork
from gateway import statements
from gateway.caller import Caller
from gateway.identity_registry import COMPLIANCE_OFFICER, require_live_role
from gateway.jobs import appeals, machine
from gateway.jobs.transitions import ActorKind, Event, State
from gateway.store import jobs
from gateway.store.tables import JobRow


def dismiss_appeal(
    uow: UnitOfWork,
    job: JobRow,
    caller: Caller,
    signed: statements.SignedDismissal,
    envelope: Mapping[str, Any],
) -> JobRow:
    """Records the answer; the job stays refused. The caller has checked signature, version and maker.

    An appeal against a person's refusal is answered by the approval that it leads back to, not here.

    Raises:
        PermissionDeniedError: ``ROLE_MISSING``, ``MAKER_CHECKER`` for who filed the appeal.
        PreconditionError: ``NO_APPEAL`` where none waits for an answer.
    """
    require_live_role(uow.connection, caller.subject, COMPLIANCE_OFFICER, job.unit)
    appeal = appeals.waiting(job, jobs.transitions(uow.connection, job.name))
    refused = job.state in (State.DENIED, State.QUARANTINED)
    if not refused or appeal is None:
        raise PreconditionError("NO_APPEAL", f"no appeal of {job.name} waits for an answer")
    appeals.refuse_filer(appeal, caller.subject)
    index = uow.append(
        RecordDraft(job.unit, "appeal.dismissed", "appeal-dismissal", {}, envelope=envelope, job=job.name)
    )
    change = machine.Change(
        Event.DISMISS,
        caller.subject,
        ActorKind.SIGNER,
        predicate={"dismissal_index": index},
        words=signed.reason_commitment,
        trace_id=caller.trace_id,
    )
    return machine.transition(uow, job.name, change).job
