"""Whether the intervals hold: ``python -m benchmarks.coverage`` prints one JSON object.

``intervals``: for the kinds of interval that probes give, simulated data of known truth, the nominal 95 % interval, and
how often the truth lies in it; the worst setting of each kind is named. A gate reads one end alone, so ``ends`` tells
how often each end lies on the wrong side of the truth, at 90 and at 95 %: ``lower`` too high, ``upper`` too low. Half
of what the level leaves over is nominal; ``ends_that_err_more`` are all settings where it is more, beyond what so many
runs do by chance. Not simulated: the largest area over three membership signals and the ratio of the alternative chosen
on the selection split, whose truth depends on how models behave; and what is counted or timed. ``epsilon``: mechanisms
of known epsilon (randomised response on each canary's coin, and Gaussian noise on it), audited by the one-run bound;
how often the bound lies above the truth. The tests demand at least 93 % and at most 5 %.
``--kinds mean_of_rows auc`` simulates these kinds of interval alone: all of them take six minutes of one core.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats as scipy_stats

from audit.probes import calibration, counterfactual, one_run, proxies, regression, tail_exposure
from audit.probes.swaps import Swap
from audit.statistics import extremes, stats
from audit.statistics.extremes import Cell

LEVEL = 0.95
LEVELS = (0.90, LEVEL)
"""Those of a PASS by the baseline pack: alpha 0.10, and 0.05 by profile strict."""
Interval = Callable[[float], stats.Bounds]
"""Bounds at a confidence level."""


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
    draw: Callable[[np.random.Generator], Interval]


@dataclass(frozen=True)
class Missed:
    """Share of simulations in which an end of the interval lay on the wrong side of the truth.

    Attributes:
        lower: the lower end was above it: a gate's FAIL by "at most", or PASS by "at least", would be wrong at a limit
            between the two.
        upper: the upper end was below it.
    """

    lower: float
    upper: float


def settings() -> Iterator[Setting]:
    """The kinds of interval that probes give, at sizes that audits have."""
    for n, p in ((59, 0.02), (100, 0.3), (30, 0.5), (300, 0.01)):
        yield Setting("clopper_pearson", f"n={n} p={p}", p, _share(n, p))
    for n, p, q in ((60, 0.1, 0.05), (100, 0.5, 0.5), (200, 0.3, 0.2)):
        two = _two_shares(stats.difference_interval, n, p, q)
        yield Setting("difference_of_proportions", f"n={n} p={p} q={q}", p - q, two)
    for n, gain, loss in ((100, 0.05, 0.05), (60, 0.2, 0.05), (300, 0.02, 0.01)):
        yield Setting("paired_difference", f"n={n} gained={gain} lost={loss}", gain - loss, _paired(n, gain, loss))
    for n, p, q in ((100, 0.3, 0.3), (250, 0.5, 0.4)):
        two = _two_shares(stats.ratio_interval, n, p, q)
        yield Setting("ratio_of_proportions", f"n={n} p={p} q={q}", p / q, two)
    for m, shift in ((40, 0.0), (75, 0.0), (75, 1.0), (75, 2.5), (12, 1.0)):
        truth = float(scipy_stats.norm.cdf(shift / math.sqrt(2)))
        yield Setting("auc", f"{m} against {m}, AUC {truth:.2f}", truth, _area(m, shift, heavy=False))
    yield Setting("auc", "75 against 75, heavy tails, AUC 0.50", 0.5, _area(75, 0.0, heavy=True))
    for n in (45, 120):
        yield Setting("mean_of_rows", f"n={n}, skewed", 1.0, _mean(n))
        yield Setting("ratio_of_totals", f"n={n}, tokens a row vary", 2.0, _weighted(n))
        yield Setting("difference_of_losses", f"n={n}", 0.5, _losses(n))
        yield Setting("difference_of_losses", f"n={n}, tokens a row vary", 0.5, _token_losses(n))
    for m, shift in ((75, 0.0), (75, 1.0), (75, 2.0), (75, 2.5), (75, 4.0), (30, 0.0), (30, 2.5)):
        told = f"{m} against 75, shifted by {shift:g}"
        yield Setting("exposure_gap", told, partial(_exposure_truth, m, shift), _exposures(m, shift))
    for n in (100, 300, 1000):
        for shape in SHAPES:
            yield Setting("calibration_error", f"n={n}, {shape}", _calibration_truth(shape), _calibration(n, shape))
    for before, after in (("perfect", "perfect"), ("too bold", "perfect"), ("perfect", "too bold")):
        told, truth = f"n=300, {before} to {after}", _calibration_truth(after) - _calibration_truth(before)
        yield Setting("calibration_error_delta", told, truth, _calibration_delta(300, before, after))
    of_two: tuple[tuple[int, ...], ...] = ((100, 100), (60, 100, 200, 400))
    for sizes in of_two:
        for early, late in ((0.0, 0.0), (0.0, 0.2), (0.2, 0.0), (0.1, 0.3)):
            told = f"groups {sizes}, from {early} to {late}"
            yield Setting("change_of_largest_difference", told, late - early, _change(sizes, early, late))
    for sizes in (*of_two, (100, 100, 100)):
        yield Setting("impact_ratio", f"groups {sizes}, fair", 1.0, _extreme(sizes, 0.3, 1.0, ratio=True))
        yield Setting("impact_ratio", f"groups {sizes}, 0.8", 0.8, _extreme(sizes, 0.5, 0.8, ratio=True))
        yield Setting("largest_difference", f"groups {sizes}, 0.1", 0.1, _extreme(sizes, 0.5, 0.8, ratio=False))
    yield from _more_settings()


def _more_settings() -> Iterator[Setting]:
    """Composed intervals."""
    for n in (10, 30, 60, 300):
        for says, true in ((0.95, 0.95), (0.99, 0.99), (0.99, 0.9), (0.5, 0.5)):
            told = f"n={n}, says {says}, true {true}"
            yield Setting("calibration_gap", told, says - true, _gap(n, says, true))
        yield Setting("calibration_gap", f"n={n}, sure either way", 0.0, _gap(n, None, None))
    for sizes in ((10, 100), (30, 30), (10, 60, 200), (60, 100, 200, 400)):
        for true in (0.95, 0.8):
            told, truth = f"groups {sizes}, all say 0.95, last {true}", 0.95 - true
            yield Setting("calibration_difference", told, truth, _gap_difference(sizes, true))
    for sizes in ((100, 100), (30, 100, 200)):
        for apart in (0.0, 0.2):
            told = f"groups {sizes}, TPR apart by {apart}"
            yield Setting("equalized_odds", told, apart, _odds_difference(sizes, apart))
    for n, ratio in ((45, 1.0), (45, 1.3), (120, 1.3)):
        yield Setting("loss_ratio", f"n={n} ratio={ratio}", ratio, _loss_ratio(n, ratio))
    for shifts in ((0.0, 0.0), (1.0, 0.0), (2.5, 1.0)):
        areas = [float(scipy_stats.norm.cdf(s / math.sqrt(2))) for s in shifts]
        told = f"two of 40 against 40, AUC {areas[0]:.2f} and {areas[1]:.2f}"
        yield Setting("canary_form_gap", told, areas[0] - areas[1], _form_gap(40, shifts))
    # Excesses of which most are nothing, with their mean at the limit of the counterfactual gate.
    for n, moving, nats in ((60, 0.1, 1.0), (150, 0.1, 1.0), (600, 0.1, 1.0), (150, 0.02, 5.0), (600, 0.02, 5.0)):
        told = f"n={n}, {100 * moving:g} % of rows move by {nats:g}"
        yield Setting("mean_of_sparse_rows", told, moving * nats, _sparse(n, moving, nats))
    for largest in (0.0, 0.1):
        told = f"four groups, 60 rows, largest by {largest}"
        yield Setting("counterfactual_excess", told, largest, _excess(60, largest))
    for largest in (0.0, 0.1):
        yield Setting("counterfactual_flips", f"four groups, 60 rows, largest {largest + 0.05:.2f}", largest + 0.05,
                      _largest_share(60, largest))  # fmt: skip
    for moved_by in ((0.0, 0.0, 0.0, 0.0), (0.1, 0.0, 0.0, 0.0), (0.1, -0.1, 0.0, 0.0)):
        told = f"four groups, 60 rows, shifted by {moved_by}, less that of the chosen group"
        yield Setting("largest_signed_shift", told, 0.0, _signed(60, moved_by))
    for rows in (20, 60):
        for moved, still in ((0.1, 0.1), (0.1, 0.02), (0.9, 0.5)):
            told = f"{rows} prompts, 20 sets of names, {moved} of answers differ, {still} of the placebos'"
            yield Setting("generation_divergence", told, (moved - still) / 2, _divergence(rows, moved, still))
    for sets, rows in ((20, 60), (20, 150), (11, 60), (5, 60)):
        for apart in (0.0, 0.5):
            told = f"{rows} rows bear {sets} sets of names, apart by {apart}"
            yield Setting("shift_of_names", told, apart, _names(sets, rows, apart, excess=False))
            truth = _folded(apart) - _folded(0)
            yield Setting("excess_of_names", told, truth, _names(sets, rows, apart, excess=True))
        for rate in (0.02, 0.1, 0.5):
            told = f"{rows} rows bear {sets} sets of names, flipped by {rate}"
            yield Setting("flips_of_names", told, rate, _named_flips(sets, rows, rate))
    for n in (40, 120):
        for gain, loss in ((0.02, 0.02), (0.1, 0.05), (0.005, 0.005), (0.0, 0.02)):
            told = f"four sets of {n}, gained={gain} lost={loss}"
            yield Setting("mean_over_sets", told, gain - loss, _over_sets(n, gain, loss))
    for n, moves in ((20, 0.02), (60, 0.02), (60, 0.2)):
        yield Setting("context_gain_delta", f"n={n}, own context loses {moves}", -moves, _gain_change(n, moves))
    for shift in (0.0, 1.0, 4.0):
        for random in (63, 255):
            told = f"16 against 16, each against {random}, shifted by {shift:g}"
            yield Setting("tail_exposure", told, partial(_tail_truth, shift, random), _tail(shift, random))
    for n, strength in ((60, 0.0), (60, 1.0), (150, 0.0), (150, 0.5), (150, 1.0), (150, 2.0)):
        told = f"n={n}, means apart by {strength:g} sd"
        yield Setting("proxy_auc", told, partial(_proxy_truth, n, strength), _proxy(n, strength))


def _sparse(n: int, moved: float, nats: float) -> Callable[[np.random.Generator], Interval]:
    return lambda g: partial(counterfactual.largest_mean_interval, [np.where(g.random(n) < moved, nats, 0.0)])


def _share(n: int, p: float) -> Callable[[np.random.Generator], Interval]:
    return lambda g: partial(stats.clopper_pearson, int(g.binomial(n, p)), n)


def _two_shares(
    interval: Callable[[int, int, int, int, float], stats.Bounds], n: int, p: float, q: float
) -> Callable[[np.random.Generator], Interval]:
    return lambda g: partial(interval, int(g.binomial(n, p)), n, int(g.binomial(n, q)), n)


def _mean(n: int) -> Callable[[np.random.Generator], Interval]:
    return lambda g: stats.mean(g.gamma(2, 0.5, n)).interval


def misses(setting: Setting, runs: int, seed: int) -> dict[float, Missed]:
    """By level, how often each end of the interval was on the wrong side of the truth."""
    truth = setting.truth() if callable(setting.truth) else setting.truth
    rng = np.random.default_rng(seed)
    wrong = {level: [0, 0] for level in LEVELS}
    for _ in range(runs):
        interval = setting.draw(rng)
        for level, counted in wrong.items():
            low, high = interval(level)
            counted[0] += low - 1e-12 > truth
            counted[1] += truth > high + 1e-12
    return {level: Missed(lower / runs, upper / runs) for level, (lower, upper) in wrong.items()}


def coverage(setting: Setting, runs: int, seed: int) -> float:
    """Share of simulations whose interval at :data:`LEVEL` holds the truth."""
    missed = misses(setting, runs, seed)[LEVEL]
    return round(1 - missed.lower - missed.upper, 9)


def bounds(epsilon: float, canaries: int, runs: int, seed: int, mechanism: str, delta: float) -> list[float]:
    """Lower bounds at 95 % of audits of a mechanism of known epsilon."""
    rng = np.random.default_rng(seed)
    names = [str(i) for i in range(canaries)]
    out = []
    for _ in range(runs):
        coins = rng.random(canaries) < 0.5
        if mechanism == "randomised response":
            told = np.where(rng.random(canaries) < 1 / (1 + math.exp(-epsilon)), coins, ~coins)
            scores = np.where(told, 1.0, -1.0)
        else:
            scores = coins + rng.normal(0, gaussian_sigma(epsilon, delta), canaries)
        out.append(one_run.guess(scores, coins.tolist(), names).lower_bound(delta, LEVEL))
    return out


def epsilon_excess(epsilon: float, canaries: int, runs: int, seed: int, mechanism: str, delta: float) -> float:
    """Share of audits of a mechanism of known epsilon whose lower bound at 95 % lies above it."""
    return float(np.mean([b > epsilon for b in bounds(epsilon, canaries, runs, seed, mechanism, delta)]))


def gaussian_sigma(epsilon: float, delta: float) -> float:
    """Noise of the Gaussian mechanism of sensitivity 1 that is exactly (epsilon, delta)-DP (Balle and Wang 2018)."""
    from scipy import optimize

    def gap(sigma: float) -> float:
        a, b = 1 / (2 * sigma) - epsilon * sigma, -1 / (2 * sigma) - epsilon * sigma
        return float(scipy_stats.norm.cdf(a) - math.exp(epsilon) * scipy_stats.norm.cdf(b)) - delta

    return float(optimize.brentq(gap, 1e-2, 1e3))


def measure(runs: int, seed: int, kinds: Collection[str] = ()) -> dict[str, Any]:
    """Both simulations; of ``kinds`` alone, if there are any, without the audits of known epsilon."""
    found = [(setting, misses(setting, runs, seed)) for setting in settings() if not kinds or setting.kind in kinds]
    audits = []
    for mechanism in ("randomised response", "Gaussian noise") if not kinds else ():
        for epsilon in (0.5, 1.0, 3.0, 8.0):
            for canaries in (149, 512):
                share = epsilon_excess(epsilon, canaries, runs, seed, mechanism, 1e-5)
                audits.append(
                    {"mechanism": mechanism, "epsilon": epsilon, "canaries": canaries, "above": round(share, 4)}
                )
    by_kind = {kind: [pair for pair in found if pair[0].kind == kind] for kind in {s.kind: 0 for s, _ in found}}
    told = {kind: _of_kind(pairs) for kind, pairs in by_kind.items()}
    return {
        "runs": runs,
        "nominal": LEVEL,
        "lowest_coverage": min((k["lowest"] for k in told.values()), default=None),
        "intervals": told,
        "ends_that_err_more": [entry for setting, missed in found for entry in _beyond(setting, missed, runs)],
        "largest_epsilon_excess": max((a["above"] for a in audits), default=None),
        "epsilon": audits,
    }


def _of_kind(pairs: Sequence[tuple[Setting, dict[float, Missed]]]) -> dict[str, Any]:
    """The worst settings of a kind: of the whole interval, and of each end at each level."""
    held = [(1 - missed[LEVEL].lower - missed[LEVEL].upper, setting.told) for setting, missed in pairs]
    lowest, at = min(held, key=lambda pair: pair[0])
    ends = {}
    for level in LEVELS:
        for end in ("lower", "upper"):
            worst, missed = max(pairs, key=lambda pair: float(getattr(pair[1][level], end)))
            ends[f"{end} at {level:g}"] = {"most": round(getattr(missed[level], end), 4), "at": worst.told}
    return {"settings": len(pairs), "lowest": round(lowest, 4), "at": at, "ends": ends}


def _beyond(setting: Setting, missed: dict[float, Missed], runs: int) -> Iterator[dict[str, Any]]:
    """Ends that err more often than half of what the level leaves over, by three standard errors of so many runs."""
    for level, shares in missed.items():
        nominal = (1 - level) / 2
        for end in ("lower", "upper"):
            share = getattr(shares, end)
            if share > nominal + 3 * math.sqrt(nominal * (1 - nominal) / runs):
                yield {"kind": setting.kind, "at": setting.told, "end": end, "level": level, "errs": round(share, 4)}


def _paired(n: int, gain: float, loss: float) -> Callable[[np.random.Generator], Interval]:
    def draw(g: np.random.Generator) -> Interval:
        gained, lost, _ = g.multinomial(n, [gain, loss, 1 - gain - loss])
        return partial(stats.paired_difference_interval, int(gained), int(lost), n)

    return draw


def _area(m: int, shift: float, *, heavy: bool) -> Callable[[np.random.Generator], Interval]:
    def draw(g: np.random.Generator) -> Interval:
        with_it, without = (g.standard_t(2, m) if heavy else g.normal(0, 1, m) for _ in range(2))
        return stats.auc(with_it + shift, without).interval

    return draw


def _weighted(n: int) -> Callable[[np.random.Generator], Interval]:
    def draw(g: np.random.Generator) -> Interval:
        sizes = g.integers(5, 60, n)
        return stats.weighted_mean(sizes * g.gamma(4, 0.5, n), sizes).interval

    return draw


def _losses(n: int) -> Callable[[np.random.Generator], Interval]:
    def draw(g: np.random.Generator) -> Interval:
        test, train = g.gamma(4, 2.5 / 4, n), g.gamma(4, 0.5, 2 * n)
        return stats.difference(stats.mean(test), stats.mean(train)).interval

    return draw


def _token_losses(n: int) -> Callable[[np.random.Generator], Interval]:
    """As the gate on the loss gap reads it: nats per token on both sides."""

    def draw(g: np.random.Generator) -> Interval:
        test, train = (
            stats.weighted_mean(sizes * g.gamma(4, mean / 4, sizes.size), sizes)
            for sizes, mean in ((g.integers(5, 60, n), 2.5), (g.integers(5, 60, 2 * n), 2.0))
        )
        return stats.difference(test, train).interval

    return draw


def _exposures(m: int, shift: float) -> Callable[[np.random.Generator], Interval]:
    return lambda g: stats.exposure_gap(g.normal(shift, 1, m), g.normal(0, 1, 75)).interval


def _exposure_truth(m: int, shift: float) -> float:
    """The mean gap of many draws, whose own error is below 0.02 bits."""
    if not shift:
        return 0.0
    g = np.random.default_rng(m)
    draws = [stats.exposure(g.normal(shift, 1, m), g.normal(0, 1, 75)).mean() for _ in range(20_000)]
    none = [stats.exposure(g.normal(0, 1, 75), g.normal(0, 1, 74)).mean() for _ in range(20_000)]
    return float(np.mean(draws) - np.mean(none))


SHAPES: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "perfect": lambda top: top,
    "too bold": lambda top: top - 0.1,
    "too steep": lambda top: np.clip(1.5 * top - 0.4, 0, 1),
}
"""Share that is right, by what the model says."""


def _tops(g: np.random.Generator, n: int) -> NDArray[np.float64]:
    return 0.5 + 0.5 * g.beta(2, 2, n)


@cache
def _calibration_truth(shape: str) -> float:
    """The error of so many rows that each bin's gap is its own: right to three digits."""
    top = _tops(np.random.default_rng(0), 1_000_000)
    return calibration.Binned.of(top, SHAPES[shape](top)).error


