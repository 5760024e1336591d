"""Where an installation's keys lie, and how a successor takes the place of a key: staged first, recorded, then put in.

``X.next`` beside ``X`` is a key that waits for its event. A crash between record and file leaves it there, and the next
start or key command puts it in, since the log says which key holds.
"""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, x25519

from assay import durable, key_events
from assay.errors import InvalidInputError, PreconditionError
from assay.identity import (
    LEAF_DAYS,
    SERVICES,
    Authority,
    Layout,
    load_certificate,
    load_ed25519,
    load_p256,
    load_x25519,
    pem,
    private_pem,
    raw_public,
    read_private,
    subject_of,
)
from assay.installation import CARD_DAYS, card_subject
from assay.key_events import ED25519_NAMES, PDF, PublicHalf, certificate_half, ed25519_half
from audit.verify.keys import KeyTable

PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey
CANARY = "canary"
_RAW = 32
"""Bytes of the public half of an Ed25519 or X25519 key."""
SECRETS = (*(f"{service}-seal" for service in SERVICES), CANARY)


def people_of(layout: Layout) -> dict[str, str]:
    """Subjects of the people whose folders lie in the installation, by name."""
    found = sorted((layout.root / "people").glob("*/person.crt"))
    return {path.parent.name: subject_of(load_certificate(path)) for path in found}


def held(layout: Layout, name: str, *, staged: bool = False) -> PublicHalf:
    """The public half of the key that lies in the place of ``name``, or that waits to.

    Args:
        layout: of the installation.
        name: of a service's key, or a person's subject.
        staged: looks at the successor.

    Raises:
        InvalidInputError: ``KEY_MISSING`` or ``KEY_TYPE``.
    """
    suffix = ".next" if staged else ""
    key, certificate = _places(layout, name)
    if certificate is None:
        return ed25519_half(load_ed25519(Path(f"{key}{suffix}")).public_key())
    return certificate_half(load_certificate(Path(f"{certificate}{suffix}")))


def stage(layout: Layout, name: str, trust_domain: str) -> tuple[PrivateKey, PublicHalf]:
    """Makes a successor and lays it beside the key, on the disk; one that waited there is thrown away.

    Raises:
        InvalidInputError: ``KEY_MISSING`` when a root's key is needed and is not here.
    """
    key_path, certificate_path = _places(layout, name)
    key: PrivateKey
    if certificate_path is None:
        key = ed25519.Ed25519PrivateKey.generate()
    else:
        key = ec.generate_private_key(ec.SECP256R1())
        root, subject, days = "people-ca", name, LEAF_DAYS
        if name == PDF:
            root, subject, days = "services-ca", card_subject(trust_domain), CARD_DAYS
        authority = Authority.load(layout.authority / f"{root}.key", layout.authority / f"{root}.crt")
        certificate = authority.issue(subject, key.public_key(), server=False, days=days)
        durable.write(_next(certificate_path), pem(certificate))
    durable.write(_next(key_path), private_pem(key), mode=0o600)
    return key, held(layout, name, staged=True)


def unstage(layout: Layout, name: str) -> None:
    """Throws the successor away that waits to follow ``name``."""
    for path in _places(layout, name):
        if path is not None:
            _next(path).unlink(missing_ok=True)


def staged_person(folder: Path) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """A person's key and certificate that wait to be put in."""
    return load_p256(_next(folder / "person.key")), load_certificate(_next(folder / "person.crt"))


def settle(layout: Layout, table: KeyTable) -> None:
    """Puts every staged key in that the table says is in force, and tells the other services their public halves.

    Raises:
        InvalidInputError: a key that is in force lies neither here nor, readable, beside it.
    """
    for name in [*ED25519_NAMES, PDF, *people_of(layout).values()]:
        key, certificate = _places(layout, name)
        current = table.current(name)
        if current is None or not _next(certificate or key).exists() or not _waits(layout, name, current.public.keyid):
            continue
        # The file that is looked at goes last, so that a crash between two is mended too.
        for path in (key, certificate):
            if path is not None and _next(path).exists():
                os.replace(_next(path), path)
                durable.sync(path.parent)
    _exchange(layout)


def replace_secret(layout: Layout, name: str) -> None:
    """Replaces a key that signs nothing, so that no record speaks of it: a sealing key, or the canary master.

    Raises:
        InvalidInputError: ``KEY_UNKNOWN``, or ``KEY_MISSING`` when it does not lie here.
    """
    path = _secret_places(layout).get(name)
    if path is None:
        raise InvalidInputError("KEY_UNKNOWN", f"there is no such secret as {name[:60]!r}")
    read_private(path)
    new = secrets.token_hex(32).encode() if name == CANARY else private_pem(x25519.X25519PrivateKey.generate())
    durable.write(path, new, mode=0o600)
    _exchange(layout)


def demand_apart(layout: Layout) -> None:
    """Demands that the gateway's own keys and those by which it knows its workers are all different ones.

    Raises:
        InvalidInputError: ``KEY_SHARED``; ``KEY_MISSING``, ``KEY_EXPOSED``, ``KEY_TYPE`` or ``PUBLIC_KEYS``.
    """
    gateway = layout.service("gateway")
    keys = {name: raw_public(load_ed25519(gateway / f"{name}.key")) for name in ("log", "permit")}
    keys["gateway-seal"] = raw_public(load_x25519(gateway / "seal.key"))
    for name in ("train-worker", "audit-worker"):
        keys[name] = _told(gateway / f"{name}.pub", "statement_key")
        keys[f"{name}-seal"] = _told(gateway / f"{name}.pub", "sealing_key")
    key_events.demand_apart(
        keys, "give each the key that `assay init` made for it, or rotate one of them (docs/keys.md)"
    )


