"""Keys that follow one another, keys that were stolen: what the verifier and the offline permit check make of them."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from assay import dsse, key_events
from audit.ledger import records
from audit.ledger.records import RecordDraft
from audit.verify import EXIT_CODES, Report
from audit.verify.keys import DOUBT
from audit.verify.permit import PermitVerdict, check_permit
from audit.verify.verifier import verify_bytes
from tests.audit.ledger.ledger_world import (
    ADAPTER,
    BASE,
    ORIGIN,
    START,
    Person,
    Story,
    World,
    authority,
    ed25519,
    p256,
    person_certificate,
    subject,
)
from tests.audit.verify.forge import forge
from tests.audit.verify.test_bundle import repack, without_record

KEYS, PERMITS, ROLES = "keys in force when signing", "permits", "roles held when signing"
P2 = {"permit": "units/credit/permits/p2"}


def report_of(world: World) -> Report:
    return verify_bytes(world.export(), world.trust, START)


def complaints(world: World) -> list[tuple[str, str, str]]:
    """Everything that did not pass."""
    return [(c.name, c.outcome, c.detail) for c in report_of(world).checks if c.outcome != "passed"]


def one(world: World, name: str, outcome: str, words: str) -> None:
    """Demands exactly one complaint: of that check, with that outcome and these words."""
    assert [(n, o, words in d) for n, o, d in complaints(world)] == [(name, outcome, True)], complaints(world)


def permitted(story: Story, extra: list[int]) -> PermitVerdict:
    return check_permit(story.permit_message(extra), ADAPTER, BASE, "replies", "staging", START, story.world.trust)


def system(story: Story, *kinds: str) -> list[int]:
    found = story.world.ledger.records("system", None, -1, 200)
    return [r.index for r in found if r.type.startswith(kinds or ("grant.", "key."))]


def test_every_key_may_follow_another(world: World) -> None:
    story = Story(world).found()
    for name in ("permit", "train-worker", "audit-worker"):
        story.rotate_key(name, f"{name} 2")
    story.permit_key, story.train_key, story.audit_key = "permit 2", "train-worker 2", "audit-worker 2"
    story.rotate_person("cora")
    story.ask().decide().train().audit().release()
    story.rotate_key("permit", "permit 3")
    story.permit_key = "permit 3"
    story.issue_permit(**P2)
    assert complaints(world) == []
    assert permitted(story, system(story)).allowed


@pytest.mark.parametrize("name", ["permit", "train-worker", "audit-worker"])
def test_the_old_key_signs_nothing_after_its_rotation(world: World, name: str) -> None:
    story = Story(world).found().ask().decide().train().audit().release()
    story.rotate_key(name, "another")
    if name == "permit":
        story.issue_permit(**P2)
    else:
        second = Story(world, job="units/credit/tuningJobs/second").ask().decide()
        if name == "train-worker":
            second.train()
    one(world, KEYS, "failed", "KEY_NOT_IN_FORCE")


def test_the_new_key_signs_nothing_before_its_rotation(world: World) -> None:
    story = Story(world, permit_key="permit 2").found().ask().decide().train().audit().release()
    story.rotate_key("permit", "permit 2")
    assert {(n, o) for n, o, _ in complaints(world)} == {(PERMITS, "failed"), ("workers' statements", "failed")}
    assert "permit key did not sign" in permitted(story, system(story, "grant.")).reason


def test_a_permit_signed_by_the_old_key_is_refused_offline(world: World) -> None:
    story = Story(world).whole()
    story.rotate_key("permit", "permit 2")
    story.issue_permit(**P2)
    verdict = permitted(story, system(story))
    assert not verdict.allowed and "KEY_NOT_IN_FORCE" in verdict.reason
    story.permit_key = "permit 2"
    story.issue_permit(permit="units/credit/permits/p3")
    assert permitted(story, system(story)).allowed
    # Without the event nothing says that this key is one.
    assert "permit key did not sign" in permitted(story, system(story, "grant.")).reason


@pytest.mark.parametrize(
    ("tell", "words"),
    [
        (lambda s: s.rotate_key("permit", "x", by="cora"), "ROLE_MISSING"),
        (lambda s: s.rotate_key("permit", "x", by="mallory"), "ROLE_MISSING"),
        (lambda s: s.compromise("permit", 0, by="vik"), "ROLE_MISSING"),
        (lambda s: (s.grant("dana", "ROLE_OPERATOR", "a"), s.rotate_key("permit", "x", by="dana")), "ROLE_MISSING"),
        (lambda s: s.rotate_key("permit", "x", old="never"), "KEY_UNKNOWN"),
        (lambda s: s.compromise("permit", 0, public=bytes(31) + b"\1"), "KEY_UNKNOWN"),
        (lambda s: s.rotate_key("permit", "x", origin="other/log"), "OTHER_LOG"),
        (lambda s: s.rotate_key("permit", "x", key="train-worker"), "KEY_PROOF"),
        (lambda s: s.rotate_key("permit", "x", proof="AAAA"), "KEY_PROOF"),
        (lambda s: s.rotate_key("permit", "x", key="log"), "KEY_UNKNOWN"),
        (lambda s: s.rotate_key("permit", "x", new="AAAA"), "KEY_MALFORMED"),
        (lambda s: s.rotate_key("permit", "x", more=1), "KEY_EVENT"),
        (lambda s: s.rotate_key("permit", "x", event_id="ABC"), "KEY_EVENT"),
        (lambda s: s.rotate_key("permit", "train-worker"), "KEY_REUSED"),
        (lambda s: s.rotate_key("permit", "permit"), "KEY_REUSED"),
        (lambda s: s.rotate_key("audit-worker", "log"), "KEY_REUSED"),
        (lambda s: s.compromise("permit", 10_000), "KEY_SINCE"),
        (lambda s: s.compromise("permit", -1), "KEY_EVENT"),
        (lambda s: (s.compromise("permit", 1), s.compromise("permit", 2)), "KEY_COMPROMISED"),
        (lambda s: (s.rotate_key("permit", "x"), s.rotate_key("permit", "y", old="permit")), "KEY_NOT_IN_FORCE"),
        (
            lambda s: (s.rotate_key("permit", "x"), s.rotate_key("permit", "y", event_id=s.event("key.rotated"))),
            "KEY_EVENT_REPLAYED",
        ),
    ],
)  # fmt: skip
def test_events_that_do_not_count(world: World, monkeypatch: pytest.MonkeyPatch, tell: Any, words: str) -> None:
    monkeypatch.setattr(Story, "event", event_id, raising=False)
    tell(Story(world).found())
    one(world, KEYS, "failed", words)


def event_id(story: Story, kind: str) -> str:
    """The id of the event last told."""
    return str(records.read(story.world.ledger.record(story.indices[kind]).body).predicate["event_id"])


def test_an_event_that_does_not_count_changes_nothing(world: World) -> None:
    story = Story(world).found()
    story.rotate_key("permit", "stolen", by="cora")
    story.ask().decide().train().audit().release()
    one(world, KEYS, "failed", "ROLE_MISSING")
    story.permit_key = "stolen"
    story.issue_permit(**P2)
    assert ("permits", "failed") in {(n, o) for n, o, _ in complaints(world)}


def test_a_replayed_envelope_does_not_count(world: World) -> None:
    story = Story(world).found()
    index = story.rotate_key("permit", "permit 2")
    envelope = records.read(world.ledger.record(index).body).envelope()
    world.append(RecordDraft("system", "key.rotated", "key-rotation", {}, envelope=envelope))
    one(world, KEYS, "failed", "KEY_EVENT_REPLAYED")


def test_an_event_that_two_people_signed_does_not_count(world: World) -> None:
    story = Story(world).found()
    dana = world.people["dana"]
    event = records.read(world.ledger.record(story.rotate_key("permit", "permit 2")).body).envelope()
    envelope = dsse.cosign_person(event, dana.key, dana.cert)
    world.append(RecordDraft("system", "key.rotated", "key-rotation", {}, envelope=envelope))
    one(world, KEYS, "failed", "a key event has one signer")


def test_a_compromised_key_signs_nothing_and_leaves_suspects(world: World) -> None:
    story = Story(world).whole()
    before = story.indices["permit.issued"]
    story.issue_permit(**P2)
    doubted = story.indices["permit.issued"]
    story.compromise("permit", before + 1)
    one(world, DOUBT, "suspect", f"record {doubted}: signed by ")
    report = report_of(world)
    assert (report.verdict, EXIT_CODES[report.verdict]) == ("suspect", 5)
    story.issue_permit(permit="units/credit/permits/p3")
    found = complaints(world)
    assert [(n, o) for n, o, _ in found] == [(KEYS, "failed"), (DOUBT, "suspect")]
    assert "declares compromised" in found[0][2] and "KEY_NOT_IN_FORCE" in permitted(story, system(story)).reason
    story.rotate_key("permit", "permit 2")
    story.permit_key = "permit 2"
    story.issue_permit(permit="units/credit/permits/p4")
    assert len(complaints(world)) == 2 and permitted(story, system(story)).allowed


def test_a_compromise_long_after_a_rotation_casts_doubt_and_ends_nothing(world: World) -> None:
    story = Story(world).whole()
    first = story.indices["permit.issued"]
    story.rotate_key("permit", "permit 2")
    story.permit_key = "permit 2"
    story.issue_permit(**P2)
    old = ed25519("permit").public_key().public_bytes_raw()
    story.compromise("permit", first, public=old)
    story.issue_permit(permit="units/credit/permits/p3")
    one(world, DOUBT, "suspect", f"record {first}: ")
    assert permitted(story, system(story)).allowed


def test_a_compromise_without_a_use_is_said_and_is_no_doubt(world: World) -> None:
    story = Story(world).whole()
    story.compromise("permit", story.indices["permit.issued"] + 1)
    report = report_of(world)
    assert report.verdict == "valid"
    assert [c.detail for c in report.checks if c.name == DOUBT] == ["none of the records here"]


def test_an_approval_by_a_stolen_key(world: World) -> None:
    story = Story(world).found().ask().decide().train().audit()
    story.compromise("vik", 0)
    story.release()
    kinds = [(n, o) for n, o, _ in complaints(world)]
    assert (KEYS, "failed") in kinds and ("separation of duties", "failed") in kinds
    assert "KEY_NOT_IN_FORCE" in permitted(story, system(story)).reason


def test_an_approval_that_a_thief_may_have_signed(world: World) -> None:
    story = Story(world).found().ask().decide().train().audit()
    story.release()
    approval = story.indices["approval.decided"]
    story.compromise("vik", approval)
    one(world, DOUBT, "suspect", f"record {approval}: signed by ")
    story.issue_permit(**P2)
    verdict = permitted(story, system(story))
    assert not verdict.allowed and subject("vik") in verdict.reason


def test_a_persons_old_certificate_is_for_old_records(world: World) -> None:
    story = Story(world).found().ask().decide().train().audit()
    story.rotate_person("vik")
    story.approvers = (("cora", "ROLE_COMPLIANCE_OFFICER"), ("old vik", "ROLE_VALIDATOR"))
    story.release()
    assert (KEYS, "failed") in {(n, o) for n, o, _ in complaints(world)}


def test_a_third_certificate_of_a_person_with_events(world: World) -> None:
    """The people root may certify a subject twice: after an event only the keys that events name count."""
    story = Story(world).found()
    story.rotate_person("oscar", by="oscar")
    third = p256("oscar's other machine")
    world.people["other"] = Person("other", third, person_certificate(third, [subject("oscar")], world.root))
    story.publish_policy("other", "cora", publication="second")
    one(world, KEYS, "failed", "not by a key that its events name")


def test_the_last_operators_key_is_replaced_by_its_own_successor(world: World) -> None:
    """Otherwise a log whose only operator's key was stolen could never be mended; the people root vouches."""
    story = Story(world).found()
    story.compromise("oscar", 1)
    story.rotate_person("oscar", by="new oscar")
    story.publish_policy("oscar", "cora", publication="second")
    assert [(n, o) for n, o, _ in complaints(world)] == [(DOUBT, "suspect")] * len(complaints(world))
    story.publish_policy("old oscar", "cora", publication="third")
    assert (KEYS, "failed") in {(n, o) for n, o, _ in complaints(world)}


