"""Where a use lies and what it is for, worked out from what was declared and not left to it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from assay.v1 import policy_input_pb2
from policies import uses
from policies.engine import PolicyEngine
from policies.pack import PACKS, load


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
        (["PR"], ["PR", "US"]),
        (["VI", "GU", "AS", "MP"], ["VI", "US", "GU", "AS", "MP"]),
        (["US-TX", "FR", "IT"], ["US-TX", "US", "FR", "EU", "EEA", "IT"]),
        ([], []),
    ],
)
def test_a_place_lies_in_others(declared: list[str], places: list[str]) -> None:
    assert uses.places_of(declared) == places


def test_a_reading_says_which_law_was_asked_and_which_was_there_and_not_chosen(
    table: policy_input_pb2.IntakeInput, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(PACKS, tmp_path / "policies", ignore=shutil.ignore_patterns("access")))
    sheet = folder / "bundle.yaml"
    sheet.write_text(sheet.read_text().replace("units: {}", "units: {credit: [fair-lending]}"))
    table.request.unit, table.request.purpose = "credit", "credit-scoring"
    table.request.use.CopyFrom(policy_input_pb2.UseDeclaration(jurisdictions=["US-NYC", "XX"], domain="credit"))
    read = PolicyEngine(load(folder)).read_use(table)
    assert list(read.places) == ["US-NYC", "US-NY", "US", "XX"] and list(read.unknown_places) == ["XX"]
    assert list(read.uses) == ["credit"] and read.decides and read.high_risk_by == "credit (Annex III(5)(b))"
    assert list(read.packs) == ["baseline", "fair-lending"]
    assert "eu-ai-act" in read.packs_not_chosen and not set(read.packs) & set(read.packs_not_chosen)
    table.request.ClearField("use")
    assert list(PolicyEngine(load(folder)).read_use(table).places) == []


def test_every_member_of_the_union_and_of_the_economic_area_counts() -> None:
    assert len(uses.EU_MEMBERS) == 27 and len(uses.EEA_ONLY) == 3
    assert all({"EU", "EEA"} <= set(uses.places_of([state])) for state in uses.EU_MEMBERS)
    for state in uses.EEA_ONLY:
        assert "EEA" in uses.places_of([state]) and "EU" not in uses.places_of([state])


@pytest.mark.parametrize(
    "place", ["EU", "EL", "DE", "DE-BY", "EL-30", "US", "US-NYC", "US-PR", "US-DC", "PR", "CO", "FR-75", "GB-SCT"]
)
def test_a_place_that_there_is(place: str) -> None:
    assert uses.unknown_places_of([place]) == []


@pytest.mark.parametrize(
    "place", ["UK", "DEU", "USA", "NYC", "US-CAL", "US-XX", "EU-DE", "XK", "FX", "de", "US-", "DE-", "DE-BAYERN", ""]
)
def test_a_place_that_nobody_knows_is_named(place: str) -> None:
    assert uses.unknown_places_of(["EU", place, "US-NY"]) == [place]


def test_the_codes_of_countries_are_those_of_the_standard() -> None:
    assert len(uses.COUNTRIES) == 249 and all(len(code) == 2 for code in uses.COUNTRIES)
    assert uses.EU_MEMBERS | uses.EU_TERRITORIES | uses.EEA_ONLY < uses.COUNTRIES
    # Fifty states, the district, six territories and the city.
    assert len(uses.US_PARTS) == 58


@pytest.mark.parametrize(
    ("domain", "purpose", "task", "found"),
    [
        ("credit", "support-replies", "chat", ("credit",)),
        ("other", "credit-decision", "decision", ("other", "credit")),
        ("other", "credit-scoring", "chat", ("other", "credit")),
        ("other", "credit-card-replies", "chat", ("other",)),
        ("credit", "credit-decision", "decision", ("credit",)),
        ("", "candidate-screening", "chat", ()),
        ("", "job-candidate-screening", "chat", ("hiring",)),
        ("other", "release-candidate-selection", "decision", ("other",)),
        ("other", "car-rental-pricing", "decision", ("other",)),
        ("other", "tenancy-approval", "decision", ("other", "housing")),
        ("other", "underwriting-replies", "chat", ("other",)),
        ("other", "carbon-credits-pricing", "decision", ("other",)),
        ("other", "tax-credit-questions", "decision", ("other",)),
        ("other", "staff-expense-approval", "decision", ("other",)),
        ("other", "staff-ranking", "decision", ("other", "hiring")),
        ("other", "ticket-triage", "decision", ("other",)),
        ("other", "emergency-triage", "chat", ("other", "healthcare")),
        # An act beside what it is done to names no domain of its own.
        ("other", "patient-termination", "chat", ("other", "healthcare")),
        ("other", "applicant-ranking", "chat", ("other", "hiring")),
        ("other", "loan-applicant-ranking", "chat", ("other", "credit")),
        ("housing", "applicant-ranking", "chat", ("housing",)),
        ("other", "exam-grading", "chat", ("other", "education")),
        ("other", "asylum-assessment", "chat", ("other", "public")),
        ("other", "loan-or-insurance-pricing", "chat", ("other", "credit", "insurance")),
        ("other", "parcel-routing", "decision", ("other",)),
        ("", "", "", ()),
    ],
)
def test_a_purpose_names_its_domain_where_something_is_decided(
    domain: str, purpose: str, task: str, found: tuple[str, ...]
) -> None:
    assert uses.domains_of(policy_input_pb2.UseDeclaration(domain=domain), purpose, task) == found
    assert set(found) <= set(uses.DOMAINS)


@pytest.mark.parametrize(
    ("purpose", "task", "decides"),
    [
        ("customer-support-replies", "chat", False),
        ("hr-policy-questions", "chat", False),
        ("anything", "decision", True),
        ("parcel-ranking", "chat", True),
        ("employee-monitoring", "chat", True),
        # A word that may be both is neither alone, and an act beside what it is done to.
        ("promotion-mails", "chat", False),
        ("employee-promotion", "chat", True),
        ("hiring-faq", "chat", False),
        ("loan-creditworthiness", "chat", True),
        ("support-triage", "chat", False),
        ("", "chat", False),
    ],
)
def test_something_is_decided_by_a_table_or_where_the_purpose_says_so(purpose: str, task: str, decides: bool) -> None:
    assert uses.decides(policy_input_pb2.UseDeclaration(), purpose, task) is decides
    # A no takes nothing away, and a yes needs no word.
    assert uses.decides(policy_input_pb2.UseDeclaration(decides_about_people=False), purpose, task) is decides
    assert uses.decides(policy_input_pb2.UseDeclaration(decides_about_people=True), purpose, task)


@pytest.mark.parametrize(
    "purpose",
    [
        "loan-approvals",
        "loan-origination",
        "loan-rejection",
        "credit-decisioning",
        "claims-adjudication",
        "loan-denials",
    ],
)
def test_other_words_for_deciding_are_known(purpose: str) -> None:
    use = policy_input_pb2.UseDeclaration(domain="credit")
    assert uses.decides(use, purpose, "chat") and uses.high_risk_by(use, purpose, "chat") == "credit (Annex III(5)(b))"


@pytest.mark.parametrize(
    ("domain", "purpose", "task", "answer", "about"),
    [
        ("other", "parcel-routing", "decision", None, False),
        ("other", "parcel-routing", "decision", True, True),
        ("other", "sentiment-prediction", "chat", None, False),
        ("", "sentiment-prediction", "chat", None, True),
        ("helth", "sentiment-prediction", "chat", None, True),
        ("other", "loan-scoring", "chat", False, True),
        ("insurance", "support-replies", "chat", None, False),
        ("insurance", "support-replies", "chat", True, True),
    ],
)
def test_decisions_are_about_people_by_the_answer_or_by_the_domain(
    domain: str, purpose: str, task: str, answer: bool | None, about: bool
) -> None:
    use = policy_input_pb2.UseDeclaration(domain=domain, decides_about_people=answer)
    assert uses.about_people(use, purpose, task) is about


def test_a_yes_makes_a_listed_domain_high_risk_whatever_the_purpose_is_called() -> None:
    use = policy_input_pb2.UseDeclaration(domain="credit", risk_tier="limited", decides_about_people=True)
    assert uses.high_risk_by(use, "yes-or-no", "chat") == "credit (Annex III(5)(b))"
    use.domain = "other"
    assert uses.high_risk_by(use, "loan-yes-or-no", "chat") == "credit (Annex III(5)(b))"


def test_no_declaration_makes_a_listed_decision_less_than_high_risk() -> None:
    for domain, place in uses.HIGH_RISK.items():
        for tier in ("", "minimal", "limited", "high"):
            use = policy_input_pb2.UseDeclaration(domain=domain, risk_tier=tier, purpose_becomes_high_risk=False)
            assert uses.high_risk_by(use, "rows-of-last-year", "decision") == f"{domain} ({place})"
    other = policy_input_pb2.UseDeclaration(domain="other", risk_tier="limited")
    assert uses.high_risk_by(other, "parcel-routing", "decision") == ""
    other.purpose_becomes_high_risk = True
    assert uses.high_risk_by(other, "parcel-routing", "decision") == "use.purpose_becomes_high_risk"
    declared = policy_input_pb2.UseDeclaration(domain="housing", risk_tier="high")
    assert uses.high_risk_by(declared, "flat-offers", "decision") == "use.risk_tier"


def test_a_listed_domain_in_which_nothing_is_decided_is_as_it_was_declared() -> None:
    for domain in uses.HIGH_RISK:
        use = policy_input_pb2.UseDeclaration(domain=domain, risk_tier="limited")
        assert uses.high_risk_by(use, "customer-support-replies", "chat") == ""
        use.risk_tier = "high"
        assert uses.high_risk_by(use, "customer-support-replies", "chat") == "use.risk_tier"


@pytest.mark.parametrize("domain", ["credit", "other"])
def test_detection_of_fraud_is_left_out_of_credit_and_of_nothing_else(domain: str) -> None:
    use = policy_input_pb2.UseDeclaration(domain=domain, risk_tier="limited")
    assert uses.high_risk_by(use, "credit-card-fraud-detection", "decision") == ""
    assert uses.high_risk_by(use, "credit-scoring-and-fraud-detection", "decision") == "credit (Annex III(5)(b))"
    use.domain = "insurance"
    assert uses.high_risk_by(use, "claims-fraud-detection", "decision") == "insurance (Annex III(5)(c))"
