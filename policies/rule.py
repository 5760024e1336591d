"""The types of a pack: rules, gates, and the variables that each stage may read."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from assay.v1 import policy_input_pb2, policy_pb2
from policies.cel import Environment, Expression
from policies.limits import Limits
from policies.template import Template

# Importing the stubs puts the message types into the default descriptor pool, which the environments read.
INTAKE_MESSAGE = policy_input_pb2.IntakeInput.DESCRIPTOR

SHARED: Mapping[str, str] = {
    "request": "assay.v1.RequestFacts",
    "datasheet": "assay.v1.Datasheet",
    "task": "string",
    "classification": "string",
    "trials": "int",
    "private": "bool",
    "artefacts": "list<string>",
    "places": "list<string>",
    "unknown_places": "list<string>",
    "uses": "list<string>",
    "domains": "list<string>",
    "decides": "bool",
    "about_people": "bool",
    "high_risk_by": "string",
}
INTAKE: Mapping[str, str] = {
    **SHARED,
    "data": "assay.v1.DataFacts",
    "account": "assay.v1.AccountFacts",
    "base_model": "assay.v1.BaseModelFacts",
    "known.pii_spans": "int",
    "known.pii_rows": "int",
    "known.prompts": "int",
    "known.protected_columns": "list<string>",
    "known.special_category_columns": "list<string>",
    "known.age_columns": "list<string>",
    "needed.test_rows": "int",
    "needed.canaries": "int",
    "needed.canaries_included": "int",
    "needed.pii_spans": "int",
    "needed.generations": "int",
    "needed.group_rows": "int",
}
RELEASE: Mapping[str, str] = {
    **SHARED,
    "plan": "assay.v1.AuditPlan",
    "measurements": "map<string, assay.v1.Measurement>",
    "run": "assay.v1.RunFacts",
    "live": "assay.v1.LiveFacts",
}
GATE: Mapping[str, str] = {
    "gate.value": "double",
    "gate.lower": "double",
    "gate.upper": "double",
    "gate.limit": "double",
    "gate.n": "int",
}
STAGES = {
    "intake": policy_pb2.STAGE_INTAKE,
    "pre_train": policy_pb2.STAGE_PRE_TRAIN,
    "post_train": policy_pb2.STAGE_POST_TRAIN,
    "pre_deploy": policy_pb2.STAGE_PRE_DEPLOY,
    "live": policy_pb2.STAGE_LIVE,
}
AT_INTAKE, AT_RELEASE, AT_LIFE = ("intake", "pre_train"), ("post_train", "pre_deploy"), ("live",)
"""Stages asked by one question: the decision before training, the verdict after the audits, each permit."""
NOT_YET: Mapping[str, frozenset[str]] = {
    "intake": frozenset({"data", "known", "needed", "account"}),
    "pre_train": frozenset(),
    "post_train": frozenset({"measurements", "live"}),
    "pre_deploy": frozenset({"live"}),
    "live": frozenset(),
}
"""Variables that do not exist yet in a stage, though rules asked by the same question may read them."""
ACCOUNT = "account"
"""What training uses up: quotas, money and epsilon."""
USE = frozenset({"places", "unknown_places", "uses", "domains", "decides", "about_people", "high_risk_by"})
"""Variables that say where a model is used and what for (:mod:`policies.uses`)."""
FROM_ROWS = frozenset({"planned_train_tokens", "quote_usd_micros"})
"""Fields of the request that are computed from the rows, so that no ``intake`` rule may read them."""
SEVERITIES = {
    "deny": policy_pb2.SEVERITY_DENY,
    "warn": policy_pb2.SEVERITY_WARN,
    "audit": policy_pb2.SEVERITY_AUDIT,
}
GOOD = (policy_pb2.OUTCOME_PASS, policy_pb2.OUTCOME_NOT_APPLICABLE, policy_pb2.OUTCOME_WARN)
"""Outcomes that do not stand in the way."""

STATUSES = {
    "binding": policy_pb2.RULE_STATUS_BINDING,
    "guidance": policy_pb2.RULE_STATUS_GUIDANCE,
    "internal": policy_pb2.RULE_STATUS_INTERNAL,
}
LAW = ("binding", "guidance")
"""Statuses of what the institution did not choose itself."""
SAMPLES: Mapping[str, tuple[str, ...]] = {
    "hits": ("tolerated",),
    "auc": ("assumed",),
    "mean": ("assumed", "sd"),
    "largest_mean": ("assumed", "sd"),
    "two_means": ("assumed", "sd"),
    "impact_ratio": ("assumed",),
    "rate_gap": (),
}
"""How a gate's n is computed, and which limits each way reads; see :mod:`policies.statistics`."""
COUNTS = (
    *("test_rows", "canaries", "canaries_included", "pii_spans", "generations", "group_rows"),
    *("counterfactual_rows", "evaluation_items", "all_items"),
)
"""What a gate counts; ``evaluation_items`` are those of one public set, ``all_items`` of the four of abilities."""


@dataclass(frozen=True)
class Sample:
    """How many observations a gate needs: the method, what is counted, and the limits that hold its assumptions."""

    method: str
    counts: str
    assumptions: Mapping[str, str]