@pytest.mark.parametrize(
    ("uri", "root", "words"),
    [("mallory", "people root", "CERTIFICATE_BAD"), ("cora", "attacker's root", "CERTIFICATE_BAD")],
)
def test_a_successor_under_another_root_or_name(world: World, uri: str, root: str, words: str) -> None:
    story = Story(world).found()
    key = p256("thief")
    thief = person_certificate(key, [subject(uri)], authority(root))
    halves = [certificate.public_bytes(Encoding.DER) for certificate in (world.people["cora"].cert, thief)]
    said = key_events.rotation_statement(ORIGIN, subject("cora"), *halves, key)["predicate"]
    story.act("oscar", "key.rotated", "key-rotation", said, unit="system")
    one(world, KEYS, "failed", words)


@pytest.mark.parametrize(("last", "outcome"), [(False, "missing"), (True, "failed")])
def test_a_rotation_removed_from_the_bundle(world: World, last: bool, outcome: str) -> None:
    """What its key signed then is by nobody's key; it is only missing where the system's chain shows the gap."""
    story = Story(world).found()
    index = story.rotate_key("permit", "permit 2")
    if not last:
        story.publish_policy("oscar", "cora", publication="second")
    story.permit_key = "permit 2"
    story.ask().decide().train().audit().release()
    report = verify_bytes(repack(world.export(), without_record(index)), world.trust, START)
    found = {(c.name, c.outcome) for c in report.checks}
    assert {("completeness", "missing"), (PERMITS, outcome)} <= found
    assert report.verdict == {"missing": "incomplete", "failed": "invalid"}[outcome]


