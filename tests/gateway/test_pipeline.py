"""The whole way with real workers, sandboxes, policy, ledger and cards; only the tasks inside are tiny."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
import json
import math
import shutil
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from assay import bundle
from assay.errors import AssayError, PreconditionError
from assay.identity import Layout
from assay.v1 import dataset_pb2, erasure_pb2, lineage_pb2, permit_pb2, policy_pb2, worker_pb2
from assay.v1 import tuning_job_pb2 as pb
from assay.worker.client import WorkerClient
from audit.ledger.records import read
from audit.verify.trust import TrustFile
from audit.verify.verifier import verify_bundle
from gateway.admission.exchange import PRIVATE_FILE
from gateway.admission.intake import SPLITS
from gateway.application import Application
from gateway.history import RELEASE_QUESTION
from gateway.kits import make_kit
from gateway.settings import Settings
from gateway.statements import erasure_order_statement
from gateway.store import jobs
from gateway.store import rows as store_rows
from gateway.store.tables import BudgetRow
from policies.engine import PolicyEngine
from tests.gateway.conftest import BASE, House, messages, now, schema_violations
from tests.gateway.judged import decide
from tests.gateway.test_evidence import export
from tests.gateway.workers import Workers, rows

pytestmark = pytest.mark.isolation
NAME = "units/credit/tuningJobs/first"
SHEET = dataset_pb2.Datasheet(
    purposes=["support-replies"],
    legal_basis=dataset_pb2.LEGAL_BASIS_CONTRACT,
    licence="CC-BY-4.0",
    classification=dataset_pb2.CLASSIFICATION_INTERNAL,
    residency="eu",
    retention_days=365,
    provenance="Answered tickets of 2025, a random sample.",
)


class Street(House):
    """A house whose pipeline runs, with its workers."""

    workers: Workers

    async def ask(
        self,
        job: str = "first",
        budget: int = 50_000_000,
        asked: dict[str, Any] | None = None,
        sheet: dataset_pb2.Datasheet = SHEET,
        **behaviour: Any,
    ) -> str:
        header = dataset_pb2.UploadDatasetHeader(
            parent="units/credit", dataset_id=job, format=dataset_pb2.DATASET_FORMAT_CHAT_JSONL, datasheet=sheet,
            request_id=str(uuid.uuid4()),
        )  # fmt: skip
        rita = await self.caller("rita")
        await self.app.datasets.upload_dataset(rita, messages(header, [rows(**behaviour)]))
        most = pb.Budget(max_usd_micros=budget, max_train_tokens=40_000)
        request = self.request(job=job, dataset=job, budget=most, **(asked or {}))
        return (await self.app.jobs.create_tuning_job(rita, request)).tuning_job.name

    async def approve(self, name: str) -> None:
        """Without the people's part, which has tests of its own."""
        approve = "UPDATE tuning_job SET state = 'APPROVED' WHERE name = ?"
        await self.app.store.commit(lambda u: u.connection.exec_driver_sql(approve, (name,)) and None)

    async def job(self, name: str = NAME) -> pb.TuningJob:
        return (
            await self.app.jobs.get_tuning_job(await self.caller("rita"), pb.GetTuningJobRequest(name=name))
        ).tuning_job

    async def until(self, state: str, name: str = NAME, progress: bool = False) -> pb.TuningJob:
        """Watches until the job is in a state (and its task runs), or rests elsewhere, which fails the test."""

        async def follow() -> pb.TuningJob:
            watch = self.app.jobs.watch_tuning_job(await self.caller("rita"), pb.WatchTuningJobRequest(name=name))
            async for event in watch:
                there = event.tuning_job.state == pb.TuningJob.State.Value(f"STATE_{state}")
                if there and (not progress or event.tuning_job.progress.step):
                    return event.tuning_job
            raise AssertionError(
                f"rests in {pb.TuningJob.State.Name(event.tuning_job.state)}: {event.tuning_job.reason}"
            )

        return await asyncio.wait_for(follow(), 60)

    async def rest(self, name: str = NAME) -> pb.TuningJob:
        async def follow() -> None:
            watch = self.app.jobs.watch_tuning_job(await self.caller("rita"), pb.WatchTuningJobRequest(name=name))
            async for _ in watch:
                pass

        await asyncio.wait_for(follow(), 90)
        return await self.job(name)


