"""A malformed pack is refused with its place, and what was in force stays in force."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from assay.errors import InvalidInputError
from assay.identity import Layout
from assay.v1 import policy_pb2
from gateway import active_policy
from gateway.settings import Settings
from policies import testing
from policies.engine import PolicyEngine
from policies.pack import PACKS, load
from tests.gateway.conftest import House


@pytest.fixture
def layout(opened: Callable[[], House], tmp_path: Path) -> Layout:
    return Layout(tmp_path / "dir")


def own(layout: Layout) -> Path:
    """The installation's own copy of the bundle."""
    folder = layout.root / "policies"
    shutil.copytree(PACKS, folder, ignore=shutil.ignore_patterns("access"))
    return folder


def spoil(folder: Path) -> None:
    rules = folder / "gdpr" / "rules.yaml"
    rules.write_text(rules.read_text().replace("size(datasheet.purposes) > 0", "size(datasheet.purpose) > 0", 1))


async def test_a_malformed_pack_leaves_the_old_bundle_active(
    opened: Callable[[], House], layout: Layout, engine: PolicyEngine, caplog: pytest.LogCaptureFixture
) -> None:
    first = opened()
    await first.app.close()
    folder = own(layout)
    settings = Settings.load(layout.root)
    same = active_policy.load(settings)
    assert same.pack.bundle_sha256 == engine.pack.bundle_sha256
    spoil(folder)
    with caplog.at_level(logging.ERROR):
        kept = active_policy.load(settings)
    assert (kept.pack.bundle_sha256, kept.pack.limits_sha256) == (same.pack.bundle_sha256, same.pack.limits_sha256)
    said = caplog.text
    assert "gdpr/rules.yaml:" in said and "GDPR-6" in said and "stays in force" in said


async def test_without_one_in_force_it_refuses_with_file_line_column_and_rule(layout: Layout) -> None:
    folder = own(layout)
    spoil(folder)
    with pytest.raises(InvalidInputError) as caught:
        active_policy.load(Settings.load(layout.root))
    data = caught.value.metadata
    assert caught.value.reason == "PACK_COMPILE" and data["file"] == "gdpr/rules.yaml" and data["rule"] == "GDPR-6"
    line = (folder / "gdpr" / "rules.yaml").read_text().splitlines()[int(data["line"]) - 1]
    assert line[int(data["column"]) - 1 :].startswith((".purpose)", "purpose)"))


async def test_keeping_is_whole_or_not_at_all(opened: Callable[[], House], layout: Layout) -> None:
    house = opened()
    settings = house.app.settings
    await house.app.close()
    kept = settings.data / "policy" / "in-force"
    before = (kept / active_policy.HELD).stat().st_mtime_ns
    active_policy.keep(settings, house.app.policy.pack)
    assert (kept / active_policy.HELD).stat().st_mtime_ns == before
    (kept / active_policy.HELD).write_text("another\n")
    active_policy.keep(settings, house.app.policy.pack)
    assert PolicyEngine.load(kept).pack.limits_sha256 == house.app.policy.pack.limits_sha256
    assert sorted(path.name for path in kept.parent.iterdir()) == ["in-force"]


async def test_the_tests_of_a_bundle_run_again_only_when_what_they_hold_for_changed(
    opened: Callable[[], House], layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    await opened().app.close()
    folder, settings, ran = own(layout), Settings.load(layout.root), []
    monkeypatch.setattr(testing, "demand", lambda pack: ran.append(pack.bundle_sha256))
    active_policy.load(settings)
    assert ran == []
    cases = folder / "gdpr" / "tests.yaml"
    cases.write_text(cases.read_text() + "\n")
    active_policy.load(settings)
    assert len(ran) == 1, "a table changed"
    monkeypatch.setattr(testing, "ENGINE", "another engine")
    active_policy.load(settings)
    assert len(ran) == 2, "the engine changed"


@pytest.mark.parametrize("folder", [PACKS, PACKS / "baseline", PACKS / "gdpr"])
def test_a_copy_of_a_bundles_files_is_the_same_bundle(folder: Path, tmp_path: Path) -> None:
    pack = load(folder)
    root, files = active_policy.files_of(folder, pack)
    for path, source in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        shutil.copy(source, tmp_path / path)
    copied = load(tmp_path / root)
    verdict = policy_pb2.Verdict(bundle_sha256=pack.bundle_sha256, limits_sha256=pack.limits_sha256)
    assert active_policy.is_of(copied, verdict)
    assert not active_policy.is_of(copied, policy_pb2.Verdict(bundle_sha256=pack.bundle_sha256))
