"""Sample sizes and exact intervals, in plain Python: the judge needs no numerical library.

Every interval here is two-sided at ``1 - alpha``, as Measurements carry them, so a PASS that reads one end errs with
probability ``alpha / 2``: at most, for proportions, whose intervals are exact; nominally, for means, whose intervals
are corrected for skewness (docs/audits.md tells how far they hold).

Sample sizes are the smallest n at which a clean model passes: certain where the clean count is given, with the stated
power where it is a draw. Where a gate compares several groups, power is the chance that all pairs of groups pass
together, in both directions.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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


def n_for_mean(limit: float, assumed: float, sd: float, alpha: float, power: float) -> int:
    """Smallest n at which the mean of ``assumed`` and ``sd`` per row lies wholly on the good side with ``power``.

    Half the squared quantile is for the spread that is estimated from the rows (Guenther, American Statistician 1981):
    without it seven rows passed in 75 % where 80 % were stated.
    """
    return _n_for_mean(limit - assumed, sd, alpha, power, samples=1)


def n_for_largest_mean(limit: float, assumed: float, sd: float, means: int, alpha: float, power: float) -> int:
    """As :func:`n_for_mean` where the largest of several means is judged, and with it the largest of their upper ends.

    It passes where every mean does, so each may fail in its share of what may fail at all: this holds however the means
    depend on one another (Bonferroni; Dunn, JASA 1961). ``alpha`` is not shared: the largest is one of the means.
    """
    return _n_for_mean(limit - assumed, sd, alpha, 1 - (1 - power) / means, samples=1)


def n_for_two_means(limit: float, assumed: float, sd: float, alpha: float, power: float) -> int:
    """As :func:`n_for_mean` for the difference of two independent means, n rows in each."""
    return _n_for_mean(limit - assumed, sd, alpha, power, samples=2)


def _n_for_mean(distance: float, sd: float, alpha: float, power: float, samples: int) -> int:
    one_sided = quantile(1 - alpha / 2)
    z = one_sided + quantile(power)
    return max(2, math.ceil(samples * (z * sd / distance) ** 2 + one_sided**2 / (2 * samples)))


def wilson(successes: int, n: int, z: float) -> Bounds:
    """Wilson's score interval of a proportion (JASA 1927)."""
    p, z2 = successes / n, z * z
    half = z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return (p + z2 / (2 * n) - half) / (1 + z2 / n), (p + z2 / (2 * n) + half) / (1 + z2 / n)


def ratio_lower(low: int, high: int, n: int, z: float) -> float:
    """Lower end of the ratio of two proportions of n rows each, as audits judge it.

    MOVER with Wilson limits (Donner and Zou, Statistical Methods in Medical Research 2012).
    """
    p, q = low / n, high / n
    lower, upper = wilson(low, n, z)[0], wilson(high, n, z)[1]
    shrunk = lower * (2 * p - lower)
    root = math.sqrt(max(0.0, (p * q) ** 2 - shrunk * upper * (2 * q - upper)))
    return shrunk / (p * q + root) if p * q + root > 0 else 0.0


def chance_of_all(n: int, groups: Mapping[float, int], passes: Callable[[int, int], bool]) -> float:
    """Chance that every pair of groups of n rows passes, by enumeration of the highest count.

    Args:
        n: rows of each group.
        groups: how many groups have each rate.
        passes: whether a lowest count passes beside a highest one; easier for a higher lowest and a lower highest.
    """
    # Six standard deviations and a row: what lies beyond is of no account.
    spread = {rate: 6 * math.sqrt(n * rate * (1 - rate)) + 1 for rate in groups}
    first = max(0, math.floor(min(n * rate - width for rate, width in spread.items())))
    last = min(n, math.ceil(max(n * rate + width for rate, width in spread.items())))
    weights = {rate: [_binomial(k, n, rate) for k in range(first, last + 1)] for rate in groups}
    between = dict.fromkeys(groups, 0.0)
    low, total = first, 0.0
    for high in range(first, last + 1):
        without = dict(between)
        for rate, weight in weights.items():
            between[rate] += weight[high - first]
        while low <= high and not passes(low, high):
            for rate, weight in weights.items():
                between[rate] -= weight[low - first]
                without[rate] -= weight[low - first]
            low += 1
        if low <= high:
            total += _all(between, groups) - _all(without, groups)
    return total


