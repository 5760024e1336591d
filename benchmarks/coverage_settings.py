"""The kinds of interval that :mod:`benchmarks.coverage` simulates, at sizes that audits have."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from scipy import stats as scipy_stats

from audit.statistics import stats
from benchmarks import coverage_data as data

SKEWED = frozenset(
    {
        "mean_of_rows",
        "ratio_of_totals",
        "difference_of_losses",
        "mean_of_sparse_rows",
        "counterfactual_excess",
        "largest_signed_shift",
        "mean_over_sets",
    }
)
"""Kinds whose interval is corrected for skewness."""


@dataclass(frozen=True)
class Setting:
    """A kind of interval on data of known truth.

    Attributes:
        kind: which interval.
        told: sizes and truth.
        truth: the parameter, or what works it out, which takes seconds where only a simulation can.
        draw: the interval of fresh data.
    """

    kind: str
    told: str
    truth: float | Callable[[], float]
    draw: data.Draw


def settings() -> Iterator[Setting]:
    """All of them."""
    for n, p in ((59, 0.02), (100, 0.3), (30, 0.5), (300, 0.01)):
        yield Setting("clopper_pearson", f"n={n} p={p}", p, data.share(n, p))
    for n, p, q in ((60, 0.1, 0.05), (100, 0.5, 0.5), (200, 0.3, 0.2)):
        two = data.two_shares(stats.difference_interval, n, p, q)
        yield Setting("difference_of_proportions", f"n={n} p={p} q={q}", p - q, two)
    for n, gain, loss in ((100, 0.05, 0.05), (60, 0.2, 0.05), (300, 0.02, 0.01)):
        yield Setting("paired_difference", f"n={n} gained={gain} lost={loss}", gain - loss, data.paired(n, gain, loss))
    for n, p, q in ((100, 0.3, 0.3), (250, 0.5, 0.4)):
        two = data.two_shares(stats.ratio_interval, n, p, q)
        yield Setting("ratio_of_proportions", f"n={n} p={p} q={q}", p / q, two)
    for m, shift in ((40, 0.0), (75, 0.0), (75, 1.0), (75, 2.5), (12, 1.0)):
        truth = float(scipy_stats.norm.cdf(shift / math.sqrt(2)))
        yield Setting("auc", f"{m} against {m}, AUC {truth:.2f}", truth, data.area(m, shift, heavy=False))
    yield Setting("auc", "75 against 75, heavy tails, AUC 0.50", 0.5, data.area(75, 0.0, heavy=True))
    for n in (45, 120):
        yield Setting("mean_of_rows", f"n={n}, skewed", 1.0, data.mean(n))
        yield Setting("ratio_of_totals", f"n={n}, tokens a row vary", 2.0, data.weighted(n))
        yield Setting("difference_of_losses", f"n={n}", 0.5, data.losses(n))
        yield Setting("difference_of_losses", f"n={n}, tokens a row vary", 0.5, data.token_losses(n))
    for m, shift in ((75, 0.0), (75, 1.0), (75, 2.0), (75, 2.5), (75, 4.0), (30, 0.0), (30, 2.5)):
        told = f"{m} against 75, shifted by {shift:g}"
        yield Setting("exposure_gap", told, partial(data.exposure_truth, m, shift), data.exposures(m, shift))
    for n in (100, 300, 1000):
        for shape in data.SHAPES:
            yield Setting(
                "calibration_error", f"n={n}, {shape}", data.calibration_truth(shape), data.calibration_error(n, shape)
            )
    for before, after in (("perfect", "perfect"), ("too bold", "perfect"), ("perfect", "too bold")):
        told, truth = f"n=300, {before} to {after}", data.calibration_truth(after) - data.calibration_truth(before)
        yield Setting("calibration_error_delta", told, truth, data.calibration_delta(300, before, after))
    of_two: tuple[tuple[int, ...], ...] = ((100, 100), (60, 100, 200, 400))
    for sizes in of_two:
        for early, late in ((0.0, 0.0), (0.0, 0.2), (0.2, 0.0), (0.1, 0.3)):
            told = f"groups {sizes}, from {early} to {late}"
            yield Setting("change_of_largest_difference", told, late - early, data.change(sizes, early, late))
    for sizes in (*of_two, (100, 100, 100)):
        yield Setting("impact_ratio", f"groups {sizes}, fair", 1.0, data.extreme(sizes, 0.3, 1.0, ratio=True))
        yield Setting("impact_ratio", f"groups {sizes}, 0.8", 0.8, data.extreme(sizes, 0.5, 0.8, ratio=True))
        yield Setting("largest_difference", f"groups {sizes}, 0.1", 0.1, data.extreme(sizes, 0.5, 0.8, ratio=False))
    yield from _more_settings()


def _more_settings() -> Iterator[Setting]:
    """Composed intervals."""
    for n in (10, 30, 60, 300):
        for says, true in ((0.95, 0.95), (0.99, 0.99), (0.99, 0.9), (0.5, 0.5)):
            told = f"n={n}, says {says}, true {true}"
            yield Setting("calibration_gap", told, says - true, data.gap(n, says, true))
        yield Setting("calibration_gap", f"n={n}, sure either way", 0.0, data.gap(n, None, None))
    for sizes in ((10, 100), (30, 30), (10, 60, 200), (60, 100, 200, 400)):
        for true in (0.95, 0.8):
            told, truth = f"groups {sizes}, all say 0.95, last {true}", 0.95 - true
            yield Setting("calibration_difference", told, truth, data.gap_difference(sizes, true))
    for sizes in ((100, 100), (30, 100, 200)):
        for apart in (0.0, 0.2):
            told = f"groups {sizes}, TPR apart by {apart}"
            yield Setting("equalized_odds", told, apart, data.odds_difference(sizes, apart))
    for n, ratio in ((45, 1.0), (45, 1.3), (120, 1.3)):
        yield Setting("loss_ratio", f"n={n} ratio={ratio}", ratio, data.loss_ratio(n, ratio))
    for shifts in ((0.0, 0.0), (1.0, 0.0), (2.5, 1.0)):
        areas = [float(scipy_stats.norm.cdf(s / math.sqrt(2))) for s in shifts]
        told = f"two of 40 against 40, AUC {areas[0]:.2f} and {areas[1]:.2f}"
        yield Setting("canary_form_gap", told, areas[0] - areas[1], data.form_gap(40, shifts))
    # Excesses of which most are nothing, with their mean at the limit of the counterfactual gate.
    for n, moving, nats in ((60, 0.1, 1.0), (150, 0.1, 1.0), (600, 0.1, 1.0), (150, 0.02, 5.0), (600, 0.02, 5.0)):
        told = f"n={n}, {100 * moving:g} % of rows move by {nats:g}"
        yield Setting("mean_of_sparse_rows", told, moving * nats, data.sparse(n, moving, nats))
    for largest in (0.0, 0.1):
        told = f"four groups, 60 rows, largest by {largest}"
        yield Setting("counterfactual_excess", told, largest, data.excess(60, largest))
    for largest in (0.0, 0.1):
        yield Setting("counterfactual_flips", f"four groups, 60 rows, largest {largest + 0.05:.2f}", largest + 0.05,
                      data.largest_share(60, largest))  # fmt: skip
    for moved_by in ((0.0, 0.0, 0.0, 0.0), (0.1, 0.0, 0.0, 0.0), (0.1, -0.1, 0.0, 0.0)):
        told = f"four groups, 60 rows, shifted by {moved_by}, less that of the chosen group"
        yield Setting("largest_signed_shift", told, 0.0, data.signed(60, moved_by))
    for rows in (20, 60):
        for moved, still in ((0.1, 0.1), (0.1, 0.02), (0.9, 0.5)):
            told = f"{rows} prompts, 20 sets of names, {moved} of answers differ, {still} of the placebos'"
            yield Setting("generation_divergence", told, (moved - still) / 2, data.divergence(rows, moved, still))
    for sets, rows in ((20, 60), (20, 150), (11, 60), (5, 60)):
        for apart in (0.0, 0.5):
            told = f"{rows} rows bear {sets} sets of names, apart by {apart}"
            yield Setting("shift_of_names", told, apart, data.names(sets, rows, apart, excess=False))
            truth = data.folded(apart) - data.folded(0)
            yield Setting("excess_of_names", told, truth, data.names(sets, rows, apart, excess=True))
        for rate in (0.02, 0.1, 0.5):
            told = f"{rows} rows bear {sets} sets of names, flipped by {rate}"
            yield Setting("flips_of_names", told, rate, data.named_flips(sets, rows, rate))
    for n in (40, 120):
        for gain, loss in ((0.02, 0.02), (0.1, 0.05), (0.005, 0.005), (0.0, 0.02)):
            told = f"four sets of {n}, gained={gain} lost={loss}"
            yield Setting("mean_over_sets", told, gain - loss, data.over_sets(n, gain, loss))
    for n, moves in ((20, 0.02), (60, 0.02), (60, 0.2)):
        yield Setting("context_gain_delta", f"n={n}, own context loses {moves}", -moves, data.gain_change(n, moves))
    for shift in (0.0, 1.0, 4.0):
        for random in (63, 255):
            told = f"16 against 16, each against {random}, shifted by {shift:g}"
            yield Setting("tail_exposure", told, partial(data.tail_truth, shift, random), data.tail(shift, random))
    for n, strength in ((60, 0.0), (60, 1.0), (150, 0.0), (150, 0.5), (150, 1.0), (150, 2.0)):
        told = f"n={n}, means apart by {strength:g} sd"
        yield Setting("proxy_auc", told, partial(data.proxy_truth, n, strength), data.proxy(n, strength))
