"""A batch in the making: records placed one after the other, then their rows, tiles and checkpoint in one transaction.

The statements are plain SQL that every database of the ledger understands, on the driver's own cursor, with tuples for
parameters: building rows as dicts and compiling statements would cost more than the insert itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Table

from assay.errors import InternalError, UnavailableError
from audit.ledger import records, tree
from audit.ledger.note import Checkpoint
from audit.ledger.records import Place, Prepared, RecordDraft
from audit.ledger.schema import CHECKPOINTS, RECORDS, TILES
from audit.ledger.signer import LogSigner
from audit.ledger.startup import Head
from audit.ledger.store import ChainEnd, job_firsts, marker

_RECORD = ("idx", "leaf", "body", "unit", "tseq", "type", "job", "job_first")
_TILE = ("level", "n", "hashes")
_CHECKPOINT = ("size", "note")


@dataclass
class Batch:
    """What a batch has gathered so far; a mark lets one unit be undone.

    Attributes:
        origin: the log's name.
        first: index of the batch's first record.
        chains: newest record of every unit, of this batch or before it.
        newest: newest time in the log.
        frozen: the newest record ends the log.
        rows: values of :data:`_RECORD`, a tuple a record, but for the last, which :meth:`write` finds out for all.
    """

    origin: str
    first: int
    chains: dict[str, ChainEnd]
    newest: datetime | None
    frozen: bool = False
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    _before: list[tuple[str, ChainEnd | None]] = field(default_factory=list)

    def mark(self) -> tuple[int, datetime | None, bool]:
        """A point to come back to."""
        return len(self.rows), self.newest, self.frozen

    def undo(self, mark: tuple[int, datetime | None, bool]) -> None:
        """Forgets everything after the mark."""
        count, self.newest, self.frozen = mark
        for unit, end in reversed(self._before[count:]):
            if end is None:
                del self.chains[unit]
            else:
                self.chains[unit] = end
        del self.rows[count:], self._before[count:]

    def append(self, draft: RecordDraft | Prepared, now: datetime, nonce: str) -> int:
        """Puts a record at the next place and returns its index.

        Raises:
            InvalidInputError: what :func:`audit.ledger.records.encode` says.
            UnavailableError: ``LOG_FROZEN``.
        """
        self.demand_open()
        prepared = draft if isinstance(draft, Prepared) else records.prepare(draft)
        unit = prepared.unit
        end = self.chains.get(unit)
        sequence, previous = (1, None) if end is None else (end.sequence + 1, end.leaf.hex())
        body = records.place(prepared, Place(self.origin, sequence, previous, now, nonce))
        leaf = tree.leaf_hash(body)
        index = self.first + len(self.rows)
        self.rows.append((index, leaf, body, unit, sequence, prepared.type, prepared.job))
        self._before.append((unit, end))
        self.chains[unit] = ChainEnd(sequence, leaf)
        self.frozen = prepared.type == records.FROZEN
        if self.newest is None or now > self.newest:
            self.newest = now
        return index

    def demand_open(self) -> None:
        """Refuses where no record can follow.

        Raises:
            UnavailableError: ``LOG_FROZEN``.
        """
        if self.frozen:
            raise UnavailableError(
                "LOG_FROZEN",
                f"the log {self.origin} was frozen and takes no more records",
                remedy="read it with fsck, backup and export; go on in its successor (docs/ledger.md)",
            )

    def write(self, connection: Connection, head: Head, signer: LogSigner) -> Head:
        """Inserts the records, the tiles that they fill and the signed checkpoint; returns the head after them."""
        if self.newest is None:
            raise InternalError("BATCH_EMPTY", "a batch without records is not signed")
        leaves = [row[1] for row in self.rows]
        edge, tiles = head.edge.extend(leaves)
        note = signer.sign(Checkpoint(self.origin, edge.size, edge.root()), self.newest)
        firsts = job_firsts(connection, [(row[0], row[6]) for row in self.rows])
        _insert(connection, RECORDS, _RECORD, [(*row, first) for row, first in zip(self.rows, firsts, strict=True)])
        _insert(connection, TILES, _TILE, [(tile.level, tile.n, tile.hashes) for tile in tiles])
        _insert(connection, CHECKPOINTS, _CHECKPOINT, [(edge.size, note)])
        return Head(edge, self.chains, self.newest, note, self.frozen)


def _insert(connection: Connection, table: Table, columns: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> None:
    if rows:
        with closing(connection.connection.cursor()) as cursor:
            cursor.executemany(_statement(table.name, columns, marker(connection)), rows)


@lru_cache(maxsize=16)
def _statement(table: str, columns: tuple[str, ...], place: str) -> str:
    values = ", ".join([place] * len(columns))
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({values})"  # noqa: S608  names of our own tables
