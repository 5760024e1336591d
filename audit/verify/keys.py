"""Which key signed for whom at which index: the trust file's keys, changed by the key events of the log.

The trust file names the keys that held when the log began, and stays as it is. A rotation is believed because it is a
record under the log that an operator signed, whose certificate lies under the people root of the trust file; from its
index on the old key signs nothing more. A compromise ends a key likewise, and casts doubt on what the key signed since
the index that it names: such records are *suspect*, neither valid nor proved false.

A person has no line in the trust file: whatever the people root certified for a subject holds, until an event is about
that subject. From then on only the keys that events named do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NoReturn, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from assay import dsse, key_events
from assay.dsse import Signer
from assay.errors import (
    AlreadyExistsError,
    AssayError,
    IntegrityError,
    InvalidInputError,
    PermissionDeniedError,
    PreconditionError,
)
from assay.key_events import PDF, Compromise, Event, PublicHalf, Roots, Rotation, certificate_half, ed25519_half
from audit.ledger.records import Record
from audit.verify.findings import SHOWN
from audit.verify.report import PASSED, SUSPECT, Report
from audit.verify.trust import TrustFile

DOUBT = "records signed by a key that was compromised later"
PERMIT, TRAIN_WORKER, AUDIT_WORKER = "permit", "train-worker", "audit-worker"

T = TypeVar("T")
_FAILURES = (AssayError, InvalidSignature, ValueError)


@dataclass
class Term:
    """A key and the records that it may sign: those with ``begin <= index < end``.

    Attributes:
        public: the key.
        begin: index of the event that brought it in; 0 for a key that was there from the first record on.
        end: index of the event that ended it; None while it holds.
        compromised: index of the event that says that it was in other hands; None for none.
        suspect_from: since which index it may have been; None for none.
    """

    public: PublicHalf
    begin: int = 0
    end: int | None = None
    compromised: int | None = None
    suspect_from: int | None = None

    def holds(self, index: int) -> bool:
        """Tells whether a record at ``index`` may bear its signature."""
        return self.begin <= index and (self.end is None or index < self.end)

    def doubtful(self, index: int) -> bool:
        """Tells whether its signature at ``index`` may be a thief's."""
        return self.suspect_from is not None and self.suspect_from <= index


@dataclass(frozen=True)
class Use:
    """A record and the key that signed it."""

    index: int
    name: str
    keyid: str


