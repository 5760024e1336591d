"""How a card looks: one family of type, one accent, colours that also read in grey."""

from __future__ import annotations

from reportlab.lib import colors
from reportlab.lib.enums import TA_LEFT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm

from audit.cards.fonts import BOLD, MONO, TEXT

PAGE = A4
MARGIN = 18 * mm
WIDTH = PAGE[0] - 2 * MARGIN
HEIGHT = PAGE[1] - 2 * MARGIN
INK = colors.HexColor("#1b1f24")
QUIET = colors.HexColor("#5b6570")
LINE = colors.HexColor("#d5dae0")
SHADE = colors.HexColor("#f3f5f8")
ACCENT = colors.HexColor("#14457a")
REGION = colors.HexColor("#d3e8da")
GOOD = colors.HexColor("#1c6b3a")
BAD = colors.HexColor("#a3161b")
DOUBT = colors.HexColor("#8a4b00")
STATUS = {
    "PASS": GOOD,
    "FAIL": BAD,
    "ERROR": BAD,
    "INCONCLUSIVE": DOUBT,
    "GAP": DOUBT,
    "NOT_APPLICABLE": QUIET,
    "grant": GOOD,
    "refuse": BAD,
}
LINES = (ACCENT, DOUBT, GOOD, QUIET)

BODY = ParagraphStyle("body", fontName=TEXT, fontSize=8.6, leading=12, textColor=INK, alignment=TA_LEFT)
NOTE = ParagraphStyle("note", BODY, fontSize=7.4, leading=10, textColor=QUIET)
CELL = ParagraphStyle("cell", BODY, fontSize=7.4, leading=9.8, splitLongWords=1)
HEAD_CELL = ParagraphStyle("head-cell", CELL, fontName=BOLD, textColor=QUIET)
LABEL = ParagraphStyle("label", CELL, textColor=QUIET)
MONOSPACED = ParagraphStyle("mono", CELL, fontName=MONO, fontSize=6.3, leading=9.6)
KICKER = ParagraphStyle("kicker", BODY, fontName=BOLD, fontSize=8, leading=11, textColor=QUIET)
TITLE = ParagraphStyle("title", BODY, fontName=BOLD, fontSize=19, leading=23, textColor=ACCENT, splitLongWords=1)
SUBTITLE = ParagraphStyle("subtitle", BODY, fontSize=9.6, leading=13.5, textColor=QUIET)
VERDICT = ParagraphStyle("verdict", BODY, fontName=BOLD, fontSize=12, leading=16, textColor=colors.white)
HEADING = ParagraphStyle(
    "heading", BODY, fontName=BOLD, fontSize=12.5, leading=16, spaceBefore=13, spaceAfter=4, textColor=ACCENT
)
CAPTION = ParagraphStyle("caption", BODY, fontName=BOLD, fontSize=8, leading=11, spaceBefore=3, textColor=INK)


def hexadecimal(colour: colors.Color) -> str:
    """A colour as markup wants it."""
    return "#" + str(colour.hexval())[2:]
