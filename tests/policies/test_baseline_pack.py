"""The baseline pack's own table: every rule seen both ways, no rule that could be true for all anybody noticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay.errors import InvalidInputError
from assay.v1 import policy_input_pb2, policy_pb2
from policies import testing
from policies.engine import PolicyEngine
from policies.inputs import MAX_ITEMS
from policies.pack import BASELINE, load
from policies.planning import Planner
from policies.rule import AT_INTAKE, Pack
from tests.policies.packs import copy_baseline, replace


def test_every_case_holds_every_rule_is_covered_and_no_mutant_survives() -> None:
    report = testing.test_pack(BASELINE)
    assert report.failures == ()
    assert report.uncovered == ()
    assert report.survivors == ()
    assert report.ok and report.cases > 70


def test_there_are_more_than_ten_intake_rules_and_every_gate_of_the_contract(pack: Pack) -> None:
    assert sum(rule.stage in AT_INTAKE for rule in pack.rules) >= 10
    gated = {rule.gate.measurement for rule in pack.rules if rule.gate is not None}
    assert gated == {
        "privacy.canary_auc", "privacy.canary_extraction_rate", "privacy.pii_extraction_rate",
        "privacy.pii_generation_rate", "quality.test_loss_delta", "overfitting.loss_gap", "fairness.impact_ratio",
        "fairness.equalized_odds_difference", "fairness.counterfactual_excess", "regression.forgetting_delta",
        "regression.capability_delta", "safety.refusal_preference_delta",
    }  # fmt: skip


def test_the_page_counts_the_rules_that_the_pack_has(pack: Pack) -> None:
    before = sum(rule.stage in AT_INTAKE for rule in pack.rules)
    gates = sum(rule.gate is not None for rule in pack.rules)
    told = f"{before} rules before training, {gates} gates, {len(pack.rules) - before - gates} more of release"
    assert told in (Path(__file__).parents[2] / "docs" / "policies.md").read_text("utf-8")


def test_a_rule_without_a_failing_case_keeps_the_pack_from_loading(tmp_path: Path) -> None:
    folder = copy_baseline(tmp_path)
    text = (folder / "tests.yaml").read_text("utf-8")
    start = text.index("  - name: dearer than agreed")
    end = text.index("  - name: more tokens than agreed")
    (folder / "tests.yaml").write_text(text[:start] + text[end:], "utf-8")
    with pytest.raises(InvalidInputError) as caught:
        PolicyEngine.load(folder)
    assert caught.value.reason == "PACK_TESTS_FAILED"
    assert "REL-COST" in caught.value.diagnostics()
    report = testing.test_pack(folder)
    assert report.uncovered == ("REL-COST",) and report.survivors == ("REL-COST",) and not report.ok


def test_a_weakened_rule_is_noticed_by_its_tests(tmp_path: Path) -> None:
    folder = copy_baseline(tmp_path)
    replace(folder / "rules.yaml", "run.trained_tokens <= request.max_train_tokens", "run.trained_tokens < 9000000")
    with pytest.raises(InvalidInputError) as caught:
        PolicyEngine.load(folder)
    assert "REL-TOKENS should be fail, but is pass" in caught.value.diagnostics()


def test_a_rule_that_became_stricter_is_noticed_too(tmp_path: Path) -> None:
    folder = copy_baseline(tmp_path)
    replace(folder / "limits.yaml", "smollm2-135m-instruct: 8192", "smollm2-135m-instruct: 64")
    with pytest.raises(InvalidInputError) as caught:
        PolicyEngine.load(folder)
    assert "BASE-ROWS-FIT should pass" in caught.value.diagnostics()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("fires: {BASE-PURPOSE: fail}", "fires: {BASE-PURPOSES: fail}"),
        ("fires: {BASE-PURPOSE: fail}", "fires: {BASE-PURPOSE: denied}"),
        ("set: {request.purpose: marketing-profiles}", "set: {request.purposes: marketing-profiles}"),
        ("intake: chat\n    set: {request.purpose", "intake: chats\n    set: {request.purpose"),
        ("  - name: the purpose is not one of the datasheet's\n", "  - title: the purpose\n"),
        ("fires: {BASE-PURPOSE: fail}", "fires: {BASE-PURPOSE: fail}\n    release: chat"),
    ],
)
def test_a_malformed_case_is_refused_with_its_place(tmp_path: Path, old: str, new: str) -> None:
    folder = copy_baseline(tmp_path)
    replace(folder / "tests.yaml", old, new)
    with pytest.raises(InvalidInputError) as caught:
        testing.test_pack(folder)
    assert caught.value.metadata["file"] == "tests.yaml" and int(caught.value.metadata["line"]) > 1


def test_words_that_a_case_expects_must_be_said(tmp_path: Path) -> None:
    folder = copy_baseline(tmp_path)
    replace(folder / "tests.yaml", '"Mend at least 8 of"', '"Mend at least 9 of"')
    report = testing.run(load(folder), testing.read_cases(load(folder)))
    (failure,) = report.failures
    assert "should say 'Mend at least 9 of'" in failure.message and failure.line > 100


def test_shorthand_measurements_are_what_probes_would_send() -> None:
    proportion = testing.measurement("privacy.canary_extraction_rate", {"successes": 0, "n": 59}, [0.90])
    assert proportion.value == 0 and proportion.intervals[0].upper == pytest.approx(0.0495, abs=1e-4)
    sliced = testing.measurement("fairness.impact_ratio[race]", {"value": 0.9, "lower": 0.8, "n": 5}, [0.9])
    assert (sliced.name, sliced.slice) == ("fairness.impact_ratio", "race")
    assert not sliced.intervals[0].HasField("upper")


def test_columns_are_known_by_their_names_however_they_are_written(
    pack: Pack, table: policy_input_pb2.IntakeInput
) -> None:
    columns = ["decision", "Marital Status", "NATIONAL-ORIGIN", "sex", "sexton", "age_cat", "mileage", "", "_"]
    table.data.columns[:] = columns
    planner = Planner(pack)
    assert planner.known_columns(table, "protected_columns") == columns[1:4]
    assert planner.known_columns(table, "age_columns") == ["age_cat"]
    assert planner.known_columns(table, "no_such_limit") == [], "a bundle of before states none and is still asked"


def test_groups_are_named_in_one_order_whatever_the_order_of_the_map(
    engine: PolicyEngine, table: policy_input_pb2.IntakeInput
) -> None:
    groups = [f"race={i:02}" for i in range(40)]
    said = set()
    for start in range(5):
        table.data.untested_groups.clear()
        table.data.untested_groups.update(dict.fromkeys(groups[start:] + groups[:start], 3))
        [denied] = [o for o in engine.decide(table).outcomes if o.rule_id == "BASE-GROUPS-TESTED"]
        said.add(denied.message)
    [message] = said
    assert "race=00, race=01" in message and message.endswith("race=09 and 30 more.")
    assert "3" not in message.replace("race=03", "").replace("30 more", ""), "what of a group is there is not told"


def test_officers_make_a_refusal_of_a_quick_audit_by_its_severity_alone(
    tmp_path: Path, table: policy_input_pb2.IntakeInput
) -> None:
    """As docs/policies.md tells them; whoever may waive it gets a job that can be judged."""
    folder, table.request.audit_profile = copy_baseline(tmp_path), "quick"
    rules = (folder / "rules.yaml").read_text("utf-8")
    start = rules.index("  - id: BASE-DECISION-PROFILE")
    mended = rules[start:].replace("severity: warn", "severity: deny", 1)
    (folder / "rules.yaml").write_text(rules[:start] + mended, "utf-8")
    decision = PolicyEngine(load(folder)).decide(table)
    assert {o.rule_id for o in decision.outcomes if o.outcome == policy_pb2.OUTCOME_FAIL} == {"BASE-DECISION-PROFILE"}
    assert not decision.allowed and decision.audit_plan.gates


def test_a_shift_is_found_among_as_many_measurements_as_are_judged(
    engine: PolicyEngine, table_release: policy_input_pb2.ReleaseInput
) -> None:
    """A rule that ran out of the engine's turns would deny every model with many slices."""
    levels, shift = table_release.plan.confidences, "fairness.counterfactual_shift"
    for i in range(MAX_ITEMS - len(table_release.measurements) - 1):
        name = f"{shift}[race=g{i}]"
        table_release.measurements[name].CopyFrom(testing.measurement(name, {"value": 0.0, "error": 0.01}, levels))
    assert engine.judge(table_release).outcome == policy_pb2.OUTCOME_PASS
    name = f"{shift}[race=last]"
    table_release.measurements[name].CopyFrom(testing.measurement(name, {"value": -0.3, "error": 0.01}, levels))
    [found] = [o for o in engine.judge(table_release).outcomes if o.rule_id == "REL-COUNTERFACTUAL-SHIFT"]
    assert found.outcome == policy_pb2.OUTCOME_FAIL
