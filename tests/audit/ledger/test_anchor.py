"""The file anchor: two slots written in turn. Each way to damage or to share it ends in a named outcome."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from audit.ledger.anchor import FILE_BYTES, SLOT_BYTES, FileAnchor
from audit.ledger.note import MAX_NOTE
from audit.ledger.upkeep import examine
from tests.audit.ledger.ledger_world import World, refused

Damage = Callable[[bytes], bytes]


def swapped(folder: Path, count: int) -> FileAnchor:
    """An anchor after ``count`` swaps, the notes being ``note 1`` and so on; nobody holds it."""
    anchor = FileAnchor(folder)
    for n in range(count):
        anchor.swap(f"note {n}".encode() if n else None, f"note {n + 1}".encode())
    anchor.close()
    return anchor


def change(folder: Path, damage: Damage) -> None:
    file = folder / "checkpoint"
    file.write_bytes(damage(file.read_bytes()))


def flip(at: int) -> Damage:
    return lambda data: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def newest_slot(data: bytes) -> int:
    """Where the slot of the newest swap begins."""
    return max((0, SLOT_BYTES), key=lambda at: data[at + 15 : at + 35])


def test_compares_and_swaps(tmp_path: Path) -> None:
    anchor = FileAnchor(tmp_path)
    assert anchor.read() is None and not anchor.interrupted()
    refused("ANCHOR_CONFLICT", lambda: anchor.swap(b"a", b"b"))
    anchor.swap(None, b"a")
    refused("ANCHOR_CONFLICT", lambda: anchor.swap(None, b"b"))
    anchor.swap(b"a", b"b")
    assert FileAnchor(tmp_path).read() == b"b"
    refused("ANCHOR_CONFLICT", lambda: anchor.swap(b"a", b"c"))
    anchor.swap(b"b", b"c")
    assert anchor.read() == b"c"


@pytest.mark.parametrize("note", [b"", b"x" * (MAX_NOTE + 1)])
def test_what_no_note_can_be_is_not_anchored(tmp_path: Path, note: bytes) -> None:
    anchor = swapped(tmp_path, 1)
    refused("ANCHOR_CONFLICT", lambda: anchor.swap(b"note 1", note))
    assert anchor.read() == b"note 1"


def test_one_file_is_overwritten_in_place(tmp_path: Path) -> None:
    swapped(tmp_path, 1)
    before = (tmp_path / "checkpoint").stat()
    for count, notes in enumerate([b"x" * MAX_NOTE, b"short", b"y" * MAX_NOTE, b"z"]):
        anchor = FileAnchor(tmp_path)
        anchor.swap(anchor.read(), notes)
        anchor.close()
        assert anchor.read() == notes and not anchor.interrupted(), count
    after = (tmp_path / "checkpoint").stat()
    assert (before.st_ino, before.st_size) == (after.st_ino, FILE_BYTES)


def test_a_bare_note_of_an_earlier_version_is_read_and_replaced(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_bytes(b"old note")
    anchor = FileAnchor(tmp_path)
    assert anchor.read() == b"old note" and not anchor.interrupted()
    refused("ANCHOR_CONFLICT", lambda: anchor.swap(b"another", b"new"))
    assert (tmp_path / "checkpoint").read_bytes() == b"old note"
    anchor.swap(b"old note", b"new")
    assert FileAnchor(tmp_path).read() == b"new"
    assert (tmp_path / "checkpoint").stat().st_size == FILE_BYTES


@pytest.mark.parametrize("cut", [1, 15, 20, 40, 100, 110])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_torn_write_leaves_the_note_before_it(tmp_path: Path, count: int, cut: int) -> None:
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    whole.mkdir(), torn.mkdir()
    swapped(whole, count + 1)
    swapped(torn, count)
    new = (whole / "checkpoint").read_bytes()
    at = newest_slot(new)
    old = (torn / "checkpoint").read_bytes()
    change(torn, lambda data: data[:at] + new[at : at + cut] + data[at + cut :])
    anchor = FileAnchor(torn)
    assert anchor.read() == f"note {count}".encode()
    assert anchor.interrupted() == ((torn / "checkpoint").read_bytes() != old)
    anchor.swap(f"note {count}".encode(), b"again")
    assert FileAnchor(torn).read() == b"again" and not FileAnchor(torn).interrupted()


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:0],
        lambda data: data[:1],
        lambda data: data[:200],
        lambda data: data[: SLOT_BYTES - 1],
        lambda data: data[:SLOT_BYTES],
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: bytes(FILE_BYTES),
        lambda data: data[SLOT_BYTES:] + data[:SLOT_BYTES],
        lambda data: flip(110)(flip(SLOT_BYTES + 50)(data)),
    ],
    ids=["empty", "1", "200", "slot-1", "slot", "end-1", "longer", "zeros", "slots exchanged", "both"],
)
def test_truncation_and_what_no_swap_writes(tmp_path: Path, damage: Damage) -> None:
    anchor = swapped(tmp_path, 4)
    change(tmp_path, damage)
    refused("ANCHOR_DAMAGED", anchor.read)
    refused("ANCHOR_DAMAGED", anchor.interrupted)
    refused("ANCHOR_DAMAGED", anchor.acquire)
    refused("ANCHOR_DAMAGED", lambda: anchor.swap(b"note 4", b"note 5"))


def test_slots_that_do_not_follow_each_other(tmp_path: Path) -> None:
    """A slot put back from an old copy of the file."""
    anchor = swapped(tmp_path, 2)
    old = (tmp_path / "checkpoint").read_bytes()
    for n in (2, 3, 4):
        anchor.swap(f"note {n}".encode(), f"note {n + 1}".encode())
    change(tmp_path, lambda data: data[:SLOT_BYTES] + old[SLOT_BYTES:])
    refused("ANCHOR_DAMAGED", FileAnchor(tmp_path).read)


@pytest.mark.parametrize("at", [0, 14, 16, 34, 36, 41, 43, 70, 106, 107, 112])
def test_a_wrong_checksum_anywhere_in_the_newest_slot(tmp_path: Path, at: int) -> None:
    anchor = swapped(tmp_path, 3)
    change(tmp_path, lambda data: flip(newest_slot(data) + at)(data))
    assert anchor.read() == b"note 2"
    assert anchor.interrupted()


def test_changed_or_replaced_by_somebody_else_while_held(tmp_path: Path) -> None:
    anchor = FileAnchor(tmp_path)
    anchor.swap(None, b"a")
    change(tmp_path, flip(108))
    refused("ANCHOR_CONFLICT", lambda: anchor.swap(b"a", b"b"))
    change(tmp_path, flip(108))
    anchor.swap(b"a", b"b")
    shutil.copy(tmp_path / "checkpoint", tmp_path / "copy")
    os.replace(tmp_path / "copy", tmp_path / "checkpoint")
    refused("ANCHOR_CONFLICT", lambda: anchor.swap(b"b", b"c"))
    assert FileAnchor(tmp_path).read() == b"b"


def test_a_short_write_is_an_io_error_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    anchor = swapped(tmp_path, 2)
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: write(fd, data[:60], at))
    with pytest.raises(OSError, match="part of a write"):
        anchor.swap(b"note 2", b"note 3")
    monkeypatch.undo()
    assert anchor.read() == b"note 2" and anchor.interrupted()
    anchor.swap(b"note 2", b"note 3")
    assert anchor.read() == b"note 3" and not anchor.interrupted()


HOLDER = """
import sys
from pathlib import Path
from audit.ledger.anchor import FileAnchor
anchor = FileAnchor(Path(sys.argv[1]))
anchor.acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_two_processes(tmp_path: Path) -> None:
    """The second is refused while the first lives, reads all the same, and is let in once the first was killed."""
    swapped(tmp_path, 1)
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root, env=environment)
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    anchor = FileAnchor(tmp_path)
    refused("ANCHOR_IN_USE", anchor.acquire)
    refused("ANCHOR_IN_USE", lambda: anchor.swap(b"note 1", b"note 2"))
    assert anchor.read() == b"note 1"
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    anchor.swap(b"note 1", b"note 2")
    refused("ANCHOR_IN_USE", FileAnchor(tmp_path).acquire)
    anchor.close()
    FileAnchor(tmp_path).acquire()


