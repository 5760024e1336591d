"""Which models a job goes on from or is taught by, and what a dataset's rows have reached: jobs, models, permits."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select

from assay.v1 import policy_input_pb2, tuning_job_pb2
from gateway.admission import quotes
from gateway.base_models import BaseModels
from gateway.caller import not_found
from gateway.jobs import views
from gateway.jobs.transitions import State
from gateway.names import unit_of
from gateway.store import jobs, rows
from gateway.store.jobs import Brief
from gateway.store.tables import FactRow, JobRow, ModelRow, PermitRow

FOLDER = "parent"
TEACHER = "teacher"
"""The fact of a job that holds what :func:`teacher_id` said as it was asked for: a model added later changes no job."""
ROWS = "prepare.parents"
"""The fact of a job that holds which train files its prepare task is given: of the jobs that its model comes of."""
_OWN, _MODEL = "units/", "/models/"


def parent_of(
    connection: Connection, request: tuning_job_pb2.CreateTuningJobRequest
) -> policy_input_pb2.ParentModel | None:
    """What policy is told of the model that a request goes on from; None where it starts from the base model.

    Raises:
        NotFoundError: ``NOT_FOUND`` for a model of another unit and for none, in the same words.
    """
    if not request.parent_model:
        return None
    model, job = _own(connection, request.parent_model, unit_of(request.parent))
    made = views.request_of(job)
    return policy_input_pb2.ParentModel(
        name=model.name,
        adapter_sha256=model.adapter_sha256,
        base_sha256=model.base_sha256,
        state=job.state,
        differentially_private=made.HasField("differential_privacy"),
        method=made.method,
        train_tokens=_tokens_of_chain(connection, job),
    )


def teacher_id(request: tuning_job_pb2.CreateTuningJobRequest, base_models: BaseModels) -> str:
    """Registry id of the base model whose answers are distilled; empty where the teacher is none, or none of those.

    Raises:
        InvalidInputError: ``BASE_MODEL_AMBIGUOUS`` for a repository of which several revisions are installed.
    """
    found = base_models.find(request.teacher.name)
    return found.id if found is not None else ""


def teacher_of(
    connection: Connection,
    request: tuning_job_pb2.CreateTuningJobRequest,
    base_models: BaseModels,
    resolved: str | None = None,
) -> policy_input_pb2.TeacherFacts | None:
    """What policy is told of the model whose answers are distilled; None where the request names none.

    Of a model that is known here its own licence counts, whatever the requester says: of a base model the registry's,
    also under owner and name of its repository, and of the unit's own model that of its base.

    Args:
        connection: to read the unit's own models by.
        request: which may name a teacher.
        base_models: the registry.
        resolved: what :func:`teacher_id` said when the job was asked for; None to ask it now.

    Raises:
        NotFoundError: ``NOT_FOUND`` for a model of another unit and for none, in the same words.
        InvalidInputError: ``BASE_MODEL_AMBIGUOUS`` as of :func:`teacher_id`, if that is asked; ``BASE_MODEL_UNKNOWN``
            when what it said is not installed any more.
    """
    if not request.HasField("teacher"):
        return None
    name = request.teacher.name
    known = teacher_id(request, base_models) if resolved is None else resolved
    if name.startswith(_OWN):
        model, job = _own(connection, name, unit_of(request.parent))
        base = base_models.find(model.base_model)
        licence, source = base.licence if base is not None else "", "own-model"
        state, sha256 = job.state, model.adapter_sha256
    elif known:
        teacher = base_models.get(known)
        licence, source, state, sha256 = teacher.licence, "registry", "", teacher.sha256
    else:
        licence, source, state, sha256 = request.teacher.licence, "requester", "", ""
    return policy_input_pb2.TeacherFacts(
        name=name, licence=licence.lower(), licence_source=source, state=state, sha256=sha256
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
        jobs: those that read the rows and those that go on from one of the models or were taught by one, oldest first.
        models: adapters that may hold what was learned, oldest first.
        parents: for a model that was not trained on the rows itself, the model that it goes on from or that taught it.
        permits: on which one of the models may run now.
    """

    jobs: Sequence[Brief]
    models: Sequence[ModelRow]
    parents: Mapping[str, str]
    permits: Sequence[PermitRow]


