"""The table of bad inputs in README.md names tests that exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.readme_rows import absent, rows

FOLDER = Path(__file__).parent
ROWS = rows(FOLDER / "README.md", r"\| .*::")


def test_every_input_has_a_row() -> None:
    assert len(ROWS) == 37


@pytest.mark.parametrize("row", ROWS, ids=[row.split("|")[1].strip() for row in ROWS])
def test_the_tests_named_exist(row: str) -> None:
    assert absent(FOLDER, row) == []


DOCS = FOLDER.parent / "docs" / "ledger.md"
ATTACKS = rows(DOCS, r"\| .*`tests/.*::")


def test_the_six_attacks_of_the_ledgers_page_have_tests() -> None:
    names = [row.split("|")[1].split(":")[0].strip() for row in ATTACKS]
    assert names == ["fork", "rollback", "truncation", "key swap", "stale checkpoint", "split view"]
    assert [fault for row in ATTACKS for fault in absent(FOLDER.parent, row)] == []


FAULTS = rows(FOLDER.parent / "docs" / "training.md", r"\| .*`tests/.*::")


@pytest.mark.parametrize("row", FAULTS, ids=[row.split("|")[1].strip()[:60] for row in FAULTS])
def test_the_tests_of_the_faults_of_training_exist(row: str) -> None:
    assert len(FAULTS) == 29 and absent(FOLDER.parent, row) == []


@pytest.mark.parametrize(
    "row",
    ["| x | y | open |", "| x | `test_bad_inputs.py::test_no_such` |", "| x | `gone.py::test_x` |",
     "| x | `readme_rows.py::absent` |", "| x | `test_bad_inputs.py::test_every_input_has_a_row` `a/b.py::test_y` |"],
)  # fmt: skip
def test_a_row_that_names_no_test_is_noticed(row: str) -> None:
    assert absent(FOLDER, row) != []
