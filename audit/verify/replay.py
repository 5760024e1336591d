"""The log replayed in order: who signed what, in which state of the job, holding which role.

The replay believes the trust file's keys and nothing else. A record of the gateway is its claim; a person's act must
be that person's signature, a worker's result that worker's. What a record says of a state must follow from the
records before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from assay.errors import NotFoundError
from assay.key_events import PDF
from audit.ledger.evidence import Entry, Header
from audit.ledger.records import SYSTEM_UNIT
from audit.verify import acts, agreement, governance, results
from audit.verify import findings as names
from audit.verify.archive import open_bundle
from audit.verify.findings import Problem
from audit.verify.keys import Term
from audit.verify.people import Roles
from audit.verify.state import Handler, State
from audit.verify.transitions import transition
from audit.verify.trust import TrustFile

CLOCK_TOLERANCE = timedelta(seconds=2)
HANDLERS: Mapping[str, Handler] = {
    **governance.HANDLERS, **acts.HANDLERS, **results.HANDLERS, **agreement.HANDLERS,
}  # fmt: skip


def replay(entries: tuple[Entry, ...], header: Header, trust: TrustFile, gapless: frozenset[str]) -> State:
    """Replays entries in index order; each step's problem with a record is noted and the replay goes on.

    Args:
        entries: the records shown.
        header: what the bundle says of the log.
        trust: whom to believe about what.
        gapless: units whose chains are shown whole, so that what is absent never happened.
    """
    state = State(header, trust, gapless, Roles(founder=trust.operator))
    for entry in entries:
        for step in (_time, results.worker, agreement.model, _special, transition):
            try:
                step(state, entry)
            except Problem as problem:
                state.findings.note(entry.index, problem)
    return state


def _time(state: State, entry: Entry) -> None:
    newest, state.newest = state.newest, max(state.newest or entry.record.time, entry.record.time)
    # Differences throughout: a sum with a time at the end of the calendar overflows.
    behind = newest is not None and newest - entry.record.time > CLOCK_TOLERANCE
    state.findings.demand(names.TIME, not behind, "its time is more than 2 s before an earlier record's")


def _special(state: State, entry: Entry) -> None:
    """What a record's own type demands, where it demands more than every record's."""
    state.erasures.see(entry)
    handler = HANDLERS.get(entry.record.type)
    if handler is not None:
        handler(state, entry)


@dataclass(frozen=True)
class Issued:
    """Where a card was issued, under which key, and how far the log's word about that key is known.

    Attributes:
        index: of the record.
        term: of the key that signed cards there.
        seen: the record up to which every key event is shown: the last one of the whole log, else of the system's
            chain; None where the bundle leaves records out in between, of which each may be such an event.
    """

    index: int
    term: Term
    seen: Entry | None


def issued_under(data: bytes, trust: TrustFile, pdf_sha256: str) -> Issued:
    """Finds the record that issued a card, and the key that signed cards there.

    Args:
        data: a bundle that was verified.
        trust: by which it was.
        pdf_sha256: digest of the card.

    Raises:
        NotFoundError: ``CARD_NOT_ISSUED``.
    """
    bundle = open_bundle(data, trust.log)
    state = replay(bundle.entries, bundle.header, trust, frozenset())
    for entry in bundle.entries:
        if entry.record.type == "card.issued" and entry.record.predicate.get("pdf_sha256") == pdf_sha256:
            term = state.keys.at(PDF, entry.index)
            if term is not None:
                return Issued(entry.index, term, _seen(bundle.entries, bundle.header))
    raise NotFoundError("CARD_NOT_ISSUED", "no record in the bundle issued this card")


def _seen(entries: tuple[Entry, ...], header: Header) -> Entry | None:
    """The last record of the chain that holds key events, where none before it is left out."""
    system = [entry for entry in entries if entry.record.unit == SYSTEM_UNIT]
    if not system or [entry.record.sequence for entry in system] != list(range(1, len(system) + 1)):
        return None
    return (entries if header.scope == "log" else system)[-1]
