"""What the demonstration found, as data. Nothing here is written by hand: every value is read from the gateway."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.v1 import policy_pb2, tuning_job_pb2

State = tuning_job_pb2.TuningJob.State
_FIRED = (policy_pb2.OUTCOME_FAIL, policy_pb2.OUTCOME_INCONCLUSIVE, policy_pb2.OUTCOME_ERROR)


@dataclass(frozen=True)
class Outcome:
    """One job as it ended."""

    name: str
    job: tuning_job_pb2.TuningJob
    adapter_sha256: str

    def as_dict(self) -> dict[str, Any]:
        """The job's entry in ``summary.json``."""
        return {
            "name": self.name,
            "state": State.Name(self.job.state).removeprefix("STATE_"),
            "reason": self.job.reason,
            "rules_fired": [_rule(o) for o in _outcomes(self.job) if o.outcome in _FIRED],
            "measurements": [_measurement(m) for m in self.job.audit.measurements],
            "adapter_sha256": self.adapter_sha256,
            "stage_seconds": {k: round(v, 1) for k, v in sorted(self.job.stage_seconds.items())},
        }


def write(path: Path, summary: dict[str, Any]) -> None:
    """Writes the summary with stable formatting."""
    path.write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n")


def _outcomes(job: tuning_job_pb2.TuningJob) -> list[policy_pb2.RuleOutcome]:
    if job.HasField("verdict"):
        return list(job.verdict.outcomes)
    return list(job.decision.outcomes)


def _rule(outcome: policy_pb2.RuleOutcome) -> dict[str, Any]:
    out: dict[str, Any] = {
        "rule": outcome.rule_id,
        "outcome": policy_pb2.Outcome.Name(outcome.outcome).removeprefix("OUTCOME_"),
        "message": outcome.message,
        "citation": outcome.citation,
    }
    if outcome.fix:
        out["fix"] = outcome.fix
    if outcome.rows:
        out["rows"] = list(outcome.rows)
    if outcome.HasField("n_required"):
        out["n_required"] = outcome.n_required
    return out


def _measurement(m: Any) -> dict[str, Any]:
    out: dict[str, Any] = {"name": m.name}
    if m.slice:
        out["slice"] = m.slice
    if m.HasField("value"):
        out["value"] = m.value
    if m.HasField("n"):
        out["n"] = m.n
    if m.intervals:
        first = m.intervals[0]
        out["confidence"] = first.confidence
        out["interval"] = [
            first.lower if first.HasField("lower") else None,
            first.upper if first.HasField("upper") else None,
        ]
    if m.HasField("control"):
        out["control"] = m.control
    if m.unavailable:
        out["unavailable"] = m.unavailable
    out["unit"] = m.unit
    return out
