"""Release: the verdict that the numbers give, and nothing else."""

from __future__ import annotations

import datetime as dt
import math

import pytest

from assay.errors import InvalidInputError
from assay.v1 import measurement_pb2, policy_input_pb2, policy_pb2
from policies import inputs, verdicts
from policies.engine import PolicyEngine
from policies.pack import load
from policies.rule import AT_RELEASE
from policies.testing import measurement

PASS, FAIL = policy_pb2.OUTCOME_PASS, policy_pb2.OUTCOME_FAIL
INCONCLUSIVE, ERROR = policy_pb2.OUTCOME_INCONCLUSIVE, policy_pb2.OUTCOME_ERROR
NOT_APPLICABLE = policy_pb2.OUTCOME_NOT_APPLICABLE


def say(question: policy_input_pb2.ReleaseInput, name: str, **given: object) -> None:
    question.measurements[name].CopyFrom(measurement(name, given, question.plan.confidences))


def outcome(verdict: policy_pb2.Verdict, rule_id: str) -> policy_pb2.RuleOutcome:
    return next(o for o in verdict.outcomes if o.rule_id == rule_id)


def test_a_clean_model_passes(engine: PolicyEngine, release: policy_input_pb2.ReleaseInput) -> None:
    verdict = engine.judge(release)
    assert verdict.outcome == PASS
    assert len(verdict.input_sha256) == 64 and verdict.bundle_sha256 == engine.pack.bundle_sha256
    gate = outcome(verdict, "GATE-CANARY-AUC")
    assert (gate.measurement, gate.limit, gate.side) == ("privacy.canary_auc", 0.70, measurement_pb2.LIMIT_SIDE_AT_MOST)
    assert "n = 149" in gate.message and "at most 0.7" in gate.message and not gate.fix


def test_what_the_plan_did_not_name_is_exploratory_whatever_the_worker_says(
    engine: PolicyEngine, release: policy_input_pb2.ReleaseInput
) -> None:
    assert engine.judge(release).outcome == PASS
    gate = release.plan.gates[0].measurement
    gates = [g for g in release.plan.gates if g.measurement != gate]
    del release.plan.gates[:]
    release.plan.gates.extend(gates)
    release.plan.metrics[:] = [m for m in release.plan.metrics if m != gate]
    labelled = inputs.labelled(release.measurements, release.plan)
    assert not release.measurements[gate].exploratory and labelled[gate].exploratory
    assert inputs.missing_measurement(labelled, gate) == f"{gate} was not in the audit plan"
    release.plan.metrics[:] = [m for m in release.plan.metrics if m != "privacy.epsilon_lower_bound"]
    assert outcome(engine.judge(release), "REL-EPSILON").outcome == ERROR
    del release.plan.metrics[:]
    assert outcome(engine.judge(release), "REL-EPSILON").outcome == PASS, "an older plan lists none"


def test_a_group_that_the_plan_did_not_name_is_exploratory_whatever_the_worker_says(
    engine: PolicyEngine, table_release: policy_input_pb2.ReleaseInput
) -> None:
    """The attribute's own number, which is the largest of all groups, is judged all the same."""
    question, name = table_release, "fairness.counterfactual_shift[race=asian]"
    found = question.measurements[name]
    found.name, found.slice, found.value, found.n = "fairness.counterfactual_shift", "race=asian", -9.0, 400
    found.intervals.add(confidence=0.9, lower=-9.1, upper=-8.9)
    shift = "REL-COUNTERFACTUAL-SHIFT"
    assert outcome(engine.judge(question), shift).outcome == FAIL, "a plan of before names no groups"
    question.plan.groups.extend(["race=white", "race=black"])
    labelled = inputs.labelled(question.measurements, question.plan)
    assert labelled[name].exploratory and not question.measurements[name].exploratory
    assert {key for key, m in labelled.items() if m.exploratory} == {name}
    assert outcome(engine.judge(question), shift).outcome != FAIL
    question.plan.groups.append("race=asian")
    assert outcome(engine.judge(question), shift).outcome == FAIL


