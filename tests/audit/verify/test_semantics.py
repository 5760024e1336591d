"""Stories that went wrong: each bundle is genuine, signed by the log's own key, and yet its verdict is not valid."""

from __future__ import annotations

import datetime as dt
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assay import canonical, dsse
from assay.errors import AssayError
from audit.ledger.commitment import Opening
from audit.ledger.records import RecordDraft
from audit.verify import Report, verify_bundle
from audit.verify.edges import EDGES
from audit.verify.people import Grant, Roles
from tests.audit.ledger.ledger_world import (
    ADAPTER,
    DATASET,
    JOB,
    ORIGIN,
    START,
    Person,
    Story,
    World,
    authority,
    digest,
    p256,
    person_certificate,
    subject,
)
from tests.audit.ledger.test_golden import tell_refusals


def verify(world: World) -> Report:
    path = world.folder / "bundle.zip"
    path.write_bytes(world.export())
    return verify_bundle(path, world.trust, START)


def complaints(world: World) -> dict[str, str]:
    """First complaint of each check."""
    found: dict[str, str] = {}
    for check in verify(world).checks:
        if check.outcome != "passed":
            found.setdefault(check.name, f"{check.outcome}: {check.detail}")
    return found


def until_approval(world: World, **changes: object) -> Story:
    return Story(world, **changes).found().ask().decide().train().audit()  # type: ignore[arg-type]


def test_every_lawful_ending_is_valid(world: World) -> None:
    Story(world).whole()
    tell_refusals(world)
    assert complaints(world) == {}


def test_waived_quarantine_is_valid(world: World) -> None:
    story = Story(world).found().ask().decide().train().audit(to="QUARANTINED")
    waive(story, "vik", ["GATE-AUC"])
    story.record("job.waived", "transition", to="AWAITING_APPROVAL")
    card = {"card_sha256": digest("second card")}
    story.record("card.rendered", "card", card)
    assert complaints(world) == {}


def waive(story: Story, who: str, rules: list[str], etag: str = "", expires: str = "2026-12-31") -> None:
    waiver = {
        "job": story.job,
        "etag": etag or story.etag,
        "rules": rules,
        "reason_commitment": Opening(bytes(32), b"pilot").commitment(),
        "compensating_control_commitment": Opening(bytes(32), b"internal").commitment(),
        "expires": expires,
    }
    story.act(who, "rules.waived", "waiver", waiver)


DUTIES, ROLES, EVIDENCE = "separation of duties", "roles held when signing", "approvals bind card and evidence"
SIGNATURES, TRANSITIONS = "people's signatures", "transitions of jobs"
END = "a frozen log has ended"
WORKERS, PERMITS = "workers' statements", "permits"


def test_attack_23_the_maker_approves(world: World) -> None:
    grants = [*Story(world).grants, ("rita", "ROLE_VALIDATOR", "credit")]
    Story(world, grants=grants, approvers=[("cora", "ROLE_COMPLIANCE_OFFICER"), ("rita", "ROLE_VALIDATOR")]).whole()
    found = complaints(world)
    assert "maker" in found[DUTIES] and found[DUTIES].startswith("failed")


def test_attack_25_one_person_in_two_roles(world: World) -> None:
    grants = [*Story(world).grants, ("cora", "ROLE_VALIDATOR", "credit")]
    Story(world, grants=grants, approvers=[("cora", "ROLE_COMPLIANCE_OFFICER"), ("cora", "ROLE_VALIDATOR")]).whole()
    assert "decided on this version already" in complaints(world)[DUTIES]


def test_attack_25_one_key_under_two_names(world: World) -> None:
    """A second certificate for the same key does not make a second person."""
    key = world.people["cora"].key
    world.people["vik"] = Person("vik", key, person_certificate(key, [subject("vik")], world.root))
    Story(world).whole()
    assert "person or key" in complaints(world)[DUTIES]


def test_one_signature_is_no_quorum(world: World) -> None:
    Story(world, approvers=[("cora", "ROLE_COMPLIANCE_OFFICER")]).whole()
    assert "no two people" in complaints(world)[DUTIES]


