"""The table of bad inputs in README.md names tests that exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.readme_rows import absent, rows

FOLDER = Path(__file__).parent
ROWS = rows(FOLDER / "README.md", r"\| .*::")


def test_every_input_has_a_row() -> None:
    assert len(ROWS) == 9


@pytest.mark.parametrize("row", ROWS, ids=[row.split("|")[1].strip() for row in ROWS])
def test_the_tests_named_exist(row: str) -> None:
    assert absent(FOLDER, row) == []


@pytest.mark.parametrize(
    "row",
    ["| x | y | open |", "| x | `test_bad_inputs.py::test_no_such` |", "| x | `gone.py::test_x` |",
     "| x | `readme_rows.py::absent` |", "| x | `test_bad_inputs.py::test_every_input_has_a_row` `a/b.py::test_y` |"],
)  # fmt: skip
def test_a_row_that_names_no_test_is_noticed(row: str) -> None:
    assert absent(FOLDER, row) != []
