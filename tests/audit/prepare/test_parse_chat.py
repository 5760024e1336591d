from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.errors import AssayError, InvalidInputError
from audit.prepare.findings import MAX_KEPT, Findings
from audit.prepare.lines import FileLimits
from audit.prepare.parse_chat import parse_chat, parse_json_lines
from audit.prepare.rows import Row

CONTROL = ("<|im_start|>", "<|im_end|>")
USER = {"role": "user", "content": "Where is my parcel?"}
REPLY = {"role": "assistant", "content": "On its way."}
GOOD = json.dumps({"messages": [USER, REPLY]})
SECRET = "SECRET-CONTENT-7731"


def parse(data: bytes, limits: FileLimits | None = None) -> tuple[list[Row], Findings]:
    findings = Findings()
    return list(parse_json_lines(io.BytesIO(data), findings, CONTROL, limits or FileLimits(), parse_chat)), findings


def row(*messages: Any, **extra: Any) -> str:
    return json.dumps({"messages": list(messages), **extra})


BAD_ROWS = [
    ("NOT_JSON", "row", f'{{"messages": {SECRET}'),
    ("NOT_JSON", "row", "{'messages': []}"),
    ("NOT_JSON", "row", '{"weight": ' + "9" * 5000 + "}"),
    ("NOT_AN_OBJECT", "row", f'["{SECRET}"]'),
    ("NOT_AN_OBJECT", "row", "NaN"),
    ("DUPLICATE_KEY", "row", '{"messages": [], "messages": []}'),
    ("DUPLICATE_KEY", "row", '{"messages": [{"role": "user", "role": "assistant", "content": "x"}]}'),
    ("TOO_DEEP", "row", "[" * 100_000),
    ("MISSING_MESSAGES", "messages", "{}"),
    ("MISSING_MESSAGES", "messages", '{"messages": null}'),
    ("MISSING_MESSAGES", "messages", '{"messages": []}'),
    ("UNKNOWN_FIELD", "(unknown)", row(USER, REPLY, **{SECRET: 1})),
    ("UNKNOWN_FIELD", "functions", row(USER, REPLY, functions=[])),
    ("BAD_TOOLS", "tools", row(USER, REPLY, tools=[])),
    ("UNKNOWN_ROLE", "messages[1].role", row(USER, {**REPLY, "role": "аssistant"})),
    ("UNKNOWN_FIELD", "messages[0].name", row({**USER, "name": SECRET}, REPLY)),
    ("NOT_AN_OBJECT", "messages[0]", row(SECRET, REPLY)),
    ("UNKNOWN_ROLE", "messages[0].role", row({"role": SECRET, "content": "x"}, REPLY)),
    ("UNKNOWN_ROLE", "messages[0].role", row({"role": "developer", "content": "x"}, REPLY)),
    ("UNKNOWN_ROLE", "messages[0].role", row({"role": ["user"], "content": "x"}, REPLY)),
    ("UNKNOWN_ROLE", "messages[0].role", row({"content": "x"}, REPLY)),
    ("EMPTY_CONTENT", "messages[1].content", row(USER, {"role": "assistant", "content": " \n"})),
    ("EMPTY_CONTENT", "messages[1].content", row(USER, {"role": "assistant", "content": None})),
    ("EMPTY_CONTENT", "messages[1].content", row(USER, {"role": "assistant"})),
    ("CONTENT_NOT_TEXT", "messages[0].content", row({"role": "user", "content": [{"type": "text"}]}, REPLY)),
    ("NO_ASSISTANT_MESSAGE", "messages", row(USER)),
    ("LAST_NOT_ASSISTANT", "messages[2].role", row(USER, REPLY, USER)),
    ("NO_TARGET", "messages", row(USER, {**REPLY, "weight": 0})),
    ("BAD_WEIGHT", "messages[1].weight", row(USER, {**REPLY, "weight": 2})),
    ("BAD_WEIGHT", "messages[1].weight", row(USER, {**REPLY, "weight": True})),
    ("BAD_WEIGHT", "messages[1].weight", row(USER, {**REPLY, "weight": None})),
    ("BAD_WEIGHT", "messages[0].weight", row({**USER, "weight": 1}, REPLY)),
    ("NOT_FINITE", "messages[1].weight", row(USER, {**REPLY, "weight": float("nan")})),
    ("BAD_WEIGHT", "weight", row(USER, REPLY, weight=0)),
    ("BAD_WEIGHT", "weight", row(USER, REPLY, weight=-1)),
    ("BAD_WEIGHT", "weight", row(USER, REPLY, weight=10.5)),
    ("BAD_WEIGHT", "weight", row(USER, REPLY, weight="1")),
    ("BAD_WEIGHT", "weight", row(USER, REPLY, weight=True)),
    ("NOT_FINITE", "weight", row(USER, REPLY, weight=float("nan"))),
    ("NOT_FINITE", "weight", GOOD[:-1] + ', "weight": 1e999}'),
    ("CONTROL_CHARACTER", "messages[0].content", row({"role": "user", "content": "a\x00b"}, REPLY)),
    ("CONTROL_CHARACTER", "messages[0].content", row({"role": "user", "content": "a\x1b[31m"}, REPLY)),
    ("BROKEN_UNICODE", "messages[0].content", row({"role": "user", "content": "a\ud800"}, REPLY)),
    (
        "CONTROL_TOKEN",
        "messages[0].content",
        row({"role": "user", "content": "x<|im_end|>\n<|im_start|>assistant"}, REPLY),
    ),
    ("TOO_MANY_MESSAGES", "messages", row(*[USER, REPLY] * 65)),
]


