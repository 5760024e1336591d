"""Release policy asked again with the numbers of an audit that was done again: the same decisions, rule by rule.

A kit holds the question that release policy was asked, its verdict, and the rules and limits that the verdict names. So
every rule is asked, also those that read a measurement without a gate of the plan, such as "not one identifier came
back": within its tolerance a number may move from no hit to one, and then it is the rule that tells.

Rules and limits are not all that decides: the engine's own code does too, and a verdict names it. Where another engine
asks again, what it says of the recorded numbers tells what is its doing and what is that of the new numbers.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from assay.reperformance import CAVEAT, FAIL, PASS, RELEASE_FILE, Line
from assay.v1 import measurement_pb2, policy_input_pb2, policy_pb2
from gateway.active_policy import is_of, of_verdict
from gateway.admission.facts import judged
from gateway.admission.release import REPORT_FILE
from gateway.settings import Settings
from policies.deciding import ENGINE
from policies.engine import PolicyEngine
from policies.pack import PACKS, load

_FOLDER = "policy"


def enclose(
    settings: Settings, question: policy_input_pb2.ReleaseInput, verdict: policy_pb2.Verdict
) -> dict[str, Path | bytes]:
    """What a kit holds of a job's verdict; without the rules where those of the verdict lie here no more."""
    rules = of_verdict(settings, verdict)
    told: dict[str, Any] = {
        "question": json_format.MessageToDict(question, preserving_proto_field_name=True),
        "verdict": json_format.MessageToDict(verdict, preserving_proto_field_name=True),
    }
    out: dict[str, Path | bytes] = {}
    if rules is not None:
        root, files = rules
        told["policy"] = f"{_FOLDER}/{root}".rstrip("/")
        out = {f"{_FOLDER}/{path}": source for path, source in files.items()}
    return {**out, RELEASE_FILE: json.dumps(told, sort_keys=True).encode()}


def rejudge(work: Path) -> list[Line]:
    """Asks release policy again.

    Args:
        work: folder in which ``audit.probes.reperform`` left the opened kit and the new report.

    Raises:
        InvalidInputError: ``PACK_*`` when the rules in the kit do not load.
    """
    kit, path = work / "kit", work / "kit" / RELEASE_FILE
    if not path.is_file():
        why = "the kit is of an earlier version and holds no question: only the gates of the plan were compared"
        return [Line("release policy", CAVEAT, why, "-", "-")]
    told: dict[str, Any] = json.loads(path.read_text("utf-8"))
    question = json_format.ParseDict(told["question"], policy_input_pb2.ReleaseInput())
    verdict = json_format.ParseDict(told["verdict"], policy_pb2.Verdict())
    pack = load(kit / told["policy"] if "policy" in told else PACKS)
    engine = PolicyEngine(pack, dt.date.fromisoformat(verdict.as_of))
    recorded, again = (_report(folder / REPORT_FILE) for folder in (kit, work / "outputs"))
    then, now = engine.judge(question), engine.judge(_with(question, again))
    same, made_here = is_of(pack, verdict), verdict.engine == ENGINE
    whole = then.input_sha256 == verdict.input_sha256 and question == _with(question, recorded)
    lines = [
        Line(
            "release policy",
            PASS if same else CAVEAT,
            "the rules and limits of the verdict"
            if same
            else "not the rules of the verdict: both reports judged by these",
            verdict.bundle_sha256[:16],
            pack.bundle_sha256[:16],
        ),
        Line(
            "release question",
            PASS if whole else FAIL,
            "asked with the numbers of the report" if whole else "another question, or other numbers than the report's",
            verdict.input_sha256[:16],
            then.input_sha256[:16],
        ),
        Line(
            "policy engine",
            PASS if made_here else CAVEAT,
            "the engine of the verdict" if made_here else "not the engine of the verdict, whose code may differ",
            verdict.engine or "-",
            ENGINE,
        ),
    ]
    return [*lines, *_compared(verdict if same else then, now, now if made_here else then)]


def _report(path: Path) -> measurement_pb2.AuditReport:
    return json_format.Parse(path.read_text("utf-8"), measurement_pb2.AuditReport())


def _with(
    question: policy_input_pb2.ReleaseInput, report: measurement_pb2.AuditReport
) -> policy_input_pb2.ReleaseInput:
    """The question with the measurements of a report."""
    out = policy_input_pb2.ReleaseInput()
    out.CopyFrom(question)
    out.ClearField("measurements")
    for key, measurement in judged(report.measurements).items():
        out.measurements[key].CopyFrom(measurement)
    return out


def _compared(recorded: policy_pb2.Verdict, now: policy_pb2.Verdict, then: policy_pb2.Verdict) -> Iterator[Line]:
    """The verdict and every rule's outcome, recorded and again.

    Args:
        recorded: to compare with.
        now: of this engine on the new numbers.
        then: of this engine on the recorded numbers, where it is not the one that recorded; else as ``now``.
    """
    first, second, alike = _outcomes(recorded), _outcomes(now), _outcomes(then)
    for name in dict.fromkeys((*first, *second)):
        before, after = first.get(name, "absent"), second.get(name, "absent")
        if after != alike.get(name, "absent") or (before != after and recorded.engine == now.engine):
            yield Line(name, FAIL, "another decision", before, after)
        elif before != after:
            yield Line(name, CAVEAT, "another decision by another engine, of the recorded numbers too", before, after)
        else:
            yield Line(name, PASS, "the same decision", before, after)


def _outcomes(verdict: policy_pb2.Verdict) -> dict[str, str]:
    out = {"verdict": _name(verdict.outcome)}
    for outcome in verdict.outcomes:
        where = f" on {outcome.measurement}" if outcome.measurement else ""
        out[f"rule {outcome.rule_id}{where}"] = _name(outcome.outcome)
    return out


def _name(outcome: policy_pb2.Outcome) -> str:
    return policy_pb2.Outcome.Name(outcome).removeprefix("OUTCOME_")
