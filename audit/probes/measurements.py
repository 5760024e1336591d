"""Builds Measurements: a number with an interval at every planned confidence, n, method and digest of its inputs.

The one place that turns statistics into the wire type. A number or bound that is not finite, and a statistic that
cannot be computed, becomes ``unavailable`` with the reason: it never looks like a valid number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from assay import canonical, digests
from assay.v1 import measurement_pb2
from audit.statistics import stats

Measurement = measurement_pb2.Measurement
Interval = measurement_pb2.Interval


@dataclass(frozen=True)
class Subject:
    """What is measured, before any number.

    Attributes:
        name: dotted measurement name.
        unit: ``ratio``, ``nats``, ``bits``, ``count``, ``seconds``, ``usd``, ``kwh``, ``kg`` or ``tokens``.
        method: how value and interval are computed, with the source.
        slice: group or stratum, such as ``stratum=B``; empty for the whole.
        exploratory: shown, never judged.
    """

    name: str
    unit: str
    method: str
    slice: str = ""
    exploratory: bool = False

    @property
    def key(self) -> str:
        """Name by which policies find it: ``name`` or ``name[slice]``."""
        return f"{self.name}[{self.slice}]" if self.slice else self.name


@dataclass(frozen=True)
class Control:
    """The same statistic where nothing could have been learned: on the base model, or on rows that were held out."""

    value: float
    kind: str


def slice_of(*parts: str) -> str:
    """A slice of several parts, the empty ones left out: ``entity_type=US_SSN,model=base``."""
    return ",".join(part for part in parts if part)


def digest_of(inputs: Any) -> str:
    """Hex SHA-256 of the canonical JSON of a measurement's inputs, with floats as decimal strings."""
    return digests.sha256_bytes(canonical.encode(canonical.float_free(_plain(inputs))))


def unavailable(subject: Subject, reason: str) -> Measurement:
    """A measurement that could not be made."""
    return Measurement(
        name=subject.name,
        unit=subject.unit,
        method=subject.method,
        slice=subject.slice,
        exploratory=subject.exploratory,
        unavailable=reason or "no reason was given",
    )


def measured(
    subject: Subject,
    value: float,
    interval: Callable[[float], tuple[float | None, float | None]] | None,
    confidences: Sequence[float],
    *,
    n: int,
    inputs: Any,
    successes: int | None = None,
    control: Control | None = None,
) -> Measurement:
    """Builds a measurement from a value and a function that gives its interval at any confidence.

    Args:
        subject: what is measured.
        value: point estimate.
        interval: bounds at a confidence; ``None`` for a bound that the method does not give, or for a count that has
            no error.
        confidences: levels of the plan.
        n: sample size that the interval rests on.
        inputs: what it was computed from, as plain data; only its digest is kept.
        successes: for a proportion.
        control: the same statistic on base or control.
    """
    out = unavailable(subject, "")
    out.unavailable = ""
    out.n, out.computed_from, out.value = n, digest_of(inputs), value
    if successes is not None:
        out.successes = successes
    if not math.isfinite(value):
        return unavailable(subject, "the statistic is not a finite number")
    try:
        bounds = [(c, *interval(c)) for c in stats.ascending(confidences)] if interval is not None else []
    except ValueError as error:
        return unavailable(subject, str(error))
    for confidence, lower, upper in bounds:
        if any(b is not None and not math.isfinite(b) for b in (lower, upper)):
            return unavailable(subject, "the interval is not finite")
        out.intervals.append(Interval(confidence=confidence, lower=lower, upper=upper))
    if control is not None and math.isfinite(control.value):
        out.control, out.control_kind = control.value, control.kind
    return out


def proportion(
    subject: Subject,
    successes: int,
    n: int,
    confidences: Sequence[float],
    *,
    inputs: Any,
    control: Control | None = None,
    empty: str = "no trial could be made",
) -> Measurement:
    """A proportion with its exact interval; unavailable for the reason ``empty`` when there was no trial."""
    if n < 1:
        return unavailable(subject, empty)

    def interval(confidence: float) -> stats.Bounds:
        return stats.clopper_pearson(successes, n, confidence)

    return measured(
        subject, successes / n, interval, confidences, n=n, inputs=inputs, successes=successes, control=control
    )


def count(subject: Subject, value: float, inputs: Any) -> Measurement:
    """A number that was counted or read off, not sampled: it has no interval."""
    return measured(subject, value, None, (), n=1, inputs=inputs)


def guarded(subject: Subject, build: Callable[[], Measurement]) -> Measurement:
    """Runs a builder; a ``ValueError`` of a statistic becomes the reason why the measurement is unavailable."""
    try:
        return build()
    except ValueError as error:
        return unavailable(subject, str(error))


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(v) for v in (sorted(value) if isinstance(value, set | frozenset) else value)]
    return value
