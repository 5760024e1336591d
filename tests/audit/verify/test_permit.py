from __future__ import annotations

import copy
import dataclasses
import datetime as dt
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assay import canonical, dsse
from assay.digests import folder_manifest
from audit.ledger import evidence
from audit.ledger.records import RecordDraft
from audit.verify.permit import PermitVerdict, check_permit
from tests.audit.ledger.ledger_world import ADAPTER, BASE, CARD, START, Story, World, b64, digest, ed25519, subject
from tests.audit.verify.forge import edited, forge

NOW = START + dt.timedelta(hours=1)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    world = World(tmp_path_factory.mktemp("permit")).start()
    yield Story(world).whole()
    world.close()


def check(story: Story, permit: dict[str, Any] | None = None, **changes: Any) -> PermitVerdict:
    arguments = {
        "adapter": ADAPTER,
        "base": BASE,
        "purpose": "replies",
        "environment": "staging",
        "now": NOW,
        "trust": story.world.trust,
        **changes,
    }
    return check_permit(story.permit_message() if permit is None else permit, **arguments)


def camel(value: Any) -> Any:
    """The other spelling of protobuf JSON."""
    if isinstance(value, dict):
        return {re.sub("_(.)", lambda m: m[1].upper(), k): camel(v) for k, v in value.items()}
    return [camel(v) for v in value] if isinstance(value, list) else value


def grants(story: Story) -> list[int]:
    return [r.index for r in story.world.ledger.records("system", None, -1, 100) if r.type.startswith("grant.")]


def test_allowed_offline(story: Story) -> None:
    verdict = check(story)
    assert verdict.allowed and verdict.reason == ""
    for said in ("no grant was revoked", "no key event was left out", "revocations", "quorum none", "where it is used"):
        assert any(said in line for line in verdict.not_checked), said
    assert len(verdict.not_checked) == 5


def test_either_spelling_of_protobuf_json(story: Story) -> None:
    assert check(story, camel(story.permit_message())).allowed


def test_as_the_contract_writes_it(story: Story) -> None:
    """Through the real message, which drops zeros and writes 64-bit numbers as text."""
    from google.protobuf import json_format

    from assay.v1 import permit_pb2

    message = json_format.ParseDict(story.permit_message(), permit_pb2.Permit())
    for names in (True, False):
        again = json.loads(json_format.MessageToJson(message, preserving_proto_field_name=names))
        assert check(story, again).allowed


@pytest.mark.parametrize("grants", [(), (("mallory", "ROLE_VALIDATOR", "-"),)], ids=["no grant", "mallory's"])
def test_without_an_operator_in_the_trust_file_nothing_is_allowed(tmp_path: Path, grants: tuple[Any, ...]) -> None:
    """Else whoever makes the permit shows first a grant by whom they like, who is then taken for the founder."""
    story = Story(World(tmp_path, founder="").start()).found()
    for who, role, unit in grants:
        story.grant(who, role, unit, by="mallory")
    story.ask().decide().train().audit().release()
    verdict = check(story)
    assert not verdict.allowed and "TRUST_OPERATOR" in verdict.reason and "operator SUBJECT" in verdict.reason


def test_roles_are_those_of_the_trust_files_operator(tmp_path: Path) -> None:
    verdict = check(Story(World(tmp_path, founder="mallory").start()).whole())
    assert not verdict.allowed and "a grant is not signed by an operator" in verdict.reason


def test_a_signer_without_a_grant_is_refused(story: Story) -> None:
    for left_out in grants(story):
        body = story.world.ledger.record(left_out).body.decode()
        if "ROLE_COMPLIANCE_OFFICER" not in body and "ROLE_VALIDATOR" not in body:
            continue
        permit = story.permit_message()
        permit["proofs"] = [p for p in permit["proofs"] if int(p["index"]) != left_out]
        verdict = check(story, permit)
        assert not verdict.allowed and "did not hold" in verdict.reason


