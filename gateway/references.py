"""What names the stored files of a unit, and until when.

Files lie by their content, so one file may be a dataset, a split of another, part of an adapter and a card at once. It
may go when nothing that stays names it.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Set

from sqlalchemy import Connection, select

from assay.modelfiles import ADAPTER_CONFIG
from gateway import subjects
from gateway.jobs import views
from gateway.jobs.transitions import State
from gateway.store import jobs, rows
from gateway.store.tables import DatasetRow, ErasureRow, FactRow, JobRow, ModelRow

WEIGHTS = "erasure.weights"
"""The fact of a job whose erasure takes its adapter along, with the order's index; what earlier builds erased lacks it.
"""
_SPLIT = re.compile(r"prepare\.(?:[a-z]+\.jsonl|private\.bin)")
_CANARIES = re.compile(r'"canary_manifest_sha256": "([0-9a-f]{64})"')
"""In a decision as it is kept; within a text its quotes would be escaped."""
_AUDITED = "audit.report"
"""The fact of a job that was audited."""


def needed(connection: Connection, unit: str) -> set[str]:
    """Digests of a unit's files that something names which nobody ordered to be erased."""
    erased = _erased(connection, unit)
    return {digest for owner, digest in _named(connection, unit) if owner not in erased}


def erasable(connection: Connection, unit: str) -> Mapping[str, Set[str]]:
    """Digests of the files that go with each resource of a unit whose erasure was ordered; nothing for most of them."""
    erased, stays = _erased(connection, unit), set[str]()
    going = defaultdict[str, set[str]](set)
    for owner, digest in _named(connection, unit):
        (going[owner] if owner in erased else stays).add(digest)
    return {owner: digests - stays for owner, digests in going.items()}


def prepared_beside(connection: Connection, job: JobRow) -> bool:
    """Whether another job is being prepared from the same dataset, of which it keeps the same index of subjects."""
    dataset = views.dataset_of(job)
    others = rows.select_all(connection, JobRow, unit=job.unit, state=State.PREPARING.value)
    return any(views.dataset_of(other) == dataset for other in others if other.name != job.name)


def _erased(connection: Connection, unit: str) -> set[str]:
    return {row.resource for row in rows.select_all(connection, ErasureRow, unit=unit)}


def _named(connection: Connection, unit: str) -> Iterator[tuple[str, str]]:
    """Every digest that a row names, with the dataset or job whose erasure ends that; with none, no erasure does.

    A dataset's erasure takes its upload, what preparation split from it, the canaries that an audit opened, since they
    stand in rows with values of the file, and its index of subjects, unless a model was trained on the rows: that must
    be found, and so must those that go on from it. A job's takes its adapter (:data:`WEIGHTS`), but for
    the configuration: it tells of no row, and another job may be storing the same bytes. Cards and audits stay.
    """
    data, asked, made = (rows.table(kind).c for kind in (DatasetRow, JobRow, ModelRow))
    files = connection.execute(select(data.name, data.sha256).where(data.unit == unit))
    yield from ((name, sha256) for name, sha256 in files)
    read: dict[str, str] = {}
    canaries: dict[str, list[str]] = {}
    # Of a job only what is looked at, and no text parsed that need not be: the ledger's writer waits.
    query = select(asked.name, asked.request, asked.decision).where(asked.unit == unit)
    for job, request, decision in connection.execute(query):
        read[job], canaries[job] = json.loads(request).get("dataset", ""), _CANARIES.findall(decision)
    trained = set()
    query = jobs.facts_of(unit).where(rows.table(FactRow).c.key == WEIGHTS)
    taken = {fact.job for fact in connection.execute(query)}
    cards = (made.card_sha256, made.card_pdf_sha256, made.issued_pdf_sha256)
    for job, files, *digests in connection.execute(select(made.job, made.files, *cards).where(made.unit == unit)):
        trained.add(read.get(job, ""))
        yield from (("", digest) for digest in digests)
        owner = job if job in taken else ""
        yield from (("" if file["path"] == ADAPTER_CONFIG else owner, file["sha256"]) for file in json.loads(files))
    for job, key, digest in jobs.digests(connection, unit):
        dataset = read.get(job, "")
        goes = _SPLIT.fullmatch(key) or (key == subjects.FACT and dataset not in trained)
        yield dataset if goes else "", digest
        if key == _AUDITED:
            yield from ((dataset, opened) for opened in canaries.get(job, ()))
