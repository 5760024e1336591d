"""The train worker's statement as SLSA provenance: how it is built, and how every reader takes it apart.

An in-toto Statement with predicate type ``https://slsa.dev/provenance/v1``, so that tools of others read it: the order
is the build's external parameters, the environment its internal ones; base model, sealed splits, source and packages
are what it was resolved from; curve and last checkpoint are its byproducts. What SLSA has no member for stands under
``runDetails`` with the vendor prefix that it asks for: the task's claim, the proof of cut-off, the supervisor's meter.

Statements written before are of our own type ``training/v1`` with flat members. :func:`read_training` gives those
members for both, so that old evidence stays readable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from assay import canonical, dsse
from assay.errors import InvalidInputError, PreconditionError

NAME = "provenance"
BUILD_TYPE = "https://assay.dev/build/train/v1"
_FLAT = "training"
MAX_PACKAGES = 18_000
"""Bytes of the list of packages, about 450 of them. Base64-coded they take two fifths of the record that holds the
statement (60,000 bytes); order, claim and the rest have taken half of one."""
_PACKAGE = "pkg:pypi/"


@dataclass(frozen=True)
class Run:
    """What the supervisor knows of a finished training run.

    Attributes:
        builder: subject of the worker.
        version: of this software.
        task_id: id of the task.
        order: predicate of the signed work order.
        order_sha256: digest of its canonical JSON.
        environment: the lock, see :mod:`assay.worker.lock`.
        packages: version of every installed distribution by name.
        sources: digest of the source of each package that ran, by name.
        claim: what the task says.
        isolation: proof of the cut-off.
        meter: the supervisor's measurements, with ``started`` and ``ended``.
        byproducts: digests of files by name that were left beside the adapter.
    """

    builder: str
    version: str
    task_id: str
    order: Mapping[str, Any]
    order_sha256: str
    environment: Mapping[str, str]
    packages: Mapping[str, str]
    sources: Mapping[str, str]
    claim: Mapping[str, Any]
    isolation: Mapping[str, Any]
    meter: Mapping[str, Any]
    byproducts: Mapping[str, str]


def predicate(run: Run) -> dict[str, Any]:
    """The SLSA predicate of a run (SLSA 1.0, provenance)."""
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"order": dict(run.order), "order_sha256": run.order_sha256},
            "internalParameters": {"environment": dict(run.environment)},
            "resolvedDependencies": _dependencies(run),
        },
        "runDetails": {
            "builder": {"id": run.builder, "version": {"assay": run.version}},
            "metadata": {
                "invocationId": run.task_id,
                "startedOn": run.meter["started"],
                "finishedOn": run.meter["ended"],
            },
            "byproducts": [_resource(name, digest) for name, digest in sorted(run.byproducts.items())],
            "assay_claim": dict(run.claim),
            "assay_isolation": dict(run.isolation),
            "assay_meter": dict(run.meter),
        },
    }


def demand_room(packages: Mapping[str, str]) -> None:
    """Demands, before anything is trained, that a statement which lists these packages fits into its record.

    Raises:
        PreconditionError: ``ENVIRONMENT_TOO_LARGE``.
    """
    size = len(canonical.encode(_packages(packages)))
    if size > MAX_PACKAGES:
        raise PreconditionError(
            "ENVIRONMENT_TOO_LARGE",
            f"the list of the {len(packages)} packages installed here has {size} bytes, and a training statement has "
            f"room for {MAX_PACKAGES}",
            remedy="install the train worker into a virtual environment of its own",
        )


def is_training(statement: Mapping[str, Any]) -> bool:
    """Whether a statement is a train worker's, of either form."""
    return dsse.predicate_name(str(statement.get("predicateType"))) in (NAME, _FLAT)


def read_training(statement: Mapping[str, Any]) -> dict[str, Any]:
    """Flat members of a training statement: task_id, job, kind, order_sha256, claim, isolation, meter, environment.

    Raises:
        InvalidInputError: ``PROVENANCE`` when it is another statement, or a member is missing.
    """
    if not is_training(statement):
        raise InvalidInputError("PROVENANCE", "the statement is not about a training run")
    found = statement["predicate"]
    if dsse.predicate_name(statement["predicateType"]) == _FLAT:
        return dict(found)
    try:
        built, ran = found["buildDefinition"], found["runDetails"]
        outside = built["externalParameters"]
        return {
            "task_id": ran["metadata"]["invocationId"],
            "job": outside["order"]["job"],
            "kind": "train",
            "order_sha256": outside["order_sha256"],
            "claim": ran["assay_claim"],
            "isolation": ran["assay_isolation"],
            "meter": ran["assay_meter"],
            "environment": built["internalParameters"]["environment"],
        }
    except (KeyError, TypeError) as error:
        raise InvalidInputError("PROVENANCE", f"the provenance lacks {error}") from error


def lock_of(statement: Mapping[str, Any]) -> dict[str, str]:
    """Everything that decides the bits of a run and is not in its order, flat: environment, sources, packages.

    A statement of the old form knows its environment only.

    Raises:
        InvalidInputError: ``PROVENANCE``.
    """
    out = {name: str(value) for name, value in read_training(statement)["environment"].items()}
    built = statement["predicate"].get("buildDefinition", {})
    for item in built.get("resolvedDependencies", ()):
        uri, name = str(item.get("uri", "")), str(item.get("name", ""))
        if uri.startswith(_PACKAGE):
            package, _, version = uri.removeprefix(_PACKAGE).partition("@")
            out[f"package {package}"] = version
        elif name.startswith("source "):
            out[name] = str(item.get("digest", {}).get("sha256", ""))
    return out


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[dict[str, str]]:
    """What differs between two locks, by name; a member that one of them lacks counts as absent."""
    names = sorted(set(before) | set(after))
    pairs = ((name, before.get(name, "absent"), after.get(name, "absent")) for name in names)
    return [{"name": name, "recorded": old, "now": new} for name, old, new in pairs if old != new]


def _dependencies(run: Run) -> list[dict[str, Any]]:
    order = run.order
    data = [
        (str(order["base_model"]), str(order["base_sha256"])),
        ("train.jsonl", str(order["train_sha256"])),
        ("validation.jsonl", str(order["validation_sha256"])),
        *((("selection.jsonl", str(order["selection_sha256"])),) if "selection_sha256" in order else ()),
        *(((str(order["parent"]["model"]), str(order["parent"]["adapter_sha256"])),) if order.get("parent") else ()),
    ]
    sources = [(f"source {name}", digest) for name, digest in sorted(run.sources.items())]
    return [*(_resource(*item) for item in (*data, *sources)), *_packages(run.packages)]


def _packages(packages: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"uri": f"{_PACKAGE}{name}@{version}"} for name, version in sorted(packages.items())]


def _resource(name: str, sha256: str) -> dict[str, Any]:
    return {"name": name, "digest": {"sha256": sha256}}
