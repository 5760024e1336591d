"""What ends a task that writes too much: bytes, files, or a disk that is nearly full whoever filled it."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from assay.worker.disk import DiskWatch

from .test_folders import nest


def test_bytes_are_counted_over_all_folders_as_they_lie_on_disk(tmp_path: Path) -> None:
    work, out = tmp_path / "work", tmp_path / "out"
    (work / "deep").mkdir(parents=True)
    out.mkdir()
    watch = DiskWatch((work, out), 3 << 20)
    with (work / "sparse").open("wb") as stream:
        stream.truncate(1 << 30)
    (work / "deep" / "a").write_bytes(os.urandom(1 << 20))
    assert watch.verdict() == ""
    (out / "b").write_bytes(os.urandom(3 << 20))
    assert watch.verdict() == "TASK_DISK: the task wrote more than it may"
    assert DiskWatch((work, out), 0).verdict() == ""


def test_many_small_files_count_as_files(tmp_path: Path) -> None:
    watch = DiskWatch((tmp_path,), 0, max_files=10)
    for i in range(10):
        (tmp_path / str(i)).touch()
    assert watch.verdict() == ""
    (tmp_path / "folder").mkdir()
    assert watch.verdict() == "TASK_DISK: the task wrote more than 10 files"


def test_folders_too_deep_to_be_counted_end_the_task(nests: Path) -> None:
    nest(nests)
    assert DiskWatch((nests,), 0).verdict() == "TASK_DISK: the task nested folders more than 64 deep"


@pytest.mark.parametrize(("free_at_start", "reserve"), [(100 << 30, 1 << 30), (1 << 30, 512 << 20)])
def test_a_disk_that_is_nearly_full_ends_the_task_whoever_filled_it(
    free_at_start: int, reserve: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Filling a real disk would end more than this test.
    free = [free_at_start]
    monkeypatch.setattr(os, "statvfs", lambda folder: SimpleNamespace(f_bavail=free[0], f_frsize=1))
    watch = DiskWatch((tmp_path,), 0)
    free[0] = reserve
    assert watch.verdict() == ""
    free[0] = reserve - 1
    assert watch.verdict() == "TASK_DISK: the worker's disk is nearly full"