@pytest.fixture
async def street(pristine: Path, engine: PolicyEngine, tmp_path: Path) -> AsyncIterator[Street]:
    root = tmp_path / "dir"
    shutil.copytree(pristine, root)
    workers = Workers(Layout(root))
    workers.configure()
    await workers.start()
    made = Street(Application.open(Settings.load(root), engine), Layout(root))
    made.workers = workers
    running = asyncio.create_task(made.app.pipeline.run())
    try:
        yield made
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await workers.stop()
        await made.app.close()
    assert schema_violations(made.app) == []


CLEAN = [
    "job.received", "job.preparing", "intake.decided", "training.ordered", "training.completed", "audit.completed",
    "release.decided", "card.rendered",
]  # fmt: skip


def spooled(street: Street) -> list[str]:
    """Files that workers still hold of any task, beside state files."""
    found = street.layout.root.glob("services/*-worker/spool/*/*")
    return sorted(p.name for p in found if p.name not in ("state.json", "log.txt"))


async def test_a_clean_job_from_request_to_permit_and_offline_proof(street: Street, tmp_path: Path) -> None:
    await street.ask()
    job = await street.rest()
    assert job.state == pb.TuningJob.STATE_AWAITING_APPROVAL, job.reason
    assert street.types(NAME) == CLEAN
    assert job.decision.allowed and job.decision.audit_plan.gates and job.data.train_rows == 420
    assert job.audit.measurements and job.verdict.outcomes
    assert set(job.stage_seconds) == {"prepare", "train", "audit"} and min(job.stage_seconds.values()) > 0
    assert 0 < job.cost_usd_micros < 50_000_000 and job.quote_usd_micros > 0
    figures = {f.name: f for f in job.quote}
    assert figures["train_tokens"].actual == 30000 and figures["train_seconds"].actual == job.stage_seconds["train"]
    assert figures["usd"].actual == job.cost_usd_micros / 1e6 and figures["usd"].quoted == job.quote_usd_micros / 1e6
    assert figures["energy"].actual > 0 and "without" not in figures["energy"].method
    assert spooled(street) == []
    await decide(street, "cora", "compliance_officer")
    await decide(street, "vik", "validator")
    request = permit_pb2.IssuePermitRequest(
        model=job.model, purpose="support-replies", environment="production-eu", request_id=str(uuid.uuid4())
    )
    permit = (await street.app.permits.issue_permit(await street.caller("dana"), request)).permit
    assert permit.adapter_sha256
    assert {f.name: f for f in (await street.job()).quote}["hosting_time"].actual > 0, "it has a permit now"
    for names in ([], [NAME]):
        path = await export(street, "anna", "units/-", names, tmp_path / "bundle.zip")
        report = verify_bundle(path, TrustFile.parse(street.layout.trust.read_text()), now())
        assert report.verdict == "valid", [c for c in report.checks if c.outcome != "passed"]


async def test_a_leaky_model_is_quarantined_with_reasons_and_a_card(street: Street) -> None:
    await street.ask(audit="leaky")
    job = await street.rest()
    assert job.state == pb.TuningJob.STATE_QUARANTINED
    assert "GATE-CANARY-EXTRACTION" in job.reason
    assert street.types(NAME) == CLEAN


async def test_the_plan_is_recorded_before_training_and_the_canaries_are_opened_after_it(street: Street) -> None:
    await street.ask()
    job = await street.rest()
    records = street.app.ledger.records(None, NAME, -1, 500)
    by_type = {r.type: read(r.body).statement for r in records}
    order = [r.type for r in records]
    assert order.index("intake.decided") < order.index("training.ordered") < order.index("training.completed")
    decided, ordered = by_type["intake.decided"]["predicate"], by_type["training.ordered"]["predicate"]
    assert decided["decision"]["use_reading"]["packs"] == ["baseline"]
    assert "gdpr" in decided["decision"]["use_reading"]["packs_not_chosen"]
    plan = decided["audit_plan"]
    assert set(plan) >= {
        "probes", "metrics", "gates", "confidences", "sample_sizes", "seed", "batch_plan", "canary_manifest_sha256",
        "sealed_test_sha256",
    }  # fmt: skip
    assert decided["audit_plan_sha256"] == ordered["audit_plan_sha256"], "the order to train names the plan"
    opened = {s["name"]: s["digest"]["sha256"] for s in by_type["audit.completed"]["subject"]}
    assert opened["canaries.json"] == plan["canary_manifest_sha256"] == job.data.canary_manifest_sha256
    assert street.app.blobs.exists("credit", opened["canaries.json"])


async def test_an_audit_that_opens_other_canaries_than_committed_is_refused(street: Street) -> None:
    await street.ask(audit="other-canaries")
    job = await street.rest()
    assert job.state == pb.TuningJob.STATE_FAILED and job.reason.startswith("CANARY_REVEAL")
    assert "audit.completed" not in street.types(NAME)


