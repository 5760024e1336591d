from __future__ import annotations

import base64
import copy
import datetime as dt
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from assay import canonical, dsse
from assay.errors import AssayError, IntegrityError, InvalidInputError
from tests.audit.ledger.ledger_world import (
    START,
    authority,
    b64,
    digest,
    ed25519,
    p256,
    person_certificate,
    refused,
    subject,
)

VECTORS = json.loads((Path(__file__).parents[1] / "data/vectors/note_vectors.json").read_text("utf-8"))
ROOT = authority("people root")
KEY = p256("cora")
CERT = person_certificate(KEY, [subject("cora")], ROOT)
STATEMENT = dsse.statement("approval", {"job": "j", "n": 1}, [("card", digest("card"))])
PAYLOAD = canonical.encode(STATEMENT)


def signed(payload: bytes = PAYLOAD) -> dict[str, Any]:
    return dsse.sign_person(payload, KEY, CERT)


def verify(envelope: Any, at: dt.datetime = START) -> dsse.VerifiedEnvelope:
    return dsse.verify_person(envelope, ROOT[1], at)


def test_spec_vector() -> None:
    v = VECTORS["dsse"]
    message = dsse.pae(v["payloadType"], v["payload"].encode())
    assert message == v["pae"].encode()
    raw = base64.b64decode(v["sig_b64"])
    der = encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:]))
    public = ec.EllipticCurvePublicNumbers(int(v["x"]), int(v["y"]), ec.SECP256R1()).public_key()
    public.verify(der, message, ec.ECDSA(hashes.SHA256()))


def test_agrees_with_securesystemslib() -> None:
    oracle = pytest.importorskip("securesystemslib.dsse")
    assert oracle.Envelope(PAYLOAD, dsse.PAYLOAD_TYPE, {}).pae() == dsse.pae(dsse.PAYLOAD_TYPE, PAYLOAD)


def test_person_round_trip() -> None:
    verified = verify(signed())
    assert verified.payload == PAYLOAD
    assert verified.statement == STATEMENT
    assert verified.predicate == {"job": "j", "n": 1}
    assert verified.predicate_name == "approval"
    assert [s.subject for s in verified.signers] == [subject("cora")]


def test_two_people_sign_one_payload() -> None:
    key = p256("vik")
    other = dsse.sign_person(PAYLOAD, key, person_certificate(key, [subject("vik")], ROOT))
    envelope = signed()
    envelope["signatures"] += other["signatures"]
    assert {s.subject for s in verify(envelope).signers} == {subject("cora"), subject("vik")}


def test_a_key_that_signed_twice_counts_once() -> None:
    envelope = signed()
    envelope["signatures"] *= 2
    assert len(verify(envelope).signers) == 1


def test_renewed_certificate_with_the_same_key_counts_once() -> None:
    renewed = person_certificate(KEY, [subject("other-name")], ROOT)
    envelope = signed()
    envelope["signatures"] += dsse.sign_person(PAYLOAD, KEY, renewed)["signatures"]
    assert len(verify(envelope).signers) == 1


def test_urlsafe_base64_and_absent_keyid_are_accepted() -> None:
    envelope = signed()
    item = envelope["signatures"][0]
    for name in ("sig", "cert"):
        item[name] = base64.urlsafe_b64encode(base64.b64decode(item[name])).decode()
    envelope["payload"] = base64.urlsafe_b64encode(PAYLOAD).decode()
    del item["keyid"]
    assert verify(envelope).payload == PAYLOAD


def test_one_bad_signature_refuses_all() -> None:
    envelope = signed()
    bad = copy.deepcopy(envelope["signatures"][0])
    key = p256("vik")
    bad["cert"] = dsse.sign_person(PAYLOAD, key, person_certificate(key, [subject("vik")], ROOT))["signatures"][0][
        "cert"
    ]
    bad["keyid"] = ""
    envelope["signatures"].append(bad)
    refused("SIGNATURE_BAD", lambda: verify(envelope))


def test_signature_over_another_payload() -> None:
    envelope = signed()
    envelope["payload"] = b64(canonical.encode(dsse.statement("approval", {"job": "j", "n": 2}, [])))
    refused("SIGNATURE_BAD", lambda: verify(envelope))


