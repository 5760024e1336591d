"""People's acts on a job or a resource: approvals, waivers, revocations, orders to erase."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any

from assay.dsse import Signer
from audit.ledger.evidence import Entry
from audit.verify import findings as names
from audit.verify.people import COMPLIANCE_OFFICER, QUORUM, role_name
from audit.verify.state import Handler, Job, Signature, State, text

APPROVE_ANEW = ("signer-left", "signer-key")
"""Reasons of a revocation that say nothing against the model, and let other people sign."""


def approval(state: State, entry: Entry) -> None:
    """One person's grant or refusal of one card, under one evidence root."""
    signer, predicate = state.signed(entry)
    job, role = state.job(entry.record), role_name(predicate.get("role"))
    _acts(state, job, signer, role, predicate, "AWAITING_APPROVAL")
    _evidence(state, entry, job, predicate)
    decision = predicate.get("decision")
    lapsed = decision == "grant" and entry.record.time.date() > job.waived_until
    state.findings.demand(names.ROLES, not lapsed, "a waiver that let the job on has expired")
    before = [s for s in job.signatures if s.version == job.version]
    twice = any(s.signer.subject == signer.subject or s.signer.keyid == signer.keyid for s in before)
    state.findings.demand(names.DUTIES, not twice, "this person or key has decided on this version already")
    refused = [s.signer for s in job.signatures if s.version < job.version and not s.granted]
    message = "who refused the job may not decide on the appeal"
    state.findings.demand(names.DUTIES, not _shares(signer, tuple(refused)), message)
    _no_filer(state, job, signer)
    _no_uploader(state, job, signer)
    state.findings.demand(names.EVIDENCE, decision in ("grant", "refuse"), "it decides neither grant nor refuse")
    card = text(predicate, "card_sha256")
    job.signatures.append(Signature(signer, role, decision == "grant", job.version, card, entry.index))


def waiver(state: State, entry: Entry) -> None:
    """It waives every rule that fired and no other, by the roles that may, in time; who appealed does not sign it."""
    signer, predicate = state.signed(entry)
    job, listed = state.job(entry.record), predicate.get("rules")
    demand, missing = state.findings.demand, not state.whole(job.unit)
    rules = [str(rule) for rule in listed] if isinstance(listed, list) else []
    roles = {rule: role_name(job.fired.get(rule, {}).get("waivable_by")) for rule in rules}
    demand(names.ROLES, bool(rules), "it waives no rule")
    demand(names.ROLES, len(roles) == len(rules), "it waives a rule twice")
    for rule, role in roles.items():
        unknown = missing and rule not in job.fired
        demand(names.ROLES, bool(role), f"rule {rule} did not fire or cannot be waived", missing=unknown)
    left = ", ".join(sorted(job.fired.keys() - roles.keys()))
    demand(names.ROLES, not left, f"the job would still be refused by {left}", missing=missing)
    _no_filer(state, job, signer)
    _no_uploader(state, job, signer)
    for role in sorted(set(roles.values())):
        _acts(state, job, signer, role, predicate, "DENIED", "QUARANTINED")
    _lasts(state, entry, job, rules)
    job.answers.add(entry.index)
    job.acts.add(("rules.waived", job.version))


def budget_raise(state: State, entry: Entry) -> None:
    """A compliance officer lets a paused job cost more."""
    signer, predicate = state.signed(entry)
    job, bound = state.job(entry.record), predicate.get("max_usd_micros")
    _acts(state, job, signer, COMPLIANCE_OFFICER, predicate, "PAUSED")
    state.findings.demand(names.EVIDENCE, type(bound) is int and bound > 0, "it raises the budget to nothing")
    job.acts.add(("budget.raised", job.version))


def dismissal(state: State, entry: Entry) -> None:
    """A compliance officer says no to an appeal that waits, and is not who filed it."""
    signer, predicate = state.signed(entry)
    job = state.job(entry.record)
    _acts(state, job, signer, COMPLIANCE_OFFICER, predicate, "DENIED", "QUARANTINED")
    missing = not state.whole(job.unit)
    state.findings.demand(names.TRANSITIONS, bool(job.appealed), "no appeal waits for an answer", missing=missing)
    _no_filer(state, job, signer)
    job.acts.add(("appeal.dismissed", job.version))


def revocation(state: State, entry: Entry) -> None:
    """A compliance officer withdraws an approval, the maker too: it lets nothing pass."""
    signer, predicate = state.signed(entry)
    job = state.job(entry.record)
    job.anew = predicate.get("reason") in APPROVE_ANEW
    _seen(state, job, predicate, "APPROVED")
    state.holds(signer, COMPLIANCE_OFFICER, job.unit)
    job.acts.add(("approval.revoked", job.version))


def erasure_order(state: State, entry: Entry) -> None:
    """A compliance officer of the unit orders what is the unit's erased; of a job, no reasons that still carry it."""
    own = state.erasures.order(entry)
    signer, predicate = state.signed(entry)
    job = state.jobs.get(text(predicate, "resource"))
    if job is not None:
        carried = job.state in ("APPROVED", "AWAITING_APPROVAL")
        missing = not state.whole(job.unit)
        message = f"ordered while the job is {job.state}"
        state.findings.demand(names.ERASURES, not carried, message, missing=missing)
        signed = any(signer.subject == s.signer.subject for s in job.signatures)
        state.findings.demand(names.DUTIES, not signed, "who signed in the job may not order its reasons erased")
    state.findings.demand(names.ERASURES, own, "it orders the erasure of another unit's resource")
    state.holds(signer, COMPLIANCE_OFFICER, entry.record.unit)


