"""Intervals against published values, independent implementations, and their own promise: coverage."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import optimize
from scipy import stats as scipy_stats

from audit.statistics import stats


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99, 1 - 0.05 / 12])
@pytest.mark.parametrize(("k", "n"), [(0, 1), (0, 64), (1, 59), (3, 3), (17, 40), (299, 300)])
def test_clopper_pearson_equals_scipys(k: int, n: int, confidence: float) -> None:
    theirs = scipy_stats.binomtest(k, n).proportion_ci(confidence, method="exact")
    assert stats.clopper_pearson(k, n, confidence) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_clopper_pearson_gives_the_rule_of_three() -> None:
    """One-sided 95 % upper bounds for no hit: n = 59 gives 5 %, 299 gives 1 %, 2,995 gives 0.1 %."""
    for n, bound in ((59, 0.05), (149, 0.02), (299, 0.01), (2995, 0.001)):
        assert stats.clopper_pearson(0, n, 0.9)[1] == pytest.approx(bound, rel=0.02)


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (81, 263), (20, 20)])
def test_wilson_equals_scipys(k: int, n: int) -> None:
    theirs = scipy_stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert stats.wilson(k, n, 0.95) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ((56, 70, 48, 80), (0.0524, 0.3339)),  # Newcombe 1998 (interval estimation for the difference), Table II, (a)
        ((9, 10, 3, 10), (0.1705, 0.8090)),  # (b)
        ((10, 10, 0, 10), (0.6075, 1.0)),  # (g)
        ((0, 10, 0, 10), (-0.2775, 0.2775)),
    ],
)
def test_difference_interval_gives_newcombes_table(table: tuple[int, ...], expected: tuple[float, float]) -> None:
    assert stats.difference_interval(*table, 0.95) == pytest.approx(expected, abs=6e-4)


def test_ratio_interval_near_koopmans_and_open_at_zero() -> None:
    lower, upper = stats.ratio_interval(36, 40, 16, 80, 0.95)
    assert (lower, upper) == pytest.approx((2.94, 7.15), abs=0.25)  # Koopman 1984's example
    theirs = scipy_stats.contingency.relative_risk(36, 40, 16, 80).confidence_interval(0.95)
    assert (lower, upper) == pytest.approx((theirs.low, theirs.high), rel=0.1)
    assert stats.ratio_interval(5, 10, 0, 10, 0.95)[1] == math.inf
    assert stats.ratio_interval(0, 10, 5, 10, 0.95)[0] == 0.0
    assert stats.ratio_interval(0, 10, 0, 10, 0.95) == (0.0, math.inf)
    whole = stats.ratio_interval(30, 30, 300, 300, 0.95)
    assert whole[0] < 1 < whole[1]


def test_ratio_and_its_inverse_mirror_each_other() -> None:
    for k1, n1, k2, n2 in [(12, 30, 150, 250), (1, 25, 3, 40), (29, 30, 240, 250)]:
        a, b = stats.ratio_interval(k1, n1, k2, n2, 0.95), stats.ratio_interval(k2, n2, k1, n1, 0.95)
        assert a == pytest.approx((1 / b[1], 1 / b[0]), rel=1e-9)


@pytest.mark.parametrize(("gained", "lost", "n"), list(itertools.product((0, 1, 4, 9), (0, 1, 4), (14, 40))))
def test_tango_solves_the_score_equation(gained: int, lost: int, n: int) -> None:
    """Against Tango's definition, with the restricted maximum-likelihood estimate found by brute force."""
    lower, upper = stats.paired_difference_interval(gained, lost, n, 0.95)
    assert -1 <= lower <= (gained - lost) / n <= upper <= 1
    z = 1.959964
    for bound in (lower, upper):
        if abs(bound) > 0.999:
            continue
        q = np.linspace(max(0.0, -bound) + 1e-9, (1 - abs(bound)) / 2 + max(0.0, -bound) - 1e-9, 200_001)
        rest = n - gained - lost
        with np.errstate(divide="ignore", invalid="ignore"):
            likelihood = gained * np.log(q + bound) + lost * np.log(q) + rest * np.log(1 - 2 * q - bound)
        best = q[np.nanargmax(np.where(np.isfinite(likelihood), likelihood, -np.inf))]
        score = (gained - lost - n * bound) / math.sqrt(n * (2 * best + bound * (1 - bound)))
        assert abs(score) == pytest.approx(z, abs=0.02)


