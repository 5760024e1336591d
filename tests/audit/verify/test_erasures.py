"""Erasures as the stand-alone verifier sees them: a signed order first, payloads that open, and nothing undead."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from audit.ledger.commitment import Opening
from audit.ledger.records import RecordDraft
from audit.verify.erasures import PAYLOADS
from audit.verify.findings import DUTIES, ERASURES, ROLES, SIGNATURES
from audit.verify.report import Report
from audit.verify.verifier import verify_bytes
from tests.audit.ledger.ledger_world import GATEWAY, START, Story, World, subject

DATASET = "units/credit/datasets/d"
GROUNDS = Opening(bytes(range(32)), b"row 17 is Mrs Doe")
COMMITMENT = GROUNDS.commitment()


def told(world: World) -> Story:
    story = Story(world).found().ask().decide(allowed=False)
    story.record("appeal.filed", "appeal", {"grounds_commitment": COMMITMENT}, to="DENIED", actor=subject("rita"))
    return story


def order(story: Story, who: str = "cora", resource: str = "") -> int:
    predicate = {"resource": resource or story.job, "reason_code": "data-subject-request", "order_id": "0" * 32}
    return story.act(who, "erasure.ordered", "erasure-order", predicate)


def execute(story: Story, index: int, **changes: Any) -> None:
    predicate = {
        "resource": story.job, "reason_code": "data-subject-request", "order_index": index,
        "commitments": [COMMITMENT], "commitments_left_out": 0, "payloads": 1, "blobs": 0, "affected_models": [],
        "actor": GATEWAY, "trace_id": "", **changes,
    }  # fmt: skip
    story.world.append(RecordDraft(story.unit, "erasure.executed", "erasure", predicate))


def verified(world: World, payload: bytes = b"") -> Report:
    bundle = world.export(disclose=lambda commitment: payload)
    return verify_bytes(bundle, world.trust, START)


def outcomes(report: Report, name: str) -> list[tuple[str, str]]:
    return [(c.outcome, c.detail) for c in report.checks if c.name == name]


def test_an_erased_payload_is_said_to_be_erased_and_everything_holds(world: World) -> None:
    story = told(world)
    execute(story, order(story))
    report = verified(world)
    assert report.verdict == "valid", report.checks
    assert outcomes(report, PAYLOADS) == [("passed", "0 open their commitments, 1 erased, 0 not disclosed")]
    assert any(text.startswith("payload erased") for text in report.not_checked)


def test_a_disclosed_payload_opens_its_commitment(world: World) -> None:
    told(world)
    report = verified(world, GROUNDS.salt + GROUNDS.payload)
    assert report.verdict == "valid"
    assert outcomes(report, PAYLOADS) == [("passed", "1 open their commitments, 0 erased, 0 not disclosed")]


def test_a_payload_kept_back_is_counted(world: World) -> None:
    told(world)
    assert outcomes(verified(world), PAYLOADS)[0][1].endswith("1 not disclosed")


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (GROUNDS.salt + b"row 17 is Mr Roe", "COMMITMENT_MISMATCH"),
        (bytes(32) + GROUNDS.payload, "COMMITMENT_MISMATCH"),
        (GROUNDS.payload, "COMMITMENT_SALT"),
    ],
    ids=["payload", "salt", "no salt"],
)
def test_a_payload_that_does_not_open_fails_the_bundle(world: World, payload: bytes, reason: str) -> None:
    told(world)
    report = verified(world, payload)
    assert report.verdict == "invalid" and reason in report.checks[0].detail


def test_attack_40_an_erased_payload_that_is_still_shown_is_invalid(world: World) -> None:
    story = told(world)
    execute(story, order(story))
    report = verified(world, GROUNDS.salt + GROUNDS.payload)
    assert report.verdict == "invalid" and "was erased is here" in outcomes(report, PAYLOADS)[0][1]


@pytest.mark.parametrize(
    "changes", [{"order_index": 0}, {"order_index": 10_000}, {"order_index": "1"}, {"resource": DATASET}], ids=str
)
def test_an_erasure_that_nobody_ordered_is_invalid(world: World, changes: dict[str, Any]) -> None:
    story = told(world)
    execute(story, order(story), **changes)
    report = verified(world)
    assert report.verdict == "invalid" and "nobody ordered it" in outcomes(report, ERASURES)[0][1]


@pytest.mark.parametrize("who", ["rita", "vik", "mallory"])
def test_an_order_of_somebody_without_the_role_is_invalid(world: World, who: str) -> None:
    story = told(world)
    execute(story, order(story, who))
    report = verified(world)
    assert report.verdict == "invalid" and "did not hold" in outcomes(report, ROLES)[0][1]


def test_an_order_about_a_job_whose_reasons_carry_a_model_is_invalid(world: World) -> None:
    order(Story(world).whole())
    report = verified(world)
    assert report.verdict == "invalid" and "while the job is APPROVED" in outcomes(report, ERASURES)[0][1]


def test_an_order_of_somebody_who_signed_in_the_job_is_invalid(world: World) -> None:
    story = Story(world).whole()
    story.act("cora", "approval.revoked", "revocation", {"job": story.job, "etag": story.etag, "reason": "defect"})
    story.record("job.revoked", "transition", to="REVOKED", actor=subject("cora"))
    order(story)
    assert "who signed in the job" in outcomes(verified(world), DUTIES)[0][1]


def test_an_order_about_another_units_resource_is_invalid(world: World) -> None:
    story = told(world)
    order(story, resource="units/claims/datasets/d")
    assert "another unit" in outcomes(verified(world), ERASURES)[0][1]


def test_attack_26_an_order_that_the_gateway_invented_is_invalid(world: World) -> None:
    story = told(world)
    real = world.people["cora"].sign("erasure-order", {"resource": DATASET, "reason_code": "x", "order_id": "1" * 32})
    wanted = {"resource": story.job, "reason_code": "x", "order_id": "1" * 32}
    forged = {**world.people["cora"].sign("erasure-order", wanted), "signatures": real["signatures"]}
    world.append(RecordDraft("credit", "erasure.ordered", "erasure-order", {}, envelope=forged))
    report = verified(world)
    assert report.verdict == "invalid" and outcomes(report, SIGNATURES)[0][0] == "failed"


def kept(story: Story, days: object, dataset: str = DATASET) -> int:
    """A dataset whose datasheet names so many days; returns its record's index."""
    predicate = {
        "dataset": dataset, "format": "DATASET_FORMAT_CHAT_JSONL", "datasheet": {"retention_days": days},
        "sha256": "5e" * 32, "size_bytes": 7,
    }  # fmt: skip
    return story.record("dataset.created", "dataset", predicate, [("dataset", "5e" * 32)])


