"""The leak curve's page says what its counts say."""

from __future__ import annotations

import json

import pytest

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


def test_neither_kinds_nor_runs_are_compared_with_each_other() -> None:
    """Within a kind and a run every planted secret lies above the held-out ones; scales differ a hundredfold."""
    every = []
    for scale, (seed, kind) in enumerate((s, k) for s in (1, 2) for k in leak_curve.KINDS):
        every += [found(kind, 0, seed=seed, score=100.0 * scale + s) for s in range(6)]
        every += [found(kind, r, seed=seed, score=100.0 * scale + 10 + s) for r in leak_curve.REPEATS for s in range(3)]
    kinds = len(leak_curve.KINDS)
    for line in leak_curve.table(every):
        if line["repeats"]:
            assert line["auc"] == line["auc_high"] == 1.0 and 0 < line["auc_low"] < 1.0
            assert [(run["auc"], run["ranked"]) for run in line["runs"]] == [(1.0, line["n"] // 2)] * 2
    rows = {(line["kind"], line["repeats"]): line for line in leak_curve.table(every)}
    assert rows["all", 1]["auc_low"] > rows["code", 1]["auc_low"] > stats.newcombe_auc(1.0, 3, 6, 0.95)[0]
    assert rows["all", 1]["runs"][0]["ranked_by_chance"] == round(3 * kinds / 7, 1)
    assert "auc" not in leak_curve.table([f for f in every if f["seed"] == 1][::3])[1], "one secret has no area"


def test_an_average_of_one_area_has_its_interval_and_of_more_a_shorter_one() -> None:
    one = (0.8, 0.6, 0.9)
    assert leak_curve.average([one]) == pytest.approx(one)
    assert leak_curve.average([one] * 4) == pytest.approx((0.8, 0.7, 0.85))


def test_runs_are_told_apart_and_ranking_has_no_more_false_alarms_than_grep() -> None:
    """Secrets of two runs: in the second grep falsely finds one held-out secret, so ranking may as well."""
    every = [found(k, r, seed=s) for s in (1, 2) for k in leak_curve.KINDS for r in (0, *leak_curve.REPEATS)]
    every = [f for f in every if f["kind"] != "code" or f["repeats"] not in (0, 4)]
    for seed, alarm in ((1, False), (2, True)):
        every += [found("code", 0, seed=seed, score=s, grep=alarm and s == 5.0) for s in (0.0, 1.0, 5.0)]
        every += [found("code", 4, seed=seed, score=s, grep=s > 8) for s in (0.5, 3.0, 9.0)]
    rows = {(line["kind"], line["repeats"]): line for line in leak_curve.table(every)}
    first, second = rows["code", 4]["runs"]
    assert [(run["grep"], run["ranked"], run["n"]) for run in (first, second)] == [(1, 1, 3), (1, 2, 3)]
    assert [run["ranked_by_chance"] for run in (first, second)] == [0.8, 1.5]
    assert first["auc"] == second["auc"] == rows["code", 4]["auc"] == rows["all", 4]["auc"] == pytest.approx(0.667)
    told = {"seeds": [1, 2], "each": 1, "epochs": 2.0, "learning_rate": 0.001, "table": list(rows.values())}
    page = leak_curve.page(told)
    assert "Nor are runs" in page and "Lowest and highest of the 2 runs" in page
    # Of the other kinds one secret each, which nobody learned: above its one held-out secret by chance half the time.
    assert "| 4 | 0 of 6 | 0 of 6 | 1 of 6 | 1–2 of 6 | 2.2–3.0 | 0.67 |" in page


def test_a_page_of_pooled_counts_says_what_it_lacks_and_averages_the_kinds_areas() -> None:
    told = json.loads((leak_curve.DOCS / "leak_curve.json").read_text("utf-8"))
    lacking = ("runs", "auc_low", "auc_high")
    told["table"] = [{k: v for k, v in line.items() if k not in lacking} for line in told["table"]]
    page = leak_curve.page(told)
    assert "share a model" in page and "cannot be told from them" in page and "Run by run" not in page
    assert "But runs are" in page and "Kinds are not compared" in page
    lines = {(line["kind"], line["repeats"]): line for line in told["table"]}
    card = lines["card", 1]
    low, high = stats.newcombe_auc(card["auc"], card["n"], lines["card", 0]["n"], 0.95)
    assert f"| {card['auc']:.2f} ({low:.2f}–{high:.2f}) |" in page
    mean = sum(lines[kind, 1]["auc"] for kind in leak_curve.KINDS) / len(leak_curve.KINDS)
    [line] = [line for line in page.splitlines() if line.startswith("| all | 1 |")]
    assert line.split(" | ")[-1].startswith(f"{mean:.2f} (")
