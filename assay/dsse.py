"""DSSE envelopes over in-toto Statements: people sign with P-256 and a certificate, services with Ed25519.

An envelope here is the JSON object of DSSE 1.0.2 with two house rules. The payload is canonical JSON of an in-toto
Statement v1, so that a ledger record can carry the statement as JSON and the envelope can be rebuilt from it byte for
byte. A person's signature carries the DER certificate that names its subject; trust comes from the people root given
from outside, never from ``keyid``.

What verification promises: *every* signature of the envelope was made over exactly the payload returned, by a key
whose certificate was issued by the root and was valid at the time asked about. One bad signature refuses the whole
envelope. Signers are counted by key, so that a key that signed twice counts once.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from assay import canonical, webauthn
from assay.certificates import check_person, key_id
from assay.digests import sha256_bytes
from assay.errors import IntegrityError, InvalidInputError

if TYPE_CHECKING:
    from assay.v1 import identity_pb2

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_BASE = "https://assay.dev/predicate/"
# Predicates that others defined, by the short name that they have here.
FOREIGN: Mapping[str, str] = {"provenance": "https://slsa.dev/provenance/v1"}
MAX_PAYLOAD = 60_000
MAX_SERVICE_PAYLOAD = 4_000_000
MAX_SIGNATURES = 8
MAX_DEPTH = 64
MAX_CERTIFICATE = 8192

# A statement's members in canonical order.
_STATEMENT = b'{"_type":"' + STATEMENT_TYPE.encode() + b'","predicate":%b,"predicateType":"%b","subject":%b}'

Envelope = dict[str, Any]

# How a person's signature was made: members of the signature beside keyid, sig and cert. An absent scheme is ECDSA
# over the pre-authentication encoding. A service's signature has none.
SCHEMES: Mapping[str, tuple[str, ...]] = {webauthn.SCHEME: ("authenticator_data", "client_data")}

_HEX64 = re.compile(r"[0-9a-f]{64}")
_STANDARD = re.compile(r"[A-Za-z0-9+/]*={0,2}")
_URLSAFE = re.compile(r"[A-Za-z0-9_-]*={0,2}")


@dataclass(frozen=True)
class Signer:
    """Who signed: the subject of a person's certificate (empty for a service) and the hex SHA-256 of the key."""

    subject: str
    keyid: str


@dataclass(frozen=True)
class VerifiedEnvelope:
    """What was signed, and by whom; made only by the verifiers here.

    Attributes:
        payload: the exact bytes that the signatures cover.
        statement: the in-toto Statement that they encode.
        signers: one entry a key, in the envelope's order.
    """

    payload: bytes
    statement: dict[str, Any]
    signers: tuple[Signer, ...]

    @property
    def predicate(self) -> dict[str, Any]:
        """The statement's predicate."""
        return dict(self.statement["predicate"])

    @property
    def predicate_name(self) -> str:
        """The short predicate name, such as ``approval``; empty when the type is not one of ours."""
        return predicate_name(str(self.statement["predicateType"]))


def predicate_type(name: str) -> str:
    """Predicate type URI of a short name."""
    return FOREIGN.get(name) or f"{PREDICATE_BASE}{name}/v1"