def dataset(state: State, entry: Entry) -> None:
    """A datasheet's retention is the order by which the rows go one day; who uploaded them checks no job."""
    state.erasures.keep(entry)
    state.uploaders[text(entry.record.predicate, "dataset")] = text(entry.record.predicate, "actor")


def erasure(state: State, entry: Entry) -> None:
    """What the gateway says it erased was ordered before, or its retention was over."""
    ordered, missing = state.erasures.execute(entry), not state.whole(entry.record.unit)
    state.findings.demand(
        names.ERASURES, ordered, "nobody ordered it before, and no retention was over", missing=missing
    )


def quorum_met(signed: list[tuple[Signer, str]]) -> bool:
    """Tells whether distinct people with distinct keys cover every role of the quorum."""

    def cover(roles: tuple[str, ...], used: tuple[Signer, ...]) -> bool:
        if not roles:
            return True
        fits = [s for s, role in signed if role == roles[0] and not _shares(s, used)]
        return any(cover(roles[1:], (*used, s)) for s in fits)

    return cover(QUORUM, ())


def carries(state: State, job: Job) -> bool:
    """Tells whether those who granted the version before this one are a quorum by the roles that they hold now."""
    granted = [s for s in job.signatures if s.granted and s.version == job.version - 1]
    return quorum_met([(s.signer, s.role) for s in granted if state.roles.holds(s.signer.subject, s.role, job.unit)])


def _no_filer(state: State, job: Job, signer: Signer) -> None:
    state.findings.demand(names.DUTIES, signer.subject not in job.appealed, "who filed the appeal may not decide on it")


def _no_uploader(state: State, job: Job, signer: Signer) -> None:
    own = state.uploaders.get(job.dataset) == signer.subject
    state.findings.demand(names.DUTIES, not own, "who uploaded the rows may not decide on the job")


def _acts(state: State, job: Job, signer: Signer, role: str, predicate: Mapping[str, Any], *states: str) -> None:
    """What holds for a person's decision on a job: state, version seen, not the maker, role held."""
    _seen(state, job, predicate, *states)
    state.findings.demand(names.DUTIES, bool(job.creator), "the job's maker is not known", missing=True)
    state.findings.demand(names.DUTIES, signer.subject != job.creator, "the maker may not decide on the job")
    state.holds(signer, role, job.unit)


def _seen(state: State, job: Job, predicate: Mapping[str, Any], *states: str) -> None:
    """The job is in a state in which this is signed, and in the version that was signed about."""
    missing = not state.whole(job.unit)
    state.findings.demand(
        names.TRANSITIONS, job.state in states, f"signed while the job is {job.state}", missing=missing
    )
    seen = predicate.get("etag") == job.etag
    state.findings.demand(names.EVIDENCE, seen, "it was signed about another version of the job", missing=missing)


def _lasts(state: State, entry: Entry, job: Job, rules: Iterable[str]) -> None:
    """A waiver expires on a day to come, and no later than each rule lets it; the job's approval ends with it."""
    today = entry.record.time.date()
    try:
        expires = date.fromisoformat(text(entry.record.predicate, "expires"))
    except ValueError:
        expires = date.min
    state.findings.demand(names.ROLES, expires >= today, "the waiver had expired, or does not say when it does")
    for rule in rules:
        longest = job.fired.get(rule, {}).get("waiver_days")
        lasts = type(longest) is not int or longest <= 0 or (expires - today).days <= longest
        state.findings.demand(names.ROLES, lasts, f"rule {rule} may be waived for {longest} days at most")
    job.waived_until = min(job.waived_until, expires)


def _evidence(state: State, entry: Entry, job: Job, predicate: Mapping[str, Any]) -> None:
    """The approval's card, evidence root, digests and purpose are those of the log."""
    card, index, size = (predicate.get(name) for name in ("card_sha256", "card_index", "evidence_size"))
    rendered = isinstance(index, int) and bool(card) and job.cards.get(index) == (card, job.version)
    message = "the card it names is not the one rendered of this version"
    state.findings.demand(names.EVIDENCE, rendered, message, missing=not state.whole(job.unit))
    covers = type(size) is int and type(index) is int and index < size <= entry.index
    state.findings.demand(names.EVIDENCE, covers, "its evidence does not cover the card")
    # A tree that ends before the approval is smaller than the log's. That its root is of a prefix of the log was proved
    # when the bundle was opened, for every root that is text.
    proved = isinstance(predicate.get("evidence_root"), str)
    state.findings.demand(names.EVIDENCE, proved, "its evidence root is no text, and is not proved to be the log's")
    trained = {"adapter_sha256": job.adapter, "base_sha256": job.base, "purpose": job.purpose}
    for member, known in trained.items():
        same = bool(known) and predicate.get(member) == known
        message = f"its {member} is not that of what was trained"
        state.findings.demand(names.EVIDENCE, same, message, missing=not known and not state.whole(job.unit))


def _shares(signer: Signer, used: tuple[Signer, ...]) -> bool:
    return any(signer.subject == other.subject or signer.keyid == other.keyid for other in used)


HANDLERS: Mapping[str, Handler] = {
    "approval.decided": approval,
    "rules.waived": waiver,
    "budget.raised": budget_raise,
    "appeal.dismissed": dismissal,
    "approval.revoked": revocation,
    "dataset.created": dataset,
    "erasure.ordered": erasure_order,
    "erasure.executed": erasure,
}
