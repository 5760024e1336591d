"""The benchmark of training runs at a small size; what it measures is no test's business."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from assay.errors import UnavailableError
from demo import data

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("part", "key", "options"),
    [
        pytest.param(
            "governance",
            "governance_overhead",
            ("--rows", "16", "--governance-pairs", "1", "--governance-rows", "16"),
            marks=pytest.mark.isolation,
        ),
        # Three steps, so that there is one to be stopped after and one to go on with.
        ("resume", "resume_cost", ("--rows", "24", "--pairs", "1")),
    ],
)
def test_the_figures_that_the_page_names_are_measured(part: str, key: str, options: tuple[str, ...]) -> None:
    try:
        data.clean(1)
    except UnavailableError as error:
        pytest.skip(f"THE BENCHMARK OF TRAINING NOT TESTED: {error}")
    command = [sys.executable, "-m", "benchmarks.training", "--only", part, *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=840, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert f"`{key}`" in (ROOT / "docs" / "training.md").read_text()
    assert isinstance(found[key], float) and math.isfinite(found[key])
    if part == "governance":
        assert (found["governance"]["pairs"], len(found["governance"]["cpu_seconds"])) == (1, 1)
        assert all(seconds > 0 for pair in found["governance"]["cpu_seconds"] for seconds in pair.values())
