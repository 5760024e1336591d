"""Sealed bundles against a hostile sender, a hostile carrier and plain accidents."""

from __future__ import annotations

import io
import os
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from assay import bundle, canonical
from assay.digests import sha256_bytes
from assay.errors import AssayError, ExhaustedError, IntegrityError, InvalidInputError

RECEIVER = X25519PrivateKey.generate()
SENDER = Ed25519PrivateKey.generate()
FILES: dict[str, Path | bytes] = {"adapter/weights.bin": b"w" * 1000, "empty": b"", "notes.txt": "naïve".encode()}


def sealed(files: dict[str, Path | bytes] | None = None, **manifest: Any) -> bytes:
    out = io.BytesIO()
    facts = {"task_id": "t1", "kind": "train", **manifest}
    digest = bundle.seal(FILES if files is None else files, facts, RECEIVER.public_key(), SENDER, out)
    assert digest == sha256_bytes(out.getvalue())
    return out.getvalue()


def opened(data: bytes, into: Path, *, max_bytes: int = 1 << 30) -> dict[str, Any]:
    return bundle.unseal(io.BytesIO(data), RECEIVER, SENDER.public_key(), into, max_bytes=max_bytes)


def refuse(data: bytes, tmp_path: Path, **options: Any) -> AssayError:
    """Opening must fail by a named error and leave nothing behind."""
    with pytest.raises(AssayError) as refused:
        opened(data, tmp_path / "out", **options)
    assert os.listdir(tmp_path) == []
    return refused.value


def test_round_trip(tmp_path: Path) -> None:
    data = sealed(order={"steps": 3})
    assert b"w" * 16 not in data
    manifest = opened(data, tmp_path / "out")
    assert manifest["order"] == {"steps": 3}
    assert [f["path"] for f in manifest["files"]] == sorted(FILES)
    for name, content in FILES.items():
        assert (tmp_path / "out" / name).read_bytes() == content
    assert bundle.read_manifest(io.BytesIO(data), RECEIVER, SENDER.public_key(), max_bytes=1 << 20) == manifest


@pytest.mark.parametrize("size", [0, 1, bundle.CHUNK - 1, bundle.CHUNK, bundle.CHUNK + 1, 3 * bundle.CHUNK])
def test_sizes_around_the_chunk(tmp_path: Path, size: int) -> None:
    (tmp_path / "source").write_bytes(os.urandom(size))
    data = sealed({"a": tmp_path / "source", "b": b"x" * size})
    opened(data, tmp_path / "out")
    assert (tmp_path / "out" / "a").read_bytes() == (tmp_path / "source").read_bytes()
    assert (tmp_path / "out" / "b").read_bytes() == b"x" * size


def test_memory_stays_bounded(tmp_path: Path) -> None:
    with (tmp_path / "big").open("wb") as stream:
        stream.truncate(64 << 20)
    tracemalloc.start()
    with (tmp_path / "sealed").open("wb") as out:
        bundle.seal({"big": tmp_path / "big"}, {}, RECEIVER.public_key(), SENDER, out)
    with (tmp_path / "sealed").open("rb") as src:
        bundle.unseal(src, RECEIVER, SENDER.public_key(), tmp_path / "out", max_bytes=1 << 30)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    data = sealed({"a": b"some rows"})
    for position in range(len(data)):
        flipped = bytearray(data)
        flipped[position] ^= 1
        refuse(bytes(flipped), tmp_path)


def test_every_truncation_and_any_tail_is_noticed(tmp_path: Path) -> None:
    data = sealed({"a": b"some rows"})
    for length in range(len(data)):
        refuse(data[:length], tmp_path)
    assert refuse(data + b"\0", tmp_path).reason == "BUNDLE_SIGNATURE"


def test_only_the_receiver_and_only_the_sender(tmp_path: Path) -> None:
    data = sealed()
    stranger = X25519PrivateKey.generate()
    with pytest.raises(IntegrityError) as refused:
        bundle.unseal(io.BytesIO(data), stranger, SENDER.public_key(), tmp_path / "out", max_bytes=1 << 30)
    assert refused.value.reason == "BUNDLE_RECIPIENT"
    other = Ed25519PrivateKey.generate().public_key()
    with pytest.raises(IntegrityError) as refused:
        bundle.unseal(io.BytesIO(data), RECEIVER, other, tmp_path / "out", max_bytes=1 << 30)
    assert refused.value.reason == "BUNDLE_SIGNATURE"
    assert os.listdir(tmp_path) == []


