"""The table of bad inputs in README.md names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
ROWS = [line for line in (FOLDER / "README.md").read_text().splitlines() if line.startswith("| ") and "::" in line]


def test_every_input_has_a_row() -> None:
    assert len(ROWS) == 9


@pytest.mark.parametrize("row", ROWS, ids=[row.split("|")[1].strip() for row in ROWS])
def test_the_tests_named_exist(row: str) -> None:
    for path, name in re.findall(r"`([\w/.]+)::(\w+)`", row):
        tree = ast.parse((FOLDER / path).read_text())
        assert name in {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}, path
