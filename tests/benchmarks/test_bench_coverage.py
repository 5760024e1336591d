"""What the simulation of intervals counts: which end erred, at which level, and where more often than it should."""

from __future__ import annotations

import pytest

from benchmarks import coverage


def test_each_end_is_counted_by_itself_and_by_level() -> None:
    """The wider interval of 95 % holds the truth; that of 90 % lies above it."""
    setting = coverage.Setting("made up", "", 1.0, lambda g: lambda level: (0.5, 2.0) if level > 0.92 else (1.5, 2.0))
    assert coverage.misses(setting, 10, 1) == {0.90: coverage.Missed(1.0, 0.0), 0.95: coverage.Missed(0.0, 0.0)}
    assert coverage.coverage(setting, 10, 1) == 1.0
    too_low = coverage.Setting("made up", "", lambda: 3.0, setting.draw)
    assert coverage.misses(too_low, 10, 1)[0.95] == coverage.Missed(0.0, 1.0)
    assert coverage.coverage(too_low, 10, 1) == 0.0


def test_the_end_that_a_gate_reads_errs_more_often_than_nominal_on_sparse_rows() -> None:
    """The page on audits tells by how much; the other end errs less often than nominal."""
    seen = {s.told: coverage.misses(s, 400, 3) for s in coverage.sparse_settings()}
    # By enumeration 13.7 and 1.5 %, nominal 5; 19.6 and 0.3 %, nominal 2.5; of four times as many rows 4.4 and 1.1 %.
    tenth = seen["n=60, 10 % of rows move by 1"][0.90]
    assert tenth.upper == pytest.approx(0.137, abs=0.06) and tenth.lower < 0.04
    few, more = (seen[f"n={n}, 2 % of rows move by 5"][0.95] for n in (150, 600))
    assert few.upper == pytest.approx(0.196, abs=0.06) and few.lower < 0.02
    assert more.upper == pytest.approx(0.044, abs=0.03)


def test_an_end_that_errs_more_is_named_and_chance_is_not() -> None:
    found = coverage.measure(300, 5, ["mean_of_sparse_rows", "clopper_pearson"])
    named = found["ends_that_err_more"]
    assert {(e["kind"], e["end"]) for e in named} == {("mean_of_sparse_rows", "upper")}
    assert found["intervals"]["mean_of_sparse_rows"]["lowest"] < 0.93 <= found["lowest_coverage"]
    ends = found["intervals"]["clopper_pearson"]["ends"]
    assert set(ends) == {"lower at 0.9", "upper at 0.9", "lower at 0.95", "upper at 0.95"}
    assert all(e["most"] <= 0.08 for e in ends.values()) and found["epsilon"] == []


@pytest.mark.parametrize("kind", ["largest_signed_shift", "generation_divergence"])
def test_what_the_counterfactual_probe_gives_besides_the_excess_is_simulated(kind: str) -> None:
    settings = [s for s in coverage.settings() if s.kind == kind]
    assert len(settings) >= 3 and all(coverage.coverage(s, 300, 7) > 0.93 for s in settings)
