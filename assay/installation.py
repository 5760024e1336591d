"""Makes an installation: roots, service identities, people, the trust file and the first grants.

Whoever runs this holds both root keys; they go to ``authority/``, which no service reads. Each person's key goes
to that person's own folder. In production the folders are then moved apart: nothing below refers to another by
absolute path.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, x25519

from assay import canonical, dsse
from assay.certificates import TRUST_DOMAIN
from assay.errors import AlreadyExistsError, InvalidInputError
from assay.identity import (
    SERVICES,
    Authority,
    Layout,
    check_name,
    load_certificate,
    load_ed25519,
    pem,
    raw_public,
    write_key,
    write_secret,
)

CARD_DAYS = 3650
"""How long the certificate of the card's signer holds."""


@dataclass(frozen=True)
class Person:
    """Someone to enrol, with a first role in a unit; ``-`` means every unit."""

    name: str
    role: str
    unit: str = "-"


@dataclass(frozen=True)
class Plan:
    """What :func:`create` makes.

    Attributes:
        people: whom to enrol; somebody with several roles stands there once for each.
        operator: who among them signs the first grants.
        trust_domain: of every subject.
        origin: of the log.
        post_quantum: adds an ML-DSA-44 key of the log to its Ed25519 key.
        witness_url: where the witness that is made beside is asked; empty for none, which is ``quorum none``.
        hosts: host by which others reach a service of :data:`assay.identity.SERVERS`; the loopback for those that are
            not named.
    """

    people: Sequence[Person]
    operator: str
    trust_domain: str = "assay.local"
    origin: str = "assay.local/log"
    post_quantum: bool = False
    witness_url: str = ""
    hosts: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The people's names, each once."""
        return tuple(dict.fromkeys(person.name for person in self.people))


DEFAULT_PEOPLE = (
    Person("rita", "ROLE_REQUESTER"),
    Person("cora", "ROLE_COMPLIANCE_OFFICER"),
    Person("vik", "ROLE_VALIDATOR"),
    Person("dana", "ROLE_DEPLOYER"),
    Person("anna", "ROLE_AUDITOR"),
    Person("oscar", "ROLE_OPERATOR"),
)


def person_subject(trust_domain: str, name: str) -> str:
    """The subject of a person."""
    return f"spiffe://{trust_domain}/people/{name}"


def service_subject(trust_domain: str, name: str) -> str:
    """The subject of a service."""
    return f"spiffe://{trust_domain}/services/{name}"


def card_subject(trust_domain: str) -> str:
    """The subject of whoever signs cards."""
    return service_subject(trust_domain, "gateway/cards")


def create(root: Path, plan: Plan, finish: Callable[[Layout], None] = lambda _: None) -> Layout:
    """Creates everything under ``root``; leaves nothing half-made.

    Args:
        root: of the installation.
        plan: what to make.
        finish: adds what else belongs there, before anything lies under ``root``; if it fails, nothing does.

    Raises:
        AlreadyExistsError: ``INSTALLATION_EXISTS`` when ``root`` holds anything.
        InvalidInputError: ``BAD_NAME``, ``BAD_PERSON``, ``NO_OPERATOR`` or ``TRUST_DOMAIN``.
    """
    _check_people(plan)
    if not re.fullmatch(TRUST_DOMAIN, plan.trust_domain):
        raise InvalidInputError(
            "TRUST_DOMAIN",
            f"{plan.trust_domain[:100]!r} is no trust domain",
            remedy="lower-case letters, digits, dots and dashes, such as bank.example",
        )
    if root.exists() and any(root.iterdir()):
        raise AlreadyExistsError(
            "INSTALLATION_EXISTS", f"{root} is not empty", remedy="choose another directory; keys are never replaced"
        )
    root.parent.mkdir(parents=True, exist_ok=True)
    staging = root.with_name(f".{root.name}.{uuid.uuid4().hex[:8]}")
    try:
        _fill(Layout(staging), plan)
        finish(Layout(staging))
        if root.exists():
            root.rmdir()
        staging.rename(root)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return Layout(root)


def enrol(layout: Layout, name: str, *, trust_domain: str = "assay.local", address: str = "") -> Path:
    """Makes a person's folder: key, certificate and the root that servers lie under. Needs the authority's keys.

    Args:
        layout: of the installation.
        name: of the person.
        trust_domain: of the subject.
        address: host and port of the gateway, for the folder's ``client.toml``; empty to leave that out.

    Raises:
        AlreadyExistsError: ``PERSON_EXISTS``.
        InvalidInputError: ``BAD_NAME``, or the people root's key cannot be read.
    """
    folder = layout.person(check_name(name))
    if folder.exists():
        raise AlreadyExistsError(
            "PERSON_EXISTS",
            f"{name} is already enrolled",
            remedy=f"a new certificate: assay identity renew DIR people/{name}; "
            f"a new key: assay key rotate people/{name} DIR",
        )
    people = Authority.load(layout.authority / "people-ca.key", layout.authority / "people-ca.crt")
    services_root = pem(load_certificate(layout.authority / "services-ca.crt"))
    # Beside people/, whose folders are all taken for people's.
    staging = layout.root / f".{name}.{uuid.uuid4().hex[:8]}"
    try:
        _person(staging, person_subject(trust_domain, name), people, services_root)
        if address:
            write_client(staging, address)
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        staging.rename(folder)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return folder


