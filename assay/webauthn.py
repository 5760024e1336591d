"""A person's signature made by a WebAuthn authenticator: the assertion's challenge is the digest of what is signed.

An authenticator signs ``authenticatorData || SHA-256(clientDataJSON)`` (WebAuthn Level 2, 6.3.3), and the client data
carries the challenge. Here that is SHA-256 of the DSSE pre-authentication encoding, so that an assertion is for one
statement and no other. The relying party, to which the authenticator and the browser tied the assertion, is given
from outside: a verifier that is told none accepts no assertion.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from assay.errors import IntegrityError, InvalidInputError

SCHEME = "webauthn"
MAX_CLIENT_DATA = 4096
MAX_AUTHENTICATOR_DATA = 4096

_PRESENT, _VERIFIED, _EXTENDED = 0x01, 0x04, 0x80
_FIXED = 37
_ORIGIN = re.compile(r"https://(?P<host>[a-z0-9-]+(\.[a-z0-9-]+)*)(:[1-9][0-9]{0,4})?")


@dataclass(frozen=True)
class RelyingParty:
    """For whom assertions must have been made: the exact origin, and the id whose digest the authenticator signed."""

    origin: str
    identifier: str

    @classmethod
    def parse(cls, origin: str, identifier: str = "") -> RelyingParty:
        """Reads an origin and an id, which is the origin's host or a parent domain of it; by default the host.

        Raises:
            InvalidInputError: ``RELYING_PARTY``.
        """
        match = _ORIGIN.fullmatch(origin)
        if match is None:
            raise InvalidInputError("RELYING_PARTY", "the origin is not https://HOST[:PORT] in lower case")
        host = match["host"]
        identifier = identifier or host
        if identifier != host and ("." not in identifier or not host.endswith("." + identifier)):
            raise InvalidInputError("RELYING_PARTY", "the id is neither the origin's host nor a parent domain of it")
        return cls(origin, identifier)


def challenge(message: bytes) -> str:
    """The challenge to ask an authenticator for: unpadded URL-safe base64 of SHA-256 of what is to be signed."""
    return base64.urlsafe_b64encode(hashlib.sha256(message).digest()).rstrip(b"=").decode()


def verify(
    key: ec.EllipticCurvePublicKey,
    signature: bytes,
    message: bytes,
    authenticator_data: bytes,
    client_data: bytes,
    party: RelyingParty,
) -> None:
    """Verifies an assertion over ``message``.

    Args:
        key: P-256 key of the authenticator, from the person's certificate.
        signature: DER ECDSA signature of the authenticator.
        message: DSSE pre-authentication encoding.
        authenticator_data: as the authenticator gave it.
        client_data: ``clientDataJSON`` as the browser gave it, byte for byte.
        party: the relying party from outside.

    Raises:
        IntegrityError: ``WEBAUTHN_BAD`` saying what does not hold, or ``SIGNATURE_BAD``.
    """
    said = _client_data(client_data)
    _demand(said.get("type") == "webauthn.get", "the client data is not of an assertion")
    _demand(said.get("challenge") == challenge(message), "the challenge is not the digest of what is signed")
    _demand(said.get("origin") == party.origin, f"it was not made at {party.origin}")
    _demand(said.get("crossOrigin", False) is False, "it was made inside a page of another origin")
    _demand(_FIXED <= len(authenticator_data) <= MAX_AUTHENTICATOR_DATA, "authenticator data of a wrong length")
    flags = authenticator_data[32]
    own = authenticator_data[:32] == hashlib.sha256(party.identifier.encode()).digest()
    _demand(own, f"it was not made for {party.identifier}")
    _demand(bool(flags & _PRESENT), "nobody was present")
    _demand(bool(flags & _VERIFIED), "the authenticator did not verify its user")
    _demand(len(authenticator_data) == _FIXED or bool(flags & _EXTENDED), "authenticator data of a wrong length")
    try:
        signed = authenticator_data + hashlib.sha256(client_data).digest()
        key.verify(signature, signed, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise IntegrityError("SIGNATURE_BAD", "the authenticator's signature does not verify") from error


def _client_data(data: bytes) -> dict[str, Any]:
    _demand(len(data) <= MAX_CLIENT_DATA, "the client data is too long")
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise IntegrityError("WEBAUTHN_BAD", "the client data is not JSON") from error
    _demand(isinstance(value, dict), "the client data is no object")
    return dict(value)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose members stand once: two challenges would let two readers see two acts."""
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a member stands twice")
    return dict(pairs)


def _demand(holds: bool, why: str) -> None:
    if not holds:
        raise IntegrityError("WEBAUTHN_BAD", why)
