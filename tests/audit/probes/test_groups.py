"""Group rates: our bootstrap gives fairlearn's, and the bounds of extremes keep their promise where it does not."""

from __future__ import annotations

import numpy as np
import pytest

from audit.probes import bootstrap
from audit.statistics import extremes
from audit.statistics.extremes import Cell


def cells(rng: np.random.Generator, sizes: list[int], rates: list[float]) -> list[Cell]:
    return [Cell(str(i), int(rng.binomial(n, p)), n) for i, (n, p) in enumerate(zip(sizes, rates, strict=True))]


def test_bootstrap_gives_fairlearns_intervals() -> None:
    """Same rows, same statistics: the quantiles differ by resampling noise only."""
    from fairlearn.metrics import MetricFrame, selection_rate

    rng = np.random.default_rng(3)
    groups = ["a"] * 150 + ["b"] * 90
    outcomes = (rng.random(240) < np.where(np.array(groups) == "a", 0.6, 0.4)).tolist()
    frame = MetricFrame(
        metrics=selection_rate,
        y_true=np.ones(240),
        y_pred=np.array(outcomes).astype(int),
        sensitive_features=np.array(groups),
        n_boot=200,
        ci_quantiles=[0.1, 0.9],
        random_state=5,
    )
    ours = bootstrap.group_rates(groups, outcomes, 20_000, np.random.default_rng(1))
    theirs = frame.ratio_ci(), frame.difference_ci()
    for statistics, (low, high) in zip((bootstrap.ratio(ours), bootstrap.spread(ours)), theirs, strict=True):
        assert bootstrap.percentile(statistics)(0.8) == pytest.approx((low, high), abs=0.045)
    assert frame.ratio() == pytest.approx(extremes.lowest_ratio(_table(groups, outcomes)))
    assert frame.difference() == pytest.approx(extremes.largest_difference([_table(groups, outcomes)]))


def _table(groups: list[str], outcomes: list[bool]) -> list[Cell]:
    names = sorted(set(groups))
    return [Cell(n, sum(o for g, o in zip(groups, outcomes, strict=True) if g == n), groups.count(n)) for n in names]


def test_bootstrap_rates_have_the_binomial_error() -> None:
    groups, outcomes = ["a"] * 400 + ["b"] * 100, ([True, False] * 250)
    rates = bootstrap.group_rates(groups, outcomes, 4000, np.random.default_rng(0))
    assert rates.shape == (4000, 2)
    assert rates.mean(0) == pytest.approx([0.5, 0.5], abs=0.01)
    assert rates.std(0) == pytest.approx([0.025, 0.05], rel=0.08)


def test_too_few_resamples_for_a_level_are_refused() -> None:
    interval = bootstrap.percentile(np.arange(100.0))
    assert interval(0.8) == pytest.approx((9.9, 89.1))
    with pytest.raises(ValueError, match="too few"):
        interval(0.95)
    with pytest.raises(ValueError, match="too few"):
        bootstrap.percentile(np.full(100, np.nan))(0.5)


@pytest.mark.parametrize(
    ("sizes", "rates"),
    [
        ([250, 30], [0.5, 0.4]),
        ([100, 100, 100], [0.3, 0.24, 0.27]),
        ([220, 30, 20, 15], [0.8, 0.64, 0.7, 0.75]),
        ([100, 100], [0.3, 0.3]),
        ([60, 60, 60, 60], [0.5, 0.5, 0.5, 0.5]),
    ],
)
def test_lowest_ratio_is_covered_on_each_side(sizes: list[int], rates: list[float]) -> None:
    rng = np.random.default_rng(9)
    true = min(rates) / max(rates)
    low_missed = false_fail = 0
    for _ in range(400):
        drawn = cells(rng, sizes, rates)
        low, high = extremes.lowest_ratio_interval(drawn, 0.95)
        assert 0 <= low <= high <= 1
        low_missed += low > true
        false_fail += high < min(true, 0.8)
    assert low_missed <= 400 * 0.05
    assert false_fail <= 400 * 0.05


