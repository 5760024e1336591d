"""Starts a real worker process that runs the tiny tasks: ``tiny_worker.py DIR``."""

import asyncio
import signal
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
GATES = Path(sys.argv[1]).parents[1] / "gates"


def stand_still(*_: object) -> None:
    """As where a disk hangs: process and connections live on, and the event loop goes on with the gate `stir`."""
    while not (GATES / "stir").exists():
        time.sleep(0.1)


def main() -> None:
    signal.signal(signal.SIGUSR1, stand_still)
    import assay
    from assay.worker.__main__ import run
    from assay.worker.sandbox import TaskModule

    packages = (Path(assay.__file__).parent, HERE / "tiny_tasks")
    table = {kind: TaskModule(f"tiny_tasks.{kind}", packages) for kind in ("prepare", "train", "audit")}
    asyncio.run(run(Path(sys.argv[1]), table))


if __name__ == "__main__":
    main()
