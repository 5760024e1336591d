"""A job for people: what it does, where it stands, why, and what would change the answer."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

from assay.v1 import policy_input_pb2, policy_pb2, tuning_job_pb2
from gateway.cli.output import state_name, table, usd

State = tuning_job_pb2.TuningJob.State


def detail(progress: tuning_job_pb2.Progress) -> str:
    """What a stage has reached beside its steps: loss, speed, time left, and what it has used."""
    parts = [progress.message] if progress.message else []
    if "loss" in progress.metrics:
        parts.append(f"loss {progress.metrics['loss']:.3f}")
    if "tokens_per_s" in progress.metrics:
        parts.append(f"{progress.metrics['tokens_per_s']:.0f} tokens/s")
    if progress.HasField("seconds_left"):
        parts.append(f"{progress.seconds_left:.0f} s left")
    if progress.HasField("flop"):
        parts.append(f"{progress.flop:.1e} FLOP")
    if progress.meter.wall_ms:
        how = progress.meter.energy_method.partition(":")[0]
        energy = f"{progress.meter.energy_uwh / 1e6:.2f} Wh {how}".rstrip()
        parts.append(f"{progress.meter.wall_ms / 1000:.0f} s metered, {energy}")
    return " · ".join(parts)


def describe(job: tuning_job_pb2.TuningJob) -> list[Any]:
    """A job for people: where it stands, why, and what would change the answer."""
    lines: list[Any] = [f"{job.name}  {state_name(State.Name(job.state))}"]
    if job.reason:
        lines.append(f"  {job.reason}")
    if job.audit_profile:
        lines.append(f"  audit profile {job.audit_profile}")
    lines += [f"  {line}" for line in use_lines(job.use, job.decision.use_reading)]
    if job.HasField("appeal_due_time"):
        answer_by = job.appeal_due_time.ToDatetime(dt.UTC)
        overdue = " (overdue)" if answer_by < dt.datetime.now(dt.UTC) else ""
        lines.append(f"  an appeal waits, to be answered by {answer_by.date()}{overdue}")
    if job.HasField("decision"):
        lines += outcomes("Intake decision", "allowed" if job.decision.allowed else "denied", job.decision.outcomes)
        lines += _fix(job.decision.minimal_fix) if job.decision.HasField("minimal_fix") else []
    lines += _labels(job.data)
    if job.trials:
        lines += _trials(job.trials)
    if job.HasField("verdict"):
        word = policy_pb2.Outcome.Name(job.verdict.outcome).removeprefix("OUTCOME_")
        lines += outcomes("Release verdict", word, job.verdict.outcomes)
    if job.cost_usd_micros:
        lines.append(f"  cost {usd(job.cost_usd_micros)} of {usd(job.quote_usd_micros)} quoted")
    # What is neither quoted nor known says nothing here; --output json and the card list it.
    figures = [_figure(f) for f in job.quote if any(map(f.HasField, ("quoted", "actual", "forecast")))]
    if figures:
        lines.append(table(("", "quoted", "actual", "unit", "how"), figures))
    if job.etag:
        lines.append(f"  etag {job.etag}  trace {job.trace_id}")
    return lines


def use_lines(use: policy_input_pb2.UseDeclaration, read: policy_pb2.UseReading) -> list[str]:
    """A declared use for people: every member that was declared, how policy read it, and which packs were asked."""
    said = [f"{field.name.replace('_', ' ')} {_declared(value)}" for field, value in use.ListFields()]
    lines = [f"declared use: {'; '.join(said) or 'none'}"]
    if read.packs:
        unknown = f" (unknown: {', '.join(read.unknown_places)})" if read.unknown_places else ""
        lines += [
            f"read as: places {', '.join(read.places) or 'none'}{unknown}; uses {', '.join(read.uses) or 'none'}; "
            f"{'decides' if read.decides else 'does not decide'} about people; "
            f"high-risk by {read.high_risk_by or 'nothing'}",
            f"packs asked: {', '.join(read.packs)}; not chosen: {', '.join(read.packs_not_chosen) or 'none'}",
        ]
    return lines


def _declared(value: Any) -> str:
    """A member of a declaration for people; of documents their kinds."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else ", ".join(getattr(item, "kind", item) for item in value)


