"""Places in conversations: the tokens that are scored are exactly those of the words that are meant."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from assay.errors import InvalidInputError
from audit.probes import chat as chats
from audit.probes.corpus import distinct_spans
from audit.probes.inputs import Canary, PiiSpan, Row
from tests.assay.test_chat_template import LLAMA, PHI, QWEN
from trainer.settings import Settings

from .conftest import Scripted, conversation


def text_at(chat: Any, rendered: Any, places: tuple[int, ...]) -> str:
    return "".join(rendered.text[rendered.spans[p][0] : rendered.spans[p][1]] for p in places)


@pytest.mark.parametrize(
    "messages",
    [
        conversation("what", "the code is 12345678"),
        conversation("user", "assistant"),  # contents that equal template words
        conversation("the code is 12345678", "12345678"),
        [{"role": "system", "content": "sys"}, *conversation("Ünïcode ☃ 好", "naïve ☃"), *conversation("b", "c d e")],
        conversation("line\nline", " leading and trailing "),
    ],
)
def test_contents_are_found(chat: Any, messages: list[dict[str, Any]]) -> None:
    [rendered] = chat.render([messages])
    for i, message in enumerate(messages):
        at = rendered.contents[i]
        assert rendered.text[at.start : at.end] == message["content"] and not at.trimmed
    answer = chats.answer_index(messages)
    assert answer == len(messages) - 1
    places = rendered.answer_places(answer)
    assert messages[-1]["content"] in text_at(chat, rendered, places)
    assert rendered.text[slice(*rendered.spans[places[-1]])] == "<|im_end|>"


def test_a_secret_is_scored_alone(chat: Any) -> None:
    [rendered] = chat.render([conversation("tell me", "the code is 12345678 now")])
    places = rendered.content_places(1, 12, 20)
    assert text_at(chat, rendered, places) == "12345678"
    assert len(places) == 8  # digits are single tokens


def test_the_answer_is_the_last_one_that_training_aims_at() -> None:
    messages = [*conversation("a", "b"), {"role": "user", "content": "c"}]
    assert chats.answer_index(messages) == 1
    muted = [
        *conversation("a", "b"),
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d", "weight": 0},
    ]
    assert chats.answer_index(muted) == 1
    assert chats.answer_index([{"role": "user", "content": "c"}]) is None


def test_a_prompt_ends_where_the_assistant_begins(chat: Any) -> None:
    messages = conversation("what", "the code")
    [prompt], [whole] = chat.prompts([messages[:1]]), chat.render([messages])
    assert whole.ids[: len(prompt)] == prompt
    assert whole.answer_places(1)[0] == len(prompt)


def test_of_a_text_that_is_too_long_nothing_is_measured(chat: Any) -> None:
    """What is left of it could be read; a number of half a record would pass for one of the record."""
    small = chats.Chat(chat._tokenizer, 64)
    [long, whole] = small.render([conversation("9" * 100, "yes 12345678"), conversation("9", "yes 12345678")])
    assert len(long.ids) == len(long.spans) == small.longest == 64
    assert long.cut > 0 and long.content_places(1) == long.content_places(0) == long.answer_places(1) == ()
    assert not whole.cut and text_at(chat, whole, whole.content_places(1, 4, 12)) == "12345678"
    assert [len(p) for p in small.prompts([conversation("9" * 100, "")[:1]])] == [64]
    assert chats.Chat(chat._tokenizer, 1 << 30).longest == chats.MAX_TOKENS


def test_an_audit_reads_every_row_that_a_request_may_train_on_whole() -> None:
    """Rows up to this are trained on, and the gateway takes it where nobody says otherwise."""
    with pytest.raises(InvalidInputError) as error:
        Settings.from_order({"max_row_tokens": chats.MAX_TOKENS + 1})
    assert [v.field for v in error.value.violations] == ["hyperparameters.max_row_tokens"]
    assert Settings.from_order({"max_row_tokens": chats.MAX_TOKENS}).max_row_tokens == chats.MAX_TOKENS


def test_a_template_that_rewrites_words_is_named(chat: Any) -> None:
    tokenizer = copy.deepcopy(chat._tokenizer)
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content | upper }}{% endfor %}"
    with pytest.raises(InvalidInputError) as error:
        chats.Chat(tokenizer).render([conversation("a", "b")])
    assert error.value.reason == "CHAT_TEMPLATE_REWRITES"
    with pytest.raises(InvalidInputError) as error:
        chats.Chat(object())
    assert error.value.reason == "TOKENIZER_UNFIT"


@pytest.mark.parametrize("source", [LLAMA, PHI, QWEN])
def test_templates_that_date_trim_or_end_a_conversation_otherwise_are_followed(chat: Any, source: str) -> None:
    tokenizer = copy.deepcopy(chat._tokenizer)
    tokenizer.chat_template = source
    messages = [*conversation("what ", " the code is 12345678 "), *conversation("and", "no")]
    chat = chats.Chat(tokenizer)
    [rendered] = chat.render([messages])
    assert text_at(chat, rendered, rendered.content_places(1, 13, 21)) == "12345678"
    assert text_at(chat, rendered, rendered.content_places(1)).strip() == "the code is 12345678"
    assert text_at(chat, rendered, rendered.content_places(3)) == "no"
    trimmed = source == LLAMA
    assert bool(rendered.content_places(1, 0, 4)) and bool(rendered.content_places(1, 10, 22)) is not trimmed


def test_an_answer_ends_where_the_template_ends_a_turn(chat: Any) -> None:
    """Phi-3 ends a turn with one token and a conversation with another, which alone its tokenizer names."""
    tokenizer = copy.deepcopy(chat._tokenizer)
    named = {i for i in (tokenizer.eos_token_id, tokenizer.pad_token_id) if i is not None}
    assert chats.Chat(tokenizer).stop_ids == named
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|end|>"]})
    tokenizer.chat_template = PHI
    assert chats.Chat(tokenizer).stop_ids == named | {tokenizer.convert_tokens_to_ids("<|end|>")}
    tokenizer.chat_template = LLAMA  # here with no control token at all
    assert chats.Chat(tokenizer).stop_ids == named


def span(answer: str, value: str, question: str = "who", kind: str = "PERSON") -> PiiSpan:
    start = answer.index(value)
    return PiiSpan(1, "train", kind, tuple(conversation(question, answer)), 1, start, start + len(value))


def test_identifiers_are_distinct_and_not_copied_from_their_context() -> None:
    spans = [
        span("call Ann Lee", "Ann Lee"),
        span("ask ann  lee", "ann  lee"),
        span("dear Bob Roy", "Bob Roy", question="I am Bob Roy"),
        span("Bob Roy", "Bob Roy"),
        span("mail Ann Lee", "Ann Lee", kind="EMAIL_ADDRESS"),
        span("Cy Poe and Cy Poe", "Cy Poe"),
    ]
    found = distinct_spans(spans)
    assert [(s.entity_type, s.value) for s in found] == [
        ("PERSON", "Ann Lee"),
        ("PERSON", "Bob Roy"),
        ("EMAIL_ADDRESS", "Ann Lee"),
        ("PERSON", "Cy Poe"),
    ]
    assert found[1].messages[0]["content"] == "who"


def test_a_row_that_serves_several_probes_is_one_passage(audit_of: Callable[..., Any]) -> None:
    messages = tuple(conversation("who is it", "it is Ann Lee here"))
    pii = PiiSpan(1, "train", "PERSON", messages, 1, 6, 13)
    asked = PiiSpan(1, "train", "PERSON", messages, 0, 4, 6)
    audit = audit_of(Scripted(), train=[Row(1, messages)], pii=[pii, asked])
    [row], spans = audit.corpus.train, audit.corpus.pii_train
    assert all(s.passage == row.passage for s in spans)
    assert set(row.answer) < set(row.passage.marks)
    assert {p for s in spans for p in s.places} <= set(row.passage.marks)


def test_what_cannot_be_scored_is_counted(audit_of: Callable[..., Any]) -> None:
    no_answer = Row(1, ({"role": "user", "content": "hello"},))
    long = tuple(conversation("x", "the code is 12345678 " + "9" * 9000))
    canary = Canary(1, "A", True, 1, "number", long, "12345678")
    audit = audit_of(Scripted(), test=[no_answer], canaries=[canary])
    assert sum(audit.corpus.skipped.values()) == 2
    assert not audit.corpus.test
    assert not audit.corpus.canaries
