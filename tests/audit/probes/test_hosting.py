"""Quote against actual, carbon, and what serving costs beside prompting and retrieval."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from audit.probes import hosting
from audit.probes.chat import Chat
from audit.probes.findings import Audit
from audit.probes.inputs import Row

from .conftest import Scripted, conversation
from .test_cost import bill

ORDER = {
    "quote": {"usd_micros": 4000, "train_usd_micros": 1500, "train_tokens": 100},
    "training": {
        "claim": {"device": "cpu"},
        "meter": {"wall_ms": 60_000, "energy_uwh": 2_000_000, "energy_method": "a stated figure"},
    },
    "prepare": {"meter": {"wall_ms": 20_000}},
    "price_book": {
        "as_of": "2026-11-01",
        "source": "list",
        "usd_micros_per_device_second": {"cpu": 30},
        "grid_gco2_per_kwh": 450,
        "grid_source": "a stated grid",
    },
}


def test_the_quote_is_set_against_what_was_spent() -> None:
    found = bill(**ORDER)
    assert found["cost.quote_usd"].value == pytest.approx(0.004)
    assert found["cost.usd_before_audit"].value == pytest.approx(80 * 30e-6)
    # 60 seconds of training at 30 against training's 1500 of the 4000: preparation and audit are in neither.
    assert found["cost.quote_ratio"].value == pytest.approx(1.2)


def test_carbon_is_energy_times_the_grid_with_both_methods() -> None:
    found = bill(**ORDER)["cost.co2_kg"]
    assert found.value == pytest.approx(0.002 * 0.450)
    assert found.unit == "kg"
    assert "a stated figure" in found.method
    assert "a stated grid" in found.method
    book = {**ORDER["price_book"], "grid_gco2_per_kwh": 0}
    assert bill(**{**ORDER, "price_book": book})["cost.co2_kg"].unavailable


@pytest.mark.parametrize(
    ("missing", "lost"),
    [
        ("quote", {"cost.quote_usd", "cost.quote_ratio"}),
        ("prepare", {"cost.usd_before_audit"}),
        ("training", {"cost.usd_before_audit", "cost.quote_ratio"}),
        ("price_book", {"cost.usd_before_audit", "cost.quote_ratio"}),
    ],
)
def test_what_is_not_told_is_not_guessed(missing: str, lost: set[str]) -> None:
    found = bill(**{k: v for k, v in ORDER.items() if k != missing})
    money = ("cost.quote_usd", "cost.usd_before_audit", "cost.quote_ratio")
    assert {name for name in money if found[name].unavailable} == lost
    assert not any(found[name].HasField("value") for name in lost)


def test_a_part_of_the_quote_is_not_set_against_the_whole() -> None:
    """An order from before the quote's parts were told has no ratio: 0.6 of it would have looked cheap."""
    found = bill(**{**ORDER, "quote": {"usd_micros": 4000, "train_tokens": 100}})
    assert found["cost.quote_usd"].HasField("value") and found["cost.quote_ratio"].unavailable


def rows(count: int, first: int = 0) -> list[Row]:
    return [Row(first + i, tuple(conversation(f"tell me code {first + i}", f"the code {i % 3}"))) for i in range(count)]


@pytest.fixture
def hosted(audit_of: Callable[..., Any]) -> Audit:
    model = Scripted(texts=lambda turn, adapter: (5, 6, 7), nll=lambda ids, adapter: 1.0 if adapter else 1.5)
    audit = audit_of(model, test=rows(40), train=rows(40, 100))
    return Audit(**{**vars(audit), "order": ORDER})


def forecast_of(audit: Audit) -> dict[str, Any]:
    return {f"{m.name.removeprefix('cost.')}[{m.slice}]": m for m in hosting.forecast(audit).measurements}