def test_the_release_rules_of_a_day_are_those_in_force_that_the_unit_is_asked() -> None:
    whole, before = load(), dt.date(2027, 12, 1)
    of_eu = PolicyEngine(whole, packs=frozenset({"baseline", "eu-ai-act"}))
    assert of_eu.same_rules(AT_RELEASE, "credit", before, before - dt.timedelta(days=1))
    assert not of_eu.same_rules(AT_RELEASE, "credit", before, before + dt.timedelta(days=1))
    of_baseline = PolicyEngine(whole, packs=frozenset({"baseline"}))
    assert of_baseline.same_rules(AT_RELEASE, "credit", before, before + dt.timedelta(days=1))


def test_a_leak_fails_and_says_so(engine: PolicyEngine, release: policy_input_pb2.ReleaseInput) -> None:
    say(release, "privacy.pii_extraction_rate", successes=40, n=64)
    verdict = engine.judge(release)
    assert verdict.outcome == FAIL
    found = outcome(verdict, "GATE-PII-EXTRACTION")
    assert found.outcome == FAIL and "gives away" in found.message and found.fix and not found.HasField("n_required")


def test_an_open_question_names_the_n_that_decides(
    engine: PolicyEngine, table_release: policy_input_pb2.ReleaseInput
) -> None:
    say(table_release, "fairness.impact_ratio[race]", value=0.86, error=0.06, n=300)
    verdict = engine.judge(table_release)
    found = outcome(verdict, "GATE-IMPACT-RATIO")
    assert (verdict.outcome, found.outcome) == (INCONCLUSIVE, INCONCLUSIVE)
    assert (
        found.n_required > 300 and f"n = {found.n_required:,} would decide" in found.fix and "would pass" in found.fix
    )
    assert found.waivable_by == "ROLE_COMPLIANCE_OFFICER"
    say(table_release, "fairness.impact_ratio[race]", value=0.77, error=0.06, n=300)
    worse = outcome(engine.judge(table_release), "GATE-IMPACT-RATIO")
    assert worse.outcome == INCONCLUSIVE and "would fail" in worse.fix
    say(table_release, "fairness.impact_ratio[race]", value=0.80, error=0.06, n=300)
    on_it = outcome(engine.judge(table_release), "GATE-IMPACT-RATIO")
    assert on_it.outcome == INCONCLUSIVE and not on_it.HasField("n_required")


def test_failing_outweighs_an_error_and_an_error_an_open_question() -> None:
    def combined(*answers: policy_pb2.Outcome) -> policy_pb2.Outcome:
        return verdicts.combine([policy_pb2.RuleOutcome(outcome=answer) for answer in answers])

    assert combined(PASS, NOT_APPLICABLE) == PASS
    assert combined(PASS, INCONCLUSIVE) == INCONCLUSIVE
    assert combined(PASS, INCONCLUSIVE, ERROR) == ERROR
    assert combined(PASS, INCONCLUSIVE, ERROR, FAIL) == FAIL
    assert combined(NOT_APPLICABLE) == ERROR
    assert combined() == ERROR
    assert combined(PASS, policy_pb2.OUTCOME_UNSPECIFIED) == ERROR


@pytest.mark.parametrize(
    "name", ["privacy.canary_auc", "privacy.canary_extraction_rate", "quality.test_loss_delta", "overfitting.loss_gap"]
)
def test_no_planned_measurement_may_be_missing_or_be_nan(
    engine: PolicyEngine, release: policy_input_pb2.ReleaseInput, name: str
) -> None:
    broken = policy_input_pb2.ReleaseInput()
    broken.CopyFrom(release)
    del broken.measurements[name]
    assert engine.judge(broken).outcome == FAIL  # by REL-PLAN
    broken.CopyFrom(release)
    broken.measurements[name].value = math.nan
    verdict = engine.judge(broken)
    assert verdict.outcome == ERROR
    broken.CopyFrom(release)
    for interval in broken.measurements[name].intervals:
        interval.lower = interval.upper = math.nan
    assert engine.judge(broken).outcome == ERROR
    broken.CopyFrom(release)
    broken.measurements[name].ClearField("intervals")
    assert engine.judge(broken).outcome == ERROR


@pytest.mark.parametrize("name", ["privacy.epsilon_lower_bound", "cost.claim_ratio"])
def test_a_rule_whose_measurement_is_missing_or_nan_is_an_error(
    engine: PolicyEngine, release: policy_input_pb2.ReleaseInput, name: str
) -> None:
    release.measurements[name].value = math.nan
    assert engine.judge(release).outcome == ERROR
    release.measurements[name].ClearField("value")
    assert engine.judge(release).outcome == ERROR
    del release.measurements[name]
    assert engine.judge(release).outcome == ERROR


