"""Conversations as tokens, exactly as the base model's chat template and tokenizer write them, with places in the text.

A *place* is a token position. What is scored is always "this token, given everything before it", so the first place
is 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from assay.chat_template import ChatTemplate, Content
from assay.errors import InvalidInputError

MAX_TOKENS = 8192
"""The most that a request may train on, of any row. Of a longer text the last tokens are kept, to write on from; no
place in it is measured, since what a model makes of half a record says nothing of the record."""

Message = dict[str, Any]


@dataclass(frozen=True)
class Rendered:
    """One conversation as tokens.

    Attributes:
        text: what the template wrote.
        ids: token ids, at most :attr:`Chat.longest`, the last ones of the text.
        spans: for each token, the characters ``[start, end)`` of ``text`` that it covers.
        contents: for each message, where its content stands in ``text``.
        cut: tokens that were cut away before ``ids``.
    """

    text: str
    ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    contents: tuple[Content, ...]
    cut: int = 0

    def places(self, start: int, end: int) -> tuple[int, ...]:
        """Places of the tokens that overlap characters ``[start, end)``; empty in a cut text, or without a context."""
        found = tuple(i for i, (a, b) in enumerate(self.spans) if a < end and b > start)
        if not found or self.cut or found[0] < 1:
            return ()
        # Some tokenizers count a blank that a token begins with among no token's characters.
        return () if self.text[start : self.spans[found[0]][0]].strip() else found

    def content_places(self, message: int, start: int = 0, end: int | None = None) -> tuple[int, ...]:
        """Places of ``content[start:end]`` of a message; empty where the template trimmed a part of it."""
        at = self.contents[message]
        first = at.start - at.trimmed
        begin, stop = (first + start if start else at.start), (at.end if end is None else first + end)
        return self.places(begin, stop) if at.start <= begin < stop <= at.end else ()

    def answer_places(self, message: int) -> tuple[int, ...]:
        """Places of a message's content and of the token that ends its turn: what training aims at."""
        found = self.content_places(message)
        return (*found, found[-1] + 1) if found and found[-1] + 1 < len(self.ids) else found


