"""Intake: what a denial says, what a plan fixes, and what never gets an answer by accident."""

from __future__ import annotations

import datetime as dt
import math
from pathlib import Path
from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assay.errors import InvalidInputError, NotFoundError
from assay.v1 import dataset_pb2, identity_pb2, measurement_pb2, policy_input_pb2, policy_pb2
from audit.prepare import scan
from audit.prepare.task import TRAIN_SAMPLE
from policies import inputs, planning, statistics
from policies.engine import PolicyEngine
from policies.pack import load
from policies.rule import AT_INTAKE, Pack
from tests.policies.packs import one_rule_pack

PASS, FAIL, ERROR = policy_pb2.OUTCOME_PASS, policy_pb2.OUTCOME_FAIL, policy_pb2.OUTCOME_ERROR
GOOD = (PASS, policy_pb2.OUTCOME_NOT_APPLICABLE)


def fired(decision: policy_pb2.Decision) -> dict[str, policy_pb2.RuleOutcome]:
    return {outcome.rule_id: outcome for outcome in decision.outcomes if outcome.outcome not in GOOD}


def copy(question: policy_input_pb2.IntakeInput) -> policy_input_pb2.IntakeInput:
    out = policy_input_pb2.IntakeInput()
    out.CopyFrom(question)
    return out


def test_a_denial_names_every_rule_with_source_rows_and_remedy(
    engine: PolicyEngine, chat: policy_input_pb2.IntakeInput
) -> None:
    chat.request.purpose = "marketing-profiles"
    chat.datasheet.retention_days = 0
    chat.data.pii_row_share = 0.35
    decision = engine.decide(chat)
    assert not decision.allowed and not decision.HasField("audit_plan")
    denied = fired(decision)
    assert list(denied) == ["BASE-PURPOSE", "BASE-RETENTION", "BASE-PII-CEILING"]
    for outcome in denied.values():
        assert outcome.citation and outcome.fix and outcome.message and outcome.title and outcome.status
    rows = denied["BASE-PII-CEILING"]
    assert list(rows.rows) == [3, 8, 21] and rows.row_count == 210
    assert "marketing-profiles" in denied["BASE-PURPOSE"].message
    assert denied["BASE-PURPOSE"].caveat


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.integers(100, 5000), share=st.floats(0.21, 1.0))
def test_the_rows_to_drop_or_redact_are_exact(
    engine: PolicyEngine, chat: policy_input_pb2.IntakeInput, rows: int, share: float
) -> None:
    flagged = max(math.ceil(0.21 * rows), round(share * rows))
    question = copy(chat)
    question.data.rows = question.data.valid_rows = rows
    question.data.pii_row_share = flagged / rows
    fix = fired(engine.decide(question))["BASE-PII-CEILING"].fix.replace(",", "")
    numbers = [int(word) for word in fix.split() if word.isdigit()]
    redact, drop = numbers
    ceiling = 0.20

    def share_after(dropped: int, redacted: int) -> float:
        return (flagged - dropped - redacted) / (rows - dropped)

    assert share_after(0, redact) <= ceiling + 1e-9 < share_after(0, redact - 1) + 2e-9
    if drop < rows:
        assert share_after(drop, 0) <= ceiling + 1e-9 < share_after(drop - 1, 0) + 2e-9
    else:
        assert flagged == rows  # nothing is left to keep


def test_the_change_that_a_denial_names_makes_it_pass(engine: PolicyEngine, chat: policy_input_pb2.IntakeInput) -> None:
    chat.request.planned_train_tokens = 52_000
    chat.request.epochs = 3.0
    fix = fired(engine.decide(chat))["BASE-TOKENS"].fix
    epochs = float(fix.split("at most ")[1].split(",")[0])
    chat.request.planned_train_tokens = math.ceil(52_000 / 3.0 * epochs)
    chat.request.epochs = epochs
    assert engine.decide(chat).allowed


