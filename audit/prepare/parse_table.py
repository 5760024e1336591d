"""CSV decision tables: strict CSV with a header, a label column and columns of protected attributes.

The file is read twice: :func:`survey` checks every row and counts labels and groups; :func:`render_rows` then turns
the valid rows into chat, since the question names the labels. A cell is text and nothing else: a cell that a
spreadsheet would run as a formula is rendered as it stands. Row numbers are those a spreadsheet shows; the header is
row 1.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from audit.prepare import parse_parquet
from audit.prepare.findings import Findings, Problem
from audit.prepare.lines import FileLimits, bounded_lines, check_row_count, refuse_empty, refuse_file, refuse_long_row
from audit.prepare.rows import Message, Note, Row
from audit.prepare.text_checks import check_text

MAX_LABELS = 20
MAX_LABEL_CHARS = 64
MAX_GROUPS = 50
MAX_COLUMN_CHARS = 64
UNKNOWN_GROUP = "unknown"
SYSTEM_TEXT = "You read a record and give the decision."

_MISSING = frozenset({"nan", "na", "n/a", "null", "none", "nil", "#n/a", "inf", "-inf"})
_SPACES = re.compile("[ \\t\\r\\n\u00a0\u2028\u2029]+")


@dataclass(frozen=True)
class TableColumns:
    """What the datasheet says of the columns; ``group`` says which rows belong together, and is hidden too."""

    label: str
    sensitive: tuple[str, ...]
    hidden: tuple[str, ...]
    favourable: str
    group: str = ""


@dataclass
class Survey:
    """What one reading of the table found.

    Attributes:
        columns: the header, in order.
        visible: columns shown in the prompt: all but the label and the hidden ones.
        labels: rows by label.
        groups: rows by attribute and value.
        favourable: those of them that have the favourable label.
        valid_rows: rows without a problem.
        people: digests of the hidden unprotected cells, where identifiers stand, of the rows that have any.
        records: digests of all cells of those rows.
    """

    columns: tuple[str, ...]
    visible: tuple[str, ...]
    labels: Counter[str] = field(default_factory=Counter)
    groups: Counter[tuple[str, str]] = field(default_factory=Counter)
    favourable: Counter[tuple[str, str]] = field(default_factory=Counter)
    valid_rows: int = 0
    people: set[bytes] = field(default_factory=set)
    records: set[bytes] = field(default_factory=set)

    @property
    def names_people(self) -> bool:
        """No two different records share what is hidden and unprotected, so equal records are copies of one."""
        return len(self.people) == len(self.records)


def survey(
    source: BinaryIO | Path, declared: TableColumns, findings: Findings, forbidden: Sequence[str], limits: FileLimits
) -> Survey:
    """Reads the whole table once; refused rows go to ``findings``. A path is a Parquet file, a stream is CSV.

    Raises:
        InvalidInputError: a reason of :func:`audit.prepare.lines.bounded_lines`, or ``MALFORMED_CSV``,
            ``UNCLOSED_QUOTE``, ``EMPTY_COLUMN_NAME``, ``BAD_COLUMN_NAME``, ``DUPLICATE_COLUMN``, ``TOO_MANY_COLUMNS``,
            ``LABEL_COLUMN_UNDECLARED``, ``LABEL_COLUMN_MISSING``, ``LABEL_IS_SENSITIVE``, ``SENSITIVE_COLUMN_MISSING``,
            ``HIDDEN_COLUMN_MISSING``, ``NO_VISIBLE_COLUMN``, ``TOO_MANY_LABELS``, ``TOO_MANY_GROUPS``, ``ONE_LABEL`` or
            ``FAVOURABLE_LABEL_ABSENT``.
    """
    found: Survey | None = None
    for number, cells, problems in _records(source, limits):
        if found is None:
            found = _header(cells, problems, declared, forbidden, limits)
            continue
        check_row_count(number - 1, limits)
        problems = problems or _check_record(cells, found.columns, declared, forbidden, limits)
        if problems:
            findings.refuse(number, problems)
            continue
        _count(found, dict(zip(found.columns, cells, strict=True)), declared)
    if found is None or found.valid_rows + findings.refused_rows == 0:
        refuse_empty()
    _check_labels(found, declared)
    return found


def render_rows(
    source: BinaryIO | Path,
    found: Survey,
    declared: TableColumns,
    forbidden: Sequence[str],
    limits: FileLimits,
    note: Note | None = None,
) -> Iterator[Row]:
    """Reads the table again and yields its valid rows as chat, in order.

    ``note`` is told the group column's value of every row that has one, also of rows that are refused.
    """
    ask = question(found)
    records = _records(source, limits)
    next(records)  # the header
    for number, cells, problems in records:
        if note is not None and declared.group and len(cells) == len(found.columns):
            value = cells[found.columns.index(declared.group)]
            if value:
                note(number, value)
        if problems or _check_record(cells, found.columns, declared, forbidden, limits):
            continue
        record = dict(zip(found.columns, cells, strict=True))
        lines = record_lines([(c, record[c]) for c in found.visible])
        groups = {c: record[c] or UNKNOWN_GROUP for c in declared.sensitive}
        is_known = found.names_people and any(_hidden(record, declared))
        yield Row(
            number,
            chat(lines + ask, record[declared.label]),
            label=record[declared.label],
            groups=groups,
            unit=record[declared.group] if declared.group else "",
            record=_digest(cells).hex() if is_known else f"row {number}",
        )


def record_lines(cells: Sequence[tuple[str, str]]) -> str:
    """Renders a record: one ``column: value`` line a cell, empty cells left out."""
    return "".join(f"{column}: {value}\n" for column, value in cells if value)


def question(found: Survey) -> str:
    """The question that ends every prompt of a table; it names the labels in alphabetical order."""
    return f"What is the decision? Answer with one of: {', '.join(sorted(found.labels))}."


def chat(prompt: str, answer: str) -> list[Message]:
    """The three turns of a table's row."""
    return [
        {"role": "system", "content": SYSTEM_TEXT},
        {"role": "user", "content": prompt},
        {"role": "assistant", "content": answer},
    ]


