"""How a model came about and what of it stays unknown: untested risks, cost, isolation, evidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from audit.cards import blocks, measured
from audit.cards.blocks import facts, paragraph, section, table, word

Record = Mapping[str, Any]
TASKS = ("preparation", "training", "auditing")


def not_tested(known: Record) -> dict[str, Any]:
    """What was not measured: what the audit names, what was planned and has no number, what lies outside any audit."""
    untested = known.get("audit", {}).get("not_tested", [])
    missing = [
        [measured.label(m), m["unavailable"]]
        for m in known.get("audit", {}).get("measurements", [])
        if m.get("unavailable")
    ]
    parts = [
        paragraph("A card that lists only what passed misleads. This was not measured, and nothing follows from it."),
        table(("Not tested",), (100,), [[t] for t in untested] or [[blocks.GAP]]),
    ]
    if missing:
        parts.append(table(("Planned, but no number", "Reason"), (35, 65), missing))
    return section("not-tested", "What was not tested", *parts)


def cost(known: Record) -> dict[str, Any]:
    """Money, time and energy, each with how it was found."""
    job = known.get("job", {})
    quote, spent = job.get("quote_usd_micros"), job.get("cost_usd_micros")
    money = facts(
        [
            ("Quoted, USD", _scaled(quote, 1e6), "intake.decided"),
            ("Spent so far, USD", _scaled(spent, 1e6), "newest record of the job"),
        ]
    )
    parts = [money, *_quoted(known), _meters(known)]
    rows = [
        [measured.label(m), blocks.number(m.get("value"), 6), m.get("unavailable") or m.get("method")]
        for m in known.get("audit", {}).get("measurements", [])
        if str(m.get("name", "")).startswith("cost.")
    ]
    if rows:
        parts.append(table(("Quantity", "Value", "Method"), (28, 16, 56), rows))
    return section("cost", "Cost and energy", *parts)


def _quoted(known: Record) -> list[dict[str, Any]]:
    """Each figure of the quote beside what it came to; a forecast says that it is one."""
    rows = [
        [
            f"{str(f.get('name')).replace('_', ' ')}, {f.get('unit')}",
            blocks.number(f["quoted"], 4) if "quoted" in f else "not quoted",
            _came_to(f),
            f.get("method"),
        ]
        for f in known.get("quote", [])
    ]
    columns = ("Quoted before it started", "Quoted", "Actual", "How it was found")
    return [table(columns, (20, 14, 20, 46), rows)] if rows else []


def _came_to(figure: Mapping[str, Any]) -> str:
    if "actual" in figure:
        return blocks.number(figure["actual"], 4)
    return f"forecast {blocks.number(figure['forecast'], 4)}" if "forecast" in figure else "not known"


def isolation(known: Record) -> dict[str, Any]:
    """What each task's sandbox proved before data was opened."""
    rows, failed = [], []
    for name in TASKS:
        found = known.get(name, {}).get("isolation", {})
        probes = found.get("probes", {})
        held = sum(1 for v in probes.values() if v is True)
        failed += [f"{name}: {probe}" for probe, v in sorted(probes.items()) if v is not True]
        count = f"{held} of {len(probes)} held" if probes else None
        rows.append([name, found.get("method"), found.get("proven"), count, known.get(name, {}).get("order_sha256")])
    every = sorted({p for name in TASKS for p in known.get(name, {}).get("isolation", {}).get("probes", {})})
    parts = [
        paragraph(
            "Before data was opened each sandbox tried to get out; a probe that got through stops the task. What "
            "follows is attested by the workers' signed statements."
        ),
        table(("Task", "Method", "Cut-off proven", "Probes", "Order, SHA-256"), (12, 15, 10, 11, 52), rows),
        facts([("Probes", [p.replace("_", " ") for p in every], "worker statements")]),
    ]
    if failed:
        parts.append(table(("Probe that did not hold",), (100,), [[f] for f in failed]))
    return section("isolation", "Isolation of each task", *parts)


def evidence(known: Record) -> dict[str, Any]:
    """Where the records of this card lie."""
    ledger = known.get("ledger", {})
    rows = [[r.get("index"), r.get("type")] for r in ledger.get("records", [])]
    who = facts(
        [
            ("Ledger", ledger.get("origin"), "signed checkpoints"),
            ("Witnesses that must cosign", ledger.get("witnesses"), "quorum policy"),
            ("Trace", known.get("job", {}).get("trace_id"), "job.received"),
            ("Signatures needed", [word(r, "ROLE_").lower() for r in known.get("quorum", [])], "policy"),
            ("This card's own index and checkpoint", "on the page of approvals once issued", "card.rendered"),
        ]
    )
    parts = [who, table(("Ledger index", "Record"), (26, 74), rows or [[None, None]])]
    return section("evidence", "Evidence", *parts)


def _meters(known: Record) -> dict[str, Any]:
    rows = []
    for name in TASKS:
        meter = known.get(name, {}).get("meter", {})
        rows.append(
            [
                name,
                _scaled(meter.get("wall_ms"), 1e3),
                _scaled(meter.get("cpu_ms"), 1e3),
                _scaled(meter.get("max_rss_bytes"), 2**20),
                meter.get("attempts"),
                _scaled(meter.get("energy_uwh"), 1e6),
                meter.get("energy_method"),
            ]
        )
    columns = ("Task, metered outside", "Seconds", "CPU s", "Memory, MiB", "Starts", "Energy, Wh", "Energy method")
    return table(columns, (16, 11, 11, 12, 8, 12, 30), rows)


def _scaled(value: Any, per: float) -> str | None:
    return blocks.number(float(value) / per) if value not in (None, "") else None
