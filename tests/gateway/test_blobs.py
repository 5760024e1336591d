"""The blob store: what is read is what was written, for the unit it was written for, and nothing else opens."""

from __future__ import annotations

import errno
import hashlib
import io
import shutil
from pathlib import Path

import pytest

from assay.errors import AbortedError, IntegrityError, InvalidInputError, NotFoundError
from gateway.store.blobs import Blob, FileBlobStore, put, put_bytes, read_bytes, read_master_key

KEY = bytes(range(32))
CHUNK = 64 << 10


@pytest.fixture
def store(tmp_path: Path) -> FileBlobStore:
    return FileBlobStore(tmp_path / "blobs", KEY)


def stored_file(tmp_path: Path, unit: str) -> Path:
    (path,) = [p for p in (tmp_path / "blobs" / "units" / unit).iterdir() if p.name != "unit.salt"]
    return path


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 300_001])
def test_round_trip(store: FileBlobStore, size: int) -> None:
    data = hashlib.shake_128(b"x").digest(size)
    blob = put(store, "credit", io.BytesIO(data))
    assert blob == Blob(hashlib.sha256(data).hexdigest(), size)
    with store.open("credit", blob.sha256) as stream:
        assert stream.read(10) == data[:10]
        assert stream.read() == data[10:]
    assert put_bytes(store, "credit", data) == blob
    assert read_bytes(store, "credit", blob.sha256) == data


def test_nothing_of_the_content_or_its_digest_lies_on_disk(store: FileBlobStore, tmp_path: Path) -> None:
    secret = b"IBAN GB33BUKB20201555555555 " * 4000
    blob = put_bytes(store, "credit", secret)
    path = stored_file(tmp_path, "credit")
    assert b"GB33BUKB" not in path.read_bytes()
    assert blob.sha256 not in path.name
    assert path.stat().st_mode & 0o077 == 0


def test_another_unit_does_not_see_it(store: FileBlobStore, tmp_path: Path) -> None:
    blob = put_bytes(store, "credit", b"rows")
    put_bytes(store, "claims", b"other rows")
    assert not store.exists("claims", blob.sha256)
    with pytest.raises(NotFoundError):
        store.open("claims", blob.sha256)
    with pytest.raises(NotFoundError):
        store.open("support", blob.sha256)


def test_a_file_moved_to_another_name_or_unit_does_not_open(store: FileBlobStore, tmp_path: Path) -> None:
    first, second = put_bytes(store, "credit", b"first"), put_bytes(store, "credit", b"second")
    other = put_bytes(store, "claims", b"first")
    names = {b.sha256: store._path("credit", b.sha256) for b in (first, second)}
    names[first.sha256].write_bytes(names[second.sha256].read_bytes())
    with pytest.raises(IntegrityError):
        store.open("credit", first.sha256)
    names[first.sha256].write_bytes(store._path("claims", other.sha256).read_bytes())
    with pytest.raises(IntegrityError):
        store.open("credit", first.sha256)


@pytest.mark.parametrize("where", [0, 15, 40, 70, 80, CHUNK + 90, -1])
def test_any_changed_byte_is_noticed(store: FileBlobStore, tmp_path: Path, where: int) -> None:
    blob = put_bytes(store, "credit", bytes(CHUNK + 1000))
    path = stored_file(tmp_path, "credit")
    data = bytearray(path.read_bytes())
    data[where] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError) as caught:
        read_bytes(store, "credit", blob.sha256)
    assert caught.value.reason == "BLOB_DAMAGED"


@pytest.mark.parametrize("keep", [0, 30, 71, 71 + CHUNK + 16, 71 + 2 * (CHUNK + 16)])
def test_a_cut_file_is_noticed(store: FileBlobStore, tmp_path: Path, keep: int) -> None:
    blob = put_bytes(store, "credit", bytes(2 * CHUNK + 1000))
    path = stored_file(tmp_path, "credit")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(IntegrityError):
        read_bytes(store, "credit", blob.sha256)


def test_an_abandoned_write_leaves_nothing(store: FileBlobStore, tmp_path: Path) -> None:
    writer = store.writer("credit")
    writer.write(bytes(CHUNK * 3))
    writer.abandon()
    assert [p.name for p in (tmp_path / "blobs" / "units" / "credit").iterdir()] == ["unit.salt"]
    assert list((tmp_path / "blobs" / "tmp").iterdir()) == []


