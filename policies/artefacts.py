"""Kinds of artefacts that rules ask for, and which of them the house itself makes by when.

An artefact is a document or record that shows something. Some are made on the way of every job; the others are handed
in by the requester, who names each by its digest. What is neither made nor handed in is a gap, and a gap denies.
"""

from __future__ import annotations

from collections.abc import Mapping
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
})  # fmt: skip
"""What each kind is."""

_MADE_AT_INTAKE = ("REQ", "LOG", "INV")
_MADE_FROM_ROWS = ("DS", "PLAN")
_MADE_BY_TRAINING = ("DS", "PLAN", "RUN", "MOD")
_MADE_BY_PEOPLE = ("CARD", "APR", "PERMIT")
_MEASURED = {"fairness.": "FAIR", "privacy.": "PRIV", "safety.": "SAFE", "quality.": "PERF", "overfitting.": "PERF",
             "cost.": "COST"}  # fmt: skip


def at_intake(question: policy_input_pb2.IntakeInput) -> list[str]:
    """Kinds that are there when the decision is made; the plan is fixed with it."""
    made = [*_MADE_AT_INTAKE, *(_MADE_FROM_ROWS if question.HasField("data") else ())]
    return sorted({*made, *_handed_in(question.request)})


def at_release(question: policy_input_pb2.ReleaseInput) -> list[str]:
    """Kinds that are there after the audits; an audit is there when one of its measurements is."""
    made = {*_MADE_AT_INTAKE, *_MADE_BY_TRAINING}
    made |= {kind for name, found in question.measurements.items() if _there(found)
             for prefix, kind in _MEASURED.items() if name.startswith(prefix)}  # fmt: skip
    if question.HasField("live"):
        made |= {*_MADE_BY_PEOPLE}
    return sorted({*made, *_handed_in(question.request)})


def _handed_in(request: policy_input_pb2.RequestFacts) -> set[str]:
    return {item.kind for item in request.use.artefacts if item.kind in KINDS and len(item.sha256) == 64}


def _there(found: measurement_pb2.Measurement) -> bool:
    return not found.exploratory and not found.unavailable and found.HasField("value")
