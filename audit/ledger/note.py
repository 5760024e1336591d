"""C2SP signed notes, checkpoints and offline proof files: strict readers and the one signer.

Formats: c2sp.org/signed-note, c2sp.org/tlog-checkpoint, c2sp.org/tlog-proof@v1. Readers are stricter than Python's
defaults, which take ``007``, ``1_000``, ``+5`` and non-canonical base64. A signature by a known key that does not
verify refuses the whole note; unknown keys are ignored, as the specification demands.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from assay.dsse import from_base64
from assay.errors import AssayError, IntegrityError, InvalidInputError
from audit.ledger.tree import HASH_SIZE, MAX_SIZE

MAX_NOTE = 65_536
MAX_SIGNATURES = 64
ED25519 = 1

_SIGNATURE = re.compile(r"— ([^ \n]+) ([A-Za-z0-9+/]+={0,2})")
_VKEY = re.compile(r"([^+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/]+={0,2})")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
_PROOF_HEADER = "c2sp.org/tlog-proof@v1"


@dataclass(frozen=True)
class Verifier:
    """A named Ed25519 public key; name and id together select it."""

    name: str
    key_id: bytes
    public_key: Ed25519PublicKey

    @classmethod
    def of(cls, name: str, public_key: Ed25519PublicKey) -> Verifier:
        """Names a key.

        Raises:
            InvalidInputError: ``NOTE_MALFORMED`` for a name that a note cannot carry.
        """
        check_name(name)
        raw = public_key.public_bytes_raw()
        return cls(name, key_id(name, raw), public_key)

    @classmethod
    def parse(cls, vkey: str) -> Verifier:
        """Reads ``name+id+base64(type || key)``.

        Raises:
            InvalidInputError: ``VKEY_MALFORMED``.
        """
        match = _VKEY.fullmatch(vkey)
        try:
            if match is not None:
                check_name(match[1])
                data = from_base64(match[3])
                if len(data) == 1 + HASH_SIZE and data[0] == ED25519 and key_id(match[1], data[1:]).hex() == match[2]:
                    return cls(match[1], bytes.fromhex(match[2]), Ed25519PublicKey.from_public_bytes(data[1:]))
        except (AssayError, ValueError):
            pass
        raise InvalidInputError("VKEY_MALFORMED", "not an Ed25519 verifier key")

    def vkey(self) -> str:
        """The text form that a trust file holds."""
        key = base64.b64encode(bytes([ED25519]) + self.public_key.public_bytes_raw()).decode()
        return f"{self.name}+{self.key_id.hex()}+{key}"


@dataclass(frozen=True)
class NoteSignature:
    """One signature line, whatever its type: who is said to have signed, the key's id, and the signature's bytes."""

    name: str
    key_id: bytes
    value: bytes

    def line(self) -> str:
        """The line that a note carries, with its newline."""
        return f"— {self.name} {base64.b64encode(self.key_id + self.value).decode()}\n"


@dataclass(frozen=True)
class SignedNote:
    """A note taken apart, nothing of it verified: the text, and its signature lines in order."""

    text: str
    signatures: tuple[NoteSignature, ...]

    @classmethod
    def parse(cls, data: bytes) -> SignedNote:
        """Reads a note's shape.

        Raises:
            InvalidInputError: ``NOTE_MALFORMED``.
        """
        if len(data) > MAX_NOTE:
            raise InvalidInputError("NOTE_MALFORMED", "the note is too long")
        whole = _decode(data, "NOTE_MALFORMED")
        cut = whole.rfind("\n\n")
        if cut < 0 or not whole.endswith("\n"):
            raise InvalidInputError("NOTE_MALFORMED", "no blank line between text and signatures")
        text = whole[: cut + 1]
        _check_text(text)
        if not 1 <= whole.count("\n", cut + 2) <= MAX_SIGNATURES:
            raise InvalidInputError("NOTE_MALFORMED", f"a note has 1 to {MAX_SIGNATURES} signatures")
        return cls(text, tuple(_signature(line) for line in whole[cut + 2 : -1].split("\n")))

    def encode(self) -> bytes:
        """The note's bytes: exactly those that were parsed."""
        return f"{self.text}\n{''.join(s.line() for s in self.signatures)}".encode()

    def by(self, name: str, identity: bytes) -> NoteSignature | None:
        """The line of a key; None when it has none.

        Raises:
            IntegrityError: ``NOTE_SIGNATURE_BAD`` when it has two.
        """
        found = [s for s in self.signatures if (s.name, s.key_id) == (name, identity)]
        if len(found) > 1:
            raise IntegrityError("NOTE_SIGNATURE_BAD", f"two signatures by {name}")
        return found[0] if found else None