def test_two_of_one_role_are_no_quorum(world: World) -> None:
    grants = [*Story(world).grants, ("mallory", "ROLE_COMPLIANCE_OFFICER", "credit")]
    approvers = [("cora", "ROLE_COMPLIANCE_OFFICER"), ("mallory", "ROLE_COMPLIANCE_OFFICER")]
    Story(world, grants=grants, approvers=approvers).whole()
    assert "no two people" in complaints(world)[DUTIES]


def test_approved_over_a_refusal(world: World) -> None:
    story = until_approval(world)
    story.approve("cora", "ROLE_COMPLIANCE_OFFICER", "refuse")
    story.approvers = [("vik", "ROLE_VALIDATOR")]
    story.release()
    assert "not all grants" in complaints(world)[DUTIES]


def appealed(world: World, *approvers: tuple[str, str], filer: str = "rita") -> Story:
    """A job that cora refused, whose maker appealed, and that others then decide on with a card of its own."""
    grants = [*Story(world).grants, ("mallory", "ROLE_COMPLIANCE_OFFICER", "credit")]
    story = until_approval(world, grants=grants)
    story.approve("cora", "ROLE_COMPLIANCE_OFFICER", "refuse")
    story.record("job.rejected", "transition", to="REJECTED", actor=subject("cora"))
    grounds = {"grounds_commitment": digest("grounds")}
    story.record("appeal.filed", "appeal", grounds, to="AWAITING_APPROVAL", actor=subject(filer))
    story.card()
    story.approvers = approvers
    return story.release()


def test_an_appeal_decided_by_others_is_valid(world: World) -> None:
    appealed(world, ("mallory", "ROLE_COMPLIANCE_OFFICER"), ("vik", "ROLE_VALIDATOR"))
    assert complaints(world) == {}


def test_an_appeal_decided_by_who_refused(world: World) -> None:
    appealed(world, ("cora", "ROLE_COMPLIANCE_OFFICER"), ("vik", "ROLE_VALIDATOR"))
    assert "who refused the job" in complaints(world)[DUTIES]


def test_an_appeal_against_a_person_decided_by_who_filed_it(world: World) -> None:
    appealed(world, ("mallory", "ROLE_COMPLIANCE_OFFICER"), ("vik", "ROLE_VALIDATOR"), filer="vik")
    assert "who filed the appeal" in complaints(world)[DUTIES]


def test_who_uploaded_the_rows_approves(world: World) -> None:
    story = Story(world).found()
    name = "units/credit/datasets/e"
    rows = {"dataset": name, "datasheet": {"licence": "CC0-1.0"}, "sha256": DATASET}
    told = {**rows, "format": "DATASET_FORMAT_CHAT_JSONL", "size_bytes": 7}
    story.record("dataset.created", "dataset", told, [("dataset", DATASET)], unit=story.unit, actor=subject("vik"))
    story.ask(dataset=name).decide().train().audit().release()
    assert "who uploaded the rows" in complaints(world)[DUTIES]


def replaced(world: World, reason: str = "signer-left") -> Story:
    """An approved job whose officer left; another approves it anew, over a card of its own."""
    grants = [*Story(world).grants, ("mallory", "ROLE_COMPLIANCE_OFFICER", "credit")]
    story = Story(world, grants=grants).whole()
    story.revoke_grant("cora-compliance_officer")
    story.act("mallory", "approval.revoked", "revocation", {"job": story.job, "etag": story.etag, "reason": reason})
    story.record("job.revoked", "transition", to="AWAITING_APPROVAL", actor=subject("mallory"))
    story.card()
    story.approvers = (("mallory", "ROLE_COMPLIANCE_OFFICER"), ("vik", "ROLE_VALIDATOR"))
    return story.release()


def test_approved_anew_after_a_signer_left_is_valid(world: World) -> None:
    replaced(world)
    assert complaints(world) == {}


def test_a_revocation_against_the_model_leads_to_no_other_signers(world: World) -> None:
    replaced(world, "defect")
    assert "revoked for a reason that leads" in complaints(world)[DUTIES]


def test_approved_by_one_who_had_left(world: World) -> None:
    story = until_approval(world)
    story.approve("cora", "ROLE_COMPLIANCE_OFFICER")
    story.revoke_grant("cora-compliance_officer")
    story.approve("vik", "ROLE_VALIDATOR")
    story.record("job.approved", "transition", to="APPROVED")
    assert "no two people" in complaints(world)[DUTIES]


