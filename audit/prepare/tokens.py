"""Counts tokens as the trainer will see them: the base model's own chat template and tokenizer, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from assay.chat_template import ChatTemplate
from assay.errors import InvalidInputError, UnavailableError
from assay.modelfiles import BASE_FILES
from audit.prepare.findings import Problem
from audit.prepare.rows import Message, Row


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

    @property
    def control_tokens(self) -> tuple[str, ...]:
        """Texts that the tokenizer reads as control tokens of the template; no row may hold one."""
        marked = {
            t.content
            for t in self._tokenizer.get_added_tokens_decoder().values()
            if t.special and t.content.startswith("<|")
        }
        return tuple(sorted(marked.union(self._template.tokens.values())))

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
        return len(self._tokenizer.encode(self._template.write(messages), add_special_tokens=False).ids)

    def longest_answer(self, row: Row, answers: Sequence[str]) -> str:
        """The one of some answers that takes the most tokens."""
        return max(answers, key=lambda answer: self.count(row.answered(answer)))