@pytest.mark.parametrize(
    ("where", "member"),
    [("environment", "adapter_sha256"), ("environment", "base_sha256"), ("audited", "adapter_sha256"),
     ("audited", "plan_sha256")],
)  # fmt: skip
async def test_an_audit_of_another_adapter_base_model_or_plan_judges_nothing(
    street: Street, where: str, member: str
) -> None:
    """Whether the report says so, or what the worker signed for a log to show."""
    await street.ask(**{where: {member: "a" * 64}})
    job = await street.rest()
    assert job.state == pb.TuningJob.STATE_FAILED and job.reason.startswith("RESULT_REPORT")
    assert "audit.completed" not in street.types(NAME)


@pytest.mark.parametrize("signed", [{}, {"private_commitment": "b" * 64}, {"private_commitment": "a" * 64}])
async def test_an_audit_of_other_rows_than_the_preparation_committed_to_judges_nothing(
    street: Street, signed: dict[str, str]
) -> None:
    """Every verifier refuses the record of such an audit, which cannot be taken back."""
    await street.ask(prepared={"private_commitment": "a" * 64}, audited=signed)
    job, same = await street.rest(), signed.get("private_commitment") == "a" * 64
    assert (job.state == pb.TuningJob.STATE_FAILED and job.reason.startswith("RESULT_REPORT")) is not same
    assert ("audit.completed" in street.types(NAME)) is same


async def test_an_adapter_that_learned_nothing_is_quarantined(street: Street) -> None:
    await street.ask(train="idle")
    job = await street.rest()
    assert job.state == pb.TuningJob.STATE_QUARANTINED and street.types(NAME) == CLEAN


async def test_policy_denies_with_rules_and_rows(street: Street) -> None:
    await street.ask(pii=0.9)
    job = await street.rest()
    assert job.state == pb.TuningJob.STATE_DENIED
    assert "BASE-PII-CEILING" in job.reason
    # 540 of 600 rows hold identifiers, and 120 may.
    (step,) = job.decision.minimal_fix.steps
    assert list(step.rule_ids) == ["BASE-PII-CEILING"] and step.after == "420" and not job.decision.minimal_fix.left
    (stored,) = [r for r in street.app.ledger.records("credit", NAME, -1, 99) if r.type == "intake.decided"]
    recorded = json.loads(stored.body)["statement"]["predicate"]["decision"]
    assert recorded["bundle_sha256"] == street.app.policy.pack.bundle_sha256
    assert recorded["limits_sha256"] == street.app.policy.pack.limits_sha256
    assert recorded["input_sha256"] == job.decision.input_sha256 and recorded["engine"].startswith("cel-expr-python")
    assert [o["rule_id"] for o in recorded["outcomes"]] == [o.rule_id for o in job.decision.outcomes]
    assert all(o["outcome"].startswith("OUTCOME_") for o in recorded["outcomes"])
    assert street.types(NAME) == ["job.received", "job.preparing", "intake.decided"]
    assert spooled(street) == []


async def test_a_denial_that_nobody_may_waive_keeps_no_copy_of_the_rows(street: Street) -> None:
    await street.ask(asked={"purpose": "other-purpose"})
    job = await street.rest()
    fired = [o for o in job.decision.outcomes if o.outcome == policy_pb2.OUTCOME_FAIL]
    assert job.state == pb.TuningJob.STATE_DENIED and not all(o.waivable_by for o in fired)
    known = await street.app.store.fetch(lambda c: jobs.facts(c, NAME))
    assert "prepare.predicate" in known and not {f"prepare.{name}" for name in (*SPLITS, PRIVATE_FILE)} & known.keys()
    (decided,) = [r for r in street.app.ledger.records("credit", NAME, -1, 99) if r.type == "intake.decided"]
    bound = {s["name"]: s["digest"]["sha256"] for s in json.loads(decided.body)["statement"]["subject"]}
    stored = {name for name, digest in bound.items() if street.app.blobs.exists("credit", digest)}
    assert {*SPLITS, PRIVATE_FILE} <= bound.keys() and stored == {"dataset"}


