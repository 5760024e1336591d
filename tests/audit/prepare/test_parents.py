"""Rows that a model of before was trained on test nothing: they lie in train, with all that belongs with them."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from assay.errors import InvalidInputError
from audit.prepare.actions import Actor, PiiAction
from audit.prepare.duplicates import families
from audit.prepare.order import TABLE_TEST_SHARE
from audit.prepare.parents import Parents, Recogniser, likeness
from audit.prepare.rows import Entry, Row
from audit.prepare.splits import NAMES, SELECTION, TEST, TRAIN, VALIDATION, SplitPlan, split, with_their_units
from tests.audit.prepare.test_prepare_task import (
    KEY,
    TABLE_SHEET,
    Outcome,
    chat_file,
    models,
    prepare,
    table_file,
)
from tests.audit.prepare.test_report import NO_CANARIES, line, people, prose, written
from tests.audit.prepare.test_splits import entries

__all__ = ["models"]
OTHER_KEY = KEY[::-1]


def unseen(done: Outcome) -> list[dict[str, Any]]:
    """Every row of a job that its training does not read."""
    return done.lines("validation.jsonl") + done.lines("selection.jsonl") + done.private("test.jsonl")


def texts(rows: list[dict[str, Any]]) -> Counter[str]:
    return Counter(json.dumps([m["content"] for m in r["messages"]]) for r in rows)


def trained_on(done: Outcome) -> bytes:
    return (done.context.outputs / "train.jsonl").read_bytes()


@pytest.mark.parametrize("held", [0, 1, 40, 70, 119, 120])
def test_rows_of_before_go_to_train_and_the_others_come_as_near_the_shares_as_they_can(held: int) -> None:
    rows, plan = entries(120, 3), SplitPlan()
    out = split(rows, plan, KEY, 1, trained=range(held))
    assert sorted(e.number for part in out.values() for e in part) == [e.number for e in rows]
    assert {e.number for e in rows[:held]} <= {e.number for e in out[TRAIN]}
    wanted = plan.counts(120)
    if held <= wanted[TRAIN]:
        assert {n: len(out[n]) for n in NAMES} == wanted
    else:
        left, shared = 120 - held, 120 - wanted[TRAIN]
        assert len(out[TRAIN]) == held
        assert all(abs(len(out[n]) - left * wanted[n] / shared) <= 1 for n in (VALIDATION, SELECTION, TEST))


def test_strata_of_what_is_left_are_spread_evenly_and_the_order_of_the_file_decides_nothing() -> None:
    rows = entries(1000, 5)
    out = split(rows, SplitPlan(), KEY, 1, trained=range(800))
    assert set(Counter(e.stratum for e in out[TEST]).values()) <= {19, 20, 21}
    back = split(rows[::-1], SplitPlan(), KEY, 1, trained=range(200, 1000))
    assert {n: {e.number for e in out[n]} for n in NAMES} == {n: {e.number for e in back[n]} for n in NAMES}


def test_no_row_of_before_changes_nothing() -> None:
    rows = entries(300, 4)
    assert split(rows, SplitPlan(), KEY, 1, trained=()) == split(rows, SplitPlan(), KEY, 1)


def test_what_belongs_together_with_a_row_of_before_goes_with_it() -> None:
    rows = [replace(e, unit=b"%d" % (e.number % 10) if e.number > 40 else b"") for e in entries(60)]
    tied = [1 if i == 30 else i for i in range(60)]
    whole = with_their_units(rows, tied, {1, 41})
    assert whole == [1, 30, 41, 51]
    out = split(rows, SplitPlan(), KEY, 1, tied, [1, 41])
    assert {2, 31, 42, 52} <= {e.number for e in out[TRAIN]}


def test_a_family_is_met_by_a_near_copy_and_a_form_that_most_rows_fill_in_is_not() -> None:
    rows = ["\n".join(pair) for pair in prose(random.Random(3), 60)]
    twin = rows[7].rsplit(" ", 1)[0] + " changed"
    found = families([*rows, twin], [twin.replace("changed", "again"), "something else of three words and more"])
    assert found.met_rows() == [7, 60] and found.root == families([*rows, twin]).root
    assert families(rows).met_rows() == []
    form = "the customer of branch seven asks for a copy of the contract of the year and gives a number that is"
    assert families([f"{form} {i}" for i in range(100)], [f"{form} 5"]).met_rows() == []


def test_a_second_job_on_the_same_file_tests_no_row_that_the_first_was_trained_on(tmp_path: Path, models: Path) -> None:
    first = prepare(tmp_path / "first", models, chat_file(200))
    again = prepare(tmp_path / "again", models, chat_file(200), OTHER_KEY, [trained_on(first)])
    before = texts(first.lines("train.jsonl"))
    assert not before.keys() & texts(unseen(again)).keys()
    apart = prepare(tmp_path / "apart", models, chat_file(200), OTHER_KEY)
    assert before.keys() & texts(apart.private("test.jsonl")).keys(), "which they would be by chance"
    f = again.facts
    assert f.parent_rows == first.facts.train_rows == f.train_rows == again.claim["parent_rows"]
    assert f.validation_rows + f.selection_rows + f.test_rows == f.valid_rows - f.duplicate_rows - f.parent_rows > 40
    assert f.unread_parents == 0 and "unread_parents" not in again.claim
    third = prepare(tmp_path / "third", models, chat_file(200), b"t" * 32, [trained_on(first), trained_on(apart)])
    both = before | texts(apart.lines("train.jsonl"))
    assert not both.keys() & texts(unseen(third)).keys() and third.facts.parent_rows > f.parent_rows


def test_rows_of_another_file_change_nothing_and_models_that_cannot_be_read_are_counted(
    tmp_path: Path, models: Path
) -> None:
    alone = prepare(tmp_path / "alone", models, chat_file(80))
    other = prepare(tmp_path / "other", models, written(prose(random.Random(1), 60)), OTHER_KEY)
    beside = prepare(tmp_path / "beside", models, chat_file(80), KEY, [trained_on(other)])
    for path in sorted(p for p in alone.context.outputs.rglob("*") if p.is_file()):
        same = beside.context.outputs / path.relative_to(alone.context.outputs)
        assert path.read_bytes() == same.read_bytes(), path.name
    unread = prepare(tmp_path / "unread", models, chat_file(80), unread_parents=2)
    assert unread.facts.unread_parents == unread.claim["unread_parents"] == 2 and unread.facts.parent_rows == 0
    assert trained_on(unread) == trained_on(alone)
    with pytest.raises(InvalidInputError) as caught:
        Parents.among(tmp_path, 1)
    assert caught.value.reason == "PREPARE_ORDER"


@pytest.mark.parametrize("before", ["REPORT", "REDACT", "PSEUDONYMISE"])
@pytest.mark.parametrize("now", ["REPORT", "PSEUDONYMISE"])
def test_a_row_is_known_again_however_personal_data_was_replaced(
    tmp_path: Path, models: Path, before: str, now: str
) -> None:
    first = prepare(tmp_path / "first", models, chat_file(60), datasheet={"pii_action": before})
    again = prepare(
        tmp_path / "again", models, chat_file(60), OTHER_KEY, [trained_on(first)], datasheet={"pii_action": now}
    )
    assert again.facts.parent_rows == first.facts.train_rows
    seen = {r["row"] for r in first.private("train_sample.jsonl")}
    assert len(seen) == first.facts.train_rows
    numbered = again.private("test.jsonl") + again.private("selection.jsonl")
    assert numbered and not seen & {r["row"] for r in numbered}


def test_near_copies_and_all_rows_of_a_customer_go_with_a_row_of_before(tmp_path: Path, models: Path) -> None:
    rows = prose(random.Random(2), 200)
    new = [(a + " today", b) for a, b in rows[:30]]
    first = prepare(tmp_path / "first", models, written(rows[:30]), canaries=NO_CANARIES)
    again = prepare(tmp_path / "again", models, written([*new, *rows[30:]]), OTHER_KEY, [trained_on(first)])
    seen = {json.loads(t)[0] for t in texts(first.lines("train.jsonl"))}
    copies = {a for a, _ in new if a.removesuffix(" today") in seen}
    assert len(copies) >= 15 and again.facts.parent_rows >= len(copies)
    assert not copies & {r["messages"][0]["content"] for r in unseen(again)}

    data = "\n".join(line(a, b, customer=f"c{i % 20}") for i, (a, b) in enumerate(rows)).encode()
    parent = "\n".join(line(a, b) for a, b in rows[:3]).encode()
    done = prepare(tmp_path / "units", models, data, KEY, [parent], datasheet={"group_field": "customer"})
    assert done.facts.parent_rows == 30
    moved = {a for i, (a, _) in enumerate(rows) if i % 20 < 3}
    assert not moved & {r["messages"][0]["content"] for r in unseen(done)}


def test_of_a_table_rows_that_many_are_equal_to_are_spread_and_the_others_go_to_train(
    tmp_path: Path, models: Path
) -> None:
    rng = random.Random(8)
    common, rare = ["1,A,white,approve", "1,A,black,approve"] * 100, people(rng, 200, 200)
    data = "\n".join(["band,term,race,decision", *common, *(f"9{row}" for row in rare)]).encode()
    order: dict[str, Any] = {"format": "DECISION_CSV", "datasheet": {**TABLE_SHEET, "hidden_columns": ["race"]}}
    first = prepare(tmp_path / "first", models, data, canaries=NO_CANARIES, **order)
    again = prepare(tmp_path / "again", models, data, OTHER_KEY, [trained_on(first)], canaries=NO_CANARIES, **order)
    before, tested = texts(first.lines("train.jsonl")), texts(unseen(again))
    (one,) = {t for t, n in before.items() if n > 5}
    assert {t for t in tested if t in before} == {one}
    assert again.facts.parent_rows == first.facts.train_rows - before[one]
    groups = Counter(r["groups"]["race"] for r in again.private("test.jsonl"))
    assert abs(groups["black"] - groups["white"]) < 0.3 * again.facts.test_rows


def test_other_people_with_the_cells_of_a_parents_rows_are_tested_as_they_come(tmp_path: Path, models: Path) -> None:
    """Were each combination's rows taken as often as the parent had them, the rare label would be most of the test."""
    order: dict[str, Any] = {"format": "DECISION_CSV", "datasheet": {**TABLE_SHEET, "hidden_columns": ["race"]}}

    def file(seed: int) -> bytes:
        rng = random.Random(seed)
        rows = (
            f"{rng.randrange(3)},{rng.choice('AB')},{rng.choice(('white', 'black'))},"
            f"{'deny' if rng.random() < 0.1 else 'approve'}"
            for _ in range(600)
        )
        return "\n".join(["band,term,race,decision", *rows]).encode()

    first = prepare(tmp_path / "first", models, file(1), canaries=NO_CANARIES, **order)
    later = prepare(tmp_path / "later", models, file(2), OTHER_KEY, [trained_on(first)], canaries=NO_CANARIES, **order)
    assert later.facts.test_rows > 140
    denied = sum(row["label"] == "deny" for row in later.private("test.jsonl")) / later.facts.test_rows
    assert denied == pytest.approx(later.facts.label_counts["deny"] / later.facts.valid_rows, abs=0.02)


