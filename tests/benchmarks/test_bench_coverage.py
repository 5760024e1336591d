"""What the simulation of intervals counts: which end erred, at which level, and where more often than it should."""

from __future__ import annotations

import numpy as np
import pytest

from audit.statistics import stats
from benchmarks import coverage, coverage_settings


def test_each_end_is_counted_by_itself_and_by_level() -> None:
    """The wider interval of 95 % holds the truth; that of 90 % lies above it."""
    setting = coverage_settings.Setting(
        "made up", "", 1.0, lambda g: lambda level: (0.5, 2.0) if level > 0.92 else (1.5, 2.0)
    )
    assert coverage.misses(setting, 10, 1) == {0.90: coverage.Missed(1.0, 0.0), 0.95: coverage.Missed(0.0, 0.0)}
    assert coverage.coverage(setting, 10, 1) == 1.0
    too_low = coverage_settings.Setting("made up", "", lambda: 3.0, setting.draw)
    assert coverage.misses(too_low, 10, 1)[0.95] == coverage.Missed(0.0, 1.0)
    assert coverage.coverage(too_low, 10, 1) == 0.0


def test_of_sparse_rows_the_end_that_a_gate_reads_errs_no_more_than_nominal() -> None:
    """Student's own interval errs three and eight times as often, as the page on audits tells."""
    sparse = {s.told: s for s in coverage_settings.settings() if s.kind == "mean_of_sparse_rows"}
    tenth, fiftieth = sparse["n=60, 10 % of rows move by 1"], sparse["n=150, 2 % of rows move by 5"]
    corrected = [coverage.misses(s, 400, 3) for s in (tenth, fiftieth)]
    assert corrected[0][0.90].upper < 0.02 and corrected[0][0.90].lower < 0.08
    # Samples without a row that moves, 4.8 in a hundred, have no interval that could be mended.
    assert corrected[1][0.90].upper < 0.08 and corrected[1][0.95].upper < 0.08
    plain = [coverage.student(s, 400, 3) for s in (tenth, fiftieth)]
    # By enumeration 13.7 %, nominal 5, and 19.6 %, nominal 2.5.
    assert plain[0][0.90].upper == pytest.approx(0.137, abs=0.06)
    assert plain[1][0.95].upper == pytest.approx(0.196, abs=0.06) and plain[1][0.95].lower < 0.02


def test_an_end_that_errs_more_is_named_and_chance_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "_skew", lambda *_: 0.0)
    found = coverage.measure(300, 5, ["mean_of_sparse_rows", "clopper_pearson"])
    named = found["ends_that_err_more"]
    assert {(e["kind"], e["end"]) for e in named} == {("mean_of_sparse_rows", "upper")}
    assert found["intervals"]["mean_of_sparse_rows"]["lowest"] == found["lowest_coverage"] < 0.93
    ends = found["intervals"]["clopper_pearson"]["ends"]
    assert set(ends) == {"lower at 0.9", "upper at 0.9", "lower at 0.95", "upper at 0.95"}
    assert all(e["most"] <= 0.08 for e in ends.values()) and found["epsilon"] == []


@pytest.mark.parametrize("setting", {s.kind: s for s in coverage_settings.settings()}.values(), ids=lambda s: s.kind)
def test_students_own_interval_stands_beside_the_kinds_that_are_corrected_and_no_others(
    setting: coverage_settings.Setting,
) -> None:
    corrected, plain = [], []
    for out, taken in ((corrected, stats._skew), (plain, lambda *_: 0.0)):
        with pytest.MonkeyPatch.context() as other:
            other.setattr(stats, "_skew", taken)
            rng = np.random.default_rng(2)
            out += [setting.draw(rng)(0.9) for _ in range(3)]
    assert (corrected != plain) == (setting.kind in coverage_settings.SKEWED)


def test_every_setting_is_told_with_both_intervals_of_the_same_runs() -> None:
    found = coverage.measure(100, 5, ["mean_of_rows", "paired_difference"])["intervals"]
    [first, second] = found["mean_of_rows"]["each"]
    assert (first["at"], second["at"]) == ("n=45, skewed", "n=120, skewed")
    own = {s.told: coverage.student(s, 100, 5) for s in coverage_settings.settings() if s.kind == "mean_of_rows"}
    for told in (first, second):
        assert told["student"]["upper at 0.9"] == own[told["at"]][0.90].upper
        assert told["student"]["upper at 0.9"] >= told["upper at 0.9"], "a gamma's large values are rare"
    assert len(found["paired_difference"]["each"]) == 3
    assert all("student" not in told for told in found["paired_difference"]["each"])


def test_audits_of_known_epsilon_are_a_kind_of_their_own() -> None:
    found = coverage.measure(2, 5, [coverage.EPSILON])
    assert found["intervals"] == {} and found["lowest_coverage"] is None
    assert len(found["epsilon"]) == 16 and found["largest_epsilon_excess"] <= 0.5


@pytest.mark.parametrize("kind", ["largest_signed_shift", "generation_divergence"])
def test_what_the_counterfactual_probe_gives_besides_the_excess_is_simulated(kind: str) -> None:
    settings = [s for s in coverage_settings.settings() if s.kind == kind]
    assert len(settings) >= 3 and all(coverage.coverage(s, 300, 7) > 0.93 for s in settings)
