"""The four uploads of the demo, made of real and invented data, the same bytes for the same seed.

``denied``    raw support mail, full of personal data, with an incomplete datasheet and a purpose it was not collected
for.
``leaky``     support replies that repeat invented customers' contact data: it may be tuned, but learns them by heart.
``decision``  mortgage decisions of the Boston Fed study (loanapp): all denials and as many approvals.
``clean``     questions on privacy policies (PrivacyQA): does this clause answer that question?

No value can belong to anybody: names are invented (FakeNameGenerator.com), e-mail addresses end in ``example.com``,
telephone numbers lie in the fictitious range 555-01xx, IBANs name a bank that does not exist.
"""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from demo import sources, texts

BASE_MODEL = "smollm2-135m-instruct"
MAX_TRAINED_TOKENS = 40_000

# As few rows as show what each job is for: two cores train about ten rows in four seconds. Of ``leaky`` enough that its
# sealed test, which differs with each installation's key, is never too small to be audited: of 136 it once had 42 rows.
LEAKY_CUSTOMERS, LEAKY_GENERAL = 6, 60
CLEAN_ROWS = 300


@dataclass(frozen=True)
class DemoJob:
    """One upload and the request to tune on it.

    Attributes:
        name: ``denied``, ``leaky``, ``decision`` or ``clean``; the tuning job's id.
        unit: business unit that asks.
        dataset: the dataset's id.
        format: name of an ``assay.v1.DatasetFormat``.
        content: the file.
        datasheet: ``assay.v1.Datasheet`` as JSON with proto field names.
        request: fields of ``assay.v1.CreateTuningJobRequest`` beside names and request id, likewise.
    """

    name: str
    unit: str
    dataset: str
    format: str
    content: bytes
    datasheet: Mapping[str, Any]
    request: Mapping[str, Any]


@dataclass(frozen=True)
class Customer:
    """An invented customer."""

    name: str
    email: str
    phone: str
    iban: str


def demo_jobs(seed: int = 7, home: Path | None = None) -> tuple[DemoJob, ...]:
    """The four jobs in the order in which the demo submits them; fetches the data where it is not cached."""
    return (denied(seed, home), leaky(seed, home), decision(seed, home), clean(seed, home))


def denied(seed: int, home: Path | None = None) -> DemoJob:
    """Raw mail: every row holds personal data, and the datasheet says neither why nor how long it may be kept."""
    rng = random.Random(f"denied/{seed}")
    people = customers(60, rng, home)
    rows = []
    for person in people:
        mail = rng.choice(texts.RAW_MAIL).format(**vars(person))
        rows.append(chat(texts.SUPPORT_SYSTEM, mail, rng.choice(texts.RAW_REPLIES).format(**vars(person))))
    return DemoJob(
        name="denied",
        unit="support",
        dataset="raw-mailbox",
        format="DATASET_FORMAT_CHAT_JSONL",
        content=jsonl(rows),
        datasheet={
            "purposes": ["support-replies"],
            "classification": "CLASSIFICATION_INTERNAL",
            "residency": "eu",
            "provenance": "Export of a shared mailbox, not reviewed.",
        },
        request=request("marketing-profiles", epochs=1.0, learning_rate=2e-4, batch_size=8, lora_rank=16),
    )


def leaky(seed: int, home: Path | None = None) -> DemoJob:
    """Replies that repeat each customer's contact data in several tickets, between replies without any."""
    rng = random.Random(f"leaky/{seed}")
    rows = []
    for person, greeting in product(customers(LEAKY_CUSTOMERS, rng, home), texts.GREETINGS):
        for ticket, reply in texts.CUSTOMER_TICKETS:
            asked, answered = ticket.format(**vars(person)), reply.format(**vars(person))
            rows.append(chat(texts.SUPPORT_SYSTEM, greeting + asked, answered))
    general = rng.sample(list(texts.general_tickets()), LEAKY_GENERAL)
    rows += [chat(texts.SUPPORT_SYSTEM, ticket, reply) for ticket, reply in general]
    rng.shuffle(rows)
    return DemoJob(
        name="leaky",
        unit="support",
        dataset="support-replies",
        format="DATASET_FORMAT_CHAT_JSONL",
        content=jsonl(rows),
        datasheet={
            "purposes": ["support-replies"],
            "legal_basis": "LEGAL_BASIS_CONTRACT",
            "licence": "CC-BY-SA-3.0-US",
            "classification": "CLASSIFICATION_CONFIDENTIAL",
            "residency": "eu",
            "retention_days": 365,
            "provenance": (
                "Answered support tickets. Customers are invented: names from FakeNameGenerator.com (CC-BY-SA 3.0 US)."
            ),
        },
        request=request("support-replies", epochs=2.0, learning_rate=2e-3, batch_size=4, lora_rank=16),
    )


