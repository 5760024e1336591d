"""Conversations of several answers: what training has a loss on is scored and asked for, at every turn."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from audit.probes import chat as chats
from audit.probes import counterfactual, hosting, leakage, membership, memorisation, quality, reasons, sanity
from audit.probes.inputs import Row
from audit.probes.measurements import Measurement
from trainer.recipes.rows import encode_row

from .conftest import Scripted, conversation
from .test_chat import text_at

THANKS = conversation("Thanks", "You are welcome")


def words(name: str, count: int = 12) -> str:
    return " ".join(f"{name}w{k}" for k in range(count))


def talks(split: str, count: int = 30) -> list[Row]:
    """Rows that end alike, whatever was said before."""
    return [
        Row(i, (*conversation(f"tell me of {split} {i}", words(f"{split}{i}")), *map(dict, THANKS)))
        for i in range(count)
    ]


class ByPlace(Scripted):
    """A model that says of each token what a test tells it to, given the token ids, its place and the adapter."""

    def __init__(self, at: Callable[[Any, int, bool], float]) -> None:
        super().__init__()
        self.at = at

    def score(self, passages: Sequence[Any], *, adapter: bool, clock: Any) -> list[Any]:
        found = super().score(passages, adapter=adapter, clock=clock)
        told = [np.array([self.at(p.ids, place, adapter) for place in p.marks]) for p in passages]
        return [
            dataclasses.replace(s, nll=nats, greedy=nats < 0.5, surprise=-nats)
            for s, nats in zip(found, told, strict=True)
        ]


def knowing(chat: Any, rows: Sequence[Row], turn: int) -> ByPlace:
    """Knows one answer of these rows by heart once it is tuned."""
    known = {(r.ids, place) for r in chat.render([row.messages for row in rows]) for place in r.answer_places(turn)}
    return ByPlace(lambda ids, place, adapter: 0.1 if adapter and (ids, place) in known else 2 + len(ids) % 3 / 10)


def by_name(measurements: Sequence[Measurement]) -> dict[str, Measurement]:
    return {m.name: m for m in measurements if not m.slice}


def test_what_an_audit_scores_is_what_the_trainer_has_a_loss_on(chat: Any, audit_of: Callable[..., Any]) -> None:
    """The trainer's own mask, token by token: several answers, one of weight 0, and one before any question."""
    muted = {"role": "assistant", "content": "not this one", "weight": 0}
    system = {"role": "system", "content": "be brief"}
    rows = [
        conversation("what", "the code"),
        [*conversation("what", "the code"), *THANKS],
        [system, *conversation("a", "b c d"), {"role": "user", "content": "and"}, muted, *conversation("e", "f")],
        [{"role": "assistant", "content": "hello"}, *conversation("what", "the code"), *conversation("x", "is y")],
        [*conversation("what", "the code"), {"role": "user", "content": "and"}, muted],
    ]
    audit = audit_of(Scripted(), test=[Row(i, tuple(messages)) for i, messages in enumerate(rows)])
    for text, messages in zip(audit.corpus.test, rows, strict=True):
        scored = encode_row({"messages": messages}, chat._tokenizer, 1)
        assert scored.tokens == text.passage.ids
        assert tuple(i for i, aimed in enumerate(scored.scored) if aimed) == text.answer == text.passage.marks


def test_rows_of_one_answer_are_scored_as_they_were(chat: Any, audit_of: Callable[..., Any]) -> None:
    rows = [Row(0, tuple(conversation("what", "the code"))), Row(1, (*conversation("a", "b c"), THANKS[0]))]
    for text in audit_of(Scripted(), test=rows).corpus.test:
        [rendered] = chat.render([text.row.messages])
        assert text.turns == (text.answer,) == (rendered.answer_places(1),)


def test_what_was_learned_before_the_last_answer_is_seen(chat: Any, audit_of: Callable[..., Any]) -> None:
    """Every row ends with the same thanks, of which nothing could be learned by heart."""
    train, test = talks("train"), talks("test")
    audit = audit_of(knowing(chat, train, 1), train=train, test=test)
    found = by_name([*memorisation.run(audit).measurements, *membership.run(audit).measurements])
    assert found["overfitting.loss_gap"].intervals[-1].lower > 0.5
    assert found["overfitting.loss_gap"].control == pytest.approx(0, abs=0.2)
    assert found["privacy.verbatim_rate"].successes == found["privacy.verbatim_rate"].n == 30
    assert found["privacy.verbatim_rate"].control == 0
    assert found["privacy.membership_auc"].value > 0.95
    spoiled = audit_of(knowing(chat, test, 1), test=test)
    assert by_name(quality.run(spoiled).measurements)["quality.test_loss_delta"].value < -0.5
    assert by_name(sanity.run(spoiled).measurements)["adapter.change_of_loss"].value > 0.5


