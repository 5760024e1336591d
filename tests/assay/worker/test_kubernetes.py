"""Manifests against the recorded schemas of Kubeflow Trainer and Kubernetes.

No cluster is here; what that leaves open, docs say.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from assay.errors import InvalidInputError
from assay.worker import exchange, kubernetes

from .conftest import House
from .test_node import lay_out, run_node

DATA = Path(__file__).parents[2] / "data"
TASK = "credit.loans.train.1"
CLUSTER = kubernetes.Cluster(
    namespace="assay-confidential",
    image="registry.bank.example:5000/ml/assay@sha256:" + "0" * 64,
    worker_secret="train-worker",
    exchange_claim="assay-exchange",
    models_claim="assay-models",
    queue="assay",
)
NEEDS = kubernetes.Needs(cpus=2, spool_bytes=4 << 30, memory_bytes=12 << 30, seconds=4500)
OPENED = replace(CLUSTER, seccomp_profile="assay/bwrap.json", apparmor_profile="assay-bwrap", gpus=2)


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


def check(manifest: dict[str, Any], path: str) -> None:
    recorded = json.loads((DATA / path).read_text())
    assert manifest["apiVersion"] == f"{recorded['group']}/{recorded['version']}"
    assert manifest["kind"] == recorded["kind"]
    schema = strict(recorded["schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    jsonschema.Draft202012Validator(schema).validate(manifest)


def check_job(manifest: dict[str, Any]) -> None:
    check(manifest, "kubeflow/trainjobs-v2.3.0.json")


def check_runtime(manifest: dict[str, Any]) -> None:
    check(manifest, "kubeflow/trainingruntimes-v2.3.0.json")


def check_policy(manifest: dict[str, Any]) -> None:
    check(manifest, "kubernetes/networkpolicies-v1.37.0.json")


def node_spec(runtime: dict[str, Any]) -> dict[str, Any]:
    return dict(runtime["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"])


def fields(error: InvalidInputError) -> list[str]:
    return [violation.field for violation in error.violations]


@pytest.mark.parametrize("cluster", [CLUSTER, replace(CLUSTER, runtime_class="gvisor"), OPENED])
def test_the_manifests_fit_the_recorded_schemas(cluster: kubernetes.Cluster) -> None:
    check_job(kubernetes.train_job(cluster, NEEDS, TASK, 2))
    check_runtime(kubernetes.training_runtime(cluster, NEEDS))
    check_policy(kubernetes.network_policy(cluster))


def test_the_strict_schemas_would_notice_a_misspelt_member() -> None:
    job = kubernetes.train_job(CLUSTER, NEEDS, TASK, 1)
    job["spec"]["trainer"]["numNode"] = 1
    with pytest.raises(jsonschema.ValidationError, match="numNode"):
        check_job(job)
    runtime = kubernetes.training_runtime(CLUSTER, NEEDS)
    node_spec(runtime)["template"]["spec"]["containers"][0]["securityContext"]["readOnlyRoot"] = True
    with pytest.raises(jsonschema.ValidationError, match="readOnlyRoot"):
        check_runtime(runtime)
    policy = kubernetes.network_policy(CLUSTER)
    policy["spec"]["egres"] = []
    with pytest.raises(jsonschema.ValidationError, match="egres"):
        check_policy(policy)


def test_the_same_try_is_the_same_job_and_another_try_another() -> None:
    first = kubernetes.train_job(CLUSTER, NEEDS, TASK, 1)
    assert first == kubernetes.train_job(CLUSTER, NEEDS, TASK, 1)
    tasks = ("credit.loans.train.1", "credit.loans.audit.1", f"c.{'j' * 63}.train.1")
    names = {kubernetes.attempt_name(task, number) for task in tasks for number in (1, 9999)}
    assert len(names) == 6
    # JobSet adds the replicated job's name, two indices and five characters of its own.
    assert all(len(f"{name}-node-0-0-abcde") <= 63 and name == name.lower() for name in names)


@pytest.mark.parametrize("cluster", [CLUSTER, OPENED])
def test_no_container_has_a_privilege_a_token_or_a_writable_root(cluster: kubernetes.Cluster) -> None:
    pod = node_spec(kubernetes.training_runtime(cluster, NEEDS))["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["hostUsers"] is False and not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    closed = pod["securityContext"]
    assert closed["runAsNonRoot"] is True and closed["runAsUser"] == closed["runAsGroup"] == 10001
    for container in (*pod["initContainers"], *pod["containers"]):
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False and own["privileged"] is False
        assert own["readOnlyRootFilesystem"] is True and own["capabilities"] == {"drop": ["ALL"]}
        assert not {"env", "envFrom", "ports"} & set(container)
        assert container["image"] == cluster.image
    kinds = {key for volume in pod["volumes"] for key in volume if key != "name"}
    assert kinds == {"secret", "emptyDir", "persistentVolumeClaim"}


def test_the_seccomp_profile_is_the_runtimes_own_unless_the_operator_names_one() -> None:
    def pod(cluster: kubernetes.Cluster) -> dict[str, Any]:
        return dict(node_spec(kubernetes.training_runtime(cluster, NEEDS))["template"]["spec"])

    closed, opened = pod(CLUSTER), pod(OPENED)
    assert closed["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert "appArmorProfile" not in closed["securityContext"]
    assert "procMount" not in closed["containers"][0]["securityContext"]
    named = opened["securityContext"]
    assert named["seccompProfile"] == {"type": "Localhost", "localhostProfile": "assay/bwrap.json"}
    assert named["appArmorProfile"] == {"type": "Localhost", "localhostProfile": "assay-bwrap"}
    # Kubernetes takes an unmasked /proc only together with the pod's own user namespace.
    assert opened["containers"][0]["securityContext"]["procMount"] == "Unmasked" and opened["hostUsers"] is False


def test_the_pod_has_no_way_out_and_no_retry() -> None:
    job = node_spec(kubernetes.training_runtime(CLUSTER, NEEDS))
    assert (job["backoffLimit"], job["template"]["spec"]["restartPolicy"]) == (0, "Never")
    policy = kubernetes.network_policy(CLUSTER)["spec"]
    assert (policy["ingress"], policy["egress"], policy["policyTypes"]) == ([], [], ["Ingress", "Egress"])
    assert policy["podSelector"]["matchLabels"] == job["template"]["metadata"]["labels"]


def test_keys_come_as_files_and_only_those_that_a_node_needs() -> None:
    pod = node_spec(kubernetes.training_runtime(CLUSTER, NEEDS))["template"]["spec"]
    secret = next(volume["secret"] for volume in pod["volumes"] if "secret" in volume)
    names = ["gateway.pub", "seal.key", "statement.key", "worker.toml"]
    assert [item["key"] for item in secret["items"]] == names
    assert [Path(word).name for word in pod["initContainers"][0]["command"][5:]] == names
    assert "worker-files" not in [mount["name"] for mount in pod["containers"][0]["volumeMounts"]]


def test_names_and_labels_hold_no_word_of_a_requester() -> None:
    job = kubernetes.train_job(CLUSTER, NEEDS, "claims.jane-doe.train.1", 1)
    metadata = json.dumps(job["metadata"])
    assert "jane" not in metadata and "claims" not in metadata
    assert re.fullmatch(r"[0-9a-f]{40}", job["metadata"]["labels"]["assay.dev/job"])
    assert all(len(value) <= 63 for value in job["metadata"]["labels"].values())
    audit = kubernetes.train_job(CLUSTER, NEEDS, "claims.jane-doe.audit.1", 1)
    assert audit["metadata"]["labels"]["assay.dev/job"] == job["metadata"]["labels"]["assay.dev/job"]


def test_what_an_attempt_takes_is_requested_and_bounded_alike() -> None:
    spec = kubernetes.train_job(replace(OPENED, resources={"ephemeral-storage": "2Gi"}), NEEDS, TASK, 1)["spec"]
    taken = {"cpu": "2", "memory": str(12 << 30), "ephemeral-storage": "2Gi", "nvidia.com/gpu": "2"}
    assert spec["trainer"]["resourcesPerNode"] == {"requests": taken, "limits": taken}
    assert spec["activeDeadlineSeconds"] == 4500 and spec["suspend"] is True
    assert "nvidia.com/gpu" not in json.dumps(kubernetes.train_job(CLUSTER, NEEDS, TASK, 1))


@pytest.mark.parametrize(
    ("changes", "reason", "field"),
    [
        ({"image": "assay:latest"}, "KUBERNETES_IMAGE", "image"),
        ({"image": "assay:1.0@sha256:" + "0" * 64}, "KUBERNETES_IMAGE", "image"),
        ({"image": "assay@sha256:" + "0" * 63}, "KUBERNETES_IMAGE", "image"),
        ({"image": "b/" + "a" * 430 + "@sha256:" + "0" * 64}, "KUBERNETES_IMAGE", "image"),
        ({"namespace": "Bad_Name"}, "KUBERNETES_NAME", "namespace"),
        ({"namespace": ""}, "KUBERNETES_NAME", "namespace"),
        ({"queue": "a/b"}, "KUBERNETES_NAME", "queue"),
        ({"worker_secret": "w" * 64}, "KUBERNETES_NAME", "worker_secret"),
        ({"exchange_claim": "claim-"}, "KUBERNETES_NAME", "exchange_claim"),
        ({"runtime_class": "-x"}, "KUBERNETES_NAME", "runtime_class"),
        ({"seccomp_profile": "../etc/passwd"}, "KUBERNETES_PROFILE", "seccomp_profile"),
        ({"apparmor_profile": "/a"}, "KUBERNETES_PROFILE", "apparmor_profile"),
        ({"uid": 0}, "KUBERNETES_USER", "uid"),
        ({"gpus": -1}, "KUBERNETES_QUANTITY", "gpus"),
        ({"resources": {"ephemeral-storage": "2GB"}}, "KUBERNETES_QUANTITY", "resources.ephemeral-storage"),
        ({"resources": {"ephemeral-storage": ""}}, "KUBERNETES_QUANTITY", "resources.ephemeral-storage"),
        ({"resources": {"memory": "2Gi"}}, "KUBERNETES_QUANTITY", "resources.memory"),
        ({"resources": {"bad name": "1"}}, "KUBERNETES_QUANTITY", "resources.bad name"),
    ],
)
def test_what_kubernetes_would_not_take_or_what_is_not_pinned_is_refused(
    changes: dict[str, Any], reason: str, field: str
) -> None:
    with pytest.raises(InvalidInputError) as refused:
        replace(CLUSTER, **changes)
    assert (refused.value.reason, fields(refused.value)) == (reason, [field])


@pytest.mark.parametrize(
    ("task", "number"),
    [
        ("../t1", 1),
        ("t1", 1),
        ("Credit.j.train.1", 1),
        ("credit.j.tune.1", 1),
        (f"credit.{'j' * 64}.train.1", 1),
        ("credit.j.train.1", 0),
        ("credit.j.train.1", 10_000),
    ],
)
def test_what_is_no_try_of_a_task_is_refused(task: str, number: int) -> None:
    with pytest.raises(InvalidInputError) as refused:
        kubernetes.train_job(CLUSTER, NEEDS, task, number)
    assert refused.value.reason == "KUBERNETES_TASK"


def bounded(house: House, **changes: str) -> Path:
    """The worker's folder as a Secret would hold it."""
    lines = {"threads": "3", "slot_file": '"device.slot"', "models_dir": '"/assay/models"'} | changes
    kept = [line for line in (house.folder / "worker.toml").read_text().splitlines() if "_" not in line.split(" ")[0]]
    limits = "[limits]\nmemory_bytes = 4_000_000_000\ndisk_bytes = 1_000_000_000\ntmp_bytes = 500_000_000\n"
    top = [*kept, *(f"{name} = {value}" for name, value in lines.items()), "max_task_bytes = 100_000_000"]
    (house.folder / "worker.toml").write_text("\n".join(top) + "\n" + limits + "wall_seconds = 3600\n")
    return house.folder