@dataclass
class KeyTable:
    """Terms of every key by its name, in order; grows with the events that are applied.

    Attributes:
        terms: by name.
        events: ids of those that were applied.
        uses: which key signed which record.
        others: key ids of the log's own key and of its witnesses', which no event changes and no name here may have.
    """

    terms: dict[str, list[Term]]
    events: set[str] = field(default_factory=set)
    uses: list[Use] = field(default_factory=list)
    others: frozenset[str] = frozenset()

    @classmethod
    def of(cls, trust: TrustFile) -> KeyTable:
        """The table when the log began."""
        first = {
            PERMIT: ed25519_half(trust.permit),
            TRAIN_WORKER: ed25519_half(trust.train_worker),
            AUDIT_WORKER: ed25519_half(trust.audit_worker),
            PDF: certificate_half(trust.pdf),
        }
        others = [trust.log.public_key, *(w.verifier.public_key for w in trust.quorum.witnesses.values())]
        return cls(
            {name: [Term(half)] for name, half in first.items()},
            others=frozenset(ed25519_half(key).keyid for key in others),
        )

    def find(self, name: str, keyid: str) -> Term | None:
        """The term of this key under this name."""
        return next((term for term in self.terms.get(name, ()) if term.public.keyid == keyid), None)

    def current(self, name: str) -> Term | None:
        """The term in force after the last event; None when the last key was compromised or nothing is known."""
        terms = self.terms.get(name)
        return terms[-1] if terms and terms[-1].end is None else None

    @property
    def compromised(self) -> bool:
        """Whether an event says of any key that it was in other hands."""
        return any(term.compromised is not None for terms in self.terms.values() for term in terms)

    def check(self, event: Event, index: int, signer: Signer) -> None:
        """Demands that an event may stand at ``index``, signed by ``signer``; whose role it is is not looked at.

        Raises:
            AlreadyExistsError: ``KEY_EVENT_REPLAYED``, ``KEY_REUSED`` for a successor that was a key before.
            InvalidInputError: ``KEY_UNKNOWN`` for a key that was never one, ``KEY_SINCE`` for a later index.
            PreconditionError: ``KEY_NOT_IN_FORCE`` when another than the newest key is rotated, ``KEY_COMPROMISED``
                when it was said before.
            IntegrityError: ``KEY_NOT_IN_FORCE`` when the signer's own key is none.
        """
        if event.event_id in self.events:
            raise AlreadyExistsError("KEY_EVENT_REPLAYED", f"the event {event.event_id} was recorded before")
        self._check_signer(event, index, signer)
        known = self.terms.get(event.name, ())
        old = event.old if isinstance(event, Rotation) else event.public
        if known and not any(term.public.keyid == old.keyid for term in known):
            raise InvalidInputError("KEY_UNKNOWN", f"it never was the key of {event.name}: {old.keyid}")
        if isinstance(event, Rotation):
            if known and known[-1].public.keyid != old.keyid:
                raise PreconditionError("KEY_NOT_IN_FORCE", f"another key follows {old.keyid} already")
            every = {term.public.keyid for terms in self.terms.values() for term in terms} | {old.keyid, *self.others}
            if event.new.keyid in every:
                raise AlreadyExistsError(
                    "KEY_REUSED", "the new key is or was a key already: one key, one purpose, once"
                )
            return
        term = self.find(event.name, old.keyid)
        if term is not None and term.compromised is not None:
            raise PreconditionError("KEY_COMPROMISED", f"record {term.compromised} says so already")
        if event.since_index > index:
            raise InvalidInputError("KEY_SINCE", f"since record {event.since_index}, which is not there yet")

    def apply(self, event: Event, index: int) -> None:
        """Puts a checked event into force."""
        self.events.add(event.event_id)
        old = event.old if isinstance(event, Rotation) else event.public
        terms = self.terms.setdefault(event.name, [Term(old)])
        term = next(t for t in terms if t.public.keyid == old.keyid)
        if term.end is None:
            term.end = index
        if isinstance(event, Rotation):
            terms.append(Term(event.new, begin=index))
        else:
            term.compromised, term.suspect_from = index, event.since_index

    def demand_person(self, signer: Signer, index: int) -> None:
        """Demands that a person's key may sign the record at ``index``, and notes that it did.

        Raises:
            IntegrityError: ``KEY_NOT_IN_FORCE``.
        """
        self.check_person(signer, index)
        self.uses.append(Use(index, signer.subject, signer.keyid))

    def check_person(self, signer: Signer, index: int) -> None:
        """Demands that a person's key may sign the record at ``index``.

        Raises:
            IntegrityError: ``KEY_NOT_IN_FORCE``.
        """
        term = self.find(signer.subject, signer.keyid)
        if signer.subject in self.terms and (term is None or not term.holds(index)):
            raise _not_in_force(signer.subject, term, index)

    def demand_pdf(self, index: int) -> None:
        """Demands that a card could be signed at ``index``; a record does not show by which key.

        Raises:
            IntegrityError: ``KEY_NOT_IN_FORCE``.
        """
        term = self.at(PDF, index)
        if term is None:
            raise _not_in_force(PDF, None, index)
        self.uses.append(Use(index, PDF, term.public.keyid))

    def verified(self, name: str, index: int, verify: Callable[[Ed25519PublicKey], T]) -> T:
        """Verifies a service's signature on the record at ``index`` by the key that held there.

        Args:
            name: of the key.
            index: of the record.
            verify: raises when the signature is not by the key that it is given.

        Raises:
            IntegrityError: ``KEY_NOT_IN_FORCE`` when a key of this name signed outside its term.
            AssayError, InvalidSignature, ValueError: what ``verify`` raises, when no key of this name signed.
        """
        held = self.at(name, index)
        first: Exception | None = None
        for term in ([held] if held else []) + [t for t in self.terms[name] if t is not held]:
            key = term.public.key
            try:
                result = verify(key) if isinstance(key, Ed25519PublicKey) else _wrong(name)
            except _FAILURES as error:
                first = first or error
                continue
            if term is not held:
                raise _not_in_force(name, term, index)
            self.uses.append(Use(index, name, term.public.keyid))
            return result
        raise first or IntegrityError("SIGNATURE_BAD", f"no key of {name}")

    def at(self, name: str, index: int) -> Term | None:
        """The term of this name that holds at ``index``."""
        return next((term for term in self.terms.get(name, ()) if term.holds(index)), None)

    def doubtful(self, name: str, keyid: str, index: int) -> bool:
        """Tells whether a signature at ``index`` may be a thief's."""
        term = self.find(name, keyid)
        return term is not None and term.doubtful(index)

    def suspects(self) -> Iterator[Use]:
        """Records noted so far that a compromised key signed while it may have been in other hands, in log order."""
        yield from sorted({u for u in self.uses if self.doubtful(u.name, u.keyid, u.index)}, key=lambda u: u.index)

    def report(self, report: Report) -> None:
        """Lists what is in doubt; silent in a log without a compromise."""
        if not self.compromised:
            return
        found = list(self.suspects())
        for use in found[:SHOWN]:
            report.add(DOUBT, SUSPECT, f"record {use.index}: signed by {use.keyid[:16]} of {use.name}")
        if len(found) > SHOWN:
            report.add(DOUBT, SUSPECT, f"and {len(found) - SHOWN} more")
        if not found:
            report.add(DOUBT, PASSED, "none of the records here")

    def _check_signer(self, event: Event, index: int, signer: Signer) -> None:
        """An event is signed by a key in force; a person's new key may bring itself in, as the people root vouches.

        Without that exception the loss of the last operator's key would end the log.
        """
        own = event.name == signer.subject
        if own and isinstance(event, Rotation) and event.new.keyid == signer.keyid:
            return
        if own and isinstance(event, Compromise) and event.public.keyid == signer.keyid:
            # A key that speaks against itself: if a thief did so, it is in other hands all the same.
            self.check_person(signer, index)
        else:
            self.demand_person(signer, index)


