"""How groups are spelled, which are compared, and which a plan does not name."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from assay import groups
from assay.v1 import measurement_pb2


def test_what_is_named_as_compared_is_what_is_left_after_pooling() -> None:
    rng = random.Random(1)
    for _ in range(200):
        rows = rng.choices(["race=a", "race=b", "race=c", "race=d", ""], [30, 20, 5, 4, 2], k=rng.randint(0, 120))
        sizes, left = Counter(rows), Counter(groups.pooled(rows, "race", 10))
        named = groups.compared(sizes, "race")
        assert sorted(named) == sorted(group for group, n in left.items() if group and n >= 10)
        own = [group for group in named if group != groups.as_one("race")]
        assert own == named[: len(own)] and own[1:] == sorted(own[1:])
        assert all((-sizes[own[0]], own[0]) <= (-sizes[group], group) for group in own)


def test_a_row_that_lacks_one_value_is_of_no_group_of_two_attributes() -> None:
    assert groups.name_of({"race": "black", "sex": "f"}, "race,sex") == "race=black,sex=f"
    assert groups.name_of({"race": "black", "sex": ""}, "race,sex") == groups.name_of({}, "race") == ""


@pytest.mark.parametrize(
    ("name", "slice_", "beside"),
    [
        ("fairness.selection_rate", "race=black", False),
        ("fairness.selection_rate", "race=asian", True),
        ("fairness.selection_rate", "race=black,sex=f", True),
        ("fairness.calibration_gap", "race: other groups together", True),
        ("fairness.selection_rate", "race,sex: other groups together", True),
        ("fairness.impact_ratio", "race", False),
        ("fairness.proxy_auc", "race,words", False),
        ("fairness.stereotype_preference", "stereoset", False),
        ("fairness.reason_faithfulness", "", False),
        ("privacy.canary_auc", "kind=PIN", False),
    ],
)
def test_only_measurements_of_groups_that_the_plan_lacks_are_beside_it(name: str, slice_: str, beside: bool) -> None:
    plan = measurement_pb2.AuditPlan(sensitive_attributes=["race", "sex", "kind"], groups=["race=white", "race=black"])
    assert groups.unplanned(plan, name, slice_) is beside
    del plan.groups[:]
    assert not groups.unplanned(plan, name, slice_), "an older plan names none"
