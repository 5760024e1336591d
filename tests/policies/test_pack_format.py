"""What a pack says beyond its expressions: stages, severity, artefacts, doubts, units; and rules asked together."""

from __future__ import annotations

import dataclasses
import datetime as dt
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assay import canonical
from assay.errors import InvalidInputError
from assay.v1 import policy_input_pb2, policy_pb2
from policies import artefacts, asking, inputs, testing
from policies.engine import PolicyEngine
from policies.fused import Fused
from policies.pack import BASELINE, load
from policies.rule import AT_INTAKE, Pack
from tests.policies.packs import one_rule_pack, replace

DIGEST = "a" * 64


def only(folder: Path, question: policy_input_pb2.IntakeInput) -> policy_pb2.RuleOutcome:
    return PolicyEngine(load(folder)).decide(question).outcomes[0]


@pytest.mark.parametrize(("severity", "outcome"), [("warn", "WARN"), ("audit", "WARN"), ("deny", "FAIL")])
def test_what_only_warns_does_not_deny(
    tmp_path: Path, chat: policy_input_pb2.IntakeInput, severity: str, outcome: str
) -> None:
    folder = one_rule_pack(tmp_path, "expression: 'false'")
    replace(folder / "rules.yaml", "severity: deny", f"severity: {severity}")
    said = only(folder, chat)
    assert policy_pb2.Outcome.Name(said.outcome) == f"OUTCOME_{outcome}" and said.message == "It is not so."


def test_a_warning_that_cannot_be_evaluated_denies_all_the_same(
    tmp_path: Path, chat: policy_input_pb2.IntakeInput
) -> None:
    folder = one_rule_pack(tmp_path, "expression: 1 / (data.rows - data.rows) == 1")
    replace(folder / "rules.yaml", "severity: deny", "severity: warn")
    assert only(folder, chat).outcome == policy_pb2.OUTCOME_ERROR


def test_an_artefact_that_is_not_there_is_a_gap_and_a_gap_denies(
    tmp_path: Path, chat: policy_input_pb2.IntakeInput
) -> None:
    folder = one_rule_pack(tmp_path, "expression: 'true'\n    artefacts: [REQ, DPIA]")
    said = only(folder, chat)
    assert said.outcome == policy_pb2.OUTCOME_FAIL and list(said.artefacts_missing) == ["DPIA"]
    assert said.message.startswith("GAP") and "DPIA" in said.fix
    chat.request.use.artefacts.add(kind="DPIA", sha256="short")
    assert only(folder, chat).outcome == policy_pb2.OUTCOME_FAIL  # a name without a digest shows nothing
    chat.request.use.artefacts[0].sha256 = DIGEST
    said = only(folder, chat)
    assert said.outcome == policy_pb2.OUTCOME_WARN, "any 64 hex digits are a digest, and prove no document"
    assert said.message.startswith(asking.DECLARED) and DIGEST in said.message and "DPIA" in said.fix


@pytest.mark.parametrize("kind", sorted(set(artefacts.KINDS) - artefacts.HANDED_IN))
def test_what_the_house_makes_is_taken_from_nobody(
    chat: policy_input_pb2.IntakeInput, release: policy_input_pb2.ReleaseInput, kind: str
) -> None:
    before = artefacts.at_intake(chat), artefacts.at_release(release)
    for request in (chat.request, release.request):
        request.use.artefacts.add(kind=kind, sha256=DIGEST)
    assert (artefacts.at_intake(chat), artefacts.at_release(release)) == before


def test_a_harm_audit_is_declared_until_one_is_made(release: policy_input_pb2.ReleaseInput) -> None:
    assert "SAFE" not in artefacts.at_release(release)
    release.request.use.artefacts.add(kind="SAFE", sha256=DIGEST)
    assert artefacts.at_release(release)["SAFE"] == DIGEST
    release.measurements["safety.refusal_preference_delta"].value = 0.0
    assert artefacts.at_release(release)["SAFE"] == ""


def test_documents_of_one_kind_are_all_named_in_one_order(chat: policy_input_pb2.IntakeInput) -> None:
    for digit in "bcab":
        chat.request.use.artefacts.add(kind="DPIA", sha256=64 * digit)
    assert artefacts.at_intake(chat)["DPIA"] == f"{64 * 'a'}, {64 * 'b'}, {64 * 'c'}"


def test_a_document_is_shown_by_its_own_digest_and_alone_allows_nothing(
    tmp_path: Path, pack: Pack, chat: policy_input_pb2.IntakeInput
) -> None:
    alone = PolicyEngine(load(one_rule_pack(tmp_path, "expression: 'true'\n    artefacts: [DPIA]")))
    asked = dataclasses.replace(alone.pack.rules[0], pack=pack.parts[0].name)
    both = PolicyEngine(dataclasses.replace(pack, rules=(*pack.rules, asked)))
    for digit in "abcbdbaab":
        del chat.request.use.artefacts[:]
        chat.request.use.artefacts.add(kind="DPIA", sha256=64 * digit)
        assert not alone.decide(chat).allowed, "a warning is no reason to allow"
        answer = both.decide(chat)
        said = {outcome.rule_id: outcome.message for outcome in answer.outcomes}
        assert answer.allowed and 64 * digit in said["ONE"]


def test_an_audit_that_could_not_be_made_is_no_artefact(release: policy_input_pb2.ReleaseInput) -> None:
    assert "PRIV" in artefacts.at_release(release) and "PERMIT" not in artefacts.at_release(release)
    for measured in release.measurements.values():
        measured.unavailable = "out of time"
    assert {"PRIV", "PERF", "COST"}.isdisjoint(artefacts.at_release(release))