def test_a_role_granted_after_the_signature_is_refused(tmp_path: Path) -> None:
    world = World(tmp_path).start()
    story = Story(world, grants=[g for g in Story.grants if g[1] != "ROLE_VALIDATOR"])
    story.found().ask().decide().train().audit()
    for who, role in story.approvers:
        story.approve(who, role)
    story.grant("vik", "ROLE_VALIDATOR", "credit")
    story.issue_permit()
    verdict = check(story)
    assert not verdict.allowed and "vik did not hold validator when signing" in verdict.reason
    world.close()


def test_files_are_hashed_and_one_byte_matters(tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    (tmp_path / "log").mkdir()
    world = World(tmp_path / "log").start()
    import tests.audit.ledger.ledger_world as ledger_world

    before, ledger_world.ADAPTER = ledger_world.ADAPTER, folder_manifest(folder).sha256
    try:
        story = Story(world).whole()
    finally:
        ledger_world.ADAPTER = before
    assert check(story, adapter=folder).allowed
    (folder / "adapter_model.safetensors").write_bytes(b"weightz")
    verdict = check(story, adapter=folder)
    assert not verdict.allowed and "the adapter is not the one permitted" in verdict.reason
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    (folder / ".gitignore").write_text("x")
    assert not check(story, adapter=folder).allowed
    (folder / ".gitignore").unlink()
    (folder / "link").symlink_to("/etc/passwd")
    assert "FOLDER_NOT_PLAIN" in check(story, adapter=folder).reason
    assert not check(story, adapter=tmp_path / "absent").allowed
    world.close()


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"adapter": digest("other")}, "adapter"),
        ({"base": digest("other")}, "base model"),
        ({"purpose": "credit-scoring"}, "another purpose"),
        ({"environment": "production"}, "another environment"),
        ({"now": START - dt.timedelta(seconds=1)}, "not valid yet"),
        ({"now": START + dt.timedelta(hours=24)}, "expired"),
    ],
    ids=str,
)
def test_asked_for_something_else(story: Story, changes: dict[str, Any], what: str) -> None:
    verdict = check(story, **changes)
    assert not verdict.allowed and what in verdict.reason


def test_a_place_is_proved_by_the_record_of_the_request(story: Story) -> None:
    verdict = check(story)
    assert verdict.allowed and any("declared for no place" in line for line in verdict.not_checked)
    assert "declared for no place, not for 'EU'" in check(story, place="EU").reason


def without(kind: str) -> Callable[[dict[str, Any], Story], None]:
    def change(permit: dict[str, Any], story: Story) -> None:
        ledger = story.world.ledger
        kept = [p for p in permit["proofs"] if ledger.record(int(p["index"])).type != kind]
        assert len(kept) < len(permit["proofs"])
        permit["proofs"] = kept

    return change


def setting(name: str, value: Any) -> Callable[[dict[str, Any], Story], None]:
    return lambda permit, story: permit.__setitem__(name, value)


def in_proof(name: str, value: Any) -> Callable[[dict[str, Any], Story], None]:
    return lambda permit, story: permit["proofs"][0].__setitem__(name, value)


def foreign_checkpoint(permit: dict[str, Any], story: Story) -> None:
    from audit.ledger.note import Checkpoint, sign_note

    size = int(permit["proofs"][0]["tree_size"])
    permit["checkpoint"] = b64(
        sign_note(Checkpoint("assay.local/log", size, b"x" * 32).text(), "assay.local/log", ed25519("no"))
    )


def swapped_bodies(permit: dict[str, Any], story: Story) -> None:
    a, b = permit["proofs"][:2]
    a["body"], b["body"] = b["body"], a["body"]


def shown_approval(permit: dict[str, Any], story: Story) -> None:
    permit["approvals"] = [{"envelope": {"payload": b64(b"{}")}}]


def stated(name: str, *subjects: tuple[str, str]) -> Callable[[dict[str, Any], Story], None]:
    """Another statement than a permit's, or about other subjects, which says the same."""

    def change(permit: dict[str, Any], story: Story) -> None:
        permit["statement"] = b64(canonical.encode(dsse.statement(name, story.permit["predicate"], subjects)))

    return change