@pytest.mark.parametrize(("paused", "by", "holds"), [
    ("cora", "rita", False), ("cora", "dana", False), ("cora", "cora", True), ("rita", "dana", True),
])  # fmt: skip
def test_an_officers_pause_is_ended_by_an_officer(world: World, paused: str, by: str, holds: bool) -> None:
    story = Story(world).found().ask().decide()
    story.record("job.paused", "transition", to="PAUSED", actor=subject(paused))
    story.record("job.resumed", "transition", to="QUEUED", actor=subject(by))
    assert ("compliance officer paused it" in complaints(world).get(DUTIES, "")) is not holds


@pytest.mark.parametrize(("days", "holds"), [(0, True), (1, False)])
def test_trained_by_a_waiver_that_had_run_out(world: World, days: int, holds: bool) -> None:
    story = Story(world).found().ask().decide(allowed=False)
    waive(story, "cora", ["BASE-ROWS"], expires=START.date().isoformat())
    story.record("job.waived", "transition", to="QUEUED", actor=subject("cora"))
    world.clock.now += dt.timedelta(days=days)
    story.train()
    assert ("has expired" in complaints(world).get(ROLES, "")) is not holds


def test_rejected_by_nobody(world: World) -> None:
    story = until_approval(world)
    story.record("job.rejected", "transition", to="REJECTED")
    assert "nobody refused" in complaints(world)[DUTIES]


@pytest.mark.parametrize(
    ("who", "role"),
    [
        ("mallory", "ROLE_VALIDATOR"),
        ("dana", "ROLE_VALIDATOR"),
        ("vik", "ROLE_COMPLIANCE_OFFICER"),
        ("vik", ""),
    ],
)
def test_signed_without_the_role(world: World, who: str, role: str) -> None:
    Story(world, approvers=[("cora", "ROLE_COMPLIANCE_OFFICER"), (who, role)]).whole()
    assert f"{subject(who)} did not hold" in complaints(world)[ROLES]


def test_role_of_another_unit(world: World) -> None:
    grants = [g if g[0] != "vik" else ("vik", "ROLE_VALIDATOR", "support") for g in Story(world).grants]
    Story(world, grants=grants).whole()
    assert "vik did not hold validator in credit" in complaints(world)[ROLES]


def test_attack_24_role_revoked_before_signing(world: World) -> None:
    story = until_approval(world)
    story.revoke_grant("vik-validator")
    story.release()
    assert "vik did not hold validator" in complaints(world)[ROLES]


def test_role_revoked_after_signing_does_not_undo_it(world: World) -> None:
    Story(world).whole().revoke_grant("vik-validator")
    assert complaints(world) == {}


def test_grant_by_somebody_who_is_no_operator(world: World) -> None:
    story = Story(world).found()
    story.grant("mallory", "ROLE_VALIDATOR", "-", by="rita")
    assert "rita may not grant roles" in complaints(world)[ROLES]


def test_grant_by_a_dismissed_founder(world: World) -> None:
    story = Story(world).found()
    story.revoke_grant("oscar-operator")
    story.grant("mallory", "ROLE_VALIDATOR", "-")
    assert "oscar may not grant roles" in complaints(world)[ROLES]


def test_founder_is_pinned_by_the_trust_file(world: World) -> None:
    world.founder = "anna"
    Story(world).found()
    assert "oscar may not grant roles" in complaints(world)[ROLES]
    world.founder = ""
    assert complaints(world) == {}
    assert any(f"founding operator {subject('oscar')}" in line for line in verify(world).not_checked)


def test_grant_id_used_twice_and_unknown_grant_revoked(world: World) -> None:
    story = Story(world).found()
    story.grant("vik", "ROLE_VALIDATOR", "-")
    story.revoke_grant("nobody-validator")
    report = verify(world)
    said = [c.detail for c in report.checks if c.name == ROLES]
    assert len(said) == 2 and "used before" in said[0] and "not in force" in said[1]


def test_a_grant_ended_by_somebody_who_is_no_operator(world: World) -> None:
    Story(world).found().revoke_grant("vik-validator", by="rita")
    assert "rita may not revoke roles" in complaints(world)[ROLES]


def test_policy_published_by_somebody_who_may_not(world: World) -> None:
    Story(world).found().publish_policy("oscar", "rita", publication="second")
    assert "rita may not publish a policy" in complaints(world)[ROLES]


