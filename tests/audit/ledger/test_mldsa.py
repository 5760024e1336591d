"""The ML-DSA-44 line of a checkpoint: c2sp.org/tlog-cosignature, signature type 0x06."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import struct
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.errors import IntegrityError
from audit.ledger.ledger import Ledger
from audit.ledger.mldsa import MLDSAVerifier, cosigned_message, sign_line
from audit.ledger.note import Checkpoint, NoteSignature, SignedNote, open_checkpoint, sign_note
from audit.ledger.signer import LogSigner
from audit.ledger.writer import Sources
from tests.audit.ledger.ledger_world import ORIGIN, START, World, ed25519, refused

KEY = MLDSA44PrivateKey.from_seed_bytes(hashlib.sha256(b"log ml-dsa").digest())
OTHER = MLDSA44PrivateKey.from_seed_bytes(hashlib.sha256(b"another ml-dsa").digest())
VERIFIER = MLDSAVerifier.of(ORIGIN, KEY.public_key())
CHECKPOINT = Checkpoint(ORIGIN, 7, b"r" * 32)
SIGNER = LogSigner(ORIGIN, ed25519("log"), KEY)
NOTE = SIGNER.sign(CHECKPOINT, START)


def test_the_signed_bytes_are_those_of_the_specification() -> None:
    """Spelt out by hand: label, opaque name, time, opaque origin, start, end, hash."""
    name = ORIGIN.encode()
    by_hand = b"subtree/v1\n\0" + bytes([len(name)]) + name + (1700000000).to_bytes(8) + bytes([len(name)]) + name
    by_hand += bytes(8) + (7).to_bytes(8) + b"r" * 32
    assert cosigned_message(ORIGIN, 1700000000, CHECKPOINT) == by_hand
    identity = hashlib.sha256(name + b"\n\x06" + KEY.public_key().public_bytes_raw()).digest()[:4]
    line = SignedNote.parse(NOTE).signatures[1]
    assert (line.name, line.key_id, len(line.value)) == (ORIGIN, identity, 8 + 2420)
    assert struct.unpack(">Q", line.value[:8])[0] == int(START.timestamp())
    KEY.public_key().verify(line.value[8:], cosigned_message(ORIGIN, int(START.timestamp()), CHECKPOINT))


def test_both_lines_verify_and_who_knows_only_ed25519_still_reads_it() -> None:
    assert open_checkpoint(NOTE, SIGNER.verifier) == CHECKPOINT
    assert VERIFIER.open(SignedNote.parse(NOTE), CHECKPOINT) == START
    assert SignedNote.parse(NOTE).encode() == NOTE
    assert len(NOTE) < 4096


def test_key_text_round_trip() -> None:
    assert MLDSAVerifier.parse(VERIFIER.vkey()) == VERIFIER
    assert VERIFIER.vkey().startswith(f"{ORIGIN}+{VERIFIER.key_id.hex()}+Bh")


def test_no_line_is_none_not_an_error() -> None:
    plain = SignedNote.parse(sign_note(CHECKPOINT.text(), ORIGIN, ed25519("log")))
    assert VERIFIER.open(plain, CHECKPOINT) is None


@pytest.mark.parametrize(
    ("line", "checkpoint"),
    [
        (sign_line(CHECKPOINT, ORIGIN, KEY, START), Checkpoint(ORIGIN, 8, b"r" * 32)),
        (sign_line(CHECKPOINT, ORIGIN, KEY, START), Checkpoint(ORIGIN, 7, b"s" * 32)),
        (sign_line(CHECKPOINT, ORIGIN, KEY, START), Checkpoint("other.example/log", 7, b"r" * 32)),
        (sign_line(CHECKPOINT, ORIGIN, OTHER, START), CHECKPOINT),
        (sign_line(CHECKPOINT, "other.example/log", KEY, START), CHECKPOINT),
    ],
    ids=["size", "root", "origin", "key", "cosigner"],
)
def test_a_line_for_something_else_is_refused(line: NoteSignature, checkpoint: Checkpoint) -> None:
    claimed = NoteSignature(ORIGIN, VERIFIER.key_id, line.value)
    refused("NOTE_SIGNATURE_BAD", lambda: VERIFIER.open(SignedNote("x\n", (claimed,)), checkpoint))


def with_value(value: bytes) -> SignedNote:
    return SignedNote("x\n", (NoteSignature(ORIGIN, VERIFIER.key_id, value),))


@pytest.mark.parametrize(
    "change",
    [
        lambda v: b"",
        lambda v: v[:-1],
        lambda v: v + b"x",
        lambda v: bytes(8) + v[8:],
        lambda v: b"\xff" * 8 + v[8:],
        lambda v: v[:8] + bytes(2420),
    ],
    ids=["empty", "short", "long", "no time", "time beyond all", "zeros"],
)
def test_a_malformed_value_is_refused(change: object) -> None:
    value = SignedNote.parse(NOTE).signatures[1].value
    refused("NOTE_SIGNATURE_BAD", lambda: VERIFIER.open(with_value(change(value)), CHECKPOINT))  # type: ignore[operator]


def test_two_lines_of_one_key_are_refused() -> None:
    line = SignedNote.parse(NOTE).signatures[1]
    refused("NOTE_SIGNATURE_BAD", lambda: VERIFIER.open(SignedNote("x\n", (line, line)), CHECKPOINT))


@settings(max_examples=60)
@given(st.integers(0, 8 + 2420 - 1), st.integers(0, 7))
def test_any_flipped_bit_of_the_line_is_refused(position: int, bit: int) -> None:
    value = bytearray(SignedNote.parse(NOTE).signatures[1].value)
    value[position] ^= 1 << bit
    with pytest.raises(IntegrityError):
        VERIFIER.open(with_value(bytes(value)), CHECKPOINT)


VKEY = VERIFIER.vkey()


@pytest.mark.parametrize(
    "text",
    [
        "",
        VKEY[:-4],
        VKEY + "AAAA",
        VKEY.replace("+Bh", "+AR"),
        VKEY.replace(ORIGIN, ORIGIN + "x", 1),
        VKEY.replace(VERIFIER.key_id.hex(), "00000000"),
        f"{ORIGIN}+{VERIFIER.key_id.hex()}+{base64.b64encode(b'x' * 33).decode()}",
    ],
    ids=range(7),
)
def test_keys_that_are_refused(text: str) -> None:
    refused("VKEY_MALFORMED", lambda: MLDSAVerifier.parse(text))


def test_a_name_beyond_255_bytes_cannot_cosign() -> None:
    refused("NOTE_MALFORMED", lambda: MLDSAVerifier.of("x" * 256, KEY.public_key()))


def test_a_ledger_signs_every_checkpoint_twice_and_starts_again_with_and_without(tmp_path: Path) -> None:
    world = World(tmp_path)
    for second in (KEY, None, KEY):
        sources = Sources(world.clock, world.nonces)
        ledger = Ledger(world.engine, ORIGIN, world.services["log"], world.anchor, post_quantum=second, sources=sources)
        ledger.start()
        world.ledger = ledger
        world.append_one()
        note = SignedNote.parse(ledger.checkpoint())
        assert open_checkpoint(ledger.checkpoint(), SIGNER.verifier).size == ledger.size
        made = VERIFIER.open(note, Checkpoint.parse(note.text))
        assert (made is None) == (second is None)
        assert made is None or abs(made - START) < dt.timedelta(seconds=2)
        ledger.close()
    world.engine.dispose()
