"""The sample of identifiers: each once, asked for where it is taught, whatever the order of the rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from audit.prepare.rows import Identifier, Row
from audit.prepare.scan import TEST_SPANS, TRAIN_SPANS, SpanSample
from audit.prepare.splits import TEST, TRAIN
from tests.audit.prepare.test_prepare_task import KEY, models, prepare
from tests.audit.prepare.test_report import NO_CANARIES

__all__ = ["models"]
NAME = "Maria Schmidt"
SHARED = f"You answer for a bank. Escalate to {NAME}."


def row(number: int, *turns: tuple[str, str], values: tuple[str, ...] = (NAME,), **fields: Any) -> Row:
    """A row with every occurrence of the values as its identifiers; a role with ``0`` behind it is no target."""
    messages: list[Any] = [
        {"role": role.rstrip("0"), "content": text, **({"weight": 0} if role.endswith("0") else {})}
        for role, text in turns
    ]
    found = []
    for i, message in enumerate(messages):
        for value in values:
            at = message["content"].find(value)
            while at >= 0:
                found.append(Identifier(i, at, at + len(value), "PERSON"))
                at = message["content"].find(value, at + 1)
    found.sort(key=lambda f: (f.message, f.start))
    return Row(number, messages, identifiers=tuple(found), **fields)


ASKED = row(1, ("user", f"I am {NAME}."), ("assistant", "Hello."))
TAUGHT = row(2, ("user", "Who is it?"), ("assistant", f"It is {NAME}."))
COPIED = row(3, ("system", SHARED), ("user", f"Are you {NAME}?"), ("assistant", "No."))
MASKED = row(4, ("user", "Who?"), ("assistant0", f"{NAME}."), ("user", "Sure?"), ("assistant", "Yes."))
BOTH = row(5, ("user", f"I am {NAME}."), ("assistant", f"Dear {NAME}, hello {NAME}."))


def sampled(*rows: Row, split: str = TRAIN, system: str = SHARED) -> list[tuple[int, int, int]]:
    sample = SpanSample(KEY, system)
    for one in rows:
        sample.offer(one, split)
    return [(i["row"], i["message_index"], i["start"]) for i in sample.items()]


@pytest.mark.parametrize("split", [TRAIN, TEST])
def test_an_identifier_is_asked_for_in_the_answer_that_teaches_it_whatever_stands_first(split: str) -> None:
    for rows in ([ASKED, TAUGHT], [TAUGHT, ASKED], [COPIED, MASKED, ASKED, BOTH, TAUGHT], [COPIED, TAUGHT]):
        assert sampled(*rows, split=split) == [(2, 1, 6)]
    assert sampled(COPIED, ASKED, MASKED, split=split) == [(1, 0, 5)], "a prompt, before what its own row says already"
    assert sampled(COPIED, MASKED, ASKED, split=split) == [(4, 1, 0)], "an answer that is no target is a prompt"
    assert sampled(COPIED, split=split) == [(3, 1, 8)], "what cannot be prompted for is still counted"


def test_of_places_of_one_kind_the_first_row_stays() -> None:
    later = [row(n, *((m["role"], m["content"]) for m in ASKED.messages)) for n in (7, 8)]
    assert sampled(ASKED, *later) == [(1, 0, 5)] and sampled(*later, ASKED) == [(7, 0, 5)]
    assert sampled(BOTH, ASKED) == [(5, 0, 5)], "in one row the first of them"
    again = row(9, ("user", "And now?"), ("assistant", f"Still {NAME}."))
    assert sampled(ASKED, TAUGHT, again) == [(2, 1, 6)]


def test_a_value_in_other_letters_before_its_place_is_copied_too() -> None:
    spelt = row(6, ("user", f"I am {NAME.upper()}."), ("assistant", f"Dear {NAME}."))
    assert sampled(spelt, TAUGHT) == [(2, 1, 6)] and sampled(spelt) == [(6, 1, 5)]


def test_only_the_system_prompt_that_most_rows_share_is_left_out() -> None:
    own = row(10, ("system", f"The customer is {NAME}."), ("user", "Hi"), ("assistant", "Hello."))
    assert sampled(own) == [(10, 0, 16)] and sampled(own, TAUGHT) == [(2, 1, 6)]
    shared = row(11, ("system", SHARED), ("user", "Hi"), ("assistant", "Hello."))
    assert sampled(shared) == [] and sampled(shared, system="") == [(11, 0, SHARED.index(NAME))]
    sample = SpanSample(KEY, SHARED)
    sample.offer(shared, TRAIN)
    assert sample.train_values() == []
    sample.offer(own, TRAIN)
    assert sample.train_values() == [("PERSON", NAME.casefold())]


def test_the_sample_is_the_same_values_however_large_the_file_and_better_places_do_not_grow_it() -> None:
    def rows(kind: str) -> list[Row]:
        names = [f"Maria Number{i}" for i in range(TRAIN_SPANS + 50)]
        turn = {"user": lambda n: (("user", f"I am {n}."), ("assistant", "Hello."))}.get(
            kind, lambda n: (("user", "Who?"), ("assistant", f"It is {n}."))
        )
        return [row(i, *turn(n), values=(n,)) for i, n in enumerate(names)]

    sample, asked = SpanSample(KEY), SpanSample(KEY)
    for one in rows("user"):
        sample.offer(one, TRAIN)
        asked.offer(one, TRAIN)
    for one in rows("assistant"):
        sample.offer(one, TRAIN)
    assert [i["row"] for i in sample.items()] == [i["row"] for i in asked.items()]
    assert {i["message_index"] for i in sample.items()} == {1} and {i["message_index"] for i in asked.items()} == {0}
    assert len(sample.items()) == TRAIN_SPANS and len(sample.train_values()) == TRAIN_SPANS + 50
    tested = SpanSample(KEY)
    for one in rows("user"):
        tested.offer(one, TEST)
    assert len(tested.items()) == TEST_SPANS


def test_rows_of_one_unit_have_one_number_that_says_nothing_of_it() -> None:
    sample, other = SpanSample(KEY), SpanSample(KEY[::-1])
    for n in range(6):
        name = f"Maria Number{n}"
        unit = {"unit": f"customer  {n % 2}" if n < 2 else f" customer {n % 2}"} if n < 4 else {}
        for one in (sample, other):
            one.offer(row(n, ("user", f"I am {name}."), ("assistant", "Hi."), values=(name,), **unit), TRAIN)
    units = {i["row"]: i.get("unit") for i in sample.items()}
    assert units[0] == units[2] != units[1] == units[3] and units[0] is not None
    assert not [i for i in sample.items() if i["row"] > 3 and "unit" in i]
    assert {i.get("unit") for i in other.items()} & set(units.values()) == {None}


def test_a_file_of_system_prompts_of_their_own_is_sampled_and_one_with_a_shared_contact_is_not(
    tmp_path: Path, models: Path
) -> None:
    def data(system: str, **extra: str) -> bytes:
        lines = []
        for i in range(80):
            turns = [("system", system.format(i)), ("user", f"Where is parcel {i}?"), ("assistant", f"At depot {i}.")]
            own = {"customer": f"c{i % 40}"} if extra else {}
            lines.append(json.dumps({"messages": [{"role": r, "content": t} for r, t in turns], **own}))
        return "\n".join(lines).encode()

    own = prepare(tmp_path / "own", models, data("The customer's mail is user{}@example.org."), canaries=NO_CANARIES)
    asked = own.private("pii.jsonl")
    trained = [i for i in asked if i["split"] == "train"]
    assert len(trained) == own.facts.train_pii_spans == own.facts.train_rows
    assert {i["message_index"] for i in asked} == {0} and not [i for i in asked if "unit" in i]
    shared = prepare(tmp_path / "shared", models, data("Escalate to desk@example.org."), canaries=NO_CANARIES)
    assert shared.private("pii.jsonl") == [] and shared.facts.train_pii_spans == 0
    owned = prepare(
        tmp_path / "owned",
        models,
        data("The customer's mail is user{}@example.org.", customer="yes"),
        canaries=NO_CANARIES,
        datasheet={"group_field": "customer"},
    )
    units: dict[int, set[int]] = {}
    for item in owned.private("pii.jsonl"):
        units.setdefault(item["unit"], set()).add((item["row"] - 1) % 40)
    assert len(units) > 20 and all(len(customers) == 1 for customers in units.values())
