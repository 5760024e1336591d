"""What must hold before the ledger signs anything: guards in force, an unbroken head, and an anchor that agrees.

There is no degraded mode. A database older than the anchor was rolled back, a database with another root at the
anchor's size was rewritten, and a log with records but no anchor has lost its memory; each is refused by name and
left to a person. One difference is mended: a process that died between commit and compare-and-swap leaves a database
ahead of its anchor, and when the anchor's tree is a prefix of the database's, the anchor is moved forward.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection

from assay.errors import AssayError, IntegrityError
from audit.ledger import records, tree
from audit.ledger.anchor import Anchor
from audit.ledger.edge import Edge, TreeReader
from audit.ledger.note import Checkpoint, Verifier, open_checkpoint
from audit.ledger.signer import LogSigner
from audit.ledger.store import ChainEnd, LogStore, chain_ends, edge_of, edge_records, head_of


@dataclass(frozen=True)
class Head:
    """Everything the writer must know of the log so far.

    Attributes:
        edge: size and right edge of the tree.
        chains: newest record of every unit.
        time: newest time in the log; None for an empty log.
        note: newest checkpoint; for an empty log the one of size 0, which only the anchor holds.
        frozen: the newest record ends the log; nothing may follow it.
    """

    edge: Edge
    chains: dict[str, ChainEnd]
    time: datetime | None
    note: bytes
    frozen: bool = False

    @property
    def size(self) -> int:
        """Number of records."""
        return self.edge.size


def load_head(store: LogStore, origin: str, signer: LogSigner, anchor: Anchor) -> Head:
    """Loads the head, checks it against its checkpoint and the anchor, and moves the anchor forward if right.

    Raises:
        IntegrityError: ``LOG_GAP``, ``LEAF_MISMATCH``, ``ROOT_MISMATCH``, ``CHECKPOINT_MISSING``, ``TILE_DAMAGED``,
            ``NOTE_SIGNATURE_BAD``, ``ANCHOR_MISSING``, ``ANCHOR_DAMAGED``, ``LOG_ROLLED_BACK`` or ``LOG_FORKED``.
    """
    log = signer.verifier
    with store.connect() as connection:
        size, note = head_of(connection)
        edge = edge_of(connection, size)
        chains = chain_ends(connection)
        time, frozen = _check_edge(connection, size)
    if note is None:
        note = signer.sign(Checkpoint(origin, 0, tree.EMPTY_ROOT), datetime.now(UTC))
    reader = TreeReader(edge, store.tile)
    if open_checkpoint(note, log) != Checkpoint(origin, size, edge.root()):
        raise IntegrityError("ROOT_MISMATCH", f"the records do not lead to the checkpoint of size {size}")
    note = _reconcile(reader, size, note, log, anchor)
    return Head(edge, chains, time, note, frozen)


def _check_edge(connection: Connection, size: int) -> tuple[datetime | None, bool]:
    """Rehashes the records of the right edge; returns the newest time among them, and whether the last ends the log."""
    newest: datetime | None = None
    frozen = False
    for stored in edge_records(connection, size):
        if tree.leaf_hash(stored.body) != stored.leaf:
            raise IntegrityError("LEAF_MISMATCH", f"record {stored.index} does not match its leaf hash")
        record = records.read(stored.body)
        newest = record.time if newest is None else max(newest, record.time)
        frozen = record.type == records.FROZEN
    return newest, frozen


def _reconcile(reader: TreeReader, size: int, note: bytes, log: Verifier, anchor: Anchor) -> bytes:
    """Compares with the anchor and moves it forward if right; returns the note that it then holds."""
    held = anchor.read()
    if held is None:
        if size:
            raise IntegrityError(
                "ANCHOR_MISSING",
                f"the log has {size} records and the anchor is empty",
                remedy="put the anchor back; if it is lost, open a new log under a new origin; docs/ledger.md says how",
            )
        anchor.swap(None, note)
        return note
    try:
        anchored = open_checkpoint(held, log)
    except AssayError as error:
        raise IntegrityError(
            "ANCHOR_DAMAGED", "the anchor holds no checkpoint of this log", metadata=_both(held, note)
        ) from error
    if anchored.size > size:
        raise IntegrityError(
            "LOG_ROLLED_BACK",
            f"the anchor remembers {anchored.size} records, the database has {size}",
            remedy="restore a database that is at least as new as the anchor",
            metadata=_both(held, note),
        )
    if tree.root(anchored.size, reader.read) != anchored.root:
        raise IntegrityError(
            "LOG_FORKED",
            f"the database has another history than the anchor at size {anchored.size}",
            metadata=_both(held, note),
        )
    if anchored.size == size and anchor.interrupted():
        # A swap is begun only after a commit: what was being anchored cannot be missing from the database.
        raise IntegrityError(
            "ANCHOR_DAMAGED",
            "one half of the anchor is damaged, and the database has nothing that was being anchored",
            remedy="find out whether a disk failed or the database was rolled back: a witness remembers",
            metadata=_both(held, note),
        )
    if size == 0:
        return held  # a checkpoint of nothing is in no table, and may have been signed at another time
    if held != note:
        anchor.swap(held, note)
    return note


def _both(held: bytes, note: bytes) -> dict[str, str]:
    """Both notes: the evidence of a fork."""
    return {"anchor": held.decode(errors="replace"), "database": note.decode(errors="replace")}
