"""The whole check of a log, stopped or running: tables, guards, enforcement on this connection, and the anchor."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sqlalchemy import Engine, func, select

from assay.errors import AssayError
from audit.ledger import dialect, fsck, tree
from audit.ledger.anchor import Anchor
from audit.ledger.edge import TreeReader
from audit.ledger.fsck import Fault
from audit.ledger.note import Verifier, open_checkpoint
from audit.ledger.schema import RECORDS
from audit.ledger.store import LogStore, edge_of


def examine(
    engine: Engine,
    log: Verifier,
    anchor: Anchor,
    progress: Callable[[int], None] = lambda done: None,
    *,
    hashes_only: bool = False,
) -> Iterator[Fault]:
    """Yields every fault of database, enforcement and anchor; nothing yielded means that all holds.

    The anchor is read before the database's snapshot is taken, so that a log that grows meanwhile is only ever ahead.
    It is asked for an interrupted swap after that, so that a swap in progress is to a larger tree than the one it gave.

    Args:
        engine: of :func:`audit.ledger.dialect.connect`.
        log: key that signed the checkpoints.
        anchor: the memory outside the database.
        progress: told the number of records read so far.
        hashes_only: :func:`audit.ledger.fsck.check_hashes` instead of :func:`audit.ledger.fsck.check`.
    """
    held, interrupted, unreadable = None, False, ""
    try:
        held = anchor.read()
        interrupted = anchor.interrupted()
    except (AssayError, OSError) as error:
        unreadable = error.message if isinstance(error, AssayError) else "it cannot be read"
    yield from (fsck.check_hashes if hashes_only else fsck.check)(engine, log, progress)
    with engine.connect() as connection:
        try:
            dialect.of(engine).check_enforcement(connection)
        except AssayError as error:
            if hashes_only or error.reason != "GUARD_DRIFT":
                yield Fault(error.reason, -1, error.message)
        size = int(connection.execute(select(func.coalesce(func.max(RECORDS.c.idx) + 1, 0))).scalar_one())
    if unreadable:
        yield Fault("ANCHOR_DAMAGED", -1, unreadable)
    elif held is None:
        if size:
            yield Fault("ANCHOR_MISSING", size, f"the log has {size} records and the anchor is empty")
    else:
        yield from _anchored(engine, log, held, size, interrupted)


def record_count(engine: Engine) -> int:
    """How many records there are, for a progress bar."""
    with engine.connect() as connection:
        return int(connection.execute(select(func.count()).select_from(RECORDS)).scalar_one())


def _anchored(engine: Engine, log: Verifier, held: bytes, size: int, interrupted: bool) -> Iterator[Fault]:
    try:
        anchored = open_checkpoint(held, log)
    except AssayError as error:
        yield Fault("ANCHOR_DAMAGED", -1, error.message)
        return
    if anchored.size > size:
        message = f"the anchor remembers {anchored.size} records, the database has {size}"
        yield Fault("LOG_ROLLED_BACK", size, message)
        return
    try:
        if root_at(engine, size, anchored.size) != anchored.root:
            message = f"the database has another history than the anchor at size {anchored.size}"
            yield Fault("LOG_FORKED", anchored.size, message)
        elif anchored.size == size and interrupted:
            message = "one half of the anchor is damaged, and the database has nothing that was being anchored"
            yield Fault("ANCHOR_DAMAGED", -1, message)
    except AssayError as error:
        yield Fault(error.reason, anchored.size, error.message)


def root_at(engine: Engine, size: int, at: int) -> bytes:
    """Root of the first ``at`` of ``size`` stored records, from tiles and the right edge.

    Raises:
        IntegrityError: ``TILE_DAMAGED`` or ``LOG_GAP``.
    """
    with engine.connect() as connection:
        edge = edge_of(connection, size)
    return tree.root(at, TreeReader(edge, LogStore(engine).tile).read)
