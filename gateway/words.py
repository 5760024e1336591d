"""What people type freely: kept outside the log, under the key of what it is about, and erased with it.

A record names such words by their commitment alone; a row of the gateway names them by a *reference*, which is opened
for whoever may read the resource. Words that a person signs are committed to on that person's side: the signature
covers the commitment, and the opening travels beside it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sqlalchemy import Connection

from assay.errors import InvalidInputError, NotFoundError
from assay.v1 import identity_pb2, tuning_job_pb2
from audit.ledger import payloads
from audit.ledger.commitment import Opening
from audit.ledger.payloads import ScopeKeys

ERASED_TEXT = "payload erased"
"""Stands where a person's words stood before their erasure."""

_REFERENCE = re.compile(r"words:([0-9a-f]{64})")


def keep(connection: Connection, keys: ScopeKeys, unit: str, scope: str, text: str) -> str:
    """Keeps words within the caller's transaction; returns their commitment.

    Raises:
        PreconditionError: ``SCOPE_ERASED``.
    """
    return payloads.put(connection, keys, unit, scope, text.encode())


def accept(
    connection: Connection, keys: ScopeKeys, unit: str, scope: str, signed: Sequence[tuple[identity_pb2.Opening, str]]
) -> None:
    """Keeps words that a person has signed, each with the commitment that the signature covers.

    Raises:
        InvalidInputError: ``WORDS_MISSING``.
        IntegrityError: ``COMMITMENT_MISMATCH`` or ``COMMITMENT_SALT``: other words than were signed.
        PreconditionError: ``SCOPE_ERASED``.
    """
    for words, commitment in signed:
        found = Opening(words.salt, words.text.encode())
        found.check(commitment)
        if not words.text.strip():
            raise InvalidInputError("WORDS_MISSING", "a reason in words must be given", remedy="pass --reason")
        payloads.keep(connection, keys, unit, scope, found)


def reference(commitment: str) -> str:
    """What a row holds in the place of words."""
    return f"words:{commitment}"


def masked(text: str) -> str:
    """As many characters as the words have, and none of theirs: what policy may ask of words is how long they are.

    Policy's questions, and the messages of rules that fired, are kept and recorded; the words would go with them.
    """
    return "*" * len(text)


def shown(connection: Connection, keys: ScopeKeys, text: str) -> str:
    """A row's text as people read it: words by their reference, or that they were erased; all else as it is."""
    named = _REFERENCE.fullmatch(text)
    if named is None:
        return text
    try:
        return payloads.get(connection, keys, named[1]).payload.decode()
    except NotFoundError:
        return ERASED_TEXT


def show(connection: Connection, keys: ScopeKeys, job: tuning_job_pb2.TuningJob) -> tuning_job_pb2.TuningJob:
    """Opens the words that a job and its transitions refer to, in place."""
    job.reason = shown(connection, keys, job.reason)
    for step in job.transitions:
        step.reason = shown(connection, keys, step.reason)
    return job
