"""Kubernetes manifests of one attempt: a Kubeflow ``TrainJob``, the runtime that it refers to, and a network policy.

The pod does what a Ray job does: it runs :mod:`assay.worker.node` on a try of :mod:`assay.worker.exchange`. The job's
name follows from task and try, so that applying it twice is applying it once; it is made suspended for Kueue, which
admits it by quota. What it may take follows from the worker's own ``worker.toml``. This module writes manifests and
speaks to no cluster. They are tested against the recorded schemas of Kubeflow Trainer 2.3 and Kubernetes 1.37
(``tests/data``); **they were not run on a cluster**.

The pod is closed the way Pod Security's *restricted* level demands, and is still no sandbox: a task runs in bubblewrap
inside it or not at all. Under ``RuntimeDefault`` the kernel refuses bubblewrap its namespaces and the node ends the try
as ``ISOLATION_MISSING`` before an input is opened; :attr:`Cluster.seccomp_profile` names the profile that lets it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from assay.errors import FieldViolation, InvalidInputError
from assay.worker.disk import RESERVE_BYTES
from assay.worker.settings import WorkerSettings

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
# A registry and a path, and no tag: a tag beside a digest says something that no runtime checks.
_IMAGE = re.compile(r"([A-Za-z0-9.-]+(:[0-9]{1,5})?/)?[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_TASK = re.compile(r"([a-z][a-z0-9-]{0,30})\.([a-z][a-z0-9-]{0,62})\.(prepare|train|audit)\.[0-9]{1,4}")
_RESOURCE = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9._]{0,61}[A-Za-z0-9])?")
_QUANTITY = re.compile(r"[0-9]{1,15}(\.[0-9]{1,9})?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?")
_PROFILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
_GPU = "nvidia.com/gpu"
_MARK = {"app.kubernetes.io/managed-by": "assay", "app.kubernetes.io/component": "attempt"}
_WORKER, _FILES, _EXCHANGE, _MODELS = "/assay/worker", "/assay/worker-files", "/assay/exchange", "/assay/models"
_NODE_FILES = ("gateway.pub", "seal.key", "statement.key", "worker.toml")
_CANARY = "canary.key"
_NODE_BYTES = 512 << 20
_TMP_BYTES = 64 << 20
_SLACK_SECONDS = 900


@dataclass(frozen=True)
class Cluster:
    """What the operator has made ready.

    Attributes:
        namespace: where attempts run; one for each classification of data.
        image: image with Assay and bubblewrap, by digest alone.
        worker_secret: Secret with the worker's files: settings, keys, ``gateway.pub``.
        exchange_claim: volume claim of the exchange folder, sealed bytes only.
        models_claim: volume claim of the base models, read-only.
        queue: Kueue LocalQueue.
        runtime_class: gVisor, Kata or the like; empty for the cluster's own.
        seccomp_profile: a seccomp profile on the nodes, below the kubelet's folder, that lets an ordinary user make
            namespaces and mounts, which bubblewrap needs; empty for ``RuntimeDefault``, under which no task runs.
        apparmor_profile: an AppArmor profile on the nodes that lets bubblewrap mount; empty for the runtime's own.
        uid: user and group of the pod; that of the supervisor, to whom the exchange belongs.
        gpus: GPUs of one attempt.
        resources: further resources of one attempt, such as ``ephemeral-storage``, as Kubernetes quantities.

    Raises:
        InvalidInputError: ``KUBERNETES_NAME``, ``KUBERNETES_IMAGE``, ``KUBERNETES_PROFILE``, ``KUBERNETES_USER`` or
            ``KUBERNETES_QUANTITY`` naming each field at fault.
    """

    namespace: str
    image: str
    worker_secret: str
    exchange_claim: str
    models_claim: str
    queue: str
    runtime_class: str = ""
    seccomp_profile: str = ""
    apparmor_profile: str = ""
    uid: int = 10001
    gpus: int = 0
    resources: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _refuse("KUBERNETES_NAME", "Kubernetes would not take a name", self._names())
        _refuse("KUBERNETES_IMAGE", "the image must be pinned", self._image(), "name it REPOSITORY@sha256:DIGEST")
        _refuse("KUBERNETES_PROFILE", "a profile's name is a path below the kubelet's folder", self._profiles())
        if not 1 <= self.uid <= 65_535:
            wrong = [FieldViolation("uid", "must be an ordinary user, from 1 to 65535, and never root")]
            _refuse("KUBERNETES_USER", "the pod does not run as root", wrong)
        _refuse("KUBERNETES_QUANTITY", "a resource is not stated as Kubernetes states it", self._quantities())

    @property
    def runtime(self) -> str:
        """Name of the TrainingRuntime: two workers of one namespace have one each."""
        return f"assay-{self.worker_secret}"

    def _names(self) -> Iterator[FieldViolation]:
        for name in ("namespace", "worker_secret", "exchange_claim", "models_claim", "queue", "runtime_class"):
            value = getattr(self, name)
            if not _NAME.fullmatch(value) and not (name == "runtime_class" and not value):
                why = "must be 1 to 63 of a-z, 0-9 and -, with neither end a -"
                yield FieldViolation(name, f"{value[:80]!r} {why}")

    def _image(self) -> Iterator[FieldViolation]:
        name, _, digest = self.image.partition("@")
        if not digest:
            yield FieldViolation("image", "has no digest; a tag may name other bytes tomorrow")
        elif not _DIGEST.fullmatch(digest):
            yield FieldViolation("image", "its digest is not sha256: and 64 hex digits")
        elif not _IMAGE.fullmatch(name) or len(self.image) > 500:
            yield FieldViolation("image", "before the @ stands a repository without a tag, 500 characters in all")

    def _profiles(self) -> Iterator[FieldViolation]:
        for name in ("seccomp_profile", "apparmor_profile"):
            value = getattr(self, name)
            if value and (not _PROFILE.fullmatch(value) or len(value) > 253):
                yield FieldViolation(name, f"{value[:80]!r} is not a plain relative path")

    def _quantities(self) -> Iterator[FieldViolation]:
        if not 0 <= self.gpus <= 64:
            yield FieldViolation("gpus", "must lie between 0 and 64")
        for name, value in self.resources.items():
            place = f"resources.{name[:80]}"
            if name in ("cpu", "memory", _GPU):
                yield FieldViolation(place, "follows from worker.toml and from gpus, and is not stated twice")
            elif not _RESOURCE.fullmatch(name):
                yield FieldViolation(place, "is not the name of a resource")
            elif not _QUANTITY.fullmatch(value):
                units = "m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei"
                yield FieldViolation(place, f"{value[:40]!r} is not a number with one of the units {units} or none")


@dataclass(frozen=True)
class Needs:
    """What one attempt may take, from the worker's settings.

    Attributes:
        cpus: processors.
        spool_bytes: the memory in which what is plain lies: inputs sealed and opened, work, outputs, the result.
        memory_bytes: of the whole pod: spool, the task's processes, the sandbox's ``/tmp`` and ``/dev/shm``, the node.
        seconds: running time, with what pulling the image and sealing take.
        files: the worker's files that a node needs.
    """

    cpus: int
    spool_bytes: int
    memory_bytes: int
    seconds: int
    files: tuple[str, ...] = _NODE_FILES

    @classmethod
    def of(cls, folder: Path) -> Needs:
        """Reads a worker's folder, as the Secret holds it.

        Raises:
            InvalidInputError: ``KUBERNETES_LIMITS`` naming each limit that ``worker.toml`` leaves to the machine, which
                a pod does not have to itself; ``KUBERNETES_PLACES`` for places that a pod lacks; what
                :meth:`assay.worker.settings.WorkerSettings.load` raises.
        """
        settings = WorkerSettings.load(folder)
        stated = {
            "threads": settings.threads,
            "limits.memory_bytes": settings.limits.memory_bytes,
            "limits.disk_bytes": settings.limits.disk_bytes,
        }
        missing = [FieldViolation(name, "is not stated") for name, value in stated.items() if not value]
        _refuse("KUBERNETES_LIMITS", "what an attempt may take is not bounded", missing, "state it in worker.toml")
        _refuse("KUBERNETES_PLACES", "worker.toml names places that the pod lacks", _places(settings, folder.resolve()))
        spool = 2 * settings.max_task_bytes + 2 * settings.limits.disk_bytes + RESERVE_BYTES
        task = settings.limits.memory_bytes + 2 * settings.limits.tmp_bytes
        return cls(
            cpus=settings.threads,
            spool_bytes=spool,
            memory_bytes=spool + task + _NODE_BYTES + _TMP_BYTES,
            seconds=settings.limits.wall_seconds + _SLACK_SECONDS,
            files=(*_NODE_FILES, _CANARY) if (folder / _CANARY).exists() else _NODE_FILES,
        )


def _places(settings: WorkerSettings, folder: Path) -> Iterator[FieldViolation]:
    def inside(path: Path) -> str:
        return os.path.normpath(os.path.join(_WORKER, os.path.relpath(path, folder)))

    if _MODELS not in (str(settings.models_dir), inside(settings.models_dir)):
        yield FieldViolation("models_dir", f"must be {_MODELS}, where the claim of the base models is mounted")
    if not inside(settings.slot_file).startswith(_WORKER + "/"):
        yield FieldViolation("slot_file", "must lie in the worker's own folder; the rest of the pod is read-only")


def attempt_name(task_id: str, number: int) -> str:
    """Name of an attempt's TrainJob: the same for the same try; a DNS label, whatever the task is called."""
    return f"assay-{_short(task_id, 20)}-{number}"


