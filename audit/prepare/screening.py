"""The screens in order, over the rows that are kept, and what ties rows to one split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from audit.prepare import duplicates
from audit.prepare.canaries import Canary
from audit.prepare.rows import Entry, Row, Spool
from audit.prepare.screens import METHODS, CanaryScreen, Screener, ScreenFinding, repeated
from audit.prepare.splits import TRAIN, units

_LEAKAGE = {
    False: "rows of validation, selection or test with a near duplicate in train",
    True: "rows of validation, selection or test with the cells and label of a train row",
}
MOST_TWINS = 5
"""Most equal rows of a table that share a split. More are spread: with them tied the test would be a sample of
combinations of cells, and the intervals of group rates count people (docs/data.md)."""
_TABLE_METHODS = {
    "SPLIT_LEAKAGE": f"{_LEAKAGE[True]}: more than {MOST_TWINS} are equal, or a group field says what belongs together",
    "REPEATED_ROW": "count of copies of one record, where hidden columns tell records apart: over 20 and over 1 %",
}


@dataclass(frozen=True)
class Screened:
    """What the screens found, and which rows belong together.

    Attributes:
        findings: what stands out.
        root: for every kept row the position of the first row of its family, of near duplicates or, in a table, of
            rows with equal cells and label; itself when alone.
        tied: the same without families that are not tied.
        units: groups of two rows and more that share a split.
        met: positions of the rows whose family, unless it is one that is not tied, nearly says what a row of a model of
            before says.
    """

    findings: list[ScreenFinding]
    root: Sequence[int]
    tied: Sequence[int]
    units: int
    met: Sequence[int] = ()

    def common(self) -> set[int]:
        """Positions of the rows of a table that more than :data:`MOST_TWINS` are equal to, which are spread."""
        sizes = Counter(self.root)
        return {i for i, root in enumerate(self.root) if sizes[root] > MOST_TWINS}


def methods(table: bool) -> dict[str, str]:
    """The screens that run on such rows, with how they look; tables have no prose to compare or to read."""
    prose = {"NEAR_DUPLICATES": duplicates.METHOD, "SPLIT_LEAKAGE": f"{_LEAKAGE[False]}: {duplicates.METHOD}"}
    left_out = "HARMFUL_ANSWER" if table else "LABEL_FLIP"
    return {**{k: v for k, v in METHODS.items() if k != left_out}, **(_TABLE_METHODS if table else prose)}


def screen(
    spool: Spool, entries: Sequence[Entry], unique: Sequence[Entry], table: bool, before: Iterable[Row] = ()
) -> Screened:
    """Reads the kept rows three times: for near duplicates, to count phrases, and to look.

    Args:
        spool: where the rows lie.
        entries: all valid rows, duplicates included.
        unique: the rows that are kept.
        table: they are those of a decision table.
        before: rows that models of before were trained on; tables are not searched for their near duplicates either.
    """
    first: dict[str | bytes, int] = {}
    counts: Counter[str | bytes] = Counter()
    for e in entries:
        first.setdefault(e.identity, e.number)
        counts[e.identity] += 1
    met: Sequence[int] = ()
    findings = repeated(((first[d], n) for d, n in counts.items()), len(entries))
    if table:
        # Customers tied by what a row of theirs says would soon be one unit that holds most of the table.
        families = duplicates.equals(r.content_digest() for r in spool.read_all(unique))
        tied = [i if unique[i].unit else r for i, r in enumerate(families.tied(MOST_TWINS, share=0))]
    else:
        families = duplicates.families(map(_prose, spool.read_all(unique)), map(_prose, before))
        tied, met = families.tied(), families.met_rows()
        if members := families.members():
            reason = "nearly the same as another row; they share a split, unless they are most of the file"
            findings.append(ScreenFinding("NEAR_DUPLICATES", [unique[i].number for i in members], reason))
    screener = Screener(table)
    for row in spool.read_all(unique):
        screener.count(row)
    for row in spool.read_all(unique):
        screener.add(row)
    findings += screener.findings()
    return Screened(findings, families.root, tied, sum(len(u) > 1 for u in units(unique, tied)), met)


def _prose(row: Row) -> str:
    return "\n".join(m["content"] for m in row.messages if m["role"] != "system")


def leaks(
    unique: Sequence[Entry], root: Sequence[int], splits: Mapping[str, Sequence[Entry]], table: bool
) -> list[ScreenFinding]:
    """Families that the splits tore apart after all."""
    family = {e.number: root[i] for i, e in enumerate(unique)}
    trained = {family[e.number] for e in splits[TRAIN]}
    rows = sorted(
        e.number for name, kept in splits.items() if name != TRAIN for e in kept if family[e.number] in trained
    )
    return [ScreenFinding("SPLIT_LEAKAGE", rows, _LEAKAGE[table])] if rows else []


def collisions(spool: Spool, unique: Sequence[Entry], canaries: Sequence[Canary]) -> list[ScreenFinding]:
    """Rows that hold the secret of a canary."""
    look = CanaryScreen(c.secret for c in canaries)
    if canaries:
        for row in spool.read_all(unique):
            look.add(row)
    reason = "holds the secret of a canary of this job, whose leak would prove nothing"
    return [ScreenFinding("CANARY_COLLISION", look.rows, reason)] if look.rows else []