def of_another_log(permit: dict[str, Any], story: Story) -> None:
    """A record of another log, under a checkpoint that this log's key signed."""
    body = edited(story.world.ledger.record(story.card_index).body, log="other/log")
    permit["checkpoint"] = b64(evidence.read_zip(forge([body]))["checkpoint"])
    permit["proofs"] = [{"index": "0", "tree_size": "1", "hashes": [], "body": b64(body)}]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (setting("adapter_sha256", digest("x")), "adapter_sha256 is not what was signed"),
        (setting("base_sha256", digest("x")), "base_sha256 is not what was signed"),
        (setting("purpose", "x"), "purpose is not what was signed"),
        (setting("environment", "production"), "environment is not what was signed"),
        (setting("model", "x"), "model is not what was signed"),
        (setting("name", "x"), "permit is not what was signed"),
        (setting("evidence_root", "x"), "evidence_root is not what was signed"),
        (setting("not_after", "2030-01-01T00:00:00Z"), "not_after is not what was signed"),
        (setting("not_before", None), "not_before is not what was signed"),
        (setting("revoke_time", "2026-11-24T12:30:00Z"), "revoked"),
        (setting("signature", b64(b"x" * 64)), "permit key did not sign"),
        (setting("signature", "!"), "BASE64_MALFORMED"),
        (setting("signature", None), "BASE64_MALFORMED"),
        (setting("statement", b64(b"{}")), "STATEMENT_MALFORMED"),
        (setting("checkpoint", b64(b"x")), "NOTE_MALFORMED"),
        (setting("proofs", []), "no proofs"),
        (setting("proofs", {}), "no proofs"),
        (setting("proofs", [1]), "malformed"),
        (foreign_checkpoint, "NOTE_SIGNATURE_BAD"),
        (swapped_bodies, "INCLUSION_BAD"),
        (in_proof("tree_size", "5"), "another tree"),
        (in_proof("index", "999"), "INCLUSION_BAD"),
        (in_proof("index", "-1"), "malformed"),
        (in_proof("index", "1_0"), "malformed"),
        (in_proof("hashes", []), "INCLUSION_BAD"),
        (in_proof("hashes", ["AAAA"]), "INCLUSION_BAD"),
        (in_proof("hashes", "AAAA"), "malformed"),
        (in_proof("body", b64(b"{}")), "INCLUSION_BAD"),
        (without("permit.issued"), "no proof that it was issued"),
        (without("card.rendered"), "card is not proved"),
        (without("approval.decided"), "no two people"),
        (without("grant.issued"), "cora did not hold compliance_officer when signing"),
        (without("job.received"), "record of the request"),
        (setting("consistency", None), "CONSISTENCY_MISSING"),
        (setting("consistency", {}), "CONSISTENCY_MISSING"),
        (setting("consistency", [b64(bytes(32))]), "CONSISTENCY_BAD"),
        (setting("consistency", [b64(bytes(32))] * 65), "malformed"),
        (shown_approval, "not proved to be in the log"),
        (stated("approval", ("adapter", ADAPTER), ("base", BASE)), "what was signed is not a permit"),
        (stated("permit", ("adapter", BASE), ("base", ADAPTER)), "subjects are not the adapter and base"),
        (stated("permit", ("adapter", ADAPTER)), "subjects are not the adapter and base"),
        (of_another_log, "a record is of another log"),
    ],
    ids=range(42),
)
def test_changed_permits(story: Story, change: Callable[[dict[str, Any], Story], None], what: str) -> None:
    permit = copy.deepcopy(story.permit_message())
    change(permit, story)
    verdict = check(story, permit)
    assert not verdict.allowed and what in verdict.reason


def test_one_approval_is_not_enough(story: Story) -> None:
    permit = story.permit_message()
    ledger = story.world.ledger
    last = max(int(p["index"]) for p in permit["proofs"] if ledger.record(int(p["index"])).type == "approval.decided")
    permit["proofs"] = [p for p in permit["proofs"] if int(p["index"]) != last]
    assert "no two people" in check(story, permit).reason


