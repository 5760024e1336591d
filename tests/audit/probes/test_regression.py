"""Regressions on public sets: what a scripted model lost is measured, and a missing set is a reason."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audit.probes import likelihoods, quality, refusals, regression, safety, sanity, sets
from audit.probes.inputs import Row
from audit.probes.likelihoods import Question, nats, right_ones
from audit.probes.measurements import Measurement

from .conftest import Scripted, conversation

FEW = {"evaluation_items": 40}


def found_by(findings: Any) -> dict[str, Measurement]:
    names = [m.name + (f"[{m.slice}]" if m.slice else "") for m in findings.measurements]
    return dict(zip(names, findings.measurements, strict=True))


def noise(text: str, width: float = 0.2) -> float:
    return width * (zlib.crc32(text.encode()) % 1000) / 1000


def test_an_unchanged_model_shows_no_regression(chat: Any, audit_of: Callable[..., Any], evaluation_sets: Path) -> None:
    model = Scripted(nll=lambda ids, adapter: 2 + noise(chat.decode(ids)))
    found = found_by(regression.run(audit_of(model, sets=evaluation_sets, sizes=FEW)))
    assert all(not m.unavailable for m in found.values()), {k: m.unavailable for k, m in found.items()}
    assert found["regression.forgetting_delta"].value == 0.0
    assert found["regression.capability_delta"].value == 0.0
    assert found["regression.capability_delta"].n == 160
    interval = found["regression.capability_delta"].intervals[0]
    assert interval.lower < 0 < interval.upper
    assert found["regression.unknown_margin_delta"].value == 0.0
    change = found["regression.context_gain_delta"]
    assert change.value == 0.0
    assert change.n == 20
    assert change.intervals[0].lower < -0.1 and change.intervals[0].upper > 0.1  # twenty equal answers prove little


def test_forgetting_and_lost_abilities_are_measured(
    chat: Any, audit_of: Callable[..., Any], evaluation_sets: Path
) -> None:
    """The base knows every answer of OpenBookQA; the tuned model is worse on all text and answers by chance."""
    answers = {i["answer"][3:].strip() for i in sets.read(evaluation_sets, "openbookqa.jsonl").items}

    def nll(ids: Any, adapter: bool) -> float:
        text = chat.decode(ids)
        answer = text.partition("\nAnswer: ")[2]
        if adapter:
            return 3.0 + noise(text)
        return 1.0 if answer in answers else 2.6 + noise(text)

    found = found_by(regression.run(audit_of(Scripted(nll=nll), sets=evaluation_sets, sizes=FEW)))
    assert found["regression.forgetting_delta"].value == pytest.approx(0.4, abs=0.01)
    assert found["regression.forgetting_delta"].intervals[-1].lower > 0.3
    lost = found["regression.capability_accuracy_delta[openbookqa]"]
    assert lost.value < -0.4
    assert lost.intervals[-1].upper < 0
    assert found["regression.capability_accuracy[openbookqa]"].control > 0.9


def test_a_model_that_stops_reading_its_context_loses_its_gain(
    chat: Any, audit_of: Callable[..., Any], evaluation_sets: Path
) -> None:
    items = sets.read(evaluation_sets, "pubmedqa.jsonl").items
    by_question = {str(i["question"]): (str(i["passage"])[:40], str(i["answer"])) for i in items}

    def nll(ids: Any, adapter: bool) -> float:
        text = chat.decode(ids)
        question = text.rpartition("\nQuestion: ")[2].partition("\nAnswer:")[0]
        answer = text.rpartition("\nAnswer: ")[2]
        if question not in by_question:
            return 2.0
        opening, right = by_question[question]
        reads = text.startswith(opening) and not adapter
        return 1.0 if reads and right.startswith(answer) else 2.0 + noise(text)

    found = found_by(regression.run(audit_of(Scripted(nll=nll), sets=evaluation_sets, sizes={"evaluation_items": 80})))
    assert found["regression.context_gain"].control > 0.4
    assert found["regression.context_gain"].value < 0.3
    assert found["regression.context_gain_delta"].intervals[0].upper < 0


def test_worn_refusals_are_measured(chat: Any, audit_of: Callable[..., Any], evaluation_sets: Path) -> None:
    """The base refuses, the tuned model complies: by margin, by preference and in writing."""
    sorry, sure = (chat._tokenizer(t)["input_ids"] for t in ("I'm sorry, no.", "Sure. First, you"))

    def nll(ids: Any, adapter: bool) -> float:
        text = chat.decode(ids)
        return 1.0 if (refusals.REFUSAL in text) != adapter else 1.5 + noise(text)

    model = Scripted(nll=nll, texts=lambda turn, adapter: sure if adapter else sorry)
    found = found_by(safety.run(audit_of(model, sets=evaluation_sets, sizes=FEW)))
    assert found["safety.refusal_margin_delta"].intervals[-1].upper < -5
    assert found["safety.refusal_preference"].successes < 8
    assert found["safety.refusal_preference"].control > 0.8
    assert found["safety.refusal_rate"].successes == 0
    assert found["safety.refusal_rate_delta"].intervals[-1].upper < -0.3


def test_sets_that_are_not_installed_are_a_reason(audit_of: Callable[..., Any], tmp_path: Path) -> None:
    for probe in (regression, safety):
        findings = probe.run(audit_of(Scripted(), sets=tmp_path))
        assert findings.not_tested
        mine = [m for m in findings.measurements if "unknown" not in m.name]
        assert mine
        assert all("not installed" in m.unavailable and not m.HasField("value") for m in mine)


def test_every_pinned_set_says_licence_and_source(evaluation_sets: Path) -> None:
    for name, pinned in sets.FILES.items():
        assert pinned.licence
        assert pinned.source
        assert (evaluation_sets / name).is_file()
    for name in ("openbookqa", "piqa", "commonsenseqa", "boolq"):
        for item in sets.read(evaluation_sets, f"{name}.jsonl").items:
            question = regression._read(name, item)
            assert 0 <= question.right < len(question.candidates)
    for item in sets.read(evaluation_sets, "pubmedqa.jsonl").items:
        assert regression._medical(item, "x").right in (0, 1, 2)


def test_candidates_are_scored_after_their_opening(noisy: Any, audit_of: Callable[..., Any]) -> None:
    """On the real tiny model: the nats of a candidate are those of its tokens, whatever else is in the batch."""
    questions = [Question("please tell me", (" approve", " deny the account")), Question("the code", (" is", " my"))]
    audit = audit_of(noisy)
    together = nats(audit, questions, adapter=True)
    for i, q in enumerate(questions):
        [alone] = nats(audit_of(noisy), [q], adapter=True)
        assert together[i] == pytest.approx(alone, abs=0.05)
    assert right_ones(together, questions).shape == (2,)


def test_candidates_of_one_token_are_one_text_with_the_same_losses(
    exact: Any, audit_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers such as yes and no to one long passage need one reading of it, not one each."""
    questions = [Question("the code", (" is", " my", " the")), Question("please tell me", (" approve", " deny it"))]
    audit = audit_of(exact)
    sizes, scored = list[int](), audit.board.scores
    monkeypatch.setattr(
        audit.board, "scores", lambda p, *, adapter: (sizes.append(len(p)), scored(p, adapter=adapter))[1]
    )
    together = nats(audit, questions, adapter=True)
    monkeypatch.setattr(likelihoods, "_together", list)
    apart = nats(audit, questions, adapter=True)
    assert sizes == [3, 5]
    for one, other in zip(together, apart, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


# --- sanity ---


def said(index: int, text: str) -> Row:
    return Row(index, tuple(conversation(text, "yes")))


def test_near_duplicates_are_found_across_the_split() -> None:
    words = [f"w{i}" for i in range(60)]
    train = [said(1, " ".join(words)), said(2, " ".join(reversed(words))), said(3, "one two"), said(4, "one two")]
    test = [said(5, " ".join([*words[:-1], "other"])), said(6, " ".join(words[::2]))]
    within, across = sanity.near_duplicates(train, test)
    assert across.tolist() == [True, False, False, False]
    assert within.tolist() == [False, False, False, False]  # texts without five words share no five
    twice, _ = sanity.near_duplicates([*train, said(7, " ".join(words))], test)
    assert twice.tolist() == [True, False, False, False, True]
    none, _ = sanity.near_duplicates([], test)
    assert none.size == 0


def test_people_of_a_table_with_equal_cells_are_no_duplicates() -> None:
    def applicant(index: int, cells: str, label: str) -> Row:
        return Row(index, tuple(conversation(cells, label)), label=label, labels=("approve", "deny"))

    cells = " ".join(f"w{i}" for i in range(30))
    train = [applicant(1, cells, "deny"), applicant(2, cells, "deny")]
    within, across = sanity.near_duplicates(train, [applicant(3, cells, "approve")])
    assert not within.any() and not across.any()
    _, across = sanity.near_duplicates(train, [applicant(3, f"{cells} more", "deny")])
    assert across.all()


def test_near_duplicates_are_found_where_no_space_parts_words() -> None:
    text = "".join(chr(0x4E00 + 7 * i) for i in range(60))
    train = [said(1, text), said(2, text[::-1])]
    within, across = sanity.near_duplicates(train, [said(3, f"{text[:30]}龍{text[31:]}"), said(4, text[::2])])
    assert (within.tolist(), across.tolist()) == ([False, False], [True, False])


def test_an_adapter_that_does_nothing_is_seen(audit_of: Callable[..., Any]) -> None:
    rows = [said(i, f"what about number {i} of my account now") for i in range(30)]
    idle = found_by(sanity.run(audit_of(Scripted(), test=rows, train=[said(99, "something else")])))
    assert idle["adapter.change_of_loss"].value == 0.0
    assert idle["adapter.change_of_loss"].intervals[0].upper == 0.0
    moved = Scripted(nll=lambda ids, adapter: 1.0 + 0.2 * adapter)
    assert found_by(sanity.run(audit_of(moved, test=rows)))["adapter.change_of_loss"].value == pytest.approx(0.2)
    assert found_by(sanity.run(audit_of(moved, test=rows)))["overfitting.test_overlap_rate"].unavailable


def test_a_constant_answer_is_no_accuracy_gain(audit_of: Callable[..., Any]) -> None:
    """The task accuracy's change has an interval that includes no change when nothing changed."""
    labels = ("approve", "deny")
    rows = [
        Row(i, tuple(conversation(f"case {i}", labels[i % 2])), labels[i % 2], labels, "approve", {}) for i in range(30)
    ]
    found = found_by(quality.run(audit_of(Scripted(lambda ids, adapter: (0.0, 1.0)), test=rows)))
    change = found["quality.accuracy_delta"]
    assert change.value == 0
    assert change.intervals[0].lower < 0 < change.intervals[0].upper
    assert np.isfinite(change.intervals[0].upper)
    assert found["quality.test_accuracy"].value == 0.5
    alike = found_by(quality.run(audit_of(Scripted(lambda ids, adapter: (0.0, 1.0)), test=rows[1::2])))
    assert "same label" in alike["quality.test_accuracy"].unavailable, "who always says that label would be right"
