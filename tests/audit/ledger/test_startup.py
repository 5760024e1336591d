"""Attacks on a ledger at rest: each is refused by name at start or found by the full check."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from assay import canonical
from assay.errors import IntegrityError
from audit.ledger import fsck, tree
from audit.ledger.note import Checkpoint, Verifier, sign_note
from audit.ledger.schema import CHECKPOINTS, RECORDS
from tests.audit.ledger.ledger_world import ORIGIN, World, ed25519, refused

pytestmark = pytest.mark.usefixtures("ledger_database")


def grow(world: World, count: int) -> None:
    world.ledger.run(lambda uow: [uow.append(draft(n)) for n in range(count)])


def draft(n: int) -> Any:
    from audit.ledger.records import RecordDraft

    return RecordDraft("credit", "dataset.created", "dataset", {"n": n})


def tamper(world: World, *statements: str, parameters: tuple[Any, ...] = ()) -> None:
    """Rewrites the log as the owner of the database can: guards taken away and put back."""
    world.storage.tamper(*statements, parameters=parameters)


Check = Callable[[Any, Verifier], Iterator[fsck.Fault]]


def faults(world: World, check: Check = fsck.check) -> dict[str, int]:
    log = Verifier.of(ORIGIN, world.services["log"].public_key())
    found: dict[str, int] = {}
    for fault in check(world.engine, log):
        found.setdefault(fault.reason, fault.index)
    return found


def restart(world: World) -> None:
    world.ledger.close()
    world.ledger = world.open()
    world.ledger.start()


@pytest.fixture
def grown(world: World) -> World:
    grow(world, 300)
    grow(world, 5)
    world.ledger.close()
    return world


def body(world: World, index: int) -> bytes:
    with world.engine.connect() as connection:
        return bytes(connection.execute(select(RECORDS.c.body).where(RECORDS.c.idx == index)).scalar_one())


def test_untouched_log_has_no_fault_and_starts(grown: World) -> None:
    assert faults(grown) == {}
    restart(grown)
    assert grown.ledger.size == 306


def edited(world: World, index: int) -> bytes:
    value = canonical.decode(body(world, index))
    value["statement"]["predicate"]["n"] += 1
    return canonical.encode(value)


def test_attack_1_body_edited(grown: World) -> None:
    tamper(grown, "UPDATE log_record SET body = ? WHERE idx = 300", parameters=(edited(grown, 300),))
    assert faults(grown) == {"LEAF_MISMATCH": 300}
    refused("LEAF_MISMATCH", lambda: restart(grown))


def test_attack_1_one_byte_of_an_old_body(grown: World) -> None:
    data = bytearray(body(grown, 7))
    data[100] ^= 1
    tamper(grown, "UPDATE log_record SET body = ? WHERE idx = 7", parameters=(bytes(data),))
    assert faults(grown)["LEAF_MISMATCH"] == 7
    restart(grown)
    record = grown.ledger.record(7)
    proof = grown.ledger.inclusion_proof(7, 306)
    refused(
        "INCLUSION_BAD",
        lambda: tree.verify_inclusion(7, 306, tree.leaf_hash(record.body), proof, grown.ledger.root(306)),
    )


def test_attack_2_body_and_leaf_edited(grown: World) -> None:
    new = edited(grown, 300)
    tamper(grown, "UPDATE log_record SET body = ?, leaf = ? WHERE idx = 300", parameters=(new, tree.leaf_hash(new)))
    assert {"ROOT_MISMATCH", "CHAIN_BROKEN"} <= faults(grown).keys()
    refused("ROOT_MISMATCH", lambda: restart(grown))


def test_attack_2_in_a_full_tile(grown: World) -> None:
    new = edited(grown, 7)
    tamper(grown, "UPDATE log_record SET body = ?, leaf = ? WHERE idx = 7", parameters=(new, tree.leaf_hash(new)))
    assert {"TILE_DAMAGED", "ROOT_MISMATCH", "CHAIN_BROKEN"} <= faults(grown).keys()


def test_attack_3_middle_record_deleted(grown: World) -> None:
    """In a full tile only the full check reads it; in the right edge start-up does."""
    tamper(grown, "DELETE FROM log_record WHERE idx = 100")
    assert faults(grown)["LOG_GAP"] == 100
    tamper(grown, "DELETE FROM log_record WHERE idx = 300")
    refused("LOG_GAP", lambda: restart(grown))


def test_attack_4_tail_cut_off(grown: World) -> None:
    tamper(grown, "DELETE FROM log_record WHERE idx > 300", "DELETE FROM log_checkpoint WHERE size > 301")
    assert faults(grown) == {}
    refused("LOG_ROLLED_BACK", lambda: restart(grown))


def test_attack_4_old_copy_restored(world: World, tmp_path: Path) -> None:
    grow(world, 10)
    world.close()
    backup = world.storage.keep(make(tmp_path / "backup"))
    world = World(tmp_path).start()
    grow(world, 10)
    world.close()
    world.storage.replace_by(backup)
    refused("LOG_ROLLED_BACK", World(tmp_path).start)


def test_attack_5_tail_cut_off_and_other_records_appended(world: World, tmp_path: Path) -> None:
    """The fork is the log key's own work: only the anchor tells. Both notes are in the error as evidence."""
    grow(world, 10)
    world.close()
    world.storage.keep(make(tmp_path / "fork"))
    shutil.copytree(tmp_path / "anchor", tmp_path / "fork" / "anchor")
    here, fork = World(tmp_path).start(), World(tmp_path / "fork").start()
    grow(here, 5)
    fork.ledger.run(lambda uow: [uow.append(draft(n)) for n in range(100, 108)])
    here.close(), fork.close()
    here.storage.replace_by(fork.storage)
    world = World(tmp_path)
    refused("LOG_FORKED", world.start)
    try:
        world.open().start()
    except Exception as error:
        notes = error.metadata  # type: ignore[attr-defined]
        assert notes["anchor"].splitlines()[1] == "16" and notes["database"].splitlines()[1] == "19"
    world.close()