@dataclass(frozen=True)
class Note:
    """A verified note: the text, and the names of the known keys that signed it (at least one)."""

    text: str
    signers: tuple[str, ...]


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint's text says: origin, tree size, root hash (32 bytes)."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """The text that is signed; no extension lines, which nobody could audit."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Reads the text of a checkpoint without extension lines.

        Raises:
            InvalidInputError: ``CHECKPOINT_MALFORMED``.
        """
        lines = text.split("\n")
        if len(lines) != 4 or lines[3] != "" or not lines[0]:
            raise InvalidInputError("CHECKPOINT_MALFORMED", "a checkpoint has origin, size and root, and nothing else")
        return cls(lines[0], read_number(lines[1], "CHECKPOINT_MALFORMED"), read_hash(lines[2], "CHECKPOINT_MALFORMED"))


@dataclass(frozen=True)
class ProofFile:
    """A tlog-proof file: index, inclusion proof, and the checkpoint note that it leads to."""

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes

    def encode(self) -> bytes:
        """The file's bytes."""
        lines = [_PROOF_HEADER, f"index {self.index}", *(base64.b64encode(h).decode() for h in self.hashes), "", ""]
        return "\n".join(lines).encode() + self.checkpoint

    @classmethod
    def parse(cls, data: bytes) -> ProofFile:
        """Reads a proof file; ``extra`` lines are refused, since nothing authenticates them.

        Raises:
            InvalidInputError: ``PROOF_MALFORMED``.
        """
        if len(data) > MAX_NOTE:
            raise InvalidInputError("PROOF_MALFORMED", "the proof file is too long")
        head, separator, checkpoint = data.partition(b"\n\n")
        lines = _decode(head, "PROOF_MALFORMED").split("\n")
        if not separator or lines[0] != _PROOF_HEADER or not 2 <= len(lines) <= 66:
            raise InvalidInputError("PROOF_MALFORMED", "not a proof file of c2sp.org/tlog-proof@v1")
        if not lines[1].startswith("index "):
            raise InvalidInputError("PROOF_MALFORMED", "the second line is not the index")
        index = read_number(lines[1][6:], "PROOF_MALFORMED")
        return cls(index, tuple(read_hash(line, "PROOF_MALFORMED") for line in lines[2:]), checkpoint)


def key_id(name: str, public_raw: bytes, kind: int = ED25519) -> bytes:
    """First four bytes of ``SHA-256(name || LF || signature type || key)``."""
    return hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + public_raw).digest()[:4]


def sign_note(text: str, name: str, key: Ed25519PrivateKey) -> bytes:
    """Signs a text that ends in a newline.

    Raises:
        InvalidInputError: ``NOTE_MALFORMED`` for a text or name that a note cannot carry.
    """
    return sign_note_as(text, Verifier.of(name, key.public_key()), key)


def sign_note_as(text: str, signer: Verifier, key: Ed25519PrivateKey) -> bytes:
    """As :func:`sign_note`, for whoever signs many: ``signer`` is the public half of ``key``, made once.

    Raises:
        InvalidInputError: ``NOTE_MALFORMED`` for a text that a note cannot carry.
    """
    _check_text(text)
    return SignedNote(text, (NoteSignature(signer.name, signer.key_id, key.sign(text.encode())),)).encode()


