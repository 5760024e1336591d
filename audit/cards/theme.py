"""How a card looks: two typefaces, one accent, colours that also read in grey."""

from __future__ import annotations

from reportlab.lib import colors
from reportlab.lib.enums import TA_LEFT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm

PAGE = A4
MARGIN = 18 * mm
WIDTH = PAGE[0] - 2 * MARGIN
INK = colors.HexColor("#1b1f24")
QUIET = colors.HexColor("#5b6570")
LINE = colors.HexColor("#d5dae0")
SHADE = colors.HexColor("#f4f6f8")
ACCENT = colors.HexColor("#14457a")
GAP_COLOUR = colors.HexColor("#8a4b00")
STATUS = {
    "PASS": colors.HexColor("#1c6b3a"),
    "FAIL": colors.HexColor("#a3161b"),
    "ERROR": colors.HexColor("#a3161b"),
    "INCONCLUSIVE": colors.HexColor("#8a4b00"),
    "NOT_APPLICABLE": QUIET,
}

BODY = ParagraphStyle("body", fontName="Helvetica", fontSize=8.5, leading=11.5, textColor=INK, alignment=TA_LEFT)
CELL = ParagraphStyle("cell", BODY, fontSize=7.4, leading=9.4, wordWrap="LTR", splitLongWords=1)
HEAD_CELL = ParagraphStyle("head-cell", CELL, fontName="Helvetica-Bold", textColor=QUIET)
MONO = ParagraphStyle("mono", CELL, fontName="Courier", fontSize=6.8, leading=8.8)
TITLE = ParagraphStyle("title", BODY, fontName="Helvetica-Bold", fontSize=22, leading=26, textColor=ACCENT)
SUBTITLE = ParagraphStyle("subtitle", BODY, fontSize=10, leading=14, textColor=QUIET)
HEADING = ParagraphStyle(
    "heading",
    BODY,
    fontName="Helvetica-Bold",
    fontSize=12.5,
    leading=16,
    spaceBefore=12,
    spaceAfter=4,
    textColor=ACCENT,
)
VERDICT = ParagraphStyle("verdict", BODY, fontName="Helvetica-Bold", fontSize=15, leading=19)