@pytest.mark.parametrize("by", [("oscar",), ("oscar", "oscar"), ("oscar", "cora", "vik")])
def test_a_policy_that_not_exactly_two_people_published(world: World, by: tuple[str, ...]) -> None:
    Story(world).found().publish_policy(*by, publication="second")
    assert "a policy is published by two people" in complaints(world)[SIGNATURES]


def test_an_old_publication_put_into_force_again(world: World) -> None:
    Story(world).found().publish_policy()
    assert "used before" in complaints(world)[SIGNATURES]


def end(story: Story, by: str = "oscar", origin: str = ORIGIN) -> None:
    order = {"origin": origin, "reason_code": "retired", "order_id": "1" * 32}
    story.act(by, "log.frozen", "freeze", order, unit="system")


def test_a_frozen_log_ends(world: World) -> None:
    end(Story(world).found())
    assert complaints(world) == {}


def test_records_after_the_end(world: World) -> None:
    story = Story(world).found()
    end(story)
    writer = world.ledger._writer
    assert writer is not None
    writer._tip = replace(writer._tip, frozen=False)  # a gateway that does not care
    story.ask()
    assert "records follow" in complaints(world)[END]


def test_an_end_ordered_by_somebody_else(world: World) -> None:
    end(Story(world).found(), by="rita")
    assert "did not hold operator" in complaints(world)[ROLES]


def test_an_end_of_another_log(world: World) -> None:
    end(Story(world).found(), origin="elsewhere/log")
    assert "another log" in complaints(world)[END]


@pytest.mark.parametrize(("origin", "previous"), [("elsewhere/log", "assay.local/old"), (ORIGIN, ORIGIN)])
def test_a_continuation_that_does_not_say_of_what(world: World, origin: str, previous: str) -> None:
    said = {"origin": origin, "previous_origin": previous, "size": 7, "root": "0a" * 32, "checkpoint": ""}
    Story(world).found().act("oscar", "log.continued", "log-continuation", said, unit="system")
    assert "does not say what this log continues" in complaints(world)[END]


def test_attack_26_the_gateway_forges_an_approval(world: World) -> None:
    """The log accepts it; whoever holds the people root does not."""
    fake_root = (p256("fake root"), authority("people root")[1])
    key = p256("forged")
    world.people["cora"] = Person("cora", key, person_certificate(key, [subject("cora")], fake_root))
    Story(world).whole()
    found = complaints(world)
    assert "CERTIFICATE_BAD" in found[SIGNATURES]
    assert "no two people" in found[DUTIES]


def test_certificate_had_expired_when_signed(world: World) -> None:
    key = world.people["vik"].key
    end = START + dt.timedelta(milliseconds=1)
    world.people["vik"] = Person("vik", key, person_certificate(key, [subject("vik")], world.root, end=end))
    Story(world).whole()
    assert "was not valid at" in complaints(world)[SIGNATURES]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"card_sha256": digest("other card")}, "the card it names"),
        ({"card_index": 3}, "the card it names"),
        ({"card_index": "x"}, "the card it names"),
        ({"evidence_size": 1}, "does not cover the card"),
        ({"evidence_size": 10_000}, "does not cover the card"),
        ({"evidence_size": "16"}, "does not cover the card"),
        ({"adapter_sha256": digest("swapped")}, "adapter_sha256"),
        ({"base_sha256": digest("swapped")}, "base_sha256"),
        ({"etag": "0" * 32}, "another version"),
        ({"decision": "maybe"}, "neither grant nor refuse"),
    ],
    ids=str,
)
def test_attack_18_approval_of_something_else(world: World, changes: dict[str, object], what: str) -> None:
    story = until_approval(world)
    if "evidence_size" in changes:
        changes["evidence_root"] = world.ledger.root(1).hex()
    story.approval_changes = changes
    story.release()
    assert what in complaints(world)[EVIDENCE]


def test_attack_18_approval_replayed_for_another_job(world: World) -> None:
    """A genuine approval of one job, handed in for another, names the first and cannot be recorded."""
    first = until_approval(world)
    first.approve("vik", "ROLE_VALIDATOR")
    second = Story(world, job="units/credit/tuningJobs/second").ask().decide().train().audit()
    envelope = world.people["vik"].sign("approval", {"job": first.job, "etag": first.etag})
    draft = RecordDraft("credit", "approval.decided", "approval", {}, envelope=envelope, job=second.job)
    with pytest.raises(Exception, match="another job"):
        world.append(draft)


