"""The data side of :mod:`benchmarks.admission`: the scan for personal data against its peer, and a large dataset.

The peer is Presidio's ``AnalyzerEngine`` as it comes: its default recognisers, its whole pipeline, ``analyze()`` text
by text at its default threshold of 0; only its model is named, the same small one, since the default one is fetched.
Both sides take turns on parts of the same texts, so that a busy machine slows both. One core is CPU time, two cores
are wall time of two processes against wall time of the peer's one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from assay.pii import PiiConfig, PiiScanner, Span
from assay.pii_engine import model_folder
from assay.pii_pool import ScannerPool
from audit.prepare.detector import Quality, measure
from audit.prepare.labelled import LabelledText, labelled_set

TEXTS = 2000
_TURNS = 8
# The peer's nearest types where it has none of ours.
_PEER_TYPES: Mapping[str, frozenset[str]] = {
    "AGE_OVER_89": frozenset({"DATE_TIME"}),
    "STREET_ADDRESS": frozenset({"LOCATION"}),
    "LICENCE_NUMBER": frozenset({"MEDICAL_LICENSE", "US_NPI"}),
    "HEALTH_PLAN_NUMBER": frozenset({"US_MBI"}),
    "FAX_NUMBER": frozenset({"PHONE_NUMBER"}),
    "DEVICE_SERIAL": frozenset({"MAC_ADDRESS"}),
    "UNIQUE_CODE": frozenset({"UUID"}),
}


def pii_scan() -> Mapping[str, Any]:
    """Speed and recall of the scan against the peer."""
    texts = list(labelled_set(TEXTS))
    ours, peer = PiiScanner(), presidio()
    ours.warm_up()
    peer(["warm up"])
    spent = {"ours": 0.0, "pool": 0.0, "peer": 0.0, "peer_wall": 0.0}
    found: dict[str, list[Sequence[Span]]] = {"ours": [], "peer": []}
    with ScannerPool(ours, 2) as pool:
        list(pool.scan(["warm", "up"]))
        for turn in range(_TURNS):
            part = [t.text for t in texts[turn::_TURNS]]
            cpu, wall = time.process_time(), time.perf_counter()
            found["peer"] += peer(part)
            spent["peer"] += time.process_time() - cpu
            spent["peer_wall"] += time.perf_counter() - wall
            cpu = time.process_time()
            found["ours"] += ours.scan(part)
            spent["ours"] += time.process_time() - cpu
            wall = time.perf_counter()
            list(pool.scan(part))
            spent["pool"] += time.perf_counter() - wall
    order = [t for turn in range(_TURNS) for t in texts[turn::_TURNS]]
    characters = sum(len(t.text) for t in texts)
    return {
        "pii_texts": len(texts),
        "pii_chars_per_s_1core": round(characters / spent["ours"]),
        "pii_chars_per_s_2core": round(characters / spent["pool"]),
        "presidio_chars_per_s": round(characters / spent["peer"]),
        "pii_ratio_1core": round(spent["peer"] / spent["ours"], 2),
        "pii_ratio_2core": round(spent["peer_wall"] / spent["pool"], 2),
        "pii_recall": _recall(order, found),
    }


def _recall(texts: Sequence[LabelledText], found: Mapping[str, Sequence[Sequence[Span]]]) -> Mapping[str, Any]:
    """Type to recall of both sides; the set was written beside our rules, which docs/data.md says."""
    ours = measure(lambda _: found["ours"], texts)
    peer = measure(lambda _: found["peer"], texts, _PEER_TYPES)
    return {
        name: {"ours": _rounded(q), "presidio": _rounded(peer[name]), "n": q.labelled}
        for name, q in ours.items()
        if q.labelled
    }


def _rounded(q: Quality) -> list[float]:
    return [round(x, 3) for x in q.recall]


def presidio() -> Callable[[Sequence[str]], Iterable[list[Span]]]:
    """The peer; without a network its list of public suffixes is the one that its library ships."""
    import tldextract
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import NlpEngineProvider

    logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)
    tldextract.extract = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)  # type: ignore[assignment]
    folder = str(model_folder(PiiConfig().model))
    defaults = NlpEngineProvider().nlp_configuration
    model = {"lang_code": "en", "model_name": folder}
    provider = NlpEngineProvider(nlp_configuration={**defaults, "models": [model]})
    engine = AnalyzerEngine(nlp_engine=provider.create_engine())

    def analyze(texts: Sequence[str]) -> list[list[Span]]:
        return [
            sorted(Span(r.start, r.end, r.entity_type, float(r.score)) for r in engine.analyze(t, language="en"))
            for t in texts
        ]

    return analyze
