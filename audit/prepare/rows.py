"""The one shape that a row has after parsing, and its spool: rows lie on disk, an index entry each in memory."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NotRequired, Self, TypedDict

from assay.subjects import one_form

_STRATUM = "\x1f"
"""Between the parts of a stratum; a control character, which no cell may hold."""

Note = Callable[[int, str], None]
"""Is told a row's number and the value that says whom or what the row belongs to."""


class Message(TypedDict):
    """One turn; ``weight`` 0 keeps an assistant message from being a target."""

    role: str
    content: str
    weight: NotRequired[int]


@dataclass(frozen=True, slots=True)
class Identifier:
    """A direct identifier at ``texts()[message][start:end]``."""

    message: int
    start: int
    end: int
    entity_type: str


@dataclass(frozen=True)
class Row:
    """A valid row.

    Attributes:
        number: 1-based row of the file; a table's header is row 1.
        messages: the turns; the last one is the assistant's.
        weight: weight of the row in the loss, None where the file says nothing.
        label: decision of a decision table, empty for chat.
        groups: protected attribute to value (decision tables).
        rejected: the answer that is worse than the last message (preference pairs), else empty.
        unit: what says that rows belong together, such as a customer; empty where the owner named no field.
        record: equal for the copies of one record of a table, whose equal texts may be different people's; empty for
            chat, where rows that say the same are copies.
        identifiers: direct identifiers that stand in the row.
    """

    number: int
    messages: Sequence[Message]
    weight: float | None = None
    label: str = ""
    groups: Mapping[str, str] = field(default_factory=dict)
    rejected: str = ""
    unit: str = ""
    record: str = ""
    identifiers: Sequence[Identifier] = ()

    def texts(self) -> list[str]:
        """Every text of the row: those of the messages, then the rejected answer where there is one."""
        return [m["content"] for m in self.messages] + ([self.rejected] if self.rejected else [])

    def answered(self, answer: str) -> list[Message]:
        """The turns with another last answer."""
        return [*self.messages[:-1], {**self.messages[-1], "content": answer}]

    def training_json(self, user: int = 0) -> bytes:
        """The line that the trainer sees: ``messages`` and, where given, ``weight``, ``rejected`` and ``user``."""
        return training_line(self.messages, self.weight, self.rejected, user)

    def content_digest(self) -> bytes:
        """16 bytes, equal for rows that say the same: roles and texts, Unicode form, case and spacing aside."""
        parts = [[m["role"], _normalise(m["content"])] for m in self.messages]
        if self.rejected:
            parts.append(["rejected", _normalise(self.rejected)])
        return hashlib.sha256(json.dumps(parts).encode()).digest()[:16]


def training_line(messages: Sequence[Message], weight: float | None = None, rejected: str = "", user: int = 0) -> bytes:
    """One line of ``train.jsonl`` or ``validation.jsonl``; ``user`` 0 says nothing of whose it is."""
    value: dict[str, Any] = {"messages": list(messages)}
    if rejected:
        value["rejected"] = rejected
    if weight is not None:
        value["weight"] = weight
    if user:
        value["user"] = user
    return json_line(value)


def json_line(value: Any) -> bytes:
    """One JSON value as one UTF-8 line; line breaks inside strings are escaped by JSON itself."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _normalise(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


@dataclass(frozen=True, slots=True)
class Entry:
    """What stays in memory of a valid row.

    Attributes:
        number: 1-based row of the file.
        offset: where its line starts in the spool.
        digest: :meth:`Row.content_digest`.
        stratum: rows with equal strata are spread evenly over the splits.
        unit: 16 bytes, equal for rows that must share a split; empty where nothing says so.
        record: :attr:`Row.record`.
    """

    number: int
    offset: int
    digest: bytes
    stratum: str
    unit: bytes = b""
    record: str = ""

    @property
    def identity(self) -> str | bytes:
        """Equal for copies of one row."""
        return self.record or self.digest

    @property
    def groups(self) -> list[str]:
        """``attribute=value`` of every protected attribute (decision tables)."""
        return self.stratum.split(_STRATUM)[1:]


class Spool:
    """Rows on disk, written once in order, then read by entry. A context manager; the file goes when it closes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("w+b")
        self._end = 0

    def append(self, row: Row) -> Entry:
        """Writes a row and returns its entry."""
        value = {"n": row.number, "m": row.messages, "w": row.weight, "l": row.label, "g": row.groups}
        value |= {
            "r": row.rejected,
            "u": row.unit,
            "c": row.record,
            "i": [[i.message, i.start, i.end, i.entity_type] for i in row.identifiers],
        }
        line, offset = json_line(value), self._end
        self._file.write(line)
        self._end += len(line)
        stratum = _STRATUM.join([row.label, *(f"{k}={v}" for k, v in sorted(row.groups.items()))])
        unit = hashlib.sha256(one_form(row.unit)).digest()[:16] if row.unit else b""
        return Entry(row.number, offset, row.content_digest(), stratum, unit, row.record)

    def read(self, entry: Entry) -> Row:
        """Reads one row back."""
        self._file.seek(entry.offset)
        value = json.loads(self._file.readline())
        found = tuple(Identifier(*i) for i in value["i"])
        number, messages, weight, label, groups, rejected, unit, record = (value[key] for key in "nmwlgruc")
        return Row(number, messages, weight, label, groups, rejected, unit, record, found)

    def read_all(self, entries: Sequence[Entry]) -> Iterator[Row]:
        """Reads rows in the order of the entries."""
        return (self.read(e) for e in entries)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)
