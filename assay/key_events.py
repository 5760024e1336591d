"""What an operator signs about keys: that one follows another, or that one may have been in other hands.

Built by clients, read by the gateway and by verifiers. An event names a key by its public half and not by a digest, so
that a typing error cannot close out a key that nobody has, and a successor proves that somebody holds its private half.

The *name* of a key is that of its line in the trust file (``permit``, ``train-worker``, ``audit-worker``, ``pdf``) or
a person's subject. A public half is the 32 bytes of an Ed25519 key, or a DER certificate: under the services root for
``pdf``, under the people root for a person.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from assay import canonical, dsse
from assay.certificates import (
    CERTIFICATE_ERRORS,
    PERSON,
    check_issued,
    check_person,
    key_id,
    read_certificate,
)
from assay.digests import sha256_bytes
from assay.dsse import to_base64
from assay.errors import AssayError, IntegrityError, InvalidInputError

ROTATED, COMPROMISED = "key.rotated", "key.compromised"
EVENTS: Mapping[str, str] = {ROTATED: "key-rotation", COMPROMISED: "key-compromise"}
PDF = "pdf"
ED25519_NAMES = ("permit", "train-worker", "audit-worker")
SERVICE_NAMES = (*ED25519_NAMES, PDF)

_PROOF_TYPE = "application/vnd.assay.key-possession+json"
_EVENT_ID = re.compile(r"[0-9a-f]{32}")
_ROTATION = frozenset({"event_id", "origin", "key", "old", "new", "proof"})
_COMPROMISE = frozenset({"event_id", "origin", "key", "public", "since_index"})


@dataclass(frozen=True)
class PublicHalf:
    """A key as events and tables know it.

    Attributes:
        keyid: hex SHA-256 of the raw Ed25519 key, or of the certificate's SubjectPublicKeyInfo: DSSE's key id here.
        material: the bytes that name it in an event.
        key: what verifies; the certificate itself is in ``material``.
    """

    keyid: str
    material: bytes
    key: PublicKeyTypes


@dataclass(frozen=True)
class Roots:
    """Under which root a key's certificate must lie."""

    people: x509.Certificate
    services: x509.Certificate


@dataclass(frozen=True)
class Rotation:
    """From this record's index on ``new`` is the key of this name, and ``old`` no more."""

    event_id: str
    name: str
    old: PublicHalf
    new: PublicHalf


@dataclass(frozen=True)
class Compromise:
    """``public`` signs nothing from this record's index on; what it signed since ``since_index`` is in doubt."""

    event_id: str
    name: str
    public: PublicHalf
    since_index: int


Event = Rotation | Compromise


def ed25519_half(key: Ed25519PublicKey) -> PublicHalf:
    """An Ed25519 key's public half."""
    raw = key.public_bytes_raw()
    return PublicHalf(sha256_bytes(raw), raw, key)


def certificate_half(certificate: x509.Certificate) -> PublicHalf:
    """A certificate's public half; it is not looked at who issued it.

    Raises:
        InvalidInputError: ``KEY_MALFORMED`` when its key cannot be read.
    """
    try:
        key = certificate.public_key()
    except CERTIFICATE_ERRORS as error:
        raise InvalidInputError("KEY_MALFORMED", "the certificate's key cannot be read") from error
    return PublicHalf(key_id(key), certificate.public_bytes(serialization.Encoding.DER), key)


def demand_apart(keys: Mapping[str, bytes], remedy: str) -> None:
    """Demands that no two names have one key: who audits is somebody else than who trains, and neither permits.

    Args:
        keys: raw public halves by name.
        remedy: what to do, where these keys come from.

    Raises:
        InvalidInputError: ``KEY_SHARED``, with both names.
    """
    names: dict[bytes, str] = {}
    for name, raw in keys.items():
        if raw in names:
            raise InvalidInputError(
                "KEY_SHARED",
                f"{names[raw]} and {name} have one and the same key",
                remedy=remedy,
            )
        names[raw] = name


