"""How many of the ledger's tests are negative: ``python -m tests.negatives [-v]`` prints the count, one line a folder.

A collected case (each parameter set is one) is *negative* when it demands that something is refused. It does when the
test function, or a function of tests/ that it calls, has

- ``pytest.raises``, or a helper called ``refused…``, which demands the reason, or
- an ``assert`` that something *is* (``==``, ``in``, ``is``) a refusal: a named reason of an error of this code, a
  verdict other than valid, an HTTP status from 400 on, an SQLSTATE by its name here, a complaint of a report, or that
  a permit is ``not`` allowed;

or when such a reason or verdict is among the case's own parameters. An ``assert`` that there is *no* refusal counts
for nothing, and neither do fixtures. A function that shows both counts with all its cases (the 196 upstream proofs, of
which 12 must be accepted); one that is refused in a way not listed here does not count (34 answers of a witness).
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import re
import sys
import types
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("tests/audit/ledger", "tests/audit/verify", "tests/audit/test_attacks.py", "tests/fuzz", "tests/interop")
LEAST = 60
VERDICTS = frozenset({"invalid", "stale", "incomplete", "suspect"})
SQLSTATES = frozenset({"DENIED", "GUARDED"})
COMPLAINTS = frozenset({"complaints", "failing", "failed"})
SOURCES = ("assay", "audit/ledger", "audit/verify")
_WORD = re.compile(r"[A-Z][A-Z0-9]*_[A-Z0-9_]+|[A-Z]{4,}")


@cache
def reasons() -> frozenset[str]:
    """Every reason that an error of the code under test can have: first arguments of the classes of assay.errors."""
    found: set[str] = set()
    for path in (p for folder in SOURCES for p in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and node.args and "Error" in ast.unparse(node.func):
                first = node.args[0]
                if isinstance(first, ast.Constant) and isinstance(first.value, str):
                    found.update(_WORD.findall(first.value))
    return frozenset(found)


def says_refusal(value: Any) -> bool:
    """Whether a text is a verdict other than valid, or names a reason."""
    return isinstance(value, str) and (value in VERDICTS or not reasons().isdisjoint(_WORD.findall(value)))


@cache
def demands_refusal(function: types.FunctionType) -> bool:
    """Whether a function, or one of tests/ that it calls, demands a refusal."""
    tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(function)))
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert) and _asserts_refusal(node.test):
            return True
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        if name == "pytest.raises" or name.startswith("refused"):
            return True
        called = function.__globals__.get(name)
        ours = isinstance(called, types.FunctionType) and called.__module__.startswith("tests.")
        if ours and called is not function and demands_refusal(called):
            return True
    return False


def _asserts_refusal(test: ast.expr) -> bool:
    for node in ast.walk(test):
        if isinstance(node, ast.UnaryOp) and ast.unparse(node).startswith("not ") and ".allowed" in ast.unparse(node):
            return True
        compares = isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq | ast.In | ast.Is)
        if compares and any(_is_refusal(part, ast.unparse(node)) for part in ast.walk(node)):
            return True
    return False


def _is_refusal(part: ast.AST, comparison: str) -> bool:
    """Whether a part of a comparison is a refusal."""
    if isinstance(part, ast.Name):
        nothing = comparison.endswith(("== {}", "== []"))
        return part.id in SQLSTATES or (part.id in COMPLAINTS and not nothing)
    if not isinstance(part, ast.Constant):
        return False
    status = type(part.value) is int and 400 <= part.value < 600 and "status" in comparison
    return status or says_refusal(part.value)


def negative(item: pytest.Function) -> bool:
    """Whether a collected case demands a refusal."""
    params = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return demands_refusal(inspect.unwrap(item.function)) or any(map(says_refusal, params))


class Count:
    """A pytest plugin that counts what is collected."""

    def __init__(self) -> None:
        self.cases: dict[str, bool] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Notes every case."""
        self.cases = {item.nodeid: negative(item) for item in items if isinstance(item, pytest.Function)}


def counted() -> dict[str, bool]:
    """Every case of the ledger's tests, and whether it is negative."""
    plugin = Count()
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = pytest.main(["--collect-only", "-qq", *(str(ROOT / folder) for folder in FOLDERS)], plugins=[plugin])
    if code != 0 or not plugin.cases:
        raise SystemExit(f"the tests could not be collected: {said.getvalue()}")
    return plugin.cases


def main(*words: str) -> None:
    """Prints the figures; with ``-v`` every case that is not negative."""
    cases = counted()
    total: Counter[str] = Counter()
    refusals: Counter[str] = Counter()
    for node, is_negative in cases.items():
        folder = next(f for f in FOLDERS if node.startswith(f))
        total[folder] += 1
        refusals[folder] += is_negative
        if "-v" in words and not is_negative:
            print("positive", node)
    for folder in FOLDERS:
        print(f"{folder}: {refusals[folder]} of {total[folder]} negative")
    share = 100 * refusals.total() / total.total()
    print(f"all: {refusals.total()} of {total.total()} negative, {share:.1f} %")
    raise SystemExit(share < LEAST)


if __name__ == "__main__":
    main(*sys.argv[1:])
