"""Payloads outside the log: encrypted, found by their commitment, and erasable while every record stays.

A payload belongs to a *scope*, the resource name whose erasure takes it away: a job, a dataset, or a data subject's
keyed handle. Salt and payload are sealed together (AES-256-GCM) under the scope's data key, which lies outside the
database, wrapped by the unit's key: destroying the one data key makes every payload and salt of the scope unreadable,
also in copies of the database. ``log_payload`` is no part of the tree, and the one table here that rows leave.
"""

from __future__ import annotations

import secrets
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Column, Connection, Index, LargeBinary, MetaData, String, Table, delete, insert, select

from assay.errors import IntegrityError, InvalidInputError, NotFoundError
from audit.ledger.commitment import SALT_SIZE, Opening

MAX_PAYLOAD = 1 << 20
PAYLOADS = Table(
    "log_payload",
    MetaData(),
    Column("commitment", String(64), primary_key=True),
    Column("unit", String(31), nullable=False),
    Column("scope", String(160), nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Index("log_payload_scope", "unit", "scope"),
)

_NONCE = 12


class ScopeKeys(Protocol):
    """Where the data keys of scopes lie; outside the database."""

    def create(self, unit: str, scope: str) -> bytes:
        """The scope's key of 32 bytes, made and durable when it was not there.

        Raises:
            PreconditionError: ``SCOPE_ERASED`` when it was destroyed before.
        """

    def get(self, unit: str, scope: str) -> bytes:
        """The scope's key.

        Raises:
            NotFoundError: ``PAYLOAD_ERASED`` when there is none.
            IntegrityError: ``SCOPE_KEY_DAMAGED``.
        """

    def destroy(self, unit: str, scope: str) -> bool:
        """Makes the key unreadable for good; True when there was one. Safe to repeat."""


def put(connection: Connection, keys: ScopeKeys, unit: str, scope: str, payload: bytes) -> str:
    """Stores a payload within the caller's transaction; returns its commitment, for the record.

    Raises:
        InvalidInputError: ``PAYLOAD_TOO_LARGE``.
        PreconditionError: ``SCOPE_ERASED``.
    """
    return keep(connection, keys, unit, scope, Opening(secrets.token_bytes(SALT_SIZE), payload))


def keep(connection: Connection, keys: ScopeKeys, unit: str, scope: str, opening: Opening) -> str:
    """As :func:`put`, for a payload that somebody else has salted; the same again in its scope changes nothing.

    Raises:
        InvalidInputError: ``PAYLOAD_TOO_LARGE``, or ``PAYLOAD_ELSEWHERE`` for an opening that another scope holds.
        IntegrityError: ``COMMITMENT_SALT``.
        PreconditionError: ``SCOPE_ERASED``.
    """
    if len(opening.payload) > MAX_PAYLOAD:
        raise InvalidInputError("PAYLOAD_TOO_LARGE", f"a payload has at most {MAX_PAYLOAD} bytes")
    commitment, nonce = opening.commitment(), secrets.token_bytes(_NONCE)
    held = connection.execute(select(PAYLOADS).where(PAYLOADS.c.commitment == commitment)).one_or_none()
    if held is not None:
        if (held.unit, held.scope) != (unit, scope):
            raise InvalidInputError("PAYLOAD_ELSEWHERE", "these words, with this salt, are kept for another resource")
        return commitment
    sealed = AESGCM(keys.create(unit, scope)).encrypt(
        nonce, opening.salt + opening.payload, _context(unit, scope, commitment)
    )
    row = {"commitment": commitment, "unit": unit, "scope": scope, "sealed": nonce + sealed}
    connection.execute(insert(PAYLOADS).values(**row))
    return commitment


def get(connection: Connection, keys: ScopeKeys, commitment: str) -> Opening:
    """Reads a payload and demands that it opens its commitment.

    Raises:
        NotFoundError: ``PAYLOAD_ERASED`` when its row or its scope's key is gone.
        IntegrityError: ``PAYLOAD_DAMAGED``, or ``SCOPE_KEY_DAMAGED``.
    """
    row = connection.execute(select(PAYLOADS).where(PAYLOADS.c.commitment == commitment)).one_or_none()
    if row is None:
        raise NotFoundError("PAYLOAD_ERASED", "the payload is gone; its record and proofs stand")
    sealed = bytes(row.sealed)
    try:
        clear = AESGCM(keys.get(row.unit, row.scope)).decrypt(
            sealed[:_NONCE], sealed[_NONCE:], _context(row.unit, row.scope, commitment)
        )
        opening = Opening(clear[:SALT_SIZE], clear[SALT_SIZE:])
        opening.check(commitment)
    except (InvalidTag, ValueError) as error:
        raise IntegrityError("PAYLOAD_DAMAGED", "a payload was changed or moved to another place") from error
    return opening


def commitments(connection: Connection, unit: str, scope: str) -> list[str]:
    """The commitments of a scope's payloads, sorted."""
    query = select(PAYLOADS.c.commitment).where(PAYLOADS.c.unit == unit, PAYLOADS.c.scope == scope)
    return sorted(connection.execute(query).scalars())


def shred(connection: Connection, keys: ScopeKeys, unit: str, scope: str) -> list[str]:
    """Destroys the scope's key, at once and for good, and removes its payloads within the caller's transaction.

    Safe to repeat: what a crash left, or a restored copy brought back, goes with the next call.

    Returns:
        The commitments whose payloads were there.
    """
    found = commitments(connection, unit, scope)
    keys.destroy(unit, scope)
    connection.execute(delete(PAYLOADS).where(PAYLOADS.c.unit == unit, PAYLOADS.c.scope == scope))
    return found


def _context(unit: str, scope: str, commitment: str) -> bytes:
    return b"\0".join((b"assay/payload/v1", unit.encode(), scope.encode(), commitment.encode()))
