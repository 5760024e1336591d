"""A fair model passes at the planned n with the stated power: audits are simulated and judged as in a real verdict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from assay.v1 import measurement_pb2, policy_input_pb2, policy_pb2
from audit.probes import swaps
from benchmarks import fairness
from policies import planning, testing
from policies.engine import PolicyEngine
from policies.pack import load
from tests.policies.packs import copy_baseline, replace

AUDITS = 800
LEAST, MOST = 0.757, 0.86
"""The stated power of 0.8 less three standard errors of so many audits; and what only a needless n would reach."""
RATIO, ODDS = "fairness.impact_ratio[race]", "fairness.equalized_odds_difference[race]"
EXCESS = "fairness.counterfactual_excess[race]"


def gate_of(plan: measurement_pb2.AuditPlan, name: str) -> measurement_pb2.PlannedGate:
    return next(gate for gate in plan.gates if gate.measurement == name)


@pytest.mark.parametrize("name", [RATIO, ODDS])
@pytest.mark.parametrize(("groups", "favourable"), [(2, 0.5), (3, 0.5), (4, 0.5), (3, 0.9)])
def test_a_fair_model_passes_at_the_planned_n(
    engine: PolicyEngine, table: policy_input_pb2.IntakeInput, groups: int, favourable: float, name: str
) -> None:
    gate = gate_of(fairness.decision_plan(engine, table, [100_000] * groups, favourable), name)
    passed = fairness.fair_passes(gate, favourable, lambda rng: [gate.n] * groups, AUDITS)
    assert LEAST <= passed / AUDITS <= MOST


@pytest.mark.parametrize("name", [RATIO, ODDS])
def test_a_fair_model_passes_on_the_rows_that_the_plan_scores(
    engine: PolicyEngine, table: policy_input_pb2.IntakeInput, name: str
) -> None:
    groups = np.array([70_000, 18_000, 12_000])
    plan = fairness.decision_plan(engine, table, groups.tolist(), 0.5)
    rows = plan.sample_sizes["test_rows"]
    assert rows < groups.sum() * 0.15
    passed = fairness.fair_passes(
        gate_of(plan, name), 0.5, lambda rng: rng.multinomial(rows, groups / groups.sum()).tolist(), AUDITS
    )
    assert passed / AUDITS >= LEAST


@pytest.mark.parametrize("profile", ["default", "strict"])
@pytest.mark.parametrize("groups", [2, 3, 4, 10])
def test_a_clean_model_passes_the_counterfactual_gate_with_every_group(
    engine: PolicyEngine, table: policy_input_pb2.IntakeInput, groups: int, profile: str
) -> None:
    table.request.audit_profile = profile
    table.data.canaries_inserted = table.data.canaries_held_out = 400
    plan = fairness.decision_plan(engine, table, [100_000] * groups, 0.5)
    gate = gate_of(plan, EXCESS)
    sd = engine.pack.limits.number("assumed_counterfactual_sd", profile)
    assert LEAST <= fairness.excess_passes(gate, groups, sd, AUDITS) / AUDITS <= MOST
    assert gate.n <= plan.sample_sizes["counterfactual_rows"]


def test_pairs_are_drawn_for_the_attribute_with_most_groups(
    tmp_path: Path, table: policy_input_pb2.IntakeInput
) -> None:
    """The profile's own number is larger than any n; a smaller one is raised to what every attribute's gate needs."""
    folder = copy_baseline(tmp_path)
    replace(folder / "limits.yaml", "value: {quick: 60, default: 150, strict: 600}", "value: 10")
    replace(folder / "limits.yaml", "value: 10\n    by: profile", "value: 10")
    table.request.audit_profile = "default"
    plan = fairness.decision_plan(PolicyEngine(load(folder)), table, [100_000] * 4, 0.5)
    assert plan.sample_sizes["counterfactual_rows"] == gate_of(plan, EXCESS).n


def test_no_more_groups_are_planned_for_than_are_exchanged(
    engine: PolicyEngine, table: policy_input_pb2.IntakeInput
) -> None:
    assert planning.MOST_OTHERS == swaps.MOST_OTHERS
    table.request.audit_profile = "default"
    sizes = [gate_of(fairness.decision_plan(engine, table, [10_000] * k, 0.5), EXCESS).n for k in (9, 10, 11, 30)]
    assert sizes[0] < sizes[1] == sizes[2] == sizes[3]


@pytest.mark.parametrize("groups", [(8, 7), (14, 3, 2)])
def test_intake_says_when_groups_cannot_be_compared_and_with_how_many_rows_they_can(
    engine: PolicyEngine, table: policy_input_pb2.IntakeInput, groups: tuple[int, ...]
) -> None:
    plenty = fairness.decision_plan(engine, table, [k * 10_000 for k in groups], 0.5).sample_sizes["test_rows"]
    table.data.group_counts.clear()
    table.data.group_counts.update({f"race={i}": k * 10_000 for i, k in enumerate(groups)})
    table.data.label_counts.update({"approve": 5000, "deny": 5000})
    told = {}
    for table.data.test_rows in (plenty - 1, plenty):
        decision = engine.decide(table)
        assert decision.allowed and decision.HasField("audit_plan")
        told[table.data.test_rows] = next(o for o in decision.outcomes if o.rule_id == "BASE-GROUP-ROWS")
    assert [o.outcome for o in told.values()] == [policy_pb2.OUTCOME_WARN, policy_pb2.OUTCOME_PASS]
    assert f"the gates on groups need {plenty:,}" in told[plenty - 1].message


def test_each_attribute_is_planned_for_its_own_groups(
    engine: PolicyEngine, table: policy_input_pb2.IntakeInput
) -> None:
    for values in (table.datasheet.sensitive_attributes, table.datasheet.hidden_columns, table.data.columns):
        values.append("sex")
    for name in ("sex=female", "sex=male"):
        table.data.group_counts[name] = 2000
    table.data.group_counts["sex=unknown"] = 4000
    sizes = {gate.measurement: gate.n for gate in engine.decide(table).audit_plan.gates}
    assert sizes["fairness.impact_ratio[sex]"] > sizes[RATIO] > 0
    assert sizes["fairness.equalized_odds_difference[sex]"] > sizes[ODDS] > 0


def test_a_group_that_is_not_compared_costs_no_rows(table: policy_input_pb2.IntakeInput) -> None:
    data = table.data
    two = planning.group_shares(table, "race")
    assert two == [9500 / 20_000, 10_500 / 20_000]
    data.group_counts["race=none"] = 0
    assert planning.group_shares(table, "race") == two
    data.group_counts["race=few"] = 60  # nine of the 3,000 test rows
    assert len(planning.group_shares(table, "race")) == 2
    data.group_counts["race=few"] = 80
    assert len(planning.group_shares(table, "race")) == 3
    data.group_counts["race=few"] = data.group_counts["race=fewer"] = 60
    assert planning.group_shares(table, "race") == [120 / 20_120, 9500 / 20_120, 10_500 / 20_120], "compared as one"
    data.group_counts["race=fewer"] = 0
    data.test_group_counts.update({"race=black": 1000, "race=white": 3000})
    assert planning.group_shares(table, "race") == [0.25, 0.75], "the test rows, where they were counted"
    data.test_group_counts.clear()
    assert planning.group_shares(table, "age") == [0.5, 0.5]
    for key in data.group_counts:
        data.group_counts[key] = 0
    assert planning.group_shares(table, "race") == [0.5, 0.5]


def test_a_sample_below_the_plan_is_told_the_planned_n(engine: PolicyEngine, cases: dict[str, testing.Case]) -> None:
    release = testing.release_question(engine, cases["a clean decision model passes"])
    plan = fairness.decision_plan(engine, cases["a clean decision request is allowed"].intake, [100_000] * 3, 0.5)
    release.plan.CopyFrom(plan)
    level = plan.confidences
    for name, given in ((RATIO, {"value": 0.99, "error": 0.02}), (ODDS, {"value": 0.01, "error": 0.02})):
        planned = gate_of(plan, name).n
        found = testing.measurement(name, {**given, "n": planned - 1}, level)
        release.measurements[name].CopyFrom(found)
        outcome = next(o for o in engine.judge(release).outcomes if o.measurement == name)
        assert (outcome.outcome, outcome.n_required) == (policy_pb2.OUTCOME_INCONCLUSIVE, planned)
        assert f"n = {planned:,} would decide" in outcome.fix