def test_what_an_attempt_may_take_follows_from_the_workers_own_limits(house: House) -> None:
    needs = kubernetes.Needs.of(bounded(house))
    assert (needs.cpus, needs.seconds) == (3, 3600 + 900)
    assert needs.spool_bytes == 2 * 100_000_000 + 2 * 1_000_000_000 + (1 << 30)
    assert needs.memory_bytes == needs.spool_bytes + 4_000_000_000 + 2 * 500_000_000 + (576 << 20)
    assert "canary.key" in needs.files, "the tests' worker is an audit worker too"
    (house.folder / "canary.key").unlink()
    assert "canary.key" not in kubernetes.Needs.of(house.folder).files


def test_limits_that_worker_toml_leaves_to_the_machine_are_named(house: House) -> None:
    with pytest.raises(InvalidInputError) as refused:
        kubernetes.Needs.of(house.folder)
    assert refused.value.reason == "KUBERNETES_LIMITS"
    assert fields(refused.value) == ["threads", "limits.memory_bytes", "limits.disk_bytes"]


def test_places_that_the_pod_lacks_are_named(house: House) -> None:
    folder = bounded(house, slot_file='"../device.slot"', models_dir='"/srv/models"')
    with pytest.raises(InvalidInputError) as refused:
        kubernetes.Needs.of(folder)
    assert (refused.value.reason, fields(refused.value)) == ("KUBERNETES_PLACES", ["models_dir", "slot_file"])


