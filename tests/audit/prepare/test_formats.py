from __future__ import annotations

import gzip
import io
import json
import resource
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assay.errors import InvalidInputError
from audit.prepare.findings import Findings
from audit.prepare.lines import FileLimits
from audit.prepare.parse_chat import RowParser, parse_chat, parse_json_lines
from audit.prepare.parse_pairs import parse_completion, parse_preference
from audit.prepare.parse_parquet import records
from audit.prepare.parse_table import TableColumns, render_rows, survey
from audit.prepare.rows import Row
from audit.prepare.unpack import plain

CALL = {"id": "c1", "type": "function", "function": {"name": "rate", "arguments": '{"city": "Bonn"}'}}
TOOL = {"type": "function", "function": {"name": "rate", "parameters": {}}}


def packed_by_gzip(data: bytes) -> bytes:
    """Without the moment of packing, so that the parameters of the tests are the same in every process."""
    return gzip.compress(data, mtime=0)


def parse(parser: RowParser, *values: Any, group_field: str = "") -> tuple[list[Row], list[str]]:
    findings = Findings()
    data = "\n".join(v if isinstance(v, str) else json.dumps(v) for v in values).encode()
    rows = list(parse_json_lines(io.BytesIO(data), findings, (), FileLimits(), parser, group_field))
    return rows, [f"{f.problem.code} {f.problem.field}" for f in findings.kept]


