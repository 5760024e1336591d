"""Draws a card as a PDF: the same input gives the same bytes until it is signed."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape

from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import BaseDocTemplate, Flowable, Frame, KeepTogether, PageTemplate, Paragraph, Spacer, Table
from reportlab.platypus.doctemplate import PageBreak

from assay import canonical, digests
from audit.cards import blocks, plots, seal, theme

TWIN_NAME = "card.json"


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
    sha256 = digests.sha256_bytes(twin)
    story: list[Flowable] = _front(card, sha256, issued is not None)
    for number, part in enumerate(card["sections"], 1):
        story += _section(f"{number}  {part['title']}", part["blocks"])
    if issued is not None:
        story += [PageBreak(), *_approvals(issued)]
    out = io.BytesIO()
    document = BaseDocTemplate(
        out, pagesize=theme.PAGE, leftMargin=theme.MARGIN, rightMargin=theme.MARGIN, topMargin=theme.MARGIN,
        bottomMargin=theme.MARGIN, title=f"Model card {card['job']}", author="Assay", subject=sha256,
        lang="en", invariant=1,
    )  # fmt: skip
    frame = Frame(theme.MARGIN, theme.MARGIN, theme.WIDTH, theme.PAGE[1] - 2 * theme.MARGIN, 0, 0, 0, 0)

    def decorate(canvas: Canvas, _: BaseDocTemplate) -> None:
        _footer(canvas, str(card["job"]), sha256)

    document.addPageTemplates([PageTemplate("page", [frame], onPage=decorate)])
    document.build(story)
    data = seal.embed(out.getvalue(), TWIN_NAME, twin)
    if issued is not None:
        data = seal.embed(data, "issued.json", canonical.encode(canonical.float_free(dict(issued))))
    return seal.sign(data, *signer) if signer is not None else data


def _front(card: Mapping[str, Any], sha256: str, is_issued: bool) -> list[Flowable]:
    verdict = str(card["verdict"])
    colour = theme.STATUS.get(verdict, theme.GAP_COLOUR)
    status = "issued: the approvals are on the last page" if is_issued else "rendered for review: not approved"
    lines = [
        Paragraph("Model card", theme.TITLE),
        Paragraph(escape(f"{card['job']}  ·  purpose {card['purpose'] or blocks.GAP}"), theme.SUBTITLE),
        Spacer(1, 4),
        Paragraph(
            f'<font color="{colour.hexval().replace("0x", "#")}">Release policy: {escape(verdict)}</font>',
            theme.VERDICT,
        ),
        Paragraph(escape(f"Status: {status}. Digest of this card: {sha256}"), theme.CELL),
    ]
    if verdict in (blocks.GAP, ""):
        lines.append(Paragraph("Release policy has not judged: the audits did not run.", theme.BODY))
    return lines


def _section(title: str, parts: list[dict[str, Any]]) -> list[Flowable]:
    drawn = [_block(part) for part in parts]
    heading = Paragraph(escape(title), theme.HEADING)
    # The heading stays with what follows it; a long table may still break over pages.
    first = drawn[0]
    head: list[Flowable] = [heading, first] if isinstance(first, Table) else [KeepTogether([heading, first])]
    out = head
    for flowable in drawn[1:]:
        out += [Spacer(1, 5), flowable]
    return out


def _block(block: Mapping[str, Any]) -> Flowable:
    kind = block["kind"]
    if kind == "paragraph":
        return Paragraph(escape(block["text"]), theme.BODY)
    if kind == "facts":
        rows = [
            [_cell(r["label"]), _cell(r["value"], mono=_is_digest(r["value"])), _cell(r["source"])]
            for r in block["rows"]
        ]
        return _table([["", "", "Source"]], rows, (28, 52, 20))
    if kind == "table":
        rows = [
            [_cell(c, mono=_is_digest(c), status=i == block["status"]) for i, c in enumerate(row)]
            for row in block["rows"]
        ]
        return _table([list(block["columns"])], rows, block["widths"])
    if kind == "intervals":
        return plots.interval_plot(block, theme.WIDTH)
    return plots.curve_plot(block, theme.WIDTH)


def _table(head: list[list[str]], rows: list[list[Flowable]], shares: Any) -> Table:
    total = sum(shares)
    cells = [[Paragraph(escape(h), theme.HEAD_CELL) for h in head[0]], *rows]
    table = Table(cells, [theme.WIDTH * s / total for s in shares], repeatRows=1, splitByRow=1, splitInRow=1)
    table.setStyle(
        [
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
            ("LEFTPADDING", (0, 0), (-1, -1), 2),
            ("RIGHTPADDING", (0, 0), (-1, -1), 4),
            ("TOPPADDING", (0, 0), (-1, -1), 1.6),
            ("BOTTOMPADDING", (0, 0), (-1, -1), 1.8),
            ("LINEBELOW", (0, 0), (-1, -1), 0.35, theme.LINE),
            ("BACKGROUND", (0, 0), (-1, 0), theme.SHADE),
        ]
    )
    return table


def _cell(text: str, *, mono: bool = False, status: bool = False) -> Paragraph:
    shown = escape(text)
    if status and text in theme.STATUS:
        shown = f'<b><font color="{theme.STATUS[text].hexval().replace("0x", "#")}">{shown}</font></b>'
    elif text == blocks.GAP:
        shown = f'<b><font color="{theme.GAP_COLOUR.hexval().replace("0x", "#")}">GAP</font></b>'
    return Paragraph(shown, theme.MONO if mono else theme.CELL)


def _is_digest(text: str) -> bool:
    return len(text) == 64 and all(c in "0123456789abcdef" for c in text)


def _approvals(issued: Mapping[str, Any]) -> list[Flowable]:
    rows = [
        [
            a.get("subject"), a.get("role"), a.get("decision"), a.get("reason"), a.get("time"),
            a.get("record_index"), a.get("keyid"),
        ]
        for a in issued.get("approvals", [])
    ]  # fmt: skip
    signed = blocks.table(
        ("Subject", "Role", "Decision", "Reason", "Time", "Ledger index", "Key"), (24, 15, 10, 20, 12, 8, 20), rows
    )
    what = blocks.facts(
        [
            ("Card signed over, SHA-256", issued.get("card_sha256"), "card.rendered"),
            ("Ledger index of the card", issued.get("card_record_index"), "card.rendered"),
            ("Evidence root", issued.get("evidence_root"), "signed checkpoint"),
            ("Tree size of the root", issued.get("evidence_size"), "signed checkpoint"),
        ]
    )
    note = "<br/>".join(escape(line) for line in str(issued.get("checkpoint", blocks.GAP)).split("\n"))
    return [
        Paragraph("Approvals", theme.HEADING),
        Paragraph(
            "Each person below signed, with a key that no service holds, a statement over the card's digest and the "
            "evidence root. The record that this page was issued has the next index in the ledger.",
            theme.BODY,
        ),
        Spacer(1, 5),
        _block(signed),
        Spacer(1, 8),
        _block(what),
        Spacer(1, 8),
        Paragraph("Signed checkpoint of the ledger", theme.HEAD_CELL),
        Paragraph(note, theme.MONO),
    ]


def _footer(canvas: Canvas, job: str, sha256: str) -> None:
    canvas.saveState()
    canvas.setFont("Helvetica", 6.8)
    canvas.setFillColor(theme.QUIET)
    canvas.drawString(
        theme.MARGIN, theme.MARGIN / 2, f"{job}   card {sha256[:16]}…   the JSON twin is embedded as {TWIN_NAME}"
    )
    canvas.drawRightString(theme.PAGE[0] - theme.MARGIN, theme.MARGIN / 2, f"page {canvas.getPageNumber()}")
    canvas.restoreState()
