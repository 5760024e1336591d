"""Backup and the one way back: whole, byte-identical and under the anchor's root, or refused by name."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from audit.ledger.backup import backup, marker, read_backup
from audit.ledger.note import Checkpoint, Verifier, sign_note
from audit.ledger.publication import PublishedNotes
from audit.ledger.restore import Restored, open_source, restore
from audit.ledger.upkeep import examine
from tests.audit.ledger.ledger_world import ORIGIN, World, ed25519, refused
from tests.audit.ledger.test_startup import draft, grow

LOG = Verifier.of(ORIGIN, ed25519("log").public_key())


@pytest.fixture
def aged(world: World) -> World:
    """A log with a backup of 301 records in ``old``, grown to 611."""
    grow(world, 300)
    backup(world.database, LOG, world.folder / "old")
    grow(world, 300)
    grow(world, 10)
    return world


def lose(world: World) -> None:
    """The database is gone, the anchor is not."""
    world.close()
    for suffix in ("", "-wal", "-shm"):
        world.database.with_name(world.database.name + suffix).unlink(missing_ok=True)


def bring_back(world: World, *sources: Path, folder: str = "old") -> Restored:
    return restore(world.database, world.anchor, LOG, world.folder / folder, [open_source(s, LOG) for s in sources])


def goes_on(world: World, size: int) -> None:
    """The restored log starts under the same anchor and takes the next record."""
    held = world.anchor.read()
    again = World(world.folder)
    again.clock.now = world.clock.now
    again.nonces.count = world.nonces.count
    again.start()
    assert (again.ledger.size, again.ledger.checkpoint()) == (size, held)
    assert again.append_one() == size
    assert list(examine(again.engine, LOG, again.anchor)) == []
    again.close()


def test_backup_of_a_running_log_is_whole_and_restores(aged: World) -> None:
    manifest = backup(aged.database, LOG, aged.folder / "new")
    assert (manifest.size, read_backup(aged.folder / "new", LOG)) == (611, manifest)
    assert (aged.folder / "new" / "checkpoint").read_bytes() == aged.ledger.checkpoint()
    assert sorted(p.name for p in (aged.folder / "new").iterdir()) == ["assay.db", "checkpoint", "manifest.json"]
    lose(aged)
    assert bring_back(aged, folder="new") == Restored(611, 0, (), False)
    goes_on(aged, 611)


def test_backup_newer_than_the_anchor(aged: World) -> None:
    """The crash lay between commit and anchor, and the backup after the commit: start-up moves the anchor on."""
    backup(aged.database, LOG, aged.folder / "new")
    (aged.folder / "anchor" / "checkpoint").write_bytes(aged.ledger.checkpoint_at(601) or b"")
    lose(aged)
    bring_back(aged, folder="new")
    again = World(aged.folder).start()
    assert again.ledger.size == 611
    again.close()


@pytest.mark.parametrize("kind", ["backup", "bundle", "dump"])
def test_old_backup_with_the_missing_records(aged: World, kind: str) -> None:
    source = aged.folder / "source"
    if kind == "backup":
        backup(aged.database, LOG, source)
    elif kind == "bundle":
        source.write_bytes(aged.export())
    else:
        (source / "records").mkdir(parents=True)
        for index in range(301, 611):
            (source / "records" / f"{index}.json").write_bytes(aged.ledger.record(index).body)
    lose(aged)
    assert bring_back(aged, source) == Restored(301, 310, (), True)
    assert marker(aged.database).is_file()
    goes_on(aged, 611)


def test_rows_that_are_behind_stay_behind_in_a_backup_of_them_and_a_whole_one_ends_it(aged: World) -> None:
    backup(aged.database, LOG, aged.folder / "whole")
    lose(aged)
    bring_back(aged, aged.folder / "whole")
    assert backup(aged.database, LOG, aged.folder / "behind").rows_behind
    lose(aged)
    assert bring_back(aged, folder="whole") == Restored(611, 0, (), False)
    assert not marker(aged.database).exists()
    assert not backup(aged.database, LOG, aged.folder / "again").rows_behind
    lose(aged)
    assert bring_back(aged, folder="behind") == Restored(611, 0, (), True)
    assert marker(aged.database).is_file()


def test_a_backup_of_an_earlier_release_ends_no_mark(aged: World) -> None:
    """It does not say whether its rows were behind; who asks it was refused before, and stays so."""
    backup(aged.database, LOG, aged.folder / "silent")
    manifest = aged.folder / "silent" / "manifest.json"
    manifest.write_text(json.dumps({k: v for k, v in json.loads(manifest.read_text()).items() if k != "rows_behind"}))
    lose(aged)
    bring_back(aged, folder="silent")
    assert not marker(aged.database).exists()
    marker(aged.database).write_text("{}")
    lose(aged)
    assert bring_back(aged, folder="silent") == Restored(611, 0, (), False)
    assert marker(aged.database).is_file()


def test_old_backup_alone_is_refused(aged: World) -> None:
    held = aged.anchor.read()
    lose(aged)
    refused("RESTORE_INCOMPLETE", lambda: bring_back(aged))
    assert not aged.database.exists() and aged.anchor.read() == held
    assert [p.name for p in aged.folder.iterdir() if p.name.startswith(".assay")] == []


def test_sources_that_end_early_are_refused(aged: World) -> None:
    (aged.folder / "dump" / "records").mkdir(parents=True)
    for index in range(301, 610):
        (aged.folder / "dump" / "records" / f"{index}.json").write_bytes(aged.ledger.record(index).body)
    lose(aged)
    refused("RESTORE_INCOMPLETE", lambda: bring_back(aged, aged.folder / "dump"))
    assert not aged.database.exists()


def test_other_records_in_the_place_of_the_missing_are_refused(aged: World) -> None:
    """What an attacker would restore: records of the right number and shape, another history."""
    shutil.copytree(aged.folder / "old", aged.folder / "fork" / "b")
    fork = aged.folder / "fork"
    shutil.copy(fork / "b" / "assay.db", fork / "assay.db")
    (fork / "anchor").mkdir()
    shutil.copy(fork / "b" / "checkpoint", fork / "anchor" / "checkpoint")
    other = World(fork).start()
    other.ledger.run(lambda uow: [uow.append(draft(n)) for n in range(1000, 1310)])
    backup(other.database, LOG, fork / "source")
    other.close()
    lose(aged)
    refused("LOG_FORKED", lambda: bring_back(aged, fork / "source"))
    refused("LOG_FORKED", lambda: bring_back(aged, folder="fork/source"))
    assert not aged.database.exists()


def test_a_source_with_a_broken_record_is_refused(aged: World) -> None:
    (aged.folder / "dump" / "records").mkdir(parents=True)
    for index in range(301, 611):
        body = aged.ledger.record(index).body
        (aged.folder / "dump" / "records" / f"{index}.json").write_bytes(body[:-1] if index == 400 else body)
    lose(aged)
    refused("NOT_CANONICAL", lambda: bring_back(aged, aged.folder / "dump"))
    assert not aged.database.exists()


def test_restore_over_a_database_or_a_running_log_is_refused(aged: World) -> None:
    refused("LEDGER_IN_USE", lambda: bring_back(aged))
    aged.ledger.close()
    refused("DATABASE_EXISTS", lambda: bring_back(aged))


def test_restore_without_an_anchor_is_refused(aged: World) -> None:
    lose(aged)
    (aged.folder / "anchor" / "checkpoint").unlink()
    refused("ANCHOR_MISSING", lambda: bring_back(aged))


def test_restore_of_another_logs_backup_is_refused(aged: World) -> None:
    lose(aged)
    stranger = Verifier.of(ORIGIN, ed25519("stranger").public_key())
    refused("NOTE_SIGNATURE_BAD", lambda: restore(aged.database, aged.anchor, stranger, aged.folder / "old"))


def _flip(folder: Path) -> None:
    data = bytearray((folder / "assay.db").read_bytes())
    data[-100] ^= 1
    (folder / "assay.db").write_bytes(bytes(data))


def _other_head(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "size": 9}))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_flip, "BACKUP_DAMAGED"),
        (_other_head, "BACKUP_DAMAGED"),
        (lambda folder: (folder / "checkpoint").write_bytes(b"x"), "BACKUP_DAMAGED"),
        (lambda folder: (folder / "checkpoint").unlink(), "BACKUP_MALFORMED"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), "BACKUP_MALFORMED"),
        (lambda folder: (folder / "manifest.json").write_text("[1]"), "BACKUP_MALFORMED"),
    ],
)
def test_damaged_backup_is_refused(aged: World, damage: Callable[[Path], object], reason: str) -> None:
    damage(aged.folder / "old")
    lose(aged)
    refused(reason, lambda: bring_back(aged))
    assert not aged.database.exists()


def published(world: World, *notes: tuple[int, bytes]) -> Path:
    """A file of published notes beside the log."""
    made = PublishedNotes(world.folder / "published.db")
    for size, note in notes:
        made.add(size, note)
    made.close()
    return world.folder / "published.db"


def test_published_notes_come_back_with_the_log_and_never_replace_others(aged: World) -> None:
    """The note that covers a record is the same one after a restore: people may have signed over its root."""
    old, new = (aged.ledger.checkpoint_at(size) or b"" for size in (301, 601))
    file = published(aged, (301, old), (601, new))
    backup(aged.database, LOG, aged.folder / "new", published=file)
    lose(aged)
    for suffix in ("", "-wal", "-shm"):
        file.with_name(file.name + suffix).unlink(missing_ok=True)
    restore(aged.database, aged.anchor, LOG, aged.folder / "new", (), file)
    again = PublishedNotes(file)
    assert [again.covering(index) for index in (0, 300, 301)] == [(301, old), (301, old), (601, new)]
    assert again.latest() == (601, new) and again.at(611) == b""
    again.add(611, b"newer")
    again.close()
    lose(aged)
    restore(aged.database, aged.anchor, LOG, aged.folder / "new", (), file)
    assert PublishedNotes(file).latest() == (611, b"newer"), (
        "what is remembered here is not replaced by an older memory"
    )


@pytest.mark.parametrize("which", ["another root", "beyond the log", "another key", "no note"])
def test_notes_that_are_not_the_logs_are_not_backed_up(aged: World, which: str) -> None:
    text = Checkpoint(ORIGIN, 700 if which == "beyond the log" else 301, bytes(32)).text()
    note = sign_note(text, ORIGIN, ed25519("other" if which == "another key" else "log"))
    file = published(aged, (301, b"rubbish" if which == "no note" else note))
    refused("BACKUP_DAMAGED", lambda: backup(aged.database, LOG, aged.folder / "new", published=file))
    assert not (aged.folder / "new").exists()


@pytest.mark.parametrize("damage", [lambda p: p.write_bytes(p.read_bytes() + b"x"), lambda p: p.unlink()])
def test_a_backup_whose_published_notes_were_changed_is_refused(aged: World, damage: Callable[[Path], object]) -> None:
    backup(
        aged.database, LOG, aged.folder / "new", published=published(aged, (301, aged.ledger.checkpoint_at(301) or b""))
    )
    damage(aged.folder / "new" / "published.db")
    lose(aged)
    refused("BACKUP_DAMAGED", lambda: bring_back(aged, folder="new"))


def test_backup_of_a_damaged_log_is_refused_and_leaves_nothing(aged: World) -> None:
    from tests.audit.ledger.test_startup import tamper

    aged.ledger.close()
    tamper(aged, "UPDATE log_record SET body = x'00' WHERE idx = 7")
    refused("BACKUP_DAMAGED", lambda: backup(aged.database, LOG, aged.folder / "bad"))
    assert sorted(p for p in os.listdir(aged.folder) if "bad" in p) == []


def test_backup_never_replaces_one(aged: World) -> None:
    refused("BACKUP_EXISTS", lambda: backup(aged.database, LOG, aged.folder / "old"))
    refused("LEDGER_NOT_A_FILE", lambda: backup(aged.folder / "none.db", LOG, aged.folder / "new"))


def test_a_source_that_is_none_is_refused(tmp_path: Path) -> None:
    refused("RESTORE_SOURCE", lambda: open_source(tmp_path, LOG))
    (tmp_path / "file").write_bytes(b"not a bundle")
    refused("BUNDLE_MALFORMED", lambda: open_source(tmp_path / "file", LOG))


def test_examine_names_what_the_anchor_knows(aged: World) -> None:
    faults = lambda: [(f.reason, f.index) for f in examine(aged.engine, LOG, aged.anchor)]  # noqa: E731
    assert faults() == []
    (aged.folder / "anchor" / "checkpoint").write_bytes(b"x")
    assert faults() == [("ANCHOR_DAMAGED", -1)]
    (aged.folder / "anchor" / "checkpoint").unlink()
    assert faults() == [("ANCHOR_MISSING", 611)]
