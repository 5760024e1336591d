from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from audit.prepare.label_bias import by_group
from audit.statistics import stats
from tests.audit.prepare.test_prepare_task import TABLE_SHEET, models, prepare, table_file

__all__ = ["models"]
NO_CANARIES = {"a": 0, "b": 0, "b_repeats": 1}
RACE = {"white": (300, 240), "black": (100, 40), "asian": (60, 42), "other": (9, 1)}


def found(groups: dict[str, tuple[int, int]]) -> dict[str, Any]:
    rows = {("race", value): n for value, (n, _) in groups.items()}
    return {g.value: g for g in by_group(rows, {("race", value): k for value, (_, k) in groups.items()})}


def test_rates_and_differences_are_those_of_a_count_by_hand() -> None:
    by = found(RACE)
    assert list(by) == sorted(RACE) and [g.rows for g in by.values()] == [60, 100, 9, 300]
    black, white = by["black"], by["white"]
    assert white.reference and [v for v, g in by.items() if g.reference] == ["white"]
    assert (white.favourable, white.rate, black.favourable, black.rate) == (240, 0.8, 40, 0.4)
    assert not white.HasField("label_difference") and not white.HasField("impact_ratio")
    assert black.class_imbalance == (300 - 100) / (300 + 100)
    assert black.label_difference == pytest.approx(0.4) and black.impact_ratio == pytest.approx(0.5)
    # Wilson's interval from its own formula, at the quantile of two-sided 95 %.
    z2, p, n = 1.959964**2, 0.4, 100
    centre, half = (p + z2 / (2 * n)) / (1 + z2 / n), math.sqrt(z2 * (p * (1 - p) + z2 / (4 * n)) / n) / (1 + z2 / n)
    assert (black.rate_lower, black.rate_upper) == pytest.approx((centre - half, centre + half), abs=1e-6)
    for name in ("label_difference", "impact_ratio"):
        value, low, high = (getattr(black, f"{name}{end}") for end in ("", "_lower", "_upper"))
        assert 0 <= low < value < high <= 1


def test_two_groups_get_the_plain_interval_of_their_difference_and_ratio() -> None:
    black = found({"white": (300, 240), "black": (100, 40)})["black"]
    difference = stats.difference_interval(240, 300, 40, 100, 0.95)
    assert (black.label_difference_lower, black.label_difference_upper) == pytest.approx(difference)
    ratio = stats.ratio_interval(40, 100, 240, 300, 0.95)
    assert (black.impact_ratio_lower, black.impact_ratio_upper) == pytest.approx(ratio)


def test_a_group_below_the_audits_least_rows_is_named_and_no_label_of_it_is_told() -> None:
    by = found(RACE | {"other": (9, 9)})
    other = by["other"]
    assert other.inconclusive == "fewer than 10 rows" and not other.reference
    assert {f.name for f, _ in other.ListFields()} == {"attribute", "value", "rows", "inconclusive"}
    assert by["white"].reference, "nine rows with nothing but favourable labels are no reference"
    assert found(RACE | {"other": (10, 10)})["other"].reference


def test_where_nothing_can_be_compared_the_rates_stand_alone_and_say_why() -> None:
    alone = found({"white": (300, 240), "black": (9, 1)})["white"]
    assert alone.rate == 0.8 and not alone.reference and "no other group" in alone.inconclusive
    for g in found({"white": (300, 0), "black": (20, 0), "other": (5, 5)}).values():
        assert g.inconclusive and not g.reference and not g.HasField("impact_ratio")


def test_groups_of_one_rate_differ_by_nothing_and_the_larger_is_the_reference() -> None:
    by = found({"a": (20, 10), "b": (40, 20), "c": (40, 20)})
    assert by["b"].reference and not by["a"].reference and not by["c"].reference
    assert by["a"].label_difference == 0 == by["a"].label_difference_lower < by["a"].label_difference_upper
    assert by["a"].impact_ratio == 1 == by["a"].impact_ratio_upper > by["a"].impact_ratio_lower


def test_the_task_tells_it_of_every_protected_column_of_a_table(tmp_path: Path, models: Path) -> None:
    data = table_file()
    rows = [row.split(",") for row in data.decode().split("\n")[1:]]
    done = prepare(tmp_path, models, data, format="DECISION_CSV", datasheet=TABLE_SHEET, canaries=NO_CANARIES)
    kept = [(row[3], row[4]) for row in rows if row[4] != "NaN"]
    by = {g.value: g for g in done.facts.group_labels}
    assert done.facts.favourable_label == "approve" and {g.attribute for g in by.values()} == {"race"}
    for value in ("black", "white"):
        labels = [label for group, label in kept if group == value]
        assert (by[value].rows, by[value].favourable) == (len(labels), labels.count("approve"))


@pytest.mark.parametrize("left_out", ["favourable_label", "sensitive_attributes"])
def test_without_a_favourable_label_or_groups_nothing_is_said(tmp_path: Path, models: Path, left_out: str) -> None:
    sheet = {k: v for k, v in TABLE_SHEET.items() if k != left_out}
    facts = prepare(tmp_path, models, table_file(), format="DECISION_CSV", datasheet=sheet, canaries=NO_CANARIES).facts
    assert not facts.group_labels and bool(facts.label_counts)
