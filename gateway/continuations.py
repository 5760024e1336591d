"""A new log's record of the old one that it continues."""

from __future__ import annotations

import json

from assay.errors import InvalidInputError
from audit.ledger.records import RecordDraft
from audit.ledger.writer import UnitOfWork
from gateway import statements
from gateway.caller import ALL_UNITS, SYSTEM_UNIT
from gateway.identity_registry import OPERATOR, require_live_role
from gateway.key_registry import People
from gateway.settings import Settings
from gateway.store import rows
from gateway.store.database import Store
from gateway.store.tables import FactRow

_RECORDED = "log.continued"


def record(settings: Settings, store: Store, people: People) -> None:
    """Records the signed continuation that `assay init --continues` left, once.

    Raises:
        InvalidInputError, IntegrityError: it cannot be read, is for another log, or its signature does not hold.
        PermissionDeniedError: ``ROLE_MISSING``.
    """
    path = settings.layout.continuation
    if not path.exists():
        return
    try:
        envelope = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInputError("CONTINUATION", f"cannot read {path.name}") from error

    def work(uow: UnitOfWork) -> None:
        if rows.get(uow.connection, FactRow, job=SYSTEM_UNIT, key=_RECORDED) is not None:
            return
        verified = people.verify(envelope, uow.now)
        signed = statements.read_continuation(verified.statement)
        if signed.origin != settings.origin:
            raise InvalidInputError("OTHER_LOG", f"the continuation is of {signed.origin}, not {settings.origin}")
        for signer in verified.signers:
            require_live_role(uow.connection, signer.subject, OPERATOR, ALL_UNITS)
        uow.append(RecordDraft(SYSTEM_UNIT, "log.continued", "log-continuation", {}, envelope=envelope))
        rows.insert(uow.connection, FactRow(job=SYSTEM_UNIT, key=_RECORDED, value=signed.previous_origin))

    store.ledger.run(work)
