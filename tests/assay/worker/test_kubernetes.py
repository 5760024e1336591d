"""Manifests against the recorded schemas of Kubeflow Trainer. No cluster is here; what that leaves open, docs say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from assay.errors import InvalidInputError
from assay.worker import kubernetes

DATA = Path(__file__).parents[2] / "data" / "kubeflow"
CLUSTER = kubernetes.Cluster(
    namespace="assay-confidential",
    image="registry.bank.example/assay@sha256:" + "0" * 64,
    worker_secret="train-worker",
    exchange_claim="assay-exchange",
    models_claim="assay-models",
    queue="assay",
)


def strict(schema: Any) -> Any:
    """A structural schema that refuses what the API server would silently drop: members that it does not name."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    out = {key: strict(value) for key, value in schema.items()}
    known = isinstance(out.get("properties"), dict) and out.get("type") == "object"
    if known and not out.get("x-kubernetes-preserve-unknown-fields") and "additionalProperties" not in out:
        out["additionalProperties"] = False
    if out.pop("x-kubernetes-int-or-string", False):
        out.pop("type", None)
    return out


def check(manifest: dict[str, Any], name: str) -> None:
    recorded = json.loads((DATA / f"{name}-v2.3.0.json").read_text())
    assert manifest["apiVersion"] == f"{recorded['group']}/{recorded['version']}"
    assert manifest["kind"] == recorded["kind"]
    schema = strict(recorded["schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    jsonschema.Draft202012Validator(schema).validate(manifest)


@pytest.mark.parametrize("runtime_class", ["", "gvisor"])
def test_the_manifests_fit_the_recorded_schemas(runtime_class: str) -> None:
    cluster = replace(CLUSTER, runtime_class=runtime_class)
    check(kubernetes.train_job(cluster, "task-1.train", 2), "trainjobs")
    check(kubernetes.training_runtime(cluster), "trainingruntimes")


def test_the_strict_schema_would_notice_a_misspelt_member() -> None:
    job = kubernetes.train_job(CLUSTER, "t1", 1)
    job["spec"]["trainer"]["numNode"] = 1
    with pytest.raises(jsonschema.ValidationError, match="numNode"):
        check(job, "trainjobs")
    runtime = kubernetes.training_runtime(CLUSTER)
    runtime["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["hostUser"] = False
    with pytest.raises(jsonschema.ValidationError, match="hostUser"):
        check(runtime, "trainingruntimes")


def test_the_same_try_is_the_same_job_and_another_try_another() -> None:
    first = kubernetes.train_job(CLUSTER, "t1", 1)
    assert first == kubernetes.train_job(CLUSTER, "t1", 1)
    names = {kubernetes.attempt_name(task, number) for task in ("t1", "T1", "t.1") for number in (1, 2)}
    assert len(names) == 6
    assert all(len(name) <= 63 and name == name.lower() for name in names)


def test_the_pod_has_no_way_out_and_no_retry() -> None:
    runtime = kubernetes.training_runtime(CLUSTER)
    job = runtime["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    assert (job["backoffLimit"], pod["restartPolicy"]) == (0, "Never")
    assert pod["automountServiceAccountToken"] is False
    policy = kubernetes.network_policy(CLUSTER)["spec"]
    assert (policy["ingress"], policy["egress"], policy["policyTypes"]) == ([], [], ["Ingress", "Egress"])
    assert policy["podSelector"]["matchLabels"] == job["template"]["metadata"]["labels"]


@pytest.mark.parametrize(
    "changes", [{"image": "assay:latest"}, {"namespace": "Bad_Name"}, {"queue": "a/b"}, {"runtime_class": "-x"}]
)
def test_what_kubernetes_would_not_take_or_what_is_not_pinned_is_refused(changes: dict[str, str]) -> None:
    with pytest.raises(InvalidInputError):
        replace(CLUSTER, **changes)


@pytest.mark.parametrize(("task", "number"), [("../t1", 1), ("t1; rm", 1), ("t1", 0)])
def test_a_task_that_is_no_plain_name_is_refused(task: str, number: int) -> None:
    with pytest.raises(InvalidInputError):
        kubernetes.train_job(CLUSTER, task, number)


def test_the_command_prints_a_list(capsys: pytest.CaptureFixture[str]) -> None:
    options = [
        "--namespace",
        "a",
        "--worker-secret",
        "w",
        "--exchange-claim",
        "e",
        "--models-claim",
        "m",
        "--queue",
        "q",
    ]
    assert kubernetes.main(["t1", "1", *options, "--image", CLUSTER.image]) == 0
    kinds = [item["kind"] for item in json.loads(capsys.readouterr().out)["items"]]
    assert kinds == ["NetworkPolicy", "TrainingRuntime", "TrainJob"]
    assert kubernetes.main(["t1", "1", *options, "--image", "x:latest"]) == 3