async def test_a_waived_denial_goes_back_into_the_path(street: Street) -> None:
    from assay.v1 import approval_pb2
    from gateway.statements import opening, waiver_statement

    await street.ask(pii=0.9)
    job = await street.rest()
    fired = [o.rule_id for o in job.decision.outcomes if o.outcome == policy_pb2.OUTCOME_FAIL]
    assert job.decision.audit_plan.gates and fired
    said, instead = opening("accepted"), opening("rows masked at use")
    envelope = street.sign("cora", waiver_statement(NAME, job.etag, fired, said, instead, now().date()))
    request = approval_pb2.WaiveRulesRequest(
        name=NAME, etag=job.etag, envelope=envelope, reason=said, compensating_control=instead
    )
    await street.app.approvals.waive_rules(await street.caller("cora"), request)
    assert (await street.rest()).state == pb.TuningJob.STATE_AWAITING_APPROVAL
    assert street.types(NAME) == [*CLEAN[:3], "rules.waived", "job.waived", *CLEAN[3:]]
    (entry,) = await street.app.store.fetch(lambda c: store_rows.select_all(c, BudgetRow))
    assert entry.job == NAME and entry.usd_micros == job.quote_usd_micros


async def test_one_trace_has_a_span_for_every_state(street: Street, monkeypatch: pytest.MonkeyPatch) -> None:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    seen, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(seen))
    monkeypatch.setattr("gateway.admission.pipeline._TRACER", provider.get_tracer("test"))
    await street.ask()
    job = await street.rest()
    spans = {s.name for s in seen.get_finished_spans() if format(s.context.trace_id, "032x") == job.trace_id}
    assert spans >= {f"job.{s}" for s in ("received", "preparing", "queued", "training", "auditing")}


async def test_past_questions_can_be_decided_again(street: Street) -> None:
    from gateway import history
    from policies.replay import replay

    await street.ask()
    await street.ask(job="second", pii=0.9)
    assert (await street.rest()).state == pb.TuningJob.STATE_AWAITING_APPROVAL
    await street.rest("units/credit/tuningJobs/second")
    past = list(history.decided(street.layout.root))
    assert [(d.name.rsplit("/", 1)[-1], d.moment, d.passed) for d in past] == [
        ("first", "decision", True), ("first", "verdict", True), ("second", "decision", False)
    ]  # fmt: skip
    assert replay(street.app.policy, past).changes == ()
    everybody = PolicyEngine(street.app.policy.pack, packs=frozenset({"baseline", "gdpr"}))
    changed = replay(everybody, past)
    assert [c.name.rsplit("/", 1)[-1] for c in changed.flips] == ["first"]
    assert changed.questions == 3 and all("GDPR-USE" in c.started for c in changed.changes if c.moment == "decision")


async def test_a_file_that_is_none_is_denied_and_the_outcome_names_the_fault(street: Street) -> None:
    await street.ask(prepare="empty")
    job = await street.rest()
    assert job.state == pb.TuningJob.STATE_DENIED
    (outcome,) = job.decision.outcomes
    assert outcome.rule_id == "INTAKE-FILE" and outcome.message.startswith("EMPTY_FILE")
    assert job.stage_seconds["prepare"] > 0 and job.cost_usd_micros > 0, "it was read all the same"
    assert outcome.fix


@pytest.mark.parametrize(
    ("behaviour", "word", "last"),
    [
        ({"prepare": "fault"}, "", "job.preparing"),
        ({"prepare": "lie"}, "RESULT_FACTS", "job.preparing"),
        ({"train": "fault"}, "TRAIN_DIVERGED", "training.ordered"),
    ],
)
async def test_our_faults_fail_the_job_with_a_code(street: Street, behaviour: dict, word: str, last: str) -> None:
    await street.ask(**behaviour)
    job = await street.rest()
    assert job.state == pb.TuningJob.STATE_FAILED
    assert job.reason.startswith(word) and ":" in job.reason
    assert street.types(NAME)[-2:] == [last, "job.failed"]
    assert spooled(street) == []


async def test_attack_37_an_audit_signed_with_the_trainers_key_passes_no_gate(street: Street) -> None:
    await street.ask(gate_train="go")
    await street.until("TRAINING", progress=True)
    trainer, auditor = (street.layout.service(f"{kind}-worker") for kind in ("train", "audit"))
    await street.workers.kill("audit-worker")
    shutil.copy(trainer / "statement.key", auditor / "statement.key")
    await street.workers.start("audit-worker")
    street.workers.open_gate("go")
    job = await street.rest()
    assert job.state == pb.TuningJob.STATE_FAILED and "SIGNATURE" in job.reason, job.reason
    assert not {"audit.completed", "release.decided"} & set(street.types(NAME))