def test_percentile_bootstrap_would_have_failed_fair_models() -> None:
    """Why extremes has bounds of its own: the same four groups, judged by the bootstrap."""
    rng = np.random.default_rng(9)
    sizes, rates = [220, 30, 20, 15], [0.8, 0.64, 0.7, 0.75]
    naive = ours = 0
    for _ in range(200):
        drawn = cells(rng, sizes, rates)
        groups = [c.name for c in drawn for _ in range(c.n)]
        outcomes = [k < c.successes for c in drawn for k in range(c.n)]
        resampled = bootstrap.ratio(bootstrap.group_rates(groups, outcomes, 400, rng))
        naive += bootstrap.percentile(resampled)(0.95)[1] < 0.8
        ours += extremes.lowest_ratio_interval(drawn, 0.95)[1] < 0.8
    assert naive > 200 * 0.1
    assert ours <= 200 * 0.05


@pytest.mark.parametrize("gap", [0.0, 0.1, 0.3])
def test_largest_difference_is_covered_on_each_side(gap: float) -> None:
    rng = np.random.default_rng(13)
    low_missed = high_missed = 0
    for _ in range(400):
        families = [cells(rng, [80, 60, 40], [0.5, 0.5 + gap, 0.5]), cells(rng, [50, 50, 30], [0.4, 0.4, 0.4])]
        low, high = extremes.largest_difference_interval(families, 0.95)
        low_missed, high_missed = low_missed + (low > gap), high_missed + (high < gap)
    assert low_missed + high_missed <= 400 * 0.08  # 5 % and three standard errors of 400 runs


@pytest.mark.parametrize(
    ("sizes", "rates"),
    [([250, 30], [0.5, 0.4]), ([220, 30, 20, 15], [0.8, 0.64, 0.7, 0.75]), ([60, 60, 60, 60], [0.5, 0.5, 0.5, 0.5])],
)
def test_a_group_against_the_highest_is_covered_although_the_rows_chose_the_highest(
    sizes: list[int], rates: list[float]
) -> None:
    rng = np.random.default_rng(17)
    missed = np.zeros((4, len(sizes)))
    for _ in range(400):
        drawn = cells(rng, sizes, rates)
        for i, cell in enumerate(drawn):
            low, high = extremes.ratio_to_highest_interval(cell, drawn, 0.95)
            gap_low, gap_high = extremes.difference_to_highest_interval(cell, drawn, 0.95)
            ratio, gap = rates[i] / max(rates), max(rates) - rates[i]
            assert 0 <= low <= high <= 1 and 0 <= gap_low <= gap_high <= 1
            missed[:, i] += low > ratio, high < ratio, gap_low > gap, gap_high < gap
    assert missed.max() <= 400 * 0.05  # 2.5 % and three standard errors of 400 runs


def test_a_large_fair_audit_can_pass_and_a_large_unfair_one_fails() -> None:
    fair = [Cell("a", 500, 1000), Cell("b", 500, 1000)]
    unfair = [Cell("a", 500, 1000), Cell("b", 250, 1000)]
    assert extremes.lowest_ratio_interval(fair, 0.95)[0] > 0.8
    assert extremes.lowest_ratio_interval(unfair, 0.95)[1] < 0.8
    assert extremes.lowest_ratio_interval([Cell("a", 3, 4), Cell("b", 0, 3)], 0.95)[1] > 0.8  # three rows prove nothing


def test_comparisons_without_groups_or_outcomes_are_refused() -> None:
    with pytest.raises(ValueError, match="two groups"):
        extremes.lowest_ratio([Cell("a", 1, 2)])
    with pytest.raises(ValueError, match="favourable"):
        extremes.lowest_ratio([Cell("a", 0, 20), Cell("b", 0, 30)])
    with pytest.raises(ValueError, match="two groups"):
        extremes.largest_difference([[Cell("a", 1, 2)]])
    with pytest.raises(ValueError, match="two groups"):
        extremes.largest_difference_interval([], 0.95)
    for of in (extremes.ratio_to_highest_interval, extremes.difference_to_highest_interval):
        with pytest.raises(ValueError, match="two groups"):
            of(Cell("a", 1, 2), [Cell("a", 1, 2)], 0.95)
