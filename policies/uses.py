"""What follows from a declared use: where it lies, what it is for, and whether the AI Act lists it as high-risk.

Law binds by where a model is used and by what for. So neither the code of one member state nor another domain or a low
tier on the form may take a use out of it: rules read what is worked out here, and nowhere else is there a list of
member states or of domains.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from assay.v1 import policy_input_pb2

EU_MEMBERS = frozenset("AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK".split())
"""The 27 members of the European Union, ISO 3166-1."""
EU_TERRITORIES = frozenset("AX GF GP MF MQ RE YT".split())
"""Parts of Finland and France with codes of their own where Union law holds (Article 355(1) and (4) TFEU)."""
EEA_ONLY = frozenset("IS LI NO".split())
"""States of the European Economic Area that are not members of the Union."""
_EU = EU_MEMBERS | EU_TERRITORIES | {"EU", "EL"}
# EL is Greece in the Union's own texts.
_WITHIN = MappingProxyType({"US-NYC": "US-NY"})

DOMAINS = ("credit", "housing", "hiring", "insurance", "healthcare", "other")
"""What a use may be declared to be for."""
HIGH_RISK: Mapping[str, str] = MappingProxyType(
    {"credit": "Annex III(5)(b)", "hiring": "Annex III(4)", "insurance": "Annex III(5)(c)"}
)
"""Domains that the AI Act lists as high-risk, and where. Of insurance it lists life and health; a domain is coarser."""
_SUBJECTS: Mapping[str, str] = MappingProxyType({
    "credit": "credit", "loan": "credit", "loans": "credit", "lending": "credit", "mortgage": "credit",
    "mortgages": "credit", "creditworthiness": "credit", "insurance": "insurance", "underwriting": "insurance",
    "hiring": "hiring", "recruiting": "hiring", "recruitment": "hiring", "candidate": "hiring", "candidates": "hiring",
    "employee": "hiring", "employees": "hiring", "employment": "hiring", "dismissal": "hiring", "housing": "housing",
    "rental": "housing", "tenant": "housing", "tenants": "housing",
})  # fmt: skip
"""Words of a purpose that name what is decided about, and their domain."""
_ACTS = frozenset({
    "approval", "assessment", "creditworthiness", "decision", "decisions", "eligibility", "hiring", "pricing",
    "ranking", "rating", "recruiting", "recruitment", "score", "scores", "scoring", "screening", "selection",
    "underwriting",
})  # fmt: skip
"""Words of a purpose that say that it is decided; a table of decisions says so by itself."""


def bindings(request: policy_input_pb2.RequestFacts, task: str) -> dict[str, Any]:
    """Variables that rules read: ``places``, ``uses``, ``domains`` and ``high_risk_by``."""
    use = request.use
    found = domains_of(use.domain, request.purpose, task)
    return {
        "places": places_of(tuple(use.jurisdictions)),
        "uses": list(found),
        "domains": list(DOMAINS),
        "high_risk_by": high_risk_by(use, found),
    }


def places_of(declared: Iterable[str]) -> list[str]:
    """The declared places, and those that they lie in: ``DE`` lies in ``EU`` and ``EEA``, ``NO`` in ``EEA``."""
    out: dict[str, None] = {}
    for place in declared:
        country = place.partition("-")[0]
        out |= dict.fromkeys(filter(None, (place, _WITHIN.get(place), country)))
        out |= dict.fromkeys(("EU", "EEA") if country in _EU else ("EEA",) if country in EEA_ONLY else ())
    return list(out)


@functools.lru_cache(maxsize=256)
def domains_of(declared: str, purpose: str, task: str) -> tuple[str, ...]:
    """The declared domain, and those that the purpose names.

    A word such as ``credit`` names one only where something is decided: in ``credit-scoring``, or in a table of
    decisions, and not in ``credit-card-replies`` of a chat.
    """
    words = purpose.split("-")
    decides = task == "decision" or not _ACTS.isdisjoint(words)
    named = [_SUBJECTS[word] for word in words if word in _SUBJECTS] if decides else []
    return tuple(dict.fromkeys(filter(None, (declared, *named))))


def high_risk_by(use: policy_input_pb2.UseDeclaration, uses: Iterable[str]) -> str:
    """What makes a use high-risk in the words of the AI Act; empty where nothing does.

    What the requester declares can only add to what the use itself says.
    """
    listed = [f"{domain} ({HIGH_RISK[domain]})" for domain in uses if domain in HIGH_RISK]
    if listed:
        return " and ".join(listed)
    if use.purpose_becomes_high_risk:
        return "use.purpose_becomes_high_risk"
    return "use.risk_tier" if use.risk_tier == "high" else ""
