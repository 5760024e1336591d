"""Brings a job to the people without workers: real transitions, records, rows and a real card."""

from __future__ import annotations

import json
from typing import Any

from assay import canonical, dsse
from assay.identity import load_ed25519
from assay.v1 import approval_pb2, identity_pb2, measurement_pb2, policy_input_pb2, policy_pb2
from audit.ledger.records import RecordDraft
from audit.ledger.writer import UnitOfWork
from gateway.history import INTAKE_QUESTION
from gateway.jobs import machine, views
from gateway.jobs.transitions import ActorKind, Event
from gateway.statements import approval_statement, grant_revocation_statement, opening
from gateway.store import jobs, rows
from gateway.store.blobs import put_bytes
from gateway.store.tables import DatasetRow, GrantRow, ModelRow
from tests.gateway.conftest import BASE, House, now

NAME = "units/credit/tuningJobs/first"
MODEL = "units/credit/models/first"
ADAPTER = "ad" * 32
SOME = "5e" * 32
ORDER: dict[str, Any] = {
    "base_model": BASE["id"], "base_sha256": BASE["sha256"], "train_sha256": SOME, "validation_sha256": SOME,
    "hyperparameters": {}, "max_train_tokens": 1, "seed": 1, "audit_plan_sha256": SOME, "purpose": "support-replies",
}  # fmt: skip


def outcome(rule: str, *, passed: bool, waivable_by: str = "") -> policy_pb2.RuleOutcome:
    word = policy_pb2.OUTCOME_PASS if passed else policy_pb2.OUTCOME_FAIL
    return policy_pb2.RuleOutcome(rule_id=rule, outcome=word, message=f"about {rule}", waivable_by=waivable_by)


Step = tuple[Event, dict[str, Any], dict[str, Any]]
"""An event with the columns that it sets and the members of its record."""


async def judged(house: House, verdict: policy_pb2.Verdict, unit: str = "credit", *, until: Event | None = None) -> str:
    """Creates a job and moves it past its audit, or ``until`` this event has happened; returns its name."""
    name = f"units/{unit}/tuningJobs/first"
    await house.upload("rita", unit)
    await house.app.jobs.create_tuning_job(await house.caller("rita"), house.request(unit))
    blob = put_bytes(house.app.blobs, unit, b"weights")
    model = ModelRow(
        name=name.replace("/tuningJobs/", "/models/"), unit=unit, job=name, adapter_sha256=ADAPTER,
        files=json.dumps([{"path": "adapter_model.safetensors", "sha256": blob.sha256, "size": blob.size}]),
        base_model=str(BASE["id"]), base_sha256=str(BASE["sha256"]), created_us=1,
    )  # fmt: skip
    steps = [_prepared(house, name, verdict, denied=until is Event.DENY), *_tuned(house, model, verdict)]
    happen = [event for event, _, _ in steps]
    asked = {INTAKE_QUESTION: views.to_json(policy_input_pb2.IntakeInput())}

    def work(uow: UnitOfWork) -> None:
        rows.insert(uow.connection, model)
        machine.transition(uow, name, machine.Change(Event.PREPARE, house.app.settings.subject, ActorKind.GATEWAY))
        decided = -1
        for event, values, predicate in steps[: happen.index(until) + 1 if until else None]:
            if event in (Event.PASS, Event.QUARANTINE):
                uow.append(_audited(house, model))
            if event is Event.TRAIN:
                predicate = _ordered(house, name, uow, decided)
            change = machine.Change(
                event, house.app.settings.subject, ActorKind.GATEWAY, predicate=predicate, values=values,
                facts=asked if event in (Event.DENY, Event.QUEUE) else {},
            )  # fmt: skip
            index = machine.transition(uow, name, change).index
            decided = index if event is Event.QUEUE else decided

    await house.app.store.commit(work)
    if until is None:
        await house.app.pipeline.cards.render(name)
    return name


def _prepared(house: House, job: str, verdict: policy_pb2.Verdict, *, denied: bool) -> Step:
    """Intake's decision; of a denial the rules are those of the verdict."""
    outcomes = verdict.outcomes if denied else [outcome("IN", passed=True)]
    plan = measurement_pb2.AuditPlan(profile="quick", seed=1)
    policy = house.app.policy
    read = policy_pb2.UseReading(places=["US"], packs=["baseline"], packs_not_chosen=["gdpr"])
    decision = policy_pb2.Decision(
        allowed=not denied, outcomes=outcomes, audit_plan=plan, use_reading=read, as_of=now().date().isoformat(),
        bundle_sha256=policy.pack.bundle_sha256, limits_sha256=policy.pack.limits_sha256,
    )  # fmt: skip
    predicate = {
        "decision": canonical.from_message(decision),
        "data_facts_sha256": SOME,
        "statement": attested(house, "audit", "preparation", job),
        "quote_usd_micros": 1,
    }
    return Event.DENY if denied else Event.QUEUE, {"decision": views.to_json(decision)}, predicate


