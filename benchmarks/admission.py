"""What admission costs, as one JSON object: ``make bench-admission``.

Each part measures one thing and returns its keys; a part is a function in :data:`PARTS`. Figures are of this machine;
ratios are taken in one run against the peer, on the same texts.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from assay.v1 import policy_input_pb2
from benchmarks.admission_data import dataset, dedup, pii_scan
from policies import testing
from policies.cel import ENGINE
from policies.engine import PolicyEngine
from policies.pack import BASELINE, load
from policies.rule import AT_INTAKE

RULES = 60
_REPEATS = 3000
USE = policy_input_pb2.UseDeclaration(
    jurisdictions=["EU", "US"],
    domain="credit",
    risk_tier="high",
    own_brand=False,
    substantial_modification=False,
    purpose_becomes_high_risk=False,
    special_categories=True,
    decides_about_people=True,
    solely_automated=False,
    artefacts=[
        policy_input_pb2.Artefact(kind=kind, sha256="d" * 64) for kind in ("LIN", "BALANCING", "DPIA", "SOA", "RISK")
    ],
)
"""So that the rules of law and guidance find what they ask for."""


def decision() -> Mapping[str, Any]:
    """A whole decision with its plan, of exactly 60 rules, for a request that all of them allow; warm, one thread."""
    pack = load()
    asked = [rule for rule in pack.rules if rule.stage in AT_INTAKE][:RULES]
    missing = RULES - len(asked)
    # While a bundle has fewer, rules are asked again under other names: the work is that of as many.
    asked += [dataclasses.replace(asked[i % len(asked)], id=f"AGAIN-{i}") for i in range(missing)]
    gates = [rule for rule in pack.rules if rule.gate is not None]
    engine = PolicyEngine(
        dataclasses.replace(pack, rules=(*asked, *gates)), packs=frozenset(part.name for part in pack.parts)
    )
    cases = {case.name: case for case in testing.read_cases(load(BASELINE))}
    question = cases["a clean decision request is allowed"].intake
    question.request.use.MergeFrom(USE)
    answer = engine.decide(question)
    if not answer.allowed:
        raise SystemExit(f"the request must be allowed: {[o for o in answer.outcomes if o.outcome == 2]}")
    times = []
    for _ in range(_REPEATS):
        start = time.perf_counter_ns()
        engine.decide(question)
        times.append(time.perf_counter_ns() - start)
    times.sort()
    return {
        "decision_us_p50_60_rules": round(times[len(times) // 2] / 1000, 1),
        "decision_us_p99_60_rules": round(times[len(times) * 99 // 100] / 1000, 1),
        "decision_rules": len(answer.outcomes),
        "decision_engine": ENGINE,
    }


PARTS: tuple[Callable[[], Mapping[str, Any]], ...] = (pii_scan, dedup, dataset, decision)
"""In the order of a request's journey; each prints nothing and returns its own keys."""


def main() -> None:
    """Runs every part."""
    result: dict[str, Any] = {"benchmark": "admission"}
    for part in PARTS:
        result |= part()
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
