"""Where a use lies and what it is for, worked out from what was declared and not left to it."""

from __future__ import annotations

import pytest

from assay.v1 import policy_input_pb2
from policies import uses


@pytest.mark.parametrize(
    ("declared", "places"),
    [
        (["EU"], ["EU", "EEA"]),
        (["DE"], ["DE", "EU", "EEA"]),
        (["DE-BY"], ["DE-BY", "DE", "EU", "EEA"]),
        (["EL"], ["EL", "EU", "EEA"]),
        (["RE"], ["RE", "EU", "EEA"]),
        (["NO"], ["NO", "EEA"]),
        (["CH", "GB"], ["CH", "GB"]),
        (["US-NYC"], ["US-NYC", "US-NY", "US"]),
        (["US-TX", "FR", "IT"], ["US-TX", "US", "FR", "EU", "EEA", "IT"]),
        ([], []),
    ],
)
def test_a_place_lies_in_others(declared: list[str], places: list[str]) -> None:
    assert uses.places_of(declared) == places


def test_every_member_of_the_union_and_of_the_economic_area_counts() -> None:
    assert len(uses.EU_MEMBERS) == 27 and len(uses.EEA_ONLY) == 3
    assert all({"EU", "EEA"} <= set(uses.places_of([state])) for state in uses.EU_MEMBERS)
    for state in uses.EEA_ONLY:
        assert "EEA" in uses.places_of([state]) and "EU" not in uses.places_of([state])


@pytest.mark.parametrize(
    ("domain", "purpose", "task", "found"),
    [
        ("credit", "support-replies", "chat", ("credit",)),
        ("other", "credit-decision", "decision", ("other", "credit")),
        ("other", "credit-scoring", "chat", ("other", "credit")),
        ("other", "credit-card-replies", "chat", ("other",)),
        ("credit", "credit-decision", "decision", ("credit",)),
        ("", "candidate-screening", "chat", ("hiring",)),
        ("other", "loan-or-insurance-pricing", "chat", ("other", "credit", "insurance")),
        ("other", "parcel-routing", "decision", ("other",)),
        ("", "", "", ()),
    ],
)
def test_a_purpose_names_its_domain_where_something_is_decided(
    domain: str, purpose: str, task: str, found: tuple[str, ...]
) -> None:
    assert uses.domains_of(domain, purpose, task) == found
    assert set(found) <= set(uses.DOMAINS)


def test_no_declaration_makes_a_listed_use_less_than_high_risk() -> None:
    for domain, place in uses.HIGH_RISK.items():
        for tier in ("", "minimal", "limited", "high"):
            use = policy_input_pb2.UseDeclaration(domain=domain, risk_tier=tier, purpose_becomes_high_risk=False)
            assert uses.high_risk_by(use, (domain,)) == f"{domain} ({place})"
    other = policy_input_pb2.UseDeclaration(domain="other", risk_tier="limited")
    assert uses.high_risk_by(other, ("other",)) == ""
    other.purpose_becomes_high_risk = True
    assert uses.high_risk_by(other, ("other",)) == "use.purpose_becomes_high_risk"
    declared = policy_input_pb2.UseDeclaration(domain="healthcare", risk_tier="high")
    assert uses.high_risk_by(declared, ("healthcare",)) == "use.risk_tier"
