"""The one way in which conversations are written with a base model's chat template: to train, to count and to audit.

A template is compiled by transformers' own compiler, so that it finds what it was written for (``raise_exception``,
``{% generation %}``, ``{% break %}``, ``tojson``), under a clock that stands still: a template that writes the date
(Llama 3.2's) would give other rows tomorrow, and neither a run that rests over midnight nor a replay nor an audit would
repeat.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from os.path import commonprefix
from pathlib import Path
from typing import Any

from assay.errors import InvalidInputError

TODAY = datetime(2024, 7, 26)
"""What ``strftime_now`` tells every template: the day that Llama 3.2's names where it is told none."""

_MARK = "\u241eassay\u241e"

Messages = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Content:
    """Where a message's content stands in a conversation's text.

    Attributes:
        start: first character of it.
        end: behind its last.
        trimmed: characters at its front that the template left out, all of them blank.
    """

    start: int
    end: int
    trimmed: int


class ChatTemplate:
    """Writes conversations.

    Args:
        source: of the template.
        tokens: named tokens that the template may write, such as ``eos_token``.

    Raises:
        InvalidInputError: ``CHAT_TEMPLATE_UNFIT`` for a source that is no template.
    """

    def __init__(self, source: str, tokens: Mapping[str, str]) -> None:
        self.tokens = dict(tokens)
        self.source = source
        self._compiled = _compiled(source)

    @classmethod
    def of(cls, tokenizer: Any) -> ChatTemplate:
        """The template of a tokenizer of transformers."""
        return cls(_default(tokenizer.chat_template), tokenizer.special_tokens_map)

    @classmethod
    def of_files(cls, files: Path) -> ChatTemplate:
        """The same, read from a base model's files without torch, which loading a tokenizer takes along."""
        settings, template = _json(files / "tokenizer_config.json"), files / "chat_template.jinja"
        source = template.read_text("utf-8") if template.is_file() else settings.get("chat_template")
        # What follows is how transformers reads the names of tokens.
        older = {} if "added_tokens_decoder" in settings else _json(files / "special_tokens_map.json")
        named = {name: value for name, value in {**settings, **older}.items() if name.endswith("_token")}
        extra = settings.get("extra_special_tokens")
        texts = {name: _text(v) for name, v in {**named, **(extra if isinstance(extra, dict) else {})}.items()}
        return cls(_default(source), {name: text for name, text in texts.items() if text})

    def write(self, messages: Messages, *, begin_answer: bool = False) -> str:
        """The text of a conversation, on request up to where the assistant would begin to answer.

        Raises:
            InvalidInputError: ``CHAT_TEMPLATE_REFUSES``, with the template's own words where it has some.
        """
        plain = [{"role": m["role"], "content": m["content"]} for m in messages]
        given = {"messages": plain, "tools": None, "documents": None, "add_generation_prompt": begin_answer}
        try:
            return str(self._compiled.render({**self.tokens, **given}))
        except MemoryError:
            raise
        # A template is a program that came with the base model: it may end in any way.
        except Exception as error:
            # Other words could be those of a row.
            own = f": {error}" if str(error) in self.source else ""
            raise InvalidInputError(
                "CHAT_TEMPLATE_REFUSES",
                f"the base model's chat template refuses the conversation{own}"[:300],
                remedy="use the roles, in the order, that the template knows, or another base model",
            ) from error

    def prompt(self, messages: Messages, after: Messages = ()) -> str:
        """The text of a conversation up to where the assistant's answer begins in a row that goes on with it.

        As a rule that is the template's own generation prompt. Templates of reasoning models write rows otherwise: with
        an empty thought before the last answer (Qwen3), or without the thought that their generation prompt begins
        (DeepSeek's distillations of R1). Who was tuned on such rows is asked as they ask. Blanks alone make no
        difference, since an answer's first word may take one into its token, as behind Mistral's ``[/INST]``.

        Args:
            messages: what stands before the answer.
            after: the turns of the row that follow it; what such a template writes depends on whether it is the last.

        Raises:
            InvalidInputError: as of :meth:`write`.
        """
        asked, mark = self.write(messages, begin_answer=True), _mark([*messages, *after])
        try:
            answered = self.write([*messages, {"role": "assistant", "content": mark}, *after])
        except InvalidInputError:
            return asked
        trained, found, _ = answered.partition(mark)
        return trained if found and "".join(trained.split()) != "".join(asked.split()) else asked

    def contents(self, messages: Messages, text: str) -> tuple[Content, ...]:
        """Where each message's content stands in ``text``, see :meth:`find`."""
        return tuple(self.find(messages, index, text) for index in range(len(messages)))

    def find(self, messages: Messages, index: int, text: str) -> Content:
        """Where one message's content stands in ``text``, the conversation as :meth:`write` writes it.

        It is found by writing a mark in its place: its own words may be those of the template, as the label ``n`` is a
        part of ``<|im_end|>``.

        Raises:
            InvalidInputError: ``CHAT_TEMPLATE_REWRITES`` where the words are changed, moved or left out; blanks around
                them may be.
        """
        mark, content = _mark(messages), str(messages[index]["content"])
        marked = self.write([*messages[:index], {**messages[index], "content": mark}, *messages[index + 1 :]])
        head, _, tail = marked.partition(mark)
        words, lead = content.strip(), content[: len(content) - len(content.lstrip())]
        # A template of reasoning models puts an empty thought before an answer without one, so the texts may part
        # before the mark.
        before, end = len(commonprefix([text, head])), len(text) - len(tail)  # noqa: RUF071 (by characters)
        first = min(end, len(text) - len(text[before:].lstrip()))
        start = text.rfind(words, 0, first + len(words))
        stop = start + len(words)
        found = mark in marked and start >= 0 and before + bool(words) <= stop <= end
        if not found or not text.endswith(tail) or text[stop:end].strip():
            raise InvalidInputError(
                "CHAT_TEMPLATE_REWRITES",
                f"the base model's chat template changes or leaves out the words of message {index + 1}",
                remedy="write it as the template keeps it, such as without a thought in an earlier answer",
            )
        whole = text[before:start] == lead
        return Content(start - len(lead) if whole else start, end, 0 if whole else len(lead))

    def turn_end(self, messages: Messages, index: int, text: str, content: Content) -> int:
        """Where the turn of the message with this ``content`` ends: as far as a conversation that it ends goes alike.

        What a template writes at the end of a conversation alone (Phi-3's) is no part of an earlier turn. Two tokens
        that begin alike may make it end inside of the next one.
        """
        until = messages[: index + 1]
        if len(until) == len(messages):
            return len(text)
        alone = self.write(until)
        ending = alone[self.find(until, index, alone).end :]
        return content.end + len(commonprefix([text[content.end :], ending]))  # noqa: RUF071 (by characters)