def reach(connection: Connection, unit: str, datasets: Collection[str], now_us: int) -> Reach:
    """Follows datasets of a unit to every model and permit, through models that go on from others or taught others."""
    every = jobs.briefs(connection, unit)
    # Few jobs name a model, and a request takes long to read whole.
    before_of = {job.name: learns_from(views.request_of(job)) for job in every if _MODEL in job.request}
    model = rows.table(ModelRow).c
    named = connection.execute(select(model.job, model.name).where(model.unit == unit))
    made: dict[str, str] = {job: name for job, name in named}
    reached = {job.name for job in every if views.dataset_of(job) in datasets}
    direct = frozenset(reached)
    before = -1
    while len(reached) > before:
        before = len(reached)
        models = {made[name] for name in reached if name in made}
        reached |= {name for name, learnt in before_of.items() if learnt & models}
    found = [job for job in every if job.name in reached]
    held = [job for job in found if job.name in made]
    return Reach(
        found,
        [_require(connection, made[job.name]) for job in held],
        {made[job.name]: min(before_of[job.name] & models) for job in held if job.name not in direct},
        [permit for job in held for permit in _in_force(connection, job, now_us)],
    )


def jobs_before(connection: Connection, request: tuning_job_pb2.CreateTuningJobRequest) -> list[JobRow]:
    """The jobs of all models whose learning a request takes over, through parents and teachers, each once."""
    found: dict[str, JobRow] = {}
    left = sorted(learns_from(request))
    while left:
        job = jobs.get(connection, job_of(connection, left.pop(0)))
        if job is not None and job.name not in found:
            found[job.name] = job
            left += sorted(learns_from(views.request_of(job)))
    return list(found.values())


def learning_from(connection: Connection, unit: str, model: str) -> list[JobRow]:
    """The unit's jobs that go on from a model or are taught by it."""
    every = (job for job in jobs.briefs(connection, unit) if _MODEL in job.request)
    found = (jobs.get(connection, job.name) for job in every if model in learns_from(views.request_of(job)))
    return [job for job in found if job is not None]


def reads(connection: Connection, job: str, names: Collection[str]) -> bool:
    """Whether a job's prepare task is given what one of these jobs was trained on."""
    fact = rows.get(connection, FactRow, job=job, key=ROWS)
    return fact is not None and not json.loads(fact.value)["files"].keys().isdisjoint(names)


def learns_from(request: tuning_job_pb2.CreateTuningJobRequest) -> set[str]:
    """Own models whose learning a job takes over: the one that it goes on from, and the one whose answers it learns."""
    return {name for name in (request.parent_model, request.teacher.name) if name.startswith(_OWN)}


def _in_force(connection: Connection, job: Brief, now_us: int) -> list[PermitRow]:
    if job.state != State.APPROVED:
        return []
    held = rows.select_all(connection, PermitRow, order_by="record_index", job=job.name, revoked_us=0)
    return [permit for permit in held if permit.not_before_us <= now_us < permit.not_after_us]


def _tokens_of_chain(connection: Connection, job: JobRow) -> int:
    """Tokens of a job and of those whose models it goes on from; of one that nothing is known of, its cap."""
    total = 0
    for link in _chain(connection, job):
        known = quotes.train_tokens(jobs.facts(connection, link.name))
        total += views.request_of(link).budget.max_train_tokens if known is None else known
    return total


def _chain(connection: Connection, job: JobRow) -> Iterator[JobRow]:
    """A job and those whose models it goes on from, the newest first."""
    link: JobRow | None = job
    while link is not None:
        yield link
        parent = views.request_of(link).parent_model
        link = jobs.get(connection, job_of(connection, parent)) if parent else None


def _own(connection: Connection, name: str, unit: str) -> tuple[ModelRow, JobRow]:
    """A unit's model and the job that made it."""
    model = rows.get(connection, ModelRow, name=name)
    job = jobs.get(connection, model.job) if model is not None else None
    if model is None or job is None or model.unit != unit:
        raise not_found(name)
    return model, job


def _require(connection: Connection, name: str) -> ModelRow:
    model = rows.get(connection, ModelRow, name=name)
    if model is None:
        raise not_found(name)
    return model
