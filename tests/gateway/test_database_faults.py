"""A database that is damaged, away, newer or closed to us is named, by the very commands that one then runs."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from assay import toml_file
from assay.errors import AssayError
from assay.identity import Layout, load_certificate, read_private
from gateway.cli.app import app
from gateway.rpc import __main__ as process
from gateway.settings import Settings, default_toml
from tests.audit.ledger.storage import PostgresStorage
from tests.gateway.conftest import House
from tests.postgres_server import GATEWAY, MIGRATOR, Server


def call(*words: object, code: int) -> str:
    done = CliRunner().invoke(app, [*map(str, words)], env={"ASSAY_IDENTITY": ""})
    assert done.exit_code == code, done.output
    return done.output


def start(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What the gateway's process says when it does not start."""
    monkeypatch.setattr(sys, "argv", ["gateway.rpc", str(root)])
    telemetry = SimpleNamespace(open=lambda *_: SimpleNamespace(close=lambda: None))
    monkeypatch.setattr(process, "Telemetry", telemetry)
    assert process.main() == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


@pytest.fixture
async def stopped(opened: Callable[[], House]) -> Settings:
    """An installation that has run and stands still."""
    house = opened()
    await house.upload("rita")
    await house.app.close()
    return house.app.settings


@pytest.mark.parametrize("where", ["head", "pages"])
def test_a_damaged_file_is_named(
    stopped: Settings, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = bytearray(stopped.database.read_bytes())
    begin = 0 if where == "head" else 4096
    data[begin:] = b"\x5a" * (len(data) - begin)
    stopped.database.write_bytes(data)
    root = stopped.directory
    assert "DATABASE_DAMAGED" in call("ledger", "fsck", root, code=10)
    assert "DATABASE_DAMAGED" in call("ledger", "backup", root, "--out", tmp_path / "copy", code=10)
    assert not (tmp_path / "copy").exists()
    assert "restore a backup" in start(root, monkeypatch, capsys)


def test_a_file_without_tables_is_named(stopped: Settings) -> None:
    stopped.database.write_bytes(b"")
    assert "DATABASE_NOT_MIGRATED" in call("ledger", "fsck", stopped.directory, code=6)


async def test_a_database_of_a_newer_release_is_named(stopped: Settings, opened: Callable[[], House]) -> None:
    with sqlite3.connect(stopped.database) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(AssayError, match="9999") as caught:
        opened()
    assert caught.value.reason == "DATABASE_NEWER"


def test_another_users_files_are_not_missing(
    stopped: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def denied(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    layout = stopped.layout
    for name in ("read_text", "read_bytes", "mkdir"):
        monkeypatch.setattr(Path, name, denied)
    for read, path in (
        (lambda p: toml_file.read(Settings, p, "init"), layout.settings),
        (read_private, layout.service("gateway") / "log.key"),
        (load_certificate, layout.service("gateway") / "tls.crt"),
    ):
        with pytest.raises(AssayError, match="Permission denied") as caught:
            read(path)  # type: ignore[no-untyped-call]
        assert caught.value.reason == "FILE" and "as the user whose files" in caught.value.remedy
    monkeypatch.setattr(Settings, "load", lambda _: stopped)
    assert start(stopped.directory, monkeypatch, capsys).startswith("FILE: ")


async def test_postgresql_that_is_away_closed_or_newer(
    opened: Callable[[], House], postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "database").mkdir()
    storage = PostgresStorage.create(tmp_path / "database", postgres.cluster)
    root, settings = tmp_path / "dir", Layout(tmp_path / "dir").settings
    settings.write_text(default_toml(postgres_url=storage.url))
    assert "DATABASE_NOT_MIGRATED" in call("ledger", "fsck", root, code=6)
    said = call("ledger", "migrate", root, "--as", storage.url, code=5)
    assert "DATABASE_FORBIDDEN" in said and "--as with a login that may become assay_owner" in said
    call("ledger", "migrate", root, "--as", storage.migration_url, code=0)
    storage.sql("UPDATE alembic_version SET version_num = '9999'")
    assert "DATABASE_NEWER" in call("ledger", "migrate", root, "--as", storage.migration_url, code=6)
    assert "DATABASE_NEWER" in await asyncio.to_thread(start, root, monkeypatch, capsys)
    away = f"postgresql+psycopg://{GATEWAY}@/assay?host={tmp_path}"
    settings.write_text(default_toml(postgres_url=away))
    assert "DATABASE_UNREACHABLE" in call("ledger", "fsck", root, code=9)
    assert "DATABASE_UNREACHABLE" in call("key", "list", root, code=9)
    assert "DATABASE_UNREACHABLE" in call("ledger", "migrate", root, "--as", away.replace(GATEWAY, MIGRATOR), code=9)
    assert "DATABASE_UNREACHABLE" in await asyncio.to_thread(start, root, monkeypatch, capsys)
    storage.cluster.drop_database(storage.name)
