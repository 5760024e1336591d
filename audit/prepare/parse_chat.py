"""JSONL in the shape that users of the OpenAI fine-tuning API already have: one object a line.

The object has ``messages`` and optional ``weight`` and ``tools``.

A message has ``role`` (system, user, assistant or tool), ``content`` (text) and, for an assistant, optional ``weight``
0 or 1 (0 means "context, not a target") and ``tool_calls``, which become text (:mod:`audit.prepare.tool_calls`). The
row's ``weight`` multiplies its loss. Blank lines are passed over. Row numbers are line numbers.

Rows with ``prompt`` and ``completion``, or ``prompt``, ``chosen`` and ``rejected``, are the same walk with another
parser of the row (:mod:`audit.prepare.parse_pairs`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any, BinaryIO

from audit.prepare.findings import Findings, Problem
from audit.prepare.lines import FileLimits, bounded_lines, check_row_count, refuse_empty
from audit.prepare.rows import Message, Note, Row
from audit.prepare.text_checks import check_text
from audit.prepare.tool_calls import calls_text, response_text, tools_text, with_tools

ROLES = ("system", "user", "assistant", "tool")
MAX_WEIGHT = 10

ROW_KEYS = frozenset({"messages", "weight", "tools", "parallel_tool_calls"})
_MESSAGE_KEYS = frozenset({"role", "content", "weight", "tool_calls", "tool_call_id"})
# Fields of the wider format may be named in a report; any other key is the owner's content and may not.
_KNOWN_ELSEWHERE = {
    "functions",
    "name",
    "function_call",
    "refusal",
    "audio",
}


class _DuplicateKeyError(ValueError):
    pass


RowParser = Callable[[int, dict[str, Any], Sequence[str], FileLimits], tuple[Row | None, list[Problem]]]
"""Row number, object, control tokens and caps to a row, or to what is wrong with it."""


def parse_json_lines(
    stream: BinaryIO,
    findings: Findings,
    forbidden: Sequence[str],
    limits: FileLimits,
    parser: RowParser,
    group_field: str = "",
    note: Note | None = None,
) -> Iterator[Row]:
    """Yields the valid rows; the others go to ``findings``.

    Args:
        stream: the file.
        findings: takes the refused rows.
        forbidden: control tokens that no text may hold.
        limits: caps.
        parser: of one row.
        group_field: member that says which rows belong together; empty for none.
        note: is told that member's value of every row that has one, also of rows that are then refused.

    Raises:
        InvalidInputError: ``EMPTY_FILE``, ``UNREADABLE_ENCODING``, ``ROW_TOO_LONG`` or ``TOO_MANY_ROWS``.
    """
    rows = 0
    for number, line in bounded_lines(stream, limits):
        if not line.strip():
            continue
        rows += 1
        check_row_count(rows, limits)
        row, problems = parse_line(number, line, forbidden, limits, parser, group_field, note)
        if row is None:
            findings.refuse(number, problems)
        else:
            yield row
    if rows == 0:
        refuse_empty()


def parse_line(
    number: int,
    line: str,
    forbidden: Sequence[str],
    limits: FileLimits,
    parser: RowParser,
    group_field: str = "",
    note: Note | None = None,
) -> tuple[Row | None, list[Problem]]:
    """Parses one line to a row, or to what is wrong with it; never raises."""
    try:
        value = json.loads(line, object_pairs_hook=_unique)
    except _DuplicateKeyError:
        return None, [Problem("row", "DUPLICATE_KEY", "an object names a key twice; keep one")]
    except RecursionError:
        return None, [Problem("row", "TOO_DEEP", "brackets are nested too deep; a row is an object of texts and lists")]
    except ValueError:
        return None, [Problem("row", "NOT_JSON", "the line is not JSON; write one JSON object a line")]
    if not isinstance(value, dict):
        return None, [Problem("row", "NOT_AN_OBJECT", 'the line is not a JSON object; write {"messages": [...]}')]
    unit = ""
    if group_field:
        given = value.pop(group_field, None)
        if not isinstance(given, str | int) or isinstance(given, bool) or str(given) == "":
            return None, [Problem("group_field", "GROUP_MISSING", "the datasheet's group_field is not in the row")]
        unit = str(given)
        if note is not None:
            note(number, unit)
    row, problems = parser(number, value, forbidden, limits)
    return (replace(row, unit=unit) if row is not None and unit else row), problems


def parse_chat(
    number: int, value: dict[str, Any], forbidden: Sequence[str], limits: FileLimits
) -> tuple[Row | None, list[Problem]]:
    """A row in the chat shape."""
    problems = unknown_keys(value, ROW_KEYS, "")
    weight, weight_problems = row_weight(value)
    messages, message_problems = read_messages(value, "messages", forbidden, limits)
    problems += weight_problems + message_problems
    if not problems:
        problems = _targets(messages)
    if "tools" in value and not problems:
        text, problems = tools_text(value["tools"])
        problems += check_text(text, "tools", forbidden)
        messages = with_tools(messages, text)
    return (None, problems) if problems else (Row(number, messages, weight), [])


def row_weight(value: dict[str, Any]) -> tuple[float | None, list[Problem]]:
    """The row's weight, None where it has none, or what is wrong with it."""
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


def read_messages(
    value: dict[str, Any], name: str, forbidden: Sequence[str], limits: FileLimits
) -> tuple[list[Message], list[Problem]]:
    """The messages under ``name``, calls and answers of tools as text, or what is wrong with them."""
    messages = value.get(name)
    if name not in value:
        return [], [Problem(name, "MISSING_MESSAGES", "is missing; a row needs a list of messages")]
    if not isinstance(messages, list):
        return [], [Problem(name, "MISSING_MESSAGES", "is not a list; a row needs a list of messages")]
    if not messages:
        return [], [Problem(name, "MISSING_MESSAGES", "is empty; a row needs at least an assistant message")]
    if len(messages) > limits.messages:
        return [], [Problem(name, "TOO_MANY_MESSAGES", f"holds more than {limits.messages} messages; split the row")]
    out: list[Message] = []
    problems: list[Problem] = []
    ids: set[str] = set()
    for i, message in enumerate(messages):
        problems += _message(message, f"{name}[{i}]", forbidden, out, ids)
    return out, problems


def _message(message: Any, where: str, forbidden: Sequence[str], out: list[Message], ids: set[str]) -> list[Problem]:
    if not isinstance(message, dict):
        return [Problem(where, "NOT_AN_OBJECT", 'is not an object; write {"role": ..., "content": ...}')]
    problems = unknown_keys(message, _MESSAGE_KEYS, where + ".")
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or role not in ROLES:
        problems.append(
            Problem(
                f"{where}.role",
                "UNKNOWN_ROLE",
                "is not system, user, assistant or tool, in plain letters; developer is written system here",
            )
        )
    if role == "tool":
        content, found = response_text(message, where, ids)
        problems += found
        role = "user"
    elif "tool_calls" in message and role == "assistant":
        text, found = calls_text(message["tool_calls"], f"{where}.tool_calls", ids)
        problems += found
        content = f"{content}\n{text}" if isinstance(content, str) and content.strip() else text
    elif "tool_calls" in message or "tool_call_id" in message:
        problems.append(Problem(where, "BAD_TOOL_CALL", "only an assistant calls tools, and only a tool answers"))
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


def unknown_keys(value: dict[str, Any], known: Collection[str], prefix: str) -> list[Problem]:
    """Members that nobody reads; at most three are told, and a name only where the wider format has it."""
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
