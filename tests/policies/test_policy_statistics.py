"""Sample sizes and exact intervals against scipy and published tables, and by simulation: a clean model can pass."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.statistics import stats as audit_stats
from policies import statistics as ps


@given(n=st.integers(1, 3000), share=st.floats(0, 1), confidence=st.sampled_from([0.9, 0.95, 0.99, 1 - 0.1 / 17]))
def test_clopper_pearson_agrees_with_scipy(n: int, share: float, confidence: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    successes, tail = round(share * n), (1 - confidence) / 2
    lower, upper = ps.clopper_pearson(successes, n, confidence)
    expected_lower = stats.beta.ppf(tail, successes, n - successes + 1) if successes else 0.0
    expected_upper = stats.beta.ppf(1 - tail, successes + 1, n - successes) if successes < n else 1.0
    assert lower == pytest.approx(expected_lower, abs=1e-9)
    assert upper == pytest.approx(expected_upper, abs=1e-9)


@given(n=st.integers(1, 5000), share=st.floats(0, 1), p=st.floats(0.001, 0.999))
def test_binomial_tail_agrees_with_scipy(n: int, share: float, p: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    successes = round(share * n)
    assert ps.binomial_at_most(successes, n, p) == pytest.approx(stats.binom.cdf(successes, n, p), abs=1e-9)


@given(
    n=st.integers(1, 2000), share=st.floats(0, 1), limit=st.floats(0.01, 0.99), alpha=st.sampled_from([0.1, 0.05, 0.01])
)
def test_the_short_cuts_say_what_the_interval_says(n: int, share: float, limit: float, alpha: float) -> None:
    successes = round(share * n)
    lower, upper = ps.clopper_pearson(successes, n, 1 - alpha)
    if abs(upper - limit) > 1e-9:
        assert ps.wholly_below(successes, n, limit, alpha) == (upper < limit)
    if abs(lower - limit) > 1e-9:
        assert ps.wholly_above(successes, n, limit, alpha) == (lower > limit)


@pytest.mark.parametrize("bad", [(-1, 10), (11, 10), (0, 0)])
def test_what_is_no_proportion_has_no_interval(bad: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="not a proportion"):
        ps.clopper_pearson(*bad, 0.9)


@pytest.mark.parametrize(("limit", "n"), [(0.05, 59), (0.02, 149), (0.01, 299), (0.001, 2995)])
def test_clean_trials_needed_are_the_published_ones(limit: float, n: int) -> None:
    assert ps.n_for_hits(limit, 0, 0.10) == n


@pytest.mark.parametrize("tolerated", [0, 1, 3])
@pytest.mark.parametrize("limit", [0.01, 0.05, 0.2])
def test_the_n_of_a_proportion_is_the_smallest(limit: float, tolerated: int) -> None:
    n = ps.n_for_hits(limit, tolerated, 0.10)
    assert ps.clopper_pearson(tolerated, n, 0.90)[1] <= limit
    assert ps.clopper_pearson(tolerated, n - 1, 0.90)[1] > limit


@pytest.mark.parametrize(("rate", "truth", "n"), [(0.7, 1.0, 151), (0.9, 1.0, 48), (0.7, 0.95, 205)])
def test_rows_for_an_impact_ratio_pass_in_as_many_outcomes_of_both_groups_as_was_stated(
    rate: float, truth: float, n: int
) -> None:
    """All outcomes of two groups, each judged by the audit's own interval."""
    stats, counts = pytest.importorskip("scipy.stats"), range(n + 1)
    assert ps.n_for_impact_ratio(0.8, truth, rate, 2, 0.10, 0.8) == n
    first, second = (stats.binom.pmf(counts, n, p) for p in (rate, rate * truth))
    passing = sum(
        first[i] * second[j]
        for i in counts
        for j in counts
        if first[i] * second[j] > 1e-12
        and min(audit_stats.ratio_interval(*pair, 0.90)[0] for pair in ((i, n, j, n), (j, n, i, n))) >= 0.8
    )
    assert 0.8 <= passing <= 0.82


def test_rows_for_an_impact_ratio_of_unequal_groups_are_those_of_the_facts_sheet() -> None:
    # The sheet asks for one direction, which is all that matters where the truth is 0.9.
    assert ps.n_for_impact_ratio(0.8, 0.9, 0.5, 2, 0.10, 0.8) == pytest.approx(991, rel=0.01)
    assert ps.n_for_impact_ratio(0.8, 0.8, 0.5, 2, 0.10, 0.8) == ps.MAX_N