@pytest.mark.parametrize("permit", [{}, {"statement": 1}, {"proofs": None}], ids=str)
def test_empty_permits(story: Story, permit: dict[str, Any]) -> None:
    assert not check(story, permit).allowed


def made(folder: Path, **changes: Any) -> Story:
    return Story(World(folder).start(), **changes)


def test_signed_by_the_maker(tmp_path: Path) -> None:
    verdict = check(made(tmp_path, approvers=[("cora", "ROLE_COMPLIANCE_OFFICER"), ("rita", "ROLE_VALIDATOR")]).whole())
    assert "the maker signed it" in verdict.reason


def test_role_not_held(tmp_path: Path) -> None:
    verdict = check(
        made(tmp_path, approvers=[("cora", "ROLE_COMPLIANCE_OFFICER"), ("mallory", "ROLE_VALIDATOR")]).whole()
    )
    assert f"{subject('mallory')} did not hold validator when signing" in verdict.reason


def test_role_revoked_since(tmp_path: Path) -> None:
    story = made(tmp_path).found().ask().decide().train().audit()
    for who, role in story.approvers:
        story.approve(who, role)
    story.revoke_grant("vik-validator")
    story.issue_permit()
    assert "does not hold validator" in check(story).reason


@pytest.mark.parametrize("revoked", [False, True])
def test_a_grant_or_its_end_by_somebody_who_is_no_operator(tmp_path: Path, revoked: bool) -> None:
    story = made(tmp_path).found()
    if revoked:
        story.revoke_grant("rita-requester", by="rita")
    else:
        story.grant("mallory", "ROLE_VALIDATOR", "-", by="rita")
    story.ask().decide().train().audit().release()
    assert "a grant is not signed by an operator" in check(story).reason


def test_an_approval_of_two_people(tmp_path: Path) -> None:
    story = made(tmp_path, approvers=()).found().ask().decide().train().audit()
    index, vik = story.approve("cora", "ROLE_COMPLIANCE_OFFICER"), story.world.people["vik"]
    record = canonical.decode(story.world.ledger.record(index).body)
    envelope = dsse.cosign_person(dsse.envelope_of(record["statement"], record["sigs"]), vik.key, vik.cert)
    story.world.append(RecordDraft("credit", "approval.decided", "approval", {}, envelope=envelope))
    assert "more than one person signed one approval" in check(story.release()).reason


def test_an_approval_after_the_permit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    story = made(tmp_path).found().ask().decide().train().audit()
    story.approve("cora", "ROLE_COMPLIANCE_OFFICER")
    story.issue_permit()
    late, covering = story.approve("vik", "ROLE_VALIDATOR"), story.world.ledger.covering_checkpoint
    monkeypatch.setattr(story.world.ledger, "covering_checkpoint", lambda _: covering(late))
    assert "an approval is younger than the permit" in check(story).reason


def test_refused_by_one(tmp_path: Path) -> None:
    story = made(tmp_path).found().ask().decide().train().audit()
    story.approve("cora", "ROLE_COMPLIANCE_OFFICER", "refuse")
    assert "a person refused it" in check(story.release()).reason


@pytest.mark.parametrize("member", ["adapter_sha256", "base_sha256", "purpose", "evidence_root"])
def test_approvals_for_something_else(tmp_path: Path, member: str) -> None:
    """The gateway permits what nobody approved."""
    story = made(tmp_path, approval_changes={member: digest("x")}).whole()
    assert f"another {member}" in check(story).reason


def test_attack_19_weights_swapped_with_the_gateways_help(tmp_path: Path) -> None:
    story = made(tmp_path).whole()
    story.issue_permit(adapter_sha256=digest("swapped"), permit="units/credit/permits/p2")
    assert "another adapter_sha256" in check(story, adapter=digest("swapped")).reason


def test_the_card_that_was_signed_is_of_other_weights(tmp_path: Path) -> None:
    """The gateway shows people the card of one adapter, and has them sign for another."""
    shown = made(tmp_path, card_subjects=[("adapter", digest("shown"))]).whole()
    assert "card is of another adapter" in check(shown).reason


