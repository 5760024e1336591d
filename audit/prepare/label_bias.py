"""How the favourable label is spread over the values of each protected attribute, before anything is learnt from it.

A model learns what its labels say, so a gap between groups is looked for here as well as in the model's decisions
(:mod:`audit.probes.fairness`), by the same statistics and the same least number of rows. Class imbalance,
``(n_a - n_d) / (n_a + n_d)``, and difference in proportions of labels, ``q_a - q_d``, are the pre-training metrics CI
and DPL of Amazon SageMaker Clarify; the impact ratio is the rate of a group over that of the group with the highest
rate, as the four-fifths rule compares them (29 CFR 1607.4(D)). That group is the reference, *a*, of all three; the
intervals hold although the labels chose it (:mod:`audit.statistics.extremes`). Numbers only: policy judges.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from assay.groups import LEAST_CELL

if TYPE_CHECKING:
    from audit.statistics.extremes import Cell

CONFIDENCE = 0.95

Counts = Mapping[tuple[str, str], int]


def by_group(rows: Counts, favourable: Counts) -> list[Any]:
    """Builds ``assay.v1.GroupLabels`` of every group, sorted by attribute and value.

    A group with fewer than :data:`assay.groups.LEAST_CELL` rows is named with its rows and nothing else: a
    rate of so few decides nothing, and with one row it would be a person's label.

    Args:
        rows: valid rows by attribute and value.
        favourable: those of them that have the favourable label.
    """
    from audit.statistics.extremes import Cell

    out: list[Any] = []
    for attribute in sorted({column for column, _ in rows}):
        values = sorted(value for column, value in rows if column == attribute)
        cells = [Cell(v, favourable.get((attribute, v), 0), rows[attribute, v]) for v in values]
        out += _attribute(attribute, cells)
    return out


def _attribute(attribute: str, cells: Sequence[Cell]) -> Iterator[Any]:
    from assay.v1 import policy_input_pb2 as pb

    compared = [c for c in cells if c.n >= LEAST_CELL]
    # Of groups with one rate the larger is the reference, then the first by name.
    reference = min(compared, key=lambda c: (-c.rate, -c.n, c.name), default=None)
    for cell in cells:
        found = pb.GroupLabels(attribute=attribute, value=cell.name, rows=cell.n)
        if cell.n < LEAST_CELL or reference is None:
            found.inconclusive = f"fewer than {LEAST_CELL} rows"
        else:
            _describe(found, cell, compared, reference)
        yield found


def _describe(found: Any, cell: Cell, compared: Sequence[Cell], reference: Cell) -> None:
    from audit.statistics import extremes, stats

    found.favourable, found.rate = cell.successes, cell.rate
    found.rate_lower, found.rate_upper = stats.wilson(cell.successes, cell.n, CONFIDENCE)
    if len(compared) < 2:
        found.inconclusive = f"no other group of {LEAST_CELL} rows to compare with"
    elif reference.successes == 0:
        found.inconclusive = "no group that is compared has a favourable label"
    elif cell.name == reference.name:
        found.reference = True
    else:
        found.class_imbalance = (reference.n - cell.n) / (reference.n + cell.n)
        found.label_difference = reference.rate - cell.rate
        bounds = extremes.difference_to_highest_interval(cell, compared, CONFIDENCE)
        found.label_difference_lower, found.label_difference_upper = bounds
        found.impact_ratio = cell.rate / reference.rate
        bounds = extremes.ratio_to_highest_interval(cell, compared, CONFIDENCE)
        found.impact_ratio_lower, found.impact_ratio_upper = bounds
