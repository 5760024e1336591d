from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.errors import AssayError
from audit.ledger import tree
from audit.ledger.note import Checkpoint, ProofFile, Verifier, open_checkpoint, open_note, sign_note
from tests.audit.ledger.ledger_world import ed25519, refused

V: dict[str, Any] = json.loads((Path(__file__).parents[2] / "data/vectors/note_vectors.json").read_text("utf-8"))
KEY = ed25519("note")
LOG = Verifier.of("example.org/log", KEY.public_key())
ROOT = base64.b64encode(b"r" * 32).decode()
TEXT = f"example.org/log\n7\n{ROOT}\n"


def note(text: str = TEXT) -> bytes:
    return sign_note(text, LOG.name, KEY)


@pytest.mark.parametrize("case", V["notes"], ids=lambda c: c["desc"])
def test_upstream_notes_open(case: dict[str, Any]) -> None:
    opened = open_note(case["note"].encode(), [Verifier.parse(v) for v in case["vkeys"]])
    assert [name.rpartition("+")[0] for name in case["verified_by"]] == list(opened.signers)


def test_upstream_checkpoints_are_of_their_entries() -> None:
    leaves = [tree.leaf_hash(word.encode()) for word in V["tessera_entries_utf8"]]
    seen = 0
    for case in V["notes"]:
        if "Tessera" in case["desc"]:
            checkpoint = open_checkpoint(case["note"].encode(), Verifier.parse(case["vkeys"][0]))
            assert checkpoint.root == tree.root_of(leaves[: checkpoint.size])
            seen += 1
    assert seen == 16


VKEY = V["notes"][1]["vkeys"][0]


def test_verifier_keys_that_must_be_refused() -> None:
    bad = [VKEY[:i] for i in range(len(VKEY))] + [VKEY[i:] for i in range(1, len(VKEY))]
    for i in range(len(VKEY)):
        data = bytearray(VKEY.encode())
        data[i] += 1
        bad.append(data.decode("latin-1"))
    bad += V["must_reject"][2:]
    for text in bad:
        refused("VKEY_MALFORMED", lambda t=text: Verifier.parse(t))


def test_verifier_key_round_trip() -> None:
    assert Verifier.parse(LOG.vkey()).vkey() == LOG.vkey()
    assert Verifier.parse(VKEY).vkey() == VKEY


def test_checkpoint_round_trip() -> None:
    checkpoint = open_checkpoint(note(), LOG)
    assert checkpoint == Checkpoint("example.org/log", 7, b"r" * 32)
    assert checkpoint.text() == TEXT


@pytest.mark.parametrize(
    "text",
    [
        f"example.org/log\n007\n{ROOT}\n",
        f"example.org/log\n1_000\n{ROOT}\n",
        f"example.org/log\n-5\n{ROOT}\n",
        f"example.org/log\n+5\n{ROOT}\n",
        f"example.org/log\n٣\n{ROOT}\n",
        f"example.org/log\n 7\n{ROOT}\n",
        f"example.org/log\n\n{ROOT}\n",
        f"example.org/log\n9223372036854775808\n{ROOT}\n",
        f"example.org/log\n{'9' * 5000}\n{ROOT}\n",
        f"example.org/log\n7\n{ROOT[:-2]}t=\n",
        f"example.org/log\n7\n{ROOT.rstrip('=')}\n",
        f"example.org/log\n7\n{base64.b64encode(b'r' * 31).decode()}\n",
        f"example.org/log\n7\n{base64.urlsafe_b64encode(bytes([255]) * 32).decode()}\n",
        f"example.org/log\n7\n{ROOT}\nextension\n",
        f"example.org/log\n7\n{ROOT}\n\n",
        "example.org/log\n7\n",
        f"\n7\n{ROOT}\n",
    ],
)
def test_attack_14_checkpoint_abuse(text: str) -> None:
    refused("CHECKPOINT_MALFORMED", lambda: open_checkpoint(note(text), LOG))


def test_another_origin_is_refused() -> None:
    refused("CHECKPOINT_ORIGIN", lambda: open_checkpoint(note(f"other.org/log\n7\n{ROOT}\n"), LOG))


