"""Published numbers found again on packaged data, the false-fail rates, and our bootstrap equal to fairlearn's."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay.errors import UnavailableError
from assay.pinned import assay_home
from assay.v1 import policy_pb2

pytest.importorskip("fairlearn")

from benchmarks import bootstrap as bench_bootstrap
from benchmarks import fairness as bench_fairness


@pytest.fixture(scope="module")
def home() -> Path:
    return assay_home() / "data"


def test_propublicas_error_rates_are_found_again(home: Path) -> None:
    """Larson, Mattu, Kirchner and Angwin (ProPublica, 2016), false positives and negatives by race."""
    try:
        found = bench_fairness.compas(home)
    except UnavailableError as error:
        pytest.skip(str(error))
    black, white = found["African-American"], found["Caucasian"]
    assert round(100 * black["false_positive_rate"], 2) == 44.85
    assert round(100 * white["false_positive_rate"], 2) == 23.45
    assert round(100 * black["false_negative_rate"], 2) == 27.99
    assert round(100 * white["false_negative_rate"], 2) == 47.72
    assert black["false_positive_interval"][0] > white["false_positive_interval"][1]
    kept = (home / "compas-five-columns.csv").read_text(encoding="utf-8").splitlines()[0]
    assert kept == ",".join(bench_fairness.COMPAS_COLUMNS)  # no name, no date of birth
    assert not (home / bench_fairness.COMPAS.name).exists()


def test_the_denial_gap_of_loanapp_is_found_again(home: Path) -> None:
    """Wooldridge, exercise 7.C8: .201 bare (n = 1,989), .129 with standard error .020 under controls (n = 1,971)."""
    try:
        found = bench_fairness.loanapp(home)
    except UnavailableError as error:
        pytest.skip(str(error))
    assert found["rows"] == 1989
    assert round(found["denial_gap"], 3) == 0.201
    assert found["controlled_rows"] == 1971
    assert round(found["controlled_gap"], 3) == 0.129
    assert round(found["controlled_gap_standard_error"], 3) == 0.020
    assert round(1 - found["denial_rates"]["black"], 3) == 0.675
    assert round(1 - found["denial_rates"]["not black"], 3) == 0.900


@pytest.mark.parametrize(
    ("n", "rate", "naive"),
    [
        *((50, 0.3, 0.47), (100, 0.3, 0.30), (200, 0.3, 0.15), (400, 0.3, 0.04), (500, 0.3, 0.02)),
        *((25, 0.5, 0.43), (50, 0.5, 0.26), (100, 0.5, 0.12), (200, 0.5, 0.03), (500, 0.5, 0.001)),
    ],
)
def test_the_false_fail_table_of_the_four_fifths_rule(n: int, rate: float, naive: float) -> None:
    """The facts sheet's table, to its rounding; by enumeration, so there is no simulation error left here."""
    assert bench_fairness.exact(n, rate, rate)["naive"] == pytest.approx(naive, abs=0.015)


def test_the_false_fail_and_power_table_with_fishers_test() -> None:
    fair = [bench_fairness.exact(n, 0.3, 0.3)["with_fisher"] for n in (50, 100, 200, 400)]
    assert all(0.025 < found < 0.04 for found in fair)
    power = [bench_fairness.exact(n, 0.3, 0.18)["with_fisher"] for n in (50, 100, 200, 400)]
    assert power == pytest.approx([0.23, 0.46, 0.78, 0.98], abs=0.015)


def test_the_enumerated_fisher_test_is_scipys() -> None:
    from scipy.stats import fisher_exact

    ours = bench_fairness.fisher(20)
    for first, second in ((0, 0), (3, 9), (9, 3), (10, 10), (20, 1), (20, 20)):
        expected = fisher_exact([[first, 20 - first], [second, 20 - second]])[1]
        assert ours[first, second] == pytest.approx(expected, abs=1e-9)


def test_a_thousand_audits_of_a_fair_model() -> None:
    """At 100 rows a group the naive rule fails three in ten; ours keeps its promise of 5 % (one side of alpha 0.10)."""
    found = bench_fairness.simulate(1000, (100, 100), (0.3, 0.3))
    assert found["naive_fails"]["low"] > 0.25
    assert found["alpha"] == pytest.approx(0.1) and found["our_gate_alone_fails"]["high"] < 0.05
    quick, default = found["within_the_plan"]
    assert (quick["gates"], default["gates"]) == (6, 10), "one attribute, in these profiles"
    for within in (quick, default):
        assert within["fails"]["rate"] <= found["our_gate_alone_fails"]["rate"]
        # Fewer rows than the plan asks for never pass, whatever the interval says.
        assert within["planned_rows_a_group"] > 400 and within["passes"]["rate"] == 0


def test_a_gate_fails_less_often_within_the_plan_s_family_than_alone() -> None:
    """Holm's first step asks for the level 1 - alpha over the number of gates; power is told for both."""
    found = bench_fairness.simulate(300, (400, 400), (0.3, 0.18))
    quick, default = found["within_the_plan"]
    assert found["our_gate_alone_fails"]["low"] > 0.6 > 0.55 > quick["fails"]["high"]
    assert quick["fails"]["rate"] > default["fails"]["rate"] > 0.2
    assert quick["passes"]["rate"] == 0


def test_one_gate_of_a_family_is_judged_at_holms_first_step() -> None:
    """Each count of the lower group: FAIL within the plan is the interval at its last level, and nothing else."""
    plan = bench_fairness._plans(2, 0.3)["quick"]
    gate = bench_fairness._impact_ratio(plan)
    told = set()
    for selected in range(40, 121, 8):
        cells = [bench_fairness.Cell("a", 120, 400), bench_fairness.Cell("b", selected, 400)]
        alone, within = bench_fairness.verdict(gate, [cells]), bench_fairness.verdict(gate, [cells], plan)
        for outcome, level in ((alone, 1 - gate.alpha), (within, 1 - gate.alpha / len(plan.gates))):
            upper = bench_fairness.extremes.lowest_ratio_interval(cells, level)[1]
            assert (outcome == policy_pb2.OUTCOME_FAIL) == (upper < gate.limit)
        told.add((alone, within))
    assert (policy_pb2.OUTCOME_FAIL, policy_pb2.OUTCOME_INCONCLUSIVE) in told


def test_our_bootstrap_is_fairlearns_on_the_same_draws() -> None:
    assert bench_bootstrap.largest_difference(20) < 1e-12


def test_our_bootstrap_is_a_hundred_times_faster() -> None:
    assert bench_bootstrap.measure(1)["bootstrap_ratio"] >= 100
