"""What a DP-SGD run will spend, from counts alone: known at intake, where no accountant of the trainer is installed.

The gateway reserves epsilon before a run, and the trainer follows the same sampling; so both work them out here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

ROW, USER = "row", "user"
"""What is protected, and drawn and clipped as one: a row, or everything of one user."""
MOST_ROWS_OF_A_USER = 8
"""Rows of one user in one step, drawn anew in each: one large user must not decide what a step costs."""

ORDERS = (*range(2, 65), 96, 128, 192, 256, 384, 512, 768, 1024)
ACCOUNTANT_ERROR = 0.02
"""Opacus's accountant composes numerically, states the upper end of its own error, 0.01, and errs by as much again."""


@dataclass(frozen=True)
class Sampling:
    """Poisson sampling over a whole run.

    Attributes:
        rate: chance of a unit to be in a step.
        steps_per_epoch: after how many steps a unit was drawn once on average, rounded up.
        steps: in all.
    """

    rate: float
    steps_per_epoch: int
    steps: int

    @classmethod
    def of(cls, units: int, batch_size: int, epochs: float) -> Sampling:
        """Steps of ``batch_size`` expected units out of ``units``: at least one, else no more than the epochs allow.

        A step more would train, and spend, what nobody planned: see :mod:`assay.token_plan`.
        """
        rate = min(1.0, batch_size / max(1, units))
        return cls(rate, math.ceil(1 / rate), max(1, math.floor(epochs / rate + 1e-9)))


def most_epsilon(noise_multiplier: float, sampling: Sampling, delta: float) -> float:
    """An epsilon that Poisson-sampled Gaussian steps never exceed at ``delta``, and no accountant of them states more.

    Renyi differential privacy of the sampled Gaussian at whole orders (Mironov, Talwar and Zhang 2019, arXiv
    1908.10530, section 3.3), added over the steps and turned into epsilon (Canonne, Kamath and Steinke 2020, arXiv
    2004.00010, proposition 12). Composing privacy losses themselves, as the accountants of trainer and auditor do,
    comes to less, by a quarter at most where it was tried; :data:`ACCOUNTANT_ERROR` covers the error of theirs.

    Args:
        noise_multiplier: standard deviation of the noise over the clipping norm, above 0.
        sampling: rate and steps.
        delta: between 0 and 1, exclusive.
    """

    def at(order: int) -> float:
        spent = sampling.steps * _renyi(noise_multiplier, sampling.rate, order)
        return spent + math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1)

    return max(0.0, min(map(at, ORDERS))) + ACCOUNTANT_ERROR


def _renyi(noise: float, rate: float, order: int) -> float:
    """Renyi divergence of one step at a whole order, by its binomial expansion, in logarithms against overflow."""
    if rate == 1:
        return order / (2 * noise**2)
    terms = [
        math.lgamma(order + 1) - math.lgamma(k + 1) - math.lgamma(order - k + 1)
        + k * math.log(rate) + (order - k) * math.log1p(-rate) + (k * k - k) / (2 * noise**2)
        for k in range(order + 1)
    ]  # fmt: skip
    largest = max(terms)
    return max(0.0, largest + math.log(math.fsum(math.exp(term - largest) for term in terms))) / (order - 1)
