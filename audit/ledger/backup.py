"""Backups of the record database: a consistent copy through SQLite's own API, its checkpoint and published notes.

A plain copy of the file is never a backup: what is still in the write-ahead log would silently be missing. No key
lies in a backup; the keys of payloads and units have a store and a retention of their own, or erasure were fiction.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import uuid
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from assay import durable
from assay.digests import sha256_bytes, sha256_file
from assay.errors import AlreadyExistsError, AssayError, IntegrityError, InvalidInputError, PreconditionError
from audit.ledger import fsck
from audit.ledger.note import Verifier, open_checkpoint
from audit.ledger.publication import PublishedNotes
from audit.ledger.sqlite import connect_engine, connect_migration_engine
from audit.ledger.store import head_of
from audit.ledger.upgrade import upgrade
from audit.ledger.upkeep import root_at

DATABASE, PUBLISHED, CHECKPOINT, MANIFEST = "assay.db", "published.db", "checkpoint", "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """What a backup holds: the log's head when it was taken, and the digests of its files.

    Attributes:
        published_sha256: of the published notes; empty where nothing was published through witnesses, and in backups of
            earlier versions.
        rows_behind: the gateway's rows in it are older than its log, as those of the log that it was made of were; None
            in backups of earlier versions, which did not look.
    """

    v: int
    origin: str
    size: int
    root: str
    taken: str
    database_sha256: str
    checkpoint_sha256: str
    published_sha256: str = ""
    rows_behind: bool | None = None


def marker(database: Path) -> Path:
    """The file that says that the gateway's rows are older than the log beside them."""
    return database.with_name(database.name + ".rows-behind")


def backup(database: Path, log: Verifier, target: Path, published: Path | None = None) -> Manifest:
    """Copies a log that may be running into the new folder ``target``, checks every record of the copy, all or nothing.

    Args:
        database: the SQLite file.
        log: key that signed the checkpoints.
        target: folder to make; it appears only when it is whole.
        published: the file of published notes; copied when it is there. People have signed over the roots in it, so
            after a restore the same record must be covered by the same note.

    Raises:
        AlreadyExistsError: ``BACKUP_EXISTS``.
        PreconditionError: ``LEDGER_NOT_A_FILE`` when there is no such database.
        IntegrityError: ``BACKUP_DAMAGED`` when the log itself is damaged: the first fault is named.
    """
    if target.exists():
        raise AlreadyExistsError(
            "BACKUP_EXISTS", f"{target} exists", remedy="name a new folder; backups are not replaced"
        )
    if not database.is_file():
        raise PreconditionError("LEDGER_NOT_A_FILE", f"there is no database {database.name}")
    staging = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    staging.mkdir(parents=True, mode=0o700)
    try:
        if published is not None and published.is_file():
            copy(
                published, staging / PUBLISHED
            )  # before the database: what was published is then in the copy's history
        copy(database, staging / DATABASE)
        size, note = inspect(staging / DATABASE, log)
        _demand_published(staging, size, log)
        (staging / CHECKPOINT).write_bytes(note)
        manifest = Manifest(
            1,
            log.name,
            size,
            open_checkpoint(note, log).root.hex(),
            datetime.now(UTC).isoformat(),
            sha256_file(staging / DATABASE),
            sha256_bytes(note),
            _digest(staging / PUBLISHED),
            marker(database).exists(),
        )
        (staging / MANIFEST).write_text(json.dumps(asdict(manifest), indent=1) + "\n")
        for path in (*staging.iterdir(), staging):
            durable.sync(path)
        staging.rename(target)
        durable.sync(target.parent)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return manifest


def read_backup(folder: Path, log: Verifier) -> Manifest:
    """Reads a backup's manifest and demands that its files are what it says and that the log's key signed its head.

    Raises:
        InvalidInputError: ``BACKUP_MALFORMED`` when it is not a backup of this format.
        IntegrityError: ``BACKUP_DAMAGED``.
    """
    try:
        value: dict[str, Any] = json.loads((folder / MANIFEST).read_text("utf-8"))
        manifest = Manifest(**value)
        note = (folder / CHECKPOINT).read_bytes()
        digests = (sha256_file(folder / DATABASE), sha256_bytes(note), _digest(folder / PUBLISHED))
    except (OSError, ValueError, TypeError) as error:
        raise InvalidInputError(
            "BACKUP_MALFORMED", f"{folder} is not a backup made by `assay ledger backup`"
        ) from error
    if manifest.v != 1 or digests != (manifest.database_sha256, manifest.checkpoint_sha256, manifest.published_sha256):
        raise IntegrityError("BACKUP_DAMAGED", "the backup's files are not those that its manifest names")
    head = open_checkpoint(note, log)
    if (head.size, head.root.hex()) != (manifest.size, manifest.root):
        raise IntegrityError("BACKUP_DAMAGED", "the backup's checkpoint is not the one that its manifest names")
    return manifest


def inspect(database: Path, log: Verifier) -> tuple[int, bytes]:
    """Reads every record of a copy nobody writes to; returns its size and newest note.

    The tables of an earlier release are brought up to date first.

    Raises:
        IntegrityError: ``BACKUP_DAMAGED`` with the first fault's index and reason.
    """
    migration, engine = connect_migration_engine(database), connect_engine(database)
    try:
        upgrade(migration)
        migration.dispose()
        fault = next(fsck.check(engine, log), None)
        if fault is not None:
            raise IntegrityError("BACKUP_DAMAGED", f"record {fault.index}: {fault.reason}: {fault.message}")
        with engine.connect() as connection:
            size, note = head_of(connection)
    except AssayError as error:
        if error.reason == "BACKUP_DAMAGED":
            raise
        raise IntegrityError("BACKUP_DAMAGED", f"{error.reason}: {error.message}") from error
    finally:
        migration.dispose()
        engine.dispose()
    if note is None:
        raise IntegrityError("BACKUP_DAMAGED", "the log is empty")
    return size, note


def _digest(path: Path) -> str:
    return sha256_file(path) if path.is_file() else ""


def _demand_published(folder: Path, size: int, log: Verifier) -> None:
    """The newest published note is the log's word about a prefix of the copy.

    Raises:
        IntegrityError: ``BACKUP_DAMAGED``.
    """
    if not (folder / PUBLISHED).is_file():
        return
    notes, engine = PublishedNotes(folder / PUBLISHED), connect_engine(folder / DATABASE)
    try:
        _, note = notes.latest()
        if note:
            head = open_checkpoint(note, log)
            if head.size > size or root_at(engine, size, head.size) != head.root:
                raise IntegrityError(
                    "BACKUP_DAMAGED", f"a checkpoint of {head.size} was published that is not the log's"
                )
    except AssayError as error:
        if error.reason == "BACKUP_DAMAGED":
            raise
        raise IntegrityError("BACKUP_DAMAGED", f"published notes: {error.reason}: {error.message}") from error
    finally:
        notes.close()
        engine.dispose()


def copy(source: Path, target: Path) -> None:
    """Copies a database through SQLite's backup API: one consistent state, committed transactions only."""
    reading, writing = sqlite3.connect(f"file:{source}?mode=ro", uri=True), sqlite3.connect(target)
    try:
        reading.backup(writing)
    finally:
        reading.close()
        writing.close()
