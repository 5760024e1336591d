"""Who calls: the subject of the verified client certificate, which must be a person's, by a key that is in force."""

from __future__ import annotations

from typing import Any

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
        UnauthenticatedError: ``NO_CERTIFICATE``, ``NOT_A_PERSON``, ``CERTIFICATE_BAD`` for a person's name that the
            people root did not certify, or ``KEY_NOT_IN_FORCE`` when a key event has ended the key that proved the
            call.
    """
    if not subject.startswith(people_prefix):
        raise UnauthenticatedError("NOT_A_PERSON", "only people call the gateway; services are called by it")
    identities.people.admit(peer_certificate(context))
