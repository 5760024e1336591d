"""The verifier as one file: what is in it, and that it runs where nothing is installed."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from audit.verify import pack
from audit.verify.trust import TrustFile

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


def test_equal_sources_give_equal_bytes(pyz: Path) -> None:
    assert pack.pack() == pyz.read_bytes()


def test_it_holds_the_verifier_and_the_pure_modules_and_nothing_else(pyz: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(pyz.read_bytes())) as archive:
        names = set(archive.namelist())
    ours = {n for n in names if not n.startswith("audit/verify/")}
    pure = ("commitment", "cosignature", "evidence", "mldsa", "note", "quorum", "records", "tree")
    ledger = {f"audit/ledger/{n}.py" for n in pure}
    foundation = ("__init__", "canonical", "certificates", "digests", "dsse", "errors", "key_events", "webauthn")
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