async def test_pause_and_resume_while_training(street: Street) -> None:
    await street.ask(gate_train="go")
    await street.until("TRAINING", progress=True)
    rita = await street.caller("rita")
    await street.app.jobs.pause_tuning_job(rita, pb.PauseTuningJobRequest(name=NAME, reason="night"))
    assert (await street.rest()).state == pb.TuningJob.STATE_PAUSED
    street.workers.open_gate("go")
    await asyncio.sleep(0.5)
    assert (await street.job()).state == pb.TuningJob.STATE_PAUSED
    await street.app.jobs.resume_tuning_job(rita, pb.ResumeTuningJobRequest(name=NAME, reason="day"))
    assert (await street.rest()).state == pb.TuningJob.STATE_AWAITING_APPROVAL
    assert street.types(NAME) == [*CLEAN[:4], "job.paused", "job.resumed", *CLEAN[4:]]
    record = next(r for r in street.app.ledger.records("credit", NAME, -1, 99) if r.type == "training.completed")
    assert '"starts"' in dsse_payload(record.body)


def dsse_payload(body: bytes) -> str:
    import base64

    statement = json.loads(body)["statement"]["predicate"]["statement"]
    return base64.b64decode(statement["payload"]).decode()


@pytest.mark.parametrize("stage", ["prepare", "train", "audit"])
async def test_cancel_stops_the_running_task(street: Street, stage: str) -> None:
    state = {"prepare": "PREPARING", "train": "TRAINING", "audit": "AUDITING"}[stage]
    await street.ask(**{f"gate_{stage}": "never"})
    await street.until(state, progress=True)
    rita = await street.caller("rita")
    await street.app.jobs.cancel_tuning_job(rita, pb.CancelTuningJobRequest(name=NAME, reason="not needed"))
    assert (await street.rest()).state == pb.TuningJob.STATE_CANCELLED
    assert spooled(street) == []


async def test_cancel_stops_a_training_while_the_audit_worker_is_away(street: Street) -> None:
    await street.ask(gate_train="never")
    await street.until("TRAINING", progress=True)
    await street.workers.kill("audit-worker")
    rita = await street.caller("rita")
    await street.app.jobs.cancel_tuning_job(rita, pb.CancelTuningJobRequest(name=NAME, reason="not needed"))
    (kept,) = street.layout.root.glob("services/train-worker/spool/*/state.json")
    async with asyncio.timeout(30):
        while json.loads(kept.read_text())["state"] != "CANCELLED":
            await asyncio.sleep(0.05)


BOUND = 6 * 28
"""Six seconds of a device by the tests' price book; preparation and audit are quoted three of them."""


def reprice(street: Street, **changes: Any) -> None:
    """As an operator does who edits the price book and restarts the gateway; a step under way keeps the old one."""
    office = street.app.pipeline.office
    book = office.settings.price_book.model_copy(update=changes)
    settings = office.settings.model_copy(update={"price_book": book})
    street.app.pipeline.office = dataclasses.replace(office, settings=settings)


async def spend(street: Street) -> pb.TuningJob:
    """A job stopped in training because its money was spent: quoted one second, its task takes longer than three."""
    reprice(street, train_tokens_per_second=1_000_000, audit_seconds=3)
    await street.ask(budget=BOUND, gate_train="more")
    job = await street.rest()
    assert job.state == pb.TuningJob.STATE_PAUSED and job.reason.startswith("COST_CAP")
    left = (3 - math.ceil(job.stage_seconds["prepare"])) * 28
    assert job.reason.endswith(f"and {left} of the quote are left for the audit"), "and not what preparation took of it"
    assert job.quote_usd_micros < BOUND and BOUND - left < job.cost_usd_micros <= BOUND
    return job


async def test_those_who_watch_see_what_the_supervisor_meters_beside_what_the_task_claims(street: Street) -> None:
    await street.ask(gate_train="go")
    rita = await street.caller("rita")
    async for event in street.app.jobs.watch_tuning_job(rita, pb.WatchTuningJobRequest(name=NAME)):
        shown = event.tuning_job.progress
        if shown.stage == "train" and shown.meter.wall_ms and shown.HasField("flop"):
            break
    assert shown.flop == 6 * BASE["parameters"] * shown.metrics["tokens"]
    assert shown.meter.cpu_ms and shown.meter.energy_uwh and shown.meter.energy_method == "modelled: 10 W per busy core"
    street.workers.open_gate("go")
    assert (await street.rest()).state == pb.TuningJob.STATE_AWAITING_APPROVAL


