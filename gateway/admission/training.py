"""From decision to adapter: the signed work order, the train worker's task, and the checks of what came back."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Any

from assay import canonical, dsse, modelfiles
from assay.dp_sgd import demand_claim
from assay.errors import IntegrityError
from assay.v1 import policy_input_pb2, policy_pb2, tuning_job_pb2, worker_pb2
from audit.ledger.writer import UnitOfWork
from gateway import lineage, standing
from gateway.admission import facts, hyperparameters, searching
from gateway.admission.exchange import ADAPTER_FOLDER, Result, Task
from gateway.admission.intake import plan_digest
from gateway.admission.office import LOST, Known, Office, audit_left, cost_of, failed, make_task, stages_with, words_of
from gateway.history import INTAKE_QUESTION
from gateway.jobs import views
from gateway.jobs.transitions import Event
from gateway.names import model_of
from gateway.settings import PriceBook
from gateway.store import jobs, rows
from gateway.store.blobs import read_bytes
from gateway.store.tables import JobRow, ModelRow

_NOTE_SECONDS = 5.0
_UNDER_WAY = (worker_pb2.TASK_STATE_WAITING, worker_pb2.TASK_STATE_RUNNING)


class CostCapReached(Exception):
    """The money set by the requester is spent."""


async def order(office: Office, job: JobRow) -> None:
    """QUEUED to TRAINING: the work order is signed and recorded before any worker hears of it.

    To PAUSED where what was decided stands no more by now: the job's people see why, and cancel it or let it go on once
    it would.

    Raises:
        AbortedError: ``STALE`` when a person moved the job meanwhile.
        UnavailableError: the train worker does not answer.
        InvalidInputError: ``BASE_MODEL_UNKNOWN`` when the base model is not installed any more.
        IntegrityError: ``BASE_MODEL_CHANGED`` when its id stands for other files than were decided on.
    """
    # While the worker is away the queue stands: each job that left it would hold a slot, and pause in the end.
    await office.train.client.describe()
    known = await office.known(job)
    transitions = await office.store.fetch(lambda c: jobs.transitions(c, job.name))
    decided = next(t.record_index for t in transitions if t.event in (Event.QUEUE, Event.DENY))
    predicate = work_order(office, job, known, decided)
    parent = await office.store.fetch(lambda c: lineage.parent_of(c, views.request_of(job)))
    if parent is not None:
        predicate["parent"] = {"model": parent.name, "adapter_sha256": parent.adapter_sha256}
    subjects = [
        ("dataset", predicate["dataset_sha256"]),
        ("base", predicate["base_sha256"]),
        ("train.jsonl", predicate["train_sha256"]),
        ("validation.jsonl", predicate["validation_sha256"]),
    ]
    if "selection_sha256" in predicate:
        subjects.append(("selection.jsonl", predicate["selection_sha256"]))
    payload = canonical.encode(dsse.statement("work-order", predicate, subjects))
    envelope = dsse.sign_service(payload, office.exchange.order_key)
    try:
        await office.change(
            job,
            Event.TRAIN,
            predicate={**predicate, "envelope": envelope},
            subjects=subjects,
            facts={"train.order": json.dumps(envelope, sort_keys=True)},
            before=lambda uow: standing.demand_intake(uow.connection, office.policy, job, uow.now),
        )
    except standing.LapsedError as error:
        await pause(office, job, words_of(error), job.cost_usd_micros)


def work_order(office: Office, job: JobRow, known: Known, decision_index: int) -> dict[str, Any]:
    """The predicate of the signed leave to train; every number is stated. Raises as :func:`order`."""
    request, base = views.request_of(job), known.base()
    office.base_models.get(base.id, base.sha256)
    decision = views.from_json(job.decision, policy_pb2.Decision)
    data = views.from_json(job.data, policy_input_pb2.DataFacts)
    chosen = facts.hyperparameters(request, data, base.parameters).values
    return {
        "job": job.name,
        "base_model": base.id,
        "base_sha256": base.sha256,
        "dataset_sha256": known.dataset.sha256,
        "train_sha256": known.text("prepare.train.jsonl"),
        "validation_sha256": known.text("prepare.validation.jsonl"),
        "method": request.method,
        **({"labels": list(data.labels)} if request.method == "classification" else {}),
        **_privacy(known),
        **_teacher(known),
        **_search(request, chosen, known),
        "hyperparameters": canonical.from_message(chosen),
        "max_train_tokens": request.budget.max_train_tokens,
        "max_usd_micros": job.cap_usd_micros,
        "seed": chosen.seed,  # again by itself, as the schema of orders has it
        "audit_plan_sha256": plan_digest(decision.audit_plan),
        "purpose": request.purpose,
        "decision_index": decision_index,
    }


def _privacy(known: Known) -> dict[str, Any]:
    """The guarantee that the run must keep, as it was decided on: its epsilon is what is reserved on the dataset."""
    asked = known.decided()
    if not asked.HasField("differential_privacy"):
        return {}
    return {"differential_privacy": canonical.from_message(asked.differential_privacy)}


def _search(
    request: tuning_job_pb2.CreateTuningJobRequest, chosen: tuning_job_pb2.Hyperparameters, known: Known
) -> dict[str, Any]:
    """The trials, and the rows that decide between them; the trials' numbers stand in the place of the one run's."""
    if not request.HasField("search"):
        return {}
    selection = known.text("prepare.selection.jsonl")
    return {"search": {"trials": searching.ordered(request, chosen)}, "selection_sha256": selection}


def _teacher(known: Known) -> dict[str, Any]:
    """Who wrote the answers, as it was decided on."""
    asked = known.json(INTAKE_QUESTION)["request"].get("teacher")
    members = ("name", "licence", "licence_source", "sha256")
    return {"teacher": {name: asked[name] for name in members if asked.get(name)}} if asked else {}


async def train(office: Office, job: JobRow) -> None:
    """TRAINING to AUDITING, or to PAUSED when the money is spent or after a fault that left a checkpoint.

    Raises:
        TaskFailedError: the task failed.
        AbortedError: ``STALE`` when a person moved the job meanwhile.
        UnavailableError: the worker cannot be reached.
        IntegrityError, InvalidInputError: its result does not hold.
    """
    known = await office.known(job)
    task = await train_task(office, job, known)
    watcher = _Watcher(office, job, known.price_book(office.settings.price_book), known.base().parameters)
    try:
        ended = await office.exchange.follow(office.train, task, watcher.look, watcher.count_lost)
    except CostCapReached:
        words = (
            f"COST_CAP: {watcher.cost()} of {job.cap_usd_micros} millionths of a US dollar are spent, and "
            f"{watcher.kept} of the quote are left for the audit"
        )
        await pause(office, job, words, watcher.cost())
        return
    if ended.may_go_on:
        await pause(office, job, ended.task.reason, watcher.cost())
        return
    if not ended.done:
        raise failed("train", ended.task.reason)
    async with office.exchange.result(office.train, task, ended, watcher.look) as result:
        await _take(office, watcher.job, result)


async def pause(office: Office, job: JobRow, reason: str, cost_usd_micros: int) -> None:
    """QUEUED or TRAINING to PAUSED for a reason of the gateway's own; a person lets it go on where it stopped.

    Raises:
        AbortedError: ``STALE`` when a person moved the job meanwhile.
    """
    spent = {"cost_usd_micros": cost_usd_micros}
    predicate = {**spent, "max_usd_micros": job.cap_usd_micros}
    values = {**spent, "resume_to": job.state}
    await office.change(job, Event.PAUSE, reason=reason[:2000], predicate=predicate, values=values)


async def train_task(office: Office, job: JobRow, known: Known) -> Task:
    """The train task of a job, with the files of the model that it goes on from; the same for ever."""
    name = views.request_of(job).parent_model
    parent = await office.store.fetch(lambda c: lineage.files_of(c, name)) if name else {}
    envelope = known.json("train.order")
    seen = dsse.read_statement(dsse.envelope_payload(envelope))["predicate"]
    splits = [f"{split}.jsonl" for split in ("train", "validation", "selection") if f"{split}_sha256" in seen]
    blobs = {name: known.text(f"prepare.{name}") for name in splits} | dict(parent)
    return make_task(job, known, "train", {"order": envelope}, blobs, seen)


async def _shape_of_parent(office: Office, job: JobRow, name: str) -> tuple[int, int]:
    """LoRA rank and alpha of the model that a job goes on from, which no order can alter."""
    files = await office.store.fetch(lambda c: lineage.files_of(c, name))
    config = files[f"{lineage.FOLDER}/{modelfiles.ADAPTER_CONFIG}"]
    made = json.loads(await asyncio.to_thread(read_bytes, office.blobs, job.unit, config))
    return int(made["r"]), int(made["lora_alpha"])


@dataclass
class _Watcher:
    """Looks at a training task: shows progress, prices its meter, and notices persons and the cost cap."""

    office: Office
    job: JobRow
    book: PriceBook
    parameters: int
    noted: float = field(default_factory=monotonic)
    seconds: float = 0.0

    async def look(self, task: worker_pb2.Task) -> None:
        """Called at every change of the task, and every second.

        Raises:
            AbortedError: ``STALE``.
            CostCapReached: with the audit as quoted, the job would cost more than its budget.
        """
        self.seconds = task.meter.wall_ms / 1000
        await self.office.look(self.job, "train", task, self.parameters)
        # What is done is paid for: its result is not left lying, and release policy sets its cost against the budget.
        if task.state in _UNDER_WAY and self.cost() + self.kept > self.job.cap_usd_micros:
            raise CostCapReached
        now = monotonic()
        if now - self.noted >= _NOTE_SECONDS:
            self.noted = now
            cost = self.cost()
            await self.office.store.commit(lambda u: jobs.note(u.connection, self.job.name, {"cost_usd_micros": cost}))

    async def count_lost(self) -> None:
        """Called before the task is handed in: a worker that lost it counts from nothing, and what was paid is paid."""
        stages = json.loads(self.job.stage_seconds)
        lost = (self.cost() - cost_of(self.book, stages)) // self.book.price if self.book.price else 0
        if lost > 0:
            stages[LOST] = stages.get(LOST, 0.0) + lost
            values = {"stage_seconds": json.dumps(stages, sort_keys=True), "cost_usd_micros": self.cost()}
            await self.office.store.commit(lambda u: jobs.note(u.connection, self.job.name, values))
            self.job, self.seconds = JobRow(**{**self.job.model_dump(), **values}), 0.0

    @property
    def kept(self) -> int:
        """What is left of the quote for the audit: a training that spent it too would be paid for and fail its release.

        Preparation was quoted together with the audit, and what it took is in :meth:`cost` already.
        """
        return audit_left(self.book, json.loads(self.job.stage_seconds))

    def cost(self) -> int:
        """What the job has cost so far, by its supervisors' clocks; never less than was noted before."""
        return max(self.job.cost_usd_micros, cost_of(self.book, stages_with(self.job, "train", self.seconds)))