def test_tool_calls_and_their_answers_become_text() -> None:
    messages = [
        {"role": "user", "content": "Rate?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL], "weight": 0},
        {"role": "tool", "tool_call_id": "c1", "content": "4 %"},
        {"role": "assistant", "content": "Four per cent.", "weight": 1},
    ]
    rows, faults = parse(parse_chat, {"messages": messages, "tools": [TOOL], "weight": 2})
    assert not faults and rows[0].weight == 2
    assert [m["role"] for m in rows[0].messages] == ["system", "user", "assistant", "user", "assistant"]
    assert '"name": "rate"' in rows[0].messages[0]["content"]
    assert rows[0].messages[2]["content"] == (
        '<tool_call>\n{"arguments": {"city": "Bonn"}, "name": "rate"}\n</tool_call>'
    )
    assert rows[0].messages[2]["weight"] == 0
    assert rows[0].messages[3]["content"] == "<tool_response>\n4 %\n</tool_response>"


@pytest.mark.parametrize(
    ("fault", "messages"),
    [
        ("BAD_TOOL_CALL messages[1].tool_call_id", [{"role": "tool", "tool_call_id": "c9", "content": "x"}]),
        ("BAD_TOOL_CALL messages[1].tool_calls", [{"role": "assistant", "tool_calls": []}]),
        ("BAD_TOOL_CALL messages[1].tool_calls[0]", [{"role": "assistant", "tool_calls": [{"id": "c1"}]}]),
        (
            "BAD_TOOL_CALL messages[1].tool_calls[0].function.arguments",
            [{"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "f", "arguments": '{"a":1,"a":2}'}}]}],
        ),
        ("BAD_TOOL_CALL messages[1]", [{"role": "user", "content": "x", "tool_calls": [CALL]}]),
    ],
)
def test_a_broken_tool_call_is_named(fault: str, messages: list[Any]) -> None:
    start, end = {"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}
    assert fault in parse(parse_chat, {"messages": [start, *messages, end]})[1]


def test_prompt_and_completion() -> None:
    rows, faults = parse(
        parse_completion,
        {"prompt": "Hi", "completion": "Hello", "weight": 0.5},
        {"prompt": "Hi"},
        {"prompt": "Hi", "completion": 3},
        {"prompt": "Hi", "completion": "x", "extra": 1},
        '{"prompt": "Hi", "prompt": "Ho", "completion": "x"}',
    )
    assert [m["content"] for m in rows[0].messages] == ["Hi", "Hello"] and rows[0].weight == 0.5
    assert faults == [
        "EMPTY_CONTENT completion",
        "CONTENT_NOT_TEXT completion",
        "UNKNOWN_FIELD (unknown)",
        "DUPLICATE_KEY row",
    ]


def test_preference_pairs_under_both_names() -> None:
    answer = [{"role": "assistant", "content": "Good."}]
    rows, faults = parse(
        parse_preference,
        {"prompt": "Hi", "chosen": "Good.", "rejected": "Bad."},
        {
            "input": {"messages": [{"role": "user", "content": "Hi"}]},
            "preferred_output": answer,
            "non_preferred_output": [{"role": "assistant", "content": "Bad."}],
        },
        {"prompt": "Hi", "chosen": "Same.", "rejected": " Same. "},
        {"prompt": [{"role": "assistant", "content": "x"}], "chosen": "a", "rejected": "b"},
        {"prompt": "Hi", "chosen": [{"role": "user", "content": "a"}], "rejected": "b"},
    )
    assert [(r.messages[-1]["content"], r.rejected) for r in rows] == [("Good.", "Bad.")] * 2
    assert json.loads(rows[0].training_json())["rejected"] == "Bad."
    assert rows[0].content_digest() == rows[1].content_digest()
    assert faults == ["SAME_ANSWERS rejected", "BAD_PROMPT prompt", "BAD_ANSWER chosen"]


def test_the_group_field_is_read_and_demanded() -> None:
    rows, faults = parse(
        parse_completion,
        {"prompt": "a", "completion": "b", "customer": 7},
        {"prompt": "a", "completion": "b"},
        group_field="customer",
    )
    assert rows[0].unit == "7" and faults == ["GROUP_MISSING group_field"]


COLUMNS = TableColumns("decision", (), ("id",), "yes", group="id")


def table(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


def test_parquet_gives_the_rows_that_csv_gives(tmp_path: Path) -> None:
    values = {
        "id": [1, 2, 3],
        "income": [10.5, None, 7.0],
        "note": ["a  b", "c", "c"],
        "decision": ["yes", "no", "yes"],
    }
    path = table(tmp_path / "t", values)
    csv = io.BytesIO(b"id,income,note,decision\n1,10.5,a  b,yes\n2,,c,no\n3,7.0,c,yes\n")
    both = []
    for source in (path, csv):
        found = survey(source, COLUMNS, Findings(), (), FileLimits())
        if isinstance(source, io.BytesIO):
            source.seek(0)
        both.append(list(render_rows(source, found, COLUMNS, (), FileLimits())))
    assert both[0] == both[1] and [r.unit for r in both[0]] == ["1", "2", "3"]
    assert "id:" not in both[0][0].messages[1]["content"]


def _long(path: Path) -> Path:
    """400 rows of one string of 50 MB: 20 GB of text in a file of some megabytes."""
    one = pa.DictionaryArray.from_arrays(pa.array([0] * 400, pa.int32()), pa.array(["x" * (50 << 20)]))
    return table(path, {"a": one, "decision": pa.array(["y", "n"] * 200)})


@pytest.mark.parametrize(
    ("reason", "make"),
    [
        ("TOO_MANY_ROWS", lambda p: table(p, {"a": pa.nulls(2_000_000, pa.int8())})),
        ("TOO_MANY_COLUMNS", lambda p: table(p, {f"c{i}": [1] for i in range(1200)})),
        ("PARQUET_NESTED", lambda p: table(p, {"a": [[1], [2]]})),
        ("MALFORMED_PARQUET", lambda p: _written(p, b"PAR1" + b"\0" * 90 + struct.pack("<L", 1 << 30) + b"PAR1")),
        ("MALFORMED_PARQUET", lambda p: _written(p, b"a,b\n1,2\n" * 9)),
        ("EMPTY_FILE", lambda p: _written(p, b"")),
    ],
)
def test_a_parquet_bomb_is_refused_by_its_footer(tmp_path: Path, reason: str, make: Any) -> None:
    with pytest.raises(InvalidInputError) as caught:
        list(records(make(tmp_path / "t"), FileLimits()))
    assert caught.value.reason == reason


def wide_footer(columns: int) -> bytes:
    """A Parquet file without rows whose footer names so many columns, each in seven bytes and its name."""

    def number(value: int) -> bytes:
        out = bytearray()
        while value > 127:
            out.append(value & 127 | 128)
            value >>= 7
        return bytes([*out, value])

    def name(text: bytes) -> bytes:
        return number(len(text)) + text

    # Thrift's compact protocol: FileMetaData of version, schema, rows and row groups (parquet.thrift).
    root = b"\x48" + name(b"s") + b"\x15" + number(2 * columns) + b"\x00"
    leaves = b"".join(b"\x15\x02\x25\x02\x18" + name(b"%x" % i) + b"\x00" for i in range(columns))
    schema = b"\x19\xfc" + number(columns + 1) + root + leaves
    footer = b"\x15\x02" + schema + b"\x16\x00" + b"\x19\x0c" + b"\x00"
    return b"PAR1" + footer + struct.pack("<L", len(footer)) + b"PAR1"


def test_a_footer_of_a_million_columns_is_refused_in_bounded_memory(tmp_path: Path) -> None:
    """Ten megabytes, which a reader would make a gigabyte of."""
    small = _written(tmp_path / "small", wide_footer(1000))
    assert len(next(records(small, FileLimits()))[1]) == 1000
    for columns, reason in ((1001, "TOO_MANY_COLUMNS"), (1_000_000, "PARQUET_TOO_LARGE")):
        path = _written(tmp_path / "wide", wide_footer(columns))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(InvalidInputError) as caught:
            list(records(path, FileLimits()))
        assert caught.value.reason == reason
        assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 < 64 << 20


def test_a_parquet_bomb_of_one_long_string_is_read_once_and_cut(tmp_path: Path) -> None:
    path = _long(tmp_path / "t")
    assert path.stat().st_size < 4 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cells = [c for _, c, _ in records(path, FileLimits())]
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    assert len(cells) == 401 and len(cells[1][0]) == FileLimits().cell_chars + 1
    assert grown < 400 << 20


def test_a_parquet_file_cut_short_or_flipped_is_malformed(tmp_path: Path) -> None:
    good = table(tmp_path / "t", {"a": [f"v{i}" for i in range(500)], "decision": ["y", "n"] * 250}).read_bytes()
    for at in range(4, len(good) - 8, 97):
        bad = _written(tmp_path / "bad", good[:at] + bytes([good[at] ^ 0xFF]) + good[at + 1 :])
        try:
            rows = list(records(bad, FileLimits()))
        except InvalidInputError as error:
            assert error.reason.isupper()
        else:
            assert len(rows) <= 501
    with pytest.raises(InvalidInputError):
        list(records(_written(tmp_path / "cut", good[:-20]), FileLimits()))


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def zipped(*members: tuple[str, bytes], mode: int = 0) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
    return out.getvalue()


def _encrypted() -> bytes:
    data = bytearray(zipped(("a", b"x")))
    for mark in (b"PK\x03\x04", b"PK\x01\x02"):
        at = data.find(mark) + (6 if mark[2] == 3 else 8)
        data[at] |= 1
    return bytes(data)


def tarred(name: str, kind: bytes = tarfile.REGTYPE) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size = kind, "/etc/passwd", len(DATA) if kind == tarfile.REGTYPE else 0
        archive.addfile(info, io.BytesIO(DATA) if info.size else None)
    return out.getvalue()


DATA = b'{"prompt": "a", "completion": "b"}\n' * 50


@pytest.mark.parametrize(
    "packed", [DATA, packed_by_gzip(DATA), zipped(("rows.jsonl", DATA)), packed_by_gzip(b"") + packed_by_gzip(DATA)]
)
def test_an_honest_archive_is_unpacked(tmp_path: Path, packed: bytes) -> None:
    assert plain(_written(tmp_path / "d", packed), tmp_path).read_bytes() == DATA


ZEROS = b"\0" * (64 << 20)
BAD_ARCHIVES = [
    ("ARCHIVE_TOO_LARGE", packed_by_gzip(ZEROS)),
    ("ARCHIVE_TOO_LARGE", zipped(("a", ZEROS))),
    ("ARCHIVE_NESTED", packed_by_gzip(packed_by_gzip(DATA))),
    ("ARCHIVE_NESTED", zipped(("a.zip", zipped(("a", DATA))))),
    ("ARCHIVE_PATH", zipped(("../../etc/passwd", b"x"))),
    ("ARCHIVE_PATH", zipped(("/etc/passwd", b"x"))),
    ("ARCHIVE_PATH", zipped(("..\\..\\x", b"x"))),
    ("ARCHIVE_PATH", zipped(("C:\\x", b"x"))),
    ("ARCHIVE_PATH", zipped(("link", b"/etc/passwd"), mode=0o120777)),
    ("ARCHIVE_MANY_FILES", zipped(("a", b"x"), ("b", b"y"))),
    ("ARCHIVE_MANY_FILES", zipped(*((str(i), b"") for i in range(5000)))),
    ("ARCHIVE_MANY_FILES", zipped()),
    ("ARCHIVE_MANY_FILES", tarred("rows.jsonl")),
    ("ARCHIVE_MANY_FILES", tarred("../../etc/passwd")),
    ("ARCHIVE_MANY_FILES", tarred("null", tarfile.CHRTYPE)),
    ("ARCHIVE_NESTED", packed_by_gzip(tarred("../../etc/passwd"))),
    ("ARCHIVE_NESTED", packed_by_gzip(tarred("link", tarfile.SYMTYPE))),
    ("ARCHIVE_NESTED", zipped(("a.tar", tarred("rows.jsonl")))),
    ("ARCHIVE_ENCRYPTED", _encrypted()),
    ("ARCHIVE_BROKEN", packed_by_gzip(DATA)[:-9]),
    ("ARCHIVE_BROKEN", b"\x1f\x8b" + b"junk" * 20),
    ("ARCHIVE_BROKEN", b"PK\x03\x04" + b"junk" * 20),
    ("ARCHIVE_BROKEN", zipped(("a", DATA))[:-30]),
]


@pytest.mark.parametrize(("reason", "packed"), BAD_ARCHIVES)
def test_a_hostile_archive_is_named_and_leaves_nothing(tmp_path: Path, reason: str, packed: bytes) -> None:
    work = tmp_path / "work"
    work.mkdir()
    with pytest.raises(InvalidInputError) as caught:
        plain(_written(tmp_path / "d", packed), work)
    assert caught.value.reason == reason
    assert list(work.iterdir()) == [] and not (tmp_path.parent / "etc").exists()


def test_a_row_that_is_one_string_of_50_mb_is_refused_without_holding_it() -> None:
    class Endless(io.RawIOBase):
        left = 50 << 20

        def readable(self) -> bool:
            return True

        def readinto(self, into: Any) -> int:
            n = min(len(into), self.left)
            into[:n] = b"x" * n
            self.left -= n
            return n

    source = Endless()
    with pytest.raises(InvalidInputError) as caught:
        list(parse_json_lines(io.BufferedReader(source, 1 << 16), Findings(), (), FileLimits(), parse_chat))
    assert caught.value.reason == "ROW_TOO_LONG" and source.left > 47 << 20


def test_a_million_columns_are_refused_by_name(tmp_path: Path) -> None:
    header = ",".join(f"c{i}" for i in range(100_000)) + "\n"
    with pytest.raises(InvalidInputError) as caught:
        survey(io.BytesIO(header.encode()), COLUMNS, Findings(), (), FileLimits())
    assert caught.value.reason == "TOO_MANY_COLUMNS"
    with pytest.raises(InvalidInputError) as longer:
        survey(io.BytesIO((header * 10).replace("\n", ",").encode()), COLUMNS, Findings(), (), FileLimits())
    assert longer.value.reason == "ROW_TOO_LONG"


def test_a_file_of_mixed_encodings_is_refused_at_its_row() -> None:
    data = b'{"prompt": "a", "completion": "b"}\n' + '{"prompt": "é", "completion": "b"}\n'.encode("latin-1")
    with pytest.raises(InvalidInputError) as caught:
        list(parse_json_lines(io.BytesIO(data), Findings(), (), FileLimits(), parse_completion))
    assert caught.value.reason == "UNREADABLE_ENCODING" and "row 2" in caught.value.message
