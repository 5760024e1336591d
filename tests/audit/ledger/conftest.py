from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.audit.ledger.ledger_world import World
from tests.audit.ledger.storage import PostgresStorage


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Which database the worlds in ``tmp_path`` stand on: a module that uses this is part of the contract suite."""
    if request.param == "sqlite":
        yield "sqlite"
        return
    server = request.getfixturevalue("postgres")
    storage = PostgresStorage.create(tmp_path, server.cluster)
    yield "postgresql"
    storage.cluster.drop_database(storage.name)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A ledger that has just been opened."""
    made = World(tmp_path).start()
    yield made
    made.close()
