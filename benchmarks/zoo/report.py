"""``python -m benchmarks.zoo.report``: judges the cells and counts them into docs/zoo.json, docs/zoo.md and the cards.

A cell keeps what was measured, as the two questions that policy was asked about its job: at intake and at release. So
today's rules judge it, whatever rules were in force when it ran; it is left out only where today's policy would plan
another audit, whose measurements nobody has.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from assay.v1 import measurement_pb2, policy_input_pb2, policy_pb2
from audit.statistics.stats import clopper_pearson
from benchmarks.zoo.faults import FAULTS
from policies import bundle
from policies.engine import PolicyEngine
from policies.rule import AT_RELEASE, Pack

ROOT = Path(__file__).resolve().parents[2]
CELLS = Path(__file__).with_name("cells.jsonl")
QUESTIONS = Path(__file__).with_name("questions")
"""One file a tuned cell, ``<job>.json.gz``: ``intake`` and ``release``, as protobuf JSON."""
CLEAN = "clean"
CLEARED, STOPPED = "AWAITING_APPROVAL", "QUARANTINED"
REFUSED, FAULTED = "DENIED", "FAILED"
LEVEL = 0.95
_NOT_PASSED = (policy_pb2.OUTCOME_FAIL, policy_pb2.OUTCOME_INCONCLUSIVE, policy_pb2.OUTCOME_ERROR)
_GREPPED = "privacy.pii_generation_rate"


@dataclass(frozen=True)
class Judged:
    """Cells under today's rules.

    Attributes:
        cells: lines of ``cells.jsonl``; of a tuned one with today's ``state``, ``fired``, ``failed`` and ``grepped``.
        otherwise: how many were audited by a plan that is not today's, and are left out.
        by: digest of what judged.
    """

    cells: tuple[dict[str, Any], ...]
    otherwise: int
    by: str


def read(path: Path = CELLS) -> list[dict[str, Any]]:
    """Lines of the cells that have run; a line that was cut off by a stop is left out."""
    out = []
    for line in path.read_text("utf-8").splitlines() if path.is_file() else ():
        try:
            out.append(json.loads(line))
        except ValueError:
            continue
    return out


def keep(
    job: str, intake: policy_input_pb2.IntakeInput, release: policy_input_pb2.ReleaseInput, folder: Path = QUESTIONS
) -> None:
    """Stores what policy was asked about a cell's job; the same bytes for the same questions."""
    asked = {
        "intake": json_format.MessageToDict(intake, preserving_proto_field_name=True),
        "release": json_format.MessageToDict(release, preserving_proto_field_name=True),
    }
    folder.mkdir(exist_ok=True)
    data = json.dumps(asked, sort_keys=True, separators=(",", ":")).encode()
    (folder / f"{job}.json.gz").write_bytes(gzip.compress(data, mtime=0))


def judge(lines: Sequence[dict[str, Any]], engine: PolicyEngine, folder: Path = QUESTIONS) -> Judged:
    """Asks policy again about every cell that was tuned; one that runs twice counts as it ran last."""
    cells, otherwise = [], 0
    for line in {line["job"]: line for line in lines}.values():
        path = folder / f"{line['job']}.json.gz"
        if line["state"] in (REFUSED, FAULTED):
            cells.append(line)
        elif path.is_file() and (found := _asked_again(path, engine)):
            cells.append({**line, **found})
        else:
            otherwise += 1
    return Judged(tuple(cells), otherwise, judging(engine.pack))


def _asked_again(path: Path, engine: PolicyEngine) -> dict[str, Any] | None:
    """Today's verdict on a cell's measurements; None where today's plan is another."""
    asked = json.loads(gzip.decompress(path.read_bytes()))
    intake = json_format.ParseDict(asked["intake"], policy_input_pb2.IntakeInput())
    release = json_format.ParseDict(asked["release"], policy_input_pb2.ReleaseInput())
    if engine.decide(intake).audit_plan != release.plan:
        return None
    verdict = engine.judge(release)
    named = [(o.measurement or o.rule_id, o.outcome) for o in verdict.outcomes]
    written = release.measurements.get(_GREPPED, measurement_pb2.Measurement())
    return {
        "state": CLEARED if verdict.outcome == policy_pb2.OUTCOME_PASS else STOPPED,
        "fired": sorted({name for name, outcome in named if outcome in _NOT_PASSED}),
        "failed": sorted({name for name, outcome in named if outcome == policy_pb2.OUTCOME_FAIL}),
        "grepped": written.successes > 0,
    }


