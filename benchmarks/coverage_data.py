"""Data of known truth for :mod:`benchmarks.coverage`, and the probes' own interval of them.

A function here gives what draws fresh data from a generator and returns their interval as a function of the level; one
that ends in ``truth`` the parameter, where only a simulation can tell it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray
from scipy import stats as scipy_stats

from audit.probes import calibration, counterfactual, proxies, regression, tail_exposure
from audit.probes.swaps import Swap
from audit.statistics import extremes, stats
from audit.statistics.extremes import Cell

Interval = Callable[[float], stats.Bounds]
"""Bounds at a confidence level."""
Draw = Callable[[np.random.Generator], Interval]
"""The interval of fresh data."""


def sparse(n: int, moved: float, nats: float) -> Draw:
    """Rows of which few move, and those all by so much."""
    return lambda g: partial(counterfactual.largest_mean_interval, [np.where(g.random(n) < moved, nats, 0.0)])


def share(n: int, p: float) -> Draw:
    """A proportion."""
    return lambda g: partial(stats.clopper_pearson, int(g.binomial(n, p)), n)


def two_shares(interval: Callable[[int, int, int, int, float], stats.Bounds], n: int, p: float, q: float) -> Draw:
    """Two proportions of n each."""
    return lambda g: partial(interval, int(g.binomial(n, p)), n, int(g.binomial(n, q)), n)


def mean(n: int) -> Draw:
    """Skewed rows: gamma of shape 2."""
    return lambda g: stats.mean(g.gamma(2, 0.5, n)).interval


def paired(n: int, gain: float, loss: float) -> Draw:
    """Rows that are gained, lost or neither."""

    def draw(g: np.random.Generator) -> Interval:
        gained, lost, _ = g.multinomial(n, [gain, loss, 1 - gain - loss])
        return partial(stats.paired_difference_interval, int(gained), int(lost), n)

    return draw


def area(m: int, shift: float, *, heavy: bool) -> Draw:
    """Scores of m planted and m held-out secrets, normal ones or of heavy tails."""

    def draw(g: np.random.Generator) -> Interval:
        with_it, without = (g.standard_t(2, m) if heavy else g.normal(0, 1, m) for _ in range(2))
        return stats.auc(with_it + shift, without).interval

    return draw


def weighted(n: int) -> Draw:
    """Nats per token of rows of unequal length."""

    def draw(g: np.random.Generator) -> Interval:
        sizes = g.integers(5, 60, n)
        return stats.weighted_mean(sizes * g.gamma(4, 0.5, n), sizes).interval

    return draw


def losses(n: int) -> Draw:
    """Mean losses of test rows and of twice as many training rows."""

    def draw(g: np.random.Generator) -> Interval:
        test, train = g.gamma(4, 2.5 / 4, n), g.gamma(4, 0.5, 2 * n)
        return stats.difference(stats.mean(test), stats.mean(train)).interval

    return draw


def token_losses(n: int) -> Draw:
    """As the gate on the loss gap reads it: nats per token on both sides."""

    def draw(g: np.random.Generator) -> Interval:
        test, train = (
            stats.weighted_mean(sizes * g.gamma(4, mean / 4, sizes.size), sizes)
            for sizes, mean in ((g.integers(5, 60, n), 2.5), (g.integers(5, 60, 2 * n), 2.0))
        )
        return stats.difference(test, train).interval

    return draw


def exposures(m: int, shift: float) -> Draw:
    """Scores of m planted secrets among 75 held-out ones."""
    return lambda g: stats.exposure_gap(g.normal(shift, 1, m), g.normal(0, 1, 75)).interval


def exposure_truth(m: int, shift: float) -> float:
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
def calibration_truth(shape: str) -> float:
    """The error of so many rows that each bin's gap is its own: right to three digits."""
    top = _tops(np.random.default_rng(0), 1_000_000)
    return calibration.Binned.of(top, SHAPES[shape](top)).error


def _binned(g: np.random.Generator, top: NDArray[np.float64], shape: str) -> calibration.Binned:
    return calibration.Binned.of(top, (g.random(len(top)) < SHAPES[shape](top)).astype(float))


def calibration_error(n: int, shape: str) -> Draw:
    """Rows whose largest probability is right as often as the shape says."""
    noise = np.random.default_rng(1).normal(size=(2000, calibration.BINS))
    return lambda g: _binned(g, _tops(g, n), shape).interval(noise)


def calibration_delta(n: int, before: str, after: str) -> Draw:
    """The same rows under two models."""
    noise = np.random.default_rng(1).normal(size=(2000, calibration.BINS))

    def draw(g: np.random.Generator) -> Interval:
        top = _tops(g, n)
        return stats.apart(*(_binned(g, top, s).interval(noise) for s in (after, before)))

    return draw


def change(sizes: tuple[int, ...], early: float, late: float) -> Draw:
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


def extreme(sizes: tuple[int, ...], rate: float, ratio_of_last: float, *, ratio: bool) -> Draw:
    """Groups selected at one rate, the last one at a share of it."""
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


def gap(n: int, says: float | None, true: float | None) -> Draw:
    """One group's calibration in the large."""
    return lambda g: _group(g, "", n, says, true).interval


def gap_difference(sizes: tuple[int, ...], true: float) -> Draw:
    """Groups that are right as often as they say, but for the last."""
    trues = [0.95] * (len(sizes) - 1) + [true]

    def draw(g: np.random.Generator) -> Interval:
        gaps = [_group(g, str(i), n, 0.95, t) for i, (n, t) in enumerate(zip(sizes, trues, strict=True))]
        return partial(calibration.largest_difference_interval, gaps)

    return draw