def test_tango_does_not_collapse_without_a_change() -> None:
    lower, upper = stats.paired_difference_interval(0, 0, 40, 0.95)
    expected = 1.959964**2 / (40 + 1.959964**2)
    assert (lower, upper) == pytest.approx((-expected, expected), abs=1e-6)


def test_mean_is_the_t_interval_and_paired_t_its_special_case() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 2, 23), rng.normal(0.5, 1, 23)
    theirs = scipy_stats.ttest_rel(a, b).confidence_interval(0.99)
    assert stats.mean(a - b).interval(0.99) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@pytest.mark.parametrize(("k", "n"), [(0, 10), (5, 10), (29, 30), (60, 60), (281, 300)])
def test_mean_between_zero_and_one_is_agresti_coulls_with_students_quantile(k: int, n: int) -> None:
    z2 = scipy_stats.norm.ppf(0.975) ** 2
    size, share = n + z2, (k + z2 / 2) / (n + z2)
    half = scipy_stats.t.ppf(0.975, n - 1) * math.sqrt(share * (1 - share) / size)
    found = stats.mean_between(np.r_[np.ones(k), np.zeros(n - k)], 0, 1, 0.95)
    assert found == pytest.approx((share - half, share + half))
    assert found[0] < k / n < found[1]


def test_mean_between_does_not_collapse_where_all_values_are_alike() -> None:
    low, high = stats.mean_between(np.full(30, -0.05), -0.05, 0.95, 0.95)
    assert low < -0.05 and high > 0.05  # none wrong of thirty: up to a tenth may be
    assert stats.mean(np.full(30, -0.05)).interval(0.95) == pytest.approx((-0.05, -0.05))


def test_difference_is_welch() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 2, 23), rng.normal(0.5, 1, 29)
    theirs = scipy_stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    ours = stats.difference(stats.mean(a), stats.mean(b)).interval(0.95)
    assert ours == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def solved(skew: float, freedom: float, confidence: float) -> list[float]:
    """Hall's transformation of t, solved for both quantiles by bisection."""
    quantile = scipy_stats.t.ppf(0.5 + confidence / 2, freedom)
    return [
        float(optimize.brentq(lambda t, x=x: skew / 6 + t + skew / 3 * t**2 + skew**2 / 27 * t**3 - x, -50, 50))
        for x in (quantile, -quantile)
    ]


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.99])
def test_the_interval_of_skewed_values_inverts_halls_transformation(confidence: float) -> None:
    rng = np.random.default_rng(3)
    a, b = rng.gamma(0.5, 1, 40), rng.gamma(2, 1, 90)
    skew = [scipy_stats.skew(values) / math.sqrt(values.size) for values in (a, b)]
    spread = [scipy_stats.sem(values) for values in (a, b)]
    # scipy's skewness divides by n, the standard error by n - 1.
    skew = [s * (1 - 1 / v.size) ** 1.5 for s, v in zip(skew, (a, b), strict=True)]
    ends = [a.mean() - spread[0] * t for t in solved(skew[0], 39, confidence)]
    assert stats.mean(a).interval(confidence) == pytest.approx(ends)
    assert ends[0] < a.mean() < ends[1] and ends[1] - a.mean() > a.mean() - ends[0]
    assert stats.mean(-a).interval(confidence) == pytest.approx([-end for end in ends[::-1]])
    both = stats.difference(stats.mean(a), stats.mean(b))
    third = (skew[0] * spread[0] ** 3 - skew[1] * spread[1] ** 3) / both.error**3
    ends = [both.value - both.error * t for t in solved(third, both.freedom, confidence)]
    assert both.interval(confidence) == pytest.approx(ends)
    alike = stats.weighted_mean(a * 7.0, np.full(40, 7.0))
    assert alike.interval(confidence) == pytest.approx(stats.mean(a).interval(confidence)), "a ratio of equal sizes"


