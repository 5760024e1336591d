"""Takes a compressed upload apart: gzip, or a zip with one file, streamed to disk under caps.

What the header claims is not believed: bytes are counted as they come out. Nothing is written under a name from the
archive, so a name can at most be refused.
"""

from __future__ import annotations

import gzip
import struct
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO, NoReturn

from audit.prepare.lines import refuse_file

MAX_BYTES = 1 << 30
MAX_RATIO = 200
"""Most bytes out for a byte in; text compresses 3 to 30 times, a bomb a thousand times."""

_FREE_BYTES = 8 << 20  # below this the ratio does not matter
_CHUNK = 1 << 18
_GZIP, _ZIP = b"\x1f\x8b", (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_TAR, _TAR_AT = b"ustar", 257
_MOST_MEMBERS = 16
_END = b"PK\x05\x06"


def plain(dataset: Path, work: Path, max_bytes: int = MAX_BYTES) -> Path:
    """The dataset itself where it is not compressed, else a file in ``work`` with what was in it.

    Raises:
        InvalidInputError: ``ARCHIVE_TOO_LARGE`` (more bytes than allowed, or a ratio that only a bomb has),
            ``ARCHIVE_BROKEN``, ``ARCHIVE_MANY_FILES``, ``ARCHIVE_PATH`` (a name that leads elsewhere, or a link),
            ``ARCHIVE_ENCRYPTED`` or ``ARCHIVE_NESTED``.
    """
    with dataset.open("rb") as stream:
        head = stream.read(_TAR_AT + len(_TAR))
        stream.seek(0)
        if head.endswith(_TAR):
            _many()
        if head.startswith(_GZIP):
            with gzip.GzipFile(fileobj=stream) as inside:
                return _copy(inside, work / "unpacked", dataset.stat().st_size, max_bytes)  # type: ignore[arg-type]
        if not head.startswith(_ZIP):
            return dataset
        _check_directory(dataset)
        try:
            with zipfile.ZipFile(stream) as archive, archive.open(_only_member(archive)) as inside:
                return _copy(inside, work / "unpacked", dataset.stat().st_size, max_bytes)  # type: ignore[arg-type]
        except (zipfile.BadZipFile, NotImplementedError, struct.error, UnicodeDecodeError):
            _broken("zip")


def _copy(inside: BinaryIO, into: Path, packed: int, max_bytes: int) -> Path:
    size = 0
    try:
        with into.open("wb") as out:
            while chunk := inside.read(_CHUNK):
                if not size and (chunk.startswith((_GZIP, *_ZIP)) or chunk[_TAR_AT:].startswith(_TAR)):
                    refuse_file("ARCHIVE_NESTED", "the archive holds an archive", remedy="compress the file once")
                size += len(chunk)
                if size > max_bytes or size > max(_FREE_BYTES, packed * MAX_RATIO):
                    refuse_file(
                        "ARCHIVE_TOO_LARGE",
                        f"the file unpacks to more than {max_bytes} bytes or {MAX_RATIO} times its size",
                        remedy="upload it unpacked, or a sample of it",
                    )
                out.write(chunk)
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile):
        into.unlink(missing_ok=True)
        _broken("compressed")
    except BaseException:
        into.unlink(missing_ok=True)
        raise
    return into


def _check_directory(path: Path) -> None:
    """Refuses a directory of many entries before anything reads it into memory."""
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - 65_557))
        tail = stream.read()
    at = tail.rfind(_END)
    if at < 0 or len(tail) < at + 22:
        _broken("zip")
    entries = struct.unpack_from("<H", tail, at + 10)[0]
    size = struct.unpack_from("<L", tail, at + 12)[0]
    if entries > _MOST_MEMBERS or size > 1 << 20:
        _many()


def _only_member(archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    members = [m for m in archive.infolist() if not m.is_dir()]
    for m in members:
        name = m.orig_filename.replace("\\", "/")
        link = (m.external_attr >> 28) == 0xA
        if link or name.startswith("/") or ":" in name or ".." in name.split("/") or "\x00" in name:
            refuse_file("ARCHIVE_PATH", "an entry's name leads out of the archive", remedy="zip the plain file")
        if m.flag_bits & 1:
            refuse_file("ARCHIVE_ENCRYPTED", "the archive has a password", remedy="zip it without one")
    if len(members) != 1:
        _many()
    return members[0]


def _many() -> NoReturn:
    refuse_file("ARCHIVE_MANY_FILES", "the archive is no zip with exactly one file", remedy="zip the dataset alone")


def _broken(kind: str) -> NoReturn:
    refuse_file("ARCHIVE_BROKEN", f"the {kind} file cannot be unpacked", remedy="make it again, or upload it unpacked")
