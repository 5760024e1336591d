"""What differs between two bundles: rules, limits, and what units chose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format

from policies.cel import Expression
from policies.rule import Pack, Rule


@dataclass(frozen=True)
class Difference:
    """One difference; ``before`` or ``after`` is empty where there was, or is, nothing."""

    kind: str
    name: str
    what: str
    before: str
    after: str


def diff(old: Pack, new: Pack) -> tuple[Difference, ...]:
    """Every difference that can change an answer or what is printed with it."""
    rules = _compare("rule", {rule.id: _rule(rule) for rule in old.rules}, {rule.id: _rule(rule) for rule in new.rules})
    limits = _compare("limit", _limits(old), _limits(new))
    named = {*old.units, *new.units}
    units = _compare("unit", _units(old, named), _units(new, named))
    return (*rules, *limits, *units)


def _compare(kind: str, old: Mapping[str, Mapping[str, str]], new: Mapping[str, Mapping[str, str]]) -> list[Difference]:
    out = []
    for name in sorted({*old, *new}):
        if name not in old or name not in new:
            word = "added" if name not in old else "removed"
            out.append(Difference(kind, name, word, "", ""))
            continue
        for key in sorted({*old[name], *new[name]}):
            before, after = old[name].get(key, ""), new[name].get(key, "")
            if before != after:
                out.append(Difference(kind, name, key, before, after))
    return out


def _rule(rule: Rule) -> dict[str, str]:
    shown: dict[str, Any] = json_format.MessageToDict(rule.message_type(), preserving_proto_field_name=True)
    shown |= {"message": rule.message.source, "fix": rule.fix.source, "why": rule.why, "needs": ", ".join(rule.needs)}
    shown |= {"rows": _source(rule.rows), "row_count": _source(rule.row_count)}
    shown["repair"] = "; ".join(" ".join(filter(None, (r.move, r.field, _source(r.to)))) for r in rule.repairs)
    if rule.gate is not None:
        gate, sample = rule.gate, rule.gate.sample
        side = "at most" if gate.at_most else "at least"
        shown["gate"] = f"{gate.measurement} {side} limits.{gate.limit}{' by attribute' if gate.per_attribute else ''}"
        assumed = ", ".join(f"{name} limits.{limit}" for name, limit in sorted(sample.assumptions.items()))
        shown["sample"] = f"{sample.method} of {sample.counts}: {assumed}"
    return {key: str(value) for key, value in shown.items()}


def _source(expression: Expression | None) -> str:
    return expression.source if expression is not None else ""


def _limits(pack: Pack) -> dict[str, dict[str, str]]:
    return {name: {"value": limit.text(), "why": limit.why} for name, limit in pack.limits.by_name.items()}


def _units(pack: Pack, named: Iterable[str]) -> dict[str, dict[str, str]]:
    """What each unit chose; one that a bundle does not name chose none."""
    return {unit: {"packs": ", ".join(pack.units.get(unit, ()))} for unit in named}
