"""What follows from a declared use: where it lies, what it is for, and whether the AI Act lists it as high-risk.

Law binds by where a model is used and by what for. So neither the code of one member state nor another domain or a low
tier on the form may take a use out of it, nor may a place or a domain that nobody knows: rules read what is worked out
here, and nowhere else is there a list of member states or of domains. The other way round an honest declaration makes
no decision of what decides nothing: a chat that answers questions on insurance is no pricing of it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from assay.v1 import policy_input_pb2

COUNTRIES = frozenset(
    """
    AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ
    CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR
    GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT
    JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY
    MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM
    PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV
    SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT
    ZA ZM ZW
""".split()
)
"""The 249 codes of ISO 3166-1 alpha-2."""
US_PARTS = frozenset(
    """
    AL AK AZ AR CA CO CT DE FL GA HI ID IL IN IA KS KY LA ME MD MA MI MN MS MO MT NE NV NH NJ NM NY NC ND OH OK OR PA
    RI SC SD TN TX UT VT VA WA WV WI WY DC AS GU MP PR UM VI NYC
""".split()
)
"""States and territories of the United States, ISO 3166-2, and New York City. No other country's parts are law here."""
EU_MEMBERS = frozenset("AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK".split())
"""The 27 members of the European Union, ISO 3166-1."""
EU_TERRITORIES = frozenset("AX GF GP MF MQ RE YT".split())
"""Parts of Finland and France with codes of their own where Union law holds (Article 355(1) and (4) TFEU)."""
EEA_ONLY = frozenset("IS LI NO".split())
"""States of the European Economic Area that are not members of the Union."""
_GREECE = "EL"
"""Greece in the Union's own texts."""
_EU = EU_MEMBERS | EU_TERRITORIES | {"EU", _GREECE}
_WITHIN = MappingProxyType({"US-NYC": "US-NY", **dict.fromkeys(("AS", "GU", "MP", "PR", "VI"), "US")})
"""A city in its state, and territories of the United States that have codes of their own."""
_PART = re.compile(r"[A-Z0-9]{1,3}")

DOMAINS = ("credit", "housing", "hiring", "insurance", "healthcare", "education", "public", "other")
"""What a use may be declared to be for; ``public`` is what authorities give and refuse: benefits, asylum, borders."""
HIGH_RISK: Mapping[str, str] = MappingProxyType({
    "credit": "Annex III(5)(b)", "hiring": "Annex III(4)", "insurance": "Annex III(5)(c)",
    "healthcare": "Annex III(5)(a) and (d)", "education": "Annex III(3)", "public": "Annex III(5)(a) and (7)",
})  # fmt: skip
"""Domains in which the AI Act lists decisions as high-risk, and where. A domain is coarser than the list: of insurance
it names life and health, of healthcare who may have it, emergency calls and the triage of emergencies. The numbers of
the points are quoted from general knowledge, the Annex was not opened; ``AIA-TIER`` prints that."""
_SUBJECTS: Mapping[str, str] = MappingProxyType({
    **dict.fromkeys(("credit", "creditworthiness", "lending", "loan", "loans", "mortgage", "mortgages"), "credit"),
    **dict.fromkeys(("housing", "tenancy", "tenant", "tenants"), "housing"),
    **dict.fromkeys((
        "applicant", "applicants", "cv", "dismissal", "employee", "employees", "employment", "hiring", "job", "jobs",
        "promotion", "promotions", "recruiting", "recruitment", "resume", "staff", "termination", "terminations",
        "worker", "workers",
    ), "hiring"),
    "insurance": "insurance",
    **dict.fromkeys(("emergency", "patient", "patients", "triage"), "healthcare"),
    **dict.fromkeys(("education", "exam", "exams", "pupil", "pupils", "student", "students"), "education"),
    **dict.fromkeys(("asylum", "benefits", "border", "welfare"), "public"),
})  # fmt: skip
"""Words of a purpose that name what is decided about, and their domain."""
_APPLICANTS = frozenset({"applicant", "applicants"})
"""People apply for jobs, and for whatever other domain is declared or named."""
_ACTS = frozenset({
    "adjudication", "adjudications", "admission", "admissions", "approval", "approvals", "assessment", "assessments",
    "creditworthiness", "decision", "decisioning", "decisions", "denial", "denials", "eligibility", "evaluation",
    "evaluations", "grading", "monitoring", "origination", "originations", "prediction", "predictions", "pricing",
    "promotion", "promotions", "ranking", "rankings", "rating", "ratings", "rejection", "rejections", "score", "scores",
    "scoring", "screening", "screenings", "selection", "selections", "termination", "terminations", "triage",
    "underwriting",
})  # fmt: skip
"""Words of a purpose that say that it is decided; a table of decisions, and the requester's answer, say so by
themselves. No list of words is whole: that is why the answer is asked for."""
_OF_THINGS = re.compile(
    r"\b(?:(?:carbon|tax)-credits?|(?:employee|staff)-expenses?|sales-promotions?|(?:support|ticket)-triage)\b"
)
"""Phrases whose words name no decision about people. The list is short: for the rest there is the waiver."""
_FRAUD = "fraud-detection"
"""What Annex III(5)(b) leaves out of credit."""


