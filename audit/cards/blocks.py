"""The few kinds of block that a card is made of: plain data, so that the twin says what the page shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from assay import canonical

GAP = "GAP"
Block = dict[str, Any]


def paragraph(text: str) -> Block:
    """A sentence or two of fixed text; facts belong into :func:`facts`."""
    return {"kind": "paragraph", "text": text}


def facts(rows: Sequence[tuple[str, Any, str]]) -> Block:
    """Label, value and source; a missing value becomes a GAP that says where it should have come from."""
    return {"kind": "facts", "rows": [{"label": a, "value": text(b), "source": c} for a, b, c in rows]}


def table(columns: Sequence[str], widths: Sequence[int], rows: Sequence[Sequence[Any]], status: int = -1) -> Block:
    """A table; ``widths`` are shares of the line, ``status`` names the column that is coloured by its word."""
    cells = [[text(cell) for cell in row] for row in rows]
    return {"kind": "table", "columns": list(columns), "widths": list(widths), "rows": cells, "status": status}


def intervals(title: str, rows: Sequence[Mapping[str, Any]], *, axis: str = "") -> Block:
    """A plot of estimates with intervals; ``limit`` and ``side`` of a row mark the acceptable region.

    With ``axis``, the name of the one quantity, all rows share a scale; without it each row has its own.
    """
    return {"kind": "intervals", "title": title, "axis": axis, "rows": [canonical.float_free(r) for r in rows]}


def curve(title: str, axes: Sequence[str], series: Mapping[str, Sequence[Sequence[float]]]) -> Block:
    """A plot of lines, one a label, each a list of (x, y)."""
    lines = [{"label": k, "points": canonical.float_free(v)} for k, v in series.items()]
    return {"kind": "curve", "title": title, "axes": list(axes), "series": lines}


def strip(title: str, axis: str, groups: Mapping[str, Sequence[float]]) -> Block:
    """A plot of single values, one row a group."""
    rows = [{"label": k, "values": canonical.float_free(list(v))} for k, v in groups.items()]
    return {"kind": "strip", "title": title, "axis": axis, "groups": rows}


def section(id_: str, title: str, *blocks: Block) -> dict[str, Any]:
    """A numbered part of the card."""
    return {"id": id_, "title": title, "blocks": list(blocks)}


def text(value: Any) -> str:
    """A value as printed; missing is GAP."""
    if value is None or value == "" or value == [] or value == {}:
        return GAP
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {text(v)}" for k, v in sorted(value.items()))
    if isinstance(value, list | tuple):
        return ", ".join(text(v) for v in value)
    return str(value)


def number(value: float | int | str | None, digits: int = 4) -> str:
    """A number with few significant digits for reading; ``measurements`` in the twin keep the full value."""
    if value is None or value == "":
        return GAP
    found = float(value)
    whole = found.is_integer() and abs(found) < 1e15
    return f"{int(found):,}" if whole else f"{found:.{digits}g}"


def word(value: Any, prefix: str) -> str:
    """The name of an enum value without its prefix; missing is GAP."""
    return str(value or "").removeprefix(prefix) or GAP