def _tuned(house: House, model: ModelRow, verdict: policy_pb2.Verdict) -> list[Step]:
    """The adapter, and what release policy says of it; the order is made when the decision has an index."""
    trained = {
        "model": model.name,
        "adapter_sha256": ADAPTER,
        "base_sha256": model.base_sha256,
        "adapter_finite": True,
        "adapter_moved": True,
        "statement": attested(house, "train", "training", model.job, ("adapter", ADAPTER)),
    }
    said = {
        "model": model.name,
        "verdict": canonical.from_message(verdict),
        "run": {},
        "report_sha256": SOME,
        "audit_plan_sha256": SOME,
    }
    last = Event.PASS if verdict.outcome == policy_pb2.OUTCOME_PASS else Event.QUARANTINE
    return [
        (Event.TRAIN, {}, {}),
        (Event.AUDIT, {"model": model.name}, trained),
        (last, {"verdict": views.to_json(verdict)}, said),
    ]


def _ordered(house: House, job: str, uow: UnitOfWork, decided: int) -> dict[str, Any]:
    """The signed leave to train on the rows that the decision at this index was about."""
    row = jobs.get(uow.connection, job)
    assert row is not None
    dataset = rows.get(uow.connection, DatasetRow, name=views.request_of(row).dataset)
    assert dataset is not None
    order = {**ORDER, "dataset_sha256": dataset.sha256, "decision_index": decided}
    signed = canonical.encode(dsse.statement("work-order", {"job": job, **order}, []))
    return {
        **order,
        "envelope": dsse.sign_service(signed, load_ed25519(house.layout.service("gateway") / "permit.key")),
    }


def _audited(house: House, model: ModelRow) -> RecordDraft:
    """The audit's record, which release policy's answer rests on."""
    predicate = {
        "model": model.name,
        "job": model.job,
        "actor": house.app.settings.subject,
        "trace_id": "",
        "report_sha256": SOME,
        "measurements": [],
        "measurements_left_out": 0,
        "not_tested": [],
        "statement": attested(house, "audit", "audit", model.job, ("report.json", SOME)),
    }
    return RecordDraft(model.unit, "audit.completed", "audit", predicate, [("report.json", SOME)], job=model.job)


def attested(house: House, worker: str, kind: str, job: str, *subjects: tuple[str, str]) -> dict[str, Any]:
    """A statement signed with a worker's real key."""
    key = load_ed25519(house.layout.service(f"{worker}-worker") / "statement.key")
    return dsse.sign_service(canonical.encode(dsse.statement(kind, {"job": job}, subjects)), key)


async def awaiting(house: House, unit: str = "credit") -> str:
    """A job that waits for approval, with its card rendered."""
    passed = policy_pb2.Verdict(outcome=policy_pb2.OUTCOME_PASS, outcomes=[outcome("OUT", passed=True)])
    return await judged(house, passed, unit)


async def pending(house: House, name: str = "vik") -> approval_pb2.PendingApproval:
    """The one pending approval that this person sees."""
    request = approval_pb2.ListPendingApprovalsRequest(parent="units/-")
    answer = await house.app.approvals.list_pending_approvals(await house.caller(name), request)
    (found,) = answer.pending_approvals
    return found


async def decide(
    house: House, name: str, role: str, *, granted: bool = True, signer: str = "", **changes: Any
) -> approval_pb2.DecideApprovalResponse:
    """Signs what is pending, with ``changes`` to the statement's predicate, and hands it in."""
    found, said = await pending(house), opening("seen")
    statement = approval_statement(found, granted=granted, role=role, reason=said, signed_at=now())
    statement["predicate"].update(changes)
    envelope = house.sign(signer or name, statement)
    request = approval_pb2.DecideApprovalRequest(name=found.tuning_job, etag=found.etag, envelope=envelope, reason=said)
    return await house.app.approvals.decide_approval(await house.caller(name), request)


async def approved(house: House) -> str:
    """A job that two people approved, its card issued."""
    name = await awaiting(house)
    await decide(house, "cora", "compliance_officer")
    await decide(house, "vik", "validator")
    return name


def state(house: House, name: str = NAME) -> str:
    job = house.app.store.read(lambda c: jobs.get(c, name))
    assert job is not None
    return job.state


async def leave(house: House, who: str, role: str) -> None:
    """Revokes a person's role, since they left."""
    held = await house.app.store.fetch(lambda c: rows.get(c, GrantRow, subject=house.subject(who), role=role))
    assert held is not None
    envelope = house.sign("oscar", grant_revocation_statement(held.grant_id, "left"))
    request = identity_pb2.RevokeRoleRequest(name=f"roleGrants/{held.grant_id}", envelope=envelope)
    await house.app.identities.revoke_role(await house.caller("oscar"), request)
