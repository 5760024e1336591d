"""Microseconds of a decision, a verdict and an access question, on the baseline pack. Prints one JSON object.

Run: ``python -m benchmarks.policy_decisions``. One thread; medians and 99th percentiles of repeated calls, warm.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from policies import testing
from policies.authorization import CedarAuthorizer, Principal
from policies.cel import ENGINE
from policies.engine import PolicyEngine
from policies.pack import BASELINE, load
from policies.rule import AT_INTAKE, AT_RELEASE


def measure(call: Callable[[], object], repeats: int) -> dict[str, float]:
    """Median and 99th percentile in microseconds."""
    for _ in range(repeats // 10 + 1):
        call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - start)
    times.sort()
    return {"p50_us": round(times[len(times) // 2] / 1000, 1), "p99_us": round(times[len(times) * 99 // 100] / 1000, 1)}


def main() -> None:
    """Runs every measurement."""
    pack = load(BASELINE)
    engine = PolicyEngine(pack)
    cases = {case.name: case for case in testing.read_cases(pack)}
    allowed = cases["a clean decision request is allowed"].intake
    denied = cases["a datasheet that says nothing"].intake
    release = testing.release_question(engine, cases["a clean decision model passes"])
    authorizer = CedarAuthorizer.load()
    person = Principal("spiffe://assay.local/people/cora", frozenset({("ROLE_COMPLIANCE_OFFICER", "credit")}))
    result = {
        "benchmark": "policies",
        "engine": ENGINE,
        "rules": {
            "decision": sum(rule.stage in AT_INTAKE for rule in pack.rules),
            "verdict": sum(rule.stage in AT_RELEASE for rule in pack.rules),
        },
        "load_and_test_pack": measure(lambda: PolicyEngine.load(), 5),
        "decide_allowed_with_plan": measure(lambda: engine.decide(allowed), 2000),
        "decide_denied": measure(lambda: engine.decide(denied), 2000),
        "judge_release": measure(lambda: engine.judge(release), 1000),
        "authorize": measure(
            lambda: authorizer.authorize(person, "DecideApproval", "credit"),
            2000,
        ),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
