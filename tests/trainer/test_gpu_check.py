"""The check that a GPU machine runs, tried here on the CPU at the smallest size: the check itself must work."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from assay.worker.meter import NvmlCounter
from benchmarks.gpu_check import failed
from tests.trainer.tiny_models import BASE_MODEL, tiny_models

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "benchmarks/gpu_check.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=840, check=False)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.isolation
def test_the_check_proves_isolation_and_equal_bits(tmp_path: Path):
    files = tiny_models(tmp_path) / BASE_MODEL / "files"
    done = run("--device", "cpu", "--random-weights", str(files), "--rows", "48", "--words", "24", "--batch", "8")
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["isolation_proven"] and found["two_runs_bit_equal"] and found["resumed_bit_equal"]
    assert 2 <= found["resumed_after_step"] < found["steps"]
    two = found["two_processes"]
    assert (two["processes"], two["backend"]) == (2, "gloo") and two["isolation_proven"] and two["two_runs_bit_equal"]
    assert two["furthest_loss"] < 2e-4
    assert found["weights"] == "random" and found["failed"] == []
    if importlib.util.find_spec("bitsandbytes") is None:
        text = "bitsandbytes is not installed, so qlora was NOT TESTED in the sandbox: run `make qlora`"
        assert found["qlora"].startswith("not run") and not os.environ.get("ASSAY_REQUIRE_QLORA"), text
        return
    four_bit = found["qlora"]
    assert four_bit["isolation_proven"] and four_bit["two_runs_bit_equal"] and four_bit["resumed_bit_equal"]
    assert four_bit["adapter_sha256"] != found["adapter_sha256"]


def test_without_a_gpu_it_says_so_measures_nothing_and_is_not_taken_for_a_check_that_passed():
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU: `make gpu-check` is the test")
    done = run()
    assert done.returncode == 2 and json.loads(done.stdout) == {
        "run": False,
        "why": "torch sees no CUDA device on this machine",
    }


HELD: dict[str, Any] = {
    "device": "cuda", "dtype": "bfloat16", "energy_method": f"modelled; GPU {NvmlCounter.method}",
    "isolation_proven": True, "two_runs_bit_equal": True, "resumed_bit_equal": True,
}  # fmt: skip
TWO = {"processes": 2, "isolation_proven": True, "two_runs_bit_equal": True, "furthest_loss": 0.01}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, []),
        ({"qlora": "not run", "two_processes": "not run"}, []),
        ({"device": "cpu"}, ["trained on cpu, not on cuda"]),
        ({"dtype": "float32"}, ["lora: trained in float32, not in bfloat16"]),
        ({"energy_method": "modelled: 10 W per busy core"}, ["lora: the GPU's energy was not measured"]),
        ({"resumed_bit_equal": False}, ["lora: resumed_bit_equal is false"]),
        ({"qlora": {**HELD, "isolation_proven": False}}, ["qlora: isolation_proven is false"]),
        ({"two_processes": {**TWO, "processes": 1}}, ["two_processes: 1 trained"]),
        ({"two_processes": {**TWO, "furthest_loss": float("nan")}}, ["two_processes: losses differ by nan"]),
        ({"two_processes": {**TWO, "two_runs_bit_equal": False}}, ["two_processes: two_runs_bit_equal is false"]),
    ],
)
def test_what_must_hold_on_a_gpu_and_does_not_is_named(changed: dict[str, Any], words: list[str]):
    said = failed({**HELD, "qlora": HELD, "two_processes": TWO, **changed}, "cuda")
    assert [text.startswith(word) for text, word in zip(said, words, strict=True)] == [True] * len(words), said