def test_attack_7_records_swapped(grown: World) -> None:
    tamper(
        grown,
        "UPDATE log_record SET idx = 1000 WHERE idx = 301",
        "UPDATE log_record SET idx = 301 WHERE idx = 302",
        "UPDATE log_record SET idx = 302 WHERE idx = 1000",
    )
    assert {"CHAIN_BROKEN", "ROOT_MISMATCH"} <= faults(grown).keys()
    refused("ROOT_MISMATCH", lambda: restart(grown))


def test_attack_10_rewritten_and_signed_with_the_true_key(world: World, tmp_path: Path) -> None:
    grow(world, 3)
    world.close()
    world.storage.beside(make(tmp_path / "other"))
    other = World(tmp_path / "other").start()
    other.ledger.run(lambda uow: [uow.append(draft(n)) for n in range(50, 55)])
    other.close()
    world.storage.replace_by(other.storage)
    refused("LOG_FORKED", World(tmp_path).start)


def make(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_columns_that_disagree_with_the_body(grown: World) -> None:
    tamper(grown, "UPDATE log_record SET job = 'units/credit/tuningJobs/x', type = 'card.issued' WHERE idx = 9")
    assert faults(grown) == {"COLUMN_MISMATCH": 9}
    assert faults(grown, fsck.check_hashes) == {}  # what a record says is the full check's matter


def test_tile_damage_is_found(grown: World) -> None:
    tamper(grown, "UPDATE log_tile SET hashes = zeroblob(16352)")
    assert "TILE_DAMAGED" in faults(grown)
    refused("ROOT_MISMATCH", lambda: restart(grown))


def test_tile_missing(grown: World) -> None:
    tamper(grown, "DELETE FROM log_tile")
    assert "TILE_DAMAGED" in faults(grown)
    refused("TILE_DAMAGED", lambda: restart(grown))


def test_tile_without_records(grown: World) -> None:
    tamper(grown, "INSERT INTO log_tile VALUES (0, 1, zeroblob(16352))")
    assert faults(grown) == {"TILE_DAMAGED": 1}


def test_checkpoint_missing(grown: World) -> None:
    tamper(grown, "DELETE FROM log_checkpoint WHERE size = 306")
    refused("CHECKPOINT_MISSING", lambda: restart(grown))


def test_checkpoint_of_a_size_that_never_was(grown: World) -> None:
    tamper(grown, "INSERT INTO log_checkpoint SELECT 999, note FROM log_checkpoint WHERE size = 306")
    assert faults(grown) == {"CHECKPOINT_BAD": 999}
    refused("CHECKPOINT_MISSING", lambda: restart(grown))


@pytest.mark.parametrize(
    ("make_note", "reason"),
    [
        (lambda w: sign_note(Checkpoint(ORIGIN, 306, b"x" * 32).text(), ORIGIN, w.services["log"]), "ROOT_MISMATCH"),
        (lambda w: sign_note(Checkpoint(ORIGIN, 306, b"x" * 32).text(), ORIGIN, ed25519("no")), "NOTE_SIGNATURE_BAD"),
        (lambda w: sign_note(f"other\n306\n{'A' * 43}=\n", ORIGIN, w.services["log"]), "CHECKPOINT_ORIGIN"),
    ],
)
def test_checkpoint_forged(grown: World, make_note: Callable[[World], bytes], reason: str) -> None:
    tamper(grown, "UPDATE log_checkpoint SET note = ? WHERE size = 306", parameters=(make_note(grown),))
    assert faults(grown).keys() <= {"CHECKPOINT_BAD", "ROOT_MISMATCH"} and faults(grown)
    refused(reason, lambda: restart(grown))


def test_anchor_lost(grown: World) -> None:
    (grown.folder / "anchor" / "checkpoint").unlink()
    refused("ANCHOR_MISSING", lambda: restart(grown))


@pytest.mark.parametrize("data", [b"", b"x" * 70_000, b"not a note", sign_note("a\n1\nb\n", "other", ed25519("x"))])
def test_anchor_damaged(grown: World, data: bytes) -> None:
    (grown.folder / "anchor" / "checkpoint").write_bytes(data)
    refused("ANCHOR_DAMAGED", lambda: restart(grown))


def test_anchor_of_a_lost_database(grown: World) -> None:
    """An empty database beside an anchor that remembers records is no fresh start."""
    grown.close()
    grown.storage.lose()
    refused("LOG_ROLLED_BACK", World(grown.folder).start)


def test_crash_between_commit_and_anchor_is_mended(grown: World) -> None:
    """The database is ahead of the anchor by one checkpoint, and consistent: the anchor catches up."""
    with grown.engine.connect() as connection:
        notes = {size: bytes(note) for size, note in connection.execute(select(CHECKPOINTS))}
    older, newest = notes[301], notes[306]
    (grown.folder / "anchor" / "checkpoint").write_bytes(older)
    restart(grown)
    assert grown.anchor.read() == newest
    assert grown.append_one() == 306


def test_what_else_is_demanded_comes_before_the_first_record(tmp_path: Path) -> None:
    """Database and anchor are empty, and somebody else remembers records: no second record 0 is signed."""
    world = World(tmp_path)

    def demand() -> None:
        raise IntegrityError("LOG_ROLLED_BACK", f"others hold a checkpoint; the log has {world.ledger.size} records")

    refused("LOG_ROLLED_BACK", lambda: world.ledger.start(demand))
    with world.engine.connect() as connection:
        assert connection.execute(select(RECORDS)).all() == connection.execute(select(CHECKPOINTS)).all() == []
    again = World(tmp_path).start()
    assert again.ledger.size == 1, "lock and anchor were given back"
    again.close()


def test_crash_before_the_first_commit_is_mended(tmp_path: Path) -> None:
    world = World(tmp_path)
    empty = sign_note(Checkpoint(ORIGIN, 0, tree.EMPTY_ROOT).text(), ORIGIN, world.services["log"])
    world.anchor.swap(None, empty)
    world.start()
    assert world.ledger.size == 1
    world.close()


def rehashed(world: World, index: int) -> None:
    new = edited(world, index)
    parameters = (new, tree.leaf_hash(new))
    tamper(world, f"UPDATE log_record SET body = ?, leaf = ? WHERE idx = {index}", parameters=parameters)


def forged(world: World) -> bytes:
    return sign_note(Checkpoint(ORIGIN, 306, b"x" * 32).text(), ORIGIN, ed25519("no"))


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda w: None, {}),
        (
            lambda w: tamper(w, "UPDATE log_record SET body = ? WHERE idx = 7", parameters=(edited(w, 7),)),
            {"LEAF_MISMATCH": 7},
        ),
        (lambda w: rehashed(w, 7), {"TILE_DAMAGED": 0, "ROOT_MISMATCH": 306}),
        (lambda w: rehashed(w, 300), {"ROOT_MISMATCH": 306}),
        (lambda w: tamper(w, "DELETE FROM log_record WHERE idx = 0"), {"LOG_GAP": 0}),
        (lambda w: tamper(w, "DELETE FROM log_record WHERE idx = 100"), {"LOG_GAP": 100}),
        (lambda w: tamper(w, "DELETE FROM log_record WHERE idx = 305"), {"CHECKPOINT_BAD": 305}),
        (lambda w: tamper(w, "DELETE FROM log_record"), {"TILE_DAMAGED": 0, "CHECKPOINT_BAD": 0}),
        (lambda w: tamper(w, "DELETE FROM log_tile"), {"TILE_DAMAGED": 0}),
        (lambda w: tamper(w, "UPDATE log_tile SET n = 1"), {"TILE_DAMAGED": 0}),
        (lambda w: tamper(w, "DELETE FROM log_checkpoint"), {"CHECKPOINT_BAD": 306}),
        (
            lambda w: tamper(w, "UPDATE log_checkpoint SET note = ? WHERE size = 306", parameters=(forged(w),)),
            {"CHECKPOINT_BAD": 306},
        ),
    ],
    ids="whole body rehashed edge first middle last all tile exchanged checkpoint forged".split(),
)
def test_the_hash_check(grown: World, damage: Callable[[World], None], found: dict[str, int]) -> None:
    """Whatever it finds the full check finds, too."""
    damage(grown)
    assert faults(grown, fsck.check_hashes) == found
    assert found.keys() <= faults(grown).keys()
