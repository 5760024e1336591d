"""Loads a pack: ``rules.yaml``, ``limits.yaml`` and ``tests.yaml`` in one folder.

The shape is that of Kubernetes' ValidatingAdmissionPolicy: expressions apart from parameters, failure means deny.
Everything that can be wrong with a rule is found here and not when somebody's request is judged: unknown keys,
repeated ids, days that cannot be, a missing citation, a typo in a field, a number compared with another type of
number, a limit that nobody set, a read that would silently be true.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from assay import canonical, digests
from assay.errors import FieldViolation, InvalidInputError
from assay.v1 import identity_pb2
from policies import guards, limits, yamlsource
from policies.cel import CompileError, Environment, Expression
from policies.limits import Limits
from policies.rule import (
    COUNTS,
    GATE,
    INTAKE,
    INTAKE_MESSAGE,
    RELEASE,
    SAMPLES,
    STAGES,
    STATUSES,
    Gate,
    Pack,
    Rule,
    Sample,
)
from policies.template import Template
from policies.yamlsource import Document, Section

RULES, LIMITS, TESTS = "rules.yaml", "limits.yaml", "tests.yaml"
BASELINE = Path(__file__).parent / "packs" / "baseline"
ROLES = {name.removeprefix("ROLE_").lower(): name for name in identity_pb2.Role.keys() if name != "ROLE_UNSPECIFIED"}

_ID = re.compile(r"^[A-Z0-9][A-Z0-9.-]{0,63}$")
_REQUIRED = ("id", "title", "stage", "status", "citation", "effective_from", "message", "fix", "why")
_OPTIONAL = (
    *("caveat", "effective_to", "applies", "expression", "gate", "needs", "appealable", "waivable_by"),
    *("rows", "row_count"),
)
_T = TypeVar("_T", Expression, Template)


def load(folder: Path = BASELINE) -> Pack:
    """Loads and checks a pack, without running its tests.

    Raises:
        InvalidInputError: the first fault, with every other one in ``violations``; ``metadata`` has file, line,
            column, rule.
    """
    pack, faults = collect(folder)
    if pack is None or faults:
        first = faults[0]
        violations = [FieldViolation(_where(fault), fault.message) for fault in faults]
        raise InvalidInputError(
            first.reason, first.message, remedy=first.remedy, violations=violations, metadata=first.metadata
        )
    return pack


def collect(folder: Path) -> tuple[Pack | None, tuple[InvalidInputError, ...]]:
    """Loads a pack and returns every fault found; the pack is None when there is any."""
    faults: list[InvalidInputError] = []
    try:
        rules_file = yamlsource.read(folder / RULES)
        limits_file = yamlsource.read(folder / LIMITS)
        chosen = limits.parse(limits_file)
        top = _top(rules_file)
        metadata = top.child("metadata")
        metadata.only(("name", "version", "owner", "description"))
        name, version, owner = metadata.text("name"), metadata.text("version"), metadata.text("owner")
        if not (folder / TESTS).is_file():
            raise top.error("", "PACK_WITHOUT_TESTS", f"{TESTS} is missing: a pack without tests does not load")
        sections = top.items("rules")
    except InvalidInputError as error:
        return None, (error,)
    intake = Environment.of({**INTAKE, **chosen.variables()})
    release = Environment.of({**RELEASE, **chosen.variables()})
    gate = Environment.of({**GATE, **chosen.variables()})
    reader = _RuleReader(chosen, {"intake": intake, "release": release}, gate)
    rules: list[Rule] = []
    for section in sections:
        try:
            rule = reader.read(section)
            if any(other.id == rule.id for other in rules):
                named = Section(section.document, section.where, rule.id)
                raise named.error("id", "PACK_DUPLICATE_ID", f"rule {rule.id} is written twice")
            rules.append(rule)
        except InvalidInputError as error:
            faults.append(error)
    used = {name for rule in rules for name in rule.limit_names()} | ENGINE_LIMITS
    for missing in sorted(ENGINE_LIMITS - set(chosen.by_name)):
        message = f"limit {missing!r} is missing: the planner reads it"
        faults.append(limits_file.error(("limits",), "PACK_UNKNOWN_LIMIT", message))
    for unused in sorted(set(chosen.by_name) - used):
        if not faults:
            faults.append(limits_file.error(("limits", unused), "PACK_UNUSED_LIMIT", f"no rule reads limit {unused!r}"))
    if faults:
        return None, tuple(faults)
    digest = {
        file.name: digests.sha256_bytes(canonical.encode(canonical.float_free(limits.plain(file.data))))
        for file in (rules_file, limits_file)
    }
    pack = Pack(
        name, version, owner, folder, tuple(rules), chosen, digest[RULES], digest[LIMITS], intake, release, gate
    )
    return pack, ()


ENGINE_LIMITS = frozenset({
    "alpha", "power", "canary_assurance", "canaries_repeated", "canary_repeats", "sample_generations",
    "sample_generation_tokens", "sample_pii_spans", "sample_verbatim_rows", "sample_bootstrap", "sample_test_rows",
    "sample_train_rows", "sample_counterfactual_rows", "sample_counterfactual_generations", "sample_reason_rows",
    "sample_evaluation_items", "sample_inference_spans", "sample_inference_candidates", "sample_association_people",
    "sample_exposure_canaries", "sample_exposure_candidates", "batch_tokens", "generation_rows", "audit_seconds",
    "direct_identifiers", "quorum_roles",
})  # fmt: skip
"""Limits that the planner reads itself; every pack states them."""


class _RuleReader:
    """Turns one mapping into one compiled rule."""

    def __init__(self, chosen: Limits, environments: Mapping[str, Environment], gate: Environment) -> None:
        self._limits = chosen
        self._environments = environments
        self._gate = gate

    def read(self, section: Section) -> Rule:
        """Reads, compiles and checks.

        Raises:
            InvalidInputError: ``PACK_*`` at the faulty key.
        """
        rule_id = str(section.data.get("id", ""))
        section = Section(section.document, section.where, rule_id)
        section.only(_REQUIRED, _OPTIONAL)
        if not _ID.match(rule_id):
            raise section.error("id", "PACK_SCHEMA", f"{rule_id!r} is not an id such as BASE-PURPOSE")
        stage = section.choice("stage", STAGES)
        gate = self._read_gate(section) if "gate" in section.data else None
        if (gate is None) != ("expression" in section.data) or (gate is not None and stage != "release"):
            message = "a rule has either an expression, or a gate of the release stage"
            raise section.error("", "PACK_SCHEMA", message)
        # A gate is planned at intake, so its condition reads intake's variables; its texts read the interval.
        asked = self._environments["intake" if gate is not None else stage]
        texts = self._gate if gate is not None else self._environments[stage]
        first, last = section.date("effective_from"), section.date("effective_to")
        if first is None or (last is not None and last < first):
            message = "a rule takes effect on a day, and does not end before it"
            raise section.error("effective_from", "PACK_DATE", message)
        check = self._gate.compile(gate.expression) if gate is not None else self._boolean(section, "expression", asked)
        return Rule(
            id=rule_id,
            title=section.text("title"),
            stage=stage,
            status=section.choice("status", STATUSES),
            citation=section.text("citation"),
            caveat=section.text("caveat", "", empty=True),
            effective_from=first,
            effective_to=last,
            applies=self._boolean(section, "applies", asked),
            check=check,
            gate=gate,
            message=self._text(section, "message", texts),
            fix=self._text(section, "fix", texts),
            needs=self._needs(section, stage),
            appealable=section.flag("appealable", True),
            waivable_by=self._role(section),
            rows=self._typed(section, "rows", asked, "LIST<INT>"),
            row_count=self._typed(section, "row_count", asked, "INT"),
            why=section.text("why"),
        )

    def _read_gate(self, section: Section) -> Gate:
        gate = section.child("gate")
        gate.only(("measurement", "side", "limit", "sample"), ("per",))
        sample = gate.child("sample")
        method = sample.choice("method", SAMPLES)
        sample.only(("method", "counts", *SAMPLES[method]))
        names = {key: self._number(sample, key) for key in SAMPLES[method]}
        return Gate(
            measurement=gate.text("measurement"),
            at_most=gate.choice("side", ("at_most", "at_least")) == "at_most",
            limit=self._number(gate, "limit"),
            sample=Sample(method, sample.choice("counts", COUNTS), names),
            per_attribute="per" in gate.data and gate.choice("per", ("sensitive_attribute",)) != "",
        )

    def _number(self, section: Section, key: str) -> str:
        name = section.text(key)
        known = self._limits.by_name.get(name)
        if known is None:
            raise section.error(key, "PACK_UNKNOWN_LIMIT", f"no limit {name!r} in {LIMITS}")
        if known.kind not in ("int", "double"):
            raise section.error(key, "PACK_LIMIT_TYPE", f"limit {name!r} is a {known.kind}, not a number")
        return name

    def _boolean(self, section: Section, key: str, environment: Environment) -> Expression:
        if key not in section.data:
            return environment.compile("true")
        expression = self._compiled(section, key, environment.compile)
        if expression.kind != "BOOL":
            raise section.error(key, "PACK_NOT_BOOLEAN", f"must be true or false, but is a {expression.kind}")
        self._guarded(section, key, expression)
        return expression

    def _typed(self, section: Section, key: str, environment: Environment, kind: str) -> Expression | None:
        if key not in section.data:
            return None
        expression = self._compiled(section, key, environment.compile)
        if expression.kind != kind:
            raise section.error(key, "PACK_TYPE", f"must be a {kind}, but is a {expression.kind}")
        self._guarded(section, key, expression)
        return expression

    def _text(self, section: Section, key: str, environment: Environment) -> Template:
        return self._compiled(section, key, lambda source: Template.compile(source, environment))

    def _compiled(self, section: Section, key: str, compile_: Callable[[str], _T]) -> _T:
        try:
            return compile_(section.text(key))
        except CompileError as error:
            unknown = "undeclared reference to 'limits." in str(error)
            reason = "PACK_UNKNOWN_LIMIT" if unknown else "PACK_COMPILE"
            raise section.error(key, reason, str(error), (error.line, error.column)) from error

    def _guarded(self, section: Section, key: str, expression: Expression) -> None:
        for finding in guards.check(expression.tree):
            before = expression.source[: finding.offset]
            place = (before.count("\n") + 1, len(before) - before.rfind("\n"))
            raise section.error(key, "PACK_UNGUARDED", finding.message, place)

    def _needs(self, section: Section, stage: str) -> tuple[str, ...]:
        names = section.texts("needs")
        for name in names if stage == "intake" else ():
            if not _is_path(name, INTAKE_MESSAGE):
                raise section.error("needs", "PACK_UNKNOWN_FIELD", f"{name!r} is not a field of the intake input")
        return names

    def _role(self, section: Section) -> str:
        word = section.text("waivable_by", "", empty=True)
        if word and word not in ROLES:
            raise section.error("waivable_by", "PACK_SCHEMA", f"{word!r} is not a role; known are {', '.join(ROLES)}")
        return ROLES.get(word, "")


def _top(document: Document) -> Section:
    top = Section(document, ())
    top.only(("apiVersion", "kind", "metadata", "rules"))
    top.choice("apiVersion", ("policies.assay.dev/v1",))
    top.choice("kind", ("PolicyPack",))
    return top


def _is_path(name: str, message: Any) -> bool:
    steps = name.split(".")
    for i, step in enumerate(steps):
        field = message.fields_by_name.get(step)
        if field is None:
            return False
        if i + 1 < len(steps):
            if field.message_type is None or field.is_repeated:
                return False
            message = field.message_type
    return True


def _where(fault: InvalidInputError) -> str:
    data = fault.metadata
    return f"{data.get('file', '')}:{data.get('line', '')}:{data.get('column', '')}"


def today() -> dt.date:
    """The day in UTC; what rules are judged by when nobody names a day."""
    return dt.datetime.now(dt.UTC).date()
