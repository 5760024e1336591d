"""People's acts on a job or a resource: approvals, waivers, revocations, orders to erase."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from assay.dsse import Signer
from audit.ledger.evidence import Entry
from audit.verify import findings as names
from audit.verify.people import COMPLIANCE_OFFICER, QUORUM, role_name
from audit.verify.state import Handler, Job, Signature, State, text


def approval(state: State, entry: Entry) -> None:
    """One person's grant or refusal of one card, under one evidence root."""
    signer, predicate = state.signed(entry)
    job, role = state.job(entry.record), role_name(predicate.get("role"))
    _acts(state, job, signer, role, predicate, "AWAITING_APPROVAL")
    _evidence(state, entry, job, predicate)
    before = [s for s in job.signatures if s.version == job.version]
    twice = any(s.signer.subject == signer.subject or s.signer.keyid == signer.keyid for s in before)
    state.findings.demand(names.DUTIES, not twice, "this person or key has decided on this version already")
    refused = [s.signer for s in job.signatures if s.version < job.version and not s.granted]
    message = "who refused the job may not decide on the appeal"
    state.findings.demand(names.DUTIES, not _shares(signer, tuple(refused)), message)
    decision = predicate.get("decision")
    state.findings.demand(names.EVIDENCE, decision in ("grant", "refuse"), "it decides neither grant nor refuse")
    card = text(predicate, "card_sha256")
    job.signatures.append(Signature(signer, role, decision == "grant", job.version, card))


def waiver(state: State, entry: Entry) -> None:
    """Every rule waived has fired, and the signer holds the role that may waive it."""
    signer, predicate = state.signed(entry)
    job, listed = state.job(entry.record), predicate.get("rules")
    rules = [str(rule) for rule in listed] if isinstance(listed, list) else []
    state.findings.demand(names.ROLES, bool(rules), "it waives no rule")
    state.findings.demand(names.ROLES, len(set(rules)) == len(rules), "it waives a rule twice")
    for rule in rules:
        known = bool(job.outcomes.get(rule)) or not state.whole(job.unit)
        state.findings.demand(names.ROLES, known, f"rule {rule} did not fire or cannot be waived")
    for role in sorted({job.outcomes.get(rule, "") for rule in rules}):
        _acts(state, job, signer, role, predicate, "DENIED", "QUARANTINED")
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
    state.findings.demand(names.DUTIES, signer.subject != job.appealed, "who filed the appeal may not decide on it")
    job.acts.add(("appeal.dismissed", job.version))


def revocation(state: State, entry: Entry) -> None:
    """A compliance officer withdraws an approval."""
    signer, predicate = state.signed(entry)
    job = state.job(entry.record)
    _acts(state, job, signer, COMPLIANCE_OFFICER, predicate, "APPROVED")
    job.acts.add(("approval.revoked", job.version))


def erasure_order(state: State, entry: Entry) -> None:
    """A compliance officer of the unit orders what is the unit's erased."""
    own = state.erasures.order(entry)
    signer, _ = state.signed(entry)
    state.findings.demand(names.ERASURES, own, "it orders the erasure of another unit's resource")
    state.holds(signer, COMPLIANCE_OFFICER, entry.record.unit)


def dataset(state: State, entry: Entry) -> None:
    """A datasheet's retention is the order by which the rows go one day."""
    state.erasures.keep(entry)


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


def _acts(state: State, job: Job, signer: Signer, role: str, predicate: Mapping[str, Any], *states: str) -> None:
    """What holds for every act of a person on a job: state, version seen, not the maker, role held."""
    missing = not state.whole(job.unit)
    state.findings.demand(
        names.TRANSITIONS, job.state in states, f"signed while the job is {job.state}", missing=missing
    )
    seen = predicate.get("etag") == job.etag
    state.findings.demand(names.EVIDENCE, seen, "it was signed about another version of the job", missing=missing)
    state.findings.demand(names.DUTIES, bool(job.creator), "the job's maker is not known", missing=True)
    state.findings.demand(names.DUTIES, signer.subject != job.creator, "the maker may not decide on the job")
    state.holds(signer, role, job.unit)


def _evidence(state: State, entry: Entry, job: Job, predicate: Mapping[str, Any]) -> None:
    """The approval's card, evidence root and digests are those of the log."""
    card, index, size = (predicate.get(name) for name in ("card_sha256", "card_index", "evidence_size"))
    rendered = isinstance(index, int) and bool(card) and card == job.cards.get(index)
    state.findings.demand(
        names.EVIDENCE, rendered, "the card it names is not the rendered one", missing=not state.whole(job.unit)
    )
    covers = isinstance(size, int) and isinstance(index, int) and index < size <= entry.index
    state.findings.demand(names.EVIDENCE, covers, "its evidence does not cover the card")
    # Roots of smaller trees were proved to be prefixes when the bundle was opened; only texts were.
    root = predicate.get("evidence_root")
    same = root == state.header.root.hex() if size == state.header.size else isinstance(root, str)
    state.findings.demand(names.EVIDENCE, same, "its evidence root is not the log's")
    for member, known in (("adapter_sha256", job.adapter), ("base_sha256", job.base)):
        same = bool(known) and predicate.get(member) == known
        message = f"its {member} is not what was trained"
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
