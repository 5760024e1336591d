"""``make bench``: which programs it runs, and that it says so when one of them fails."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = {"ledger_postgres", "sandbox", "training", "training_governed", "training_run"}
"""What ``ledger`` and ``make bench-trainer`` run themselves."""


@pytest.mark.parametrize("broken", ["", "benchmarks/coverage.py"])
def test_every_benchmark_runs_and_one_that_fails_is_told_at_the_end(tmp_path: Path, broken: str) -> None:
    ran, stub = tmp_path / "ran", tmp_path / "python"
    stub.write_text(f'#!/bin/sh\necho "$*" >> {ran}\n[ "$*" != "{broken}" ]\n')
    stub.chmod(0o755)
    (tmp_path / "installed").touch()
    command = ["make", "bench", f"BIN={tmp_path}", f"STAMP={tmp_path / 'installed'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode == 0) == (not broken), done.stderr
    programs = {p.stem for p in (ROOT / "benchmarks").glob("*.py") if "__main__" in p.read_text()}
    shown = ran.read_text().splitlines()
    alone = {line.removeprefix("benchmarks/").removesuffix(".py") for line in shown if line.startswith("benchmarks/")}
    assert alone == programs - PARTS - {"gpu_check"} and len(alone) > 10
    assert any(line.startswith("-m benchmarks.training") for line in shown)
