"""The rendering: the same bytes always, the twin inside, tagged, every page numbered, every typeface embedded."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pypdf
import pytest

from assay import canonical, digests
from audit.cards import build_card, flow, render_pdf, theme
from tests.audit.cards import samples

ROOT = Path(__file__).parents[3]
PROGRAM = """
import sys
sys.path.insert(0, ".")
from audit.cards import build_card, render_pdf
from assay import digests
from tests.audit.cards import samples
card = build_card(samples.rich())
print(digests.sha256_bytes(render_pdf(card)), digests.sha256_bytes(render_pdf(card, issued=samples.approvals())))
"""


def read(pdf: bytes) -> pypdf.PdfReader:
    return pypdf.PdfReader(io.BytesIO(pdf), strict=True)


def words(pdf: bytes) -> str:
    return " ".join(" ".join(p.extract_text() for p in read(pdf).pages).split())


def in_another_process(**environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, env={**os.environ, **environment}, capture_output=True, check=True
    )
    return done.stdout.decode().split()


def test_bytes_are_the_same_in_every_process() -> None:
    card = build_card(samples.rich())
    here = [render_pdf(card), render_pdf(card, issued=samples.approvals())]
    expected = [digests.sha256_bytes(b) for b in here]
    assert in_another_process(PYTHONHASHSEED="1", TZ="Asia/Kolkata") == expected
    assert in_another_process(PYTHONHASHSEED="2", SOURCE_DATE_EPOCH="1234567890", LC_ALL="C") == expected
    assert render_pdf(card) == here[0]


def test_bytes_are_the_same_when_threads_draw_at_once() -> None:
    cards = [build_card(samples.rich(rules=n)) for n in range(4)]
    expected = [render_pdf(c) for c in cards]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(render_pdf, cards * 2)) == expected * 2


def test_another_card_is_other_bytes() -> None:
    known = samples.rich()
    first = render_pdf(build_card(known))
    known["quorum"].pop()
    assert render_pdf(build_card(known)) != first


@pytest.mark.parametrize("known", [{}, samples.small(), samples.rich()], ids=["nothing", "small", "rich"])
def test_the_twin_is_embedded_and_its_digest_printed(known: dict[str, Any]) -> None:
    card = build_card(known)
    pdf = render_pdf(card)
    twin = canonical.encode(card)
    assert read(pdf).attachments == {"card.json": [twin]}
    sha256 = digests.sha256_bytes(twin)
    assert sha256 in words(pdf)
    assert read(pdf).metadata["/Subject"] == sha256


def test_the_issued_card_embeds_what_the_last_page_shows() -> None:
    card = build_card(samples.rich())
    pdf = render_pdf(card, issued=samples.approvals())
    held = read(pdf).attachments
    assert held == {"card.json": [canonical.encode(card)], "issued.json": [canonical.encode(samples.approvals())]}
    last = " ".join(read(pdf).pages[-1].extract_text().split())
    for shown in ("Approvals", "people/ cora", "grant", "evidence read", "7" * 64, "— assay.local/log abcd", "Bw=="):
        assert shown.replace(" ", "") in last.replace(" ", "")


def test_the_status_is_never_ambiguous() -> None:
    card = build_card(samples.rich())
    review, issued = words(render_pdf(card)), words(render_pdf(card, issued=samples.approvals()))
    assert "Not approved: no permit can rest on this copy." in review and "Issued." not in review
    assert "Issued. Signed approvals, on the last page: 1." in issued and "Not approved" not in issued


def test_a_refusal_is_not_counted_as_an_approval() -> None:
    issued = samples.approvals()
    issued["approvals"].append({**issued["approvals"][0], "decision": "refuse"})
    assert "on the last page: 1." in words(render_pdf(build_card(samples.rich()), issued=issued))


def test_without_a_verdict_the_front_says_so() -> None:
    assert "Release policy has not judged this model. Rules: GAP." in words(render_pdf(build_card({})))


def test_the_box_on_the_front_says_which_audit_and_how_many_rules_were_waived() -> None:
    known = samples.rich()
    front = read(render_pdf(build_card(known))).pages[0].extract_text()
    assert "Release policy said INCONCLUSIVE; audit profile quick. Rules:" in " ".join(front.split())
    assert "Waived" not in front
    known["waivers"] = [{"rules": ["REL-PII", "REL-IMPACT-RATIO"]}]
    assert "Waived by signature: 2 rules." in words(render_pdf(build_card(known)))
    # A card of an earlier release, which holds neither.
    older = {k: v for k, v in build_card(known).items() if k not in ("audit_profile", "rules_waived")}
    assert "Release policy said INCONCLUSIVE. Rules:" in words(render_pdf(older))


def test_no_more_is_claimed_of_a_signature_than_its_certificate_says() -> None:
    text = words(render_pdf(build_card(samples.rich()), issued=samples.approvals()))
    assert "with a key certified to that person" in text and "no service holds" not in text


def test_dates_are_those_of_the_records_or_absent() -> None:
    dated = read(render_pdf(build_card(samples.rich()))).metadata
    assert dated["/CreationDate"] == "D:20261102080930Z"
    undated = read(render_pdf(build_card(samples.small()))).metadata
    assert "/CreationDate" not in undated and "/ModDate" not in undated


def test_pages_are_numbered_and_carry_the_digest() -> None:
    card = build_card(samples.rich())
    pdf = render_pdf(card)
    pages = read(pdf).pages
    sha256 = digests.sha256_bytes(canonical.encode(card))
    for number, page in enumerate(pages, 1):
        text = page.extract_text()
        assert f"page {number}" in text and sha256[:16] in text
        assert f"of {len(pages)}" in text


def test_every_typeface_is_embedded() -> None:
    for page in read(render_pdf(build_card(samples.rich()), issued=samples.approvals())).pages:
        fonts = page["/Resources"]["/Font"]
        assert fonts
        for font in fonts.values():
            assert "/FontFile2" in font.get_object()["/FontDescriptor"], font.get_object()["/BaseFont"]


def test_the_structure_covers_every_mark_of_every_page() -> None:
    reader = read(render_pdf(build_card(samples.rich())))
    root = reader.trailer["/Root"]
    assert root["/MarkInfo"]["/Marked"].value is True and root["/Lang"] == "en"
    tree = root["/StructTreeRoot"]
    parents = tree["/ParentTree"]["/Nums"]
    assert len(parents) == 2 * len(reader.pages)
    roles = []
    for number, page in enumerate(reader.pages):
        content = page.get_contents().get_data().decode("latin-1")
        marks = [int(m) for m in re.findall(r"/\w+ <</MCID (\d+)>> BDC", content)]
        elements = parents[2 * page["/StructParents"] + 1].get_object()
        assert marks == list(range(len(elements))), number
        assert len(re.findall(r"\bB(?:DC|MC)\b", content)) == len(re.findall(r"\bEMC\b", content))
        for mark, element in zip(marks, elements, strict=True):
            node = element.get_object()
            assert node["/K"] == mark and node["/Pg"].get_object() == page.get_object()
            roles.append(node["/S"])
    assert roles.count("/H1") == 1 and roles.count("/H2") == 18
    assert {"/P", "/TH", "/TD", "/Figure"} <= set(roles)


def test_plots_are_told_in_words() -> None:
    reader = read(render_pdf(build_card(samples.rich())))
    nums = reader.trailer["/Root"]["/StructTreeRoot"]["/ParentTree"]["/Nums"]
    nodes = [e.get_object() for marks in nums[1::2] for e in marks.get_object()]
    told = [str(n["/Alt"]) for n in nodes if n["/S"] == "/Figure"]
    assert any("pii extraction rate 0.09, limit ≤ 0.02" in t for t in told)
    assert len(told) == 12 and all(told)


def test_the_outline_names_every_section() -> None:
    card = build_card(samples.rich())
    titles = [str(o["/Title"]) for o in read(render_pdf(card)).outline]
    assert titles == [f"{i} {s['title']}" for i, s in enumerate(card["sections"], 1)]


def test_many_measurements_and_rules_break_over_pages() -> None:
    card = build_card(samples.rich(measurements=60, rules=30))
    pdf = render_pdf(card)
    text = words(pdf).replace(" ", "")
    for i in range(60):
        assert f"piigenerationrate[type={i}]" in text
    for i in range(30):
        assert f"becauseofEXTRA-{i}" in text
    # Four families; the longest table begins again on a second page with its head.
    assert words(pdf).count("Measurement Value Interval") >= 5
    assert read(pdf).attachments["card.json"] == [canonical.encode(card)]


@pytest.mark.parametrize("rows", range(40, 70))
def test_a_break_leaves_no_row_alone(rows: int) -> None:
    """Whatever the length, a table that goes on over the page takes two rows with it."""
    table = flow.grid(("A",), [[flow.cell(str(i))] for i in range(rows)], (1,))
    _, height = table.wrap(theme.WIDTH, theme.HEIGHT)
    parts = table.split(theme.WIDTH, theme.HEIGHT)
    if height <= theme.HEIGHT:
        return
    assert sum(len(p._cellvalues) - 1 for p in parts) == rows
    assert all(len(p._cellvalues) >= 3 and p.wrap(theme.WIDTH, theme.HEIGHT)[1] <= theme.HEIGHT for p in parts)
