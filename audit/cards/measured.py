"""The measured part of a card: families of measurements, their plots against the limits, and their tables."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence, Sized
from typing import Any

from audit.cards import blocks
from audit.cards.blocks import Block, curve, intervals, paragraph, section, strip, table

Record = Mapping[str, Any]

FAMILIES = (
    (
        "privacy",
        "Privacy: what the model gives away",
        "Secrets made up for this job (canaries) were mixed into the training rows; others like them were held out. "
        "The numbers say how far the model tells the two apart, and what it gives away when asked. A secret of stratum "
        "A was put into one row, one of stratum B into several.",
    ),
    (
        "fairness",
        "Fairness: groups compared",
        "Groups of people compared: the model's decisions on the sealed test rows, or its answers to the same "
        "questions under names of different groups.",
    ),
    (
        "quality",
        "Quality against the base model",
        "Both models answered the same sealed test rows, which training never saw.",
    ),
    (
        "overfitting",
        "Overfitting",
        "Loss on rows that training saw beside loss on sealed test rows that it did not see.",
    ),
    (
        "regression",
        "What tuning may have cost",
        "Both models met the same items of public sets: general text, abilities, true and false summaries, questions "
        "with and without their context, harmful requests.",
    ),
)
PREFIXES = {"quality": ("quality.", "adapter."), "regression": ("regression.", "safety.")}
"""Beginnings of the names of a family's measurements, where they are not the family's own name."""
OPTIONAL = ("regression",)
"""Families of which nothing is said when nothing of them was planned or measured."""
DIGEST = 16
# Which series belong into which family: beginning of the name, heading.
SERIES = {
    "privacy": (
        (
            "exposure_by_repeats",
            "Canary exposure: how far each secret stands out among those held out, by the training rows that hold it",
        ),
        ("canary_scores", "Canary scores: what tuning did to each secret's loss, by the training rows that hold it"),
    ),
    "fairness": (
        ("log_odds", "Log-odds of the favourable decision, by true label"),
        ("counterfactual_shifts", "Change of log-odds when the group is exchanged, beside the placebo"),
        ("alternatives", "Impact ratio of the adapter and of the alternatives that were tried"),
    ),
    "quality": (("calibration", "Calibration: share of right answers against the stated probability"),),
    "overfitting": (("row_losses", "Loss of single rows"),),
    "regression": (),
}
CANARIES = ("exposure_by_repeats", "canary_scores")
"""Series of canaries, by how often each was planted."""
CURVES = ("calibration",)
"""Series that are lines over two axes."""
_PLANTED = re.compile(r"[A-Z] x([0-9]+)")
"""A group of canaries as the probe names it: stratum, and how many training rows hold each."""
MAX_PLOTTED = 14
MAX_GROUPS = 16


def sections(known: Record) -> list[dict[str, Any]]:
    """One section a family; a family without measurements says so."""
    out = []
    for prefix, title, lead in FAMILIES:
        beginnings = PREFIXES.get(prefix, (f"{prefix}.",))
        mine = [m for m in _measurements(known) if str(m.get("name", "")).startswith(beginnings)]
        if not mine and prefix in OPTIONAL and not any(name.startswith(beginnings) for name in gates(known)):
            continue
        if not mine:
            # Where something was measured, the audit says why this was not: it may have left out what applies.
            said = (
                "Not measured; see what was not tested." if _measurements(known) else f"No measurement: {blocks.GAP}."
            )
            out.append(section(prefix, title, paragraph(said)))
            continue
        parts = [paragraph(lead), *_against_limits(known, mine), *_series(known, prefix)]
        if prefix == "fairness":
            parts += _selection_rates(known, mine)
        parts += [_table(known, mine), _methods(mine), _digests(mine)]
        out.append(section(prefix, title, *parts))
    return out


def loss_curve(known: Record) -> Block | None:
    """The training curve: the audit's series, else the worker's claim; the claimed validation losses beside it."""
    claim = known.get("training", {}).get("claim", {})
    lines: dict[str, list[list[float]]] = {}
    axes: Sequence[str] = ("step", "loss")
    for series in known.get("audit", {}).get("series", []):
        if series.get("name") == "loss_curve":
            axes = series.get("axes", axes)
            for point in series.get("points", []):
                lines.setdefault(point.get("label", ""), []).append(list(point.get("values", [])))
    claimed = {"train": "losses", "validation": "validation_losses"}
    for label_, name in claimed.items():
        points = [list(p)[:2] for p in claim.get(name) or [] if isinstance(p, list | tuple) and len(p) >= 2]
        if points and label_ not in lines:
            lines[label_] = points
    return curve("Loss during training", axes, lines) if lines else None


def key(m: Record) -> str:
    """How limits name a measurement."""
    return f"{m.get('name')}[{m['slice']}]" if m.get("slice") else str(m.get("name"))


def label(m: Record) -> str:
    """How people read a measurement's name."""
    name = str(m.get("name", "")).partition(".")[2].replace("_", " ")
    where = f" [{m['slice']}]" if m.get("slice") else ""
    unit = str(m.get("unit", ""))
    unit = "" if unit in ("ratio", "count", "") or name.endswith(unit) else f", {unit}"
    return f"{name}{where}{unit}"


