"""What ``assay policy lint`` shows: every fault of a pack at once, each with its place.

Faults are what :mod:`policies.pack` refuses; a pack that has any does not load. Two more things are asked of an
author here: a rule that cites law says how sure it is of the citation or is not marked as law, and the table of tests
can be read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from assay.errors import InvalidInputError
from policies import testing
from policies.pack import RULES, collect
from policies.rule import Pack


@dataclass(frozen=True)
class LintFinding:
    """One fault; ``line`` and ``column`` are 1-based, 0 where the fault has no place."""

    file: str
    line: int
    column: int
    rule: str
    reason: str
    message: str


@dataclass(frozen=True)
class LintReport:
    """All faults of a pack.

    Attributes:
        folder: name of the pack's folder.
        rules: number of rules that were read; 0 when the pack does not load.
        findings: the faults, in file order as far as they have a place.
    """

    folder: str
    rules: int
    findings: tuple[LintFinding, ...]

    @property
    def ok(self) -> bool:
        """True when there is no fault."""
        return not self.findings


def lint_pack(folder: Path) -> LintReport:
    """Checks a pack; never raises because of what its files say."""
    pack, faults = collect(folder)
    findings = [_of(fault) for fault in faults]
    if pack is not None:
        findings += _uncertain_law(pack)
        try:
            testing.read_cases(pack)
        except InvalidInputError as error:
            findings.append(_of(error))
    findings.sort(key=lambda f: (f.file, f.line, f.column))
    return LintReport(folder.name, len(pack.rules) if pack is not None else 0, tuple(findings))


def _uncertain_law(pack: Pack) -> list[LintFinding]:
    message = "a binding rule names an article or section of its source, so that a reader can look it up"
    return [
        LintFinding(RULES, 0, 0, rule.id, "PACK_CITATION", message)
        for rule in pack.rules
        if rule.status == "binding" and not any(character.isdigit() for character in rule.instrument + rule.reference)
    ]


def _of(error: InvalidInputError) -> LintFinding:
    data = error.metadata
    place = (int(data.get("line", "0") or 0), int(data.get("column", "0") or 0))
    return LintFinding(data.get("file", ""), *place, data.get("rule", ""), error.reason, error.message)
