"""Plots as vector drawings: intervals against limits, single values, curves. Each stands beside a table or its text."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reportlab.graphics.shapes import Circle, Drawing, Line, Polygon, PolyLine, Rect, String
from reportlab.lib import colors
from reportlab.lib.utils import simpleSplit
from reportlab.pdfbase.pdfmetrics import stringWidth

from audit.cards import theme
from audit.cards.fonts import TEXT, shown

ROW, SHARED_ROW = 30.0, 15.0
LABEL_SHARE = 0.30
NOTE_WIDTH = 92.0
MAX_POINTS = 2000
MAX_DOTS = 400
_FAR = 1e300
COLOURS = {"PASS": theme.GOOD, "FAIL": theme.BAD, "ERROR": theme.BAD, "INCONCLUSIVE": theme.DOUBT}


@dataclass(frozen=True)
class Scale:
    """A linear axis from data to points."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Where a value is drawn; what lies outside is drawn at the edge."""
        inside = min(max(value, self.low), self.high)
        return self.start + (self.end - self.start) * (inside - self.low) / (self.high - self.low)

    def ticks(self, about: int = 4) -> list[float]:
        """Round numbers inside the axis."""
        raw = (self.high - self.low) / about
        power = 10.0 ** math.floor(math.log10(raw))
        step = max((m * power for m in (1, 2, 2.5, 5) if m * power <= raw), default=power)
        first = math.ceil(self.low / step - 1e-9)
        count = math.floor(self.high / step + 1e-9) - first + 1
        return [round((first + i) * step, 12) + 0.0 for i in range(max(0, count))]


def interval_plot(block: Mapping[str, Any], width: float) -> Drawing:
    """One row an estimate: dot, interval, control as a diamond, and the acceptable region shaded."""
    rows, axis = block["rows"], str(block.get("axis", ""))
    pitch = SHARED_ROW if axis else ROW
    foot = 24.0 if axis else 2.0
    drawing = Drawing(width, pitch * len(rows) + foot)
    start, end = width * LABEL_SHARE, width - NOTE_WIDTH
    shared = _scale([v for row in rows for v in _values(row)], start, end) if axis else None
    for i, row in enumerate(rows):
        middle = drawing.height - pitch * i - (7.5 if axis else 10.0)
        scale = shared or _scale(_values(row), start, end)
        _interval_row(drawing, row, middle, scale)
        if not axis:
            _ticks(drawing, scale, middle - 6.0)
    if shared is not None:
        _ticks(drawing, shared, foot - 4.0)
        _label(drawing, (start + end) / 2, 3, axis, anchor="middle")
    return drawing


def _interval_row(drawing: Drawing, row: Mapping[str, Any], y: float, scale: Scale) -> None:
    _row_label(drawing, str(row["label"]), y, scale.start - 8)
    drawing.add(Rect(scale.start, y - 5, scale.end - scale.start, 10, fillColor=theme.SHADE, strokeColor=None))
    if "limit" in row:
        edge = scale.at(float(row["limit"]))
        left, right = (scale.start, edge) if row.get("side") == "LIMIT_SIDE_AT_MOST" else (edge, scale.end)
        drawing.add(Rect(left, y - 5, max(0.0, right - left), 10, fillColor=theme.REGION, strokeColor=None))
        drawing.add(Line(edge, y - 6.5, edge, y + 6.5, strokeColor=theme.INK, strokeWidth=0.9))
    colour = COLOURS.get(str(row.get("outcome", "")), theme.ACCENT)
    value = float(row["value"])
    if not math.isfinite(value):
        _label(drawing, scale.start + 4, y - 2.5, "GAP: not a finite number", colour=theme.DOUBT)
        return
    if "lower" in row or "upper" in row:
        # A method that bounds one side only leaves the other open: the line runs to the edge, without a cap.
        low, high = float(row.get("lower", scale.low)), float(row.get("upper", scale.high))
        drawing.add(Line(scale.at(low), y, scale.at(high), y, strokeColor=colour, strokeWidth=1.5))
        for name, bound in (("lower", low), ("upper", high)):
            if name in row:
                drawing.add(Line(scale.at(bound), y - 3, scale.at(bound), y + 3, strokeColor=colour, strokeWidth=1.1))
    if "control" in row and math.isfinite(float(row["control"])):
        x = scale.at(float(row["control"]))
        diamond = [x, y + 3.4, x + 3.4, y, x, y - 3.4, x - 3.4, y]
        drawing.add(Polygon(diamond, fillColor=colors.white, strokeColor=theme.QUIET, strokeWidth=0.9))
    drawing.add(Circle(scale.at(value), y, 2.5, fillColor=colour, strokeColor=None))
    _label(drawing, scale.end + 7, y - 2.6, str(row.get("note", f"{value:.3g}")), colour=theme.INK, room=NOTE_WIDTH - 7)