@pytest.mark.isolation
def test_under_the_runtimes_default_profile_the_node_refuses_and_opens_nothing(house: House) -> None:
    attempt = lay_out(house)
    end = run_node(house, attempt, "pod_process.py")
    assert end["kind"] == "failed" and end["reason"].startswith("ISOLATION_MISSING: bubblewrap did not start")
    assert not (attempt / exchange.RESULT).exists(), "no statement, signed or not"
    (attempt / exchange.END).unlink()
    assert run_node(house, attempt)["kind"] == "done", "the same try runs where the sandbox can be made"


def test_the_command_prints_a_list_or_says_what_is_wrong(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"namespace": "a", "worker-secret": "w", "exchange-claim": "e", "models-claim": "m", "queue": "q"}
    words = [TASK, "1", "--dir", str(bounded(house)), *(f"--{name}={value}" for name, value in options.items())]
    image = f"--image={CLUSTER.image}"
    assert kubernetes.main([*words, image, "--gpus=1", "--resource", "ephemeral-storage=1Gi"]) == 0
    shown = capsys.readouterr()
    network, runtime, job = json.loads(shown.out)["items"]
    check_policy(network)
    check_runtime(runtime)
    check_job(job)
    assert job["spec"]["runtimeRef"]["name"] == runtime["metadata"]["name"] == "assay-w"
    assert job["spec"]["trainer"]["resourcesPerNode"]["limits"]["nvidia.com/gpu"] == "1"
    assert "ISOLATION_MISSING" in shown.err, "a manifest under which no task runs is not printed in silence"
    assert kubernetes.main([*words, image, "--seccomp-profile=assay/bwrap.json"]) == 0
    assert capsys.readouterr().err == ""
    assert kubernetes.main([*words, "--image=x:latest"]) == 3
    shown = capsys.readouterr()
    assert shown.out == "" and "KUBERNETES_IMAGE" in shown.err and "  image: has no digest" in shown.err
