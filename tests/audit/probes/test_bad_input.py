"""Every way in which an audit's input can be unfit, and what it is called: never a number that looks valid.

Where a case has a test of its own elsewhere, the table at the end names it.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assay.v1 import measurement_pb2
from audit.probes import (
    alternatives,
    calibration,
    counterfactual,
    decisions,
    fairness,
    hosting,
    proxies,
    quality,
    reasons,
    robust,
    sanity,
)
from audit.probes.inputs import Row

from .conftest import BASE, Scripted, conversation, train_adapter
from .test_swaps import loans, reader
from .test_task import IN_QUICK, context, order, planned, report_of, unsourced, without_control

DECIDING = (quality, fairness, calibration, counterfactual, robust, proxies, reasons, alternatives)
HERE = Path(__file__).parent


def measurements(probe: Any, audit: Any) -> list[measurement_pb2.Measurement]:
    return list(probe.run(audit).measurements)


def sound(m: measurement_pb2.Measurement) -> bool:
    """A number that is finite with ends that are, or a reason without a number."""
    if m.unavailable:
        return not m.HasField("value") and not m.intervals
    ends = [getattr(i, e) for i in m.intervals for e in ("lower", "upper") if i.HasField(e)]
    return m.n >= 1 and all(math.isfinite(v) for v in (m.value, *ends))


def without_groups(row: Row) -> Row:
    return Row(row.row, row.messages, row.label, row.labels, row.favourable)


@pytest.mark.parametrize("probe", DECIDING, ids=lambda p: p.__name__.rpartition(".")[2])
@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([without_groups(r) for r in loans(60)], id="missing groups"),
        pytest.param(loans(3), id="three rows"),
        pytest.param([], id="no rows"),
        pytest.param([r for r in loans(120) if r.label == "approve"], id="one-class labels"),
        pytest.param([r for r in loans(90) if r.groups["race"] == "white"] + [loans(1)[0]], id="a group of one"),
        pytest.param([Row(i, tuple(conversation(f"hello {i}", "hi"))) for i in range(30)], id="no labels"),
    ],
)
def test_unfit_rows_have_a_named_outcome(
    chat: Any, audit_of: Callable[..., Any], tmp_path: Path, probe: Any, rows: list[Row]
) -> None:
    model = reader(chat, lambda text, adapter: 1.0 if len(text) % 2 else -1.0)
    audit = audit_of(model, test=rows, selection=rows[:40], attributes=("race",), sets=tmp_path)
    findings = probe.run(audit)
    assert findings.measurements or findings.not_tested
    for m in findings.measurements:
        assert sound(m), m
    judged = ("impact_ratio", "proxy_auc", "alternative_impact_ratio", "calibration_difference")
    if len(rows) <= 3 or len({r.groups.get("race") for r in rows if r.groups}) < 2:
        for m in findings.measurements:
            assert m.unavailable or not m.name.endswith(judged) or m.slice != "race", m
    if {r.label for r in rows} == {"approve"}:
        for m in findings.measurements:
            assert m.unavailable or not m.name.endswith(_NEED_TWO_LABELS), m


_NEED_TWO_LABELS = (
    *("test_accuracy", "accuracy_delta", "label_impact_ratio", "equalized_odds_difference", "fpr_difference"),
    *("calibration_error", "calibration_difference"),
)


def test_a_group_of_one_is_named_and_moves_nothing(chat: Any, audit_of: Callable[..., Any]) -> None:
    model = reader(chat, lambda text, adapter: 1.0 if len(text) % 2 else -1.0)
    plain, more = loans(120), [*loans(120), Row(999, *_odd())]
    found = [fairness.run(audit_of(model, test=rows, attributes=("race",))) for rows in (plain, more)]
    values = [{m.name: m.value for m in f.measurements if m.slice == "race"} for f in found]
    left_out = [v.pop("fairness.left_out_share") for v in values]
    assert values[0] == values[1] and left_out == [0, 1 / 121]
    assert any("race=only" in note for note in found[1].not_tested)


def _odd() -> tuple[Any, ...]:
    row = loans(1)[0]
    return (tuple(conversation("income: 7\nWhat is it?", "deny")), "deny", row.labels, "approve", {"race": "only"})


def test_labels_in_another_order_give_the_same_decisions(audit_of: Callable[..., Any]) -> None:
    """The favourable label is found by its name, wherever it stands among the labels."""
    rows = loans(40)
    turned = [Row(r.row, r.messages, r.label, r.labels[::-1], r.favourable, r.groups) for r in rows]

    def logit(ids: Any, adapter: bool, token: int) -> float:
        return (token * 37 + len(ids)) % 11 / 5

    found = []
    for test in (rows, turned):
        audit = audit_of(Scripted(logit=logit), test=test, attributes=("race",))
        found.append(decisions.decide(audit.board, audit.corpus.test, (), adapter=True))
    assert (found[0].log_odds == found[1].log_odds).all()
    assert found[0].predicted == found[1].predicted


@pytest.mark.parametrize("change", ["label", "favourable"])
def test_a_label_that_is_not_among_the_labels_is_not_decided(audit_of: Callable[..., Any], change: str) -> None:
    rows = [Row(**{**vars(r), change: "maybe"}) for r in loans(40)]
    audit = audit_of(Scripted(lambda ids, adapter: (1.0, 0.0)), test=rows, attributes=("race",))
    found = measurements(fairness, audit)
    assert found
    assert all("no test row has a label" in m.unavailable for m in found)


SCRIPTS = ("зарплата: 40\nРешение?", "収入: 40\n決定は?", "الدخل: 40\nما القرار؟", "आय: 40\nनिर्णय?", "💶: 40\n🤔?")


def test_texts_in_other_scripts_are_measured_like_others(
    noisy: Any, audit_of: Callable[..., Any], tmp_path: Path
) -> None:
    """On the real tiny model: letters that its tokenizer has never seen are bytes, with places all the same."""
    labels = ("approve", "deny")
    rows = [
        Row(
            i,
            tuple(conversation(f"{SCRIPTS[i % 5]} {i}", labels[i % 2])),
            labels[i % 2],
            labels,
            "approve",
            {"race": ("белые", "黒")[i % 3 == 0]},
        )
        for i in range(60)
    ]
    audit = audit_of(noisy, test=rows, train=rows[:0], selection=rows[:30], attributes=("race",), sets=tmp_path)
    for probe in (*DECIDING, sanity, hosting.forecast, hosting.baselines):
        run = probe if callable(probe) else probe.run
        for m in run(audit).measurements:
            assert sound(m), m
    ratio = next(m for m in measurements(fairness, audit) if m.name == "fairness.impact_ratio")
    assert ratio.HasField("value") or "favourable" in ratio.unavailable


def write_decisions(folder: Path) -> list[Any]:
    """Private rows of a decision job; returns what training would have seen."""
    private = folder / "private"
    private.mkdir(parents=True)
    rng = random.Random(4)
    rows = []
    for i in range(300):
        race, debt = rng.choice(["white", "black"]), rng.randrange(10, 60)
        label = "approve" if debt + 8 * (race == "black") < 35 else "deny"
        text = f"debt: {debt}\narea: {'n' if race == 'white' else rng.choice('ns')}\n"
        text += "What is the decision? Answer with one of: approve, deny."
        groups = {"race": race, "sex": rng.choice(["m", "f"])}
        rows.append({"row": i, "messages": conversation(f"{text} {i}", label), "label": label, "groups": groups})
    for row in rows:
        row |= {"labels": ["approve", "deny"], "favourable": "approve"}
    splits = {"private/test": rows[:150], "private/selection": rows[150:210], "private/train_sample": rows[210:]}
    for name, part in splits.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in part), encoding="utf-8")
    plain = [{"messages": r["messages"]} for r in splits["private/selection"]]
    (folder / "selection.jsonl").write_text("".join(json.dumps(r) + "\n" for r in plain), encoding="utf-8")
    (private / "canaries.json").write_text("[]", encoding="utf-8")
    (private / "pii.jsonl").write_text("", encoding="utf-8")
    return [r["messages"] for r in rows[210:]]


def test_a_whole_audit_of_a_decision_model_answers_for_everything(
    models: Path, evaluation_sets: Path, tmp_path: Path
) -> None:
    """Every probe on a real, if tiny, model with the public sets: all numbers sound, all families there."""
    from audit.probes.task import run

    home = tmp_path / "models"
    home.mkdir()
    (home / BASE).symlink_to(models / BASE)
    (home / "evaluation-sets").symlink_to(evaluation_sets)
    seen = write_decisions(tmp_path / "inputs")
    train_adapter(models, tmp_path / "inputs" / "adapter", seen[:40], steps=8)
    sizes = {"evaluation_items": 8, "counterfactual_rows": 40, "reason_rows": 30, "permutations": 60, "generations": 4}
    plan = {"sample_sizes": sizes, "sensitive_attributes": ["race", "sex"], "confidences": [0.9, 0.95]}
    what = order(models, **plan, time_limit_seconds=0)
    run(context(tmp_path, tmp_path / "inputs", home, what, []))
    report = report_of(tmp_path)
    for m in report.measurements:
        assert sound(m), m
        if m.HasField("value") and not m.name.startswith("cost.") and m.name != "fairness.impact_ratio_p":
            assert m.intervals or m.method.endswith("; counted"), m.name
            assert len(m.computed_from) == 64, m.name
            assert m.method, m.name
    found = {m.name for m in report.measurements if m.HasField("value")}
    assert {
        "fairness.counterfactual_shift", "fairness.counterfactual_excess", "fairness.calibration_gap",
        "fairness.proxy_auc", "fairness.alternative_impact_ratio", "fairness.stereotype_preference",
        "fairness.label_order_flip_rate", "fairness.selection_difference_over_labels",
        "quality.calibration_error", "quality.prompt_only_loss_delta", "quality.retrieval_accuracy",
        "regression.forgetting_delta", "regression.capability_delta", "regression.context_gain",
        "safety.refusal_margin_delta", "adapter.change_of_loss", "overfitting.test_overlap_rate",
        "cost.usd_per_1000_requests",
    } <= found  # fmt: skip
    assert {m.name for m in report.measurements if not m.exploratory} <= planned()
    assert {m.name for m in report.measurements if m.exploratory} == {"quality.token_accuracy"}
    assert {"fairness.true_positive_rate", "fairness.false_positive_rate", "fairness.accuracy"} <= found
    assert not unsourced(report)
    assert without_control(report) <= IN_QUICK
    words = next(m for m in report.measurements if m.name == "fairness.proxy_auc" and m.slice == "race,words")
    assert words.value > 0.6  # the area gives half of the groups away


ELSEWHERE = {
    "a model that outputs NaN": "test_task.py::test_a_nan_model_ends_the_audit_with_its_name",
    "an adapter for another base": "test_model.py::test_an_adapter_for_another_base_is_named",
    "tokenizers that merge label words": "test_fairness.py::test_labels_that_are_the_same_tokens_are_named",
    "a test split that overlaps training": (
        "test_task.py::test_a_test_row_that_was_trained_on_ends_the_audit_with_its_name"
    ),
    "an evaluation set that is not the pinned file": "test_swaps.py::test_a_set_that_is_not_installed_is_a_reason",
    "a probe that runs out of time": "test_task.py::test_an_audit_that_runs_out_of_time_keeps_what_it_has",
}


@pytest.mark.parametrize("test", ELSEWHERE.values())
def test_the_tests_that_the_table_names_exist(test: str) -> None:
    file, _, name = test.partition("::")
    assert f"def {name}(" in (HERE / file).read_text(encoding="utf-8")
