"""Key events, while the gateway stands still: a key follows another, or is said to have been in other hands.

The order is a person's, signed with that person's own key; the gateway's side drafts it, appends it and holds it to the
same table as the verifier does. Whoever signs on another machine needs neither ledger nor settings there
(:func:`sign_draft`). A successor is staged before its record is written and put in after it, see
:mod:`gateway.key_files`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine

from assay import canonical, dsse, key_events
from assay.errors import AssayError, IntegrityError, InvalidInputError, PreconditionError
from assay.identity import Layout, load_certificate, load_p256, subject_of
from assay.key_events import COMPROMISED, EVENTS, ROTATED, SERVICE_NAMES, Compromise, Event, Rotation
from audit.ledger import records
from audit.ledger.ledger import Ledger
from audit.ledger.records import SYSTEM_UNIT, RecordDraft
from audit.ledger.writer import UnitOfWork
from audit.verify.keys import PERMIT, KeyTable, roots_of
from audit.verify.trust import TrustFile
from gateway import key_files, key_registry
from gateway.caller import ALL_UNITS
from gateway.identity_registry import OPERATOR, require_live_role
from gateway.jobs.transitions import State
from gateway.offline import stopped
from gateway.permits import void_permit
from gateway.settings import Settings
from gateway.signers import grants_in_doubt
from gateway.store import rows
from gateway.store.tables import JobRow, PermitRow

CLOCK_TOLERANCE = timedelta(seconds=2)
_BUSY = (State.PREPARING, State.TRAINING, State.AUDITING)
_WAITING = (State.QUEUED, State.PAUSED)
_OF_PREPARED_JOBS = (key_files.CANARY, "audit-worker", "audit-worker-seal")
"""By these the audit worker keeps what only it may read again, from a job's preparation to its audit."""
_NOT_SO = {
    "log": "it is the log's identity: freeze the log and begin one that continues it",
    "gateway": "its TLS key signs nothing that is kept: assay identity renew DIR gateway",
    "units-root": "everything stored is encrypted under it: begin a log that continues this one, and upload anew",
    "witness": "it is the witness's own: name its new key in the trust files",
    "services-root": "it stands in the trust file: freeze the log and begin one that continues it",
    "people-root": "it stands in the trust file: freeze the log and begin one that continues it",
}


@dataclass(frozen=True)
class Done:
    """What came of an order.

    Attributes:
        event: as recorded.
        index: of its record.
        voided: permits that were revoked with it.
        doubtful: live grants that a thief of a person's key may have made, such as ``roleGrants/ID: SUBJECT as ROLE``.
        unlisted: why they cannot be listed, and the remedy; empty where they are.
    """

    event: Event
    index: int
    voided: tuple[str, ...] = ()
    doubtful: tuple[str, ...] = ()
    unlisted: str = ""


@dataclass(frozen=True)
class Meant:
    """What whoever hands in an order says that it is about; they may have been given another.

    Attributes:
        kind: :data:`ROTATED` or :data:`COMPROMISED`.
        name: of the key, as events have it.
        since: as :func:`draft_compromise` takes it; empty to take the order's.
        keyid: beginning of the id of the key that is compromised; empty to take the order's.
    """

    kind: str
    name: str
    since: str = ""
    keyid: str = ""

    def demand(self, event: Event, since_index: int | None) -> None:
        """Refuses an order that says something else; ``since_index`` is what ``since`` comes to, if that was said.

        Raises:
            InvalidInputError: ``OTHER_ORDER``, with what it says.
        """
        same = isinstance(event, Rotation) == (self.kind == ROTATED) and event.name == self.name
        if isinstance(event, Compromise):
            same &= event.public.keyid.startswith(self.keyid)
            same &= since_index in (None, event.since_index)
        if not same:
            raise InvalidInputError(
                "OTHER_ORDER", f"the order says {words(event)}", remedy="hand in the one that you mean"
            )


def words(event: Event) -> str:
    """What an event says, for whoever signs it or has handed in another one."""
    if isinstance(event, Rotation):
        return f"that {event.name} is rotated: key id {event.new.keyid} follows {event.old.keyid}"
    return f"that {event.name} is compromised since record {event.since_index}, key id {event.public.keyid}"


