"""What a worker demands of a sealed task before it keeps it: the gateway's signature, names that belong together."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay import bundle, canonical, dsse
from assay.digests import sha256_bytes
from assay.errors import IntegrityError, InvalidInputError, PermissionDeniedError
from assay.worker.settings import WorkerKeys
from assay.worker.statement import PRIVATE_FILE, PRIVATE_FOLDER

_ORDERED_FILES = {"train.jsonl": "train_sha256", "validation.jsonl": "validation_sha256"}
_SEARCHED_FILES = {"selection.jsonl": "selection_sha256"}
"""Rows that an order names where it asks for a search; no other train task may hold them."""


@dataclass(frozen=True)
class Admitted:
    """A sealed task whose signature and bindings were checked; ``order`` is what the task module gets."""

    task_id: str
    kind: str
    job: str
    unit: str
    order: Mapping[str, Any]
    manifest_sha256: str


def inspect(sealed: Path, task_id: str, kind: str, keys: WorkerKeys, *, max_bytes: int) -> Admitted:
    """Verifies a sealed task without writing any of it.

    Raises:
        IntegrityError: a ``BUNDLE_`` reason for altered bytes, ``ORDER_SIGNATURE`` for a work order not signed by the
            gateway.
        PermissionDeniedError: ``TASK_BINDING`` or ``ORDER_BINDING`` when id, kind, job, data or order do not belong
            together.
        InvalidInputError: ``TASK_MANIFEST`` for a malformed manifest.
        ExhaustedError: ``BUNDLE_TOO_LARGE``.
    """
    with sealed.open("rb") as stream:
        manifest = bundle.read_manifest(stream, keys.seal, keys.gateway_permit, max_bytes=max_bytes)
    job, unit, order = manifest.get("job"), manifest.get("unit"), manifest.get("order")
    if not isinstance(job, str) or not 0 < len(job) <= 300 or not isinstance(unit, str) or not isinstance(order, dict):
        raise InvalidInputError("TASK_MANIFEST", "the manifest lacks a job, unit or order")
    if manifest.get("task_id") != task_id or manifest.get("kind") != kind:
        raise PermissionDeniedError("TASK_BINDING", "the bundle was sealed for another task or kind")
    if kind == "train":
        order = _work_order(order, job, manifest["files"], keys)
    elif "job" in order and order["job"] != job:
        raise PermissionDeniedError("ORDER_BINDING", "the order names another job than the bundle")
    return Admitted(task_id, kind, job, unit, order, sha256_bytes(canonical.encode(manifest)))


def open_inputs(sealed: Path, into: Path, job: str, keys: WorkerKeys, *, max_bytes: int) -> None:
    """Opens a task's files into ``into``, which must not exist, and what this worker once sealed to itself beside them.

    Raises:
        IntegrityError: a ``BUNDLE_`` reason.
        PermissionDeniedError: ``PRIVATE_BINDING`` when the private part belongs to another job.
    """
    staging = into.with_name(into.name + ".opening")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        with sealed.open("rb") as stream:
            bundle.unseal(stream, keys.seal, keys.gateway_permit, staging, max_bytes=max_bytes)
        private = staging / PRIVATE_FILE
        if private.exists():
            _open_private(private, staging / PRIVATE_FOLDER, job, keys, max_bytes)
            private.unlink()
        # The sandbox may run under another uid; the spool above is closed to everybody else.
        for folder in [staging, *(path for path in staging.rglob("*") if path.is_dir())]:
            folder.chmod(0o755)
        for path in (path for path in staging.rglob("*") if path.is_file()):
            path.chmod(0o644)
        staging.rename(into)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def _open_private(private: Path, into: Path, job: str, keys: WorkerKeys, max_bytes: int) -> None:
    signer = keys.statement.public_key()
    with private.open("rb") as stream:
        manifest = bundle.read_manifest(stream, keys.seal, signer, max_bytes=max_bytes)
        if manifest.get("kind") != "private" or manifest.get("job") != job:
            raise PermissionDeniedError("PRIVATE_BINDING", "the private part belongs to another job")
        stream.seek(0)
        bundle.unseal(stream, keys.seal, signer, into, max_bytes=max_bytes)


def _work_order(order: Mapping[str, Any], job: str, files: list[dict[str, Any]], keys: WorkerKeys) -> dict[str, Any]:
    envelope = order.get("order")
    if set(order) != {"order"} or not isinstance(envelope, dict):
        raise InvalidInputError("TASK_MANIFEST", "a training task carries one signed work order and nothing else")
    try:
        verified = dsse.verify_service(envelope, keys.gateway_permit)
    except (IntegrityError, InvalidInputError) as error:
        raise IntegrityError("ORDER_SIGNATURE", "the work order was not signed by the gateway") from error
    predicate = verified.predicate
    if verified.predicate_name != "work-order" or predicate.get("job") != job:
        raise PermissionDeniedError("ORDER_BINDING", "the work order is for another job, or no work order")
    digests = {entry["path"]: entry["sha256"] for entry in files}
    searched = {path: name for path, name in _SEARCHED_FILES.items() if name in predicate or path in digests}
    for path, name in (_ORDERED_FILES | searched).items():
        if digests.get(path) != predicate.get(name) or path not in digests:
            raise PermissionDeniedError("ORDER_BINDING", f"{path} is not the data that the work order allows")
    return predicate
