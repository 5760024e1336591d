"""Records that each hold by themselves and say different things of one job: forged by whoever holds the log's key."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest

from assay import canonical
from assay.digests import sha256_bytes
from audit.verify import verify_bundle
from tests.audit.ledger.ledger_world import ADAPTER, BASE, CARD, JOB, PLAN, START, TRAIN, Story, World, digest, subject
from tests.audit.verify.test_semantics import (
    DUTIES,
    EVIDENCE,
    PERMITS,
    ROLES,
    WORKERS,
    complaints,
    refused_and_appealed,
    until_approval,
    verify,
    waive,
)

AGREEMENT = "a job's records agree"
PASS, FAIL = {"outcome": "OUTCOME_PASS"}, {"outcome": "OUTCOME_FAIL"}
WAIVABLE = {"rule_id": "GATE-AUC", "outcome": "OUTCOME_FAIL", "waivable_by": "ROLE_VALIDATOR"}
FATAL = {"rule_id": "GATE-CANARY", "outcome": "OUTCOME_FAIL"}
OTHER = {"rule_id": "GATE-COST", "outcome": "OUTCOME_INCONCLUSIVE", "waivable_by": "ROLE_VALIDATOR"}
HELD = {"rule_id": "GATE-FAIR", "outcome": "OUTCOME_WARN"}


@pytest.mark.parametrize(
    ("to", "answer"),
    [
        ("AWAITING_APPROVAL", FAIL),
        ("AWAITING_APPROVAL", {"outcome": "OUTCOME_INCONCLUSIVE"}),
        ("AWAITING_APPROVAL", {"outcome": 1}),
        ("AWAITING_APPROVAL", {**PASS, "outcomes": [HELD, FATAL]}),
        ("AWAITING_APPROVAL", {**PASS, "outcomes": [{"rule_id": "GATE-CANARY"}]}),
        ("AWAITING_APPROVAL", {**PASS, "outcomes": "all is well"}),
        ("AWAITING_APPROVAL", {"outcomes": [FATAL]}),
        ("QUARANTINED", PASS),
    ],
)
def test_a_verdict_that_leads_elsewhere_than_it_says(world: World, to: str, answer: dict[str, object]) -> None:
    Story(world).found().ask().decide().train().audit(to, answer)
    assert complaints(world)[AGREEMENT].startswith("failed")


@pytest.mark.parametrize(
    ("to", "answer"), [("AWAITING_APPROVAL", {**PASS, "outcomes": [HELD]}), ("QUARANTINED", FAIL), ("QUARANTINED", {})]
)
def test_a_verdict_that_leads_where_it_says(world: World, to: str, answer: dict[str, object]) -> None:
    Story(world).found().ask().decide().train().audit(to, answer)
    assert complaints(world) == {}


@pytest.mark.parametrize(
    ("allowed", "answer"),
    [
        (True, {"allowed": False}),
        (True, {"allowed": "true"}),
        (True, {"outcomes": [FATAL]}),
        (False, {"allowed": True}),
    ],
)
def test_a_decision_that_leads_elsewhere_than_it_says(world: World, allowed: bool, answer: dict[str, object]) -> None:
    Story(world).found().ask().decide(allowed, answer)
    assert complaints(world)[AGREEMENT].startswith("failed")


def test_a_verdict_without_an_outcome_is_said_not_to_be_checked(world: World) -> None:
    """As the golden record: what a first record of the type left out does not make an old log invalid."""
    story = Story(world).found().ask().decide().train().audit()
    report = verify(world)
    said = [line for line in report.not_checked if "its outcome" in line]
    assert report.verdict == "valid" and len(said) == 1
    assert said[0].endswith(f"in records {story.indices['release.decided']}")


def quarantined(world: World, *fired: dict[str, Any]) -> Story:
    """A job that these rules stand against."""
    return Story(world).found().ask().decide().train().audit("QUARANTINED", {**FAIL, "outcomes": list(fired)})


@pytest.mark.parametrize("left", [FATAL, OTHER, {"rule_id": "GATE-COST"}], ids=lambda left: left["rule_id"])
def test_a_waiver_of_one_rule_carries_over_no_other(world: World, left: dict[str, Any]) -> None:
    story = quarantined(world, WAIVABLE, HELD, left)
    waive(story, "vik", ["GATE-AUC"])
    story.record("job.waived", "transition", to="AWAITING_APPROVAL", actor=subject("vik"))
    found = complaints(world)
    assert f"would still be refused by {left['rule_id']}" in found[ROLES]
    assert "no valid rules.waived" in found[DUTIES]


def test_a_rule_that_nobody_may_waive(world: World) -> None:
    waive(quarantined(world, WAIVABLE, FATAL), "vik", ["GATE-AUC", "GATE-CANARY"])
    assert "GATE-CANARY did not fire or cannot be waived" in complaints(world)[ROLES]


def test_a_waiver_of_all_that_fired_is_valid(world: World) -> None:
    story = quarantined(world, WAIVABLE, HELD, OTHER)
    waive(story, "vik", ["GATE-AUC", "GATE-COST"])
    story.record("job.waived", "transition", to="AWAITING_APPROVAL", actor=subject("vik"))
    story.card().release()
    assert complaints(world) == {}


@pytest.mark.parametrize("others", [(), ("rita",)], ids=["alone", "and somebody after"])
def test_who_appealed_grants_the_appeal_by_a_waiver(world: World, others: tuple[str, ...]) -> None:
    story = refused_and_appealed(world, "cora")
    for filer in others:
        story.record("appeal.filed", "appeal", {"grounds_commitment": digest("g")}, to="DENIED", actor=subject(filer))
    waive(story, "cora", ["BASE-ROWS"])
    assert "who filed the appeal" in complaints(world)[DUTIES]


def test_an_appeal_that_another_grants_by_a_waiver_is_valid(world: World) -> None:
    story = refused_and_appealed(world, "vik")
    waive(story, "cora", ["BASE-ROWS"])
    story.record("job.waived", "transition", to="QUEUED", actor=subject("cora"))
    assert complaints(world) == {}


@pytest.mark.parametrize(
    ("expires", "days", "what"),
    [
        ("2026-11-24", 0, ""),
        ("2026-12-04", 10, ""),
        ("2026-11-23", 0, "had expired"),
        ("when it suits", 0, "had expired"),
        ("2026-12-05", 10, "for 10 days at most"),
    ],
)
def test_how_long_a_waiver_lasts(world: World, expires: str, days: int, what: str) -> None:
    waive(quarantined(world, {**WAIVABLE, "waiver_days": days}), "vik", ["GATE-AUC"], expires=expires)
    assert what in complaints(world).get(ROLES, "")
    assert bool(what) == (ROLES in complaints(world))


@pytest.mark.parametrize("signed", [False, True], ids=["before the signatures", "after them"])
def test_a_waiver_that_ran_out(world: World, signed: bool) -> None:
    """When it has, nothing is signed and no permit is given any more."""
    story = quarantined(world, WAIVABLE)
    waive(story, "vik", ["GATE-AUC"], expires="2026-11-25")
    story.record("job.waived", "transition", to="AWAITING_APPROVAL", actor=subject("vik"))
    story.card()
    if signed:
        story.release()
        assert complaints(world) == {}
    world.clock.now += dt.timedelta(days=2)
    _ = story.issue_permit() if signed else story.release()
    assert "has expired" in complaints(world)[PERMITS if signed else ROLES]


def test_the_maker_may_withdraw_the_approval(world: World) -> None:
    """The gateway lets every compliance officer do so: it lets nothing pass."""
    grants = [*Story(world).grants, ("rita", "ROLE_COMPLIANCE_OFFICER", "credit")]
    story = Story(world, grants=grants).whole()
    revocation = {"job": story.job, "etag": story.etag, "reason": "misuse"}
    story.act("rita", "approval.revoked", "revocation", revocation)
    story.record("job.revoked", "transition", to="REVOKED", actor=subject("rita"))
    assert complaints(world) == {}


def test_an_approval_of_the_card_of_another_version(world: World) -> None:
    """What was rendered while the job was quarantined does not show the waiver."""
    story = quarantined(world, WAIVABLE)
    waive(story, "vik", ["GATE-AUC"])
    story.record("job.waived", "transition", to="AWAITING_APPROVAL", actor=subject("vik"))
    story.release()
    assert "not the one rendered of this version" in complaints(world)[EVIDENCE]


def test_an_approval_for_another_purpose(world: World) -> None:
    until_approval(world, approval_changes={"purpose": "lending"}).release()
    assert "its purpose" in complaints(world)[EVIDENCE]


@pytest.mark.parametrize(
    ("approved", "card", "what"),
    [
        (True, digest("another"), "not the rendered one"),
        (True, "", "not the rendered one"),
        (False, "", "while the job"),
    ],
)
def test_a_card_issued_that_is_not_the_approved_one(world: World, approved: bool, card: str, what: str) -> None:
    story = Story(world).whole() if approved else until_approval(world)
    said = {"card_sha256": card, "card_index": story.card_index, "pdf_sha256": digest("pdf"), "model": story.model}
    story.record("card.issued", "card", said)
    assert what in complaints(world)[EVIDENCE]


def test_a_card_of_another_adapter_than_was_trained(world: World) -> None:
    Story(world, card_subjects=[("adapter", ADAPTER)]).whole()
    assert complaints(world) == {}
    Story(world, job=f"{JOB}-2", card_subjects=[("adapter", digest("shown"))]).ask().decide().train().audit()
    assert "of another adapter than was trained" in complaints(world)[EVIDENCE]


def test_a_card_issued_of_another_adapter_than_was_trained(world: World) -> None:
    story = Story(world).whole()
    said = {"card_sha256": CARD, "card_index": story.card_index, "pdf_sha256": digest("pdf"), "model": story.model}
    story.record("card.issued", "card", said, [("adapter", digest("shown"))])
    assert "of another adapter than was trained" in complaints(world)[EVIDENCE]


@pytest.mark.parametrize("listed", [[1], [True], ["1"], "all of them", [[]]])
def test_a_card_issued_on_approvals_that_are_none(world: World, listed: object) -> None:
    story = Story(world).whole()
    said = {"card_sha256": CARD, "card_index": story.card_index, "pdf_sha256": digest("pdf"), "model": story.model}
    story.record("card.issued", "card", {**said, "approvals": listed})
    assert "approvals that are none" in complaints(world)[EVIDENCE]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"base_sha256": digest("x")}, "another base"),
        ({"purpose": "lending"}, "another purpose"),
        ({"creator": subject("mallory")}, "another creator"),
        ({"not_before": "2027-06-01T00:00:00Z", "not_after": "2027-06-01T12:00:00Z"}, "later than it was recorded"),
    ],
)
def test_a_permit_of_something_else_than_was_approved(world: World, changes: dict[str, str], what: str) -> None:
    Story(world).whole().issue_permit(**changes)
    assert what in complaints(world)[PERMITS]


def test_a_permit_after_the_approval_was_withdrawn(world: World) -> None:
    story = Story(world).whole()
    story.act("cora", "approval.revoked", "revocation", {"job": JOB, "etag": story.etag, "reason": "misuse"})
    story.record("job.revoked", "transition", to="REVOKED", actor=subject("cora"))
    story.issue_permit()
    assert "while the job is REVOKED" in complaints(world)[PERMITS]


def swapped_model(story: Story) -> None:
    story.train().audit(model="units/credit/models/another")


def swapped_plan(story: Story) -> None:
    story.train().audit(audit_plan_sha256=digest("an easier plan"))


def swapped_report(story: Story) -> None:
    story.train().audit(report_sha256=digest("another report"))


def swapped_base(story: Story) -> None:
    story.train(trained={"base_sha256": digest("another base")})


def no_audit(story: Story) -> None:
    story.train()
    said = {"model": story.model, "report_sha256": digest("report"), "verdict": PASS}
    story.record("release.decided", "verdict", said, to="AWAITING_APPROVAL")


def swapped_upload(story: Story) -> None:
    story.train({"dataset_sha256": digest("another upload")})


def swapped_base_before_the_order(story: Story) -> None:
    story.train({"base_sha256": digest("another base")})


def swapped_rows(story: Story) -> None:
    story.train({"train_sha256": digest("rows that nobody judged")})


def swapped_answer(story: Story) -> None:
    story.train({"decision_index": story.indices["job.received"]})


def no_answer(story: Story) -> None:
    story.train({"decision_index": [story.indices["intake.decided"]]})


@pytest.mark.parametrize(
    "tell",
    [
        swapped_model, swapped_plan, swapped_report, swapped_base, no_audit, swapped_upload, swapped_rows,
        swapped_base_before_the_order,
        swapped_answer, no_answer,
    ],
)  # fmt: skip
def test_a_record_about_something_else_than_those_before(world: World, tell: Callable[[Story], None]) -> None:
    tell(Story(world).found().ask().decide())
    assert complaints(world)[AGREEMENT].startswith("failed")


def test_another_plan_ordered_than_was_decided_on(world: World) -> None:
    story = Story(world).found().ask()
    said = {"decision": {"allowed": True}, "audit_plan_sha256": digest("a strict plan")}
    statement = story.service("audit-worker", "preparation", {"kind": "prepare"})
    story.record("intake.decided", "decision", {**said, "statement": statement}, to="QUEUED")
    story.train()
    assert "its audit plan" in complaints(world)[AGREEMENT]


def planned(world: World, plan: dict[str, Any], sha256: str | None = None) -> Story:
    """A job that was let train with this plan, under its own digest or ``sha256``; an empty one is left out."""
    story = Story(world, plan=sha256_bytes(canonical.encode(plan))).found().ask()
    named = story.plan if sha256 is None else sha256
    statement = story.service("audit-worker", "preparation", {"kind": "prepare"})
    said = {"decision": {"allowed": True}, "statement": statement, "audit_plan": plan}
    story.record("intake.decided", "decision", {**said, **({"audit_plan_sha256": named} if named else {})}, to="QUEUED")
    return story


@pytest.mark.parametrize(
    ("named", "ordered", "what"),
    [
        (None, "", ""),
        ("", "", ""),
        (digest("an easier plan"), "", "not that of the plan in it"),
        (digest("an easier plan"), digest("an easier plan"), "not that of the plan in it"),
        ("", digest("an easier plan"), "its audit plan is not the one"),
    ],
    ids=["its own", "none", "another", "another, ordered", "none, another ordered"],
)
def test_the_plan_that_a_decision_shows_is_the_one_whose_digest_is_ordered(
    world: World, named: str | None, ordered: str, what: str
) -> None:
    """Else the log would show strict gates, and bind the order to lax ones."""
    story = planned(world, {"profile": "quick", "seed": 7}, named)
    story.plan = ordered or story.plan
    story.train().audit()
    found = complaints(world)
    assert what in found.get(AGREEMENT, "") and bool(what) == bool(found)


@pytest.mark.parametrize(
    ("asked", "claimed", "what"),
    [
        ({"epsilon": "3.0", "delta": "1e-05", "unit": "row"}, {}, ""),
        ({}, None, ""),
        ({"epsilon": "3.0", "delta": "1e-05", "unit": "row"}, None, "PRIVACY_CLAIM"),
        ({}, {}, "PRIVACY_CLAIM"),
        ({"epsilon": "3.0", "delta": "1e-05", "unit": "row"}, {"delta": "0.5"}, "delta is 0.5"),
        ({"epsilon": "3.0", "delta": "1e-05", "unit": "user"}, {}, "another unit"),
        ({"epsilon": "3.0", "delta": "1e-05", "unit": "row"}, {"steps": 101}, "the epochs allow 100"),
        ({"epsilon": "3.0", "delta": "1e-05", "unit": "row"}, {"epsilon": []}, "cannot be read"),
    ],
)
def test_a_claim_of_another_differential_privacy_than_ordered(
    world: World, asked: dict[str, str], claimed: dict[str, object] | None, what: str
) -> None:
    """An epsilon at another delta than was asked for is no answer, however small it is."""
    story = Story(world).found().ask().decide()
    order = {
        "base_model": "tiny", "base_sha256": BASE, "audit_plan_sha256": PLAN, "max_train_tokens": 40_000,
        "hyperparameters": {"batch_size": 8, "epochs": "2.0"}, **({"differential_privacy": asked} if asked else {}),
    }  # fmt: skip
    envelope = story.service("permit", "work-order", order)
    story.record("training.ordered", "work-order", {**order, "envelope": envelope}, to="TRAINING")
    honest = {
        "unit": "row", "epsilon": "2.9", "delta": "1e-05", "noise_multiplier": "0.9", "sampling_rate": "0.02",
        "steps": 100,
    }  # fmt: skip
    claim = {} if claimed is None else {"differential_privacy": {**honest, **claimed}}
    statement = story.service("train-worker", "training", {"kind": "train", "claim": claim}, [("adapter", ADAPTER)])
    made = {"model": story.model, "adapter_sha256": ADAPTER, "base_sha256": BASE, "statement": statement}
    story.record("training.completed", "training", made, [("adapter", ADAPTER)], to="AUDITING")
    found = complaints(world)
    assert what in found.get(AGREEMENT, "") and bool(what) == bool(found)


@pytest.mark.parametrize(
    ("claim", "what"),
    [
        ({"adapter_sha256": ADAPTER, "plan_sha256": PLAN}, ""),
        ({}, ""),
        ({"adapter_sha256": digest("another adapter")}, "its statement's adapter_sha256"),
        ({"plan_sha256": digest("an easier plan")}, "its statement's plan_sha256"),
    ],
)
def test_an_audit_of_another_adapter_or_by_another_plan(world: World, claim: dict[str, str], what: str) -> None:
    """The report is not in a bundle; what it measured is, signed by who measured it."""
    story = Story(world).found().ask().decide().train()
    said = {"kind": "audit", "claim": claim}
    statement = story.service("audit-worker", "audit", said, [("report.json", digest("report"))])
    measured = {"measurements": [], "measurements_left_out": 0, "not_tested": [], "statement": statement}
    story.record("audit.completed", "audit", {"model": story.model, "report_sha256": digest("report"), **measured})
    found = complaints(world)
    assert what in found.get(AGREEMENT, "") and bool(what) == bool(found)


@pytest.mark.parametrize(("read", "valid"), [("a" * 64, True), ("b" * 64, False), ("", False)])
def test_an_audit_of_other_rows_than_the_preparation_committed_to(world: World, read: str, valid: bool) -> None:
    """Of two preparations of one job the gateway may have sent the kinder one."""
    story = Story(world).found().ask()
    prepared = {"kind": "prepare", "claim": {"private_commitment": "a" * 64}}
    statement = story.service("audit-worker", "preparation", prepared, [("train.jsonl", TRAIN)])
    said = {"decision": {"allowed": True, "outcomes": []}, "data_facts_sha256": digest("facts"), "statement": statement}
    story.record("intake.decided", "decision", said, to="QUEUED")
    story.train()
    claim = {"private_commitment": read} if read else {}
    measured = story.service("audit-worker", "audit", {"kind": "audit", "claim": claim}, [("report.json", digest("r"))])
    said = {"model": story.model, "report_sha256": digest("r"), "measurements": [], "measurements_left_out": 0}
    story.record("audit.completed", "audit", {**said, "not_tested": [], "statement": measured})
    assert (complaints(world) == {}) is valid
    assert valid or "other private rows" in complaints(world)[AGREEMENT]


def test_a_training_of_another_order_than_the_recorded_one(world: World) -> None:
    story = Story(world).found().ask().decide()
    subjects = [("adapter", ADAPTER)]
    said = {"kind": "train", "order_sha256": digest("another order")}
    story.train(trained={"statement": story.service("train-worker", "training", said, subjects)})
    assert "another order" in complaints(world)[AGREEMENT]


@pytest.mark.parametrize(("revealed", "valid"), [("committed", True), ("easier", False)])
def test_canaries_that_the_decision_had_not_committed_to(world: World, revealed: str, valid: bool) -> None:
    story = planned(world, {"canary_manifest_sha256": digest("committed")}).train()
    subjects = [("report.json", digest("report")), ("canaries.json", digest(revealed))]
    statement = story.service("audit-worker", "audit", {"kind": "audit"}, subjects)
    measured = {"measurements": [], "measurements_left_out": 0, "not_tested": [], "statement": statement}
    story.record("audit.completed", "audit", {"model": story.model, "report_sha256": digest("report"), **measured})
    assert (complaints(world) == {}) is valid
    assert valid or "the canaries it reveals" in complaints(world)[AGREEMENT]


@pytest.mark.parametrize(
    ("ordered", "trained", "what"),
    [
        ({"max_train_tokens": 1}, None, "work-order"),
        (None, {"adapter_sha256": digest("another")}, "training"),
    ],
)
def test_a_record_that_says_other_things_than_the_statement_in_it(
    world: World, ordered: dict[str, object] | None, trained: dict[str, object] | None, what: str
) -> None:
    Story(world).found().ask().decide().train(ordered, trained)
    assert f"other things than the {what} statement" in complaints(world)[WORKERS]


def test_an_audit_of_a_report_that_the_worker_did_not_sign(world: World) -> None:
    story = Story(world).found().ask().decide().train()
    statement = story.service("audit-worker", "audit", {"kind": "audit"}, [("report.json", digest("report"))])
    story.record("audit.completed", "audit", {"report_sha256": digest("a better one"), "statement": statement})
    assert "other things than the audit statement" in complaints(world)[WORKERS]


def test_what_is_left_out_of_a_selection_is_missing_and_not_false(world: World) -> None:
    """The verdict rests on an audit that somebody chose not to show."""
    story = Story(world).whole()
    left = story.indices["audit.completed"]
    path = world.folder / "bundle.zip"
    path.write_bytes(world.export(indices=[i for i in range(world.ledger.size) if i != left]))
    report = verify_bundle(path, world.trust, START)
    said = [(c.name, c.outcome) for c in report.checks if c.outcome != "passed"]
    assert report.verdict == "incomplete" and (AGREEMENT, "missing") in said
