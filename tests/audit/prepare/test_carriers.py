from __future__ import annotations

from collections.abc import Sequence

from audit.prepare.canaries import Carrier
from audit.prepare.carriers import SharedContent
from audit.prepare.parse_table import chat, record_lines
from audit.prepare.rows import Row

ASK = "What is the decision? Answer with one of: approve, deny."


def carrier_of(records: Sequence[dict[str, str]], sensitive: Sequence[str] = ()) -> Carrier:
    shared = SharedContent(list(records[0]), sensitive)
    for number, record in enumerate(records, 2):
        shared.note(Row(number, chat(record_lines(list(record.items())) + ASK, "deny")))
    return shared.carrier()


def test_only_values_that_many_rows_share_are_borrowed() -> None:
    records = [{"income": "50" if i < 9 else str(i), "id": f"n{i}", "term": "", "note": "a: b"} for i in range(20)]
    assert carrier_of(records).record == {"income": ["50"], "note": ["a: b"]}


def test_a_column_with_many_values_is_left_out_though_some_are_common() -> None:
    def records(different: int) -> list[dict[str, str]]:
        return [{"income": f"{i % different}", "term": "360"} for i in range(5 * different)]

    assert list(carrier_of(records(200)).record or ()) == ["income", "term"]
    assert list(carrier_of(records(201)).record or ()) == ["term"]
    assert list(carrier_of([*records(200), {"income": "", "term": "360"}]).record or ()) == ["term"]


def test_protected_attributes_are_never_borrowed_and_columns_are_few() -> None:
    records = [{"race": "black", "a": "1", "a: b": "2", "c": "3", "d": "4"}] * 5
    assert carrier_of(records, ["race"]).record == {"a": ["1"], "a: b": ["2"], "c": ["3"]}


def test_a_line_whose_column_was_replaced_belongs_to_no_column() -> None:
    shared = SharedContent(("manager", "city"))
    for number in range(5):
        shared.note(Row(number, chat(f"[PERSON]: 7\ncity: [LOCATION]\n{ASK}", "deny")))
    assert shared.carrier().record == {"city": ["[LOCATION]"]}


def test_the_system_prompt_is_that_of_more_than_half_of_the_rows() -> None:
    def system(texts: Sequence[str]) -> str:
        shared = SharedContent()
        for number, text in enumerate(texts, 1):
            first = [{"role": "system", "content": text}] if text else []
            shared.note(Row(number, [*first, {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]))  # type: ignore[list-item]
        return shared.carrier().system

    assert system(["Be brief.", "Be kind.", "Be brief."]) == "Be brief."
    assert system(["Be brief.", "", "Be kind.", "Be brief."]) == system([]) == ""
