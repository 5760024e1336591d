"""Digests: every byte and every name counts, and nothing hides."""

import hashlib
import io
import json
import os
import socket
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay import digests
from assay.errors import IntegrityError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "adapter"
    (root / "inner").mkdir(parents=True)
    (root / "b.txt").write_bytes(b"bee")
    (root / "inner" / "a.txt").write_bytes(b"")
    return root


def test_manifest_is_sorted_and_its_digest_is_that_of_the_canonical_file_list(folder: Path) -> None:
    manifest = digests.folder_manifest(folder)
    rows = [
        {"path": "b.txt", "sha256": hashlib.sha256(b"bee").hexdigest(), "size": 3},
        {"path": "inner/a.txt", "sha256": hashlib.sha256(b"").hexdigest(), "size": 0},
    ]
    assert [vars(f) for f in manifest.files] == rows
    text = json.dumps(rows, separators=(",", ":"), sort_keys=True)
    assert manifest.sha256 == hashlib.sha256(text.encode()).hexdigest()


def _flip(folder: Path) -> None:
    (folder / "b.txt").write_bytes(b"bef")


def _add(folder: Path) -> None:
    (folder / ".hidden").write_bytes(b"")


def _rename(folder: Path) -> None:
    (folder / "b.txt").rename(folder / "c.txt")


def _move(folder: Path) -> None:
    (folder / "b.txt").rename(folder / "inner" / "b.txt")


def _remove(folder: Path) -> None:
    (folder / "b.txt").unlink()


@pytest.mark.parametrize("change", [_flip, _add, _rename, _move, _remove])
def test_any_change_changes_the_digest(folder: Path, change: object) -> None:
    before = digests.folder_manifest(folder).sha256
    assert callable(change)
    change(folder)
    assert digests.folder_manifest(folder).sha256 != before


def test_times_and_modes_do_not_count(folder: Path) -> None:
    before = digests.folder_manifest(folder).sha256
    os.utime(folder / "b.txt", (0, 0))
    (folder / "b.txt").chmod(0o600)
    assert digests.folder_manifest(folder).sha256 == before


def _link(folder: Path) -> None:
    (folder / "link").symlink_to(folder / "b.txt")


def _link_to_folder(folder: Path) -> None:
    (folder / "link").symlink_to(folder / "inner", target_is_directory=True)


def _broken_link(folder: Path) -> None:
    (folder / "link").symlink_to("/nowhere/at/all")


def _pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe")


def _socket(folder: Path) -> None:
    here = os.open(folder, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"/proc/self/fd/{here}/socket")
    finally:
        os.close(here)


def _empty_folder(folder: Path) -> None:
    (folder / "inner" / "void").mkdir()


def _twin(folder: Path) -> None:
    (folder / "B.TXT").write_bytes(b"")


@pytest.mark.parametrize("change", [_link, _link_to_folder, _broken_link, _pipe, _socket, _empty_folder, _twin])
def test_what_is_not_plain_is_refused(folder: Path, change: object) -> None:
    assert callable(change)
    change(folder)
    with pytest.raises(IntegrityError) as caught:
        digests.folder_manifest(folder)
    assert caught.value.reason == "FOLDER_NOT_PLAIN"


def test_a_path_that_is_no_folder_is_refused_rather_than_empty(folder: Path) -> None:
    for path in (folder / "absent", folder / "b.txt"):
        with pytest.raises(IntegrityError, match="not a folder"):
            digests.folder_manifest(path)


def test_a_folder_that_cannot_be_read_is_refused() -> None:
    # Root reads everything, so as root the walk is made as an ordinary user; pytest's own folder would shut that user
    # out.
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        inner = Path(name) / "inner"
        inner.mkdir()
        (inner / "a").write_bytes(b"")
        inner.chmod(0)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            with pytest.raises(IntegrityError, match="cannot be read"):
                digests.folder_manifest(Path(name))
        finally:
            os.seteuid(user)
            inner.chmod(0o700)


@given(st.binary(max_size=4096), st.integers(0, 64))
def test_stream_digest_counts_from_where_it_stands(data: bytes, skip: int) -> None:
    stream = io.BytesIO(data)
    stream.seek(skip)
    rest = data[skip:]
    assert digests.sha256_stream(stream) == (hashlib.sha256(rest).hexdigest(), len(rest))


def test_file_digest_spans_chunks(tmp_path: Path) -> None:
    data = bytes(range(256)) * 4097
    (tmp_path / "big").write_bytes(data)
    assert digests.sha256_file(tmp_path / "big") == digests.sha256_bytes(data) == hashlib.sha256(data).hexdigest()
