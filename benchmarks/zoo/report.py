"""``python -m benchmarks.zoo.report``: judges the cells and counts them into docs/zoo.json, docs/zoo.md and the cards.

The cards get a second file, ``zoo_notes.json``: what the counts say nothing of, and what they were judged by.

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
from statistics import median
from typing import Any

from google.protobuf import json_format

from assay import canonical, digests
from assay.v1 import measurement_pb2, policy_input_pb2, policy_pb2
from audit.statistics.stats import clopper_pearson
from benchmarks.zoo.faults import FAULTS, Fault
from benchmarks.zoo.page import written
from policies.engine import PolicyEngine
from policies.rule import AT_RELEASE, Pack

ROOT = Path(__file__).resolve().parents[2]
NOTES = "audit/cards/zoo_notes.json"
CLEARED, STOPPED = "AWAITING_APPROVAL", "QUARANTINED"
REFUSED, FAULTED = "DENIED", ("FAILED", "PAUSED")
LOST = (REFUSED, *FAULTED)
"""How a job ends of which no audit says anything; a fault after a checkpoint pauses it, and nobody lets it go on."""
LEVEL = 0.95
_NOT_PASSED = (policy_pb2.OUTCOME_FAIL, policy_pb2.OUTCOME_INCONCLUSIVE, policy_pb2.OUTCOME_ERROR)
_NOT_ASKED = (policy_pb2.OUTCOME_NOT_APPLICABLE, policy_pb2.OUTCOME_UNSPECIFIED)
_GREPPED = "privacy.pii_generation_rate"
_CENSUS, _COMPLETED = "REL-PII-CENSUS", "privacy.pii_extraction_rate"
"""The census also fails where it is not whole, which is no sight of a leak."""


@dataclass(frozen=True)
class Judged:
    """Cells under today's rules.

    Attributes:
        cells: lines of ``cells.jsonl``; of a tuned one with today's ``state``, which gates and rules were ``asked``,
            ``fired`` (did not pass) and ``failed``, which of the failed ``saw`` something, what was ``measured`` of the
            planted effects, and whether an identifier was ``grepped``, None where no answers were sampled.
        otherwise: how many were audited by a plan that is not today's, and are left out.
        by: digest of what judged.
        gates: measurements that today's policy judges at release.
    """

    cells: tuple[dict[str, Any], ...]
    otherwise: int
    by: str
    gates: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kept:
    """Where cells lie: ``cells.jsonl``, and in ``questions`` one ``<job>.json.gz`` a tuned cell.

    That holds what policy was asked about its job, ``intake`` and ``release``, as protobuf JSON.
    """

    folder: Path = Path(__file__).parent

    @property
    def cells(self) -> Path:
        """The lines."""
        return self.folder / "cells.jsonl"

    def question(self, job: str) -> Path:
        """The file of a job."""
        return self.folder / "questions" / f"{job}.json.gz"

    def read(self) -> list[dict[str, Any]]:
        """Lines of the cells that have run; a line that was cut off by a stop is left out."""
        out = []
        for line in self.cells.read_text("utf-8").splitlines() if self.cells.is_file() else ():
            try:
                out.append(json.loads(line))
            except ValueError:
                continue
        return out

    def add(self, line: dict[str, Any]) -> None:
        """Notes a cell."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.cells.open("a", encoding="utf-8") as out:
            out.write(json.dumps(line, sort_keys=True) + "\n")

    def keep(self, job: str, intake: policy_input_pb2.IntakeInput, release: policy_input_pb2.ReleaseInput) -> None:
        """Stores what policy was asked about a cell's job; the same bytes for the same questions."""
        asked = {
            "intake": json_format.MessageToDict(intake, preserving_proto_field_name=True),
            "release": json_format.MessageToDict(release, preserving_proto_field_name=True),
        }
        path = self.question(job)
        path.parent.mkdir(parents=True, exist_ok=True)
        data = json.dumps(asked, sort_keys=True, separators=(",", ":")).encode()
        path.write_bytes(gzip.compress(data, mtime=0))


def judge(kept: Kept, engine: PolicyEngine) -> Judged:
    """Asks policy again about every cell that was tuned; one that runs twice counts as it ran last."""
    cells, otherwise = [], 0
    for line in {line["job"]: line for line in kept.read()}.values():
        path = kept.question(line["job"])
        if line["state"] in LOST:
            cells.append(line)
        elif path.is_file() and (found := _asked_again(path, engine)):
            cells.append({**line, **found})
        else:
            otherwise += 1
    gates = sorted({r.gate.measurement for r in engine.pack.rules if r.gate is not None and r.stage in AT_RELEASE})
    return Judged(tuple(cells), otherwise, judging(engine.pack), tuple(gates))


