"""The one renderer of chat templates: what templates in use need, one day for ever, and places of contents."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers.utils import chat_template_utils

from assay.chat_template import ChatTemplate
from assay.errors import InvalidInputError

LLAMA = (
    "{%- if strftime_now is defined %}{%- set today = strftime_now('%d %b %Y') %}{%- else %}{%- set today = 'none' %}"
    "{%- endif %}Today Date: {{ today }}\n{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}<eot>{% endfor %}"
)
PHI = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}{{ eos_token }}"
QWEN = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% set words = m.content.split('</think>')[-1].lstrip('\n') %}"
    "{% if m.role == 'assistant' and loop.last %}<think>\n"
    "{{ m.content.split('</think>')[0].split('<think>')[-1].strip('\n') if '</think>' in m.content }}\n</think>\n\n"
    "{% endif %}{{ words }}<|im_end|>\n{% endfor %}"
)
GEMMA = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('No ' + m.content) }}{% endif %}"
    "<turn>{{ m.role }}\n{{ m.content | trim }}</turn>\n{% endfor %}"
)
EXTRAS = (
    "{% for m in messages %}{% if loop.index > 2 %}{% break %}{% endif %}{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content | tojson }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}"
)

# The branches that decide where an answer begins, after the templates of Qwen/Qwen3-0.6B,
# deepseek-ai/DeepSeek-R1-Distill-Qwen-32B and mistralai/Mistral-7B-Instruct-v0.3.
BEGINS = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}" + BEGINS
QWEN3 = QWEN + BEGINS
R1 = (
    "{% for m in messages %}{% if m.role == 'user' %}<｜User｜>{{ m.content }}{% else %}"
    "<｜Assistant｜>{{ m.content.split('</think>')[-1] }}<｜end▁of▁sentence｜>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<｜Assistant｜><think>\n{% endif %}"
)
MISTRAL = (
    "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }}[/INST]{% else %} {{ m.content }}"
    "{{ eos_token }}{% endif %}{% endfor %}"
)
ASKED_ONLY = (
    "{% if messages[-1].role != 'user' %}{{ raise_exception('ends with a question') }}{% endif %}"
    "{% for m in messages %}{{ m.content }}\n{% endfor %}" + BEGINS
)


def template(source: str) -> ChatTemplate:
    return ChatTemplate(source, {"eos_token": "<|end-of-all|>"})


def said(*contents: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": c} for i, c in enumerate(contents)]


def test_it_is_the_same_day_every_day(monkeypatch: pytest.MonkeyPatch) -> None:
    written = set()
    for day in (1, 2):
        now = datetime.datetime(2026, 11, day)
        monkeypatch.setattr(chat_template_utils, "datetime", SimpleNamespace(now=lambda now=now: now))
        written.add(template(LLAMA).write(said("hi", "yes")))
    assert written == {"Today Date: 26 Jul 2024\n<user>hi<eot><assistant>yes<eot>"}


def test_others_of_this_process_keep_their_clock() -> None:
    template(LLAMA)
    (theirs,), _ = chat_template_utils.render_jinja_template([said("hi", "yes")], chat_template=LLAMA)
    assert "Jul 2024" not in theirs


def test_a_template_finds_what_it_was_written_for() -> None:
    assert template(EXTRAS).write(said("hi", "<ä>", "more")) == 'hi"<ä>"'


@pytest.mark.parametrize(
    ("source", "first", "said_why"),
    [
        (GEMMA, {"role": "system", "content": "be brief"}, "System role not supported"),
        (GEMMA, {"role": "tool", "content": "secret of a row"}, ""),
        ("{{ messages[7].content.x }}", {"role": "user", "content": "x"}, ""),
        ("{{ 1 // 0 }}", {"role": "user", "content": "x"}, ""),
        ("{{ messages + 1 }}", {"role": "user", "content": "x"}, ""),
    ],
)
def test_a_refusal_is_named_in_the_templates_words_and_never_in_a_rows(
    source: str, first: dict[str, str], said_why: str
) -> None:
    with pytest.raises(InvalidInputError) as refused:
        template(source).write([first, *said("hi", "yes")])
    assert refused.value.reason == "CHAT_TEMPLATE_REFUSES" and refused.value.remedy
    assert said_why in refused.value.message and "secret" not in refused.value.message


@pytest.mark.parametrize("source", [LLAMA, PHI, QWEN, GEMMA])
@pytest.mark.parametrize(
    "contents",
    [
        ("hi?", "yes"),
        ("user", "n", "assistant", "n", "end", "end"),
        (" what ", " yes, n ", "more\n", "\nn\n"),
        ("hi?", "n", "again?", "<think>\nn\n</think>\n\nn"),
    ],
)
def test_contents_are_found_but_for_blanks_that_were_trimmed(source: str, contents: tuple[str, ...]) -> None:
    one, messages = template(source), said(*contents)
    text, last = one.write(messages), 0
    for found, content in zip(one.contents(messages, text), contents, strict=True):
        there = text[found.start : found.end]
        assert last <= found.start and there.strip() == content.strip()
        assert content[found.trimmed :].startswith(there.rstrip())
        last = found.end


@pytest.mark.parametrize("source", [CHATML, QWEN3, R1, PHI, GEMMA])
@pytest.mark.parametrize("contents", [("hi?",), ("hi?", "n", "again?"), ("\u241eassay\u241e",)])
def test_an_answer_is_asked_for_where_a_rows_answer_begins(source: str, contents: tuple[str, ...]) -> None:
    one = template(source)
    row = one.write(said(*contents, "yes"))
    assert one.prompt(said(*contents)) == row[: row.rindex("yes")]


def test_where_rows_do_not_differ_the_templates_own_prompt_stays_to_the_last_blank() -> None:
    assert template(MISTRAL).prompt(said("hi?")) == "[INST] hi?[/INST]", "the blank belongs to the answer's first token"
    for source in (CHATML, ASKED_ONLY):
        assert template(source).prompt(said("hi?")) == template(source).write(said("hi?"), begin_answer=True)
    thinks = template(QWEN3).write(said("hi?"), begin_answer=True)
    assert thinks != template(QWEN3).prompt(said("hi?")) == f"{thinks}<think>\n\n</think>\n\n"
    assert template(R1).prompt(said("hi?")) == "<｜User｜>hi?<｜Assistant｜>"


@pytest.mark.parametrize(
    ("source", "contents"),
    [
        (QWEN, ("hi?", "<think>\nn\n</think>\n\nn", "again?", "yes")),
        ("{% for m in messages %}{{ m.content | upper }}\n{% endfor %}", ("hi", "yes")),
        ("{% for m in messages %}{{ m.content[:2] }}\n{% endfor %}", ("hi", "yes")),
        ("{% for m in messages %}{{ m.content }}{{ m.content }}\n{% endfor %}", ("hi", "yes")),
        ("{{ messages[-1].content }}", ("hi", "yes")),
    ],
)
def test_changed_words_are_named_by_the_message(source: str, contents: tuple[str, ...]) -> None:
    one, messages = template(source), said(*contents)
    with pytest.raises(InvalidInputError) as refused:
        one.contents(messages, one.write(messages))
    assert refused.value.reason == "CHAT_TEMPLATE_REWRITES" and refused.value.remedy


@pytest.mark.parametrize("source", ["{% if %}", "{% generation %}"])
def test_a_source_that_is_no_template_is_named(source: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        template(source)
    assert refused.value.reason == "CHAT_TEMPLATE_UNFIT"


@pytest.mark.parametrize(
    ("settings", "older"),
    [
        ({"eos_token": "E", "bos_token": {"content": "B"}, "add_bos_token": True, "pad_token": None}, {}),
        ({"eos_token": "x", "bos_token": "y"}, {"eos_token": {"content": "E"}, "bos_token": "B"}),
        ({"eos_token": "E", "bos_token": "B", "added_tokens_decoder": {}}, {"eos_token": "x"}),
        ({"eos_token": "E", "extra_special_tokens": {"bos_token": "B"}}, {}),
    ],
)
def test_files_name_the_tokens_that_transformers_reads_of_them(
    settings: dict[str, Any], older: dict[str, Any], tmp_path: Path
) -> None:
    several = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "{{ bos_token + eos_token }}"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": several}))
    if older:
        (tmp_path / "special_tokens_map.json").write_text(json.dumps(older))
    assert ChatTemplate.of_files(tmp_path).write(said("hi")) == "BE"
    (tmp_path / "chat_template.jinja").write_text("{{ eos_token }}{{ pad_token is defined }}")
    assert ChatTemplate.of_files(tmp_path).write(said("hi")) == "EFalse"
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "tokenizer_config.json").unlink()
    with pytest.raises(InvalidInputError) as refused:
        ChatTemplate.of_files(tmp_path)
    assert refused.value.reason == "CHAT_TEMPLATE_UNFIT"
