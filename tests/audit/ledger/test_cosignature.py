"""Cosignatures: the public format, and every way in which a line can be wrong."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import struct

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from audit.ledger.cosignature import CosignatureVerifier, cosign, read_lines, with_lines
from audit.ledger.note import Checkpoint, NoteSignature, SignedNote, Verifier, open_checkpoint, sign_note
from tests.audit.ledger.ledger_world import ed25519, refused

AT = dt.datetime(2026, 11, 24, 12, 0, tzinfo=dt.UTC)
LOG, KEY = ed25519("log"), ed25519("witness")
NAME = "witness.example/w1"
TEXT = Checkpoint("example.org/log", 3, hashlib.sha256(b"root").digest()).text()
NOTE = SignedNote.parse(sign_note(TEXT, "example.org/log", LOG))
WITNESS = CosignatureVerifier.of(NAME, KEY.public_key())
GOOD = cosign(TEXT, NAME, KEY, AT)


def test_what_is_signed_is_the_specification_spelled_out() -> None:
    value = GOOD.value
    (seconds,) = struct.unpack(">Q", value[:8])
    KEY.public_key().verify(value[8:], b"cosignature/v1\ntime %d\n" % seconds + TEXT.encode())
    identity = hashlib.sha256(NAME.encode() + b"\n\x04" + KEY.public_key().public_bytes_raw()).digest()[:4]
    assert (seconds, GOOD.key_id, len(value)) == (int(AT.timestamp()), identity, 72)


def test_a_cosigned_note_still_opens_as_the_logs_and_keeps_its_text() -> None:
    note = with_lines(NOTE, [GOOD])
    log = Verifier.of("example.org/log", LOG.public_key())
    assert open_checkpoint(note.encode(), log).size == 3
    assert WITNESS.open(note) == AT
    assert read_lines(TEXT, GOOD.line().encode()) == (GOOD,)


def test_the_line_of_the_specification_has_the_shape_that_is_read_here() -> None:
    """The example of c2sp.org/tlog-cosignature; its key is not published, its shape and time are."""
    note = SignedNote.parse(
        (
            "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
            "— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+"
            "zyWE+xeMcTOAYQ8=\n"
            "— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5"
            "nNo0xUe+mbIUBkBIfZ+qnA==\n"
        ).encode()
    )
    line = note.signatures[1]
    assert len(line.value) == 72 and struct.unpack(">Q", line.value[:8]) == (1679315147,)


def test_public_vkeys_of_witnesses_read_back() -> None:
    """Key of a public witness, as transparency-dev/formats tests it."""
    vkey = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2"
    assert CosignatureVerifier.parse(vkey).vkey() == vkey


def vkey(name: str, kind: int, key: Ed25519PublicKey, identity: str = "") -> str:
    data = bytes([kind]) + key.public_bytes_raw()
    digest = identity or hashlib.sha256(name.encode() + b"\n" + data).digest()[:4].hex()
    return f"{name}+{digest}+{base64.b64encode(data).decode()}"


@pytest.mark.parametrize(
    "text",
    [
        vkey(NAME, 1, KEY.public_key()),
        vkey(NAME, 6, KEY.public_key()),
        vkey(NAME, 4, KEY.public_key(), "00000000"),
        vkey(NAME, 4, KEY.public_key())[:-1],
        vkey(NAME, 4, KEY.public_key()).upper(),
        vkey("a b", 4, KEY.public_key()),
        WITNESS.vkey() + "\n",
        "",
    ],
    ids=range(8),
)
def test_keys_that_are_no_witness_key(text: str) -> None:
    refused("VKEY_MALFORMED", lambda: CosignatureVerifier.parse(text))


def line_with(value: bytes, key: Ed25519PrivateKey = KEY) -> NoteSignature:
    return NoteSignature(NAME, CosignatureVerifier.of(NAME, key.public_key()).key_id, value)


def stamped(seconds: int) -> bytes:
    return struct.pack(">Q", seconds) + KEY.sign(f"cosignature/v1\ntime {seconds}\n{TEXT}".encode())


@pytest.mark.parametrize(
    "line",
    [
        line_with(struct.pack(">Q", int(AT.timestamp()) + 1) + GOOD.value[8:]),
        line_with(GOOD.value[:-1] + bytes([GOOD.value[-1] ^ 1])),
        line_with(GOOD.value[8:]),
        line_with(GOOD.value + b"\0"),
        line_with(GOOD.value[:8] + KEY.sign(TEXT.encode())),
        line_with(GOOD.value[:8] + LOG.sign(f"cosignature/v1\ntime {int(AT.timestamp())}\n{TEXT}".encode())),
        line_with(stamped(0)),
        line_with(stamped(2**63)),
        cosign(TEXT.replace("\n3\n", "\n4\n"), NAME, KEY, AT),
    ],
    ids=["time", "bit", "no time", "long", "plain note signature", "other key", "time 0", "time 2^63", "other text"],
)
def test_lines_that_do_not_verify(line: NoteSignature) -> None:
    refused("COSIGNATURE_BAD", lambda: WITNESS.open(with_lines(NOTE, [line])))


def test_two_lines_of_one_witness_are_refused() -> None:
    doubled = SignedNote(TEXT, (*NOTE.signatures, GOOD, cosign(TEXT, NAME, KEY, AT + dt.timedelta(1))))
    refused("NOTE_SIGNATURE_BAD", lambda: WITNESS.open(doubled))


def test_a_line_of_another_name_or_key_is_not_this_witness() -> None:
    other = cosign(TEXT, "other.example/w", KEY, AT)
    stranger = cosign(TEXT, NAME, ed25519("stranger"), AT)
    assert WITNESS.open(with_lines(NOTE, [other, stranger])) is None


def test_a_newer_line_replaces_the_older_one() -> None:
    newer = cosign(TEXT, NAME, KEY, AT + dt.timedelta(hours=1))
    note = with_lines(with_lines(NOTE, [GOOD]), [newer])
    assert len(note.signatures) == 2 and WITNESS.open(note) == AT + dt.timedelta(hours=1)
