"""Signatures of other schemes: WebAuthn assertions, made here by an authenticator of software, and unknown ones."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from assay import canonical, dsse, webauthn
from assay.webauthn import RelyingParty
from audit.ledger import records
from audit.ledger.records import RecordDraft
from audit.verify.trust import TrustFile
from audit.verify.verifier import verify_bytes
from tests.audit.ledger.ledger_world import (
    START,
    Story,
    World,
    authority,
    ed25519,
    p256,
    person_certificate,
    refused,
    subject,
)
from tests.audit.ledger.record_schemas import schema_faults

PARTY = RelyingParty.parse("https://console.bank.example", "bank.example")
ROOT = authority("people root")
KEY = p256("authenticator of vik")
CERT = person_certificate(KEY, [subject("vik")], ROOT)
PAYLOAD = canonical.encode(
    dsse.statement("revocation", {"job": "units/a/tuningJobs/b", "etag": "1", "reason": "x"}, [])
)


class Authenticator:
    """A roaming authenticator and its browser, in software; attributes are what a test wants different."""

    def __init__(self, key: ec.EllipticCurvePrivateKey = KEY, cert: Any = CERT) -> None:
        self.key, self.cert = key, cert
        self.flags, self.identifier, self.tail = 0x05, "bank.example", b""
        self.client: dict[str, Any] = {"type": "webauthn.get", "origin": PARTY.origin, "crossOrigin": False}
        self.client_json: Callable[[dict[str, Any]], bytes] = lambda value: json.dumps(value).encode()

    def sign(self, payload: bytes) -> dict[str, Any]:
        """The envelope with the assertion: what ``navigator.credentials.get`` would give, put into DSSE."""
        asked = webauthn.challenge(dsse.pae(dsse.PAYLOAD_TYPE, payload))
        client = self.client_json({"challenge": asked, **self.client})
        counter = (7).to_bytes(4, "big")
        data = hashlib.sha256(self.identifier.encode()).digest() + bytes([self.flags]) + counter + self.tail
        sig = self.key.sign(data + hashlib.sha256(client).digest(), ec.ECDSA(hashes.SHA256()))
        der = self.cert.public_bytes(Encoding.DER)
        item = {"sig": sig, "cert": der, "authenticator_data": data, "client_data": client}
        members = {name: base64.b64encode(value).decode() for name, value in item.items()}
        signature = {"keyid": "", "scheme": "webauthn", **members}
        return {
            "payloadType": dsse.PAYLOAD_TYPE,
            "payload": base64.b64encode(payload).decode(),
            "signatures": [signature],
        }


def verify(envelope: dict[str, Any], party: RelyingParty | None = PARTY) -> dsse.VerifiedEnvelope:
    return dsse.verify_person(envelope, ROOT[1], START, party)


def test_an_assertion_counts_as_the_persons_signature() -> None:
    verified = verify(Authenticator().sign(PAYLOAD))
    assert verified.payload == PAYLOAD and [s.subject for s in verified.signers] == [subject("vik")]
    extended = Authenticator()
    extended.flags, extended.tail = 0x85, b"\xa0"
    assert verify(extended.sign(PAYLOAD)).signers == verified.signers


def test_the_same_key_twice_in_two_schemes_counts_once() -> None:
    envelope = Authenticator().sign(PAYLOAD)
    envelope["signatures"] += dsse.sign_person(PAYLOAD, KEY, CERT)["signatures"]
    assert len(verify(envelope).signers) == 1


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("flags", 0x04, "WEBAUTHN_BAD"),
        ("flags", 0x01, "WEBAUTHN_BAD"),
        ("flags", 0x00, "WEBAUTHN_BAD"),
        ("identifier", "evil.example", "WEBAUTHN_BAD"),
        ("identifier", "console.bank.example", "WEBAUTHN_BAD"),
        ("tail", b"\0", "WEBAUTHN_BAD"),
        ("client", {"type": "webauthn.create", "origin": PARTY.origin}, "WEBAUTHN_BAD"),
        ("client", {"type": "webauthn.get", "origin": "https://evil.example"}, "WEBAUTHN_BAD"),
        ("client", {"type": "webauthn.get", "origin": PARTY.origin, "crossOrigin": True}, "WEBAUTHN_BAD"),
        ("client", {"type": "webauthn.get", "origin": PARTY.origin, "challenge": "AAAA"}, "WEBAUTHN_BAD"),
        ("client", {"type": "webauthn.get"}, "WEBAUTHN_BAD"),
        ("client_json", lambda v: b"[]", "WEBAUTHN_BAD"),
        ("client_json", lambda v: b"{", "WEBAUTHN_BAD"),
        ("client_json", lambda v: b"\xff", "WEBAUTHN_BAD"),
        ("client_json", lambda v: b"[" * 4000, "WEBAUTHN_BAD"),
        ("client_json", lambda v: json.dumps(v).encode().replace(b"{", b'{"origin":"x",', 1), "WEBAUTHN_BAD"),
        ("client_json", lambda v: json.dumps(v).encode() + b" " * 4096, "WEBAUTHN_BAD"),
        ("key", p256("another authenticator"), "SIGNATURE_BAD"),
        ("cert", person_certificate(KEY, [subject("vik")], authority("attacker")), "CERTIFICATE_BAD"),
    ],
)
def test_assertions_that_do_not_count(name: str, value: Any, reason: str) -> None:
    made = Authenticator()
    setattr(made, name, value)
    refused(reason, lambda: verify(made.sign(PAYLOAD)))


def test_an_assertion_for_another_statement() -> None:
    envelope = Authenticator().sign(PAYLOAD)
    envelope["payload"] = base64.b64encode(PAYLOAD.replace(b'"x"', b'"y"')).decode()
    refused("WEBAUTHN_BAD", lambda: verify(envelope))


def test_nobody_trusts_an_assertion_by_default() -> None:
    refused("WEBAUTHN_BAD", lambda: verify(Authenticator().sign(PAYLOAD), None))


def test_a_plain_signature_is_no_assertion_and_the_other_way_round() -> None:
    plain, asserted = dsse.sign_person(PAYLOAD, KEY, CERT), Authenticator().sign(PAYLOAD)
    del asserted["signatures"][0]["scheme"]
    refused("ENVELOPE_MALFORMED", lambda: verify(asserted))
    for name in ("authenticator_data", "client_data"):
        del asserted["signatures"][0][name]
    refused("SIGNATURE_BAD", lambda: verify(asserted))
    plain["signatures"][0]["scheme"] = "webauthn"
    refused("ENVELOPE_MALFORMED", lambda: verify(plain))


@pytest.mark.parametrize("scheme", ["", "none", "ecdsa-p256", "ml-dsa-44", "WEBAUTHN", None, 1, [], {"a": 1}])
def test_an_unknown_scheme_has_a_reason_of_its_own(scheme: Any) -> None:
    envelope = dsse.sign_person(PAYLOAD, KEY, CERT)
    envelope["signatures"][0]["scheme"] = scheme
    refused("SIGNATURE_SCHEME_UNKNOWN", lambda: verify(envelope))
    refused("SIGNATURE_SCHEME_UNKNOWN", lambda: dsse.envelope_payload(envelope))


def test_services_sign_in_no_scheme() -> None:
    key = ed25519("permit")
    envelope = dsse.sign_service(PAYLOAD, key)
    envelope["signatures"][0] |= {n: "AAAA" for n in ("authenticator_data", "client_data")} | {"scheme": "webauthn"}
    refused("ENVELOPE_MALFORMED", lambda: dsse.verify_service(envelope, key.public_key()))


def test_the_contract_carries_an_assertion() -> None:
    envelope = Authenticator().sign(PAYLOAD)
    message = dsse.envelope_to_proto(envelope)
    assert dsse.envelope_from_proto(message) == envelope
    assert dsse.envelope_from_proto(type(message).FromString(message.SerializeToString())) == envelope
    message.signatures[0].scheme = "newer"
    refused("SIGNATURE_SCHEME_UNKNOWN", lambda: verify(dsse.envelope_from_proto(message)))


@pytest.mark.parametrize(
    ("origin", "identifier"),
    [
        ("http://bank.example", ""),
        ("https://bank.example/", ""),
        ("https://BANK.example", ""),
        ("https://bank.example", "other.example"),
        ("https://bank.example", "example"),
        ("https://evilbank.example", "bank.example"),
        ("bank.example", ""),
    ],
)
def test_relying_parties_that_are_none(origin: str, identifier: str) -> None:
    refused("RELYING_PARTY", lambda: RelyingParty.parse(origin, identifier))


def test_the_whole_way_through_record_bundle_and_verifier(tmp_path: Path) -> None:
    """A grant signed with an authenticator; believed only where the trust file names its origin."""
    world = World(tmp_path).start()
    Story(world).found()
    oscar = world.people["oscar"]
    said = {"subject": subject("dana"), "role": "ROLE_REQUESTER", "unit": "credit", "grant_id": "by-assertion"}
    statement = canonical.encode(dsse.statement("grant", said, []))
    envelope = Authenticator(oscar.key, oscar.cert).sign(statement)
    index = world.append(RecordDraft("system", "grant.issued", "grant", {}, envelope=envelope))
    body = world.ledger.record(index).body
    assert schema_faults(body) == [] and records.read(body).signatures[0]["scheme"] == "webauthn"
    bundle, trust = world.export(), world.trust_text
    world.close()
    lines = "webauthn-origin https://console.bank.example\n"
    for text, verdict in (
        (trust, "invalid"),
        (trust + lines, "invalid"),
        (trust + lines + "webauthn-id bank.example\n", "valid"),
    ):
        report = verify_bytes(bundle, TrustFile.parse(text), START)
        assert report.verdict == verdict, report.text()
    refused("TRUST_MALFORMED", lambda: TrustFile.parse(trust + "webauthn-id bank.example\n"))


def test_a_record_of_an_unknown_scheme_is_refused_by_its_reason(tmp_path: Path) -> None:
    world = World(tmp_path).start()
    index = Story(world).found().indices["grant.issued"]
    value = canonical.decode(world.ledger.record(index).body)
    world.close()
    for scheme, reason in (("newer", "SIGNATURE_SCHEME_UNKNOWN"), ("webauthn", "RECORD_MALFORMED")):
        changed = copy.deepcopy(value)
        changed["sigs"][0]["scheme"] = scheme
        refused(reason, lambda changed=changed: records.read(canonical.encode(changed)))  # type: ignore[misc]