def train_job(cluster: Cluster, needs: Needs, task_id: str, number: int) -> dict[str, Any]:
    """The attempt itself. Names and labels hold digests: a requester may have called a job after a person.

    Raises:
        InvalidInputError: ``KUBERNETES_TASK``.
    """
    found = _TASK.fullmatch(task_id)
    if found is None or not 1 <= number <= 9999:
        remedy = "take it from the exchange folder: its name, and that of the try in it"
        wrong = [
            FieldViolation("task", "must be UNIT.JOB.KIND.N as the gateway names it, and tries count from 1 to 9999")
        ]
        raise InvalidInputError("KUBERNETES_TASK", "this is no try of a task", remedy=remedy, violations=wrong)
    unit, job, kind = found.groups()
    labels = {
        "kueue.x-k8s.io/queue-name": cluster.queue,
        "assay.dev/job": _short(f"units/{unit}/tuningJobs/{job}", 40),
        "assay.dev/kind": kind,
        "assay.dev/try": str(number),
    }
    taken = {"cpu": str(needs.cpus), "memory": str(needs.memory_bytes), **cluster.resources}
    if cluster.gpus:
        taken[_GPU] = str(cluster.gpus)
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {
            "name": attempt_name(task_id, number),
            "namespace": cluster.namespace,
            "labels": {**_MARK, **labels},
        },
        "spec": {
            "suspend": True,
            "activeDeadlineSeconds": needs.seconds,
            "runtimeRef": {"apiGroup": "trainer.kubeflow.org", "kind": "TrainingRuntime", "name": cluster.runtime},
            "trainer": {
                "image": cluster.image,
                "command": ["python3", "-m", "assay.worker.node"],
                "args": [_WORKER, f"{_EXCHANGE}/{task_id}/{number}"],
                "numNodes": 1,
                "resourcesPerNode": {"requests": taken, "limits": dict(taken)},
            },
        },
    }


