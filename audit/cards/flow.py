"""Turns a card's blocks into tagged flowables of reportlab."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any
from xml.sax.saxutils import escape

from reportlab.graphics import renderPDF
from reportlab.lib.styles import ParagraphStyle
from reportlab.platypus import CondPageBreak, Flowable, KeepTogether, Paragraph, Spacer, Table

from audit.cards import blocks, plots, theme
from audit.cards.fonts import MAX_PRINTED, TEXT, shown

_ROLES = {"title": "H1", "heading": "H2", "caption": "H3", "head-cell": "TH"}
_CELLS = {"cell", "mono", "label", "verdict"}
_LEGEND = "Dot: estimate. Bar: interval. Upright line: limit. Green ground: acceptable. Diamond: control or base."
# A heading below this much room starts a page instead; a table of so few rows is not broken over pages.
_ROOM = 110
_SHORT = 8


class Text(Paragraph):  # type: ignore[misc]
    """A paragraph that is tagged by its style."""

    def draw(self) -> None:
        """Draws it as one element."""
        name = self.style.name
        with self.canv.mark(_ROLES.get(name) or ("TD" if name in _CELLS else "P")):
            super().draw()


class Heading(Text):
    """A section's heading, also an entry of the outline."""

    def draw(self) -> None:
        """Draws it and notes where it is."""
        title = self.getPlainText(identify=1)
        self.canv.bookmarkPage(title)
        self.canv.addOutlineEntry(title, title, level=0, closed=True)
        super().draw()


class Grid(Table):  # type: ignore[misc]
    """A table that is tagged row by row; its lines and grounds are decoration."""

    _row_open: AbstractContextManager[None] | None = None
    _row_at: Any = None

    def split(self, width: float, height: float) -> list[Flowable]:
        """Breaks between rows, leaves no row alone, and breaks inside a row only where it is longer than a page."""
        self.splitInRow = int(height > 0.9 * theme.HEIGHT)
        parts = list(super().split(width, height))
        if len(parts) == 2 and len(parts[1]._cellvalues) == 2 and len(parts[0]._cellvalues) > 4:
            fewer = sum(self._rowHeights[: len(parts[0]._cellvalues) - 2])
            return list(super().split(width, fewer + 0.1))
        return parts

    def draw(self) -> None:
        """Draws it as one element."""
        with self.canv.group("Table"):
            super().draw()
            self._end_row()

    def _end_row(self) -> None:
        if self._row_open is not None:
            self._row_open.__exit__(None, None, None)
        self._row_open = self._row_at = None

    def _drawCell(self, value: Any, style: Any, position: Any, size: Any) -> None:
        if position[1] != self._row_at:
            self._end_row()
            self._row_open, self._row_at = self.canv.group("TR"), position[1]
            self._row_open.__enter__()
        super()._drawCell(value, style, position, size)

    def _drawBkgrnd(self) -> None:
        with self.canv.artifact():
            super()._drawBkgrnd()

    def _drawLines(self) -> None:
        with self.canv.artifact():
            super()._drawLines()


class Figure(Flowable):  # type: ignore[misc]
    """A drawing with its description."""

    def __init__(self, drawing: Any, alt: str) -> None:
        super().__init__()
        self.drawing, self.alt = drawing, alt
        self.width, self.height = drawing.width, drawing.height

    def draw(self) -> None:
        """Draws it as one element."""
        with self.canv.mark("Figure", self.alt):
            renderPDF.draw(self.drawing, self.canv, 0, 0)


def text(words: str, style: ParagraphStyle, most: int = MAX_PRINTED) -> Text:
    """A paragraph of plain words, at most so many characters of them: nothing in them is markup."""
    return Text(escape(shown(words, most)), style)


def section(number: int, part: Mapping[str, Any]) -> list[Flowable]:
    """A section with its heading, which stays with what follows."""
    heading = Heading(escape(shown(f"{number}  {part['title']}")), theme.HEADING)
    top: list[Flowable] = [heading]
    parts = list(part["blocks"])
    while parts and parts[0]["kind"] == "paragraph":
        top += [*block(parts.pop(0)), Spacer(1, 5)]
    out: list[Flowable]
    if parts and _is_short(parts[0]):
        out = [KeepTogether([*top, *block(parts.pop(0))])]
    else:
        out = [CondPageBreak(_ROOM), *top]
    for further in parts:
        drawn = block(further)
        out += [Spacer(1, 6), *([KeepTogether(drawn)] if _is_short(further) else [CondPageBreak(_ROOM / 2), *drawn])]
    return out


def block(part: Mapping[str, Any]) -> list[Flowable]:
    """The flowables of one block."""
    kind = part["kind"]
    if kind == "paragraph":
        return [text(part["text"], theme.BODY)]
    if kind == "facts":
        rows = [[text(r["label"], theme.LABEL), cell(r["value"]), text(r["source"], theme.LABEL)] for r in part["rows"]]
        return [grid(("Fact", "Value", "Source"), rows, (26, 53, 21))]
    if kind == "table":
        rows = [[cell(c, status=i == part["status"]) for i, c in enumerate(row)] for row in part["rows"]]
        return [grid(part["columns"], rows, part["widths"])]
    draw = {"intervals": plots.interval_plot, "strip": plots.strip_plot, "curve": plots.curve_plot}[kind]
    figure = Figure(draw(part, theme.WIDTH), plots.described(part))
    parts: list[Flowable] = [text(part["title"], theme.CAPTION), Spacer(1, 4), figure]
    if kind == "intervals" and not part.get("axis"):
        parts += [text(_LEGEND, theme.NOTE)]
    return parts


def cell(value: str, *, status: bool = False) -> Text:
    """A cell: digests in fixed width, outcomes and gaps in their colours."""
    if value == blocks.GAP or (status and value in theme.STATUS):
        colour = theme.hexadecimal(theme.STATUS[value])
        return Text(f'<b><font color="{colour}">{escape(value.replace("_", " "))}</font></b>', theme.CELL)
    return text(value, theme.MONOSPACED if _is_digest(value) else theme.CELL)


def grid(head: Sequence[str], rows: Sequence[Sequence[Flowable]], shares: Sequence[int]) -> Grid:
    """A table over the whole line that may break between and inside rows, with its head on every page."""
    total = sum(shares)
    cells = [[text(h, theme.HEAD_CELL) for h in head], *map(list, rows)]
    made = Grid(cells, [theme.WIDTH * s / total for s in shares], repeatRows=1)
    made.setStyle(
        [
            ("FONTNAME", (0, 0), (-1, -1), TEXT),
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
            ("LEFTPADDING", (0, 0), (-1, -1), 3),
            ("RIGHTPADDING", (0, 0), (-1, -1), 5),
            ("TOPPADDING", (0, 0), (-1, -1), 1.8),
            ("BOTTOMPADDING", (0, 0), (-1, -1), 2.2),
            ("LINEBELOW", (0, 0), (-1, -1), 0.35, theme.LINE),
            ("LINEBELOW", (0, 0), (-1, 0), 0.7, theme.QUIET),
            ("BACKGROUND", (0, 0), (-1, 0), theme.SHADE),
        ]
    )
    return made


def _is_short(part: Mapping[str, Any]) -> bool:
    """Whether it must not be broken: every plot, and tables of few rows."""
    return part["kind"] not in ("facts", "table") or len(part["rows"]) <= _SHORT


def _is_digest(value: str) -> bool:
    return len(value) == 64 and all(c in "0123456789abcdef" for c in value)
