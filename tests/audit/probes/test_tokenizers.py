"""Tokenizers that do what the embedded default's does not: what is scored and asked stays what was trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from assay.pinned import assay_home
from audit.probes import chat as chats
from audit.probes.likelihoods import Question, nats
from tests.assay.test_chat_template import CHATML, MISTRAL, QWEN3, R1
from trainer.recipes.rows import encode_row

from .conftest import Scripted, conversation

ADDED = ("<bos>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "<｜User｜>", "<｜Assistant｜>")


@pytest.fixture(scope="module")
def embedded() -> Any:
    """The tokenizer of the embedded default, as ``make install`` puts it."""
    from transformers import AutoTokenizer

    files = assay_home() / "models" / "smollm2-135m-instruct" / "files"
    if not files.is_dir():
        pytest.skip("the embedded default is not installed: python -m trainer.base_models install")
    return AutoTokenizer.from_pretrained(files, local_files_only=True)


def tokenizer_of(template: str = CHATML, *, begins: bool = False, trims: bool = False) -> Any:
    """A byte-level tokenizer; on request its post-processor puts ``<bos>`` first, or takes blanks from offsets."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {c: i for i, c in enumerate([*alphabet, "Ġy", "Ġye", "Ġyes"])}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ġ", "y"), ("Ġy", "e"), ("Ġye", "s")]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens(list(ADDED))
    if trims:
        raw.post_processor = processors.ByteLevel(trim_offsets=True)
    if begins:
        raw.post_processor = processors.TemplateProcessing(
            single="<bos> $A", special_tokens=[("<bos>", raw.token_to_id("<bos>"))]
        )
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<bos>", chat_template=template)


@pytest.mark.parametrize("template", [CHATML, QWEN3, R1])
def test_a_sampled_answer_begins_where_the_trained_tokens_do(template: str) -> None:
    tokenizer = tokenizer_of(template)
    messages = conversation("who is it", "Ann Lee")
    row = encode_row({"messages": messages}, tokenizer, 1)
    [prompt] = chats.Chat(tokenizer).prompts([messages[:1]])
    assert prompt == row.tokens[: row.scored.index(True)]
    assert chats.Chat(tokenizer).leaves_room([messages[:1]], chats.MAX_TOKENS - len(prompt)) == [True]
    assert chats.Chat(tokenizer).leaves_room([messages[:1]], chats.MAX_TOKENS - len(prompt) + 1) == [False]


@pytest.mark.parametrize("template", [CHATML, QWEN3])
def test_an_early_answer_is_asked_for_as_its_row_trained_it(template: str) -> None:
    """Qwen3's template writes an empty thought before a last answer and before no other."""
    tokenizer = tokenizer_of(template)
    messages = [*conversation("who is it", "Ann Lee"), *conversation("and who else", "Bob Ray")]
    row = encode_row({"messages": messages}, tokenizer, 1)
    first, last = chats.Chat(tokenizer).prompts([messages[:1], messages[:3]], [messages[2:], ()])
    assert first == row.tokens[: row.scored.index(True)]
    assert last == row.tokens[: len(last)] and row.scored[len(last)] and not row.scored[len(last) - 1]
    assert (first != chats.Chat(tokenizer).prompts([messages[:1]])[0]) == (template is QWEN3)


def test_a_prompt_takes_no_blank_from_the_answers_first_token() -> None:
    tokenizer = tokenizer_of(MISTRAL)
    messages = conversation("who", "yes")
    row = encode_row({"messages": messages}, tokenizer, 1)
    [prompt] = chats.Chat(tokenizer).prompts([messages[:1]])
    assert prompt == row.tokens[: len(prompt)] and row.scored[len(prompt)]
    assert tokenizer.decode([row.tokens[len(prompt)]]) == " yes"


def test_plain_text_begins_as_its_tokenizer_lets_it_begin(audit_of: Callable[..., Any]) -> None:
    """Gemma's puts <bos> first; it is read, and never scored."""
    words = "no yes"
    [bare], [begun] = (chats.Chat(tokenizer_of(begins=b)).plain([words]) for b in (False, True))
    bos = tokenizer_of().bos_token_id
    assert begun.ids == (bos, *bare.ids) and begun.spans == ((0, 0), *bare.spans) and begun.text == bare.text
    assert begun.places(0, len(words)) == tuple(range(1, len(begun.ids)))

    asked: list[tuple[int, ...]] = []

    def score(ids: tuple[int, ...], adapter: bool) -> float:
        asked.append(ids)
        return 1.0

    audit = replace(audit_of(Scripted(nll=score)), chat=chats.Chat(tokenizer_of(begins=True)))
    [losses] = nats(audit, [Question("no", (" yes", " yes no"))], adapter=True)
    assert len(losses) == len(asked) == 2 and {ids[0] for ids in asked} == {bos}


def test_the_embedded_defaults_plain_text_is_its_tokens_and_nothing_else(embedded: Any) -> None:
    for text in ("What is it?", " Grüße, 好 ", "line\n\nline"):
        [rendered] = chats.Chat(embedded).plain([text])
        assert list(rendered.ids) == embedded(text, add_special_tokens=False)["input_ids"]


def test_the_embedded_defaults_prompts_are_its_templates_own(embedded: Any) -> None:
    for messages in (
        conversation("who", "me")[:1],
        [{"role": "system", "content": "sys"}, *conversation("a", "b"), {"role": "user", "content": " c\n"}],
    ):
        own = embedded.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
        assert chats.Chat(embedded).prompts([messages]) == [tuple(own)]


@pytest.mark.parametrize("answer", [" yes it is", "  yes", "\nyes", "yes"])
def test_an_answer_that_begins_with_a_blank_is_audited_where_it_is_trained(answer: str) -> None:
    for trims in (False, True):
        tokenizer = tokenizer_of(trims=trims)
        messages = conversation("who", answer)
        [rendered] = chats.Chat(tokenizer).render([messages])
        row = encode_row({"messages": messages}, tokenizer, 1)
        places = rendered.answer_places(1)
        trained = {i for i, scored in enumerate(row.scored) if scored}
        assert rendered.ids == row.tokens and trained and trained <= set(places)
        assert set(places) - trained <= set(range(min(trained))), "at most the blanks before its first word"


def test_words_that_no_token_covers_leave_a_text_unmeasured() -> None:
    spans = ((0, 2), (4, 6))
    rendered = chats.Rendered("ab  cd", (1, 2), spans, ())
    assert rendered.places(2, 6) == (1,) and rendered.places(3, 6) == (1,)
    assert chats.Rendered("ab x cd", (1, 2), ((0, 2), (5, 7)), ()).places(2, 7) == ()