def forged(files: list[dict[str, Any]], body: bytes, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """What a sender that holds the signing key could make: any manifest over any bytes."""
    manifest = canonical.encode({"v": 1, "files": files})
    monkeypatch.setattr(bundle, "_plaintext", lambda *_: iter([struct.pack(">I", len(manifest)) + manifest, body]))
    data = sealed({})
    monkeypatch.undo()
    return data


def entry(path: Any, content: bytes = b"x", **changes: Any) -> dict[str, Any]:
    return {"path": path, "sha256": sha256_bytes(content), "size": len(content), **changes}


@pytest.mark.parametrize(
    "path",
    [
        "../up",
        "a/../../up",
        "/etc/passwd",
        "",
        ".",
        "a//b",
        "a/./b",
        "nul\0",
        "back\\slash",
        "a/",
        "x" * 600,
        "line\nfeed",
    ],
)
def test_a_path_outside_the_bundle_is_refused_at_both_ends(
    tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert refuse(forged([entry(path)], b"x", monkeypatch), tmp_path).reason == "BUNDLE_PATH"
    with pytest.raises(InvalidInputError) as refused:
        sealed({path: b"x"})
    assert refused.value.reason == "BUNDLE_PATH"


@pytest.mark.parametrize(
    ("files", "body", "reason"),
    [
        ([entry("a"), entry("a")], b"xx", "BUNDLE_PATH"),
        ([entry("a"), entry("A")], b"xx", "BUNDLE_PATH"),
        ([entry("a"), entry("a/b")], b"xx", "BUNDLE_PATH"),
        ([entry("a", sha256="0" * 64)], b"x", "BUNDLE_FILE_HASH"),
        ([entry("a", sha256="zz")], b"x", "BUNDLE_MANIFEST"),
        ([entry("a", size=-1)], b"x", "BUNDLE_MANIFEST"),
        ([entry("a", size=True)], b"x", "BUNDLE_MANIFEST"),
        ([entry("a", size=2)], b"x", "BUNDLE_BODY"),
        ([entry("a")], b"xy", "BUNDLE_BODY"),
        ([entry(7)], b"x", "BUNDLE_MANIFEST"),
        ([entry("a", mode=0o777)], b"x", "BUNDLE_MANIFEST"),
        ([entry("a"), entry("b", sha256="0" * 64)], b"xx", "BUNDLE_FILE_HASH"),
        ([entry("a", size=2**40)], b"x", "BUNDLE_TOO_LARGE"),
    ],
)
def test_a_hostile_manifest_leaves_nothing(
    tmp_path: Path, files: list[dict[str, Any]], body: bytes, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert refuse(forged(files, body, monkeypatch), tmp_path).reason == reason


def test_too_large_is_refused_before_reading(tmp_path: Path) -> None:
    with pytest.raises(ExhaustedError) as refused:
        opened(sealed(), tmp_path / "out", max_bytes=100)
    assert refused.value.reason == "BUNDLE_TOO_LARGE"


def test_what_nobody_could_open_is_not_sealed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = sealed()
    monkeypatch.setattr(bundle, "MAX_SEALED", len(whole))
    opened(sealed(), tmp_path / "out")
    monkeypatch.setattr(bundle, "MAX_SEALED", len(whole) - 1)
    with pytest.raises(ExhaustedError) as refused:
        sealed()
    assert refused.value.reason == "BUNDLE_TOO_LARGE"


def test_an_existing_target_or_a_link_in_its_place_is_refused(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "out").symlink_to(elsewhere)
    with pytest.raises(InvalidInputError) as refused:
        opened(sealed(), tmp_path / "out")
    assert refused.value.reason == "BUNDLE_TARGET_EXISTS"
    assert list(elsewhere.iterdir()) == []


def test_sealing_refuses_links_devices_and_files_that_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to("/etc/hostname")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(InvalidInputError) as refused:
            sealed({"a": tmp_path / name})
        assert refused.value.reason == "BUNDLE_FILE"
    (tmp_path / "file").write_bytes(b"before")
    monkeypatch.setattr(bundle, "sha256_file", lambda path: sha256_bytes(b"other"))
    with pytest.raises(IntegrityError) as changed:
        sealed({"a": tmp_path / "file"})
    assert changed.value.reason == "BUNDLE_FILE_CHANGED"


def test_chunks_cannot_change_places(tmp_path: Path) -> None:
    # Re-signed by the sender's key, so that only the chunk construction stands in the way.
    data = sealed({"a": b"1" * bundle.CHUNK + b"2" * bundle.CHUNK + b"3" * 9})
    start = len(bundle.MAGIC) + 4 + struct.unpack(">I", data[8:12])[0]
    size = bundle.CHUNK + 16
    header, body = data[12:start], data[start:-64]
    chunks = [body[i : i + size] for i in range(0, len(body), size)]
    import hashlib

    for order in ([1, 0, 2], [0, 2], [0, 1, 1, 2]):
        mixed = b"".join(chunks[i] for i in order)
        signed = bundle._SIGNED + hashlib.sha256(header).digest() + hashlib.sha256(mixed).digest()
        assert refuse(data[:start] + mixed + SENDER.sign(signed), tmp_path).reason == "BUNDLE_BODY"
