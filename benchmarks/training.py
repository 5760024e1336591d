"""What training costs beside what users would pick instead: ``make bench-trainer`` prints one JSON object.

The demo's clean dataset, prepared by the product's own code, is tuned by our train task, by TRL's ``SFTTrainer`` with
its defaults, and with the fastest of a few settings found in a short pilot on this machine (``best_settings``). All
have the same rows, prompt masked, adapter shape, rate, schedule and batch size; each run is a process of its own, the
kinds take turns, and the median pair counts. Tokens of the rows count, padding does not. ``validation_loss`` is
measured on the adapters that the runs leave, by one piece of code. ``flops_share_of_matmul`` is what torch counts for
our step, by our rate, over a large matrix product in the same number format in the same process. The defaults ask for
bf16, which a processor without bf16 instructions emulates: there ``--default-pairs 1`` saves hours.

``governance_overhead`` is the CPU seconds of a whole governed task (sealing, sandbox with its proof, opening, metering,
checkpoints, telemetry, signed statement) over the same task called as a function without checkpoints; the interval is
Student's over the pairs. The task is the whole train split of the demo's clean job: most of what governance costs is
paid once a task, and a share of a few rows would tell their number. ``resume_cost`` is CPU seconds of a run that was
stopped in the middle and resumed, over those of one that was not; ``dp_cost_ratio`` seconds a token with DP-SGD
(epsilon 8, delta 1e-5, rows) over those without; ``sandbox_start_ms`` the time from a sandbox's start to the proof of
its cut-off (``benchmarks/sandbox.py``).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from assay import processor
from assay.worker.sandbox import task_environment
from audit.statistics import stats
from benchmarks import offline
from benchmarks.sandbox import sandbox_start_ms
from demo import data
from trainer.device import choose_device

SETTINGS = {
    "epochs": 1.0,
    "learning_rate": 3e-4,
    "batch_size": 8,
    "lora_rank": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.0,
    "max_row_tokens": 512,
    "seed": 3,
}
_PLAIN = {"bf16": False, "gradient_checkpointing": False}
_BF16 = {"gradient_checkpointing": False, "model_init_kwargs": {"dtype": "bfloat16"}}
_SORTED = {"train_sampling_strategy": "group_by_length"}
# What a user may try on a CPU, without touching TRL's code; padding-free packing needs a GPU's attention kernels.
CANDIDATES: Mapping[str, Mapping[str, Any]] = {
    "fp32": _PLAIN,
    "fp32 by length": {**_PLAIN, **_SORTED},
    "fp32 packed": {**_PLAIN, "packing": True, "packing_strategy": "wrapped"},
    "bf16": _BF16,
    "bf16 by length": {**_BF16, **_SORTED},
    "bf16 packed": {**_BF16, "packing": True, "packing_strategy": "wrapped"},
}


class Bench:
    """One prepared dataset and the runs on it."""

    def __init__(self, folder: Path, rows: int, pilot_rows: int) -> None:
        self.folder, self.runs = folder, 0
        folder.mkdir(exist_ok=True)
        spec = data.clean(1)
        content = b"".join(spec.content.splitlines(keepends=True)[: 2 * rows])
        prepared = offline.prepare(
            content, spec, "quick", folder / "prepared", canaries={"a": 0, "b": 0, "b_repeats": 1}
        )
        self.rows, self.pilot_rows = folder / "rows", folder / "pilot"
        for place, limit in ((self.rows, rows), (self.pilot_rows, pilot_rows)):
            place.mkdir()
            for name in ("train.jsonl", "validation.jsonl"):
                lines = (prepared.folder / name).read_bytes().splitlines(keepends=True)
                (place / name).write_bytes(b"".join(lines[:limit]))

    def count(self) -> int:
        """Training rows that there are, maybe fewer than were asked for."""
        return len((self.rows / "train.jsonl").read_bytes().splitlines())

    def run(
        self,
        kind: str,
        *arguments: str,
        rows: Path | None = None,
        module: str = "training_run",
        environment: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """One process; its last line of output is what it measured."""
        self.runs += 1
        call = [sys.executable, "-m", f"benchmarks.{module}", kind, "--prepared", str(rows or self.rows)]
        call += ["--folder", str(self.folder / f"run-{self.runs}"), "--settings", json.dumps(SETTINGS), *arguments]
        print(f"# {kind} {' '.join(arguments)}", file=sys.stderr, flush=True)
        done = subprocess.run(call, capture_output=True, check=False, text=True, env=environment)
        if done.returncode:
            raise RuntimeError(f"{kind} {arguments} failed: {done.stderr[-2000:]}")
        measured = done.stdout.splitlines()[-1]
        # Each run is told as it ends: an hour of them is not lost with the last.
        print(f"#   {measured}", file=sys.stderr, flush=True)
        return dict(json.loads(measured))

    def trl(self, variant: Mapping[str, Any], rows: Path | None = None) -> dict[str, Any]:
        """One run of TRL's trainer."""
        return self.run("trl", "--variant", json.dumps(variant), rows=rows)

    def loss(self, run: Mapping[str, Any]) -> float:
        """Validation loss of what a run left."""
        return float(self.run("score", "--adapter", run["adapter"])["validation_loss"])

    def pilot(self) -> tuple[str, dict[str, float | str]]:
        """The fastest of the settings on a few rows, and the seconds of each."""
        seconds: dict[str, float | str] = {}
        for name, variant in CANDIDATES.items():
            try:
                seconds[name] = round(self.trl(variant, self.pilot_rows)["seconds"], 2)
            except RuntimeError as error:
                seconds[name] = "failed: " + str(error).strip().splitlines()[-1][:160]
        return min((s, n) for n, s in seconds.items() if isinstance(s, float))[1], seconds