def open_note(data: bytes, verifiers: Sequence[Verifier]) -> Note:
    """Verifies a note.

    Raises:
        InvalidInputError: ``NOTE_MALFORMED``.
        IntegrityError: ``NOTE_SIGNATURE_BAD`` when a known key's signature is bad or doubled, or no known key signed.
    """
    note = SignedNote.parse(data)
    known = {(v.name, v.key_id): v for v in verifiers}
    signers: list[str] = []
    for signature in note.signatures:
        verifier = known.get((signature.name, signature.key_id))
        if verifier is None:
            continue
        note.by(verifier.name, verifier.key_id)
        try:
            verifier.public_key.verify(signature.value, note.text.encode())
        except InvalidSignature as error:
            raise IntegrityError("NOTE_SIGNATURE_BAD", f"the signature of {verifier.name} does not verify") from error
        signers.append(verifier.name)
    if not signers:
        raise IntegrityError("NOTE_SIGNATURE_BAD", "no known key signed the note")
    return Note(note.text, tuple(signers))


def open_checkpoint(data: bytes, log: Verifier) -> Checkpoint:
    """Verifies a checkpoint note by the log's key and demands that its origin is the key's name.

    Raises:
        InvalidInputError: ``NOTE_MALFORMED`` or ``CHECKPOINT_MALFORMED``.
        IntegrityError: ``NOTE_SIGNATURE_BAD`` or ``CHECKPOINT_ORIGIN``.
    """
    checkpoint = Checkpoint.parse(open_note(data, [log]).text)
    if checkpoint.origin != log.name:
        raise IntegrityError("CHECKPOINT_ORIGIN", "the checkpoint is of another log")
    return checkpoint


def read_number(text: str, reason: str) -> int:
    """Reads a decimal without sign, blank, underscore or leading zero, at most 2**63 - 1.

    Raises:
        InvalidInputError: ``reason``.
    """
    if not _NUMBER.fullmatch(text) or not text.isascii() or int(text) > MAX_SIZE:
        raise InvalidInputError(reason, "not a plain decimal number")
    return int(text)


def read_hash(text: str, reason: str) -> bytes:
    """Reads standard base64 of 32 bytes.

    Raises:
        InvalidInputError: ``reason``.
    """
    try:
        value = from_base64(text)
    except InvalidInputError as error:
        raise InvalidInputError(reason, "a hash is not canonical base64") from error
    if len(value) != HASH_SIZE or "-" in text or "_" in text:
        raise InvalidInputError(reason, "a hash is not standard base64 of 32 bytes")
    return value


def _signature(line: str) -> NoteSignature:
    match = _SIGNATURE.fullmatch(line)
    if match is None:
        raise InvalidInputError("NOTE_MALFORMED", "a signature line is malformed")
    check_name(match[1])
    try:
        value = from_base64(match[2])
    except InvalidInputError as error:
        raise InvalidInputError("NOTE_MALFORMED", "a signature is not canonical base64") from error
    if len(value) < 5:
        raise InvalidInputError("NOTE_MALFORMED", "a signature is too short")
    return NoteSignature(match[1], value[:4], value[4:])


def _decode(data: bytes, reason: str) -> str:
    try:
        text = data.decode("utf-8", "strict")
    except UnicodeDecodeError as error:
        raise InvalidInputError(reason, "not UTF-8") from error
    if _CONTROL.search(text):
        raise InvalidInputError(reason, "a control character")
    return text


def _check_text(text: str) -> None:
    if not text.endswith("\n") or _CONTROL.search(text):
        raise InvalidInputError("NOTE_MALFORMED", "a note's text ends in a newline and has no other control character")


def check_name(name: str) -> None:
    """Demands a name that a signature line can carry.

    Raises:
        InvalidInputError: ``NOTE_MALFORMED``.
    """
    if not name or "+" in name or any(c.isspace() or ord(c) < 0x20 for c in name):
        raise InvalidInputError("NOTE_MALFORMED", "a key name has no blank, no plus sign and is not empty")