def predicate_name(uri: str) -> str:
    """Short name of a predicate type that is used here, or an empty string."""
    for name, foreign in FOREIGN.items():
        if uri == foreign:
            return name
    name = uri[len(PREDICATE_BASE) : -len("/v1")] if uri.startswith(PREDICATE_BASE) and uri.endswith("/v1") else ""
    return "" if name in FOREIGN else name


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE pre-authentication encoding: what a signature covers (protocol.md, DSSE 1.0.2)."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def statement(name: str, predicate: Mapping[str, Any], subjects: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Builds an in-toto Statement v1.

    Args:
        name: short predicate name.
        predicate: float-free JSON object.
        subjects: pairs of name and hex SHA-256; names are for people, digests bind.

    Raises:
        InvalidInputError: ``STATEMENT_MALFORMED`` when a name is no text or a digest not 64 lower-case hex digits.
    """
    return {
        "_type": STATEMENT_TYPE,
        "subject": _subjects(subjects),
        "predicateType": predicate_type(name),
        "predicate": dict(predicate),
    }


def encode_statement(
    name: str, predicate: dict[str, Any], subjects: Sequence[tuple[str, str]], levels: int = MAX_DEPTH
) -> bytes:
    """The canonical bytes of :func:`statement`, of at most ``levels`` objects and arrays inside one another.

    Only what the caller gives is looked at: the rest of a statement is as :func:`check_statement` demands.

    Raises:
        InvalidInputError: ``STATEMENT_MALFORMED`` as :func:`statement`, or ``NOT_CANONICAL``.
    """
    subject = canonical.encode(_subjects(subjects), levels - 1) if subjects else b"[]"
    return _STATEMENT % (canonical.encode(predicate, levels - 1), predicate_type(name).encode(), subject)


def _subjects(subjects: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    for label, digest in subjects:
        if not isinstance(label, str) or not isinstance(digest, str) or not _HEX64.fullmatch(digest):
            raise InvalidInputError("STATEMENT_MALFORMED", f"subject {label!r} has no hex SHA-256 digest or no name")
    return [{"name": label, "digest": {"sha256": digest}} for label, digest in subjects]


def read_statement(payload: bytes) -> dict[str, Any]:
    """Reads canonical bytes as an in-toto Statement v1 with a frozen set of members.

    Raises:
        InvalidInputError: ``NOT_CANONICAL`` or ``STATEMENT_MALFORMED``.
    """
    value = decode_shallow(payload)
    check_statement(value)
    return dict(value)


def decode_shallow(data: bytes) -> Any:
    """Decodes canonical JSON nested at most :data:`MAX_DEPTH` deep, so that readers may recurse.

    Raises:
        InvalidInputError: ``NOT_CANONICAL``.
    """
    return canonical.decode(data, MAX_DEPTH)


def check_statement(value: Any) -> None:
    """Demands the shape of an in-toto Statement v1: four members, subjects bound by SHA-256 only.

    Raises:
        InvalidInputError: ``STATEMENT_MALFORMED``.
    """
    if not isinstance(value, dict) or set(value) != {"_type", "subject", "predicateType", "predicate"}:
        raise _malformed("a statement has exactly _type, subject, predicateType and predicate")
    if value["_type"] != STATEMENT_TYPE:
        raise _malformed("_type is not in-toto Statement v1")
    if not isinstance(value["predicateType"], str) or not isinstance(value["predicate"], dict):
        raise _malformed("predicateType is text and predicate an object")
    if not isinstance(value["subject"], list):
        raise _malformed("subject is a list")
    for item in value["subject"]:
        if not isinstance(item, dict) or set(item) != {"name", "digest"} or not isinstance(item["name"], str):
            raise _malformed("a subject has exactly name and digest")
        digest = item["digest"]
        if not isinstance(digest, dict) or set(digest) != {"sha256"} or not isinstance(digest["sha256"], str):
            raise _malformed("a subject is bound by sha256 and nothing else")
        if not _HEX64.fullmatch(digest["sha256"]):
            raise _malformed("a subject's digest is 64 lower-case hex digits")


def sign_person(payload: bytes, key: ec.EllipticCurvePrivateKey, cert: x509.Certificate) -> Envelope:
    """Signs with a person's own key, on that person's machine.

    Args:
        payload: canonical bytes of a statement.
        key: P-256 private key.
        cert: certificate of that key under the people root.

    Raises:
        InvalidInputError: the payload is not a statement, or the key is not P-256.
        IntegrityError: ``KEY_MISMATCH`` when the certificate is for another key.
    """
    read_statement(payload)
    if not isinstance(key.curve, ec.SECP256R1):
        raise InvalidInputError("KEY_NOT_P256", "people sign with P-256 keys")
    keyid = key_id(key.public_key())
    if key_id(cert.public_key()) != keyid:
        raise IntegrityError("KEY_MISMATCH", "the certificate is for another key")
    # RFC 6979: no nonce that a poor source of randomness could repeat.
    sig = key.sign(pae(PAYLOAD_TYPE, payload), ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    der = cert.public_bytes(serialization.Encoding.DER)
    return _envelope(payload, [{"keyid": keyid, "sig": to_base64(sig), "cert": to_base64(der)}])


def cosign_person(envelope: Mapping[str, Any], key: ec.EllipticCurvePrivateKey, cert: x509.Certificate) -> Envelope:
    """Adds another person's signature over the same payload; the signatures that are there are not checked here.

    Raises:
        InvalidInputError: the envelope is malformed or full, or the key is not P-256.
        IntegrityError: ``KEY_MISMATCH`` when the certificate is for another key.
    """
    payload, known = _open(envelope, MAX_PAYLOAD, with_cert=True)
    if len(known) >= MAX_SIGNATURES:
        raise _bad_envelope(f"an envelope has 1 to {MAX_SIGNATURES} signatures")
    own = sign_person(payload, key, cert)
    return _envelope(payload, [*envelope["signatures"], *own["signatures"]])


def verify_person(
    envelope: Mapping[str, Any],
    people_root: x509.Certificate,
    at: datetime,
    relying_party: webauthn.RelyingParty | None = None,
) -> VerifiedEnvelope:
    """Verifies an envelope signed by people.

    Args:
        envelope: DSSE envelope with a certificate in every signature.
        people_root: the root given from outside.
        at: aware time at which every certificate and the root must have been valid.
        relying_party: for whom WebAuthn assertions must have been made; None to accept no assertion.

    Raises:
        InvalidInputError: ``ENVELOPE_MALFORMED``, ``SIGNATURE_SCHEME_UNKNOWN``, ``NOT_CANONICAL`` or
            ``STATEMENT_MALFORMED``.
        IntegrityError: ``SIGNATURE_BAD``, ``WEBAUTHN_BAD`` or ``CERTIFICATE_BAD``; one bad signature refuses all.
    """
    payload, signatures = _open(envelope, MAX_PAYLOAD, with_cert=True)
    message = pae(PAYLOAD_TYPE, payload)
    signers: dict[str, Signer] = {}
    for item in signatures:
        subject, key = check_person(item["cert"], people_root, at)
        keyid = key_id(key)
        if item["keyid"] not in ("", keyid):
            raise IntegrityError("SIGNATURE_BAD", "keyid names another key than the certificate")
        if "scheme" in item:
            _verify_assertion(item, key, message, relying_party)
        else:
            try:
                key.verify(item["sig"], message, ec.ECDSA(hashes.SHA256()))
            except InvalidSignature as error:
                raise IntegrityError("SIGNATURE_BAD", f"the signature of {subject} does not verify") from error
        signers.setdefault(keyid, Signer(subject, keyid))
    return VerifiedEnvelope(payload, read_statement(payload), tuple(signers.values()))


def _verify_assertion(
    item: Mapping[str, Any], key: ec.EllipticCurvePublicKey, message: bytes, party: webauthn.RelyingParty | None
) -> None:
    if party is None:
        raise IntegrityError("WEBAUTHN_BAD", "no relying party is trusted here, so no WebAuthn assertion counts")
    webauthn.verify(key, item["sig"], message, item["authenticator_data"], item["client_data"], party)


def sign_service(payload: bytes, key: Ed25519PrivateKey) -> Envelope:
    """Signs with a service's statement or permit key.

    Raises:
        InvalidInputError: the payload is not a statement.
    """
    read_statement(payload)
    raw = key.public_key().public_bytes_raw()
    return _envelope(payload, [{"keyid": sha256_bytes(raw), "sig": to_base64(key.sign(pae(PAYLOAD_TYPE, payload)))}])


def verify_service(envelope: Mapping[str, Any], public_key: Ed25519PublicKey) -> VerifiedEnvelope:
    """Verifies an envelope signed by one service, whose public key the caller has from its trust file.

    Raises:
        InvalidInputError: ``ENVELOPE_MALFORMED``, ``NOT_CANONICAL`` or ``STATEMENT_MALFORMED``.
        IntegrityError: ``SIGNATURE_BAD``.
    """
    payload, signatures = _open(envelope, MAX_SERVICE_PAYLOAD, with_cert=False)
    if len(signatures) != 1:
        raise InvalidInputError("ENVELOPE_MALFORMED", "a service's envelope has exactly one signature")
    keyid = sha256_bytes(public_key.public_bytes_raw())
    if signatures[0]["keyid"] not in ("", keyid):
        raise IntegrityError("SIGNATURE_BAD", "the envelope names another key than the trusted one")
    try:
        public_key.verify(signatures[0]["sig"], pae(PAYLOAD_TYPE, payload))
    except InvalidSignature as error:
        raise IntegrityError("SIGNATURE_BAD", "the service's signature does not verify") from error
    return VerifiedEnvelope(payload, read_statement(payload), (Signer("", keyid),))


def envelope_of(statement_value: Mapping[str, Any], signatures: Sequence[Mapping[str, Any]]) -> Envelope:
    """Rebuilds the envelope of a statement that a ledger record carries as JSON, with the record's signatures."""
    return _envelope(canonical.encode(statement_value), [dict(s) for s in signatures])


