"""A second line on checkpoints that a quantum computer cannot forge: ML-DSA-44 (FIPS 204), beside Ed25519.

Format: c2sp.org/tlog-cosignature, signature type 0x06. That specification has ML-DSA-44 for cosignatures only, and
c2sp.org/tlog-checkpoint lets a log sign with one: the log is then its own cosigner, under its origin as the name. The
signature covers not the note's text but a binary ``cosigned_message`` that holds name, time, origin, size and root,
and comes with its time. Readers who know no such key pass over the line, as they must.
"""

from __future__ import annotations

import base64
import re
import struct
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey

from assay.dsse import from_base64
from assay.errors import IntegrityError, InvalidInputError
from audit.ledger.note import Checkpoint, NoteSignature, SignedNote, check_name, key_id

MLDSA44 = 6
KEY_SIZE, SIGNATURE_SIZE = 1312, 2420

_LABEL = b"subtree/v1\n\0"
_TIME = struct.Struct(">Q")
_RANGE = struct.Struct(">QQ")
_VKEY = re.compile(r"([^+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/]{1751}=)")


@dataclass(frozen=True)
class MLDSAVerifier:
    """A named ML-DSA-44 public key."""

    name: str
    key_id: bytes
    public_key: MLDSA44PublicKey

    @classmethod
    def of(cls, name: str, public_key: MLDSA44PublicKey) -> MLDSAVerifier:
        """Names a key.

        Raises:
            InvalidInputError: ``NOTE_MALFORMED`` for a name that a note or a ``cosigned_message`` cannot carry.
        """
        check_name(name)
        _opaque(name)
        return cls(name, key_id(name, public_key.public_bytes_raw(), MLDSA44), public_key)

    @classmethod
    def parse(cls, vkey: str) -> MLDSAVerifier:
        """Reads ``name+id+base64(0x06 || key)``.

        Raises:
            InvalidInputError: ``VKEY_MALFORMED``.
        """
        match = _VKEY.fullmatch(vkey)
        try:
            if match is not None:
                data = from_base64(match[3])
                verifier = cls.of(match[1], MLDSA44PublicKey.from_public_bytes(data[1:]))
                if data[0] == MLDSA44 and verifier.key_id.hex() == match[2]:
                    return verifier
        except (InvalidInputError, ValueError):
            pass
        raise InvalidInputError("VKEY_MALFORMED", "not an ML-DSA-44 verifier key")

    def vkey(self) -> str:
        """The text form that a trust file holds."""
        key = base64.b64encode(bytes([MLDSA44]) + self.public_key.public_bytes_raw()).decode()
        return f"{self.name}+{self.key_id.hex()}+{key}"

    def open(self, note: SignedNote, checkpoint: Checkpoint) -> datetime | None:
        """Verifies this key's line of a checkpoint; returns its time, or None when there is no such line.

        Raises:
            IntegrityError: ``NOTE_SIGNATURE_BAD`` when the line does not verify or is doubled.
        """
        found = note.by(self.name, self.key_id)
        if found is None:
            return None
        try:
            if len(found.value) != _TIME.size + SIGNATURE_SIZE:
                raise InvalidSignature
            (seconds,) = _TIME.unpack_from(found.value)
            message = cosigned_message(self.name, seconds, checkpoint)
            self.public_key.verify(found.value[_TIME.size :], message)
            return datetime.fromtimestamp(seconds, UTC)
        except (InvalidSignature, OverflowError, OSError, ValueError) as error:
            raise IntegrityError(
                "NOTE_SIGNATURE_BAD", f"the ML-DSA-44 signature of {self.name} does not verify"
            ) from error


def sign_line(checkpoint: Checkpoint, name: str, key: MLDSA44PrivateKey, at: datetime) -> NoteSignature:
    """Signs a checkpoint as the largest tree seen at ``at``.

    Raises:
        InvalidInputError: ``NOTE_MALFORMED`` for a name that a note cannot carry.
    """
    verifier = MLDSAVerifier.of(name, key.public_key())
    seconds = int(at.timestamp())
    signature = key.sign(cosigned_message(name, seconds, checkpoint))
    return NoteSignature(name, verifier.key_id, _TIME.pack(seconds) + signature)


def cosigned_message(name: str, seconds: int, checkpoint: Checkpoint) -> bytes:
    """The signed bytes: ``label || name || timestamp || origin || start = 0 || end = size || root``."""
    head = _LABEL + _opaque(name) + _TIME.pack(seconds) + _opaque(checkpoint.origin)
    return head + _RANGE.pack(0, checkpoint.size) + checkpoint.root


def _opaque(text: str) -> bytes:
    """``opaque<1..2^8-1>`` of RFC 8446: one byte of length, then the text."""
    data = text.encode()
    if not 1 <= len(data) <= 255:
        raise InvalidInputError("NOTE_MALFORMED", "a name in a cosigned message has 1 to 255 bytes")
    return bytes([len(data)]) + data
