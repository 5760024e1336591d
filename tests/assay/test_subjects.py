"""Handles of data subjects and the index that leads from a handle to rows."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.errors import IntegrityError
from assay.subjects import IndexMaker, SubjectIndex, handle_of

KEY, OTHER = b"k" * 32, b"o" * 32


def made(folder: Path, values: list[str], key: bytes = KEY) -> SubjectIndex:
    maker = IndexMaker(key)
    for number, value in enumerate(values, 1):
        maker.note(number, value)
    maker.write(folder / "index")
    index = SubjectIndex.parse((folder / "index").read_bytes())
    index.demand_ordered()
    return index


def test_a_handle_is_an_hmac_under_the_units_key() -> None:
    expected = hmac.new(KEY, b"assay/subject/v1\0C-17", hashlib.sha256).digest()
    assert handle_of(KEY, "C-17") == expected
    assert handle_of(KEY, "  C-17 \n") == handle_of(KEY, "Ｃ-17") == expected
    assert len({expected, handle_of(OTHER, "C-17"), handle_of(KEY, "c-17"), handle_of(KEY, "C-1")}) == 4
    with pytest.raises(IntegrityError, match="32 bytes"):
        handle_of(b"short", "C-17")


@given(st.lists(st.text(max_size=3), max_size=60))
def test_every_row_is_found_under_its_subject_and_no_other(
    tmp_path_factory: pytest.TempPathFactory, values: list[str]
) -> None:
    index = made(tmp_path_factory.mktemp("i"), values)
    by_handle: dict[bytes, list[int]] = {}
    for number, value in enumerate(values, 1):
        by_handle.setdefault(handle_of(KEY, value), []).append(number)
    assert {h: list(index.rows(h)) for h in by_handle} == by_handle
    assert list(index.handles()) == sorted(by_handle) and len(index) == len(values)
    assert index.rows(handle_of(OTHER, "nobody here")) == []


def test_the_index_holds_no_value(tmp_path: Path) -> None:
    index = made(tmp_path, ["mrs.doe@example.org", "mr.roe@example.org"])
    assert b"doe" not in index.data and b"example" not in index.data


def test_subjects_in_common_are_counted_once(tmp_path: Path) -> None:
    first, second = made(tmp_path, ["a", "a", "b", "c"]), made(tmp_path, ["c", "a", "a", "d", "e", "f"])
    assert first.shared_with(second) == second.shared_with(first) == 2
    assert first.shared_with(made(tmp_path, ["a"], OTHER)) == 0


@pytest.mark.parametrize(
    "spoil",
    [lambda d: d[:-1], lambda d: b"X" + d[1:], lambda d: b"", lambda d: d[:11] + d[47:83] + d[11:47]],
    ids=["cut", "another magic", "empty", "out of order"],
)
def test_a_damaged_index_is_refused(tmp_path: Path, spoil) -> None:  # type: ignore[no-untyped-def]
    good = made(tmp_path, ["a", "b"]).data
    with pytest.raises(IntegrityError) as caught:
        SubjectIndex.parse(spoil(good)).demand_ordered()
    assert caught.value.reason == "SUBJECT_INDEX"
