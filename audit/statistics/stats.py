"""Intervals: every function here is a pure function of numbers, two-sided at any confidence level.

Small samples and extreme counts are the normal case in an audit (no leak in 64 trials, a group of thirty), so the
methods are those that stay valid there: exact for proportions, Wilson-based for differences and ratios, Newcombe's
method 5 for an area under the curve whose DeLong variance vanishes. A function that cannot give an interval raises
``ValueError`` with the reason; the caller turns it into an unavailable measurement.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

Bounds = tuple[float, float]
Floats = NDArray[np.float64]
_REFERENCES, _GRID = 300, 400
_NO_SKEW, _LEAST_FOR_SKEW = 1e-9, 30
T_INTERVAL = "t interval, of 30 values and more corrected for skewness (Hall 1992)"
"""How a method names the interval of an :class:`Estimate`."""


@dataclass(frozen=True)
class Estimate:
    """A point estimate and how it errs.

    Attributes:
        value: the estimate.
        error: its standard error.
        freedom: degrees of freedom of that error.
        skew: third moment of the estimate's own error over ``error ** 3``; of a mean of n values the skewness of the
            values over the root of n.
    """

    value: float
    error: float
    freedom: float
    skew: float = 0.0

    def interval(self, confidence: float) -> Bounds:
        """Student's t interval, of a skewed estimate by Hall's transformation.

        That is a cubic of t which takes the skewness out and can be inverted (Hall, Journal of the Royal Statistical
        Society B 1992), with Student's quantiles in the place of the normal ones. A gate reads one end alone, and of
        skewed rows one end of Student's own interval errs more often than it says, up to four times
        (``python -m benchmarks.coverage``).
        """
        check_confidence(confidence)
        quantile = float(stats.t.ppf(0.5 + confidence / 2, self.freedom))
        return self.value - self.error * self._untransformed(quantile), self.value - self.error * self._untransformed(
            -quantile
        )

    def _untransformed(self, x: float) -> float:
        """The t of which Hall's ``skew / 6 + t + a * t**2 + a**2 * t**3 / 3`` is x, with ``a`` a third of ``skew``."""
        a = self.skew / 3
        return x if abs(a) < _NO_SKEW else (float(np.cbrt(1 + 3 * a * (x - self.skew / 6))) - 1) / a


@dataclass(frozen=True)
class Auc:
    """Area under the ROC curve, P(positive > negative) + P(tie)/2, with DeLong's variance.

    Attributes:
        value: the area.
        variance: DeLong's variance of it; 0 when the two samples do not overlap.
        positives: number of positive scores.
        negatives: number of negative scores.
    """

    value: float
    variance: float
    positives: int
    negatives: int

    def interval(self, confidence: float) -> Bounds:
        """DeLong on the logit scale; Newcombe's method 5 where that degenerates.

        Sources: DeLong, DeLong and Clarke-Pearson (Biometrics 1988); logit scale, Pepe (2003, section 5.2); Newcombe
        (Statistics in Medicine 2006, part 2, method 5) when the variance is 0 or a class has fewer than ten scores.
        """
        check_confidence(confidence)
        if self.variance <= 0 or min(self.positives, self.negatives) < 10:
            return newcombe_auc(self.value, self.positives, self.negatives, confidence)
        z = normal_quantile(confidence)
        centre = math.log(self.value / (1 - self.value))
        half = z * math.sqrt(self.variance) / (self.value * (1 - self.value))
        return _expit(centre - half), _expit(centre + half)


def check_confidence(confidence: float) -> None:
    """Demands a level strictly between 0 and 1."""
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence level lies between 0 and 1, not {confidence}")


@functools.lru_cache(maxsize=256)
def normal_quantile(confidence: float) -> float:
    """Two-sided normal quantile: 1.96 at 0.95."""
    check_confidence(confidence)
    return float(stats.norm.ppf(0.5 + confidence / 2))


def clopper_pearson(successes: int, n: int, confidence: float) -> Bounds:
    """Exact interval of a proportion (Clopper and Pearson, Biometrika 1934)."""
    check_confidence(confidence)
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} of {n} is not a proportion")
    tail = (1 - confidence) / 2
    lower = 0.0 if successes == 0 else float(stats.beta.ppf(tail, successes, n - successes + 1))
    upper = 1.0 if successes == n else float(stats.beta.ppf(1 - tail, successes + 1, n - successes))
    return lower, upper


