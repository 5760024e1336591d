"""Key events are strangers' JSON until they are checked: whatever is wrong with them is refused by name."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assay import key_events
from assay.errors import AssayError
from assay.key_events import Compromise, Roots, Rotation
from tests.audit.ledger.ledger_world import (
    ORIGIN,
    START,
    authority,
    b64,
    ed25519,
    p256,
    person_certificate,
    refused,
    subject,
)

PEOPLE, SERVICES = authority("people root"), authority("services root")
ROOTS = Roots(PEOPLE[1], SERVICES[1])
OLD, NEW = ed25519("permit"), ed25519("permit 2")


def raw(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


ROTATION = key_events.rotation_statement(ORIGIN, "permit", raw(OLD), raw(NEW), NEW)
COMPROMISE = key_events.compromise_statement(ORIGIN, "permit", raw(OLD), 3)


def read(statement: dict[str, Any]) -> key_events.Event:
    return key_events.read(statement, ORIGIN, ROOTS, START)


def changed(statement: dict[str, Any], **members: Any) -> dict[str, Any]:
    made = copy.deepcopy(statement)
    made["predicate"] |= members
    return made


def test_what_was_built_reads_back() -> None:
    rotation, compromise = read(ROTATION), read(COMPROMISE)
    assert isinstance(rotation, Rotation) and (rotation.old.material, rotation.new.material) == (raw(OLD), raw(NEW))
    assert isinstance(compromise, Compromise) and (compromise.public.material, compromise.since_index) == (raw(OLD), 3)


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"event_id": ""}, "KEY_EVENT"),
        ({"event_id": 1}, "KEY_EVENT"),
        ({"extra": "x"}, "KEY_EVENT"),
        ({"origin": "other/log"}, "OTHER_LOG"),
        ({"key": "log"}, "KEY_UNKNOWN"),
        ({"key": "spiffe://assay.local/services/gateway"}, "KEY_UNKNOWN"),
        ({"key": "train-worker"}, "KEY_PROOF"),
        ({"key": subject("vik")}, "KEY_MALFORMED"),
        ({"old": "!"}, "KEY_MALFORMED"),
        ({"new": b64(bytes(31))}, "KEY_MALFORMED"),
        ({"new": b64(raw(ed25519("thief")))}, "KEY_PROOF"),
        ({"old": b64(raw(ed25519("thief")))}, "KEY_PROOF"),
        ({"event_id": "0" * 32}, "KEY_PROOF"),
        ({"proof": "AAAA"}, "KEY_PROOF"),
        ({"proof": "!"}, "KEY_PROOF"),
    ],
)
def test_rotations_that_are_none(members: dict[str, Any], reason: str) -> None:
    refused(reason, lambda: read(changed(ROTATION, **members)))


@pytest.mark.parametrize("since", [-1, True, "3", None, 2.0])
def test_since_is_an_index(since: Any) -> None:
    refused("KEY_EVENT", lambda: read(changed(COMPROMISE, since_index=since)))


def test_the_proof_of_one_event_is_no_signature_of_anything_else() -> None:
    """A service's key signs statements under another type, so that neither can pose as the other."""
    proof = key_events.dsse.from_base64(ROTATION["predicate"]["proof"])
    payload = key_events.canonical.encode({k: v for k, v in ROTATION["predicate"].items() if k != "proof"})
    with pytest.raises(InvalidSignature):
        NEW.public_key().verify(proof, key_events.dsse.pae(key_events.dsse.PAYLOAD_TYPE, payload))


@pytest.mark.parametrize(
    ("name", "root", "uri", "reason"),
    [
        (subject("vik"), PEOPLE, subject("vik"), ""),
        (subject("vik"), PEOPLE, subject("cora"), "CERTIFICATE_BAD"),
        (subject("vik"), SERVICES, subject("vik"), "CERTIFICATE_BAD"),
        ("pdf", SERVICES, "spiffe://assay.local/services/gateway/cards", ""),
        ("pdf", PEOPLE, "spiffe://assay.local/services/gateway/cards", "CERTIFICATE_BAD"),
    ],
)
def test_certificates_of_successors(name: str, root: Any, uri: str, reason: str) -> None:
    old = person_certificate(p256("old"), [uri if not reason else name], SERVICES if name == "pdf" else PEOPLE)
    key = p256("new")
    new = person_certificate(key, [uri], root)
    statement = key_events.rotation_statement(ORIGIN, name, der(old), der(new), key)
    if reason:
        refused(reason, lambda: read(statement))
    else:
        assert isinstance(read(statement), Rotation)


def test_the_old_certificate_may_have_run_out_and_the_new_one_may_not() -> None:
    past = {"begin": START.replace(year=2025, month=12), "end": START.replace(month=1)}
    key = p256("new")
    expired = person_certificate(p256("old"), [subject("vik")], PEOPLE, **past)
    fresh = person_certificate(key, [subject("vik")], PEOPLE)
    name = subject("vik")
    assert read(key_events.rotation_statement(ORIGIN, name, der(expired), der(fresh), key))
    expired = person_certificate(key, [name], PEOPLE, **past)
    refused("CERTIFICATE_BAD", lambda: read(key_events.rotation_statement(ORIGIN, name, der(fresh), der(expired), key)))


JUNK = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=40), st.lists(st.text(), max_size=2))


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from([ROTATION, COMPROMISE]),
    st.sampled_from(["event_id", "origin", "key", "old", "new", "proof", "public", "since_index"]),
    st.one_of(JUNK, st.binary(max_size=400).map(b64)),
)
def test_any_member_replaced_is_refused_by_name_or_reads(statement: dict[str, Any], member: str, value: Any) -> None:
    try:
        event = read(changed(statement, **{member: value}))
    except AssayError as error:
        assert error.reason in {"KEY_EVENT", "OTHER_LOG", "KEY_UNKNOWN", "KEY_MALFORMED", "KEY_PROOF"}
        return
    assert isinstance(event, Compromise) or statement["predicate"][member] == value


def test_every_flipped_bit_outside_of_what_a_certificate_signs_is_refused() -> None:
    """Among them the count of padding bits of its signature, which is checked where the last bits happen to be zero."""
    key = p256("new")
    certificate = next(
        c for _ in range(64) if not (c := person_certificate(key, [subject("vik")], PEOPLE)).signature[-1] & 1
    )
    good = der(certificate)
    for at in range(good.index(certificate.tbs_certificate_bytes) + len(certificate.tbs_certificate_bytes), len(good)):
        for bit in range(8):
            bad = good[:at] + bytes([good[at] ^ (1 << bit)]) + good[at + 1 :]
            with pytest.raises(AssayError) as caught:
                read(key_events.rotation_statement(ORIGIN, subject("vik"), good, bad, key))
            assert caught.value.reason in {"KEY_MALFORMED", "CERTIFICATE_BAD"}


@settings(max_examples=200)
@given(st.data())
def test_a_flipped_certificate_is_refused_by_name(data: st.DataObject) -> None:
    key = p256("new")
    good = der(person_certificate(key, [subject("vik")], PEOPLE))
    at = data.draw(st.integers(0, len(good) - 1))
    bad = good[:at] + bytes([good[at] ^ data.draw(st.integers(1, 255))]) + good[at + 1 :]
    with pytest.raises(AssayError) as caught:
        read(key_events.rotation_statement(ORIGIN, subject("vik"), good, bad, key))
    assert caught.value.reason in {"KEY_MALFORMED", "CERTIFICATE_BAD", "KEY_PROOF"}
