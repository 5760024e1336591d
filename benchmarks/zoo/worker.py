"""``python -m benchmarks.zoo.worker --dir DIR``: a worker of the product with the zoo's task modules in its table."""

from __future__ import annotations

import argparse
import asyncio
import logging
from pathlib import Path

from assay.worker.__main__ import run
from assay.worker.sandbox import TaskModule

ROOT = Path(__file__).resolve().parents[2]


def module(name: str) -> TaskModule:
    """A task module with every package that it imports."""
    return TaskModule(name, tuple(ROOT / package for package in ("assay", "audit", "trainer", "benchmarks", "demo")))


def main() -> None:
    """Serves until a signal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", type=Path, required=True)
    logging.basicConfig(level=logging.WARNING)
    table = {
        "prepare": TaskModule.installed("audit.prepare.task"),
        "train": module("benchmarks.zoo.bad_trainer"),
        "audit": module("benchmarks.zoo.patient_audit"),
    }
    asyncio.run(run(parser.parse_args().dir.resolve(), table))


if __name__ == "__main__":
    main()