def wilson(successes: int, n: int, confidence: float) -> Bounds:
    """Wilson's score interval of a proportion (JASA 1927), the building block of differences and ratios."""
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} of {n} is not a proportion")
    z2 = normal_quantile(confidence) ** 2
    p = successes / n
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (p * (1 - p) + z2 / (4 * n)) / n) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def difference_interval(k1: int, n1: int, k2: int, n2: int, confidence: float) -> Bounds:
    """Interval of ``k1/n1 - k2/n2`` for independent proportions (Newcombe, Statistics in Medicine 1998, method 10)."""
    return square_and_add(k1 / n1, wilson(k1, n1, confidence), k2 / n2, wilson(k2, n2, confidence))


def square_and_add(first: float, of_first: Bounds, second: float, of_second: Bounds) -> Bounds:
    """Interval of ``first - second`` from those of two independent estimates.

    Newcombe (Statistics in Medicine 1998, method 10, for proportions); Zou and Donner (Statistics in Medicine 2008, for
    any two estimates).
    """
    (l1, u1), (l2, u2) = of_first, of_second
    value = first - second
    return value - math.hypot(first - l1, u2 - second), value + math.hypot(u1 - first, second - l2)


def ratio_interval(k1: int, n1: int, k2: int, n2: int, confidence: float) -> Bounds:
    """Interval of ``(k1/n1) / (k2/n2)`` for independent proportions; the upper end may be infinite.

    MOVER with Wilson limits (Donner and Zou, Statistical Methods in Medical Research 2012; recommended for the
    relative risk by Fagerland and Newcombe, Statistics in Medicine 2013).
    """
    (l1, u1), (l2, u2) = wilson(k1, n1, confidence), wilson(k2, n2, confidence)
    p1, p2 = k1 / n1, k2 / n2
    spread = u2 * (2 * p2 - u2)
    low = l1 * (2 * p1 - l1)
    root = math.sqrt(max(0.0, (p1 * p2) ** 2 - low * spread))
    lower = low / (p1 * p2 + root) if p1 * p2 + root > 0 else 0.0
    gap = l2 * (2 * p2 - l2)
    root = math.sqrt(max(0.0, (p1 * p2) ** 2 - gap * u1 * (2 * p1 - u1)))
    upper = (p1 * p2 + root) / gap if gap > 0 else math.inf
    return lower, upper


def fisher(k1: int, n1: int, k2: int, n2: int) -> float:
    """Two-sided p-value of Fisher's exact test that two proportions are equal."""
    return float(stats.fisher_exact([[k1, n1 - k1], [k2, n2 - k2]])[1])


def paired_difference_interval(gained: int, lost: int, n: int, confidence: float) -> Bounds:
    """Score interval of ``(gained - lost)/n``, the change of a proportion on the same rows.

    Source: Tango, Statistics in Medicine 1998. It does not collapse when no row changed: then it is plus or minus
        ``z**2 / (n + z**2)``.
    """
    if n < 1 or min(gained, lost) < 0 or gained + lost > n:
        raise ValueError(f"{gained} gained and {lost} lost of {n} is not a paired table")
    z = normal_quantile(confidence)

    def score(delta: float) -> float:
        a = 2.0 * n
        b = -gained - lost + (2.0 * n - gained + lost) * delta
        c = -lost * delta * (1 - delta)
        q = (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)
        variance = n * (2 * q + delta * (1 - delta))
        return (gained - lost - n * delta) / math.sqrt(variance) if variance > 0 else 0.0

    point, edge = (gained - lost) / n, 1 - 1e-12
    lower = -1.0 if score(-edge) < z else float(optimize.brentq(lambda d: score(d) - z, -edge, min(point, edge)))
    upper = 1.0 if score(edge) > -z else float(optimize.brentq(lambda d: score(d) + z, max(point, -edge), edge))
    return lower, upper


def mean(values: ArrayLike) -> Estimate:
    """Mean of independent values; the paired interval when they are differences. Needs two values."""
    data = _finite(values, 2)
    error = float(data.std(ddof=1) / math.sqrt(data.size))
    return Estimate(float(data.mean()), error, data.size - 1, _skew(data - data.mean(), error * data.size))


def mean_between(values: ArrayLike, low: float, high: float, confidence: float) -> Bounds:
    """Interval of a mean that does not collapse where the values are alike.

    Agresti and Coull's (The American Statistician 1998), for other values than zeros and ones: ``z**2 / 2`` values at
    ``low`` and as many at ``high`` are added, and Student's quantile is taken, since the variance is estimated. Needs
    two values.

    Args:
        values: independent.
        low: what a value may still be though none was.
        high: the same on the other side.
        confidence: of the interval.
    """
    data = _finite(values, 2)
    added = normal_quantile(confidence) ** 2
    size = data.size + added
    centre = (float(data.sum()) + added * (low + high) / 2) / size
    squares = float(((data - centre) ** 2).sum()) + added * ((low - centre) ** 2 + (high - centre) ** 2) / 2
    half = float(stats.t.ppf(0.5 + confidence / 2, data.size - 1)) * math.sqrt(squares) / size
    return centre - half, centre + half