def _binned(g: np.random.Generator, top: NDArray[np.float64], shape: str) -> calibration.Binned:
    return calibration.Binned.of(top, (g.random(len(top)) < SHAPES[shape](top)).astype(float))


def _calibration(n: int, shape: str) -> Callable[[np.random.Generator], Interval]:
    noise = np.random.default_rng(1).normal(size=(2000, calibration.BINS))
    return lambda g: _binned(g, _tops(g, n), shape).interval(noise)


def _calibration_delta(n: int, before: str, after: str) -> Callable[[np.random.Generator], Interval]:
    noise = np.random.default_rng(1).normal(size=(2000, calibration.BINS))

    def draw(g: np.random.Generator) -> Interval:
        top = _tops(g, n)
        return stats.apart(*(_binned(g, top, s).interval(noise) for s in (after, before)))

    return draw


def _change(sizes: tuple[int, ...], early: float, late: float) -> Callable[[np.random.Generator], Interval]:
    """Two decisions of the same rows, the last group's rate lowered by so much; half of the rows are decided alike."""

    def draw(g: np.random.Generator) -> Interval:
        later, earlier = [], []
        for i, n in enumerate(sizes):
            last, luck = i == len(sizes) - 1, g.random(n)
            again = np.where(g.random(n) < 0.5, luck, g.random(n))
            earlier.append(Cell(str(i), int((luck < 0.5 - early * last).sum()), n))
            later.append(Cell(str(i), int((again < 0.5 - late * last).sum()), n))
        return extremes.change_interval(later, earlier)

    return draw


