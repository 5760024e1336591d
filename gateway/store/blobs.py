r"""Files, addressed by the SHA-256 of their content and encrypted for one unit.

Each file has a data key of its own. The data key is wrapped under the unit's key, bound to the unit and to the
content's digest, so that a file moved to another unit or another name does not open. The unit's key is derived from
the installation's master key and a salt kept beside the unit's files: removing the salt shreds every file of the
unit, removing a file shreds that one.

File format: ``ASSAYBLOB1\n``, 12-byte nonce and 48 bytes of wrapped data key (AES-256-GCM), then chunks of up to 64
KiB, each AES-256-GCM under the data key with nonce ``counter (11 bytes) || last (1 byte)``: a cut, swapped or added
chunk does not open (the STREAM construction, Hoang, Reyhanitabar, Rogaway, Vizár 2015).
"""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from assay import durable
from assay.errors import AbortedError, IntegrityError, InvalidInputError, NotFoundError
from assay.identity import read_private

_MAGIC = b"ASSAYBLOB1\n"
_SALT = "unit.salt"
_CHUNK = 64 << 10
_COPY = 1 << 20
_TAG = 16
_WRAPPED = 12 + 32 + _TAG
_UNIT = re.compile(r"[a-z][a-z0-9-]{0,30}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Blob:
    """A stored file: hex SHA-256 and size of its content."""

    sha256: str
    size: int


class BlobWriter(Protocol):
    """A file being written; nothing is visible before :meth:`finish`.

    Whoever names the file in a row calls :meth:`seal` before the unit of work and :meth:`finish` in it, so that what is
    refused was never there.
    """

    def write(self, data: bytes) -> None:
        """Adds bytes."""

    def digest(self) -> str:
        """Hex SHA-256 of what was written so far."""

    def seal(self) -> Blob:
        """Makes the file whole and durable, and leaves it invisible; safe to repeat. Nothing more can be written."""

    def finish(self) -> Blob:
        """Makes the file visible, in the place of one with the same content; quick once it is sealed.

        Raises:
            AbortedError: ``WRITE_ABANDONED``.
        """

    def abandon(self) -> None:
        """Drops what was written; harmless after :meth:`finish`."""

    @property
    def visible(self) -> bool:
        """Whether :meth:`finish` was reached, even if it was not survived."""


class BlobStore(Protocol):
    """Where files lie."""

    def writer(self, unit: str) -> BlobWriter:
        """Starts a file of a unit."""

    def open(self, unit: str, sha256: str) -> BinaryIO:
        """Opens a file's content.

        Raises:
            NotFoundError: ``BLOB_MISSING``.
            IntegrityError: ``BLOB_DAMAGED``, at once or while reading.
        """

    def exists(self, unit: str, sha256: str) -> bool:
        """Tells whether a unit has this file."""

    def delete(self, unit: str, sha256: str) -> None:
        """Removes a file, its data key first; a missing file is no error."""

    def mark(self, unit: str, digests: Iterable[str]) -> Path:
        """Notes durably that these files are about to be stored and that nothing names them yet.

        Whoever has named them, or has removed them again, unlinks the note; a crash leaves it to the next start.
        """


def put(store: BlobStore, unit: str, source: BinaryIO) -> Blob:
    """Stores a whole stream."""
    writer = store.writer(unit)
    try:
        while chunk := source.read(_COPY):
            writer.write(chunk)
        return writer.finish()
    finally:
        writer.abandon()


def put_bytes(store: BlobStore, unit: str, data: bytes) -> Blob:
    """Stores bytes."""
    return put(store, unit, io.BytesIO(data))


def read_bytes(store: BlobStore, unit: str, sha256: str) -> bytes:
    """Reads a whole file; for small ones."""
    with store.open(unit, sha256) as stream:
        return stream.read()


def copy_out(store: BlobStore, unit: str, sha256: str, to: Path) -> None:
    """Writes a file's content in the clear to a path where nothing is yet."""
    with store.open(unit, sha256) as source, to.open("xb") as target:
        shutil.copyfileobj(source, target, _COPY)


def read_master_key(path: Path) -> bytes:
    """The 32 secret bytes of ``units.key``.

    Raises:
        InvalidInputError: ``KEY_TYPE``, or what :func:`assay.identity.read_private` raises.
    """
    remedy = "put back the file that `assay init` wrote, or its copy: without it nothing that is stored can be read"
    try:
        key = bytes.fromhex(read_private(path).decode().strip())
    except ValueError as error:
        raise InvalidInputError("KEY_TYPE", f"{path.name} is not hex", remedy=remedy) from error
    if len(key) != 32:
        raise InvalidInputError("KEY_TYPE", f"{path.name} is not 32 bytes", remedy=remedy)
    return key


class FileBlobStore:
    """Files in a local folder."""

    def __init__(self, root: Path, master_key: bytes) -> None:
        """Uses ``root``, which is made if needed, and leaves what is in it alone: another process may use it too.

        Args:
            root: folder for blobs alone.
            master_key: 32 secret bytes kept apart from ``root``.
        """
        if len(master_key) != 32:
            raise IntegrityError("BLOB_KEY", "the master key of the blob store is not 32 bytes")
        self._root = root
        self._master = master_key
        self._scratch = root / "tmp"
        self._marks = root / "unnamed"
        for folder in (self._scratch, self._marks):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def clear_scratch(self) -> None:
        """Removes what interrupted writes and tasks left; for the one process that writes here, before it does."""
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A private folder for plaintext that a sealed task needs; removed afterwards, and at the next start."""
        folder = self._scratch / secrets.token_hex(8)
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def scratch_file(self) -> Path:
        """A fresh name for a file that is not whole yet; what an interrupted write leaves goes at the next start."""
        return self._scratch / secrets.token_hex(16)

    def writer(self, unit: str) -> BlobWriter:
        """See :meth:`BlobStore.writer`."""
        keys = self.unit_keys(unit, create=True)
        return _FileWriter(self.scratch_file(), self.folder(unit), keys, unit)

    def open(self, unit: str, sha256: str) -> BinaryIO:
        """See :meth:`BlobStore.open`."""
        path = self._path(unit, sha256)
        try:
            raw = path.open("rb")
        except FileNotFoundError as error:
            raise _missing() from error
        try:
            reader = _FileReader(raw, self.unit_keys(unit).kek, unit, sha256)
        except BaseException:
            raw.close()
            raise
        return io.BufferedReader(reader, _CHUNK)

    def exists(self, unit: str, sha256: str) -> bool:
        """See :meth:`BlobStore.exists`."""
        try:
            return self._path(unit, sha256).is_file()
        except NotFoundError:
            return False

    def size(self, unit: str, sha256: str) -> int:
        """Bytes that a file takes on disk: those of its content, with a header and tags.

        Raises:
            NotFoundError: ``BLOB_MISSING``.
        """
        try:
            return self._path(unit, sha256).stat().st_size
        except FileNotFoundError as error:
            raise _missing() from error

    def delete(self, unit: str, sha256: str) -> None:
        """See :meth:`BlobStore.delete`."""
        if self.exists(unit, sha256):
            _shred(self._path(unit, sha256))

    def mark(self, unit: str, digests: Iterable[str]) -> Path:
        """See :meth:`BlobStore.mark`."""
        keys, path = self.unit_keys(unit, create=True), self._marks / secrets.token_hex(16)
        note = {"unit": unit, "key": keys.name(""), "names": sorted(map(keys.name, digests))}
        create_durably(path, self.scratch_file(), json.dumps(note).encode())
        return path

    def settle(self, needed: Callable[[str], Iterable[str]]) -> None:
        """Removes marked files that nothing names, and the marks; for the one process that writes here, before it does.

        Args:
            needed: the digests of a unit that something names.
        """
        for mark in sorted(self._marks.iterdir()):
            note = json.loads(mark.read_bytes())
            unit, folder = note["unit"], self.folder(note["unit"])
            if (folder / _SALT).exists():
                keys = self.unit_keys(unit)
                if keys.name("") != note["key"]:
                    continue  # Under a wrong ``units.key`` every file looks unnamed.
                named = set(map(keys.name, needed(unit)))
                for path in (folder / name for name in note["names"] if name not in named):
                    if path.is_file():
                        _shred(path)
            mark.unlink()

    def folder(self, unit: str) -> Path:
        """Where a unit's files lie."""
        if not _UNIT.fullmatch(unit):
            raise IntegrityError("BLOB_NAME", "not a unit")
        return self._root / "units" / unit

    def _path(self, unit: str, sha256: str) -> Path:
        if not _DIGEST.fullmatch(sha256):
            raise IntegrityError("BLOB_NAME", "not a digest")
        return self.folder(unit) / self.unit_keys(unit).name(sha256)

    def unit_keys(self, unit: str, *, create: bool = False) -> UnitKeys:
        """The unit's keys, derived anew; ``create`` makes the unit's salt where there is none.

        Raises:
            NotFoundError: ``BLOB_MISSING`` when the salt is gone.
        """
        folder = self.folder(unit)
        salt_file = folder / _SALT
        if not salt_file.exists():
            if not create:
                raise _missing()
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            create_durably(salt_file, self.scratch_file(), secrets.token_bytes(32))
        # A longer output of HKDF begins with the shorter one: a third key leaves the first two as they were.
        material = HKDF(hashes.SHA256(), 96, salt_file.read_bytes(), b"assay/unit-kek/v1\0" + unit.encode()).derive(
            self._master
        )
        return UnitKeys(material[:32], material[32:64], material[64:])


@dataclass(frozen=True)
class UnitKeys:
    """Wrapping key of a unit, the key under which its file names hide the digests, and that of its data subjects.

    The last makes the handles of :mod:`assay.subjects`; it goes where rows are read, sealed, and nowhere else.
    """

    kek: bytes = field(repr=False)
    name_key: bytes = field(repr=False)
    subject_key: bytes = field(repr=False)

    def name(self, sha256: str) -> str:
        """File name of a digest: keyed, so that a listing does not tell which known file a unit holds."""
        return hmac.new(self.name_key, sha256.encode(), hashlib.sha256).hexdigest()


class _FileWriter:
    """Encrypts into a scratch file; :meth:`finish` renames it into place."""

    _sealed: Blob | None = None
    visible = False

    def __init__(self, scratch: Path, folder: Path, keys: UnitKeys, unit: str) -> None:
        self._scratch, self._folder, self._keys, self._unit = scratch, folder, keys, unit
        self._data_key = AESGCM.generate_key(256)
        self._aead = AESGCM(self._data_key)
        self._digest, self._size, self._count = hashlib.sha256(), 0, 0
        self._pending = bytearray()
        self._stream = os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        self._stream.write(_MAGIC + bytes(_WRAPPED))

    def write(self, data: bytes) -> None:
        """See :class:`BlobWriter`. One full chunk is always kept back, since the last one is marked."""
        self._digest.update(data)
        self._size += len(data)
        self._pending += data
        while len(self._pending) > _CHUNK:
            self._emit(bytes(self._pending[:_CHUNK]), last=False)
            del self._pending[:_CHUNK]

    def digest(self) -> str:
        """See :class:`BlobWriter`."""
        return self._digest.hexdigest()

    def seal(self) -> Blob:
        """See :class:`BlobWriter`."""
        if self._sealed is None:
            self._emit(bytes(self._pending), last=True)
            sha256, nonce = self._digest.hexdigest(), secrets.token_bytes(12)
            wrapped = AESGCM(self._keys.kek).encrypt(nonce, self._data_key, _context(self._unit, sha256))
            self._stream.seek(len(_MAGIC))
            self._stream.write(nonce + wrapped)
            durable.flush(self._stream)
            self._stream.close()
            self._sealed = Blob(sha256, self._size)
        return self._sealed

    def finish(self) -> Blob:
        """See :class:`BlobWriter`."""
        blob, self.visible = self.seal(), True
        try:
            os.replace(self._scratch, self._folder / self._keys.name(blob.sha256))
        except FileNotFoundError as error:
            raise AbortedError("WRITE_ABANDONED", "the file was given up", remedy="send it again") from error
        durable.sync(self._folder)
        return blob

    def abandon(self) -> None:
        """See :class:`BlobWriter`."""
        with suppress(OSError):  # What a full disk would not take need not be written any more.
            self._stream.close()
        self._scratch.unlink(missing_ok=True)

    def _emit(self, chunk: bytes, *, last: bool) -> None:
        self._stream.write(self._aead.encrypt(_nonce(self._count, last), chunk, None))
        self._count += 1


class _FileReader(io.RawIOBase):
    """Decrypts chunk by chunk; bytes are handed on only after their tag was checked."""

    def __init__(self, raw: BinaryIO, kek: bytes, unit: str, sha256: str) -> None:
        self._raw = raw
        header = raw.read(len(_MAGIC) + _WRAPPED)
        if len(header) != len(_MAGIC) + _WRAPPED or not header.startswith(_MAGIC):
            raise _damaged()
        nonce, wrapped = header[len(_MAGIC) : len(_MAGIC) + 12], header[len(_MAGIC) + 12 :]
        try:
            self._aead = AESGCM(AESGCM(kek).decrypt(nonce, wrapped, _context(unit, sha256)))
        except InvalidTag as error:
            raise _damaged() from error
        self._count, self._clear, self._next = 0, b"", raw.read(_CHUNK + _TAG)
        self._ended = False

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: object) -> int:
        """Fills the buffer from the chunk at hand, decrypting the next when it is used up."""
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        while not self._clear and not self._ended:
            self._advance()
        taken = min(len(view), len(self._clear))
        view[:taken] = self._clear[:taken]
        self._clear = self._clear[taken:]
        return taken

    def close(self) -> None:
        """Closes the file beneath."""
        self._raw.close()
        super().close()

    def _advance(self) -> None:
        chunk, self._next = self._next, self._raw.read(_CHUNK + _TAG)
        self._ended = not self._next
        try:
            self._clear = self._aead.decrypt(_nonce(self._count, self._ended), chunk, None)
        except InvalidTag as error:
            raise _damaged() from error
        self._count += 1


def _context(unit: str, sha256: str) -> bytes:
    return b"assay/blob/v1\0" + unit.encode() + b"\0" + sha256.encode()


def _nonce(count: int, last: bool) -> bytes:
    return count.to_bytes(11, "big") + bytes([last])


def _missing() -> NotFoundError:
    return NotFoundError("BLOB_MISSING", "the stored file is gone")


def _damaged() -> IntegrityError:
    return IntegrityError("BLOB_DAMAGED", "a stored file was changed, moved or cut", remedy="restore it from a backup")


def _shred(path: Path) -> None:
    """Removes a file, its data key first."""
    with path.open("r+b") as stream:
        stream.write(bytes(len(_MAGIC) + _WRAPPED))
        durable.flush(stream)
    path.unlink(missing_ok=True)
    durable.sync(path.parent)


def create_durably(path: Path, scratch: Path, data: bytes) -> None:
    """Creates a file whole or not at all; whoever comes second leaves the first one's."""
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(data)
        durable.flush(stream)
    try:
        os.link(scratch, path)
    except FileExistsError:
        pass
    finally:
        scratch.unlink()
    durable.sync(path.parent)