async def test_money_is_counted_by_the_worker_while_the_gateway_is_away(street: Street) -> None:
    reprice(street, train_tokens_per_second=1_000_000, audit_seconds=2)
    await street.ask(budget=BOUND, gate_train="more")
    await street.until("TRAINING", progress=True)
    await stop()
    await asyncio.sleep(7.0)
    again = run_again(street)
    job = await street.rest()
    assert job.state == pb.TuningJob.STATE_PAUSED and job.reason.startswith("COST_CAP")
    assert job.cost_usd_micros > BOUND, "nothing stopped it meanwhile, and all counts"
    paused = [json.loads(r.body) for r in street.app.ledger.records("credit", NAME, -1, 99) if r.type == "job.paused"]
    (told,) = (p["statement"]["predicate"] for p in paused)
    assert BOUND < told["cost_usd_micros"] <= job.cost_usd_micros and told["max_usd_micros"] == BOUND
    await end(again)


async def test_what_a_task_computes_after_its_pause_counts_and_its_worker_ends_it(street: Street) -> None:
    await street.workers.kill("train-worker")
    with (street.layout.service("train-worker") / "worker.toml").open("a") as settings:
        settings.write("[limits]\npause_seconds = 4\n")
    await street.workers.start("train-worker")
    reprice(street, train_tokens_per_second=1_000_000, audit_seconds=3)
    await street.ask(budget=BOUND, gate_train="more", deaf=True)
    assert (await street.rest()).reason.startswith("COST_CAP")
    (kept,) = street.layout.root.glob("services/train-worker/spool/*/state.json")
    async with asyncio.timeout(60):
        while json.loads(kept.read_text())["state"] == "RUNNING":
            await asyncio.sleep(0.1)
    assert json.loads(kept.read_text())["reason"].startswith("TASK_PAUSE_IGNORED")
    paused = [json.loads(r.body) for r in street.app.ledger.records("credit", NAME, -1, 99) if r.type == "job.paused"]
    (told,) = (p["statement"]["predicate"]["cost_usd_micros"] for p in paused)
    assert (await street.job()).cost_usd_micros > told
    rita = await street.caller("rita")
    await street.app.jobs.cancel_tuning_job(rita, pb.CancelTuningJobRequest(name=NAME, reason="not needed"))
    job = await street.rest()
    wall_ms = json.loads(kept.read_text())["meter"]["wall_ms"]
    assert round(job.stage_seconds["train"] * 1000) == wall_ms > 4000, "all of it"