def test_an_internal_limit_in_a_binding_rule_is_named_as_internal(
    tmp_path: Path, chat: policy_input_pb2.IntakeInput
) -> None:
    folder = one_rule_pack(tmp_path, "expression: data.rows < 0 && limits.power > 0.0")
    replace(
        folder / "rules.yaml",
        "status: internal",
        "status: binding\n    reference: Article 1\n    unconfirmed: read in a summary",
    )
    said = only(folder, chat)
    assert said.caveat == "Unconfirmed: read in a summary Limits that it reads are internal choices, not law: power."


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("packs: []", "PACK_SCHEMA"),
        ("packs: [baseline, baseline]", "PACK_SCHEMA"),
        ("packs: [../baseline]", "PACK_SCHEMA"),
        ("packs: [baseline, second]", "PACK_UNREADABLE"),
        ("packs: [baseline]\nunits: {credit: [baseline]}", "PACK_SCHEMA"),
        ("packs: [baseline]\nunits: {Credit: []}", "PACK_SCHEMA"),
    ],
)
def test_a_faulty_bundle_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    shutil.copytree(BASELINE, tmp_path / "baseline")
    bundle = "apiVersion: policies.assay.dev/v1\nkind: PolicyBundle\nmetadata: {name: b, version: '1', owner: o, "
    body = text if "units" in text else f"{text}\nunits: {{}}"
    (tmp_path / "bundle.yaml").write_text(f"{bundle}description: d}}\n{body}\n", "utf-8")
    with pytest.raises(InvalidInputError) as caught:
        load(tmp_path)
    assert caught.value.reason == reason and caught.value.metadata.get("file", "bundle.yaml")


def test_rules_asked_together_say_what_they_say_one_by_one(pack: Pack, cases: dict[str, testing.Case]) -> None:
    engine = PolicyEngine(pack)
    rules = [rule for rule in pack.rules if rule.stage in AT_INTAKE and rule.in_force(dt.date(2026, 11, 1))]
    fused = Fused.of(rules, pack.intake)
    assert fused.chunks
    for case in cases.values():
        question = case.intake
        there = artefacts.at_intake(question)
        activation = engine._bind(
            engine._view(question.request.unit),
            question,
            dt.date(2026, 11, 1),
            there,
            pack.limits.bindings(question.request.audit_profile),
        )

        def missing(name: str, question: policy_input_pb2.IntakeInput = question) -> tuple[policy_pb2.Outcome, str]:
            reason = inputs.missing_fact(question, name)
            return (policy_pb2.OUTCOME_ERROR, reason) if reason else (policy_pb2.OUTCOME_PASS, "")

        alone = [asking.ask(rule, activation, missing, there) for rule in rules]
        together = engine.decide(_on(question, "2026-11-01")).outcomes
        assert [o.SerializeToString(deterministic=True) for o in alone] == [
            o.SerializeToString(deterministic=True) for o in together[: len(rules)]
        ]


def test_one_rule_that_cannot_be_evaluated_leaves_the_others_as_they_are(
    tmp_path: Path, chat: policy_input_pb2.IntakeInput
) -> None:
    pack = load(one_rule_pack(tmp_path, "expression: data.rows > 0"))
    (good,) = pack.rules
    bad = dataclasses.replace(good, id="TWO", check=pack.intake.compile("1 / (data.rows - data.rows) == 1"))
    outcomes = PolicyEngine(dataclasses.replace(pack, rules=(good, bad))).decide(chat).outcomes
    assert [o.outcome for o in outcomes] == [policy_pb2.OUTCOME_PASS, policy_pb2.OUTCOME_ERROR]


def test_what_was_written_once_is_not_believed_of_a_question_that_lacks_a_fact(
    pack: Pack, chat: policy_input_pb2.IntakeInput
) -> None:
    engine = PolicyEngine(pack)
    assert engine.decide(chat).allowed and engine.decide(chat).allowed
    # The condition still holds, and the fact that the rule needs is gone.
    chat.data.pii_detector = ""
    fired = {o.rule_id: o.outcome for o in engine.decide(chat).outcomes}
    assert fired["BASE-PII-CEILING"] == policy_pb2.OUTCOME_ERROR


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
def test_a_word_that_looks_like_no_number_is_a_word(pack: Pack, chat: policy_input_pb2.IntakeInput, text: str) -> None:
    chat.request.purpose = text
    chat.datasheet.purposes.append(text)
    assert PolicyEngine(pack).decide(chat).allowed
    chat.request.epochs = float(text)
    assert not PolicyEngine(pack).decide(chat).allowed


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(st.characters(exclude_categories=["Cs"])),
    number=st.integers(-(2**63), 2**63 - 1),
    real=st.floats(),
    keys=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), st.integers(0, 9)),
)
def test_a_message_written_in_one_pass_has_the_bytes_of_two(
    release: policy_input_pb2.ReleaseInput, text: str, number: int, real: float, keys: dict[str, int]
) -> None:
    release.request.purpose, release.request.budget_usd_micros, release.request.epochs = text, number, real
    question = policy_input_pb2.IntakeInput(request=release.request, data={"label_counts": keys, "pii_rows": [number]})
    try:
        wanted = canonical.encode(canonical.from_message(question))
    except InvalidInputError as error:
        with pytest.raises(InvalidInputError) as caught:
            canonical.encode_message(question)
        assert caught.value.reason == error.reason
        return
    assert canonical.encode_message(question) == wanted
    assert canonical.encode_message(release) == canonical.encode(canonical.from_message(release))


def _on(question: policy_input_pb2.IntakeInput, day: str) -> policy_input_pb2.IntakeInput:
    out = policy_input_pb2.IntakeInput()
    out.CopyFrom(question)
    out.as_of = day
    return out
