"""One cell of the zoo the whole way: an ordinary job, a trainer that goes wrong, the product's audit and verdict."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.zoo import report
from benchmarks.zoo.faults import PILOT

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_pilot_of_a_cell_is_submitted_audited_and_judged(tmp_path: Path) -> None:
    before = report.Kept().read()
    asked = [sys.executable, "-m", "benchmarks.zoo.run", "--state", str(tmp_path / "state"), "--pilot", "untrained"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(asked, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1700, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    first, _, rest = done.stdout.partition("\n")
    assert first.startswith(f"untrained-s{PILOT}: QUARANTINED")
    [cell] = json.loads(rest)
    assert {"REL-ADAPTER", "REL-EFFECT"} <= set(cell["failed"]) and cell["measured"]["adapter.change_of_loss"] == 0
    [line] = report.Kept(tmp_path / "state" / "pilot").read()
    assert line["seed"] == PILOT and line["processor"] and line["seconds"] > 0
    assert report.Kept().read() == before, "a pilot is never counted"
