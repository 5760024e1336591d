"""Valid intervals of extremes over groups: lowest over highest rate, largest difference of rates.

The extreme theta is itself one of the pairwise comparisons, which gives bounds that hold for any number of groups and
small cells. For the lowest ratio: theta is the ratio of *some* pair, so the lowest of the pairs' lower bounds lies
below it without correction (Berger's intersection-union argument, Technometrics 1982); and theta is at most *every*
pair's ratio, so the lowest of the pairs' upper bounds, Bonferroni-corrected for the number of pairs, lies above it.
Largest differences mirror this. The pairwise intervals are Wilson-based (:func:`audit.statistics.stats.ratio_interval`,
:func:`audit.statistics.stats.difference_interval`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import permutations

from audit.statistics import stats

LEAST_CELL = 10
"""Fewest rows of a group of one attribute that is compared."""

LEAST_INTERSECTION = 30
"""Fewest rows of a group of several attributes that is compared."""


@dataclass(frozen=True)
class Cell:
    """A group's count of favourable outcomes among its n rows."""

    name: str
    successes: int
    n: int

    @property
    def rate(self) -> float:
        """Share of favourable outcomes."""
        return self.successes / self.n


def lowest_ratio(cells: Sequence[Cell]) -> float:
    """Lowest over highest rate.

    Raises:
        ValueError: fewer than two groups, or no favourable outcome at all.
    """
    _demand_two(cells)
    highest = max(c.rate for c in cells)
    if highest == 0:
        raise ValueError("no row of any group had the favourable outcome")
    return min(c.rate for c in cells) / highest


def lowest_ratio_interval(cells: Sequence[Cell], confidence: float) -> stats.Bounds:
    """Interval of the lowest ratio of rates between any two groups, within [0, 1]."""
    _demand_two(cells)
    wide = _corrected(confidence, len(cells))
    lower = upper = 1.0
    for a, b in permutations(cells, 2):
        lower = min(lower, stats.ratio_interval(a.successes, a.n, b.successes, b.n, confidence)[0])
        upper = min(upper, stats.ratio_interval(a.successes, a.n, b.successes, b.n, wide)[1])
    return lower, upper


def ratio_to_highest_interval(cell: Cell, cells: Sequence[Cell], confidence: float) -> stats.Bounds:
    """Interval of a group's rate over the highest rate of all ``cells``, its own among them; within [0, 1].

    That ratio is the lowest of the group's ratios to each of the others, or 1; so the argument above holds for the
    pairs that the group is in, and which group looked highest needs no correction.
    """
    others, wide = _others(cell, cells, confidence)
    pairs = [(cell.successes, cell.n, other.successes, other.n) for other in others]
    lower = min(1.0, *(stats.ratio_interval(*pair, confidence)[0] for pair in pairs))
    return lower, min(1.0, *(stats.ratio_interval(*pair, wide)[1] for pair in pairs))


def difference_to_highest_interval(cell: Cell, cells: Sequence[Cell], confidence: float) -> stats.Bounds:
    """Interval of the highest rate of all ``cells`` less a group's; mirrors :func:`ratio_to_highest_interval`."""
    others, wide = _others(cell, cells, confidence)
    pairs = [(other.successes, other.n, cell.successes, cell.n) for other in others]
    lower = max(0.0, *(stats.difference_interval(*pair, wide)[0] for pair in pairs))
    return lower, max(0.0, *(stats.difference_interval(*pair, confidence)[1] for pair in pairs))


def _others(cell: Cell, cells: Sequence[Cell], confidence: float) -> tuple[list[Cell], float]:
    """The other groups, and the confidence that Bonferroni asks for over the pairs with each of them."""
    _demand_two(cells)
    others = [other for other in cells if other.name != cell.name]
    return others, 1 - (1 - confidence) / len(others)


def largest_difference(families: Sequence[Sequence[Cell]]) -> float:
    """Largest difference of rates between two groups, over all families (TPR and FPR for equalized odds)."""
    for cells in families:
        _demand_two(cells)
    return max(max(c.rate for c in cells) - min(c.rate for c in cells) for cells in families)


def largest_difference_interval(families: Sequence[Sequence[Cell]], confidence: float) -> stats.Bounds:
    """Interval of the largest difference, within [0, 1]; one family for selection, two for equalized odds."""
    pairs = [pair for cells in families for pair in permutations(cells, 2)]
    if not pairs:
        raise ValueError("two groups with enough rows are needed")
    wide = 1 - (1 - confidence) / (len(pairs) / 2)
    lower = upper = 0.0
    for a, b in pairs:
        lower = max(lower, stats.difference_interval(a.successes, a.n, b.successes, b.n, wide)[0])
        upper = max(upper, stats.difference_interval(a.successes, a.n, b.successes, b.n, confidence)[1])
    return lower, upper


def change_interval(later: Sequence[Cell], earlier: Sequence[Cell]) -> Callable[[float], stats.Bounds]:
    """Interval of the largest difference of ``later`` minus that of ``earlier``.

    From both intervals, since percentiles of a paired bootstrap are too short: the largest difference is biased upwards
    where there is little.
    """
    return stats.apart(*(partial(largest_difference_interval, [cells]) for cells in (later, earlier)))


def _corrected(confidence: float, groups: int) -> float:
    return 1 - (1 - confidence) / (groups * (groups - 1) / 2)


def _demand_two(cells: Sequence[Cell]) -> None:
    if len(cells) < 2:
        raise ValueError("two groups with enough rows are needed")
