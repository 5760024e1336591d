"""What the training cost: by the supervisor's clock, which the task cannot touch, beside the task's own claim."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from assay.v1 import measurement_pb2
from audit.probes.findings import Audit, Findings, series
from audit.probes.measurements import Measurement, Subject, count, unavailable

_MISSING = "the training statement does not tell {}"


def run(audit: Audit) -> Findings:
    """Reads the cost from the training statement and the order's price book; nothing is estimated."""
    training = _mapping(audit.order.get("training"))
    claim, meter = _mapping(training.get("claim")), _mapping(training.get("meter"))
    book = _mapping(audit.order.get("price_book"))
    wall = _seconds(meter.get("wall_ms"))
    claimed = number(claim.get("train_seconds"))
    energy = number(meter.get("energy_uwh"))
    energy_method = str(meter.get("energy_method") or "no method named")
    device = str(claim.get("device") or "cpu")
    price = number(_mapping(book.get("usd_micros_per_device_second")).get(device))
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
    return Findings(tuple(measurements), _loss_curve(claim))


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
    return (series("loss_curve", ("step", "loss, nats per token"), points),) if points else ()


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _seconds(milliseconds: Any) -> float | None:
    found = number(milliseconds)
    return None if found is None else found / 1000