def test_symmetrical_values_and_few_have_students_interval() -> None:
    symmetrical = np.r_[np.linspace(-3, 3, 41)] ** 3
    for values in (symmetrical, np.random.default_rng(4).gamma(0.5, 1, 29)):
        found = stats.mean(values)
        half = scipy_stats.t.ppf(0.975, values.size - 1) * found.error
        assert found.interval(0.95) == pytest.approx((found.value - half, found.value + half))


def test_weighted_mean_with_equal_sizes_is_the_mean() -> None:
    totals = np.array([3.0, 5.0, 4.0, 9.0])
    weighted, plain = stats.weighted_mean(totals, np.full(4, 2.0)), stats.mean(totals / 2)
    assert (weighted.value, weighted.error) == pytest.approx((plain.value, plain.error))


def test_weighted_mean_and_log_ratio_cover() -> None:
    rng = np.random.default_rng(1)
    missed = [0, 0]
    for _ in range(400):
        parts = []
        for level in (2.0, 1.0):
            sizes = rng.integers(5, 60, 80)
            parts.append(stats.weighted_mean(rng.gamma(3, level / 3, 80) * sizes, sizes))
        low, high = parts[0].interval(0.95)
        missed[0] += not low <= 2 <= high
        low, high = stats.log_ratio_interval(parts[0], parts[1], 0.95)
        missed[1] += not low <= 2 <= high
    assert max(missed) <= 400 * 0.09


