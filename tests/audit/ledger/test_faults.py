"""Injected I/O errors: each write, flush, truncation and rename of database, WAL and anchor fails in turn.

A shim preloaded into a process of its own fails the n-th such call under the ledger's folder, n from 1 on until a
whole life of the ledger passes untouched. After each round the ledger starts on a healthy disk: every acknowledged
record is there, the root is the recomputed one, and no size has two checkpoints (attack case 41).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SHIM = Path(__file__).parent / "shim"
ROOT = Path(__file__).parents[3]
NAMED = {"LEDGER_STOPPED", "LEDGER_WRITE_FAILED", "LEDGER_UNAVAILABLE"}


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shim, compiled."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("INJECTED I/O ERRORS NOT TESTED: no C compiler (Debian: apt-get install gcc libc6-dev)")
    library = tmp_path_factory.mktemp("shim") / "faults.so"
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(SHIM / "faults.c"), "-ldl", "-lpthread"]
    subprocess.run(command, check=True)
    return library


def sweep(shim: Path, folder: Path, mode: str, first: int, step: int) -> dict[str, Any]:
    """Runs a sweep and returns its sum; prints rounds and losses."""
    environment = {**os.environ, "LD_PRELOAD": str(shim), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(SHIM / "sweep.py"), str(folder), mode, str(first), str(step)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{mode}: {found['rounds']} rounds, {found['acknowledged']} acknowledged, {found['losses']} lost")
    return found


def demand(found: dict[str, Any]) -> None:
    """Nothing lost, nothing broken, and every refusal has a name."""
    assert (found["losses"], found["faults"]) == (0, [])
    assert set(found["refusals"]) <= NAMED and found["refusals"]
    assert found["rounds"] > 1 and found["acknowledged"] > 0


@pytest.mark.parametrize(("mode", "first", "step"), [("eio", 2, 23), ("enospc", 7, 29), ("torn", 11, 31)])
def test_attack_41_a_failing_call_now_and_then(shim: Path, tmp_path: Path, mode: str, first: int, step: int) -> None:
    demand(sweep(shim, tmp_path, mode, first, step))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["eio", "enospc", "torn"])
def test_attack_41_every_call_in_turn(shim: Path, tmp_path: Path, mode: str) -> None:
    found = sweep(shim, tmp_path, mode, 1, 1)
    demand(found)
    assert found["rounds"] > found["calls"]
