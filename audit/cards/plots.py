"""Plots as vector drawings: intervals against limits, and curves. Each stands beside the table of the same numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from reportlab.graphics.shapes import Circle, Drawing, Line, PolyLine, Rect, String
from reportlab.lib import colors

from audit.cards import theme

ROW = 15.0
LABEL_SHARE = 0.34
LINES = (theme.ACCENT, theme.GAP_COLOUR, theme.STATUS["PASS"], theme.QUIET)
MAX_POINTS = 2000


def interval_plot(block: Mapping[str, Any], width: float) -> Drawing:
    """One row an estimate, each on its own scale: dot, interval, and the acceptable region shaded."""
    rows = block["rows"]
    height = ROW * len(rows) + 8
    drawing = Drawing(width, height)
    left, right = width * LABEL_SHARE, width - 96
    for i, row in enumerate(rows):
        y = height - ROW * (i + 0.5) - 4
        _interval_row(drawing, row, y, left, right, width)
    return drawing


def _interval_row(drawing: Drawing, row: Mapping[str, Any], y: float, left: float, right: float, width: float) -> None:
    value = float(row["value"])
    low = float(row.get("lower", value))
    high = float(row.get("upper", value))
    limit = float(row["limit"]) if "limit" in row else None
    finite = [v for v in (value, low, high, limit) if v is not None and math.isfinite(v)]
    start, end = min(finite, default=0.0), max(finite, default=1.0)
    span = (end - start) or abs(end) or 1.0
    start, end = start - 0.12 * span, end + 0.12 * span

    def x(v: float) -> float:
        return left + (right - left) * (min(max(v, start), end) - start) / (end - start)

    drawing.add(
        String(0, y - 2.5, _cut(str(row["label"]), 42), fontName="Helvetica", fontSize=7.2, fillColor=theme.INK)
    )
    drawing.add(Rect(left, y - 4.5, right - left, 9, fillColor=theme.SHADE, strokeColor=None))
    inside = True
    if limit is not None:
        at_most = row.get("side") == "LIMIT_SIDE_AT_MOST"
        edge = x(limit)
        region = (left, edge) if at_most else (edge, right)
        green = colors.HexColor("#d9ecdf")
        drawing.add(Rect(region[0], y - 4.5, max(0.0, region[1] - region[0]), 9, fillColor=green, strokeColor=None))
        drawing.add(Line(edge, y - 6, edge, y + 6, strokeColor=theme.INK, strokeWidth=0.8))
        inside = high <= limit if at_most else low >= limit
    colour = theme.ACCENT if limit is None else theme.STATUS["PASS"] if inside else theme.STATUS["FAIL"]
    drawing.add(Line(x(low), y, x(high), y, strokeColor=colour, strokeWidth=1.6))
    drawing.add(Circle(x(value), y, 2.4, fillColor=colour, strokeColor=None))
    note = f"{value:.3g}" + (f"  limit {limit:.3g}" if limit is not None else f"  n {row['n']}" if row.get("n") else "")
    drawing.add(String(right + 6, y - 2.5, note, fontName="Helvetica", fontSize=6.8, fillColor=theme.QUIET))


def curve_plot(block: Mapping[str, Any], width: float, height: float = 120.0) -> Drawing:
    """Lines over two axes with their ranges written at the ends."""
    drawing = Drawing(width, height)
    lines = [(s["label"], [(float(p[0]), float(p[1])) for p in s["points"] if len(p) == 2]) for s in block["series"]]
    points = [p for _, line in lines for p in line if all(map(math.isfinite, p))]
    if not points:
        drawing.add(
            String(0, height / 2, "GAP: no points", fontName="Helvetica", fontSize=8, fillColor=theme.GAP_COLOUR)
        )
        return drawing
    left, bottom, right, top = 34.0, 22.0, width - 90, height - 6
    (x0, x1), (y0, y1) = (_range([p[i] for p in points]) for i in (0, 1))
    for i in range(4):
        y = bottom + (top - bottom) * i / 3
        drawing.add(Line(left, y, right, y, strokeColor=theme.LINE, strokeWidth=0.4))
        text = f"{y0 + (y1 - y0) * i / 3:.3g}"
        drawing.add(
            String(left - 4, y - 2.5, text, fontSize=6.5, fontName="Helvetica", textAnchor="end", fillColor=theme.QUIET)
        )
    for value, anchor, x in ((x0, "start", left), (x1, "end", right)):
        drawing.add(
            String(
                x,
                bottom - 10,
                f"{value:.4g}",
                fontSize=6.5,
                fontName="Helvetica",
                textAnchor=anchor,
                fillColor=theme.QUIET,
            )
        )
    axes = block.get("axes", ["", ""])
    drawing.add(
        String(
            (left + right) / 2,
            3,
            str(axes[0]),
            fontSize=7,
            fontName="Helvetica",
            textAnchor="middle",
            fillColor=theme.QUIET,
        )
    )
    drawing.add(String(right + 8, top - 6, str(axes[1]), fontSize=7, fontName="Helvetica", fillColor=theme.QUIET))
    for number, (name, line) in enumerate(lines):
        colour = LINES[number % len(LINES)]
        flat: list[float] = []
        for px, py in _thin(sorted(line)):
            flat.append(left + (right - left) * (px - x0) / (x1 - x0))
            flat.append(bottom + (top - bottom) * (py - y0) / (y1 - y0))
        if len(flat) >= 4:
            drawing.add(PolyLine(flat, strokeColor=colour, strokeWidth=1.1))
        elif flat:
            drawing.add(Circle(flat[0], flat[1], 2, fillColor=colour, strokeColor=None))
        y = top - 18 - 10 * number
        drawing.add(Line(right + 8, y + 2, right + 18, y + 2, strokeColor=colour, strokeWidth=1.6))
        drawing.add(
            String(right + 22, y, _cut(str(name or "all"), 16), fontSize=6.8, fontName="Helvetica", fillColor=theme.INK)
        )
    return drawing


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _thin(line: list[tuple[float, float]]) -> list[tuple[float, float]]:
    step = max(1, len(line) // MAX_POINTS)
    return line[::step]


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
