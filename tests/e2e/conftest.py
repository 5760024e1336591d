from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from e2e_world import BASE_MODEL, Bank

from assay.modelfiles import read_base_manifest, verify_base_files
from assay.pinned import assay_home


@pytest.fixture(scope="session")
def models() -> Path:
    """The real weights, as `make install` put them into the user's cache."""
    found = assay_home() / "models"
    verify_base_files(found / BASE_MODEL, read_base_manifest(found / BASE_MODEL))
    return found


@pytest.fixture(scope="session")
def bank(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[Bank]:
    """One installation for all tests that do not kill anything."""
    found = Bank(tmp_path_factory.mktemp("e2e") / "bank", models)
    try:
        found.start()
        yield found
    finally:
        found.stop()


@pytest.fixture
def own_bank(tmp_path: Path, models: Path) -> Iterator[Bank]:
    """An installation for one test alone."""
    found = Bank(tmp_path / "bank", models)
    try:
        yield found
    finally:
        found.stop()
