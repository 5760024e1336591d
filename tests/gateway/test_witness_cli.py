"""``assay witness init`` and ``assay audit compare`` as typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from audit.ledger.quorum import QuorumPolicy
from audit.ledger.witness.settings import WitnessSettings
from gateway.cli.app import app
from tests.audit.ledger.ledger_world import World
from tests.audit.ledger.witness_world import LOG, MemoryLog

TRUE, FALSE = MemoryLog("true", 9), MemoryLog("false", 9)


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(words))
    return done.exit_code, done.output


@pytest.fixture
def trust(tmp_path: Path) -> str:
    world = World(tmp_path / "world" if (tmp_path / "world").mkdir() is None else tmp_path)
    path = tmp_path / "trust.txt"
    path.write_text(world.trust_text)
    return str(path)


def note(tmp_path: Path, name: str, data: bytes) -> str:
    (tmp_path / name).write_bytes(data)
    return str(tmp_path / name)


def test_a_witness_for_another_party(tmp_path: Path, trust: str) -> None:
    folder = tmp_path / "w"
    words = ["witness", "init", str(folder), "--name", "regulator.example/w1", "--log", LOG.vkey(),
             "--transport", "tls", "--host", "w.example", "--output", "json"]  # fmt: skip
    code, text = run(*words)
    made = json.loads(text)
    assert code == 0 and made["url"] == "https://w.example:7448"
    policy = QuorumPolicy.parse(f"witness r {made['vkey']} {made['url']}\nquorum r\n")
    assert policy.witnesses["r"].verifier.name == WitnessSettings.load(folder).name == "regulator.example/w1"
    assert run(*words)[0] == 7


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--name", "w", "--log", "rubbish", "--transport", "tls"], 3),
        (["--name", "two words", "--log", LOG.vkey(), "--transport", "tls"], 3),
        (["--name", "w", "--log", LOG.vkey()], 3),
        (["--name", "w"], 2),
    ],
    ids=["log", "name", "no clients root", "no log"],
)
def test_a_witness_that_cannot_be_made(tmp_path: Path, words: list[str], code: int) -> None:
    assert run("witness", "init", str(tmp_path / "w"), *words)[0] == code
    assert not (tmp_path / "w").exists()


def test_serving_a_folder_that_is_no_witness(tmp_path: Path) -> None:
    code, text = run("witness", "serve", str(tmp_path))
    assert code == 3 and "assay witness init" in text


def test_split_view_attack_12_by_gossip(tmp_path: Path, trust: str) -> None:
    mine, theirs = note(tmp_path, "a", TRUE.note()), note(tmp_path, "b", FALSE.note())
    evidence = tmp_path / "evidence"
    code, text = run("audit", "compare", mine, theirs, "--trust", trust, "--evidence", str(evidence))
    assert code == 10 and "SPLIT_VIEW" in text
    (path,) = evidence.iterdir()
    assert json.loads(path.read_text())["notes"] == [TRUE.note().decode(), FALSE.note().decode()]


@pytest.mark.parametrize(
    ("first", "second", "proof", "code", "word"),
    [
        (TRUE.note(), TRUE.note(), None, 0, "SAME"),
        (TRUE.note(3), TRUE.note(), TRUE.proof(3), 0, "PREFIX"),
        (TRUE.note(3), FALSE.note(), FALSE.proof(3), 10, "INCONSISTENT"),
        (TRUE.note(3), TRUE.note(), None, 3, "PROOF_NEEDED"),
        (TRUE.note(3), b"rubbish", None, 3, "NOTE_MALFORMED"),
        (TRUE.note(3), b"x" * 100_000, None, 3, "NOTE_MALFORMED"),
        (TRUE.note(3), TRUE.note(3).replace(b"\n3\n", b"\n4\n"), None, 10, "NOTE_SIGNATURE_BAD"),
    ],
    ids=range(7),
)
def test_comparing(
    tmp_path: Path, trust: str, first: bytes, second: bytes, proof: list[bytes] | None, code: int, word: str
) -> None:
    from audit.ledger.evidence import consistency_text

    words = ["audit", "compare", note(tmp_path, "a", first), note(tmp_path, "b", second), "--trust", trust,
             "--evidence", str(tmp_path / "e")]  # fmt: skip
    if proof is not None:
        words += ["--proof", note(tmp_path, "p", consistency_text(proof))]
    got, text = run(*words)
    assert got == code and word in text
    assert (tmp_path / "e").exists() is (word == "INCONSISTENT")