def test_an_allowed_request_gets_a_plan_in_which_everything_is_fixed(
    engine: PolicyEngine, chat: policy_input_pb2.IntakeInput
) -> None:
    decision = engine.decide(chat)
    plan = decision.audit_plan
    assert decision.allowed
    assert [gate.rule_id for gate in plan.gates] == [
        "GATE-CANARY-AUC", "GATE-CANARY-EXTRACTION", "GATE-PII-EXTRACTION", "GATE-PII-GENERATION", "GATE-LOSS-DELTA",
        "GATE-LOSS-GAP",
    ]  # fmt: skip
    sizes = {gate.measurement: gate.n for gate in plan.gates}
    assert sizes["privacy.canary_extraction_rate"] == 39
    assert sizes["privacy.canary_auc"] == statistics.n_for_auc(0.70, 0.5, 0.10, 0.8)
    assert all(gate.n > 0 and gate.alpha == 0.10 and gate.side for gate in plan.gates)
    assert list(plan.confidences) == sorted({round(1 - 0.10 / k, 12) for k in range(1, 7)})
    assert plan.seed == int(decision.input_sha256[:8], 16) & 0x7FFFFFFF
    assert plan.canary_manifest_sha256 == chat.data.canary_manifest_sha256
    assert plan.sealed_test_sha256 == chat.data.split_sha256["test"]
    assert (plan.profile, plan.time_limit_seconds, plan.task) == ("quick", 3600, dataset_pb2.DATASET_FORMAT_CHAT_JSONL)
    assert not {"fairness", "inference"} & set(plan.probes)
    assert plan.sample_sizes["generations"] == sizes["privacy.pii_generation_rate"] == 93
    assert dict(plan.batch_plan) == {"batch_tokens": 768, "generation_rows": 96}
    assert {g.measurement.partition("[")[0] for g in plan.gates} <= set(plan.metrics)
    assert "privacy.membership_auc" in plan.metrics and "fairness.impact_ratio" not in plan.metrics
    assert (
        plan.sample_sizes["test_rows"] == 90
        and plan.sample_sizes["generations"] >= sizes["privacy.pii_generation_rate"]
    )


def test_the_quick_plan_fits_into_its_seconds(engine: PolicyEngine, chat: policy_input_pb2.IntakeInput) -> None:
    # On two cores: about 2,000 forward and 480 greedy tokens a second; texts of 80 tokens; both models are scored.
    chat.data.test_rows = 5000
    sizes = engine.decide(chat).audit_plan.sample_sizes
    scored = 2 * 80 * (sizes["test_rows"] + sizes["train_rows"] + sizes["canaries"] + 2 * sizes["pii_spans"])
    written = sizes["generations"] * sizes["generation_tokens"] + 2 * 32 * sizes["verbatim_rows"]
    assert scored / 2000 + written / 480 < 120


def test_a_decision_request_plans_one_gate_for_each_attribute(
    engine: PolicyEngine, table: policy_input_pb2.IntakeInput
) -> None:
    table.datasheet.sensitive_attributes.append("sex")
    table.datasheet.hidden_columns.append("sex")
    table.data.columns.append("sex")
    plan = engine.decide(table).audit_plan
    names = [gate.measurement for gate in plan.gates if gate.measurement.startswith("fairness.")]
    assert names == [
        "fairness.impact_ratio[race]", "fairness.impact_ratio[sex]", "fairness.equalized_odds_difference[race]",
        "fairness.equalized_odds_difference[sex]", "fairness.counterfactual_excess[race]",
        "fairness.counterfactual_excess[sex]",
    ]  # fmt: skip
    assert "fairness" in plan.probes and list(plan.sensitive_attributes) == ["race", "sex"]
    ratio = next(gate for gate in plan.gates if gate.measurement == "fairness.impact_ratio[race]")
    assert (ratio.side, ratio.limit) == (measurement_pb2.LIMIT_SIDE_AT_LEAST, 0.80)
    assert ratio.n == statistics.n_for_impact_ratio(0.80, 1.0, 0.6, 2, 0.10, 0.8)
    assert not any(gate.measurement.startswith("privacy.pii") for gate in plan.gates)