def odds_difference(sizes: tuple[int, ...], apart: float) -> Draw:
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


def loss_ratio(n: int, ratio: float) -> Draw:
    """Nats per token of test rows over those of twice as many training rows."""

    def draw(g: np.random.Generator) -> Interval:
        test, train = (
            stats.weighted_mean(sizes * g.gamma(4, mean / 4, sizes.size), sizes)
            for sizes, mean in ((g.integers(5, 60, n), ratio), (g.integers(5, 60, 2 * n), 1.0))
        )
        return partial(stats.log_ratio_interval, test, train)

    return draw


def form_gap(m: int, shifts: tuple[float, float]) -> Draw:
    """Scores of canaries of two forms."""

    def draw(g: np.random.Generator) -> Interval:
        own, reserved = (stats.auc(g.normal(s, 1, m), g.normal(0, 1, m)) for s in shifts)
        return lambda level: stats.square_and_add(
            own.value, own.interval(level), reserved.value, reserved.interval(level)
        )

    return draw


def _changes(g: np.random.Generator, n: int, gain: float, loss: float) -> NDArray[np.float64]:
    return g.choice([1.0, -1.0, 0.0], n, p=[gain, loss, 1 - gain - loss])


def over_sets(n: int, gain: float, loss: float) -> Draw:
    """Changes of right answers on four sets."""
    return lambda g: partial(regression.mean_over_sets_interval, [_changes(g, n, gain, loss) for _ in range(4)])


def gain_change(n: int, moves: float) -> Draw:
    """Answers with the question's own context go wrong; those with another's change as often both ways."""

    def draw(g: np.random.Generator) -> Interval:
        own, other = _changes(g, n, 0.0, moves), _changes(g, n, 0.02, 0.02)
        return regression.gain_change_interval(own, other)

    return draw


def excess(n: int, largest: float) -> Draw:
    """Sizes of changes less those of one placebo, which all groups share."""

    def draw(g: np.random.Generator) -> Interval:
        placebo = np.abs(g.normal(0, 0.25, n))
        excesses = [np.abs(g.normal(0, 0.25, n)) - placebo + largest * (i == 0) for i in range(4)]
        return partial(counterfactual.largest_mean_interval, excesses)

    return draw


def signed(n: int, shifts: Sequence[float]) -> Draw:
    """Of the group that moved most in size, with the level that the probe takes for the choice, less its true shift."""

    def draw(g: np.random.Generator) -> Interval:
        found = [g.normal(shift, 0.25, n) for shift in shifts]
        at = max(range(len(shifts)), key=lambda i: abs(float(found[i].mean())))
        chosen = stats.mean(found[at] - shifts[at])
        return lambda level: chosen.interval(counterfactual._corrected(level, len(shifts)))

    return draw


def divergence(prompts: int, moved: float, still: float) -> Draw:
    """Answers that are alike or lie anywhere between alike and wholly different; each set counts by its mean."""
    swap = Swap("race,names", ("white", "black"), (), 20)

    def draw(g: np.random.Generator) -> Interval:
        apart, beside = ((g.random(prompts) < share) * g.random(prompts) for share in (moved, still))
        units = swap.units(apart - beside)
        return lambda level: stats.mean_between(units, -1, 1, level)

    return draw


def largest_share(n: int, more: float) -> Draw:
    """Flips of the same rows by one group after the other; the first flips so many more."""

    def draw(g: np.random.Generator) -> Interval:
        nervous = g.random(n) < 0.5
        rates = 0.1 * nervous + more * (np.arange(4)[:, None] == 0)
        return partial(counterfactual.largest_share_interval, (g.random((4, n)) < rates).sum(axis=1).tolist(), n)

    return draw


_OF_A_NAME, _OF_A_ROW = 1.0, 0.03
"""Spread of what a name and what a row does to the log-odds, in nats: seen on the untuned base model."""


def folded(mean: float) -> float:
    """Mean size of the difference of two names' log-odds (Leone, Nelson and Nottingham, Technometrics 1961)."""
    spread = math.hypot(_OF_A_NAME, _OF_A_NAME, _OF_A_ROW, _OF_A_ROW)
    return float(scipy_stats.foldnorm.mean(abs(mean) / spread, scale=spread))


def names(sets: int, rows: int, apart: float, *, excess: bool) -> Draw:
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


def named_flips(sets: int, rows: int, rate: float) -> Draw:
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


def tail(shift: float, random: int) -> Draw:
    """Canaries planted and held out, each against random secrets of its own."""

    def draw(g: np.random.Generator) -> Interval:
        planted, held_out = stats.mean(_tail_bits(g, shift, random)), stats.mean(_tail_bits(g, 0, random))
        return stats.difference(planted, held_out).interval

    return draw


def tail_truth(shift: float, random: int) -> float:
    """The mean of many canaries."""
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


def proxy(n: int, strength: float) -> Draw:
    """Whether records tell the group."""

    def draw(g: np.random.Generator) -> Interval:
        value, null = proxies.auc_and_null(*_records(g, n, strength), 50, g)
        return partial(proxies.area_interval, value, null)

    return draw


def proxy_truth(n: int, strength: float) -> float:
    """What such a probe finds on the mean; chance, where there is nothing to find."""
    if not strength:
        return 0.5
    g = np.random.default_rng(n)
    found = [proxies.auc_and_null(*_records(g, n, strength), 0, g)[0] for _ in range(2000)]
    return float(np.mean(found))