def write_client(folder: Path, address: str) -> None:
    """Writes into a person's folder where the gateway is: ``host:port``."""
    (folder / "client.toml").write_text(f'address = "{address}"\n')


def _check_people(plan: Plan) -> None:
    for name in plan.names:
        check_name(name)
    if len(set(plan.people)) != len(plan.people):
        raise InvalidInputError("BAD_PERSON", "somebody has the same role in the same unit twice")
    if Person(plan.operator, "ROLE_OPERATOR") not in plan.people:
        raise InvalidInputError(
            "NO_OPERATOR",
            f"{plan.operator!r}, who is to sign the first grants, is no operator of every unit",
            remedy=f"--person {plan.operator}:operator, or --operator for somebody who is",
        )


def _fill(layout: Layout, plan: Plan) -> None:
    layout.root.mkdir(mode=0o755)
    services = Authority.create("Assay services root")
    people = Authority.create("Assay people root")
    _private_folder(layout.authority)
    for name, authority in (("services-ca", services), ("people-ca", people)):
        write_key(layout.authority / f"{name}.key", authority.key)
        (layout.authority / f"{name}.crt").write_bytes(pem(authority.certificate))

    _private_folder(layout.root / "people")
    for name in plan.names:
        _person(layout.person(name), person_subject(plan.trust_domain, name), people, pem(services.certificate))

    keys = {name: _service(layout, name, plan, services) for name in SERVICES}
    _gateway_files(layout, plan, keys, services, people)
    if plan.post_quantum:
        write_key(layout.service("gateway") / "log-mldsa44.key", mldsa.MLDSA44PrivateKey.generate())
    layout.anchor.mkdir(mode=0o700)
    witnesses = _witness(layout, plan, services) if plan.witness_url else ["quorum none"]
    log_key = note_verifier_key(plan.origin, raw_public(load_ed25519(layout.service("gateway") / "log.key")))
    policy = [f"log {log_key}", *(_with_url(line, plan.witness_url) for line in witnesses)]
    layout.witness_policy.write_text("\n".join(policy) + "\n")
    layout.trust.write_text(_trust_text(layout, plan, keys, services, people, witnesses))
    _bootstrap(layout, plan)


def _person(folder: Path, subject: str, people: Authority, services_root: bytes) -> None:
    _private_folder(folder)
    key = ec.generate_private_key(ec.SECP256R1())
    write_key(folder / "person.key", key)
    (folder / "person.crt").write_bytes(pem(people.issue(subject, key.public_key(), server=False)))
    (folder / "services-ca.crt").write_bytes(services_root)


@dataclass(frozen=True)
class _ServiceKeys:
    """Public halves that others must know, as hex."""

    statement: str
    sealing: str


def _service(layout: Layout, name: str, plan: Plan, services: Authority) -> _ServiceKeys:
    folder = layout.service(name)
    _private_folder(folder)
    tls = ec.generate_private_key(ec.SECP256R1())
    write_key(folder / "tls.key", tls)
    subject = service_subject(plan.trust_domain, name)
    certificate = services.issue(subject, tls.public_key(), server=True, hosts=_hosts(plan, name))
    (folder / "tls.crt").write_bytes(pem(certificate))
    (folder / "services-ca.crt").write_bytes(pem(services.certificate))
    signing, sealing = ed25519.Ed25519PrivateKey.generate(), x25519.X25519PrivateKey.generate()
    write_key(folder / ("permit.key" if name == "gateway" else "statement.key"), signing)
    write_key(folder / "seal.key", sealing)
    if name == "audit-worker":
        write_secret(folder / "canary.key", secrets.token_hex(32).encode())
    return _ServiceKeys(raw_public(signing).hex(), raw_public(sealing).hex())


def _gateway_files(
    layout: Layout, plan: Plan, keys: dict[str, _ServiceKeys], services: Authority, people: Authority
) -> None:
    gateway = layout.service("gateway")
    (gateway / "people-ca.crt").write_bytes(pem(people.certificate))
    write_key(gateway / "log.key", ed25519.Ed25519PrivateKey.generate())
    write_secret(gateway / "units.key", secrets.token_hex(32).encode())
    pdf = ec.generate_private_key(ec.SECP256R1())
    write_key(gateway / "pdf.key", pdf)
    certificate = services.issue(card_subject(plan.trust_domain), pdf.public_key(), server=False, days=CARD_DAYS)
    (gateway / "pdf.crt").write_bytes(pem(certificate))
    for name in ("train-worker", "audit-worker"):
        public = {"statement_key": keys[name].statement, "sealing_key": keys[name].sealing}
        (gateway / f"{name}.pub").write_text(json.dumps(public, indent=2) + "\n")
        mine = {"permit_key": keys["gateway"].statement, "sealing_key": keys["gateway"].sealing}
        (layout.service(name) / "gateway.pub").write_text(json.dumps(mine, indent=2) + "\n")