def test_the_plan_names_the_groups_that_preparation_named_and_is_what_it_was_without(
    engine: PolicyEngine, table: policy_input_pb2.IntakeInput
) -> None:
    before = engine.decide(table).audit_plan
    assert not before.groups
    named = ["race=white", "race=black", "race: other groups together"]
    table.data.compared_groups.extend(named)
    plan = engine.decide(table).audit_plan
    assert list(plan.groups) == named and plan.seed != before.seed
    del plan.groups[:]
    plan.seed = before.seed  # of the question's digest
    assert plan == before


@pytest.mark.parametrize(
    ("known", "gated", "census"), [(0, False, None), (1, False, 1), (58, False, 58), (59, True, None)]
)
def test_identifiers_are_estimated_or_counted_out(
    engine: PolicyEngine, chat: policy_input_pb2.IntakeInput, known: int, gated: bool, census: int | None
) -> None:
    chat.data.train_pii_spans = known
    plan = engine.decide(chat).audit_plan
    assert any(gate.rule_id == "GATE-PII-EXTRACTION" for gate in plan.gates) == gated
    assert plan.sample_sizes.get("pii_census") == census
    assert any(gate.rule_id == "GATE-PII-GENERATION" for gate in plan.gates) == (known > 0)


@pytest.mark.parametrize(
    ("known", "share", "gated", "census"),
    [
        (66, 0.1, False, 66),
        (66, 0.15, True, None),
        (390, 0.1, False, 390),
        (401, 0.1, True, None),
        (66, 0.0, True, None),
    ],
)
def test_many_identifiers_in_few_rows_are_counted_out(
    engine: PolicyEngine, chat: policy_input_pb2.IntakeInput, known: int, share: float, gated: bool, census: int | None
) -> None:
    """A row is one trial; where too many are in too few rows to try all, the gate says that there are too few rows."""
    chat.data.train_pii_spans, chat.data.pii_row_share = known, share
    plan = engine.decide(chat).audit_plan
    assert any(gate.rule_id == "GATE-PII-EXTRACTION" for gate in plan.gates) == gated
    assert plan.sample_sizes.get("pii_census") == census
    assert census is None or plan.sample_sizes["pii_spans"] >= census
    assert any(gate.rule_id == "GATE-PII-GENERATION" for gate in plan.gates)


@pytest.mark.parametrize(
    ("known", "people", "gated", "census"), [(200, 150, True, None), (200, 20, False, 200), (600, 20, True, None)]
)
def test_where_rows_say_whose_they_are_people_are_counted(
    engine: PolicyEngine, chat: policy_input_pb2.IntakeInput, known: int, people: int, gated: bool, census: int | None
) -> None:
    """Rows of one person are one trial; more identifiers than are handed over cannot all be tried."""
    chat.data.train_pii_spans, chat.data.pii_row_share, chat.data.train_pii_units = known, 0.9, people
    plan = engine.decide(chat).audit_plan
    assert any(gate.rule_id == "GATE-PII-EXTRACTION" for gate in plan.gates) == gated
    assert plan.sample_sizes.get("pii_census") == census


def test_the_plan_knows_how_many_identifiers_are_handed_over() -> None:
    """Policy and preparation know nothing of one another, so both state these numbers."""
    assert planning.MOST_IDENTIFIERS == scan.TRAIN_SPANS
    assert planning.MOST_TRAINING_PROMPTS == TRAIN_SAMPLE


@pytest.mark.parametrize("profile", ["quick", "default", "strict"])
def test_prompts_are_counted_among_as_many_training_rows_as_the_audit_scores(
    engine: PolicyEngine, chat: policy_input_pb2.IntakeInput, profile: str
) -> None:
    """Were 200 counted in each profile, a file of which ``quick`` asks too few would be trained for nothing."""
    chat.request.audit_profile = profile
    chat.data.test_rows, chat.data.selection_rows, chat.data.train_rows = 5, 3, 5000
    chat.data.canaries_inserted = chat.data.canaries_held_out = 2000
    planner, day = planning.Planner(engine.pack), dt.date(2026, 9, 1)
    scored = planner.limits.number("sample_train_rows", profile)
    asked = planner.known_prompts(chat, day)
    assert asked == 8 + min(200, max(scored, planner.needed(chat, day)["test_rows"]))