def envelope_payload(envelope: Mapping[str, Any]) -> bytes:
    """The payload bytes of a well-formed envelope, *unverified*: for drafting, never for deciding.

    Raises:
        InvalidInputError: ``ENVELOPE_MALFORMED``.
    """
    return _open(envelope, MAX_SERVICE_PAYLOAD, with_cert=None)[0]


def envelope_from_proto(message: identity_pb2.Envelope) -> Envelope:
    """Maps a protobuf envelope to the JSON object."""
    return {
        "payloadType": message.payload_type,
        "payload": to_base64(message.payload),
        "signatures": [_signature_from_proto(signature) for signature in message.signatures],
    }


def envelope_to_proto(envelope: Mapping[str, Any]) -> identity_pb2.Envelope:
    """Maps the JSON object to a protobuf envelope.

    Raises:
        InvalidInputError: ``ENVELOPE_MALFORMED``.
    """
    from assay.v1 import identity_pb2 as pb

    payload, signatures = _open(envelope, MAX_SERVICE_PAYLOAD, with_cert=None)
    return pb.Envelope(
        payload_type=PAYLOAD_TYPE,
        payload=payload,
        signatures=[
            pb.Signature(certificate=s.get("cert", b""), **{name: s[name] for name in s if name != "cert"})
            for s in signatures
        ],
    )


