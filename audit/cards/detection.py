"""How often the audits behind a card miss a fault, and fail a clean model: the counts of the fault zoo."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from audit.cards.blocks import paragraph, section, table

ZOO = Path(__file__).with_name("zoo.json")
"""Written by ``python -m benchmarks.zoo.report``, the same as docs/zoo.json."""


def counted(path: Path = ZOO) -> list[dict[str, Any]]:
    """Rows of the zoo: fault, strength, n, detected with its Clopper-Pearson interval from low to high, and stopped."""
    rows = json.loads(path.read_text("utf-8")) if path.is_file() else []
    return [dict(row) for row in rows]


def missed(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The section: what share of planted faults was detected, claimed by its bound alone."""
    title = "How often these audits miss"
    if not rows:
        return section("detection", title, paragraph("No planted fault was counted for this release of the software."))
    lead = paragraph(
        "Models made bad on purpose, and clean ones, went through the same gateway, policy and audits, on the embedded "
        "base model's real weights. Detected: at least one gate or rule of release failed; of clean models this is a "
        "false alarm. Stopped: the job did not reach approval, if only since a gate was undecided; of clean models "
        "these are all that were held back. Claim the interval of what was detected, which holds at 95 %, and not the "
        "share. Limits and sample sizes were those of the day of the count."
    )
    lines = [
        (
            f"{row['fault']} {row['strength']}".strip(),
            row.get("told", ""),
            row["profile"],
            f"{row['detected']} of {row['n']}",
            f"{100 * row['low']:.0f} to {100 * row['high']:.0f} %",
            f"{row['stopped']} of {row['n']}",
        )
        for row in rows
    ]
    columns = ("Fault and strength", "What was done", "Audit", "Detected", "95 % interval", "Stopped")
    return section("detection", title, lead, table(columns, (17, 37, 9, 11, 15, 11), lines))