def _mark(messages: Messages) -> str:
    """Characters that no message holds."""
    mark = _MARK
    while any(mark in message["content"] for message in messages):
        mark += _MARK[0]
    return mark


@lru_cache(maxsize=4)
def _compiled(source: str) -> Any:
    # Not the compiler that keeps what it made: others would be given our clock, and we theirs.
    from transformers.utils.chat_template_utils import _cached_compile_jinja_template

    try:
        template = _cached_compile_jinja_template(source)
    except Exception as error:
        raise InvalidInputError(
            "CHAT_TEMPLATE_UNFIT", "the base model's chat template cannot be read", remedy="choose another base model"
        ) from error
    template.environment.globals["strftime_now"] = TODAY.strftime
    return template


def _default(template: Any) -> str:
    """The template for conversations, of one or of several by name."""
    if isinstance(template, list):
        template = {one.get("name"): one.get("template") for one in template if isinstance(one, dict)}
    found = template.get("default") if isinstance(template, dict) else template
    if not isinstance(found, str):
        raise InvalidInputError(
            "CHAT_TEMPLATE_UNFIT", "the base model has no chat template", remedy="choose another base model"
        )
    return found


def _json(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return value if isinstance(value, dict) else {}


def _text(token: Any) -> str:
    value = token.get("content") if isinstance(token, dict) else token
    return value if isinstance(value, str) else ""