def _records(source: BinaryIO | Path, limits: FileLimits) -> Iterator[tuple[int, list[str], list[Problem]]]:
    if isinstance(source, Path):
        return parse_parquet.records(source, limits)
    return _csv_records(source, limits)


def _csv_records(stream: BinaryIO, limits: FileLimits) -> Iterator[tuple[int, list[str], list[Problem]]]:
    """Yields ``(row number, cells with spaces collapsed, problems of the CSV)``; blank lines are only counted."""
    state = _RecordBytes(limits)
    reader = csv.reader(state.lines(stream), strict=True)
    number = 0
    while True:
        state.start_record(number + 1)
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            number += 1
            if "unexpected end of data" in str(error):
                refuse_file(
                    "UNCLOSED_QUOTE",
                    f"row {number} opens a quote that is never closed",
                    field=f"row {number}",
                    remedy="close the quote; write a quote inside a quoted cell twice",
                )
            if "field larger than field limit" in str(error):
                refuse_long_row(number, limits)
            yield (
                number,
                [],
                [Problem("row", "MALFORMED_CSV", "is not valid CSV: text after a closing quote or a stray line end")],
            )
            continue
        number += 1
        if cells and (len(cells) > 1 or cells[0].strip()):
            # A line break inside a cell would forge further lines of the record; other controls stay, to be refused.
            yield number, [_SPACES.sub(" ", c).strip(" ") for c in cells], []


