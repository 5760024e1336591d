"""A gateway of an installation with an ML-DSA-44 key, and one whose key is not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from assay import installation
from assay.errors import InvalidInputError
from audit.ledger.note import Checkpoint, SignedNote, open_checkpoint
from audit.verify.trust import TrustFile
from gateway.application import Application
from gateway.settings import Settings, default_toml
from policies.engine import PolicyEngine
from tests.gateway.conftest import BASE, publish_by_two


def install(root: Path, engine: PolicyEngine, *, key: bool) -> Path:
    plan = installation.Plan(installation.DEFAULT_PEOPLE, "oscar", post_quantum=key)
    layout = installation.create(root, plan)
    layout.settings.write_text(default_toml(post_quantum=True))
    (layout.service("gateway") / "base_models.json").write_text(json.dumps([BASE]))
    publish_by_two(layout, engine.policy())
    return root


async def test_every_checkpoint_has_both_lines(tmp_path: Path, engine: PolicyEngine) -> None:
    root = install(tmp_path / "bank", engine, key=True)
    app = Application.open(Settings.load(root), engine)
    try:
        trust = TrustFile.load(root / "trust.txt")
        note = app.ledger.checkpoint()
        assert open_checkpoint(note, trust.log).size == app.ledger.size > 0
        assert trust.log_ml_dsa is not None
        signed = SignedNote.parse(note)
        assert trust.log_ml_dsa.open(signed, Checkpoint.parse(signed.text)) is not None
    finally:
        await app.close()


async def test_switched_on_without_a_key_it_does_not_start(tmp_path: Path, engine: PolicyEngine) -> None:
    root = install(tmp_path / "bank", engine, key=False)
    with pytest.raises(InvalidInputError) as caught:
        Application.open(Settings.load(root), engine)
    assert caught.value.reason == "KEY_MISSING"
