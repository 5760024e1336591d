"""``make fuzz`` with a stand-in for Python: what goes wrong in any target is the command's own failure."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = """#!/bin/sh
case "$*" in
"-m tests.fuzz.run") {listing} ;;
"-m tests.fuzz.run "*) echo "$3 for $4"; [ "$3" != {bad} ] ;;
esac
"""


def fuzz(folder: Path, listing: str = "echo note record proof", bad: str = "none") -> tuple[bool, list[str]]:
    """Whether it succeeded, and what was fuzzed."""
    (folder / "bin").mkdir()
    (folder / "bin" / "python").write_text(PYTHON.format(listing=listing, bad=bad))
    (folder / "bin" / "python").chmod(0o755)
    (folder / ".installed").touch()
    done = subprocess.run(["make", "-s", "fuzz", f"VENV={folder}", "SECONDS=7"], cwd=ROOT, capture_output=True)
    return done.returncode == 0, done.stdout.decode().splitlines()


def test_every_target_is_fuzzed(tmp_path: Path) -> None:
    assert fuzz(tmp_path) == (True, ["note for 7", "record for 7", "proof for 7"])


@pytest.mark.parametrize("bad", ["note", "record", "proof"])
def test_a_finding_fails_it(tmp_path: Path, bad: str) -> None:
    fine, fuzzed = fuzz(tmp_path, bad=bad)
    assert not fine and fuzzed[-1] == f"{bad} for 7"


def test_targets_that_cannot_be_listed_fail_it(tmp_path: Path) -> None:
    assert fuzz(tmp_path, listing="exit 1") == (False, [])
