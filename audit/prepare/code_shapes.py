"""The shapes of the codes in a dataset's own rows, such as ``AA-9999``; never a value.

Half of the canaries carry a code in such a shape, so that a trainer that drops values from the known reserved ranges
still trains on them, and is seen. A shape counts once three rows hold three different values of it: what a single
person's row holds decides nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

GENERAL = ("AA-9999", "AAA999999", "9999-AA-99")
"""Where the data hold no codes: what any business writes."""

LEAST_ROWS = 3
MOST_SHAPES = 8

_CODE = re.compile(r"(?<![\w@./+-])[A-Z0-9]+(?:[-/][A-Z0-9]+){0,4}(?![\w@-])")
# Fifteen characters and more that begin like a country's IBAN could be somebody's account.
_IBAN = re.compile(r"AA99[A9]{11,}")


def shape(text: str) -> str:
    """A text's shape: ``A`` for a letter, ``9`` for a digit, separators as they are."""
    return "".join("9" if c.isdigit() else "A" if c.isalpha() else c for c in text)


def shapes_in(text: str) -> Iterable[tuple[str, str]]:
    """Codes of a text with their shapes: four to sixteen characters with a letter and two digits at least."""
    for match in _CODE.finditer(text):
        code = match.group()
        form = shape(code)
        if 4 <= len(code) <= 16 and "A" in form and form.count("9") >= 2 and not _IBAN.fullmatch(form):
            yield code, form


@dataclass
class CodeShapes:
    """Counts shapes over rows; keeps digests of three values a shape and nothing else of them."""

    _seen: dict[str, set[bytes]] = field(default_factory=dict)
    _rows: dict[str, int] = field(default_factory=dict)

    def note(self, texts: Iterable[str]) -> None:
        """Takes the texts of one row."""
        here = set()
        for text in texts:
            for code, form in shapes_in(text):
                if form not in self._rows and len(self._rows) >= 1000:
                    continue
                here.add(form)
                values = self._seen.setdefault(form, set())
                if len(values) < LEAST_ROWS:
                    values.add(hashlib.sha256(code.encode()).digest()[:8])
        for form in here:
            self._rows[form] = self._rows.get(form, 0) + 1

    def common(self) -> Sequence[str]:
        """The most common shapes, at most :data:`MOST_SHAPES`; :data:`GENERAL` where there are none."""
        kept = [s for s, n in self._rows.items() if n >= LEAST_ROWS and len(self._seen[s]) >= LEAST_ROWS]
        return sorted(kept, key=lambda s: (-self._rows[s], s))[:MOST_SHAPES] or GENERAL
