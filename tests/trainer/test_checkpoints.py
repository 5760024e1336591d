"""Checkpoints as files: sealed, whole or not there, the one before kept, a full disk named."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch

from assay import sealed_file
from assay.errors import ExhaustedError, IntegrityError, InternalError, UnavailableError
from assay.worker import kept
from trainer.recipes import checkpoints
from trainer.recipes.checkpoints import RunState

KEY = bytes(range(32))


def save(folder: Path, step: int) -> None:
    checkpoints.save(folder, RunState("f", step=step, curve=[(step, 0.5)]), {"w": torch.full((3,), step)}, KEY)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_the_last_two_are_kept_and_the_newest_is_read(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        save(tmp_path, step)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000010", "step-00000015"]
    found = checkpoints.load(tmp_path, "f", KEY)
    assert found is not None
    state, tensors = found
    assert (state.step, state.curve, state.damaged) == (15, [(15, 0.5)], 0) and tensors["w"].tolist() == [15] * 3


def test_a_damaged_one_is_passed_over_and_counted(tmp_path: Path) -> None:
    for step in (5, 10):
        save(tmp_path, step)
    flip(tmp_path / "step-00000010")
    found = checkpoints.load(tmp_path, "f", KEY)
    assert found is not None and (found[0].step, found[0].damaged) == (5, 1)
    found = checkpoints.load(tmp_path, "f", KEY)
    assert found is not None and found[0].damaged == 1, "killed before it wrote another, a run says the same"
    save(tmp_path, 10)
    flip(tmp_path / "step-00000010")
    found = checkpoints.load(tmp_path, "f", KEY)
    assert found is not None and (found[0].step, found[0].damaged) == (5, 2)
    sizes = {p.name: p.stat().st_size for p in tmp_path.iterdir() if not p.name.startswith("step-")}
    assert sizes == {"damaged-1": 0, "damaged-2": 0}
    flip(tmp_path / "step-00000005")
    with pytest.raises(IntegrityError) as raised:
        checkpoints.load(tmp_path, "f", KEY)
    assert raised.value.reason == "CHECKPOINT_DAMAGED"


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO])
def test_one_that_cannot_be_read_just_now_is_neither_passed_over_nor_thrown_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    for step in (5, 10):
        save(tmp_path / kept.CHECKPOINTS, step)
    open_, names = Path.open, {"step-00000010"}

    def refused(path: Path, *arguments: Any, **named: Any) -> Any:
        if path.name in names:
            raise OSError(number, "no")
        return open_(path, *arguments, **named)

    monkeypatch.setattr(Path, "open", refused)
    for _ in range(2):
        with pytest.raises(UnavailableError) as raised:
            checkpoints.load(tmp_path / kept.CHECKPOINTS, "f", KEY)
        assert raised.value.reason == "CHECKPOINT_UNREADABLE" and raised.value.remedy
        assert "step-00000010" in raised.value.message
        assert kept.newest(tmp_path, KEY) == 10, "the worker takes it for what its name says"
    names.clear()
    found = checkpoints.load(tmp_path / kept.CHECKPOINTS, "f", KEY)
    assert found is not None and (found[0].step, found[0].damaged) == (10, 0)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_named_and_the_one_before_stays_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    save(tmp_path, 5)

    def full(path: Path, *_: Any) -> None:
        path.write_bytes(b"half")
        raise OSError(number, "no room")

    monkeypatch.setattr(sealed_file, "write", full)
    with pytest.raises(ExhaustedError) as raised:
        save(tmp_path, 10)
    assert raised.value.reason == "DISK_FULL" and raised.value.remedy
    found = checkpoints.load(tmp_path, "f", KEY)
    assert found is not None and found[0].step == 5
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000005"]


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) - 9, (2 << 20) + 5])
def test_a_sealed_file_gives_back_what_went_in_and_shows_nothing_of_it(tmp_path: Path, size: int) -> None:
    path, body = tmp_path / "f", b"secret words " * (size // 13) + b"x" * (size % 13)
    sealed_file.write(path, b"head", body, KEY)
    assert sealed_file.read(path, KEY) == (b"head", body) and sealed_file.head(path, KEY) == b"head"
    sealed_file.write(path, body, b"rest", KEY)
    assert sealed_file.read(path, KEY) == (body, b"rest") and sealed_file.head(path, KEY) == body
    sealed_file.write(path, b"head", body, KEY)
    assert b"secret words" not in path.read_bytes() and b"head" not in path.read_bytes()


def test_a_changed_cut_or_foreign_sealed_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "f"
    sealed_file.write(path, b"head", bytes(3 << 20), KEY)
    whole = path.read_bytes()
    start, chunk = len(whole) - (3 << 20) - 4 * 16 - 8, (1 << 20) + 16
    swapped = whole[:start] + whole[start + chunk : start + 2 * chunk] + whole[start : start + chunk]
    for wrong in (b"", whole[:40], whole[: start + chunk], swapped + whole[start + 2 * chunk :], whole + b"x"):
        path.write_bytes(wrong)
        for opened in (sealed_file.read, sealed_file.head):
            with pytest.raises(IntegrityError):
                opened(path, KEY)
    path.write_bytes(whole)
    with pytest.raises(IntegrityError):
        sealed_file.read(path, bytes(32))
    with pytest.raises(InternalError):
        sealed_file.read(path, b"")
