"""Every flipped byte of a bundle changes the verdict, or lies in the README inside it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from audit.ledger import evidence
from audit.verify.trust import TrustFile
from audit.verify.verifier import verify_bytes
from tests.audit.ledger.ledger_world import CARD_JSON, START, Story, World
from tests.audit.verify.sweep import Sweep, sweep


@pytest.fixture(scope="module", params=["valid", "incomplete"])
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, TrustFile]:
    """Two bundles of at most 30 kB: a whole valid log of grants; and a selection with every kind of file in it."""
    world = World(tmp_path_factory.mktemp("small")).start()
    if request.param == "valid":
        Story(world).found()
        data = world.export()
    else:
        story = Story(world).whole()
        kinds = ("card.rendered", "approval.decided", "card.issued")
        grants = [r.index for r in world.ledger.records() if r.type == "grant.issued"][:2]
        indices = [0, *grants, *(story.indices[k] for k in kinds)]
        data = world.export(indices=indices, attachments={"card.json": CARD_JSON})
    trust = world.trust
    world.close()
    assert verify_bytes(data, trust, START).verdict == request.param
    return data, trust


def report(out: Sweep) -> None:
    print(f"{out.flips} flips at {out.positions} of {out.size} bytes: {out.seen} seen, {out.readme} in the README only")
    assert out.unseen == []
    assert out.seen + out.readme == out.flips > 0


def test_the_small_bundles_are_what_they_should_be(small: tuple[bytes, TrustFile]) -> None:
    files = evidence.read_zip(small[0])
    assert len(small[0]) <= 30_000
    folders = {path.partition("/")[0] for path in files}
    assert folders >= {"records", "proofs", "dsse", "checkpoint", "manifest.json"}
    selected = b'"scope":"selection"' in files["manifest.json"]
    assert selected == (folders >= {"consistency", "attachments"})


def test_sampled_over_the_small_bundle(small: tuple[bytes, TrustFile]) -> None:
    report(sweep(*small, START, random.Random(3).sample(range(len(small[0])), 300)))


def test_bytes_all_over_one_record(told: tuple[bytes, TrustFile, Path]) -> None:
    data, trust, _ = told
    body = evidence.read_zip(data)["records/8.json"]
    begin = data.index(body)
    report(sweep(data, trust, START, range(begin, begin + len(body), 3)))


def test_sampled_over_the_whole_story(told: tuple[bytes, TrustFile, Path]) -> None:
    data, trust, _ = told
    report(sweep(data, trust, START, random.Random(4).sample(range(len(data)), 150)))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_exhaustive_over_the_small_bundle(small: tuple[bytes, TrustFile]) -> None:
    report(sweep(*small, START))


def test_a_sweep_sees_a_verifier_that_looks_away(
    small: tuple[bytes, TrustFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep itself: were the bundle not rebuilt and compared, flips would go unseen."""
    from audit.verify import archive

    monkeypatch.setattr(archive._Comparing, "identical", property(lambda self: True))
    out = sweep(*small, START, range(len(small[0]) - 150, len(small[0])))
    assert out.unseen