def test_a_compromise_removed_from_the_log_leads_to_another_root(world: World) -> None:
    story = Story(world).whole()
    story.compromise("permit", 0)
    bodies = [r.body for r in world.ledger.records(limit=1000)]
    report = verify_bytes(forge(bodies[:-1], ed25519("stranger")), world.trust, START)
    assert report.verdict == "invalid" and "NOTE" in report.checks[0].detail


def test_a_stolen_services_key_does_not_make_it_another(world: World) -> None:
    """Key swap: the train worker's key under audit results, with and without a rotation to it."""
    story = Story(world, audit_key="train-worker").found()
    story.rotate_key("audit-worker", "train-worker")
    story.ask().decide()
    assert {n for n, _, _ in complaints(world)} == {KEYS, "workers' statements"}


def test_a_grant_by_a_stolen_key_gives_no_role_offline(world: World) -> None:
    story = Story(world).found()
    story.compromise("oscar", 1)
    story.grant("mallory", "ROLE_VALIDATOR", "-", by="oscar")
    story.rotate_person("oscar", by="new oscar")
    story.approvers = (("cora", "ROLE_COMPLIANCE_OFFICER"), ("mallory", "ROLE_VALIDATOR"))
    story.ask().decide().train().audit().release()
    assert "KEY_NOT_IN_FORCE" in permitted(story, system(story)).reason