def full_name(settings: Settings, name: str) -> str:
    """The name of a key as events have it: ``permit``, or the subject of ``people/vik``.

    Raises:
        InvalidInputError: ``KEY_UNKNOWN``, ``KEY_NOT_ROTATED`` for a key that is replaced in another way, or
            ``KEY_SIGNS_NOTHING``.
    """
    if name in _NOT_SO:
        raise InvalidInputError("KEY_NOT_ROTATED", f"{name}: {_NOT_SO[name]}", remedy="see docs/keys.md")
    if name in SERVICE_NAMES:
        return name
    if name in key_files.SECRETS:
        raise InvalidInputError(
            "KEY_SIGNS_NOTHING", f"no record speaks of {name}", remedy=f"assay key rotate {name} DIR"
        )
    people = key_files.people_of(settings.layout)
    person = name.removeprefix("people/")
    if name.startswith("people/") and person in people:
        return people[person]
    known = ", ".join([*SERVICE_NAMES, *(f"people/{p}" for p in people)])
    raise InvalidInputError(
        "KEY_UNKNOWN",
        f"there is no key {name[:60]!r} here",
        remedy=f"one of: {known}; to be rotated also {', '.join(key_files.SECRETS)}",
    )


def draft_rotation(settings: Settings, name: str, person: Path | None = None) -> dict[str, Any]:
    """Makes and stages a successor, and says that it follows.

    Args:
        settings: of the installation.
        name: of the key, as events have it.
        person: folder of who signs; None where that is done elsewhere.

    Returns:
        The order; without a person the statement that it will hold.

    Raises:
        InvalidInputError, IntegrityError: a key or certificate that is needed is not here.
        PreconditionError: ``LEDGER_IN_USE`` while the gateway runs; ``KEY_IN_USE`` while jobs rest on the old key.
    """
    layout = settings.layout
    with _stopped(settings) as offline:
        table = offline.table()
        key_files.settle(layout, table)
        terms = table.terms.get(name)
        old = terms[-1].public if terms else key_files.held(layout, name)
        if not _ended(table, name):
            with offline.engine.connect() as connection:
                _demand_idle(connection, name)
        key, new = key_files.stage(layout, name, settings.trust_domain)
        try:
            statement = key_events.rotation_statement(settings.origin, name, old.material, new.material, key)
            return statement if person is None else _sign(person, statement, name, table)
        except BaseException:
            key_files.unstage(layout, name)
            raise


def replace_secret(settings: Settings, name: str) -> None:
    """Replaces a key that signs nothing, of which no record speaks. The gateway must not run.

    Raises:
        InvalidInputError: ``KEY_UNKNOWN`` or ``KEY_MISSING``.
        PreconditionError: ``LEDGER_IN_USE``, or ``KEY_IN_USE`` while a job was sealed, or its canaries derived, by it.
    """
    with _stopped(settings) as offline:
        with offline.engine.connect() as connection:
            _demand_idle(connection, name)
        key_files.replace_secret(settings.layout, name)


def draft_compromise(
    settings: Settings, name: str, since: str, keyid: str = "", person: Path | None = None
) -> dict[str, Any]:
    """Says that a key may have been in other hands.

    Args:
        settings: of the installation.
        name: of the key, as events have it.
        since: index of the first record in doubt, or a time, for the first record from then on.
        keyid: beginning of the key id, for another than the newest key of this name.
        person: folder of who signs; None where that is done elsewhere.

    Returns:
        The order; without a person the statement that it will hold.

    Raises:
        InvalidInputError: ``KEY_SINCE``, ``KEY_UNKNOWN``, or the person's key cannot be read.
        PreconditionError: ``LEDGER_IN_USE``.
    """
    with _stopped(settings) as offline:
        table = offline.table()
        known = [term.public for term in table.terms.get(name, ())] or [key_files.held(settings.layout, name)]
        found = [half for half in known if half.keyid.startswith(keyid)] if keyid else known[-1:]
        if len(found) != 1:
            raise InvalidInputError("KEY_UNKNOWN", f"{len(found)} keys of {name} begin with {keyid!r}")
        index = _since(offline.ledger, since)
        statement = key_events.compromise_statement(settings.origin, name, found[0].material, index)
        return statement if person is None else _sign(person, statement, name, table)


