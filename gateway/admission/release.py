"""From adapter to verdict: the audit worker's task, then release policy."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from google.protobuf import json_format
from sqlalchemy import Connection

from assay import canonical
from assay.errors import IntegrityError, InternalError
from assay.v1 import dataset_pb2, measurement_pb2, policy_input_pb2, policy_pb2
from audit.ledger.records import MAX_BODY, RecordDraft
from audit.ledger.writer import UnitOfWork
from gateway.admission import facts, hyperparameters
from gateway.admission.exchange import ADAPTER_FOLDER, PRIVATE_FILE, Result, Task
from gateway.admission.intake import plan_digest, reason_of, shortened
from gateway.admission.office import Known, Office, failed, make_task
from gateway.history import RELEASE_QUESTION
from gateway.jobs import views
from gateway.jobs.transitions import Event
from gateway.settings import Settings
from gateway.store import rows
from gateway.store.tables import JobRow, ModelRow

REPORT_FILE = "report.json"
CANARIES_FILE = "canaries.json"
_ENVELOPE_ROOM = 8_000
_MOST_UNTESTED, _LONGEST_UNTESTED = 20, 300


async def audit(office: Office, job: JobRow) -> None:
    """AUDITING to QUARANTINED or AWAITING_APPROVAL.

    Raises:
        TaskFailedError: the task failed.
        PreconditionError: its machine had no room; it is done again.
        AbortedError: ``STALE`` when a person moved the job meanwhile.
        UnavailableError: the worker cannot be reached.
        IntegrityError: its result does not hold.
    """
    known = await office.known(job)
    model = await office.store.fetch(lambda c: _model(c, job))
    task = audit_task(office, job, known, model)
    look = partial(office.look, job, "audit")
    ended = await office.exchange.follow(office.audit, task, look)
    if not ended.done:
        await office.demand_room_there(job, task, ended)
        raise failed("audit", ended.task.reason)
    async with office.exchange.result(office.audit, task, ended, look) as result:
        await _judge(office, job, known, model, result)


def audit_task(office: Office, job: JobRow, known: Known, model: ModelRow) -> Task:
    """The audit task of a job; the same for ever, but for one that is done again under another id."""
    order = audit_order(office.settings, job, known, model)
    blobs = {f"{ADAPTER_FOLDER}/{f['path']}": f["sha256"] for f in json.loads(model.files)}
    blobs |= {name: known.text(f"prepare.{name}") for name in (PRIVATE_FILE, "selection.jsonl")}
    return make_task(job, known, "audit", order, blobs)


def audit_order(settings: Settings, job: JobRow, known: Known, model: ModelRow) -> dict[str, Any]:
    """What the audit worker is told, also when the audit is re-performed elsewhere."""
    plan = views.from_json(job.decision, policy_pb2.Decision).audit_plan
    decided, book = known.decided(), known.price_book(settings.price_book)
    return {
        "plan": canonical.from_message(plan),
        "base_model": model.base_model,
        "base_sha256": model.base_sha256,
        "job": job.name,
        "format": dataset_pb2.DatasetFormat.Name(known.dataset.format).removeprefix("DATASET_FORMAT_"),
        "training": known.json("train.predicate"),
        "prepare": known.json("prepare.predicate"),
        "quote": {
            "usd_micros": decided.quote_usd_micros,
            # The audit sets this part against what training took: of the rest it is itself a part.
            "train_usd_micros": facts.train_quote(book, decided.method, decided.planned_train_tokens),
            "train_tokens": decided.planned_train_tokens,
        },
        "price_book": canonical.float_free(book.model_dump(mode="json")),
    }


async def _judge(office: Office, job: JobRow, known: Known, model: ModelRow, result: Result) -> None:
    report, plan = _read_report(result), views.from_json(job.decision, policy_pb2.Decision).audit_plan
    _demand_own(report, result.predicate.get("claim", {}), model, plan)
    _demand_same_rows(result.predicate.get("claim", {}), known.json("prepare.predicate").get("claim", {}))
    request = views.request_of(job)
    spent = office.spent(job, known.price_book(office.settings.price_book), "audit", result.seconds)
    run = run_facts(known, result.predicate, int(spent["cost_usd_micros"]))
    if request.method in hyperparameters.WHOLE:
        # The gateway has no base model to compare whole modules with; the audit worker has, and signs what it found.
        run.adapter_sane = run.adapter_sane and report.environment.get("adapter_moved") == "true"
    question = facts.release_input(known.decided(), job.cap_usd_micros, known.dataset, plan, report.measurements, run)
    verdict = await asyncio.to_thread(office.policy.judge, question)
    passed = verdict.outcome == policy_pb2.OUTCOME_PASS
    digest = result.files[REPORT_FILE]
    subjects = [("adapter", model.adapter_sha256), (REPORT_FILE, digest), *_revealed(result, plan)]
    completed = audit_predicate(report, plan, digest, result.envelope)

    def record(uow: UnitOfWork) -> None:
        common = {"job": job.name, "actor": office.settings.subject, "trace_id": job.trace_id, "model": model.name}
        draft = RecordDraft(job.unit, "audit.completed", "audit", {**completed, **common}, subjects, job=job.name)
        uow.append(draft)

    async with office.keeping(job, result, [n for n in (REPORT_FILE, CANARIES_FILE) if n in result.files]):
        await office.change(
            job,
            Event.PASS if passed else Event.QUARANTINE,
            reason="" if passed else reason_of(verdict),
            predicate={
                "model": model.name,
                "verdict": canonical.from_message(shortened(verdict)),
                "run": canonical.from_message(run),
                "report_sha256": digest,
                "audit_plan_sha256": plan_digest(plan),
            },
            subjects=subjects,
            values={"audit": views.to_json(report), "verdict": views.to_json(verdict), **spent},
            facts={
                "audit.predicate": json.dumps(result.predicate, sort_keys=True),
                "audit.report": digest,
                RELEASE_QUESTION: views.to_json(question),
            },
            before=record,
        )


def run_facts(known: Known, audited: Mapping[str, Any], cost: int) -> policy_input_pb2.RunFacts:
    """What the workers' verified statements say of the run; every task must have proven its cut-off."""
    trained, prepared = known.json("train.predicate"), known.json("prepare.predicate")
    proven = all(p["isolation"].get("proven") is True for p in (prepared, trained, audited))
    return policy_input_pb2.RunFacts(
        isolation=str(trained["isolation"].get("method", "")),
        cut_off_proven=proven,
        adapter_sane=known.text("train.adapter_sane") == "yes",
        trained_tokens=int(trained["claim"].get("trained_tokens", 0)),
        cost_usd_micros=cost,
        statement_verified=True,
        audit_verified=True,
    )