def test_attack_18_approval_replayed_for_a_later_version(world: World) -> None:
    """Signed about the quarantined version, handed in after a waiver moved the job on."""
    story = Story(world).found().ask().decide().train().audit(to="QUARANTINED")
    old = story.etag
    waive(story, "vik", ["GATE-AUC"])
    story.record("job.waived", "transition", to="AWAITING_APPROVAL")
    story.approve("vik", "ROLE_VALIDATOR", etag=old)
    assert "another version" in complaints(world)[EVIDENCE]


def test_approval_while_the_job_waits_for_nobody(world: World) -> None:
    story = Story(world).found().ask().decide().train()
    story.approve("vik", "ROLE_VALIDATOR")
    assert "signed while the job is AUDITING" in complaints(world)[TRANSITIONS]


@pytest.mark.parametrize(
    ("kind", "name", "to", "extra"),
    [
        ("job.approved", "transition", "APPROVED", {}),
        ("job.expired", "transition", "EXPIRED", {}),
        ("job.received", "request", "RECEIVED", {}),
        ("training.ordered", "work-order", "TRAINING", {}),
        ("job.preparing", "transition", "PREPARING", {"version": 9}),
        ("job.preparing", "transition", "PREPARING", {"version": "2"}),
        ("job.preparing", "transition", "PREPARING", {"from": "QUEUED"}),
        ("job.preparing", "transition", "APPROVED", {}),
        ("job.preparing", "transition", "", {}),
    ],
)
def test_unlawful_transitions(world: World, kind: str, name: str, to: str, extra: dict[str, object]) -> None:
    story = Story(world).found()
    story.record("job.received", "request", to="RECEIVED", actor=subject("rita"))
    story.record(kind, name, to=to, **extra)
    assert TRANSITIONS in complaints(world)


def test_resumed_elsewhere(world: World) -> None:
    story = Story(world).found().ask().decide()
    story.record("job.paused", "transition", to="PAUSED")
    story.record("job.resumed", "transition", to="TRAINING")
    assert "another state than it was paused in" in complaints(world)[TRANSITIONS]


def capped(world: World, **people: str) -> Story:
    """A job that stopped because its money was spent."""
    story = Story(world, **people).found().ask().decide()
    story.record("job.paused", "transition", to="PAUSED", reason="COST_CAP: the budget of this job is spent")
    return story


def raise_budget(story: Story, who: str, bound: int = 2_000_000) -> None:
    words = Opening(bytes(32), b"quote was too low").commitment()
    predicate = {"job": story.job, "etag": story.etag, "max_usd_micros": bound, "reason_commitment": words}
    story.act(who, "budget.raised", "budget-raise", predicate)


def test_a_raised_budget_is_valid(world: World) -> None:
    story = capped(world)
    raise_budget(story, "cora")
    story.record("job.resumed", "transition", to="QUEUED", actor=subject("cora"))
    assert complaints(world) == {}


def test_resumed_past_the_cap_without_a_raise(world: World) -> None:
    capped(world).record("job.resumed", "transition", to="QUEUED")
    assert "no valid budget.raised" in complaints(world)[DUTIES]


def test_a_raise_serves_one_resume(world: World) -> None:
    story = capped(world)
    raise_budget(story, "cora")
    story.record("job.resumed", "transition", to="QUEUED")
    story.record("job.paused", "transition", to="PAUSED", reason="COST_CAP: the budget of this job is spent")
    story.record("job.resumed", "transition", to="QUEUED")
    assert "no valid budget.raised" in complaints(world)[DUTIES]


@pytest.mark.parametrize(
    ("who", "maker", "bound", "finding"),
    [("vik", "rita", 2_000_000, ROLES), ("cora", "cora", 2_000_000, DUTIES), ("cora", "rita", 0, EVIDENCE)],
)
def test_a_raise_by_the_wrong_person_or_to_nothing(
    world: World, who: str, maker: str, bound: int, finding: str
) -> None:
    raise_budget(capped(world, maker=maker), who, bound)
    assert finding in complaints(world)


def test_a_raise_of_a_job_that_is_not_paused(world: World) -> None:
    raise_budget(Story(world).found().ask().decide(), "cora")
    assert TRANSITIONS in complaints(world)


