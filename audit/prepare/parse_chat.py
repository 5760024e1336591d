"""JSONL in the shape that users of the OpenAI fine-tuning API already have: one object a line.

The object has ``messages`` and an optional ``weight``.

A message has ``role`` (system, user or assistant), ``content`` (text) and, for an assistant, optional ``weight`` 0 or
1: 0 means "context, not a target". The row's ``weight`` multiplies its loss. Blank lines are passed over. Row numbers
are line numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from audit.prepare.findings import Findings, Problem
from audit.prepare.lines import FileLimits, bounded_lines, check_row_count, refuse_empty
from audit.prepare.rows import Message, Row
from audit.prepare.text_checks import check_text

ROLES = ("system", "user", "assistant")
MAX_WEIGHT = 10

_ROW_KEYS = {"messages", "weight"}
_MESSAGE_KEYS = {"role", "content", "weight"}
# Fields of the wider format may be named in a report; any other key is the owner's content and may not.
_KNOWN_ELSEWHERE = {
    "tools",
    "functions",
    "parallel_tool_calls",
    "name",
    "tool_calls",
    "tool_call_id",
    "function_call",
    "refusal",
    "audio",
}


class _DuplicateKeyError(ValueError):
    pass


def parse_chat(stream: BinaryIO, findings: Findings, forbidden: Sequence[str], limits: FileLimits) -> Iterator[Row]:
    """Yields the valid rows; the others go to ``findings``.

    Args:
        stream: the file.
        findings: takes the refused rows.
        forbidden: control tokens that no text may hold.
        limits: caps.

    Raises:
        InvalidInputError: ``EMPTY_FILE``, ``UNREADABLE_ENCODING``, ``ROW_TOO_LONG`` or ``TOO_MANY_ROWS``.
    """
    rows = 0
    for number, line in bounded_lines(stream, limits):
        if not line.strip():
            continue
        rows += 1
        check_row_count(rows, limits)
        row, problems = parse_row(number, line, forbidden, limits)
        if row is None:
            findings.refuse(number, problems)
        else:
            yield row
    if rows == 0:
        refuse_empty()


def parse_row(number: int, line: str, forbidden: Sequence[str], limits: FileLimits) -> tuple[Row | None, list[Problem]]:
    """Parses one line to a row, or to what is wrong with it; never raises."""
    try:
        value = json.loads(line, object_pairs_hook=_unique)
    except _DuplicateKeyError:
        return None, [Problem("row", "DUPLICATE_KEY", "an object names a key twice; keep one")]
    except RecursionError:
        return None, [
            Problem("row", "TOO_DEEP", "brackets are nested too deep; a row is an object with a list of messages")
        ]
    except ValueError:
        return None, [Problem("row", "NOT_JSON", "the line is not JSON; write one JSON object a line")]
    if not isinstance(value, dict):
        return None, [Problem("row", "NOT_AN_OBJECT", 'the line is not a JSON object; write {"messages": [...]}')]
    problems = _unknown_keys(value, _ROW_KEYS, "")
    weight, weight_problems = _row_weight(value)
    problems += weight_problems
    messages, message_problems = _messages(value, forbidden, limits)
    problems += message_problems
    return (None, problems) if problems else (Row(number, messages, weight), [])


def _row_weight(value: dict[str, Any]) -> tuple[float | None, list[Problem]]:
    if "weight" not in value:
        return None, []
    weight = value["weight"]
    if not isinstance(weight, int | float) or isinstance(weight, bool):
        return None, [Problem("weight", "BAD_WEIGHT", f"is not a number; use one above 0, at most {MAX_WEIGHT}")]
    if isinstance(weight, float) and not math.isfinite(weight):
        return None, [
            Problem("weight", "NOT_FINITE", f"is NaN or infinite; use a number above 0, at most {MAX_WEIGHT}")
        ]
    if not 0 < weight <= MAX_WEIGHT:
        return None, [Problem("weight", "BAD_WEIGHT", f"is out of range; use a number above 0, at most {MAX_WEIGHT}")]
    return weight, []


def _messages(
    value: dict[str, Any], forbidden: Sequence[str], limits: FileLimits
) -> tuple[list[Message], list[Problem]]:
    messages = value.get("messages")
    if "messages" not in value:
        return [], [Problem("messages", "MISSING_MESSAGES", "is missing; a row needs a list of messages")]
    if not isinstance(messages, list):
        return [], [Problem("messages", "MISSING_MESSAGES", "is not a list; a row needs a list of messages")]
    if not messages:
        return [], [Problem("messages", "MISSING_MESSAGES", "is empty; a row needs at least an assistant message")]
    if len(messages) > limits.messages:
        return [], [
            Problem("messages", "TOO_MANY_MESSAGES", f"holds more than {limits.messages} messages; split the row")
        ]
    out: list[Message] = []
    problems: list[Problem] = []
    for i, message in enumerate(messages):
        problems += _message(message, f"messages[{i}]", forbidden, out)
    return out, problems or _targets(out)


def _message(message: Any, where: str, forbidden: Sequence[str], out: list[Message]) -> list[Problem]:
    if not isinstance(message, dict):
        return [Problem(where, "NOT_AN_OBJECT", 'is not an object; write {"role": ..., "content": ...}')]
    problems = _unknown_keys(message, _MESSAGE_KEYS, where + ".")
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or role not in ROLES:
        problems.append(
            Problem(
                f"{where}.role", "UNKNOWN_ROLE", "is not system, user or assistant; developer is written system here"
            )
        )
    if content is None or (isinstance(content, str) and not content.strip()):
        problems.append(Problem(f"{where}.content", "EMPTY_CONTENT", "is missing or empty; write the text of the turn"))
    elif not isinstance(content, str):
        problems.append(Problem(f"{where}.content", "CONTENT_NOT_TEXT", "is not a string; only text is tuned on"))
    else:
        problems += check_text(content, f"{where}.content", forbidden)
    weight = message.get("weight")
    if "weight" in message and (isinstance(weight, bool) or weight not in (0, 1) or role != "assistant"):
        code = "NOT_FINITE" if isinstance(weight, float) and not math.isfinite(weight) else "BAD_WEIGHT"
        problems.append(Problem(f"{where}.weight", code, "is not 0 or 1 on an assistant message; correct or remove it"))
    if not problems:
        entry: Message = {"role": str(role), "content": str(content)}
        if weight is not None:
            entry["weight"] = int(weight)
        out.append(entry)
    return problems


def _targets(messages: Sequence[Message]) -> list[Problem]:
    assistant = [m for m in messages if m["role"] == "assistant"]
    if not assistant:
        return [Problem("messages", "NO_ASSISTANT_MESSAGE", "holds no assistant message; there is nothing to learn")]
    if messages[-1]["role"] != "assistant":
        return [
            Problem(
                f"messages[{len(messages) - 1}].role",
                "LAST_NOT_ASSISTANT",
                "the last message is not the assistant's; end with it",
            )
        ]
    if all(m.get("weight") == 0 for m in assistant):
        return [Problem("messages", "NO_TARGET", "every assistant message has weight 0; give one weight 1")]
    return []


def _unknown_keys(value: dict[str, Any], known: set[str], prefix: str) -> list[Problem]:
    problems = []
    for key in [k for k in value if k not in known][:3]:
        shown = key if key in _KNOWN_ELSEWHERE else "(unknown)"
        problems.append(
            Problem(f"{prefix}{shown}", "UNKNOWN_FIELD", "is a field that Assay does not tune on; remove it")
        )
    return problems


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise _DuplicateKeyError
    return out
