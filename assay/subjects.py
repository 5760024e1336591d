r"""Keyed handles of data subjects, and the index of a dataset that leads from a handle to row numbers.

A handle is HMAC-SHA-256 (RFC 2104) of a subject's value under a key of the unit: without the key nobody can try values
against it, and the same person has another handle in every unit. The index is made where the rows are read, in the
sealed prepare task, and holds handles and row numbers, nothing else.

File: ``ASSAYSUBJ1\n``, then entries of 36 bytes, ascending: 32 bytes of handle, row number (big-endian, 4 bytes).
"""

from __future__ import annotations

import hashlib
import hmac
import struct
import unicodedata
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from assay.errors import IntegrityError

KEY_FILE = "subject.key"
"""Where a task finds the unit's key among its inputs."""
INDEX_FILE = "subjects.idx"
KEY_BYTES = 32

_MAGIC = b"ASSAYSUBJ1\n"
_CONTEXT = b"assay/subject/v1\0"
_ENTRY = struct.Struct(">32sI")
_HANDLE = 32


def handle_of(key: bytes, value: str) -> bytes:
    """The 32-byte handle of a subject's value; Unicode form (NFKC) and spacing aside, the value as it stands.

    Case counts: ``C-17`` and ``c-17`` may be two customers.

    Raises:
        IntegrityError: ``SUBJECT_KEY`` for a key that is not 32 bytes.
    """
    if len(key) != KEY_BYTES:
        raise IntegrityError("SUBJECT_KEY", "the unit's key of subjects is not 32 bytes")
    return hmac.digest(key, _CONTEXT + one_form(value), hashlib.sha256)


def one_form(value: str) -> bytes:
    """The same bytes for every way to write a subject's value that is read as one subject."""
    return " ".join(unicodedata.normalize("NFKC", value).split()).encode("utf-8", "surrogatepass")


class IndexMaker:
    """Collects entries while rows are read: 36 bytes a row, so a file of 250,000 rows takes some 17 MB."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._entries: list[bytes] = []

    def note(self, number: int, value: str) -> None:
        """Notes that row ``number`` (1-based) is about a subject."""
        self._entries.append(_ENTRY.pack(handle_of(self._key, value), number))

    def write(self, path: Path) -> None:
        """Writes the index; the same rows under the same key give the same bytes."""
        self._entries.sort()
        with path.open("wb") as out:
            out.write(_MAGIC)
            out.writelines(self._entries)


@dataclass(frozen=True)
class SubjectIndex:
    """An index as read; a search touches a few entries only."""

    data: bytes

    @classmethod
    def parse(cls, data: bytes) -> SubjectIndex:
        """Takes an index that was stored before.

        Raises:
            IntegrityError: ``SUBJECT_INDEX`` for another file or a cut one.
        """
        if not data.startswith(_MAGIC) or (len(data) - len(_MAGIC)) % _ENTRY.size:
            raise _damaged()
        return cls(data)

    def demand_ordered(self) -> None:
        """Reads every entry of an index that comes from elsewhere: a search in one out of order would miss rows.

        Raises:
            IntegrityError: ``SUBJECT_INDEX``.
        """
        if any(self._entry(i) <= self._entry(i - 1) for i in self._at[1:]):
            raise _damaged()

    def __len__(self) -> int:
        """Rows that name a subject."""
        return len(self._at)

    def rows(self, handle: bytes) -> Sequence[int]:
        """Row numbers of a subject, ascending; none for a subject that is not here."""
        found = []
        for i in range(bisect_left(self._at, handle, key=self._entry), len(self._at)):
            entry, number = _ENTRY.unpack(self._entry(i))
            if entry != handle:
                break
            found.append(number)
        return found

    def handles(self) -> Iterator[bytes]:
        """Every subject once, ascending."""
        last = b""
        for i in self._at:
            handle = self._entry(i)[:_HANDLE]
            if handle != last:
                yield handle
            last = handle

    def shared_with(self, other: SubjectIndex) -> int:
        """How many subjects are in both."""
        small, large = sorted((self, other), key=len)
        return sum(bool(large.rows(handle)) for handle in small.handles())

    @property
    def _at(self) -> range:
        return range((len(self.data) - len(_MAGIC)) // _ENTRY.size)

    def _entry(self, i: int) -> bytes:
        start = len(_MAGIC) + i * _ENTRY.size
        return self.data[start : start + _ENTRY.size]


def _damaged() -> IntegrityError:
    return IntegrityError("SUBJECT_INDEX", "the index of subjects is damaged", remedy="restore it from a backup")