def bindings(request: policy_input_pb2.RequestFacts, task: str) -> dict[str, Any]:
    """The variables that rules read of a use: ``places`` to ``high_risk_by``, as docs/policies.md lists them."""
    use, declared = request.use, tuple(request.use.jurisdictions)
    return {
        "places": places_of(declared),
        "unknown_places": unknown_places_of(declared),
        "uses": list(domains_of(use, request.purpose, task)),
        "domains": list(DOMAINS),
        "decides": decides(use, request.purpose, task),
        "about_people": about_people(use, request.purpose, task),
        "high_risk_by": high_risk_by(use, request.purpose, task),
    }


def places_of(declared: Iterable[str]) -> list[str]:
    """The declared places, and those that they lie in: ``DE`` lies in ``EU`` and ``EEA``, ``NO`` in ``EEA``."""
    out: dict[str, None] = {}
    for place in declared:
        country = place.partition("-")[0]
        out |= dict.fromkeys(filter(None, (place, _WITHIN.get(place), country)))
        out |= dict.fromkeys(("EU", "EEA") if country in _EU else ("EEA",) if country in EEA_ONLY else ())
    return list(out)


def unknown_places_of(declared: Iterable[str]) -> list[str]:
    """The declared places that nobody knows, of which no law would be asked. Parts are listed of the US alone."""
    return [place for place in declared if not _is_known(place)]


def decides(use: policy_input_pb2.UseDeclaration, purpose: str, task: str) -> bool:
    """Whether something is decided: in a table of decisions, in a chat whose purpose says so, or by the answer.

    The answer adds and never takes away: a no beside ``credit-scoring`` is a mistake, or worse.
    """
    return _read(purpose, task, use.decides_about_people)[0]


def about_people(use: policy_input_pb2.UseDeclaration, purpose: str, task: str) -> bool:
    """Whether what is decided is about people: by the answer, or in any domain but ``other`` alone.

    Only the domain ``other`` says that a ``sentiment-prediction`` decides about nobody; none, or a misspelt one, says
    nothing.
    """
    named = domains_of(use, purpose, task) != ("other",) or high_risk_by(use, purpose, task) != ""
    return decides(use, purpose, task) and (use.decides_about_people or named)


def domains_of(use: policy_input_pb2.UseDeclaration, purpose: str, task: str) -> tuple[str, ...]:
    """The declared domain, and those that the purpose names.

    A word such as ``credit`` names one only where something is decided: in ``credit-scoring``, or in a table of
    decisions, and not in ``credit-card-replies`` of a chat.
    """
    return _domains(use.domain, purpose, task, use.decides_about_people)


@functools.lru_cache(maxsize=256)
def _domains(declared: str, purpose: str, task: str, answered: bool) -> tuple[str, ...]:
    words = _read(purpose, task, answered)[1]
    named = [_SUBJECTS[word] for word in words if word not in _APPLICANTS]
    others = [domain for domain in (declared, *named) if domain in DOMAINS and domain != "other"]
    if not others and not _APPLICANTS.isdisjoint(words):
        named.append("hiring")
    return tuple(dict.fromkeys(filter(None, (declared, *named))))


def high_risk_by(use: policy_input_pb2.UseDeclaration, purpose: str, task: str) -> str:
    """What makes a use high-risk in the words of the AI Act; empty where nothing does.

    A domain does where something is decided, and what the requester declares can only add to that.
    """
    listed = _listed(use.domain, purpose, task, use.decides_about_people)
    if listed:
        return listed
    if use.purpose_becomes_high_risk:
        return "use.purpose_becomes_high_risk"
    return "use.risk_tier" if use.risk_tier == "high" else ""


@functools.lru_cache(maxsize=256)
def _listed(domain: str, purpose: str, task: str, answered: bool) -> str:
    if not _read(purpose, task, answered)[0]:
        return ""
    # A purpose that scores or approves as well is no mere detection.
    fraud = _FRAUD in purpose and _ACTS.isdisjoint(purpose.split("-"))
    named = _domains(domain, purpose, task, answered)
    found = [d for d in named if d in HIGH_RISK and not (fraud and d == "credit")]
    return " and ".join(f"{domain} ({HIGH_RISK[domain]})" for domain in found)


@functools.lru_cache(maxsize=256)
def _read(purpose: str, task: str, answered: bool) -> tuple[bool, tuple[str, ...]]:
    """Whether something is decided, and the words that name about what; ``answered`` is the requester's yes.

    In a chat a word that may be both, such as ``promotion``, is an act beside something else that it is done to, and
    alone neither.
    """
    words = _OF_THINGS.sub("", purpose).split("-")
    subjects = tuple(word for word in words if word in _SUBJECTS)
    acts = [word for word in words if word in _ACTS]
    if answered or task == "decision" or any(act not in _SUBJECTS for act in acts):
        return True, subjects
    done_to = tuple(word for word in subjects if word not in _ACTS)
    return (True, done_to) if acts and done_to else (False, ())


def _is_known(place: str) -> bool:
    country, dash, part = place.partition("-")
    if country not in COUNTRIES and country != _GREECE:
        return place == "EU"
    if not dash:
        return True
    return part in US_PARTS if country == "US" else _PART.fullmatch(part) is not None
