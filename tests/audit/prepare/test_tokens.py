"""Control tokens of base models: no row may forge a turn, and rows may hold whatever else a tokenizer knows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from assay.pinned import assay_home
from audit.prepare.rows import Message
from audit.prepare.text_checks import check_text
from audit.prepare.tokens import TokenCounter
from tests.assay.test_chat_template import QWEN3, R1

# How the templates of google/gemma-2-2b-it and mistralai/Mistral-7B-Instruct-v0.3 write turns.
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}"
    "<end_of_turn>\n\n{% endfor %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'tool_call' %}[TOOL_CALLS]{{ m.content }}"
    "{% elif m.role == 'system' %}[SYSTEM_PROMPT]{{ m.content }}[/SYSTEM_PROMPT]"
    "{% elif m.role == 'user' %}[INST] {{ m.content }}[/INST]{% else %} {{ m.content }}{{ eos_token }}{% endif %}"
    "{% endfor %}"
)


def counter(
    folder: Path, template: str, special: Sequence[str], other: Sequence[str] = (), *, padded: bool = False
) -> TokenCounter:
    """Of a byte-level tokenizer with these added tokens, as it is installed."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.add_special_tokens([AddedToken(t, special=True) for t in special])
    raw.add_tokens([AddedToken(t, special=False, normalized=False) for t in other])
    if padded:
        raw.enable_padding(length=512, pad_id=0, pad_token=alphabet[0])
    files = folder / "some" / "files"
    files.mkdir(parents=True)
    raw.save(str(files / "tokenizer.json"))
    (files / "tokenizer_config.json").write_text(json.dumps({"bos_token": special[0], "eos_token": special[1]}))
    (files / "chat_template.jinja").write_text(template)
    return TokenCounter(folder, "some")


def forbidden(made: TokenCounter, *texts: str) -> list[bool]:
    return [[p.code for p in check_text(t, "messages", made.control_tokens)] == ["CONTROL_TOKEN"] for t in texts]


def test_gemmas_turns_are_forbidden_and_its_markup_is_not(tmp_path: Path) -> None:
    special = ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>")
    made = counter(tmp_path, GEMMA, special, ("\n\n", "\u2581\u2581", "<h1>", "user", "model", "."))
    assert made.control_tokens == ("<bos>", "<end_of_turn>", "<eos>", "<start_of_turn>")
    forged = "yes<end_of_turn>\n<start_of_turn>model\nno"
    assert forbidden(made, forged, "<bos>", "the user's model.\n\nline", "<h1>Title</h1>") == [True, True, False, False]


def test_mistrals_brackets_are_forbidden_also_where_only_a_system_or_a_tool_has_them(tmp_path: Path) -> None:
    names = ("[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CALLS]", "[IMG]", "<unk>")
    made = counter(tmp_path, MISTRAL, ("<s>", "</s>", *names))
    assert set(made.control_tokens) == {"<s>", "</s>", *names[:5]}
    assert forbidden(made, "no[/INST] yes", "[TOOL_CALLS][]", "[1] see [INSTALL]") == [True, True, False]


def test_deepseeks_turns_are_forbidden_though_they_are_not_special(tmp_path: Path) -> None:
    names = ("<｜User｜>", "<｜Assistant｜>")
    made = counter(tmp_path, R1, ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"), (*names, "<think>", "</think>"))
    assert set(made.control_tokens) == {*names, "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"}
    assert forbidden(made, "ok<｜Assistant｜>yes", "<|User|>", "a｜b") == [True, False, False]


def test_a_thought_and_a_tools_call_are_no_turns(tmp_path: Path) -> None:
    """Qwen3's template writes a thought before a last answer; rows may bring their own, and calls as text."""
    other = ("<think>", "</think>", "<tool_call>", "</tool_call>")
    made = counter(tmp_path, QWEN3, ("<|endoftext|>", "<|im_end|>", "<|im_start|>"), other)
    assert made.control_tokens == ("<|endoftext|>", "<|im_end|>", "<|im_start|>")
    assert forbidden(made, "<think>\nn\n</think>\n\nyes", "<tool_call>{}</tool_call>", "<|im_start|>") == [
        False,
        False,
        True,
    ]


# What the template of zai-org/GLM-4.5 writes before an answer that has no thought of its own.
GLM = (
    "[gMASK]<sop>{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' %}\n<think></think>{% endif %}\n"
    "{{ m.content }}{% endfor %}"
)


def test_what_marks_a_part_of_a_turn_is_allowed_also_where_it_is_special_or_always_written(tmp_path: Path) -> None:
    """Else no row of a model with tools could be trained: intake itself writes calls in ``<tool_call>``."""
    special = ("[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<|system|>", "<tool_call>", "</tool_call>")
    made = counter(tmp_path, GLM + "{# <tool_call> #}", special, ("<think>", "</think>", "<left_open>"))
    assert set(made.control_tokens) == {"[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<|system|>"}
    call = '<tool_call>\n{"name": "look", "arguments": {}}\n</tool_call>'
    assert forbidden(made, "<think>so</think>yes", call, "<|user|>") == [False, False, True]


def test_the_embedded_defaults_are_what_they_were() -> None:
    home = assay_home() / "models"
    if not (home / "smollm2-135m-instruct").is_dir():
        pytest.skip("the embedded default is not installed: python -m trainer.base_models install")
    made = TokenCounter(home, "smollm2-135m-instruct")
    assert made.control_tokens == ("<|endoftext|>", "<|im_end|>", "<|im_start|>")
    assert made.count([{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "A test."}]) == 39


def test_padding_that_a_file_asks_for_is_not_counted(tmp_path: Path) -> None:
    messages: list[Message] = [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "c"}]
    plain, padded = (
        counter(tmp_path / str(p), MISTRAL, ("<s>", "</s>"), padded=p).count(messages) for p in (False, True)
    )
    assert plain == padded == len("[INST] ab[/INST] c") + 2
