"""Payloads outside the log: bound by salted commitments, unreadable once erased, and never the wrong bytes."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, update

from audit.ledger import payloads
from audit.ledger.commitment import Opening, commitments_of
from audit.ledger.payloads import PAYLOADS
from gateway.store.blobs import FileBlobStore
from gateway.store.scope_keys import FileScopeKeys
from tests.audit.ledger.ledger_world import refused

UNIT, JOB, OTHER = "credit", "units/credit/tuningJobs/a", "units/credit/tuningJobs/b"
TEXT = b"the sample held Mrs Doe's letters"


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    made = create_engine(f"sqlite:///{tmp_path / 'payloads.db'}")
    PAYLOADS.metadata.create_all(made)
    return made


@pytest.fixture
def keys(tmp_path: Path) -> FileScopeKeys:
    return FileScopeKeys(FileBlobStore(tmp_path / "blobs", bytes(range(32))))


Put = Callable[[str, bytes], str]


@pytest.fixture
def put(engine: Engine, keys: FileScopeKeys) -> Put:
    def made(scope: str, payload: bytes) -> str:
        with engine.begin() as connection:
            return payloads.put(connection, keys, UNIT, scope, payload)

    return made


def get(engine: Engine, keys: FileScopeKeys, commitment: str) -> Opening:
    with engine.connect() as connection:
        return payloads.get(connection, keys, commitment)


def shred(engine: Engine, keys: FileScopeKeys, scope: str) -> list[str]:
    with engine.begin() as connection:
        return payloads.shred(connection, keys, UNIT, scope)


def test_a_payload_comes_back_and_opens_its_commitment(engine: Engine, keys: FileScopeKeys, put: Put) -> None:
    commitment = put(JOB, TEXT)
    opening = get(engine, keys, commitment)
    assert opening.payload == TEXT and len(opening.salt) == 32
    assert commitment == hashlib.sha256(b"assay/commit/v1\n" + opening.salt + TEXT).hexdigest()


def test_equal_payloads_have_different_commitments(put: Put) -> None:
    assert put(JOB, TEXT) != put(JOB, TEXT)


def test_a_commitment_cannot_be_guessed_from_the_payload_alone(put: Put) -> None:
    assert put(JOB, TEXT) != Opening(bytes(32), TEXT).commitment()


def test_neither_database_nor_files_show_the_payload(engine: Engine, tmp_path: Path, put: Put) -> None:
    put(JOB, TEXT)
    engine.dispose()
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or TEXT[:12] not in path.read_bytes(), path


@pytest.mark.parametrize("salt", [b"", bytes(31), bytes(33)])
def test_a_salt_of_another_size_is_refused(salt: bytes) -> None:
    refused("COMMITMENT_SALT", lambda: Opening(salt, TEXT).commitment())


@pytest.mark.parametrize("opening", [Opening(bytes(32), b"x"), Opening(b"\1" + bytes(31), TEXT)])
def test_another_payload_or_salt_does_not_open(opening: Opening) -> None:
    refused("COMMITMENT_MISMATCH", lambda: opening.check(Opening(bytes(32), TEXT).commitment()))


def test_only_whole_commitments_are_read_from_a_predicate() -> None:
    good = "ab" * 32
    predicate = {
        "b_commitment": good,
        "a_commitment": "AB" * 32,
        "c_commitment": 7,
        "d_commitment": good + "\n",
        "e": good,
    }
    assert commitments_of(predicate) == [good]


def test_too_large_a_payload_is_refused(put: Put) -> None:
    put(JOB, bytes(payloads.MAX_PAYLOAD))
    refused("PAYLOAD_TOO_LARGE", lambda: put(JOB, bytes(payloads.MAX_PAYLOAD + 1)))


def test_shredding_takes_the_scope_and_nothing_else(engine: Engine, keys: FileScopeKeys, put: Put) -> None:
    mine, second, theirs = put(JOB, TEXT), put(JOB, b"more"), put(OTHER, TEXT)
    assert shred(engine, keys, JOB) == sorted([mine, second])
    for commitment in (mine, second):
        refused("PAYLOAD_ERASED", lambda c=commitment: get(engine, keys, c))
    assert get(engine, keys, theirs).payload == TEXT
    assert shred(engine, keys, JOB) == []


def test_an_erased_scope_takes_nothing_new(engine: Engine, keys: FileScopeKeys, put: Put) -> None:
    shred(engine, keys, JOB)
    refused("SCOPE_ERASED", lambda: put(JOB, TEXT))
    assert not keys.destroy(UNIT, JOB)


def test_rows_that_a_backup_brings_back_stay_unreadable(
    engine: Engine, keys: FileScopeKeys, put: Put, tmp_path: Path
) -> None:
    """The key is what was erased: old ciphertext without it opens nothing."""
    commitment = put(JOB, TEXT)
    with sqlite3.connect(tmp_path / "payloads.db") as database, sqlite3.connect(tmp_path / "backup.db") as backup:
        database.backup(backup)
    shred(engine, keys, JOB)
    old = create_engine(f"sqlite:///{tmp_path / 'backup.db'}")
    refused("PAYLOAD_ERASED", lambda: get(old, keys, commitment))
    old.dispose()


def test_an_opening_that_a_person_made_is_kept_once_and_in_one_scope(engine: Engine, keys: FileScopeKeys) -> None:
    opening = Opening(bytes(range(32)), TEXT)
    with engine.begin() as connection:
        assert payloads.keep(connection, keys, UNIT, JOB, opening) == opening.commitment()
        assert payloads.keep(connection, keys, UNIT, JOB, opening) == opening.commitment()
        refused("PAYLOAD_ELSEWHERE", lambda: payloads.keep(connection, keys, UNIT, OTHER, opening))
        refused("COMMITMENT_SALT", lambda: payloads.keep(connection, keys, UNIT, JOB, Opening(b"x", TEXT)))
    assert get(engine, keys, opening.commitment()) == opening


def test_attack_40_a_restored_key_is_destroyed_again(
    engine: Engine, keys: FileScopeKeys, put: Put, tmp_path: Path
) -> None:
    commitment = put(JOB, TEXT)
    (scope,) = (tmp_path / "blobs/units/credit/scopes").iterdir()
    kept = scope.read_bytes()
    with engine.connect() as connection:
        row = connection.execute(PAYLOADS.select()).mappings().one()
    shred(engine, keys, JOB)
    scope.write_bytes(kept)
    with engine.begin() as connection:
        connection.execute(PAYLOADS.insert().values(**row))
    assert get(engine, keys, commitment).payload == TEXT  # the backup did bring it back
    assert shred(engine, keys, JOB) == [commitment]
    refused("PAYLOAD_ERASED", lambda: get(engine, keys, commitment))
    refused("SCOPE_ERASED", lambda: put(JOB, TEXT))


@pytest.mark.parametrize("change", [{"scope": OTHER}, {"unit": "claims"}, {"commitment": "cd" * 32}])
def test_a_payload_moved_elsewhere_does_not_open(
    engine: Engine, keys: FileScopeKeys, put: Put, change: dict[str, str]
) -> None:
    commitment = put(JOB, TEXT)
    put(OTHER, b"another")
    keys.create("claims", JOB)
    with engine.begin() as connection:
        connection.execute(update(PAYLOADS).where(PAYLOADS.c.commitment == commitment).values(**change))
    refused("PAYLOAD_DAMAGED", lambda: get(engine, keys, change.get("commitment", commitment)))


@pytest.mark.parametrize("position", [0, 11, 12, 50, -1])
def test_a_flipped_bit_of_a_payload_is_noticed(engine: Engine, keys: FileScopeKeys, put: Put, position: int) -> None:
    commitment = put(JOB, TEXT)
    with engine.begin() as connection:
        sealed = bytearray(connection.execute(PAYLOADS.select()).one().sealed)
        sealed[position] ^= 1
        connection.execute(update(PAYLOADS).values(sealed=bytes(sealed)))
    refused("PAYLOAD_DAMAGED", lambda: get(engine, keys, commitment))


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"X" + b[1:], lambda b: bytes(len(b)), lambda b: b""])
def test_a_damaged_or_half_destroyed_key_opens_nothing_and_can_be_destroyed(
    engine: Engine, keys: FileScopeKeys, put: Put, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    commitment = put(JOB, TEXT)
    (scope,) = (tmp_path / "blobs/units/credit/scopes").iterdir()
    scope.write_bytes(damage(scope.read_bytes()))
    refused("SCOPE_KEY_DAMAGED", lambda: get(engine, keys, commitment))
    refused("SCOPE_KEY_DAMAGED", lambda: put(JOB, TEXT))
    assert shred(engine, keys, JOB) == [commitment]
    refused("SCOPE_ERASED", lambda: put(JOB, TEXT))


def test_a_key_of_another_scope_or_unit_does_not_open(keys: FileScopeKeys, tmp_path: Path) -> None:
    keys.create(UNIT, JOB)
    keys.create(UNIT, OTHER)
    first, second = sorted((tmp_path / "blobs/units/credit/scopes").iterdir())
    first.write_bytes(second.read_bytes())
    bad = 0
    for scope in (JOB, OTHER):
        try:
            keys.get(UNIT, scope)
        except Exception as error:
            assert getattr(error, "reason", "") == "SCOPE_KEY_DAMAGED"
            bad += 1
    assert bad == 1


def test_scopes_are_not_told_by_their_file_names(keys: FileScopeKeys, tmp_path: Path) -> None:
    keys.create(UNIT, JOB)
    (scope,) = (tmp_path / "blobs/units/credit/scopes").iterdir()
    assert scope.name != hashlib.sha256(JOB.encode()).hexdigest() and "tuningJobs" not in scope.name
