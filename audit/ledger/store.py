"""Reads of the ledger's tables; nothing here writes, judges or caches what could change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from sqlalchemy import Connection, Engine, Row, func, select
from sqlalchemy.sql.selectable import ScalarSelect, Select

from assay.errors import IntegrityError
from audit.ledger.edge import TILE_BYTES, TILE_WIDTH, Edge
from audit.ledger.schema import CHECKPOINTS, RECORDS, TILES
from audit.ledger.tree import HASH_SIZE

_CACHED_TILES = 256


@dataclass(frozen=True)
class StoredRecord:
    """A record as stored: its place, the columns for finding it, and the exact bytes that are the leaf's data."""

    index: int
    unit: str
    unit_sequence: int
    type: str
    job: str
    body: bytes
    leaf: bytes


class ChainEnd(NamedTuple):
    """The newest record of a unit: its sequence number and leaf hash."""

    sequence: int
    leaf: bytes


class LogStore:
    """The ledger's tables, for reading from any thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # Tiles never change once written, so that a cache of them cannot grow stale.
        self.tile = lru_cache(maxsize=_CACHED_TILES)(self._tile)

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """A connection with one consistent snapshot."""
        with self._engine.connect() as connection:
            yield connection

    def record(self, index: int) -> StoredRecord | None:
        """The record at an index, or None."""
        with self.connect() as connection:
            row = connection.execute(select(RECORDS).where(RECORDS.c.idx == index)).one_or_none()
        return None if row is None else _stored(row)

    def records(
        self, unit: str | None, job: str | None, after_index: int, below: int, limit: int
    ) -> list[StoredRecord]:
        """Records in log order with ``after_index < index < below``, at most ``limit``; None means any unit or job."""
        query: Select[tuple[object, ...]] = select(RECORDS).where(RECORDS.c.idx > after_index, RECORDS.c.idx < below)
        order = RECORDS.c.idx
        if unit is not None:
            query = query.where(RECORDS.c.unit == unit)
        if job is not None:
            query = query.where(RECORDS.c.job_first == _first_of(job))
        elif unit is not None:
            # A unit's index has its numbers, which rise with the log's: a page begins where the one before ended. Of a
            # place that is no record of the unit the number is not known, and the page looks for it from the first on.
            last = RECORDS.alias()
            ended = select(last.c.tseq).where(last.c.idx == after_index, last.c.unit == unit).scalar_subquery()
            query, order = query.where(RECORDS.c.tseq > func.coalesce(ended, 0)), RECORDS.c.tseq
        with self.connect() as connection:
            return [_stored(row) for row in connection.execute(query.order_by(order).limit(limit))]

    def records_at(self, indices: Sequence[int]) -> list[StoredRecord]:
        """The records at these indices, in log order; one that there is none at is left out."""
        query = select(RECORDS).where(RECORDS.c.idx.in_(indices)).order_by(RECORDS.c.idx)
        with self.connect() as connection:
            return [_stored(row) for row in connection.execute(query)]

    def indices(self, unit: str, job: str | None, below: int, limit: int, without: str = "") -> list[int]:
        """Where a unit's records lie below an index, in the order of its chain, at most ``limit``.

        Args:
            unit: whose chain.
            job: records of this job alone; empty for those of no job, None for all.
            below: only records with smaller indices.
            limit: at most so many.
            without: a record type to leave out.
        """
        query = select(RECORDS.c.idx).where(RECORDS.c.unit == unit, RECORDS.c.idx < below)
        if job:
            query = query.where(RECORDS.c.job_first == _first_of(job))
        elif job is not None:
            query = query.where(RECORDS.c.job_first.is_(None))
        if without:
            query = query.where(RECORDS.c.type != without)
        with self.connect() as connection:
            return list(connection.execute(query.order_by(RECORDS.c.tseq).limit(limit)).scalars())

    def weight(self, indices: Sequence[int]) -> int:
        """Bytes of the records at these indices, none of which is read."""
        query = select(func.coalesce(func.sum(func.length(RECORDS.c.body)), 0)).where(RECORDS.c.idx.in_(indices))
        with self.connect() as connection:
            return int(connection.execute(query).scalar_one())

    def units(self) -> list[str]:
        """Names of all chains."""
        with self.connect() as connection:
            return list(chain_ends(connection))

    def checkpoint_at(self, size: int) -> bytes | None:
        """The note signed for a tree of exactly ``size`` leaves, if one was."""
        with self.connect() as connection:
            return connection.execute(select(CHECKPOINTS.c.note).where(CHECKPOINTS.c.size == size)).scalar()

    def covering_checkpoint(self, index: int) -> tuple[int, bytes] | None:
        """Size and note of the smallest checkpoint whose tree includes ``index``."""
        query = select(CHECKPOINTS.c.size, CHECKPOINTS.c.note).where(CHECKPOINTS.c.size > index)
        with self.connect() as connection:
            row = connection.execute(query.order_by(CHECKPOINTS.c.size).limit(1)).one_or_none()
        return None if row is None else (int(row[0]), bytes(row[1]))

    def _tile(self, level: int, n: int) -> bytes:
        # As text: a proof is little more than the reading of two tiles; a statement of columns doubles what that takes.
        with self.connect() as connection:
            place = marker(connection)
            hashes = connection.exec_driver_sql(f"{_TILE} level = {place} AND n = {place}", (level, n)).scalar()
        if hashes is None or len(hashes) != TILE_BYTES:
            raise IntegrityError("TILE_DAMAGED", f"tile {level}/{n} is missing or has a wrong length")
        return bytes(hashes)


def head_of(connection: Connection) -> tuple[int, bytes | None]:
    """Number of records, and the newest checkpoint's note; two seeks, whatever the size.

    A gap below the right edge is for :func:`audit.ledger.fsck.check` to find.

    Raises:
        IntegrityError: ``CHECKPOINT_MISSING`` when the newest checkpoint is not of exactly this size.
    """
    size, note = quick_head(connection)
    newest = connection.execute(select(func.max(CHECKPOINTS.c.size))).scalar()
    if (newest or 0) != size:
        raise IntegrityError("CHECKPOINT_MISSING", f"the newest checkpoint is not of size {size}")
    return size, note


def quick_head(connection: Connection) -> tuple[int, bytes | None]:
    """Newest index plus one, and the newest checkpoint's note: two seeks in one question, asked before every batch."""
    with closing(connection.connection.cursor()) as cursor:
        cursor.execute(_HEAD)
        ((index, note),) = cursor.fetchall()
    return (0 if index is None else int(index) + 1), note


