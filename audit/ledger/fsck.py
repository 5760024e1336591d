"""A full check of the log on disk: every record, chain, tile and checkpoint; start-up looks at the right edge only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, select

from assay.errors import AssayError
from audit.ledger import records, tree
from audit.ledger.edge import TILE_BYTES, Edge, TreeReader
from audit.ledger.note import Checkpoint, Verifier, open_checkpoint
from audit.ledger.schema import CHECKPOINTS, RECORDS, TILES, check_guards
from audit.ledger.store import ChainEnd

_BATCH = 1024


@dataclass(frozen=True)
class Fault:
    """Something that does not hold: a stable word, where, and what."""

    reason: str
    index: int
    message: str


def check(engine: Engine, log: Verifier, progress: Callable[[int], None] = lambda done: None) -> Iterator[Fault]:
    """Yields every fault found, reading each table once in O(log n) memory; nothing yielded means that all holds.

    ``progress`` is told the number of records read so far.

    Faults: ``GUARD_DRIFT``, ``LOG_GAP``, ``LEAF_MISMATCH``, ``RECORD_MALFORMED`` (or another reason of the record's
    reader), ``COLUMN_MISMATCH``, ``CHAIN_BROKEN``, ``TILE_DAMAGED``, ``CHECKPOINT_BAD``, ``ROOT_MISMATCH``.
    """
    with engine.connect() as connection:
        try:
            check_guards(connection)
        except AssayError as error:
            yield Fault(error.reason, -1, error.message)
        notes = {int(size): bytes(note) for size, note in connection.execute(select(CHECKPOINTS))}
        tiles = _Tiles(connection)
        state = _State(Edge(), {}, notes)
        rows = connection.execution_options(yield_per=_BATCH).execute(select(RECORDS).order_by(RECORDS.c.idx))
        for batch in rows.partitions(_BATCH):
            for row in batch:
                yield from _record(state, row, log)
                yield from tiles.compare(state)
            progress(state.edge.size)
        for size in sorted(state.notes):
            yield Fault("CHECKPOINT_BAD", size, f"a checkpoint of size {size} where no such log was")
        yield from tiles.surplus()


@dataclass
class _State:
    """The log so far: tree, chains, and checkpoints not yet met."""

    edge: Edge
    chains: dict[str, ChainEnd]
    notes: dict[int, bytes]
    fresh: tuple[tuple[int, int, bytes], ...] = ()


class _Tiles:
    """Stored tiles, compared with those that the records make."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._left = {(int(level), int(n)) for level, n in connection.execute(select(TILES.c.level, TILES.c.n))}

    def compare(self, state: _State) -> Iterator[Fault]:
        """Compares the tiles that the newest record filled."""
        for level, n, hashes in state.fresh:
            query = select(TILES.c.hashes).where(TILES.c.level == level, TILES.c.n == n)
            self._left.discard((level, n))
            if self._connection.execute(query).scalar() != hashes:
                yield Fault("TILE_DAMAGED", n, f"tile {level}/{n} is missing or not what the records make")

    def surplus(self) -> Iterator[Fault]:
        """Tiles that no record fills."""
        for level, n in sorted(self._left):
            yield Fault("TILE_DAMAGED", n, f"tile {level}/{n} is not filled by records")


def _record(state: _State, row: object, log: Verifier) -> Iterator[Fault]:
    index, body, leaf = int(row.idx), bytes(row.body), bytes(row.leaf)  # type: ignore[attr-defined]
    if index != state.edge.size:
        yield Fault("LOG_GAP", state.edge.size, f"record {index} comes where {state.edge.size} is due")
    if tree.leaf_hash(body) != leaf:
        yield Fault("LEAF_MISMATCH", index, "the body does not match its leaf hash")
    try:
        record = records.read(body)
    except AssayError as error:
        yield Fault(error.reason, index, error.message)
    else:
        columns = (record.unit, record.sequence, record.type, record.job)
        if columns != (row.unit, row.tseq, row.type, row.job):  # type: ignore[attr-defined]
            yield Fault("COLUMN_MISMATCH", index, "the columns are not what the body says")
        end = state.chains.get(record.unit)
        expected = (1, None) if end is None else (end.sequence + 1, end.leaf.hex())
        if (record.sequence, record.previous) != expected or record.log != log.name:
            yield Fault("CHAIN_BROKEN", index, f"it does not follow the record of {record.unit} before it")
        state.chains[record.unit] = ChainEnd(record.sequence, leaf)
    state.edge, fresh = state.edge.extend([leaf])
    state.fresh = tuple((tile.level, tile.n, tile.hashes) for tile in fresh)
    note = state.notes.pop(state.edge.size, None)
    if note is not None:
        yield from _checkpoint(state, note, log)


def _checkpoint(state: _State, note: bytes, log: Verifier) -> Iterator[Fault]:
    size = state.edge.size
    try:
        checkpoint = open_checkpoint(note, log)
    except AssayError as error:
        yield Fault("CHECKPOINT_BAD", size, error.message)
        return
    if checkpoint != Checkpoint(log.name, size, _root(state.edge)):
        yield Fault("ROOT_MISMATCH", size, f"the records lead to another root at size {size}")


def _root(edge: Edge) -> bytes:
    """Root from the edge alone: every peak of a tree lies in its partial tiles."""
    return tree.root(edge.size, TreeReader(edge, lambda level, n: bytes(TILE_BYTES)).read)
