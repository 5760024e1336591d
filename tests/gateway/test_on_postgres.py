"""The gateway's own rows in PostgreSQL: who may change tables, what is refused at start, and the commands.

That the services do the same on both databases is for the modules that take ``either_database``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from assay.errors import AssayError, InvalidInputError
from assay.identity import Layout
from audit.ledger.payloads import PAYLOADS
from audit.ledger.schema import TABLE_NAMES
from gateway.cli.app import app
from gateway.settings import Settings, default_toml
from gateway.store.tables import Row
from tests.audit.ledger.storage import PostgresStorage
from tests.gateway.conftest import House
from tests.postgres_server import AUDITOR, GATEWAY, MIGRATOR, Server

RUN = CliRunner()
URL = "postgresql+psycopg://assay_gateway@db.example/assay?sslmode=verify-full&sslrootcert=db-ca.crt"


@pytest.fixture
def storage(tmp_path: Path, postgres: Server) -> Iterator[PostgresStorage]:
    """A database with roles and no table."""
    (tmp_path / "database").mkdir()
    made = PostgresStorage.create(tmp_path / "database", postgres.cluster)
    yield made
    made.cluster.drop_database(made.name)


@pytest.fixture
def postgres_url(storage: PostgresStorage) -> str:
    return storage.url


def ledger(*arguments: object, code: int = 0) -> str:
    """Runs ``assay ledger`` and demands its exit code; returns what it printed."""
    done = RUN.invoke(app, ["ledger", *map(str, arguments)])
    assert done.exit_code == code, done.output
    return done.output


@pytest.fixture
def root(opened: Callable[[], House], tmp_path: Path, storage: PostgresStorage) -> Path:
    """The installation, migrated by the command, as another login than the gateway's."""
    done = ledger("migrate", tmp_path / "dir", "--as", storage.migration_url, "--output", "json")
    assert json.loads(done)["revision"]
    return tmp_path / "dir"


async def test_a_database_that_nobody_migrated_is_refused(
    opened: Callable[[], House], storage: PostgresStorage, tmp_path: Path
) -> None:
    with pytest.raises(AssayError, match="revision none") as refusal:
        opened()
    assert refusal.value.reason == "DATABASE_NOT_MIGRATED"
    assert "assay ledger migrate" in refusal.value.remedy
    ledger("migrate", tmp_path / "dir", "--as", storage.migration_url)
    storage.sql("UPDATE alembic_version SET version_num = '0001'")
    with pytest.raises(AssayError, match="revision 0001") as refusal:
        opened()
    assert refusal.value.reason == "DATABASE_NOT_MIGRATED"


async def test_migrating_again_changes_nothing_and_rows_stay(root: Path, opened: Callable[[], House]) -> None:
    house = opened()
    await house.upload("rita")
    size = house.app.ledger.size
    await house.app.close()
    ledger("migrate", root, "--as", house.app.settings.postgres_url.replace(GATEWAY, MIGRATOR))
    again = opened()
    assert again.app.ledger.size == size
    await again.app.close()


async def test_the_gateway_may_not_change_a_table(
    root: Path, opened: Callable[[], House], storage: PostgresStorage
) -> None:
    house = opened()
    tables = sorted([*Row.metadata.tables, PAYLOADS.name, *TABLE_NAMES, "alembic_version"])
    for table in tables:
        for statement in (f"DROP TABLE {table}", f"ALTER TABLE {table} ADD COLUMN x int", f"TRUNCATE {table}"):
            with pytest.raises(Exception, match=r"must be owner|permission denied"):
                storage.sql(statement, user=GATEWAY)
    for statement in ("UPDATE alembic_version SET version_num = ''", "CREATE TABLE assay.mine (x int)"):
        with pytest.raises(Exception, match="permission denied"):
            storage.sql(statement, user=GATEWAY)
    with pytest.raises(Exception, match="permission denied"):
        storage.sql("SELECT * FROM role_grant", user=AUDITOR)
    assert storage.sql("SELECT count(*) FROM log_record", user=AUDITOR) == [(house.app.ledger.size,)]
    await house.app.close()