def test_a_grant_in_doubt_gives_no_role(world: World) -> None:
    """The operator's key was stolen before vik became a validator: whoever it was that made him one."""
    story = Story(world).whole()
    vik = next(i for i in system(story, "grant.") if b"ROLE_VALIDATOR" in world.ledger.record(i).body)
    assert permitted(story, []).allowed
    story.compromise("oscar", vik)
    story.issue_permit(**P2)
    # What the log's grants said when it was signed is shown again: a permit from before shows no event.
    verdict = permitted(story, system(story))
    assert f"{subject('vik')} did not hold validator when signing by a grant that no thief" in verdict.reason
    # Granted anew by the operator's new key, and signed anew.
    story.rotate_person("oscar", by="new oscar")
    story.grant("vik", "ROLE_VALIDATOR", "-", by="oscar")
    assert "did not hold validator" in permitted(story.issue_permit(**P2), system(story)).reason
    second = Story(world, job="units/credit/tuningJobs/second").ask().decide().train().audit().release()
    verdict = permitted(second, system(second))
    assert verdict.allowed and any("in doubt" in note for note in verdict.not_checked)


def test_what_an_operator_by_a_grant_in_doubt_signed_is_in_doubt(world: World) -> None:
    """The thief made an accomplice an operator, who made a validator and brought in a permit key, with an own key."""
    story = Story(world).found()
    doubted = story.grant("mallory", "ROLE_OPERATOR", "-", by="oscar")
    story.grant("dana", "ROLE_VALIDATOR", "-", by="mallory")
    story.approvers = (("cora", "ROLE_COMPLIANCE_OFFICER"), ("dana", "ROLE_VALIDATOR"))
    story.ask().decide().train().audit().release()
    assert permitted(story, []).allowed
    story.compromise("oscar", doubted)
    story.issue_permit(**P2)
    assert f"{subject('dana')} did not hold validator" in permitted(story, system(story)).reason
    second = Story(world, job="units/credit/tuningJobs/second", permit_key="permit 2")
    second.rotate_key("permit", "permit 2", by="mallory")
    second.ask().decide().train().audit().release()
    assert "such a key brought in, signed for it: permit" in permitted(second, system(second)).reason


def test_a_revocation_by_a_stolen_key_takes_the_role_all_the_same(world: World) -> None:
    story = Story(world).found().ask().decide().train().audit()
    for who, role in story.approvers:
        story.approve(who, role)
    gone = story.revoke_grant("vik-validator")
    story.compromise("oscar", gone)
    assert "does not hold validator" in permitted(story.issue_permit(), system(story)).reason


def test_a_key_that_a_suspect_event_brought_in_carries_no_permit_until_it_is_replaced(world: World) -> None:
    """Perhaps the thief of the operator's key rotated the permit key to an own one: a later rotation ends the doubt."""
    story = Story(world).found()
    story.rotate_key("permit", "permit 2")
    brought = story.indices["key.rotated"]
    story.permit_key = "permit 2"
    story.ask().decide().train().audit().release()
    assert permitted(story, system(story)).allowed
    story.compromise("oscar", brought)
    story.rotate_person("oscar", by="new oscar")
    story.issue_permit(**P2)
    assert "such a key brought in, signed for it: permit" in permitted(story, system(story)).reason
    story.rotate_key("permit", "permit 3")
    story.permit_key = "permit 3"
    story.issue_permit(permit="units/credit/permits/p3")
    verdict = permitted(story, system(story))
    assert verdict.allowed and any("in doubt" in note for note in verdict.not_checked)
    one(world, DOUBT, "suspect", f"record {brought}: ")
