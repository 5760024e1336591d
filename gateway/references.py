"""What names the stored files of a unit, and until when.

Files lie by their content, so one file may be a dataset, a split of another, part of an adapter and a card at once. It
may go when nothing that stays names it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from sqlalchemy import Connection

from gateway import subjects
from gateway.jobs import views
from gateway.jobs.transitions import State
from gateway.store import jobs, rows
from gateway.store.tables import DatasetRow, ErasureRow, FactRow, JobRow, ModelRow

WEIGHTS = "erasure.weights"
"""The fact of a job whose erasure takes its adapter along, with the order's index; what earlier builds erased lacks it.
"""
_SPLIT = re.compile(r"prepare\.(?:[a-z]+\.jsonl|private\.bin)")


def needed(connection: Connection, unit: str) -> set[str]:
    """Digests of a unit's files that something names which nobody ordered to be erased."""
    erased = _erased(connection, unit)
    return {digest for owner, digest in _named(connection, unit) if owner not in erased}


def erasable(connection: Connection, unit: str, resource: str) -> set[str]:
    """Digests of the files that go with a dataset or a job whose erasure was ordered; none for another resource."""
    erased, named = _erased(connection, unit), list(_named(connection, unit))
    own = {digest for owner, digest in named if owner == resource}
    return own - {digest for owner, digest in named if owner not in erased}


def prepared_beside(connection: Connection, job: JobRow) -> bool:
    """Whether another job is being prepared from the same dataset, of which it keeps the same index of subjects."""
    dataset = views.request_of(job).dataset
    others = rows.select_all(connection, JobRow, unit=job.unit, state=State.PREPARING.value)
    return any(views.request_of(other).dataset == dataset for other in others if other.name != job.name)


def _erased(connection: Connection, unit: str) -> set[str]:
    return {row.resource for row in rows.select_all(connection, ErasureRow, unit=unit)}


def _named(connection: Connection, unit: str) -> Iterator[tuple[str, str]]:
    """Every digest that a row names, with the dataset or job whose erasure ends that; with none, no erasure does.

    A dataset's erasure takes its upload, what preparation split from it, the canaries that an audit opened, since they
    stand in rows with values of the file, and its index of subjects, unless a model was trained on the rows: that must
    be found, and so must those that go on from it. A job's takes its adapter (:data:`WEIGHTS`). Cards and audits stay.
    """
    for row in rows.select_all(connection, DatasetRow, unit=unit):
        yield row.name, row.sha256
    read = {}
    for job in rows.select_all(connection, JobRow, unit=unit):
        read[job.name] = views.request_of(job).dataset
        # As plain JSON: a message would take thirty times as long, and the ledger's writer waits.
        plan = json.loads(job.decision or "{}").get("audit_plan", {})
        if job.audit and (opened := plan.get("canary_manifest_sha256")):
            yield read[job.name], opened
    trained = set()
    taken = {fact.job for fact in rows.select_all(connection, FactRow, key=WEIGHTS)}
    for model in rows.select_all(connection, ModelRow, unit=unit):
        trained.add(read.get(model.job, ""))
        cards = (model.card_sha256, model.card_pdf_sha256, model.issued_pdf_sha256)
        yield from (("", digest) for digest in cards)
        owner = model.job if model.job in taken else ""
        yield from ((owner, file["sha256"]) for file in json.loads(model.files))
    for fact in jobs.digests(connection, unit):
        dataset = read.get(fact.job, "")
        goes = _SPLIT.fullmatch(fact.key) or (fact.key == subjects.FACT and dataset not in trained)
        yield dataset if goes else "", fact.value
