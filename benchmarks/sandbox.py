"""How long a task's sandbox takes from its start to the proof of its cut-off: ``python -m benchmarks.sandbox``.

What is timed is what every task pays before an input is opened and before torch is imported: bubblewrap, Python, the
entry, all probes, the decoys that they try to reach, and the supervisor's look at the answer. Prints one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from assay.worker import sandbox
from assay.worker.attempt import Attempt, Handover, Hooks
from assay.worker.meter import EnergyModel, Meter

STARTS = 21


def sandbox_start_ms(starts: int = STARTS) -> dict[str, float]:
    """Starts the real sandbox some times, one after another.

    Args:
        starts: how often, after one start that warms the file cache and is not counted.

    Returns:
        ``sandbox_start_ms`` (median), ``sandbox_start_ms_max`` and ``starts``.
    """
    times = asyncio.run(_times(starts + 1))[1:]
    return {
        "sandbox_start_ms": round(statistics.median(times), 1),
        "sandbox_start_ms_max": round(max(times), 1),
        "starts": starts,
    }


async def _times(starts: int) -> list[float]:
    out = []
    with tempfile.TemporaryDirectory(prefix="assay-bench-") as name:
        root = Path(name)
        root.chmod(0o711)
        key = root / "statement.key"
        key.write_text("stands for a key that must be out of reach")
        for i in range(starts):
            out.append(await _one(root, root / str(i), key))
    return out


async def _one(root: Path, folder: Path, key: Path) -> float:
    """One start; the task itself is refused its inputs, so that nothing is timed but the way to the proof."""
    for place in ("in", "out", "work", "control", "models"):
        (folder / place).mkdir(parents=True)
    spec = sandbox.Spec(
        module=sandbox.TaskModule.installed("trainer.task"),
        inputs=folder / "in",
        outputs=folder / "out",
        work=folder / "work",
        control=folder / "control",
        models=folder / "models",
        limits=sandbox.Limits(),
        uid=sandbox.sandbox_uid(folder, 0),
        threads=1,
    )
    proven: list[float] = []

    def stop_here() -> None:
        proven.append(time.perf_counter())
        attempt.kill("BENCHMARK: proven, that is all that is timed")

    attempt = Attempt(
        spec,
        Handover("bench", "train", {}, b"", b"", spec.module.module),
        Hooks(
            started=lambda pid: None,
            open_inputs=stop_here,
            progress=lambda progress: None,
            metered=lambda totals: None,
            meter=lambda pid: Meter(pid, EnergyModel(10.0)),
        ),
        decoy_folder=root,
        ports={},
        keys=[key],
        log=folder / "log.txt",
    )
    begun = time.perf_counter()
    outcome = await attempt.run()
    if not proven:
        raise RuntimeError(f"the sandbox was not proven: {outcome.reason}")
    return (proven[0] - begun) * 1000


if __name__ == "__main__":
    print(json.dumps(sandbox_start_ms(int(sys.argv[1]) if len(sys.argv) > 1 else STARTS)))