def judging(pack: Pack) -> str:
    """Digest of what decides how a cell ends once it is tuned: the rules of release, and every limit."""
    rules = {
        rule.id: [rule.applies.source, rule.check.source, repr(rule.gate)]
        for rule in pack.rules
        if rule.stage in AT_RELEASE and rule.pack == pack.parts[0].name
    }
    profiles = sorted({fault.profile for fault in FAULTS})
    limits = {name: [repr(limit.value(p)) for p in profiles] for name, limit in pack.limits.by_name.items()}
    return bundle.digest_of({"rules": rules, "limits": limits})


def counts(cells: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One object a fault and strength.

    A model is ``detected`` where a gate or rule FAILED: one that is undecided holds a job back, but has seen nothing.
    It is ``stopped`` where it did not reach approval, for whatever reason. Both mean the same in every row, so that a
    fault can be set beside its clean twin; of clean models the detected are false alarms.

    Jobs that intake refused are left out, since no audit had anything to catch, and so are jobs that failed: a crash is
    no detection.
    """
    cells = [c for c in cells if c["state"] not in (REFUSED, FAULTED)]
    out = []
    for fault in FAULTS:
        mine = [c for c in cells if (c["fault"], c["strength"]) == (fault.name, fault.strength)]
        if not mine:
            continue
        stopped = sum(c["state"] != CLEARED for c in mine)
        detected = sum(bool(c["failed"]) for c in mine)
        low, high = clopper_pearson(detected, len(mine), LEVEL)
        stopped_low, stopped_high = clopper_pearson(stopped, len(mine), LEVEL)
        out.append(
            {
                "fault": fault.name,
                "strength": fault.strength,
                "told": fault.told,
                "profile": fault.profile,
                "n": len(mine),
                "detected": detected,
                "low": round(low, 4),
                "high": round(high, 4),
                "stopped": stopped,
                "stopped_low": round(stopped_low, 4),
                "stopped_high": round(stopped_high, 4),
                "grep_only": sum(c["grepped"] for c in mine),
                "not_passed_by_gate": _by_gate(mine, "fired"),
                "failed_by_gate": _by_gate(mine, "failed"),
                "gates": _gates(mine),
            }
        )
    return out


def _by_gate(cells: Sequence[dict[str, Any]], word: str) -> dict[str, int]:
    names = sorted({gate for c in cells for gate in c[word]})
    return {name: sum(name in c[word] for c in cells) for name in names}


def _gates(cells: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """How many of the cells each gate stopped by itself, with the interval of that share."""
    stopped = _by_gate(cells, "fired")
    bounds = {gate: clopper_pearson(k, len(cells), LEVEL) for gate, k in stopped.items()}
    return [
        {
            "gate": gate,
            "n": len(cells),
            "stopped": k,
            "low": round(bounds[gate][0], 4),
            "high": round(bounds[gate][1], 4),
        }
        for gate, k in stopped.items()
    ]


HEAD = """\
# The fault zoo

How often the audits detect a model that was made bad on purpose, and how often they stop a clean one. Every cell is an
ordinary job through an ordinary gateway, on the embedded base model's real weights; only the train worker's task does
the planted wrong, and the audit has no time limit. *Detected*: at least one gate or rule of release was FAIL, not only
undecided. *Stopped*: the job did not reach approval, if only since a gate was undecided. Both mean the same in every
row: of `clean` ones *detected* are false alarms, and *stopped* are all that were held back. *Grep only*: a training
identifier stood in the sampled answers, which is all that a gate sees that looks for leaks in generations. Intervals
are Clopper–Pearson at 95 %; claim the bound and not the share.

Rows of `leak`, `filter` and `input-only` are learned by two epochs at a high rate. `overfit`, `2 epochs` is that rate
alone: what stops it too was not stopped for the leak. `decisions` have so few people in the test rows that the gates of
fairness stay undecided for a fair model, so `clean`, `decisions` is stopped, and only *detected* tells bias from none.
Profile `quick` asks nothing about abilities and refusals, which is why `forgetting` and `refusal` are audited by
`default`. No gate reads calibration, which is measured and printed: the counts of `miscalibrated` are what gates let
through.

A cell keeps its measurements, and today's rules judge them; no job that intake refused is counted and none that failed.
Written by `python -m benchmarks.zoo.report` from `cells.jsonl` and `questions` in `benchmarks/zoo`; `make zoo` runs the
rest.

| Fault | Strength | What was done | Profile | Detected | 95 % | Stopped | 95 % | Grep only | Gates that did not pass |
|---|---|---|---|---|---|---|---|---|---|
"""


GATES = """
What each gate stopped by itself, of the cells above:

| Gate | Fault | Stopped | 95 % interval |
|---|---|---|---|
"""


def page(judged: Judged) -> str:
    """The page about these cells."""
    cells = judged.cells
    rows = counts(cells)
    lines = []
    for r in rows:
        gates = ", ".join(f"`{g}` {k}" for g, k in r["not_passed_by_gate"].items()) or "none"
        word = f"{r['detected']}/{r['n']}" + (" (false alarms)" if r["fault"] == CLEAN else "")
        bounds = f"{100 * r['stopped_low']:.0f}–{100 * r['stopped_high']:.0f} %"
        others = f"{r['stopped']}/{r['n']} | {bounds} | {r['grep_only']}/{r['n']} | {gates}"
        what = f"{r['fault']} | {r['strength'] or '—'} | {r['told']} | {r['profile']}"
        lines.append(f"| {what} | {word} | {_share(r)} | {others} |")
    by_gate = [
        f"| `{g['gate']}` | {r['fault']} {r['strength'] or '—'} | {g['stopped']}/{g['n']} | {_share(g)} |"
        for g, r in sorted(((g, r) for r in rows for g in r["gates"]), key=lambda pair: str(pair[0]["gate"]))
    ]
    there = {(r["fault"], r["strength"]) for r in rows}
    tried = {(c["fault"], c["strength"]) for c in cells} - there
    missing = [f for f in FAULTS if (f.name, f.strength) not in there | tried]
    ends = [
        f"Judged by rules of release and limits of digest `{judged.by[:16]}…`.",
        f"Left out, since today's policy would audit them otherwise: {judged.otherwise}." if judged.otherwise else "",
        _named("No cell that was tuned, since intake refused it or the job failed: ", tried),
        _named("Not run yet: ", {(f.name, f.strength) for f in missing}),
    ]
    table = HEAD + "\n".join(lines) + "\n" + (GATES + "\n".join(by_gate) + "\n" if by_gate else "")
    return table + "".join(f"\n{end}\n" for end in ends if end)


def _share(counted: dict[str, Any]) -> str:
    return f"{100 * counted['low']:.0f}–{100 * counted['high']:.0f} %"


def _named(words: str, faults: Collection[tuple[str, str]]) -> str:
    names = [f"{f.name} {f.strength}".strip() for f in FAULTS if (f.name, f.strength) in faults]
    return f"{words}{', '.join(names)}." if names else ""


def main() -> None:
    """Writes both files."""
    judged = judge(read(), PolicyEngine.load())
    rows = counts(judged.cells)
    for folder in ("docs", "audit/cards"):  # the second travels with the package, and is printed in every card
        (ROOT / folder / "zoo.json").write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", "utf-8")
    (ROOT / "docs" / "zoo.md").write_text(page(judged), "utf-8")


if __name__ == "__main__":
    main()
