"""Changes of a job's state: each lawful, following from the one before, and resting on the signatures it needs."""

from __future__ import annotations

from audit.ledger.evidence import Entry
from audit.ledger.records import Record
from audit.verify import findings as names
from audit.verify.acts import carries
from audit.verify.edges import EDGES, state_name
from audit.verify.people import COMPLIANCE_OFFICER
from audit.verify.state import Job, State, members, text, transition_of

_RESTS = {
    "job.waived": "rules.waived",
    "job.revoked": "approval.revoked",
    "appeal.answered": "appeal.dismissed",
}
"""Changes that rest on one signed act, recorded just before."""
_ANSWERS = ("appeal.answered", "job.waived", "job.rejected", "job.approved")
"""Changes after which no appeal waits."""


def transition(state: State, entry: Entry) -> None:
    """A record that changes a job's state follows from the records before it; the job moves on in any case."""
    record = entry.record
    if record.type not in EDGES:
        return
    job, step = state.job(record), transition_of(record)
    before, after, version = state_name(step.get("from")), state_name(step.get("to")), step.get("version")
    follows = before == job.state and type(version) is int and version == job.version + 1
    resumes = record.type != "job.resumed" or after == job.paused_in
    previous, job.state, job.version = job.state, after, version if type(version) is int else job.version
    if record.type == "job.received":
        job.creator = text(record.predicate, "actor")
        job.purpose, job.dataset = (text(members(record.predicate, "request"), name) for name in ("purpose", "dataset"))
    if record.type == "appeal.filed":
        job.appealed.add(text(record.predicate, "actor"))
    elif record.type in _ANSWERS:
        job.appealed.clear()
    if after == "PAUSED":
        job.paused_in, job.capped = before, text(step, "reason").startswith("COST_CAP")
        job.held = _officer(state, job, record)
    state.findings.demand(
        names.TRANSITIONS, (before, after) in EDGES[record.type], f"{record.type} from {before} to {after}"
    )
    message = f"it says {before} and version {version}, the log says {previous} before it"
    state.findings.demand(names.TRANSITIONS, follows, message, missing=not state.whole(job.unit))
    state.findings.demand(names.TRANSITIONS, resumes, "resumed into another state than it was paused in")
    _backed(state, record, job)


def _backed(state: State, record: Record, job: Job) -> None:
    """Changes that rest on people's signatures have them, for the version that they changed."""
    # A signature that is not shown, or whose grant is not, was not counted; it may exist all the same.
    missing = not (state.whole(job.unit) and state.whole("system"))
    demand = state.findings.demand
    rests = _RESTS.get(record.type)
    if record.type == "job.resumed" and job.capped:
        rests = "budget.raised"
    if record.type == "job.resumed" and job.held:
        message = "a compliance officer paused it, and another person let it go on"
        demand(names.DUTIES, _officer(state, job, record), message, missing=missing)
    if record.type == "job.revoked":
        same = (job.state == "AWAITING_APPROVAL") == job.anew
        demand(names.DUTIES, same, f"it was not revoked for a reason that leads to {job.state}", missing=missing)
    if rests is not None:
        signed = (rests, job.version - 1) in job.acts
        demand(names.DUTIES, signed, f"no valid {rests} before it", missing=missing)
    counted = [s for s in job.signatures if s.version == job.version - 1]
    granted = [s for s in counted if s.granted]
    if record.type == "job.rejected":
        demand(names.DUTIES, len(granted) < len(counted), "nobody refused it", missing=missing)
    if record.type == "job.approved":
        alike = len({s.card for s in counted}) <= 1 and len(granted) == len(counted)
        demand(names.DUTIES, alike, "the signatures are not all grants of one card")
        message = "no two people signed as compliance officer and validator"
        demand(names.DUTIES, carries(state, job), message, missing=missing)


def _officer(state: State, job: Job, record: Record) -> bool:
    """Tells whether a compliance officer caused the change who did not ask for the job."""
    actor = text(record.predicate, "actor")
    return actor != job.creator and state.roles.holds(actor, COMPLIANCE_OFFICER, job.unit)