def brute_auc(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """DeLong by its definition: structural components over all pairs."""
    psi = (x[:, None] > y[None, :]) + 0.5 * (x[:, None] == y[None, :])
    return float(psi.mean()), float(psi.mean(1).var(ddof=1) / len(x) + psi.mean(0).var(ddof=1) / len(y))


def test_auc_equals_delongs_definition_with_ties() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.integers(2, 9, 40).astype(float), rng.integers(0, 7, 31).astype(float)
    ours = stats.auc(x, y)
    assert (ours.value, ours.variance) == pytest.approx(brute_auc(x, y), abs=1e-12)


def test_delongs_error_agrees_with_hanley_mcneil_on_exponential_scores() -> None:
    rng = np.random.default_rng(3)
    found = [stats.auc(rng.exponential(2, 200), rng.exponential(1, 200)) for _ in range(30)]
    area = np.mean([f.value for f in found])
    assert area == pytest.approx(2 / 3, abs=0.02)
    assert math.sqrt(np.mean([f.variance for f in found])) == pytest.approx(
        stats.hanley_mcneil_error(2 / 3, 200, 200), rel=0.08
    )


@pytest.mark.parametrize("true", [0.5, 0.8, 0.95])
def test_auc_interval_covers_on_each_side(true: float) -> None:
    rng = np.random.default_rng(7)
    shift = math.sqrt(2) * scipy_stats.norm.ppf(true)
    below = above = 0
    for _ in range(600):
        low, high = stats.auc(rng.normal(shift, 1, 64), rng.normal(0, 1, 64)).interval(0.95)
        below, above = below + (true > high), above + (true < low)
    assert below <= 600 * 0.045
    assert above <= 600 * 0.045


def test_auc_of_separated_scores_is_not_certain() -> None:
    found = stats.auc([3, 4, 5], [0, 1, 2])
    assert found.value == 1
    lower, upper = found.interval(0.95)
    assert upper == 1
    assert 0.3 < lower < 0.9
    tight = stats.auc(np.arange(64) + 100.0, np.arange(64.0)).interval(0.95)
    assert 0.94 < tight[0] < 0.99
    mirrored = stats.auc([0, 1, 2], [3, 4, 5]).interval(0.95)
    assert mirrored == pytest.approx((1 - upper, 1 - lower), abs=1e-9)


def test_wider_confidence_is_never_narrower() -> None:
    rng = np.random.default_rng(5)
    levels = (0.8, 0.9, 0.95, 0.99, 0.999)
    area = stats.auc(rng.normal(0.4, 1, 30), rng.normal(0, 1, 30))
    for interval in (
        area.interval,
        lambda c: stats.clopper_pearson(3, 50, c),
        lambda c: stats.difference_interval(3, 50, 9, 40, c),
        lambda c: stats.ratio_interval(3, 50, 9, 40, c),
        lambda c: stats.paired_difference_interval(4, 2, 50, c),
        stats.mean(rng.normal(0, 1, 9)).interval,
    ):
        bounds = [interval(c) for c in levels]
        assert all(a[0] >= b[0] and a[1] <= b[1] for a, b in itertools.pairwise(bounds))


def test_exposure_ranks() -> None:
    reference = list(range(127))
    assert stats.exposure([1000.0], reference)[0] == pytest.approx(7)
    assert stats.exposure([-1.0], reference)[0] == pytest.approx(0)
    assert stats.exposure([63.5], reference)[0] == pytest.approx(7 - math.log2(64))
    assert stats.exposure([5.0], [5.0, 5.0])[0] == pytest.approx(math.log2(3) - 1)  # ties half: rank 2 of 3


def test_unseen_secrets_have_the_exposure_of_chance() -> None:
    rng = np.random.default_rng(11)
    bits = stats.exposure(rng.normal(size=4000), rng.normal(size=1000))
    assert bits.mean() == pytest.approx(1 / math.log(2), abs=0.1)
    null = stats.leave_one_out_exposure(rng.normal(size=400))
    assert null.mean() == pytest.approx(1 / math.log(2), abs=0.05)


def test_exposure_gap_covers_zero_for_a_model_that_leaks_nothing() -> None:
    rng = np.random.default_rng(12)
    missed = 0
    for _ in range(300):
        inside, outside = rng.normal(size=64), rng.normal(size=64)
        found = stats.difference(
            stats.mean(stats.exposure(inside, outside)), stats.mean(stats.leave_one_out_exposure(outside))
        )
        low, high = found.interval(0.95)
        missed += not low <= 0 <= high
    assert missed <= 300 * 0.09


@pytest.mark.parametrize(
    "call",
    [
        lambda: stats.clopper_pearson(1, 0, 0.95),
        lambda: stats.clopper_pearson(3, 2, 0.95),
        lambda: stats.clopper_pearson(1, 2, 1.0),
        lambda: stats.wilson(-1, 5, 0.95),
        lambda: stats.mean([1.0]),
        lambda: stats.mean([1.0, float("nan")]),
        lambda: stats.mean([1.0, float("inf")]),
        lambda: stats.weighted_mean([1.0, 2.0], [0.0, 0.0]),
        lambda: stats.weighted_mean([1.0, 2.0], [1.0]),
        lambda: stats.auc([1.0, 2.0], [1.0]),
        lambda: stats.auc([float("nan"), 2.0], [1.0, 3.0]),
        lambda: stats.exposure([1.0], []),
        lambda: stats.leave_one_out_exposure([1.0]),
        lambda: stats.log_ratio_interval(stats.Estimate(-1, 1, 3), stats.Estimate(1, 1, 3), 0.95),
        lambda: stats.paired_difference_interval(3, 3, 5, 0.95),
        lambda: stats.ascending([0.95, 1.5]),
    ],
)
def test_what_has_no_interval_is_refused(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=r"\w"):
        call()
