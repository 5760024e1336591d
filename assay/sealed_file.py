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

from assay.errors import IntegrityError, InternalError

_MAGIC = b"assay-sealed-file/1\n"
_CHUNK = 1 << 20
_TAG = 16
_SALT = 32


def write(path: Path, head: bytes, body: bytes, key: bytes) -> None:
    """Writes a sealed file, in memory of one chunk beyond head and body.

    Args:
        path: file to make or replace; not synchronised.
        head: short, such as JSON.
        body: of any length.
        key: 32 bytes.

    Raises:
        InternalError: ``WORK_KEY`` for a key of another length.
        OSError: it cannot be written; what is there then is not a whole file.
    """
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
        IntegrityError: ``SEALED_FILE`` when it was changed, cut, or sealed with another key.
        InternalError: ``WORK_KEY``.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise _damaged() from error
    if not raw.startswith(_MAGIC):
        raise _damaged()
    cipher, at = _cipher(key, raw[len(_MAGIC) : len(_MAGIC) + _SALT]), len(_MAGIC) + _SALT
    plain, number = bytearray(), 0
    try:
        while True:
            end = min(at + _CHUNK + _TAG, len(raw))
            plain += cipher.decrypt(_nonce(number, end == len(raw)), raw[at:end], None)
            if end == len(raw):
                break
            at, number = end, number + 1
    except (InvalidTag, ValueError) as error:
        raise _damaged() from error
    (length,) = struct.unpack(">I", plain[:4])
    return bytes(plain[4 : 4 + length]), bytes(plain[4 + length :])


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
    return IntegrityError("SEALED_FILE", "the file was changed, cut, or sealed with another key")