def test_keyid_that_contradicts_the_certificate() -> None:
    envelope = signed()
    envelope["signatures"][0]["keyid"] = "0" * 64
    refused("SIGNATURE_BAD", lambda: verify(envelope))


def test_signature_over_the_payload_without_pae() -> None:
    envelope = signed()
    envelope["signatures"][0]["sig"] = b64(KEY.sign(PAYLOAD, ec.ECDSA(hashes.SHA256())))
    refused("SIGNATURE_BAD", lambda: verify(envelope))


@pytest.mark.parametrize("at", [START - dt.timedelta(hours=2), START + dt.timedelta(days=398)], ids=["before", "after"])
def test_certificate_out_of_time(at: dt.datetime) -> None:
    refused("CERTIFICATE_BAD", lambda: verify(signed(), at))


def test_time_without_zone() -> None:
    refused("TIME_NAIVE", lambda: verify(signed(), dt.datetime(2026, 11, 24)))


@pytest.mark.parametrize(
    "uris",
    [
        [],
        [subject("cora"), subject("vik")],
        ["spiffe://assay.local/services/gateway"],
        ["spiffe://assay.local/people/"],
        ["https://assay.local/people/cora"],
        ["spiffe://assay.local/people/cora/../oscar"],
    ],
)
def test_certificate_that_names_no_one_person(uris: list[str]) -> None:
    cert = person_certificate(KEY, uris, ROOT)
    refused("CERTIFICATE_BAD", lambda: verify(dsse.sign_person(PAYLOAD, KEY, cert)))


def test_certificate_of_another_root() -> None:
    cert = person_certificate(KEY, [subject("cora")], authority("another root"))
    refused("CERTIFICATE_BAD", lambda: verify(dsse.sign_person(PAYLOAD, KEY, cert)))


def test_certificate_of_a_root_with_the_same_name() -> None:
    twin = (p256("attacker"), authority("people root")[1])
    cert = person_certificate(KEY, [subject("cora")], twin)
    refused("CERTIFICATE_BAD", lambda: verify(dsse.sign_person(PAYLOAD, KEY, cert)))


def test_root_that_is_no_authority() -> None:
    root = authority("not a root", ca=False)
    cert = person_certificate(KEY, [subject("cora")], root)
    refused("CERTIFICATE_BAD", lambda: dsse.verify_person(dsse.sign_person(PAYLOAD, KEY, cert), root[1], START))


def test_intermediate_authority_cannot_sign_as_a_person() -> None:
    cert = person_certificate(KEY, [subject("cora")], ROOT, ca=True)
    refused("CERTIFICATE_BAD", lambda: verify(dsse.sign_person(PAYLOAD, KEY, cert)))


def test_the_root_itself_is_no_person() -> None:
    refused("CERTIFICATE_BAD", lambda: verify(dsse.sign_person(PAYLOAD, ROOT[0], ROOT[1])))


def test_key_of_another_curve() -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    refused("KEY_NOT_P256", lambda: dsse.sign_person(PAYLOAD, key, CERT))


def test_certificate_of_another_key() -> None:
    refused("KEY_MISMATCH", lambda: dsse.sign_person(PAYLOAD, p256("vik"), CERT))


def test_service_round_trip_and_refusals() -> None:
    key = ed25519("worker")
    envelope = dsse.sign_service(PAYLOAD, key)
    verified = dsse.verify_service(envelope, key.public_key())
    assert verified.statement == STATEMENT
    assert verified.signers == (dsse.Signer("", hashlib.sha256(key.public_key().public_bytes_raw()).hexdigest()),)
    refused("SIGNATURE_BAD", lambda: dsse.verify_service(envelope, ed25519("other").public_key()))
    envelope["signatures"][0]["keyid"] = ""
    refused("SIGNATURE_BAD", lambda: dsse.verify_service(envelope, ed25519("other").public_key()))
    envelope["signatures"] *= 2
    refused("ENVELOPE_MALFORMED", lambda: dsse.verify_service(envelope, key.public_key()))


def test_a_persons_envelope_is_no_services_and_the_reverse() -> None:
    refused("ENVELOPE_MALFORMED", lambda: dsse.verify_service(signed(), ed25519("worker").public_key()))
    refused("ENVELOPE_MALFORMED", lambda: verify(dsse.sign_service(PAYLOAD, ed25519("worker"))))


