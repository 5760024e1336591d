"""What a DP-SGD run will spend, from counts alone: known at intake, where no accountant of the trainer is installed.

The gateway reserves epsilon before a run, and the trainer follows the same sampling; so both work them out here. What
the run then claims is held against its order here too, for the gateway and for whoever verifies the log without it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from assay.errors import IntegrityError

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
        return cls.at(min(1.0, batch_size / max(1, units)), epochs)

    @classmethod
    def at(cls, rate: float, epochs: float) -> Sampling:
        """Steps that draw every unit with this chance."""
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


def demand_claim(order: Mapping[str, Any], claim: Mapping[str, Any], units: int = 0) -> None:
    """Demands that a run claims the differential privacy that was ordered, by steps that the order allows.

    A recomputed epsilon says nothing by itself: it is of the claim's own delta, noise, rate and steps. So those must
    follow from the order. A run may end early, which spends less, and never makes more steps than were planned.

    Args:
        order: predicate of the work order.
        claim: of the training statement.
        units: rows or users of the train split that the run draws from; 0 where they are not known, as to a verifier.

    Raises:
        IntegrityError: ``PRIVACY_CLAIM``.
    """
    try:
        wrong = _differing(order, claim, units)
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise IntegrityError("PRIVACY_CLAIM", "what is claimed of differential privacy cannot be read") from error
    if wrong:
        raise IntegrityError("PRIVACY_CLAIM", f"the claimed differential privacy is not the order's: {wrong}")


def _differing(order: Mapping[str, Any], claim: Mapping[str, Any], units: int) -> str:
    """Where a claim leaves its order, in words; empty where it keeps it."""
    asked, claimed = order.get("differential_privacy"), claim.get("differential_privacy")
    if not asked or not claimed:
        return "" if not asked and not claimed else "one of them has none"
    settings = order["hyperparameters"]
    noise, rate, delta, epsilon = (
        float(claimed[name]) for name in ("noise_multiplier", "sampling_rate", "delta", "epsilon")
    )
    steps, batch_size, epochs = int(claimed["steps"]), int(settings["batch_size"]), float(settings["epochs"])
    if not (math.isfinite(noise) and noise > 0 and 0 < rate <= 1 and math.isfinite(epsilon)):
        return "its numbers are not those of Poisson-sampled Gaussian steps"
    planned = Sampling.of(units, batch_size, epochs) if units else Sampling.at(rate, epochs)
    # Earlier releases made up the last, partly drawn pass; a log of theirs must still verify.
    allowed = planned.steps if units else max(planned.steps, math.ceil(epochs * planned.steps_per_epoch - 1e-9))
    done = int(claim.get("steps", steps))
    least = float(asked.get("noise_multiplier", 0))
    same_unit = (claimed.get("unit") or ROW) == (asked.get("unit") or ROW)
    most, at = float(asked["epsilon"]), float(asked["delta"])
    for holds, words in (
        (same_unit, "another unit is protected"),
        (_equal(delta, at), f"delta is {delta:g}, and {at:g} was ordered"),
        (epsilon <= most, f"epsilon is {epsilon:g}, and at most {most:g} was ordered"),
        (noise >= least or _equal(noise, least), f"the noise multiplier is {noise:g}, and {least:g} was ordered"),
        (_equal(rate, planned.rate), f"a unit is drawn with chance {rate:g}, and the batches make it {planned.rate:g}"),
        (1 <= steps <= allowed, f"it has {steps} steps, and the epochs allow {allowed}"),
        (steps == done, f"it accounts for {steps} steps, and {done} were made"),
    ):
        if not holds:
            return words
    return ""


def _equal(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-9)
