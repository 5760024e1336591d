from __future__ import annotations

import datetime as dt

from assay.v1 import policy_input_pb2 as pb
from gateway.admission.quotes import quote_record
from gateway.settings import PriceBook

BOOK = PriceBook(
    as_of=dt.date(2026, 11, 1),
    source="list",
    device="cpu",
    usd_micros_per_device_second={"cpu": 28},
    train_tokens_per_second=300,
    audit_seconds=120,
)
QUESTION = pb.IntakeInput(
    request=pb.RequestFacts(planned_train_tokens=91_001, quote_usd_micros=11_872),
    base_model=pb.BaseModelFacts(parameters=134_515_008),
)


def test_a_quote_follows_from_tokens_price_book_and_model() -> None:
    quote = quote_record(BOOK, QUESTION)
    assert quote["train_seconds"] == 304 and quote["audit_seconds"] == 120
    assert quote["flop"] == f"{6 * 134_515_008 * 91_001:.4e}" == "7.3446e+13"
    assert (quote["train_tokens"], quote["usd_micros"]) == (91_001, 11_872)
    assert "energy_milliwatt_hours" not in quote and "hosting_months" not in quote


def test_energy_and_hosting_are_quoted_where_the_price_book_says_them() -> None:
    book = BOOK.model_copy(update={"device_watts": 65, "hosting_usd_micros_per_month": 4_000_000, "hosting_months": 6})
    quote = quote_record(book, QUESTION)
    assert quote["energy_milliwatt_hours"] == 7656  # 65 W for 424 s
    assert (quote["hosting_months"], quote["hosting_usd_micros"]) == (6, 24_000_000)
    assert quote["price_book_sha256"] != quote_record(BOOK, QUESTION)["price_book_sha256"]
