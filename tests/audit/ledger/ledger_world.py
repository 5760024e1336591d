"""A small world for tests: real keys and certificates, a real ledger on disk, the story of one job.

Times, nonces and signatures are fixed, so that the same story gives the same bytes.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from assay import canonical, dsse, key_events
from audit.ledger import dialect, schema
from audit.ledger.anchor import FileAnchor
from audit.ledger.bundle import export
from audit.ledger.commitment import Opening
from audit.ledger.cosignature import CosignatureVerifier, cosign, with_lines
from audit.ledger.ledger import Ledger
from audit.ledger.note import SignedNote, Verifier
from audit.ledger.records import RecordDraft
from audit.ledger.writer import Sources
from audit.verify.trust import TrustFile
from tests.audit.ledger import storage

ORIGIN = "assay.local/log"
START = dt.datetime(2026, 11, 24, 12, 0, tzinfo=dt.UTC)
JOB = "units/credit/tuningJobs/replies"
GATEWAY = "spiffe://assay.local/services/gateway"


def digest(text: str) -> str:
    """A hex digest to name something by."""
    return hashlib.sha256(text.encode()).hexdigest()


def subject(name: str) -> str:
    """A person's subject."""
    return f"spiffe://assay.local/people/{name}"


def ed25519(label: str) -> Ed25519PrivateKey:
    """A service key that is the same in every run."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(label.encode()).digest())


def p256(label: str) -> ec.EllipticCurvePrivateKey:
    """A person's key that is the same in every run."""
    return ec.derive_private_key(int.from_bytes(hashlib.sha256(label.encode()).digest()) >> 1, ec.SECP256R1())


def authority(label: str, *, ca: bool = True) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """A root."""
    key = p256(label)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, label)])
    builder = _certificate(name, name, key, START - dt.timedelta(days=1), START + dt.timedelta(days=3650))
    builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=0 if ca else None), critical=True)
    return key, builder.sign(key, hashes.SHA256(), ecdsa_deterministic=True)


def person_certificate(
    key: ec.EllipticCurvePrivateKey,
    uris: Sequence[str],
    root: tuple[ec.EllipticCurvePrivateKey, x509.Certificate],
    *,
    begin: dt.datetime = START - dt.timedelta(hours=1),
    end: dt.datetime = START + dt.timedelta(days=397),
    ca: bool = False,
) -> x509.Certificate:
    """A certificate under ``root`` naming ``uris``."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, uris[0] if uris else "nobody")])
    builder = _certificate(name, root[1].subject, key, begin, end)
    builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    if uris:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(root[0], hashes.SHA256(), ecdsa_deterministic=True)


def _certificate(
    name: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, begin: dt.datetime, end: dt.datetime
) -> x509.CertificateBuilder:
    serial = int.from_bytes(hashlib.sha256(name.public_bytes()).digest()[:8]) >> 1
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(begin)
        .not_valid_after(end)
    )


@dataclass
class Person:
    """Someone with a key and a certificate."""

    name: str
    key: ec.EllipticCurvePrivateKey
    cert: x509.Certificate

    def sign(self, predicate_name: str, predicate: Mapping[str, Any], subjects: Sequence[tuple[str, str]] = ()) -> dict:
        """A statement in an envelope."""
        statement = dsse.statement(predicate_name, predicate, subjects)
        return dsse.sign_person(canonical.encode(statement), self.key, self.cert)


class Clock:
    """Ticks one millisecond a reading; can be set."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> dt.datetime:
        self.now += dt.timedelta(milliseconds=1)
        return self.now


