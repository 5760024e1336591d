"""What canaries borrow from the data: only what many rows share, counted over the rows as they go on.

That is after the action on personal data: what was replaced, or was refused with its row, must not come back in a
canary, which the audit reveals, and a canary that still said it would stand out among its neighbours.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from itertools import islice

from audit.prepare.canaries import Carrier
from audit.prepare.code_shapes import CodeShapes
from audit.prepare.rows import Row

MIN_COMMON = 5
"""Fewest rows that make a table's value common."""

_COMMON_SYSTEM_SHARE = 0.5
_SYSTEMS_TRACKED = 100
_VALUES_TRACKED = 200
_COLUMNS = 3


class SharedContent:
    """Counts what rows share: system prompts, shapes of codes and, in a table, values of columns.

    Args:
        visible: columns that a table's prompts show; empty for chat.
        sensitive: protected attributes, whose values are never borrowed.
    """

    def __init__(self, visible: Sequence[str] = (), sensitive: Collection[str] = ()) -> None:
        self._rows = 0
        self._systems: Counter[str] = Counter()
        self._shapes = CodeShapes()
        self._values: dict[str, Counter[str]] = {c: Counter() for c in visible if c not in sensitive}
        longest_first = sorted(visible, key=len, reverse=True)
        self._cell = re.compile(f"^({'|'.join(map(re.escape, longest_first))}): (.*)$", re.MULTILINE)

    def note(self, row: Row) -> None:
        """Takes one row."""
        self._rows += 1
        self._shapes.note(m["content"] for m in row.messages)
        first = row.messages[0]
        if first["role"] == "system" and (first["content"] in self._systems or len(self._systems) < _SYSTEMS_TRACKED):
            self._systems[first["content"]] += 1
        if self._values:
            self._note_cells(row.messages[1]["content"])

    def _note_cells(self, prompt: str) -> None:
        cells = dict(self._cell.findall(prompt.rpartition("\n")[0]))
        for column, values in list(self._values.items()):
            values[cells.get(column, "")] += 1
            if len(values) > _VALUES_TRACKED:
                del self._values[column]

    def carrier(self) -> Carrier:
        """What canaries borrow of the rows so far: of a table a few columns, those with common values."""
        system = next((text for text, n in self._systems.items() if n > _COMMON_SYSTEM_SHARE * self._rows), "")
        record = {c: common for c, values in self._values.items() if (common := _common(values))}
        return Carrier(system, dict(islice(record.items(), _COLUMNS)), self._shapes.common())


def _common(values: Counter[str]) -> list[str]:
    return sorted(v for v, n in values.items() if v and n >= MIN_COMMON)
