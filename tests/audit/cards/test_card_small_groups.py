"""No card tells how many rows a small group has, nor lets anybody work out its labels from the rest."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict

from assay.groups import LEAST_CELL
from assay.v1 import policy_input_pb2
from audit.cards import build_card, small_groups
from audit.prepare.label_bias import by_group

ONE = {"a": (500, 300), "b": (400, 180), "samoan": (1, 1)}


def facts(groups: dict[str, tuple[int, int]]) -> dict[str, Any]:
    """Facts of a table of one attribute, as preparation counts them, from rows and favourable rows by group."""
    rows = {("race", name): n for name, (n, _) in groups.items()}
    favourable = {("race", name): f for name, (_, f) in groups.items()}
    approved = sum(favourable.values())
    message = policy_input_pb2.DataFacts(
        valid_rows=sum(rows.values()),
        favourable_label="approve",
        label_counts={"approve": approved, "deny": sum(rows.values()) - approved},
        group_counts={f"race={name}": n for (_, name), n in rows.items()},
        smallest_group_rows=min(rows.values()),
        group_labels=by_group(rows, favourable),
    )
    return MessageToDict(message, preserving_proto_field_name=True)


def numbers(data: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Rows and favourable rows of the groups of which both are told."""
    told = {g["value"]: g for g in data["group_labels"] if "favourable" in g}
    return {name: (int(g["rows"]), int(g["favourable"])) for name, g in told.items()}


def test_one_persons_decision_is_not_what_is_left_when_the_others_are_taken_from_the_total() -> None:
    data = small_groups.shown(facts(ONE))
    assert numbers(data) == {"a": (500, 300)}, "the next smallest is kept back too"
    assert data["label_counts"] == {"approve": "481", "deny": "420"}
    assert {name: int(n) for name, n in data["group_counts"].items()} == {"race=a": 500, "race=b": 0, "race=samoan": 0}
    assert "smallest_group_rows" not in data
    ParseDict(data, policy_input_pb2.DataFacts())
    text = str(build_card({"data": facts(ONE)}))
    assert "race=samoan" in text and "fewer than 10 rows" in text and "a smaller group" in text
    assert not any(f"'{cell}'" in text for cell in ("1", "400", "180", "0.45"))


def test_where_no_group_is_small_all_is_told() -> None:
    data = facts({"a": (500, 300), "b": (400, 180), "c": (10, 10)})
    assert small_groups.shown(data) == data
    assert small_groups.shown({}) == {}


def test_a_reference_is_kept_back_last_since_the_ratios_of_the_others_tell_its_rate() -> None:
    data = small_groups.shown(facts({"a": (500, 300), "b": (40, 39), "c": (60, 30), "few": (3, 1)}))
    assert set(numbers(data)) == {"a", "b"}
    assert [g["value"] for g in data["group_labels"] if g.get("reference")] == ["b"]


def test_the_sealed_tests_rows_of_a_group_that_it_lacks_are_not_told() -> None:
    data = facts({"a": (500, 300), "b": (400, 180)})
    data |= {"untested_groups": {"race=b": "4"}, "test_group_counts": {"race=a": "90", "race=b": "4"}}
    text, told = str(build_card({"data": data})), small_groups.shown(data)
    assert "race=b" in text and "Rows there" not in text and "'4'" not in text
    assert told["untested_groups"] == {"race=b": 0} and "test_group_counts" not in told
    data["test_group_counts"]["race=b"] = "14"
    assert small_groups.shown(data)["test_group_counts"] == {"race=a": "90", "race=b": "14"}


@pytest.mark.parametrize(
    "groups",
    [
        ONE,
        {"a": (500, 300), "b": (400, 180), "x": (1, 1), "y": (1, 1)},
        {"a": (500, 300), "b": (400, 400), "x": (9, 9), "y": (9, 9), "z": (9, 9)},
        {"a": (500, 300), "b": (10, 5), "c": (300, 200), "x": (1, 0)},
        {"a": (500, 300), "b": (30, 30), "c": (300, 120), "x": (2, 2)},
        {"a": (500, 300), "b": (30, 0), "c": (300, 120), "x": (2, 0), "y": (2, 0)},
        {"a": (500, 300), **{f"x{i}": (6, 3) for i in range(4)}},
    ],
)  # fmt: skip
def test_what_is_left_allows_every_number_of_rows_and_of_labels_of_each_small_group(
    groups: dict[str, tuple[int, int]],
) -> None:
    """By enumeration of what the groups that are kept back may hold together."""
    data = small_groups.shown(facts(groups))
    told = numbers(data)
    rows = sum(n for n, _ in groups.values()) - sum(n for n, _ in told.values())
    left_good = sum(f for _, f in groups.values()) - sum(f for _, f in told.values())
    few = [name for name, (n, _) in groups.items() if n < LEAST_CELL]
    beside = len(groups) - len(told) - len(few)
    assert told and not set(told) & set(few)
    for n, f in ((size, good) for size in range(1, LEAST_CELL) for good in range(size + 1)):
        sizes = itertools.product(range(1, LEAST_CELL), repeat=len(few) - 1)
        fits = (rows - n - sum(others) for others in sizes)
        assert any((left >= LEAST_CELL * beside) if beside else left == 0 for left in fits), (n, f)
        assert 0 <= left_good - f <= rows - n, (n, f)


def test_where_two_groups_are_all_there_are_nothing_is_told_of_either() -> None:
    data = small_groups.shown(facts({"a": (500, 300), "few": (3, 1)}))
    assert numbers(data) == {} and {int(n) for n in data["group_counts"].values()} == {0}
