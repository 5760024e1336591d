"""Loads a pack: ``rules.yaml``, ``limits.yaml`` and ``tests.yaml`` in one folder.

The shape is that of Kubernetes' ValidatingAdmissionPolicy: expressions apart from parameters, failure means deny.
Everything that can be wrong with a rule is found here and not when somebody's request is judged: unknown keys,
repeated ids, days that cannot be, a missing citation, a typo in a field, a number compared with another type of
number, a limit that nobody set, a read that would silently be true.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.errors import FieldViolation, InvalidInputError
from policies import bundle, limits, yamlsource
from policies.bundle import Sheet, Text
from policies.cel import Environment
from policies.limits import Limits
from policies.reading import DEFAULTS, INHERITED, RuleReader
from policies.rule import GATE, INTAKE, RELEASE, Pack, Part, Rule
from policies.yamlsource import Document, Section

RULES, LIMITS, TESTS = "rules.yaml", "limits.yaml", "tests.yaml"
PACKS = Path(__file__).parent / "packs"
"""The packaged bundle."""
BASELINE = PACKS / "baseline"


def load(folder: Path | None = None) -> Pack:
    """Loads and checks a bundle or a single pack, without running its tests.

    Args:
        folder: with a ``bundle.yaml``, a bundle; else one pack, together with the one that it ``extends``. None for
            the packaged bundle.

    Raises:
        InvalidInputError: the first fault, with every other one in ``violations``; ``metadata`` has file, line,
            column, rule.
    """
    pack, faults = collect(folder or PACKS)
    if pack is None or faults:
        first = faults[0]
        violations = [FieldViolation(_where(fault), fault.message) for fault in faults]
        raise InvalidInputError(
            first.reason, first.message, remedy=first.remedy, violations=violations, metadata=first.metadata
        )
    return pack


def collect(folder: Path) -> tuple[Pack | None, tuple[InvalidInputError, ...]]:
    """Loads a bundle and returns every fault found; it is None when there is any."""
    faults: list[InvalidInputError] = []
    try:
        sheet = bundle.read(folder)
        sources = [_Source.read(part, sheet.label(part)) for part in sheet.folders]
        chosen = _merge([source.limits for source in sources], [source.limits_file for source in sources])
    except InvalidInputError as error:
        return None, (error,)
    intake = Environment.of({**INTAKE, **chosen.variables()})
    release = Environment.of({**RELEASE, **chosen.variables()})
    gate = Environment.of({**GATE, **chosen.variables()})
    reader = RuleReader(chosen, intake, release, gate)
    rules: list[Rule] = []
    for source in sources:
        for section in source.sections:
            try:
                rule = reader.read(section, source.part.name, source.defaults)
                if any(other.id == rule.id for other in rules):
                    named = Section(section.document, section.where, rule.id)
                    raise named.error("id", "PACK_DUPLICATE_ID", f"rule {rule.id} is written twice")
                rules.append(rule)
            except InvalidInputError as error:
                faults.append(error)
    if not faults:
        faults += _limits_at_fault(rules, sources)
    if faults:
        return None, tuple(faults)
    rules_text, limits_text = _texts(sheet, sources)
    first = sheet.named(sources[-1].part)
    pack = Pack(
        name=first.name,
        version=first.version,
        owner=first.owner,
        folder=folder,
        parts=tuple(source.part for source in sources),
        units=sheet.units,
        rules=tuple(rules),
        limits=chosen,
        bundle_sha256=rules_text.sha256,
        limits_sha256=limits_text.sha256,
        intake=intake,
        release=release,
        gate=gate,
    )
    return pack, ()


def texts(folder: Path) -> tuple[Text, Text]:
    """What the digests of a bundle's rules and of its limits are of; nothing is compiled, so that old bundles are read.

    Raises:
        InvalidInputError: ``PACK_*`` when a file cannot be read or has another shape.
    """
    sheet = bundle.read(folder)
    sources = [_Source.read(part, sheet.label(part)) for part in sheet.folders]
    for source in sources:
        for section in source.sections:
            # The digest is of rules that say all by themselves, as they are asked.
            section.fill(source.defaults, DEFAULTS)
    return _texts(sheet, sources)


def _texts(sheet: Sheet, sources: Sequence[_Source]) -> tuple[Text, Text]:
    rules = sheet.rules_text(source.rules_file for source in sources)
    return rules, sheet.limits_text(source.limits_file for source in sources)


@dataclass(frozen=True)
class _Source:
    """The files of one pack, read and not yet compiled."""

    part: Part
    rules_file: Document
    limits_file: Document
    limits: Limits
    defaults: Mapping[str, Any]
    sections: list[Section]

    @classmethod
    def read(cls, folder: Path, label: str) -> _Source:
        rules_file = yamlsource.read(folder / RULES, label)
        limits_file = yamlsource.read(folder / LIMITS, label)
        top = Section(rules_file, ())
        top.only(("apiVersion", "kind", "metadata", "rules"), ("defaults", "not_asked"))
        top.choice("apiVersion", ("policies.assay.dev/v1",))
        top.choice("kind", ("PolicyPack",))
        metadata = top.child("metadata")
        metadata.only(("name", "version", "owner", "description"), ("extends",))
        named = (metadata.text("name"), metadata.text("version"), metadata.text("owner"))
        part = Part(*named, folder, top.texts("not_asked"))
        if not (folder / TESTS).is_file():
            raise top.error("", "PACK_WITHOUT_TESTS", f"{TESTS} is missing: a pack without tests does not load")
        defaults = top.child("defaults") if "defaults" in top.data else None
        if defaults is not None:
            defaults.only((), INHERITED)
        given = dict(defaults.data) if defaults is not None else {}
        return cls(part, rules_file, limits_file, limits.parse(limits_file), given, top.items("rules"))


def _merge(all_limits: list[Limits], files: list[Document]) -> Limits:
    merged: dict[str, limits.Limit] = {}
    for found, file in zip(all_limits, files, strict=True):
        for name, limit in found.by_name.items():
            if name in merged:
                message = f"limit {name!r} is set by another pack of the bundle already"
                raise file.error(("limits", name), "PACK_DUPLICATE_LIMIT", message)
            merged[name] = limit
    return Limits(merged)


def _limits_at_fault(rules: list[Rule], sources: list[_Source]) -> list[InvalidInputError]:
    """Limits that the planner needs and nobody set, and limits that nobody reads."""
    used = {name for rule in rules for name in rule.limit_names()} | ENGINE_LIMITS | LATER_LIMITS
    known = {name for source in sources for name in source.limits.by_name}
    faults = [
        sources[0].limits_file.error(
            ("limits",), "PACK_UNKNOWN_LIMIT", f"limit {missing!r} is missing: the planner reads it"
        )
        for missing in sorted(ENGINE_LIMITS - known)
    ]
    for source in sources:
        for unused in sorted(set(source.limits.by_name) - used):
            message = f"no rule reads limit {unused!r}"
            faults.append(source.limits_file.error(("limits", unused), "PACK_UNUSED_LIMIT", message))
    return faults


ENGINE_LIMITS = frozenset({
    "alpha", "power", "canary_assurance", "canaries_repeated", "canary_repeats", "sample_generations",
    "sample_generation_tokens", "sample_pii_spans", "sample_verbatim_rows", "sample_bootstrap", "sample_test_rows",
    "sample_train_rows", "sample_counterfactual_rows", "sample_counterfactual_generations", "sample_reason_rows",
    "sample_evaluation_items", "sample_deep_rows", "sample_inference_spans", "sample_inference_candidates",
    "sample_association_people",
    "sample_exposure_canaries", "sample_exposure_candidates", "batch_tokens", "generation_rows", "audit_seconds",
    "direct_identifiers", "appeal_days", "appeal_answer_days", "quorum_roles", "replay_tolerance",
})  # fmt: skip
"""Limits that planner and gateway read themselves; every bundle states them."""
LATER_LIMITS = frozenset({"sample_permutations"})
"""Such as bundles of before lack: they are still loaded, for a kit of theirs to be judged again."""


def _where(fault: InvalidInputError) -> str:
    data = fault.metadata
    return f"{data.get('file', '')}:{data.get('line', '')}:{data.get('column', '')}"


def today() -> dt.date:
    """The day in UTC; what rules are judged by when nobody names a day."""
    return dt.datetime.now(dt.UTC).date()
