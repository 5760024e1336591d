"""Limits: the numbers and lists that an institution chooses, apart from the logic that reads them.

A limit is never law. Its status is always ``internal``, its reason is written beside it, and it is printed with every
outcome that used it. A limit may have one value for each audit profile; a rule then sees the value of the profile
asked for.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from policies.template import number
from policies.yamlsource import Document, Section

PROFILES = ("quick", "default", "strict")
UNITS = (
    "ratio", "nats", "bits", "rows", "tokens", "days", "epsilon", "usd_micros", "seconds", "count", "repeats",
    "probability", "names", "roles",
)  # fmt: skip


@dataclass(frozen=True)
class Limit:
    """One limit.

    Attributes:
        name: as rules write it after ``limits.``.
        values: its value by profile; the same object three times when it does not depend on the profile.
        kind: its CEL type.
        unit: what it counts.
        why: where it comes from; printed, so that nobody takes it for law.
        by_profile: the file gave one value a profile.
    """

    name: str
    values: Mapping[str, Any]
    kind: str
    unit: str
    why: str
    by_profile: bool

    def value(self, profile: str) -> Any:
        """Value for a profile; an unknown profile gets the strictest."""
        return self.values.get(profile, self.values["strict"])

    def text(self) -> str:
        """As people read it, with its unit."""
        if self.by_profile:
            body = ", ".join(f"{profile}: {_show(self.values[profile])}" for profile in PROFILES)
        else:
            body = _show(self.values["strict"])
        return f"{body} ({self.unit})"


@dataclass(frozen=True)
class Limits:
    """All limits of a pack, by name."""

    by_name: Mapping[str, Limit]
    _bound: dict[str, dict[str, Any]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def variables(self) -> dict[str, str]:
        """CEL declarations: ``limits.<name>`` with its type."""
        return {f"limits.{name}": limit.kind for name, limit in self.by_name.items()}

    def bindings(self, profile: str) -> dict[str, Any]:
        """Values for one profile, by CEL name; not to be changed."""
        known = profile if profile in PROFILES else "strict"
        if known not in self._bound:
            self._bound[known] = {f"limits.{name}": limit.value(known) for name, limit in self.by_name.items()}
        return self._bound[known]

    def number(self, name: str, profile: str) -> float:
        """A numeric limit's value."""
        return float(self.by_name[name].value(profile))


def parse(document: Document) -> Limits:
    """Reads a limits file.

    Raises:
        InvalidInputError: ``PACK_*`` with file, line and column.
    """
    top = Section(document, ())
    top.only(("apiVersion", "kind", "limits"))
    top.choice("apiVersion", ("policies.assay.dev/v1",))
    top.choice("kind", ("Limits",))
    table = top.child("limits")
    return Limits({name: _limit(name, Section(document, (*table.where, name))) for name in table.data})


def plain(value: Any) -> Any:
    """Parsed YAML as plain JSON: days as text. What digests are computed from."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value.isoformat() if isinstance(value, dt.date) else value


def _limit(name: str, section: Section) -> Limit:
    section.only(("value", "unit", "why", "status"), ("by",))
    if not name.replace("_", "").isalnum() or not name[0].isalpha() or name != name.lower():
        raise section.error("", "PACK_SCHEMA", f"{name!r} is not a lower_case name")
    section.choice("status", ("internal",))
    by_profile = "by" in section.data and section.choice("by", ("profile",)) == "profile"
    value = section.data["value"]
    if by_profile:
        section.child("value").only(PROFILES)
        values = {profile: value[profile] for profile in PROFILES}
    else:
        values = dict.fromkeys(PROFILES, value)
    kinds = {_kind(item) for item in values.values()}
    if len(kinds) != 1 or "" in kinds:
        message = f"limit {name!r} must be a number, a word, a list of words, or a mapping of words to one kind"
        raise section.error("value", "PACK_LIMIT_TYPE", message)
    return Limit(name, values, kinds.pop(), section.choice("unit", UNITS), section.text("why"), by_profile)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if abs(value) < 2**53 else ""
    if isinstance(value, float):
        return "double" if math.isfinite(value) else ""
    if isinstance(value, str):
        return "string"
    if isinstance(value, list):
        return "list<string>" if all(isinstance(item, str) for item in value) else ""
    if isinstance(value, dict) and value:
        kinds = {_kind(item) for item in value.values()}
        inner = kinds.pop() if len(kinds) == 1 else ""
        return f"map<string, {inner}>" if inner in ("int", "double", "string", "bool") else ""
    return ""


def _show(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_show(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(value) or "none"
    if isinstance(value, float):
        return number(value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
