"""The anchor: the newest signed checkpoint, kept outside the record database and changed only by compare-and-swap.

A database can be restored from an old copy; the anchor then remembers a larger tree, and the ledger refuses to sign.
It must lie where whoever can roll the database back cannot roll it back too: another file system, host or account.
Embedded default: a file.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from assay.errors import IntegrityError
from audit.ledger.note import MAX_NOTE


class Anchor(Protocol):
    """Holds one checkpoint note. Errors of the medium are :class:`OSError`; the ledger then stops signing."""

    def read(self) -> bytes | None:
        """The note, or None if none was ever stored."""
        ...

    def swap(self, expected: bytes | None, new: bytes) -> None:
        """Replaces ``expected`` by ``new``, durably before returning.

        Raises:
            IntegrityError: ``ANCHOR_CONFLICT`` when the anchor holds something else.
        """
        ...


class FileAnchor:
    """An anchor in a folder: one file, replaced by rename under a lock, flushed with its folder."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file = directory / "checkpoint"

    def read(self) -> bytes | None:
        """The note, or None.

        Raises:
            IntegrityError: ``ANCHOR_DAMAGED`` when the file is too long to be a note.
        """
        try:
            with self._file.open("rb") as stream:
                data = stream.read(MAX_NOTE + 1)
        except FileNotFoundError:
            return None
        if not data or len(data) > MAX_NOTE:
            raise IntegrityError("ANCHOR_DAMAGED", "the anchor file is empty or too long")
        return data

    def swap(self, expected: bytes | None, new: bytes) -> None:
        """Replaces ``expected`` by ``new``.

        Raises:
            IntegrityError: ``ANCHOR_CONFLICT``.
        """
        with self._locked():
            if self.read() != expected:
                raise IntegrityError("ANCHOR_CONFLICT", "the anchor holds another checkpoint than expected")
            temporary = self._directory / "checkpoint.new"
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as stream:
                stream.write(new)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, self._file)
            self._flush_directory()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fd = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _flush_directory(self) -> None:
        fd = os.open(self._directory, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
