"""A Measurement carries intervals widest last, its n and the digest of its inputs, or says why there is no number."""

from __future__ import annotations

import numpy as np
import pytest

from audit.probes.measurements import Control, Subject, count, digest_of, guarded, measured, proportion, unavailable
from audit.statistics import stats

SUBJECT = Subject("privacy.example", "ratio", "a method", slice="stratum=B")


def test_a_proportion_has_every_level_widest_last() -> None:
    found = proportion(SUBJECT, 2, 50, [0.99, 0.95, 0.95], inputs={"hits": [True, False]}, control=Control(0.1, "base"))
    assert [i.confidence for i in found.intervals] == [0.95, 0.99]
    assert (found.intervals[0].lower, found.intervals[0].upper) == stats.clopper_pearson(2, 50, 0.95)
    assert (found.value, found.n, found.successes, found.control) == (0.04, 50, 2, 0.1)
    assert (found.slice, found.unit, found.control_kind, found.unavailable) == ("stratum=B", "ratio", "base", "")
    assert len(found.computed_from) == 64
    assert SUBJECT.key == "privacy.example[stratum=B]"


def test_no_trial_is_unavailable_and_not_zero() -> None:
    found = proportion(SUBJECT, 0, 0, [0.95], inputs={})
    assert found.unavailable
    assert not found.HasField("value")
    assert not found.HasField("n")
    assert not found.intervals


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_is_unavailable(value: float) -> None:
    for found in (
        measured(SUBJECT, value, None, [0.95], n=3, inputs={}),
        measured(SUBJECT, 1.0, lambda _: (0.0, value), [0.95], n=3, inputs={}),
    ):
        assert found.unavailable
        assert not found.HasField("value")
        assert not found.intervals


def test_a_one_sided_bound_leaves_the_other_end_open() -> None:
    found = measured(SUBJECT, 1.0, lambda c: (1 - c, None), [0.9], n=3, inputs={})
    assert found.intervals[0].HasField("lower")
    assert not found.intervals[0].HasField("upper")


def test_a_statistic_that_refuses_becomes_the_reason() -> None:
    found = guarded(SUBJECT, lambda: measured(SUBJECT, stats.mean([1.0]).value, None, [], n=1, inputs={}))
    assert found.unavailable == "needs at least 2 values, got 1"

    def refuse(confidence: float) -> tuple[float, float]:
        raise ValueError("too few")

    assert measured(SUBJECT, 1.0, refuse, [0.95], n=3, inputs={}).unavailable == "too few"


def test_the_digest_follows_the_inputs_and_nothing_else() -> None:
    assert digest_of({"a": [0.1, 2, True]}) == digest_of({"a": (0.1, 2, True)})
    assert digest_of({"a": np.array([0.5, 1.5])}) == digest_of({"a": [0.5, 1.5]})
    assert digest_of({"a": [0.1]}) != digest_of({"a": [0.1 + 1e-16 * 8]})
    assert digest_of({"a": np.float64(0.5), "b": np.bool_(True)}) == digest_of({"b": True, "a": 0.5})


def test_a_count_has_no_interval() -> None:
    found = count(Subject("cost.usd", "usd", "m"), 1.5, {"x": 1})
    assert (found.value, found.n, len(found.intervals)) == (1.5, 1, 0)
    assert unavailable(SUBJECT, "").unavailable