def weighted_mean(totals: ArrayLike, sizes: ArrayLike) -> Estimate:
    """``sum(totals) / sum(sizes)``, such as nats per token, with rows (not tokens) as the sampling units.

    Linearised variance of a ratio estimator (Cochran, Sampling Techniques, 1977, section 2.11), and the skewness of the
    same residuals. Needs two rows.
    """
    t, s = _finite(totals, 2), _finite(sizes, 2)
    if t.size != s.size or s.sum() <= 0:
        raise ValueError("totals and sizes must pair up and hold something")
    value = float(t.sum() / s.sum())
    residual = t - value * s
    error = math.sqrt(t.size / (t.size - 1) * float(residual @ residual)) / float(s.sum())
    return Estimate(value, error, t.size - 1, _skew(residual, error * float(s.sum())))


def _skew(residual: Floats, error: float) -> float:
    """Skewness of a sum of independent residuals, given its standard error; 0 where they are all alike.

    And of fewer than 30, from which a skewness is a guess: corrected by it, intervals of 16 values held less often.
    """
    return float((residual**3).sum()) / error**3 if error > 0 and residual.size >= _LEAST_FOR_SKEW else 0.0


def difference(first: Estimate, second: Estimate) -> Estimate:
    """``first - second`` of independent samples with Welch's (Biometrika 1947) degrees of freedom.

    Third moments of independent errors add up as variances do (Hall and Martin, Statistics & Probability Letters 1988).
    """
    a, b = first.error**2, second.error**2
    spread = a**2 / first.freedom + b**2 / second.freedom
    freedom = (a + b) ** 2 / spread if spread > 0 else first.freedom + second.freedom
    error = math.sqrt(a + b)
    third = first.skew * first.error**3 - second.skew * second.error**3
    return Estimate(first.value - second.value, error, freedom, third / error**3 if error > 0 else 0.0)


def apart(first: Callable[[float], Bounds], second: Callable[[float], Bounds]) -> Callable[[float], Bounds]:
    """Interval of the first quantity minus the second, whatever ties them together: each has half of the error."""

    def bounds(confidence: float) -> Bounds:
        (low, high), (least, most) = first((1 + confidence) / 2), second((1 + confidence) / 2)
        return low - most, high - least

    return bounds


def log_ratio_interval(first: Estimate, second: Estimate, confidence: float) -> Bounds:
    """Interval of ``first / second`` of independent positive means, by the delta method on the log scale."""
    if first.value <= 0 or second.value <= 0:
        raise ValueError("a ratio of means needs both to be positive")
    logs = [Estimate(math.log(e.value), e.error / e.value, e.freedom) for e in (first, second)]
    lower, upper = difference(logs[0], logs[1]).interval(confidence)
    return math.exp(lower), math.exp(upper)


def auc(positives: ArrayLike, negatives: ArrayLike) -> Auc:
    """Area under the ROC curve by midranks (Sun and Xu, IEEE Signal Processing Letters 2014); needs two scores each."""
    x, y = _finite(positives, 2), _finite(negatives, 2)
    joint = stats.rankdata(np.concatenate([x, y]))
    v10 = (joint[: x.size] - stats.rankdata(x)) / y.size
    v01 = 1 - (joint[x.size :] - stats.rankdata(y)) / x.size
    variance = float(v10.var(ddof=1) / x.size + v01.var(ddof=1) / y.size)
    return Auc(float(v10.mean()), variance, x.size, y.size)


def newcombe_auc(value: float, positives: int, negatives: int, confidence: float) -> Bounds:
    """Score-type interval of an area under the curve that does not collapse at 0 or 1.

    Newcombe (Statistics in Medicine 2006, part 2), method 5: all areas A whose Hanley-McNeil error, with both class
    sizes replaced by their mean in the shape factors, puts the observed area within z errors of A.
    """
    z = normal_quantile(confidence)
    half_size = (positives + negatives) / 2 - 1

    def error(area: float) -> float:
        shape = 1 + half_size * (1 - area) / (2 - area) + half_size * area / (1 + area)
        return math.sqrt(max(0.0, area * (1 - area) * shape / (positives * negatives)))

    def solve(sign: float, low: float, high: float) -> float:
        return float(optimize.brentq(lambda area: area - value + sign * z * error(area), low, high))

    # The equation also holds trivially at 0 and 1, where the error vanishes; the brackets stop short of them.
    edge = 1e-9
    lower = 0.0 if value <= edge else solve(1.0, edge, min(value, 1 - edge))
    upper = 1.0 if value >= 1 - edge else solve(-1.0, max(value, edge), 1 - edge)
    return lower, upper


