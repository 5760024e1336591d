"""The lines of an audit that was done again: what the audit room says of numbers and the gateway of decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

PASS, CAVEAT, FAIL = "PASS", "CAVEAT", "FAIL"
RELEASE_FILE = "release.json"
"""Where a kit holds what release policy was asked and what it answered: the gateway writes it, both rooms read it."""


@dataclass(frozen=True)
class Line:
    """One number or decision compared.

    Attributes:
        name: of the number, or of the rule.
        answer: :data:`PASS`, :data:`CAVEAT` or :data:`FAIL`.
        reason: why.
        recorded: what the record has.
        again: what came out now.
    """

    name: str
    answer: str
    reason: str
    recorded: str
    again: str


def counts(lines: Sequence[Line]) -> dict[str, int]:
    """How many lines have each answer."""
    return {answer: sum(line.answer == answer for line in lines) for answer in (PASS, CAVEAT, FAIL)}