LINE = note().decode().split("\n\n")[1]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        TEXT.encode(),
        note()[:-1],
        note() + b"\n",
        note().replace(b"\n", b"\r\n"),
        note().replace(b"example.org/log\n7", b"example.org/log\t\n7"),
        note() + b"\xff",
        f"{TEXT}\n".encode(),
        f"{TEXT}\n{LINE}trailing".encode(),
        f"{TEXT}\n{LINE.replace('— ', '- ')}".encode(),
        f"{TEXT}\n{LINE.replace('— ', '—  ')}".encode(),
        f"{TEXT}\n— example.org/log AAAA\n".encode(),
        f"{TEXT}\n— example.org/log {'A' * 7}\n".encode(),
        f"{TEXT}\n— a+b AAAAAAAA\n".encode(),
        (TEXT + "\n" + LINE * 65).encode(),
        (TEXT + "\n" + "— x AAAAAAAA\n" * 1_000_000).encode(),
    ],
)
def test_attack_14_malformed_notes(data: bytes) -> None:
    refused("NOTE_MALFORMED", lambda: open_note(data, [LOG]))


def test_unknown_signatures_are_ignored_but_one_known_is_needed() -> None:
    strangers = "— witness.example AAAAAAAA\n" * 16
    assert open_note(note() + strangers.encode(), [LOG]).signers == (LOG.name,)
    refused("NOTE_SIGNATURE_BAD", lambda: open_note(f"{TEXT}\n{strangers}".encode(), [LOG]))


def test_attack_9_another_key_of_the_same_name() -> None:
    forged = sign_note(TEXT, LOG.name, ed25519("attacker"))
    refused("NOTE_SIGNATURE_BAD", lambda: open_note(forged, [LOG]))


def test_a_bad_signature_by_a_known_key_refuses_the_note() -> None:
    other = Verifier.of("witness.example", ed25519("witness").public_key())
    forged = base64.b64encode(other.key_id + b"x" * 64).decode()
    both = note() + f"— {other.name} {forged}\n".encode()
    assert open_note(both, [LOG]).signers == (LOG.name,)
    refused("NOTE_SIGNATURE_BAD", lambda: open_note(both, [LOG, other]))


def test_two_signatures_of_one_key() -> None:
    refused("NOTE_SIGNATURE_BAD", lambda: open_note((TEXT + "\n" + LINE * 2).encode(), [LOG]))


def test_text_may_hold_blank_lines() -> None:
    text = "one\n\ntwo\n"
    assert open_note(sign_note(text, LOG.name, KEY), [LOG]).text == text


@pytest.mark.parametrize("text", ["", "no newline", "tab\there\n", "nul\0\n"])
def test_texts_that_cannot_be_signed(text: str) -> None:
    refused("NOTE_MALFORMED", lambda: note(text))


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u00a0b", "a\nb"])
def test_names_that_cannot_sign(name: str) -> None:
    refused("NOTE_MALFORMED", lambda: sign_note(TEXT, name, KEY))


def test_every_flipped_byte_of_a_note_is_refused() -> None:
    good = note()
    for position in range(len(good)):
        for bit in (0, 5):
            data = bytearray(good)
            data[position] ^= 1 << bit
            with pytest.raises(AssayError):
                open_checkpoint(bytes(data), LOG)


PROOF = ProofFile(3, (b"a" * 32, b"b" * 32), note())


def test_proof_file_round_trip() -> None:
    assert ProofFile.parse(PROOF.encode()) == PROOF
    assert ProofFile.parse(ProofFile(0, (), note()).encode()).hashes == ()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"tlog-proof@v1", b"tlog-proof@v2"),
        (b"index 3", b"index 03"),
        (b"index 3", b"index  3"),
        (b"index 3", b"extra AAAA\nindex 3"),
        (b"index 3\n", b""),
        (b"index 3\n", b"index 3\r\n"),
        (b"index 3\n", b"index 3\n" + base64.b64encode(b"c" * 31) + b"\n"),
        (b"index 3\n", b"index 3\n" + (base64.b64encode(b"c" * 32) + b"\n") * 70),
        (b"\n\n", b"\n"),
    ],
)
def test_malformed_proof_files(old: bytes, new: bytes) -> None:
    data = PROOF.encode()
    head, blank, rest = data.partition(b"\n\n")
    if old == b"\n\n":
        changed = head + rest.replace(b"\n\n", b"\n")
    else:
        changed = (
            head.replace(old, new) + blank + rest
            if old in head
            else (head + b"\n").replace(old, new)[:-1] + blank + rest
        )
    assert changed != data
    refused("PROOF_MALFORMED", lambda: ProofFile.parse(changed))


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_parsers_refuse_noise_by_name(data: bytes) -> None:
    for parse in (lambda: open_note(data, [LOG]), lambda: ProofFile.parse(data)):
        with pytest.raises(AssayError):
            parse()


@settings(max_examples=200)
@given(st.text(max_size=60))
def test_vkey_parser_refuses_noise_by_name(text: str) -> None:
    refused("VKEY_MALFORMED", lambda: Verifier.parse(text))
