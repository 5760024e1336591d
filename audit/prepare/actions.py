"""What becomes of personal data in a row: it stays, is replaced by its kind or by a keyed code, or the row is refused.

Replacing happens before duplicates are looked for, before the splits and before any canary: no split and no audit
holds what was replaced. What the detector misses stays, so a replaced dataset is as clean as the detector's recall,
which stands beside it in the facts, and no cleaner.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from assay.pii import Span, is_direct_identifier
from assay.pii_health import RESTRICTED_ZIP3
from audit.prepare.findings import Problem
from audit.prepare.rows import Identifier, Message, Row

PERSONAL_DATA = "PERSONAL_DATA"
_YEAR = re.compile(r"(?<!\d)(1[89]\d\d|20\d\d)(?!\d)")
_OLDEST_YEAR = 1936
_CODE_BYTES = 5


class PiiAction(StrEnum):
    """What the owner asked for; the names are those of ``assay.v1.PiiAction`` without their prefix."""

    REPORT = "REPORT"
    REDACT = "REDACT"
    PSEUDONYMISE = "PSEUDONYMISE"
    REFUSE = "REFUSE"


@dataclass(frozen=True)
class Acted:
    """A row after the action.

    Attributes:
        row: the row to go on with; its ``identifiers`` are the direct ones that are still there.
        replaced: spans that were replaced.
        direct: the row held a direct identifier.
        problems: why the row is refused; empty where it is not.
    """

    row: Row
    replaced: int
    direct: bool
    problems: tuple[Problem, ...] = ()


class Actor:
    """Applies one action to rows.

    Args:
        action: what to do.
        key: of the job; codes of two jobs cannot be joined.
    """

    def __init__(self, action: PiiAction, key: bytes) -> None:
        self.action = action
        self._key = hmac.digest(key, b"assay/pseudonyms/v1", hashlib.sha256)

    def act(self, row: Row, spans: Sequence[Sequence[Span]]) -> Acted:
        """Applies the action; ``spans`` are those of each of its texts, sorted and without overlap.

        A decision table's answer is a label out of a few, and is never replaced.
        """
        texts = row.texts()
        direct = tuple(
            Identifier(i, s.start, s.end, s.entity_type)
            for i, found in enumerate(spans)
            for s in found
            if is_direct_identifier(s, texts[i])
        )
        if self.action is PiiAction.REPORT:
            return Acted(replace(row, identifiers=direct), 0, bool(direct))
        if self.action is PiiAction.REFUSE:
            kinds = sorted({d.entity_type for d in direct})
            problems = [
                Problem("messages", PERSONAL_DATA, f"holds {k}, and the owner asked to refuse such rows") for k in kinds
            ]
            return Acted(row, 0, bool(direct), tuple(problems))
        messages: list[Message] = []
        replaced = 0
        for message, found in zip(row.messages, spans, strict=False):
            if found and not (row.label and message["role"] == "assistant"):
                message = {**message, "content": self._rewrite(message["content"], found)}
                replaced += len(found)
            messages.append(message)
        rejected = self._rewrite(row.rejected, spans[-1]) if row.rejected else ""
        replaced += len(spans[-1]) if row.rejected else 0
        return Acted(replace(row, messages=messages, rejected=rejected), replaced, bool(direct))

    def _rewrite(self, text: str, spans: Sequence[Span]) -> str:
        out, at = [], 0
        for s in spans:
            out += [text[at : s.start], self._stand_in(s.entity_type, text[s.start : s.end])]
            at = s.end
        return "".join(out) + text[at:]

    def _stand_in(self, entity_type: str, value: str) -> str:
        if self.action is PiiAction.PSEUDONYMISE:
            same = " ".join(value.casefold().split())
            code = hmac.digest(self._key, f"{entity_type}\x1f{same}".encode(), hashlib.sha256)[:_CODE_BYTES].hex()
            return f"[{entity_type}-{code}]"
        return f"[{entity_type}{_what_may_stay(entity_type, value)}]"


def _what_may_stay(entity_type: str, value: str) -> str:
    """What Safe Harbor lets stand: a date's year, the first three digits of a ZIP code, "90 or older"."""
    if entity_type == "AGE_OVER_89":
        return " 90+"
    if entity_type == "ZIP_CODE":
        return " 000**" if value[:3] in RESTRICTED_ZIP3 else f" {value[:3]}**"
    if entity_type == "DATE_TIME" and (year := _YEAR.search(value)) and int(year[1]) >= _OLDEST_YEAR:
        return f" {year[1]}"
    return ""