def test_a_card_that_names_no_adapter_or_another_model(tmp_path: Path) -> None:
    (tmp_path / "unnamed").mkdir()
    unnamed = check(made(tmp_path / "unnamed", card_subjects=[]).whole())
    assert not unnamed.allowed and "card is of another adapter, or names none" in unnamed.reason
    (tmp_path / "other").mkdir()
    story = made(tmp_path / "other").found().ask().decide().train().audit()
    said = {"model": "units/credit/models/other", "card_sha256": CARD, "version": story.version}
    story.card_index = story.record("card.rendered", "card", said, [("adapter", ADAPTER)])
    story.evidence = (story.world.ledger.size, story.world.ledger.root(story.world.ledger.size).hex())
    assert "card is of another model" in check(story.release()).reason


@pytest.mark.parametrize(
    ("what", "chain", "words"),
    [
        *((kind, "system", "another chain") for kind in ("approval.decided", "card.rendered", "job.received")),
        ("permit.issued", "system", "another chain"),
        # A record in another unit's chain cannot name the job.
        ("permit.issued", "support", "another chain"),
        ("card.rendered", "support", "another chain"),
    ],
)
def test_records_of_another_chain_than_the_jobs_unit(tmp_path: Path, what: str, chain: str, words: str) -> None:
    """The officers of one unit let another's model run: what is said of a job stands in its own unit's chain."""
    story = made(tmp_path)
    append = story.world.append

    def elsewhere(draft: RecordDraft) -> int:
        if draft.type != what:
            return append(draft)
        predicate = {k: v for k, v in draft.predicate.items() if k != "job" or chain == "system"}
        return append(dataclasses.replace(draft, unit=chain, predicate=predicate))

    story.world.append = elsewhere  # type: ignore[method-assign]
    story.whole()
    approvals = [r.index for r in story.world.ledger.records(None, None, -1, 500) if r.type == "approval.decided"]
    verdict = check(story, story.permit_message([story.indices["job.received"], *approvals]))
    assert not verdict.allowed and words in verdict.reason


def test_a_role_in_another_unit_is_none_in_the_jobs(tmp_path: Path) -> None:
    grants = [("cora", "ROLE_COMPLIANCE_OFFICER", "support"), ("vik", "ROLE_VALIDATOR", "support")]
    assert "did not hold" in check(made(tmp_path, grants=grants).whole()).reason


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "units/support/models/replies"},
        {"model": "units/credit/models/other"},
        {"permit": "units/support/permits/p2"},
        {"job": "units/support/tuningJobs/replies"},
        {"job": ""},
        {"job": 7},
    ],
    ids=str,
)
def test_job_model_and_permit_belong_together(tmp_path: Path, changes: dict[str, Any]) -> None:
    story = made(tmp_path).whole()
    before = story.record

    def record(kind: str, name: str, predicate: Any, *rest: Any, **more: Any) -> int:
        return before(kind, name, {k: v for k, v in predicate.items() if k != "job"}, *rest, **more)

    story.record = record  # type: ignore[method-assign]
    story.issue_permit(**changes)
    assert "its job, model and name are not of one job" in check(story).reason


def test_the_record_says_all_that_was_signed(tmp_path: Path) -> None:
    story = made(tmp_path).whole()
    before = story.record

    def record(kind: str, name: str, predicate: Any, *rest: Any, **more: Any) -> int:
        return before(kind, name, {**predicate, "environment": "production"}, *rest, **more)

    story.record = record  # type: ignore[method-assign]
    story.issue_permit(permit="units/credit/permits/p2")
    assert "recorded another permit of this name" in check(story).reason


