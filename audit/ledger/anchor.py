"""The anchor: the newest signed checkpoint, kept outside the record database and changed only by compare-and-swap.

A database can be restored from an old copy; the anchor then remembers a larger tree, and the ledger refuses to sign.
It must lie where whoever can roll the database back cannot roll it back too: another file system, host or account.
Embedded default: a file.

Why its flush comes after the commit's and not beside it: were the anchor's write not caused by a durable commit, a
crash could leave the anchor ahead of the database with nobody told; that is what a rollback of an acknowledged batch
looks like too, and no start-up check could tell one from the other. So an acknowledged record costs two flushes, one
after the other. What a crash leaves, by when it came:

- before the commit was durable: both hold checkpoint n, as if the batch had never been. Nobody was told.
- after it and before the anchor's write: the database holds n + 1, the anchor n. The anchor is moved forward.
- within the anchor's write: the same, and the other slot is damaged. The anchor is moved forward; but a damaged slot
  beside a database that is *not* ahead is ``ANCHOR_DAMAGED``, since that write had followed a durable commit.
- after the anchor's write: both hold n + 1, whether anybody was told or not.

While one batch is being anchored the next may commit: the database is then ahead by two, with the same outcomes.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from assay import durable
from assay.errors import IntegrityError, PreconditionError
from audit.ledger.note import MAX_NOTE

SLOT_BYTES = 68 * 1024  # the longest note and its head, in whole pages: no sector belongs to both slots
FILE_BYTES = 2 * SLOT_BYTES
_MAGIC = b"assay anchor 2\n"
_SLOT = re.compile(rb"assay anchor 2\n([0-9]{20})\n([0-9]{6})\n[0-9a-f]{64}\n")


class Anchor(Protocol):
    """Holds one checkpoint note. Errors of the medium are :class:`OSError`; the ledger then stops signing."""

    def read(self) -> bytes | None:
        """The note, or None if none was ever stored."""
        ...

    def interrupted(self) -> bool:
        """Whether a swap was cut off, so that what :meth:`read` gives is the note before it."""
        ...

    def acquire(self) -> None:
        """Takes the anchor for one writer until :meth:`close`; safe to repeat.

        Raises:
            PreconditionError: ``ANCHOR_IN_USE`` while another writer holds it.
        """
        ...

    def swap(self, expected: bytes | None, new: bytes) -> None:
        """Replaces ``expected`` by ``new``, durably before returning.

        Raises:
            IntegrityError: ``ANCHOR_CONFLICT`` when the anchor holds something else.
        """
        ...

    def close(self) -> None:
        """Gives up what it holds; safe to repeat, and the anchor can be used again."""
        ...


@dataclass(frozen=True)
class _State:
    """What an anchor file says.

    Attributes:
        number: of the newest swap, from 0; None for a bare note of an earlier version.
        note: that swap's.
        interrupted: whether the other slot is damaged.
    """

    number: int | None
    note: bytes
    interrupted: bool = False


class FileAnchor:
    """An anchor in a folder: one file of two slots, written in turn, in place, each with its number and checksum.

    A swap overwrites the older slot and flushes once; a write that is cut off leaves the newer one whole. File and
    lock stay open from :meth:`acquire`, or the first swap, until :meth:`close`. A file that holds a bare note, as an
    earlier version wrote it, is read, and replaced at the next swap.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file = directory / "checkpoint"
        self._gate = threading.Lock()
        self._lock = self._fd = -1
        self._state: _State | None = None

    def read(self) -> bytes | None:
        """The note, or None.

        Raises:
            IntegrityError: ``ANCHOR_DAMAGED`` when the file is no anchor.
        """
        state = _read(self._file)
        return None if state is None else state.note

    def interrupted(self) -> bool:
        """Whether a swap was cut off.

        Raises:
            IntegrityError: ``ANCHOR_DAMAGED``.
        """
        state = _read(self._file)
        return state is not None and state.interrupted

    def acquire(self) -> None:
        """Takes lock and file.

        Raises:
            IntegrityError: ``ANCHOR_DAMAGED``.
            PreconditionError: ``ANCHOR_IN_USE``.
        """
        with self._gate:
            try:
                self._acquire()
            except BaseException:
                self._close()
                raise

    def swap(self, expected: bytes | None, new: bytes) -> None:
        """Replaces ``expected`` by ``new``.

        Raises:
            IntegrityError: ``ANCHOR_CONFLICT``, or ``ANCHOR_DAMAGED`` for a file that is no anchor.
            PreconditionError: ``ANCHOR_IN_USE`` while another writer holds the anchor.
        """
        if not new or len(new) > MAX_NOTE:
            raise IntegrityError("ANCHOR_CONFLICT", "what is to be anchored is empty or too long to be a note")
        with self._gate:
            try:
                self._acquire()
                self._swap(expected, new)
            except BaseException:
                # What is on disk is no longer known: the next use reads it again.
                self._close()
                raise

    def close(self) -> None:
        """Gives back lock and file."""
        with self._gate:
            self._close()

    def _acquire(self) -> None:
        if self._lock >= 0:
            return
        fd = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(fd)
            raise PreconditionError("ANCHOR_IN_USE", "another writer holds the anchor") from error
        self._lock = fd
        self._state = _read(self._file)
        if self._state is not None and self._state.number is not None:
            self._fd = os.open(self._file, os.O_RDWR | os.O_DSYNC | os.O_CLOEXEC)

    def _swap(self, expected: bytes | None, new: bytes) -> None:
        state = self._state
        if (None if state is None else state.note) != expected:
            raise _conflict("the anchor holds another checkpoint than expected")
        if state is None or state.number is None:
            self._replace(new)
            return
        held = _slot(state.number, state.note)
        if os.pread(self._fd, len(held), _offset(state.number)) != held or os.fstat(self._fd).st_nlink != 1:
            raise _conflict("the anchor was changed by somebody else")
        number = state.number + 1
        # The end of an older, longer note may stay behind this one: the length says where to stop. The file was opened
        # with O_DSYNC: the write returns once it is durable, a third sooner than with a flush of its own.
        _write(self._fd, _slot(number, new), _offset(number))
        self._state = _State(number, new)

    def _replace(self, note: bytes) -> None:
        """Makes a whole new file, which is there with its first note or not at all."""
        temporary = self._directory / "checkpoint.new"
        self._fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_DSYNC | os.O_CLOEXEC, 0o600)
        _write(self._fd, _slot(0, note).ljust(FILE_BYTES, b"\0"), 0)
        os.fsync(self._fd)
        os.replace(temporary, self._file)
        durable.sync(self._directory)
        self._state = _State(0, note)

    def _close(self) -> None:
        for fd in (self._fd, self._lock):
            if fd >= 0:
                os.close(fd)
        self._fd = self._lock = -1
        self._state = None


