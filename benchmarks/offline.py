"""A job's tasks one after another in this process: the product's own task modules, without services or sandbox.

For benchmarks that time or compare one task; whole jobs go through the gateway (``benchmarks/zoo``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from assay import canonical
from assay.modelfiles import read_base_manifest
from assay.pinned import assay_home
from assay.v1 import dataset_pb2, measurement_pb2, policy_input_pb2, policy_pb2
from assay.worker.task import TaskContext
from policies.engine import PolicyEngine

BASE_MODEL = "smollm2-135m-instruct"
MODELS = assay_home() / "models"


@dataclass(frozen=True)
class Prepared:
    """A prepared dataset: the task's outputs and claim, what policy was asked of it, and the plan that it made."""

    folder: Path
    claim: Mapping[str, Any]
    plan: measurement_pb2.AuditPlan
    format: str
    question: policy_input_pb2.IntakeInput = field(default_factory=policy_input_pb2.IntakeInput)


def context(kind: str, order: Mapping[str, Any], inputs: Path, folder: Path, secret: bytes = b"") -> TaskContext:
    """A task's folders under ``folder``; progress goes nowhere."""
    for name in ("outputs", "work"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return TaskContext(
        task_id=kind,
        kind=kind,
        order=dict(order),
        inputs=inputs,
        outputs=folder / "outputs",
        work=folder / "work",
        models=MODELS,
        secret=secret,
        pause_flag=folder / "pause",
        send=lambda line: None,
        work_key=bytes(32),
    )


def prepare(
    content: bytes,
    spec: Any,
    profile: str,
    folder: Path,
    *,
    secret: bytes = bytes(range(32)),
    canaries: Mapping[str, int] | None = None,
) -> Prepared:
    """Runs the prepare task and intake policy on one of :mod:`demo.data`'s jobs.

    Args:
        content: the file.
        spec: its declaration.
        profile: audit profile.
        folder: where the task works.
        secret: the job's.
        canaries: other numbers than policy's, with which there may be no plan.

    Raises:
        RuntimeError: policy makes no plan.
    """
    from audit.prepare import task

    engine = PolicyEngine.load()
    numbers = engine.preparation(profile) if canaries is None else canaries
    kind = spec.format.removeprefix("DATASET_FORMAT_")
    order = {
        "format": kind,
        "datasheet": dict(spec.datasheet),
        "base_model": BASE_MODEL,
        "seed": 1,
        "canaries": dict(numbers),
    }
    inputs = folder / "uploaded"
    inputs.mkdir(parents=True)
    (inputs / "dataset").write_bytes(content)
    claim = task.run(context("prepare", order, inputs, folder / "prepare", secret))
    outputs = folder / "prepare" / "outputs"
    facts = json_format.Parse((outputs / "facts.json").read_text("utf-8"), policy_input_pb2.DataFacts())
    asked = question(spec, profile, facts)
    decision = engine.decide(asked)
    if canaries is None and not decision.HasField("audit_plan"):
        refused = [f"{o.rule_id}: {o.message}" for o in decision.outcomes if o.outcome != policy_pb2.OUTCOME_PASS]
        raise RuntimeError(f"no plan: {refused}")
    return Prepared(outputs, claim, decision.audit_plan, kind, asked)


def question(spec: Any, profile: str, facts: policy_input_pb2.DataFacts) -> policy_input_pb2.IntakeInput:
    """What intake policy is asked about a job of the demo's kind, with a budget that no rule minds."""
    base = read_base_manifest(MODELS / BASE_MODEL)
    return policy_input_pb2.IntakeInput(
        request=policy_input_pb2.RequestFacts(
            unit=spec.unit,
            purpose=spec.request["purpose"],
            requester="spiffe://assay.local/people/rita",
            method="lora",
            region="eu",
            budget_usd_micros=10**7,
            quote_usd_micros=1,
            max_train_tokens=10**7,
            planned_train_tokens=facts.train_tokens,
            audit_profile=profile,
            epochs=1.0,
        ),
        datasheet=json_format.ParseDict(dict(spec.datasheet), dataset_pb2.Datasheet()),
        format=spec.format,
        data=facts,
        base_model=policy_input_pb2.BaseModelFacts(
            id=base.id, licence=base.licence, sha256=base.sha256, parameters=base.parameters
        ),
    )


def order(hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """A work order for the embedded base model with a token cap that no run meets."""
    return {
        "base_model": BASE_MODEL,
        "base_sha256": read_base_manifest(MODELS / BASE_MODEL).sha256,
        "hyperparameters": dict(hyperparameters),
        "max_train_tokens": 10**9,
    }


def train(prepared: Prepared, hyperparameters: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Runs the train task; the adapter lies under ``folder/outputs/adapter``."""
    from trainer import task

    return task.run(context("train", order(hyperparameters), prepared.folder, folder))


def audit(prepared: Prepared, adapter: Path, folder: Path, training: Mapping[str, Any]) -> measurement_pb2.AuditReport:
    """Runs the audit task; its inputs are links to what the other tasks left."""
    from audit.probes import task

    inputs = folder / "inputs"
    inputs.mkdir(parents=True)
    for name in ("private", "selection.jsonl"):
        (inputs / name).symlink_to(prepared.folder / name)
    (inputs / "adapter").symlink_to(adapter)
    order = {
        "plan": canonical.from_message(prepared.plan),
        "base_model": BASE_MODEL,
        "base_sha256": read_base_manifest(MODELS / BASE_MODEL).sha256,
        "job": "units/bench/tuningJobs/bench",
        "format": prepared.format,
        "training": {
            "claim": dict(training),
            "meter": {"wall_ms": 1, "cpu_ms": 1, "energy_uwh": 1, "energy_method": "not metered"},
        },
        "prepare": {"claim": dict(prepared.claim)},
        "price_book": {"as_of": "2026-11-01", "source": "none", "usd_micros_per_device_second": {"cpu": 1}},
    }
    task.run(context("audit", order, inputs, folder))
    return json_format.Parse((folder / "outputs" / "report.json").read_text("utf-8"), measurement_pb2.AuditReport())
