"""Tickets that are said to hold nobody's data hold none that the detector sees."""

from __future__ import annotations

from assay.pii import PiiScanner, is_direct_identifier
from demo import texts


def test_general_tickets_hold_no_direct_identifier() -> None:
    """Else a model that learned a sentence of ours would be counted as leaking a person."""
    tickets = [text for ticket in texts.general_tickets() for text in ticket]
    said = [texts.SUPPORT_SYSTEM, texts.POLICY_SYSTEM, *texts.GREETINGS, *tickets]
    spans = zip(said, PiiScanner().scan(said), strict=True)
    named = {text[s.start : s.end] for text, found in spans for s in found if is_direct_identifier(s, text)}
    assert named == set()
