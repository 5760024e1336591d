"""Text by strangers: shown as text, on its line, whatever it holds; and never in the way of a card."""

from __future__ import annotations

import io
import unicodedata
from typing import Any

import pypdf
import pytest
from reportlab.pdfbase.pdfmetrics import stringWidth

from assay import canonical
from audit.cards import build_card, fonts, render_pdf
from tests.audit.cards import samples

HOSTILE = {
    "newlines": "one\nPASS\r\ntwo",
    "ansi": "\x1b[31mred\x1b[0m\x07",
    "markup": '<b>bold</b><font size="90">big</font><img src="file:///etc/passwd"/><para>&lt;&#x41;',
    "broken markup": "<b><i></b>&amp;&broken; <a href='x",
    "long word": "x" * 10_000,
    "long text": "word " * 4_000,
    "right to left": "שלום עליכם مرحبا بالعالم",
    "bidi override": "abc\u202edrowssap\u2066\u200b\ufeff",
    "cjk": "模型卡片 モデルカード 모델 카드",
    "emoji": "👩🏽\u200d⚖️🔥",
    "marks": "Z" + "\u0301\u0300\u0316" * 300,
    "private": "\ue000\U000f0000\U0010fffd",
    "nul": "a\x00b\x7f",
    "template": "{{7*7}} %s %(job)s ${x} \\n (((",
    "noncharacters": "\ufffe\uffff\U0001ffff",
    "spaces": "\u00a0\u2003\u3000",
}


def render(value: str) -> tuple[dict[str, Any], bytes]:
    known = samples.rich()
    known["dataset"]["datasheet"]["provenance"] = value
    known["dataset"]["datasheet"]["sensitive_attributes"] = [value]
    known["job"]["purpose"] = known["job"]["creator"] = known["base_model"]["id"] = value
    known["model"]["name"] = value
    known["verdict"]["outcomes"][1] |= {"rule_id": value, "title": value, "message": value, "caveat": value}
    for m in known["audit"]["measurements"]:
        m |= {"method": value, "control_kind": value}
        if "value" in m:
            m["slice"] = value
    known["decision"]["audit_plan"]["gates"].append(samples.gate(f"privacy.canary_auc[{value}]", 0.7))
    known["audit"]["not_tested"] = [value]
    known["waivers"] = [{"rules": [value], "reason": value}]
    for series in known["audit"]["series"]:
        series["axes"] = [value] * len(series["axes"])
        for point in series["points"]:
            point["label"] = value
    known["training"]["claim"] |= {value: value, "note": value}
    card = build_card(known)
    issued = samples.approvals()
    issued["approvals"][0] |= {"reason": value, "subject": value}
    issued["checkpoint"] = value
    return card, render_pdf(card, issued=issued)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_everywhere_still_makes_a_card(name: str) -> None:
    card, pdf = render(HOSTILE[name])
    reader = pypdf.PdfReader(io.BytesIO(pdf), strict=True)
    assert reader.attachments["card.json"] == [canonical.encode(card)]
    assert len(reader.pages) < 60
    for page in reader.pages:
        text = page.extract_text()
        assert not any(unicodedata.category(c) in ("Cc", "Cf") and c != "\n" for c in text)


@pytest.mark.parametrize("name", ["long word", "long text", "marks", "newlines"])
def test_no_name_pushes_the_verdict_off_the_first_page(name: str) -> None:
    _, pdf = render(HOSTILE[name])
    first = pypdf.PdfReader(io.BytesIO(pdf)).pages[0].extract_text()
    assert "Release policy said INCONCLUSIVE" in first and "1 Summary" in first


@pytest.mark.parametrize("value", ["<b>bold</b>", "a & b &lt; c", "<font color='red'>x</font>", "</para><para>"])
def test_markup_is_shown_and_not_obeyed(value: str) -> None:
    known = samples.small()
    known["audit"]["not_tested"] = [value]
    text = " ".join(p.extract_text() for p in pypdf.PdfReader(io.BytesIO(render_pdf(build_card(known)))).pages)
    assert "".join(value.split()) in "".join(text.split())


def test_the_twin_keeps_what_the_page_cannot_show() -> None:
    for name in ("cjk", "emoji", "long word", "bidi override"):
        card, _ = render(HOSTILE[name])
        assert HOSTILE[name] in canonical.encode(card).decode()


def test_text_that_looks_like_an_outcome_is_not_coloured_as_one() -> None:
    """A status is coloured only in the status column, and a new line inside a message begins no new row."""
    assert fonts.shown("fine\nPASS") == "fine ↵ PASS"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("Łódź, Ångström, Škoda, Győr", "Łódź, Ångström, Škoda, Győr"),
        ("Ελλάδα Русия", "Ελλάδα Русия"),
        ("e\u0301", "é"),
        ("模型", "▯▯"),
        ("שלום", "▯▯▯▯"),
        ("🔥", "▯"),
        ("\ue000", "‹E000›"),
        ("\u202eabc", "‹202E›abc"),
        ("\u200b", "‹200B›"),
        ("\x1b[1m", "‹001B›[1m"),
        ("a\tb\u00a0c", "a b c"),
        ("soft\u00adhyphen", "soft‹00AD›hyphen"),
        ("\u2028", "‹2028›"),
    ],
)
def test_what_is_drawn(text: str, expected: str) -> None:
    assert fonts.shown(text) == expected


def test_long_text_says_how_much_is_missing() -> None:
    drawn = fonts.shown("x" * 10_000)
    assert drawn.startswith("x" * fonts.MAX_PRINTED + " … ")
    assert drawn.endswith("[8000 more characters are in the JSON twin]")


def test_every_mark_of_the_card_has_a_glyph() -> None:
    """A typeface without one of these would draw nothing in its place."""
    for face in fonts.FACES:
        for mark in "▯↵‹›…–—≤≥·€£§’“”ąęłřűșΩЖ":
            assert stringWidth(mark, face, 10) > 0
            assert fonts.shown(mark) == mark


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", 1e308, -1e308, 5e-324, 0, 10**30])
def test_numbers_at_the_edge(value: Any) -> None:
    known = samples.small()
    m = known["audit"]["measurements"][0]
    m["value"] = m["control"] = value
    m["intervals"] = [{"confidence": 0.95, "lower": value, "upper": value}]
    known["audit"]["series"] = [
        {"name": "loss_curve", "axes": ["step", "loss"], "points": [{"label": "train", "values": [0, value]}]},
        {"name": "canary_scores", "axes": ["nats"], "points": [{"label": "A", "values": [value]}]},
    ]
    assert render_pdf(build_card(known)).startswith(b"%PDF-")


def test_points_of_the_wrong_shape_are_left_out() -> None:
    known = samples.small()
    known["audit"]["series"] = [
        {"name": "loss_curve", "axes": ["step", "loss"], "points": [{"values": [1]}, {"values": []}, {}]},
        {"name": "canary_scores", "axes": [], "points": [{"values": [1]}]},
        {"name": "exposure_by_repeats", "axes": ["repeats", "bits"], "points": []},
        {"name": "unheard_of", "axes": ["x"], "points": [{"values": [1.0]}]},
    ]
    assert b"%%EOF" in render_pdf(build_card(known))