def _trust_text(
    layout: Layout,
    plan: Plan,
    keys: dict[str, _ServiceKeys],
    services: Authority,
    people: Authority,
    witnesses: Sequence[str],
) -> str:
    from assay.identity import load_mldsa44

    log_public = raw_public(load_ed25519(layout.service("gateway") / "log.key"))
    pdf = _base64_der(load_certificate(layout.service("gateway") / "pdf.crt"))
    post_quantum = []
    if plan.post_quantum:
        public = load_mldsa44(layout.service("gateway") / "log-mldsa44.key").public_key().public_bytes_raw()
        post_quantum = [f"log-ml-dsa {note_verifier_key(plan.origin, public, 6)}"]
    lines = [
        "# What a verifier must be given from outside a bundle: whom to believe about what.",
        "# Keep it where the installation cannot change it.",
        f"origin {plan.origin}",
        f"log {note_verifier_key(plan.origin, log_public)}",
        *post_quantum,
        *witnesses,
        f"train-worker {keys['train-worker'].statement}",
        f"audit-worker {keys['audit-worker'].statement}",
        f"permit {keys['gateway'].statement}",
        f"people-root {_base64_der(people.certificate)}",
        f"services-root {_base64_der(services.certificate)}",
        f"pdf {pdf}",
        f"operator {person_subject(plan.trust_domain, plan.operator)}",
    ]
    return "\n".join(lines) + "\n"


def _witness(layout: Layout, plan: Plan, services: Authority) -> list[str]:
    """Makes the witness's own folder; returns the policy lines that demand its cosignature."""
    _private_folder(layout.witness)
    tls, signing = ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()
    write_key(layout.witness / "tls.key", tls)
    write_key(layout.witness / "witness.key", signing)
    subject = service_subject(plan.trust_domain, "witness")
    certificate = services.issue(subject, tls.public_key(), server=True, hosts=_hosts(plan, "witness"))
    (layout.witness / "tls.crt").write_bytes(pem(certificate))
    (layout.witness / "clients-ca.crt").write_bytes(pem(services.certificate))
    key = note_verifier_key(witness_name(plan.trust_domain), raw_public(signing), 4)
    return [f"witness local {key}", "quorum local"]


def _hosts(plan: Plan, service: str) -> list[str]:
    return [plan.hosts[service]] if service in plan.hosts else []


def _with_url(line: str, url: str) -> str:
    return f"{line} {url}" if line.startswith("witness ") else line


def witness_name(trust_domain: str) -> str:
    """The name under which the witness of the embedded default cosigns."""
    return f"{trust_domain}/witness"


def note_verifier_key(name: str, public_key: bytes, kind: int = 1) -> str:
    """A C2SP verifier key, ``name+key id+base64(kind || key)``.

    Kind 1 is a log's Ed25519 key, 4 an Ed25519 cosigner's, 6 ML-DSA-44.
    """
    tagged = bytes([kind]) + public_key
    key_id = hashlib.sha256(name.encode() + b"\n" + tagged).digest()[:4]
    return f"{name}+{key_id.hex()}+{base64.b64encode(tagged).decode()}"


def _bootstrap(layout: Layout, plan: Plan) -> None:
    """Signs the first grants with the operator's own key; the gateway records them at its first start."""
    from assay.identity import load_p256

    folder = layout.person(plan.operator)
    key = load_p256(folder / "person.key")
    certificate = load_certificate(folder / "person.crt")
    envelopes: list[dict[str, Any]] = []
    ids: Counter[str] = Counter()
    for person in plan.people:
        grant_id = f"{person.name}-{person.role.removeprefix('ROLE_').lower().replace('_', '-')}"
        ids[grant_id] += 1
        statement = dsse.statement(
            "grant",
            {
                "grant_id": grant_id if ids[grant_id] == 1 else f"{grant_id}-{ids[grant_id]}",
                "role": person.role,
                "subject": person_subject(plan.trust_domain, person.name),
                "unit": person.unit,
            },
            [],
        )
        envelopes.append(dsse.sign_person(canonical.encode(statement), key, certificate))
    layout.bootstrap_grants.parent.mkdir()
    layout.bootstrap_grants.write_text(json.dumps(envelopes, indent=1) + "\n")


def _private_folder(folder: Path) -> None:
    folder.mkdir(parents=True, mode=0o700)


def _base64_der(certificate: Any) -> str:
    return base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()
