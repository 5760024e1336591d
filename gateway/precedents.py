"""Past decisions as precedent: which rule stood in whose way, and how it ended."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Connection, Row, or_, select, tuple_

from assay.v1 import policy_pb2
from gateway import pages
from gateway.caller import ALL_UNITS, Caller
from gateway.jobs.transitions import Event
from gateway.names import unit_of
from gateway.settings import Settings
from gateway.store import jobs, rows
from gateway.store.database import Store
from gateway.store.rows import Position
from gateway.store.tables import JobRow
from policies.authorization import Authorizer
from policies.rule import GOOD

_GOOD = {policy_pb2.Outcome.Name(outcome) for outcome in GOOD}
_SCANNED = 2000
"""Jobs that one page looks at; the next page goes on where it stopped."""


@dataclass(frozen=True)
class Precedents:
    """Searches the jobs of the units in which a caller may."""

    settings: Settings
    store: Store
    authorizer: Authorizer

    async def list_precedents(
        self, caller: Caller, request: policy_pb2.ListPrecedentsRequest
    ) -> policy_pb2.ListPrecedentsResponse:
        """Rules that stood in the way of past jobs, newest job first.

        For all units together they are those of each unit for which the caller may ask by itself.

        Raises:
            NotFoundError: ``NOT_FOUND`` for a unit that the caller has no role in.
            InvalidInputError: ``PAGE_TOKEN``.
        """
        listing = pages.Listing.of(f"precedents {request.parent} {request.rule_id} {request.text}", request)
        unit, c = unit_of(request.parent), rows.table(JobRow).c
        where: list[Any] = []
        if unit != ALL_UNITS:
            caller.require_unit(unit, request.parent)
            await self.store.require_unit(unit, request.parent)
            where.append(c.unit == unit)
        else:
            may = [u for u in self.settings.units if caller.may("ListPrecedents", u, self.authorizer)]
            # Not by an index of units: it would have the names of all of them sorted first.
            where.append((c.unit + "").in_(may))
        if listing.after is not None:
            begin = (listing.after.time_us, _job_and_index(listing.after)[0])
            where.append(tuple_(c.created_us, c.name) <= tuple_(*begin))
        quoted = f'"{request.rule_id}"' if request.rule_id else ""

        def read(connection: Connection) -> policy_pb2.ListPrecedentsResponse:
            order = (c.created_us.desc(), c.name.desc())
            # Names come first, and from an index: what a page looks at is bounded before any text is read.
            newest = select(c.name, c.created_us).where(*where).order_by(*order).limit(_SCANNED + 1)
            scanned = connection.execute(newest).all()
            columns = (c.name, c.state, c.created_us, c.request, c.decision, c.verdict)
            texts = or_(c.decision.contains(quoted), c.verdict.contains(quoted))
            statement = select(*columns).where(texts).order_by(*order)
            found = rows.by_name(connection, statement, c.name, [row.name for row in scanned[:_SCANNED]])
            left = [Position(row.created_us, f"{row.name}#0") for row in scanned[_SCANNED:]]
            return _page(listing, connection, found, left, request)

        return await self.store.searches.run(caller.subject, partial(self.store.read, read))


def _page(
    listing: pages.Listing,
    connection: Connection,
    found: Iterable[Row[Any]],
    left: Sequence[Position],
    request: policy_pb2.ListPrecedentsRequest,
) -> policy_pb2.ListPrecedentsResponse:
    """Precedents of jobs from the one on where the page before stopped; the token names the first that is not shown.

    ``left`` is where the page after these jobs begins; empty where none follows.
    """
    answer, size = policy_pb2.ListPrecedentsResponse(), 0
    job, index = _job_and_index(listing.after) if listing.after is not None else ("", 0)
    for row in found:
        begin = index if row.name == job else 0
        matching = [*_of(connection, row, request)][begin:]
        shown = pages.fitting(matching[: listing.limit - len(answer.precedents)], size)
        answer.precedents.extend(shown)
        size += sum(precedent.ByteSize() for precedent in shown)
        if len(matching) > len(shown):
            left = [Position(row.created_us, f"{row.name}#{begin + len(shown)}")]
            break
    if left:
        answer.next_page_token = pages.token(listing.name, left[0])
    return answer


def _job_and_index(place: Position) -> tuple[str, int]:
    """Which job a page begins with, and with which of its precedents.

    Raises:
        InvalidInputError: ``PAGE_TOKEN``.
    """
    job, _, index = place.name.rpartition("#")
    if not index.isdecimal() or len(index) > 9:
        raise pages.bad_token()
    return job, int(index)


def _of(
    connection: Connection, job: Row[Any], request: policy_pb2.ListPrecedentsRequest
) -> Iterator[policy_pb2.Precedent]:
    """Precedents of one job that match; read as plain JSON, since messages take ten times as long to parse."""
    purpose, wanted = json.loads(job.request).get("purpose", ""), request.text.casefold()
    matching = [
        (moment, answer, outcome)
        for moment, answer in (("decision", _answer(job.decision)), ("verdict", _answer(job.verdict)))
        for outcome in answer.get("outcomes", ())
        if outcome.get("outcome") not in _GOOD
        and (not request.rule_id or outcome.get("rule_id") == request.rule_id)
        and wanted in f"{purpose} {outcome.get('message', '')}".casefold()
    ]
    if not matching:
        return
    waived = {
        rule
        for key, value in jobs.facts(connection, job.name).items()
        if key.startswith("waiver.")
        for rule in json.loads(value)["rules"]
    }
    appeals = sum(step.event == Event.APPEAL for step in jobs.transitions(connection, job.name))
    for moment, answer, outcome in matching:
        rule = outcome.get("rule_id", "")
        yield policy_pb2.Precedent(
            tuning_job=job.name,
            purpose=purpose,
            moment=moment,
            rule_id=rule,
            outcome=outcome.get("outcome", "OUTCOME_UNSPECIFIED"),
            message=outcome.get("message", ""),
            waived=rule in waived,
            appeals=appeals,
            state=job.state,
            as_of=answer.get("as_of", ""),
            bundle_sha256=answer.get("bundle_sha256", ""),
        )


def _answer(text: str) -> Mapping[str, Any]:
    """A decision or verdict as :func:`gateway.jobs.views.to_json` kept it; empty where there was none."""
    found: Mapping[str, Any] = json.loads(text or "{}")
    return found
