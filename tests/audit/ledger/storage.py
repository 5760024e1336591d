"""Where a test's ledger lies: a SQLite file in its folder, or the PostgreSQL database that a file there names.

The contract suite runs the same tests against both. What a test does here, the owner of the database could do: nothing
of it goes through the gateway's own connections.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
from pathlib import Path
from typing import Any, Protocol

from tests.postgres_server import GATEWAY, MIGRATOR, Cluster

_MARKER = "postgresql"


class Storage(Protocol):
    """A database under a test's hands."""

    @property
    def url(self) -> str:
        """For the gateway."""
        ...

    @property
    def migration_url(self) -> str:
        """For migrations."""
        ...

    def tamper(self, *statements: str, parameters: tuple[Any, ...] = ()) -> None:
        """Rewrites the log as the owner of the database can: guards taken away and put back. SQLite's spelling."""
        ...

    def keep(self, other: Path) -> Storage:
        """A copy that lies in another folder; nobody may be using the original."""
        ...

    def beside(self, other: Path) -> Storage:
        """An empty one of the same kind in another folder."""
        ...

    def replace_by(self, other: Storage) -> None:
        """Puts a copy of ``other`` in the place of this one; nobody may be using either."""
        ...

    def lose(self) -> None:
        """Loses everything."""
        ...


class SqliteStorage:
    """A file."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "assay.db"
        self.url = self.migration_url = f"sqlite:///{self.file}"

    def tamper(self, *statements: str, parameters: tuple[Any, ...] = ()) -> None:
        raw = sqlite3.connect(self.file)
        triggers = raw.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            raw.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            raw.execute(statement, parameters)
        for _, sql in triggers:
            raw.execute(sql)
        raw.commit()
        raw.close()

    def keep(self, other: Path) -> SqliteStorage:
        copy = SqliteStorage(other)
        shutil.copy(self.file, copy.file)
        return copy

    def beside(self, other: Path) -> SqliteStorage:
        return SqliteStorage(other)

    def replace_by(self, other: Storage) -> None:
        assert isinstance(other, SqliteStorage)
        self.lose()
        shutil.copy(other.file, self.file)

    def lose(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            self.file.with_name(self.file.name + suffix).unlink(missing_ok=True)


class PostgresStorage:
    """A database of a cluster; the folder holds a file that says which."""

    def __init__(self, folder: Path) -> None:
        socket, self.name = (folder / _MARKER).read_text().split()
        self.cluster = Cluster(Path(socket))
        self.url, self.migration_url = (self.cluster.url(self.name, user) for user in (GATEWAY, MIGRATOR))

    @classmethod
    def create(cls, folder: Path, cluster: Cluster, template: str = "assay_template") -> PostgresStorage:
        """A new database for a folder, with roles and schema and no table; or a copy of another."""
        (folder / _MARKER).write_text(f"{cluster.socket} {cluster.create_database(template)}")
        return cls(folder)

    def tamper(self, *statements: str, parameters: tuple[Any, ...] = ()) -> None:
        from audit.ledger.postgres_guards import LOG_TABLES, TRIGGERS

        script = "; ".join(f"ALTER TABLE assay.{table} DISABLE TRIGGER ALL" for table in LOG_TABLES)
        self.cluster.sql(self.name, f"SET search_path = assay; {script}")
        for statement in statements:
            zeros = re.sub(r"zeroblob\((\d+)\)", r"decode(repeat('00', \1), 'hex')", statement)
            self.sql(zeros.replace("?", "%s"), parameters)
        always = "; ".join(f"ALTER TABLE assay.{t.table} ENABLE ALWAYS TRIGGER {name}" for name, t in TRIGGERS.items())
        self.cluster.sql(self.name, always)

    def sql(self, statement: str, parameters: Any = None, user: str = "postgres") -> list[Any]:
        """Runs a statement with the ledger's tables in sight."""
        return self.cluster.sql(self.name, statement, parameters, user, options="-c search_path=assay,pg_temp")

    def keep(self, other: Path) -> PostgresStorage:
        return PostgresStorage.create(other, self.cluster, self.name)

    def beside(self, other: Path) -> PostgresStorage:
        return PostgresStorage.create(other, self.cluster)

    def replace_by(self, other: Storage) -> None:
        assert isinstance(other, PostgresStorage)
        self.cluster.drop_database(self.name)
        self.cluster.create_database(other.name, self.name)

    def lose(self) -> None:
        self.cluster.drop_database(self.name)
        self.cluster.create_database(name=self.name)


def at(folder: Path) -> Storage:
    """The storage of a test's folder."""
    return PostgresStorage(folder) if (folder / _MARKER).exists() else SqliteStorage(folder)
