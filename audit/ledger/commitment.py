r"""Salted commitments: how a record names a payload that lies outside the log and may be erased.

``commitment = SHA-256("assay/commit/v1\n" || salt || payload)`` with 32 random bytes of salt, which are kept with the
payload and destroyed with it. Without the salt a commitment says nothing, not even to whoever guesses the payload;
with it, it binds the record to exactly these bytes. A predicate names a commitment in a member that ends in
``_commitment``. Log and verifier share this module.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from assay.errors import IntegrityError

SALT_SIZE = 32
MEMBER_SUFFIX = "_commitment"

_DOMAIN = b"assay/commit/v1\n"
_COMMITMENT = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Opening:
    """What opens a commitment: the salt and the payload's bytes."""

    salt: bytes
    payload: bytes

    def commitment(self) -> str:
        """The hex commitment that this opens.

        Raises:
            IntegrityError: ``COMMITMENT_SALT`` for a salt of another size, with which bytes could move between salt
                and payload.
        """
        if len(self.salt) != SALT_SIZE:
            raise IntegrityError("COMMITMENT_SALT", f"a salt has {SALT_SIZE} bytes")
        return hashlib.sha256(_DOMAIN + self.salt + self.payload).hexdigest()

    def check(self, commitment: str) -> None:
        """Demands that this opens ``commitment``.

        Raises:
            IntegrityError: ``COMMITMENT_MISMATCH`` or ``COMMITMENT_SALT``.
        """
        if not hmac.compare_digest(self.commitment().encode(), commitment.encode()):
            raise IntegrityError("COMMITMENT_MISMATCH", "the payload is not the one that the record names")


def commitments_of(predicate: Mapping[str, Any]) -> list[str]:
    """The commitments that a predicate names, in the order of their members' names; malformed ones are left out."""
    named = (predicate[name] for name in sorted(predicate) if name.endswith(MEMBER_SUFFIX))
    return [value for value in named if isinstance(value, str) and _COMMITMENT.fullmatch(value)]
