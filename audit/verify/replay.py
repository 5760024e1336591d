"""The log replayed in order: who signed what, in which state of the job, holding which role.

The replay believes the trust file's keys and nothing else. A record of the gateway is its claim; a person's act must
be that person's signature, a worker's result that worker's. What a record says of a state must follow from the
records before it.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from assay import canonical, dsse
from assay.dsse import Signer, VerifiedEnvelope
from assay.errors import AssayError
from audit.ledger.evidence import Entry, Header
from audit.ledger.records import TYPES, Record
from audit.verify import findings as names
from audit.verify.edges import EDGES, state_name
from audit.verify.erasures import Erasures
from audit.verify.findings import Findings, Problem
from audit.verify.people import COMPLIANCE_OFFICER, EVERY_UNIT, OPERATOR, QUORUM, Grant, Roles, role_name
from audit.verify.trust import TrustFile

CLOCK_TOLERANCE = timedelta(seconds=2)
LONGEST_PERMIT = timedelta(hours=24)
_MOST_STATEMENTS = 4


@dataclass(frozen=True)
class Signature:
    """A person's decision on a job's card, as counted for the quorum."""

    signer: Signer
    role: str
    granted: bool
    version: int
    card: str


@dataclass
class Job:
    """What the records so far say of one job."""

    name: str
    unit: str
    state: str = "NONE"
    version: int = 0
    creator: str = ""
    paused_in: str = ""
    adapter: str = ""
    base: str = ""
    outcomes: dict[str, str] = field(default_factory=dict)
    cards: dict[int, str] = field(default_factory=dict)
    signatures: list[Signature] = field(default_factory=list)
    acts: set[tuple[str, int]] = field(default_factory=set)

    @property
    def etag(self) -> str:
        """What a person must have seen to sign about this version."""
        return hashlib.sha256(canonical.encode({"name": self.name, "version": self.version})).hexdigest()[:32]


class Replay:
    """Replays entries in index order; problems go to ``findings``."""

    def __init__(self, header: Header, trust: TrustFile, gapless: frozenset[str]) -> None:
        self.findings = Findings()
        self.roles = Roles(founder=trust.operator)
        self.jobs: dict[str, Job] = {}
        self.erasures = Erasures()
        self._header = header
        self._trust = trust
        self._gapless = gapless
        self._newest: datetime | None = None
        self._publications: set[str] = set()
        self._handlers = {
            "grant.issued": self._grant,
            "grant.revoked": self._grant_revocation,
            "policy.published": self._policy,
            "log.frozen": self._freeze,
            "log.continued": self._continuation,
            "approval.decided": self._approval,
            "rules.waived": self._waiver,
            "approval.revoked": self._revocation,
            "card.rendered": self._card,
            "permit.issued": self._permit,
            "erasure.ordered": self._erasure_order,
            "erasure.executed": self._erasure,
        }

    def run(self, entries: tuple[Entry, ...]) -> None:
        """Replays all; each record's first problem is kept and the replay goes on."""
        for entry in entries:
            for step in (self._time, self._worker, self._special, self._transition):
                try:
                    step(entry)
                except Problem as problem:
                    self.findings.note(entry.index, problem)

    def _time(self, entry: Entry) -> None:
        newest, self._newest = self._newest, max(self._newest or entry.record.time, entry.record.time)
        behind = newest is not None and entry.record.time < newest - CLOCK_TOLERANCE
        self.findings.demand(names.TIME, not behind, "its time is more than 2 s before an earlier record's")

    def _special(self, entry: Entry) -> None:
        self.erasures.see(entry)
        handler = self._handlers.get(entry.record.type)
        if handler is not None:
            handler(entry)

    def _job(self, record: Record) -> Job:
        return self.jobs.setdefault(record.job, Job(record.job, record.unit))

    def _signed(self, entry: Entry) -> tuple[Signer, dict[str, Any]]:
        """Verifies a person's record by the people root at the record's time; exactly one person signs an act."""
        try:
            verified = dsse.verify_person(entry.record.envelope(), self._trust.people_root, entry.record.time)
        except AssayError as error:
            raise Problem(names.SIGNATURES, f"{error.reason}: {error.message}") from error
        self.findings.demand(names.SIGNATURES, len(verified.signers) == 1, "more than one person signed one act")
        return verified.signers[0], verified.predicate

    def _grant(self, entry: Entry) -> None:
        signer, predicate = self._signed(entry)
        grant = Grant(_text(predicate, "subject"), role_name(predicate.get("role")), _text(predicate, "unit"))
        grant_id = _text(predicate, "grant_id")
        self.findings.demand(names.ROLES, self.roles.may_grant(signer), f"{signer.subject} may not grant roles")
        fresh = grant_id and grant_id not in self.roles.known
        self.findings.demand(names.ROLES, bool(fresh), "the grant's id is empty or was used before")
        self.roles.grant(grant_id, grant)

    def _grant_revocation(self, entry: Entry) -> None:
        signer, predicate = self._signed(entry)
        grant_id = _text(predicate, "grant_id")
        self.findings.demand(names.ROLES, self.roles.may_grant(signer), f"{signer.subject} may not revoke roles")
        known = grant_id in self.roles.grants
        self.findings.demand(
            names.ROLES, known, "it revokes a grant that is not in force", missing=not self._whole("system")
        )
        self.roles.revoke(grant_id)

    def _freeze(self, entry: Entry) -> None:
        signer, predicate = self._signed(entry)
        self._holds(signer, OPERATOR, EVERY_UNIT)
        last = entry.index == self._header.size - 1
        self.findings.demand(names.END, predicate.get("origin") == entry.record.log, "it freezes another log")
        self.findings.demand(names.END, last, "records follow the one that ended the log")

    def _continuation(self, entry: Entry) -> None:
        signer, predicate = self._signed(entry)
        self._holds(signer, OPERATOR, EVERY_UNIT)
        own = predicate.get("origin") == entry.record.log != predicate.get("previous_origin")
        self.findings.demand(names.END, own, "it does not say what this log continues")

    def _policy(self, entry: Entry) -> None:
        signer, predicate = self._signed(entry)
        publisher = any(self.roles.holds(signer.subject, role, EVERY_UNIT) for role in (OPERATOR, COMPLIANCE_OFFICER))
        self.findings.demand(names.ROLES, publisher, f"{signer.subject} may not publish a policy",
                             missing=not self._whole("system"))  # fmt: skip
        publication = _text(predicate, "publication_id")
        fresh = publication and publication not in self._publications
        self.findings.demand(names.SIGNATURES, bool(fresh), "the publication's id is empty or was used before")
        self._publications.add(publication)

    def _approval(self, entry: Entry) -> None:
        signer, predicate = self._signed(entry)
        job, role = self._job(entry.record), role_name(predicate.get("role"))
        self._acts(job, signer, role, predicate, "AWAITING_APPROVAL")
        self._evidence(entry, job, predicate)
        before = [s for s in job.signatures if s.version == job.version]
        twice = any(s.signer.subject == signer.subject or s.signer.keyid == signer.keyid for s in before)
        self.findings.demand(names.DUTIES, not twice, "this person or key has decided on this version already")
        decision = predicate.get("decision")
        self.findings.demand(names.EVIDENCE, decision in ("grant", "refuse"), "it decides neither grant nor refuse")
        card = _text(predicate, "card_sha256")
        job.signatures.append(Signature(signer, role, decision == "grant", job.version, card))

    def _acts(self, job: Job, signer: Signer, role: str, predicate: Mapping[str, Any], *states: str) -> None:
        """What holds for every act of a person on a job: state, version seen, not the maker, role held."""
        missing = not self._whole(job.unit)
        self.findings.demand(
            names.TRANSITIONS, job.state in states, f"signed while the job is {job.state}", missing=missing
        )
        seen = predicate.get("etag") == job.etag
        self.findings.demand(names.EVIDENCE, seen, "it was signed about another version of the job", missing=missing)
        self.findings.demand(names.DUTIES, bool(job.creator), "the job's maker is not known", missing=True)
        self.findings.demand(names.DUTIES, signer.subject != job.creator, "the maker may not decide on the job")
        self._holds(signer, role, job.unit)

    def _holds(self, signer: Signer, role: str, unit: str) -> None:
        held = self.roles.holds(signer.subject, role, unit)
        message = f"{signer.subject} did not hold {role or 'a role'} in {unit}"
        self.findings.demand(names.ROLES, held, message, missing=not self._whole("system"))

    def _evidence(self, entry: Entry, job: Job, predicate: Mapping[str, Any]) -> None:
        """The approval's card, evidence root and digests are those of the log."""
        card, index, size = (predicate.get(name) for name in ("card_sha256", "card_index", "evidence_size"))
        rendered = isinstance(index, int) and bool(card) and card == job.cards.get(index)
        self.findings.demand(
            names.EVIDENCE, rendered, "the card it names is not the rendered one", missing=not self._whole(job.unit)
        )
        covers = isinstance(size, int) and isinstance(index, int) and index < size <= entry.index
        self.findings.demand(names.EVIDENCE, covers, "its evidence does not cover the card")
        # Roots of smaller trees were proved to be prefixes when the bundle was opened; only texts were.
        root = predicate.get("evidence_root")
        same = root == self._header.root.hex() if size == self._header.size else isinstance(root, str)
        self.findings.demand(names.EVIDENCE, same, "its evidence root is not the log's")
        for member, known in (("adapter_sha256", job.adapter), ("base_sha256", job.base)):
            same = bool(known) and predicate.get(member) == known
            message = f"its {member} is not what was trained"
            self.findings.demand(names.EVIDENCE, same, message, missing=not known and not self._whole(job.unit))

    def _waiver(self, entry: Entry) -> None:
        signer, predicate = self._signed(entry)
        job, rules = self._job(entry.record), predicate.get("rules")
        self.findings.demand(names.ROLES, isinstance(rules, list) and bool(rules), "it waives no rule")
        for rule in rules if isinstance(rules, list) else ():
            role = job.outcomes.get(str(rule), "")
            known = bool(role) or not self._whole(job.unit)
            self.findings.demand(names.ROLES, known, f"rule {rule} did not fire or cannot be waived")
            self._acts(job, signer, role, predicate, "DENIED", "QUARANTINED")
        job.acts.add(("rules.waived", job.version))

    def _revocation(self, entry: Entry) -> None:
        signer, predicate = self._signed(entry)
        job = self._job(entry.record)
        self._acts(job, signer, COMPLIANCE_OFFICER, predicate, "APPROVED")
        job.acts.add(("approval.revoked", job.version))

    def _erasure_order(self, entry: Entry) -> None:
        own = self.erasures.order(entry)
        signer, _ = self._signed(entry)
        self.findings.demand(names.ERASURES, own, "it orders the erasure of another unit's resource")
        self._holds(signer, COMPLIANCE_OFFICER, entry.record.unit)

    def _erasure(self, entry: Entry) -> None:
        ordered, missing = self.erasures.execute(entry), not self._whole(entry.record.unit)
        self.findings.demand(names.ERASURES, ordered, "nobody ordered it before", missing=missing)

    def _card(self, entry: Entry) -> None:
        self._job(entry.record).cards[entry.index] = _text(entry.record.predicate, "card_sha256")

    def _permit(self, entry: Entry) -> None:
        """The permit's own statement is rebuilt from the record and its signature verified."""
        job, predicate = self._job(entry.record), dict(entry.record.predicate)
        missing = not self._whole(job.unit)
        self.findings.demand(
            names.PERMITS, job.state == "APPROVED", f"issued while the job is {job.state}", missing=missing
        )
        same = not job.adapter or predicate.get("adapter_sha256") == job.adapter
        self.findings.demand(names.PERMITS, same, "it permits another adapter than was trained")
        begin, end = parse_moment(predicate.get("not_before")), parse_moment(predicate.get("not_after"))
        lasts = begin is not None and end is not None and timedelta(0) < end - begin <= LONGEST_PERMIT
        self.findings.demand(names.PERMITS, lasts, "it does not end within 24 hours")
        signature = predicate.pop("signature", "")
        for member in ("statement_sha256", "actor", "trace_id"):
            predicate.pop(member, None)
        payload = canonical.encode({**entry.record.statement, "predicate": predicate})
        try:
            sig = base64.b64decode(str(signature), validate=True)
            self._trust.permit.verify(sig, dsse.pae(dsse.PAYLOAD_TYPE, payload))
        except (InvalidSignature, ValueError) as error:
            raise Problem(names.PERMITS, "the permit key did not sign it") from error
        self.findings.demand(names.PERMITS, True, "")

    def _worker(self, entry: Entry) -> None:
        """A worker's result carries that worker's own statement about this job."""
        wanted = self._statement_wanted(entry.record)
        if wanted is None:
            return
        key, name, needed = wanted
        found = list(itertools.islice(_envelopes(entry.record.predicate), _MOST_STATEMENTS + 1))
        if len(found) > _MOST_STATEMENTS:
            raise Problem(names.WORKERS, f"it carries more than {_MOST_STATEMENTS} statements")
        job = self._job(entry.record)
        job.base = _text(entry.record.predicate, "base_sha256") or job.base
        for envelope in found:
            try:
                verified = dsse.verify_service(envelope, key)
            except AssayError as error:
                raise Problem(names.WORKERS, f"{error.reason}: {error.message}") from error
            about = verified.predicate_name == name and verified.predicate.get("job") == job.name
            self.findings.demand(names.WORKERS, about, f"its statement is not a {name} statement of this job")
            self._facts(job, name, verified)
        self.findings.demand(
            names.WORKERS, bool(found) or not needed, f"it carries no signed {name} statement", missing=True
        )

    def _statement_wanted(self, record: Record) -> tuple[Ed25519PublicKey, str, bool] | None:
        """Key, predicate name and necessity of the statement that a record type carries."""
        to = state_name(_transition(record).get("to"))
        return {
            "intake.decided": (self._trust.audit_worker, "preparation", to == "QUEUED"),
            "training.ordered": (self._trust.permit, "work-order", False),
            "training.completed": (self._trust.train_worker, "training", True),
            "audit.completed": (self._trust.audit_worker, "audit", True),
        }.get(record.type)

    def _facts(self, job: Job, name: str, verified: VerifiedEnvelope) -> None:
        """Digests that later records must agree with."""
        if name == "training":
            subjects = {s["name"]: s["digest"]["sha256"] for s in verified.statement["subject"]}
            job.adapter = subjects.get("adapter", "")
        elif name == "work-order":
            job.base = _text(verified.predicate, "base_sha256")

    def _transition(self, entry: Entry) -> None:
        record = entry.record
        if record.type in ("intake.decided", "release.decided"):
            self._job(record).outcomes = dict(_waivable(record.predicate))
        if record.type not in EDGES:
            return
        job, step = self._job(record), _transition(record)
        before, after, version = state_name(step.get("from")), state_name(step.get("to")), step.get("version")
        follows = before == job.state and type(version) is int and version == job.version + 1
        resumes = record.type != "job.resumed" or after == job.paused_in
        previous, job.state, job.version = job.state, after, version if type(version) is int else job.version
        if record.type == "job.received":
            job.creator = _text(record.predicate, "actor")
        if after == "PAUSED":
            job.paused_in = before
        self.findings.demand(
            names.TRANSITIONS, (before, after) in EDGES[record.type], f"{record.type} from {before} to {after}"
        )
        message = f"it says {before} and version {version}, the log says {previous} before it"
        self.findings.demand(names.TRANSITIONS, follows, message, missing=not self._whole(job.unit))
        self.findings.demand(names.TRANSITIONS, resumes, "resumed into another state than it was paused in")
        self._backed(record, job)

    def _backed(self, record: Record, job: Job) -> None:
        """Changes that rest on people's signatures have them, for the version that they changed."""
        # A signature that is not shown, or whose grant is not, was not counted; it may exist all the same.
        missing = not (self._whole(job.unit) and self._whole("system"))
        demand = self.findings.demand
        rests = {"job.waived": "rules.waived", "job.revoked": "approval.revoked"}.get(record.type)
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
            met = quorum_met([(s.signer, s.role) for s in granted])
            demand(names.DUTIES, met, message, missing=missing)

    def _whole(self, unit: str) -> bool:
        """True when the bundle shows the unit's chain without a gap, so that what is absent never happened."""
        return unit in self._gapless


