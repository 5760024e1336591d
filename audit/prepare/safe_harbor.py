"""The 18 classes of identifiers of HIPAA's Safe Harbor, 45 CFR 164.514(b)(2)(i), and how each is covered.

Sixteen have a detector. Biometric identifiers and photographs are not words: rows are text, and a row that carries
media inside its text is refused (:func:`audit.prepare.text_checks.check_text`, ``EMBEDDED_MEDIA``), which is measured
like a detector. Numbers that name a fingerprint or voice record count under (R).
"""

from __future__ import annotations

import base64
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from audit.prepare.detector import CONFIDENCE, Quality
from audit.prepare.text_checks import EMBEDDED_MEDIA, check_text

MEDIA_TRIALS = 400
_MEDIA = "rows are text; a row with media in its text is refused (EMBEDDED_MEDIA)"


@dataclass(frozen=True)
class IdentifierClass:
    """A class: its letter, its title, and the detector's types that cover it; none where an alternative does."""

    letter: str
    title: str
    entity_types: tuple[str, ...]
    alternative: str = ""


CLASSES: tuple[IdentifierClass, ...] = (
    IdentifierClass("A", "names", ("PERSON",)),
    IdentifierClass("B", "places smaller than a state, ZIP codes", ("STREET_ADDRESS", "ZIP_CODE", "LOCATION")),
    IdentifierClass("C", "dates but the year, ages over 89", ("DATE_TIME", "AGE_OVER_89")),
    IdentifierClass("D", "telephone numbers", ("PHONE_NUMBER",)),
    IdentifierClass("E", "fax numbers", ("FAX_NUMBER",)),
    IdentifierClass("F", "e-mail addresses", ("EMAIL_ADDRESS",)),
    IdentifierClass("G", "social security numbers", ("US_SSN",)),
    IdentifierClass("H", "medical record numbers", ("MEDICAL_RECORD_NUMBER",)),
    IdentifierClass("I", "health plan numbers", ("HEALTH_PLAN_NUMBER",)),
    IdentifierClass("J", "account numbers", ("US_BANK_NUMBER", "IBAN_CODE", "CREDIT_CARD")),
    IdentifierClass("K", "certificate and licence numbers", ("LICENCE_NUMBER", "US_DRIVER_LICENSE", "US_PASSPORT")),
    IdentifierClass("L", "vehicle identifiers and plates", ("VEHICLE_ID",)),
    IdentifierClass("M", "device identifiers and serial numbers", ("DEVICE_SERIAL",)),
    IdentifierClass("N", "web addresses", ("URL",)),
    IdentifierClass("O", "IP addresses", ("IP_ADDRESS",)),
    IdentifierClass("P", "biometric identifiers", (), _MEDIA),
    IdentifierClass("Q", "full-face photographs", (), _MEDIA),
    IdentifierClass("R", "any other unique number, characteristic or code", ("UNIQUE_CODE", "US_ITIN", "UK_NINO")),
)


def coverage(
    quality: Mapping[str, Quality], spans: Mapping[str, int], refused_media: int, removed: bool
) -> dict[str, Any]:
    """``assay.v1.IdentifierClass`` by letter.

    Args:
        quality: the detector's figures by type.
        spans: spans found in the dataset by type.
        refused_media: rows refused since they carry media.
        removed: spans are replaced in the rows.
    """
    from assay.v1 import policy_input_pb2 as pb
    from audit.statistics.stats import clopper_pearson

    out = {}
    for c in CLASSES:
        if c.entity_types:
            n = sum(quality[t].labelled for t in c.entity_types)
            hits, found = (sum(quality[t].found for t in c.entity_types), sum(spans.get(t, 0) for t in c.entity_types))
        else:
            n, hits, found = MEDIA_TRIALS, media_refused(MEDIA_TRIALS), refused_media
        lower = clopper_pearson(hits, n, CONFIDENCE)[0] if n else 0.0
        out[c.letter] = pb.IdentifierClass(
            title=c.title,
            detector=", ".join(c.entity_types),
            alternative=c.alternative,
            recall=hits / n if n else 0.0,
            recall_lower=lower,
            n=n,
            found=found,
            removed=removed or not c.entity_types,
        )
    return out


def media_refused(trials: int, seed: int = 7) -> int:
    """How many of so many texts with an image or a recording in them the check on texts refuses."""
    rng = random.Random(seed)
    heads = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"RIFF\x00\x00\x00\x00WAVE", b"%PDF-1.7", b"\x00")
    refused = 0
    for i in range(trials):
        blob = base64.b64encode(rng.choice(heads) + rng.randbytes(rng.randrange(200, 3000))).decode()
        kind = ("data:image/png;base64,", "data:audio/wav;base64,", "", "photo: ")[i % 4]
        broken = "\n".join(blob[k : k + 76] for k in range(0, len(blob), 76)) if i % 3 == 0 else blob
        refused += any(p.code == EMBEDDED_MEDIA for p in check_text(f"Please look at {kind}{broken} today.", "x", ()))
    return refused
