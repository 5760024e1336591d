"""Past decisions as precedent: which rule stood in whose way, and how it ended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, or_, select

from assay.v1 import policy_pb2
from gateway import pages
from gateway.caller import ALL_UNITS, Caller
from gateway.jobs import views
from gateway.jobs.transitions import Event
from gateway.names import unit_of
from gateway.settings import Settings
from gateway.store import jobs, rows
from gateway.store.database import Store
from gateway.store.rows import Position
from gateway.store.tables import JobRow
from policies.authorization import Authorizer
from policies.rule import GOOD

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
        where: list[Any] = [or_(c.decision != "", c.verdict != "")]
        if unit != ALL_UNITS:
            caller.require_unit(unit, request.parent)
            await self.store.require_unit(unit, request.parent)
            where.append(c.unit == unit)
        else:
            may = [u for u in self.settings.units if caller.may("ListPrecedents", u, self.authorizer)]
            where.append(c.unit.in_(may))
        if request.rule_id:
            quoted = f'"{request.rule_id}"'
            where.append(or_(c.decision.contains(quoted), c.verdict.contains(quoted)))
        if listing.after is not None:
            time, name = listing.after.time_us, _job_and_index(listing.after)[0]
            where.append(or_(c.created_us < time, and_(c.created_us == time, c.name <= name)))

        def read(connection: Connection) -> policy_pb2.ListPrecedentsResponse:
            order = (c.created_us.desc(), c.name.desc())
            statement = select(rows.table(JobRow)).where(*where).order_by(*order).limit(_SCANNED + 1)
            found = (JobRow(**row) for row in connection.execute(statement).mappings())
            return _page(listing, connection, found, request)

        return await self.store.fetch(read)


def _page(
    listing: pages.Listing, connection: Connection, found: Iterator[JobRow], request: policy_pb2.ListPrecedentsRequest
) -> policy_pb2.ListPrecedentsResponse:
    """Precedents of jobs from the one on where the page before stopped; the token names the first that is not shown."""
    answer = policy_pb2.ListPrecedentsResponse()
    job, index = _job_and_index(listing.after) if listing.after is not None else ("", 0)
    for scanned, row in enumerate(found):
        begin = index if row.name == job else 0
        # The job one too many is not searched: it tells that there is a next page.
        matching = [*_of(connection, row, request)][begin:] if scanned < _SCANNED else []
        room = listing.limit - len(answer.precedents)
        answer.precedents.extend(matching[:room])
        if len(matching) > room or scanned == _SCANNED:
            next_ = Position(row.created_us, f"{row.name}#{begin + min(room, len(matching))}")
            answer.next_page_token = pages.token(listing.name, next_)
            break
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
    connection: Connection, job: JobRow, request: policy_pb2.ListPrecedentsRequest
) -> Iterator[policy_pb2.Precedent]:
    """Precedents of one job that match."""
    purpose, wanted = views.request_of(job).purpose, request.text.casefold()
    decision = views.from_json(job.decision, policy_pb2.Decision)
    verdict = views.from_json(job.verdict, policy_pb2.Verdict)
    matching = [
        (moment, answer, outcome)
        for moment, answer in (("decision", decision), ("verdict", verdict))
        for outcome in answer.outcomes
        if outcome.outcome not in GOOD
        and (not request.rule_id or outcome.rule_id == request.rule_id)
        and wanted in f"{purpose} {outcome.message}".casefold()
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
        yield policy_pb2.Precedent(
            tuning_job=job.name,
            purpose=purpose,
            moment=moment,
            rule_id=outcome.rule_id,
            outcome=outcome.outcome,
            message=outcome.message,
            waived=outcome.rule_id in waived,
            appeals=appeals,
            state=job.state,
            as_of=answer.as_of,
            bundle_sha256=answer.bundle_sha256,
        )
