"""Starts a real worker process whose task modules are those of the tests: ``worker_process.py DIR``."""

import asyncio
import logging
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    import assay
    from assay.logs import JsonLines
    from assay.worker.__main__ import run
    from assay.worker.sandbox import TaskModule

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    module = TaskModule("sandbox_tasks.steps", (Path(assay.__file__).parent, HERE / "sandbox_tasks"))
    asyncio.run(run(Path(sys.argv[1]), {"prepare": module, "train": module, "audit": module}))


if __name__ == "__main__":
    main()