def strip_plot(block: Mapping[str, Any], width: float) -> Drawing:
    """One row a group: every value a dot, the median a bar. Dots are moved up and down only to be told apart."""
    groups = [(str(g["label"]), _finite(g["values"])) for g in block["groups"]]
    pitch, foot = 24.0, 24.0
    drawing = Drawing(width, pitch * len(groups) + foot)
    start, end = width * LABEL_SHARE, width - NOTE_WIDTH
    scale = _scale([v for _, values in groups for v in values], start, end)
    for i, (label, values) in enumerate(groups):
        y = drawing.height - pitch * i - pitch / 2
        drawing.add(Rect(start, y - 9, end - start, 18, fillColor=theme.SHADE, strokeColor=None))
        _row_label(drawing, label, y, start - 8)
        for j, value in enumerate(_thin(sorted(values), MAX_DOTS)):
            shift = 14.0 * ((j * 0.618034) % 1.0) - 7.0
            dot = Circle(scale.at(value), y + shift, 1.2, fillColor=theme.LINES[i % len(theme.LINES)], strokeColor=None)
            dot.fillOpacity = 0.55
            drawing.add(dot)
        if values:
            middle = statistics.median(values)
            x = scale.at(middle)
            drawing.add(Line(x, y - 9, x, y + 9, strokeColor=theme.INK, strokeWidth=1.1))
            _label(drawing, end + 7, y - 2.6, f"median {middle:.3g}, n {len(values)}", colour=theme.INK)
        else:
            _label(drawing, end + 7, y - 2.6, "GAP", colour=theme.DOUBT)
    _ticks(drawing, scale, foot - 4.0)
    _label(drawing, (start + end) / 2, 3, str(block["axis"]), anchor="middle")
    return drawing


def curve_plot(block: Mapping[str, Any], width: float, height: float = 132.0) -> Drawing:
    """Lines over two axes."""
    drawing = Drawing(width, height)
    lines = [(str(s["label"]), _pairs(s["points"])) for s in block["series"]]
    points = [p for _, line in lines for p in line]
    if not points:
        _label(drawing, 0, height / 2, "GAP: no points", colour=theme.DOUBT)
        return drawing
    across = _scale([p[0] for p in points], 40.0, width - NOTE_WIDTH, room=0.0)
    up = _scale([p[1] for p in points], 28.0, height - 16)
    axes = [str(a) for a in (*block.get("axes", ()), "", "")]
    for tick in up.ticks():
        y = up.at(tick)
        drawing.add(Line(across.start, y, across.end, y, strokeColor=theme.LINE, strokeWidth=0.4))
        _label(drawing, across.start - 4, y - 2.3, f"{tick:.6g}", anchor="end", size=6.4)
    _ticks(drawing, across, up.start, about=8)
    _label(drawing, (across.start + across.end) / 2, 5, axes[0], anchor="middle")
    _label(drawing, 0, height - 8, axes[1], room=width)
    for number, (name, line) in enumerate(lines):
        colour = theme.LINES[number % len(theme.LINES)]
        flat = [c for x, y in _thin(sorted(line), MAX_POINTS) for c in (across.at(x), up.at(y))]
        if len(flat) >= 4:
            drawing.add(PolyLine(flat, strokeColor=colour, strokeWidth=1.1))
        elif flat:
            drawing.add(Circle(flat[0], flat[1], 2, fillColor=colour, strokeColor=None))
        y = up.end - 8 - 11 * number
        drawing.add(Line(across.end + 8, y + 2.3, across.end + 20, y + 2.3, strokeColor=colour, strokeWidth=1.8))
        _label(drawing, across.end + 24, y, name or "all", colour=theme.INK, room=NOTE_WIDTH - 24)
    return drawing


