"""The privacy accounting of a training run, computed again by an accountant that the trainer does not use.

The training statement names the mechanism: Poisson sampling, Gaussian noise, so many steps. dp-accounting composes its
privacy loss distribution (Koskela, Jaelkoe and Honkela 2020), which is the oracle for whatever accountant the trainer
trusts. An audited lower bound above the accounted epsilon proves that one of the two is wrong, or the mechanism was not
run as stated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from audit.probes import one_run
from audit.probes.findings import Audit, Findings
from audit.probes.measurements import Control, Measurement, Subject, count, measured, unavailable
from audit.probes.privacy import ScoredCanary, score_canaries

_ACCOUNTED = (
    "epsilon of Poisson-sampled Gaussian steps at the stated delta, noise, rate and number, composed by the privacy "
    "loss distributions (Koskela, Jaelkoe and Honkela 2020) of dp-accounting, independently of the trainer's accountant"
)
_CLAIM_GAP = (
    "epsilon recomputed here minus the epsilon that the training statement claims; positive: too small a claim; our "
    "own definition"
)
_EXCESS = (
    "one-run lower bound (Steinke, Nasr and Jagielski 2023) at the claim's own delta minus the accounted epsilon; "
    "above 0 the accounting is refuted; one-sided: each level's lower end holds with that probability; a canary of "
    "stratum A stands for one protected unit: a row, or a user of that one row"
)


@dataclass(frozen=True)
class Mechanism:
    """What the training statement says of its differential privacy.

    Attributes:
        noise_multiplier: standard deviation of the noise over the clipping norm.
        sampling_rate: chance of a row or user, whichever the claim protects, to be in a step.
        steps: optimiser steps.
        delta: of the claim.
        epsilon: as claimed.
    """

    noise_multiplier: float
    sampling_rate: float
    steps: int
    delta: float
    epsilon: float

    @classmethod
    def of(cls, claim: Mapping[str, Any]) -> Mechanism:
        """Reads the claim.

        Raises:
            ValueError: a number is missing or cannot be one of such a mechanism.
        """
        try:
            numbers = [float(claim[name]) for name in ("noise_multiplier", "sampling_rate", "delta", "epsilon")]
            steps = int(claim["steps"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"the training statement's accounting cannot be read: {error}") from error
        noise, rate, delta, epsilon = numbers
        if not (noise > 0 and 0 < rate <= 1 and steps >= 1 and 0 < delta < 1 and math.isfinite(epsilon)):
            raise ValueError("the training statement's accounting is not that of Poisson-sampled Gaussian steps")
        return cls(noise, rate, steps, delta, epsilon)

    def accounted(self) -> float:
        """Epsilon at delta by dp-accounting's privacy loss distributions."""
        from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
        from dp_accounting.pld import PLDAccountant

        accountant = PLDAccountant()
        accountant.compose(
            PoissonSampledDpEvent(self.sampling_rate, GaussianDpEvent(self.noise_multiplier)), self.steps
        )
        return float(accountant.get_epsilon(self.delta))


def run(audit: Audit) -> Findings:
    """Recomputes the accounting and holds the audited bound against it; nothing for a run without a claim."""
    training = (audit.order.get("training") or {}).get("claim") or {}
    claim = training.get("differential_privacy")
    if not isinstance(claim, Mapping):
        return Findings((), not_tested=("privacy accounting: the training statement claims no differential privacy",))
    scored = [c for c in score_canaries(audit) if c.canary.stratum == "A"]
    return Findings(tuple(check(claim, scored, audit.settings.confidences)))


def check(claim: Mapping[str, Any], scored: Sequence[ScoredCanary], levels: Sequence[float]) -> list[Measurement]:
    """The accounted epsilon, the claim's gap to it, and the audited bound over it."""
    accounted = Subject("privacy.epsilon_accounted", "nats", _ACCOUNTED)
    gap = Subject("privacy.epsilon_claim_gap", "nats", _CLAIM_GAP)
    excess = Subject("privacy.epsilon_excess", "nats", _EXCESS)
    try:
        mechanism = Mechanism.of(claim)
        epsilon = mechanism.accounted()
    except ValueError as error:
        return [unavailable(s, str(error)) for s in (accounted, gap, excess)]
    out = [count(accounted, epsilon, dict(claim)), count(gap, epsilon - mechanism.epsilon, dict(claim))]
    try:
        names = [f"{c.canary.index}:{c.canary.secret}" for c in scored]
        guesses = one_run.guess([c.score for c in scored], [c.canary.included for c in scored], names)
    except ValueError as error:
        return [*out, unavailable(excess, str(error))]

    def interval(confidence: float) -> tuple[float, None]:
        return guesses.lower_bound(mechanism.delta, confidence) - epsilon, None

    value = guesses.lower_bound(mechanism.delta, 0.95) - epsilon
    inputs = {"claim": dict(claim), "canaries": guesses.canaries, "guesses": guesses.guesses, "right": guesses.correct}
    control = Control(epsilon, "accounted epsilon")
    return [*out, measured(excess, value, interval, levels, n=len(scored), inputs=inputs, control=control)]
