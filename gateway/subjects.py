"""Data subjects by keyed handle, and the indexes that prepare tasks made of them. The gateway reads no row.

A handle is made under a key of the unit (:mod:`assay.subjects`). A subject's value is hashed when it comes in and goes
no further; what is stored, recorded and shown is the handle, as ``units/{unit}/dataSubjects/{handle}``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from assay.errors import NotFoundError
from assay.subjects import INDEX_FILE, SubjectIndex, handle_of
from gateway.jobs import views
from gateway.store import rows
from gateway.store.blobs import BlobStore, FileBlobStore, read_bytes
from gateway.store.jobs import Brief, briefs, facts_of
from gateway.store.tables import DatasetRow, ErasureRow, FactRow, JobRow

FACT = f"prepare.{INDEX_FILE}"
"""The fact of a job that names its dataset's index."""

_NAME = re.compile(r"units/[a-z][a-z0-9-]{0,30}/dataSubjects/([0-9a-f]{64})")


@dataclass(frozen=True)
class Erased:
    """A subject whose erasure was ordered, and its rows in a file: numbers, ascending."""

    order_index: int
    rows: Sequence[int]


def name_of(blobs: FileBlobStore, unit: str, value: str) -> str:
    """The resource name of a subject, from its value."""
    return f"units/{unit}/dataSubjects/{handle_of(blobs.unit_keys(unit, create=True).subject_key, value).hex()}"


def handle_in(name: str) -> bytes:
    """The handle in a subject's resource name; empty for any other resource."""
    match = _NAME.fullmatch(name)
    return bytes.fromhex(match[1]) if match else b""


def digests(connection: Connection, unit: str, jobs: Sequence[JobRow | Brief]) -> dict[str, str]:
    """The index of every dataset that one of the unit's jobs had read, as a blob's digest by dataset."""
    query = facts_of(unit).where(rows.table(FactRow).c.key == FACT)
    found = {str(row.job): str(row.value) for row in connection.execute(query)}
    return {views.dataset_of(job): found[job.name] for job in jobs if job.name in found}


def index_at(blobs: BlobStore, unit: str, digest: str) -> SubjectIndex | None:
    """A stored index; None when it went with its dataset.

    Raises:
        IntegrityError: ``BLOB_DAMAGED`` or ``SUBJECT_INDEX``.
    """
    try:
        return SubjectIndex.parse(read_bytes(blobs, unit, digest))
    except NotFoundError:
        return None


def holding(
    connection: Connection,
    blobs: BlobStore,
    unit: str,
    handle: bytes,
    seen: dict[str, Sequence[int]] | None = None,
    sizes: dict[str, int] | None = None,
) -> dict[str, Sequence[int]]:
    """Rows of a subject by dataset of the unit, erased ones too; datasets without any are left out.

    Args:
        connection: to read by.
        blobs: in which the indexes lie.
        unit: whose datasets.
        handle: the subject's.
        seen: its rows by the digest of an index; those that are there are not read again, the others are added.
        sizes: takes how many rows each index that is read has, by its digest.
    """
    seen = {} if seen is None else seen
    out = {}
    for dataset, digest in digests(connection, unit, briefs(connection, unit)).items():
        if digest not in seen and (index := index_at(blobs, unit, digest)) is not None:
            seen[digest] = index.rows(handle)
            if sizes is not None:
                sizes[digest] = len(index)
        if seen.get(digest):
            out[dataset] = seen[digest]
    return out


def erased_in(connection: Connection, unit: str, index: SubjectIndex) -> list[Erased]:
    """Subjects whose erasure was ordered and whose rows are in this file all the same."""
    ordered = rows.select_all(connection, ErasureRow, order_by="order_index", unit=unit)
    found = [Erased(e.order_index, index.rows(handle_in(e.resource))) for e in ordered if handle_in(e.resource)]
    return [erased for erased in found if erased.rows]


def live(connection: Connection, names: Sequence[str]) -> list[str]:
    """Those datasets whose own erasure nobody has ordered, in the order of their names."""
    return sorted(
        name
        for name in names
        if rows.get(connection, DatasetRow, name=name) is not None
        and rows.get(connection, ErasureRow, resource=name) is None
    )
