"""Vectorised bootstrap of group rates: thousands of resamples of a table in milliseconds.

A row of a decision audit is one of few kinds (group, outcome), so resampling n rows with replacement is one
multinomial draw over the kinds. It gives what fairlearn's ``MetricFrame(n_boot=...)`` gives by resampling rows: on
fairlearn's own draws the two are equal to the last digits (the tests compare them), at less than a hundredth of the
time (``benchmarks/bootstrap.py``).

Percentile bounds of an *extreme* (lowest over highest rate) are too narrow: simulated on groups of 100 with a true
ratio of 0.8, an upper 97.5 % bound fell below it in 12 % of audits with three groups and in 22 % with four. So the
intervals of extremes come from :mod:`audit.statistics.extremes`, and so do those of their change between two models on
the same rows, where percentiles are too short as well. What is resampled is the noise of
:mod:`audit.probes.calibration`; the tables of groups are here so that an auditor can hold ours against fairlearn's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

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


@dataclass(frozen=True)
class GroupMetrics:
    """Metrics of every resample, each of shape (replicates, groups), groups in sorted order; NaN without a row."""

    groups: tuple[str, ...]
    selection_rate: Floats
    true_positive_rate: Floats
    false_positive_rate: Floats


def row_kinds(groups: Sequence[str], deserved: Sequence[bool], decided: Sequence[bool]) -> tuple[tuple[str, ...], Ints]:
    """The groups in sorted order, and for each row ``4 * group + 2 * deserved + decided``."""
    names = tuple(sorted(set(groups)))
    place = {name: i for i, name in enumerate(names)}
    rows = zip(groups, deserved, decided, strict=True)
    return names, np.array([4 * place[g] + 2 * int(t) + int(d) for g, t, d in rows])


def group_metrics(
    groups: Sequence[str],
    deserved: Sequence[bool],
    decided: Sequence[bool],
    replicates: int,
    rng: np.random.Generator,
) -> GroupMetrics:
    """Selection, true and false positive rates by group in ``replicates`` resamples of the rows."""
    names, kinds = row_kinds(groups, deserved, decided)
    counts = np.bincount(kinds, minlength=4 * len(names))
    return metrics_of(names, rng.multinomial(len(kinds), counts / len(kinds), size=replicates))


def metrics_of(names: tuple[str, ...], counts: Ints) -> GroupMetrics:
    """Metrics of resamples told by how often each kind of row was drawn, shape (replicates, 4 * groups)."""
    drawn = counts.reshape(len(counts), len(names), 2, 2)
    with np.errstate(invalid="ignore"):
        return GroupMetrics(
            names,
            drawn[:, :, :, 1].sum(axis=2) / drawn.sum(axis=(2, 3)),
            drawn[:, :, 1, 1] / drawn[:, :, 1].sum(axis=2),
            drawn[:, :, 0, 1] / drawn[:, :, 0].sum(axis=2),
        )


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
