"""Vectorised bootstrap of group rates: thousands of resamples of a table in milliseconds.

A row of a decision audit is one of few kinds (group, outcome), so resampling n rows with replacement is one
multinomial draw over the kinds. It gives what fairlearn's ``MetricFrame(n_boot=...)`` gives by resampling rows (the
tests compare the two), at a thousandth of the time.

Percentile bounds of an *extreme* (lowest over highest rate) are too narrow: simulated on groups of 100 with a true
ratio of 0.8, an upper 97.5 % bound fell below it in 12 % of audits with three groups and in 22 % with four. So the
judged intervals of extremes come from :mod:`audit.probes.extremes`; the bootstrap serves paired comparisons of two
models on the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEAST_BEYOND = 5
"""Fewest resamples beyond a bound for it to mean anything."""


def group_rates(groups: Sequence[str], outcomes: Sequence[bool], replicates: int, rng: np.random.Generator) -> Floats:
    """Rates by group in ``replicates`` resamples of the rows, shape (replicates, groups), groups in sorted order.

    A resample without a row of some group has NaN there.
    """
    names = sorted(set(groups))
    place = {name: i for i, name in enumerate(names)}
    kinds = np.array([2 * place[g] + int(o) for g, o in zip(groups, outcomes, strict=True)])
    counts = np.bincount(kinds, minlength=2 * len(names))
    drawn = rng.multinomial(len(kinds), counts / len(kinds), size=replicates).reshape(replicates, len(names), 2)
    with np.errstate(invalid="ignore"):
        rates: Floats = drawn[:, :, 1] / drawn.sum(axis=2)
    return rates


def paired_group_rates(
    groups: Sequence[str], first: Sequence[bool], second: Sequence[bool], replicates: int, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Rates by group of two outcomes of the same rows, resampled together: each shape (replicates, groups)."""
    names = sorted(set(groups))
    place = {name: i for i, name in enumerate(names)}
    rows = zip(groups, first, second, strict=True)
    kinds = np.array([4 * place[g] + 2 * int(a) + int(b) for g, a, b in rows])
    counts = np.bincount(kinds, minlength=4 * len(names))
    drawn = rng.multinomial(len(kinds), counts / len(kinds), size=replicates).reshape(replicates, len(names), 4)
    with np.errstate(invalid="ignore"):
        total = drawn.sum(axis=2)
        return (drawn[:, :, 2] + drawn[:, :, 3]) / total, (drawn[:, :, 1] + drawn[:, :, 3]) / total


def spread(rates: Floats) -> Floats:
    """Highest minus lowest rate of every resample."""
    out: Floats = np.nanmax(rates, axis=1) - np.nanmin(rates, axis=1)
    return out


def ratio(rates: Floats) -> Floats:
    """Lowest over highest rate of every resample; NaN where the highest is 0."""
    high = np.nanmax(rates, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        out: Floats = np.where(high > 0, np.nanmin(rates, axis=1) / high, np.nan)
    return out


def percentile(statistics: Floats) -> Callable[[float], tuple[float, float]]:
    """Percentile interval (Efron and Tibshirani 1993, section 13.3) of the resampled statistics, at any confidence.

    Raises:
        ValueError: when a level needs more resamples than there are (fewer than :data:`LEAST_BEYOND` would lie beyond
            a bound).
    """
    kept = statistics[np.isfinite(statistics)]

    def interval(confidence: float) -> tuple[float, float]:
        tail = (1 - confidence) / 2
        if kept.size * tail < LEAST_BEYOND:
            raise ValueError(f"{kept.size} resamples are too few for a {confidence} interval")
        lower, upper = np.quantile(kept, [tail, 1 - tail])
        return float(lower), float(upper)

    return interval