def training_runtime(cluster: Cluster, needs: Needs) -> dict[str, Any]:
    """What every attempt's pod is: an ordinary user without privileges, token or retry, on a read-only root."""
    template = {"metadata": {"labels": dict(_MARK)}, "spec": _pod(cluster, needs)}
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
            "name": cluster.runtime,
            "namespace": cluster.namespace,
            "labels": {**_MARK, "trainer.kubeflow.org/framework": "plainml"},
        },
        "spec": {"mlPolicy": {"numNodes": 1}, "template": {"spec": {"replicatedJobs": [job]}}},
    }


def _pod(cluster: Cluster, needs: Needs) -> dict[str, Any]:
    mounts = [
        {"name": "worker-files", "mountPath": _FILES, "readOnly": True},
        {"name": "worker", "mountPath": _WORKER},
        {"name": "exchange", "mountPath": _EXCHANGE},
        {"name": "models", "mountPath": _MODELS, "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  (a place inside the pod)
    ]
    few = {"cpu": "100m", "memory": "64Mi"}
    closed = _container_security(cluster)
    copy = {
        # Keys must be readable for their owner only, which a mounted Secret is not, and the spool lies beside them.
        "name": "worker-folder",
        "image": cluster.image,
        "command": ["install", "-m", "600", "-t", _WORKER, *(f"{_FILES}/{name}" for name in needs.files)],
        "resources": {"requests": few, "limits": dict(few)},
        "securityContext": closed,
        "volumeMounts": mounts[:2],
    }
    files = [{"key": name, "path": name} for name in needs.files]
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        # The pod's own user namespace: without one, no pod may show bubblewrap an unmasked /proc.
        "hostUsers": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": cluster.uid,
            "runAsGroup": cluster.uid,
            "fsGroup": cluster.uid,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": _profile(cluster.seccomp_profile, "RuntimeDefault"),
        },
        "initContainers": [copy],
        "containers": [
            {"name": "node", "image": cluster.image, "securityContext": dict(closed), "volumeMounts": mounts[1:]}
        ],
        "volumes": [
            {
                "name": "worker-files",
                "secret": {"secretName": cluster.worker_secret, "defaultMode": 0o440, "items": files},
            },
            # What is plain lies in memory and dies with the pod.
            {"name": "worker", "emptyDir": {"medium": "Memory", "sizeLimit": str(needs.spool_bytes)}},
            {"name": "exchange", "persistentVolumeClaim": {"claimName": cluster.exchange_claim}},
            {"name": "models", "persistentVolumeClaim": {"claimName": cluster.models_claim, "readOnly": True}},
            {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": str(_TMP_BYTES)}},
        ],
    }
    if cluster.apparmor_profile:
        pod["securityContext"]["appArmorProfile"] = _profile(cluster.apparmor_profile, "")
    if cluster.runtime_class:
        pod["runtimeClassName"] = cluster.runtime_class
    return pod