def _extreme(
    sizes: tuple[int, ...], rate: float, ratio_of_last: float, *, ratio: bool
) -> Callable[[np.random.Generator], Interval]:
    rates = [rate] * (len(sizes) - 1) + [rate * ratio_of_last]

    def draw(g: np.random.Generator) -> Interval:
        cells = [Cell(str(i), int(g.binomial(n, r)), n) for i, (n, r) in enumerate(zip(sizes, rates, strict=True))]
        if ratio:
            return partial(extremes.lowest_ratio_interval, cells)
        return partial(extremes.largest_difference_interval, [cells])

    return draw


def _group(g: np.random.Generator, name: str, n: int, says: float | None, true: float | None) -> calibration.Gap:
    """Rows that all say the same, or calibrated ones that are sure of either label."""
    chance = g.beta(0.1, 0.1, n) if says is None else np.full(n, says)
    return calibration.Gap(name, chance, (g.random(n) < (chance if true is None else true)).astype(float))


def _gap(n: int, says: float | None, true: float | None) -> Callable[[np.random.Generator], Interval]:
    return lambda g: _group(g, "", n, says, true).interval


def _gap_difference(sizes: tuple[int, ...], true: float) -> Callable[[np.random.Generator], Interval]:
    trues = [0.95] * (len(sizes) - 1) + [true]

    def draw(g: np.random.Generator) -> Interval:
        gaps = [_group(g, str(i), n, 0.95, t) for i, (n, t) in enumerate(zip(sizes, trues, strict=True))]
        return partial(calibration.largest_difference_interval, gaps)

    return draw