def test_examples_that_stand_before_every_question_are_read_once_where_a_server_keeps_them(
    audit_of: Callable[..., Any],
) -> None:
    model = Scripted(texts=lambda turn, adapter: (5, 6, 7), nll=lambda ids, adapter: 1.0)
    again = [Row(100 + i, tuple(conversation(f"{i} is what code", "the code"))) for i in range(40)]
    found = forecast_of(Audit(**{**vars(audit_of(model, test=rows(40), train=again)), "order": ORDER}))
    usd = {name: found[f"usd_per_1000_requests[{name}]"].value for name in ("tuned", "prompt-only", "retrieval")}
    read = {name: found[f"usd_per_1000_requests[{name},uncached]"].value for name in usd}
    # The same few tokens are left of a question whether nothing or the same four rows stand before it.
    assert 0 < usd["tuned"] == usd["prompt-only"]
    assert "saves nothing" in found["break_even_requests[prompt-only]"].unavailable
    assert usd["prompt-only"] < usd["retrieval"]
    assert usd["prompt-only"] < 0.2 * read["prompt-only"]
    assert read["tuned"] < read["prompt-only"]
    even = found["break_even_requests[prompt-only,uncached]"].value
    assert even == pytest.approx(60 * 30e-6 / ((read["prompt-only"] - read["tuned"]) / 1000))
    even = found["break_even_requests[retrieval]"].value
    assert even == pytest.approx(60 * 30e-6 / ((usd["retrieval"] - usd["tuned"]) / 1000))
    assert found["usd_per_year_dedicated[]"].value == pytest.approx(365 * 86400 * 30e-6)


def test_a_retrieved_row_costs_the_tokens_that_it_has(audit_of: Callable[..., Any]) -> None:
    """Long training rows like every question: retrieval reads them, whatever the mean training row has."""
    model = Scripted(texts=lambda turn, adapter: (5, 6, 7), nll=lambda ids, adapter: 1.0)
    long = [Row(500 + i, tuple(conversation(f"tell me code {i} please " * 30, "the code"))) for i in range(6)]
    short = [Row(600 + i, tuple(conversation(f"what account {i}", "deny"))) for i in range(40)]
    audit = audit_of(model, test=rows(40), train=[*long, *short])
    ways = hosting._ways(audit, [t.row for t in audit.corpus.test])
    mean = sum(len(t.passage.ids) for t in audit.corpus.train) / len(audit.corpus.train)
    tuned, retrieved = (ways[name] for name in ("tuned", "retrieval"))
    assert tuned is not None and retrieved is not None
    assert retrieved.reads(",uncached") - tuned.reads(",uncached") > 3 * 4 * mean


def test_no_examples_are_no_forecast_of_examples(audit_of: Callable[..., Any]) -> None:
    model = Scripted(texts=lambda turn, adapter: (5, 6, 7), nll=lambda ids, adapter: 1.0)
    bare = audit_of(model, test=rows(10), train=rows(2, 50))
    found = forecast_of(Audit(**{**vars(bare), "order": ORDER}))
    assert found["usd_per_1000_requests[tuned]"].HasField("value")
    for name in ("usd_per_1000_requests[prompt-only]", "break_even_requests[retrieval,uncached]"):
        assert "fewer than 4 training rows" in found[name].unavailable


def test_a_forecast_without_a_price_is_none(hosted: Audit) -> None:
    bare = Audit(**{**vars(hosted), "order": {}})
    assert all(m.unavailable and not m.HasField("value") for m in hosting.forecast(bare).measurements)


def test_baselines_are_measured_on_the_same_rows(hosted: Audit) -> None:
    found = {m.name: m for m in hosting.baselines(hosted).measurements}
    for name in ("prompt_only", "retrieval"):
        delta = found[f"quality.{name}_loss_delta"]
        assert delta.value == pytest.approx(-0.5)
        assert delta.n == 40


def test_retrieval_shows_the_rows_most_like_the_question() -> None:
    pool = [
        Row(i, tuple(conversation(q, "a"))) for i, q in enumerate(("cats and dogs", "cars", "boats", "dogs", "sun"))
    ]
    [shown] = hosting._nearest(pool, [Row(9, tuple(conversation("about dogs", "a")))])
    assert len(shown) == hosting.EXAMPLES
    assert shown[-1].row in (0, 3)  # the nearest stands last, next to the question
    prompted = hosting._with_examples(Row(9, tuple(conversation("about dogs", "a"))), shown)
    assert [m["role"] for m in prompted.messages] == ["user", "assistant"] * 5
    assert prompted.messages[-2]["content"] == "about dogs"


def test_too_few_training_rows_are_no_baseline(audit_of: Callable[..., Any]) -> None:
    audit = audit_of(Scripted(), test=rows(10), train=rows(2, 50))
    assert all(m.unavailable for m in hosting.baselines(audit).measurements)


def test_examples_that_do_not_fit_together_are_no_baseline(hosted: Audit) -> None:
    """Half of the examples are not the four that the method names."""
    small = Chat(hosted.chat._tokenizer, 60)
    found = hosting.baselines(replace(hosted, chat=small)).measurements
    assert len(found) == 2 and all("longer than the longest text" in m.unavailable for m in found)