def test_identifiers_that_were_not_counted_by_split_are_not_taken_for_none(
    engine: PolicyEngine, chat: policy_input_pb2.IntakeInput
) -> None:
    chat.data.ClearField("train_pii_spans")
    assert any(gate.rule_id == "GATE-PII-EXTRACTION" for gate in engine.decide(chat).audit_plan.gates)
    chat.data.pii[0].count = 4
    assert engine.decide(chat).audit_plan.sample_sizes["pii_census"] == 1


def test_profiles_ask_for_more_when_their_limits_are_tighter(
    engine: PolicyEngine, chat: policy_input_pb2.IntakeInput
) -> None:
    chat.data.canaries_inserted = chat.data.canaries_held_out = 2000
    chat.data.test_rows = 2000
    sizes = {}
    for profile in ("quick", "default", "strict"):
        chat.request.audit_profile = profile
        plan = engine.decide(chat).audit_plan
        sizes[profile] = {gate.rule_id: gate.n for gate in plan.gates}
        assert plan.confidences[0] == pytest.approx(0.95 if profile == "strict" else 0.90)
    assert sizes["strict"]["GATE-CANARY-EXTRACTION"] > sizes["default"]["GATE-CANARY-EXTRACTION"]


def test_quick_writes_no_answers_where_nothing_could_come_back_in_them(
    engine: PolicyEngine, chat: policy_input_pb2.IntakeInput
) -> None:
    chat.data.train_pii_spans = 0
    plan = engine.decide(chat).audit_plan
    assert "GATE-PII-GENERATION" not in {gate.rule_id for gate in plan.gates}
    assert plan.sample_sizes["generations"] == 0
    chat.request.audit_profile = "default"
    plan = engine.decide(chat).audit_plan
    assert plan.sample_sizes["generations"] == 400
    assert "inference" in plan.probes


def test_preparation_plants_enough_for_the_gates(engine: PolicyEngine) -> None:
    quick = engine.preparation("quick")
    assert quick["a"] == statistics.coin_flips(39, 0.99) and quick["b"] == 8 and quick["b_repeats"] == 4
    assert engine.preparation("strict")["a"] > quick["a"]
    assert engine.preparation("unheard-of") == engine.preparation("strict")
    assert set(quick) == {"a", "b", "b_repeats"}


def test_the_page_says_how_many_canaries_are_derived(engine: PolicyEngine) -> None:
    derived = [engine.preparation(profile)["a"] for profile in ("quick", "default", "strict")]
    kept = [39, 59, 183]
    assert derived == [statistics.coin_flips(n, 0.99) for n in kept]
    words = "{} are derived in `quick`, {} in `default` and {} in `strict`: they leave the {}, {} and {} that"
    page = (Path(__file__).parents[2] / "docs" / "policies.md").read_text("utf-8")
    assert words.format(*derived, *kept) in page


def test_the_quorum_is_two_roles(engine: PolicyEngine) -> None:
    assert engine.quorum() == (identity_pb2.ROLE_COMPLIANCE_OFFICER, identity_pb2.ROLE_VALIDATOR)


def test_preflight_asks_only_what_needs_no_rows(engine: PolicyEngine, chat: policy_input_pb2.IntakeInput) -> None:
    chat.ClearField("data")
    chat.request.quote_usd_micros = chat.request.planned_train_tokens = 0
    decision = engine.preflight(chat)
    asked = {outcome.rule_id for outcome in decision.outcomes}
    assert decision.allowed and not decision.HasField("audit_plan")
    assert {"BASE-PURPOSE", "BASE-MODEL", "BASE-RESIDENCY", "BASE-DP", "BASE-SENSITIVE"} <= asked
    assert asked.isdisjoint({"BASE-BUDGET", "BASE-TOKENS", "BASE-PII-CEILING", "BASE-CANARIES", "BASE-EVALUATION"})
    assert not any(rule_id.startswith(("GATE-", "REL-")) for rule_id in asked)
    chat.request.purpose = "marketing"
    assert not engine.preflight(chat).allowed


