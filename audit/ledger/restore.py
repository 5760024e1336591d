"""The one legitimate way back from a backup; everything else is refused by name.

The anchor decides. A backup at least as new as the anchor, with the anchor's tree as a prefix, is put in place. From an
older one the missing records must be had byte for byte from elsewhere, until the anchor's own root is reached; the
checkpoint of that size is then the anchor's note, never a newly signed one. The anchor is never moved back.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Connection, insert

from assay import durable
from assay.errors import AlreadyExistsError, IntegrityError, InvalidInputError, PreconditionError
from audit.ledger import evidence, records, tree
from audit.ledger.anchor import Anchor
from audit.ledger.backup import DATABASE, PUBLISHED, copy, inspect, marker, read_backup
from audit.ledger.edge import Edge, TreeReader
from audit.ledger.note import Checkpoint, Verifier, open_checkpoint
from audit.ledger.schema import CHECKPOINTS, RECORDS, TILES
from audit.ledger.sqlite import WriterLock, connect_engine
from audit.ledger.store import LogStore, edge_of, job_firsts
from audit.ledger.upkeep import root_at

_BATCH = 256
# Types whose records change no row of the gateway's own tables.
_WITHOUT_ROWS = frozenset({records.REFUSED})


class Source(Protocol):
    """Where missing records come from; what it says is believed only when the anchor's root is reached."""

    def body(self, index: int) -> bytes | None:
        """Exact bytes of a record; None when it is not here."""
        ...


class BackupSource:
    """Another backup of the same log."""

    def __init__(self, folder: Path, log: Verifier) -> None:
        read_backup(folder, log)
        self._connection = sqlite3.connect(f"file:{folder / DATABASE}?mode=ro&immutable=1", uri=True)

    def body(self, index: int) -> bytes | None:
        """From the copy's table."""
        row = self._connection.execute("SELECT body FROM log_record WHERE idx = ?", (index,)).fetchone()
        return None if row is None else bytes(row[0])


class BundleSource:
    """An evidence bundle."""

    def __init__(self, path: Path) -> None:
        self._files = evidence.read_zip(path.read_bytes())

    def body(self, index: int) -> bytes | None:
        """From ``records/INDEX.json``."""
        return self._files.get(evidence.record_path(index))


