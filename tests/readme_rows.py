"""The tests that a table of a README names, `path::name` in backticks, held against the tests that there are."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path


def rows(readme: Path, first: str) -> list[str]:
    """Lines of the readme's tables that begin with a pattern and name tests or should."""
    return [line for line in readme.read_text().splitlines() if re.match(first, line)]


def named(folder: Path, row: str) -> list[tuple[Path, str]]:
    """Files and functions that a row names."""
    return [((folder / path).resolve(), name) for path, name in re.findall(r"`([\w/.]+)::(\w+)`", row)]


def absent(folder: Path, row: str) -> list[str]:
    """What a row names and is no test; a row that names nothing is at fault as a whole."""
    found = named(folder, row)
    if not found:
        return [row]
    return [f"{path}::{name}" for path, name in found if not name.startswith("test_") or name not in functions(path)]


@cache
def functions(path: Path) -> frozenset[str]:
    """Names of the functions at the top of a module; none where there is no such file."""
    if not path.is_file():
        return frozenset()
    body = ast.parse(path.read_text()).body
    return frozenset(n.name for n in body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