class Nonces:
    """Nonces that are the same in every run."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> str:
        self.count += 1
        return hashlib.sha256(b"nonce %d" % self.count).hexdigest()[:32]


@dataclass
class World:
    """A ledger in a folder, the people, and the services' keys."""

    folder: Path
    clock: Clock = field(default_factory=Clock)
    nonces: Nonces = field(default_factory=Nonces)
    services: dict[str, Ed25519PrivateKey] = field(
        default_factory=lambda: {name: ed25519(name) for name in ("log", "permit", "train-worker", "audit-worker")}
    )
    founder: str = "oscar"
    extra_trust: str = ""
    quorum: str = "quorum none\n"

    def __post_init__(self) -> None:
        self.root = authority("people root")
        names = ("oscar", "rita", "cora", "vik", "dana", "mallory")
        self.people = {name: self.enrol(name) for name in names}
        self.database = self.folder / "assay.db"
        self.storage = storage.at(self.folder)
        (self.folder / "anchor").mkdir(exist_ok=True)
        migration = dialect.connect_for_migration(self.storage.migration_url)
        schema.create(migration)
        migration.dispose()
        self.engine = dialect.connect(self.storage.url)
        self.anchor = FileAnchor(self.folder / "anchor")
        self.ledger = self.open()

    def enrol(self, name: str) -> Person:
        """Makes a person."""
        key = p256(f"person {name}")
        return Person(name, key, person_certificate(key, [subject(name)], self.root))

    def open(self, signer: Ed25519PrivateKey | None = None) -> Ledger:
        """A ledger that is not yet started."""
        sources = Sources(self.clock, self.nonces)
        return Ledger(self.engine, ORIGIN, signer or self.services["log"], self.anchor, sources=sources)

    def start(self) -> World:
        """Starts the ledger."""
        self.ledger.start()
        return self

    def close(self) -> None:
        """Closes ledger and engine."""
        self.ledger.close()
        self.engine.dispose()

    def append(self, draft: RecordDraft) -> int:
        """One record in its own batch."""
        return self.ledger.run(lambda uow: uow.append(draft))

    def append_one(self) -> int:
        """Any record: shows that the ledger still works."""
        return self.append(RecordDraft("credit", "dataset.created", "dataset", {"dataset": "d"}))

    @property
    def trust_text(self) -> str:
        """The trust file."""
        log = Verifier.of(ORIGIN, self.services["log"].public_key()).vkey()
        root = base64.b64encode(self.root[1].public_bytes(serialization.Encoding.DER)).decode()
        keys = "".join(
            f"{name} {self.services[name].public_key().public_bytes_raw().hex()}\n"
            for name in ("train-worker", "audit-worker", "permit")
        )
        roots = f"people-root {root}\nservices-root {root}\npdf {root}\n"
        operator = f"operator {subject(self.founder)}\n" if self.founder else ""
        return f"# trust\norigin {ORIGIN}\nlog {log}\n{self.quorum}{keys}{roots}{operator}{self.extra_trust}"

    @property
    def trust(self) -> TrustFile:
        """The trust file, parsed."""
        return TrustFile.parse(self.trust_text)

    def export(self, **options: Any) -> bytes:
        """A bundle's bytes."""
        out = io.BytesIO()
        policy = f"log {self.ledger.vkey}\n{self.quorum}"
        documents = options.pop("attachments", {}).items
        export(self.ledger, out, **{"policy_text": policy, "attachments": documents, **options})
        return out.getvalue()


def witness_vkey(name: str) -> str:
    """The key of a witness that is the same in every run."""
    return CosignatureVerifier.of(f"{name}.example/w", ed25519(f"witness {name}").public_key()).vkey()


def witness_lines(*names: str) -> str:
    """Policy lines that define witnesses."""
    return "".join(f"witness {name} {witness_vkey(name)}\n" for name in names)


def cosigned(note: bytes, *names: str, at: dt.datetime = START) -> bytes:
    """A note with the cosignatures of these witnesses."""
    parsed = SignedNote.parse(note)
    lines = [cosign(parsed.text, f"{name}.example/w", ed25519(f"witness {name}"), at) for name in names]
    return with_lines(parsed, lines).encode()


CARD_JSON, CARD_PDF = b'{"card":1}', b"%PDF-1.7 card"
CARD = hashlib.sha256(CARD_JSON).hexdigest()
DATASET, TRAIN, VALIDATION, WEIGHTS, BASE, ADAPTER, PLAN = (
    digest(n) for n in ("dataset", "train", "validation", "weights", "base", "adapter", "plan")
)