def test_preflight_does_not_hold_against_a_noise_multiplier_that_no_rows_are_counted(
    engine: PolicyEngine, chat: policy_input_pb2.IntakeInput
) -> None:
    chat.ClearField("data")
    chat.datasheet.classification = dataset_pb2.CLASSIFICATION_RESTRICTED
    chat.request.differential_privacy.MergeFrom(policy_input_pb2.DifferentialPrivacy(noise_multiplier=1, delta=1e-6))
    said = {o.rule_id: o.outcome for o in engine.preflight(chat).outcomes}
    assert said["BASE-DP"] == said["BASE-DP-METHOD"] == policy_pb2.OUTCOME_PASS and "BASE-EPSILON" not in said


def test_the_same_question_has_the_same_answer_and_another_another_digest(
    engine: PolicyEngine, chat: policy_input_pb2.IntakeInput
) -> None:
    first, second = engine.decide(chat), engine.decide(copy(chat))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)
    assert len(first.bundle_sha256) == len(first.limits_sha256) == len(first.input_sha256) == 64
    assert first.engine.startswith("cel-expr-python ")
    chat.data.test_rows += 1
    assert engine.decide(chat).input_sha256 != first.input_sha256


def test_rules_have_days(pack: Pack, chat: policy_input_pb2.IntakeInput) -> None:
    early = PolicyEngine(pack, as_of=dt.date(2017, 1, 1)).decide(chat)
    assert not early.allowed and early.as_of == "2017-01-01"
    assert {outcome.outcome for outcome in early.outcomes} == {policy_pb2.OUTCOME_NOT_APPLICABLE}
    chat.as_of = "2026-06-30"
    assert PolicyEngine(pack, as_of=dt.date(2017, 1, 1)).decide(chat).allowed
    chat.as_of = "soon"
    with pytest.raises(InvalidInputError) as caught:
        PolicyEngine(pack).decide(chat)
    assert caught.value.reason == "AS_OF"


def test_a_pack_without_a_gate_that_applies_allows_nothing(tmp_path: Path, chat: policy_input_pb2.IntakeInput) -> None:
    decision = PolicyEngine(load(one_rule_pack(tmp_path, "expression: 'true'"))).decide(chat)
    assert not decision.allowed
    assert [outcome.rule_id for outcome in decision.outcomes] == ["ONE", "AUDIT-PLAN"]