def _odds_difference(sizes: tuple[int, ...], apart: float) -> Callable[[np.random.Generator], Interval]:
    """TPR 0.8 and less in the last group; FPR 0.3 in all."""

    def draw(g: np.random.Generator) -> Interval:
        right, wrong = [], []
        for i, n in enumerate(sizes):
            positives = n // 2
            rate = 0.8 - apart * (i == len(sizes) - 1)
            right.append(Cell(str(i), int(g.binomial(positives, rate)), positives))
            wrong.append(Cell(str(i), int(g.binomial(n - positives, 0.3)), n - positives))
        return partial(extremes.largest_difference_interval, [right, wrong])

    return draw


def _loss_ratio(n: int, ratio: float) -> Callable[[np.random.Generator], Interval]:
    def draw(g: np.random.Generator) -> Interval:
        test, train = (
            stats.weighted_mean(sizes * g.gamma(4, mean / 4, sizes.size), sizes)
            for sizes, mean in ((g.integers(5, 60, n), ratio), (g.integers(5, 60, 2 * n), 1.0))
        )
        return partial(stats.log_ratio_interval, test, train)

    return draw


def _form_gap(m: int, shifts: tuple[float, float]) -> Callable[[np.random.Generator], Interval]:
    def draw(g: np.random.Generator) -> Interval:
        own, reserved = (stats.auc(g.normal(s, 1, m), g.normal(0, 1, m)) for s in shifts)
        return lambda level: stats.square_and_add(
            own.value, own.interval(level), reserved.value, reserved.interval(level)
        )

    return draw


