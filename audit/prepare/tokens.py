"""Counts tokens as the trainer will see them: the base model's own chat template and tokenizer, without torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from assay.chat_template import ChatTemplate
from assay.errors import InvalidInputError, UnavailableError
from assay.modelfiles import BASE_FILES
from audit.prepare.findings import Problem
from audit.prepare.rows import Message, Row

_PART = re.compile(r"</?([a-z_]+)>")
_TURNS: tuple[tuple[Message, ...], ...] = (
    (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is it?"},
        {"role": "assistant", "content": "A question."},
        {"role": "user", "content": "And this?"},
    ),
    (
        {"role": "user", "content": "What is it?"},
        {"role": "assistant", "content": "A question."},
        {"role": "user", "content": "And this?"},
    ),
)


class TokenCounter:
    """Counts the tokens of conversations for one base model.

    Args:
        models: folder of the base models.
        base_model: registry id.

    Raises:
        UnavailableError: ``BASE_MODEL_MISSING`` when the tokenizer is not installed.
        InvalidInputError: ``CHAT_TEMPLATE_UNFIT``, see :class:`assay.chat_template.ChatTemplate`.
    """

    def __init__(self, models: Path, base_model: str) -> None:
        from tokenizers import Tokenizer

        folder = models / base_model / BASE_FILES
        if not (folder / "tokenizer.json").is_file():
            raise UnavailableError(
                "BASE_MODEL_MISSING",
                f"base model {base_model!r} is not installed here",
                remedy="install it on the audit worker",
            )
        self._template = ChatTemplate.of_files(folder)
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    @property
    def control_tokens(self) -> tuple[str, ...]:
        """Texts that the tokenizer reads as control tokens of the template; no row may hold one.

        Those are the special tokens that look like one or that the template's source names, the tokens that the
        tokenizer's files name, and every added token, special or not, that the template writes around turns, such as
        Gemma's ``<start_of_turn>``. Not those that mark a part of a turn, such as a thought or the call of a tool:
        rows may hold them, and the calls that intake writes do.
        """
        added = self._tokenizer.get_added_tokens_decoder()
        special = [t.content for t in added.values() if t.special]
        inside = _within_turns(t.content for t in added.values())
        marked = {t for t in special if t.startswith("<|") or (_forges(t) and t in self._template.source)}
        turns = {added[i].content for i in self._around_turns() if i in added}
        return tuple(sorted(((marked | set(filter(_forges, turns))) - inside).union(self._template.tokens.values())))

    def _around_turns(self) -> set[int]:
        """Tokens that the template writes beside the words of a conversation."""
        written: set[int] = set()
        for conversation in _TURNS:
            try:
                text = self._template.write(conversation)
            # A template may refuse a system message, or another order of roles.
            except InvalidInputError:
                continue
            written.update(self._ids(text))
        return written.difference(*(self._ids(m["content"]) for m in _TURNS[0]))

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def problems(self, row: Row) -> tuple[Problem, ...]:
        """Why the template cannot carry a row so that trainer and audits find its words; empty where it can."""
        try:
            for messages in (row.messages, *([row.answered(row.rejected)] if row.rejected else [])):
                self._template.contents(messages, self._template.write(messages))
        except InvalidInputError as error:
            return (Problem("messages", error.reason, f"{error.message}; {error.remedy}"),)
        return ()

    def count(self, messages: Sequence[Message]) -> int:
        """Tokens of a whole conversation, template included."""
        return len(self._ids(self._template.write(messages)))

    def longest_answer(self, row: Row, answers: Sequence[str]) -> str:
        """The one of some answers that takes the most tokens."""
        return max(answers, key=lambda answer: self.count(row.answered(answer)))


def _within_turns(tokens: Iterable[str]) -> set[str]:
    """Tokens that open and close a part of a turn, as ``<think>`` and ``</think>`` do."""
    known = set(tokens)
    names = {found[1] for token in known if (found := _PART.fullmatch(token))}
    return {mark for n in names for mark in (f"<{n}>", f"</{n}>") if known >= {f"<{n}>", f"</{n}>"}}


def _forges(token: str) -> bool:
    """Whether a token is the template's own sign: neither blanks and punctuation nor an ordinary word, as roles are."""
    bare = token.replace("\u2581", " ").strip()
    return any(map(str.isalpha, bare)) and not bare.isalnum()
