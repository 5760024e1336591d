"""Lower bound on epsilon from one training run.

Steinke, Nasr and Jagielski, "Privacy Auditing with One (1) Training Run" (NeurIPS 2023, arXiv 2305.08846), Theorem
5.2 and the procedure of its appendix D. Every canary was included by a fair coin of its own. The auditor guesses the
coins of the r canaries whose scores are most extreme and abstains on the rest. Under (epsilon, delta)-DP the number v
of right guesses is at most Binomial(r, e^eps / (1 + e^eps)) stochastically, up to a term in delta; the bound is the
largest epsilon that the observed v rejects.

The cut is fixed here, before any score is seen: a bound maximised over cuts would not be valid.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

GUESSED_SHARE = 0.5
"""Share of the canaries that is guessed: the top quarter as included, the bottom quarter as held out."""

_LARGEST_EPSILON = 64.0


@dataclass(frozen=True)
class Guesses:
    """What the auditor guessed: ``correct`` of ``guesses``, out of ``canaries`` in all."""

    canaries: int
    guesses: int
    correct: int

    def lower_bound(self, delta: float, confidence: float) -> float:
        """Largest epsilon rejected at level ``1 - confidence``, 0 when none is.

        Valid with probability ``confidence`` over the coins. Found by bisection, since the p-value grows with
        epsilon.
        """
        if not 0 < confidence < 1 or not 0 <= delta < 1:
            raise ValueError("confidence and delta lie between 0 and 1")
        alpha, low, high = 1 - confidence, 0.0, _LARGEST_EPSILON
        if p_value(self.canaries, self.guesses, self.correct, low, delta) > alpha:
            return 0.0
        while high - low > 1e-6:
            middle = (low + high) / 2
            if p_value(self.canaries, self.guesses, self.correct, middle, delta) > alpha:
                high = middle
            else:
                low = middle
        return low


def guessed_side(canaries: int) -> int:
    """How many canaries are guessed at each end."""
    return int(canaries * GUESSED_SHARE / 2)


def p_value(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """Bound on P[at least ``correct`` right guesses] if the training is (epsilon, delta)-DP.

    ``beta + 2 m delta alpha`` with ``beta = P[B >= v]``, ``alpha = max_i P[v - i <= B < v] / i`` and
    ``B = Binomial(r, e^eps / (1 + e^eps))``.
    """
    if not 0 <= correct <= guesses <= canaries:
        raise ValueError(f"{correct} right of {guesses} guesses on {canaries} canaries")
    q = 1 / (1 + math.exp(-epsilon))
    beta = float(stats.binom.sf(correct - 1, guesses, q))
    if delta == 0 or correct == 0:
        return min(1.0, beta)
    steps = np.arange(1, correct + 1)
    below = np.cumsum(stats.binom.pmf(correct - steps, guesses, q))
    return min(1.0, beta + 2 * canaries * delta * float((below / steps).max()))


def guess(scores: Sequence[float] | NDArray[np.float64], included: Sequence[bool], names: Sequence[str]) -> Guesses:
    """Guesses the coins from scores, higher meaning likelier to have been trained on.

    Args:
        scores: one a canary, finite.
        included: the coins.
        names: one a canary, distinct; their hash breaks ties, so that the order of the list, which may follow the
            coins, cannot.
    """
    values = np.asarray(scores, dtype=np.float64)
    if not (values.size == len(included) == len(names)) or len(set(names)) != values.size:
        raise ValueError("every canary needs one score, one coin and a name of its own")
    if not np.isfinite(values).all():
        raise ValueError("the model returned a number that is not finite")
    side = guessed_side(values.size)
    if side < 1:
        raise ValueError(f"{values.size} canaries are too few to guess")
    order = sorted(range(values.size), key=lambda i: (values[i], hashlib.sha256(names[i].encode()).digest()))
    coins = np.asarray(included, dtype=bool)
    correct = int((~coins[order[:side]]).sum() + coins[order[-side:]].sum())
    return Guesses(values.size, 2 * side, correct)