def _changes(g: np.random.Generator, n: int, gain: float, loss: float) -> NDArray[np.float64]:
    return g.choice([1.0, -1.0, 0.0], n, p=[gain, loss, 1 - gain - loss])


def _over_sets(n: int, gain: float, loss: float) -> Callable[[np.random.Generator], Interval]:
    return lambda g: partial(regression.mean_over_sets_interval, [_changes(g, n, gain, loss) for _ in range(4)])


def _gain_change(n: int, moves: float) -> Callable[[np.random.Generator], Interval]:
    """Answers with the question's own context go wrong; those with another's change as often both ways."""

    def draw(g: np.random.Generator) -> Interval:
        own, other = _changes(g, n, 0.0, moves), _changes(g, n, 0.02, 0.02)
        return regression.gain_change_interval(own, other)

    return draw


def _excess(n: int, largest: float) -> Callable[[np.random.Generator], Interval]:
    """Sizes of changes less those of one placebo, which all groups share."""

    def draw(g: np.random.Generator) -> Interval:
        placebo = np.abs(g.normal(0, 0.25, n))
        excesses = [np.abs(g.normal(0, 0.25, n)) - placebo + largest * (i == 0) for i in range(4)]
        return partial(counterfactual.largest_mean_interval, excesses)

    return draw


