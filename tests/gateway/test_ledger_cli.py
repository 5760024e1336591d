"""``assay ledger`` on a real installation: exit codes, JSON, and what a restored log may do."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from assay.errors import PreconditionError
from gateway.cli.app import app
from gateway.key_rotation import draft_rotation
from tests.gateway.conftest import House
from tests.gateway.test_identity_registry import revoke

RUN = CliRunner()


def call(*arguments: object, code: int = 0) -> str:
    """Runs a command and demands its exit code; returns what it printed."""
    done = RUN.invoke(app, ["ledger", *map(str, arguments)])
    assert done.exit_code == code, done.output
    return done.output


def lose(database: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)


async def test_fsck_backup_and_restore(opened: Callable[[], House], tmp_path: Path) -> None:
    house = opened()
    root, database = house.layout.root, house.app.settings.database
    assert json.loads(call("fsck", root, "--output", "json"))["ok"] is True
    old = json.loads(call("backup", root, "--out", tmp_path / "old", "--output", "json"))
    await house.upload("rita")
    call("backup", root, "--out", tmp_path / "new")
    assert "BACKUP_EXISTS" in call("backup", root, "--out", tmp_path / "new", code=7)
    assert "LEDGER_IN_USE" in call("restore", root, "--backup", tmp_path / "new", code=6)
    size, checkpoint = house.app.ledger.size, house.app.ledger.checkpoint()
    await house.app.close()
    assert "DATABASE_EXISTS" in call("restore", root, "--backup", tmp_path / "new", code=7)
    lose(database)
    assert "RESTORE_INCOMPLETE" in call("restore", root, "--backup", tmp_path / "old", code=6)
    done = call("restore", root, "--backup", tmp_path / "old", "--from", tmp_path / "new", "--output", "json")
    assert json.loads(done) == {
        "from_backup": old["size"], "appended": size - old["size"], "jobs": [], "rows_behind": True
    }  # fmt: skip
    call("fsck", root)
    call("fsck", root, "--hashes-only")
    with pytest.raises(PreconditionError) as refusal:
        opened()
    assert refusal.value.reason == "ROWS_BEHIND_LOG"
    oscar = house.layout.person("oscar")
    assert "ROWS_BEHIND_LOG" in call("freeze", root, "--as", oscar, code=6), "who has lost a role signs nothing either"
    with pytest.raises(PreconditionError) as refusal:
        draft_rotation(house.app.settings, "permit", oscar)
    assert refusal.value.reason == "ROWS_BEHIND_LOG"
    lose(database)
    call("restore", root, "--backup", tmp_path / "new")
    again = opened()
    assert (again.app.ledger.size, again.app.ledger.checkpoint()) == (size, checkpoint)
    await again.app.close()


async def test_a_backup_of_a_log_whose_rows_are_behind_brings_no_revoked_role_back(
    opened: Callable[[], House], tmp_path: Path
) -> None:
    house = opened()
    root, database = house.layout.root, house.app.settings.database
    call("backup", root, "--out", tmp_path / "old")
    await revoke(house, "oscar", "vik-validator")
    call("backup", root, "--out", tmp_path / "new")
    await house.app.close()
    lose(database)
    call("restore", root, "--backup", tmp_path / "old", "--from", tmp_path / "new")
    assert "not served" in call("backup", root, "--out", tmp_path / "behind")
    for backup, behind in (("new", False), ("behind", True), ("new", False)):
        lose(database)
        done = call("restore", root, "--backup", tmp_path / backup, "--output", "json")
        assert json.loads(done)["rows_behind"] is behind
        if behind:
            with pytest.raises(PreconditionError) as refusal:
                opened()
            assert refusal.value.reason == "ROWS_BEHIND_LOG"
        else:
            again = opened()
            assert (await again.caller("vik")).grants == frozenset()
            await again.app.close()


async def test_fsck_names_the_damage(opened: Callable[[], House]) -> None:
    house = opened()
    raw = sqlite3.connect(house.app.settings.database)
    (trigger,) = raw.execute("SELECT sql FROM sqlite_master WHERE name = 'log_record_no_update'").fetchone()
    raw.execute("DROP TRIGGER log_record_no_update")
    raw.execute("UPDATE log_record SET body = x'7b7d' WHERE idx = 3")
    raw.execute(trigger)
    raw.commit()
    raw.close()
    for options in ([], ["--hashes-only"]):
        found = json.loads(call("fsck", house.layout.root, *options, "--output", "json", code=10))
        assert (found["ok"], found["first"]["index"], found["first"]["reason"]) == (False, 3, "LEAF_MISMATCH")
    await house.app.close()


def test_no_installation_no_key_no_database(pristine: Path, tmp_path: Path) -> None:
    assert "SETTINGS_MISSING" in call("fsck", tmp_path, code=3)
    assert "LEDGER_NOT_A_FILE" in call("fsck", pristine, code=6)
    assert "LEDGER_NOT_A_FILE" in call("backup", pristine, "--out", tmp_path / "x", code=6)
    assert "TRUST_MISSING" in call("fsck", pristine, "--trust", tmp_path / "none.txt", code=3)
