"""The measured part of a card: families of measurements, their plots against the limits, and their tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from audit.cards import blocks
from audit.cards.blocks import Block, curve, intervals, paragraph, section, table

FAMILIES = (
    ("privacy", "Privacy: what the model gives away"),
    ("fairness", "Fairness: groups compared"),
    ("quality", "Quality against the base model"),
    ("overfitting", "Overfitting"),
)
MAX_PLOTTED = 14


def sections(known: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One section a family; a family without measurements says so."""
    measurements = known.get("audit", {}).get("measurements", [])
    gates = {(g.get("measurement")): g for g in _gates(known)}
    out = []
    for prefix, title in FAMILIES:
        mine = [m for m in measurements if m.get("name", "").startswith(f"{prefix}.")]
        if not mine:
            reason = "not applicable to this task" if prefix == "fairness" and not _is_decision(known) else blocks.GAP
            out.append(section(prefix, title, paragraph(f"No measurement: {reason}.")))
            continue
        rows = [_row(m, gates.get(key(m))) for m in mine]
        parts: list[Block] = []
        judged = [m for m in mine if key(m) in gates and m.get("value") is not None][:MAX_PLOTTED]
        if judged:
            parts.append(intervals("Estimate, interval and limit", "", [_plotted(m, gates[key(m)]) for m in judged]))
        groups = [m for m in mine if m.get("name") == "fairness.selection_rate" and m.get("value") is not None]
        if groups:
            parts.append(intervals("Selection rate by group", "", [_plotted(m, None) for m in groups[:MAX_PLOTTED]]))
        parts.append(
            table(
                ("Measurement", "Value", "Interval", "n", "Control", "Limit", "Method"),
                (25, 9, 16, 7, 13, 10, 20),
                rows,
            )
        )
        parts += _series(known, prefix)
        out.append(section(prefix, title, *parts))
    return out


def loss_curve(known: Mapping[str, Any]) -> Block | None:
    """The training curve, from the audit's series or the worker's claim."""
    for series in known.get("audit", {}).get("series", []):
        if series.get("name") == "loss_curve":
            return _curve(series)
    return None


def key(m: Mapping[str, Any]) -> str:
    """How limits name a measurement."""
    return f"{m['name']}[{m['slice']}]" if m.get("slice") else str(m.get("name"))


def label(m: Mapping[str, Any]) -> str:
    """How people read a measurement's name."""
    name = str(m.get("name", "")).partition(".")[2].replace("_", " ")
    return f"{name} [{m['slice']}]" if m.get("slice") else name


def _gates(known: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(known.get("decision", {}).get("audit_plan", {}).get("gates", []))


def _is_decision(known: Mapping[str, Any]) -> bool:
    return "DECISION" in str(known.get("dataset", {}).get("format", ""))


def _row(m: Mapping[str, Any], gate: Mapping[str, Any] | None) -> list[Any]:
    first = (m.get("intervals") or [{}])[0]
    limit = " "
    if gate is not None:
        sign = "≤" if gate.get("side") == "LIMIT_SIDE_AT_MOST" else "≥"
        limit = f"{sign} {blocks.number(gate.get('limit', 0.0))}"
    control = " "
    if m.get("control") is not None:
        control = f"{blocks.number(m['control'])} ({m.get('control_kind', 'control')})"
    return [
        label(m),
        blocks.number(m.get("value")) if not m.get("unavailable") else "none",
        _interval(first),
        m.get("n"),
        control,
        limit,
        m.get("method") or m.get("unavailable"),
    ]


def _interval(first: Mapping[str, Any]) -> str:
    if "confidence" not in first:
        return " "
    ends = [blocks.number(first[e]) if first.get(e) is not None else "–" for e in ("lower", "upper")]
    return f"{ends[0]} to {ends[1]} ({100 * float(first['confidence']):.4g} %)"


def _plotted(m: Mapping[str, Any], gate: Mapping[str, Any] | None) -> dict[str, Any]:
    first = (m.get("intervals") or [{}])[0]
    out: dict[str, Any] = {"label": label(m), "value": m["value"], "n": m.get("n")}
    out |= {e: first[e] for e in ("lower", "upper") if first.get(e) is not None}
    if gate is not None:
        out |= {"limit": gate.get("limit", 0.0), "side": gate.get("side")}
    return out


def _series(known: Mapping[str, Any], prefix: str) -> list[Block]:
    wanted = {"privacy": "exposure", "quality": "score", "overfitting": "loss_by", "fairness": "calibration"}[prefix]
    found = [s for s in known.get("audit", {}).get("series", []) if str(s.get("name", "")).startswith(wanted)]
    return [_curve(s) for s in found[:2] if len(s.get("axes", [])) == 2]


def _curve(series: Mapping[str, Any]) -> Block:
    lines: dict[str, list[list[float]]] = {}
    for point in series.get("points", []):
        lines.setdefault(point.get("label", ""), []).append(list(point.get("values", [])))
    title = str(series.get("name", "")).replace("_", " ").capitalize()
    return curve(title, series.get("axes", []), lines)
