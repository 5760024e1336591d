"""A checkpoint opened by a trust file: the log's key, its ML-DSA-44 line, and the quorum of witnesses.

Bundle, permit and proofs each rest on one checkpoint. What a trust file demands of it is asked here and nowhere else,
so that none of them asks for less than another.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from assay.errors import IntegrityError
from audit.ledger.note import Checkpoint, SignedNote, open_checkpoint
from audit.ledger.quorum import Cosigned
from audit.verify.trust import TrustFile

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
    cosigned = witnessed(note, trust, now)
    left = unnamed(note, trust)
    if cosigned is not None:
        left += uncounted(cosigned)
    else:
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
        IntegrityError: ``COSIGNATURE_BAD`` or ``NOTE_SIGNATURE_BAD`` of a known witness's line, ``QUORUM_NOT_MET``, or
            ``COSIGNATURE_FUTURE`` where only lines of a time more than five minutes ahead would meet it.
    """
    if trust.quorum.asks_nobody:
        return None
    cosigned = trust.quorum.judge(note, now)
    if not cosigned.met:
        who, by = trust.quorum.describe(), f"cosigned by {seen(cosigned.times)}"
        if trust.quorum.met_by([*cosigned.times, *cosigned.ahead]):
            raise IntegrityError("COSIGNATURE_FUTURE", f"{who} must cosign; {by}, and to come {seen(cosigned.ahead)}")
        raise IntegrityError("QUORUM_NOT_MET", f"{who} must cosign; {by}")
    return cosigned


def uncounted(cosigned: Cosigned) -> list[str]:
    """What is to be said of cosignatures that did not count."""
    ahead = f"cosignatures of a time to come, which do not count: {seen(cosigned.ahead)}"
    return [ahead] if cosigned.ahead else []


def seen(times: Mapping[str, datetime]) -> str:
    """Who cosigned, and when."""
    return ", ".join(f"{name} at {time.isoformat()}" for name, time in sorted(times.items())) or "nobody"


def unnamed(note: SignedNote, trust: TrustFile) -> list[str]:
    """What is to be said of the log's further lines, which an older trust file names no key for."""
    known = {verifier.key_id for verifier in (trust.log, trust.log_ml_dsa) if verifier is not None}
    others = [s for s in note.signatures if s.name == trust.origin and s.key_id not in known]
    return [f"{len(others)} more signatures of the log: the trust file names no key for them"] if others else []