def broken(**changes: Any) -> dict[str, Any]:
    return {**signed(), **changes}


@pytest.mark.parametrize(
    "envelope",
    [
        {},
        [],
        None,
        "text",
        broken(extra=1),
        broken(payloadType="text/plain"),
        broken(payload=7),
        broken(payload="Zg"),
        broken(payload="Zh=="),
        broken(payload="Zm9\nv"),
        broken(payload="A" * 90_000),
        broken(signatures=[]),
        broken(signatures={}),
        broken(signatures=[1]),
        broken(signatures=signed()["signatures"] * 9),
        broken(signatures=[{"sig": "AAAA"}]),
        broken(signatures=[{"sig": "AAAA", "cert": "AAA", "keyid": ""}]),
        broken(signatures=[{"sig": "AAAA", "cert": "AAAA", "keyid": "xyz"}]),
        broken(signatures=[{"sig": "AAAA", "cert": "AAAA", "keyid": "", "alg": "none"}]),
        broken(signatures=[{"sig": "AAAA", "cert": "A" * 40_000, "keyid": ""}]),
    ],
)
def test_malformed_envelopes(envelope: Any) -> None:
    refused("ENVELOPE_MALFORMED", lambda: verify(envelope))


def test_certificate_that_cannot_be_read() -> None:
    envelope = signed()
    envelope["signatures"][0]["cert"] = "AAAA"
    refused("CERTIFICATE_BAD", lambda: verify(envelope))


@pytest.mark.parametrize(
    "change",
    [
        {"_type": "https://in-toto.io/Statement/v0.1"},
        {"subject": {}},
        {"subject": [{"name": "x", "digest": {"md5": "0" * 32}}]},
        {"subject": [{"name": "x", "digest": {"sha256": "0" * 63}}]},
        {"subject": [{"name": "x", "digest": {"sha256": "A" * 64}}]},
        {"subject": [{"digest": {"sha256": "0" * 64}}]},
        {"predicate": []},
        {"predicateType": 1},
        {"more": 1},
    ],
)
def test_malformed_statements(change: dict[str, Any]) -> None:
    payload = canonical.encode({**STATEMENT, **change})
    refused("STATEMENT_MALFORMED", lambda: dsse.read_statement(payload))
    refused("STATEMENT_MALFORMED", lambda: dsse.sign_person(payload, KEY, CERT))


def test_payload_that_is_not_canonical() -> None:
    refused("NOT_CANONICAL", lambda: dsse.sign_person(json.dumps(STATEMENT).encode(), KEY, CERT))
    refused("NOT_CANONICAL", lambda: dsse.read_statement(b'{"a":' * 2000 + b"1" + b"}" * 2000))


def test_subject_digest_is_checked_when_built() -> None:
    refused("STATEMENT_MALFORMED", lambda: dsse.statement("x", {}, [("a", "short")]))


def test_proto_round_trip() -> None:
    envelope = signed()
    assert dsse.envelope_from_proto(dsse.envelope_to_proto(envelope)) == envelope
    assert verify(dsse.envelope_from_proto(dsse.envelope_to_proto(envelope))).payload == PAYLOAD


def test_envelope_rebuilt_from_a_statement_verifies() -> None:
    envelope = signed()
    assert dsse.envelope_of(canonical.decode(PAYLOAD), envelope["signatures"]) == envelope


@pytest.mark.parametrize("position", range(0, 64, 7))
def test_any_flipped_signature_byte_is_refused(position: int) -> None:
    envelope = signed()
    sig = bytearray(base64.b64decode(envelope["signatures"][0]["sig"]))
    sig[position] ^= 1
    envelope["signatures"][0]["sig"] = b64(bytes(sig))
    with pytest.raises(IntegrityError):
        verify(envelope)


@given(st.text(max_size=40))
def test_base64_has_one_spelling(text: str) -> None:
    try:
        data = dsse.from_base64(text)
    except InvalidInputError:
        return
    assert text in (base64.b64encode(data).decode(), base64.urlsafe_b64encode(data).decode())


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)
    )
)
def test_any_json_is_refused_by_a_named_error(value: Any) -> None:
    with pytest.raises(AssayError):
        verify(value)