@pytest.mark.parametrize("field", ["pii_row_share"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_denies_every_rule(
    engine: PolicyEngine, chat: policy_input_pb2.IntakeInput, field: str, value: float
) -> None:
    setattr(chat.data, field, value)
    decision = engine.decide(chat)
    assert not decision.allowed
    assert {outcome.outcome for outcome in decision.outcomes} == {ERROR}
    assert f"data.{field} is not a finite number" in decision.outcomes[0].message


def test_what_is_too_long_is_not_judged(engine: PolicyEngine, chat: policy_input_pb2.IntakeInput) -> None:
    wide = copy(chat)
    wide.data.columns.extend(["c"] * (inputs.MAX_ITEMS + 1))
    long = copy(chat)
    long.datasheet.provenance = "x" * (inputs.MAX_STRING + 1)
    key = copy(chat)
    key.data.group_counts["a" * (inputs.MAX_STRING + 1)] = 1
    huge = copy(chat)
    huge.data.pii_detector = "x" * (inputs.MAX_BYTES + 1)
    for question, words in ((wide, "entries"), (long, "characters"), (key, "a key of"), (huge, "bytes")):
        decision = engine.decide(question)
        assert {outcome.outcome for outcome in decision.outcomes} == {ERROR}
        assert words in decision.outcomes[0].message
        assert not decision.allowed


def test_a_question_that_has_no_canonical_bytes_is_denied(
    engine: PolicyEngine, table: policy_input_pb2.IntakeInput
) -> None:
    table.data.group_counts["herkunft=südlich"] = 10
    decision = engine.decide(table)
    assert not decision.allowed and decision.input_sha256 == ""
    assert {outcome.outcome for outcome in decision.outcomes} == {ERROR}


def test_an_empty_question_is_denied_by_rules_and_not_by_a_crash(engine: PolicyEngine) -> None:
    decision = engine.decide(policy_input_pb2.IntakeInput())
    assert not decision.allowed
    assert {"BASE-PURPOSE", "BASE-MODEL", "BASE-CLASSIFICATION", "BASE-EVALUATION", "BASE-CANARIES"} <= set(
        fired(decision)
    )


def test_a_denial_that_people_may_waive_has_a_plan(engine: PolicyEngine, chat: policy_input_pb2.IntakeInput) -> None:
    chat.data.pii_row_share = 0.4
    decision = engine.decide(chat)
    assert not decision.allowed and decision.HasField("audit_plan")
    assert fired(decision)["BASE-PII-CEILING"].waivable_by == "ROLE_COMPLIANCE_OFFICER"
    chat.request.purpose = "marketing"
    assert not engine.decide(chat).HasField("audit_plan")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_question_crashes_the_engine_or_is_allowed_without_a_plan(
    engine: PolicyEngine, chat: policy_input_pb2.IntakeInput, data: st.DataObject
) -> None:
    question = copy(chat)
    whole = st.integers(-(2**62), 2**62)
    for name in (
        "rows",
        "valid_rows",
        "invalid_rows",
        "test_rows",
        "train_tokens",
        "canaries_inserted",
        "train_pii_spans",
    ):
        if data.draw(st.booleans()):
            setattr(question.data, name, data.draw(whole))
    question.data.label_counts["yes"] = data.draw(whole)
    question.data.pii_row_share = data.draw(st.floats(allow_nan=True, allow_infinity=True))
    question.request.audit_profile = data.draw(st.sampled_from(["quick", "strict", "", "x"]))
    question.request.epochs = data.draw(st.floats())
    question.format = cast(dataset_pb2.DatasetFormat, data.draw(st.sampled_from([0, 1, 2])))
    decision = engine.decide(question)
    assert decision.allowed <= decision.HasField("audit_plan")
    assert len(decision.outcomes) == sum(rule.stage in AT_INTAKE for rule in engine.pack.rules)


def test_the_policy_lists_and_explains_every_rule(engine: PolicyEngine, pack: Pack) -> None:
    policy = engine.policy()
    assert policy.name == "policies/baseline" and len(policy.rules) == len(pack.rules)
    for rule in policy.rules:
        assert rule.expression and rule.citation and rule.effective_from and rule.stage and rule.status
        answer = engine.explain(rule.id)
        assert answer.explanation and answer.rule == rule
    answer = engine.explain("GATE-CANARY-EXTRACTION")
    assert answer.limits["canary_extraction_rate"] == "quick: 0.075, default: 0.05, strict: 0.02 (ratio)"
    assert "39 clean trials" in answer.explanation
    assert "at least … of these rows" in engine.explain("BASE-PII-CEILING").explanation
    with pytest.raises(NotFoundError):
        engine.explain("NO-SUCH-RULE")


def test_no_internal_limit_is_presented_as_law(pack: Pack) -> None:
    for rule in pack.rules:
        assert rule.status != "binding" or rule.gate is None
        assert "SR 11-7" not in rule.citation and "anonymous" not in rule.title.lower()
        if "AI Act" in rule.citation:
            assert "2027" in rule.caveat


def test_the_default_profile_asks_more_with_enough_of_everything(
    engine: PolicyEngine, table: policy_input_pb2.IntakeInput
) -> None:
    table.request.audit_profile = "quick"
    quick = engine.decide(table).audit_plan
    table.request.audit_profile = "default"
    plan = engine.decide(table).audit_plan
    more = {
        "counterfactual",
        "regression",
        "stereotypes",
        "baselines",
        "robustness",
        "proxies",
        "reasons",
        "alternatives",
    }
    assert more <= set(plan.probes) and not more & set(quick.probes)
    n = {gate.measurement: gate.n for gate in plan.gates}
    assert 0 < n["fairness.counterfactual_excess[race]"] <= plan.sample_sizes["counterfactual_rows"]
    assert n["regression.capability_delta"] <= 4 * plan.sample_sizes["evaluation_items"]
    for name in ("regression.forgetting_delta", "safety.refusal_preference_delta"):
        assert 0 < n[name] <= plan.sample_sizes["evaluation_items"]
    assert not any(gate.measurement.startswith(("regression.", "safety.")) for gate in quick.gates)