async def test_a_login_that_owns_the_tables_does_not_serve(
    root: Path, opened: Callable[[], House], storage: PostgresStorage
) -> None:
    Layout(root).settings.write_text(default_toml(postgres_url=storage.migration_url))
    storage.sql(f"ALTER ROLE {MIGRATOR} SET role = assay_owner")
    try:
        with pytest.raises(AssayError) as refusal:
            opened()
    finally:
        storage.sql(f"ALTER ROLE {MIGRATOR} RESET role")
    assert refusal.value.reason == "ENFORCEMENT_MISSING"


async def test_a_server_that_is_not_there(opened: Callable[[], House], tmp_path: Path) -> None:
    url = f"postgresql+psycopg://{GATEWAY}@/assay?host={tmp_path}"
    Layout(tmp_path / "dir").settings.write_text(default_toml(postgres_url=url))
    with pytest.raises(AssayError) as refusal:
        opened()
    assert refusal.value.reason == "DATABASE_UNREACHABLE"


async def test_fsck_reads_it_and_names_the_damage(
    root: Path, opened: Callable[[], House], storage: PostgresStorage, tmp_path: Path
) -> None:
    house = opened()
    await house.upload("rita")
    assert json.loads(ledger("fsck", root, "--output", "json"))["ok"] is True
    for command in (["backup", root, "--out", tmp_path / "copy"], ["restore", root, "--backup", tmp_path]):
        assert "pg_basebackup" in ledger(*command, code=6)
    kept = storage.sql("SELECT body FROM log_record WHERE idx = 3")[0][0]
    storage.tamper("UPDATE log_record SET body = '7b7d' WHERE idx = 3")
    found = json.loads(ledger("fsck", root, "--output", "json", code=10))
    assert (found["ok"], found["first"]["index"], found["first"]["reason"]) == (False, 3, "LEAF_MISMATCH")
    storage.tamper("UPDATE log_record SET body = ? WHERE idx = 3", parameters=(kept,))
    ledger("fsck", root)
    await house.app.close()


async def test_a_database_that_was_rolled_back_is_refused(
    root: Path, opened: Callable[[], House], storage: PostgresStorage, tmp_path: Path
) -> None:
    house = opened()
    await house.app.close()
    (tmp_path / "older").mkdir()
    older = storage.keep(tmp_path / "older")
    house = opened()
    await house.upload("rita")
    await house.app.close()
    storage.replace_by(older)
    with pytest.raises(AssayError) as refusal:
        opened()
    assert refusal.value.reason == "LOG_ROLLED_BACK"


def test_migrate_is_for_postgresql(tmp_path: Path) -> None:
    Layout(tmp_path).settings.write_text(default_toml())
    assert "NOT_POSTGRES" in ledger("migrate", tmp_path, "--as", URL, code=6)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////tmp/assay.db",
        "postgresql://u@h/d",
        "postgresql+psycopg2://u@h/d",
        "postgresql+psycopg://u:secret@h/d",
        "postgresql+psycopg://u@/d?password=secret",
        "postgresql+psycopg://u@db.example/d",
        "postgresql+psycopg://u@db.example/d?sslmode=disable",
        "x",
    ],
)
def test_an_address_that_is_none_is_refused_before_anything_is_made(url: str, tmp_path: Path) -> None:
    done = RUN.invoke(app, ["init", str(tmp_path / "bank"), "--postgres-url", url])
    assert done.exit_code == 3
    assert "DATABASE_URL" in done.output
    assert "secret" not in done.output
    assert not (tmp_path / "bank").exists()
    Layout(tmp_path).settings.write_text(default_toml(postgres_url=url))
    with pytest.raises(InvalidInputError) as refusal:
        Settings.load(tmp_path)
    assert [v.field for v in refusal.value.violations] == ["postgres_url"]
    assert "secret" not in refusal.value.diagnostics()


def test_the_settings_name_the_database(tmp_path: Path) -> None:
    Layout(tmp_path).settings.write_text(default_toml(postgres_url=URL))
    assert Settings.load(tmp_path).database_url == URL
    Layout(tmp_path).settings.write_text(default_toml())
    assert Settings.load(tmp_path).database_url == f"sqlite:///{Settings.load(tmp_path).database}"
