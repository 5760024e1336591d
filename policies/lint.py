"""What ``assay policy lint`` shows: every fault of a pack at once, each with its place.

Faults are what :mod:`policies.pack` refuses; a pack that has any does not load. Three more things are asked of an
author here: a binding rule names an article or section, a rule does not inherit a citation of what it is not about, and
the table of tests can be read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from assay.errors import InvalidInputError
from policies import testing, yamlsource
from policies.pack import RULES, collect
from policies.rule import Pack, Part
from policies.yamlsource import Section

_ARTICLES = re.compile(r"\bArticles? (\d+[a-z]?(?:\([^)]*\))*(?:(?:, | and | to |, and )\d*[a-z]?(?:\([^)]*\))*)*)")
_ANNEX = re.compile(r"\bAnnex [IVXLC]+\b")


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
        findings += [finding for part in pack.parts for finding in _borrowed(part)]
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


def _borrowed(part: Part) -> list[LintFinding]:
    """Rules that take over the pack's citation though it does not hold what they are about.

    It does not where the rule has an instrument of its own, nor where the citation says which articles were read and
    the rule's reference names another one. A citation that names no article may be inherited by every rule.
    """
    document = yamlsource.read(part.folder / RULES)
    top, out = Section(document, ()), []
    given = top.data.get("defaults") or {}
    read = named(given.get("citation", ""))
    for section in top.items("rules"):
        if "citation" in section.data:
            continue
        other = sorted(named(section.data.get("reference", "")) - read) if read else []
        if "instrument" in section.data and section.data["instrument"] != given.get("instrument"):
            other.append(section.data["instrument"])
        if other:
            message = f"the pack's citation does not hold {' and '.join(other)}: the rule needs one of its own"
            place = document.position(section.where)
            rule = str(section.data.get("id", ""))
            out.append(LintFinding(document.name, place.line, place.column, rule, "PACK_CITATION", message))
    return out


def named(text: str) -> set[str]:
    """Articles and annexes that a text names, without their paragraphs: ``Article 5``, ``Annex IV``."""
    lists = " ".join(_ARTICLES.findall(text))
    numbers = re.findall(r"\d+[a-z]?", re.sub(r"\([^)]*\)", "", lists))
    return {f"Article {number}" for number in numbers} | set(_ANNEX.findall(text))


def _of(error: InvalidInputError) -> LintFinding:
    data = error.metadata
    place = (int(data.get("line", "0") or 0), int(data.get("column", "0") or 0))
    return LintFinding(data.get("file", ""), *place, data.get("rule", ""), error.reason, error.message)
