"""The baseline pack's own table: every rule seen both ways, no rule that could be true for all anybody noticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay.errors import InvalidInputError
from policies import testing
from policies.engine import PolicyEngine
from policies.pack import BASELINE, load
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
