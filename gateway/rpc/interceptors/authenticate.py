"""Who calls: the subject of the verified client certificate, which must be a person's, by a key that is in force."""

from __future__ import annotations

from typing import Any

from assay.certificates import key_id
from assay.dsse import Signer
from assay.errors import UnauthenticatedError
from assay.identity import peer_certificate
from gateway.identity_registry import IdentityRegistry


def person(context: Any, subject: str, identities: IdentityRegistry, people_prefix: str) -> None:
    """Demands a person. A service's certificate passes the handshake but is no person, and is refused here.

    Args:
        context: of the call.
        subject: that its certificate names.
        identities: whose keys are in force.
        people_prefix: of the subjects of people.

    Raises:
        UnauthenticatedError: ``NO_CERTIFICATE``, ``NOT_A_PERSON``, or ``KEY_NOT_IN_FORCE`` when a key event has ended
            the key that proved the call.
    """
    if not subject.startswith(people_prefix):
        raise UnauthenticatedError("NOT_A_PERSON", "only people call the gateway; services are called by it")
    identities.people.admit(Signer(subject, key_id(peer_certificate(context).public_key())))
