"""What a verification found: every check by name, what was not checked, and one verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

VALID, INVALID, STALE, INCOMPLETE, IN_DOUBT = "valid", "invalid", "stale", "incomplete", "suspect"
EXIT_CODES: Mapping[str, int] = {VALID: 0, INVALID: 1, STALE: 3, INCOMPLETE: 4, IN_DOUBT: 5}
EXIT_USAGE = 2

PASSED, FAILED, MISSING, OLD, SUSPECT = "passed", "failed", "missing", "old", "suspect"
_DETAIL = 500
_WORST = ((FAILED, INVALID), (SUSPECT, IN_DOUBT), (MISSING, INCOMPLETE), (OLD, STALE))


@dataclass(frozen=True)
class Check:
    """One thing checked, and its outcome.

    ``passed``, ``failed`` (it is false), ``suspect`` (a thief may have signed it), ``missing`` (something is not there)
    or ``old``.
    """

    name: str
    outcome: str
    detail: str = ""


@dataclass
class Report:
    """Gathers checks; the verdict is the worst of them, in the order invalid, suspect, incomplete, stale, valid."""

    checks: list[Check] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)
    stamps: list[str] = field(default_factory=list)
    origin: str = ""
    size: int = 0
    root: str = ""
    records: int = 0
    scope: str = ""

    @property
    def verdict(self) -> str:
        """``valid``, ``invalid``, ``suspect``, ``stale`` or ``incomplete``; a report without a check is not valid."""
        outcomes = {check.outcome for check in self.checks}
        for outcome, verdict in _WORST:
            if outcome in outcomes:
                return verdict
        return VALID if self.checks else INVALID

    def add(self, name: str, outcome: str, detail: str = "") -> None:
        """Adds a check; foreign text in the detail is cut where it would drown the rest."""
        self.checks.append(Check(name, outcome, detail if len(detail) <= _DETAIL else f"{detail[:_DETAIL]}..."))

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON-like data."""
        return {
            "verdict": self.verdict,
            "origin": self.origin,
            "scope": self.scope,
            "size": self.size,
            "root": self.root,
            "records": self.records,
            "stamps": self.stamps,
            "checks": [{"name": c.name, "outcome": c.outcome, "detail": c.detail} for c in self.checks],
            "not_checked": self.not_checked,
        }

    def text(self) -> str:
        """The report for people; control characters of foreign text are shown, never sent to a terminal."""
        lines = [f"verdict: {self.verdict.upper()}"]
        if self.origin:
            lines.append(f"log {self.origin}, {self.records} of {self.size} records, scope {self.scope}")
            lines.append(f"root {self.root}")
        lines += [f"! {stamp}" for stamp in self.stamps]
        lines.append("checked:")
        lines += [f"  {c.outcome:<8}{c.name}{': ' + c.detail if c.detail else ''}" for c in self.checks]
        lines.append("not checked:")
        lines += [f"  - {line}" for line in self.not_checked]
        return "\n".join(printable(line) for line in lines)


def printable(text: str) -> str:
    """Escapes what is not printable, so that a name cannot move a cursor or forge a line."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)
