"""Rows of a prompt with its completion, and rows of a prompt with a better and a worse answer.

``prompt`` is a text or a list of messages that ends before the assistant's turn; ``completion``, ``chosen`` and
``rejected`` are a text or a list of one assistant message. The names that other services use for the same
(``input``, ``preferred_output``, ``non_preferred_output``) are taken too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from audit.prepare.findings import Problem
from audit.prepare.lines import FileLimits
from audit.prepare.parse_chat import read_messages, row_weight, unknown_keys
from audit.prepare.rows import Message, Row
from audit.prepare.text_checks import check_text

_COMPLETION_KEYS = frozenset({"prompt", "completion", "weight"})
_PREFERENCE_KEYS = frozenset({"prompt", "chosen", "rejected", "weight"})
_OTHER_NAMES = {"input": "prompt", "preferred_output": "chosen", "non_preferred_output": "rejected"}


def parse_completion(
    number: int, value: dict[str, Any], forbidden: Sequence[str], limits: FileLimits
) -> tuple[Row | None, list[Problem]]:
    """A row with ``prompt`` and ``completion``."""
    problems = unknown_keys(value, _COMPLETION_KEYS, "")
    weight, found = row_weight(value)
    prompt, more = _prompt(value, forbidden, limits)
    answer, yet_more = _answer(value, "completion", forbidden)
    problems += found + more + yet_more
    return (None, problems) if problems else (Row(number, [*prompt, _turn(answer)], weight), [])


def parse_preference(
    number: int, value: dict[str, Any], forbidden: Sequence[str], limits: FileLimits
) -> tuple[Row | None, list[Problem]]:
    """A row with ``prompt``, ``chosen`` and ``rejected``; the two answers must differ."""
    value = {_OTHER_NAMES.get(k, k): v for k, v in value.items()}
    if isinstance(value.get("prompt"), dict):
        value["prompt"] = value["prompt"].get("messages")
    problems = unknown_keys(value, _PREFERENCE_KEYS, "")
    weight, found = row_weight(value)
    prompt, more = _prompt(value, forbidden, limits)
    problems += found + more
    answers = {}
    for name in ("chosen", "rejected"):
        answers[name], found = _answer(value, name, forbidden)
        problems += found
    if not problems and answers["chosen"].split() == answers["rejected"].split():
        problems.append(Problem("rejected", "SAME_ANSWERS", "says the same as chosen; there is nothing to prefer"))
    if problems:
        return None, problems
    return Row(number, [*prompt, _turn(answers["chosen"])], weight, rejected=answers["rejected"]), []


def _turn(text: str) -> Message:
    return {"role": "assistant", "content": text}


def _prompt(value: dict[str, Any], forbidden: Sequence[str], limits: FileLimits) -> tuple[list[Message], list[Problem]]:
    prompt = value.get("prompt")
    if isinstance(prompt, list):
        messages, problems = read_messages(value, "prompt", forbidden, limits)
        if not problems and messages[-1]["role"] == "assistant":
            problems = [Problem("prompt", "BAD_PROMPT", "ends with the assistant's turn; end before it")]
        return messages, problems
    text, problems = _text(prompt, "prompt", forbidden)
    return [{"role": "user", "content": text}], problems


def _answer(value: dict[str, Any], name: str, forbidden: Sequence[str]) -> tuple[str, list[Problem]]:
    answer = value.get(name)
    if isinstance(answer, list):
        turn = answer[0] if len(answer) == 1 and isinstance(answer[0], dict) else {}
        if turn.get("role") != "assistant":
            return "", [Problem(name, "BAD_ANSWER", "is not one assistant message")]
        answer = turn.get("content")
    return _text(answer, name, forbidden)


def _text(value: Any, name: str, forbidden: Sequence[str]) -> tuple[str, list[Problem]]:
    if value is None or (isinstance(value, str) and not value.strip()):
        return "", [Problem(name, "EMPTY_CONTENT", "is missing or empty; write the text")]
    if not isinstance(value, str):
        return "", [Problem(name, "CONTENT_NOT_TEXT", "is not a string; only text is tuned on")]
    return value, check_text(value, name, forbidden)
