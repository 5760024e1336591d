"""Three-valued gates: Holm against a reference, the n that decides, and everything that must never pass."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from statistics import NormalDist
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.v1 import measurement_pb2, policy_pb2
from policies import gates
from policies.planning import ladder
from policies.testing import measurement

AT_MOST = measurement_pb2.LIMIT_SIDE_AT_MOST
AT_LEAST = measurement_pb2.LIMIT_SIDE_AT_LEAST
PASS, FAIL = policy_pb2.OUTCOME_PASS, policy_pb2.OUTCOME_FAIL
INCONCLUSIVE, ERROR = policy_pb2.OUTCOME_INCONCLUSIVE, policy_pb2.OUTCOME_ERROR


def gate(
    limit: float, side: measurement_pb2.LimitSide = AT_MOST, n: int = 10, alpha: float = 0.10, name: str = "m"
) -> measurement_pb2.PlannedGate:
    return measurement_pb2.PlannedGate(rule_id="G", measurement=name, side=side, limit=limit, alpha=alpha, n=n)


def judge(planned: measurement_pb2.PlannedGate, given_: Mapping[str, object], family: int = 1) -> gates.Judgement:
    levels = ladder(planned.alpha, family)
    others = [gate(1.0, name=f"other{i}") for i in range(family - 1)]
    found = {planned.measurement: measurement(planned.measurement, given_, levels)}
    return gates.judge_all([planned, *others], found, lambda g, reading: True)[0]


def holm_reference(p_values: list[float], alpha: float) -> list[bool]:
    """Holm 1979 as the textbooks write it, from p-values."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    rejected = [False] * len(p_values)
    for rank, i in enumerate(order):
        if p_values[i] > alpha / (len(p_values) - rank):
            break
        rejected[i] = True
    return rejected


@given(st.lists(st.one_of(st.floats(0, 0.2), st.floats(0, 1)), min_size=1, max_size=15), st.sampled_from([0.05, 0.10]))
def test_holm_from_steps_is_holm_from_p_values(p_values: list[float], alpha: float) -> None:
    m = len(p_values)
    steps = [max((k for k in range(1, m + 1) if p <= alpha / k), default=0) for p in p_values]
    assert gates.holm(steps) == holm_reference(p_values, alpha)


@given(st.lists(st.floats(-6, 6), min_size=1, max_size=8))
def test_holm_from_intervals_is_holm_from_the_p_values_they_invert(z_scores: list[float]) -> None:
    alpha, m = 0.10, len(z_scores)
    planned = [gate(0.0, name=f"m{i}") for i in range(m)]
    found = {
        f"m{i}": measurement(f"m{i}", {"value": z, "error": 1.0, "n": 50}, ladder(alpha, m))
        for i, z in enumerate(z_scores)
    }
    answers = [j.outcome == FAIL for j in gates.judge_all(planned, found, lambda g, r: True)]
    normal = NormalDist()
    p_values = [2 * (1 - normal.cdf(z)) if z > 0 else 1.0 for z in z_scores]
    for answer, expected, p in zip(answers, holm_reference(p_values, alpha), p_values, strict=True):
        if all(abs(p - alpha / k) > 1e-6 for k in range(1, m + 1)):
            assert answer == expected


def test_holm_controls_what_uncorrected_gates_do_not() -> None:
    # Five gates whose truth lies on the limit: an interval at 90 % excludes it on the bad side in one of twenty audits.
    import random

    rng, alone, corrected = random.Random(5), 0, 0
    for _ in range(600):
        planned = [gate(0.0, name=f"m{i}") for i in range(5)]
        found = {
            f"m{i}": measurement(f"m{i}", {"value": rng.gauss(0, 1), "error": 1.0, "n": 50}, ladder(0.10, 5))
            for i in range(5)
        }
        levels = {name: gates.Levels(one) for name, one in found.items()}
        alone += any(gates.outside_steps(g, levels, 5) >= 1 for g in planned)
        corrected += any(j.outcome == FAIL for j in gates.judge_all(planned, found, lambda g, r: True))
    assert alone / 600 > 0.15
    assert corrected / 600 < 0.08


@pytest.mark.parametrize(
    ("side", "value", "expected"),
    [
        (AT_MOST, 0.3, PASS),
        (AT_MOST, 0.5, INCONCLUSIVE),
        (AT_MOST, 0.7, FAIL),
        (AT_LEAST, 0.3, FAIL),
        (AT_LEAST, 0.5, INCONCLUSIVE),
        (AT_LEAST, 0.7, PASS),
    ],
)
def test_three_answers_on_both_sides(
    side: measurement_pb2.LimitSide, value: float, expected: policy_pb2.Outcome
) -> None:
    assert judge(gate(0.5, side), {"value": value, "error": 0.05, "n": 50}).outcome == expected


