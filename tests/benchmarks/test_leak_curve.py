"""The leak curve's page says what its counts say."""

from __future__ import annotations

import json

from benchmarks import leak_curve


def found(kind: str, repeats: int, **told: bool | float) -> dict[str, object]:
    return {"kind": kind, "repeats": repeats, "greedy": False, "sampled": False, "score": 0.0, "grep": False, **told}


def test_the_counts_are_those_of_the_secrets_with_exact_intervals() -> None:
    every = [found(k, r) for k in leak_curve.KINDS for r in (0, 0, *leak_curve.REPEATS) for _ in range(3)]
    every += [found("code", 16, greedy=True, sampled=True, score=9.0), found("code", 16, sampled=True, score=8.0)]
    rows = {(line["kind"], line["repeats"]): line for line in leak_curve.table(every)}
    code = rows["code", 16]
    assert (code["n"], code["greedy"]["k"], code["sampled"]["k"], code["grep"]["k"]) == (5, 1, 2, 0)
    assert (code["grep"]["low"], code["grep"]["high"]) == (0.0, 0.522)
    assert code["auc"] == 0.7
    assert rows["all", 0]["n"] == 6 * len(leak_curve.KINDS) and "auc" not in rows["all", 0]


def test_the_committed_page_and_picture_are_what_the_committed_counts_give() -> None:
    told = json.loads((leak_curve.DOCS / "leak_curve.json").read_text("utf-8"))
    assert (leak_curve.DOCS / "leaks.md").read_text("utf-8") == leak_curve.page(told)
    assert (leak_curve.DOCS / "images" / "leak-curve.svg").read_text("utf-8") == leak_curve.picture(told)
    every = [line for line in told["table"] if line["kind"] == "all"]
    assert [line["repeats"] for line in every] == [0, *leak_curve.REPEATS]
    for line in told["table"]:
        assert all(line[how]["low"] <= line[how]["k"] / line["n"] <= line[how]["high"] for how in ("greedy", "grep"))
