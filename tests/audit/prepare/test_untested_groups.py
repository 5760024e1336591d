"""Groups that the sealed test has next to no rows of since rows that belong together lie in another split."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from audit.prepare.facts import untested_groups
from audit.prepare.order import TABLE_TEST_SHARE
from audit.prepare.rows import Entry
from audit.prepare.splits import TEST, SplitPlan, one_of_each, split
from tests.audit.prepare.test_prepare_task import KEY, TABLE_SHEET, Outcome, models, prepare
from tests.audit.prepare.test_report import NO_CANARIES, people
from tests.audit.prepare.test_splits import entries

__all__ = ["models"]
PLAN = SplitPlan(test=TABLE_TEST_SHARE)


def table(count: int, black: int) -> list[Entry]:
    """Rows of two groups, the first ``black`` of one."""
    return [
        replace(e, stratum=f"approve\x1frace={'black' if i < black else 'white'}") for i, e in enumerate(entries(count))
    ]


def told(rows: list[Entry], trained: range = range(0)) -> dict[str, int]:
    tested = one_of_each(split(rows, PLAN, KEY, 1, trained=trained)[TEST], KEY, TEST)
    return untested_groups(rows, PLAN, tested, [rows[i] for i in trained])


def test_a_group_whose_rows_are_all_one_customers_is_told() -> None:
    rows = [replace(e, unit=b"one" if i < 100 else b"%d" % i) for i, e in enumerate(table(400, 100))]
    assert told(rows) == {"race=black": 0}
    few = [replace(e, unit=b"%d" % (i % 10) if i < 100 else b"%d" % i) for i, e in enumerate(table(400, 100))]
    assert 0 < told(few)["race=black"] < 10, "one row of each customer is kept"


def test_a_group_of_many_customers_and_one_too_small_to_be_tested_anyway_are_not() -> None:
    many = [replace(e, unit=b"%d" % (i // 2)) for i, e in enumerate(table(400, 100))]
    assert told(many) == {}
    small = [replace(e, unit=b"one" if i < 39 else b"%d" % i) for i, e in enumerate(table(400, 39))]
    assert told(small) == {}, "39 rows are 9.75 of the test by their share"


def test_one_customer_with_two_rows_is_not_what_a_group_lacks() -> None:
    """Forty of four hundred rows leave eight or nine in the test by chance, pair or no pair."""
    rows = [replace(e, unit=b"pair" if i < 2 else b"%d" % i) for i, e in enumerate(table(400, 40))]
    tested = [e for e in rows if "black" in e.stratum][2:9]
    assert untested_groups(rows, PLAN, tested, []) == {}
    half = [replace(e, unit=b"half" if i < 20 else b"%d" % i) for i, e in enumerate(table(400, 40))]
    assert untested_groups(half, PLAN, tested, []) == {"race=black": 7}


@pytest.mark.parametrize("count", [40, 41, 60, 400, 1000])
def test_without_rows_that_belong_together_nothing_is_told_whatever_chance_leaves(count: int) -> None:
    for black in {0, 1, 20, 40, count // 2}:
        rows = table(count, min(black, count))
        assert told(rows) == {}
        assert told([replace(e, unit=b"%d" % i) for i, e in enumerate(rows)]) == {}
        assert untested_groups(rows, PLAN, [], []) == {}, "and if the test had none at all"
    assert untested_groups([], PLAN, [], []) == {}


def test_a_group_that_a_model_of_before_was_trained_on_is_told() -> None:
    (left,) = told(table(400, 100), range(95)).items()
    assert left[0] == "race=black" and 0 < left[1] <= 5
    assert told(table(400, 100), range(100)) == {"race=black": 0}
    assert told(table(400, 100), range(100, 130)) == {}


def file_of(folder: Path, models: Path, customer_of: str) -> Outcome:
    rows = []
    for i, row in enumerate(people(random.Random(9), 400, 60)):
        one = customer_of == "one" and ",black," in row
        rows.append(f"{'bank' if one else i},{row}")
    data = "\n".join(["customer,band,term,race,decision", *rows]).encode()
    sheet = {**TABLE_SHEET, "hidden_columns": ["race"], "group_field": "customer"}
    return prepare(folder, models, data, format="DECISION_CSV", datasheet=sheet, canaries=NO_CANARIES)


def test_the_facts_of_a_table_say_so(tmp_path: Path, models: Path) -> None:
    hidden = file_of(tmp_path / "one", models, "one")
    assert hidden.facts.untested_groups == {"race=black": 0} and hidden.facts.group_counts["race=black"] > 80
    assert not [r for r in hidden.private("test.jsonl") if r["groups"]["race"] == "black"]
    assert file_of(tmp_path / "each", models, "each").facts.untested_groups == {}
