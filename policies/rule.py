"""The types of a pack: rules, gates, and the variables that each stage may read."""

from __future__ import annotations

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
RELEASE_MESSAGE = policy_input_pb2.ReleaseInput.DESCRIPTOR

SHARED: Mapping[str, str] = {
    "request": "assay.v1.RequestFacts",
    "datasheet": "assay.v1.Datasheet",
    "task": "string",
    "classification": "string",
}
INTAKE: Mapping[str, str] = {
    **SHARED,
    "data": "assay.v1.DataFacts",
    "base_model": "assay.v1.BaseModelFacts",
    "known.pii_spans": "int",
    "needed.test_rows": "int",
    "needed.canaries": "int",
    "needed.canaries_included": "int",
    "needed.pii_spans": "int",
}
RELEASE: Mapping[str, str] = {
    **SHARED,
    "plan": "assay.v1.AuditPlan",
    "measurements": "map<string, assay.v1.Measurement>",
    "run": "assay.v1.RunFacts",
}
GATE: Mapping[str, str] = {
    "gate.value": "double",
    "gate.lower": "double",
    "gate.upper": "double",
    "gate.limit": "double",
    "gate.n": "int",
}
FROM_ROWS = ("data", "known", "needed")
"""Variables that exist only after the rows were opened; a preflight skips the rules that read them."""

STAGES = {"intake": policy_pb2.STAGE_INTAKE, "release": policy_pb2.STAGE_RELEASE}
STATUSES = {
    "binding": policy_pb2.RULE_STATUS_BINDING,
    "guidance": policy_pb2.RULE_STATUS_GUIDANCE,
    "internal": policy_pb2.RULE_STATUS_INTERNAL,
}
SAMPLES: Mapping[str, tuple[str, ...]] = {
    "hits": ("tolerated",),
    "auc": ("assumed",),
    "mean": ("assumed", "sd"),
    "two_means": ("assumed", "sd"),
    "impact_ratio": ("assumed",),
    "rate_gap": (),
}
"""How a gate's n is computed, and which limits each way reads; see :mod:`policies.statistics`."""
COUNTS = ("test_rows", "canaries", "canaries_included", "pii_spans", "generations", "group_rows")


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
class Rule:
    """One rule of a pack, compiled; the fields are those of the file."""

    id: str
    title: str
    stage: str
    status: str
    citation: str
    caveat: str
    effective_from: dt.date
    effective_to: dt.date | None
    applies: Expression
    check: Expression
    gate: Gate | None
    message: Template
    fix: Template
    needs: tuple[str, ...]
    appealable: bool
    waivable_by: str
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

    def needs_rows(self) -> bool:
        """True when it cannot be asked before the rows were opened."""
        read = {name.split(".")[0] for name in (*self.check.names(), *self.applies.names(), *self.needs)}
        return self.gate is not None or not read.isdisjoint(FROM_ROWS)

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
        )


@dataclass(frozen=True)
class Pack:
    """A loaded pack.

    Attributes:
        name: as in its metadata.
        version: as its owner wrote it.
        owner: who answers for it.
        folder: where it was read from.
        rules: in file order.
        limits: its limits.
        bundle_sha256: hex SHA-256 of the canonical JSON of the rules file.
        limits_sha256: hex SHA-256 of the canonical JSON of the limits file.
        intake, release: environments that rules of each stage were compiled in; ``gate`` that of PASS conditions.
    """

    name: str
    version: str
    owner: str
    folder: Path
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