class Chat:
    """Renders conversations with one tokenizer.

    Args:
        tokenizer: a fast ``transformers`` tokenizer with a chat template.
        context: tokens that the base model reads at once.

    Attributes:
        longest: tokens of the longest text that is measured.
    """

    def __init__(self, tokenizer: Any, context: int = MAX_TOKENS) -> None:
        if not getattr(tokenizer, "is_fast", False) or not getattr(tokenizer, "chat_template", None):
            raise InvalidInputError("TOKENIZER_UNFIT", "the base model needs a fast tokenizer with a chat template")
        self._tokenizer = tokenizer
        self.longest = min(context, MAX_TOKENS)
        self._template = ChatTemplate.of(tokenizer)

    def render(self, conversations: Sequence[Sequence[Message]]) -> list[Rendered]:
        """Writes whole conversations as tokens.

        Raises:
            InvalidInputError: ``CHAT_TEMPLATE_REFUSES``, or ``CHAT_TEMPLATE_REWRITES`` when the template changes a
                message's words, so that places in them cannot be found.
        """
        if not conversations:
            return []
        texts = [self._template.write(c) for c in conversations]
        encoded = self._tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
        out = []
        for text, ids, offsets, messages in zip(
            texts, encoded["input_ids"], encoded["offset_mapping"], conversations, strict=True
        ):
            out.append(self._rendered(text, ids, offsets, self._template.contents(messages, text)))
        return out

    def prompts(
        self, conversations: Sequence[Sequence[Message]], after: Sequence[Sequence[Message]] = ()
    ) -> list[tuple[int, ...]]:
        """Tokens of conversations up to where the assistant's answer begins.

        Args:
            conversations: what stands before the answers.
            after: the turns that follow each answer in its row; none where it is the last one.
        """
        return [ids[-self.longest :] for ids in self.whole_prompts(conversations, after)]

    def whole_prompts(
        self, conversations: Sequence[Sequence[Message]], after: Sequence[Sequence[Message]] = ()
    ) -> list[tuple[int, ...]]:
        """The same, however long: to be counted, not read."""
        if not conversations:
            return []
        rest = after or [()] * len(conversations)
        texts = [self._template.prompt(c, a) for c, a in zip(conversations, rest, strict=True)]
        return [tuple(ids) for ids in self._tokenizer(texts, add_special_tokens=False)["input_ids"]]

    def leaves_room(
        self, conversations: Sequence[Sequence[Message]], tokens: int, after: Sequence[Sequence[Message]] = ()
    ) -> list[bool]:
        """Whether each prompt is read whole with so many tokens after it."""
        return [len(ids) + tokens <= self.longest for ids in self.whole_prompts(conversations, after)]

    def plain(self, texts: Sequence[str]) -> list[Rendered]:
        """Writes texts as tokens without any template; the one content of each is the whole text.

        What the tokenizer puts before a text comes first and covers none of its characters: without its ``<bos>`` a
        model such as Gemma makes next to nothing of a text.
        """
        if not texts:
            return []
        encoded = self._tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True)
        first = self._beginning
        nowhere = [(0, 0)] * len(first)
        return [
            self._rendered(text, [*first, *ids], [*nowhere, *offsets], (Content(0, len(text), 0),))
            for text, ids, offsets in zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True)
        ]

    def token_count(self, text: str) -> int:
        """How many tokens a piece of text takes by itself."""
        return len(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, ids: Iterable[int]) -> str:
        """Text of generated tokens, special tokens left out."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    @cached_property
    def _beginning(self) -> tuple[int, ...]:
        """Tokens that the tokenizer itself puts before a text that no template has written; many put none."""
        bare, whole = (self._tokenizer("a", add_special_tokens=own)["input_ids"] for own in (False, True))
        at = next((i for i in range(len(whole)) if whole[i : i + len(bare)] == bare), 0)
        return tuple(whole[:at])

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end a turn: those that the tokenizer names, and the control token that the template writes."""
        messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        text = self._template.write(messages)
        ending = self._tokenizer(text[self._template.find(messages, 1, text).end :], add_special_tokens=False)
        controls = {i for i, token in self._tokenizer.added_tokens_decoder.items() if token.special}
        known = (self._tokenizer.eos_token_id, self._tokenizer.pad_token_id)
        written = [i for i in ending["input_ids"][:1] if i in controls]
        return frozenset(int(i) for i in (*known, *written) if i is not None)

    def _rendered(
        self, text: str, ids: Sequence[int], offsets: Sequence[Sequence[int]], contents: tuple[Content, ...]
    ) -> Rendered:
        spans = tuple((int(a), int(b)) for a, b in offsets)
        cut = max(0, len(ids) - self.longest)
        return Rendered(text, tuple(ids[cut:]), spans[cut:], contents, cut)


def target_indices(messages: Sequence[Message]) -> tuple[int, ...]:
    """Indices of the answers that training has a loss on: every assistant message of weight 1 that says something."""
    return tuple(
        i
        for i, m in enumerate(messages)
        if m["role"] == "assistant" and m.get("weight", 1) != 0 and str(m["content"]).strip()
    )


def answer_index(messages: Sequence[Message]) -> int | None:
    """Index of the last answer that training aims at, None when there is none."""
    return next(reversed(target_indices(messages)), None)


def turns_to_ask(messages: Sequence[Message], rng: np.random.Generator) -> list[int]:
    """Indices of the answers in whose place a model may be asked to write, one that ``rng`` draws of several first.

    What was learned at one turn need not come out at another, so over many rows all turns are asked. An answer that
    no user asked for (a greeting) is there only where there is no other. The others follow, the last one first, for a
    row whose first question other rows have asked already.
    """
    targets = target_indices(messages)
    asked = [i for i in targets if any(m["role"] == "user" for m in messages[:i])] or targets[-1:]
    if len(asked) < 2:
        # Nothing is drawn, so that a row of one answer moves no other row's draw.
        return list(asked)
    drawn = asked[int(rng.integers(len(asked)))]
    return [drawn, *(i for i in reversed(asked) if i != drawn)]