def test_a_table_without_identifiers_is_known_again_by_its_cells(tmp_path: Path, models: Path) -> None:
    order: dict[str, Any] = {"format": "DECISION_CSV", "datasheet": TABLE_SHEET}
    first = prepare(tmp_path / "first", models, table_file(), **order)
    again = prepare(tmp_path / "again", models, table_file(), OTHER_KEY, [trained_on(first)], **order)
    assert again.facts.parent_rows == first.facts.train_rows
    assert not texts(first.lines("train.jsonl")).keys() & texts(unseen(again)).keys()


def test_an_identifier_that_a_row_of_before_holds_is_no_control(tmp_path: Path, models: Path) -> None:
    first = prepare(tmp_path / "first", models, chat_file(300))
    controls = {i["row"]: i for i in first.private("pii.jsonl") if i["split"] == "test"}
    row, item = next((n, i) for n, i in controls.items() if "@" in value(i))
    parent = line("Whose mail is it?", f"It is that of {value(item).upper()}, of whom no row here speaks.").encode()
    again = prepare(tmp_path / "again", models, chat_file(300), KEY, [parent])
    left = {value(i) for i in again.private("pii.jsonl") if i["split"] == "test"}
    assert left == {value(i) for i in first.private("pii.jsonl") if i["split"] == "test"} - {value(item)}
    assert again.facts.parent_rows == 0 and row in {r["row"] for r in again.private("test.jsonl")}