def test_a_sealed_file_is_seen_once_it_is_finished_and_never_after_it_was_abandoned(store: FileBlobStore) -> None:
    first, second = store.writer("credit"), store.writer("credit")
    for writer in (first, second):
        writer.write(b"rows")
    blob = first.seal()
    assert first.seal() == second.seal() == blob and not store.exists("credit", blob.sha256)
    first.abandon()
    with pytest.raises(AbortedError) as caught:
        first.finish()
    assert caught.value.reason == "WRITE_ABANDONED" and not store.exists("credit", blob.sha256)
    assert second.finish() == blob and read_bytes(store, "credit", blob.sha256) == b"rows"


def test_what_a_killed_process_left_in_scratch_is_removed(store: FileBlobStore, tmp_path: Path) -> None:
    store.writer("credit").write(b"half")
    assert list((tmp_path / "blobs" / "tmp").iterdir())
    FileBlobStore(tmp_path / "blobs", KEY).clear_scratch()
    assert list((tmp_path / "blobs" / "tmp").iterdir()) == []


def test_another_process_on_the_same_folder_takes_nothing_away(store: FileBlobStore, tmp_path: Path) -> None:
    writer = store.writer("credit")
    writer.write(b"rows")
    with store.scratch() as folder:
        FileBlobStore(tmp_path / "blobs", KEY)
        assert folder.is_dir()
    assert read_bytes(store, "credit", writer.finish().sha256) == b"rows"


def test_removing_the_unit_salt_shreds_every_file(store: FileBlobStore, tmp_path: Path) -> None:
    blob = put_bytes(store, "credit", b"rows")
    kept = stored_file(tmp_path, "credit").read_bytes()
    (tmp_path / "blobs" / "units" / "credit" / "unit.salt").unlink()
    put_bytes(store, "credit", b"new rows")
    store._path("credit", blob.sha256).write_bytes(kept)
    with pytest.raises(IntegrityError):
        store.open("credit", blob.sha256)


def test_delete(store: FileBlobStore) -> None:
    blob = put_bytes(store, "credit", b"rows")
    store.delete("credit", blob.sha256)
    store.delete("credit", blob.sha256)
    assert not store.exists("credit", blob.sha256)


def test_another_master_key_opens_nothing(store: FileBlobStore, tmp_path: Path) -> None:
    blob = put_bytes(store, "credit", b"rows")
    shutil.copytree(tmp_path / "blobs", tmp_path / "copy")
    with pytest.raises((NotFoundError, IntegrityError)):
        FileBlobStore(tmp_path / "copy", bytes(32)).open("credit", blob.sha256)


@pytest.mark.parametrize("unit", ["", "../etc", "Credit", "a/b"])
def test_a_unit_is_never_a_path(store: FileBlobStore, unit: str) -> None:
    with pytest.raises(IntegrityError):
        put_bytes(store, unit, b"x")


def test_scratch_is_private_and_removed(store: FileBlobStore) -> None:
    with store.scratch() as folder:
        assert folder.stat().st_mode & 0o077 == 0
        (folder / "plain").write_bytes(b"x")
    assert not folder.exists()


def test_under_another_master_key_what_is_marked_stays(tmp_path: Path) -> None:
    store = FileBlobStore(tmp_path / "blobs", KEY)
    blob = put_bytes(store, "credit", b"rows")
    mark = store.mark("credit", [blob.sha256])
    FileBlobStore(tmp_path / "blobs", bytes(32)).settle(lambda unit: [blob.sha256])
    assert mark.exists() and store.exists("credit", blob.sha256)
    store.settle(lambda unit: [blob.sha256])
    assert not mark.exists() and store.exists("credit", blob.sha256)


def test_marks_of_a_unit_whose_files_are_all_shredded_go(tmp_path: Path) -> None:
    store = FileBlobStore(tmp_path / "blobs", KEY)
    mark = store.mark("credit", ["0" * 64])
    (tmp_path / "blobs" / "units" / "credit" / "unit.salt").unlink()
    store.settle(lambda unit: pytest.fail("nothing can be opened"))
    assert not mark.exists()


@pytest.mark.parametrize("text", ["not hex", "00" * 31])
def test_a_master_key_that_is_none_is_refused_with_a_remedy(tmp_path: Path, text: str) -> None:
    path = tmp_path / "units.key"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(InvalidInputError) as caught:
        read_master_key(path)
    assert caught.value.reason == "KEY_TYPE" and "assay init" in caught.value.remedy


def test_a_write_that_a_full_disk_broke_off_leaves_nothing(
    store: FileBlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = store.writer("credit")

    class Full:
        def close(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    writer._stream.close()  # type: ignore[attr-defined]
    monkeypatch.setattr(writer, "_stream", Full())
    writer.abandon()
    assert [path for path in (tmp_path / "blobs" / "tmp").rglob("*") if path.is_file()] == []
