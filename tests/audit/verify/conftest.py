from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.audit.ledger.ledger_world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A ledger that has just been opened."""
    made = World(tmp_path).start()
    yield made
    made.close()
