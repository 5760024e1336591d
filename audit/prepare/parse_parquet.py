"""Parquet decision tables as the records that a CSV would give: a cell is text, row 1 is the header.

What the footer claims is checked before any page is read: rows, columns, types and bytes. Columns are read as
dictionaries, a few rows at a time, so that one long string repeated a million times is held once.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from audit.prepare.findings import Problem
from audit.prepare.lines import FileLimits, refuse_empty, refuse_file

MAX_BYTES = 1 << 30
_BATCH_ROWS = 512
_MAGIC = b"PAR1"
_MOST_FOOTER = 4 << 20
"""A footer is read whole and becomes many times its size; a thousand columns in ten row groups fill half of this."""

_GROUP_BYTES = 256 << 20


def records(path: Path, limits: FileLimits) -> Iterator[tuple[int, list[str], list[Problem]]]:
    """Yields ``(row number, cells, problems)``, the header first.

    Raises:
        InvalidInputError: ``MALFORMED_PARQUET``, ``PARQUET_TOO_LARGE``, ``PARQUET_NESTED``, ``TOO_MANY_ROWS``,
            ``TOO_MANY_COLUMNS``, ``DUPLICATE_COLUMN`` or ``EMPTY_FILE``.
    """
    import pyarrow
    import pyarrow.parquet as pq

    _check_footer(path)
    try:
        footer = pq.read_metadata(path)
        _check_claims(footer, limits)
        schema = footer.schema.to_arrow_schema()
        flat = [f.name for f in schema if pyarrow.types.is_nested(f.type)]
        if flat:
            refuse_file("PARQUET_NESTED", "a column holds lists or records", remedy="keep one value a cell")
        if len(set(schema.names)) != len(schema.names):
            refuse_file("DUPLICATE_COLUMN", "a column repeats a name", field="row 1", remedy="rename one of them")
        yield 1, [str(n) for n in schema.names], []
        text = [f.name for f in schema if pyarrow.types.is_string(f.type) or pyarrow.types.is_binary(f.type)]
        number = 1
        with pq.ParquetFile(path, read_dictionary=text, pre_buffer=False, buffer_size=1 << 20) as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                for cells in _rows(batch, limits):
                    number += 1
                    yield number, cells, []
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError, OverflowError):
        _malformed()


def _rows(batch: Any, limits: FileLimits) -> Iterator[list[str]]:
    columns = []
    for column in batch.columns:
        if hasattr(column, "dictionary"):
            # Each value becomes text once; one beyond the limit is cut just behind it, and refused there.
            words = [_cell(v, limits) for v in column.dictionary.to_pylist()]
            columns.append(["" if i is None else words[i] for i in column.indices.to_pylist()])
        else:
            columns.append([_cell(v, limits) for v in column.to_pylist()])
    yield from (list(cells) for cells in zip(*columns, strict=True))


def _cell(value: Any, limits: FileLimits) -> str:
    if value is None:
        return ""
    if isinstance(value, bytes):
        value = value[: limits.cell_chars * 4 + 4].decode("utf-8", "replace")
    return " ".join(str(value)[: limits.cell_chars + 1].split())


def _check_footer(path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(4)
        if size < 12 or head != _MAGIC:
            if not size:
                refuse_empty()
            _malformed()
        stream.seek(size - 8)
        tail = stream.read(8)
    footer = int.from_bytes(tail[:4], "little")
    if tail[4:] != _MAGIC or footer > size:
        _malformed()
    if footer > _MOST_FOOTER:
        refuse_file("PARQUET_TOO_LARGE", "the footer is too large", remedy="write fewer columns, or larger row groups")


def _check_claims(footer: Any, limits: FileLimits) -> None:
    if footer.num_columns > limits.columns:
        refuse_file(
            "TOO_MANY_COLUMNS",
            f"the header names {footer.num_columns} columns, allowed are {limits.columns}",
            field="row 1",
        )
    if footer.num_rows > limits.rows:
        refuse_file(
            "TOO_MANY_ROWS", f"the file holds more than {limits.rows} rows", remedy="upload a sample of the rows"
        )
    groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
    if sum(g.num_rows for g in groups) != footer.num_rows or footer.num_rows < 0:
        _malformed()
    sizes = [g.total_byte_size for g in groups]
    if sum(sizes) > MAX_BYTES or max(sizes, default=0) > _GROUP_BYTES:
        refuse_file("PARQUET_TOO_LARGE", "the file unpacks to too many bytes", remedy="write smaller row groups")


def _malformed() -> NoReturn:
    refuse_file("MALFORMED_PARQUET", "the file is not readable Parquet", remedy="write it again, or upload CSV")
