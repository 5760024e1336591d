"""What people and the clock do to a job, each with the state that it is done in; no worker is needed for any."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from assay.v1 import approval_pb2, policy_pb2, tuning_job_pb2
from gateway.jobs.transitions import Event
from gateway.statements import (
    dismissal_statement,
    opening,
    revocation_statement,
    waiver_statement,
)
from gateway.store import jobs
from tests.gateway.conftest import House, now
from tests.gateway.judged import NAME, approved, awaiting, decide, judged, leave, outcome, state

Deed = Callable[[House], Awaitable[object]]
PASSED = policy_pb2.Verdict(outcome=policy_pb2.OUTCOME_PASS, outcomes=[outcome("OUT", passed=True)])
FAILED = policy_pb2.Verdict(
    outcome=policy_pb2.OUTCOME_FAIL, outcomes=[outcome("OUT", passed=False, waivable_by="validator")]
)
SAID, INSTEAD = opening("a reason in words"), opening("a person reads every answer")
REQUEST_ID = "9f0c9b52-6a52-4a3c-8c53-0f8f5b0c7d11"


@dataclass(frozen=True)
class Act:
    """One act.

    Attributes:
        prepare: brings the job to where the act can happen.
        act: the act itself.
        records: the types that it leaves, in order; the last one is of the change of state, or of the card.
        source: the job's state before it; empty when there is no job yet.
        target: its state after it.
        again: the reason that refuses the act a second time, ``not listed`` where there is nothing left to sign;
            empty where the same answer is given again.
    """

    prepare: Deed
    act: Deed
    records: tuple[str, ...]
    source: str
    target: str
    again: str


async def job(house: House) -> tuning_job_pb2.TuningJob:
    request = tuning_job_pb2.GetTuningJobRequest(name=NAME)
    return (await house.app.jobs.get_tuning_job(await house.caller("rita"), request)).tuning_job


async def create(house: House) -> None:
    request = house.request(request_id=REQUEST_ID)
    await house.app.jobs.create_tuning_job(await house.caller("rita"), request)


async def upload(house: House) -> None:
    await house.upload("rita")


async def one_has_signed(house: House) -> None:
    await awaiting(house)
    await decide(house, "cora", "compliance_officer")


async def grant(house: House) -> None:
    await decide(house, "vik", "validator")


async def refuse(house: House) -> None:
    await decide(house, "vik", "validator", granted=False)


async def rejected(house: House) -> None:
    await awaiting(house)
    await refuse(house)


async def revoke(house: House, reason: str = "drift") -> None:
    found = await job(house)
    envelope = house.sign("cora", revocation_statement(NAME, found.etag, reason))
    request = approval_pb2.RevokeApprovalRequest(name=NAME, etag=found.etag, envelope=envelope)
    await house.app.approvals.revoke_approval(await house.caller("cora"), request)


async def a_signer_left(house: House) -> None:
    await approved(house)
    await leave(house, "vik", "ROLE_VALIDATOR")


async def approve_anew(house: House) -> None:
    await revoke(house, "signer-left")


async def lapsed(house: House) -> None:
    await approved(house)
    await house.app.store.commit(lambda u: jobs.note(u.connection, NAME, {"approved_until_us": 1}))


async def tick(house: House) -> None:
    """The pipeline's own clock, until the approval has lapsed."""
    running = asyncio.create_task(house.app.pipeline.run())
    try:
        while state(house) == "APPROVED":
            await asyncio.sleep(0.02)
        # The commit is seen here before whoever awaits it goes on: let an end planted right after it come.
        await asyncio.sleep(1.0)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def queued(house: House) -> None:
    await judged(house, PASSED, until=Event.QUEUE)


async def training(house: House) -> None:
    await judged(house, PASSED, until=Event.TRAIN)


async def denied(house: House) -> None:
    await judged(house, FAILED, until=Event.DENY)


async def denied_and_appealed(house: House) -> None:
    await denied(house)
    await appeal(house)


async def quarantined(house: House) -> None:
    await judged(house, FAILED)


async def pause(house: House) -> None:
    request = tuning_job_pb2.PauseTuningJobRequest(name=NAME, reason="lunch")
    await house.app.jobs.pause_tuning_job(await house.caller("rita"), request)


async def paused(house: House) -> None:
    await training(house)
    await pause(house)


async def paused_in_the_queue(house: House) -> None:
    await queued(house)
    await pause(house)


async def resume(house: House) -> None:
    request = tuning_job_pb2.ResumeTuningJobRequest(name=NAME, reason="back")
    await house.app.jobs.resume_tuning_job(await house.caller("rita"), request)