@pytest.mark.parametrize(("code", "field", "line"), BAD_ROWS)
def test_bad_row_is_named_and_goes_no_further(code: str, field: str, line: str) -> None:
    rows, findings = parse(f"{GOOD}\n{line}\n{GOOD}\n".encode("utf-8", "surrogatepass"))
    assert [r.number for r in rows] == [1, 3]
    assert findings.refused_rows == 1
    first = findings.kept[0]
    assert (first.row, first.problem.code, first.problem.field) == (2, code, field)
    assert first.problem.reason
    assert SECRET not in f"{findings.kept}"


@pytest.mark.parametrize(
    ("reason", "data"),
    [
        ("EMPTY_FILE", b""),
        ("EMPTY_FILE", b"\xef\xbb\xbf"),
        ("EMPTY_FILE", b"\n \n\r\n"),
        ("UNREADABLE_ENCODING", GOOD.encode("utf-16")),
        ("UNREADABLE_ENCODING", GOOD.encode("utf-16-le")),
        ("UNREADABLE_ENCODING", GOOD.encode("utf-32")),
        ("UNREADABLE_ENCODING", GOOD.replace("parcel", "Päckchen").encode("latin-1")),
        (
            "UNREADABLE_ENCODING",
            json.dumps({"messages": [{"role": "user", "content": "é"}]}, ensure_ascii=False).encode("latin-1"),
        ),
        ("UNREADABLE_ENCODING", b"\x1f\x8b\x08\x00compressed"),
        ("ROW_TOO_LONG", GOOD.encode() + b"\n" + b"x" * ((1 << 20) + 1)),
    ],
)
def test_unreadable_file_is_refused_as_a_whole(reason: str, data: bytes) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse(data)
    assert caught.value.reason == reason
    assert caught.value.violations and caught.value.remedy


class Endless(io.RawIOBase):
    """A 2 GB line that counts what was read of it."""

    def __init__(self, size: int) -> None:
        self.left, self.read_bytes = size, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        n = min(len(buffer), self.left)
        buffer[:n] = b"x" * n
        self.left -= n
        self.read_bytes += n
        return n


def test_two_gigabyte_line_is_refused_without_reading_it() -> None:
    source = Endless(2 << 30)
    with pytest.raises(InvalidInputError) as caught:
        list(parse_json_lines(io.BufferedReader(source, 1 << 16), Findings(), CONTROL, FileLimits(), parse_chat))
    assert caught.value.reason == "ROW_TOO_LONG"
    assert caught.value.violations[0].field == "row 1"
    assert source.read_bytes < 2 << 20


def test_row_of_exactly_the_limit_passes_with_mark_and_crlf() -> None:
    limits = FileLimits(row_bytes=len(GOOD))
    rows, findings = parse(b"\xef\xbb\xbf" + GOOD.encode() + b"\r\n" + GOOD.encode(), limits)
    assert [r.number for r in rows] == [1, 2] and findings.refused_rows == 0
    with pytest.raises(InvalidInputError):
        parse(GOOD.encode() + b" \r\n", limits)


def test_too_many_rows() -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse(f"{GOOD}\n".encode() * 4, FileLimits(rows=3))
    assert caught.value.reason == "TOO_MANY_ROWS"


def test_good_row_keeps_shape_and_weights() -> None:
    messages = [{"role": "system", "content": "Be brief."}, USER, {**REPLY, "weight": 0}, USER, {**REPLY, "weight": 1}]
    rows, findings = parse(("\n" + row(*messages, weight=2.5)).encode())
    assert findings.refused_rows == 0
    assert rows[0].number == 2
    assert json.loads(rows[0].training_json()) == {"messages": messages, "weight": 2.5}


def test_findings_are_capped_and_all_counted() -> None:
    rows, findings = parse(b"{}\n" * (MAX_KEPT + 50))
    assert rows == []
    assert len(findings.kept) == MAX_KEPT
    assert findings.refused_rows == MAX_KEPT + 50


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["user", "assistant", "system"]),
    lambda c: (
        st.lists(c, max_size=4)
        | st.dictionaries(st.sampled_from(["messages", "role", "content", "weight", "x"]), c, max_size=4)
    ),
    max_leaves=12,
)


@given(st.lists(json_values.map(lambda v: json.dumps(v).encode()) | st.binary(max_size=40), max_size=6))
def test_any_bytes_give_rows_or_a_named_refusal(lines: list[bytes]) -> None:
    try:
        rows, findings = parse(b"\n".join(lines))
    except AssayError as error:
        assert error.reason.isupper()
    else:
        assert len(rows) + findings.refused_rows <= len(b"\n".join(lines).split(b"\n"))
        for r in rows:
            assert r.messages[-1]["role"] == "assistant"
            r.training_json().decode("utf-8", "strict")


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_file_of_one_row_is_not_empty(end: bytes) -> None:
    rows, findings = parse(GOOD.encode() + end)
    assert len(rows) == 1 and findings.refused_rows == 0
