"""Which model a job goes on from, and everything that a dataset's rows have reached: jobs, models, permits."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from assay.v1 import policy_input_pb2, tuning_job_pb2
from gateway.admission.facts import unit_of
from gateway.caller import not_found
from gateway.jobs import views
from gateway.jobs.transitions import State
from gateway.store import jobs, rows
from gateway.store.tables import JobRow, ModelRow, PermitRow

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


@dataclass(frozen=True)
class Reach:
    """What rows have reached.

    Attributes:
        jobs: those that read the rows and those that go on from one of the models, oldest first.
        models: adapters that may hold what was learned, oldest first.
        parents: for a model that was not trained on the rows itself, the model that it goes on from.
        permits: on which one of the models may run now.
    """

    jobs: Sequence[JobRow]
    models: Sequence[ModelRow]
    parents: Mapping[str, str]
    permits: Sequence[PermitRow]


def reach(connection: Connection, unit: str, datasets: Collection[str], now_us: int) -> Reach:
    """Follows datasets of a unit to every model and permit, through models that go on from other models."""
    every = rows.select_all(connection, JobRow, order_by="created_us", unit=unit)
    asked = {job.name: views.request_of(job) for job in every}
    made = {model.job: model for model in rows.select_all(connection, ModelRow, unit=unit)}
    reached = {name for name, request in asked.items() if request.dataset in datasets}
    direct = frozenset(reached)
    before = -1
    while len(reached) > before:
        before = len(reached)
        models = {made[name].name for name in reached if name in made}
        reached |= {name for name, request in asked.items() if request.parent_model in models}
    found = [job for job in every if job.name in reached]
    held = [job for job in found if job.name in made]
    return Reach(
        found,
        [made[job.name] for job in held],
        {made[job.name].name: asked[job.name].parent_model for job in held if job.name not in direct},
        [permit for job in held for permit in _in_force(connection, job, now_us)],
    )


def _in_force(connection: Connection, job: JobRow, now_us: int) -> list[PermitRow]:
    if job.state != State.APPROVED:
        return []
    held = rows.select_all(connection, PermitRow, order_by="record_index", job=job.name, revoked_us=0)
    return [permit for permit in held if permit.not_before_us <= now_us < permit.not_after_us]


def _require(connection: Connection, name: str) -> ModelRow:
    model = rows.get(connection, ModelRow, name=name)
    if model is None:
        raise not_found(name)
    return model
