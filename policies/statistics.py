"""Sample sizes and exact intervals, in plain Python: the judge needs no numerical library.

Every interval here is two-sided at ``1 - alpha``, as Measurements carry them, so a PASS that reads one end errs with
probability ``alpha / 2`` at most. Sample sizes are the smallest n at which a clean model passes: certain where the
clean count is given, with the stated power where it is a draw.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from statistics import NormalDist

MAX_N = 10_000_000
"""Where searches give up: no audit draws more."""

Bounds = tuple[float, float]


def quantile(probability: float) -> float:
    """Standard normal quantile."""
    return NormalDist().inv_cdf(probability)


def beta_inc(a: float, b: float, x: float) -> float:
    """Regularised incomplete beta function I_x(a, b) by continued fraction (Press et al., Numerical Recipes, 6.4)."""
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    if x > (a + 1) / (a + b + 2):
        return 1.0 - beta_inc(b, a, 1 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    tiny = 1e-300
    c, d = 1.0, 1 - (a + b) * x / (a + 1)
    d = 1 / (d if abs(d) > tiny else tiny)
    fraction = d
    for m in range(1, 100_000):
        for step in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 + step * d
            d = 1 / (d if abs(d) > tiny else tiny)
            c = 1 + step / c
            c = c if abs(c) > tiny else tiny
            fraction *= d * c
        if abs(d * c - 1) < 1e-14:
            break
    return front * fraction / a


def binomial_at_most(successes: int, n: int, p: float) -> float:
    """P[Bin(n, p) <= successes]."""
    if successes >= n:
        return 1.0
    return 0.0 if successes < 0 else beta_inc(n - successes, successes + 1, 1 - p)


@functools.lru_cache(maxsize=4096)
def clopper_pearson(successes: int, n: int, confidence: float) -> Bounds:
    """Exact two-sided interval of a proportion (Clopper and Pearson, Biometrika 1934)."""
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} of {n} is not a proportion")
    tail = (1 - confidence) / 2
    lower = 0.0 if successes == 0 else _root(lambda p: binomial_at_most(successes - 1, n, p) - (1 - tail))
    upper = 1.0 if successes == n else _root(lambda p: binomial_at_most(successes, n, p) - tail)
    return lower, upper


def wholly_below(successes: int, n: int, limit: float, alpha: float) -> bool:
    """Tells whether the Clopper-Pearson upper end is at most ``limit``, without computing it."""
    return successes < n and binomial_at_most(successes, n, limit) <= alpha / 2


def wholly_above(successes: int, n: int, limit: float, alpha: float) -> bool:
    """Tells whether the Clopper-Pearson lower end is at least ``limit``, without computing it."""
    return successes > 0 and 1 - binomial_at_most(successes - 1, n, limit) <= alpha / 2


def smallest(decides: Callable[[int], bool], start: int = 1) -> int | None:
    """Smallest n from ``start`` at which ``decides`` holds, for a condition that stays true; None beyond ``MAX_N``.

    Where rounding makes the condition flicker, the answer still decides; it may then not be the very smallest.
    """
    low, high = start, start
    while not decides(high):
        if high >= MAX_N:
            return None
        low, high = high + 1, min(MAX_N, high * 2)
    while low < high:
        middle = (low + high) // 2
        if decides(middle):
            high = middle
        else:
            low = middle + 1
    return high


@functools.lru_cache(maxsize=256)
def n_for_hits(limit: float, tolerated: int, alpha: float) -> int:
    """Smallest n at which ``tolerated`` hits still lie wholly below ``limit``; 0 hits at 5 % and alpha 0.10: 59."""
    return _needed(smallest(lambda n: wholly_below(tolerated, n, limit, alpha), tolerated + 1))


def hanley_mcneil_error(auc: float, positives: int, negatives: int) -> float:
    """Standard error of an AUC (Hanley and McNeil, Radiology 1982)."""
    q1, q2 = auc / (2 - auc), 2 * auc * auc / (1 + auc)
    spread = auc * (1 - auc) + (positives - 1) * (q1 - auc * auc) + (negatives - 1) * (q2 - auc * auc)
    return math.sqrt(max(spread, 0.0) / (positives * negatives))


@functools.lru_cache(maxsize=256)
def n_for_auc(limit: float, assumed: float, alpha: float, power: float) -> int:
    """Smallest even n, half of each class, at which a model of AUC ``assumed`` passes with ``power``."""
    z = quantile(1 - alpha / 2) + quantile(power)
    half = smallest(lambda m: assumed + z * hanley_mcneil_error(assumed, m, m) <= limit, 2)
    return 2 * _needed(half)


@functools.lru_cache(maxsize=256)
def n_for_mean(limit: float, assumed: float, sd: float, alpha: float, power: float) -> int:
    """Smallest n at which the mean of ``assumed`` and ``sd`` per row lies wholly on the good side with ``power``."""
    z = quantile(1 - alpha / 2) + quantile(power)
    return max(2, math.ceil((z * sd / (limit - assumed)) ** 2))


def n_for_two_means(limit: float, assumed: float, sd: float, alpha: float, power: float) -> int:
    """As :func:`n_for_mean` for the difference of two independent means, n rows in each."""
    return n_for_mean(limit, assumed, sd * math.sqrt(2), alpha, power)


@functools.lru_cache(maxsize=256)
def n_for_impact_ratio(limit: float, assumed: float, rate: float, alpha: float, power: float) -> int:
    """Rows of each group so that a ratio of selection rates ``assumed`` is shown to exceed ``limit``.

    Log-ratio normal approximation; gives the table of 249, 580 and 994 rows at rates .5, .3 and .2 (limit .8, alpha
    .10, power .8).
    """
    z = quantile(1 - alpha / 2) + quantile(power)
    low = rate * assumed
    variance = (1 - rate) / rate + (1 - low) / low
    return max(2, math.ceil(z * z * variance / math.log(assumed / limit) ** 2))


@functools.lru_cache(maxsize=256)
def n_for_rate_gap(limit: float, rate: float, alpha: float, power: float) -> int:
    """Rows of each group so that equal rates are shown to differ by less than ``limit`` (two one-sided tests)."""
    z = quantile(1 - alpha / 2) + quantile((1 + power) / 2)
    return max(2, math.ceil(z * z * 2 * rate * (1 - rate) / limit**2))


@functools.lru_cache(maxsize=256)
def coin_flips(successes: int, assurance: float) -> int:
    """Smallest number of fair flips that gives at least ``successes`` heads and as many tails with ``assurance``."""

    def enough(n: int) -> bool:
        return 1 - 2 * binomial_at_most(successes - 1, n, 0.5) >= assurance

    return _needed(smallest(enough, 2 * successes))


def _needed(n: int | None) -> int:
    return MAX_N if n is None else n


def _root(falling: Callable[[float], float]) -> float:
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if falling(middle) > 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2
