"""The one-run epsilon bound against an independent reading of the paper and against training with a known epsilon."""

from __future__ import annotations

import math
from math import comb

import numpy as np
import pytest

from audit.probes.one_run import Guesses, guess, p_value


def paper_p_value(m: int, r: int, v: int, eps: float, delta: float) -> float:
    """The formula of arXiv 2305.08846 written out in sums of binomial terms, without scipy."""
    q = math.exp(eps) / (1 + math.exp(eps))
    pmf = [comb(r, k) * q**k * (1 - q) ** (r - k) for k in range(r + 1)]
    beta = sum(pmf[v:])
    alpha = max((sum(pmf[v - i : v]) / i for i in range(1, v + 1)), default=0.0)
    return min(1.0, beta + 2 * m * delta * alpha)


@pytest.mark.parametrize(("m", "r"), [(16, 8), (64, 64), (128, 64), (128, 32)])
@pytest.mark.parametrize("delta", [0.0, 1e-5, 1e-3])
def test_p_value_is_the_papers(m: int, r: int, delta: float) -> None:
    for v in {0, 1, r // 2, r - 1, r}:
        for eps in (0.0, 0.3, 1.0, 4.0):
            assert p_value(m, r, v, eps, delta) == pytest.approx(paper_p_value(m, r, v, eps, delta), abs=1e-9)


@pytest.mark.parametrize(("m", "bound"), [(32, 2.3), (64, 3.0), (128, 3.7), (256, 4.4), (512, 5.1), (1024, 5.8)])
def test_all_guesses_right_gives_the_known_ceiling(m: int, bound: float) -> None:
    assert Guesses(m, m, m).lower_bound(0.0, 0.95) == pytest.approx(bound, abs=0.06)


def test_the_bound_solves_the_equation_and_closes_at_zero() -> None:
    found = Guesses(128, 64, 55).lower_bound(1e-5, 0.95)
    assert p_value(128, 64, 55, found, 1e-5) == pytest.approx(0.05, abs=1e-3)
    assert Guesses(128, 64, 32).lower_bound(1e-5, 0.95) == 0.0
    assert Guesses(128, 64, 0).lower_bound(1e-5, 0.95) == 0.0


def test_the_bound_falls_with_confidence_and_with_delta() -> None:
    guesses = Guesses(128, 64, 60)
    bounds = [guesses.lower_bound(1e-6, c) for c in (0.8, 0.9, 0.95, 0.99, 0.999)]
    assert bounds == sorted(bounds, reverse=True)
    assert guesses.lower_bound(1e-3, 0.95) < guesses.lower_bound(0.0, 0.95)


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 1.0, 2.0])
def test_randomised_response_is_overstated_in_at_most_one_run_of_twenty(epsilon: float) -> None:
    """Randomised response is exactly epsilon-DP, the worst case: the bound may exceed its epsilon in 5 % of runs."""
    rng = np.random.default_rng(21)
    runs, m, exceeded, found = 1000, 128, 0, []
    truth = math.exp(epsilon) / (1 + math.exp(epsilon))
    known: dict[tuple[int, int], float] = {}
    for _ in range(runs):
        coins = rng.random(m) < 0.5
        told = np.where(rng.random(m) < truth, coins, ~coins)
        guesses = guess(told.astype(float), coins.tolist(), [str(i) for i in range(m)])
        key = (guesses.guesses, guesses.correct)
        known.setdefault(key, guesses.lower_bound(0.0, 0.95))
        found.append(known[key])
        exceeded += known[key] > epsilon
    assert exceeded <= 0.05 * runs + 3 * math.sqrt(0.05 * 0.95 * runs)
    if epsilon >= 1:
        assert np.median(found) > 0.3 * epsilon  # and it is not valid by being empty


def test_guesses_take_the_top_quarter_as_included_and_the_bottom_as_held_out() -> None:
    scores = list(range(16))
    coins = [False] * 8 + [True] * 8
    assert guess(scores, coins, [str(i) for i in range(16)]) == Guesses(16, 8, 8)
    assert guess(scores, [not c for c in coins], [str(i) for i in range(16)]) == Guesses(16, 8, 0)


def test_ties_do_not_follow_the_order_of_the_list() -> None:
    """A manifest that lists the included canaries last must not look like a leak when all scores are equal."""
    correct = []
    for seed in range(40):
        names = [f"{seed}:{i}" for i in range(64)]
        correct.append(guess([0.0] * 64, [False] * 32 + [True] * 32, names).correct)
    assert abs(np.mean(correct) - 16) < 2


@pytest.mark.parametrize(
    ("scores", "coins", "names"),
    [
        ([1.0, 2.0], [True], ["a", "b"]),
        ([1.0, 2.0, 3.0, 4.0], [True] * 4, ["a", "a", "b", "c"]),
        ([1.0, float("nan"), 3.0, 4.0], [True] * 4, ["a", "d", "b", "c"]),
        ([1.0, 2.0, 3.0], [True] * 3, ["a", "b", "c"]),
        ([], [], []),
    ],
)
def test_unusable_scores_are_refused(scores: list[float], coins: list[bool], names: list[str]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        guess(scores, coins, names)


@pytest.mark.parametrize(("confidence", "delta"), [(1.0, 0.0), (0.0, 0.0), (0.95, 1.0), (0.95, -0.1)])
def test_levels_outside_their_range_are_refused(confidence: float, delta: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        Guesses(8, 4, 4).lower_bound(delta, confidence)
    with pytest.raises(ValueError, match="guesses"):
        p_value(8, 4, 5, 0.1, 0.0)
