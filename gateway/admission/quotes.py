"""What a job will take, said before it starts and recorded with the decision, so that a signed checkpoint covers it.

Every figure follows from the price book, the counted tokens and the base model's size; nobody chose it for the job.
Beside each stands later what it came to (:func:`figures`); the audit sets training's money against the part of the
quote that is for training (``cost.quote_ratio``).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from assay import canonical
from assay.digests import sha256_bytes
from assay.v1 import measurement_pb2, policy_input_pb2, tuning_job_pb2
from gateway.admission.hyperparameters import WHOLE
from gateway.settings import PriceBook

FACT = "quote"
"""The fact of a job that holds its quote as recorded."""
PRICES = "price_book"
"""The fact of a job that holds the price book of its quote: an operator's edit changes no job that was decided."""

_MONTH_US = 365.25 / 12 * 86_400 * 1e6
_TASKS = {"prepare": "preparation", "train": "training", "audit": "audit"}
_DEDICATED = "cost.usd_per_year_dedicated"


def train_seconds(book: PriceBook, method: str, tokens: int) -> int:
    """Seconds of a run of so many tokens; the price book's rate is LoRA's.

    Of a frozen matrix a step needs two products for each token, forward and backward; of a trained one a third, for
    its own gradient: 6 N D operations instead of about 4 N D.
    """
    return math.ceil(tokens * (1.5 if method in WHOLE else 1) / book.train_tokens_per_second)


def quote_record(book: PriceBook, question: policy_input_pb2.IntakeInput) -> dict[str, Any]:
    """The quote as it is recorded; what the price book does not say is left out.

    Members: ``train_tokens``; ``flop`` (6 N D, an upper bound for a frozen base; Kaplan et al. 2020, arXiv 2001.08361);
    ``train_seconds`` and ``audit_seconds`` of one device; ``usd_micros``; ``energy_milliwatt_hours``; hosting for so
    many months; and the digest of the price book, as of its day.
    """
    tokens = question.request.planned_train_tokens
    train = train_seconds(book, question.request.method, tokens)
    seconds = train + book.audit_seconds
    quote: dict[str, Any] = {
        "train_tokens": tokens,
        "flop": f"{6 * question.base_model.parameters * tokens:.4e}",
        "train_seconds": train,
        "audit_seconds": book.audit_seconds,
        "device": book.device,
        "usd_micros": question.request.quote_usd_micros,
        "price_book_as_of": book.as_of.isoformat(),
        "price_book_sha256": sha256_bytes(canonical.encode(canonical.float_free(book.model_dump(mode="json")))),
    }
    if book.device_watts:
        quote["energy_milliwatt_hours"] = math.ceil(book.device_watts * seconds * 1000 / 3600)
    if book.hosting_usd_micros_per_month:
        quote["hosting_months"] = book.hosting_months
        quote["hosting_usd_micros"] = book.hosting_months * book.hosting_usd_micros_per_month
    return quote


@dataclass(frozen=True)
class Spent:
    """What is known of what a job took.

    Attributes:
        quote: as :func:`quote_record` made it.
        statements: predicates of the workers' signed statements, by kind of task; those that have ended.
        cost_usd_micros: money so far.
        report: the audit's, empty before it.
        permitted: pairs of beginning and end, in microseconds, of the time under each permit so far.
    """

    quote: Mapping[str, Any]
    statements: Mapping[str, Mapping[str, Any]]
    cost_usd_micros: int
    report: measurement_pb2.AuditReport
    permitted: Sequence[tuple[int, int]] = ()

    @classmethod
    def of(
        cls,
        facts: Mapping[str, str],
        cost_usd_micros: int,
        report: measurement_pb2.AuditReport,
        permitted: Sequence[tuple[int, int]] = (),
    ) -> Spent | None:
        """Reads a job's established facts; None for a job that has no quote."""
        if FACT not in facts:
            return None
        told = {kind: json.loads(facts[f"{kind}.predicate"]) for kind in _TASKS if f"{kind}.predicate" in facts}
        return cls(json.loads(facts[FACT]), told, cost_usd_micros, report, permitted)


def train_tokens(facts: Mapping[str, str]) -> int | None:
    """Tokens that a job trained, on the safe side: as quoted or as its training claims, whichever is more.

    The quote counts every trial of a search; the claim is the train worker's own. None where neither is known.
    """
    quote = _number(json.loads(facts.get(FACT, "{}")), "train_tokens")
    claim = _claimed(json.loads(facts.get("train.predicate", "{}")), "trained_tokens")
    known = [math.ceil(tokens) for tokens in (quote, claim) if tokens is not None]
    return max(known, default=None)


