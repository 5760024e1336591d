"""What services made: workers' signed results, the rendered card, permits."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from cryptography.exceptions import InvalidSignature

from assay import canonical, dsse, provenance
from assay.digests import sha256_bytes
from assay.dsse import VerifiedEnvelope
from assay.errors import AssayError
from audit.ledger.evidence import Entry
from audit.ledger.records import TYPES, Record
from audit.verify import findings as names
from audit.verify import keys
from audit.verify.acts import carries
from audit.verify.edges import state_name
from audit.verify.findings import Problem
from audit.verify.state import Handler, Job, State, members, parse_moment, text, transition_of

LONGEST_PERMIT = timedelta(hours=24)
_MOST_STATEMENTS = 4


def worker(state: State, entry: Entry) -> None:
    """A worker's result carries that worker's own statement about this job."""
    wanted = _statement_wanted(entry.record)
    if wanted is None:
        return
    key, name, needed = wanted
    found = list(itertools.islice(_envelopes(entry.record.predicate), _MOST_STATEMENTS + 1))
    if len(found) > _MOST_STATEMENTS:
        raise Problem(names.WORKERS, f"it carries more than {_MOST_STATEMENTS} statements")
    job = state.job(entry.record)
    job.base = job.base or text(entry.record.predicate, "base_sha256")
    for envelope in found:
        verified = _service(state, entry.index, key, envelope)
        about = _about(verified, name) == job.name
        state.findings.demand(names.WORKERS, about, f"its statement is not a {name} statement of this job")
        if entry.record.type == "training.replayed":
            _replayed(state, job, entry.record, verified)
        else:
            _facts(state, job, name, verified, entry.record)
    state.findings.demand(
        names.WORKERS, bool(found) or not needed, f"it carries no signed {name} statement", missing=True
    )


def _replayed(state: State, job: Job, record: Record, verified: VerifiedEnvelope) -> None:
    """A replay's verdict follows from the adapter that its own statement names, and the one that was trained."""
    again = {s["name"]: s["digest"]["sha256"] for s in verified.statement["subject"]}.get("adapter", "")
    said = text(record.predicate, "verdict")
    state.findings.demand(
        names.WORKERS,
        again == text(record.predicate, "replayed_sha256"),
        "the replay's statement names another adapter",
    )
    trained = job.adapter or text(record.predicate, "adapter_sha256")
    same = again == trained == text(record.predicate, "adapter_sha256")
    state.findings.demand(
        names.WORKERS, said == ("REPRODUCED" if same else "DIFFERS"), "the replay's verdict is not what its digests say"
    )


def card(state: State, entry: Entry) -> None:
    """Notes the rendered card, which approvals must name, and the version of the job that it shows."""
    job, predicate = state.job(entry.record), entry.record.predicate
    job.cards[entry.index] = text(predicate, "card_sha256"), predicate.get("version")
    _of_adapter(state, entry, job)


def card_issued(state: State, entry: Entry) -> None:
    """A card can be issued while there is a key that signs cards, and is the rendered one of an approved job."""
    with state.key_checked():
        state.keys.demand_pdf(entry.index)
    job, index = state.job(entry.record), entry.record.predicate.get("card_index")
    missing, demand = not state.whole(job.unit), state.findings.demand
    demand(names.EVIDENCE, job.state == "APPROVED", f"issued while the job is {job.state}", missing=missing)
    card, _ = job.cards.get(index, ("", 0)) if isinstance(index, int) else ("", 0)
    same = bool(card) and entry.record.predicate.get("card_sha256") == card
    demand(names.EVIDENCE, same, "the card it issues is not the rendered one", missing=missing)
    listed = entry.record.predicate.get("approvals", [])
    granted = {s.index for s in job.signatures if s.granted and s.card == card}
    signed = isinstance(listed, list) and all(type(i) is int and i in granted for i in listed)
    demand(names.EVIDENCE, signed, "it names approvals that are none of this card", missing=missing)
    _of_adapter(state, entry, job)


def _of_adapter(state: State, entry: Entry, job: Job) -> None:
    """A card is of the adapter that was trained, where its record and the records before it name one."""
    same = not job.adapter or entry.record.subjects("adapter") <= {job.adapter}
    state.findings.demand(names.EVIDENCE, same, "the card is of another adapter than was trained")


def permit(state: State, entry: Entry) -> None:
    """The permit's own statement is rebuilt from the record and its signature verified."""
    job, predicate = state.job(entry.record), dict(entry.record.predicate)
    missing = not state.whole(job.unit)
    state.findings.demand(
        names.PERMITS, job.state == "APPROVED", f"issued while the job is {job.state}", missing=missing
    )
    approved = {
        "adapter_sha256": job.adapter, "base_sha256": job.base, "purpose": job.purpose, "creator": job.creator,
    }  # fmt: skip
    for member, known in approved.items():
        same = not known or predicate.get(member) == known
        what = member.removesuffix("_sha256")
        state.findings.demand(names.PERMITS, same, f"it permits another {what} than was approved")
    state.findings.demand(
        names.PERMITS,
        carries(state, job),
        "those who approved no longer hold their roles",
        missing=missing or not state.whole("system"),
    )
    lapsed = entry.record.time.date() > job.waived_until
    state.findings.demand(names.PERMITS, not lapsed, "a waiver that let the job on has expired")
    begin, end = parse_moment(predicate.get("not_before")), parse_moment(predicate.get("not_after"))
    lasts = begin is not None and end is not None and timedelta(0) < end - begin <= LONGEST_PERMIT
    state.findings.demand(names.PERMITS, lasts, "it does not end within 24 hours")
    # Else one day's permits would outlive a revocation by as much as they were put ahead.
    ahead = begin is not None and begin > entry.record.time
    state.findings.demand(names.PERMITS, not ahead, "it begins later than it was recorded")
    signature = predicate.pop("signature", "")
    for member in ("statement_sha256", "actor", "trace_id"):
        predicate.pop(member, None)
    payload = canonical.encode({**entry.record.statement, "predicate": predicate})
    try:
        sig = base64.b64decode(str(signature), validate=True)
        message = dsse.pae(dsse.PAYLOAD_TYPE, payload)
        with state.key_checked():
            state.keys.verified(keys.PERMIT, entry.index, lambda key: key.verify(sig, message))
    except (InvalidSignature, ValueError) as error:
        # By a key that nothing here names: perhaps the record that brought it in is not shown.
        missing = not state.whole("system")
        raise Problem(names.PERMITS, "the permit key did not sign it", missing=missing) from error
    state.findings.demand(names.PERMITS, True, "")