def gates(known: Record) -> dict[str, list[Record]]:
    """The limits fixed before training, by measurement."""
    out: dict[str, list[Record]] = {}
    for gate in known.get("decision", {}).get("audit_plan", {}).get("gates", []):
        out.setdefault(str(gate.get("measurement")), []).append(gate)
    return out


def limit(gate: Record) -> str:
    """A limit with its side."""
    sign = {"LIMIT_SIDE_AT_MOST": "≤", "LIMIT_SIDE_AT_LEAST": "≥"}.get(str(gate.get("side")), "?")
    return f"{sign} {blocks.number(gate.get('limit', 0.0))}"


def outcomes(known: Record) -> dict[str, str]:
    """What release policy said, by measurement; where several rules judged one, the worst of them."""
    out: dict[str, str] = {}
    for o in known.get("verdict", {}).get("outcomes", []):
        name, said = o.get("measurement"), blocks.word(o.get("outcome"), "OUTCOME_")
        if name and (name not in out or _severity(out[name]) < _severity(said)):
            out[name] = said
    return out


def _severity(said: str) -> int:
    """Higher is worse; a word that this version does not know is the worst."""
    known = ("NOT_APPLICABLE", "PASS", "INCONCLUSIVE", "FAIL", "ERROR")
    return known.index(said) if said in known else len(known)


def _measurements(known: Record) -> list[Record]:
    return list(known.get("audit", {}).get("measurements", []))


def _against_limits(known: Record, mine: Sequence[Record]) -> list[Block]:
    planned, said = gates(known), outcomes(known)
    rows = [
        _plotted(m, gate, said.get(key(m), ""))
        for m in mine
        for gate in planned.get(key(m), [])
        if m.get("value") is not None
    ]
    title = "Estimates against the limits fixed before training"
    return [intervals(_titled(title, rows, MAX_PLOTTED), rows[:MAX_PLOTTED])] if rows else []


def _plotted(m: Record, gate: Record, outcome: str) -> dict[str, Any]:
    found = _interval_of(m, [gate])
    out: dict[str, Any] = {"label": label(m), "value": m["value"], "outcome": outcome}
    out |= {e: found[e] for e in ("lower", "upper") if found.get(e) is not None}
    if m.get("control") is not None:
        out["control"] = m["control"]
    note = f"{blocks.number(m['value'], 3)}, limit {limit(gate)}"
    return out | {"limit": gate.get("limit", 0.0), "side": gate.get("side"), "note": note}


def _table(known: Record, mine: Sequence[Record]) -> Block:
    planned, said = gates(known), outcomes(known)
    rows = []
    for m in mine:
        its = planned.get(key(m), [])
        control = "–"
        if m.get("control") is not None:
            control = f"{blocks.number(m['control'])} ({m.get('control_kind') or blocks.GAP})"
        outcome = said.get(key(m), blocks.GAP) if its else "no gate"
        rows.append(
            [
                f"{label(m)} (exploratory)" if m.get("exploratory") else label(m),
                blocks.GAP if m.get("unavailable") else blocks.number(m.get("value")),
                _interval(_interval_of(m, its)),
                blocks.number(m["n"]) if m.get("n") is not None else "–",
                control,
                ", ".join(limit(g) for g in its) or "–",
                outcome,
            ]
        )
    columns = ("Measurement", "Value", "Interval", "n", "Control or base", "Limit", "Outcome")
    return table(columns, (26, 9, 20, 7, 15, 9, 14), rows, status=6)


def _methods(mine: Sequence[Record]) -> Block:
    """How each was computed, once a method."""
    by_method: dict[str, list[str]] = {}
    for m in mine:
        names = by_method.setdefault(str(m.get("method") or blocks.GAP), [])
        name = str(m.get("name", "")).partition(".")[2].replace("_", " ")
        if name not in names:
            names.append(name)
    return table(("How it was measured", "Method"), (27, 73), [[", ".join(v), k] for k, v in by_method.items()])


def _digests(mine: Sequence[Record]) -> Block:
    """What each number was computed from, by the beginning of its digest; the twin holds it whole."""
    known = [(label(m), str(m["computed_from"])[:DIGEST]) for m in mine if m.get("computed_from")]
    pairs = [[*known[i], *(known[i + 1] if i + 1 < len(known) else ("–", "–"))] for i in range(0, len(known), 2)]
    columns = ("Measurement", "Digest of its inputs", "Measurement", "Digest of its inputs")
    return table(columns, (30, 20, 30, 20), pairs)