def quorum_met(signed: list[tuple[Signer, str]]) -> bool:
    """Tells whether distinct people with distinct keys cover every role of the quorum."""

    def cover(roles: tuple[str, ...], used: tuple[Signer, ...]) -> bool:
        if not roles:
            return True
        fits = [s for s, role in signed if role == roles[0] and not _shares(s, used)]
        return any(cover(roles[1:], (*used, s)) for s in fits)

    return cover(QUORUM, ())


def parse_moment(value: object) -> datetime | None:
    """Reads RFC 3339 in UTC; None for anything else."""
    if not isinstance(value, str) or not value.endswith("Z"):
        return None
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        return None


def document_hashes(entries: tuple[Entry, ...]) -> set[str]:
    """Every hex SHA-256 that a card's record names: what an attachment may be."""
    return {h for e in entries if TYPES[e.record.type].predicate == "card" for h in _hashes(e.record.statement)}


def _shares(signer: Signer, used: tuple[Signer, ...]) -> bool:
    return any(signer.subject == other.subject or signer.keyid == other.keyid for other in used)


def _transition(record: Record) -> dict[str, Any]:
    step = record.predicate.get("transition")
    return step if isinstance(step, dict) else {}


def _text(value: Mapping[str, Any], name: str) -> str:
    text = value.get(name)
    return text if isinstance(text, str) else ""


def _envelopes(value: Any, depth: int = 3) -> Iterator[dict[str, Any]]:
    """DSSE envelopes within a predicate, wherever its maker put them."""
    if isinstance(value, dict):
        if value.keys() == {"payloadType", "payload", "signatures"}:
            yield value
        elif depth:
            for item in value.values():
                yield from _envelopes(item, depth - 1)


def _waivable(value: Any) -> Iterator[tuple[str, str]]:
    """Rules that did not pass and the role that may waive each, from a decision's or verdict's outcomes."""
    if isinstance(value, dict):
        rule, role = value.get("rule_id"), value.get("waivable_by")
        passed = value.get("outcome") in ("OUTCOME_PASS", "OUTCOME_NOT_APPLICABLE")
        if isinstance(rule, str) and isinstance(role, str) and role and not passed:
            yield rule, role_name(role)
        for item in value.values():
            yield from _waivable(item)
    elif isinstance(value, list):
        for item in value:
            yield from _waivable(item)


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