def _figure(figure: tuning_job_pb2.QuotedFigure) -> tuple[str, ...]:
    """A figure of the quote for people: a forecast says that it is one."""
    actual = "not known"
    if figure.HasField("actual"):
        actual = _reading(figure.actual)
    elif figure.HasField("forecast"):
        actual = f"forecast {_reading(figure.forecast)}"
    quoted = _reading(figure.quoted) if figure.HasField("quoted") else "not quoted"
    return figure.name.replace("_", " "), quoted, actual, figure.unit, figure.method


def _reading(value: float) -> str:
    return f"{value:,.0f}" if 1_000 <= value < 1e9 else f"{value:.4g}"


def _labels(data: policy_input_pb2.DataFacts) -> list[Any]:
    """How often the rows of each group have the favourable label; the group that has it most often is the reference."""
    if not data.group_labels:
        return []
    head = ("group", "rows", "favourable", "rate", "CI", "DPL", "impact ratio", "")
    rows = [
        (
            f"{g.attribute}={g.value}", f"{g.rows:,}" if g.rows else "",
            f"{g.favourable:,}" if g.HasField("favourable") else "",
            _bounded(g, "rate"), f"{g.class_imbalance:.3f}" if g.HasField("class_imbalance") else "",
            _bounded(g, "label_difference"), _bounded(g, "impact_ratio"),
            f"inconclusive: {g.inconclusive}" if g.inconclusive else "reference" if g.reference else "",
        )
        for g in data.group_labels
    ]  # fmt: skip
    return [f"  Labels by group, favourable is {data.favourable_label}, intervals at 95 %", table(head, rows)]


def _bounded(found: policy_input_pb2.GroupLabels, name: str) -> str:
    if not found.HasField(name):
        return ""
    value, lower, upper = (getattr(found, f"{name}{end}") for end in ("", "_lower", "_upper"))
    return f"{value:.3f} [{lower:.3f}, {upper:.3f}]"


def _trials(trials: Sequence[tuning_job_pb2.Trial]) -> list[Any]:
    """Every trial of a search; the lowest loss on the selection split was kept."""
    head = ("trial", "rank", "learning rate", "tokens", "steps", "selection loss", "validation loss", "")
    rows = [
        (
            str(number), str(t.lora_rank or "none"), f"{t.learning_rate:g}", f"{t.tokens:,}", str(t.steps),
            f"{t.selection_loss:.4f}" if t.HasField("selection_loss") else t.failed,
            f"{t.validation_loss:.4f}" if t.HasField("validation_loss") else "", "kept" if t.chosen else "",
        )
        for number, t in enumerate(trials, 1)
    ]  # fmt: skip
    return [f"  Search: {len(trials)} trials, judged on the selection split", table(head, rows)]


def _fix(fix: policy_pb2.MinimalFix) -> list[Any]:
    head = "would not be enough" if fix.left else "would pass, as policy said when it was asked"
    lines: list[Any] = [f"  Smallest change ({head}):"] if fix.steps else []
    for step in fix.steps:
        rows = f" Rows {', '.join(map(str, step.rows[:20]))}{'…' if len(step.rows) > 20 else ''}." if step.rows else ""
        lines.append(f"    {step.words}{rows} ({', '.join(step.rule_ids)})")
    return [*lines, *([f"  No change of the request was found for {', '.join(fix.left)}"] if fix.left else [])]


def outcomes(title: str, word: str, found: Sequence[policy_pb2.RuleOutcome]) -> list[Any]:
    """A decision or verdict for people: each rule that did not pass, why, and what would make it pass."""
    shown = [o for o in found if o.outcome not in (policy_pb2.OUTCOME_PASS, policy_pb2.OUTCOME_NOT_APPLICABLE)]
    lines: list[Any] = [f"  {title}: {word} ({len(found)} rules, {len(shown)} not passed)"]
    for o in shown:
        lines.append(f"    {policy_pb2.Outcome.Name(o.outcome).removeprefix('OUTCOME_')} {o.rule_id}: {o.message}")
        lines.append(f"      source: {o.citation}{' (' + o.caveat + ')' if o.caveat else ''}")
        if o.rows:
            more = f" and {o.row_count - len(o.rows)} more" if o.row_count > len(o.rows) else ""
            lines.append(f"      rows: {', '.join(map(str, o.rows[:20]))}{'…' if len(o.rows) > 20 else ''}{more}")
        if o.HasField("n_required"):
            lines.append(f"      n that would decide: {o.n_required}")
        if o.fix:
            lines.append(f"      to pass: {o.fix}")
    return lines