def rotation_statement(
    origin: str,
    name: str,
    old: bytes,
    new: bytes,
    key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey,
    event_id: str = "",
) -> dict[str, Any]:
    """The statement by which an operator lets a key follow another.

    Args:
        origin: of the log.
        name: of the key.
        old: public half that ends.
        new: public half that follows.
        key: private half of ``new``, which proves that it is held.
        event_id: 32 hex digits; random when empty.
    """
    said = {
        "event_id": event_id or uuid.uuid4().hex,
        "origin": origin,
        "key": name,
        "old": to_base64(old),
        "new": to_base64(new),
    }
    message = _possession(said)
    if isinstance(key, Ed25519PrivateKey):
        proof = key.sign(message)
    else:
        proof = key.sign(message, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    return dsse.statement(EVENTS[ROTATED], {**said, "proof": to_base64(proof)}, [])


def compromise_statement(origin: str, name: str, public: bytes, since_index: int, event_id: str = "") -> dict[str, Any]:
    """The statement by which an operator says that a key may have been in other hands since a record's index."""
    said = {"event_id": event_id or uuid.uuid4().hex, "origin": origin, "key": name}
    return dsse.statement(EVENTS[COMPROMISED], {**said, "public": to_base64(public), "since_index": since_index}, [])


def read(statement: Mapping[str, Any], origin: str, roots: Roots, at: datetime) -> Event:
    """Reads an event.

    Args:
        statement: in-toto Statement as signed.
        origin: of the log that it must be for.
        roots: under which certificates must lie.
        at: when it was recorded; a successor's certificate must be valid then.

    Raises:
        InvalidInputError: ``KEY_EVENT`` for another shape, ``OTHER_LOG``, ``KEY_UNKNOWN`` for a name that no key has,
            ``KEY_MALFORMED``.
        IntegrityError: ``KEY_PROOF`` when nobody proved to hold the successor, ``CERTIFICATE_BAD``.
    """
    kind = dsse.predicate_name(str(statement.get("predicateType")))
    said = statement.get("predicate")
    members = {EVENTS[ROTATED]: _ROTATION, EVENTS[COMPROMISED]: _COMPROMISE}.get(kind)
    if not isinstance(said, Mapping) or members is None or set(said) != members:
        raise InvalidInputError("KEY_EVENT", "not a key event, or a member is missing or unknown")
    if any(not isinstance(said[name], str) for name in members - {"since_index"}):
        raise InvalidInputError("KEY_EVENT", "every member but since_index is text")
    if not _EVENT_ID.fullmatch(said["event_id"]):
        raise InvalidInputError("KEY_EVENT", "event_id is not 32 hex digits")
    if said["origin"] != origin:
        raise InvalidInputError("OTHER_LOG", f"the event is for {said['origin'][:100]!r}, not {origin!r}")
    name = said["key"]
    if name not in SERVICE_NAMES and not PERSON.fullmatch(name):
        raise InvalidInputError("KEY_UNKNOWN", f"no key is called {name[:100]!r}", remedy=_NAMES)
    if kind == EVENTS[COMPROMISED]:
        since = said["since_index"]
        if type(since) is not int or since < 0:
            raise InvalidInputError("KEY_EVENT", "since_index is not a record's index")
        return Compromise(said["event_id"], name, _half(name, said["public"], roots, None), since)
    old, new = _half(name, said["old"], roots, None), _half(name, said["new"], roots, at)
    _check_proof(said, new)
    return Rotation(said["event_id"], name, old, new)


def _half(name: str, text: str, roots: Roots, at: datetime | None) -> PublicHalf:
    """The public half that an event names; ``at`` None for a key of the past, whose certificate may have run out."""
    try:
        material = dsse.from_base64(text)
        if name in ED25519_NAMES:
            return ed25519_half(Ed25519PublicKey.from_public_bytes(material))
        certificate = read_certificate(material)
        half = certificate_half(certificate)
    except (AssayError, *CERTIFICATE_ERRORS) as error:
        raise InvalidInputError("KEY_MALFORMED", f"a public half of {name} cannot be read") from error
    if name != PDF:
        subject, _ = check_person(material, roots.people, at)
        if subject != name:
            raise IntegrityError("CERTIFICATE_BAD", f"the certificate is of {subject}, not of {name}")
    elif at is not None:
        # The first certificate stands in the trust file and needs no root; a successor has nothing else.
        check_issued(certificate, roots.services, "services root")
    return half


def _check_proof(said: Mapping[str, Any], new: PublicHalf) -> None:
    message = _possession(said)
    try:
        proof = dsse.from_base64(said["proof"])
        if isinstance(new.key, Ed25519PublicKey):
            new.key.verify(proof, message)
        elif isinstance(new.key, ec.EllipticCurvePublicKey):
            new.key.verify(proof, message, ec.ECDSA(hashes.SHA256()))
        else:
            raise InvalidInputError("KEY_MALFORMED", "a new key is Ed25519 or P-256")
    except (InvalidSignature, InvalidInputError) as error:
        raise IntegrityError("KEY_PROOF", "nobody has proved to hold the private half of the new key") from error


def _possession(said: Mapping[str, Any]) -> bytes:
    """What the new key signs: everything of the event but the proof itself, under a type that nothing else has."""
    return dsse.pae(_PROOF_TYPE, canonical.encode({name: said[name] for name in _ROTATION - {"proof"}}))


_NAMES = f"one of {', '.join(SERVICE_NAMES)}, or a person's subject"
