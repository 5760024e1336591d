from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
from rich.console import Console

from assay.v1 import measurement_pb2, tuning_job_pb2
from assay.v1 import policy_input_pb2 as pb
from gateway.admission.quotes import Spent, figures, quote_record
from gateway.cli.job_text import describe
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


def test_full_tuning_is_quoted_half_as_long_again() -> None:
    asked = pb.IntakeInput(
        request=pb.RequestFacts(planned_train_tokens=91_001, quote_usd_micros=11_872, method="full"),
        base_model=QUESTION.base_model,
    )
    quote = quote_record(BOOK, asked)
    assert quote["train_seconds"] == 456 and quote["flop"] == quote_record(BOOK, QUESTION)["flop"]


def test_energy_and_hosting_are_quoted_where_the_price_book_says_them() -> None:
    book = BOOK.model_copy(update={"device_watts": 65, "hosting_usd_micros_per_month": 4_000_000, "hosting_months": 6})
    quote = quote_record(book, QUESTION)
    assert quote["energy_milliwatt_hours"] == 7656  # 65 W for 424 s
    assert (quote["hosting_months"], quote["hosting_usd_micros"]) == (6, 24_000_000)
    assert quote["price_book_sha256"] != quote_record(BOOK, QUESTION)["price_book_sha256"]


FULL = BOOK.model_copy(update={"device_watts": 65, "hosting_usd_micros_per_month": 4_000_000, "hosting_months": 6})
METERS = {"prepare": (4_000, 100_000), "train": (200_500, 9_000_000), "audit": (90_000, 3_000_000)}
YEAR = measurement_pb2.AuditReport(
    measurements=[measurement_pb2.Measurement(name="cost.usd_per_year_dedicated", value=883.0, method="all year")]
)


def facts(book: PriceBook = FULL, *kinds: str, **claim: Any) -> dict[str, str]:
    known = {"quote": json.dumps(quote_record(book, QUESTION))}
    for kind in kinds:
        wall, energy = METERS[kind]
        meter = {"wall_ms": wall, "energy_uwh": energy, "energy_method": "RAPL of the package"}
        known[f"{kind}.predicate"] = json.dumps({"meter": meter, "claim": claim if kind == "train" else {}})
    return known


def beside(known: dict[str, str], *more: Any, report: Any = None) -> dict[str, tuning_job_pb2.QuotedFigure]:
    spent = Spent.of(known, 8_260, report or measurement_pb2.AuditReport(), *more)
    assert spent is not None
    return {f.name: f for f in figures(spent)}


def test_every_quoted_figure_has_what_it_came_to_beside_it() -> None:
    found = beside(facts(FULL, *METERS, trained_tokens=60_000), report=YEAR)
    seen = {name: (f.quoted, f.actual) for name, f in found.items() if f.HasField("actual")}
    flop, actual = seen.pop("flop")
    assert flop == 7.3446e13 and actual == pytest.approx(6 * 134_515_008 * 60_000, rel=1e-4)
    assert seen == {
        "train_tokens": (91_001, 60_000),
        "train_seconds": (304, 200.5),
        "audit_seconds": (120, 94.0),
        "usd": (pytest.approx(0.011872), pytest.approx(0.00826)),
        "energy": (pytest.approx(7.656), pytest.approx(12.1)),
    }
    assert found["energy"].method == "RAPL of the package" and found["energy"].unit == "Wh"
    assert "without" not in found["usd"].method


def test_hosting_is_a_forecast_and_says_so_and_permits_are_counted_once() -> None:
    known, day = facts(FULL, *METERS, trained_tokens=1), 86_400 * 10**6
    found = beside(known, report=YEAR)
    money = found["hosting_usd"]
    assert (money.quoted, money.forecast) == (24.0, 441.5) and not money.HasField("actual")
    assert money.method.startswith("forecast, not spent")
    time = found["hosting_time"]
    assert time.quoted == 6 and not time.HasField("actual") and not time.HasField("forecast")
    apart = [(0, 10 * day), (5 * day, 10 * day), (20 * day, 25 * day), (40 * day, 39 * day)]
    assert beside(known, apart)["hosting_time"].actual == pytest.approx(15 / (365.25 / 12))


def test_what_has_not_ended_or_was_not_metered_is_named_and_not_guessed() -> None:
    found = beside(facts(FULL, "prepare"))
    assert found["audit_seconds"].actual == 4.0 and found["audit_seconds"].method.endswith("without audit")
    assert found["energy"].actual == 0.1 and "without training, audit" in found["energy"].method
    assert not any(found[n].HasField("actual") for n in ("train_tokens", "flop", "train_seconds"))
    known = facts(FULL, "prepare", "train")
    known["train.predicate"] = json.dumps({"meter": {"wall_ms": "soon"}, "claim": {"trained_tokens": float("nan")}})
    odd = beside(known)
    assert not any(odd[n].HasField("actual") for n in ("train_tokens", "flop", "train_seconds"))
    nothing = beside(facts(FULL))
    assert not any(f.HasField("actual") for f in nothing.values()) and nothing["energy"].quoted


def test_what_the_price_book_does_not_say_is_not_quoted_and_still_metered() -> None:
    found = beside(facts(BOOK, *METERS, trained_tokens=1), report=YEAR)
    assert not found["energy"].HasField("quoted") and found["energy"].actual == pytest.approx(12.1)
    assert not any(found["hosting_usd"].HasField(f) for f in ("quoted", "actual", "forecast"))
    assert Spent.of({}, 0, YEAR) is None


def test_people_see_the_figures_side_by_side() -> None:
    job = tuning_job_pb2.TuningJob(name="units/u/tuningJobs/j", state="STATE_APPROVED")
    job.quote.extend(beside(facts(FULL, *METERS, trained_tokens=60_000), report=YEAR).values())
    console = Console(width=180)
    with console.capture() as shown:
        for item in describe(job):
            console.print(item)
    lines = {line.split("  ")[0].strip(): line for line in shown.get().splitlines()}
    assert "91,001" in lines["train tokens"] and "60,000" in lines["train tokens"] and "4.843e+13" in lines["flop"]
    assert "forecast 441.5" in lines["hosting usd"] and "not known" in lines["hosting time"]


def test_people_do_not_see_figures_of_which_nothing_is_known() -> None:
    job = tuning_job_pb2.TuningJob(name="units/u/tuningJobs/j", state="STATE_APPROVED")
    job.quote.extend(beside(facts(BOOK, *METERS, trained_tokens=1), report=YEAR).values())
    assert "hosting_usd" in {figure.name for figure in job.quote}
    console = Console(width=180)
    with console.capture() as shown:
        for item in describe(job):
            console.print(item)
    assert "energy" in shown.get() and "hosting" not in shown.get()
