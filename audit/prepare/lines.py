"""Lines of a file that may be anything: bounded in length, strict UTF-8, read once, in bounded memory.

What is wrong with the file as a whole ends the task with a named reason; a row is never guessed at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, NoReturn

from assay.errors import FieldViolation, InvalidInputError

_UTF8_REMEDY = "save the file as UTF-8"
_OTHER_MARKS = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class FileLimits:
    """Most that a file may ask of this machine.

    Attributes:
        row_bytes: longest row, line end excluded. Read at most one byte beyond.
        rows: most rows, refused ones included; an index entry per row is held in memory.
        messages: most messages in a chat row.
        columns: most columns of a table.
        cell_chars: longest cell of a table.
    """

    row_bytes: int = 1 << 20
    rows: int = 250_000
    messages: int = 128
    columns: int = 1000
    cell_chars: int = 16_384


def bounded_lines(stream: BinaryIO, limits: FileLimits) -> Iterator[tuple[int, str]]:
    """Yields ``(line number from 1, line with its end)``.

    Raises:
        InvalidInputError: ``ROW_TOO_LONG``, ``UNREADABLE_ENCODING`` or ``EMPTY_FILE`` (no byte but a mark).
    """
    number, empty = 0, True
    cap = limits.row_bytes + len(_BOM) + len(b"\r\n")
    while raw := stream.readline(cap):
        number += 1
        if number == 1:
            if raw.startswith(_OTHER_MARKS) or b"\x00" in raw[:4096]:
                refuse_encoding(number, "the file looks like UTF-16 or UTF-32")
            raw = raw.removeprefix(_BOM)
            if not raw:
                break
        unfinished = len(raw) >= cap - len(_BOM) and not raw.endswith(b"\n")
        if unfinished or len(raw.rstrip(b"\r\n")) > limits.row_bytes:
            refuse_long_row(number, limits)
        empty = False
        try:
            yield number, raw.decode("utf-8", "strict")
        except UnicodeDecodeError as error:
            refuse_encoding(number, f"byte {error.start + 1} of the line is not UTF-8")
    if empty:
        refuse_empty()


def refuse_file(reason: str, message: str, *, field: str = "dataset", remedy: str = "") -> NoReturn:
    """Refuses the whole file; ``message`` holds none of its content.

    Raises:
        InvalidInputError: always.
    """
    raise InvalidInputError(reason, message, remedy=remedy, violations=(FieldViolation(field, message),))


def refuse_encoding(row: int, why: str) -> NoReturn:
    """Refuses a file that is not UTF-8."""
    refuse_file("UNREADABLE_ENCODING", f"row {row}: {why}", field=f"row {row}", remedy=_UTF8_REMEDY)


def refuse_long_row(row: int, limits: FileLimits) -> NoReturn:
    """Refuses a file with a row beyond the limit; the rest of the row was not read."""
    message = f"row {row} is longer than {limits.row_bytes} bytes"
    refuse_file("ROW_TOO_LONG", message, field=f"row {row}", remedy="split the row; check the line ends")


def refuse_empty() -> NoReturn:
    """Refuses a file without a row."""
    refuse_file("EMPTY_FILE", "the file holds no row", remedy="upload a file with at least one row")


def check_row_count(rows: int, limits: FileLimits) -> None:
    """Refuses a file with too many rows.

    Raises:
        InvalidInputError: ``TOO_MANY_ROWS``.
    """
    if rows > limits.rows:
        refuse_file(
            "TOO_MANY_ROWS", f"the file holds more than {limits.rows} rows", remedy="upload a sample of the rows"
        )
