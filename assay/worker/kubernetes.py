"""Kubernetes manifests of one attempt: a Kubeflow ``TrainJob``, the runtime that it refers to, and a network policy.

The pod does what a Ray job does: it runs :mod:`assay.worker.node` on a try of :mod:`assay.worker.exchange`. The job's
name follows from task and try, so that applying it twice is applying it once; it is made suspended for Kueue, which
admits it by quota. This module writes manifests and speaks to no cluster. They are tested against the recorded schemas
of Kubeflow Trainer 2.3 (``tests/data/kubeflow``); **they were not run on a cluster**.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from assay.errors import InvalidInputError

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_DIGEST = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")
_RUNTIME = "assay-node"
_MARK = {"app.kubernetes.io/managed-by": "assay", "app.kubernetes.io/component": "attempt"}


@dataclass(frozen=True)
class Cluster:
    """What the operator has made ready.

    Attributes:
        namespace: where attempts run; one for each classification of data.
        image: image with Assay and bubblewrap, pinned by digest.
        worker_secret: Secret with the worker's folder: settings, keys, ``gateway.pub``.
        exchange_claim: volume claim of the exchange folder, sealed bytes only.
        models_claim: volume claim of the base models, read-only.
        queue: Kueue LocalQueue.
        runtime_class: gVisor, Kata or the like; empty for the cluster's own.
        resources: requests and limits of one attempt.
    """

    namespace: str
    image: str
    worker_secret: str
    exchange_claim: str
    models_claim: str
    queue: str
    runtime_class: str = ""
    resources: Mapping[str, str] = field(default_factory=lambda: {"cpu": "2", "memory": "8Gi"})

    def __post_init__(self) -> None:
        names = (self.namespace, self.worker_secret, self.exchange_claim, self.models_claim, self.queue)
        for name in (*names, *([self.runtime_class] if self.runtime_class else [])):
            if not _LABEL.fullmatch(name):
                raise InvalidInputError("KUBERNETES_NAME", f"{name[:80]!r} is not a name that Kubernetes takes")
        if not _DIGEST.fullmatch(self.image):
            raise InvalidInputError("KUBERNETES_IMAGE", "the image must be pinned, as NAME@sha256:DIGEST")


def attempt_name(task_id: str, number: int) -> str:
    """Name of an attempt's TrainJob: the same for the same try; a DNS label, whatever the task is called."""
    return f"assay-{hashlib.sha256(task_id.encode()).hexdigest()[:20]}-{number}"


def train_job(cluster: Cluster, task_id: str, number: int) -> dict[str, Any]:
    """The attempt itself."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", task_id) or number < 1:
        raise InvalidInputError("KUBERNETES_TASK", "a task id is a plain name and tries count from 1")
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {
            "name": attempt_name(task_id, number),
            "namespace": cluster.namespace,
            "labels": {**_MARK, "kueue.x-k8s.io/queue-name": cluster.queue},
            "annotations": {"assay.dev/task": task_id, "assay.dev/try": str(number)},
        },
        "spec": {
            "suspend": True,
            "runtimeRef": {"apiGroup": "trainer.kubeflow.org", "kind": "TrainingRuntime", "name": _RUNTIME},
            "trainer": {
                "image": cluster.image,
                "command": ["python3", "-m", "assay.worker.node"],
                "args": ["/assay/worker", f"/assay/exchange/{task_id}/{number}"],
                "numNodes": 1,
                "resourcesPerNode": {"requests": dict(cluster.resources), "limits": dict(cluster.resources)},
            },
        },
    }


def training_runtime(cluster: Cluster) -> dict[str, Any]:
    """What every attempt's pod is: no token of the cluster, no retry, its own user namespace for bubblewrap."""
    mounts = [
        {"name": "worker-files", "mountPath": "/assay/worker-files", "readOnly": True},
        {"name": "worker", "mountPath": "/assay/worker"},
        {"name": "exchange", "mountPath": "/assay/exchange"},
        {"name": "models", "mountPath": "/assay/models", "readOnly": True},
    ]
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "hostUsers": False,
        "initContainers": [
            {
                # Keys must be readable for their owner only, and the node's spool lies beside them.
                "name": "worker-folder",
                "image": cluster.image,
                "command": ["sh", "-c", "cp -L /assay/worker-files/* /assay/worker/ && chmod 600 /assay/worker/*"],
                "volumeMounts": mounts[:2],
            }
        ],
        "containers": [{"name": "node", "image": cluster.image, "volumeMounts": mounts[1:]}],
        "volumes": [
            {"name": "worker-files", "secret": {"secretName": cluster.worker_secret}},
            # What is plain lies in memory and dies with the pod.
            {"name": "worker", "emptyDir": {"medium": "Memory"}},
            {"name": "exchange", "persistentVolumeClaim": {"claimName": cluster.exchange_claim}},
            {"name": "models", "persistentVolumeClaim": {"claimName": cluster.models_claim, "readOnly": True}},
        ],
    }
    if cluster.runtime_class:
        pod["runtimeClassName"] = cluster.runtime_class
    template = {"metadata": {"labels": dict(_MARK)}, "spec": pod}
    job = {
        "name": "node",
        "replicas": 1,
        "template": {
            "metadata": {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}},
            # The supervisor owns retries.
            "spec": {"backoffLimit": 0, "template": template},
        },
    }
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainingRuntime",
        "metadata": {
            "name": _RUNTIME,
            "namespace": cluster.namespace,
            "labels": {**_MARK, "trainer.kubeflow.org/framework": "plainml"},
        },
        "spec": {"mlPolicy": {"numNodes": 1}, "template": {"spec": {"replicatedJobs": [job]}}},
    }


def network_policy(cluster: Cluster) -> dict[str, Any]:
    """Nothing in, nothing out, for every attempt's pod; the sandbox inside has no network anyway."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "assay-attempts", "namespace": cluster.namespace, "labels": dict(_MARK)},
        "spec": {
            "podSelector": {"matchLabels": dict(_MARK)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [],
            "egress": [],
        },
    }


def main(arguments: list[str] | None = None) -> int:
    """Prints the manifests of one try as a Kubernetes list in JSON, for ``kubectl apply -f -``."""
    parser = argparse.ArgumentParser(prog="python -m assay.worker.kubernetes", description=main.__doc__)
    parser.add_argument("task", help="task id")
    parser.add_argument("number", type=int, help="which try")
    for name in ("namespace", "image", "worker-secret", "exchange-claim", "models-claim", "queue"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--runtime-class", default="")
    given = vars(parser.parse_args(arguments))
    task, number = given.pop("task"), given.pop("number")
    try:
        cluster = Cluster(**given)
        items = [network_policy(cluster), training_runtime(cluster), train_job(cluster, task, number)]
    except InvalidInputError as error:
        print(error.diagnostics(), file=sys.stderr)
        return 3
    print(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
