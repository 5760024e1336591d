"""A file that only the holder of one symmetric key can read or change: what a worker keeps between attempts of a task.

Layout: magic, 32 random bytes, then chunks of at most 1 MiB, each sealed with AES-256-GCM under a key that HMAC-SHA256
makes of the given key and the random bytes. A chunk's nonce is its number and whether it is the last, so that none
can be left out, repeated or moved. The plaintext is the length of a head, the head, and a body.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from assay.errors import ExhaustedError, IntegrityError, InternalError

_MAGIC = b"assay-sealed-file/1\n"
_CHUNK = 1 << 20
_TAG = 16
_SALT = 32
MAX_HEAD = 64 << 20
"""Bytes of the longest head: the curve of two million steps. A reader holds it whole, whoever wrote it."""


def write(path: Path, head: bytes, body: bytes, key: bytes) -> None:
    """Writes a sealed file, in memory of one chunk beyond head and body.

    Args:
        path: file to make or replace; not synchronised.
        head: short, such as JSON; at most :data:`MAX_HEAD` bytes.
        body: of any length.
        key: 32 bytes.

    Raises:
        ExhaustedError: ``SEALED_FILE_HEAD`` for a longer head; nothing is written.
        InternalError: ``WORK_KEY`` for a key of another length.
        OSError: it cannot be written; what is there then is not a whole file.
    """
    if len(head) > MAX_HEAD:
        raise ExhaustedError(
            "SEALED_FILE_HEAD",
            f"what a checkpoint tells of its run has more than {MAX_HEAD} bytes",
            remedy="ask for fewer steps: larger batches, or fewer passes over the rows",
        )
    salt = os.urandom(_SALT)
    cipher = _cipher(key, salt)
    start = struct.pack(">I", len(head)) + head
    with path.open("wb") as stream:
        stream.write(_MAGIC + salt)
        for number, (chunk, last) in enumerate(_chunks(start, body)):
            stream.write(cipher.encrypt(_nonce(number, last), chunk, None))


def read(path: Path, key: bytes) -> tuple[bytes, bytes]:
    """Returns head and body.

    Raises:
        IntegrityError: ``SEALED_FILE`` when it was changed, cut, sealed with another key, or has too long a head.
        InternalError: ``WORK_KEY``.
        OSError: it cannot be read, which says nothing of what it holds.
    """
    plain = bytearray().join(_opened(path, key))
    end = _end_of_head(plain)
    if len(plain) < end:
        raise _damaged()
    return bytes(plain[4:end]), bytes(plain[end:])


def head(path: Path, key: bytes) -> bytes:
    """Returns the head of a file that is whole to its last byte, in memory of the head and one chunk.

    Raises:
        IntegrityError: ``SEALED_FILE``, as :func:`read`.
        InternalError: ``WORK_KEY``.
        OSError: as :func:`read`.
    """
    plain, wanted = bytearray(), 4
    for chunk in _opened(path, key):
        if len(plain) < wanted:
            plain += chunk
            wanted = _end_of_head(plain)
    if len(plain) < wanted:
        raise _damaged()
    return bytes(memoryview(plain)[4:wanted])


def _end_of_head(plain: bytearray) -> int:
    """Where the head ends, by the length that the plaintext begins with."""
    (length,) = struct.unpack(">I", plain[:4])
    if length > MAX_HEAD:
        raise _damaged()
    return int(4 + length)


def _opened(path: Path, key: bytes) -> Iterator[bytes]:
    """The plaintext, chunk by chunk, at least four bytes in the first; what was yielded counts once all of it came."""
    try:
        with path.open("rb") as stream:
            if stream.read(len(_MAGIC)) != _MAGIC:
                raise _damaged()
            cipher, number, sealed = _cipher(key, stream.read(_SALT)), 0, stream.read(_CHUNK + _TAG)
            while True:
                following = stream.read(_CHUNK + _TAG)
                chunk = cipher.decrypt(_nonce(number, not following), sealed, None)
                if number == 0 and len(chunk) < 4:
                    raise _damaged()
                yield chunk
                if not following:
                    return
                number, sealed = number + 1, following
    except (InvalidTag, ValueError) as error:
        raise _damaged() from error


def _chunks(start: bytes, body: bytes) -> Iterator[tuple[bytes, bool]]:
    view, size = memoryview(body), len(start) + len(body)
    for at in range(0, size, _CHUNK):
        end = min(at + _CHUNK, size)
        begun = start[at:end]
        rest = view[max(0, at - len(start)) : max(0, end - len(start))]
        yield begun + bytes(rest), end == size


def _cipher(key: bytes, salt: bytes) -> AESGCM:
    if len(key) != 32:
        raise InternalError("WORK_KEY", "the task has no key of 32 bytes to seal its work with")
    return AESGCM(hmac.new(key, salt, hashlib.sha256).digest())


def _nonce(number: int, last: bool) -> bytes:
    return struct.pack(">QI", number, int(last))


def _damaged() -> IntegrityError:
    return IntegrityError("SEALED_FILE", "the file was changed, cut, sealed with another key, or has too long a head")