def against_trl(bench: Bench, pairs: int, default_pairs: int) -> dict[str, Any]:
    """Ratios of useful tokens a second, losses and memory."""
    best, tried = bench.pilot()
    kinds = {
        "ours": lambda: bench.run("ours"),
        "best": lambda: bench.trl(CANDIDATES[best]),
        "default": lambda: bench.trl({}),
    }
    rounds: list[dict[str, dict[str, Any]]] = []
    for n in range(pairs):
        order = list(kinds)[: 3 if n < default_pairs else 2]
        found = {kind: kinds[kind]() for kind in (order if n % 2 else reversed(order))}
        rounds.append({kind: {**run, "loss": bench.loss(run)} for kind, run in found.items()})
    flop = bench.run("count")["flop_per_token"]
    ours = [r["ours"] for r in rounds]

    def ratios(kind: str) -> list[float]:
        return [round(r[kind]["seconds"] / r["ours"]["seconds"], 3) for r in rounds if kind in r]

    def median(field: str, digits: int) -> dict[str, float]:
        return {k: round(statistics.median(r[k][field] for r in rounds if k in r), digits) for k in rounds[0]}

    return {
        **{f"ratio_trl_{k}": statistics.median(ratios(k)) for k in ("default", "best") if k in rounds[0]},
        "validation_loss": median("loss", 4),
        "peak_mib": median("peak_mib", 0),
        "flops_share_of_matmul": round(
            statistics.median(flop * r["tokens"] / r["seconds"] / r["matmul_flops"] for r in ours), 3
        ),
        "tokens_per_s": round(statistics.median(r["tokens"] / r["seconds"] for r in ours), 1),
        "dtype": ours[0]["dtype"],
        "seconds": median("seconds", 1),
        "cpu_seconds": median("cpu_seconds", 1),
        "best_settings": best,
        "details": {
            "pairs": pairs,
            "tokens": ours[0]["tokens"],
            "ratios_default": ratios("default"),
            "ratios_best": ratios("best"),
            "pilot_seconds": tried,
            "matmul_gflops": [round(r["matmul_flops"] / 1e9, 1) for r in ours],
            "flop_per_token": round(flop),
        },
    }