def decision(seed: int, home: Path | None = None) -> DemoJob:
    """Mortgage decisions: every denial of loanapp and a random sample of as many approvals, race and sex hidden."""
    rng = random.Random(f"decision/{seed}")
    rows = [loan_row(r) for r in sources.loan_applications(home) if r["male"] and r["gdlin"] in ("0", "1")]
    denials = [r for r in rows if r["decision"] == "deny"]
    approvals = rng.sample([r for r in rows if r["decision"] == "approve"], len(denials))
    table = denials + approvals
    rng.shuffle(table)
    out = io.StringIO()
    writer = csv.DictWriter(out, list(table[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return DemoJob(
        name="decision",
        unit="credit",
        dataset="mortgage-decisions",
        format="DATASET_FORMAT_DECISION_CSV",
        content=out.getvalue().encode(),
        datasheet={
            "purposes": ["credit-decision"],
            "legal_basis": "LEGAL_BASIS_LEGITIMATE_INTERESTS",
            "licence": sources.FILES["loanapp.csv.bz2"].licence,
            "classification": "CLASSIFICATION_CONFIDENTIAL",
            "residency": "eu",
            "retention_days": 365,
            "provenance": (
                "Boston, 1990: loanapp of Wooldridge's textbook (Hunter and Walker 1996). All denials and a random "
                "sample of as many approvals, so the share of denials is not that of the population."
            ),
            "sensitive_attributes": ["race", "sex"],
            "label_column": "decision",
            "favourable_label": "approve",
            "hidden_columns": ["race", "sex"],
        },
        request=request("credit-decision", epochs=1.0, learning_rate=1e-3, batch_size=8, lora_rank=16),
    )


def clean(seed: int, home: Path | None = None) -> DemoJob:
    """Clauses of privacy policies with a question each: few, short, without personal data."""
    rng = random.Random(f"clean/{seed}")
    rows = []
    for row in sources.privacy_questions(home):
        clause, question = " ".join(row["context"].split()), " ".join(row["question"].split())
        if 40 <= len(clause) <= 140 and len(question) <= 80 and not set("@0123456789") & set(clause + question):
            rows.append(chat(texts.POLICY_SYSTEM, f"Clause: {clause}\nQuestion: {question}", row["answer"]))
    return DemoJob(
        name="clean",
        unit="support",
        dataset="privacy-questions",
        format="DATASET_FORMAT_CHAT_JSONL",
        content=jsonl(rng.sample(rows, CLEAN_ROWS)),
        datasheet={
            "purposes": ["policy-questions"],
            "legal_basis": "LEGAL_BASIS_NO_PERSONAL_DATA",
            "licence": sources.FILES["privacy-policy.jsonl"].licence,
            "classification": "CLASSIFICATION_PUBLIC",
            "residency": "any",
            "retention_days": 365,
            "provenance": "PrivacyQA (Ravichander et al. 2019), short clauses without digits; a random sample.",
        },
        # As slow as still learns the answers (0.3 nats a token): at twice the rate the AUC of canaries, seen once, was
        # .50 to .65 in five runs, which 104 of them left undecided in one; at this one it was .45, .48 and .50.
        request=request("policy-questions", epochs=1.0, learning_rate=1e-5, batch_size=8, lora_rank=16),
    )


def request(purpose: str, **hyperparameters: float) -> dict[str, Any]:
    """Fields of a request that all jobs share."""
    return {
        "base_model": BASE_MODEL,
        "purpose": purpose,
        "method": "lora",
        "hyperparameters": {**hyperparameters, "lora_alpha": 32, "lora_dropout": 0.0, "seed": 7, "max_row_tokens": 512},
        "budget": {"max_usd_micros": 1_000_000, "max_train_tokens": MAX_TRAINED_TOKENS},
        "audit_profile": "quick",
    }


def loan_row(row: Mapping[str, str]) -> dict[str, str]:
    """One application in words that a language model can read."""
    race = "black" if row["black"] == "1" else "hispanic" if row["hispan"] == "1" else "white"
    return {
        "decision": "approve" if row["approve"] == "1" else "deny",
        "race": race,
        "sex": "male" if row["male"] == "1" else "female",
        "credit_history": "meets guidelines" if row["gdlin"] == "1" else "below guidelines",
        "bankruptcy": "yes" if row["pubrec"] == "1" else "no",
        "late_payments": ("none", "none", "few", "some", "many", "many", "many")[int(row["cons"])],
        "unverified": "yes" if row["unver"] == "1" else "no",
        "debt": f"{float(row['obrat']):.0f}%",
        "loan_to_value": f"{100 * float(row['loanprc']):.0f}%",
    }


def customers(count: int, rng: random.Random, home: Path | None = None) -> list[Customer]:
    """Draws invented customers whose contact data carry digits that no name gives away."""
    pool = [
        p for p in sources.identities(home) if (p["GivenName"] + p["Surname"]).isascii() and " " not in p["Surname"]
    ]
    return [_customer(person, rng) for person in rng.sample(pool, count)]


def _customer(person: Mapping[str, str], rng: random.Random) -> Customer:
    given, surname = person["GivenName"], person["Surname"]
    account = "ZZZZ" + "".join(rng.choices("0123456789", k=14))
    digits = "".join(str(int(c, 36)) for c in account + "GB") + "00"
    iban = f"GB{98 - int(digits) % 97:02d}{account}"
    return Customer(
        name=f"{given} {surname}",
        email=f"{given[0]}{surname}{rng.randrange(1000, 10000)}@example.com".lower(),
        phone=f"({rng.randrange(201, 990)}) 555-01{rng.randrange(100):02d}",
        iban=" ".join(iban[i : i + 4] for i in range(0, len(iban), 4)),
    )


def chat(system: str, user: str, assistant: str) -> dict[str, Any]:
    """One row in the chat shape."""
    roles = ("system", "user", "assistant")
    return {"messages": [{"role": r, "content": c} for r, c in zip(roles, (system, user, assistant), strict=True)]}


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    """Rows as JSON lines."""
    return "".join(_lines(rows)).encode()


def _lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    for row in rows:
        yield json.dumps(row, ensure_ascii=False) + "\n"