def demand_in_force(layout: Layout, table: KeyTable) -> None:
    """Demands that the gateway's keys, and those by which it knows its workers, are the log's.

    Raises:
        InvalidInputError: ``PUBLIC_KEYS``.
        PreconditionError: ``KEY_NOT_IN_FORCE``.
    """
    gateway = layout.service("gateway")
    found = {"permit": held(layout, "permit").keyid, PDF: held(layout, PDF).keyid}
    for name in ("train-worker", "audit-worker"):
        raw = _told(gateway / f"{name}.pub", "statement_key")
        found[name] = ed25519_half(ed25519.Ed25519PublicKey.from_public_bytes(raw)).keyid
    for name, keyid in found.items():
        current = table.current(name)
        if current is None:
            raise _not_in_force(name, "was compromised, and no other follows it yet", f"assay key rotate {name} DIR")
        if current.public.keyid != keyid:
            raise _not_in_force(name, "here is not the one that trust file and log name", "put that one in its place")


def _waits(layout: Layout, name: str, keyid: str) -> bool:
    """Whether the successor that lies beside a key is this one. One that cannot be read never became anybody's key."""
    try:
        return held(layout, name, staged=True).keyid == keyid
    except InvalidInputError:
        if held(layout, name).keyid != keyid:
            raise
        return False


def _places(layout: Layout, name: str) -> tuple[Path, Path | None]:
    """Files of a key: the private one, and the certificate where it has one.

    Raises:
        InvalidInputError: ``KEY_UNKNOWN``.
    """
    gateway = layout.service("gateway")
    places: dict[str, tuple[Path, Path | None]] = {
        "permit": (gateway / "permit.key", None),
        PDF: (gateway / "pdf.key", gateway / "pdf.crt"),
        "train-worker": (layout.service("train-worker") / "statement.key", None),
        "audit-worker": (layout.service("audit-worker") / "statement.key", None),
    }
    if name in places:
        return places[name]
    for person, subject in people_of(layout).items():
        if subject == name:
            return layout.person(person) / "person.key", layout.person(person) / "person.crt"
    raise InvalidInputError("KEY_UNKNOWN", f"the installation has no key called {name[:100]!r}")


def _secret_places(layout: Layout) -> dict[str, Path]:
    seals = {f"{service}-seal": layout.service(service) / "seal.key" for service in SERVICES}
    return {**seals, CANARY: layout.service("audit-worker") / "canary.key"}


def _exchange(layout: Layout) -> None:
    """Rewrites the public halves that gateway and workers keep of each other, where they are not the newest.

    A folder that lies on another machine is left out: its ``.pub`` is carried there as at `assay init`.
    """
    gateway = layout.service("gateway")
    for name in ("train-worker", "audit-worker"):
        folder = layout.service(name)
        if (folder / "statement.key").exists():
            _tell(gateway / f"{name}.pub", "statement_key", raw_public(load_ed25519(folder / "statement.key")))
            _tell(gateway / f"{name}.pub", "sealing_key", raw_public(load_x25519(folder / "seal.key")))
        if (folder / "gateway.pub").exists():
            _tell(folder / "gateway.pub", "permit_key", raw_public(load_ed25519(gateway / "permit.key")))
            _tell(folder / "gateway.pub", "sealing_key", raw_public(load_x25519(gateway / "seal.key")))


def _tell(path: Path, member: str, raw: bytes) -> None:
    said = _public_halves(path)
    if said.get(member) != raw.hex():
        durable.write(path, (json.dumps({**said, member: raw.hex()}, indent=2) + "\n").encode())


def _told(path: Path, member: str) -> bytes:
    """A public half of a ``.pub`` file: 32 bytes.

    Raises:
        InvalidInputError: ``PUBLIC_KEYS``.
    """
    try:
        raw = bytes.fromhex(_public_halves(path)[member])
    except (KeyError, TypeError, ValueError) as error:
        raise _no_halves(path) from error
    if len(raw) != _RAW:
        raise _no_halves(path)
    return raw


def _public_halves(path: Path) -> dict[str, Any]:
    """What a ``.pub`` file holds.

    Raises:
        InvalidInputError: ``PUBLIC_KEYS``.
    """
    try:
        said = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _no_halves(path) from error
    if not isinstance(said, dict):
        raise _no_halves(path)
    return said


def _no_halves(path: Path) -> InvalidInputError:
    return InvalidInputError(
        "PUBLIC_KEYS", f"{path} does not hold the public keys", remedy="put it back as `assay init` wrote it"
    )


def _next(path: Path) -> Path:
    return path.with_name(f"{path.name}.next")


def _not_in_force(name: str, why: str, remedy: str) -> PreconditionError:
    return PreconditionError("KEY_NOT_IN_FORCE", f"the key {name} {why}", remedy=f"{remedy} (docs/keys.md)")