def value(item: dict[str, Any]) -> str:
    return str(item["messages"][item["message_index"]]["content"][item["start"] : item["end"]])


def test_stand_ins_of_all_kinds_are_one_likeness() -> None:
    def said(text: str) -> bytes:
        return likeness(Row(1, [{"role": "user", "content": text}, {"role": "assistant", "content": "ok"}]))

    assert said("I am [PERSON-0123456789], born [DATE_TIME 1984]") == said("I am [PERSON], born [DATE_TIME-abcdef0123]")
    assert said("ZIP [ZIP_CODE 627**], [AGE_OVER_89 90+]") == said("ZIP [ZIP_CODE], [AGE_OVER_89]")
    assert said("see [PERSON-MARIA]") != said("see [PERSON]")


def test_a_recogniser_acts_as_any_actor() -> None:
    row = Row(3, [{"role": "user", "content": "Where is it?"}, {"role": "assistant", "content": "There."}])
    one = Recogniser(PiiAction.REDACT, KEY, {likeness(row): 1})
    assert one.act(row, [[], []]) == Actor(PiiAction.REDACT, KEY).act(row, [[], []]) and set(one.known) == {3}
    entry = Entry(3, 0, row.content_digest(), "")
    other = Entry(4, 0, b"x" * 16, "")
    assert one.positions([other, entry], [other, entry], None, KEY) == [1]


def test_shares_leave_a_test_of_a_table_on_the_same_file() -> None:
    """A quarter is tested; of what a first job left, the same part of what train does not have."""
    rows = entries(1000, 4)
    out = split(rows, SplitPlan(test=TABLE_TEST_SHARE), KEY, 1, trained=range(600))
    assert len(out[TRAIN]) == 600 and len(out[TEST]) == 250
    out = split(rows, SplitPlan(test=TABLE_TEST_SHARE), KEY, 1, trained=range(800))
    assert len(out[TRAIN]) == 800 and abs(len(out[TEST]) - 125) <= 1