def edge_of(connection: Connection, size: int) -> Edge:
    """Rebuilds the right edge of a tree of ``size`` leaves from the newest leaves and the roots of full tiles.

    Raises:
        IntegrityError: ``TILE_DAMAGED`` or ``LOG_GAP``.
    """
    begin = size - size % TILE_WIDTH
    leaves = connection.execute(select(RECORDS.c.leaf).where(RECORDS.c.idx >= begin).order_by(RECORDS.c.idx)).scalars()
    levels = [[bytes(leaf) for leaf in leaves]]
    if len(levels[0]) != size - begin:
        raise IntegrityError("LOG_GAP", "records of the right edge are missing")
    depth = 0
    while size >> (8 * (depth + 1)):
        full = size >> (8 * (depth + 1))
        begin = full - full % TILE_WIDTH
        query = select(TILES.c.hashes).where(TILES.c.level == depth, TILES.c.n >= begin).order_by(TILES.c.n)
        levels.append([bytes(hashes[-HASH_SIZE:]) for hashes in connection.execute(query).scalars()])
        if len(levels[-1]) != full - begin:
            raise IntegrityError("TILE_DAMAGED", f"tiles of level {depth} are missing")
        depth += 1
    return Edge.of(size, levels)


def edge_records(connection: Connection, size: int) -> list[StoredRecord]:
    """The records that are in no full tile, or the last one if all are."""
    begin = min(size - size % TILE_WIDTH, max(size - 1, 0))
    return [
        _stored(row)
        for row in connection.execute(select(RECORDS).where(RECORDS.c.idx >= begin).order_by(RECORDS.c.idx))
    ]


def chain_ends(connection: Connection) -> dict[str, ChainEnd]:
    """The newest record of every unit, by one index seek a unit."""
    ends: dict[str, ChainEnd] = {}
    unit = connection.execute(select(func.min(RECORDS.c.unit))).scalar()
    while unit is not None:
        query = select(RECORDS.c.tseq, RECORDS.c.leaf).where(RECORDS.c.unit == unit)
        sequence, leaf = connection.execute(query.order_by(RECORDS.c.tseq.desc()).limit(1)).one()
        ends[unit] = ChainEnd(int(sequence), bytes(leaf))
        unit = connection.execute(select(func.min(RECORDS.c.unit)).where(RECORDS.c.unit > unit)).scalar()
    return ends


def job_firsts(connection: Connection, records: Sequence[tuple[int, str]]) -> list[int | None]:
    """The index of the first record of each one's job, for records that are to be inserted; None for no job.

    Args:
        connection: sees every record before these.
        records: index and job of each, in log order.
    """
    jobs = sorted({job for _, job in records if job})
    known: dict[str, int] = {}
    if jobs:
        markers = ", ".join([marker(connection)] * len(jobs))
        with closing(connection.connection.cursor()) as cursor:
            cursor.execute(f"{_FIRSTS} ({markers})", jobs)
            known.update(cursor.fetchall())
    return [known.setdefault(job, index) if job else None for index, job in records]


def marker(connection: Connection) -> str:
    """How the driver writes a parameter's place."""
    return "?" if connection.dialect.paramstyle == "qmark" else "%s"


_TILE = "SELECT hashes FROM log_tile WHERE"
_FIRSTS = "SELECT job, idx FROM log_record WHERE job_first = idx AND job IN"
# Plain SQL on the driver's own cursor: this is asked before every batch.
_HEAD = "SELECT (SELECT MAX(idx) FROM log_record), (SELECT note FROM log_checkpoint ORDER BY size DESC LIMIT 1)"


def _first_of(job: str) -> ScalarSelect[int]:
    """The index of a job's first record, by the index over names; NULL where there is no such job."""
    first = RECORDS.alias()
    return select(first.c.idx).where(first.c.job == job, first.c.job_first == first.c.idx).scalar_subquery()


def _stored(row: Row[tuple[object, ...]]) -> StoredRecord:
    return StoredRecord(row.idx, row.unit, row.tseq, row.type, row.job, bytes(row.body), bytes(row.leaf))