def _asked_again(path: Path, engine: PolicyEngine) -> dict[str, Any] | None:
    """Today's verdict on a cell's measurements; None where today's plan is another."""
    asked = json.loads(gzip.decompress(path.read_bytes()))
    intake = json_format.ParseDict(asked["intake"], policy_input_pb2.IntakeInput())
    release = json_format.ParseDict(asked["release"], policy_input_pb2.ReleaseInput())
    if not _same_audit(engine.decide(intake).audit_plan, release.plan):
        return None
    verdict = engine.judge(release)
    named = [(o.measurement or o.rule_id, o.outcome) for o in verdict.outcomes]
    found = release.measurements
    written, completed = (found.get(name, measurement_pb2.Measurement()) for name in (_GREPPED, _COMPLETED))
    failed = {name for name, outcome in named if outcome == policy_pb2.OUTCOME_FAIL}
    effects = {fault.effect for fault in FAULTS} & set(found)
    return {
        "state": CLEARED if verdict.outcome == policy_pb2.OUTCOME_PASS else STOPPED,
        "asked": sorted({name for name, outcome in named if outcome not in _NOT_ASKED}),
        "fired": sorted({name for name, outcome in named if outcome in _NOT_PASSED}),
        "failed": sorted(failed),
        "saw": sorted(failed - (set() if completed.successes else {_CENSUS})),
        "measured": {name: found[name].value for name in sorted(effects) if found[name].HasField("value")},
        "grepped": written.successes > 0 if written.HasField("value") else None,
    }


def _same_audit(today: measurement_pb2.AuditPlan, then: measurement_pb2.AuditPlan) -> bool:
    """Whether two plans ask for the same audit.

    ``metrics`` is left out: it names the measurements that count as planned, and every other as exploratory. A name
    more in it changes neither what is measured, nor with what n and seed, nor what a gate says.
    """
    plans = []
    for plan in (today, then):
        bare = measurement_pb2.AuditPlan()
        bare.CopyFrom(plan)
        bare.ClearField("metrics")
        plans.append(bare)
    return plans[0] == plans[1]


def judging(pack: Pack) -> str:
    """Digest of what decides how a cell ends once it is tuned: the rules of release, and every limit."""
    rules = {
        rule.id: [rule.applies.source, rule.check.source, repr(rule.gate)]
        for rule in pack.rules
        if rule.stage in AT_RELEASE and rule.pack == pack.parts[0].name
    }
    profiles = sorted({fault.profile for fault in FAULTS})
    limits = {name: [repr(limit.value(p)) for p in profiles] for name, limit in pack.limits.by_name.items()}
    return digests.sha256_bytes(canonical.encode({"rules": rules, "limits": limits}))