def _container_security(cluster: Cluster) -> dict[str, Any]:
    closed: dict[str, Any] = {
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    if cluster.seccomp_profile:
        # A kernel lets a user namespace mount /proc only where no part of the one outside is covered.
        closed["procMount"] = "Unmasked"
    return closed


def _profile(name: str, otherwise: str) -> dict[str, str]:
    return {"type": "Localhost", "localhostProfile": name} if name else {"type": otherwise}


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
    parser.add_argument("task", help="task id: the name of its folder in the exchange")
    parser.add_argument("number", type=int, help="which try: the name of its folder in the task's")
    parser.add_argument("--dir", type=Path, required=True, help="the worker's folder, whose files the Secret holds")
    for name in ("namespace", "image", "worker-secret", "exchange-claim", "models-claim", "queue"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("runtime-class", "seccomp-profile", "apparmor-profile"):
        parser.add_argument(f"--{name}", default="")
    parser.add_argument("--uid", type=int, default=Cluster.uid)
    parser.add_argument("--gpus", type=int, default=Cluster.gpus)
    parser.add_argument("--resource", action="append", default=[], metavar="NAME=QUANTITY", dest="resources")
    given = vars(parser.parse_args(arguments))
    task, number, folder = given.pop("task"), given.pop("number"), given.pop("dir")
    given["resources"] = dict(word.partition("=")[::2] for word in given["resources"])
    try:
        cluster, needs = Cluster(**given), Needs.of(folder)
        job = train_job(cluster, needs, task, number)
    except InvalidInputError as error:
        print(error.diagnostics(), file=sys.stderr)
        return 3
    items = [network_policy(cluster), training_runtime(cluster, needs), job]
    print(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}, indent=2))
    if not cluster.seccomp_profile and not cluster.runtime_class:
        print("under RuntimeDefault bubblewrap makes no namespace: the try ends as ISOLATION_MISSING", file=sys.stderr)
    return 0


def _short(text: str, digits: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def _refuse(reason: str, message: str, found: Iterable[FieldViolation], remedy: str = "") -> None:
    violations = list(found)
    if violations:
        raise InvalidInputError(reason, message, violations=violations, remedy=remedy)


if __name__ == "__main__":
    sys.exit(main())
