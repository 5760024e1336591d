"""The verdict on a checkpoint's ML-DSA-44 line, by what the trust file asks for."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from assay.dsse import from_base64
from audit.ledger import evidence
from audit.ledger.ledger import Ledger
from audit.ledger.mldsa import MLDSAVerifier
from audit.ledger.note import ProofFile, SignedNote
from audit.ledger.writer import Sources
from audit.verify import Report
from audit.verify.permit import PermitVerdict, check_permit
from audit.verify.trust import TrustFile
from tests.audit.ledger.ledger_world import ADAPTER, BASE, ORIGIN, START, Story, World, b64, refused
from tests.audit.verify.test_bundle import failing, repack, report_on

KEY = MLDSA44PrivateKey.from_seed_bytes(hashlib.sha256(b"log ml-dsa").digest())
OTHER = MLDSA44PrivateKey.from_seed_bytes(hashlib.sha256(b"another ml-dsa").digest())


def line(key: MLDSA44PrivateKey, name: str = ORIGIN) -> str:
    return f"log-ml-dsa {MLDSAVerifier.of(name, key.public_key()).vkey()}\n"


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, str]:
    """A small bundle under a checkpoint with both lines, and the trust text without the second key."""
    world = World(tmp_path_factory.mktemp("pq"))
    sources = Sources(world.clock, world.nonces)
    world.ledger = Ledger(world.engine, ORIGIN, world.services["log"], world.anchor, post_quantum=KEY, sources=sources)
    Story(world.start()).found()
    data, text = world.export(), world.trust_text
    world.close()
    return data, text


def check(folder: Path, data: bytes, trust: str) -> Report:
    return report_on(folder, data, TrustFile.parse(trust))


def test_checked_when_the_trust_file_names_the_key(signed: tuple[bytes, str], tmp_path: Path) -> None:
    report = check(tmp_path, signed[0], signed[1] + line(KEY))
    assert report.verdict == "valid", failing(report)
    assert any("post-quantum" in c.name and "ML-DSA-44" in c.detail for c in report.checks)


def test_passed_over_and_said_so_when_it_does_not(signed: tuple[bytes, str], tmp_path: Path) -> None:
    report = check(tmp_path, signed[0], signed[1])
    assert report.verdict == "valid", failing(report)
    assert any(text.startswith("1 more signatures of the log") for text in report.not_checked)


def test_no_line_of_the_named_key_is_incomplete(signed: tuple[bytes, str], tmp_path: Path) -> None:
    report = check(tmp_path, signed[0], signed[1] + line(OTHER))
    assert report.verdict == "incomplete"
    assert "no line of the key" in failing(report)[0]


def with_note(data: bytes, note: bytes) -> bytes:
    """The bundle under another checkpoint note, by somebody who knows the format."""

    def change(files: dict[str, bytes]) -> None:
        files["checkpoint"] = note
        for path in [p for p in files if p.startswith("proofs/")]:
            proof = ProofFile.parse(files[path])
            files[path] = ProofFile(proof.index, proof.hashes, note).encode()

    return repack(data, change)


def test_a_line_taken_away_is_incomplete(signed: tuple[bytes, str], tmp_path: Path) -> None:
    note = SignedNote.parse(evidence.read_zip(signed[0])["checkpoint"])
    stripped = SignedNote(note.text, note.signatures[:1]).encode()
    assert check(tmp_path, with_note(signed[0], stripped), signed[1] + line(KEY)).verdict == "incomplete"


def test_a_forged_line_is_invalid(signed: tuple[bytes, str], tmp_path: Path) -> None:
    note = evidence.read_zip(signed[0])["checkpoint"]
    forged = bytearray(note)
    forged[-100] = ord("A") if forged[-100] != ord("A") else ord("B")
    report = check(tmp_path, with_note(signed[0], bytes(forged)), signed[1] + line(KEY))
    assert report.verdict == "invalid"
    assert "NOTE_SIGNATURE_BAD" in failing(report)[0]


@pytest.mark.parametrize("text", ["log-ml-dsa x\n", line(KEY, "other.example/log"), line(KEY) * 2])
def test_trust_lines_that_are_refused(signed: tuple[bytes, str], text: str) -> None:
    refused("TRUST_MALFORMED", lambda: TrustFile.parse(signed[1] + text))


def test_an_installation_with_a_second_key(tmp_path: Path) -> None:
    from assay import installation
    from assay.identity import load_mldsa44

    plan = installation.Plan(installation.DEFAULT_PEOPLE, "oscar", post_quantum=True)
    layout = installation.create(tmp_path / "bank", plan)
    trust = TrustFile.parse(layout.trust.read_text())
    made = load_mldsa44(layout.service("gateway") / "log-mldsa44.key")
    assert trust.log_ml_dsa == MLDSAVerifier.of(trust.origin, made.public_key())
    refused("KEY_TYPE", lambda: load_mldsa44(layout.service("gateway") / "log.key"))
    plain = installation.create(tmp_path / "plain", installation.Plan(installation.DEFAULT_PEOPLE, "oscar"))
    assert TrustFile.parse(plain.trust.read_text()).log_ml_dsa is None


def test_a_permit_needs_the_line_of_the_named_key(tmp_path: Path) -> None:
    world = World(tmp_path)
    sources = Sources(world.clock, world.nonces)
    world.ledger = Ledger(world.engine, ORIGIN, world.services["log"], world.anchor, post_quantum=KEY, sources=sources)
    message = Story(world.start()).whole().permit_message()
    plain, both, other = (TrustFile.parse(world.trust_text + text) for text in ("", line(KEY), line(OTHER)))
    world.close()

    def checked(trust: TrustFile, permit: dict[str, Any]) -> PermitVerdict:
        return check_permit(permit, ADAPTER, BASE, "replies", "staging", START, trust)

    assert checked(both, message).allowed
    assert any("1 more signatures of the log" in text for text in checked(plain, message).not_checked)
    note = SignedNote.parse(from_base64(message["checkpoint"]))
    stripped = {**message, "checkpoint": b64(SignedNote(note.text, note.signatures[:1]).encode())}
    assert checked(plain, stripped).allowed
    for trust, permit in ((both, stripped), (other, message)):
        assert "POST_QUANTUM_MISSING" in checked(trust, permit).reason
