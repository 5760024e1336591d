"""What is wrong with single rows, kept so that the owner can mend them and nobody else learns what they hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

MAX_KEPT = 200
MAX_PER_ROW = 5


@dataclass(frozen=True)
class Problem:
    """One thing wrong with one row.

    Attributes:
        field: where, such as ``messages[2].role``; never a name taken from the row unless the format defines it.
        code: stable UPPER_SNAKE_CASE word.
        reason: what is wrong and what to do, in words that hold no content of the row.
    """

    field: str
    code: str
    reason: str


@dataclass(frozen=True)
class Finding:
    """A problem with its row."""

    row: int
    problem: Problem


class Findings:
    """Counts every refused row and keeps the first findings, :data:`MAX_KEPT` at most."""

    def __init__(self) -> None:
        self.kept: list[Finding] = []
        self.refused_rows = 0
        self.by_code: Counter[str] = Counter()

    def refuse(self, row: int, problems: Sequence[Problem]) -> None:
        """Notes that a row goes no further, and why; ``problems`` must not be empty."""
        self.refused_rows += 1
        self.by_code.update({p.code for p in problems})
        room = min(MAX_PER_ROW, MAX_KEPT - len(self.kept))
        self.kept.extend(Finding(row, p) for p in problems[: max(room, 0)])
