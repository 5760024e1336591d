"""How much the detector of personal data finds, measured on the labelled set: recall and precision with intervals.

A figure belongs to one detector: it is kept with the identity that the scanner states (versions, digest of the
weights, version of the rules), and a detector with another identity is measured anew before it is spoken of.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path

from assay.pii import ENTITY_TYPES, PiiScanner, Span
from audit.prepare.labelled import SEED, TEXTS, Label, LabelledText, labelled_set

CONFIDENCE = 0.95
_KEPT = "detector_quality.json"


@dataclass(frozen=True)
class Quality:
    """How one entity type is found.

    Attributes:
        entity_type: the type; ``PERSON:asian`` and the like for names by origin.
        labelled: values of the type in the set.
        found: those that a span of the same type overlaps.
        detections: spans of the type.
        right: those that overlap a value of the type.
    """

    entity_type: str
    labelled: int
    found: int
    detections: int
    right: int

    @property
    def recall(self) -> tuple[float, float, float]:
        """Share found, with Clopper-Pearson bounds at 95 %; (nan-free) 0, 0, 1 where nothing was labelled."""
        return _share(self.found, self.labelled)

    @property
    def precision(self) -> tuple[float, float, float]:
        """Share of right detections, with bounds."""
        return _share(self.right, self.detections)


def quality_of(scanner: PiiScanner) -> Mapping[str, Quality]:
    """The figures of this detector: those kept for its identity, else measured now (a few seconds)."""
    kept = json.loads(files("audit.prepare").joinpath(_KEPT).read_text("utf-8"))
    if kept["detector"] == scanner.identity and (kept["seed"], kept["texts"]) == (SEED, TEXTS):
        return {q["entity_type"]: Quality(**q) for q in kept["types"]}
    return measure(lambda texts: scanner.scan(texts), list(labelled_set()))


def measure(
    scan: Callable[[Sequence[str]], Iterable[Sequence[Span]]],
    texts: Sequence[LabelledText],
    counts_as: Mapping[str, frozenset[str]] | None = None,
) -> dict[str, Quality]:
    """Scans labelled texts and counts.

    Args:
        scan: gives each text's spans, sorted by place.
        texts: the labelled set.
        counts_as: types of spans that count for a type of label, for a detector that has other types.
    """
    labelled: Counter[str] = Counter()
    found: Counter[str] = Counter()
    detections: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for text, spans in zip(texts, scan([t.text for t in texts]), strict=True):
        for label in text.labels:
            types = (counts_as or {}).get(label.entity_type, frozenset({label.entity_type}))
            hit = any(s.entity_type in types and s.start < label.end and label.start < s.end for s in spans)
            for name in _slices(label):
                labelled[name] += 1
                found[name] += hit
        starts = [label.start for label in text.labels]
        for s in spans:
            detections[s.entity_type] += 1
            right[s.entity_type] += _overlaps(s, text.labels, starts, counts_as or {})
    names = sorted(ENTITY_TYPES | set(labelled))
    return {n: Quality(n, labelled[n], found[n], detections[n], right[n]) for n in names}


def _overlaps(s: Span, labels: Sequence[Label], starts: Sequence[int], counts_as: Mapping[str, frozenset[str]]) -> bool:
    near = labels[max(0, bisect_left(starts, s.start) - 1) : bisect_left(starts, s.end)]
    return any(
        s.entity_type in counts_as.get(label.entity_type, frozenset({label.entity_type})) and s.start < label.end
        for label in near
        if label.end > s.start
    )


def _slices(label: Label) -> tuple[str, ...]:
    return (label.entity_type, f"{label.entity_type}:{label.group}") if label.group else (label.entity_type,)


def _share(successes: int, n: int) -> tuple[float, float, float]:
    from audit.statistics.stats import clopper_pearson

    if n == 0:
        return 0.0, 0.0, 1.0
    lower, upper = clopper_pearson(successes, n, CONFIDENCE)
    return successes / n, lower, upper


def main() -> None:
    """Measures the detector of this environment and keeps the figures: ``python -m audit.prepare.detector``."""
    scanner = PiiScanner()
    found = measure(lambda texts: scanner.scan(texts), list(labelled_set()))
    kept = {"detector": scanner.identity, "seed": SEED, "texts": TEXTS, "types": [asdict(q) for q in found.values()]}
    path = Path(__file__).with_name(_KEPT)
    path.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
    for q in found.values():
        (r, low, high), (p, p_low, _) = q.recall, q.precision
        print(f"{q.entity_type:24}{q.labelled:5} recall {r:.3f} [{low:.3f}, {high:.3f}]", end=" ")
        print(f"precision {p:.3f} [{p_low:.3f}] of {q.detections}")


if __name__ == "__main__":
    main()