def _signature_from_proto(signature: identity_pb2.Signature) -> dict[str, str]:
    item = {"keyid": signature.keyid, "sig": to_base64(signature.sig), "cert": to_base64(signature.certificate)}
    if signature.scheme:
        members = SCHEMES.get(signature.scheme, ())
        item |= {"scheme": signature.scheme, **{name: to_base64(getattr(signature, name)) for name in members}}
    return item


def to_base64(data: bytes) -> str:
    """Standard base64, padded, as envelopes and statements carry bytes."""
    return base64.b64encode(data).decode()


def from_base64(text: Any) -> bytes:
    """Decodes standard or URL-safe base64, padded, with no other spelling of the same bytes accepted.

    Raises:
        InvalidInputError: ``BASE64_MALFORMED``.
    """
    if isinstance(text, str) and len(text) % 4 == 0:
        try:
            if _STANDARD.fullmatch(text):
                data = base64.b64decode(text, validate=True)
                if to_base64(data) == text:
                    return data
            elif _URLSAFE.fullmatch(text):
                data = base64.urlsafe_b64decode(text)
                if base64.urlsafe_b64encode(data).decode() == text:
                    return data
        except (binascii.Error, ValueError):
            pass
    raise InvalidInputError("BASE64_MALFORMED", "not canonical base64")