def governance(bench: Bench, pairs: int) -> dict[str, Any]:
    """CPU seconds of a governed task over a bare one."""
    # A bare run has a sandboxed task's variables: how idle threads wait costs more CPU than governance does.
    kept = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    environment = task_environment(len(os.sched_getaffinity(0)), alone=True) | kept
    shares, seconds = [], []
    for n in range(pairs):
        order = ("bare", "governed") if n % 2 else ("governed", "bare")
        cpu = {kind: _cpu_seconds(bench, kind, environment) for kind in order}
        seconds.append({kind: round(cpu[kind], 2) for kind in sorted(cpu)})
        shares.append(cpu["governed"] / cpu["bare"] - 1)
    # One pair has no spread.
    interval = [round(bound, 4) for bound in stats.mean(shares).interval(0.95)] if pairs > 1 else None
    return {
        "governance_overhead": round(statistics.median(shares), 4),
        "governance": {
            "pairs": pairs,
            "mean_interval": interval,
            "shares": [round(s, 4) for s in shares],
            "cpu_seconds": seconds,
            "rows": bench.count(),
        },
    }


def _cpu_seconds(bench: Bench, kind: str, environment: Mapping[str, str]) -> float:
    """CPU seconds of one run, from its process's start to its end, by the kernel, and what it says is not in those."""
    before = _of_children()
    unwaited = bench.run(kind, module="training_governed", environment=environment)["unwaited_seconds"]
    return float(_of_children() - before + unwaited)


def _of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def resuming(bench: Bench, pairs: int) -> dict[str, Any]:
    """CPU seconds of a run stopped and resumed over those of a whole one."""
    steps = math.ceil(bench.count() / SETTINGS["batch_size"])
    # A run of few rows ends before the tenth step, and one that has no step left is not stopped.
    pause_at = max(1, min(10, steps - 1))
    ratios = []
    for _ in range(pairs):
        whole = bench.run("ours")["cpu_seconds"]
        ratios.append(bench.run("ours", "--pause-at", str(pause_at))["cpu_seconds"] / whole)
    return {"resume_cost": round(statistics.median(ratios), 3)}


def privacy(bench: Bench, pairs: int) -> dict[str, Any]:
    """Seconds a token of DP-SGD over those of plain training; a Poisson batch has as many tokens as it draws."""
    ratios = []
    for n in range(pairs):
        runs = {e: bench.run("ours", "--epsilon", e) for e in (("8", "0") if n % 2 else ("0", "8"))}
        private, plain = (runs[e]["seconds"] / runs[e]["tokens"] for e in ("8", "0"))
        ratios.append(round(private / plain, 3))
    return {"dp_cost_ratio": statistics.median(ratios), "dp_cost_ratios": ratios}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=96, help="training rows")
    parser.add_argument("--pilot-rows", type=int, default=16, help="training rows of a run of the pilot")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--default-pairs", type=int, default=5, help="pairs with TRL's defaults among them")
    parser.add_argument("--governance-pairs", type=int, default=10)
    parser.add_argument(
        "--governance-rows", type=int, default=300, help="rows of a governed task; 300 are all there are"
    )
    parser.add_argument("--only", choices=("trl", "governance", "resume", "privacy", "sandbox"), help="one part alone")
    options = parser.parse_args(arguments)
    device = choose_device()
    found: dict[str, Any] = {
        "device": device.kind,
        "cpu": processor.read().get("model name", platform.machine()),
        "cores": os.cpu_count(),
    }
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name), options.rows, options.pilot_rows)
        if options.only in (None, "trl"):
            found |= against_trl(bench, options.pairs, options.default_pairs)
        if options.only in (None, "governance"):
            whole = Bench(Path(name) / "whole", options.governance_rows, 0)
            found |= governance(whole, options.governance_pairs)
        if options.only in (None, "resume"):
            found |= resuming(bench, min(3, options.pairs))
        if options.only in (None, "privacy"):
            found |= privacy(bench, min(3, options.pairs))
    if options.only in (None, "sandbox"):
        found |= sandbox_start_ms()
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
