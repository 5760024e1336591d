"""One golden record a type: the bytes are law. ``PYTHONPATH=. python FILE`` writes them anew."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from assay import dsse
from audit.ledger import records
from audit.ledger.records import TYPES
from tests.audit.ledger.ledger_world import START, Story, World, subject

GOLDEN = Path(__file__).parents[2] / "data/vectors/records"


def stories(folder: Path) -> dict[str, bytes]:
    """Tells stories that leave a record of every type; returns the first body of each."""
    world = World(folder).start()
    try:
        Story(world).whole()
        tell_refusals(world)
        stored = world.ledger.records(limit=1000)
    finally:
        world.close()
    first: dict[str, bytes] = {}
    for record in stored:
        first.setdefault(record.type, record.body)
    return first


def tell_refusals(world: World) -> None:
    """Everything that the happy story lacks."""
    paused = Story(world, job="units/credit/tuningJobs/paused", version=0)
    paused.ask().decide()
    paused.record("job.paused", "transition", to="PAUSED")
    paused.record("job.resumed", "transition", to="QUEUED")
    paused.record("job.cancelled", "transition", to="CANCELLED")
    failed = Story(world, job="units/credit/tuningJobs/failed").ask()
    failed.record("job.failed", "transition", to="FAILED")
    denied = Story(world, job="units/credit/tuningJobs/denied").ask().decide(allowed=False)
    denied.record("appeal.filed", "appeal", {"grounds": "typo"}, to="DENIED", actor=subject("rita"))
    waiver = {
        "job": denied.job,
        "etag": denied.etag,
        "rules": ["BASE-ROWS"],
        "reason": "pilot",
        "compensating_control": "internal use",
        "expires": "2026-12-31",
    }
    denied.act("cora", "rules.waived", "waiver", waiver)
    denied.record("job.waived", "transition", to="QUEUED", actor=subject("cora"))
    rejected = Story(world, job="units/credit/tuningJobs/rejected").ask().decide().train().audit()
    rejected.approve("vik", "ROLE_VALIDATOR", "refuse")
    rejected.record("job.rejected", "transition", to="REJECTED", actor=subject("vik"))
    revoked = Story(world, job="units/credit/tuningJobs/revoked").ask().decide().train().audit().release()
    revocation = {"job": revoked.job, "etag": revoked.etag, "reason": "incident"}
    revoked.act("cora", "approval.revoked", "revocation", revocation)
    revoked.record("permit.revoked", "permit-revocation", {"permit": "units/credit/permits/p1", "reason": "incident"})
    revoked.record("job.revoked", "transition", to="REVOKED", actor=subject("cora"))
    expired = Story(world, job="units/credit/tuningJobs/expired").ask().decide().train().audit().release()
    expired.record("job.expired", "transition", to="EXPIRED")
    expired.record("request.refused", "refusal", {"method": "X", "code": "NOT_FOUND"}, unit="system")
    expired.revoke_grant("dana-deployer")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return stories(tmp_path_factory.mktemp("golden"))


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_golden_record(kind: str, made: dict[str, bytes]) -> None:
    golden = (GOLDEN / f"{kind}.json").read_bytes()
    assert made[kind] == golden
    assert records.read(golden).type == kind


def test_no_golden_file_without_a_type() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(TYPES)


def test_signed_golden_records_still_verify(tmp_path: Path) -> None:
    world = World(tmp_path)
    for kind, rule in TYPES.items():
        if rule.signed:
            record = records.read((GOLDEN / f"{kind}.json").read_bytes())
            assert dsse.verify_person(record.envelope(), world.root[1], START).signers
    world.close()


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, body in stories(Path(folder)).items():
            (GOLDEN / f"{name}.json").write_bytes(body)