async def _take(office: Office, job: JobRow, result: Result) -> None:
    """Checks the adapter once more, as if no supervisor had, keeps it, and registers the model."""
    request = views.request_of(job)
    folder = result.folder / ADAPTER_FOLDER
    checked = await office.exchange.compute(partial(modelfiles.check_adapter_folder, folder))
    if checked.base_model != request.base_model:
        raise IntegrityError("ADAPTER_BASE", "the adapter names another base model than the work order")
    finite = await office.exchange.compute(partial(modelfiles.adapter_is_finite, folder))
    if checked.whole != (request.method in hyperparameters.WHOLE):
        raise IntegrityError("ADAPTER_KIND", "the adapter is of another kind than the work order's method makes")
    # Whether whole modules differ from the base model's is for the audit to say, which has the base model.
    moved = checked.whole or await office.exchange.compute(partial(modelfiles.lora_b_moved, folder))
    if request.parent_model:
        parent = await office.store.fetch(lambda c: lineage.parent_of(c, request))
        moved = moved and parent is not None and checked.sha256 != parent.adapter_sha256
    known = await office.known(job)
    order = dsse.read_statement(dsse.envelope_payload(known.json("train.order")))["predicate"]
    data = views.from_json(job.data, policy_input_pb2.DataFacts)
    demand_claim(order, result.predicate["claim"], facts.drawn(known.decided(), data))
    searching.demand_every_trial(order, result.predicate["claim"])
    if not checked.whole:
        shape = searching.shape_of(order, result.predicate["claim"])
        if request.parent_model:
            shape = await _shape_of_parent(office, job, request.parent_model)
        if (checked.rank, checked.alpha) != shape:
            made = f"rank {checked.rank} and alpha {checked.alpha}"
            raise IntegrityError("ADAPTER_SHAPE", f"the adapter has {made}, the work order {shape[0]} and {shape[1]}")
    book = known.price_book(office.settings.price_book)
    names = [path for path in sorted(result.files) if path.startswith(ADAPTER_FOLDER + "/")]
    async with office.keeping(job, result, names) as kept:
        files = [
            {"path": name.removeprefix(ADAPTER_FOLDER + "/"), "sha256": blob.sha256, "size": blob.size}
            for name, blob in kept.items()
        ]
        model = ModelRow(
            name=model_of(job.name),
            unit=job.unit,
            job=job.name,
            files=json.dumps(files),
            adapter_sha256=checked.sha256,
            base_model=order["base_model"],
            base_sha256=order["base_sha256"],
            created_us=0,
        )

        def register(uow: UnitOfWork) -> None:
            rows.insert(uow.connection, ModelRow(**{**model.model_dump(), "created_us": rows.micros(uow.now)}))

        await office.change(
            job,
            Event.AUDIT,
            predicate={
                "model": model.name,
                "adapter_sha256": model.adapter_sha256,
                "base_sha256": model.base_sha256,
                "adapter_finite": finite,
                **({} if checked.whole else {"adapter_moved": moved}),
                "statement": result.envelope,
            },
            subjects=[("adapter", model.adapter_sha256), ("base", model.base_sha256)],
            values={"model": model.name, **office.spent(job, book, "train", result.seconds)},
            facts={
                "train.predicate": json.dumps(result.predicate, sort_keys=True),
                "train.adapter_sane": "yes" if finite and moved else "no",
            },
            before=register,
        )