def hanley_mcneil_error(value: float, positives: int, negatives: int) -> float:
    """Standard error of an area under the curve for negative-exponential scores (Hanley and McNeil, Radiology 1982)."""
    q1, q2 = value / (2 - value), 2 * value**2 / (1 + value)
    spread = (positives - 1) * (q1 - value**2) + (negatives - 1) * (q2 - value**2) + value * (1 - value)
    return math.sqrt(spread / (positives * negatives))


def exposure(scores: ArrayLike, reference: ArrayLike) -> Floats:
    """Exposure in bits of each score among reference scores of secrets that were not trained on.

    A higher score means a likelier secret.

    ``log2(R + 1) - log2(rank)`` with ``rank = 1 + #(reference >= score)``, ties half, as in Carlini et al. (USENIX
    Security 2019, section 4.3) with held-out secrets as the sample of the space. At most ``log2(R + 1)``; 1.44 bits
    on average for a secret that the model has not seen.
    """
    s, r = _finite(scores, 1), np.sort(_finite(reference, 1))
    above = r.size - np.searchsorted(r, s, side="right")
    ties = np.searchsorted(r, s, side="right") - np.searchsorted(r, s, side="left")
    bits: Floats = np.log2(r.size + 1) - np.log2(1 + above + ties / 2)
    return bits


def leave_one_out_exposure(reference: ArrayLike) -> Floats:
    """Exposure of each reference score among the others: what :func:`exposure` gives when nothing leaks."""
    r = _finite(reference, 2)
    return np.concatenate([exposure(r[i : i + 1], np.delete(r, i)) for i in range(r.size)])


def exposure_gap(scores: ArrayLike, reference: ArrayLike) -> Estimate:
    """Mean exposure of ``scores`` minus the mean leave-one-out exposure of the reference.

    Every score is ranked among the same reference, which adds a variance that the scores do not show. It follows from
    what a reference says of secrets at large: the shares of them between its values are uniform on the simplex,
    whatever their distribution (David and Nagaraja 2003, section 2.5). So shares are drawn, always the same ones, and
    with each the exposure that the scores would have among other references of this size.
    """
    s, r = _finite(scores, 2), _finite(reference, 2)
    bits, null = mean(exposure(s, r)), leave_one_out_exposure(r).mean()
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(r.size + 1), _REFERENCES)
    beyond = np.c_[np.zeros(_REFERENCES), np.cumsum(shares, axis=1)]
    above = r.size - np.searchsorted(np.sort(r), s, side="left")
    place = rng.random((_REFERENCES, s.size))
    chance = beyond[:, above] * (1 - place) + beyond[:, above + 1] * place
    shared = float(_expected_log_rank(chance, r.size).mean(axis=1).var(ddof=1))
    return Estimate(bits.value - float(null), math.hypot(bits.error, math.sqrt(shared)), min(s.size, r.size) - 1)


def _expected_log_rank(chance: Floats, references: int) -> Floats:
    """Mean of ``log2(rank)`` among so many references, each of which lies above with this chance."""
    out: Floats = np.interp(chance, *_log_ranks(references))
    return out


@functools.cache
def _log_ranks(references: int) -> tuple[Floats, Floats]:
    grid = np.r_[0.0, np.geomspace(1e-6, 1.0, _GRID)]
    ranks = np.arange(references + 1)
    return grid, stats.binom.pmf(ranks, references, grid[:, None]) @ np.log2(1 + ranks)


def _finite(values: ArrayLike, least: int) -> Floats:
    data: Floats = np.asarray(values, dtype=np.float64).ravel()
    if data.size < least:
        raise ValueError(f"needs at least {least} values, got {data.size}")
    if not np.isfinite(data).all():
        raise ValueError("the model returned a number that is not finite")
    return data


def _expit(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def ascending(confidences: Sequence[float]) -> tuple[float, ...]:
    """Confidence levels without repeats, the widest interval last."""
    for level in confidences:
        check_confidence(level)
    return tuple(sorted(set(confidences)))
