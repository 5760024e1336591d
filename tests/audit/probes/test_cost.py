"""The bill: read, never estimated, and silent where the statement is."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from audit.probes import cost
from audit.probes.measurements import digest_of
from trainer.recipes.objectives import METHODS


class Order(NamedTuple):
    order: dict[str, Any]


def bill(**order: Any) -> dict[str, Any]:
    return {m.name: m for m in cost.run(Order(order)).measurements}  # type: ignore[arg-type]


def test_nothing_told_is_nothing_measured() -> None:
    for order in ({}, {"training": None}, {"training": {"claim": 3, "meter": []}, "price_book": "x"}):
        found = bill(**order)
        assert all(m.unavailable and not m.HasField("value") for m in found.values())


@pytest.mark.parametrize("bad", [True, "many", "nan", "inf", -1, "-2.5", None, [1]])
def test_a_number_that_is_none_is_not_priced(bad: Any) -> None:
    found = bill(training={"claim": {"trained_tokens": bad, "train_seconds": bad}, "meter": {"wall_ms": 5000}})
    assert found["cost.train_tokens"].unavailable
    assert found["cost.claim_ratio"].unavailable
    assert found["cost.device_seconds"].value == 5


def test_a_clock_at_zero_gives_no_ratio() -> None:
    assert bill(training={"claim": {"train_seconds": 3}, "meter": {"wall_ms": 0}})["cost.claim_ratio"].unavailable


def test_a_device_without_a_price_is_not_free() -> None:
    found = bill(
        training={"claim": {"device": "cuda"}, "meter": {"wall_ms": 5000}},
        price_book={"as_of": "2026-11-01", "usd_micros_per_device_second": {"cpu": 10}},
    )
    assert found["cost.usd"].unavailable


def test_a_claim_that_differs_from_the_clock_shows() -> None:
    found = bill(training={"claim": {"train_seconds": "2.5"}, "meter": {"wall_ms": 10_000}})
    assert found["cost.claim_ratio"].value == 0.25


def test_a_digest_is_that_of_the_inputs_and_not_of_the_figure() -> None:
    """10 s at 20 and 20 s at 10 cost the same and were not computed from the same."""

    def cost_of(seconds: int, price: int) -> Any:
        book = {"usd_micros_per_device_second": {"cpu": price}}
        return bill(training={"claim": {}, "meter": {"wall_ms": 1000 * seconds}}, price_book=book)["cost.usd"]

    assert cost_of(10, 20).value == cost_of(20, 10).value
    assert cost_of(10, 20).computed_from != cost_of(20, 10).computed_from
    told = {"train.wall_ms": 10_000.0, "usd_micros_per_device_second": 20.0}
    assert cost_of(10, 20).computed_from == digest_of(told)


def test_a_damaged_loss_curve_is_left_out_point_by_point() -> None:
    curve = [[1, "2.5"], [2], "x", [3, "nan"], [4, 2.0]]
    findings = cost.run(Order({"training": {"claim": {"losses": curve}}}))  # type: ignore[arg-type]
    [series] = findings.series
    assert [list(p.values) for p in series.points] == [[1, 2.5], [4, 2.0]]


@pytest.mark.parametrize(
    ("method", "axis"),
    [("lora", "loss, nats per token"), ("dpo-hinge", "loss, hinge per pair"), ("telepathy", "loss"), (None, "loss")],
)
def test_a_loss_curve_says_what_the_method_minimised(method: str | None, axis: str) -> None:
    claim = {"losses": [[1, 2.5]], "method": method}
    [series] = cost.run(Order({"training": {"claim": claim}})).series  # type: ignore[arg-type]
    assert list(series.axes) == ["step", axis]


def test_every_method_has_a_unit_of_loss() -> None:
    assert set(cost._LOSS_UNITS) == set(METHODS)