def _signed(n: int, shifts: Sequence[float]) -> Callable[[np.random.Generator], Interval]:
    """Of the group that moved most in size, with the level that the probe takes for the choice, less its true shift."""

    def draw(g: np.random.Generator) -> Interval:
        found = [g.normal(shift, 0.25, n) for shift in shifts]
        at = max(range(len(shifts)), key=lambda i: abs(float(found[i].mean())))
        chosen = stats.mean(found[at] - shifts[at])
        return lambda level: chosen.interval(counterfactual._corrected(level, len(shifts)))

    return draw


def _divergence(prompts: int, moved: float, still: float) -> Callable[[np.random.Generator], Interval]:
    """Answers that are alike or lie anywhere between alike and wholly different; each set counts by its mean."""
    swap = Swap("race,names", ("white", "black"), (), 20)

    def draw(g: np.random.Generator) -> Interval:
        apart, beside = ((g.random(prompts) < share) * g.random(prompts) for share in (moved, still))
        units = swap.units(apart - beside)
        return lambda level: stats.mean_between(units, -1, 1, level)

    return draw


def _largest_share(n: int, more: float) -> Callable[[np.random.Generator], Interval]:
    """Flips of the same rows by one group after the other; the first flips so many more."""

    def draw(g: np.random.Generator) -> Interval:
        nervous = g.random(n) < 0.5
        rates = 0.1 * nervous + more * (np.arange(4)[:, None] == 0)
        return partial(counterfactual.largest_share_interval, (g.random((4, n)) < rates).sum(axis=1).tolist(), n)

    return draw