def test_an_undecided_gate_stops_the_rules_that_lean_on_it(
    engine: PolicyEngine, release: policy_input_pb2.ReleaseInput
) -> None:
    gate = release.plan.gates.add()
    gate.CopyFrom(release.plan.gates[0])
    gate.rule_id, gate.measurement, gate.limit = "GATE-CANARY-AUC", "cost.claim_ratio", 0.81
    say(release, "cost.claim_ratio", value=0.8, error=0.5, n=200)
    assert outcome(engine.judge(release), "REL-CLAIM").outcome == INCONCLUSIVE


def test_an_empty_plan_never_passes(engine: PolicyEngine, release: policy_input_pb2.ReleaseInput) -> None:
    release.plan.ClearField("gates")
    verdict = engine.judge(release)
    assert verdict.outcome != PASS
    assert outcome(verdict, "GATE-CANARY-AUC").outcome == ERROR


def test_a_gate_that_the_policy_does_not_know_is_an_error(
    engine: PolicyEngine, release: policy_input_pb2.ReleaseInput
) -> None:
    release.plan.gates.add(rule_id="GATE-OLD", measurement="quality.old", alpha=0.1, limit=1, side=1, n=1)
    verdict = engine.judge(release)
    assert outcome(verdict, "GATE-OLD").outcome == ERROR


def test_a_plan_with_the_side_turned_round_does_not_pass(
    engine: PolicyEngine, release: policy_input_pb2.ReleaseInput
) -> None:
    for gate in release.plan.gates:
        gate.side = measurement_pb2.LIMIT_SIDE_AT_LEAST
        gate.limit = -100.0
    verdict = engine.judge(release)
    assert PASS not in {o.outcome for o in verdict.outcomes if o.rule_id.startswith("GATE-")}


def test_the_limit_judged_is_the_one_that_was_planned(
    engine: PolicyEngine, release: policy_input_pb2.ReleaseInput
) -> None:
    release.plan.gates[0].limit = 0.53
    found = outcome(engine.judge(release), "GATE-CANARY-AUC")
    assert (found.outcome, found.limit) == (INCONCLUSIVE, 0.53)


def test_the_family_of_the_correction_is_the_whole_plan(
    engine: PolicyEngine, release: policy_input_pb2.ReleaseInput
) -> None:
    # Just outside at 90 %, inside at the level that six gates ask for.
    say(release, "quality.test_loss_delta", value=0.18, error=0.1, n=90)
    assert outcome(engine.judge(release), "GATE-LOSS-DELTA").outcome == INCONCLUSIVE
    say(release, "quality.test_loss_delta", value=0.40, error=0.1, n=90)
    assert outcome(engine.judge(release), "GATE-LOSS-DELTA").outcome == FAIL


def test_exploratory_numbers_change_nothing(engine: PolicyEngine, release: policy_input_pb2.ReleaseInput) -> None:
    say(release, "privacy.canary_auc_repeated", value=1.0, error=0.001, n=16, exploratory=True)
    assert engine.judge(release).outcome == PASS


def test_a_release_that_is_too_large_is_not_judged(
    engine: PolicyEngine, release: policy_input_pb2.ReleaseInput
) -> None:
    for i in range(2001):
        release.measurements[f"m{i}"].value = 1.0
    verdict = engine.judge(release)
    assert verdict.outcome == ERROR and verdict.input_sha256 == ""


def test_an_empty_release_never_passes_and_a_wrong_day_is_refused(engine: PolicyEngine) -> None:
    assert engine.judge(policy_input_pb2.ReleaseInput()).outcome == FAIL
    with pytest.raises(InvalidInputError):
        engine.judge(policy_input_pb2.ReleaseInput(as_of="2026-02-30"))


@pytest.mark.parametrize("fact", ["cut_off_proven", "adapter_sane", "statement_verified", "audit_verified"])
def test_every_fact_of_the_run_must_hold(
    engine: PolicyEngine, release: policy_input_pb2.ReleaseInput, fact: str
) -> None:
    setattr(release.run, fact, False)
    assert engine.judge(release).outcome == FAIL