def _open(
    envelope: Mapping[str, Any], max_payload: int, *, with_cert: bool | None
) -> tuple[bytes, list[dict[str, Any]]]:
    """Parses strictly. ``with_cert``: True demands certificates, False forbids them, None takes either."""
    if not isinstance(envelope, Mapping) or set(envelope) != {"payloadType", "payload", "signatures"}:
        raise _bad_envelope("an envelope has exactly payloadType, payload and signatures")
    if envelope["payloadType"] != PAYLOAD_TYPE:
        raise _bad_envelope(f"payloadType is not {PAYLOAD_TYPE}")
    encoded = envelope["payload"]
    if not isinstance(encoded, str) or len(encoded) > 4 * ((max_payload + 2) // 3):
        raise _bad_envelope("payload is missing or too long")
    items = envelope["signatures"]
    if not isinstance(items, list) or not 1 <= len(items) <= MAX_SIGNATURES:
        raise _bad_envelope(f"an envelope has 1 to {MAX_SIGNATURES} signatures")
    try:
        return from_base64(encoded), [_open_signature(item, with_cert) for item in items]
    except InvalidInputError as error:
        if error.reason == "BASE64_MALFORMED":
            raise _bad_envelope("a member is not canonical base64") from error
        raise


def signature_members(item: Mapping[str, Any]) -> frozenset[str]:
    """Members that a person's signature has beside ``keyid``, by its scheme.

    Raises:
        InvalidInputError: ``SIGNATURE_SCHEME_UNKNOWN`` for a scheme that this version cannot verify.
    """
    if "scheme" not in item:
        return frozenset({"sig", "cert"})
    scheme = item["scheme"]
    if not isinstance(scheme, str) or scheme not in SCHEMES:
        raise InvalidInputError(
            "SIGNATURE_SCHEME_UNKNOWN",
            f"a signature of scheme {str(scheme)[:40]!r}",
            remedy=f"leave scheme out for ECDSA P-256, or use: {', '.join(SCHEMES)}; a newer verifier may know more",
        )
    return frozenset({"sig", "cert", "scheme", *SCHEMES[scheme]})


def _open_signature(item: Any, with_cert: bool | None) -> dict[str, Any]:
    if not isinstance(item, Mapping) or "sig" not in item:
        raise _bad_envelope("a signature has keyid, sig and, for people, cert")
    allowed = signature_members(item)
    if not set(item) - {"keyid"} <= allowed or ("scheme" in item and not allowed <= set(item)):
        raise _bad_envelope("a signature has keyid, sig and, for people, cert, and what its scheme needs")
    if with_cert is not None and ("cert" in item) != with_cert:
        raise _bad_envelope("a person's signature carries a certificate" if with_cert else "a service carries none")
    keyid = item.get("keyid", "")
    if not isinstance(keyid, str) or (keyid and not _HEX64.fullmatch(keyid)):
        raise _bad_envelope("keyid is 64 hex digits")
    encoded = [name for name in item if name not in ("keyid", "scheme")]
    if any(not isinstance(item[name], str) or len(item[name]) > 2 * MAX_CERTIFICATE for name in encoded):
        raise _bad_envelope("a member of a signature is too long")
    out: dict[str, Any] = {"keyid": keyid, **{name: from_base64(item[name]) for name in encoded}}
    if "scheme" in item:
        out["scheme"] = item["scheme"]
    return out


def _envelope(payload: bytes, signatures: list[dict[str, Any]]) -> Envelope:
    return {"payloadType": PAYLOAD_TYPE, "payload": to_base64(payload), "signatures": signatures}


def _malformed(message: str) -> InvalidInputError:
    return InvalidInputError("STATEMENT_MALFORMED", message)


def _bad_envelope(message: str) -> InvalidInputError:
    return InvalidInputError("ENVELOPE_MALFORMED", message)