def refused_and_appealed(world: World, filer: str = "rita", **people: str) -> Story:
    """A denied job whose refusal somebody appealed against."""
    story = Story(world, **people).found().ask().decide(allowed=False)
    grounds = {"grounds_commitment": digest("grounds")}
    story.record("appeal.filed", "appeal", grounds, to="DENIED", actor=subject(filer))
    return story


def dismiss(story: Story, who: str = "cora") -> None:
    predicate = {"job": story.job, "etag": story.etag, "reason_commitment": digest("no")}
    story.act(who, "appeal.dismissed", "appeal-dismissal", predicate)
    story.record("appeal.answered", "transition", to="DENIED", actor=subject(who))


def test_a_dismissed_appeal_is_valid(world: World) -> None:
    dismiss(refused_and_appealed(world))
    assert complaints(world) == {}


def test_an_appeal_answered_by_nobody(world: World) -> None:
    refused_and_appealed(world).record("appeal.answered", "transition", to="DENIED", actor=subject("cora"))
    assert "no valid appeal.dismissed" in complaints(world)[DUTIES]


def test_a_dismissal_of_no_appeal(world: World) -> None:
    dismiss(Story(world).found().ask().decide(allowed=False))
    assert "no appeal waits" in complaints(world)[TRANSITIONS]


def test_an_appeal_is_dismissed_once(world: World) -> None:
    story = refused_and_appealed(world)
    dismiss(story)
    dismiss(story)
    assert "no appeal waits" in complaints(world)[TRANSITIONS]


@pytest.mark.parametrize(
    ("who", "maker", "filer", "finding"),
    [("vik", "rita", "rita", ROLES), ("cora", "cora", "rita", DUTIES), ("cora", "rita", "cora", DUTIES)],
)
def test_a_dismissal_by_the_wrong_person(world: World, who: str, maker: str, filer: str, finding: str) -> None:
    dismiss(refused_and_appealed(world, filer, maker=maker), who)
    assert finding in complaints(world)


@pytest.mark.parametrize(("kind", "to"), [("job.waived", "QUEUED"), ("job.revoked", "REVOKED")])
def test_moved_without_the_signature_it_rests_on(world: World, kind: str, to: str) -> None:
    if kind == "job.waived":
        story = Story(world).found().ask().decide(allowed=False)
    else:
        story = Story(world).whole()
    story.record(kind, "transition", to=to)
    assert "no valid" in complaints(world)[DUTIES]


def test_waiver_without_the_rules_role(world: World) -> None:
    story = Story(world).found().ask().decide().train().audit(to="QUARANTINED")
    waive(story, "cora", ["GATE-AUC"])
    assert "cora did not hold validator" in complaints(world)[ROLES]


@pytest.mark.parametrize("rules", [[], ["NOT-FIRED"], "GATE-AUC", ["GATE-AUC", "GATE-AUC"]])
def test_waiver_of_nothing(world: World, rules: list[str]) -> None:
    story = Story(world).found().ask().decide().train().audit(to="QUARANTINED")
    waive(story, "vik", rules)
    assert ROLES in complaints(world)


def test_a_role_is_held_as_long_as_one_grant_of_it_is_live() -> None:
    roles, grant = Roles(), Grant("vik", "validator", "credit")
    for grant_id in ("a", "b", "b"):  # an id that is used again replaces its grant, as a permit's proof is read
        roles.grant(grant_id, grant)
    roles.revoke("a")
    assert roles.holds("vik", "validator", "credit") and not roles.holds("vik", "validator", "claims")
    roles.revoke("b")
    assert not roles.holds("vik", "validator", "credit")


def test_many_rules_under_many_roles_among_many_grants_end_soon() -> None:
    """Each is asked for once, by name: going through all grants for each takes the square."""
    roles = Roles()
    for number in range(20_000):
        roles.grant(str(number), Grant("vik", f"role{number}", "credit"))
    started = time.process_time()
    assert all(roles.holds("vik", f"role{number}", "credit") for number in range(20_000))
    assert time.process_time() - started < 10, "it took minutes"


def test_waiver_by_the_maker(world: World) -> None:
    story = Story(world, maker="vik").found().ask().decide().train().audit(to="QUARANTINED")
    waive(story, "vik", ["GATE-AUC"])
    assert "maker" in complaints(world)[DUTIES]


