"""At least 60 % of the ledger's tests are negative, and what counts as one is what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.audit.ledger.ledger_world import refused
from tests.negatives import demands_refusal, says_refusal


def test_the_share_of_negative_tests() -> None:
    """In a process of its own, since it collects all of the ledger's tests, whatever is being run here."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.negatives"], cwd=Path(__file__).parents[1], capture_output=True, text=True
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("all: ")


def by_raises() -> None:
    with pytest.raises(ValueError):
        int("x")


def by_helper() -> None:
    refused("LOG_FORKED", lambda: None)


def by_reason() -> None:
    assert str(Path()) == "LOG_FORKED"


def by_another() -> None:
    by_reason()


def accepts() -> None:
    assert "LOG_FORKED" not in str(Path())
    assert str(Path()) != "invalid", "LOG_FORKED"
    assert len("valid") == 5


@pytest.mark.parametrize("function", [by_raises, by_helper, by_reason, by_another])
def test_what_demands_a_refusal(function: object) -> None:
    assert demands_refusal(function)  # type: ignore[arg-type]


def test_what_does_not() -> None:
    assert not demands_refusal(accepts)  # type: ignore[arg-type]
    assert [says_refusal(v) for v in ("invalid", "LOG_FORKED: both", "valid", "LOG_FORCED", "SAME", 3)] == [
        True, True, False, False, False, False
    ]  # fmt: skip