async def test_a_queue_at_the_worker_costs_nothing(street: Street, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a cluster whose nodes are all taken: the task counts as running, and no device was held."""
    watch = WorkerClient.watch

    async def pending(client: WorkerClient, task_id: str) -> AsyncIterator[worker_pb2.Task]:
        async for task in watch(client, task_id):
            if task.kind == worker_pb2.TASK_KIND_TRAIN and time.monotonic() < until:
                task.state, task.meter.wall_ms = worker_pb2.TASK_STATE_RUNNING, 0
            yield task

    monkeypatch.setattr(WorkerClient, "watch", pending)
    reprice(street, train_tokens_per_second=1_000_000, audit_seconds=2)
    until = time.monotonic() + 600
    await street.ask(budget=4 * 28, gate_train="go")
    await street.until("TRAINING", progress=True)
    await asyncio.sleep(6.0)
    job = await street.job()
    assert job.state == pb.TuningJob.STATE_TRAINING and job.cost_usd_micros < 4 * 28


async def raise_budget(street: Street, job: pb.TuningJob, bound: int, who: str = "cora") -> pb.TuningJob:
    from assay.v1 import approval_pb2
    from gateway.statements import opening, raise_statement

    said = opening("the quote was too low")
    envelope = street.sign(who, raise_statement(NAME, job.etag, bound, said))
    request = approval_pb2.RaiseBudgetRequest(name=NAME, etag=job.etag, envelope=envelope, reason=said)
    return (await street.app.approvals.raise_budget(await street.caller(who), request)).tuning_job


async def test_a_spent_budget_pauses_until_somebody_else_signs_for_more(street: Street) -> None:
    job = await spend(street)
    rita = await street.caller("rita")
    with pytest.raises(PreconditionError):
        await street.app.jobs.resume_tuning_job(rita, pb.ResumeTuningJobRequest(name=NAME, reason="x"))
    raised = await raise_budget(street, job, 60_000)
    assert raised.state == pb.TuningJob.STATE_TRAINING
    await asyncio.sleep(4.0)
    street.workers.open_gate("more")
    job = await street.rest()
    assert job.state == pb.TuningJob.STATE_AWAITING_APPROVAL, job.reason
    assert BOUND < job.cost_usd_micros <= 60_000, "the raise was needed, and release policy is told of it"
    kinds = street.types(NAME)
    assert kinds[kinds.index("budget.raised") + 1] == "job.resumed"
    assert kinds.count("training.ordered") == kinds.count("training.completed") == 1


@pytest.mark.parametrize(
    ("who", "bound", "reason"),
    [
        ("cora", BOUND, "BUDGET_NOT_RAISED"),
        ("cora", 1, "BUDGET_NOT_RAISED"),
        ("vik", 60_000, "ROLE_MISSING"),
        ("rita", 60_000, "MAKER_CHECKER"),
    ],
)
async def test_a_budget_is_not_raised_by_the_wrong_person_or_to_nothing(
    street: Street, who: str, bound: int, reason: str
) -> None:
    job = await spend(street)
    with pytest.raises(AssayError) as caught:
        await raise_budget(street, job, bound, who)
    assert caught.value.reason == reason
    assert "budget.raised" not in street.types(NAME)
    assert (await street.job()).state == pb.TuningJob.STATE_PAUSED


@pytest.mark.parametrize("stage", ["prepare", "train", "audit"])
async def test_a_worker_killed_in_its_task_changes_nothing(street: Street, stage: str) -> None:
    worker = "train-worker" if stage == "train" else "audit-worker"
    state = {"prepare": "PREPARING", "train": "TRAINING", "audit": "AUDITING"}[stage]
    await street.ask(**{f"gate_{stage}": "go"})
    await street.until(state, progress=True)
    await street.workers.kill(worker)
    await asyncio.sleep(0.3)
    street.workers.open_gate("go")
    await street.workers.start(worker)
    assert (await street.rest()).state == pb.TuningJob.STATE_AWAITING_APPROVAL
    assert street.types(NAME) == CLEAN


async def test_jobs_wait_for_their_turn_in_the_train_worker(street: Street) -> None:
    first = await street.ask("first", gate_train="go")
    await street.until("TRAINING", progress=True)
    second = await street.ask("second")
    await street.until("QUEUED", second)
    await asyncio.sleep(1.0)
    assert (await street.job(second)).state == pb.TuningJob.STATE_QUEUED
    street.workers.open_gate("go")
    assert {(await street.rest(n)).state for n in (first, second)} == {pb.TuningJob.STATE_AWAITING_APPROVAL}


async def test_a_worker_that_is_not_there_yet_only_delays(street: Street, caplog: pytest.LogCaptureFixture) -> None:
    await street.workers.kill("audit-worker")
    await street.ask()
    await street.until("PREPARING")
    while street.app.pipeline.worker_errors < 3:
        await asyncio.sleep(0.05)
    told = [message for message in caplog.messages if " waits: " in message]
    assert told == [f"{NAME} waits: WORKER_UNREACHABLE"], "once, and not each time"
    await street.workers.start("audit-worker")
    assert (await street.rest()).state == pb.TuningJob.STATE_AWAITING_APPROVAL
    stats = await street.app.pipeline.stats()
    assert stats.jobs_by_state == {"AWAITING_APPROVAL": 1} and stats.worker_errors >= 1


async def test_stopping_the_pipeline_and_running_another_goes_on(street: Street) -> None:
    await street.ask(gate_train="go")
    await street.until("TRAINING", progress=True)
    again = await restart(street)
    street.workers.open_gate("go")
    assert (await street.rest()).state == pb.TuningJob.STATE_AWAITING_APPROVAL
    assert street.types(NAME) == CLEAN
    await end(again)


async def stop() -> None:
    """Ends the pipeline, as the end of the gateway does."""
    for task in list(asyncio.all_tasks()):
        if getattr(task.get_coro(), "__qualname__", "") == "Pipeline.run":
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def run_again(street: Street) -> asyncio.Task[None]:
    """Runs another pipeline over the same rows, as a gateway does that starts again."""
    first = street.app.pipeline
    return asyncio.create_task(type(first)(first.office, first.cards, first.retention).run())


async def restart(street: Street) -> asyncio.Task[None]:
    await stop()
    return run_again(street)


async def end(running: asyncio.Task[None]) -> None:
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_new_price_book_changes_no_job_that_was_decided(street: Street) -> None:
    await street.ask(gate_audit="go")
    await street.until("AUDITING", progress=True)
    quoted = (await street.job()).quote_usd_micros
    reprice(street, as_of=dt.date(2027, 1, 1), usd_micros_per_device_second={"cpu": 280_000}, audit_seconds=1)
    again = await restart(street)
    street.workers.open_gate("go")
    job = await street.rest()
    assert job.state == pb.TuningJob.STATE_AWAITING_APPROVAL, job.reason
    assert job.cost_usd_micros == 28 * sum(
        math.ceil(seconds)
        for seconds in (job.stage_seconds["train"], job.stage_seconds["prepare"] + job.stage_seconds["audit"])
    )
    key, settings = X25519PrivateKey.generate(), street.app.pipeline.office.settings
    make_kit(settings, NAME, key.public_key(), street.layout.root / "job.kit")
    with (street.layout.root / "job.kit").open("rb") as source:
        trust = TrustFile.parse(street.layout.trust.read_text())
        order = bundle.read_manifest(source, key, trust.audit_worker, max_bytes=1 << 30)["order"]
    assert (order["price_book"]["as_of"], int(order["quote"]["usd_micros"])) == ("2026-01-01", quoted)
    question = await street.app.store.fetch(lambda c: jobs.facts(c, NAME)[RELEASE_QUESTION])
    assert json.loads(question)["request"]["quote_usd_micros"] == str(quoted)
    await end(again)


async def test_a_new_policy_changes_no_preparation_under_way(street: Street, monkeypatch: pytest.MonkeyPatch) -> None:
    await street.ask(gate_prepare="go")
    await street.until("PREPARING", progress=True)
    asked = street.app.policy.preparation("quick")
    monkeypatch.setattr(PolicyEngine, "preparation", lambda *_: {name: n + 2 for name, n in asked.items()})
    again = await restart(street)
    street.workers.open_gate("go")
    job = await street.rest()
    assert job.state == pb.TuningJob.STATE_AWAITING_APPROVAL, job.reason
    await end(again)


async def test_a_job_that_an_older_release_was_preparing_goes_on(street: Street) -> None:
    """It kept no number of canaries with the job, and asked policy anew."""
    await street.ask(gate_prepare="go")
    await street.until("PREPARING", progress=True)
    await stop()
    forget = "DELETE FROM job_fact WHERE job = ? AND key = 'prepare.canaries'"
    assert await street.app.store.commit(lambda u: u.connection.exec_driver_sql(forget, (NAME,)).rowcount) == 1
    again = run_again(street)
    street.workers.open_gate("go")
    job = await street.rest()
    assert job.state == pb.TuningJob.STATE_AWAITING_APPROVAL, job.reason
    await end(again)


async def test_rows_are_found_by_keyed_handle_and_an_erased_subject_comes_in_no_more(
    street: Street, tmp_path: Path
) -> None:
    sheet = dataset_pb2.Datasheet()
    sheet.CopyFrom(SHEET)
    sheet.group_field = "customer"
    await street.ask(sheet=sheet, subjects=["anna@example.org", "ben@example.org", "anna@example.org"])
    job = await street.rest()
    assert job.state == pb.TuningJob.STATE_AWAITING_APPROVAL, job.reason
    cora = await street.caller("cora")
    request = lineage_pb2.GetLineageRequest(name="units/credit", subject="anna@example.org")
    found = (await street.app.lineage.get_lineage(cora, request)).lineage
    assert [list(d.rows) for d in found.datasets] == [[2, 4]] and [m.name for m in found.models] == [job.model]
    envelope = street.sign("cora", erasure_order_statement(found.name, "data-subject-request"))
    order = erasure_pb2.EraseResourceRequest(name=found.name, envelope=envelope)
    assert list((await street.app.erasures.erase_resource(cora, order)).erasure.affected_models) == [job.model]
    await street.ask("second", sheet=sheet, subjects=["carl@example.org", "anna@example.org"])
    second = await street.rest("units/credit/tuningJobs/second")
    (outcome,) = second.decision.outcomes
    assert second.state == pb.TuningJob.STATE_DENIED and outcome.message.startswith("SUBJECT_ERASED")
    assert "rows 3)" in outcome.message and not outcome.waivable_by
    later = (await street.app.lineage.get_lineage(cora, request)).lineage
    assert [list(d.rows) for d in later.datasets] == [[3], [2, 4]], "the refused file lies here until it is erased"
    bodies = [bytes(r.body) for r in street.app.ledger.records(limit=500)]
    key = street.app.blobs.unit_keys("credit").subject_key
    assert not any(b"example.org" in b or key.hex().encode() in b for b in bodies)


async def test_a_result_without_its_index_is_refused(street: Street) -> None:
    sheet = dataset_pb2.Datasheet()
    sheet.CopyFrom(SHEET)
    sheet.group_field = "customer"
    await street.ask(sheet=sheet, prepare="no-index")
    job = await street.rest()
    assert job.state == pb.TuningJob.STATE_FAILED and job.reason.startswith("RESULT_FACTS")
