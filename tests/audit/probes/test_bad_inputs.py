"""Rows that no audit should be made of: three of them, in other scripts, or the same in test and training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assay.errors import IntegrityError
from assay.v1 import measurement_pb2, policy_pb2
from audit.probes import inference, leakage, membership
from audit.probes.inputs import PiiSpan, PrivateRows, Row, check_splits
from policies import gates

from .conftest import Scripted, conversation, write_adapter
from .test_task import GATES, context, order, report_of

GREEK = "Ελένη Παπαδοπούλου"
NAMES = (GREEK, "محمد الأحمد", "王小明", "Наталья Иванова", "नेहा शर्मा", "Zoë Åström 🐎")


def three(folder: Path) -> Path:
    """Inputs of an audit with three rows of everything."""
    private = folder / "inputs" / "private"
    private.mkdir(parents=True)
    rows = [{"row": i, "messages": conversation(f"question {i}", f"answer {i} of a few words")} for i in range(6)]
    canaries = [
        {"index": i, "stratum": "A", "included": i > 0, "repeats": 1, "form": "own", "kind": "code", "secret": f"7{i}4",
         "messages": conversation(f"tell me code {i}", f"the code is 7{i}4")}
        for i in range(3)
    ]  # fmt: skip
    (private / "canaries.json").write_text(json.dumps(canaries), encoding="utf-8")
    for name, part in (("test", rows[:3]), ("train_sample", rows[3:]), ("pii", [])):
        (private / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in part), encoding="utf-8")
    write_adapter(folder / "inputs" / "adapter", spread=0.02)
    return folder / "inputs"


def test_an_audit_of_three_rows_passes_no_gate(models: Path, tmp_path: Path) -> None:
    from audit.probes.task import run

    what = order(models)
    run(context(tmp_path, three(tmp_path), models, what, []))
    report = report_of(tmp_path)
    found = {f"{m.name}[{m.slice}]" if m.slice else m.name: m for m in report.measurements}
    planned = [
        measurement_pb2.PlannedGate(
            rule_id="r", measurement=g, side=measurement_pb2.LIMIT_SIDE_AT_MOST, limit=0.5, alpha=0.05, n=40
        )
        for g in GATES
        if not g.startswith("fairness")
    ]
    assert planned
    for judged in gates.judge_all(planned, found, lambda gate, reading: True):
        assert judged.outcome in (policy_pb2.OUTCOME_INCONCLUSIVE, policy_pb2.OUTCOME_ERROR), judged.gate.measurement
        if judged.outcome == policy_pb2.OUTCOME_INCONCLUSIVE:
            assert judged.n_required is None or judged.n_required > 3
    for m in report.measurements:
        sampled = m.HasField("value") and not m.name.startswith(("cost.", "privacy.epsilon_detectable"))
        assert not sampled or m.intervals, f"{m.name} looks certain on three rows"


def span(row: int, name: str, split: str = "train") -> PiiSpan:
    messages = tuple(conversation(f"τίνος {row}", f"→ {name} ←"))
    return PiiSpan(row, split, "PERSON", messages, 1, 2, 2 + len(name))


@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_any_script_is_found_at_its_own_tokens(chat: Any, audit_of: Callable[..., Any], name: str) -> None:
    spans = [span(0, name)]
    audit = audit_of(Scripted(greedy=lambda ids, adapter: adapter), pii=spans)
    [text] = audit.corpus.pii_train
    assert name in chat.decode(text.passage.ids[text.places[0] : text.places[-1] + 1])
    found = {m.slice: m for m in leakage.reconstruction(audit).measurements}
    assert (found[""].successes, found[""].n) == (1, 1)
    asked = inference.ask(audit, [q for s in spans if (q := inference.replaced(s, {}, 4, audit.settings.rng("x")))])
    assert len(asked) == 1 and not asked[0].tuned, "a model without a preference prefers nothing"


def test_rows_in_other_scripts_have_a_membership_area(audit_of: Callable[..., Any]) -> None:
    from .test_membership import _moments

    train = [Row(i, tuple(conversation(f"質問 {i}", f"{name} είναι εδώ {i}"))) for i, name in enumerate(NAMES)]
    test = [Row(i, tuple(conversation(f"سؤال {i}", f"{name} लेकिन {i}"))) for i, name in enumerate(NAMES)]
    found = membership.run(audit_of(_moments(), train=train, test=test)).measurements
    assert all(m.HasField("value") for m in found)


@pytest.mark.parametrize("again", ["the same", "The  SAME"])
def test_a_test_split_that_overlaps_training_ends_the_audit(again: str) -> None:
    train = (Row(1, tuple(conversation("q", "other"))), Row(2, tuple(conversation("q", "the same"))))
    test = (Row(3, tuple(conversation("q", again))),)
    with pytest.raises(IntegrityError) as caught:
        check_splits(PrivateRows(test=test, train=train, selection=(), canaries=(), pii=()))
    assert caught.value.reason == "SPLITS_OVERLAP"
    assert "row 3" in caught.value.message
    check_splits(PrivateRows(test=test, train=train[:1], selection=(), canaries=(), pii=()))


def test_equal_rows_of_a_table_are_different_people_unless_they_are_one_row() -> None:
    turns = tuple(conversation("score: fair", "deny"))
    train, twin = (Row(i, turns, label="deny", labels=("approve", "deny")) for i in (1, 2))
    check_splits(PrivateRows(test=(twin,), train=(train,), selection=(), canaries=(), pii=()))
    with pytest.raises(IntegrityError) as caught:
        check_splits(PrivateRows(test=(train,), train=(train,), selection=(), canaries=(), pii=()))
    assert caught.value.reason == "SPLITS_OVERLAP"
