"""A node whose task modules are those of the tests: ``node_process.py [--trainer] DIR TRY``.

With ``--trainer`` they are the trainer itself.
"""

import asyncio
import sys
from pathlib import Path

HERE = Path(__file__).parent

if __name__ == "__main__":
    import assay
    from assay.worker.node import run
    from assay.worker.sandbox import TaskModule

    *options, folder, attempt = sys.argv[1:]
    ours = Path(assay.__file__).parent
    module = TaskModule("sandbox_tasks.steps", (ours, HERE / "sandbox_tasks"))
    if options:
        module = TaskModule("trainer.task", (ours, ours.parent / "trainer"))
    table = {"prepare": module, "train": module, "audit": module}
    sys.exit(asyncio.run(run(Path(folder), Path(attempt), table)))