def test_revocation_by_somebody_without_the_role(world: World) -> None:
    story = Story(world).whole()
    revocation = {"job": story.job, "etag": story.etag, "reason": "misuse"}
    story.act("rita", "approval.revoked", "revocation", revocation)
    found = complaints(world)
    assert DUTIES in found or ROLES in found


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"train_key": "audit-worker"}, "SIGNATURE_BAD"),
        ({"audit_key": "train-worker"}, "SIGNATURE_BAD"),
        ({"train_key": "log"}, "SIGNATURE_BAD"),
        ({"train_key": "stranger"}, "SIGNATURE_BAD"),
        ({"permit_key": "stranger"}, "SIGNATURE_BAD"),
    ],
)
def test_attack_37_statement_by_another_key(world: World, change: dict[str, str], what: str) -> None:
    Story(world, **change).whole()  # type: ignore[arg-type]
    assert what in complaints(world)[WORKERS]


@pytest.mark.parametrize("job", [JOB, "units/credit/tuningJobs/other", None])
def test_a_training_statement_may_be_slsa_provenance(world: World, job: str | None) -> None:
    story = Story(world).found().ask().decide()
    story.record("training.ordered", "work-order", {"base_sha256": digest("b")}, to="TRAINING")
    order = {"order": {"job": job} if job else {}, "order_sha256": digest("o")}
    made = {
        "buildDefinition": {"externalParameters": order, "internalParameters": {"environment": {}}},
        "runDetails": {
            "metadata": {"invocationId": "t"}, "assay_claim": {}, "assay_isolation": {}, "assay_meter": {},
        },
    }  # fmt: skip
    signed = story.service("train-worker", "provenance", made, [("adapter", ADAPTER)])
    story.record("training.completed", "training", {"statement": signed}, to="AUDITING")
    assert (WORKERS in complaints(world)) == (job != JOB)


@pytest.mark.parametrize(
    ("verdict", "made", "named", "key", "holds"),
    [
        ("REPRODUCED", ADAPTER, ADAPTER, "train-worker", True),
        ("DIFFERS", digest("other"), digest("other"), "train-worker", True),
        ("REPRODUCED", digest("other"), digest("other"), "train-worker", False),
        ("REPRODUCED", digest("other"), ADAPTER, "train-worker", False),
        ("DIFFERS", ADAPTER, ADAPTER, "train-worker", False),
        ("REPRODUCED", ADAPTER, ADAPTER, "permit", False),
    ],
)
def test_a_replays_verdict_follows_from_its_digests(
    world: World, verdict: str, made: str, named: str, key: str, holds: bool
) -> None:
    story = Story(world).found().ask().decide().train()
    signed = story.service(key, "training", {"kind": "train"}, [("adapter", made)])
    said = {"verdict": verdict, "adapter_sha256": ADAPTER, "replayed_sha256": named, "statement": signed}
    story.record("training.replayed", "replay", said)
    assert (WORKERS not in complaints(world)) == holds


def test_statement_of_another_job_or_kind(world: World) -> None:
    story = Story(world).found().ask().decide()
    story.record("training.ordered", "work-order", {"base_sha256": digest("b")}, to="TRAINING")
    wrong = story.service("train-worker", "training", {"job": "units/credit/tuningJobs/other"}, [("adapter", ADAPTER)])
    story.record("training.completed", "training", {"statement": wrong}, to="AUDITING")
    wrong = story.service("audit-worker", "preparation", {})
    story.record("audit.completed", "audit", {"statement": wrong})
    said = [c.detail for c in verify(world).checks if c.name == WORKERS]
    assert len(said) == 2


def test_missing_statement_is_incomplete(world: World) -> None:
    story = Story(world).found().ask().decide()
    story.record("training.ordered", "work-order", to="TRAINING")
    story.record("training.completed", "training", to="AUDITING")
    assert verify(world).verdict == "incomplete"
    assert "no signed training statement" in complaints(world)[WORKERS]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"hours": 25}, "24 hours"),
        ({"hours": 0}, "24 hours"),
        ({"not_after": "soon"}, "24 hours"),
        ({"adapter_sha256": digest("x")}, "another adapter"),
    ],
)
def test_permits_that_should_not_be(world: World, changes: dict[str, object], what: str) -> None:
    Story(world).whole().issue_permit(**changes)  # type: ignore[arg-type]
    assert what in complaints(world)[PERMITS]