@dataclass
class Story:
    """One job from request to permit, step by step; fields say what a test wants different."""

    world: World
    job: str = JOB
    maker: str = "rita"
    approvers: Sequence[tuple[str, str]] = (("cora", "ROLE_COMPLIANCE_OFFICER"), ("vik", "ROLE_VALIDATOR"))
    grants: Sequence[tuple[str, str, str]] = (
        ("rita", "ROLE_REQUESTER", "credit"),
        ("cora", "ROLE_COMPLIANCE_OFFICER", "-"),
        ("vik", "ROLE_VALIDATOR", "credit"),
        ("dana", "ROLE_DEPLOYER", "-"),
        ("oscar", "ROLE_OPERATOR", "-"),
    )
    train_key: str = "train-worker"
    audit_key: str = "audit-worker"
    permit_key: str = "permit"
    plan: str = PLAN
    version: int = 0
    state: str = "NONE"
    card_index: int = -1
    evidence: tuple[int, str] = (0, "")
    indices: dict[str, int] = field(default_factory=dict)
    card_subjects: Sequence[tuple[str, str]] | None = None
    approval_changes: dict[str, Any] = field(default_factory=dict)
    permit: dict[str, Any] = field(default_factory=dict)
    key_labels: dict[str, str] = field(default_factory=dict)

    @property
    def unit(self) -> str:
        """The job's unit."""
        return self.job.split("/")[1]

    @property
    def model(self) -> str:
        """The job's model."""
        return self.job.replace("/tuningJobs/", "/models/")

    @property
    def etag(self) -> str:
        """What people see of the job's version."""
        return hashlib.sha256(canonical.encode({"name": self.job, "version": self.version})).hexdigest()[:32]

    def record(
        self,
        kind: str,
        name: str,
        predicate: Mapping[str, Any] | None = None,
        subjects: Sequence[tuple[str, str]] = (),
        to: str = "",
        actor: str = GATEWAY,
        unit: str = "",
        **transition: Any,
    ) -> int:
        """A gateway-made record about the job, with a transition when ``to`` is given."""
        content: dict[str, Any] = {"actor": actor, "trace_id": "0" * 32, **(predicate or {})}
        if not unit:
            content["job"] = self.job
        if to:
            self.version += 1
            step = {"event": "test", "from": self.state, "to": to, "version": self.version, "reason": ""}
            content["transition"] = {**step, **transition}
            self.state = to
        draft = RecordDraft(unit or self.unit, kind, name, content, subjects)
        self.indices[kind] = self.world.append(draft)
        return self.indices[kind]

    def act(
        self, who: str, kind: str, name: str, predicate: Mapping[str, Any], subjects: Sequence = (), unit: str = ""
    ) -> int:
        """A record signed by a person."""
        envelope = self.world.people[who].sign(name, predicate, subjects)
        draft = RecordDraft(unit or self.unit, kind, name, {}, envelope=envelope)
        self.indices[kind] = self.world.append(draft)
        return self.indices[kind]

    def service(self, key: str, name: str, predicate: Mapping[str, Any], subjects: Sequence = ()) -> dict[str, Any]:
        """A service's statement."""
        statement = dsse.statement(name, {"job": self.job, **predicate}, subjects)
        return dsse.sign_service(canonical.encode(statement), self.world.services.get(key) or ed25519(key))

    def found(self) -> Story:
        """Grants, policy and dataset."""
        for person, role, unit in self.grants:
            self.grant(person, role, unit)
        self.publish_policy()
        dataset = {
            "dataset": "units/credit/datasets/d",
            "format": "DATASET_FORMAT_CHAT_JSONL",
            "datasheet": {"licence": "CC0-1.0"},
            "sha256": DATASET,
            "size_bytes": 7,
        }
        self.record("dataset.created", "dataset", dataset, [("dataset", DATASET)], unit=self.unit)
        return self

    def publish_policy(self, *by: str, publication: str = "first") -> int:
        """Rules and limits in force, signed by two people unless others are named."""
        rules = {"bundle_sha256": digest("policy"), "limits_sha256": digest("limits"), "rules": ["BASE-ROWS"]}
        said = {"policy": "baseline", "version": "1", **rules, "publication_id": digest(publication)[:32]}
        first, *others = by or ("oscar", "cora")
        envelope = self.world.people[first].sign("policy", said)
        for name in others:
            envelope = dsse.cosign_person(envelope, self.world.people[name].key, self.world.people[name].cert)
        self.indices["policy.published"] = self.world.append(
            RecordDraft("system", "policy.published", "policy", {}, envelope=envelope)
        )
        return self.indices["policy.published"]

    def grant(self, person: str, role: str, unit: str, by: str = "oscar") -> int:
        """A grant; its id tells whose and what."""
        predicate = {"subject": subject(person), "role": role, "unit": unit, "grant_id": f"{person}-{role[5:].lower()}"}
        return self.act(by, "grant.issued", "grant", predicate, unit="system")

    def rotate_key(self, name: str, label: str, by: str = "oscar", **changes: Any) -> int:
        """Another Ed25519 key signs under a service's name; ``changes`` are of the signed predicate."""
        old, new = (ed25519(n) for n in (changes.pop("old", self.key_labels.get(name, name)), label))
        halves = [key.public_key().public_bytes_raw() for key in (old, new)]
        origin, event = changes.pop("origin", ORIGIN), changes.pop("event_id", digest(f"{name} {label}")[:32])
        said = key_events.rotation_statement(origin, name, *halves, new, event)["predicate"]
        index = self.act(by, "key.rotated", "key-rotation", {**said, **changes}, unit="system")
        self.key_labels[name] = label
        return index

    def rotate_person(self, who: str, by: str = "oscar", label: str = "") -> int:
        """A person's new key, made by the world; the old one is kept as ``old WHO``."""
        old = self.world.people[who]
        key = p256(label or f"person {who} anew")
        new = Person(who, key, person_certificate(key, [subject(who)], self.world.root))
        halves = [person.cert.public_bytes(serialization.Encoding.DER) for person in (old, new)]
        event = digest(f"{who} {label} anew")[:32]
        said = key_events.rotation_statement(ORIGIN, subject(who), *halves, key, event)["predicate"]
        self.world.people |= {f"old {who}": old, f"new {who}": new}
        index = self.act(by, "key.rotated", "key-rotation", said, unit="system")
        self.world.people[who] = new
        return index

    def compromise(self, name: str, since: int, by: str = "oscar", public: bytes = b"", **changes: Any) -> int:
        """A service's key, or a person's by name, may have been in other hands."""
        if name in self.world.people:
            public = public or self.world.people[name].cert.public_bytes(serialization.Encoding.DER)
            name = subject(name.removeprefix("old "))
        public = public or ed25519(self.key_labels.get(name, name)).public_key().public_bytes_raw()
        event = changes.pop("event_id", digest(f"{name} {since} compromised")[:32])
        said = key_events.compromise_statement(ORIGIN, name, public, since, event)["predicate"]
        return self.act(by, "key.compromised", "key-compromise", {**said, **changes}, unit="system")

    def revoke_grant(self, grant_id: str, by: str = "oscar") -> int:
        """Ends a grant."""
        return self.act(
            by, "grant.revoked", "grant-revocation", {"grant_id": grant_id, "reason": "left"}, unit="system"
        )

    def ask(self, **request: str) -> Story:
        """Request and preparation; the arguments are further members of what is asked."""
        asked = {"request": {"purpose": "replies", **request}, "dataset_sha256": DATASET, "base_sha256": BASE}
        self.record("job.received", "request", asked, to="RECEIVED", actor=subject(self.maker))
        self.record("job.preparing", "transition", to="PREPARING")
        return self

    def decide(self, allowed: bool = True, answer: Mapping[str, Any] | None = None) -> Story:
        """Intake's decision with the preparation statement; ``answer`` changes what policy said."""
        statement = self.service(self.audit_key, "preparation", {"kind": "prepare"}, [("train.jsonl", TRAIN)])
        outcome = {"rule_id": "BASE-ROWS", "outcome": "OUTCOME_FAIL", "waivable_by": "ROLE_COMPLIANCE_OFFICER"}
        predicate = {
            "decision": {"allowed": allowed, "outcomes": [] if allowed else [outcome], **(answer or {})},
            "data_facts_sha256": digest("facts"),
            "statement": statement,
            "quote_usd_micros": 40_000,
        }
        self.record("intake.decided", "decision", predicate, to="QUEUED" if allowed else "DENIED")
        return self

    def train(self, ordered: Mapping[str, Any] | None = None, trained: Mapping[str, Any] | None = None) -> Story:
        """Work order and training; the arguments change what the two records say, and not what is signed in them."""
        order = {
            "base_model": "tiny",
            "base_sha256": BASE,
            "dataset_sha256": DATASET,
            "train_sha256": TRAIN,
            "validation_sha256": VALIDATION,
            "hyperparameters": {"rank": 8},
            "max_train_tokens": 40_000,
            "seed": 7,
            "audit_plan_sha256": self.plan,
            "purpose": "replies",
            "decision_index": self.indices.get("intake.decided", 0),
        }
        envelope = self.service(self.permit_key, "work-order", order)
        said = {**order, "envelope": envelope, **(ordered or {})}
        self.record("training.ordered", "work-order", said, to="TRAINING")
        subjects = [("adapter/adapter_model.safetensors", WEIGHTS), ("adapter", ADAPTER)]
        statement = self.service(self.train_key, "training", {"kind": "train"}, subjects)
        made = {"model": self.model, "adapter_sha256": ADAPTER, "base_sha256": BASE, "statement": statement}
        checked = {"adapter_finite": True, "adapter_moved": True, **(trained or {})}
        self.record("training.completed", "training", {**made, **checked}, subjects[1:], to="AUDITING")
        return self

    def audit(self, to: str = "AWAITING_APPROVAL", answer: Mapping[str, Any] | None = None, **changes: Any) -> Story:
        """Audit, verdict, card; ``answer`` changes what policy said, ``changes`` are of the verdict's record."""
        statement = self.service(self.audit_key, "audit", {"kind": "audit"}, [("report.json", digest("report"))])
        measured = {"measurements": [], "measurements_left_out": 0, "not_tested": [], "statement": statement}
        report = {"model": self.model, "report_sha256": digest("report")}
        self.record("audit.completed", "audit", {**report, **measured})
        outcome = {"rule_id": "GATE-AUC", "outcome": "OUTCOME_FAIL", "waivable_by": "ROLE_VALIDATOR"}
        verdict = {"outcomes": [] if to == "AWAITING_APPROVAL" else [outcome], **(answer or {})}
        judged = {**report, "verdict": verdict, "run": {}, "audit_plan_sha256": self.plan, **changes}
        self.record("release.decided", "verdict", judged, to=to)
        return self.card()

    def card(self) -> Story:
        """The card of the job as it stands, and the evidence that covers it."""
        card = {"model": self.model, "card_sha256": CARD, "pdf_sha256": digest("draft"), "version": self.version}
        about = [("adapter", ADAPTER)] if self.card_subjects is None else self.card_subjects
        self.card_index = self.record("card.rendered", "card", card, [("card.json", CARD), *about])
        size, _ = self.world.ledger.covering_checkpoint(self.card_index)
        self.evidence = (size, self.world.ledger.root(size).hex())
        return self

    def approve(self, who: str, role: str, decision: str = "grant", **changes: Any) -> int:
        """One person's decision."""
        size, root = self.evidence
        predicate = {
            "job": self.job,
            "etag": self.etag,
            "decision": decision,
            "role": role,
            "reason_commitment": Opening(bytes(32), b"read it").commitment(),
            "card_sha256": CARD,
            "card_index": self.card_index,
            "evidence_root": root,
            "evidence_size": size,
            "adapter_sha256": ADAPTER,
            "base_sha256": BASE,
            "purpose": "replies",
            "signed_at": "2026-11-24T12:00:00Z",
            **self.approval_changes,
            **changes,
        }
        return self.act(who, "approval.decided", "approval", predicate, [("card", CARD), ("adapter", ADAPTER)])

    def release(self) -> Story:
        """Approvals, card issued, permit."""
        for who, role in self.approvers:
            self.approve(who, role)
        self.record("job.approved", "transition", to="APPROVED", actor=subject("vik"))
        pdf = hashlib.sha256(CARD_PDF).hexdigest()
        issued = {"card_sha256": CARD, "card_index": self.card_index, "pdf_sha256": pdf, "version": self.version}
        signed = {"model": self.model, "approvals": [self.indices["approval.decided"]]}
        self.record("card.issued", "card", {**issued, **signed}, [("card.pdf", pdf)])
        return self.issue_permit()

    def issue_permit(self, hours: int = 24, **changes: Any) -> Story:
        """Signs and records a permit."""
        size, root = self.evidence
        predicate = {
            "permit": f"units/{self.unit}/permits/p1",
            "model": self.model,
            "job": self.job,
            "creator": subject(self.maker),
            "adapter_sha256": ADAPTER,
            "base_sha256": BASE,
            "purpose": "replies",
            "environment": "staging",
            "not_before": START.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "not_after": (START + dt.timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "evidence_root": root,
            "evidence_size": size,
            **changes,
        }
        subjects = [("adapter", predicate["adapter_sha256"]), ("base", predicate["base_sha256"])]
        payload = canonical.encode(dsse.statement("permit", predicate, subjects))
        key = self.world.services.get(self.permit_key) or ed25519(self.permit_key)
        signature = dsse.sign_service(payload, key)["signatures"][0]["sig"]
        extra = {"statement_sha256": hashlib.sha256(payload).hexdigest(), "signature": signature}
        self.record("permit.issued", "permit", {**predicate, **extra}, subjects, actor=subject("dana"))
        self.permit = {"predicate": predicate, "payload": payload, "signature": signature}
        return self

    def whole(self) -> Story:
        """Everything."""
        return self.found().ask().decide().train().audit().release()

    def permit_message(self, extra: Sequence[int] = ()) -> dict[str, Any]:
        """The permit as protobuf JSON, with proofs of all that it rests on, key events apart, and ``extra`` records."""
        ledger, predicate = self.world.ledger, self.permit["predicate"]
        size, note = ledger.covering_checkpoint(self.indices["permit.issued"])
        own = [
            r for r in ledger.records(self.unit, self.job, -1, 500) if r.type in ("job.received", "approval.decided")
        ]
        grants = [r for r in ledger.records("system", None, -1, 500) if r.type.startswith("grant.")]
        shown = {r.index for r in (*own, *grants) if r.index < size}
        indices = sorted({self.indices["permit.issued"], self.card_index, *shown, *extra})
        names = (
            "model",
            "adapter_sha256",
            "base_sha256",
            "purpose",
            "environment",
            "not_before",
            "not_after",
            "evidence_root",
        )
        return {
            "name": predicate["permit"],
            **{name: predicate[name] for name in names},
            "statement": b64(self.permit["payload"]),
            "signature": self.permit["signature"],
            "checkpoint": b64(note),
            "consistency": [b64(h) for h in ledger.consistency_proof(predicate["evidence_size"], size)],
            "proofs": [
                {
                    "index": str(i),
                    "tree_size": str(size),
                    "hashes": [b64(h) for h in ledger.inclusion_proof(i, size)],
                    "body": b64(ledger.record(i).body),
                }
                for i in indices
            ],
        }


def b64(data: bytes) -> str:
    """Standard base64."""
    return base64.b64encode(data).decode()


def refused(reason: str, call: Callable[[], object]) -> None:
    """Demands that a call is refused for ``reason``."""
    from assay.errors import AssayError

    try:
        call()
    except AssayError as error:
        assert error.reason == reason, error.diagnostics()
        return
    raise AssertionError(f"not refused; expected {reason}")