def test_what_people_signed_over_is_a_prefix_of_this_log(tmp_path: Path) -> None:
    """A root of no tree, or a tree that would not be smaller than the checkpoint's."""
    for name, evidence_of in (("root", lambda e: (e[0], "ab" * 32)), ("text", lambda e: (e[0], "AB" * 32))):
        (tmp_path / name).mkdir()
        story = made(tmp_path / name).found().ask().decide().train().audit()
        story.evidence = evidence_of(story.evidence)
        assert "CONSISTENCY" in check(story.release()).reason, name
    for name, size_of in (("whole", lambda e: e[0] + 5), ("none", lambda _: 0), ("truth", lambda _: True)):
        (tmp_path / name).mkdir()
        story = made(tmp_path / name).found().ask().decide().train().audit()
        story.evidence = (size_of(story.evidence), story.evidence[1])
        story.release()
        assert name != "whole" or story.evidence[0] == story.world.ledger.size
        # With a proof, which is of another size: what is looked at first is what people signed.
        story.permit["predicate"] = {**story.permit["predicate"], "evidence_size": 1}
        assert "CONSISTENCY_BAD: people signed over no tree smaller" in check(story).reason, name


def test_a_request_recorded_after_an_approval(tmp_path: Path) -> None:
    """The gateway makes up who asked when it is too late to keep that person from signing."""
    story = made(tmp_path, approvers=[("cora", "ROLE_COMPLIANCE_OFFICER"), ("rita", "ROLE_VALIDATOR")])
    story.grants = [*Story.grants, ("rita", "ROLE_VALIDATOR", "-")]
    story.whole()
    genuine = story.indices["job.received"]
    story.record("job.received", "request", {"request": {}}, actor=subject("mallory"))
    story.issue_permit(creator=subject("mallory"), permit="units/credit/permits/p2")
    both = story.permit_message()
    assert "one record of the request" in check(story, both).reason
    both["proofs"] = [p for p in both["proofs"] if int(p["index"]) != genuine]
    assert "request is younger than an approval" in check(story, both).reason


def test_longer_than_a_day(tmp_path: Path) -> None:
    story = made(tmp_path).whole().issue_permit(hours=25, permit="units/credit/permits/p2")
    assert "longer than a permit may" in check(story).reason


def test_without_a_maker(tmp_path: Path) -> None:
    story = made(tmp_path).whole().issue_permit(creator="", permit="units/credit/permits/p2")
    assert "does not name the maker" in check(story).reason


def test_the_log_recorded_who_asked_for_the_job(tmp_path: Path) -> None:
    """A gateway that names somebody else in the permit, so that the maker may approve, meets the job's first record."""
    story = made(tmp_path, approvers=[("cora", "ROLE_COMPLIANCE_OFFICER"), ("rita", "ROLE_VALIDATOR")]).whole()
    story.issue_permit(creator=subject("mallory"), permit="units/credit/permits/p2")
    assert "somebody else than the maker asked for the job" in check(story).reason


def test_signed_by_another_permit_key(tmp_path: Path) -> None:
    story = made(tmp_path).whole()
    story.permit_key = "stranger"
    story.issue_permit(permit="units/credit/permits/p2")
    assert "permit key did not sign" in check(story).reason


def test_recorded_otherwise_than_signed(tmp_path: Path) -> None:
    """A second statement under one permit name: the record is of the first."""
    story = made(tmp_path).whole()
    first = story.permit_message()
    story.issue_permit(environment="production")
    forged = {**story.permit_message(), **{name: first[name] for name in ("proofs", "checkpoint", "consistency")}}
    assert "recorded another permit of this name" in check(story, forged, environment="production").reason
    assert check(story, first).allowed


def test_another_logs_trust(story: Story, tmp_path: Path) -> None:
    world = World(tmp_path, services={n: ed25519("b" + n) for n in ("log", "permit", "train-worker", "audit-worker")})
    assert not check(story, trust=world.trust).allowed
    world.close()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=8), v, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(
        ["statement", "signature", "checkpoint", "proofs", "consistency", "approvals", "name", "not_after"]
    ),
    value=json_values,
)
def test_any_odd_field_is_refused_without_a_crash(story: Story, name: str, value: Any) -> None:
    permit = story.permit_message()
    permit[name] = value
    verdict = check(story, permit)
    assert not verdict.allowed or (name == "approvals" and not value)
