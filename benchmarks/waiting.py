"""What waking its threads costs a tuning step: ``python benchmarks/waiting.py`` prints one JSON object.

Two processes hold the embedded model and the same rows, one with ``OMP_WAIT_POLICY=PASSIVE`` as a task beside others
has it, one without as a task that has the machine to itself. They make steps of the product's loop in turns, one
standing still while the other works; ``waiting_ratio`` is the median over the pairs of the first one's time over the
second's. ``--beside 1`` does it beside one other process that computes, at the nice level of a background job.
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
BUSY = "import os\nos.nice(10)\nwhile True: pass"


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


def measure(pairs: int, beside: int) -> dict[str, Any]:
    """Steps in turns; which of the two goes first alternates."""
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(beside)]
    woken, busy = start(OMP_WAIT_POLICY="PASSIVE"), start()
    children = (woken, busy)
    try:
        dtypes = {child.stdout.readline().strip() for child in children if child.stdout is not None}
        ratios = []
        for turn in range(pairs):
            order = children if turn % 2 else children[::-1]
            seconds = {child.pid: one_step(child) for child in order}
            ratios.append(seconds[woken.pid] / seconds[busy.pid])
    finally:
        for child in children:
            child.kill()
            child.wait()
        for other in others:
            other.kill()
            other.wait()
    return {
        "waiting_ratio": round(statistics.median(ratios), 2),
        "waiting_ratio_low": round(min(ratios), 2),
        "waiting_ratio_high": round(max(ratios), 2),
        "pairs": pairs,
        "beside": beside,
        "dtype": ", ".join(sorted(dtypes)),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--beside", type=int, default=0, help="other processes that compute meanwhile")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        work(sys.stdin, sys.stdout)
    else:
        print(json.dumps(measure(asked.pairs, asked.beside), indent=1))
