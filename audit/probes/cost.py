"""What the training cost: by the supervisor's clock, which the task cannot touch, beside the task's own claim."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
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
_MISSING = "the order does not tell {}"


def run(audit: Audit) -> Findings:
    """Reads the cost from the training statement and the order's price book; nothing is estimated."""
    training = mapping(audit.order.get("training"))
    claim, meter = mapping(training.get("claim")), mapping(training.get("meter"))
    book = mapping(audit.order.get("price_book"))
    tokens, claimed = _named(claim, "trained_tokens"), _named(claim, "train_seconds")
    wall, energy = _named(meter, "wall_ms", "train"), _named(meter, "energy_uwh")
    prepared = _named(mapping(mapping(audit.order.get("prepare")).get("meter")), "wall_ms", "prepare")
    energy_method = str(meter.get("energy_method") or "no method named")
    device = str(claim.get("device") or "cpu")
    price = {"usd_micros_per_device_second": price_of(book, device)}
    source = f"price book of {book.get('as_of', 'no date')}, {book.get('source', 'no source')}, {device}"
    clock = "supervisor's clock"
    figures = [
        _figure("cost.train_tokens", "tokens", "the task's own claim, all epochs", lambda t: t, tokens),
        _figure("cost.train_seconds", "seconds", "the task's own claim", lambda t: t, claimed),
        _figure("cost.device_seconds", "seconds", f"{clock}, one device", lambda ms: ms / 1e3, wall),
        _figure("cost.energy_kwh", "kwh", energy_method, lambda uwh: uwh / 1e9, energy),
        _figure("cost.usd", "usd", f"device seconds times price; {source}", _usd, wall, price),
        _figure(
            "cost.claim_ratio",
            "ratio",
            f"claimed seconds over the {clock}",
            lambda own, ms: own / (ms / 1e3),
            claimed,
            wall,
        ),
        _carbon(energy, energy_method, book),
        *_against_quote(wall, prepared, price, mapping(audit.order.get("quote"))),
    ]
    return Findings(tuple(figures), _loss_curve(claim))


Inputs = Mapping[str, float | None]
"""Numbers by the names under which the order has them; None where it tells none."""


def _carbon(energy: Inputs, energy_method: str, book: Mapping[str, Any]) -> Measurement:
    """Training's energy times the grid's intensity: the method names both, since neither is this probe's own."""
    grid = {"grid_gco2_per_kwh": number(book.get("grid_gco2_per_kwh")) or None}
    intensity = grid["grid_gco2_per_kwh"]
    named = book.get("grid_source") or "no source named"
    origin = f"{intensity:g} g a kWh ({named})" if intensity is not None else "no grid"
    method = f"training's energy ({energy_method}) times {origin}; location-based, without the making of hardware"
    return _figure("cost.co2_kg", "kg", method, lambda uwh, grams: uwh / 1e9 * grams / 1000, energy, grid)


def _against_quote(wall: Inputs, prepared: Inputs, price: Inputs, quote: Mapping[str, Any]) -> list[Measurement]:
    """What was spent before the audit, and training's part of it over training's part of the quote."""
    whole, part = _named(quote, "usd_micros"), _named(quote, "train_usd_micros")
    so_far = "device seconds of preparation and training times price; the audit itself is still running"
    like = (
        "training's device seconds times price over the quote's part for training; preparation and audit, which are "
        "quoted as one figure, are in neither"
    )
    return [
        _figure("cost.quote_usd", "usd", "the quote that the decision was made on", lambda q: q / 1e6, whole),
        _figure(
            "cost.usd_before_audit", "usd", so_far, lambda a, b, p: _usd(a + b, p), prepared, wall,
            price,
        ),
        _figure(
            "cost.quote_ratio", "ratio", like, lambda ms, p, q: _usd(ms, p) * 1e6 / q, wall, price, part
        ),
    ]  # fmt: skip


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


def _figure(name: str, unit: str, method: str, formula: Callable[..., float], *parts: Inputs) -> Measurement:
    """A figure by a formula of numbers that were told; its digest is that of these numbers."""
    subject = Subject(name, unit, method)
    told = {key: value for part in parts for key, value in part.items()}
    missing = [key for key, value in told.items() if value is None]
    if missing:
        return unavailable(subject, _MISSING.format(", ".join(missing)))
    try:
        return count(subject, formula(*told.values()), told)
    except ZeroDivisionError:
        return unavailable(subject, f"{', '.join(key for key, value in told.items() if not value)} is 0")


def _named(source: Mapping[str, Any], name: str, of: str = "") -> Inputs:
    """One number under its name, with whose it is before it where two have that name."""
    return {f"{of}.{name}".lstrip("."): number(source.get(name))}


def _usd(milliseconds: float, price: float) -> float:
    return milliseconds / 1000 * price / 1e6


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
