"""A node whose task modules are those of the tests: ``node_process.py DIR TRY``."""

import asyncio
import sys
from pathlib import Path

HERE = Path(__file__).parent

if __name__ == "__main__":
    import assay
    from assay.worker.node import run
    from assay.worker.sandbox import TaskModule

    module = TaskModule("sandbox_tasks.steps", (Path(assay.__file__).parent, HERE / "sandbox_tasks"))
    table = {"prepare": module, "train": module, "audit": module}
    sys.exit(asyncio.run(run(Path(sys.argv[1]), Path(sys.argv[2]), table)))
