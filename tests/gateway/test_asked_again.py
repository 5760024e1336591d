"""Between intake's answer and the work order: policy in force is asked again, and so is whose pause it is."""

from __future__ import annotations

import dataclasses
import datetime as dt
from pathlib import Path

import pytest
from sqlalchemy import Connection

from assay.errors import AssayError
from assay.v1 import tuning_job_pb2, worker_pb2
from assay.worker.client import WorkerClient
from audit.ledger.writer import UnitOfWork
from audit.verify.trust import TrustFile
from audit.verify.verifier import verify_bundle
from gateway import standing
from gateway.admission import training
from gateway.history import INTAKE_QUESTION
from gateway.jobs import views
from gateway.jobs.transitions import Event
from gateway.store import jobs, rows
from gateway.store.tables import DatasetRow, JobRow
from policies.engine import PolicyEngine
from policies.pack import load
from policies.rule import AT_INTAKE
from policies.testing import read_cases
from tests.gateway import acts
from tests.gateway.conftest import House, now
from tests.gateway.judged import NAME, ORDER, judged, state
from tests.gateway.test_approvals import grant
from tests.gateway.test_evidence import export
from tests.gateway.test_retention import Clock, clock, kept  # noqa: F401

BEFORE, AFTER = (dt.datetime(*day, 12, tzinfo=dt.UTC) for day in ((2026, 11, 20), (2027, 12, 3)))
"""Of the day on which the duties of `eu-ai-act` for high risk begin."""


def swap(house: House) -> None:
    """Another bundle is in force from here on; it refuses the empty question of these jobs."""
    for service in (house.app.jobs, house.app.approvals, house.app.pipeline.office):
        pack = dataclasses.replace(service.policy.pack, bundle_sha256="0" * 64)
        object.__setattr__(service, "policy", PolicyEngine(pack))


async def refused(reason: str, call: object) -> AssayError:
    with pytest.raises(AssayError) as caught:
        await call  # type: ignore[misc]
    assert caught.value.reason == reason, caught.value.diagnostics()
    return caught.value


async def order(house: House, monkeypatch: pytest.MonkeyPatch) -> tuning_job_pb2.TuningJob:
    """The pipeline's step of a queued job whose worker is there; the job after it."""

    def read(c: Connection) -> tuple[JobRow, DatasetRow]:
        job = jobs.get(c, NAME)
        assert job is not None
        dataset = rows.get(c, DatasetRow, name=views.request_of(job).dataset)
        assert dataset is not None
        return job, dataset

    job, dataset = house.app.store.read(read)
    made = {"job": NAME, **ORDER, "dataset_sha256": dataset.sha256}

    async def there(_: WorkerClient) -> worker_pb2.Worker:
        return worker_pb2.Worker()

    monkeypatch.setattr(WorkerClient, "describe", there)
    monkeypatch.setattr(training, "work_order", lambda *_: {**made, "decision_index": 1})
    await training.order(house.app.pipeline.office, job)
    return await acts.job(house)


async def test_a_waiver_is_not_taken_for_rules_that_came_since(house: House) -> None:
    await judged(house, acts.FAILED, until=Event.DENY)
    swap(house)
    error = await refused("POLICY_CHANGED", acts.waive(house))
    assert "BASE-" in error.message and state(house) == "DENIED"


async def test_a_paused_job_does_not_go_on_under_rules_that_refuse_it(house: House) -> None:
    await acts.paused_in_the_queue(house)
    swap(house)
    await refused("POLICY_CHANGED", acts.resume(house))
    assert state(house) == "PAUSED"