@functools.lru_cache(maxsize=256)
def n_for_impact_ratio(limit: float, assumed: float, rate: float, groups: int, alpha: float, power: float) -> int:
    """Rows of each group so that a lowest ratio of selection rates ``assumed`` is shown to exceed ``limit``.

    Exact for groups of one size, half of them selected at ``rate`` and half, or one more, at ``assumed`` times it: the
    least favourable. The normal approximation of the log ratio falls short at high rates: at 0.9 its n passes in 67 %.
    """
    if assumed <= limit:
        return MAX_N
    z = quantile(1 - alpha / 2)
    rates = Counter([rate] * (groups // 2) + [rate * assumed] * (groups - groups // 2))

    def enough(n: int) -> bool:
        return chance_of_all(n, rates, lambda low, high: ratio_lower(low, high, n, z) >= limit) >= power

    return _needed(smallest(enough, 2))


def range_at_most(width: float, groups: int) -> float:
    """Chance that so many standard normals lie within ``width`` of each other (Tippett, Biometrika 1925)."""
    normal, step = NormalDist(), 0.25
    lowest = (i * step for i in range(-32, 33))
    return groups * step * sum(normal.pdf(x) * (normal.cdf(x + width) - normal.cdf(x)) ** (groups - 1) for x in lowest)


@functools.lru_cache(maxsize=256)
def n_for_rate_gap(
    limit: float, rate: float, groups: int, alpha: float, power: float, shares: Sequence[float] = (1.0,)
) -> int:
    """Rows of each group so that equal rates of all groups are shown to differ by less than ``limit``.

    Each pair of groups is two one-sided tests (Schuirmann, Journal of Pharmacokinetics and Biopharmaceutics 1987), by
    normal approximation; all of them hold where the range of the groups' rates is small enough.

    Args:
        limit: of the difference.
        rate: of every group.
        groups: how many are compared.
        alpha: two-sided level of the interval.
        power: chance that all comparisons pass together.
        shares: one family of rates for each, taken among that share of a group's rows; their rows are others, so that
            the families are independent.
    """
    z = quantile(1 - alpha / 2)

    def enough(n: int) -> bool:
        errors = [math.sqrt(rate * (1 - rate) / (n * share)) for share in shares]
        return math.prod(range_at_most(max(0.0, limit / e - z * math.sqrt(2)), groups) for e in errors) >= power

    return _needed(smallest(enough, 2))


@functools.lru_cache(maxsize=256)
def coin_flips(successes: int, assurance: float) -> int:
    """Smallest number of fair flips that gives at least ``successes`` heads and as many tails with ``assurance``."""

    def enough(n: int) -> bool:
        return 1 - 2 * binomial_at_most(successes - 1, n, 0.5) >= assurance

    return _needed(smallest(enough, 2 * successes))


@functools.lru_cache(maxsize=256)
def draws_for(successes: int, share: float, assurance: float) -> int:
    """Smallest number of draws that hold at least ``successes`` of a kind with that share, with ``assurance``."""
    return _needed(smallest(lambda n: binomial_at_most(successes - 1, n, share) <= 1 - assurance, successes))


def _binomial(successes: int, n: int, p: float) -> float:
    ways = math.lgamma(n + 1) - math.lgamma(successes + 1) - math.lgamma(n - successes + 1)
    return math.exp(ways + successes * math.log(p) + (n - successes) * math.log1p(-p))


def _all(chances: Mapping[float, float], groups: Mapping[float, int]) -> float:
    """Chance that all groups do what each of a rate does with its chance; rounding may leave one below 0."""
    return math.prod(max(0.0, chances[rate]) ** count for rate, count in groups.items())


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
