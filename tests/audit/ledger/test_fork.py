"""Two notes of one log side by side, and the evidence that they leave."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from audit.ledger import fork
from audit.ledger.fork import Evidence
from audit.ledger.note import sign_note
from tests.audit.ledger.ledger_world import START, ed25519, refused
from tests.audit.ledger.witness_world import LOG, LOG_KEY, ORIGIN, MemoryLog, leaf

TRUE, FALSE = MemoryLog("true", 9, shared=2), MemoryLog("false", 9, shared=2)


@pytest.mark.parametrize(
    ("first", "second", "proof", "verdict"),
    [
        (TRUE.note(9), TRUE.note(9), None, "SAME"),
        (TRUE.note(2), FALSE.note(2), None, "SAME"),
        (TRUE.note(9), FALSE.note(9), None, "SPLIT_VIEW"),
        (TRUE.note(3), FALSE.note(3), None, "SPLIT_VIEW"),
        (TRUE.note(3), TRUE.note(9), TRUE.proof(3), "PREFIX"),
        (TRUE.note(9), TRUE.note(3), TRUE.proof(3), "PREFIX"),
        (TRUE.note(0), FALSE.note(9), None, "PREFIX"),
        (TRUE.note(3), FALSE.note(9), FALSE.proof(3), "INCONSISTENT"),
        (TRUE.note(3), TRUE.note(9), [], "INCONSISTENT"),
        (TRUE.note(3), TRUE.note(9), [leaf("x", 1)] * 63, "INCONSISTENT"),
    ],
    ids=range(10),
)
def test_compare(first: bytes, second: bytes, proof: list[bytes] | None, verdict: str) -> None:
    assert fork.compare(first, second, [LOG], proof) == verdict


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        (TRUE.note(3), FALSE.note(9), "PROOF_NEEDED"),
        (TRUE.note(3), TRUE.note(3, key=ed25519("thief")), "NOTE_SIGNATURE_BAD"),
        (TRUE.note(3).replace(b"\n3\n", b"\n4\n"), TRUE.note(3), "NOTE_SIGNATURE_BAD"),
        (TRUE.note(3), sign_note("other\n3\n" + "A" * 43 + "=\n", ORIGIN, LOG_KEY), "NOTES_OF_TWO_LOGS"),
        (TRUE.note(3), b"", "NOTE_MALFORMED"),
        (TRUE.note(3), b"\xff" * 100, "NOTE_MALFORMED"),
        (TRUE.note(3), b"x" * 70_000, "NOTE_MALFORMED"),
        (TRUE.note(3), sign_note(f"{ORIGIN}\n3\n", ORIGIN, LOG_KEY), "CHECKPOINT_MALFORMED"),
    ],
    ids=range(8),
)
def test_what_cannot_be_compared(first: bytes, second: bytes, reason: str) -> None:
    refused(reason, lambda: fork.compare(first, second, [LOG]))


def found(kind: str = "SPLIT_VIEW") -> Evidence:
    return Evidence(kind, ORIGIN, START, (TRUE.note(9), FALSE.note(9)), (leaf("x", 1),), "seen at a café")


def test_evidence_reads_back_and_convinces_by_itself(tmp_path: Path) -> None:
    path = found().write(tmp_path / "e")
    assert path.stat().st_mode & 0o777 == 0o600
    read = Evidence.parse(path.read_bytes())
    assert read == found() and fork.proves_split(read, [LOG]) and fork.found_in(tmp_path / "e") == [path]
    later = Evidence(read.kind, read.origin, START + dt.timedelta(1), read.notes)
    assert later.write(tmp_path / "e") == path and Evidence.parse(path.read_bytes()) == found(), "written once"


@pytest.mark.parametrize(
    "notes",
    [
        (TRUE.note(9), TRUE.note(9)),
        (TRUE.note(3), FALSE.note(9)),
        (TRUE.note(9), FALSE.note(9, key=ed25519("thief"))),
        (b"", b""),
    ],
    ids=range(4),
)
def test_what_proves_nothing(notes: tuple[bytes, bytes]) -> None:
    assert not fork.proves_split(Evidence("SPLIT_VIEW", ORIGIN, START, notes), [LOG])


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b"{}", b"null", b"\xff", b"[" * 100_000, found().encode()[:-5],
        found().encode().replace(b'"notes": [', b'"notes": ["x", '),
        found().encode().replace(b'"found": "2026', b'"found": "X026'),
        found().encode().replace(b'"proof": [', b'"proof": ["AAAA", '),
        found().encode().replace(b'"kind"', b'"kin"'),
        found().encode().replace(b"SPLIT_VIEW", b"split_view"),
        found().encode().replace(b"SPLIT_VIEW", b"../../escaped/x"),
    ],
    ids=range(13),
)  # fmt: skip
def test_evidence_that_cannot_be_read(data: bytes) -> None:
    refused("EVIDENCE_MALFORMED", lambda: Evidence.parse(data))


def test_a_proof_that_failed_stops_no_log(tmp_path: Path) -> None:
    found("INCONSISTENT").write(tmp_path)
    assert fork.found_in(tmp_path) == []
