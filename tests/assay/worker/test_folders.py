"""Trees that a hostile task may leave: deeper than a path can name, closed to their owner, changing while looked at."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from assay.errors import ExhaustedError
from assay.worker.folders import MAX_DEPTH, remove, walk

DEEP = 1500


def nest(place: Path, depth: int = DEEP) -> None:
    """Folders of three letters each in the one before, and a file in the last: 6,000 bytes of path."""
    here = os.open(place, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("abc", dir_fd=here)
        inner = os.open("abc", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)


def test_a_tree_deeper_than_a_path_can_name_is_removed(nests: Path) -> None:
    top = nests / "top"
    (top / "wide").mkdir(parents=True)
    for number in range(20):
        (top / "wide" / f"{number}").mkdir()
    nest(top)
    nest(top / "wide" / "7")
    remove(top)
    assert os.listdir(nests) == []


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    precious, top = tmp_path / "precious", tmp_path / "top"
    (precious / "folder").mkdir(parents=True)
    (top / "inner").mkdir(parents=True)
    (top / "link").symlink_to(precious)
    (top / "inner" / "link").symlink_to(precious)
    os.link(top / "link", top / "inner" / "twin", follow_symlinks=False)
    (tmp_path / "itself").symlink_to(precious)
    os.mkfifo(top / "pipe")
    remove(top)
    remove(tmp_path / "itself")
    remove(tmp_path / "never there")
    assert os.listdir(tmp_path) == ["precious"] and os.listdir(precious) == ["folder"]


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user for a moment")
def test_an_ordinary_user_removes_what_was_closed_to_it() -> None:
    """As root nothing is closed, so this is tried as nobody; nothing may be passed over in silence."""
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o777)
        os.seteuid(65534)
        try:
            top = Path(place, "top")
            top.mkdir()
            nest(top, 3)
            closed = top / "a" / "closed"
            (closed / "inner").mkdir(parents=True)
            (closed / "inner" / "file").write_text("plain")
            for folder in (closed / "inner", closed, top):
                folder.chmod(0)
            remove(top)
        finally:
            os.seteuid(0)
        assert os.listdir(place) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user for a moment")
def test_what_cannot_be_removed_is_told() -> None:
    with tempfile.TemporaryDirectory() as place:
        (Path(place, "top") / "inner").mkdir(parents=True)
        os.chmod(place, 0o755)
        os.seteuid(65534)
        try:
            with pytest.raises(PermissionError):
                remove(Path(place, "top"))
        finally:
            os.seteuid(0)


def test_every_entry_is_walked_by_its_path_and_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_text("12345")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    found = {entry.path: entry.status.st_size for entry in walk(tmp_path)}
    assert set(found) == {"a", "a/b", "a/b/file", "a/up"} and found["a/b/file"] == 5
    assert list(walk(tmp_path / "a" / "up")) == [] == list(walk(tmp_path / "none"))


def test_what_vanishes_is_told_and_the_walk_goes_on(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    told: list[OSError] = []
    seen = []
    for entry in walk(tmp_path, told.append):
        seen.append(entry.name)
        for folder in tmp_path.iterdir():
            folder.rmdir()
    assert len(seen) == 1 and len(told) == 3, "the entry itself could not be entered, the others not be looked at"


def test_folders_nested_too_deep_are_named_and_leave_no_descriptor_open(nests: Path) -> None:
    nest(nests, MAX_DEPTH)
    assert len(list(walk(nests))) == MAX_DEPTH + 1
    before = os.listdir("/proc/self/fd")
    (deeper := nests / "deeper").mkdir()
    nest(deeper)
    with pytest.raises(ExhaustedError) as refused:
        list(walk(nests))
    assert refused.value.reason == "TASK_DISK"
    next(walk(deeper))
    # Garbage of earlier tests may be closed meanwhile: what counts is that none is new.
    assert set(os.listdir("/proc/self/fd")) <= set(before)
