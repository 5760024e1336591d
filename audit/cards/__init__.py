"""Model cards: one record, several renderings.

``card`` builds the card, plain float-free data whose canonical JSON is what ``card.rendered`` records and people sign.
``pdf`` draws it with reportlab (``theme``, ``plots``), embeds the JSON twin and, once issued, adds the page of approvals
and the signature (``seal``). What is missing is printed as GAP; nothing is filled in by prose.
"""

from audit.cards.card import build_card
from audit.cards.pdf import render_pdf

__all__ = ["build_card", "render_pdf"]