def ended(story: Story, index: int, **changes: Any) -> None:
    values = {"resource": DATASET, "reason_code": "retention-ended", "commitments": [], "payloads": 0, **changes}
    execute(story, index, **values)


def test_a_retention_that_is_over_needs_no_order(world: World) -> None:
    story = told(world)
    index = kept(story, 30)
    world.clock.now += timedelta(days=30)
    ended(story, index)
    report = verified(world)
    assert report.verdict == "valid", report.checks


@pytest.mark.parametrize(
    ("days", "after", "changes"),
    [
        (30, timedelta(days=30) - timedelta(seconds=1), {}),
        (0, timedelta(days=400), {}),
        (None, timedelta(days=400), {}),
        ("30", timedelta(days=400), {}),
        (10**9, timedelta(days=400), {}),
        (30, timedelta(days=400), {"resource": "units/credit/datasets/other"}),
        (30, timedelta(days=400), {"reason_code": "data-subject-request"}),
    ],
    ids=str,
)
def test_an_erasure_before_the_end_of_the_retention_is_invalid(
    world: World, days: object, after: timedelta, changes: dict[str, Any]
) -> None:
    story = told(world)
    index = kept(story, days)
    world.clock.now += after
    ended(story, index, **changes)
    report = verified(world)
    assert report.verdict == "invalid" and "nobody ordered it" in outcomes(report, ERASURES)[0][1]
