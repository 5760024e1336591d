"""Checks that every text of a row must pass, whatever the format."""

from __future__ import annotations

from collections.abc import Sequence

from audit.prepare.findings import Problem

_ALLOWED_CONTROLS = {"\n", "\r", "\t"}
# What str.isprintable cannot tell apart: separators and formats are fine in prose, C0, C1 and DEL are not.
_CONTROLS = frozenset(chr(c) for c in [*range(32), 127, *range(128, 160)]) - _ALLOWED_CONTROLS


def check_text(text: str, field: str, forbidden: Sequence[str]) -> list[Problem]:
    """Returns what is wrong with a text: control characters, broken Unicode, control tokens of the base model.

    A control token, such as ``<|im_end|>``, would let a row forge turns of a conversation once the chat template is
    applied.
    """
    problems = []
    if not _CONTROLS.isdisjoint(text):
        problems.append(
            Problem(field, "CONTROL_CHARACTER", "holds a control character; keep only line breaks and tabs")
        )
    if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
        problems.append(Problem(field, "BROKEN_UNICODE", "holds half of a surrogate pair; write the whole character"))
    if any(token in text for token in forbidden):
        problems.append(Problem(field, "CONTROL_TOKEN", "holds a control token of the base model; remove it"))
    return problems
