"""Evidence that a log told two stories: both signed notes, what was asked of them, and when it was found.

Anybody who holds the log's key can judge the file again: two notes of one size with different roots need nothing else,
and a note of a larger tree that does not grow out of a smaller one is shown by the proof that fails. A file is written
once, whole or not at all, and never changed.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from assay import durable
from assay.errors import AssayError, IntegrityError, InvalidInputError
from audit.ledger import tree
from audit.ledger.note import Checkpoint, SignedNote, Verifier, open_note, read_hash

FORKED, ROLLED_BACK, SPLIT_VIEW, INCONSISTENT = "LOG_FORKED", "LOG_ROLLED_BACK", "SPLIT_VIEW", "INCONSISTENT"
SAME, PREFIX = "SAME", "PREFIX"
STOPPING = (FORKED, ROLLED_BACK, SPLIT_VIEW)
"""Kinds that stop a log; a proof that merely failed does not."""


@dataclass(frozen=True)
class Evidence:
    """Two notes that one log signed and that do not go together.

    Attributes:
        kind: ``LOG_FORKED``, ``LOG_ROLLED_BACK``, ``SPLIT_VIEW`` or ``INCONSISTENT`` (a proof failed; notes of
            different sizes alone do not show whose fault that is).
        origin: the log.
        found: aware time.
        notes: the note known before, and the one that contradicts it.
        proof: hashes of the consistency proof that was offered, if one was.
        remark: what was found, in a sentence.
    """

    kind: str
    origin: str
    found: datetime
    notes: tuple[bytes, bytes]
    proof: tuple[bytes, ...] = ()
    remark: str = ""

    def encode(self) -> bytes:
        """The file's bytes."""
        members = {
            "v": 1,
            "kind": self.kind,
            "origin": self.origin,
            "found": self.found.astimezone(UTC).isoformat(),
            "remark": self.remark,
            "notes": [note.decode("utf-8", "replace") for note in self.notes],
            "proof": [base64.b64encode(value).decode() for value in self.proof],
        }
        return json.dumps(members, indent=1, ensure_ascii=False).encode() + b"\n"

    @classmethod
    def parse(cls, data: bytes) -> Evidence:
        """Reads a file; nothing of it is verified.

        Raises:
            InvalidInputError: ``EVIDENCE_MALFORMED``.
        """
        try:
            members = json.loads(data)
            first, second = members["notes"]
            proof = tuple(read_hash(line, "EVIDENCE_MALFORMED") for line in members["proof"])
            found = datetime.fromisoformat(members["found"])
            kind, origin, remark = (str(members[name]) for name in ("kind", "origin", "remark"))
            if kind not in (*STOPPING, INCONSISTENT):
                raise ValueError(kind)
            return cls(kind, origin, found, (first.encode(), second.encode()), proof, remark)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InvalidInputError("EVIDENCE_MALFORMED", "not a file of fork evidence") from error

    def write(self, folder: Path) -> Path:
        """Writes the evidence once, under a name that follows from both notes; returns where it lies."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        mark = hashlib.sha256(self.notes[0] + b"\0" + self.notes[1]).hexdigest()[:16]
        path = folder / f"{_stem(self.kind)}-{mark}.json"
        if not path.exists():
            durable.write(path, self.encode(), mode=0o600)
        return path


def found_in(folder: Path, kinds: Sequence[str] = STOPPING) -> list[Path]:
    """Files of evidence of these kinds: by default of what stops a log."""
    stems = tuple(map(_stem, kinds))
    return sorted(path for path in folder.glob("*.json") if path.name.startswith(stems))


def _stem(kind: str) -> str:
    """How the names of a kind's files begin."""
    return kind.lower().replace("_", "-")


def compare(first: bytes, second: bytes, logs: Sequence[Verifier], proof: Sequence[bytes] | None = None) -> str:
    """Compares two notes of one log, as two people got them.

    Args:
        first: a note.
        second: another.
        logs: keys of the log; each note must be signed by one of them.
        proof: consistency proof between them, if somebody has it.

    Returns:
        ``SAME`` (one size, one root), ``PREFIX`` (the smaller tree is a prefix of the larger), ``SPLIT_VIEW`` (one
        size, two roots: the log lied to one of them) or ``INCONSISTENT`` (the proof does not hold).

    Raises:
        InvalidInputError: a note is malformed; ``NOTES_OF_TWO_LOGS``; ``PROOF_NEEDED`` when sizes differ and there is
            no proof.
        IntegrityError: ``NOTE_SIGNATURE_BAD``.
    """
    older, newer = sorted((read_head(first, logs), read_head(second, logs)), key=lambda c: c.size)
    if older.origin != newer.origin:
        raise InvalidInputError("NOTES_OF_TWO_LOGS", f"one note is of {older.origin}, the other of {newer.origin}")
    if older.size == newer.size:
        return SAME if older.root == newer.root else SPLIT_VIEW
    if older.size == 0:
        return PREFIX
    if proof is None:
        raise InvalidInputError(
            "PROOF_NEEDED",
            f"the notes are of {older.size} and {newer.size} records; alone they say nothing about each other",
            remedy=f"get a consistency proof from {older.size} to {newer.size}, from the log or a monitor",
        )
    try:
        tree.verify_consistency(older.size, newer.size, older.root, newer.root, proof)
    except IntegrityError:
        return INCONSISTENT
    return PREFIX


def read_head(note: bytes, logs: Sequence[Verifier]) -> Checkpoint:
    """Origin, size and root of a note that one of ``logs`` signed; extension lines are passed over.

    Raises:
        InvalidInputError: ``NOTE_MALFORMED`` or ``CHECKPOINT_MALFORMED``.
        IntegrityError: ``NOTE_SIGNATURE_BAD``.
    """
    return head_of(open_note(note, logs).text)


def head_of(text: str) -> Checkpoint:
    """The first three lines of a checkpoint's text; further lines may follow, but no blank one.

    Raises:
        InvalidInputError: ``CHECKPOINT_MALFORMED``.
    """
    lines = text.split("\n")
    if len(lines) < 4 or lines[-1] or not all(lines[:-1]):
        raise InvalidInputError("CHECKPOINT_MALFORMED", "a checkpoint has origin, size and root, and no blank line")
    return Checkpoint.parse("\n".join([*lines[:3], ""]))


def proves_split(evidence: Evidence, logs: Sequence[Verifier]) -> bool:
    """Tells whether evidence from elsewhere holds by itself: one size, two roots, both signed by the log."""
    try:
        return compare(*evidence.notes, logs) == SPLIT_VIEW
    except AssayError:
        return False


def origin_of(note: bytes) -> str:
    """The origin that a note claims.

    Raises:
        InvalidInputError: ``NOTE_MALFORMED``.
    """
    return SignedNote.parse(note).text.split("\n", 1)[0]