_OF_A_NAME, _OF_A_ROW = 1.0, 0.03
"""Spread of what a name and what a row does to the log-odds, in nats: seen on the untuned base model."""


def _folded(mean: float) -> float:
    """Mean size of the difference of two names' log-odds (Leone, Nelson and Nottingham, Technometrics 1961)."""
    spread = math.hypot(_OF_A_NAME, _OF_A_NAME, _OF_A_ROW, _OF_A_ROW)
    return float(scipy_stats.foldnorm.mean(abs(mean) / spread, scale=spread))


def _names(sets: int, rows: int, apart: float, *, excess: bool) -> Callable[[np.random.Generator], Interval]:
    """Rows that bear sets of three names in turn: of the reference group twice, and of the other group."""
    swap = Swap("race,names", ("white", "black"), (), sets)

    def draw(g: np.random.Generator) -> Interval:
        names = g.normal((0, 0, apart), _OF_A_NAME, (sets, 3))
        odds = names[np.arange(rows) % sets] + g.normal(0, _OF_A_ROW, (rows, 3))
        move = counterfactual.Move(swap, odds, odds[:2], 0.0)
        if excess:
            return partial(counterfactual.largest_mean_interval, [move.excess])
        return stats.mean(move.shifts()["counterfactual_shift"][0]).interval

    return draw


