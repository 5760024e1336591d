"""Which model a job goes on from: its own unit's, as it stands now."""

from __future__ import annotations

import json
from collections.abc import Mapping

from sqlalchemy import Connection

from assay.v1 import policy_input_pb2, tuning_job_pb2
from gateway.admission.facts import unit_of
from gateway.caller import not_found
from gateway.jobs import views
from gateway.store import jobs, rows
from gateway.store.tables import ModelRow

FOLDER = "parent"


def parent_of(
    connection: Connection, request: tuning_job_pb2.CreateTuningJobRequest
) -> policy_input_pb2.ParentModel | None:
    """What policy is told of the model that a request goes on from; None where it starts from the base model.

    Raises:
        NotFoundError: ``NOT_FOUND`` for a model of another unit and for none, in the same words.
    """
    if not request.parent_model:
        return None
    model = rows.get(connection, ModelRow, name=request.parent_model)
    job = jobs.get(connection, model.job) if model is not None else None
    if model is None or job is None or model.unit != unit_of(request.parent):
        raise not_found(request.parent_model)
    return policy_input_pb2.ParentModel(
        name=model.name,
        adapter_sha256=model.adapter_sha256,
        base_sha256=model.base_sha256,
        state=job.state,
        differentially_private=views.request_of(job).HasField("differential_privacy"),
    )


def files_of(connection: Connection, name: str) -> Mapping[str, str]:
    """Blob digest of every file of a model, by its path in a task."""
    return {f"{FOLDER}/{f['path']}": f["sha256"] for f in json.loads(_require(connection, name).files)}


def job_of(connection: Connection, name: str) -> str:
    """The job that made a model."""
    return _require(connection, name).job


def _require(connection: Connection, name: str) -> ModelRow:
    model = rows.get(connection, ModelRow, name=name)
    if model is None:
        raise not_found(name)
    return model