def described(block: Mapping[str, Any]) -> str:
    """What a plot shows, in words, for people who do not see it."""
    if block["kind"] == "intervals":
        parts = [f"{r['label']} {r.get('note', r['value'])}" for r in block["rows"]]
    elif block["kind"] == "strip":
        parts = [f"{g['label']}: {len(g['values'])} values" for g in block["groups"]]
    else:
        parts = [f"{s['label'] or 'line'}: {len(s['points'])} points" for s in block["series"]]
    return _cut(f"{block['title']}. " + "; ".join(shown(p) for p in parts), lambda t: len(t) <= 600)


def _values(row: Mapping[str, Any]) -> list[float]:
    return _finite(row[k] for k in ("value", "lower", "upper", "limit", "control") if k in row)


def _finite(values: Any) -> list[float]:
    """The numbers that an axis can span; beyond that the sums of a scale would overflow."""
    return [min(max(f, -_FAR), _FAR) for f in map(float, values) if math.isfinite(f)]


def _pairs(points: Any) -> list[tuple[float, float]]:
    return [(p[0], p[1]) for p in map(_finite, points) if len(p) == 2]


def _scale(values: Sequence[float], start: float, end: float, room: float = 0.1) -> Scale:
    low, high = min(values, default=0.0), max(values, default=1.0)
    span = (high - low) or abs(high) or 1.0
    left, right = low - room * span, high + room * span
    if room and 0 <= low and high <= 1:
        # Rates and ratios do not leave 0 to 1, so neither does their axis.
        left, right = max(0.0, left), min(1.0, right)
    if not right > left:
        left, right = low - 0.5, low + 0.5
    return Scale(left, right, start, end)


def _ticks(drawing: Drawing, scale: Scale, y: float, about: int = 4) -> None:
    drawing.add(Line(scale.start, y, scale.end, y, strokeColor=theme.QUIET, strokeWidth=0.4))
    for tick in scale.ticks(about):
        x = scale.at(tick)
        drawing.add(Line(x, y, x, y - 2.2, strokeColor=theme.QUIET, strokeWidth=0.4))
        _label(drawing, x, y - 8.4, f"{tick:.6g}", anchor="middle", size=6.2)


def _row_label(drawing: Drawing, text: str, y: float, room: float) -> None:
    lines = simpleSplit(shown(text), TEXT, 7.2, room) or [""]
    if len(lines) > 2:
        lines = [lines[0], " ".join(lines[1:])]
    first = y + (1.6 if len(lines) == 2 else -2.6)
    for i, line in enumerate(lines):
        _label(drawing, 0, first - 8.2 * i, line, colour=theme.INK, size=7.2, room=room)


def _label(
    drawing: Drawing,
    x: float,
    y: float,
    text: str,
    *,
    colour: colors.Color = theme.QUIET,
    anchor: str = "start",
    size: float = 6.8,
    room: float = math.inf,
) -> None:
    fitting = _cut(shown(text), lambda t: stringWidth(t, TEXT, size) <= room)
    drawing.add(String(x, y, fitting, fontName=TEXT, fontSize=size, textAnchor=anchor, fillColor=colour))


def _cut(text: str, fits: Callable[[str], bool]) -> str:
    """The longest beginning that fits, with an ellipsis where something was left out."""
    if fits(text):
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(text[:middle] + "…") else (low, middle - 1)
    return text[:low] + "…"


def _thin(line: Sequence[Any], most: int) -> list[Any]:
    if len(line) <= most:
        return list(line)
    return [line[round(i * (len(line) - 1) / (most - 1))] for i in range(most)]