class FolderSource:
    """A folder of exact record bytes, ``records/INDEX.json``: a bundle unpacked, or a dump."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def body(self, index: int) -> bytes | None:
        """From the file of that index."""
        path = self._folder / evidence.record_path(index)
        return path.read_bytes() if path.is_file() else None


@dataclass(frozen=True)
class Restored:
    """What a restore did: records from the backup, records re-appended, and the jobs that the latter name.

    Attributes:
        rows_behind: the gateway's rows are older than the log, in the backup already or for what was re-appended.
    """

    from_backup: int
    appended: int
    jobs: tuple[str, ...]
    rows_behind: bool


def open_source(path: Path, log: Verifier) -> Source:
    """A source by what lies at ``path``: a backup, an unpacked dump, or an evidence bundle.

    Raises:
        InvalidInputError: ``RESTORE_SOURCE`` for anything else.
    """
    if (path / DATABASE).is_file():
        return BackupSource(path, log)
    if (path / "records").is_dir():
        return FolderSource(path)
    if path.is_file():
        return BundleSource(path)
    raise InvalidInputError("RESTORE_SOURCE", f"{path} is no backup, evidence bundle or folder with records/INDEX.json")


def restore(
    database: Path,
    anchor: Anchor,
    log: Verifier,
    folder: Path,
    sources: Sequence[Source] = (),
    published: Path | None = None,
) -> Restored:
    """Puts a backup in the place of a lost database, brought up to the anchor's tree; all or nothing.

    Published notes of the backup are put at ``published`` where there are none; those that are there stay, since they
    are a memory of their own and at least as new. The mark beside the database is set where its rows are behind the
    log, and taken away where they are not.

    Raises:
        PreconditionError: ``LEDGER_IN_USE`` while the log runs, or ``RESTORE_INCOMPLETE`` naming the first record that
            no source has.
        AlreadyExistsError: ``DATABASE_EXISTS``: the old file is evidence and is not replaced.
        InvalidInputError, IntegrityError: ``BACKUP_MALFORMED``, ``BACKUP_DAMAGED``, ``ANCHOR_MISSING``, ``LOG_FORKED``
            when backup or sources lead to another tree than the anchor's, or what a source's reader says.
    """
    lock = WriterLock(database)
    database.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock.acquire()
    staging = database.with_name(f".{database.name}.{uuid.uuid4().hex[:8]}")
    notes = staging.with_name(f"{staging.name}.published")
    try:
        if any(database.with_name(database.name + suffix).exists() for suffix in ("", "-wal")):
            remedy = "stop the gateway and move the old file with its -wal and -shm aside; it is evidence"
            raise AlreadyExistsError("DATABASE_EXISTS", f"{database.name} is still there", remedy=remedy)
        manifest = read_backup(folder, log)
        copy(folder / DATABASE, staging)
        restored = _bring_up(staging, _anchored(anchor, log), anchor, log, sources)
        restored = replace(restored, rows_behind=restored.rows_behind or bool(manifest.rows_behind))
        durable.sync(staging)
        if published is not None and not published.exists() and (folder / PUBLISHED).is_file():
            copy(folder / PUBLISHED, notes)
            durable.sync(notes)
            notes.rename(published)
        if restored.rows_behind:
            marker(database).write_text(json.dumps({"jobs": restored.jobs}) + "\n")
        staging.rename(database)
        durable.sync(database.parent)
        if not restored.rows_behind and manifest.rows_behind is not None:
            # Last: what a crash leaves is refused, not served. A backup that does not say ends no mark.
            marker(database).unlink(missing_ok=True)
    finally:
        for suffix in ("", "-wal", "-shm"):
            staging.with_name(staging.name + suffix).unlink(missing_ok=True)
        notes.unlink(missing_ok=True)
        lock.release()
    return restored


def _anchored(anchor: Anchor, log: Verifier) -> Checkpoint:
    held = anchor.read()
    if held is None:
        raise IntegrityError(
            "ANCHOR_MISSING",
            "without the anchor nobody can tell whether this backup is the newest history",
            remedy="put the anchor back; if it is lost, open a new origin that cites the newest checkpoint others hold",
        )
    return open_checkpoint(held, log)


def _bring_up(
    staging: Path, anchored: Checkpoint, anchor: Anchor, log: Verifier, sources: Sequence[Source]
) -> Restored:
    """Appends what is missing and demands the anchor's root."""
    size, _ = inspect(staging, log)
    engine = connect_engine(staging)
    types: set[str] = set()
    jobs: set[str] = set()
    try:
        if size < anchored.size:
            with engine.connect().execution_options(begin="IMMEDIATE") as connection, connection.begin():
                edge, types, jobs = _append(connection, edge_of(connection, size), anchored.size, sources)
                tiles = LogStore(engine)
                fresh = {
                    (t["level"], t["n"]): bytes(t["hashes"]) for t in connection.execute(TILES.select()).mappings()
                }
                reader = TreeReader(edge, lambda level, n: fresh.get((level, n)) or tiles.tile(level, n))
                _demand_root(tree.root(anchored.size, reader.read), anchored)
                connection.execute(insert(CHECKPOINTS), {"size": anchored.size, "note": anchor.read()})
        else:
            _demand_root(root_at(engine, size, anchored.size), anchored)
    finally:
        engine.dispose()
    inspect(staging, log)
    return Restored(size, max(0, anchored.size - size), tuple(sorted(jobs)), bool(types - _WITHOUT_ROWS))


def _append(
    connection: Connection, edge: Edge, target: int, sources: Sequence[Source]
) -> tuple[Edge, set[str], set[str]]:
    """Inserts records byte for byte, with their tiles; returns the new edge, and the types and jobs met."""
    types: set[str] = set()
    jobs: set[str] = set()
    while edge.size < target:
        rows: list[dict[str, Any]] = []
        for index in range(edge.size, min(edge.size + _BATCH, target)):
            body = _find(sources, index, target)
            record = records.read(body)
            types.add(record.type)
            jobs |= {record.job} - {""}
            rows.append(
                {
                    "idx": index,
                    "leaf": tree.leaf_hash(body),
                    "body": body,
                    "unit": record.unit,
                    "tseq": record.sequence,
                    "type": record.type,
                    "job": record.job,
                }
            )
        for row, first in zip(rows, job_firsts(connection, [(row["idx"], row["job"]) for row in rows]), strict=True):
            row["job_first"] = first
        connection.execute(insert(RECORDS), rows)
        edge, tiles = edge.extend([row["leaf"] for row in rows])
        for tile in tiles:
            connection.execute(insert(TILES), {"level": tile.level, "n": tile.n, "hashes": tile.hashes})
    return edge, types, jobs


def _find(sources: Sequence[Source], index: int, target: int) -> bytes:
    for source in sources:
        body = source.body(index)
        if body is not None:
            return body
    raise PreconditionError(
        "RESTORE_INCOMPLETE",
        f"the anchor remembers {target} records, and record {index} is neither in the backup nor in any source",
        remedy="pass --from with a newer backup, an evidence bundle of the whole log or a dump; if the records cannot "
        "be had, this log cannot go on: open a new origin that cites the anchor's checkpoint",
    )


def _demand_root(found: bytes, anchored: Checkpoint) -> None:
    if found != anchored.root:
        raise IntegrityError(
            "LOG_FORKED", f"backup and sources lead to another history than the anchor at size {anchored.size}"
        )