def test_ends_that_touch_the_limit_are_inside() -> None:
    assert judge(gate(0.5), {"value": 0.4, "lower": 0.3, "upper": 0.5, "n": 50}).outcome == PASS
    assert judge(gate(0.5), {"value": 0.6, "lower": 0.5, "upper": 0.7, "n": 50}).outcome == INCONCLUSIVE


def test_a_family_asks_for_more_before_it_fails() -> None:
    given_ = {"value": 0.5 + 1.8, "error": 1.0, "n": 50}
    assert judge(gate(0.5), given_).outcome == FAIL
    assert judge(gate(0.5), given_, family=5).outcome == INCONCLUSIVE


def test_an_interval_that_fits_by_luck_of_few_rows_does_not_pass() -> None:
    found = judge(gate(0.5, n=100), {"value": 0.1, "error": 0.01, "n": 40})
    assert (found.outcome, found.n_required, found.towards_failure) == (INCONCLUSIVE, 100, False)


def test_few_rows_do_not_save_a_model_that_is_wholly_outside() -> None:
    assert judge(gate(0.5, n=1000), {"value": 0.9, "error": 0.01, "n": 40}).outcome == FAIL


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        ({"unavailable": "out of time"}, "out of time"),
        ({"value": math.nan, "error": 0.1, "n": 50}, "not a number"),
        ({"value": math.inf, "error": 0.1, "n": 50}, "not a number"),
        ({"n": 50}, "not a number"),
        ({"value": 0.1, "n": 50}, "no interval"),
        ({"value": 0.1, "error": math.nan, "n": 50}, "no interval"),
        ({"value": 0.1, "lower": 0.3, "upper": 0.2, "n": 50}, "no interval"),
        ({"value": 0.9, "lower": 0.0, "upper": 0.2, "n": 50}, "outside its own interval"),
        ({"value": 0.1, "error": 0.01, "n": 50, "exploratory": True}, "not in the audit plan"),
        ({"value": 0.1, "error": 0.01, "n": 50, "unavailable": "partly"}, "unavailable"),
    ],
)
def test_what_is_no_measurement_is_an_error(given_: Mapping[str, object], words: str) -> None:
    found = judge(gate(0.5), given_)
    assert found.outcome == ERROR
    assert words in found.reason


def test_a_missing_measurement_is_an_error() -> None:
    (found,) = gates.judge_all([gate(0.5)], {}, lambda g, reading: True)
    assert (found.outcome, found.reason) == (ERROR, "m was not measured")


def test_a_measurement_without_n_never_passes() -> None:
    assert judge(gate(0.5, n=0), {"value": 0.1, "error": 0.01}).outcome == INCONCLUSIVE


def test_an_interval_at_another_level_is_not_taken() -> None:
    found = {"m": measurement("m", {"value": 0.1, "error": 0.01, "n": 50}, [0.5])}
    assert gates.judge_all([gate(0.5)], found, lambda g, reading: True)[0].outcome == ERROR


def test_one_side_alone_can_fail_and_not_pass() -> None:
    lower_only = {"value": 0.9, "lower": 0.8, "n": 50}
    assert judge(gate(0.5), lower_only).outcome == FAIL
    assert judge(gate(0.5), {"value": 0.1, "lower": 0.0, "n": 50}).outcome == INCONCLUSIVE
    assert judge(gate(0.5, AT_LEAST), {"value": 0.9, "upper": 1.0, "n": 50}).outcome == INCONCLUSIVE


def test_a_gate_without_a_side_neither_passes_nor_fails() -> None:
    odd = gate(0.5, measurement_pb2.LIMIT_SIDE_UNSPECIFIED)
    assert judge(odd, {"value": 0.1, "error": 0.01, "n": 50}).outcome == INCONCLUSIVE
    assert judge(odd, {"value": 0.9, "error": 0.01, "n": 50}).outcome == INCONCLUSIVE


def test_the_pack_has_a_word_in_every_pass() -> None:
    found = {"m": measurement("m", {"value": 0.1, "error": 0.01, "n": 50}, ladder(0.10, 1))}
    assert gates.judge_all([gate(0.5)], found, lambda g, reading: False)[0].outcome == INCONCLUSIVE


