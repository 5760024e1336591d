"""Reads one rule of a pack: its keys, its days, its expressions, and what stands between it and a silent yes."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from assay.v1 import identity_pb2
from policies import artefacts, guards
from policies.cel import CompileError, Environment, Expression
from policies.limits import Limits
from policies.rule import (
    AT_INTAKE,
    COUNTS,
    FROM_ROWS,
    INTAKE_MESSAGE,
    MOVES,
    NOT_YET,
    SAMPLES,
    SEVERITIES,
    STAGES,
    STATUSES,
    Gate,
    Repair,
    Rule,
    Sample,
)
from policies.template import Template
from policies.yamlsource import Section

ROLES = {name.removeprefix("ROLE_").lower(): name for name in identity_pb2.Role.keys() if name != "ROLE_UNSPECIFIED"}

_ID = re.compile(r"^[A-Z0-9][A-Z0-9.-]{0,63}$")
_PLACE = re.compile(r"^[A-Z]{2}(-[A-Z0-9]{1,3})?$")
_REQUIRED = ("id", "title", "stage", "message", "fix", "why")
INHERITED = (
    *("status", "severity", "instrument", "jurisdictions", "citation", "effective_from", "unconfirmed", "caveat"),
    *("waivable_by", "waiver_days", "appealable"),
)
"""Keys that a pack may state once, under ``defaults``, for the rules that do not state them."""
DEFAULTS = ("defaults",)
"""Where in a rules file they stand."""
_DEMANDED = ("status", "severity", "instrument", "jurisdictions", "citation", "effective_from")
_OPTIONAL = (
    *("reference", "effective_to", "applies", "expression", "gate", "needs", "artefacts", "repair"),
    *("rows", "row_count"),
)
_INTERNAL = "Limits that it reads are internal choices, not law: "
_T = TypeVar("_T", Expression, Template)


class RuleReader:
    """Turns one mapping into one compiled rule."""

    def __init__(self, chosen: Limits, intake: Environment, release: Environment, gate: Environment) -> None:
        self._limits = chosen
        self._environments = {stage: intake if stage in AT_INTAKE else release for stage in STAGES}
        self._gate = gate

    def read(self, section: Section, pack: str, defaults: Mapping[str, Any]) -> Rule:
        """Reads, compiles and checks.

        Args:
            section: the rule.
            pack: name of the pack that it stands in.
            defaults: what the pack states once for all its rules.

        Raises:
            InvalidInputError: ``PACK_*`` at the faulty key.
        """
        rule_id = str(section.data.get("id", ""))
        section = Section(section.document, section.where, rule_id)
        section.fill(defaults, DEFAULTS)
        section.only((*_REQUIRED, *_DEMANDED), (*INHERITED, *_OPTIONAL))
        if not _ID.match(rule_id):
            raise section.error("id", "PACK_SCHEMA", f"{rule_id!r} is not an id such as BASE-PURPOSE")
        stage = section.choice("stage", STAGES)
        gate = self._read_gate(section) if "gate" in section.data else None
        if (gate is None) != ("expression" in section.data) or (gate is not None and stage != "pre_deploy"):
            message = "a rule has either an expression, or a gate of the pre_deploy stage"
            raise section.error("", "PACK_SCHEMA", message)
        # A gate is planned at intake, so its condition reads intake's variables; its texts read the interval.
        asked = self._environments["pre_train" if gate is not None else stage]
        texts = self._gate if gate is not None else self._environments[stage]
        first, last = section.date("effective_from"), section.date("effective_to")
        if first is None or (last is not None and last < first):
            message = "a rule takes effect on a day, and does not end before it"
            raise section.error("effective_from", "PACK_DATE", message)
        check = self._gate.compile(gate.expression) if gate is not None else self._boolean(section, "expression", asked)
        severity = section.choice("severity", SEVERITIES)
        if gate is not None and (severity != "deny" or "artefacts" in section.data):
            raise section.error("", "PACK_SCHEMA", "a gate denies, and asks for a measurement and no artefact")
        rule = Rule(
            id=rule_id,
            pack=pack,
            title=section.text("title"),
            stage=stage,
            status=section.choice("status", STATUSES),
            instrument=section.text("instrument"),
            reference=section.text("reference", "", empty=True),
            jurisdictions=self._places(section),
            citation=section.text("citation"),
            caveat="",
            severity=severity,
            effective_from=first,
            effective_to=last,
            applies=self._boolean(section, "applies", asked),
            check=check,
            gate=gate,
            message=self._text(section, "message", texts),
            fix=self._text(section, "fix", texts),
            needs=self._needs(section, stage),
            artefacts=self._artefacts(section),
            appealable=section.flag("appealable", True),
            waivable_by=self._role(section),
            waiver_days=self._days(section),
            repairs=self._repairs(section),
            rows=self._typed(section, "rows", asked, "LIST<INT>"),
            row_count=self._typed(section, "row_count", asked, "INT"),
            why=section.text("why"),
        )
        self._in_time(section, rule)
        return dataclasses.replace(rule, caveat=self._doubts(section, rule))

    def _doubts(self, section: Section, rule: Rule) -> str:
        """What a reader must know before taking the rule for law; printed wherever the rule is."""
        unconfirmed = section.text("unconfirmed", "", empty=True).strip()
        if rule.status != "internal" and not rule.reference:
            message = "a binding or guiding rule names its article or section under 'reference'"
            raise section.error("", "PACK_CITATION", message)
        if rule.status != "internal" and not unconfirmed and "confirmed in the official text" not in rule.citation:
            message = (
                "say under 'unconfirmed' what was not checked in the official text, or write in 'citation' that it was "
                "confirmed in the official text, and when"
            )
            raise section.error("", "PACK_UNCONFIRMED", message)
        own = ", ".join(rule.limit_names())
        parts = [
            f"Unconfirmed: {unconfirmed}" if unconfirmed else "",
            section.text("caveat", "", empty=True).strip(),
            f"{_INTERNAL}{own}." if own and rule.status != "internal" else "",
        ]
        return " ".join(part for part in parts if part)

    def _in_time(self, section: Section, rule: Rule) -> None:
        """Refuses a rule that reads what does not exist yet when it is asked."""
        expressions = {"applies": rule.applies, "expression": rule.check, "rows": rule.rows}
        for key, expression in expressions.items():
            if expression is None or rule.gate is not None:
                continue
            early = {name.split(".")[0] for name in expression.names()} & NOT_YET[rule.stage]
            fields = {str(node.value) for node in expression.tree.walk() if node.kind == "select"}
            early |= fields & FROM_ROWS if rule.stage == "intake" else set()
            if early:
                word = ", ".join(sorted(early))
                raise section.error(
                    key, "PACK_STAGE", f"a rule of stage {rule.stage} cannot read {word}: not there yet"
                )
        if rule.stage == "intake" and any(need.split(".")[0] in NOT_YET["intake"] for need in rule.needs):
            raise section.error("needs", "PACK_STAGE", "a rule of stage intake cannot need what the rows show")

    def _places(self, section: Section) -> tuple[str, ...]:
        places = section.texts("jurisdictions")
        if not all(place == "ANY" or _PLACE.match(place) for place in places) or not places:
            raise section.error("jurisdictions", "PACK_SCHEMA", "must list places such as EU, US or US-NY, or ANY")
        return places

    def _artefacts(self, section: Section) -> tuple[str, ...]:
        kinds = section.texts("artefacts")
        for kind in kinds:
            if kind not in artefacts.KINDS:
                known = ", ".join(artefacts.KINDS)
                raise section.error("artefacts", "PACK_SCHEMA", f"{kind!r} is no kind of artefact; known are {known}")
        return kinds

    def _days(self, section: Section) -> int:
        days = section.data.get("waiver_days", 0)
        waivable = bool(section.data.get("waivable_by"))
        if not isinstance(days, int) or isinstance(days, bool) or (days > 0) != waivable or not 0 <= days <= 3650:
            message = "a rule that somebody may waive says for how many days, from 1 to 3650; another says nothing"
            raise section.error("waiver_days" if "waiver_days" in section.data else "", "PACK_SCHEMA", message)
        return days

    def _repairs(self, section: Section) -> tuple[Repair, ...]:
        if "repair" not in section.data:
            return ()
        out = []
        for item in section.items("repair", section.rule):
            move = item.choice("move", MOVES)
            item.only(
                (
                    "move",
                    *(("field",) if move in ("set", "clear", "lower", "raise") else ()),
                    *(("to",) if move == "set" else ()),
                )
            )
            field = item.text("field") if "field" in item.data else ""
            if field and not _is_path(field, INTAKE_MESSAGE):
                raise item.error("field", "PACK_UNKNOWN_FIELD", f"{field!r} is not a field of the intake input")
            to = self._compiled(item, "to", self._environments["pre_train"].compile) if "to" in item.data else None
            out.append(Repair(move, field, to))
        return tuple(out)

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
            raise section.error(key, "PACK_UNKNOWN_LIMIT", f"no limit {name!r} in the limits file")
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
        for name in names if stage in AT_INTAKE else ():
            if not _is_path(name, INTAKE_MESSAGE):
                raise section.error("needs", "PACK_UNKNOWN_FIELD", f"{name!r} is not a field of the intake input")
        return names

    def _role(self, section: Section) -> str:
        word = section.text("waivable_by", "", empty=True)
        if word and word not in ROLES:
            raise section.error("waivable_by", "PACK_SCHEMA", f"{word!r} is not a role; known are {', '.join(ROLES)}")
        return ROLES.get(word, "")


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
