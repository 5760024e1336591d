"""Sealed bundles: files that only one receiver can open and only one sender can have made.

Layout, in order::

    magic "ASYB0001" | u32 length | header (canonical JSON) | chunks | Ed25519 signature (64 bytes)

The header carries an HPKE (RFC 9180: X25519, HKDF-SHA256, AES-256-GCM) encapsulation of a fresh content key. The body
is a STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár 2015): AES-256-GCM chunks whose nonce is ``counter ||
last flag``, with the header's digest as associated data, so that chunks can be neither reordered nor cut off. The
signature covers the digests of header and body. The plaintext is ``u32 length | manifest (canonical JSON) | file
contents in the manifest's order``.

Opening checks the signature over all bytes before anything is decrypted, writes into a temporary folder beside the
target and renames it at the end, so that a bundle is opened whole or not at all. Memory stays bounded by a few chunks.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import secrets
import shutil
import stat
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from assay import canonical
from assay.digests import sha256_bytes, sha256_file
from assay.errors import AssayError, ExhaustedError, IntegrityError, InvalidInputError

MAGIC = b"ASYB0001"
CHUNK = 1 << 16
MAX_HEADER = 4096
MAX_MANIFEST = 16 << 20
MAX_FILES = 10_000
MAX_SEALED = 64 << 30
_TAG = 16
_SIGNATURE = 64
_INFO = b"assay sealed bundle v1"
_SIGNED = b"assay sealed bundle v1 signature\0"
_SUITE_NAME = "X25519-HKDF-SHA256-AES-256-GCM"
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class _Layout:
    """Where things lie in a bundle whose signature has been checked."""

    header: dict[str, Any]
    header_sha256: bytes
    body_start: int
    body_end: int
    body_sha256: bytes


def seal(
    files: Mapping[str, Path | bytes],
    manifest: Mapping[str, Any],
    recipient: X25519PublicKey,
    signer: Ed25519PrivateKey,
    out: BinaryIO,
) -> str:
    """Writes a sealed bundle and returns the hex SHA-256 of its bytes.

    Args:
        files: contents by relative path with forward slashes.
        manifest: canonical-JSON facts of the bundle; ``files`` is filled in here.
        recipient: who can open it.
        signer: who vouches for it.
        out: where the bytes go; on an error the caller throws them away.

    Raises:
        InvalidInputError: ``BUNDLE_PATH`` or ``BUNDLE_FILE`` for a path or file that may not travel.
        IntegrityError: ``BUNDLE_FILE_CHANGED`` when a file changes while it is read.
        ExhaustedError: ``BUNDLE_TOO_LARGE`` for more than any receiver opens.
    """
    names = sorted(files)
    check_paths(names)
    listed = [_describe(name, files[name]) for name in names]
    plain_manifest = canonical.encode({**manifest, "v": 1, "files": listed})
    if len(plain_manifest) > MAX_MANIFEST:
        raise InvalidInputError("BUNDLE_MANIFEST", "the manifest is too large")

    key = AESGCM.generate_key(256)
    header = canonical.encode(
        {
            "v": 1,
            "suite": _SUITE_NAME,
            "chunk": CHUNK,
            "recipient": sha256_bytes(recipient.public_bytes_raw()),
            "signer": sha256_bytes(signer.public_key().public_bytes_raw()),
            "key": base64.b64encode(_suite().encrypt(key, recipient, info=_INFO)).decode(),
        }
    )
    whole, body, room = hashlib.sha256(), hashlib.sha256(), MAX_SEALED

    def write(data: bytes) -> None:
        nonlocal room
        room -= len(data)
        if room < 0:
            raise ExhaustedError("BUNDLE_TOO_LARGE", f"more than {MAX_SEALED} bytes cannot be opened again")
        whole.update(data)
        out.write(data)

    write(MAGIC + struct.pack(">I", len(header)) + header)
    header_sha256 = hashlib.sha256(header).digest()
    plaintext = _plaintext(plain_manifest, listed, files)
    for chunk in _encrypt(plaintext, AESGCM(key), header_sha256):
        body.update(chunk)
        write(chunk)
    write(signer.sign(_SIGNED + header_sha256 + body.digest()))
    return whole.hexdigest()


def read_manifest(
    src: BinaryIO, recipient: X25519PrivateKey, signer: Ed25519PublicKey, *, max_bytes: int
) -> dict[str, Any]:
    """Checks the signature over the whole bundle and returns its manifest, writing nothing.

    Args and errors are those of :func:`unseal`.
    """
    layout = _verify(src, signer, max_bytes)
    reader = _Reader(src, layout, _content_key(layout, recipient))
    return _read_manifest(reader, max_bytes)


def claimed_signer(src: BinaryIO, known: Sequence[Ed25519PublicKey]) -> Ed25519PublicKey:
    """The one of these keys that a bundle names as its signer, else the first: for a sender whose key was replaced.

    Nothing is believed yet, and no bundle is refused here: :func:`unseal` with the key does that. The stream stays
    where it is.
    """
    start = src.tell()
    try:
        named = _parse_header(_header(src)).get("signer")
    except AssayError:
        named = None
    src.seek(start)
    return next((key for key in known if sha256_bytes(key.public_bytes_raw()) == named), known[0])


def unseal(
    src: BinaryIO, recipient: X25519PrivateKey, signer: Ed25519PublicKey, into: Path, *, max_bytes: int
) -> dict[str, Any]:
    """Opens a bundle into a folder that must not exist yet and returns its manifest.

    Args:
        src: a seekable stream at the bundle's first byte.
        recipient: the receiver's key.
        signer: the only sender that is believed.
        into: made by a rename after every byte was checked.
        max_bytes: cap on the sealed bytes and on the files' total size.

    Raises:
        IntegrityError: ``BUNDLE_FORMAT``, ``BUNDLE_SIGNATURE``, ``BUNDLE_BODY`` or ``BUNDLE_FILE_HASH`` for altered
            bytes,
            ``BUNDLE_RECIPIENT`` when it was sealed to another key.
        InvalidInputError: ``BUNDLE_PATH`` for a path that climbs out, repeats or is not plain; ``BUNDLE_MANIFEST``.
        ExhaustedError: ``BUNDLE_TOO_LARGE``.
        AlreadyExistsError: never; an existing ``into`` is ``BUNDLE_TARGET_EXISTS`` (InvalidInputError).
    """
    layout = _verify(src, signer, max_bytes)
    reader = _Reader(src, layout, _content_key(layout, recipient))
    manifest = _read_manifest(reader, max_bytes)
    if into.exists() or into.is_symlink():
        raise InvalidInputError("BUNDLE_TARGET_EXISTS", f"{into.name!r} exists already")
    temporary = into.parent / f".{into.name}.{secrets.token_hex(6)}.part"
    temporary.mkdir(mode=0o700)
    try:
        for entry in manifest["files"]:
            _write_file(reader, entry, temporary)
        reader.finish()
        os.rename(temporary, into)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return manifest


def check_paths(paths: list[str]) -> None:
    """Demands relative, plain, unambiguous paths: no ``..``, no NUL, no twin in case, no file that is also a folder.

    Raises:
        InvalidInputError: ``BUNDLE_PATH``.
    """
    if len(paths) > MAX_FILES:
        raise InvalidInputError("BUNDLE_PATH", f"more than {MAX_FILES} files")
    folded: set[str] = set()
    for path in paths:
        _check_path(path)
        if path.casefold() in folded:
            raise InvalidInputError("BUNDLE_PATH", f"{path!r} appears twice (letter case does not count)")
        folded.add(path.casefold())
    for path in folded:
        if any(parent.as_posix() in folded for parent in PurePosixPath(path).parents):
            raise InvalidInputError("BUNDLE_PATH", f"{path!r} lies under a name that is a file")


def _check_path(path: str) -> None:
    parts = path.split("/")
    plain = (
        0 < len(path) <= 512
        and path.isprintable()
        and "\\" not in path
        and all(0 < len(part.encode("utf-8", "replace")) <= 200 and part not in (".", "..") for part in parts)
    )
    if not plain:
        raise InvalidInputError("BUNDLE_PATH", f"{path[:80]!r} is not a plain relative path inside the bundle")


def _describe(name: str, source: Path | bytes) -> dict[str, Any]:
    if isinstance(source, bytes):
        return {"path": name, "sha256": sha256_bytes(source), "size": len(source)}
    status = source.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise InvalidInputError("BUNDLE_FILE", f"{name!r} is not a plain file")
    return {"path": name, "sha256": sha256_file(source), "size": status.st_size}


def _plaintext(manifest: bytes, listed: list[dict[str, Any]], files: Mapping[str, Path | bytes]) -> Iterator[bytes]:
    yield struct.pack(">I", len(manifest)) + manifest
    for entry in listed:
        source, digest = files[entry["path"]], hashlib.sha256()
        if isinstance(source, bytes):
            yield from (source[i : i + CHUNK] for i in range(0, len(source), CHUNK))
            continue
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            while data := stream.read(CHUNK):
                digest.update(data)
                yield data
        if digest.hexdigest() != entry["sha256"]:
            raise IntegrityError("BUNDLE_FILE_CHANGED", f"{entry['path']!r} changed while it was sealed")


def _encrypt(plaintext: Iterator[bytes], cipher: AESGCM, header_sha256: bytes) -> Iterator[bytes]:
    held, counter = b"", 0
    for data in plaintext:
        held += data
        # A full chunk is held back until more follows: only then is it known not to be the last.
        while len(held) > CHUNK:
            yield cipher.encrypt(_nonce(counter, last=False), held[:CHUNK], header_sha256)
            held, counter = held[CHUNK:], counter + 1
    yield cipher.encrypt(_nonce(counter, last=True), held, header_sha256)


def _nonce(counter: int, *, last: bool) -> bytes:
    # The key is fresh for each bundle, so the counter alone makes nonces unique.
    return struct.pack(">3xQB", counter, last)


def _suite() -> Suite:
    return Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def _verify(src: BinaryIO, signer: Ed25519PublicKey, max_bytes: int) -> _Layout:
    start = src.tell()
    end = src.seek(0, os.SEEK_END)
    src.seek(start)
    if end - start > min(max_bytes, MAX_SEALED):
        raise _too_large("bundle has", min(max_bytes, MAX_SEALED))
    raw = _header(src)
    body_start, body_end = src.tell(), end - _SIGNATURE
    if body_end - body_start < _TAG:
        raise IntegrityError("BUNDLE_FORMAT", "the bundle is cut short")
    body, left = hashlib.sha256(), body_end - body_start
    while left:
        data = _exactly(src.read, min(left, 1 << 20))
        body.update(data)
        left -= len(data)
    header_sha256 = hashlib.sha256(raw).digest()
    try:
        signer.verify(_exactly(src.read, _SIGNATURE), _SIGNED + header_sha256 + body.digest())
    except InvalidSignature as error:
        raise IntegrityError("BUNDLE_SIGNATURE", "the bundle was altered or signed by another sender") from error
    return _Layout(_parse_header(raw), header_sha256, body_start, body_end, body.digest())


def _header(src: BinaryIO) -> bytes:
    if src.read(len(MAGIC)) != MAGIC:
        raise IntegrityError("BUNDLE_FORMAT", "this is not a sealed bundle")
    (length,) = struct.unpack(">I", _exactly(src.read, 4))
    if length > MAX_HEADER:
        raise IntegrityError("BUNDLE_FORMAT", "the header is too long")
    return _exactly(src.read, length)


def _too_large(what: str, most: int) -> ExhaustedError:
    remedy = "send less, or raise the receiver's cap: max_task_bytes of a worker, max_result_bytes of the gateway"
    return ExhaustedError("BUNDLE_TOO_LARGE", f"the {what} more than {most} bytes", remedy=remedy)


def _parse_header(raw: bytes) -> dict[str, Any]:
    header = canonical.decode(raw)
    if not isinstance(header, dict) or header.get("v") != 1 or header.get("suite") != _SUITE_NAME:
        raise IntegrityError("BUNDLE_FORMAT", "unknown version or suite")
    if header.get("chunk") != CHUNK or not isinstance(header.get("key"), str):
        raise IntegrityError("BUNDLE_FORMAT", "unknown chunk size or no key")
    return header


def _content_key(layout: _Layout, recipient: X25519PrivateKey) -> AESGCM:
    if layout.header.get("recipient") != sha256_bytes(recipient.public_key().public_bytes_raw()):
        raise IntegrityError("BUNDLE_RECIPIENT", "the bundle was sealed to another receiver")
    try:
        key = _suite().decrypt(base64.b64decode(layout.header["key"], validate=True), recipient, info=_INFO)
        return AESGCM(key)
    except (InvalidTag, ValueError) as error:
        raise IntegrityError("BUNDLE_RECIPIENT", "the content key does not open with this receiver's key") from error


class _Reader:
    """Decrypts the body chunk by chunk and hands out exact lengths."""

    def __init__(self, src: BinaryIO, layout: _Layout, cipher: AESGCM) -> None:
        self._src = src
        self._layout = layout
        self._cipher = cipher
        self._left = layout.body_end - layout.body_start
        self._body = hashlib.sha256()
        self._counter = 0
        self._held = b""
        src.seek(layout.body_start)

    def read(self, size: int) -> bytes:
        """Returns up to ``size`` bytes; empty only at the end of the plaintext."""
        if not self._held and self._left:
            self._held = self._next()
        data, self._held = self._held[:size], self._held[size:]
        return data

    def finish(self) -> None:
        """Demands that nothing is left over and that the bytes were those that the signature covers."""
        if self._held or self._left:
            raise IntegrityError("BUNDLE_BODY", "bytes follow the last file")
        if self._body.digest() != self._layout.body_sha256:
            raise IntegrityError("BUNDLE_BODY", "the bundle changed while it was read")

    def _next(self) -> bytes:
        sealed = _exactly(self._src.read, min(self._left, CHUNK + _TAG))
        self._left -= len(sealed)
        self._body.update(sealed)
        nonce = _nonce(self._counter, last=self._left == 0)
        self._counter += 1
        try:
            return self._cipher.decrypt(nonce, sealed, self._layout.header_sha256)
        except InvalidTag as error:
            raise IntegrityError("BUNDLE_BODY", "a chunk does not decrypt") from error


def _read_manifest(reader: _Reader, max_bytes: int) -> dict[str, Any]:
    (length,) = struct.unpack(">I", _gather(reader, 4))
    if length > MAX_MANIFEST:
        raise InvalidInputError("BUNDLE_MANIFEST", "the manifest is too large")
    manifest = canonical.decode(_gather(reader, length))
    if not isinstance(manifest, dict) or manifest.get("v") != 1 or not isinstance(manifest.get("files"), list):
        raise InvalidInputError("BUNDLE_MANIFEST", "the manifest is not of a known version")
    total = 0
    for entry in manifest["files"]:
        if not isinstance(entry, dict) or set(entry) != {"path", "sha256", "size"}:
            raise InvalidInputError("BUNDLE_MANIFEST", "a file entry has other fields than path, sha256 and size")
        path, sha256, size = entry["path"], entry["sha256"], entry["size"]
        if not isinstance(path, str) or not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
            raise InvalidInputError("BUNDLE_MANIFEST", "a file entry is malformed")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise InvalidInputError("BUNDLE_MANIFEST", "a file entry has no proper size")
        total += size
    check_paths([entry["path"] for entry in manifest["files"]])
    if total > max_bytes:
        raise _too_large("files have", max_bytes)
    return manifest


def _write_file(reader: _Reader, entry: Mapping[str, Any], folder: Path) -> None:
    target = folder / entry["path"]
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    digest, left = hashlib.sha256(), entry["size"]
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    with os.fdopen(descriptor, "wb") as stream:
        while left:
            data = reader.read(min(left, CHUNK))
            if not data:
                raise IntegrityError("BUNDLE_BODY", "the bundle ends before its last file")
            digest.update(data)
            stream.write(data)
            left -= len(data)
    if digest.hexdigest() != entry["sha256"]:
        raise IntegrityError("BUNDLE_FILE_HASH", f"{entry['path']!r} does not have the digest that the manifest names")


def _gather(reader: _Reader, size: int) -> bytes:
    parts, left = [], size
    while left:
        data = reader.read(left)
        if not data:
            raise IntegrityError("BUNDLE_BODY", "the bundle ends within its manifest")
        parts.append(data)
        left -= len(data)
    return b"".join(parts)


def _exactly(read: Callable[[int], bytes], size: int) -> bytes:
    data = read(size)
    if len(data) != size:
        raise IntegrityError("BUNDLE_FORMAT", "the bundle is cut short")
    return data
