"""The end of a log, and the beginning of the next: freeze orders and continuations, both signed by an operator.

A log is frozen when its key may be in other hands, when it has forked, or when it is retired. The order is a person's;
its record is the log's last, and the ledger refuses every append after it, also after a restart. What comes next is
another log with another origin and other keys, whose records cite the final checkpoint of the old one.

A log that has forked, or has lost its anchor, cannot take even that record: the checkpoint over it would be one more
history. It does not start again anyway, and what is cited is a checkpoint that was signed before.

A log whose records lie in the future, since a clock was ahead, would go on when their time has come. So its end is
recorded: under the newest record's time, for a record is never older than the one before it.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from assay import canonical, dsse, durable
from assay.errors import AssayError, InvalidInputError, UnavailableError
from assay.identity import Layout, load_certificate, load_p256
from audit.ledger import dialect
from audit.ledger.anchor import FileAnchor
from audit.ledger.fork import FORKED, ROLLED_BACK, head_of
from audit.ledger.note import Checkpoint, SignedNote, Verifier, open_checkpoint
from audit.ledger.quorum import QuorumPolicy
from audit.ledger.records import RecordDraft
from audit.ledger.store import quick_head
from audit.ledger.writer import UnitOfWork
from audit.verify.trust import TrustFile
from gateway import database_file, statements, witnesses
from gateway.caller import ALL_UNITS, SYSTEM_UNIT
from gateway.identity_registry import OPERATOR, require_live_role
from gateway.key_registry import People
from gateway.key_registry import load as load_keys
from gateway.offline import stopped
from gateway.settings import Settings

# What an order of either reason is for: the log cannot be signed for then.
_NOT_SIGNED_FOR = {
    "fork": (FORKED, ROLLED_BACK, database_file.LOST),
    "anchor-lost": ("ANCHOR_MISSING", "ANCHOR_DAMAGED", "LEDGER_UNAVAILABLE"),
}


@dataclass(frozen=True)
class Frozen:
    """A log that has ended.

    Attributes:
        origin: its name.
        size: records under ``checkpoint``, the order's included if it is recorded.
        root: hex root.
        checkpoint: the final note, which a successor cites.
        recorded: whether the order is the log's last record; otherwise nothing was signed.
        witnessed: whether whoever must cosign has cosigned ``checkpoint``.
    """

    origin: str
    size: int
    root: str
    checkpoint: str
    recorded: bool
    witnessed: bool


def sign_order(person: Path, origin: str, reason_code: str) -> dict[str, Any]:
    """Signs a freeze order with a person's own key.

    Raises:
        InvalidInputError: ``REASON_CODE``, or the person's key cannot be read.
    """
    return _sign(person, statements.freeze_statement(origin, reason_code))


def freeze(settings: Settings, envelope: dict[str, Any], reason_code: str = "") -> Frozen:
    """Appends the order as the log's last record, and asks the witnesses for their cosignatures of it.

    The gateway must not run. An order of reason ``fork`` or ``anchor-lost`` for a log that is found so is not recorded:
    the newest checkpoint that is known of it is returned.

    Args:
        settings: of the installation.
        envelope: the order.
        reason_code: what it must say; empty to take the order's.

    Raises:
        InvalidInputError, IntegrityError: the order cannot be read, is for another log, or its signature does not hold;
            ``OTHER_ORDER`` for one of another reason; or what :func:`gateway.witnesses.read_policy` and
            :func:`gateway.witnesses.open_publication` say.
        PermissionDeniedError: ``ROLE_MISSING`` when its signer is no operator of every unit.
        UnavailableError: ``LOG_FROZEN`` when it is frozen already.
        AssayError: what :func:`gateway.offline.stopped` says.
    """
    trust = TrustFile.load(settings.layout.trust)
    order = statements.read_freeze(dsse.read_statement(dsse.envelope_payload(envelope)))
    if order.origin != settings.origin:
        raise InvalidInputError("OTHER_LOG", f"the order freezes {order.origin}, not {settings.origin}")
    if reason_code not in ("", order.reason_code):
        raise InvalidInputError(
            "OTHER_ORDER", f"the order's reason is {order.reason_code}", remedy="hand in the one that you mean"
        )
    policy = witnesses.read_policy(settings)

    def work(uow: UnitOfWork) -> None:
        verified = People(trust.people_root, load_keys(uow.connection, trust), trust).verify(envelope, uow.now)
        for signer in verified.signers:
            require_live_role(uow.connection, signer.subject, OPERATOR, ALL_UNITS)
        uow.append(RecordDraft(SYSTEM_UNIT, "log.frozen", "freeze", {}, envelope=envelope))

    try:
        with stopped(settings) as (_, ledger):
            publication = witnesses.open_publication(settings, ledger, policy)
            try:
                if order.reason_code == "clock-ahead":
                    ledger.follow_newest_record()
                ledger.run(work)
                with suppress(TimeoutError, UnavailableError):
                    publication.covered(ledger.size - 1).result(settings.limits.quorum_seconds)
                note = publication.at(ledger.size) or ledger.checkpoint()
            finally:
                publication.close()
    except AssayError as error:
        known = b""
        if error.reason in _NOT_SIGNED_FOR.get(order.reason_code, ()):
            known = _known(settings, trust.log, forked=error.reason == FORKED)
        if not known:
            raise
        return _frozen(known, policy, recorded=False)
    return _frozen(note, policy, recorded=True)


def _known(settings: Settings, log: Verifier, *, forked: bool) -> bytes:
    """The checkpoint to cite of a log that cannot sign: the largest of the witnesses', the anchor's and the database's.

    Of a log that has forked it is the witnesses', where they have one: which of its histories counts is not for whoever
    holds the log to say.
    """
    notes: list[bytes] = []
    with suppress(AssayError, OSError, SQLAlchemyError, sqlite3.Error):
        notes += witnesses.newest_published(settings)
    with suppress(AssayError, OSError):
        notes.append(FileAnchor(settings.layout.anchor).read() or b"")
    if database_file.is_there(settings):
        engine = dialect.connect(settings.database_url)
        with suppress(SQLAlchemyError, engine.dialect.loaded_dbapi.Error), engine.connect() as connection:
            notes.append(quick_head(connection)[1] or b"")
        engine.dispose()
    known: list[tuple[int, bytes]] = []
    for note in notes:
        with suppress(AssayError):
            known.append((open_checkpoint(note, log).size, note))
    if forked:
        return known[0][1] if known else b""
    return max(known, default=(0, b""), key=lambda found: found[0])[1]


def _frozen(note: bytes, policy: QuorumPolicy, *, recorded: bool) -> Frozen:
    signed = SignedNote.parse(note)
    final = head_of(signed.text)
    witnessed = policy.judge(signed, datetime.now(UTC)).met
    return Frozen(final.origin, final.size, final.root.hex(), note.decode(), recorded, witnessed)


def sign_continuation(layout: Layout, person: Path, origin: str, note: bytes, old_trust: TrustFile) -> Checkpoint:
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
    old = open_checkpoint(note, old_trust.log)
    if old.origin == origin:
        raise InvalidInputError(
            "SAME_ORIGIN", "a log cannot continue under its own name", remedy="give the new log another --origin"
        )
    text = SignedNote.parse(note).text
    statement = statements.continuation_statement(origin, old.origin, old.size, old.root.hex(), text)
    durable.write(layout.continuation, (json.dumps(_sign(person, statement), indent=1) + "\n").encode())
    return old


def _sign(person: Path, statement: dict[str, Any]) -> dict[str, Any]:
    certificate = load_certificate(person / "person.crt")
    return dsse.sign_person(canonical.encode(statement), load_p256(person / "person.key"), certificate)
