"""What preparation found in the rows, as parts of the card's data section: personal data, screens, refused rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from audit.cards import blocks
from audit.cards.blocks import paragraph, table

_MOST_ROWS = 12
_MOST_FINDINGS = 20


def parts_of(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tables; none for what the facts do not hold."""
    return [*_labels(data), *_untested(data), *_personal(data), *_safe_harbor(data), *_screens(data), *_refused(data)]


def _labels(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The favourable label by group, against the group that has it most often."""
    groups = data.get("group_labels", [])
    if not groups:
        return []
    told = (
        "How often the rows of each group have the favourable label, with 95 % intervals, before anything is learnt "
        "from them. The reference is the group that has it most often; the impact ratio is a group's rate over that "
        "one's (29 CFR 1607.4(D)), the difference that one's rate less the group's (DPL), the imbalance the difference "
        "of their rows over the sum (CI; both as Amazon SageMaker Clarify defines them). Whether such labels are "
        "right, no count can say. Of a group of a few rows, which are a few people, neither rows nor labels are told, "
        "nor of larger groups from which they would follow."
    )
    heads = ("Group", "Rows", "Favourable", "Rate", "Imbalance", "Difference", "Impact ratio")
    return [paragraph(told), table(heads, (18, 7, 10, 19, 8, 19, 19), [_group(g) for g in groups])]


def _untested(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Groups that the file has and the sealed test has too few of, so that no comparison speaks for them."""
    groups = [[name] for name in sorted(data.get("untested_groups", {}))]
    heads = ("Group of the file that has too few rows in the sealed test to be tested",)
    return [table(heads, (100,), groups)] if groups else []


def _group(found: Mapping[str, Any]) -> list[Any]:
    name = f"{found.get('attribute')}={found.get('value')}"
    said = "inconclusive: " + str(found.get("inconclusive")) if found.get("inconclusive") else ""
    if "rate" not in found:
        return [name, "–", "–", said, "–", "–", "–"]
    seen = [
        name,
        blocks.number(found.get("rows", 0)),
        blocks.number(found.get("favourable", 0)),
        _bounded(found, "rate"),
    ]
    if "impact_ratio" not in found:
        return [*seen, "–", "–", said or "reference"]
    compared = [_bounded(found, of) for of in ("label_difference", "impact_ratio")]
    return [*seen, f"{float(found['class_imbalance']):.3f}", *compared]


def _bounded(found: Mapping[str, Any], name: str) -> str:
    value, lower, upper = (float(found.get(f"{name}{end}", 0)) for end in ("", "_lower", "_upper"))
    return f"{value:.3f} [{lower:.3f}, {upper:.3f}]"


def _personal(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Spans by type, with the detector's recall and precision on its labelled set and their 95 % intervals."""
    quality = data.get("pii_quality", {})
    rows = [
        [
            p.get("entity_type"),
            blocks.number(p.get("count", 0)),
            blocks.number(p.get("rows", 0)),
            _interval(quality.get(p.get("entity_type"), {}), "recall", "labelled"),
            _interval(quality.get(p.get("entity_type"), {}), "precision", "detections"),
        ]
        for p in data.get("pii", [])
    ]
    if not rows:
        return []
    heads = ("Personal data found in the rows", "Spans", "Rows", "Recall of the detector", "Precision")
    return [table(heads, (32, 8, 8, 26, 26), rows)]


def _safe_harbor(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    classes = data.get("identifier_classes", {})
    if not classes:
        return []
    rows = [
        [
            f"{letter} {c.get('title', '')}",
            c.get("detector") or c.get("alternative") or blocks.GAP,
            blocks.number(c.get("found", 0)),
            "yes" if c.get("removed") else "no",
            f"{float(c['recall_lower']):.3f}, n {c.get('n', 0)}" if "recall_lower" in c else blocks.GAP,
        ]
        for letter, c in sorted(classes.items())
    ]
    heads = ("HIPAA Safe Harbor class", "Covered by", "Found", "Removed", "Recall, lower bound")
    return [table(heads, (28, 34, 8, 10, 20), rows)]


def _screens(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    screened = data.get("screened", {})
    if not screened:
        return []
    rows = [
        [f.get("screen"), blocks.number(f.get("rows", 0)), _some(f.get("row_numbers", [])), f.get("reason")]
        for f in data.get("screens", [])[:_MOST_FINDINGS]
    ]
    clean = sorted(set(screened) - {f.get("screen") for f in data.get("screens", [])})
    found = [table(("Screen", "Rows", "First rows", "Reason"), (20, 8, 26, 46), rows)] if rows else []
    return [*found, paragraph(f"Screens that found nothing: {', '.join(clean) or 'none'}."), *_screen_quality(data)]


def _screen_quality(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How much a screen finds, where that was counted, so that nobody takes its silence for proof."""
    rows = [
        [
            q.get("screen"),
            q.get("answers"),
            f"{int(q.get('hits', 0))} of {int(q.get('n', 0))}",
            f"{100 * float(q.get('lower', 0)):.1f} to {100 * float(q.get('upper', 0)):.1f} %",
        ]
        for q in data.get("screen_quality", [])
    ]
    heads = ("What a screen finds", "Of answers that it was not written from", "Named", "95 % interval")
    return [table(heads, (22, 44, 14, 20), rows)] if rows else []


def _refused(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    kept = data.get("findings", [])
    if not kept:
        return []
    rows = [[f.get("row"), f.get("code"), f.get("field"), f.get("reason")] for f in kept[:_MOST_FINDINGS]]
    left = int(data.get("invalid_rows", 0))
    told = f"{left} rows were refused; the first {len(rows)} findings:"
    return [paragraph(told), table(("Row", "Code", "Field", "Reason"), (10, 22, 22, 46), rows)]


def _interval(quality: Mapping[str, Any], name: str, n: str) -> str:
    count = int(quality.get(n, 0))
    if not count:
        return "not measured"
    return f"{_bounded(quality, name)}, n {count}"


def _some(numbers: Sequence[Any]) -> str:
    return ", ".join(map(str, numbers[:_MOST_ROWS])) + (" …" if len(numbers) > _MOST_ROWS else "")
