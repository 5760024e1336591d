"""Whether the intervals hold: ``python -m benchmarks.coverage`` prints one JSON object.

``intervals``: for the kinds of interval that probes give, simulated data of known truth, the nominal 95 % interval, and
how often the truth lies in it; the worst setting of each kind is named. A gate reads one end alone, so ``ends`` tells
how often each end lies on the wrong side of the truth, at 90 and at 95 %: ``lower`` too high, ``upper`` too low; and
``each`` tells it of every setting, where the kind is corrected for skewness with Student's own interval (over sets of
items the normal one) in the same runs. Half of what the level leaves over is nominal; ``ends_that_err_more`` are all
settings where it is more, beyond what so many runs do by chance. Not simulated: the largest area over three membership
signals and the ratio of the alternative chosen on the selection split, whose truth depends on how models behave; and
what is counted or timed. ``epsilon``: mechanisms of known epsilon (randomised response on each canary's coin, and
Gaussian noise on it), audited by the one-run bound; how often the bound lies above the truth. The tests demand at least
93 % and at most 5 %. ``--kinds mean_of_rows epsilon`` simulates these alone: all take seven minutes of one core.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
from scipy import stats as scipy_stats

from audit.probes import one_run
from audit.statistics import stats
from benchmarks.coverage_settings import SKEWED, Setting, settings

LEVEL = 0.95
LEVELS = (0.90, LEVEL)
"""Those of a PASS by the baseline pack: alpha 0.10, and 0.05 by profile strict."""
EPSILON = "epsilon"
"""Beside the kinds of interval: the audits of known epsilon."""


@dataclass(frozen=True)
class Missed:
    """Share of simulations in which an end of the interval lay on the wrong side of the truth.

    Attributes:
        lower: the lower end was above it: a gate's FAIL by "at most", or PASS by "at least", would be wrong at a limit
            between the two.
        upper: the upper end was below it.
    """

    lower: float
    upper: float

    def told(self, level: float) -> dict[str, float]:
        """Both ends, as the output names them."""
        return {f"{end} at {level:g}": round(getattr(self, end), 4) for end in ("lower", "upper")}


@dataclass(frozen=True)
class Found:
    """What the runs of a setting showed, by level.

    Attributes:
        setting: it.
        missed: of the probes' interval.
        student: of Student's own in the same runs; nothing where the two are one.
    """

    setting: Setting
    missed: dict[float, Missed]
    student: dict[float, Missed]

    @classmethod
    def of(cls, setting: Setting, runs: int, seed: int) -> Found:
        """Simulates."""
        return cls(setting, misses(setting, runs, seed), student(setting, runs, seed) if setting.kind in SKEWED else {})

    def told(self) -> dict[str, Any]:
        """How often each end erred."""
        ends, own = (
            {name: share for level, missed in by_level.items() for name, share in missed.told(level).items()}
            for by_level in (self.missed, self.student)
        )
        return {"at": self.setting.told, **ends, **({"student": own} if own else {})}


def misses(setting: Setting, runs: int, seed: int) -> dict[float, Missed]:
    """By level, how often each end of the interval was on the wrong side of the truth."""
    truth = setting.truth() if callable(setting.truth) else setting.truth
    rng = np.random.default_rng(seed)
    wrong = {level: [0, 0] for level in LEVELS}
    for _ in range(runs):
        interval = setting.draw(rng)
        for level, counted in wrong.items():
            low, high = interval(level)
            counted[0] += low - 1e-12 > truth
            counted[1] += truth > high + 1e-12
    return {level: Missed(lower / runs, upper / runs) for level, (lower, upper) in wrong.items()}


def student(setting: Setting, runs: int, seed: int) -> dict[float, Missed]:
    """The same of Student's own interval in the same runs: the probes' code, which takes every skewness for none."""
    with mock.patch.object(stats, "_skew", lambda *_: 0.0):
        return misses(setting, runs, seed)


def coverage(setting: Setting, runs: int, seed: int) -> float:
    """Share of simulations whose interval at :data:`LEVEL` holds the truth."""
    missed = misses(setting, runs, seed)[LEVEL]
    return round(1 - missed.lower - missed.upper, 9)


def bounds(epsilon: float, canaries: int, runs: int, seed: int, mechanism: str, delta: float) -> list[float]:
    """Lower bounds at 95 % of audits of a mechanism of known epsilon."""
    rng = np.random.default_rng(seed)
    names = [str(i) for i in range(canaries)]
    out = []
    for _ in range(runs):
        coins = rng.random(canaries) < 0.5
        if mechanism == "randomised response":
            told = np.where(rng.random(canaries) < 1 / (1 + math.exp(-epsilon)), coins, ~coins)
            scores = np.where(told, 1.0, -1.0)
        else:
            scores = coins + rng.normal(0, gaussian_sigma(epsilon, delta), canaries)
        out.append(one_run.guess(scores, coins.tolist(), names).lower_bound(delta, LEVEL))
    return out


def epsilon_excess(epsilon: float, canaries: int, runs: int, seed: int, mechanism: str, delta: float) -> float:
    """Share of audits of a mechanism of known epsilon whose lower bound at 95 % lies above it."""
    return float(np.mean([b > epsilon for b in bounds(epsilon, canaries, runs, seed, mechanism, delta)]))


def gaussian_sigma(epsilon: float, delta: float) -> float:
    """Noise of the Gaussian mechanism of sensitivity 1 that is exactly (epsilon, delta)-DP (Balle and Wang 2018)."""
    from scipy import optimize

    def gap(sigma: float) -> float:
        a, b = 1 / (2 * sigma) - epsilon * sigma, -1 / (2 * sigma) - epsilon * sigma
        return float(scipy_stats.norm.cdf(a) - math.exp(epsilon) * scipy_stats.norm.cdf(b)) - delta

    return float(optimize.brentq(gap, 1e-2, 1e3))


def audits(runs: int, seed: int) -> list[dict[str, Any]]:
    """Audits of mechanisms of known epsilon, and the share of them whose bound lies above it."""
    out = []
    for mechanism in ("randomised response", "Gaussian noise"):
        for epsilon in (0.5, 1.0, 3.0, 8.0):
            for canaries in (149, 512):
                share = epsilon_excess(epsilon, canaries, runs, seed, mechanism, 1e-5)
                out.append({"mechanism": mechanism, "epsilon": epsilon, "canaries": canaries, "above": round(share, 4)})
    return out


def measure(runs: int, seed: int, kinds: Collection[str] = ()) -> dict[str, Any]:
    """Both simulations; of ``kinds`` alone, if there are any."""
    found = [Found.of(setting, runs, seed) for setting in settings() if not kinds or setting.kind in kinds]
    known = audits(runs, seed) if not kinds or EPSILON in kinds else []
    told = {kind: _of_kind([f for f in found if f.setting.kind == kind]) for kind in {f.setting.kind: 0 for f in found}}
    return {
        "runs": runs,
        "nominal": LEVEL,
        "lowest_coverage": min((k["lowest"] for k in told.values()), default=None),
        "intervals": told,
        "ends_that_err_more": [entry for f in found for entry in _beyond(f.setting, f.missed, runs)],
        "largest_epsilon_excess": max((a["above"] for a in known), default=None),
        "epsilon": known,
    }


def _of_kind(found: Sequence[Found]) -> dict[str, Any]:
    """Every setting of a kind, and the worst: of the whole interval, and of each end at each level."""
    held = [(1 - f.missed[LEVEL].lower - f.missed[LEVEL].upper, f.setting.told) for f in found]
    lowest, at = min(held, key=lambda pair: pair[0])
    each, ends = [f.told() for f in found], {}
    for end in (name for level in LEVELS for name in found[0].missed[level].told(level)):
        worst = max(each, key=lambda told: float(told[end]))
        ends[end] = {"most": worst[end], "at": worst["at"]}
    return {"settings": len(found), "lowest": round(lowest, 4), "at": at, "ends": ends, "each": each}


def _beyond(setting: Setting, missed: dict[float, Missed], runs: int) -> Iterator[dict[str, Any]]:
    """Ends that err more often than half of what the level leaves over, by three standard errors of so many runs."""
    for level, shares in missed.items():
        nominal = (1 - level) / 2
        for end in ("lower", "upper"):
            share = getattr(shares, end)
            if share > nominal + 3 * math.sqrt(nominal * (1 - nominal) / runs):
                yield {"kind": setting.kind, "at": setting.told, "end": end, "level": level, "errs": round(share, 4)}


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    known = [*dict.fromkeys(s.kind for s in settings()), EPSILON]
    parser.add_argument("--kinds", nargs="*", default=(), choices=known, metavar="KIND", help=", ".join(known))
    options = parser.parse_args()
    print(json.dumps(measure(options.runs, options.seed, options.kinds), indent=1))


if __name__ == "__main__":
    main()
