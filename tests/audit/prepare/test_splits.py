from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.errors import InvalidInputError
from audit.prepare.rows import Entry
from audit.prepare.splits import NAMES, TEST, TRAIN, SplitPlan, drop_duplicates, keyed_order, one_of_each, split

KEY = b"k" * 32


def entries(count: int, strata: int = 1) -> list[Entry]:
    return [Entry(i + 1, 0, hashlib.sha256(str(i).encode()).digest()[:16], f"s{i % strata}") for i in range(count)]


@given(st.integers(0, 600), st.integers(1, 9))
def test_splits_are_disjoint_complete_and_of_the_planned_size(count: int, strata: int) -> None:
    rows = entries(count, strata)
    out = split(rows, SplitPlan(), KEY, 1)
    assert sorted(e.number for part in out.values() for e in part) == [e.number for e in rows]
    assert {n: len(out[n]) for n in NAMES} == SplitPlan().counts(count)


def test_same_key_and_seed_give_the_same_splits_whatever_the_order_of_the_file() -> None:
    rows = entries(300, 4)
    first = {n: {e.number for e in part} for n, part in split(rows, SplitPlan(), KEY, 1).items()}
    again = {n: {e.number for e in part} for n, part in split(rows[::-1], SplitPlan(), KEY, 1).items()}
    assert first == again
    for other in (split(rows, SplitPlan(), KEY, 2), split(rows, SplitPlan(), b"x" * 32, 1)):
        assert {e.number for e in other[TEST]} != first[TEST]


def test_strata_are_spread_evenly() -> None:
    rows = entries(1000, 5)
    out = split(rows, SplitPlan(test=Fraction(1, 4)), KEY, 1)
    counts = Counter(e.stratum for e in out[TEST])
    assert set(counts.values()) <= {49, 50, 51} and sum(counts.values()) == 250


@given(st.integers(0, 3000))
def test_floors_hold_where_training_keeps_its_half(count: int) -> None:
    plan = SplitPlan()
    sizes = plan.counts(count)
    assert sum(sizes.values()) == count and min(sizes.values()) >= 0
    assert 2 * sizes[TRAIN] >= count
    if count >= 2 * sum(plan.floors):
        assert (sizes["validation"], sizes["selection"], sizes[TEST]) >= plan.floors
    if count >= 400:
        assert sizes[TEST] == max(48, count * 3 // 20)


@pytest.mark.parametrize("test", [Fraction(-1, 10), Fraction(9, 10)])
def test_plan_that_leaves_too_little_is_refused(test: Fraction) -> None:
    with pytest.raises(InvalidInputError):
        SplitPlan(test=test)


def test_one_row_of_each_unit_is_drawn_by_the_key_and_rows_without_a_unit_all_stay() -> None:
    rows = [replace(e, unit=hashlib.sha256(b"%d" % (e.number % 40)).digest()[:16]) for e in entries(400)]
    drawn = one_of_each(rows, KEY, TEST)
    assert len(drawn) == len({e.unit for e in drawn}) == 40
    assert drawn == one_of_each(rows[::-1], KEY, TEST), "the order of the file decides nothing"
    assert drawn != one_of_each(rows, b"x" * 32, TEST)
    assert len({e.number // 40 for e in drawn}) > 5, "neither the first rows nor the last"
    alone = one_of_each(entries(400), KEY, TEST)
    assert alone == sorted(entries(400), key=lambda e: keyed_order(KEY, TEST, e.digest))


def test_duplicates_keep_the_first() -> None:
    rows = entries(5)
    twice = [*rows, *(Entry(e.number + 5, 9, e.digest, "") for e in rows[:3])]
    kept, dropped = drop_duplicates(twice)
    assert (kept, dropped) == (rows, 3)


def test_people_of_a_table_who_say_the_same_are_kept_and_told_apart_whatever_the_order() -> None:
    same = hashlib.sha256(b"cells").digest()[:16]
    people = [Entry(i, 0, same, f"race={'a' if i % 3 else 'b'}", record=f"row {i}") for i in range(9)]
    kept, dropped = drop_duplicates(people)
    back, _ = drop_duplicates(people[::-1])
    assert dropped == 0 and len({e.digest for e in kept}) == 9
    assert {(e.digest, e.stratum) for e in kept} == {(e.digest, e.stratum) for e in back}
    assert drop_duplicates([replace(e, record="one") for e in people])[1] == 8
