"""Starts a real worker process that runs the tiny tasks: ``tiny_worker.py DIR``."""

import asyncio
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    import assay
    from assay.worker.__main__ import run
    from assay.worker.sandbox import TaskModule

    packages = (Path(assay.__file__).parent, HERE / "tiny_tasks")
    table = {kind: TaskModule(f"tiny_tasks.{kind}", packages) for kind in ("prepare", "train", "audit")}
    asyncio.run(run(Path(sys.argv[1]), table))


if __name__ == "__main__":
    main()
