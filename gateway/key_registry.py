"""Keys in the gateway's eyes: the table of terms by the recorded key events, and people's signatures held against it.

Key events are recorded while the gateway stands still (:mod:`gateway.key_rotation`), so that what is read at a start
holds until the next.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Connection

from assay import canonical, dsse, key_events
from assay.certificates import check_person, key_id
from assay.dsse import Signer
from assay.errors import IntegrityError, UnauthenticatedError
from audit.ledger.records import format_time, parse_time
from audit.verify.keys import KeyTable, roots_of
from audit.verify.trust import TrustFile
from gateway.store import rows
from gateway.store.tables import FactRow

NOW = 2**62
"""An index behind every record: asks what holds now."""
_FACTS = "keys"


@dataclass(frozen=True)
class RecordedEvent:
    """A key event in the log: where, when, by whom, and the statement that was signed."""

    index: int
    time: dt.datetime
    signer: Signer
    statement: Mapping[str, Any]


@dataclass(frozen=True)
class People:
    """Whose signatures count: certificates under the people root, with keys that no event has ended.

    The trust file is the installation's own.
    """

    root: x509.Certificate
    table: KeyTable
    trust: TrustFile

    def verify(self, envelope: Mapping[str, Any], at: dt.datetime) -> dsse.VerifiedEnvelope:
        """Verifies what people sign now.

        Raises:
            InvalidInputError, IntegrityError: what :func:`assay.dsse.verify_person` says, or ``KEY_NOT_IN_FORCE``.
        """
        verified = dsse.verify_person(dict(envelope), self.root, at)
        for signer in verified.signers:
            self.table.check_person(signer, NOW)
        return verified

    def admit(self, certificate: x509.Certificate) -> None:
        """Demands that whoever calls is a person: certified by the people root, with a key that holds.

        A handshake takes certificates under the services root too, and a name is only what is written in one. Its time
        is the handshake's to check.

        Raises:
            UnauthenticatedError: ``CERTIFICATE_BAD``, ``KEY_NOT_IN_FORCE``.
        """
        try:
            signer = _person(certificate, self.root)
        except IntegrityError as error:
            remedy = "call with the certificate that the people root issued for you"
            raise UnauthenticatedError(error.reason, error.message, remedy=remedy) from error
        try:
            self.table.check_person(signer, NOW)
        except IntegrityError as error:
            remedy = "use your new key and certificate"
            raise UnauthenticatedError(error.reason, error.message, remedy=remedy) from error


@lru_cache(maxsize=1024)
def _person(certificate: x509.Certificate, root: x509.Certificate) -> Signer:
    """Whose certificate it is; kept, since each call asks, and verifying a signature is its dearest check.

    Raises:
        IntegrityError: ``CERTIFICATE_BAD`` unless it is a person's under the root.
    """
    subject, key = check_person(certificate.public_bytes(Encoding.DER), root, None)
    return Signer(subject, key_id(key))


def recorded(connection: Connection) -> list[RecordedEvent]:
    """Key events by their place in the log."""
    values = [json.loads(row.value) for row in rows.select_all(connection, FactRow, job=_FACTS)]
    return [
        RecordedEvent(v["index"], parse_time(v["time"]), Signer(v["subject"], v["keyid"]), v["statement"])
        for v in sorted(values, key=lambda v: int(v["index"]))
    ]


def load(connection: Connection, trust: TrustFile) -> KeyTable:
    """The table after the last recorded event."""
    table = KeyTable.of(trust)
    for event in recorded(connection):
        table.apply(key_events.read(event.statement, trust.origin, roots_of(trust), event.time), event.index)
    return table


def remember(connection: Connection, event_id: str, event: RecordedEvent) -> None:
    """Keeps an event that was recorded in this very transaction."""
    value = {
        "index": event.index,
        "time": format_time(event.time),
        "subject": event.signer.subject,
        "keyid": event.signer.keyid,
        "statement": dict(event.statement),
    }
    rows.insert(connection, FactRow(job=_FACTS, key=event_id, value=canonical.encode(value).decode()))