def sign_draft(draft: Mapping[str, Any], trust: TrustFile, person: Path, now: datetime) -> tuple[Event, dict[str, Any]]:
    """Signs, on the person's own machine, what was drafted beside the gateway.

    Args:
        draft: as :func:`draft_rotation` or :func:`draft_compromise` returned it.
        trust: of the log that it must be about.
        person: folder of who signs.
        now: when; a successor's certificate must be valid then.

    Returns:
        What is signed, and the order.

    Raises:
        InvalidInputError, IntegrityError: the draft is none, is about another log or does not hold, as
            :func:`assay.key_events.read` says; or the person's key cannot be read.
    """
    payload = canonical.encode(dict(draft))
    event = key_events.read(dsse.read_statement(payload), trust.origin, roots_of(trust), now)
    key, certificate = load_p256(person / "person.key"), load_certificate(person / "person.crt")
    return event, dsse.sign_person(payload, key, certificate)


def order(settings: Settings, envelope: Mapping[str, Any], meant: Meant, staged: str = "") -> Done:
    """Records a signed key event, and puts in what was staged for it. The gateway must not run.

    The permits that a compromised permit key may have signed are revoked with it; what a compromised person may have
    granted is named, for an operator to grant anew or to revoke.

    Args:
        settings: of the installation.
        envelope: the order.
        meant: what it must say.
        staged: name of the key whose successor waits for this very order; a refusal throws it away.

    Raises:
        InvalidInputError, IntegrityError, AlreadyExistsError: the event does not hold; see
            :func:`assay.key_events.read`, :meth:`Meant.demand` and :meth:`audit.verify.keys.KeyTable.check`.
        PermissionDeniedError: ``ROLE_MISSING`` when its signer is no operator of every unit.
        PreconditionError: ``LEDGER_IN_USE`` while the gateway runs; ``KEY_NOT_STAGED`` or, as between draft and order
            it may have run, ``KEY_IN_USE``; or what the table says.
    """
    with _stopped(settings) as offline:
        since = _since(offline.ledger, meant.since) if meant.since else None

        def work(uow: UnitOfWork) -> Done:
            def demand(event: Event) -> None:
                meant.demand(event, since)
                if isinstance(event, Rotation):
                    _demand_staged(settings.layout, event)
                    if not _ended(key_registry.load(uow.connection, offline.trust), event.name):
                        _demand_idle(uow.connection, event.name)

            try:
                return _record(uow, envelope, offline.trust, demand)
            except AssayError:
                # Refused before it was recorded. Where the ledger itself fails, the log may name the successor.
                if staged:
                    key_files.unstage(settings.layout, staged)
                raise

        done = offline.ledger.run(work)
        key_files.settle(settings.layout, offline.table())
        if not isinstance(done.event, Compromise):
            return done
        try:
            return replace(done, doubtful=offline.doubtful())
        except AssayError as error:  # It is recorded, which whoever reads only of an error would do again.
            return replace(done, unlisted=f"{error.message}; {error.remedy}" if error.remedy else error.message)


def _record(uow: UnitOfWork, envelope: Mapping[str, Any], trust: TrustFile, demand: Callable[[Event], None]) -> Done:
    verified = dsse.verify_person(dict(envelope), trust.people_root, uow.now)
    if len(verified.signers) != 1:
        raise IntegrityError("KEY_EVENT", "a key event has one signer")
    signer = verified.signers[0]
    require_live_role(uow.connection, signer.subject, OPERATOR, ALL_UNITS)
    event = key_events.read(verified.statement, trust.origin, roots_of(trust), uow.now)
    demand(event)
    kind = ROTATED if isinstance(event, Rotation) else COMPROMISED
    index = uow.append(RecordDraft(SYSTEM_UNIT, kind, EVENTS[kind], {}, envelope=envelope))
    key_registry.load(uow.connection, trust).check(event, index, signer)
    told = key_registry.RecordedEvent(index, uow.now, signer, verified.statement)
    key_registry.remember(uow.connection, event.event_id, told)
    voided: list[str] = []
    if isinstance(event, Compromise) and event.name == PERMIT:
        for row in rows.select_all(uow.connection, PermitRow, order_by="record_index", revoked_us=0):
            if event.since_index <= row.record_index and row.not_after_us > rows.micros(uow.now):
                voided.append(void_permit(uow, row, signer.subject, "", "the permit key was compromised").name)
    return Done(event, index, tuple(voided))


