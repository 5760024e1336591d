"""Draws a card as a PDF: the same input gives the same bytes until it is signed."""

from __future__ import annotations

import functools
import io
import re
import threading
from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape

from reportlab.platypus import BaseDocTemplate, Flowable, Frame, PageTemplate, Spacer
from reportlab.platypus.doctemplate import PageBreak

from assay import canonical, digests
from audit.cards import blocks, flow, seal, theme
from audit.cards.flow import Grid, Heading, Text, text
from audit.cards.fonts import BOLD, TEXT, shown
from audit.cards.tags import TaggedCanvas

TWIN_NAME = "card.json"
ISSUED_NAME = "issued.json"
_TOTAL = "total"
_BOX = 124
_NAME = 90
# reportlab reads a font's file through one position that its threads would share.
_DRAWING = threading.Lock()


def render_pdf(
    card: Mapping[str, Any],
    *,
    issued: Mapping[str, Any] | None = None,
    signer: tuple[bytes, bytes] | None = None,
) -> bytes:
    """Renders a card, embeds its JSON twin, and signs it when ``signer`` is given.

    Args:
        card: what :func:`audit.cards.build_card` returned.
        issued: for the issued card: ``approvals`` (``subject``, ``role``, ``decision``, ``reason``, ``time``,
            ``record_index``, ``keyid``), ``card_sha256``, ``card_record_index``, ``evidence_root``, ``evidence_size``,
            ``checkpoint`` (text of the signed note). It becomes the page of approvals.
        signer: PEM of the PDF key and PEM of its certificate.

    Returns:
        The PDF. Unsigned bytes are a function of the input alone.
    """
    twin = canonical.encode(dict(card))
    files = {TWIN_NAME: twin}
    if issued is not None:
        files[ISSUED_NAME] = canonical.encode(canonical.float_free(dict(issued)))
    with _DRAWING:
        data = _drawn(card, digests.sha256_bytes(twin), issued, files)
    return seal.sign(data, *signer) if signer is not None else data


def _drawn(card: Mapping[str, Any], sha256: str, issued: Mapping[str, Any] | None, files: Mapping[str, bytes]) -> bytes:
    story: list[Flowable] = _front(card, sha256, issued)
    for number, part in enumerate(card["sections"], 1):
        story += flow.section(number, part)
    if issued is not None:
        story += [PageBreak(), *_approvals(issued)]
    out = io.BytesIO()
    document = BaseDocTemplate(
        out, pagesize=theme.PAGE, leftMargin=theme.MARGIN, rightMargin=theme.MARGIN, topMargin=theme.MARGIN,
        bottomMargin=theme.MARGIN, title=f"Model card {shown(str(card['job']))}", author="Assay", subject=sha256,
        lang="en", invariant=1, initialFontName=TEXT,
    )  # fmt: skip
    frame = Frame(theme.MARGIN, theme.MARGIN, theme.WIDTH, theme.HEIGHT, 0, 0, 0, 0)

    def decorate(canvas: TaggedCanvas, _: BaseDocTemplate) -> None:
        with canvas.artifact():
            _footer(canvas, str(card["job"]), sha256)

    document.addPageTemplates([PageTemplate("page", [frame], onPage=decorate)])
    canvas = functools.partial(TaggedCanvas, digest=sha256, date=_date(str(card.get("as_of", ""))), files=files)
    document.build([*story, _Total()], canvasmaker=canvas)
    return out.getvalue()


class _Total(Flowable):  # type: ignore[misc]
    """Stands last and knows how many pages there are."""

    def wrap(self, *_: float) -> tuple[float, float]:
        return 0, 0

    def draw(self) -> None:
        number = self.canv.getPageNumber()
        self.canv.beginForm(_TOTAL)
        self.canv.setFont(TEXT, 6.8)
        self.canv.setFillColor(theme.QUIET)
        self.canv.drawString(0, 0, f"of {number}")
        self.canv.endForm()


def _front(card: Mapping[str, Any], sha256: str, issued: Mapping[str, Any] | None) -> list[Flowable]:
    name = str(card["model"] or card["job"]) or blocks.GAP
    purpose, unit = (str(card[k]) or blocks.GAP for k in ("purpose", "unit"))
    return [
        text("ASSAY   ·   MODEL CARD", theme.KICKER),
        Spacer(1, 3),
        # Cut, so that no name pushes the verdict off the first page; the summary has the names in full.
        text(name.rpartition("/")[2], theme.TITLE, _NAME),
        text(f"{name[:_NAME]}   ·   purpose {purpose[:_NAME]}   ·   unit {unit[:_NAME]}", theme.SUBTITLE),
        Spacer(1, 7),
        _verdict(card, sha256, issued),
        Spacer(1, 2),
    ]


