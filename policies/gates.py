"""Judges one measurement against one planned gate, and all gates of a job together.

PASS when the interval at ``1 - alpha`` lies wholly inside the acceptable region. FAIL when the interval lies wholly
outside at the level that Holm's step-down method asks for (Holm, Scandinavian Journal of Statistics 1979), so that a
job with many gates is not failed by chance. Else INCONCLUSIVE, with the n that would decide. A number that is missing
or is no number is an ERROR.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from assay.v1 import measurement_pb2, policy_pb2
from policies import statistics
from policies.inputs import missing_measurement

_SAME_LEVEL = 1e-9

Passes = Callable[["Reading"], bool]


@dataclass(frozen=True)
class Reading:
    """What a measurement says at the level of its gate's PASS.

    Attributes:
        value: point estimate.
        lower: lower end at ``1 - alpha``; minus infinity where the method gives none.
        upper: upper end; infinity where the method gives none.
        n: sample size.
        limit: limit of the gate.
    """

    value: float
    lower: float
    upper: float
    n: int
    limit: float


@dataclass(frozen=True)
class Judgement:
    """One gate's answer.

    Attributes:
        gate: as planned.
        outcome: PASS, FAIL, INCONCLUSIVE or ERROR.
        reading: the numbers; None on ERROR.
        reason: why there are none, or what stands against a PASS beside the interval.
        n_required: sample size that would decide, if the estimate stays; None where none would.
        towards_failure: that n would decide for FAIL.
    """

    gate: measurement_pb2.PlannedGate
    outcome: policy_pb2.Outcome
    reading: Reading | None
    reason: str = ""
    n_required: int | None = None
    towards_failure: bool = False


def judge_all(
    gates: Sequence[measurement_pb2.PlannedGate],
    measurements: Mapping[str, measurement_pb2.Measurement],
    passes: Callable[[measurement_pb2.PlannedGate, Reading], bool],
) -> list[Judgement]:
    """Judges every gate; the family of Holm's correction is the whole plan, measured or not.

    Args:
        gates: of the plan.
        measurements: by name, or name and slice.
        passes: evaluates the gate's PASS condition on its reading; it must agree with the side that the plan states.
    """
    names = {gate.measurement for gate in gates}
    levels = {name: Levels(measurements[name]) for name in names if not missing_measurement(measurements, name)}
    steps = [outside_steps(gate, levels, len(gates)) for gate in gates]
    rejected = holm(steps)
    return [
        _judge(gate, measurements, levels, failed, lambda reading, gate=gate: passes(gate, reading), len(gates))  # type: ignore[misc]
        for gate, failed in zip(gates, rejected, strict=True)
    ]


def holm(steps: Sequence[int]) -> list[bool]:
    """Holm's step-down test, told for each hypothesis the largest k with p <= alpha/k (0 when p > alpha).

    The hypotheses are taken by p-value; the i-th of m is rejected while its p <= alpha/(m - i + 1). Only comparisons
    with alpha/k are made, so the steps hold all that the p-values would say.
    """
    order = sorted(range(len(steps)), key=lambda i: -steps[i])
    rejected = [False] * len(steps)
    for rank, index in enumerate(order):
        if steps[index] < len(steps) - rank:
            break
        rejected[index] = True
    return rejected


class Levels:
    """The intervals of one measurement, found by their level.

    Sorted once: Holm's steps ask as often as there are gates times levels, and whoever may ask for a verdict chooses
    how many intervals each of these would look through.
    """

    def __init__(self, measurement: measurement_pb2.Measurement) -> None:
        self._intervals = measurement.intervals
        found = ((interval.confidence, place) for place, interval in enumerate(measurement.intervals))
        ordered = sorted(pair for pair in found if not math.isnan(pair[0]))
        self._confidences = [confidence for confidence, _ in ordered]
        self._places = [place for _, place in ordered]

    def at(self, confidence: float) -> measurement_pb2.Interval | None:
        """The first interval of a confidence level, if there is one and its ends are numbers in order."""

        def off(level: float) -> float:
            return level - confidence

        low = bisect_right(self._confidences, -_SAME_LEVEL, key=off)
        high = bisect_left(self._confidences, _SAME_LEVEL, lo=low, key=off)
        if low == high:
            return None
        interval = self._intervals[min(self._places[low:high])]
        lower, upper = _ends(interval)
        sound = not (math.isnan(lower) or math.isnan(upper)) and lower <= upper
        return interval if sound else None


def outside_steps(gate: measurement_pb2.PlannedGate, levels: Mapping[str, Levels], family: int) -> int:
    """Largest k such that the interval at ``1 - alpha/j`` lies wholly outside for every j up to k; 0 for none."""
    if gate.measurement not in levels:
        return 0
    found = levels[gate.measurement]
    k = 0
    while k < family:
        interval = found.at(1 - gate.alpha / (k + 1))
        if interval is None or not _outside(gate, interval):
            break
        k += 1
    return k


def _judge(
    gate: measurement_pb2.PlannedGate,
    measurements: Mapping[str, measurement_pb2.Measurement],
    levels: Mapping[str, Levels],
    rejected: bool,
    passes: Passes,
    family: int,
) -> Judgement:
    missing = missing_measurement(measurements, gate.measurement)
    if missing:
        return Judgement(gate, policy_pb2.OUTCOME_ERROR, None, missing)
    measurement, found = measurements[gate.measurement], levels[gate.measurement]
    interval = found.at(1 - gate.alpha)
    if interval is None or not (interval.HasField("lower") or interval.HasField("upper")):
        reason = f"{gate.measurement} has no interval at {100 * (1 - gate.alpha):g} %"
        return Judgement(gate, policy_pb2.OUTCOME_ERROR, None, reason)
    lower, upper = _ends(interval)
    if not lower - 1e-9 <= measurement.value <= upper + 1e-9:
        return Judgement(gate, policy_pb2.OUTCOME_ERROR, None, f"{gate.measurement} lies outside its own interval")
    reading = Reading(measurement.value, lower, upper, measurement.n, gate.limit)
    if rejected:
        return Judgement(gate, policy_pb2.OUTCOME_FAIL, reading)
    enough = measurement.HasField("n") and measurement.n >= gate.n
    if _inside(gate, reading) and passes(reading):
        if enough:
            return Judgement(gate, policy_pb2.OUTCOME_PASS, reading)
        reason = f"the plan asked for n = {gate.n:,}"
        return Judgement(gate, policy_pb2.OUTCOME_INCONCLUSIVE, reading, reason, gate.n)
    n, towards_failure = n_that_decides(gate, measurement, found, reading, family)
    if n is not None and not towards_failure:
        n = max(n, gate.n)
    return Judgement(gate, policy_pb2.OUTCOME_INCONCLUSIVE, reading, "", n, towards_failure)


def n_that_decides(
    gate: measurement_pb2.PlannedGate,
    measurement: measurement_pb2.Measurement,
    levels: Levels,
    reading: Reading,
    family: int,
) -> tuple[int | None, bool]:
    """Sample size at which the same estimate would decide, and whether for FAIL.

    Exact for proportions (Clopper-Pearson, at the same rate); else the interval is taken to shrink with the square
    root of n. For FAIL the level of Holm's first step is asked for, which decides whatever the other gates say. None
    when the estimate lies on the limit, or when nothing below ten million would do.
    """
    distance = (gate.limit - reading.value) * (1 if _at_most(gate) else -1)
    if distance == 0 or not measurement.HasField("n") or measurement.n < 1:
        return None, False
    fails = distance < 0
    if measurement.HasField("successes"):
        return _n_of_proportion(gate, measurement, gate.alpha / family if fails else gate.alpha, fails), fails
    towards_upper = _at_most(gate) != fails
    interval = levels.at(1 - gate.alpha / (family if fails else 1))
    if interval is None:
        return None, fails
    lower, upper = _ends(interval)
    half = upper - reading.value if towards_upper else reading.value - lower
    if not half < statistics.MAX_N * abs(distance):
        # Also where the method gives no bound; and a ratio this large has no square.
        return None, fails
    n = math.ceil(measurement.n * (half / abs(distance)) ** 2 * (1 + 1e-9))
    return (max(n, measurement.n + 1) if n <= statistics.MAX_N else None), fails


def _n_of_proportion(
    gate: measurement_pb2.PlannedGate, measurement: measurement_pb2.Measurement, alpha: float, fails: bool
) -> int | None:
    below = _at_most(gate) != fails
    rate = measurement.successes / measurement.n

    def decides(n: int) -> bool:
        # Rounded against the answer, so that the n named is never too small.
        if below:
            return statistics.wholly_below(math.ceil(rate * n - 1e-9), n, gate.limit, alpha)
        return statistics.wholly_above(math.floor(rate * n + 1e-9), n, gate.limit, alpha)

    return statistics.smallest(decides, measurement.n + 1)


def _at_most(gate: measurement_pb2.PlannedGate) -> bool:
    return gate.side == measurement_pb2.LIMIT_SIDE_AT_MOST


def _ends(interval: measurement_pb2.Interval) -> tuple[float, float]:
    lower = interval.lower if interval.HasField("lower") else -math.inf
    return lower, interval.upper if interval.HasField("upper") else math.inf


def _inside(gate: measurement_pb2.PlannedGate, reading: Reading) -> bool:
    if gate.side == measurement_pb2.LIMIT_SIDE_AT_LEAST:
        return reading.lower >= gate.limit
    return _at_most(gate) and reading.upper <= gate.limit


def _outside(gate: measurement_pb2.PlannedGate, interval: measurement_pb2.Interval) -> bool:
    lower, upper = _ends(interval)
    if gate.side == measurement_pb2.LIMIT_SIDE_AT_LEAST:
        return upper < gate.limit
    return _at_most(gate) and lower > gate.limit
