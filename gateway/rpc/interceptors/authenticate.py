"""Who calls: the subject of the verified client certificate, with the roles it holds at this moment."""

from __future__ import annotations

from typing import Any

from assay.errors import UnauthenticatedError
from assay.identity import peer_certificate
from gateway.caller import Caller
from gateway.identity_registry import IdentityRegistry


async def caller(context: Any, subject: str, identities: IdentityRegistry, people_prefix: str, trace_id: str) -> Caller:
    """Names the caller. A service's certificate passes the handshake but is no person, and is refused here.

    Args:
        context: of the call.
        subject: that its certificate names.
        identities: who holds which role.
        people_prefix: of the subjects of people.
        trace_id: of the call.

    Raises:
        UnauthenticatedError: ``NO_CERTIFICATE``, ``NOT_A_PERSON``, ``CERTIFICATE_BAD`` for a person's name that the
            people root did not certify, or ``KEY_NOT_IN_FORCE`` when a key event has ended the key that proved the
            call.
    """
    if not subject.startswith(people_prefix):
        raise UnauthenticatedError("NOT_A_PERSON", "only people call the gateway; services are called by it")
    identities.people.admit(peer_certificate(context))
    return await identities.caller(subject, trace_id)
