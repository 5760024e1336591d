"""Past decisions as precedent: which rule stood in whose way, and how it ended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, or_, select

from assay.v1 import policy_pb2
from gateway import pages
from gateway.caller import ALL_UNITS, Caller
from gateway.jobs import views
from gateway.jobs.transitions import Event
from gateway.names import unit_of
from gateway.settings import Settings
from gateway.store import jobs, rows
from gateway.store.database import Store
from gateway.store.tables import JobRow
from policies.authorization import Authorizer
from policies.rule import GOOD

_SCANNED = 2000
"""Newest jobs that one search looks at; older ones are found by narrowing unit or rule."""


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
        """
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
        limit = pages.size(request.page_size)

        def read(connection: Connection) -> list[policy_pb2.Precedent]:
            statement = select(rows.table(JobRow)).where(*where).order_by(c.created_us.desc(), c.name).limit(_SCANNED)
            out: list[policy_pb2.Precedent] = []
            for found in connection.execute(statement).mappings():
                for precedent in _of(connection, JobRow(**found), request):
                    out.append(precedent)
                    if len(out) == limit:
                        return out
            return out

        return policy_pb2.ListPrecedentsResponse(precedents=await self.store.fetch(read))


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
