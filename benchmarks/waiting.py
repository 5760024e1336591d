"""What waking its threads costs a tuning step: ``python -m benchmarks.waiting`` prints one JSON object.

Processes that hold the embedded model and the same rows make steps of the product's loop in turns, the others standing
still: one whose idle threads wait busily, as libgomp lets them; ``waiting``, with ``OMP_WAIT_POLICY=PASSIVE`` as a task
beside others has it; ``bounded``, whose threads look ``--spins`` times and then sleep. The ratios are medians over the
rounds of a process's time over the busy one's. ``--beside 1`` does it beside another process that computes, at the nice
level of ``--nice``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Any

from benchmarks import offline

PAIRS, ROWS, TOKENS = 12, 8, 80
BUSY = "import os, sys\nos.nice(int(sys.argv[1]))\nwhile True: pass"


class Quiet:
    """The loop's reports go nowhere, and nobody pauses it."""

    def progress(self, *args: Any, **metrics: Any) -> None:
        """Reports nothing."""

    def should_pause(self) -> bool:
        """Nobody asks."""
        return False


def work(told: IO[str], answers: IO[str]) -> None:
    """The child: makes one step for each line it is told, and answers with its seconds."""
    import torch

    from assay.modelfiles import read_base_manifest
    from trainer.device import choose_device
    from trainer.recipes.loop import TuneJob, run_of
    from trainer.recipes.rows import NO_ROWS, EncodedRow, EncodedRows
    from trainer.settings import Settings

    torch.set_num_threads(os.cpu_count() or 1)
    scored = (False,) * (TOKENS // 2) + (True,) * (TOKENS - TOKENS // 2)
    rows = tuple(EncodedRow(tuple(range(100 + i, 100 + i + TOKENS)), scored, 1.0) for i in range(ROWS))
    with tempfile.TemporaryDirectory() as folder:
        run = run_of(
            TuneJob(
                base=read_base_manifest(offline.MODELS / offline.BASE_MODEL),
                base_files=offline.MODELS / offline.BASE_MODEL / "files",
                train=EncodedRows(rows, ROWS, (), ()),
                validation=NO_ROWS,
                method="lora",
                parent=None,
                settings=Settings(batch_size=ROWS, epochs=50.0),
                device=choose_device(),
                checkpoints=Path(folder),
                fingerprint="",
                max_tokens=10**9,
                row_tokens=TOKENS,
                on_pause=RuntimeError,
                key=bytes(32),
            ),
            Quiet(),
        )
        run.prepare()
        run.step()
        print(run.job.device.dtype, file=answers, flush=True)
        for _ in told:
            begin = time.perf_counter()
            run.step()
            print(time.perf_counter() - begin, file=answers, flush=True)


def start(**environment: str) -> subprocess.Popen[str]:
    """A child; the policy of this process is not handed on."""
    inherited = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    command = [sys.executable, "-m", "benchmarks.waiting", "--child"]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=inherited | environment, stdin=pipe, stdout=pipe, text=True)


def one_step(child: subprocess.Popen[str]) -> float:
    """Seconds of one step of a child."""
    assert child.stdin is not None and child.stdout is not None
    child.stdin.write("step\n")
    child.stdin.flush()
    return float(child.stdout.readline())


def measure(pairs: int, beside: int, nice: int, spins: int) -> dict[str, Any]:
    """Steps in turns; who goes first alternates."""
    others = [subprocess.Popen([sys.executable, "-c", BUSY, str(nice)]) for _ in range(beside)]
    children = {
        "busy": start(),
        "waiting": start(OMP_WAIT_POLICY="PASSIVE"),
        "bounded": start(GOMP_SPINCOUNT=str(spins)),
    }
    ratios: dict[str, list[float]] = {"waiting": [], "bounded": []}
    try:
        dtypes = {child.stdout.readline().strip() for child in children.values() if child.stdout is not None}
        for turn in range(pairs):
            order = list(children) if turn % 2 else list(children)[::-1]
            seconds = {name: one_step(children[name]) for name in order}
            for name, found in ratios.items():
                found.append(seconds[name] / seconds["busy"])
    finally:
        for child in children.values():
            child.kill()
            child.wait()
        for other in others:
            other.kill()
            other.wait()
    return {
        **{f"{name}_ratio": round(statistics.median(found), 2) for name, found in ratios.items()},
        **{f"{name}_range": [round(min(found), 2), round(max(found), 2)] for name, found in ratios.items()},
        "spins": spins,
        "pairs": pairs,
        "beside": beside,
        "nice": nice,
        "dtype": ", ".join(sorted(dtypes)),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--beside", type=int, default=0, help="other processes that compute meanwhile")
    parser.add_argument("--nice", type=int, default=10, help="their nice level")
    parser.add_argument("--spins", type=int, default=10_000, help="looks of a thread that waits before it sleeps")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        work(sys.stdin, sys.stdout)
    else:
        print(json.dumps(measure(asked.pairs, asked.beside, asked.nice, asked.spins), indent=1))
