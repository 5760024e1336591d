"""The head of a sealed file, which a supervisor reads of a file that its hostile task wrote and sealed."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from assay import sealed_file
from assay.errors import ExhaustedError, IntegrityError

KEY = bytes(32)


def forged(path: Path, length: int) -> Path:
    """A genuine file whose head says that it has another length."""
    salt = bytes(32)
    plain = struct.pack(">I", length) + b"{}"
    sealed = sealed_file._cipher(KEY, salt).encrypt(sealed_file._nonce(0, True), plain, None)
    path.write_bytes(sealed_file._MAGIC + salt + sealed)
    return path


@pytest.mark.parametrize("length", [3, sealed_file.MAX_HEAD, sealed_file.MAX_HEAD + 1, (1 << 32) - 1])
def test_a_head_of_a_length_that_it_does_not_have_is_damaged(tmp_path: Path, length: int) -> None:
    assert sealed_file.head(forged(tmp_path / "f", 2), KEY) == b"{}"
    for opened in (sealed_file.head, sealed_file.read):
        with pytest.raises(IntegrityError):
            opened(forged(tmp_path / "f", length), KEY)


def test_a_head_beyond_the_bound_is_neither_written_nor_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, chunks = tmp_path / "f", []
    opened = sealed_file._opened
    sealed_file.write(path, b"x" * (3 << 20), b"body", KEY)
    monkeypatch.setattr(sealed_file, "MAX_HEAD", (3 << 20) - 1)
    monkeypatch.setattr(sealed_file, "_opened", lambda *which: (chunks.append(c) or c for c in opened(*which)))
    with pytest.raises(IntegrityError):
        sealed_file.head(path, KEY)
    assert len(chunks) == 1, "its length is looked at first"
    with pytest.raises(IntegrityError):
        sealed_file.read(path, KEY)
    with pytest.raises(ExhaustedError) as refused:
        sealed_file.write(tmp_path / "g", b"x" * (3 << 20), b"", KEY)
    assert refused.value.reason == "SEALED_FILE_HEAD" and refused.value.remedy
    assert not (tmp_path / "g").exists()
