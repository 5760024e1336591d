"""The block of docs/policies.md by which officers choose packs for a unit and change a limit, run line by line."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from assay.errors import InvalidInputError
from gateway import active_policy
from gateway.application import Application
from gateway.settings import Settings
from policies import bundle
from tests.gateway.test_keys import Closed, call, closed, ran

__all__ = ["closed", "ran"]  # fixtures
PAGE = Path(__file__).parents[2] / "docs" / "policies.md"
EDITS = {
    "bundle.yaml": (("units: {}", "units: {support: [gdpr, hipaa]}"), ("version: 20", "version: 21")),
    "limits.yaml": (("  max_retention_days:\n    value: 3650", "  max_retention_days:\n    value: 3000"),),
}


def block() -> list[list[str]]:
    text = PAGE.read_text().split("**To choose packs for a unit, or change a limit:**\n\n```\n", 1)[1]
    return [shlex.split(line, comments=True) for line in text.split("\n```", 1)[0].splitlines()]


def edit(path: Path) -> None:
    text = path.read_text()
    for old, new in EDITS[path.name]:
        assert text.count(old) == 1, (path, old)
        text = text.replace(old, new)
    path.write_text(text)


async def test_the_block_runs_and_the_unit_is_asked_what_it_chose(closed: Closed) -> None:
    root, printed = closed.layout.root, {}
    for words in block():
        typed = [re.sub(r"^\./bank", str(root), word) for word in words]
        if typed[0] == "$EDITOR":
            edit(Path(typed[1]))
        else:
            assert typed[0] == "assay"
            printed[" ".join(words[1:3])] = call(*typed[1:])
    assert all(word in printed["policy diff"] for word in ("max_retention_days", "support", "gdpr, hipaa"))
    (last,) = (line for line in printed["policy publish"].splitlines() if "restart" in line)
    assert "people/cora and spiffe://assay.local/people/oscar" in last
    app = Application.open(Settings.load(root))
    assert {"gdpr", "hipaa"} <= app.policy.pack.chosen("support")
    assert app.policy.pack.limits.number("max_retention_days", "quick") == 3000
    await app.close()
    assert "FOLDER_EXISTS" in call("policy", "copy", root / "policies", code=7)
    assert not (root / "policies" / "access").exists()


async def test_a_unit_that_there_is_not_is_refused_and_stops_no_gateway_that_ran(
    closed: Closed, caplog: pytest.LogCaptureFixture
) -> None:
    root, own = closed.layout.root, closed.layout.root / "policies"
    call("policy", "copy", own)
    sheet = own / "bundle.yaml"
    sheet.write_text(sheet.read_text().replace("units: {}", "units:\n  support: [gdpr]\n  suport: [gdpr, hipaa]"))
    said = call("policy", "publish", root, "--as", closed.layout.person("cora"), code=3)
    assert "PACK_UNIT" in said and re.search(r"bundle.yaml:\d+:\d+", said) and "credit, claims" in said
    settings = Settings.load(root)
    kept = active_policy.load(settings)
    assert kept.pack.chosen("support") == {"baseline"} and "suport" in caplog.text
    with pytest.raises(InvalidInputError) as caught:
        bundle.demand_units(own, ["support"])
    assert caught.value.reason == "PACK_UNIT"
    bundle.demand_units(own, ["support", "suport"])


def test_a_first_start_takes_no_unit_that_there_is_not(closed: Closed) -> None:
    settings = Settings.load(closed.layout.root)
    call("policy", "copy", own := closed.layout.root / "policies")
    sheet = own / "bundle.yaml"
    sheet.write_text(sheet.read_text().replace("units: {}", "units: {suport: [gdpr]}"))
    active_policy._kept(settings).rename(closed.layout.root / "away")
    with pytest.raises(InvalidInputError) as caught:
        active_policy.load(settings)
    assert caught.value.reason == "PACK_UNIT"