async def test_nothing_is_ordered_under_rules_that_refuse_it(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await acts.queued(house)
    swap(house)
    job = await order(house, monkeypatch)
    assert job.state == tuning_job_pb2.TuningJob.STATE_PAUSED and job.reason.startswith("POLICY_CHANGED: ")
    assert house.types(NAME)[-1] == "job.paused"
    await acts.cancel(house)


async def test_the_same_rules_order_it(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await acts.queued(house)
    assert (await order(house, monkeypatch)).state == tuning_job_pb2.TuningJob.STATE_TRAINING


async def test_a_waiver_that_ran_out_in_the_queue_lets_nothing_train(
    clock: Clock,  # noqa: F811
    kept: House,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await judged(kept, acts.FAILED, until=Event.DENY)
    await acts.waive(kept)
    clock.ahead = dt.timedelta(days=60)
    job = await order(kept, monkeypatch)
    assert job.state == tuning_job_pb2.TuningJob.STATE_PAUSED and job.reason.startswith("WAIVER_EXPIRED: ")
    await refused("WAIVER_EXPIRED", acts.resume(kept))


async def answered(house: House, engine: PolicyEngine, case: str) -> str:
    """A trained job with the question of a policy test, decided on before the Union's duties begin."""
    question = next(c for c in read_cases(engine.pack) if c.name == case).intake
    question.as_of = BEFORE.date().isoformat()
    decision = engine.decide(question)
    assert decision.allowed
    await house.upload("rita")
    job = (await house.app.jobs.create_tuning_job(await house.caller("rita"), house.request())).tuning_job

    def work(uow: UnitOfWork) -> None:
        jobs.establish(uow.connection, job.name, {INTAKE_QUESTION: views.to_json(question)})
        jobs.note(uow.connection, job.name, {"decision": views.to_json(decision)})

    await house.app.store.commit(work)
    return job.name


def demand(house: House, engine: PolicyEngine, name: str, now: dt.datetime) -> None:
    def read(c: Connection) -> None:
        job = jobs.get(c, name)
        assert job is not None
        standing.demand(c, engine, job, now)

    house.app.store.read(read)


def of(*packs: str, limits: str = "") -> PolicyEngine:
    """The packaged bundle, asked these packs; other limits stand for another choice of packs."""
    bundle = load()
    pack = dataclasses.replace(bundle, limits_sha256=limits or bundle.limits_sha256)
    return PolicyEngine(pack, packs=frozenset({"baseline", *packs}))


async def test_a_law_of_intake_that_begins_is_asked_of_a_model_approved_before(house: House) -> None:
    engine = of("eu-ai-act")
    name = await answered(house, engine, "no retention schedule")
    demand(house, engine, name, BEFORE)
    with pytest.raises(standing.LapsedError) as caught:
        demand(house, engine, name, AFTER)
    assert caught.value.reason == "POLICY_CHANGED" and "AIA-18" in caught.value.message


async def test_a_pack_of_law_that_a_unit_chooses_later_is_asked_of_its_models(house: House) -> None:
    name = await answered(house, of(), "no retention schedule")
    demand(house, of(), name, AFTER)
    with pytest.raises(standing.LapsedError) as caught:
        demand(house, of("eu-ai-act", limits="0" * 64), name, AFTER)
    assert "AIA-18" in caught.value.message


def test_of_the_rules_before_training_law_and_use_reach_back() -> None:
    engine = of("eu-ai-act", "model-risk")
    asked = [rule.id for rule in engine.pack.rules if rule.stage in AT_INTAKE]
    reaching = {rule_id for rule_id in asked if engine.reaches_back(rule_id)}
    assert {"AIA-18", "AIA-GPAI", "GDPR-35", "BASE-DECIDES-TABLE"} <= reaching
    used_up = {"BASE-UNIT-MONEY", "BASE-UNIT-JOBS", "BASE-EPSILON", "BASE-BUDGET", "BASE-EARLIER-TRIES", "MRM-1"}
    assert not reaching & used_up


async def paused_by(house: House, who: str) -> None:
    request = tuning_job_pb2.PauseTuningJobRequest(name=NAME, reason="stop")
    await house.app.jobs.pause_tuning_job(await house.caller(who), request)


async def resumed_by(house: House, who: str) -> None:
    request = tuning_job_pb2.ResumeTuningJobRequest(name=NAME, reason="go on")
    await house.app.jobs.resume_tuning_job(await house.caller(who), request)


async def test_an_officers_pause_is_ended_by_an_officer_alone(house: House, tmp_path: Path) -> None:
    await acts.training(house)
    await paused_by(house, "cora")
    for who in ("rita", "carl"):
        await refused("OFFICERS_PAUSE", resumed_by(house, who))
    await grant(house, "rita", "compliance_officer")
    await refused("OFFICERS_PAUSE", resumed_by(house, "rita"))
    await resumed_by(house, "cora")
    assert state(house) == "TRAINING"
    await refused("JOB_STATE", resumed_by(house, "carl"))
    bundle = await export(house, "anna", "units/-", [], tmp_path / "bundle.zip")
    report = verify_bundle(bundle, TrustFile.parse(house.layout.trust.read_text()), now())
    assert report.verdict == "valid", report.text()


async def test_what_the_maker_paused_others_of_the_unit_let_go_on(house: House) -> None:
    await acts.paused(house)
    await resumed_by(house, "carl")
    await paused_by(house, "carl")
    await resumed_by(house, "rita")
    assert state(house) == "TRAINING"
