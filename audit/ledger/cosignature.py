"""Cosignatures: a witness's word, with its time, that a checkpoint extends every one that it has seen of the log.

Format: c2sp.org/tlog-cosignature, Ed25519 (signature type 0x04). What is signed is ``cosignature/v1``, the time and the
checkpoint's whole text; the signature line carries eight bytes of time before the signature. The text names no
cosigner, so that a key belongs to one witness and to no other role.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from assay.dsse import from_base64
from assay.errors import AssayError, IntegrityError, InvalidInputError
from audit.ledger.note import NoteSignature, SignedNote, check_name, key_id

COSIGNATURE = 4
# How far ahead of ours another machine's clock may be; what it signed with a later time does not count yet.
CLOCK_SKEW = timedelta(minutes=5)
_KEY_SIZE, _SIGNATURE_SIZE = 32, 64
_TIME = struct.Struct(">Q")
_VKEY = re.compile(r"([^+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/]{44})")
# The last second that datetime can hold; a time after it is nonsense, and a signature over nonsense is refused.
_LAST_SECOND = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp())


@dataclass(frozen=True)
class CosignatureVerifier:
    """A witness's named Ed25519 public key; name and id together select its line."""

    name: str
    key_id: bytes
    public_key: Ed25519PublicKey

    @classmethod
    def of(cls, name: str, public_key: Ed25519PublicKey) -> CosignatureVerifier:
        """Names a key.

        Raises:
            InvalidInputError: ``NOTE_MALFORMED`` for a name that a note cannot carry.
        """
        check_name(name)
        return cls(name, key_id(name, public_key.public_bytes_raw(), COSIGNATURE), public_key)

    @classmethod
    def parse(cls, vkey: str) -> CosignatureVerifier:
        """Reads ``name+id+base64(0x04 || key)``; a log's key (type 0x01) is no witness's key.

        Raises:
            InvalidInputError: ``VKEY_MALFORMED``.
        """
        match = _VKEY.fullmatch(vkey)
        try:
            if match is not None:
                data = from_base64(match[3])
                if len(data) == 1 + _KEY_SIZE and data[0] == COSIGNATURE:
                    verifier = cls.of(match[1], Ed25519PublicKey.from_public_bytes(data[1:]))
                    if verifier.key_id.hex() == match[2]:
                        return verifier
        except (AssayError, ValueError):
            pass
        raise InvalidInputError("VKEY_MALFORMED", "not a verifier key of an Ed25519 cosigner")

    def vkey(self) -> str:
        """The text form that a policy holds."""
        key = base64.b64encode(bytes([COSIGNATURE]) + self.public_key.public_bytes_raw()).decode()
        return f"{self.name}+{self.key_id.hex()}+{key}"

    def open(self, note: SignedNote) -> datetime | None:
        """Verifies this witness's line of a checkpoint; returns its time, or None when there is no such line.

        Raises:
            IntegrityError: ``COSIGNATURE_BAD`` when the line does not verify or has no sensible time;
                ``NOTE_SIGNATURE_BAD`` when there are two.
        """
        found = note.by(self.name, self.key_id)
        if found is None:
            return None
        try:
            if len(found.value) != _TIME.size + _SIGNATURE_SIZE:
                raise InvalidSignature
            (seconds,) = _TIME.unpack_from(found.value)
            if not 0 < seconds <= _LAST_SECOND:
                raise InvalidSignature
            self.public_key.verify(found.value[_TIME.size :], cosigned_text(note.text, seconds))
        except InvalidSignature as error:
            raise IntegrityError("COSIGNATURE_BAD", f"the cosignature of {self.name} does not verify") from error
        return datetime.fromtimestamp(seconds, UTC)


def cosign(text: str, name: str, key: Ed25519PrivateKey, at: datetime) -> NoteSignature:
    """Signs a checkpoint's text as the largest tree seen at ``at``.

    Raises:
        InvalidInputError: ``NOTE_MALFORMED`` for a name that a note cannot carry.
    """
    seconds = int(at.timestamp())
    identity = CosignatureVerifier.of(name, key.public_key()).key_id
    return NoteSignature(name, identity, _TIME.pack(seconds) + key.sign(cosigned_text(text, seconds)))


def cosigned_text(text: str, seconds: int) -> bytes:
    """The signed bytes: header line, time line, then the note's text with its final newline."""
    return f"cosignature/v1\ntime {seconds}\n{text}".encode()


def with_lines(note: SignedNote, lines: Sequence[NoteSignature]) -> SignedNote:
    """The note with further signature lines; a line of the same name and key replaces the older one."""
    fresh = {(line.name, line.key_id) for line in lines}
    kept = [line for line in note.signatures if (line.name, line.key_id) not in fresh]
    return SignedNote(note.text, (*kept, *lines))


def read_lines(text: str, data: bytes) -> tuple[NoteSignature, ...]:
    """Reads the signature lines of a witness's answer about a note of this ``text``; nothing is verified.

    Raises:
        InvalidInputError: ``NOTE_MALFORMED``.
    """
    return SignedNote.parse(text.encode() + b"\n" + data).signatures