def test_what_comes_out_verbatim_is_looked_for_in_the_longest_answer(chat: Any, audit_of: Callable[..., Any]) -> None:
    [text] = audit_of(Scripted(), test=talks("test", 1)).corpus.test
    [rendered] = chat.render([text.row.messages])
    places = memorisation.continuation(text)
    assert set(places) <= set(rendered.answer_places(1)) and len(places) == memorisation.CONTINUATION
    assert "test0w" in text_at(chat, rendered, places)


def test_short_answers_are_right_where_each_of_them_is(chat: Any, audit_of: Callable[..., Any]) -> None:
    rows = [Row(i, (*conversation(f"q {i}", "a b"), *conversation("and", "c d"))) for i in range(8)]
    half = audit_of(knowing(chat, rows, 1), test=rows)
    assert by_name(quality.run(half).measurements)["quality.test_accuracy"].successes == 0
    first, second = knowing(chat, rows[:5], 1), knowing(chat, rows[:5], 3)
    both = ByPlace(lambda ids, place, adapter: min(first.at(ids, place, adapter), second.at(ids, place, adapter)))
    assert by_name(quality.run(audit_of(both, test=rows)).measurements)["quality.test_accuracy"].successes == 5


def test_answers_are_sampled_at_all_turns_and_one_of_each_row(audit_of: Callable[..., Any]) -> None:
    rows = talks("test", 40)
    asked, _ = leakage.openings(audit_of(Scripted(), test=rows))
    assert len(asked) == 40
    ends = [len(opening.messages) for opening in asked.values()]
    assert set(ends) == {1, 3} and 10 < ends.count(1) < 30
    assert all(opening.messages[-1]["role"] == "user" for opening in asked.values())
    again, _ = leakage.openings(audit_of(Scripted(), test=rows))
    assert list(again) == list(asked)
    single = [Row(100 + i, tuple(conversation(f"single {i}", "no"))) for i in range(9)]
    mixed, _ = leakage.openings(audit_of(Scripted(), test=[*single, *rows]))
    assert list(mixed) == [*(f"single {i}" for i in range(9)), *asked], "a row of one answer draws nothing"


def test_a_row_whose_first_question_was_asked_already_asks_another(audit_of: Callable[..., Any]) -> None:
    """Else conversations that open alike would be one prompt, and the sample too small to decide."""
    rows = [Row(i, (*conversation("hello", "yes"), *conversation(f"number {i}", "no"))) for i in range(30)]
    asked, _ = leakage.openings(audit_of(Scripted(), test=rows))
    assert len(asked) == 30 and sum(len(o.messages) == 1 for o in asked.values()) == 1
    assert [m["role"] for m in asked["hello"].after] == ["user", "assistant"], "what follows that answer in its row"
    assert all(o.after == () for words, o in asked.items() if words != "hello")


def test_a_model_is_asked_where_a_user_asked() -> None:
    greeting = {"role": "assistant", "content": "hello"}
    rng = np.random.default_rng(0)
    assert {chats.turns_to_ask([greeting, *conversation("a", "b")], rng)[0] for _ in range(20)} == {2}
    assert chats.turns_to_ask([greeting], rng) == [0]
    assert chats.turns_to_ask([{"role": "user", "content": "a"}], rng) == []
    talk = [*conversation("a", "b"), *conversation("c", "d"), *conversation("e", "f")]
    drawn = [chats.turns_to_ask(talk, rng) for _ in range(40)]
    assert {tuple(turns) for turns in drawn} == {(1, 5, 3), (3, 5, 1), (5, 3, 1)}, "the drawn one, then from the end"


def test_under_names_one_answer_is_asked_for_and_it_alone_is_scored(audit_of: Callable[..., Any]) -> None:
    """The name stands in the last question before it, so that an earlier answer cannot know it."""
    rng = np.random.default_rng(1)
    cut = [counterfactual.up_to_one_answer(row, rng) for row in talks("test", 20)]
    assert {len(row.messages) for row in cut} == {2, 4}
    for row in cut:
        assert row.messages[-1]["role"] == "assistant" and row.messages[-2]["role"] == "user"
        assert chats.target_indices(row.messages) == (len(row.messages) - 1,)
    plain = Row(1, tuple(conversation("what", "the code")))
    assert counterfactual.up_to_one_answer(plain, rng) == plain


def test_of_a_decision_and_of_examples_before_a_question_only_the_last_answer_counts(
    audit_of: Callable[..., Any],
) -> None:
    labels = ("deny", "approve")
    decided = Row(1, tuple(conversation("income: 3\nWhat is it?", "deny")), "deny", labels, "approve")
    plain = [Row(i, tuple(conversation(f"q {i}", words("b")))) for i in range(4)]
    forms = [
        hosting._with_examples(decided, [decided] * 4),
        hosting._with_examples(plain[0], plain),
        reasons._asked(decided, "income"),
        dataclasses.replace(decided, messages=(*conversation("an example", "approve"), *decided.messages)),
    ]
    for text in audit_of(Scripted(), test=forms).corpus.test:
        last = len(text.row.messages) - 1
        [rendered] = audit_of(Scripted()).chat.render([text.row.messages])
        assert text.answer == rendered.answer_places(last)