def figures(spent: Spent) -> list[tuning_job_pb2.QuotedFigure]:
    """Every figure of a quote beside what it came to; what nobody can know yet is a forecast, or says why it is not."""
    quote, told = spent.quote, spent.statements
    tokens = _claimed(told.get("train", {}), "trained_tokens")
    quoted_tokens = _number(quote, "train_tokens")
    per_token = float(quote["flop"]) / quoted_tokens if quoted_tokens else None
    wall = {kind: _metered(statement, "wall_ms", 1e3) for kind, statement in told.items()}
    energy = {kind: _metered(statement, "energy_uwh", 1e6) for kind, statement in told.items()}
    clock = "supervisors' clocks"
    return [
        _figure("train_tokens", "tokens", quoted_tokens, tokens, "counted by the training task, its own claim"),
        _figure(
            "flop", "flop", float(quote["flop"]), None if None in (tokens, per_token) else tokens * per_token,  # type: ignore[operator]
            "6 N D of the tokens trained, as quoted: an upper bound for a frozen base; no counter is read",
        ),
        _figure("train_seconds", "seconds", _number(quote, "train_seconds"), wall.get("train"), clock),
        _figure(
            "audit_seconds", "seconds", _number(quote, "audit_seconds"), _sum(wall, ("prepare", "audit")),
            _so_far(clock, wall, ("prepare", "audit")),
        ),
        _figure(
            "usd", "usd", _number(quote, "usd_micros", 1e6), spent.cost_usd_micros / 1e6 if told else None,
            _so_far("device seconds by the price book", wall, tuple(_TASKS)),
        ),
        _figure(
            "energy", "Wh", _number(quote, "energy_milliwatt_hours", 1e3), _sum(energy, tuple(_TASKS)),
            _so_far(_energy_method(told), energy, tuple(_TASKS)),
        ),
        *_hosting(spent),
    ]  # fmt: skip


def _hosting(spent: Spent) -> list[tuning_job_pb2.QuotedFigure]:
    """Serving is done elsewhere: time is that under permits, and money the audit's forecast for the quoted months."""
    months = _number(spent.quote, "hosting_months")
    time = sum(end - start for start, end in _merged(spent.permitted)) / _MONTH_US
    named = (m for m in spent.report.measurements if m.name == _DEDICATED and m.HasField("value"))
    year = next(named, None)
    forecast = None if months is None or year is None else year.value * months / 12
    method = "forecast: none without quoted months and an audit" if forecast is None or year is None else (
        f"forecast, not spent: the audit's figure for a year, for {months:g} months; {year.method}"
    )  # fmt: skip
    return [
        _figure(
            "hosting_time", "months", months, time if spent.permitted else None,
            "time under permits so far; how long it really served, only the serving side knows",
        ),
        _figure("hosting_usd", "usd", _number(spent.quote, "hosting_usd_micros", 1e6), None, method, forecast),
    ]  # fmt: skip


def _merged(intervals: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The union of intervals: two permits at once are one time."""
    out: list[tuple[int, int]] = []
    for start, end in sorted(intervals):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(end, out[-1][1]))
        elif start < end:
            out.append((start, end))
    return out


def _figure(
    name: str, unit: str, quoted: float | None, actual: float | None, method: str, forecast: float | None = None
) -> tuning_job_pb2.QuotedFigure:
    known = {"quoted": quoted, "actual": actual, "forecast": forecast}
    values = {key: value for key, value in known.items() if value is not None}
    return tuning_job_pb2.QuotedFigure(name=name, unit=unit, method=method, **values)


def _so_far(method: str, values: Mapping[str, float | None], kinds: Sequence[str]) -> str:
    """The method, and which of the tasks it does not cover: they have not ended, or their meter told nothing."""
    missing = [_TASKS[kind] for kind in kinds if values.get(kind) is None]
    return f"{method}; without {', '.join(missing)}" if missing else method


def _energy_method(told: Mapping[str, Mapping[str, Any]]) -> str:
    methods = {str(statement.get("meter", {}).get("energy_method") or "") for statement in told.values()} - {""}
    return "; ".join(sorted(methods)) or "no meter has told it"


def _sum(values: Mapping[str, float | None], kinds: Sequence[str]) -> float | None:
    known = [value for kind in kinds if (value := values.get(kind)) is not None]
    return sum(known) if known else None


def _metered(statement: Mapping[str, Any], name: str, per: float) -> float | None:
    return _number(statement.get("meter", {}), name, per)


def _claimed(statement: Mapping[str, Any], name: str) -> float | None:
    return _number(statement.get("claim", {}), name)


def _number(values: Mapping[str, Any], name: str, per: float = 1.0) -> float | None:
    """A figure as a number; None where it is absent or none (a claim is the task's own)."""
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except ValueError:
        return None
    return found / per if math.isfinite(found) and found >= 0 else None
