"""Kinds of artefacts that rules ask for, and which of them the house itself makes by when.

An artefact is a document or record that shows something. Some are made on the way of every job: those the record
proves, and a requester's word for them counts for nothing. The others are handed in by the requester, who names each by
its digest. The document itself is stored nowhere, so a digest proves no more than that somebody named one: a rule that
rests on it says so and warns (:mod:`policies.asking`). What is neither made nor handed in is a gap, and a gap denies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from assay.v1 import measurement_pb2, policy_input_pb2

KINDS: Mapping[str, str] = MappingProxyType({
    "REQ": "request with purpose, owner and tier", "DS": "datasheet with the facts of the rows",
    "PLAN": "audit plan fixed before training", "RUN": "training record", "MOD": "digest of the adapter",
    "FAIR": "fairness audit", "PRIV": "privacy audit", "SAFE": "harm and robustness audit",
    "PERF": "performance audit", "COST": "cost audit", "APR": "approvals and waivers", "PERMIT": "deployment permit",
    "CARD": "model card", "LOG": "event log", "MON": "monitoring plan", "INC": "incident procedure",
    "LIN": "lineage and erasure procedure", "INV": "inventory of models", "RISK": "risk register",
    "DPIA": "data-protection impact assessment", "BAA": "business associate agreement",
    "EXPERT": "expert determination of de-identification", "COPYRIGHT": "copyright policy and content summary",
    "INSTRUCTIONS": "instructions for deployers", "OVERSIGHT": "human oversight assessment with a stop test",
    "INDEPENDENCE": "independence declaration of the auditor", "NOTICE": "notice to the people concerned",
    "LDA": "search for a less discriminatory alternative", "REASONS": "test of the reasons given for adverse decisions",
    "AIPROGRAMME": "written programme for AI systems", "SOA": "statement of applicability",
    "RETENTION": "schedule that keeps documentation and logs", "CHANGES": "envelope of changes determined beforehand",
    "ATTESTATION": "statement of no actual knowledge that people can be identified",
    "SUMMARY": "public summary of the bias audit", "HUMANREVIEW": "way to correction and human review",
    "LEGAL": "sign-off of the legal function", "BALANCING": "balancing test of legitimate interests",
    "DISCLOSURE": "how people learn that they deal with an AI system",
    "MARKING": "how what the system writes is marked for machines", "FRIA": "fundamental-rights impact assessment",
})  # fmt: skip
"""What each kind is."""

_MADE_AT_INTAKE = ("REQ", "LOG", "INV")
_MADE_FROM_ROWS = ("DS", "PLAN")
_MADE_BY_TRAINING = ("DS", "PLAN", "RUN", "MOD")
_MADE_BY_PEOPLE = ("CARD", "APR", "PERMIT")
_MEASURED = {"fairness.": "FAIR", "privacy.": "PRIV", "safety.": "SAFE", "quality.": "PERF", "overfitting.": "PERF",
             "cost.": "COST"}  # fmt: skip
HANDED_IN = frozenset(KINDS) - {
    *_MADE_AT_INTAKE, *_MADE_FROM_ROWS, *_MADE_BY_TRAINING, *_MADE_BY_PEOPLE, *_MEASURED.values()
} | {"SAFE"}  # fmt: skip
"""Kinds that a requester may hand in. A harm audit is one of them, since a quick audit measures no refusals."""


def at_intake(question: policy_input_pb2.IntakeInput) -> dict[str, str]:
    """Kinds that are there when the decision is made, sorted; the plan is fixed with it.

    The value is the digest of the document that the requester named, of several all of them, sorted and with a comma
    between; it is empty for what the house itself made.
    """
    made = [*_MADE_AT_INTAKE, *(_MADE_FROM_ROWS if question.HasField("data") else ())]
    return _together(question.request, made)


def at_release(question: policy_input_pb2.ReleaseInput) -> dict[str, str]:
    """The same after the audits; an audit is there when one of its measurements is."""
    made = {*_MADE_AT_INTAKE, *_MADE_BY_TRAINING}
    made |= {kind for name, found in question.measurements.items() if _there(found)
             for prefix, kind in _MEASURED.items() if name.startswith(prefix)}  # fmt: skip
    if question.HasField("live"):
        made |= {*_MADE_BY_PEOPLE}
    return _together(question.request, made)


def _together(request: policy_input_pb2.RequestFacts, made: Iterable[str]) -> dict[str, str]:
    named: dict[str, set[str]] = {}
    for item in request.use.artefacts:
        if item.kind in HANDED_IN and len(item.sha256) == 64:
            named.setdefault(item.kind, set()).add(item.sha256)
    there = {kind: ", ".join(sorted(found)) for kind, found in named.items()}
    return dict(sorted({**there, **dict.fromkeys(made, "")}.items()))


def _there(found: measurement_pb2.Measurement) -> bool:
    return not found.exploratory and not found.unavailable and found.HasField("value")
