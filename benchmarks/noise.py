"""Our search for the noise of a private run beside Opacus's: ``python -m benchmarks.noise`` prints one JSON object.

Both look for the noise multiplier that spends a target epsilon by the same PRV accountant, for several runs, in turns;
``noise_ratio`` is the median over the runs of Opacus's time over ours, ``noise_asked`` the most questions that ours put
to the accountant, ``noise_unspent`` the most epsilon that it left unspent.
"""

from __future__ import annotations

import json
import logging
import statistics
import time
import warnings
from typing import Any

from assay.dp_sgd import Sampling
from trainer.recipes import private

RUNS = (
    (8.0, 1e-3, 200, 8, 2.0),
    (3.0, 1e-5, 1_000, 16, 3.0),
    (1.0, 1e-5, 1_000, 16, 3.0),
    (3.0, 1e-6, 20_000, 32, 1.0),
    (0.5, 1e-6, 20_000, 64, 2.0),
    (20.0, 1e-4, 500, 32, 2.0),
    (50.0, 1e-3, 100, 100, 2.0),
)
"""Epsilon, delta, rows, batch size and epochs."""


def measure() -> dict[str, Any]:
    """Searches both ways for every run."""
    from opacus.accountants.utils import get_noise_multiplier

    ratios, asked, unspent = [], [], []
    for epsilon, delta, rows, batch, epochs in RUNS:
        sampling = Sampling.of(rows, batch, epochs)
        begin = time.perf_counter()
        get_noise_multiplier(
            target_epsilon=epsilon,
            target_delta=delta,
            sample_rate=sampling.rate,
            steps=sampling.steps,
            accountant=private.ACCOUNTANT,
            epsilon_tolerance=private.TOLERANCE,
        )
        theirs = time.perf_counter() - begin
        private.epsilon_of.cache_clear()
        begin = time.perf_counter()
        noise = private.noise_for(epsilon, delta, sampling)
        ratios.append(theirs / (time.perf_counter() - begin))
        asked.append(private.epsilon_of.cache_info().misses)
        unspent.append(epsilon - private.epsilon_of(noise, sampling.rate, sampling.steps, delta))
    return {
        "noise_ratio": round(statistics.median(ratios), 2),
        "noise_ratio_low": round(min(ratios), 2),
        "noise_ratio_high": round(max(ratios), 2),
        "noise_asked": max(asked),
        "noise_unspent": round(max(unspent), 4),
        "noise_unspent_low": round(min(unspent), 4),
        "runs": len(RUNS),
    }


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    print(json.dumps(measure(), indent=1))
