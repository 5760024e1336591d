from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from audit.verify.trust import TrustFile
from tests.audit.ledger.ledger_world import CARD_JSON, CARD_PDF, Story, World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A ledger that has just been opened."""
    made = World(tmp_path).start()
    yield made
    made.close()


@pytest.fixture(scope="session")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, TrustFile, Path]:
    """The whole story's bundle and trust file, made once."""
    folder = tmp_path_factory.mktemp("told")
    world = World(folder).start()
    Story(world).whole()
    data = world.export(attachments={"card.pdf": CARD_PDF, "card.json": CARD_JSON})
    (folder / "trust.txt").write_text(world.trust_text)
    trust = world.trust
    world.close()
    return data, trust, folder
