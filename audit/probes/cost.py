"""What the training cost: by the supervisor's clock, which the task cannot touch, beside the task's own claim."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from assay.v1 import measurement_pb2
from audit.probes.findings import Audit, Findings, series
from audit.probes.measurements import Measurement, Subject, count, unavailable

# What a row's loss is, by the method that was claimed: a curve of preferences is not one of likelihoods.
_LOSS_UNITS = {
    "lora": "nats per token",
    "qlora": "nats per token",
    "full": "nats per token",
    "distillation": "nats per token",
    "classification": "nats per row",
    "dpo": "nats per pair",
    "dpo-hinge": "hinge per pair",
    "dpo-ipo": "squared nats per pair",
}
_MISSING = "the training statement does not tell {}"


def run(audit: Audit) -> Findings:
    """Reads the cost from the training statement and the order's price book; nothing is estimated."""
    training = mapping(audit.order.get("training"))
    claim, meter = mapping(training.get("claim")), mapping(training.get("meter"))
    book = mapping(audit.order.get("price_book"))
    wall = _seconds(meter.get("wall_ms"))
    claimed = number(claim.get("train_seconds"))
    energy = number(meter.get("energy_uwh"))
    energy_method = str(meter.get("energy_method") or "no method named")
    device = str(claim.get("device") or "cpu")
    price = price_of(book, device)
    source = f"price book of {book.get('as_of', 'no date')}, {book.get('source', 'no source')}, {device}"
    tokens = number(claim.get("trained_tokens"))
    usd = wall * price / 1e6 if wall is not None and price is not None else None
    ratio = claimed / wall if claimed is not None and wall else None
    clock = "supervisor's clock"
    measurements = [
        _figure("cost.train_tokens", "tokens", "the task's own claim, all epochs", tokens, "the trained tokens"),
        _figure("cost.train_seconds", "seconds", "the task's own claim", claimed, "the task's own seconds"),
        _figure("cost.device_seconds", "seconds", f"{clock}, one device", wall, "the supervisor's seconds"),
        _figure("cost.energy_kwh", "kwh", energy_method, None if energy is None else energy / 1e9, "its energy"),
        _figure("cost.usd", "usd", f"device seconds times price; {source}", usd, "seconds, or the order no price"),
        _figure("cost.claim_ratio", "ratio", f"claimed seconds over the {clock}", ratio, "both clocks"),
    ]
    spent = _Spent(audit.order, price, energy, energy_method)
    return Findings((*measurements, *_carbon(spent, book), *_against_quote(spent)), _loss_curve(claim))


@dataclass(frozen=True)
class _Spent:
    """What is known of a job's cost before its audit ends."""

    order: Mapping[str, Any]
    price: float | None
    energy: float | None
    energy_method: str

    @property
    def seconds(self) -> float | None:
        """Preparation and training by their supervisors' clocks."""
        parts = [
            number(mapping(mapping(self.order.get(k)).get("meter")).get("wall_ms")) for k in ("prepare", "training")
        ]
        return None if None in parts else sum(p for p in parts if p is not None) / 1000


def _carbon(spent: _Spent, book: Mapping[str, Any]) -> list[Measurement]:
    """Training's energy times the grid's intensity: the method names both, since neither is this probe's own."""
    grid = number(book.get("grid_gco2_per_kwh")) or None
    origin = f"{grid:g} g a kWh ({book.get('grid_source') or 'no source named'})" if grid is not None else "no grid"
    method = f"training's energy ({spent.energy_method}) times {origin}; location-based, without the making of hardware"
    kilograms = None if grid is None or spent.energy is None else spent.energy / 1e9 * grid / 1000
    return [_figure("cost.co2_kg", "kg", method, kilograms, "its energy, or the price book no grid")]


def _against_quote(spent: _Spent) -> list[Measurement]:
    """What was spent before the audit over the same part of the quote."""
    quote = mapping(spent.order.get("quote"))
    promised, seconds = number(quote.get("usd_micros")), spent.seconds
    actual = None if seconds is None or spent.price is None else seconds * spent.price / 1e6
    usd = None if promised is None else promised / 1e6
    ratio = actual / usd if actual is not None and usd else None
    so_far = "device seconds of preparation and training times price; the audit itself is still running"
    return [
        _figure("cost.quote_usd", "usd", "the quote that the decision was made on", usd, "the quote"),
        _figure("cost.usd_before_audit", "usd", so_far, actual, "both clocks"),
        _figure("cost.quote_ratio", "ratio", f"spent over quoted; {so_far}", ratio, "the quote or both clocks"),
    ]


def price_of(book: Mapping[str, Any], device: str) -> float | None:
    """Millionths of a US dollar for a second of a device; None where the book names none."""
    return number(mapping(book.get("usd_micros_per_device_second")).get(device))


def audit_seconds(elapsed: float) -> Measurement:
    """Seconds that the audit itself took."""
    return count(Subject("cost.audit_seconds", "seconds", "the audit's own clock"), elapsed, {"seconds": elapsed})


def number(value: Any) -> float | None:
    """A finite, non-negative number written as a number or a decimal string; else None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except ValueError:
        return None
    return found if math.isfinite(found) and found >= 0 else None


def _figure(name: str, unit: str, method: str, value: float | None, what: str) -> Measurement:
    subject = Subject(name, unit, method)
    if value is None:
        return unavailable(subject, _MISSING.format(what))
    return count(subject, value, {"value": value, "method": method})


def _loss_curve(claim: Mapping[str, Any]) -> tuple[measurement_pb2.Series, ...]:
    points = []
    for entry in claim.get("losses") or ():
        if isinstance(entry, list | tuple) and len(entry) >= 2:
            step, loss = number(entry[0]), number(entry[1])
            if step is not None and loss is not None:
                points.append(("train", (step, loss)))
    unit = _LOSS_UNITS.get(str(claim.get("method")), "")
    return (series("loss_curve", ("step", f"loss, {unit}" if unit else "loss"), points),) if points else ()


def mapping(value: Any) -> Mapping[str, Any]:
    """A mapping, or an empty one where something else was sent."""
    return value if isinstance(value, Mapping) else {}


def _seconds(milliseconds: Any) -> float | None:
    found = number(milliseconds)
    return None if found is None else found / 1000