@settings(max_examples=200)
@given(
    n=st.integers(5, 400),
    share=st.floats(0, 1),
    limit=st.sampled_from([0.05, 0.2, 0.5, 0.8]),
    side=st.sampled_from([AT_MOST, AT_LEAST]),
    family=st.integers(1, 6),
)
def test_the_n_named_for_a_proportion_decides(
    n: int, share: float, limit: float, side: measurement_pb2.LimitSide, family: int
) -> None:
    successes = round(share * n)
    planned = gate(limit, side, n=1)
    found = judge(planned, {"successes": successes, "n": n}, family)
    if found.outcome != INCONCLUSIVE:
        return
    if found.n_required is None:
        assert abs(successes / n - limit) < 1e-3
        return
    assert found.n_required > n
    # The same rate at the n that was named, rounded to a whole count against the answer.
    exact = successes / n * found.n_required
    worse_is_more = (side == AT_MOST) != found.towards_failure
    count = math.ceil(exact - 1e-9) if worse_is_more else math.floor(exact + 1e-9)
    again = judge(planned, {"successes": count, "n": found.n_required}, family)
    assert again.outcome == (FAIL if found.towards_failure else PASS)


@given(
    value=st.floats(-1, 1),
    sd=st.floats(0.5, 5),
    n=st.integers(10, 300),
    side=st.sampled_from([AT_MOST, AT_LEAST]),
    family=st.integers(1, 6),
)
def test_the_n_named_for_a_mean_decides(
    value: float, sd: float, n: int, side: measurement_pb2.LimitSide, family: int
) -> None:
    planned = gate(0.0, side, n=1)
    found = judge(planned, {"value": value, "error": sd / math.sqrt(n), "n": n}, family)
    if found.outcome != INCONCLUSIVE:
        return
    if found.n_required is None:
        assert abs(value) < 0.05
        return
    shrunk = {"value": value, "error": sd / math.sqrt(found.n_required), "n": found.n_required}
    assert judge(planned, shrunk, family).outcome == (FAIL if found.towards_failure else PASS)
    fewer = {"value": value, "error": sd / math.sqrt(max(n, found.n_required - 2)), "n": found.n_required - 2}
    if found.n_required - 2 > n:
        assert judge(planned, fewer, family).outcome == INCONCLUSIVE


def test_no_n_decides_for_an_estimate_on_the_limit() -> None:
    found = judge(gate(0.5), {"successes": 20, "n": 40})
    assert (found.outcome, found.n_required) == (INCONCLUSIVE, None)


def test_the_n_is_never_below_the_plan() -> None:
    found = judge(gate(0.5, n=900), {"successes": 19, "n": 60})
    assert found.outcome == INCONCLUSIVE or found.outcome == PASS
    near = judge(gate(0.5, n=900), {"successes": 25, "n": 60})
    assert near.outcome == INCONCLUSIVE
    assert near.n_required is not None and near.n_required >= 900


def test_the_ladder_has_every_level_once_in_order() -> None:
    levels = ladder(0.10, 4)
    assert levels == sorted(set(levels)) and len(levels) == 4
    assert levels[0] == pytest.approx(0.90) and levels[-1] == pytest.approx(0.975)
    assert ladder(0.10, 1) == [0.9]


def first_at(found: measurement_pb2.Measurement, confidence: float) -> measurement_pb2.Interval | None:
    """What is meant by the interval of a level: all are looked through, in the order in which they were given."""
    for interval in found.intervals:
        if abs(interval.confidence - confidence) < 1e-9:
            return interval if interval.lower <= interval.upper else None
    return None


NEAR = st.integers(-25, 25).map(lambda step: 0.9 + step * 1e-10)


@given(st.lists(st.tuples(st.one_of(NEAR, st.floats(0, 1), st.just(math.nan)), st.sampled_from([0.2, 0.4]))), NEAR)
def test_the_interval_of_a_level_is_the_first_that_has_it(given_: list[tuple[float, float]], level: float) -> None:
    found = measurement_pb2.Measurement()
    for confidence, lower in given_:
        found.intervals.add(confidence=confidence, lower=lower, upper=0.3)
    for asked in (level, *(confidence for confidence, _ in given_)):
        assert gates.Levels(found).at(asked) == first_at(found, asked)


class Given:
    """A measurement that counts how often its intervals are gone through."""

    exploratory, unavailable, value, n, looked = False, "", 0.9, 50, 0

    def __init__(self, found: measurement_pb2.Measurement) -> None:
        self._found = found

    def HasField(self, name: str) -> bool:
        return self._found.HasField(name)

    @property
    def intervals(self) -> Any:
        return self

    def __iter__(self) -> Iterator[measurement_pb2.Interval]:
        self.looked += 1
        return iter(self._found.intervals)

    def __getitem__(self, place: int) -> measurement_pb2.Interval:
        return self._found.intervals[place]


def test_the_intervals_of_a_measurement_are_gone_through_once_however_many_gates_ask() -> None:
    """Or whoever may ask for a verdict buys hours of this process's time with a small question."""
    found: Any = Given(measurement("m", {"value": 0.9, "error": 0.01, "n": 50}, ladder(0.10, 40)))
    judged = gates.judge_all([gate(0.5) for _ in range(40)], {"m": found}, lambda g, reading: True)
    assert {one.outcome for one in judged} == {FAIL} and found.looked == 1