def _read(file: Path) -> _State | None:
    """What a file says; None if there is none.

    Raises:
        IntegrityError: ``ANCHOR_DAMAGED``.
    """
    try:
        with file.open("rb") as stream:
            data = stream.read(FILE_BYTES + 1)
    except FileNotFoundError:
        return None
    if len(data) == FILE_BYTES:
        return _read_slots([data[:SLOT_BYTES], data[SLOT_BYTES:]])
    if not data or len(data) > MAX_NOTE or data.startswith(_MAGIC) or _MAGIC.startswith(data):
        raise _damaged("the anchor file is empty, cut short or too long")
    return _State(None, data)


def _read_slots(slots: list[bytes]) -> _State:
    """The newer of two slots. Numbers must follow each other, and a slot is blank only after the very first swap."""
    whole = [state for place, slot in enumerate(slots) if (state := _read_slot(place, slot)) is not None]
    if not whole:
        raise _damaged("neither slot of the anchor file is whole")
    newest = max(whole, key=lambda state: state.number or 0)
    if len(whole) == 2:
        if abs((whole[0].number or 0) - (whole[1].number or 0)) != 1:
            raise _damaged("the two slots of the anchor file do not follow each other")
        return newest
    blank = newest.number == 0 and not slots[1].strip(b"\0")
    return _State(newest.number, newest.note, interrupted=not blank)


def _read_slot(place: int, data: bytes) -> _State | None:
    """A slot that is whole, or None."""
    match = _SLOT.match(data)
    if match is None:
        return None
    number, note = int(match[1]), data[match.end() : match.end() + int(match[2])]
    if number % 2 != place or not note or not data.startswith(_slot(number, note)):
        return None
    return _State(number, note)


def _slot(number: int, note: bytes) -> bytes:
    """The bytes of a slot: a head that people can read, then the note."""
    head = b"%020d\n%06d\n" % (number, len(note))
    return _MAGIC + head + hashlib.sha256(head + note).hexdigest().encode() + b"\n" + note


def _offset(number: int) -> int:
    return number % 2 * SLOT_BYTES


def _write(fd: int, data: bytes, offset: int) -> None:
    if os.pwrite(fd, data, offset) != len(data):
        raise OSError(errno.EIO, "the anchor took only part of a write")


def _conflict(message: str) -> IntegrityError:
    return IntegrityError("ANCHOR_CONFLICT", message)


def _damaged(message: str) -> IntegrityError:
    return IntegrityError("ANCHOR_DAMAGED", message)
