"""What a lost database costs: docs/installation.md says it, sentence by sentence, and here it is tried."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from assay.errors import AssayError
from assay.identity import Layout
from audit.ledger.note import open_checkpoint
from audit.verify.trust import TrustFile
from gateway import doctor
from gateway.settings import Settings, default_toml
from tests.gateway.conftest import House
from tests.gateway.test_freezing import append
from tests.gateway.test_keys import Closed, closed, ran
from tests.gateway.test_keys import call as assay
from tests.gateway.test_ledger_cli import call, lose
from tests.postgres_server import GATEWAY, MIGRATOR, Cluster, Server

__all__ = ["closed", "ran"]  # fixtures


def reason(opened: Callable[[], House]) -> str:
    with pytest.raises(AssayError) as caught:
        opened()
    return caught.value.reason


async def test_a_backup_from_before_the_last_record_is_not_served_and_a_successor_cites_the_anchor(
    opened: Callable[[], House], tmp_path: Path
) -> None:
    house = opened()
    root, database = house.layout.root, house.app.settings.database
    call("backup", root, "--out", tmp_path / "backup")
    await house.upload("rita")
    size = house.app.ledger.size
    await house.app.close()
    lose(database)
    assert "RESTORE_INCOMPLETE" in call("restore", root, "--backup", tmp_path / "backup", code=6)
    shutil.copy(tmp_path / "backup" / "assay.db", database)
    assert reason(opened) == "LOG_ROLLED_BACK"
    final, oscar = tmp_path / "final.checkpoint", house.layout.person("oscar")
    call("freeze", root, "--reason-code", "fork", "--as", oscar, "--out", final)
    assert open_checkpoint(final.read_bytes(), TrustFile.load(house.layout.trust).log).size == size


async def test_refusals_alone_that_are_missing_can_be_brought_back_and_served(
    opened: Callable[[], House], tmp_path: Path
) -> None:
    house = opened()
    root, database = house.layout.root, house.app.settings.database
    call("backup", root, "--out", tmp_path / "old")
    append(house)
    call("backup", root, "--out", tmp_path / "new")
    await house.app.close()
    lose(database)
    call("restore", root, "--backup", tmp_path / "old", "--from", tmp_path / "new")
    await opened().app.close()


async def test_the_anchor_may_be_another_disks_and_its_absence_is_refused(
    opened: Callable[[], House], tmp_path: Path
) -> None:
    anchor, elsewhere = Layout(tmp_path / "dir").anchor, tmp_path / "other-disk"
    elsewhere.mkdir()
    if anchor.exists():
        shutil.rmtree(anchor)
    anchor.symlink_to(elsewhere)
    house = opened()
    append(house)
    await house.app.close()
    assert (elsewhere / "checkpoint").is_file()
    elsewhere.rename(tmp_path / "unmounted")
    elsewhere.mkdir()
    assert reason(opened) == "ANCHOR_MISSING"
    shutil.rmtree(elsewhere)
    (tmp_path / "unmounted").rename(elsewhere)
    await opened().app.close()


@pytest.mark.slow
async def test_a_synchronous_standby_loses_nothing(opened: Callable[[], House], tmp_path: Path) -> None:
    primary = Server()
    standby, socket = primary.folder / "standby", primary.folder / "s"
    processes: list[subprocess.Popen[bytes]] = []
    try:
        binaries = next(p for p in primary.folder.glob("install/**/pg_basebackup")).parent
        name = primary.cluster.create_database()
        url = primary.cluster.url(name)
        Layout(tmp_path / "dir").settings.write_text(default_toml(postgres_url=url))
        call("migrate", tmp_path / "dir", "--as", url.replace(GATEWAY, MIGRATOR))
        (binaries / "pg_basebackup").chmod(0o755)
        copy = [binaries / "pg_basebackup", "-R", "-D", standby, "-h", primary.folder, "-U", "postgres", "-c", "fast"]
        assert primary._run(copy).wait() == 0, primary.log
        socket.mkdir()
        shutil.chown(socket, "postgres" if primary._account and primary._account.pw_name == "postgres" else "nobody")
        start = [binaries / "postgres", "-D", standby, "-c", f"unix_socket_directories={socket}", "-c",
                 "listen_addresses=", "-c", "max_connections=200"]  # fmt: skip
        processes.append(primary._run(start))
        primary.cluster.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = '*'")
        primary.cluster.sql("postgres", "SELECT pg_reload_conf()")
        house = opened()
        await house.upload("rita")
        size = house.app.ledger.size
        primary.process.send_signal(signal.SIGKILL)
        primary.process.wait()
        await house.app.close()
        other = Cluster(socket)
        assert other.sql("postgres", "SELECT pg_promote()") == [(True,)]
        Layout(tmp_path / "dir").settings.write_text(default_toml(postgres_url=other.url(name)))
        with psycopg.connect(other.dsn("postgres"), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
            connection.execute("SELECT pg_reload_conf()")
        again = opened()
        assert again.app.ledger.size == size
        append(again)
        await again.app.close()
        assert json.loads(call("fsck", tmp_path / "dir", "--output", "json"))["ok"] is True
    finally:
        for process in processes:
            process.send_signal(signal.SIGQUIT)
            process.wait()
        primary.stop()


async def test_a_lost_database_is_told_from_one_that_was_never_made(
    closed: Closed, opened: Callable[[], House]
) -> None:
    root, database = closed.layout.root, Settings.load(closed.layout.root).database
    call("backup", root, "--out", backup := root.parent / "backup")
    oscar = closed.layout.person("oscar")
    assay("key", "rotate", "permit", root, "--as", oscar)
    call("backup", root, "--out", newest := root.parent / "newest")
    lose(database)
    told = {f.name: f for f in doctor.run(root)}["database"]
    assert (told.ok, told.required) == (False, True) and "assay ledger restore" in told.remedy
    for words in (
        ("ledger", "fsck", root),
        ("ledger", "backup", root, "--out", root.parent / "x"),
        ("ledger", "freeze", root, "--as", oscar),
        ("key", "list", root),  # which would say of the key that was rotated out that it is in force
        ("key", "rotate", "permit", root, "--as", oscar),
        ("policy", "replay", root),
    ):
        assert "DATABASE_LOST" in assay(*words, code=6)
    assert reason(opened) == "DATABASE_LOST"
    assert not database.exists(), "an empty one would stand in the way of the backup"
    assert "RESTORE_INCOMPLETE" in call("restore", root, "--backup", backup, code=6)
    call("restore", root, "--backup", newest)
    await opened().app.close()


def test_a_log_whose_database_is_lost_without_a_backup_ends_by_the_anchor(closed: Closed, tmp_path: Path) -> None:
    root, final = closed.layout.root, tmp_path / "final.checkpoint"
    size = json.loads(call("fsck", root, "--output", "json"))["records"]
    lose(Settings.load(root).database)
    call("freeze", root, "--reason-code", "fork", "--as", closed.layout.person("oscar"), "--out", final)
    assert open_checkpoint(final.read_bytes(), TrustFile.load(closed.layout.trust).log).size == size
    assert not Settings.load(root).database.exists()
