"""Checks that every text of a row must pass, whatever the format."""

from __future__ import annotations

import re
from collections.abc import Sequence

from audit.prepare.findings import Problem

_ALLOWED_CONTROLS = {"\n", "\r", "\t"}
# What str.isprintable cannot tell apart: separators and formats are fine in prose, C0, C1 and DEL are not.
_CONTROLS = frozenset(chr(c) for c in [*range(32), 127, *range(128, 160)]) - _ALLOWED_CONTROLS

EMBEDDED_MEDIA = "EMBEDDED_MEDIA"
# A data address, or base64 of 240 characters and more, broken into lines or not, with the mix of letters that
# compressed bytes have. Prose has spaces, and long words of one kind are no media.
_DATA_ADDRESS = re.compile(r"data:[\w.+-]{1,40}/[\w.+-]{1,60};base64,", re.IGNORECASE)
_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{60,80}\r?\n){3,}[A-Za-z0-9+/]{1,80}|[A-Za-z0-9+/]{240,}")
_MEDIA_LEAST = 240


def check_text(text: str, field: str, forbidden: Sequence[str]) -> list[Problem]:
    """Returns what is wrong with a text: control characters, broken Unicode, media, control tokens of the base model.

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
    if len(text) >= _MEDIA_LEAST and _has_media(text):
        problems.append(
            Problem(field, EMBEDDED_MEDIA, "holds an image, a recording or another file; only text is tuned on")
        )
    if any(token in text for token in forbidden):
        problems.append(Problem(field, "CONTROL_TOKEN", "holds a control token of the base model; remove it"))
    return problems


def _has_media(text: str) -> bool:
    if _DATA_ADDRESS.search(text):
        return True
    for match in _BASE64.finditer(text):
        run = match.group()
        kinds = (any(map(str.isdigit, run)), any(map(str.islower, run)), any(map(str.isupper, run)))
        if all(kinds) and len(set(run)) > 30:
            return True
    return False