def test_permit_of_a_job_that_is_not_approved(world: World) -> None:
    until_approval(world).issue_permit()
    assert "while the job is AWAITING_APPROVAL" in complaints(world)[PERMITS]


def test_permit_signed_by_another_key(world: World) -> None:
    story = Story(world).whole()
    story.permit_key = "stranger"
    story.issue_permit()
    assert "permit key did not sign" in complaints(world)[PERMITS]


def test_permit_record_changed_after_signing(world: World) -> None:
    story = Story(world).whole()
    record = canonical.decode(world.ledger.record(story.indices["permit.issued"]).body)
    predicate = {**record["statement"]["predicate"], "environment": "production"}
    subjects = [(s["name"], s["digest"]["sha256"]) for s in record["statement"]["subject"]]
    world.append(RecordDraft("credit", "permit.issued", "permit", predicate, subjects))
    assert "permit key did not sign" in complaints(world)[PERMITS]


def test_two_people_in_one_envelope(world: World) -> None:
    """Two signatures on one statement are one act too many: a role is claimed by one person."""
    story = until_approval(world)
    index = story.approve("cora", "ROLE_COMPLIANCE_OFFICER")
    record = canonical.decode(world.ledger.record(index).body)
    payload = canonical.encode(record["statement"])
    envelope = dsse.envelope_of(record["statement"], record["sigs"])
    vik = world.people["vik"]
    envelope["signatures"] += dsse.sign_person(payload, vik.key, vik.cert)["signatures"]
    world.append(RecordDraft("credit", "approval.decided", "approval", {}, envelope=envelope))
    assert "more than one person" in complaints(world)[SIGNATURES]


def test_time_that_runs_backwards(world: World) -> None:
    """Only a writer without the clock check can do it; the verifier sees it all the same."""
    world.append_one()
    world.ledger.close()
    world.clock.now -= dt.timedelta(days=1)
    import audit.ledger.writer as writer

    tolerance, writer.CLOCK_TOLERANCE = writer.CLOCK_TOLERANCE, dt.timedelta(days=10)
    try:
        world.ledger = world.open()
        world.ledger.start()
        world.append_one()
    finally:
        writer.CLOCK_TOLERANCE = tolerance
    assert "time does not run backwards" in complaints(world)


def edges_of_the_gateway() -> set[tuple[str, str, str]]:
    transitions = pytest.importorskip("gateway.jobs.transitions")
    return {
        (line.record_type, source.value, line.target.value) for line in transitions.TABLE for source in line.sources
    }


def test_the_gateways_table_is_within_the_auditors() -> None:
    mine = {(kind, a, b) for kind, pairs in EDGES.items() for a, b in pairs}
    assert edges_of_the_gateway() == mine


def test_report_says_what_was_not_checked(world: World, tmp_path: Path) -> None:
    Story(world).whole()
    report = verify(world)
    said = " ".join(report.not_checked)
    for word in ("times", "payloads", "PDF", "policy", "max-age"):
        assert word in said


odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 9),
    st.text(max_size=4),
    st.lists(st.integers(0, 1), max_size=2),
    st.dictionaries(st.sampled_from(["a", "from"]), st.integers(0, 1), max_size=2),
)
TOUCHED = {
    "approval": ["job", "etag", "decision", "role", "card_sha256", "card_index", "evidence_size", "evidence_root"],
    "transition": ["from", "version"],
    "permit": ["not_before", "not_after", "adapter_sha256"],
}


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(sorted(TOUCHED)), data=st.data())
def test_a_hostile_gateway_cannot_crash_the_verifier(
    tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject
) -> None:
    """Whatever a predicate holds, the answer is a verdict."""
    world = World(tmp_path_factory.mktemp("hostile")).start()
    name, value = data.draw(st.sampled_from(TOUCHED[kind])), data.draw(odd)
    story = until_approval(world)
    try:
        if kind == "approval":
            story.approval_changes = {name: value}
            story.release()
        elif kind == "transition":
            story.record("job.rejected", "transition", to="REJECTED", **{name: value})
        else:
            story.release().issue_permit(**{name: value})
    except AssayError:
        return
    finally:
        report = verify(world)
        world.close()
    assert report.verdict == "invalid"