def test_two_ledgers_on_one_anchor(world: World, tmp_path: Path) -> None:
    """A copied database beside the same anchor is refused before it has signed anything."""
    other = World(copied(world, tmp_path / "other"))
    other.anchor = FileAnchor(world.folder / "anchor")
    other.ledger = other.open()
    refused("ANCHOR_IN_USE", other.start)
    world.append_one()
    world.close()
    refused("LOG_ROLLED_BACK", other.start)


def copied(world: World, folder: Path) -> Path:
    folder.mkdir()
    with closing(sqlite3.connect(world.database)) as raw:
        raw.execute("VACUUM INTO ?", (str(folder / "assay.db"),))
    return folder


def test_a_ledger_goes_on_from_an_earlier_versions_anchor(world: World) -> None:
    world.close()
    file = world.folder / "anchor" / "checkpoint"
    note = world.anchor.read()
    assert note is not None
    file.write_bytes(note)
    again = World(world.folder, clock=world.clock).start()
    again.append_one()
    assert again.anchor.read() == again.ledger.checkpoint()
    assert file.stat().st_size == FILE_BYTES
    again.close()


def test_damage_of_the_newest_slot_is_mended_from_a_database_that_is_ahead(world: World) -> None:
    """The other slot is one checkpoint behind: the same as a crash within the swap."""
    world.append_one()
    world.close()
    change(world.folder / "anchor", lambda data: flip(newest_slot(data) + 70)(data))
    again = World(world.folder, clock=world.clock).start()
    assert again.anchor.read() == again.ledger.checkpoint() and not again.anchor.interrupted()
    again.close()


def test_damage_of_a_slot_beside_a_database_that_is_not_ahead(world: World, tmp_path: Path) -> None:
    """What was being anchored had been committed: a database without it was rolled back, or a disk has failed."""
    old = copied(world, tmp_path / "old")
    world.append_one()
    world.close()
    shutil.copytree(world.folder / "anchor", old / "anchor", dirs_exist_ok=True)
    change(old / "anchor", lambda data: flip(newest_slot(data) + 70)(data))
    refused("ANCHOR_DAMAGED", World(old, clock=world.clock).start)


@pytest.mark.parametrize("hashes_only", [False, True])
def test_fsck_finds_the_damaged_slot_that_the_start_refuses(world: World, hashes_only: bool) -> None:
    for _ in range(3):
        world.append_one()
    world.close()
    log, anchor = world.ledger.verifier, world.folder / "anchor"
    whole = (anchor / "checkpoint").read_bytes()

    def faults(slot: int) -> list[str]:
        (anchor / "checkpoint").write_bytes(flip(slot + 70)(whole))
        return [fault.reason for fault in examine(world.engine, log, world.anchor, hashes_only=hashes_only)]

    newest = newest_slot(whole)
    assert faults(newest) == [], "the database is ahead, as after a crash: the start mends it"
    assert faults(SLOT_BYTES - newest) == ["ANCHOR_DAMAGED"]
    refused("ANCHOR_DAMAGED", World(world.folder, clock=world.clock).start)
