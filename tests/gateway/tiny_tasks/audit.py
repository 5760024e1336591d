"""An audit task: for every planned gate a measurement that passes it, or one that fails it."""

import json

from assay import canonical
from assay.digests import folder_manifest, sha256_bytes
from assay.worker.task import TaskContext
from tiny_tasks import behaviour, wait


def run(context: TaskContext) -> dict:
    """Leaves a report."""
    asked = behaviour(context.inputs / "selection.jsonl")
    wait(context, asked, "audit")
    if not (context.inputs / "private" / "test.jsonl").exists():
        raise RuntimeError("the sealed test split is not here")
    if not (context.inputs / "adapter" / "adapter_model.safetensors").exists():
        raise RuntimeError("the adapter is not here")
    plan, measurements = context.order["plan"], []
    for gate in plan["gates"]:
        at_most = gate["side"] == "LIMIT_SIDE_AT_MOST"
        limit = float(gate.get("limit", 0))
        inside = asked.get("audit") != "leaky"
        value = limit - 0.3 if at_most == inside else limit + 0.3
        if "rate" in gate["measurement"]:
            value = 0.0 if inside else 0.9
        name, _, part = gate["measurement"].partition("[")
        ends = {"lower": value - 0.001, "upper": value + 0.001}
        measurements.append({
            "name": name, "slice": part.rstrip("]"), "value": value, "n": str(gate.get("n", 1) or 1), "unit": "ratio",
            "intervals": [{"confidence": float(c), **ends} for c in plan["confidences"]], "method": "made up",
        })  # fmt: skip
        if "rate" in name:
            measurements[-1]["successes"] = "0" if inside else str(gate.get("n", 1))
    for name in ("privacy.epsilon_lower_bound", "cost.claim_ratio", "adapter.change_of_loss"):
        if name not in {m["name"] for m in measurements}:
            measurements.append({"name": name, "value": 0.1, "n": "10", "unit": "ratio"})
    measured = {"adapter_sha256": folder_manifest(context.inputs / "adapter").sha256}
    environment = {"dtype": "none", "base_sha256": context.order["base_sha256"], **measured}
    environment |= asked.get("environment", {})
    # As long as the lists of real audits, so that every record of these tests holds its schema with one.
    untested = [f"nothing real, for reason {number}: {'x' * 300}" for number in range(25)]
    report = {"measurements": measurements, "not_tested": untested, "environment": environment}
    (context.outputs / "report.json").write_text(json.dumps(report))
    revealed = "[1]" if asked.get("audit") == "other-canaries" else "[]"
    (context.outputs / "canaries.json").write_text(revealed)
    plan_sha256 = sha256_bytes(canonical.encode(plan))
    return {"measurements": len(measurements), "plan_sha256": plan_sha256, **measured, **asked.get("audited", {})}