def roots_of(trust: TrustFile) -> Roots:
    """Under which roots the certificates of events must lie."""
    return Roots(trust.people_root, trust.services_root)


def take(table: KeyTable, index: int, record: Record, trust: TrustFile, may_order: Callable[[Signer], bool]) -> None:
    """Applies the key event of a record, once signature, role and table allow it.

    Args:
        table: as it is before the record.
        index: of the record.
        record: of a type in :data:`assay.key_events.EVENTS`.
        trust: whom to believe.
        may_order: tells whether somebody was an operator of every unit when the record was made.

    Raises:
        PermissionDeniedError: ``ROLE_MISSING``.
        AssayError: what :func:`assay.key_events.read`, :meth:`KeyTable.check` and the signature say.
    """
    verified = dsse.verify_person(record.envelope(), trust.people_root, record.time, trust.relying_party)
    if len(verified.signers) != 1:
        raise IntegrityError("KEY_EVENT", "a key event has one signer")
    signer = verified.signers[0]
    if not may_order(signer):
        raise PermissionDeniedError("ROLE_MISSING", f"{signer.subject} is no operator of every unit")
    event = key_events.read(verified.statement, trust.origin, roots_of(trust), record.time)
    table.check(event, index, signer)
    table.apply(event, index)


def _wrong(name: str) -> NoReturn:
    raise InvalidInputError("KEY_TYPE", f"the key of {name} is not Ed25519")


def _not_in_force(name: str, term: Term | None, index: int) -> IntegrityError:
    if term is None:
        what = "not by a key that its events name"
    elif term.compromised is not None and term.end is not None and index >= term.end:
        what = f"by {term.public.keyid[:16]}, which record {term.compromised} declares compromised"
    else:
        until = "" if term.end is None else f" and before record {term.end}"
        what = f"by {term.public.keyid[:16]}, which holds from record {term.begin} on{until}"
    return IntegrityError("KEY_NOT_IN_FORCE", f"signed as {name} {what}")