class _RecordBytes:
    """Bounds a record that spans lines: a quote that never closes must not pull the whole file into memory."""

    def __init__(self, limits: FileLimits) -> None:
        self._limits = limits
        self._bytes = 0
        self._row = 1

    def start_record(self, row: int) -> None:
        self._bytes, self._row = 0, row

    def lines(self, stream: BinaryIO) -> Iterator[str]:
        for _, line in bounded_lines(stream, self._limits):
            self._bytes += len(line)
            if self._bytes > self._limits.row_bytes:
                refuse_long_row(self._row, self._limits)
            yield line


def _header(
    cells: list[str], problems: Sequence[Problem], declared: TableColumns, forbidden: Sequence[str], limits: FileLimits
) -> Survey:
    if problems:
        refuse_file(
            "MALFORMED_CSV",
            "the header is not valid CSV",
            field="row 1",
            remedy="write the file as comma-separated values",
        )
    if len(cells) > limits.columns:
        refuse_file(
            "TOO_MANY_COLUMNS", f"the header names {len(cells)} columns, allowed are {limits.columns}", field="row 1"
        )
    for i, column in enumerate(cells, 1):
        if not column:
            refuse_file(
                "EMPTY_COLUMN_NAME",
                f"column {i} has no name",
                field="row 1",
                remedy="name every column in the first row",
            )
        # A record is shown as lines of `column: value`.
        if len(column) > MAX_COLUMN_CHARS or ": " in column or check_text(column, "", forbidden):
            refuse_file(
                "BAD_COLUMN_NAME",
                f"the name of column {i} is longer than {MAX_COLUMN_CHARS} characters, or holds a colon with a space "
                "after it or control characters",
                field="row 1",
                remedy="give it a short plain name; is the header missing?",
            )
    if len(set(cells)) != len(cells):
        twice = [i for i, c in enumerate(cells, 1) if cells.index(c) != i - 1]
        refuse_file(
            "DUPLICATE_COLUMN",
            f"column {twice[0]} repeats a name",
            field="row 1",
            remedy="give every column its own name",
        )
    _check_declared(cells, declared)
    visible = tuple(c for c in cells if c not in (declared.label, declared.group) and c not in declared.hidden)
    if not visible:
        refuse_file(
            "NO_VISIBLE_COLUMN",
            "every column is hidden",
            field="datasheet.hidden_columns",
            remedy="show at least one column",
        )
    return Survey(tuple(cells), visible)


def _check_declared(cells: Sequence[str], declared: TableColumns) -> None:
    separator = ""
    if len(cells) == 1 and any(s in cells[0] for s in ";\t|"):
        separator = "the file seems to use another separator; use commas"
    if not declared.label:
        refuse_file(
            "LABEL_COLUMN_UNDECLARED",
            "the datasheet names no label column",
            field="datasheet.label_column",
            remedy="set label_column to the column that holds the decision",
        )
    wanted = (
        ("LABEL_COLUMN_MISSING", "label_column", (declared.label,)),
        ("SENSITIVE_COLUMN_MISSING", "sensitive_attributes", declared.sensitive),
        ("HIDDEN_COLUMN_MISSING", "hidden_columns", declared.hidden),
        ("GROUP_COLUMN_MISSING", "group_field", (declared.group,) if declared.group else ()),
    )
    for reason, name, columns in wanted:
        if missing := sorted(set(columns) - set(cells)):
            refuse_file(
                reason,
                f"the file has no column {', '.join(map(repr, missing))}",
                field=f"datasheet.{name}",
                remedy=separator or "name columns exactly as in the first row",
            )
    if declared.label in declared.sensitive:
        refuse_file(
            "LABEL_IS_SENSITIVE",
            "the label column is declared as a protected attribute",
            field="datasheet.sensitive_attributes",
        )