def _titled(title: str, rows: Sized, most: int) -> str:
    """A plot's title, which says when not all is in it."""
    return title if len(rows) <= most else f"{title} (the first {most} of {len(rows)})"


def _interval_of(m: Record, its: Sequence[Record]) -> Record:
    """The interval that a PASS is read from, at ``1 - alpha`` of its gate; the narrowest where none is judged.

    Where only one side is bounded and none is judged, the value is such a bound itself, and the interval is the one
    that begins or ends with it: in a narrower one the value would not lie.
    """
    found: list[Record] = list(m.get("intervals") or [])
    for gate in its:
        level = 1 - float(gate.get("alpha", 0.0))
        for candidate in found:
            if abs(float(candidate.get("confidence", 0.0)) - level) < 1e-9:
                return candidate
    if found and all((c.get("lower") is None) != (c.get("upper") is None) for c in found):
        return min(found, key=lambda c: (not _ends_at(c, m.get("value")), abs(float(c.get("confidence", 0.0)) - 0.95)))
    return found[0] if found else {}


def _ends_at(found: Record, value: Any) -> bool:
    """Whether the one end of an interval is the value."""
    end = found["lower"] if found.get("lower") is not None else found["upper"]
    return value is not None and math.isclose(float(end), float(value), rel_tol=1e-9, abs_tol=1e-12)


def _interval(found: Record) -> str:
    if "confidence" not in found:
        return "–"
    low, high = (blocks.number(found[e]) if found.get(e) is not None else None for e in ("lower", "upper"))
    at = f"({100 * float(found['confidence']):.4g} %)"
    if low is None or high is None:
        return f"at least {low} {at}" if low is not None else f"at most {high or blocks.GAP} {at}"
    return f"{low} to {high} {at}"


def _selection_rates(known: Record, mine: Sequence[Record]) -> list[Block]:
    out = []
    for series in known.get("audit", {}).get("series", []):
        name = str(series.get("name", ""))
        if not name.startswith("selection_rates"):
            continue
        rows = []
        for point in series.get("points", []):
            values = list(point.get("values", []))
            if len(values) == 4:
                rate, lower, upper, n = values
                note = f"{blocks.number(rate, 3)}, n {blocks.number(n)}"
                rows.append({"label": point.get("label"), "value": rate, "lower": lower, "upper": upper, "note": note})
        if rows:
            what = name.partition("[")[2].removesuffix("]") or "group"
            title = f"Selection rates by {what}: share of rows that got the favourable decision"
            out.append(intervals(_titled(title, rows, MAX_GROUPS), rows[:MAX_GROUPS], axis="selection rate"))
    if out:
        return out
    groups = [m for m in mine if m.get("name") == "fairness.selection_rate" and m.get("value") is not None]
    rows = []
    for m in groups:
        found = _interval_of(m, [])
        row = {"label": str(m.get("slice", "all")), "value": m["value"]}
        row |= {e: found[e] for e in ("lower", "upper") if found.get(e) is not None}
        rows.append(row | {"note": f"{blocks.number(m['value'], 3)}, n {m.get('n', blocks.GAP)}"})
    title = _titled("Selection rates by group", rows, MAX_GROUPS)
    return [intervals(title, rows[:MAX_GROUPS], axis="selection rate")] if rows else []


def _series(known: Record, prefix: str) -> list[Block]:
    out = []
    for series in known.get("audit", {}).get("series", []):
        for beginning, title in SERIES[prefix]:
            axes = list(series.get("axes", []))
            if not str(series.get("name", "")).startswith(beginning) or not axes:
                continue
            if beginning in CURVES and len(axes) == 2:
                out.append(curve(title, axes, _lines(series)))
                continue
            groups: dict[str, list[float]] = {}
            for point in series.get("points", []):
                values = list(point.get("values", []))
                if values:
                    groups.setdefault(_group(beginning, str(point.get("label") or "all")), []).append(values[-1])
            if groups:
                shown = dict(list(groups.items())[:MAX_GROUPS])
                out.append(strip(_titled(title, groups, MAX_GROUPS), str(axes[-1]), shown))
    return out


def _group(beginning: str, name: str) -> str:
    """How people read a group of single values: canaries by how many training rows hold each of them."""
    if beginning not in CANARIES:
        return name
    planted = _PLANTED.fullmatch(name)
    if planted:
        return f"in {planted[1]} row" + "s" * (planted[1] != "1")
    return "in none" if name == "held out" else name


def _lines(series: Record) -> dict[str, list[list[float]]]:
    """Points of a series by label, two coordinates each."""
    out: dict[str, list[list[float]]] = {}
    for point in series.get("points", []):
        values = list(point.get("values", []))
        if len(values) == 2:
            out.setdefault(str(point.get("label") or "all"), []).append(values)
    return out
