"""``make bench``: which programs it runs, that it says so when one of them fails, and what its output holds."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = {"ledger_postgres", "sandbox", "training", "training_governed", "training_run"}
"""What ``ledger`` and ``make bench-trainer`` run themselves."""


@pytest.mark.parametrize("broken", ["", "-m benchmarks.coverage"])
def test_every_benchmark_runs_and_one_that_fails_is_told_at_the_end(tmp_path: Path, broken: str) -> None:
    ran, stub = tmp_path / "ran", tmp_path / "python"
    stub.write_text(f'#!/bin/sh\necho "$*" >> {ran}\n[ "$*" != "{broken}" ]\n')
    stub.chmod(0o755)
    (tmp_path / "installed").touch()
    command = ["make", "bench", f"BIN={tmp_path}", f"STAMP={tmp_path / 'installed'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode == 0) == (not broken), done.stderr
    programs = {p.stem for p in (ROOT / "benchmarks").glob("*.py") if "__main__" in p.read_text()}
    shown = ran.read_text().splitlines()
    alone = {line.split()[1].removeprefix("benchmarks.") for line in shown if line.startswith("-m benchmarks.")}
    assert alone == programs - PARTS - {"gpu_check"} | {"training"} and len(alone) > 10


def test_what_a_benchmark_prints_is_all_that_is_printed(tmp_path: Path) -> None:
    """``make -s bench-NAME`` goes into a pipe: what installs before it says what it has to say elsewhere."""
    stub = tmp_path / "python"
    stub.write_text('#!/bin/sh\necho "$*"\n')
    stub.chmod(0o755)
    (tmp_path / "installed").touch()
    command = ["make", "-s", "bench-bootstrap", f"BIN={tmp_path}", f"STAMP={tmp_path / 'installed'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "-m benchmarks.bootstrap\n"
    assert "trainer.base_models install" in done.stderr, "the installation ran, and printed"


def test_every_command_that_is_written_down_finds_what_the_benchmark_imports() -> None:
    """Run as a file a program looks for ``benchmarks`` beside itself, and ends before it begins."""
    pages = [
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "benchmarks").rglob("*.py"),
        ROOT / "Makefile",
        ROOT / "README.md",
    ]
    assert len(pages) > 40
    bare = re.compile(r"python3? +(\./)?benchmarks/")
    assert [str(p.relative_to(ROOT)) for p in pages if bare.search(p.read_text("utf-8"))] == []
    named = {m for p in pages for m in re.findall(r"python -m benchmarks\.(\w+)", p.read_text("utf-8"))}
    assert len(named) > 10
    assert all((ROOT / "benchmarks" / f"{m}.py").is_file() or (ROOT / "benchmarks" / m).is_dir() for m in named)
