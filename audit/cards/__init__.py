"""Model cards: one record, several renderings.

``card`` builds the card, plain float-free data whose canonical JSON is what ``card.rendered`` records and people sign;
its parts come from ``measured``, ``rules`` and ``operations``, and are made of ``blocks``. ``pdf`` draws it: ``flow``
turns blocks into tagged text and tables, ``plots`` draws, ``tags`` writes the structure and embeds the JSON twin,
``fonts`` and ``theme`` say how it looks. ``seal`` signs an issued card. What is missing is printed as GAP; nothing is
filled in by prose.
"""

from audit.cards.card import about, build_card
from audit.cards.pdf import render_pdf

__all__ = ["about", "build_card", "render_pdf"]
