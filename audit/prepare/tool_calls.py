"""Tool calls, written as the text that the base model's chat template has no words of its own for.

The wording is that of the Hermes and Qwen models, which small models know best: tools are listed in the system prompt,
a call stands in ``<tool_call>`` inside the assistant's turn, an answer in ``<tool_response>`` inside a user's turn. Who
serves the adapter must write prompts the same way.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from audit.prepare.findings import Problem
from audit.prepare.rows import Message

MAX_TOOLS = 64
_NAME_CHARS = 64
_TOOLS = (
    'You may call these functions. Answer with <tool_call>{{"name": ..., "arguments": ...}}</tool_call>.\n'
    "<tools>\n{}\n</tools>"
)


def tools_text(tools: Any) -> tuple[str, list[Problem]]:
    """The list of tools as a text for the system prompt, or what is wrong with it."""
    if not isinstance(tools, list) or not 0 < len(tools) <= MAX_TOOLS:
        return "", [Problem("tools", "BAD_TOOLS", f"is not a list of 1 to {MAX_TOOLS} tools")]
    for i, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
        if not isinstance(function, dict) or not _is_name(function.get("name")):
            return "", [Problem(f"tools[{i}]", "BAD_TOOLS", "is not a function with a name")]
    return _TOOLS.format("\n".join(_line(t["function"]) for t in tools)), []


def calls_text(calls: Any, where: str, ids: set[str]) -> tuple[str, list[Problem]]:
    """An assistant's calls as text; their ids are added to ``ids``."""
    if not isinstance(calls, list) or not 0 < len(calls) <= MAX_TOOLS:
        return "", [Problem(where, "BAD_TOOL_CALL", f"is not a list of 1 to {MAX_TOOLS} calls")]
    lines = []
    for i, call in enumerate(calls):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not _is_name(function.get("name")) or not isinstance(call.get("id"), str):
            return "", [Problem(f"{where}[{i}]", "BAD_TOOL_CALL", "needs an id and a function with a name")]
        try:
            arguments = json.loads(function.get("arguments") or "{}", object_pairs_hook=_unique)
        except (ValueError, TypeError, RecursionError):
            arguments = None
        if not isinstance(arguments, dict):
            why = "is not a JSON object in a string, each key once"
            return "", [Problem(f"{where}[{i}].function.arguments", "BAD_TOOL_CALL", why)]
        ids.add(call["id"])
        lines.append(f"<tool_call>\n{_line({'name': function['name'], 'arguments': arguments})}\n</tool_call>")
    return "\n".join(lines), []


def response_text(message: Mapping[str, Any], where: str, ids: set[str]) -> tuple[str, list[Problem]]:
    """A tool's answer as text; it must answer a call made before."""
    content = message.get("content")
    if message.get("tool_call_id") not in ids or not isinstance(message.get("tool_call_id"), str):
        return "", [Problem(f"{where}.tool_call_id", "BAD_TOOL_CALL", "names no call of the assistant before it")]
    if not isinstance(content, str):
        return "", [Problem(f"{where}.content", "CONTENT_NOT_TEXT", "is not a string; only text is tuned on")]
    return f"<tool_response>\n{content}\n</tool_response>", []


def with_tools(messages: Sequence[Message], text: str) -> list[Message]:
    """The messages with the list of tools in the system prompt, which is made where there is none."""
    if messages and messages[0]["role"] == "system":
        return [{"role": "system", "content": f"{messages[0]['content']}\n\n{text}"}, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and 0 < len(name) <= _NAME_CHARS and all(c.isalnum() or c in "_-." for c in name)


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a key stands twice")
    return out