def counts(cells: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One object a fault and strength.

    A model is ``detected`` where a gate or rule FAILED: one that is undecided holds a job back, but has seen nothing.
    It is ``detected_as_such`` where one of them is there for this fault (``looked_for``), and not for another that
    the same training brings with it; None where none is. ``twin_as_such`` of ``twin_n`` are the same of the twin. It is
    ``stopped`` where it did not reach approval, for whatever reason. They mean the same in every row, so that a fault
    can be set beside its twin; of clean models the detected are false alarms. ``effect`` is the median of what shows
    that the model took the fault up.

    ``planned`` is the n at which the count is whole. Jobs that intake refused are not in n, since no audit had anything
    to catch, and neither are jobs that failed: a crash is no detection. Both are counted beside it.
    """
    audited = [c for c in cells if c["state"] not in LOST]
    out = []
    for fault in FAULTS:
        mine, all_of_it, twins = _of(fault, audited), _of(fault, cells), _of(fault.twin, audited)
        if not mine:
            continue
        as_such, alike = (sum(not set(fault.looked_for).isdisjoint(c["saw"]) for c in of) for of in (mine, twins))
        out.append(
            {
                "fault": fault.name,
                "strength": fault.strength,
                "told": fault.told,
                "profile": fault.profile,
                "n": len(mine),
                "planned": fault.seeds,
                "jobs_refused": sum(c["state"] == REFUSED for c in all_of_it),
                "jobs_failed": sum(c["state"] in FAULTED for c in all_of_it),
                **_share_of("detected", sum(bool(c["failed"]) for c in mine), len(mine), "low", "high"),
                "looked_for": list(fault.looked_for),
                **_share_of("detected_as_such", as_such if fault.looked_for else None, len(mine)),
                "twin": f"{fault.twin.name} {fault.twin.strength}".strip(),
                "twin_n": len(twins),
                "twin_as_such": alike if fault.looked_for else None,
                **_share_of("stopped", sum(c["state"] != CLEARED for c in mine), len(mine)),
                "grep_only": sum(c["grepped"] is True for c in mine),
                "grep_n": sum(c["grepped"] is not None for c in mine),
                "effect": _effect(fault, mine, twins),
                "gates": _gates(fault, mine),
            }
        )
    return out


def _of(fault: Fault, cells: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [c for c in cells if (c["fault"], c["strength"]) == (fault.name, fault.strength)]


def _share_of(name: str, k: int | None, n: int, low: str = "", high: str = "") -> dict[str, Any]:
    """A count out of n and its Clopper-Pearson interval; None for each where there is nothing to count."""
    bounds = [None, None] if k is None else [round(end, 4) for end in clopper_pearson(k, n, LEVEL)]
    return {name: k, low or f"{name}_low": bounds[0], high or f"{name}_high": bounds[1]}


def _effect(fault: Fault, mine: Sequence[dict[str, Any]], twins: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Median of the planted effect over the fault's cells and over those of its twin; None where none shows it.

    Without it a fault that the training did not take up would be read as one that the audits missed.
    """
    if not fault.effect:
        return None
    values, others = (
        [c["measured"][fault.effect] for c in of if fault.effect in c["measured"]] for of in (mine, twins)
    )
    return {
        "measurement": fault.effect,
        "n": len(values),
        "median": round(median(values), 4) if values else None,
        "twin_n": len(others),
        "twin_median": round(median(others), 4) if others else None,
    }


def _gates(fault: Fault, cells: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each gate, and of each rule that did not pass or is there for the fault: how often it was FAIL, and not PASS.

    Out of the cells in which it was asked: which gates a job has depends on its rows.
    """
    out = []
    for name in sorted({name for c in cells for name in c["asked"]}):
        asked = [c for c in cells if name in c["asked"]]
        failed, fired = (sum(name in c[word] for c in asked) for word in ("failed", "fired"))
        if "." in name or fired or name in fault.looked_for:
            shares = {**_share_of("failed", failed, len(asked)), **_share_of("not_passed", fired, len(asked))}
            out.append({"gate": name, "n": len(asked), **shares})
    return out


def page(judged: Judged) -> str:
    """The page about these cells."""
    return written(judged, counts(judged.cells), notes(judged))


def notes(judged: Judged) -> dict[str, Any]:
    """What a card says beside the counts.

    ``not_asked``: gates of release that no cell was asked; ``not_run``: faults without a cell, and ``not_tuned`` those
    whose cells intake refused or whose jobs failed; ``judged_by``: digest of the rules of release and limits;
    ``counted_at``: commits of the code that made the cells.
    """
    missing, lost = _uncounted(judged.cells)
    return {
        "not_asked": _never_asked(judged),
        "not_run": missing,
        "not_tuned": lost,
        "judged_by": judged.by,
        "counted_at": sorted({cell["commit"] for cell in judged.cells}),
    }


def _never_asked(judged: Judged) -> list[str]:
    """Gates of which the counts say nothing: a policy judges larger jobs by more than these. None without a cell."""
    if not judged.cells:
        return []
    asked = {name.partition("[")[0] for cell in judged.cells for name in cell.get("asked", ())}
    return [gate for gate in judged.gates if gate not in asked]


def _uncounted(cells: Sequence[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """Names of the faults without a cell, and of those of which no cell was audited."""
    tried = {(c["fault"], c["strength"]) for c in cells}
    audited = {(c["fault"], c["strength"]) for c in cells if c["state"] not in LOST}
    return _names(tried, among=False), _names(tried - audited)


def _names(faults: Collection[tuple[str, str]], *, among: bool = True) -> list[str]:
    return [f"{f.name} {f.strength}".strip() for f in FAULTS if ((f.name, f.strength) in faults) is among]


def main() -> None:
    """Writes the page, the counts and the notes."""
    judged = judge(Kept(), PolicyEngine.load())
    rows = counts(judged.cells)
    # Those of the cards travel with the package, and are printed in every card.
    for path, found in (("docs/zoo.json", rows), ("audit/cards/zoo.json", rows), (NOTES, notes(judged))):
        (ROOT / path).write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", "utf-8")
    (ROOT / "docs" / "zoo.md").write_text(page(judged), "utf-8")


if __name__ == "__main__":
    main()