def _verdict(card: Mapping[str, Any], sha256: str, issued: Mapping[str, Any] | None) -> Grid:
    """The box on the first page: what policy said of which audit, what people waived, and what this copy is worth."""
    verdict = str(card["verdict"])
    judged = verdict not in (blocks.GAP, "")
    said = f"Release policy said {verdict.replace('_', ' ')}" if judged else "Release policy has not judged this model"
    # Cards of earlier releases do not hold the profile, nor how many rules were waived.
    profile, waived = str(card.get("audit_profile", "")), int(card.get("rules_waived", 0))
    said += f"; audit profile {profile[:_NAME]}" if profile else ""
    counted = f"{said}. Rules: {card.get('verdict_counts') or blocks.GAP}."
    counted += f" Waived by signature: {waived} rule{'s' * (waived != 1)}." if waived else ""
    if issued is None:
        status = "Rendered for review. Not approved: no permit can rest on this copy."
    else:
        granted = sum(1 for a in issued.get("approvals", []) if a.get("decision") == "grant")
        status = f"Issued. Signed approvals, on the last page: {granted}."
    colour = theme.STATUS.get(verdict, theme.DOUBT)
    lines = [
        text(counted, theme.CELL),
        text(status, theme.CELL),
        Text(f'Digest of this card (SHA-256 of {TWIN_NAME}): <font name="{BOLD}">{escape(sha256)}</font>', theme.CELL),
    ]
    box = Grid([[text(verdict.replace("_", " ") or blocks.GAP, theme.VERDICT), lines]], [_BOX, theme.WIDTH - _BOX])
    box.setStyle(
        [
            ("BACKGROUND", (0, 0), (0, 0), colour),
            ("BACKGROUND", (1, 0), (1, 0), theme.SHADE),
            ("FONTNAME", (0, 0), (-1, -1), TEXT),
            ("VALIGN", (0, 0), (-1, -1), "MIDDLE"),
            ("LEFTPADDING", (0, 0), (-1, -1), 8),
            ("TOPPADDING", (0, 0), (-1, -1), 6),
            ("BOTTOMPADDING", (0, 0), (-1, -1), 7),
        ]
    )
    return box


def _approvals(issued: Mapping[str, Any]) -> list[Flowable]:
    names = ("subject", "role", "decision", "reason", "time", "record_index", "keyid")
    rows = [[a.get(n) for n in names] for a in issued.get("approvals", [])]
    for row in rows:
        row[1] = blocks.word(row[1], "ROLE_").lower().replace("_", " ")
    signed = blocks.table(
        ("Subject", "Role", "Decision", "Reason", "Time", "Ledger index", "Key"), (20, 12, 9, 19, 18, 8, 14), rows, 2
    )
    what = blocks.facts(
        [
            ("Card signed over, SHA-256", issued.get("card_sha256"), "card.rendered"),
            ("Ledger index of the card", issued.get("card_record_index"), "card.rendered"),
            ("Evidence root", issued.get("evidence_root"), "signed checkpoint"),
            ("Tree size of the root", issued.get("evidence_size"), "signed checkpoint"),
        ]
    )
    note = str(issued.get("checkpoint") or blocks.GAP).strip("\n").split("\n")
    return [
        Heading("Approvals", theme.HEADING),
        text(
            "Each person below signed, with a key certified to that person, a statement over the card's digest and the "
            "evidence root; where such a key is kept is the installation's affair. That this page was issued is itself "
            "a later record of the ledger.",
            theme.BODY,
        ),
        Spacer(1, 6),
        *flow.block(signed),
        Spacer(1, 8),
        *flow.block(what),
        Spacer(1, 8),
        text("Signed checkpoint of the ledger", theme.CAPTION),
        Spacer(1, 2),
        *(text(line, theme.MONOSPACED) if line else Spacer(1, 9.6) for line in note),
    ]


def _footer(canvas: TaggedCanvas, job: str, sha256: str) -> None:
    canvas.saveState()
    canvas.setStrokeColor(theme.LINE)
    canvas.setLineWidth(0.4)
    y = theme.MARGIN / 2
    canvas.line(theme.MARGIN, y + 12, theme.PAGE[0] - theme.MARGIN, y + 12)
    canvas.setFont(TEXT, 6.8)
    canvas.setFillColor(theme.QUIET)
    left = f"{shown(job)[:90]}   ·   card {sha256[:16]}…   ·   JSON twin embedded as {TWIN_NAME}"
    canvas.drawString(theme.MARGIN, y, left)
    right = theme.PAGE[0] - theme.MARGIN - 24
    canvas.drawRightString(right - 2.5, y, f"page {canvas.getPageNumber()}")
    canvas.translate(right, y)
    canvas.doForm(_TOTAL)
    canvas.restoreState()


def _date(as_of: str) -> str:
    """A moment as PDF writes it; empty where none is recorded."""
    found = re.match(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)", as_of)
    return f"D:{''.join(found.groups())}Z" if found else ""
