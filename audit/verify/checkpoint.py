"""A checkpoint opened by a trust file: the log's key, its ML-DSA-44 line, and the quorum of witnesses.

Bundle, permit and proofs each rest on one checkpoint. What a trust file demands of it is asked here and nowhere else,
so that none of them asks for less than another.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from assay.errors import IntegrityError
from audit.ledger.note import Checkpoint, SignedNote, open_checkpoint
from audit.ledger.quorum import Cosigned
from audit.verify.trust import TrustFile

CLOCK_SKEW = timedelta(minutes=5)
NOT_THERE = ("POST_QUANTUM_MISSING", "QUORUM_NOT_MET")
"""Reasons that say that something is missing; the others, that something is false."""


def open_trusted(data: bytes, trust: TrustFile, now: datetime) -> tuple[Checkpoint, list[str]]:
    """Verifies a checkpoint by everything that a trust file demands of it.

    Args:
        data: the signed note.
        trust: whom to believe.
        now: aware time, which no cosignature may be ahead of.

    Returns:
        The checkpoint, and what the trust file leaves unasked of it or only a bundle can show.

    Raises:
        InvalidInputError: ``NOTE_MALFORMED`` or ``CHECKPOINT_MALFORMED``.
        IntegrityError: ``NOTE_SIGNATURE_BAD``, ``CHECKPOINT_ORIGIN``, or what :func:`post_quantum` and
            :func:`witnessed` say.
    """
    checkpoint, note = open_checkpoint(data, trust.log), SignedNote.parse(data)
    post_quantum(note, trust)
    witnessed(note, trust, now)
    left = unnamed(note, trust)
    if trust.quorum.asks_nobody:
        left.append("that others were shown the same log: the trust file says `quorum none`")
    if trust.tsa is not None:
        left.append("time stamps (tsa): they come with evidence bundles alone")
    if trust.max_age is not None:
        left.append("the checkpoint's age (max-age): that is asked of evidence bundles alone")
    return checkpoint, left


def post_quantum(note: SignedNote, trust: TrustFile) -> datetime | None:
    """Demands the log's ML-DSA-44 line where the trust file names a key for it; returns its time, None for no key.

    Raises:
        IntegrityError: ``NOTE_SIGNATURE_BAD``, or ``POST_QUANTUM_MISSING`` without such a line.
    """
    if trust.log_ml_dsa is None:
        return None
    time = trust.log_ml_dsa.open(note, Checkpoint.parse(note.text))
    if time is None:
        raise IntegrityError("POST_QUANTUM_MISSING", "the checkpoint has no line of the key that the trust file names")
    return time


def witnessed(note: SignedNote, trust: TrustFile, now: datetime) -> Cosigned | None:
    """Demands the quorum of the trust file; returns what it makes of the note, None where it asks for nobody.

    Raises:
        IntegrityError: ``COSIGNATURE_BAD`` or ``NOTE_SIGNATURE_BAD`` of a known witness's line, ``COSIGNATURE_FUTURE``
            for one of a time more than five minutes ahead, ``QUORUM_NOT_MET``.
    """
    if trust.quorum.asks_nobody:
        return None
    cosigned = trust.quorum.judge(note)
    if any(time > now + CLOCK_SKEW for time in cosigned.times.values()):
        raise IntegrityError("COSIGNATURE_FUTURE", f"cosigned by {seen(cosigned)}")
    if not cosigned.met:
        message = f"{trust.quorum.describe()} must cosign; cosigned by {seen(cosigned)}"
        raise IntegrityError("QUORUM_NOT_MET", message)
    return cosigned


def seen(cosigned: Cosigned) -> str:
    """Who cosigned, and when."""
    return ", ".join(f"{name} at {time.isoformat()}" for name, time in sorted(cosigned.times.items())) or "nobody"


def unnamed(note: SignedNote, trust: TrustFile) -> list[str]:
    """What is to be said of the log's further lines, which an older trust file names no key for."""
    known = {verifier.key_id for verifier in (trust.log, trust.log_ml_dsa) if verifier is not None}
    others = [s for s in note.signatures if s.name == trust.origin and s.key_id not in known]
    return [f"{len(others)} more signatures of the log: the trust file names no key for them"] if others else []
