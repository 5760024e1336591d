"""A malformed pack is refused with its place, and what was in force stays in force."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from assay import policy_text
from assay.errors import InvalidInputError
from assay.identity import Layout
from assay.v1 import policy_pb2
from gateway import active_policy
from gateway.settings import Settings
from policies import testing
from policies.engine import PolicyEngine
from policies.pack import PACKS, load, texts
from policies.rule import Pack
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


def published(settings: Settings, folder: Path, number: int) -> Pack:
    """Another bundle put in force, as a start would."""
    sheet = folder / "bundle.yaml"
    sheet.write_text(re.sub(r"version: .*", f"version: made-{number}", sheet.read_text()))
    pack = load(folder)
    active_policy.keep(settings, pack)
    return pack


async def test_every_bundle_that_was_in_force_is_found_by_its_digests(
    opened: Callable[[], House], layout: Layout
) -> None:
    """Two publications later the rules of a decision were gone: nobody could say by what it was made."""
    house = opened()
    settings, first = house.app.settings, house.app.policy.pack
    await house.app.close()
    folder = own(layout)
    packs = [first, *(published(settings, folder, number) for number in range(3))]
    assert len({pack.bundle_sha256 for pack in packs}) == 4
    for pack in packs:
        found = active_policy.text_of(settings, pack.bundle_sha256, pack.limits_sha256)
        assert found is not None and [t.sha256 for t in found] == [pack.bundle_sha256, pack.limits_sha256]
        verdict = policy_pb2.Verdict(bundle_sha256=pack.bundle_sha256, limits_sha256=pack.limits_sha256)
        held = active_policy.of_verdict(settings, verdict)
        assert held is not None and "baseline/rules.yaml" in held[1]
    assert active_policy.text_of(settings, "0" * 64, first.limits_sha256) is None
    again = published(settings, folder, 0)
    assert again.bundle_sha256 == packs[1].bundle_sha256
    assert len(list((settings.data / "policy" / "earlier").iterdir())) == 4, "the first, and three that were made"


async def test_an_own_pack_beside_the_one_that_it_extends_is_kept_whole(
    opened: Callable[[], House], layout: Layout, tmp_path: Path
) -> None:
    """Both were copied into one folder, where the second overwrote the first: what was kept did not load."""
    house = opened()
    await house.app.close()
    shutil.copytree(PACKS, tmp_path / "packs")
    (tmp_path / "packs" / "bundle.yaml").unlink()
    pack = load(tmp_path / "packs" / "gdpr")
    active_policy.keep(house.app.settings, pack)
    shutil.rmtree(tmp_path / "packs")
    assert active_policy.text_of(house.app.settings, pack.bundle_sha256, pack.limits_sha256) is not None
    own(layout)
    spoil(layout.root / "policies")
    assert active_policy.load(house.app.settings).pack.bundle_sha256 == pack.bundle_sha256


@pytest.mark.parametrize("folder", [PACKS, PACKS / "baseline", PACKS / "gdpr"])
def test_what_the_digests_are_of_is_read_without_compiling(folder: Path) -> None:
    pack = load(folder)
    rules, limits = texts(folder)
    assert (rules.sha256, limits.sha256) == (pack.bundle_sha256, pack.limits_sha256)
    assert policy_text.sha256_of_text(rules.encode()) == pack.bundle_sha256
    assert policy_text.sha256_of_text(limits.encode()) == pack.limits_sha256


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"{}", b'{"files":{},"more":[]}', b'{"files":{"units":1},"more":{"units":1}}', b'{"files":{} }'],
)
def test_a_text_of_another_shape_has_no_digest(text: bytes) -> None:
    with pytest.raises(InvalidInputError):
        policy_text.sha256_of_text(text)


@pytest.mark.parametrize("folder", [PACKS, PACKS / "baseline", PACKS / "gdpr"])
def test_a_copy_of_a_bundles_files_is_the_same_bundle(folder: Path, tmp_path: Path) -> None:
    pack = load(folder)
    root, files = active_policy.files_of(pack)
    for path, source in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        shutil.copy(source, tmp_path / path)
    copied = load(tmp_path / root)
    verdict = policy_pb2.Verdict(bundle_sha256=pack.bundle_sha256, limits_sha256=pack.limits_sha256)
    assert active_policy.is_of(copied, verdict)
    assert not active_policy.is_of(copied, policy_pb2.Verdict(bundle_sha256=pack.bundle_sha256))
