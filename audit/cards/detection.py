"""How often the audits behind a card miss a fault, and fail a clean model: the counts of the fault zoo."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from audit.cards.blocks import Block, number, paragraph, section, table, text

ZOO = Path(__file__).with_name("zoo.json")
"""Written by ``python -m benchmarks.zoo.report``, the same as docs/zoo.json."""
NOTES = Path(__file__).with_name("zoo_notes.json")
"""Written beside it: what the counts say nothing of."""
CLEAN = "clean"


def counted(path: Path = ZOO) -> list[dict[str, Any]]:
    """Rows of the zoo: fault, strength, n, counts with their Clopper-Pearson intervals, and the planted effect."""
    rows = json.loads(path.read_text("utf-8")) if path.is_file() else []
    return [dict(row) for row in rows]


def noted(path: Path = NOTES) -> dict[str, Any]:
    """What stands beside the counts: gates ``not_asked``, faults ``not_run`` or ``not_tuned``, who judged them."""
    return dict(json.loads(path.read_text("utf-8"))) if path.is_file() else {}


def missed(rows: Sequence[Mapping[str, Any]], notes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The section: what share of planted faults was detected, claimed by its bound alone, and what was not counted."""
    title = "How often these audits miss"
    if not rows:
        return section("detection", title, paragraph("No planted fault was counted for this release of the software."))
    lead = paragraph(
        "Models made bad on purpose, and clean ones, went through the same gateway and audits under the policy that is "
        "packaged with the software, on the embedded base model's real weights; gates of which no cell had the rows "
        "are not counted. Detected: at least one gate or rule of release failed; of clean models "
        "this is a false alarm. As such: one of those failed that are there for this fault, and not only for others "
        "that the same training brings with it; for some faults there is none. Grep: a training identifier stood in "
        "the sampled answers, all that a search of generations sees. Twin: models that lack the fault. Effect: "
        "median of what shows that the model took the fault up, beside that of its twin; where they are alike, the "
        "fault did not take or the probe is blind to it. "
        "Stopped: the job did not reach approval, if only since a gate was undecided; of clean models these are all "
        "that were held back. Jobs that intake refused and jobs that failed are counted apart. Claim the interval of "
        "what was detected, which holds at 95 %, and not the share. Limits and sample sizes were those of the day of "
        "the count."
    )
    columns = (
        "Fault and strength",
        "What was done",
        "Audit",
        "Detected",
        "As such",
        "Effect",
        "Stopped",
        "Not counted",
    )
    counts = table(columns, (12, 24, 8, 12, 12, 14, 9, 9), [_line(r) for r in rows])
    return section("detection", title, lead, counts, *_beside({**(notes or {}), "fewer": fewer(rows)}))


def fewer(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Faults whose count is not whole, such as ``leak x4 3 of 12``."""
    return [f"{_name(r)} {r['n']} of {r['planned']}" for r in rows if r["n"] < r.get("planned", 0)]


def _beside(notes: Mapping[str, Any]) -> list[Block]:
    """Sentences about what the counts leave out and what they rest on; none where nothing was noted."""
    words = {
        "not_asked": "Gates that no cell was asked, for want of rows or since its data are of another kind, so that "
        "nothing is known of how often they miss: ",
        "fewer": "The count is not whole. Audited, of so many planned: ",
        "not_run": "Faults of which no cell was run yet: ",
        "not_tuned": "Faults of which no cell was tuned, since intake refused it or the job failed: ",
        "judged_by": "The cells were judged by rules of release and limits of this digest: ",
        "counted_at": "They were made by the code of these commits: ",
    }
    return [paragraph(f"{said}{text(notes[name])}.") for name, said in words.items() if notes.get(name)]


def _line(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        _name(row),
        row["told"],
        row["profile"],
        _share(row["detected"], row["low"], row["high"], row["n"]) + _grepped(row),
        _as_such(row),
        _effect(row["effect"]),
        f"{row['stopped']} of {row['n']}",
        f"{row['jobs_refused']} refused, {row['jobs_failed']} failed",
    )


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['fault']} {row['strength']}".strip()


def _as_such(row: Mapping[str, Any]) -> str:
    """Such as ``3 of 3, 29 to 100 % (twin 1 of 5)``: what the twin has in common is no sight of the fault."""
    if not row["looked_for"]:
        return "nothing looks for it" if row["fault"] != CLEAN else "-"
    low, high = row["detected_as_such_low"], row["detected_as_such_high"]
    return f"{_share(row['detected_as_such'], low, high, row['n'])} (twin {row['twin_as_such']} of {row['twin_n']})"


def _grepped(row: Mapping[str, Any]) -> str:
    """What a search of sampled answers alone would have seen, where answers were sampled."""
    return f" (grep {row['grep_only']} of {row['grep_n']})" if row["grep_n"] else ""


def _share(k: int, low: float, high: float, n: int) -> str:
    return f"{k} of {n}, {100 * low:.0f} to {100 * high:.0f} %"


def _effect(effect: Mapping[str, Any] | None) -> str:
    """Such as ``forgetting delta 0.34 (twin 0.02)``."""
    if effect is None:
        return "-"
    name = str(effect["measurement"]).partition("[")[0].rpartition(".")[2].replace("_", " ")
    median, twin = ("not measured" if v is None else number(v, 3) for v in (effect["median"], effect["twin_median"]))
    return f"{name} {median} (twin {twin})"
