"""What signs the log's checkpoints: the Ed25519 key always, and an ML-DSA-44 key beside it where one is set."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from audit.ledger import mldsa
from audit.ledger.note import Checkpoint, SignedNote, Verifier, sign_note_as


@dataclass(frozen=True)
class LogSigner:
    """The log's keys, under the log's origin as their name.

    Attributes:
        origin: name of the log.
        key: signs every checkpoint; every reader of C2SP notes knows its type.
        post_quantum: signs a second line; None for none.
    """

    origin: str
    key: Ed25519PrivateKey
    post_quantum: MLDSA44PrivateKey | None = None

    @cached_property
    def verifier(self) -> Verifier:
        """What others check the first line with."""
        return Verifier.of(self.origin, self.key.public_key())

    def sign(self, checkpoint: Checkpoint, at: datetime) -> bytes:
        """The signed checkpoint; ``at`` stands in the second line, since the first has no time.

        Raises:
            InvalidInputError: ``NOTE_MALFORMED`` for an origin that a note cannot carry.
        """
        note = sign_note_as(checkpoint.text(), self.verifier, self.key)
        if self.post_quantum is None:
            return note
        signed = SignedNote.parse(note)
        line = mldsa.sign_line(checkpoint, self.origin, self.post_quantum, at)
        return SignedNote(signed.text, (*signed.signatures, line)).encode()