@dataclass(frozen=True)
class Gate:
    """An acceptable region of one measurement.

    Attributes:
        measurement: name; with ``per_attribute`` one gate for each sensitive attribute, ``name[attribute]``.
        at_most: the acceptable side; False means at least.
        limit: name of the limit.
        sample: how n is computed.
        per_attribute: one gate a sensitive attribute.
    """

    measurement: str
    at_most: bool
    limit: str
    sample: Sample
    per_attribute: bool

    @property
    def expression(self) -> str:
        """The condition of a PASS, in CEL over the interval at ``1 - alpha`` and the limit that the plan fixed."""
        return "gate.upper <= gate.limit" if self.at_most else "gate.lower >= gate.limit"


@dataclass(frozen=True)
class Repair:
    """A change that may make a rule pass, to be tried by asking again; see :mod:`policies.fixing`.

    Attributes:
        move: one of :data:`MOVES`.
        field: field of the intake input, for the moves that change one.
        to: CEL value to set, for ``set``.
    """

    move: str
    field: str
    to: Expression | None


MOVES = ("set", "clear", "lower", "raise", "redact_rows", "drop_rows", "drop_invalid", "add_rows", "artefact")


@dataclass(frozen=True)
class Rule:
    """One rule of a pack, compiled; the fields are those of the file."""

    id: str
    pack: str
    title: str
    stage: str
    status: str
    instrument: str
    reference: str
    jurisdictions: tuple[str, ...]
    citation: str
    caveat: str
    severity: str
    effective_from: dt.date
    effective_to: dt.date | None
    applies: Expression
    check: Expression
    gate: Gate | None
    message: Template
    fix: Template
    needs: tuple[str, ...]
    artefacts: tuple[str, ...]
    appealable: bool
    waivable_by: str
    waiver_days: int
    repairs: tuple[Repair, ...]
    rows: Expression | None
    row_count: Expression | None
    why: str

    def in_force(self, day: dt.date) -> bool:
        """Tells whether the rule applies on a day; both ends are included."""
        return self.effective_from <= day and (self.effective_to is None or day <= self.effective_to)

    def names(self) -> frozenset[str]:
        """Every variable that any part of the rule reads."""
        parts = [self.applies, self.check, self.rows, self.row_count]
        parts += [hole.expression for template in (self.message, self.fix) for hole in template.holes]
        return frozenset().union(*(part.names() for part in parts if part is not None))

    def limit_names(self) -> tuple[str, ...]:
        """Limits that it reads, sorted."""
        names = {name.removeprefix("limits.") for name in self.names() if name.startswith("limits.")}
        if self.gate is not None:
            names |= {self.gate.limit, *self.gate.sample.assumptions.values()}
        return tuple(sorted(names))

    def message_type(self) -> policy_pb2.Rule:
        """As the wire shows it."""
        return policy_pb2.Rule(
            id=self.id,
            title=self.title,
            stage=STAGES[self.stage],
            status=STATUSES[self.status],
            citation=self.citation,
            expression=self.check.source,
            effective_from=self.effective_from.isoformat(),
            effective_to=self.effective_to.isoformat() if self.effective_to else "",
            appealable=self.appealable,
            waivable_by=self.waivable_by,
            caveat=self.caveat,
            instrument=self.instrument,
            reference=self.reference,
            jurisdictions=self.jurisdictions,
            severity=SEVERITIES[self.severity],
            artefacts=self.artefacts,
            waiver_days=self.waiver_days,
            pack=self.pack,
            applies=self.applies.source,
        )


@dataclass(frozen=True)
class Part:
    """One folder of a bundle: its name, version and owner as in its metadata, and where it was read from."""

    name: str
    version: str
    owner: str
    folder: Path
    not_asked: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pack:
    """A loaded bundle of one pack or several, compiled together.

    Attributes:
        name: as in its metadata.
        version: as its owner wrote it.
        owner: who answers for it.
        folder: that it was loaded from.
        parts: the folders of its packs; every unit is asked the rules of the first.
        units: the other parts that a unit has chosen, by unit.
        rules: in file order.
        limits: its limits.
        bundle_sha256: hex SHA-256 of the canonical JSON of the rules files, and of the bundle file without units.
        limits_sha256: hex SHA-256 of the canonical JSON of the limits files, and of what the units chose.
        intake, release: environments that rules of each stage were compiled in; ``gate`` that of PASS conditions.
    """

    name: str
    version: str
    owner: str
    folder: Path
    parts: tuple[Part, ...]
    units: Mapping[str, tuple[str, ...]]
    rules: tuple[Rule, ...]
    limits: Limits
    bundle_sha256: str
    limits_sha256: str
    intake: Environment = field(repr=False)
    release: Environment = field(repr=False)
    gate: Environment = field(repr=False)

    def rule(self, rule_id: str) -> Rule | None:
        """The rule of that id, if there is one."""
        return next((rule for rule in self.rules if rule.id == rule_id), None)

    def chosen(self, unit: str) -> frozenset[str]:
        """Names of the parts whose rules a unit is asked: the first one, and what it chose."""
        return frozenset({self.parts[0].name, *self.units.get(unit, ())})

    def only(self, names: frozenset[str]) -> Pack:
        """The same bundle with the rules of some parts; digests, limits and environments stay."""
        return dataclasses.replace(self, rules=tuple(rule for rule in self.rules if rule.pack in names))