def audit_predicate(
    report: measurement_pb2.AuditReport,
    plan: measurement_pb2.AuditPlan,
    report_sha256: str,
    envelope: Mapping[str, Any],
) -> dict[str, Any]:
    """What the ledger keeps of an audit: the report's digest, the signed statement, the measurements that fit.

    The gates' measurements come first, so that what was judged is always there; how many were left out is said.
    """
    gates = {gate.measurement for gate in plan.gates}
    ordered = sorted(
        report.measurements,
        key=lambda m: (facts.measurement_key(m) not in gates and m.name not in gates, m.exploratory),
    )
    untested = _untested(report.not_tested)
    room = MAX_BODY - len(canonical.encode([envelope, *untested])) - _ENVELOPE_ROOM
    kept: list[Any] = []
    for measurement in ordered:
        entry = canonical.from_message(measurement)
        room -= len(canonical.encode(entry)) + 1
        if room < 0:
            break
        kept.append(entry)
    return {
        "report_sha256": report_sha256,
        "measurements": kept,
        "measurements_left_out": len(report.measurements) - len(kept),
        "not_tested": untested,
        "statement": envelope,
    }


def _untested(told: Sequence[str]) -> list[str]:
    """What the record says was not tested; what it has no room for is counted, so that silence is not read as a pass.

    The report, and so the card, names all of it.
    """
    out = [t if len(t) <= _LONGEST_UNTESTED else t[: _LONGEST_UNTESTED - 1] + "…" for t in told[:_MOST_UNTESTED]]
    more = len(told) - len(out)
    return [*out, f"{more} more, which the audit's report names"] if more else out


def _read_report(result: Result) -> measurement_pb2.AuditReport:
    try:
        return json_format.Parse((result.folder / REPORT_FILE).read_text("utf-8"), measurement_pb2.AuditReport())
    except (OSError, ValueError, json_format.ParseError) as error:
        raise IntegrityError("RESULT_REPORT", "the audit task left no readable report") from error


def _demand_own(
    report: measurement_pb2.AuditReport, claim: Mapping[str, Any], model: ModelRow, plan: measurement_pb2.AuditPlan
) -> None:
    """Demands that the audit measured this adapter on this base model by this plan; the claim is what a log shows.

    Raises:
        IntegrityError: ``RESULT_REPORT``.
    """
    measured = {name: report.environment.get(name, "") for name in ("adapter_sha256", "base_sha256")}
    if measured != {"adapter_sha256": model.adapter_sha256, "base_sha256": model.base_sha256}:
        raise IntegrityError("RESULT_REPORT", "the audit says that it measured another adapter or another base model")
    wanted = {"adapter_sha256": model.adapter_sha256, "plan_sha256": plan_digest(plan)}
    # A worker of an earlier release claims neither.
    if any(claim.get(name, digest) != digest for name, digest in wanted.items()):
        raise IntegrityError("RESULT_REPORT", "the audit worker signed for another adapter or by another plan")


def _demand_same_rows(claim: Mapping[str, Any], prepared: Mapping[str, Any]) -> None:
    """Demands that the audit measured the private rows that the preparation committed to, as every verifier will.

    Raises:
        IntegrityError: ``RESULT_REPORT``, also where the audit worker, of an earlier release, says nothing of it.
    """
    committed = prepared.get("private_commitment", "")
    if committed and claim.get("private_commitment") != committed:
        raise IntegrityError(
            "RESULT_REPORT", "the audit worker signed for other rows than the preparation committed to"
        )


def _revealed(result: Result, plan: measurement_pb2.AuditPlan) -> list[tuple[str, str]]:
    """The canary manifest that the audit opened, as a record's subject; it must be the one committed to in the plan.

    Raises:
        IntegrityError: ``CANARY_REVEAL``.
    """
    revealed = result.files.get(CANARIES_FILE, "")
    if plan.canary_manifest_sha256 and revealed != plan.canary_manifest_sha256:
        raise IntegrityError("CANARY_REVEAL", "the audit did not open the canary manifest that the plan commits to")
    return [(CANARIES_FILE, revealed)] if revealed else []


def _model(connection: Connection, job: JobRow) -> ModelRow:
    model = rows.get(connection, ModelRow, name=job.model)
    if model is None:
        raise InternalError("JOB_ROW", f"{job.name} has no model")
    return model
