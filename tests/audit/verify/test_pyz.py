"""The verifier as one file: what is in it, and that it runs where nothing is installed."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import cryptography
import pytest

from audit.verify import EXIT_CODES, pack
from audit.verify.trust import TrustFile
from tests.audit.verify.test_bundle import repack, without_record

Told = tuple[bytes, TrustFile, Path]


@pytest.fixture(scope="module")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file, in a folder of its own."""
    path = tmp_path_factory.mktemp("pyz") / "dist" / "assay-verify.pyz"
    pack.main(str(path))
    return path


def run(pyz: Path, *arguments: str, options: tuple[str, ...] = ("-I",)) -> subprocess.CompletedProcess[str]:
    """Runs it from another folder; -I ignores every path but the interpreter's own."""
    return subprocess.run(
        [sys.executable, *options, str(pyz), *arguments], cwd=pyz.parent, capture_output=True, text=True, check=False
    )


def test_it_verifies_a_real_bundle_from_another_folder(pyz: Path, told: Told, tmp_path: Path) -> None:
    (tmp_path / "b.zip").write_bytes(told[0])
    trust = ("--trust", str(told[2] / "trust.txt"))
    done = run(pyz, str(tmp_path / "b.zip"), *trust)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("verdict: VALID")
    broken = bytearray(told[0])
    broken[told[0].index(b'"statement"')] ^= 1
    (tmp_path / "b.zip").write_bytes(broken)
    assert run(pyz, str(tmp_path / "b.zip"), *trust).returncode == 1
    assert run(pyz, str(tmp_path / "absent.zip"), *trust).returncode == 2
    assert os.access(pyz, os.X_OK)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``cryptography``, what it is built on, and no other package."""
    folder = tmp_path_factory.mktemp("bare")
    site = Path(cryptography.__file__).parents[1]
    for part in [site / "cryptography", *site.glob("cffi"), *site.glob("_cffi_backend*"), *site.glob("pycparser")]:
        (folder / part.name).symlink_to(part)
    return folder


def test_every_verdict_on_a_bare_python(pyz: Path, bare: Path, told: Told, tmp_path: Path) -> None:
    """Standard library and ``cryptography``, each verdict with its own exit code, and what was not checked."""
    data, trust = told[0], told[2] / "trust.txt"
    broken = bytearray(data)
    broken[data.index(b'"statement"')] ^= 1
    (tmp_path / "old.txt").write_text(trust.read_text() + "max-age 60\n")
    bundles = {"whole": data, "broken": bytes(broken), "part": repack(data, without_record(20))}
    for name, content in bundles.items():
        (tmp_path / name).write_bytes(content)

    def verdict(bundle: str, file: Path, *more: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-S", str(pyz), str(tmp_path / bundle), "--trust", str(file), *more],
            cwd=bare, env={"PYTHONPATH": str(bare)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert not done.returncode == 2 or done.stderr, "wrong usage says what is wrong"
        assert done.returncode == 2 or "not checked:" in done.stdout, done.stderr
        return done.returncode, done.stdout.partition("\n")[0]

    assert verdict("whole", trust) == (0, "verdict: VALID")
    assert verdict("broken", trust) == (1, "verdict: INVALID")
    assert verdict("whole", tmp_path / "old.txt", "--now", "2030-01-01T00:00:00Z") == (3, "verdict: STALE")
    assert verdict("part", trust) == (4, "verdict: INCOMPLETE")
    assert verdict("absent", trust)[0] == verdict("whole", tmp_path / "absent.txt")[0] == 2
    assert [*EXIT_CODES.values()] == [0, 1, 3, 4, 5], "5 is tests/audit/verify/test_keys.py"


def test_equal_sources_give_equal_bytes(pyz: Path) -> None:
    assert pack.pack() == pyz.read_bytes()


def test_it_holds_the_verifier_and_the_pure_modules_and_nothing_else(pyz: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(pyz.read_bytes())) as archive:
        names = set(archive.namelist())
    ours = {n for n in names if not n.startswith("audit/verify/")}
    pure = ("commitment", "cosignature", "evidence", "mldsa", "note", "quorum", "records", "tree")
    ledger = {f"audit/ledger/{n}.py" for n in pure}
    foundation = (
        "__init__",
        "canonical",
        "certificates",
        "digests",
        "dp_sgd",
        "dsse",
        "errors",
        "key_events",
        "policy_text",
        "provenance",
        "webauthn",
    )
    assay = {f"assay/{n}.py" for n in foundation}
    assert ours == {"__main__.py", "audit/__init__.py", "audit/ledger/__init__.py", *ledger, *assay}


def test_without_cryptography_it_says_so_in_one_line(pyz: Path) -> None:
    done = run(pyz, "x", options=("-I", "-S"))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "pip install -U cryptography" in done.stderr


def test_with_too_old_a_cryptography_it_says_so_in_one_line(pyz: Path, tmp_path: Path) -> None:
    (tmp_path / "cryptography").mkdir()
    (tmp_path / "cryptography" / "__init__.py").write_text('__version__ = "38.0.4"\n')
    done = subprocess.run(
        [sys.executable, "-S", str(pyz), "x"],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "42 or later" in done.stderr
