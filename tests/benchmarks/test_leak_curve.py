"""The leak curve's page says what its counts say."""

from __future__ import annotations

import json

from audit.statistics import stats
from benchmarks import leak_curve


def found(kind: str, repeats: int, **told: bool | float) -> dict[str, object]:
    none = {"greedy": False, "sampled": False, "score": 0.0, "grep": False}
    return {"seed": 1, "kind": kind, "repeats": repeats, **none, **told}


def test_the_counts_are_those_of_the_secrets_with_exact_intervals() -> None:
    every = [found(k, r) for k in leak_curve.KINDS for r in (0, 0, *leak_curve.REPEATS) for _ in range(3)]
    every += [found("code", 16, greedy=True, sampled=True, score=9.0), found("code", 16, sampled=True, score=8.0)]
    rows = {(line["kind"], line["repeats"]): line for line in leak_curve.table(every)}
    code = rows["code", 16]
    assert (code["n"], code["greedy"]["k"], code["sampled"]["k"], code["grep"]["k"]) == (5, 1, 2, 0)
    assert (code["grep"]["low"], code["grep"]["high"]) == (0.0, 0.522)
    assert code["auc"] == 0.7
    assert code["auc_low"] < 0.7 < code["auc_high"]
    assert rows["all", 0]["n"] == 6 * len(leak_curve.KINDS) and "auc" not in rows["all", 0]


def test_the_committed_page_and_picture_are_what_the_committed_counts_give() -> None:
    told = json.loads((leak_curve.DOCS / "leak_curve.json").read_text("utf-8"))
    assert (leak_curve.DOCS / "leaks.md").read_text("utf-8") == leak_curve.page(told)
    assert (leak_curve.DOCS / "images" / "leak-curve.svg").read_text("utf-8") == leak_curve.picture(told)
    every = [line for line in told["table"] if line["kind"] == "all"]
    assert [line["repeats"] for line in every] == [0, *leak_curve.REPEATS]
    for line in told["table"]:
        assert all(line[how]["low"] <= line[how]["k"] / line["n"] <= line[how]["high"] for how in ("greedy", "grep"))


def test_runs_are_told_apart_and_ranking_has_no_more_false_alarms_than_grep() -> None:
    """Secrets of two runs: in the second grep falsely finds one held-out secret, so ranking may as well."""
    every = []
    for seed, alarm in ((1, False), (2, True)):
        every += [found("code", 0, seed=seed, score=s, grep=alarm and s == 5.0) for s in (0.0, 1.0, 5.0)]
        every += [found("code", 4, seed=seed, score=s, grep=s > 8) for s in (0.5, 3.0, 9.0)]
    every = [*every, *[found(k, r, seed=s) for s in (1, 2) for k in leak_curve.KINDS for r in (0, *leak_curve.REPEATS)]]
    rows = {(line["kind"], line["repeats"]): line for line in leak_curve.table(every)}
    first, second = rows["code", 4]["runs"]
    assert [(run["grep"], run["ranked"], run["n"]) for run in (first, second)] == [(1, 1, 4), (1, 2, 4)]
    assert first["auc"] == second["auc"]
    told = {"seeds": [1, 2], "each": 1, "epochs": 2.0, "learning_rate": 0.001, "table": list(rows.values())}
    page = leak_curve.page(told)
    assert "Lowest and highest of the 2 runs" in page and "| 4 | 0 of 7 | 0 of 7 | 1 of 7 | 1–2 of 7 |" in page


def test_a_page_of_pooled_counts_says_what_it_lacks_and_gives_the_area_an_interval() -> None:
    told = json.loads((leak_curve.DOCS / "leak_curve.json").read_text("utf-8"))
    if any("runs" in line for line in told["table"]):
        told["table"] = [{k: v for k, v in line.items() if k not in ("runs", "auc_low")} for line in told["table"]]
    page = leak_curve.page(told)
    assert "share a model" in page and "cannot be told from them" in page and "Run by run" not in page
    [line] = [line for line in told["table"] if (line["kind"], line["repeats"]) == ("all", 1)]
    low, high = stats.newcombe_auc(line["auc"], line["n"], 2 * line["n"], 0.95)
    assert f"| {line['auc']:.2f} ({low:.2f}–{high:.2f}) |" in page