def _ended(table: KeyTable, name: str) -> bool:
    """Whether a key was compromised and no other follows it yet."""
    return name in table.terms and table.current(name) is None


def _demand_staged(layout: Layout, event: Rotation) -> None:
    """A log that named a successor which lies nowhere would have no key of that name any more.

    Raises:
        PreconditionError: ``KEY_NOT_STAGED``.
    """
    for staged in (True, False):
        with suppress(InvalidInputError):
            if key_files.held(layout, event.name, staged=staged).keyid == event.new.keyid:
                return
    raise PreconditionError(
        "KEY_NOT_STAGED",
        f"key id {event.new.keyid}, which the order lets follow as {event.name}, does not wait here",
        remedy="each draft throws away the successor of the one before: have the newest signed, or make another",
    )


def _demand_idle(connection: Connection, name: str) -> None:
    """A work order, sealed task or statement by the old key would be refused after its rotation.

    Raises:
        PreconditionError: ``KEY_IN_USE``.
    """
    if name not in (*key_events.ED25519_NAMES, *key_files.SECRETS):
        return
    waits = name in _OF_PREPARED_JOBS
    states = (*_BUSY, *_WAITING) if waits else _BUSY
    busy = [job.name for state in states for job in rows.select_all(connection, JobRow, state=state.value)]
    if busy:
        raise PreconditionError(
            "KEY_IN_USE",
            f"{len(busy)} jobs are under way, among them {busy[0]}",
            remedy=f"let them end, or {'cancel' if waits else 'pause or cancel'} them, before the key is rotated",
        )


def _sign(person: Path, statement: dict[str, Any], name: str, table: KeyTable) -> dict[str, Any]:
    """Signs with a person's own key; with the successor where it is for oneself and the old key holds no more."""
    certificate = load_certificate(person / "person.crt")
    key = load_p256(person / "person.key")
    own = subject_of(certificate) == name and dsse.predicate_name(statement["predicateType"]) == EVENTS[ROTATED]
    if own and _ended(table, name):
        key, certificate = key_files.staged_person(person)
    return dsse.sign_person(canonical.encode(statement), key, certificate)


def _since(ledger: Ledger, text: str) -> int:
    """The index itself, or that of the first record from a time on, less the clock's tolerance.

    Raises:
        InvalidInputError: ``KEY_SINCE``.
    """
    if text.isascii() and text.isdigit() and len(text) < 16:
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidInputError("KEY_SINCE", f"{text[:40]!r} is neither an index nor a time", remedy=_TIME) from error
    if moment.tzinfo is None:
        raise InvalidInputError("KEY_SINCE", "the time has no zone", remedy=_TIME)
    low, high = 0, ledger.size
    while low < high:
        middle = (low + high) // 2
        if records.read(ledger.record(middle).body).time >= moment - CLOCK_TOLERANCE:
            high = middle
        else:
            low = middle + 1
    return low


@dataclass(frozen=True)
class _Offline:
    """A gateway that does not run: its started ledger, rows and trust file."""

    engine: Engine
    ledger: Ledger
    trust: TrustFile

    def table(self) -> KeyTable:
        """Keys after the last recorded event."""
        with self.engine.connect() as connection:
            return key_registry.load(connection, self.trust)

    def doubtful(self) -> tuple[str, ...]:
        """Live grants that a thief may have made, in words."""
        with self.engine.connect() as connection:
            found = grants_in_doubt(connection, self.ledger, self.trust)
        return tuple(f"roleGrants/{g.grant_id}: {g.subject} as {g.role} in {g.unit}" for g in found)


@contextmanager
def _stopped(settings: Settings) -> Iterator[_Offline]:
    """Starts the ledger of a gateway that does not run.

    Raises:
        AssayError: what :func:`gateway.offline.stopped` says.
    """
    trust = TrustFile.load(settings.layout.trust)
    with stopped(settings) as (engine, ledger):
        yield _Offline(engine, ledger, trust)


_TIME = "an index such as 120, or a time such as 2026-11-27T09:30:00Z"
