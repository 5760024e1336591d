"""A durable write: the old file or the new one, never half of either and never a third."""

from __future__ import annotations

import errno
import os
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from assay import durable

OLD, NEW = b"old\n", b"new\n" * 10_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that is there already, alone in its folder."""
    (tmp_path / "file").write_bytes(OLD)
    return tmp_path / "file"


def alone(path: Path) -> bytes:
    """What the file holds; nothing else lies beside it."""
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    return path.read_bytes()


@contextmanager
def small_files() -> Iterator[None]:
    """No file grows beyond 4 KiB: a write stops midway, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_it_replaces_all_of_a_file(path: Path) -> None:
    durable.write(path, NEW)
    assert alone(path) == NEW
    durable.write(path, b"")
    assert alone(path) == b""


def test_it_makes_a_file_that_was_not_there(tmp_path: Path) -> None:
    durable.write(tmp_path / "file", NEW)
    assert alone(tmp_path / "file") == NEW


def test_a_write_that_fails_midway_leaves_the_old_file(path: Path) -> None:
    with small_files(), pytest.raises(OSError) as caught:
        durable.write(path, NEW)
    assert caught.value.errno == errno.EFBIG
    assert alone(path) == OLD


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_call_that_fails_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def failing(*_: object) -> None:
        raise OSError(errno.EIO, "injected")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="injected"):
        patch.setattr(os, call, failing)
        durable.write(path, NEW)
    assert alone(path) == OLD


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_a_body_that_fails_leaves_the_old_file(path: Path, kind: type[BaseException]) -> None:
    with pytest.raises(kind), durable.replacing(path) as stream:
        stream.write(NEW)
        raise kind
    assert alone(path) == OLD


def test_content_reaches_the_disk_before_the_name_and_the_name_before_the_return(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, fsync, replace = [], os.fsync, os.replace

    def flushed(descriptor: int) -> None:
        found = os.fstat(descriptor)
        done.append("folder" if stat.S_ISDIR(found.st_mode) else f"{found.st_size} bytes")
        fsync(descriptor)

    def renamed(source: Path, target: Path) -> None:
        done.append("name")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", renamed)
    durable.write(path, NEW)
    assert done == [f"{len(NEW)} bytes", "name", "folder"]


def test_a_folder_that_cannot_be_flushed_is_told_and_the_new_file_is_whole(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_: Path) -> None:
        raise OSError(errno.EIO, "injected")

    monkeypatch.setattr(durable, "sync", failing)
    with pytest.raises(OSError, match="injected"):
        durable.write(path, NEW)
    assert alone(path) == NEW


def test_two_writers_at_once_do_not_mix(path: Path) -> None:
    with durable.replacing(path) as first:
        first.write(b"first")
        with durable.replacing(path) as second:
            second.write(b"second")
        assert path.read_bytes() == b"second"
    assert alone(path) == b"first"


def test_permissions_are_those_that_are_asked_for(path: Path) -> None:
    path.chmod(0o777)
    before = os.umask(0o027)
    try:
        durable.write(path, NEW, mode=0o600)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        durable.write(path, NEW)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
    finally:
        os.umask(before)


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        durable.write(tmp_path / "none" / "file", NEW)
    assert list(tmp_path.iterdir()) == []
