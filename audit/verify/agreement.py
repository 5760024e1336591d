"""What a job's records say of one another: its way follows from policy's answers, and each answer is about the others.

The gateway's table lets a job on only where policy's answer is yes. That table is the gateway's word; the answer lies
in the record, and is compared here with where the record says that the job went.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from assay import canonical
from assay.digests import sha256_bytes
from assay.dp_sgd import demand_claim
from assay.errors import AssayError
from audit.ledger.evidence import Entry
from audit.verify import findings as names
from audit.verify.edges import state_name
from audit.verify.findings import Problem
from audit.verify.state import Handler, State, members, text, transition_of

PASS = "OUTCOME_PASS"  # noqa: S105
_SPLITS = ("train", "validation", "selection")
GOOD = (PASS, "OUTCOME_NOT_APPLICABLE", "OUTCOME_WARN")


def model(state: State, entry: Entry) -> None:
    """A model that a job's record names is the job's."""
    named = entry.record.predicate.get("model")
    if entry.record.job and named is not None:
        own = named == entry.record.job.replace("/tuningJobs/", "/models/")
        state.findings.demand(names.AGREEMENT, own, "it names another model than the job's")


def request(state: State, entry: Entry) -> None:
    """Notes the upload and the base model that are asked about."""
    asked = {member: text(entry.record.predicate, member) for member in ("dataset_sha256", "base_sha256")}
    state.job(entry.record).asked = asked


def decision(state: State, entry: Entry) -> None:
    """Intake's answer: a job is queued when it was allowed, else denied; its plan has the digest that orders name."""
    predicate, job = entry.record.predicate, state.job(entry.record)
    answer, plan = members(predicate, "decision"), predicate.get("audit_plan")
    shown = "" if plan is None else sha256_bytes(canonical.encode(plan))
    job.fired, job.plan = fired(answer), shown or text(predicate, "audit_plan_sha256")
    job.canaries = text(members(predicate, "audit_plan"), "canary_manifest_sha256")
    job.answers.add(entry.index)
    _leads(state, entry, "QUEUED", job.fired, good=answer.get("allowed") is True)
    same = not shown or text(predicate, "audit_plan_sha256") in ("", shown)
    state.findings.demand(names.AGREEMENT, same, "the digest of its audit plan is not that of the plan in it")


def order(state: State, entry: Entry) -> None:
    """Training is ordered by the decision, on what it was about, with the plan of what will be measured."""
    job, predicate = state.job(entry.record), entry.record.predicate
    plan, missing, demand = text(predicate, "audit_plan_sha256"), not state.whole(job.unit), state.findings.demand
    decided, job.plan = job.plan, plan or job.plan
    same = not decided or job.plan == decided
    demand(names.AGREEMENT, same, "its audit plan is not the one that was decided on")
    rests = predicate.get("decision_index")
    known = rests is None or (type(rests) is int and rests in job.answers)
    demand(names.AGREEMENT, known, "the record it rests on is no decision or waiver of this job", missing=missing)
    lapsed = entry.record.time.date() > job.waived_until
    demand(names.ROLES, not lapsed, "a waiver that let the job on has expired")
    rows = {f"{split}_sha256": job.prepared.get(f"{split}.jsonl", "") for split in _SPLITS}
    for member, digest in {**job.asked, **rows}.items():
        same = not digest or text(predicate, member) in ("", digest)
        demand(names.AGREEMENT, same, f"its {member} is not the one that was decided on")


def training(state: State, entry: Entry) -> None:
    """The adapter was made by the order, on the base in it, with the differential privacy that it asks for."""
    job, demand = state.job(entry.record), state.findings.demand
    same = text(entry.record.predicate, "base_sha256") in ("", job.base)
    demand(names.AGREEMENT, same, "its base is not the one that training was ordered on")
    ordered = not job.order or job.ran in ("", job.order)
    demand(names.AGREEMENT, ordered, "its statement is of another order than the recorded one")
    try:
        demand_claim(job.terms, job.claim if job.order else {})
    except AssayError as error:
        raise Problem(names.AGREEMENT, f"{error.reason}: {error.message}") from error


def audit(state: State, entry: Entry) -> None:
    """Notes the report, which the verdict must name; it is of the job's adapter, plan and committed canaries."""
    job = state.job(entry.record)
    job.report = text(entry.record.predicate, "report_sha256")
    committed = not job.canaries or job.revealed in ("", job.canaries)
    demand = state.findings.demand
    demand(names.AGREEMENT, committed, "the canaries it reveals are not those that the decision fixed")
    for member, known in (("adapter_sha256", job.adapter), ("plan_sha256", job.plan)):
        # Statements of earlier releases name neither.
        same = not known or job.measured.get(member, "") in ("", known)
        demand(names.AGREEMENT, same, f"its statement's {member} is not the job's")
    # Strictly: who may leave it out may have any rows measured.
    same = not job.private or job.measured.get("private_commitment", "") == job.private
    demand(names.AGREEMENT, same, "it measured other private rows than the preparation committed to")


def verdict(state: State, entry: Entry) -> None:
    """Release's answer on the job's own audit: the job waits for approval when it passed, else in quarantine."""
    answer, job = members(entry.record.predicate, "verdict"), state.job(entry.record)
    job.fired, outcome = fired(answer), answer.get("outcome")
    if outcome is None:
        # Predicates of this version may leave it out, as the golden record does; what each rule said is compared.
        state.unsaid.append(entry.index)
    _leads(state, entry, "AWAITING_APPROVAL", job.fired, good=None if outcome is None else outcome == PASS)
    report, plan = (text(entry.record.predicate, name) for name in ("report_sha256", "audit_plan_sha256"))
    missing, demand = not state.whole(job.unit), state.findings.demand
    audited = bool(report) and report == job.report
    demand(names.AGREEMENT, audited, "no audit before it made the report that it names", missing=missing)
    same = not job.plan or plan == job.plan
    demand(names.AGREEMENT, same, "its audit plan is not the one that training was ordered with")


def fired(answer: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What an answer says of each rule that stands in the way, by rule; what cannot be read stands in the way."""
    listed = answer.get("outcomes", [])
    said = [item if isinstance(item, dict) else {} for item in (listed if isinstance(listed, list) else [listed])]
    return {text(item, "rule_id"): item for item in said if item.get("outcome") not in GOOD}


def _leads(state: State, entry: Entry, onward: str, against: Mapping[str, Any], *, good: bool | None) -> None:
    """The job went ``onward`` if the answer is good, and only over rules that held; None: it does not say."""
    after = state_name(transition_of(entry.record).get("to"))
    demand, on = state.findings.demand, after == onward
    said = "yes" if good else "no"
    demand(names.AGREEMENT, good is None or good == on, f"policy's answer is {said}, and the job is {after}")
    rules = ", ".join(sorted(against))
    demand(names.AGREEMENT, not (on and against), f"the job is {after}, though rules did not hold: {rules}")


HANDLERS: Mapping[str, Handler] = {
    "job.received": request,
    "intake.decided": decision,
    "training.ordered": order,
    "training.completed": training,
    "audit.completed": audit,
    "release.decided": verdict,
}