async def cancel(house: House) -> None:
    request = tuning_job_pb2.CancelTuningJobRequest(name=NAME, reason="no longer needed")
    await house.app.jobs.cancel_tuning_job(await house.caller("rita"), request)


async def appeal(house: House) -> None:
    request = tuning_job_pb2.AppealTuningJobRequest(name=NAME, reason="the sample was odd")
    await house.app.jobs.appeal_tuning_job(await house.caller("rita"), request)


async def appealed(house: House) -> None:
    await quarantined(house)
    await appeal(house)


async def dismiss(house: House) -> None:
    found = await job(house)
    envelope = house.sign("cora", dismissal_statement(NAME, found.etag, SAID))
    request = approval_pb2.DismissAppealRequest(name=NAME, etag=found.etag, reason=SAID, envelope=envelope)
    await house.app.approvals.dismiss_appeal(await house.caller("cora"), request)


async def waive(house: House) -> None:
    found, expires = await job(house), now().date() + dt.timedelta(days=30)
    envelope = house.sign("vik", waiver_statement(NAME, found.etag, ["OUT"], SAID, INSTEAD, expires))
    request = approval_pb2.WaiveRulesRequest(
        name=NAME, etag=found.etag, envelope=envelope, reason=SAID, compensating_control=INSTEAD
    )
    await house.app.approvals.waive_rules(await house.caller("vik"), request)


ACTS = {
    "create": Act(upload, create, ("job.received",), "", "RECEIVED", ""),
    "approve": Act(
        one_has_signed, grant, ("approval.decided", "job.approved"), "AWAITING_APPROVAL", "APPROVED", "not listed"
    ),
    "reject": Act(
        awaiting, refuse, ("approval.decided", "job.rejected"), "AWAITING_APPROVAL", "REJECTED", "not listed"
    ),
    "revoke": Act(approved, revoke, ("approval.revoked", "job.revoked"), "APPROVED", "REVOKED", "JOB_STATE"),
    "revoke for a signer": Act(
        a_signer_left,
        approve_anew,
        ("approval.revoked", "job.revoked"),
        "APPROVED",
        "AWAITING_APPROVAL",
        "JOB_STATE",
    ),
    "lapse": Act(lapsed, tick, ("job.expired",), "APPROVED", "EXPIRED", ""),
    "pause in the queue": Act(queued, pause, ("job.paused",), "QUEUED", "PAUSED", "JOB_STATE"),
    "pause in training": Act(training, pause, ("job.paused",), "TRAINING", "PAUSED", "JOB_STATE"),
    "resume to the queue": Act(paused_in_the_queue, resume, ("job.resumed",), "PAUSED", "QUEUED", "JOB_STATE"),
    "resume to training": Act(paused, resume, ("job.resumed",), "PAUSED", "TRAINING", "JOB_STATE"),
    "cancel while paused": Act(paused, cancel, ("job.cancelled",), "PAUSED", "CANCELLED", "JOB_STATE"),
    "cancel in training": Act(training, cancel, ("job.cancelled",), "TRAINING", "CANCELLED", "JOB_STATE"),
    "cancel before approval": Act(awaiting, cancel, ("job.cancelled",), "AWAITING_APPROVAL", "CANCELLED", "JOB_STATE"),
    "appeal a denial": Act(denied, appeal, ("appeal.filed",), "DENIED", "DENIED", "APPEAL_WAITS"),
    "dismiss one of a denial": Act(
        denied_and_appealed, dismiss, ("appeal.dismissed", "appeal.answered"), "DENIED", "DENIED", "NO_APPEAL"
    ),
    "waive a denial": Act(denied, waive, ("rules.waived", "job.waived"), "DENIED", "QUEUED", "JOB_STATE"),
    "appeal a quarantine": Act(quarantined, appeal, ("appeal.filed",), "QUARANTINED", "QUARANTINED", "APPEAL_WAITS"),
    "appeal a refusal": Act(rejected, appeal, ("appeal.filed",), "REJECTED", "AWAITING_APPROVAL", "APPEAL_WAITS"),
    "dismiss": Act(
        appealed, dismiss, ("appeal.dismissed", "appeal.answered"), "QUARANTINED", "QUARANTINED", "NO_APPEAL"
    ),
    "waive": Act(quarantined, waive, ("rules.waived", "job.waived"), "QUARANTINED", "AWAITING_APPROVAL", "JOB_STATE"),
}
