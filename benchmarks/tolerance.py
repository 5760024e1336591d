"""How far another environment moves a validation loss: ``python -m benchmarks.tolerance`` prints one JSON object.

It is the evidence for the limit ``replay_tolerance`` (``docs/exactness.md``). The demo's rows are tuned by the
product's train task as ``benchmarks/training.py`` tunes them, for several seeds, each run in a process of its own: in
fp32, which the others are compared with, in bf16, with one thread, and with oneDNN kept to AVX2. ``apart`` is the
distance in nats a token between what two claims say of the validation rows, the smallest and the largest of the seeds;
``rows`` are the training rows that there were. bf16 is emulated, and slow, on a processor without its instructions.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from assay import processor
from benchmarks import offline
from benchmarks.training import SETTINGS, Bench

ENVIRONMENTS: dict[str, tuple[str, dict[str, str]]] = {
    "fp32": ("float32", {}),
    "bf16": ("bfloat16", {}),
    "one thread": ("float32", {"OMP_NUM_THREADS": "1"}),
    "AVX2": ("float32", {processor.MOST_ISA: "AVX2"}),
}
"""Number format and what else differs; the first is compared with."""


def train(rows: Path, folder: Path, dtype: str, seed: int) -> str:
    """Validation loss of one run in this process, as its claim says it."""
    from trainer import task
    from trainer.device import Device

    task.choose_device = lambda *_: Device("cpu", dtype, platform.machine())  # type: ignore[attr-defined]
    order = offline.order({**SETTINGS, "seed": seed})
    found = task.run(offline.context("train", order, rows, folder))["validation_loss"]
    if found is None:
        raise SystemExit("so few rows leave none to validate on: ask for more")
    return str(found)


def loss(rows: Path, environment: str, seed: int) -> float:
    """The same in a process of its own; variables of this one that choose kernels are handed on unless they differ."""
    dtype, variables = ENVIRONMENTS[environment]
    with tempfile.TemporaryDirectory() as folder:
        call = [sys.executable, "-m", "benchmarks.tolerance", "--run", str(rows), folder, dtype, str(seed)]
        done = subprocess.run(call, env=os.environ | variables, stdout=subprocess.PIPE, text=True, check=True)
    found = float(done.stdout.splitlines()[-1])
    # Each run is told as it ends: an hour of them is not lost with the last.
    print(f"# {environment}, seed {seed}: {found}", file=sys.stderr, flush=True)
    return found


def measure(rows: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """Distances of every environment from the first, on the rows of a folder."""
    first, *others = ENVIRONMENTS
    apart: dict[str, list[float]] = {name: [] for name in others}
    for seed in seeds:
        here = loss(rows, first, seed)
        for name, found in apart.items():
            found.append(abs(loss(rows, name, seed) - here))
    return {
        "rows": len((rows / "train.jsonl").read_bytes().splitlines()),
        "seeds": len(seeds),
        "apart": {name: [float(f"{end:.2g}") for end in (min(found), max(found))] for name, found in apart.items()},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[192, 48], help="most training rows, of each comparison")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--run", nargs=4, metavar=("ROWS", "FOLDER", "DTYPE", "SEED"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.run:
        rows, folder, dtype, seed = options.run
        print(train(Path(rows), Path(folder), dtype, int(seed)))
        return
    with tempfile.TemporaryDirectory() as name:
        benches = [Bench(Path(name) / str(count), count, 1) for count in options.rows]
        found = [measure(bench.rows, range(1, options.seeds + 1)) for bench in benches]
    cpu = processor.read().get("model name", platform.machine())
    print(json.dumps({"cpu": cpu, "cores": os.cpu_count(), "replay_tolerance": found}, indent=1))


if __name__ == "__main__":
    main()
