"""A full check of the log on disk: every record, chain, tile and checkpoint; start-up looks at the right edge only.

:func:`check` reads what the records say, too; :func:`check_hashes` is several times faster and reads only whether they
are still the bytes that the newest checkpoint was signed for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, select

from assay.errors import AssayError, PreconditionError
from audit.ledger import records, tree, upgrade
from audit.ledger.edge import TILE_WIDTH, Edge, Tile
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
    """Yields every fault found, reading each table once; nothing yielded means that all holds.

    Memory is O(log n) for the tree, and beside it a number a job, a hash a unit and every checkpoint's note.

    ``progress`` is told the number of records read so far.

    Faults: ``GUARD_DRIFT``, ``LOG_GAP``, ``LEAF_MISMATCH``, ``RECORD_MALFORMED`` (or another reason of the record's
    reader), ``COLUMN_MISMATCH``, ``CHAIN_BROKEN``, ``TILE_DAMAGED``, ``CHECKPOINT_BAD``, ``ROOT_MISMATCH``.

    Raises:
        PreconditionError: ``LEDGER_NOT_UPGRADED`` when the tables are of an earlier release.
    """
    with engine.connect() as connection:
        if upgrade.is_needed(connection):
            raise PreconditionError(
                "LEDGER_NOT_UPGRADED",
                "the ledger's tables are of an earlier release",
                remedy="start the gateway once, or on PostgreSQL run assay ledger migrate; --hashes-only reads them",
            )
        try:
            check_guards(connection)
        except AssayError as error:
            yield Fault(error.reason, -1, error.message)
        notes = {int(size): bytes(note) for size, note in connection.execute(select(CHECKPOINTS))}
        tiles = _Tiles(connection)
        newest = max(notes, default=0)
        state = _State(Edge(), {}, {}, notes)
        rows = connection.execution_options(yield_per=_BATCH).execute(select(RECORDS).order_by(RECORDS.c.idx))
        for batch in rows.partitions(_BATCH):
            for row in batch:
                yield from _record(state, row, log)
                yield from tiles.compare(state.fresh)
            progress(state.edge.size)
        if newest < state.edge.size:
            yield Fault("CHECKPOINT_BAD", state.edge.size, "no checkpoint covers the newest records")
        for size in sorted(state.notes):
            yield Fault("CHECKPOINT_BAD", size, f"a checkpoint of size {size} where no such log was")
        yield from tiles.surplus()


def check_hashes(engine: Engine, log: Verifier, progress: Callable[[int], None] = lambda done: None) -> Iterator[Fault]:
    """Yields every fault of the hashes: each leaf against its body, each tile, the root under the newest checkpoint.

    What a record says, its chain and older checkpoints are for :func:`check`. A gap ends the check, since nothing
    after it is where it was. Memory is O(log n), and ``progress`` is told as by :func:`check`.

    Faults: ``LOG_GAP``, ``LEAF_MISMATCH``, ``TILE_DAMAGED``, ``CHECKPOINT_BAD``, ``ROOT_MISMATCH``.
    """
    edge = Edge()
    with engine.connect() as connection:
        tiles = _Tiles(connection)
        newest = connection.execute(select(CHECKPOINTS).order_by(CHECKPOINTS.c.size.desc()).limit(1)).one_or_none()
        query = select(RECORDS.c.idx, RECORDS.c.leaf, RECORDS.c.body).order_by(RECORDS.c.idx)
        for rows in connection.execution_options(yield_per=TILE_WIDTH).execute(query).partitions(TILE_WIDTH):
            indices, leaves, bodies = zip(*rows, strict=True)
            if (indices[0], indices[-1]) != (edge.size, edge.size + len(rows) - 1):
                due = next(due for due, index in enumerate(indices, edge.size) if index != due)
                yield Fault("LOG_GAP", due, f"record {due} is missing")
                return
            made = tuple([tree.leaf_hash(body) for body in bodies])
            if made != leaves:
                for index in (i for i, leaf, due in zip(indices, leaves, made, strict=True) if leaf != due):
                    yield Fault("LEAF_MISMATCH", index, "the body does not match its leaf hash")
            edge, fresh = edge.extend(leaves)
            yield from tiles.compare(fresh)
            progress(edge.size)
        yield from tiles.surplus()
    if newest is None or newest.size != edge.size:
        if newest is not None or edge.size:
            yield Fault("CHECKPOINT_BAD", edge.size, f"the newest checkpoint is not of size {edge.size}")
        return
    yield from _checkpoint(edge, bytes(newest.note), log)


@dataclass
class _State:
    """The log so far: tree, chains, each job's first record, and checkpoints not yet met."""

    edge: Edge
    chains: dict[str, ChainEnd]
    jobs: dict[str, int]
    notes: dict[int, bytes]
    fresh: Sequence[Tile] = ()


class _Tiles:
    """Stored tiles, compared with those that the records make."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._left = {(int(level), int(n)) for level, n in connection.execute(select(TILES.c.level, TILES.c.n))}

    def compare(self, fresh: Sequence[Tile]) -> Iterator[Fault]:
        """Compares the tiles that the newest records filled."""
        for tile in fresh:
            query = select(TILES.c.hashes).where(TILES.c.level == tile.level, TILES.c.n == tile.n)
            self._left.discard((tile.level, tile.n))
            if self._connection.execute(query).scalar() != tile.hashes:
                what = f"tile {tile.level}/{tile.n} is missing or not what the records make"
                yield Fault("TILE_DAMAGED", tile.n, what)

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
        first = state.jobs.setdefault(record.job, index) if record.job else None
        columns = (record.unit, record.sequence, record.type, record.job, first)
        if columns != (row.unit, row.tseq, row.type, row.job, row.job_first):  # type: ignore[attr-defined]
            yield Fault("COLUMN_MISMATCH", index, "the columns are not what the body says")
        end = state.chains.get(record.unit)
        expected = (1, None) if end is None else (end.sequence + 1, end.leaf.hex())
        if (record.sequence, record.previous) != expected or record.log != log.name:
            yield Fault("CHAIN_BROKEN", index, f"it does not follow the record of {record.unit} before it")
        state.chains[record.unit] = ChainEnd(record.sequence, leaf)
    state.edge, state.fresh = state.edge.extend([leaf])
    note = state.notes.pop(state.edge.size, None)
    if note is not None:
        yield from _checkpoint(state.edge, note, log)


def _checkpoint(edge: Edge, note: bytes, log: Verifier) -> Iterator[Fault]:
    size = edge.size
    try:
        checkpoint = open_checkpoint(note, log)
    except AssayError as error:
        yield Fault("CHECKPOINT_BAD", size, error.message)
        return
    if checkpoint != Checkpoint(log.name, size, edge.root()):
        yield Fault("ROOT_MISMATCH", size, f"the records lead to another root at size {size}")
