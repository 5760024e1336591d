"""The typefaces of a card: shipped with it and embedded in it, so that it looks the same everywhere and for ever.

They hold Latin, Greek and Cyrillic letters. Nothing else is silently dropped: a letter without a glyph is drawn as an
empty box, and what has no look of its own or turns the direction of reading is drawn as its code point.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path

from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont

TEXT, BOLD, MONO = "AssayText", "AssayText-Bold", "AssayMono"
FACES = (TEXT, BOLD, MONO)
BOX = "▯"
MAX_PRINTED = 2000

_FOLDER = Path(__file__).parent / "fonts"
_FILES = {TEXT: "DejaVuSansCondensed.ttf", BOLD: "DejaVuSansCondensed-Bold.ttf", MONO: "DejaVuSansMono.ttf"}


def _register() -> frozenset[int]:
    faces = {name: TTFont(name, str(_FOLDER / file)) for name, file in _FILES.items()}
    for face in faces.values():
        pdfmetrics.registerFont(face)
    pdfmetrics.registerFontFamily(TEXT, normal=TEXT, bold=BOLD, italic=TEXT, boldItalic=BOLD)
    pdfmetrics.registerFontFamily(MONO, normal=MONO, bold=MONO, italic=MONO, boldItalic=MONO)
    covered = [frozenset(face.face.charToGlyph) for face in faces.values()]
    return frozenset.intersection(*covered)


# reportlab keeps fonts by name for the whole process; the names are this package's own.
_DRAWABLE = _register()


def shown(text: str, most: int = MAX_PRINTED) -> str:
    """Text as it is drawn: one line, every character either its glyph, a box, or its code point.

    Longer text than ``most`` characters is cut, and says by how much; the twin always holds the whole.
    """
    composed = unicodedata.normalize("NFC", text)
    drawn = "".join(_drawn(c) for c in composed[:most])
    rest = len(composed) - most
    return drawn if rest <= 0 else f"{drawn} … [{rest} more characters are in the JSON twin]"


def _drawn(character: str) -> str:
    category = unicodedata.category(character)
    if character == "\n":
        return " ↵ "
    if character == "\t" or category == "Zs":
        return " "
    if category in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp"):
        return f"‹{ord(character):04X}›"
    return character if ord(character) in _DRAWABLE else BOX