def document_hashes(entries: tuple[Entry, ...]) -> set[str]:
    """Every hex SHA-256 that a card's record names: what an attachment may be."""
    return {h for e in entries if TYPES[e.record.type].predicate == "card" for h in _hashes(e.record.statement)}


def _service(state: State, index: int, key: str, envelope: Mapping[str, Any]) -> VerifiedEnvelope:
    """A service's envelope, verified by the key of that name that held at the index."""
    try:
        verified = state.keys.verified(key, index, lambda held: dsse.verify_service(envelope, held))
    except AssayError as error:
        check = names.KEYS if error.reason == "KEY_NOT_IN_FORCE" else names.WORKERS
        raise Problem(check, f"{error.reason}: {error.message}", missing=not state.whole("system")) from error
    state.findings.demand(names.KEYS, True, "")
    return verified


def _statement_wanted(record: Record) -> tuple[str, str, bool] | None:
    """Name of the key, predicate name and necessity of the statement that a record type carries."""
    to = state_name(transition_of(record).get("to"))
    return {
        "intake.decided": (keys.AUDIT_WORKER, "preparation", to == "QUEUED"),
        "training.ordered": (keys.PERMIT, "work-order", False),
        "training.completed": (keys.TRAIN_WORKER, "training", True),
        "training.replayed": (keys.TRAIN_WORKER, "training", bool(text(record.predicate, "replayed_sha256"))),
        "audit.completed": (keys.AUDIT_WORKER, "audit", True),
    }.get(record.type)


def _about(verified: VerifiedEnvelope, name: str) -> str:
    """The job that a statement of this name is about; empty for another statement."""
    if name == "training" and provenance.is_training(verified.statement):
        try:
            return text(provenance.read_training(verified.statement), "job")
        except AssayError:
            return ""
    return text(verified.predicate, "job") if verified.predicate_name == name else ""


def _run(verified: VerifiedEnvelope) -> Mapping[str, Any]:
    """The flat members of a training statement; empty where it cannot be read."""
    try:
        return provenance.read_training(verified.statement)
    except AssayError:
        return {}


def _facts(state: State, job: Job, name: str, verified: VerifiedEnvelope, record: Record) -> None:
    """Digests that later records must agree with, and of which the record says what the statement in it says."""
    subjects = {s["name"]: s["digest"]["sha256"] for s in verified.statement["subject"]}
    said, holds = record.predicate, True
    if name == "preparation":
        job.prepared, job.private = subjects, text(members(verified.predicate, "claim"), "private_commitment")
    elif name == "training":
        job.adapter = subjects.get("adapter", "")
        run = _run(verified)
        job.ran, job.claim = text(run, "order_sha256"), members(run, "claim")
        holds = text(said, "adapter_sha256") in ("", job.adapter)
    elif name == "work-order":
        job.base, job.terms = text(verified.predicate, "base_sha256"), verified.predicate
        job.order = sha256_bytes(canonical.encode(verified.predicate))
        holds = all(said.get(member) == value for member, value in verified.predicate.items())
    elif name == "audit":
        job.revealed, claim = subjects.get("canaries.json", ""), members(verified.predicate, "claim")
        job.measured = {m: text(claim, m) for m in ("adapter_sha256", "plan_sha256", "private_commitment")}
        holds = text(said, "report_sha256") in ("", *subjects.values())
    state.findings.demand(names.WORKERS, holds, f"it says other things than the {name} statement in it")


def _envelopes(value: Any, depth: int = 3) -> Iterator[dict[str, Any]]:
    """DSSE envelopes within a predicate, wherever its maker put them."""
    if isinstance(value, dict):
        if value.keys() == {"payloadType", "payload", "signatures"}:
            yield value
        elif depth:
            for item in value.values():
                yield from _envelopes(item, depth - 1)


def _hashes(value: Any) -> Iterator[str]:
    """Every 64-digit hex text within a statement."""
    if isinstance(value, dict):
        for item in value.values():
            yield from _hashes(item)
    elif isinstance(value, list):
        for item in value:
            yield from _hashes(item)
    elif isinstance(value, str) and len(value) == 64 and all(c in "0123456789abcdef" for c in value):
        yield value


HANDLERS: Mapping[str, Handler] = {"card.rendered": card, "card.issued": card_issued, "permit.issued": permit}