def _named_flips(sets: int, rows: int, rate: float) -> Callable[[np.random.Generator], Interval]:
    """Decisions that flip by the set of names: most sets flip nothing, a few much."""
    swap = Swap("race,names", ("white", "black"), (), sets)

    def draw(g: np.random.Generator) -> Interval:
        chance = g.beta(rate, 1 - rate, sets)[np.arange(rows) % sets]
        units = swap.units(g.random(rows) < chance)
        return lambda level: stats.mean_between(units, 0, 1, level)

    return draw


def _tail_bits(g: np.random.Generator, shift: float, random: int, canaries: int = 16) -> NDArray[np.float64]:
    scores = g.normal(0, 1, (canaries, random + 1))
    return np.array([tail_exposure.tail_bits(row[0] + shift, row[1:].tolist()) for row in scores])


def _tail(shift: float, random: int) -> Callable[[np.random.Generator], Interval]:
    def draw(g: np.random.Generator) -> Interval:
        planted, held_out = stats.mean(_tail_bits(g, shift, random)), stats.mean(_tail_bits(g, 0, random))
        return stats.difference(planted, held_out).interval

    return draw


def _tail_truth(shift: float, random: int) -> float:
    if not shift:
        return 0.0
    g = np.random.default_rng(random)
    means = [float(_tail_bits(g, s, random, 40_000).mean()) for s in (shift, 0.0)]
    return means[0] - means[1]


def _records(g: np.random.Generator, n: int, strength: float) -> tuple[NDArray[np.float64], list[str]]:
    """Two groups whose records differ in one of six entries."""
    one = np.arange(n) < n // 3
    features = g.normal(size=(n, 6))
    features[:, 0] += strength * one
    return features, np.where(one, "one", "other").tolist()


def _proxy(n: int, strength: float) -> Callable[[np.random.Generator], Interval]:
    def draw(g: np.random.Generator) -> Interval:
        value, null = proxies.auc_and_null(*_records(g, n, strength), 50, g)
        return partial(proxies.area_interval, value, null)

    return draw


def _proxy_truth(n: int, strength: float) -> float:
    """What such a probe finds on the mean; chance, where there is nothing to find."""
    if not strength:
        return 0.5
    g = np.random.default_rng(n)
    found = [proxies.auc_and_null(*_records(g, n, strength), 0, g)[0] for _ in range(2000)]
    return float(np.mean(found))


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", nargs="*", default=(), help="kinds of interval; all of them, and epsilon, without")
    options = parser.parse_args()
    print(json.dumps(measure(options.runs, options.seed, options.kinds), indent=1))


if __name__ == "__main__":
    main()
