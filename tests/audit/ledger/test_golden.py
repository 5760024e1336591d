"""One golden record a type: the bytes are law. ``PYTHONPATH=. python FILE`` writes them anew."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from assay import canonical, dsse
from assay.errors import InvalidInputError
from audit.ledger import records
from audit.ledger.commitment import Opening
from audit.ledger.note import Checkpoint
from audit.ledger.records import TYPES
from tests.audit.ledger import ledger_world
from tests.audit.ledger.ledger_world import ADAPTER, GATEWAY, ORIGIN, START, World, refused, subject
from tests.audit.ledger.record_schemas import SCHEMAS, schema_faults

GOLDEN = Path(__file__).parents[2] / "data/vectors/records"
# These stories are older than the duty of a card's record to name its adapter, and their bytes never move.
Story = partial(ledger_world.Story, card_subjects=())


def chapters() -> dict[str, Callable[[World], None]]:
    """By name; each has a log of its own, since what stands in a golden file never moves."""
    return {
        "jobs": tell_jobs, "keys": tell_keys, "budgets": tell_budgets, "replays": tell_replays, "appeals": tell_appeals,
    }  # fmt: skip


def stories(folder: Path) -> dict[str, bytes]:
    """Tells stories that leave a record of every type; returns the first body of each."""
    first: dict[str, bytes] = {}
    for start, (name, tell) in enumerate(chapters().items()):
        (folder / name).mkdir()
        world = World(folder / name)
        world.nonces.count = 1000 * start
        world.start()
        try:
            tell(world)
            stored = world.ledger.records(limit=1000)
        finally:
            world.close()
        for record in stored:
            first.setdefault(record.type, record.body)
    return first


def tell_jobs(world: World) -> None:
    """A job that is released, then everything else that can become of one."""
    Story(world).whole()
    tell_refusals(world)


def tell_keys(world: World) -> None:
    """A key that follows another, and one that was stolen."""
    story = Story(world).found()
    story.rotate_key("permit", "permit 2")
    story.compromise("audit-worker", 1)


def tell_budgets(world: World) -> None:
    """A job that spent its money and was given more."""
    capped = Story(world).found().ask().decide()
    capped.record("job.paused", "transition", to="PAUSED", reason="COST_CAP: the budget of this job is spent")
    words = Opening(bytes(32), b"quote was too low").commitment()
    bound = {"job": capped.job, "etag": capped.etag, "max_usd_micros": 2_000_000, "reason_commitment": words}
    index = capped.act("cora", "budget.raised", "budget-raise", bound)
    raised = {"raise_index": index, "max_usd_micros": 2_000_000, "reason_commitment": words}
    capped.record("job.resumed", "transition", raised, to="QUEUED", actor=subject("cora"))


def tell_replays(world: World) -> None:
    """A run that was done again, and gave the same adapter."""
    story = Story(world).found().ask().decide().train()
    statement = story.service(story.train_key, "training", {"kind": "train"}, [("adapter", ADAPTER)])
    predicate = {
        "number": 1,
        "verdict": "REPRODUCED",
        "reason": "",
        "training_index": story.indices["training.completed"],
        "adapter_sha256": ADAPTER,
        "replayed_sha256": ADAPTER,
        "differences": [{"name": "package torch", "recorded": "2.13.0", "now": "2.14.0"}],
        "validation_loss": "1.5",
        "replayed_validation_loss": "1.5",
        "statement": statement,
    }
    story.record("training.replayed", "replay", predicate, [("adapter", ADAPTER)], actor=subject("vera"))


def tell_appeals(world: World) -> None:
    """A denial that was appealed against in vain."""
    denied = Story(world).found().ask().decide(allowed=False)
    grounds = {"grounds_commitment": Opening(bytes(32), b"typo").commitment()}
    denied.record("appeal.filed", "appeal", grounds, to="DENIED", actor=subject("rita"))
    said = {"reason_commitment": Opening(bytes(32), b"the rows were not mended").commitment()}
    index = denied.act("cora", "appeal.dismissed", "appeal-dismissal", {"job": denied.job, "etag": denied.etag, **said})
    answered = {"dismissal_index": index, **said}
    denied.record("appeal.answered", "transition", answered, to="DENIED", actor=subject("cora"))


def tell_refusals(world: World) -> None:
    """Everything that the happy story lacks."""
    paused = Story(world, job="units/credit/tuningJobs/paused", version=0)
    paused.ask().decide()
    paused.record("job.paused", "transition", to="PAUSED")
    paused.record("job.resumed", "transition", to="QUEUED")
    words = {"reason_commitment": Opening(bytes(32), b"not needed").commitment()}
    paused.record("job.cancelled", "transition", words, to="CANCELLED", actor=subject("rita"))
    failed = Story(world, job="units/credit/tuningJobs/failed").ask()
    failed.record("job.failed", "transition", to="FAILED")
    denied = Story(world, job="units/credit/tuningJobs/denied").ask().decide(allowed=False)
    denied.record(
        "appeal.filed",
        "appeal",
        {"grounds_commitment": Opening(bytes(32), b"typo").commitment()},
        to="DENIED",
        actor=subject("rita"),
    )
    waiver = {
        "job": denied.job,
        "etag": denied.etag,
        "rules": ["BASE-ROWS"],
        "reason_commitment": Opening(bytes(32), b"pilot").commitment(),
        "compensating_control_commitment": Opening(bytes(32), b"internal use").commitment(),
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
    dataset = "units/credit/datasets/d"
    order = {"resource": dataset, "reason_code": "retention-ended", "order_id": "0" * 32}
    index = expired.act("cora", "erasure.ordered", "erasure-order", order)
    erased = {"resource": dataset, "reason_code": "retention-ended", "order_index": index, "commitments": []}
    counts = {"commitments_left_out": 0, "payloads": 0, "blobs": 5, "affected_models": [expired.model]}
    content = {**erased, **counts, "actor": GATEWAY, "trace_id": ""}
    world.append(records.RecordDraft("credit", "erasure.executed", "erasure", content))
    refusal = {"method": "X", "code": "NOT_FOUND", "reason": "NOT_FOUND", "fields": [], "surplus": 0}
    expired.record("request.refused", "refusal", refusal, unit="system")
    expired.revoke_grant("dana-deployer")
    old = {"origin": ORIGIN, "previous_origin": "assay.local/old", "size": 7, "root": "0a" * 32}
    text = Checkpoint("assay.local/old", 7, bytes.fromhex("0a" * 32)).text()
    expired.act("oscar", "log.continued", "log-continuation", {**old, "checkpoint": text}, unit="system")
    ended = {"origin": ORIGIN, "reason_code": "retired", "order_id": "1" * 32}
    expired.act("oscar", "log.frozen", "freeze", ended, unit="system")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return stories(tmp_path_factory.mktemp("golden"))


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_golden_record(kind: str, made: dict[str, bytes]) -> None:
    golden = (GOLDEN / f"{kind}.json").read_bytes()
    assert made[kind] == golden
    assert records.read(golden).type == kind
    assert schema_faults(golden) == []


def test_every_type_has_a_golden_file_and_a_schema_and_nothing_else_has() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(TYPES)
    assert set(SCHEMAS) == {f"{rule.predicate}.v1" for rule in TYPES.values()} | {"common.v1", "record.v1"}


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_schemas_are_draft_2020_12_and_closed(name: str) -> None:
    schema = SCHEMAS[name]
    Draft202012Validator.check_schema(schema)
    assert schema["$id"] == f"https://assay.dev/schemas/{name}.json"
    assert name == "common.v1" or schema["additionalProperties"] is False


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_schemas_refuse_a_member_more_and_a_member_less(kind: str) -> None:
    golden = (GOLDEN / f"{kind}.json").read_bytes()
    record = canonical.decode(golden)
    required = SCHEMAS[f"{TYPES[kind].predicate}.v1"]["required"]
    assert required
    for name in required:
        less = canonical.decode(golden)
        del less["statement"]["predicate"][name]
        assert schema_faults(canonical.encode(less)), name
    record["statement"]["predicate"]["another"] = 1
    assert schema_faults(canonical.encode(record))
    for name in canonical.decode(golden):
        less = canonical.decode(golden)
        del less[name]
        assert schema_faults(canonical.encode(less)), name


def test_attack_44_downgraded_records_are_refused(made: dict[str, bytes]) -> None:
    """Record v0, another predicate version, an unknown predicate: neither reader nor schema takes them."""
    for old, new in (
        (b'"v":1}', b'"v":0}'),
        (b'"v":1}', b'"v":2}'),
        (b"/predicate/permit/v1", b"/predicate/permit/v0"),
        (b"/predicate/permit/v1", b"/predicate/permit/v2"),
        (b"/predicate/permit/v1", b"/predicate/licence/v1"),
        (b'"permit.issued"', b'"permit.granted"'),
    ):
        body = made["permit.issued"].replace(old, new)
        assert body != made["permit.issued"]
        with pytest.raises(InvalidInputError) as caught:
            records.read(body)
        assert caught.value.reason in ("RECORD_MALFORMED", "STATEMENT_MALFORMED")
        assert schema_faults(body)


def test_attack_29_no_two_records_share_a_nonce(made: dict[str, bytes]) -> None:
    nonces = {records.read(body).nonce for body in made.values()}
    assert len(nonces) == len(made)


def test_attack_42_control_characters_in_names_are_refused(made: dict[str, bytes]) -> None:
    """A name that could forge a log line or drive a terminal fits neither reader nor schema."""
    job = b"units/credit/tuningJobs/replies"
    for bad in (rb"\n", rb"\u001b[2J", rb"\u0000", b"x" * 100):
        body = made["permit.issued"].replace(job, job + bad)
        assert schema_faults(body)
    draft = records.RecordDraft("credit", "job.preparing", "transition", {"job": "units/credit/tuningJobs/a\nb"})
    place = records.Place("assay.local/log", 1, None, START, "0" * 32)
    refused("RECORD_MALFORMED", lambda: records.encode(draft, place))


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