def _check_record(
    cells: Sequence[str], columns: Sequence[str], declared: TableColumns, forbidden: Sequence[str], limits: FileLimits
) -> list[Problem]:
    if len(cells) != len(columns):
        return [
            Problem(
                "row",
                "RAGGED_ROW",
                f"has {len(cells)} cells where the header has {len(columns)}; quote cells that hold commas",
            )
        ]
    problems = []
    for column, cell in zip(columns, cells, strict=True):
        if len(cell) > limits.cell_chars:
            problems.append(
                Problem(column, "CELL_TOO_LONG", f"is longer than {limits.cell_chars} characters; shorten it")
            )
        problems += check_text(cell, column, forbidden)
        if column == declared.label:
            problems += _check_label(column, cell)
        elif column == declared.group and not cell:
            problems.append(Problem(column, "GROUP_MISSING", "is empty; the datasheet's group_field needs a value"))
        elif column in declared.sensitive and len(cell) > MAX_LABEL_CHARS:
            problems.append(
                Problem(
                    column, "GROUP_TOO_LONG", f"is longer than {MAX_LABEL_CHARS} characters; use a short group name"
                )
            )
    unseen = (declared.label, declared.group, *declared.hidden)
    visible = [c for k, c in zip(columns, cells, strict=True) if k not in unseen]
    if not any(visible):
        problems.append(Problem("row", "EMPTY_ROW", "has no value in any visible column; remove it"))
    return problems


def _check_label(column: str, cell: str) -> list[Problem]:
    if not cell:
        return [Problem(column, "LABEL_EMPTY", "the label is empty; fill it in or remove the row")]
    if cell.casefold() in _MISSING:
        return [
            Problem(
                column,
                "LABEL_NAN",
                "the label is a mark for a missing value, such as NaN; fill it in or remove the row",
            )
        ]
    if len(cell) > MAX_LABEL_CHARS:
        return [
            Problem(
                column, "LABEL_TOO_LONG", f"the label is longer than {MAX_LABEL_CHARS} characters; use a short word"
            )
        ]
    return []


def _count(found: Survey, record: dict[str, str], declared: TableColumns) -> None:
    found.valid_rows += 1
    hidden = _hidden(record, declared)
    if any(hidden):
        found.people.add(_digest(hidden))
        found.records.add(_digest(list(record.values())))
    found.labels[record[declared.label]] += 1
    if len(found.labels) > MAX_LABELS:
        refuse_file(
            "TOO_MANY_LABELS",
            f"the label column holds more than {MAX_LABELS} different values",
            field="datasheet.label_column",
            remedy="a decision has few outcomes; is this the right column?",
        )
    for column in declared.sensitive:
        group = (column, record[column] or UNKNOWN_GROUP)
        if group not in found.groups and sum(c == column for c, _ in found.groups) == MAX_GROUPS:
            refuse_file(
                "TOO_MANY_GROUPS",
                f"a protected attribute holds more than {MAX_GROUPS} different values",
                field="datasheet.sensitive_attributes",
                remedy="put its values into ranges or groups",
            )
        found.groups[group] += 1
        found.favourable[group] += record[declared.label] == declared.favourable


def _hidden(record: dict[str, str], declared: TableColumns) -> list[str]:
    """The hidden cells that are neither protected nor the label, the group's among them."""
    hidden = {*declared.hidden, declared.group} - {declared.label, *declared.sensitive}
    return [value for column, value in record.items() if column in hidden]


def _digest(cells: Sequence[str]) -> bytes:
    return hashlib.sha256(json.dumps(cells).encode()).digest()[:16]


def _check_labels(found: Survey, declared: TableColumns) -> None:
    if not found.valid_rows:
        return
    if len(found.labels) < 2:
        refuse_file(
            "ONE_LABEL",
            "every valid row has the same label",
            field="datasheet.label_column",
            remedy="a decision needs at least two outcomes",
        )
    if declared.favourable and declared.favourable not in found.labels:
        refuse_file(
            "FAVOURABLE_LABEL_ABSENT",
            "no valid row has the favourable label",
            field="datasheet.favourable_label",
            remedy="write favourable_label exactly as in the label column",
        )
