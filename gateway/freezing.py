"""The end of a log, and the beginning of the next: freeze orders and continuations, both signed by an operator.

A log is frozen when its key may be in other hands, when it has forked, or when it is retired. The order is a person's;
its record is the log's last, and the ledger refuses every append after it, also after a restart. What comes next is
another log with another origin and other keys, whose records cite the final checkpoint of the old one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509

from assay import canonical, dsse
from assay.errors import InvalidInputError
from assay.identity import Layout, load_p256
from audit.ledger.note import Checkpoint, SignedNote, open_checkpoint
from audit.ledger.records import RecordDraft
from audit.ledger.writer import UnitOfWork
from audit.verify.trust import TrustFile
from gateway import statements
from gateway.application import make_ledger
from gateway.caller import ALL_UNITS, SYSTEM_UNIT
from gateway.identity_registry import OPERATOR, require_live_role
from gateway.key_registry import People
from gateway.key_registry import load as load_keys
from gateway.settings import Settings


@dataclass(frozen=True)
class Frozen:
    """A log that has ended.

    Attributes:
        origin: its name.
        size: records in it, the order's included.
        root: hex root.
        checkpoint: the final note, which a successor cites.
    """

    origin: str
    size: int
    root: str
    checkpoint: str


def sign_order(person: Path, origin: str, reason_code: str) -> dict[str, Any]:
    """Signs a freeze order with a person's own key.

    Raises:
        InvalidInputError: ``REASON_CODE``, or the person's key cannot be read.
    """
    return _sign(person, statements.freeze_statement(origin, reason_code))


def freeze(settings: Settings, envelope: dict[str, Any]) -> Frozen:
    """Appends the order as the log's last record. The gateway must not run.

    Raises:
        InvalidInputError, IntegrityError: the order cannot be read, is for another log, or its signature does not hold.
        PermissionDeniedError: ``ROLE_MISSING`` when its signer is no operator of every unit.
        PreconditionError: ``LEDGER_IN_USE`` while the gateway runs.
        UnavailableError: ``LOG_FROZEN`` when it is frozen already.
    """
    trust = TrustFile.load(settings.layout.trust)

    def work(uow: UnitOfWork) -> None:
        verified = People(trust.people_root, load_keys(uow.connection, trust)).verify(envelope, uow.now)
        order = statements.read_freeze(verified.statement)
        if order.origin != settings.origin:
            raise InvalidInputError("OTHER_LOG", f"the order freezes {order.origin}, not {settings.origin}")
        for signer in verified.signers:
            require_live_role(uow.connection, signer.subject, OPERATOR, ALL_UNITS)
        uow.append(RecordDraft(SYSTEM_UNIT, "log.frozen", "freeze", {}, envelope=envelope))

    engine, ledger = make_ledger(settings)
    ledger.start()
    try:
        ledger.run(work)
        note = ledger.checkpoint()
        size = ledger.size
        return Frozen(settings.origin, size, ledger.root(size).hex(), note.decode())
    finally:
        ledger.close()
        engine.dispose()


def sign_continuation(layout: Layout, person: Path, origin: str, note: bytes, old_trust: str) -> Checkpoint:
    """Has a person sign that a new log continues an old one; recorded at the new log's first start.

    Args:
        layout: the new installation.
        person: who signs.
        origin: the new log's name.
        note: the old log's final checkpoint.
        old_trust: the old log's trust file, by whose key the note must hold.

    Raises:
        InvalidInputError: ``SAME_ORIGIN``, or a note or trust file that cannot be read.
        IntegrityError: the note is not signed by the old log's key.
    """
    old = open_checkpoint(note, TrustFile.parse(old_trust).log)
    if old.origin == origin:
        raise InvalidInputError(
            "SAME_ORIGIN", "a log cannot continue under its own name", remedy="give the new log another --origin"
        )
    text = SignedNote.parse(note).text
    statement = statements.continuation_statement(origin, old.origin, old.size, old.root.hex(), text)
    layout.continuation.write_text(json.dumps(_sign(person, statement), indent=1) + "\n", "utf-8")
    return old


def _sign(person: Path, statement: dict[str, Any]) -> dict[str, Any]:
    certificate = x509.load_pem_x509_certificate((person / "person.crt").read_bytes())
    return dsse.sign_person(canonical.encode(statement), load_p256(person / "person.key"), certificate)