@pytest.mark.parametrize("groups", [2, 3, 4, 5])
def test_a_lowest_ratio_passes_whichever_groups_are_the_lower(groups: int) -> None:
    n, z = ps.n_for_impact_ratio(0.8, 0.95, 0.8, groups, 0.10, 0.8), ps.quantile(0.95)
    for lower in range(1, groups):
        rates = {0.8: groups - lower, 0.8 * 0.95: lower}
        assert ps.chance_of_all(n, rates, lambda a, b: ps.ratio_lower(a, b, n, z) >= 0.8) >= 0.8


@given(n=st.integers(1, 4000), low=st.floats(0, 1), high=st.floats(0, 1), confidence=st.sampled_from([0.9, 0.95]))
def test_the_ratio_is_judged_as_audits_judge_it(n: int, low: float, high: float, confidence: float) -> None:
    a, b = round(low * n), round(high * n)
    expected = audit_stats.ratio_interval(a, n, b, n, confidence)[0]
    assert ps.ratio_lower(a, b, n, ps.quantile(0.5 + confidence / 2)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("groups", [2, 3, 4, 20])
@pytest.mark.parametrize("width", [0.5, 2.0, 4.0])
def test_the_range_of_normals_agrees_with_scipy(width: float, groups: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    assert ps.range_at_most(width, groups) == pytest.approx(stats.studentized_range.cdf(width, groups, 1e6), abs=1e-4)


@pytest.mark.parametrize(("rate", "limit", "n"), [(0.5, 0.1, 429), (0.7, 0.1, 360), (0.9, 0.1, 155), (0.5, 0.05, 1713)])
def test_rows_for_a_gap_in_rates_are_those_of_the_facts_sheet(rate: float, limit: float, n: int) -> None:
    assert ps.n_for_rate_gap(limit, rate, 2, 0.10, 0.8) == pytest.approx(n, abs=1)


@pytest.mark.parametrize("share", [0.05, 0.4, 0.5])
def test_so_many_draws_hold_enough_of_a_group(share: float) -> None:
    stats, n = pytest.importorskip("scipy.stats"), ps.draws_for(300, share, 0.99)
    assert stats.binom.sf(299, n, share) >= 0.99 > stats.binom.sf(299, n - 1, share)


def test_a_clean_model_passes_the_auc_gate_with_the_power_that_was_stated() -> None:
    rng, n, passed = random.Random(1), ps.n_for_auc(0.70, 0.5, 0.10, 0.8), 0
    half = n // 2
    for _ in range(400):
        inside, outside = ([rng.gauss(0, 1) for _ in range(half)] for _ in range(2))
        auc = sum((a > b) + (a == b) / 2 for a in inside for b in outside) / half**2
        passed += auc + ps.quantile(0.95) * ps.hanley_mcneil_error(auc, half, half) <= 0.70
    assert 0.72 <= passed / 400 <= 0.90


@pytest.mark.parametrize("sd", [0.75, 0.3])
def test_a_clean_model_passes_the_loss_gates_with_the_power_that_was_stated(sd: float) -> None:
    rng, n, passed = random.Random(2), ps.n_for_mean(0.0, -0.3, sd, 0.10, 0.8), 0
    reach = pytest.importorskip("scipy.stats").t.ppf(0.95, n - 1)
    for _ in range(4000):
        rows = [rng.gauss(-0.3, sd) for _ in range(n)]
        mean = sum(rows) / n
        spread = math.sqrt(sum((x - mean) ** 2 for x in rows) / (n - 1))
        passed += mean + reach * spread / math.sqrt(n) <= 0
    assert 0.78 <= passed / 4000 <= 0.87


def test_two_means_need_twice_the_rows() -> None:
    assert ps.n_for_two_means(1.1, 0.4, 1.28, 0.10, 0.8) == pytest.approx(
        2 * ps.n_for_mean(1.1, 0.4, 1.28, 0.10, 0.8), abs=3
    )


def test_so_many_coins_give_both_halves_with_the_assurance_that_was_stated() -> None:
    rng, flips = random.Random(3), ps.coin_flips(59, 0.99)
    heads = [sum(rng.random() < 0.5 for _ in range(flips)) for _ in range(4000)]
    assert sum(59 <= h <= flips - 59 for h in heads) / 4000 >= 0.985
    assert 118 < flips < 170


@given(threshold=st.integers(1, 10**6), start=st.integers(1, 50))
def test_the_search_finds_the_first_n_that_decides(threshold: int, start: int) -> None:
    assert ps.smallest(lambda n: n >= threshold, start) == max(threshold, start)


def test_a_search_that_cannot_end_says_so() -> None:
    assert ps.smallest(lambda n: False) is None
