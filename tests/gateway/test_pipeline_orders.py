"""What the methods of a request come to in decision, order and claim, over the same street as the pipeline's tests."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import uuid
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from rich.console import Console

from assay import canonical
from assay.dp_sgd import Sampling, most_epsilon
from assay.errors import InvalidInputError, NotFoundError, PreconditionError
from assay.v1 import dataset_pb2, policy_input_pb2, policy_pb2
from assay.v1 import tuning_job_pb2 as pb
from assay.worker.sandbox import package_versions
from audit.ledger.records import read
from audit.verify.trust import TrustFile
from audit.verify.verifier import verify_bundle
from gateway.base_models import FILE, BaseModels
from gateway.cli.job_text import describe
from gateway.history import INTAKE_QUESTION
from gateway.store import jobs
from gateway.store import rows as store_rows
from gateway.store.tables import BudgetRow, ModelRow
from policies.engine import PolicyEngine
from policies.pack import load
from tests.gateway.conftest import BASE, messages, now
from tests.gateway.test_evidence import export
from tests.gateway.test_pipeline import NAME, SHEET, Street, end, run_again, stop, street
from tests.gateway.workers import rows

__all__ = ["street"]
pytestmark = pytest.mark.isolation


async def test_a_decision_says_which_numbers_rules_chose_and_the_order_has_them(street: Street) -> None:
    await street.ask(asked={"hyperparameters": pb.Hyperparameters(auto=True, lora_rank=4)})
    assert (await street.rest()).state == pb.TuningJob.STATE_AWAITING_APPROVAL
    known = {r.type: r.predicate for r in (read(s.body) for s in street.app.ledger.records(limit=100))}
    decided, ordered = known["intake.decided"], known["training.ordered"]
    chosen = {h["name"]: h for h in decided["hyperparameters"]}
    assert set(chosen) == {"epochs", "learning_rate", "batch_size", "max_row_tokens", "early_stopping"}
    assert all(h["why"] for h in chosen.values())
    assert {n: str(ordered["hyperparameters"][n]) for n in chosen} == {n: h["value"] for n, h in chosen.items()}
    assert (ordered["method"], ordered["hyperparameters"]["lora_rank"]) == ("lora", 4)


async def test_an_adapter_of_another_rank_than_ordered_is_refused(street: Street) -> None:
    """A larger one learns more by heart than policy was asked about."""
    search = policy_input_pb2.Search(lora_ranks=[4, 8], learning_rates=[1e-4, 2e-4])
    hyper = pb.Hyperparameters(epochs=0.5)
    for job, asked in (("plain", {}), ("searched", {"search": search, "hyperparameters": hyper})):
        other = await street.rest(await street.ask(job, asked=asked, train="other-rank"))
        assert other.state == pb.TuningJob.STATE_FAILED and other.reason.startswith("ADAPTER_SHAPE")
    await street.ask("parent", asked={"hyperparameters": pb.Hyperparameters(lora_rank=4)})
    parent = await street.rest("units/credit/tuningJobs/parent")
    await street.approve(parent.name)
    for job, behaviour, state in (
        ("child", {}, pb.TuningJob.STATE_AWAITING_APPROVAL),
        ("larger", {"train": "other-rank"}, pb.TuningJob.STATE_FAILED),
    ):
        name = await street.ask(job, asked={"parent_model": parent.model}, **behaviour)
        further = await street.rest(name)
        assert further.state == state, further.reason
    assert further.reason.startswith("ADAPTER_SHAPE: the adapter has rank 5 and alpha 8, the work order 4 and 8")


async def test_full_tuning_orders_no_rank_and_the_audit_says_whether_the_weights_moved(street: Street) -> None:
    async def tuned(job: str, asked: dict[str, Any] | None = None, **behaviour: Any) -> pb.TuningJob:
        name = await street.ask(job, asked={"method": "full", **(asked or {})}, **behaviour)
        return await street.rest(name)

    await street.ask("lora")
    plain = await street.rest("units/credit/tuningJobs/lora")
    moved = {"environment": {"adapter_moved": "true"}}
    first = await tuned("first", **moved)
    assert first.state == pb.TuningJob.STATE_AWAITING_APPROVAL and first.method == "full"
    known = {r.type: r.predicate for r in (read(s.body) for s in street.app.ledger.records(None, first.name, -1, 100))}
    ordered = known["training.ordered"]["hyperparameters"]
    assert str(ordered["learning_rate"]) == "2e-05" and not [n for n in ordered if n.startswith("lora_")]
    assert "adapter_moved" not in known["training.completed"] and known["training.completed"]["adapter_finite"]
    quoted = {job.name: {f.name: f.quoted for f in job.quote} for job in (plain, first)}
    assert quoted[first.name]["train_seconds"] == pytest.approx(1.5 * quoted[plain.name]["train_seconds"], abs=1)
    for job, behaviour in (("still", {"environment": {"adapter_moved": "false"}}), ("silent", {})):
        same = await tuned(job, **behaviour)
        failed = [o.rule_id for o in same.verdict.outcomes if o.outcome == policy_pb2.OUTCOME_FAIL]
        assert same.state == pb.TuningJob.STATE_QUARANTINED and failed == ["REL-ADAPTER"]
    other = await tuned("other", train="low-rank", **moved)
    assert other.state == pb.TuningJob.STATE_FAILED and other.reason.startswith("ADAPTER_KIND")
    await street.approve(first.name)
    further = await tuned("further", {"parent_model": first.model}, **moved)
    assert further.state == pb.TuningJob.STATE_AWAITING_APPROVAL
    await street.ask("mixed", asked={"parent_model": first.model})
    mixed = await street.rest("units/credit/tuningJobs/mixed")
    fired = [o.rule_id for o in mixed.decision.outcomes if o.outcome == policy_pb2.OUTCOME_FAIL]
    assert mixed.state == pb.TuningJob.STATE_DENIED and fired == ["BASE-PARENT-KIND"]


async def test_a_rank_of_full_tuning_is_refused_by_name_before_anything_is_stored(street: Street) -> None:
    numbers = pb.Hyperparameters(lora_rank=8, lora_alpha=16, epochs=1.0)
    with pytest.raises(InvalidInputError) as caught:
        await street.ask(asked={"method": "full", "hyperparameters": numbers})
    assert caught.value.reason == "HYPERPARAMETERS" and "leave out lora_rank, lora_alpha" in caught.value.remedy
    assert [v.field for v in caught.value.violations] == ["hyperparameters.lora_rank", "hyperparameters.lora_alpha"]
    assert "job.received" not in [r.type for r in street.app.ledger.records(limit=100)]


async def test_a_method_is_taken_or_refused_as_the_train_worker_says_what_it_has(street: Street) -> None:
    said = (await street.app.jobs.train_worker.describe()).environment["bitsandbytes"]
    assert said == package_versions(("bitsandbytes",)).get("bitsandbytes", "none")
    if said != "none":
        await street.ask(asked={"method": "qlora"})
        job = await street.rest()
        assert (job.state, job.method) == (pb.TuningJob.STATE_AWAITING_APPROVAL, "qlora")
        return
    with pytest.raises(PreconditionError) as caught:
        await street.ask(asked={"method": "qlora"})
    assert caught.value.reason == "METHOD_UNAVAILABLE" and "bitsandbytes" in caught.value.violations[0].description
    assert "job.received" not in [r.type for r in street.app.ledger.records(limit=100)]
    await street.workers.kill("train-worker")
    name = await street.ask("later", asked={"method": "qlora"})
    assert (await street.job(name)).method == "qlora", "who cannot be asked refuses nothing"


async def test_a_job_goes_on_from_an_approved_model_of_its_unit_only(street: Street) -> None:
    await street.ask()
    first = await street.rest()
    await street.ask("second", asked={"parent_model": first.model})
    second = await street.rest("units/credit/tuningJobs/second")
    fired = [o.rule_id for o in second.decision.outcomes if o.outcome == policy_pb2.OUTCOME_FAIL]
    assert second.state == pb.TuningJob.STATE_DENIED and fired == ["BASE-PARENT"]
    await street.approve(NAME)
    await street.ask("third", asked={"parent_model": first.model})
    third = await street.rest("units/credit/tuningJobs/third")
    assert third.state == pb.TuningJob.STATE_AWAITING_APPROVAL and third.parent_model == first.model
    known = {r.type: r.predicate for r in (read(s.body) for s in street.app.ledger.records(None, third.name, -1, 100))}
    adapter = known["training.ordered"]["parent"]["adapter_sha256"]
    assert known["training.ordered"]["parent"]["model"] == first.model and len(adapter) == 64
    await chained(street, first.name, third.name)
    with pytest.raises(NotFoundError):
        await street.ask("fourth", asked={"parent_model": "units/claims/models/first"})
    with pytest.raises(NotFoundError):
        await street.ask("fifth", asked={"parent_model": "units/credit/models/none"})


async def chained(street: Street, first: str, second: str) -> None:
    """Policy was told of the tokens of the whole chain, and the AI Act's rules on a third judge their sum."""
    known = {name: await street.app.store.fetch(lambda c, n=name: jobs.facts(c, n)) for name in (first, second)}  # type: ignore[misc]
    quoted = json.loads(known[first]["quote"])["train_tokens"]
    claimed = json.loads(known[first]["train.predicate"])["claim"]["trained_tokens"]
    question = json_format.Parse(known[second][INTAKE_QUESTION], policy_input_pb2.IntakeInput())
    alone, before = question.request.planned_train_tokens, question.request.parent.train_tokens
    assert before == max(quoted, claimed) > 0 and alone > 0
    question.request.use.MergeFrom(policy_input_pb2.UseDeclaration(jurisdictions=["EU"], risk_tier="minimal"))
    question.as_of = "2026-08-02"
    pack = load()
    third = PolicyEngine(pack, packs=frozenset({"baseline", "eu-ai-act"}))
    for most, over in ((alone + before, False), (alone + before - 1, True), (alone, True)):
        question.base_model.training_flop = 3 * 6.0 * question.base_model.parameters * (most + 0.5)
        fired = {o.rule_id: o.outcome for o in third.decide(question).outcomes}
        assert fired["AIA-GPAI"] == (policy_pb2.OUTCOME_WARN if over else policy_pb2.OUTCOME_PASS)
        assert fired["AIA-53"] == (policy_pb2.OUTCOME_FAIL if over else policy_pb2.OUTCOME_NOT_APPLICABLE)
    question.request.parent.train_tokens = 0
    fired = {o.rule_id: o.outcome for o in third.decide(question).outcomes}
    assert fired["AIA-GPAI"] == policy_pb2.OUTCOME_PASS, "alone the second job would have passed"


async def test_a_teacher_is_known_by_its_own_licence_and_named_in_the_order(street: Street) -> None:
    """What the requester says of a model that is known here is not asked; of any other, it is all there is.

    Another owner's model is another model, whatever its name.
    """

    def taught(name: str, licence: str = "") -> dict[str, Any]:
        return {"method": "distillation", "teacher": pb.Teacher(name=name, licence=licence)}

    async def fired(job: str, asked: dict[str, Any]) -> list[str]:
        found = await street.rest(await street.ask(job, asked=asked))
        return [o.rule_id for o in found.decision.outcomes if o.outcome == policy_pb2.OUTCOME_FAIL]

    ours = "HuggingFaceTB/SmolLM2-135M-Instruct"
    first = await street.rest(await street.ask(asked=taught(ours, "LicenseRef-anything")))
    assert first.state == pb.TuningJob.STATE_AWAITING_APPROVAL and first.teacher.licence == "LicenseRef-anything"
    known = {r.type: r.predicate for r in (read(s.body) for s in street.app.ledger.records(None, NAME, -1, 100))}
    assert known["training.ordered"]["teacher"] == {
        "name": ours, "licence": "apache-2.0", "licence_source": "registry",
        "sha256": street.app.base_models.get(first.base_model).sha256,
    }  # fmt: skip
    namesake = taught("acme/SmolLM2-135M-Instruct", "LicenseRef-anything")
    assert await fired("namesake", namesake) == ["BASE-TEACHER-LICENCE"], "somebody else's, by the requester's word"
    assert await fired("second", taught(first.model)) == ["BASE-TEACHER-RELEASED"]
    await street.approve(NAME)
    assert await fired("third", taught(first.model, "LicenseRef-anything")) == []
    assert await fired("fourth", taught("Llama-2-70b-chat", "llama2")) == ["BASE-TEACHER-LICENCE"]
    assert await fired("fifth", taught("Mistral-7B-Instruct", "Apache-2.0")) == []
    private = taught("Mistral-7B-Instruct", "MIT") | {
        "differential_privacy": policy_input_pb2.DifferentialPrivacy(epsilon=4.0, delta=1e-6)
    }
    assert await fired("sixth", private) == ["BASE-DP-METHOD"]
    for job, name in (("seventh", "units/claims/models/first"), ("eighth", "units/credit/models/none")):
        with pytest.raises(NotFoundError):
            await street.ask(job, asked=taught(name))


async def test_another_revision_of_a_teacher_changes_no_job_that_was_asked_for(street: Street) -> None:
    """The operator adds it and restarts the gateway while the job's rows are prepared; who asks later must choose."""
    office = street.app.pipeline.office
    ours, first = "HuggingFaceTB/SmolLM2-135M-Instruct", office.base_models.by_id["smollm2-135m-instruct"]
    asked = {"method": "distillation", "teacher": pb.Teacher(name=ours)}
    await street.ask(asked=asked, gate_prepare="go")
    await street.until("PREPARING", progress=True)
    await stop()
    second = policy_input_pb2.BaseModelFacts(id="second", sha256="0" * 64, licence="llama2")
    both = BaseModels(
        {**office.base_models.by_id, second.id: second},
        {**office.base_models.by_repository, ours.lower(): [first.id, second.id]},
    )
    street.app.pipeline.office = dataclasses.replace(office, base_models=both)
    street.app = dataclasses.replace(street.app, jobs=dataclasses.replace(street.app.jobs, base_models=both))
    again = run_again(street)
    street.workers.open_gate("go")
    job = await street.rest()
    assert job.state == pb.TuningJob.STATE_AWAITING_APPROVAL, job.reason
    known = {r.type: r.predicate for r in (read(s.body) for s in street.app.ledger.records(None, NAME, -1, 100))}
    taught = known["training.ordered"]["teacher"]
    assert (taught["licence"], taught["licence_source"], taught["sha256"]) == ("apache-2.0", "registry", first.sha256)
    with pytest.raises(InvalidInputError) as caught:
        await street.ask("later", asked=asked)
    assert caught.value.reason == "BASE_MODEL_AMBIGUOUS" and first.id in caught.value.remedy
    await end(again)


async def test_attack_21_a_base_model_replaced_under_its_id_changes_no_order_and_fails_what_has_none(
    street: Street, tmp_path: Path
) -> None:
    """The operator puts other files on the list and restarts the gateway: one trains, one waits, one is prepared."""
    trains = await street.ask("first", gate_train="go")
    await street.until("TRAINING", trains, progress=True)
    waits = await street.ask("second")
    await street.until("QUEUED", waits)
    is_prepared = await street.ask("third", gate_prepare="go")
    await street.until("PREPARING", is_prepared, progress=True)
    await stop()
    listed = street.layout.service("gateway") / FILE
    listed.write_text(json.dumps([{**BASE, "sha256": "ab" * 32, "parameters": 7}]))
    office = street.app.pipeline.office
    street.app.pipeline.office = dataclasses.replace(office, base_models=BaseModels.load(listed))
    again = run_again(street)
    street.workers.open_gate("go")
    job = await street.rest(trains)
    assert job.state == pb.TuningJob.STATE_AWAITING_APPROVAL, job.reason
    model = await street.app.store.fetch(lambda c: store_rows.get(c, ModelRow, job=trains))
    assert model is not None and (model.base_model, model.base_sha256) == (BASE["id"], BASE["sha256"])
    for name, last in ((waits, "intake.decided"), (is_prepared, "job.preparing")):
        failed = await street.rest(name)
        assert failed.state == pb.TuningJob.STATE_FAILED and failed.reason.startswith("BASE_MODEL_CHANGED"), name
        assert "remedy: ask for a new job" in failed.reason and street.types(name)[-2:] == [last, "job.failed"]
    for stored in street.app.ledger.records(limit=500):
        assert read(stored.body).predicate.get("base_sha256", BASE["sha256"]) == BASE["sha256"], stored.type
    path = await export(street, "anna", "units/-", [], tmp_path / "bundle.zip")
    report = verify_bundle(path, TrustFile.parse(street.layout.trust.read_text()), now())
    assert report.verdict == "valid", [c for c in report.checks if c.outcome != "passed"]
    await end(again)


async def test_a_search_is_ordered_trial_by_trial_and_its_trials_are_shown(street: Street) -> None:
    rates = {"search": policy_input_pb2.Search(lora_ranks=[4, 8], learning_rates=[1e-4, 2e-4])}
    hyper = {"hyperparameters": pb.Hyperparameters(epochs=0.5)}
    one = await street.rest(await street.ask(asked=hyper))
    name = await street.ask("second", asked=rates | hyper)
    job = await street.rest(name)
    assert job.state == pb.TuningJob.STATE_AWAITING_APPROVAL, job.reason
    assert job.search == rates["search"] and not one.trials
    shown = [(t.lora_rank, t.learning_rate, t.selection_loss, t.chosen) for t in job.trials]
    assert shown == [(4, 1e-4, 2.5, False), (4, 2e-4, 1.5, True), (8, 1e-4, 2.5, False), (8, 2e-4, 2.5, False)]
    known = {r.type: r.predicate for r in (read(s.body) for s in street.app.ledger.records(None, name, -1, 100))}
    ordered = known["training.ordered"]
    assert ordered["search"]["trials"][2] == {"lora_rank": 8, "lora_alpha": 16, "learning_rate": "0.0001"}
    assert ordered["selection_sha256"] == job.data.split_sha256["selection"]
    assert (
        "selection_sha256"
        not in read(
            next(s.body for s in street.app.ledger.records(None, NAME, -1, 100) if s.type == "training.ordered")
        ).predicate
    )
    quotes = [read(s.body).predicate["quote"]["train_tokens"]
              for n in (NAME, name) for s in street.app.ledger.records(None, n, -1, 100)
              if s.type == "intake.decided"]  # fmt: skip
    assert quotes[1] == 4 * quotes[0] and job.quote_usd_micros > one.quote_usd_micros
    text = io.StringIO()
    for line in describe(job):
        Console(file=text, width=160).print(line)
    assert "4 trials, judged on the selection split" in text.getvalue() and "kept" in text.getvalue()
    card = canonical.decode(street.app.blobs.open("credit", known["card.rendered"]["card_sha256"]).read())
    assert "trial 2 was kept: it is lowest" in str(card)


@pytest.mark.parametrize("wrong", ["fewer", "other", "nan", "unread"])
async def test_a_claim_that_lists_other_trials_than_ordered_is_refused(street: Street, wrong: str) -> None:
    asked = {
        "search": policy_input_pb2.Search(learning_rates=[1e-4, 2e-4]),
        "hyperparameters": pb.Hyperparameters(epochs=1),
    }
    await street.ask(asked=asked, trials=wrong)
    job = await street.rest()
    assert job.state == pb.TuningJob.STATE_FAILED and job.reason.startswith("TRIALS") and not job.trials
    assert "training.completed" not in street.types(NAME)


async def test_a_search_that_is_none_is_refused_before_anything_is_kept(street: Street) -> None:
    for number, (search, hyper) in enumerate([
        (policy_input_pb2.Search(), pb.Hyperparameters()),
        (policy_input_pb2.Search(lora_ranks=[4]), pb.Hyperparameters()),
        (policy_input_pb2.Search(lora_ranks=[4, 8]), pb.Hyperparameters(lora_rank=4)),
        (policy_input_pb2.Search(lora_ranks=[4, 8], learning_rates=[0.1]), pb.Hyperparameters(learning_rate=0.1)),
    ]):  # fmt: skip
        with pytest.raises(InvalidInputError) as caught:
            await street.ask(f"job-{number}", asked={"search": search, "hyperparameters": hyper})
        assert caught.value.reason == "SEARCH" and caught.value.violations


async def test_a_search_with_privacy_or_too_many_trials_is_denied_by_name(street: Street) -> None:
    private = policy_input_pb2.DifferentialPrivacy(epsilon=1.0, delta=1e-6)
    two = policy_input_pb2.Search(learning_rates=[1e-5, 1e-4])
    many = policy_input_pb2.Search(lora_ranks=[1, 2, 3, 4], learning_rates=[1e-5, 1e-4, 1e-3])
    little = pb.Hyperparameters(epochs=0.02)
    for job, asked, rule in (
        ("first", {"search": two, "differential_privacy": private}, "BASE-SEARCH-DP"),
        ("second", {"search": many}, "BASE-SEARCH"),
    ):
        found = await street.rest(await street.ask(job, asked={**asked, "hyperparameters": little}))
        fired = [o.rule_id for o in found.decision.outcomes if o.outcome == policy_pb2.OUTCOME_FAIL]
        assert fired == [rule] and found.decision.minimal_fix.steps and not found.decision.minimal_fix.left


async def test_the_fix_of_a_teacher_that_is_known_here_is_no_other_licence(street: Street) -> None:
    await street.ask()
    first = await street.rest()
    job = await street.rest(await street.ask("second", asked={
        "method": "distillation", "teacher": pb.Teacher(name=first.model)}))  # fmt: skip
    (step,) = job.decision.minimal_fix.steps
    assert (step.field, step.after) == ("request.teacher.name", job.base_model) and not job.decision.minimal_fix.left


async def test_a_private_job_is_ordered_with_its_guarantee(street: Street) -> None:
    header = dataset_pb2.UploadDatasetHeader(
        parent="units/credit", dataset_id="first", format=dataset_pb2.DATASET_FORMAT_CHAT_JSONL, datasheet=SHEET,
        request_id=str(uuid.uuid4()),
    )  # fmt: skip
    rita = await street.caller("rita")
    await street.app.datasets.upload_dataset(rita, messages(header, [rows()]))
    asked = policy_input_pb2.DifferentialPrivacy(epsilon=4, delta=0.000001)
    budget = pb.Budget(max_usd_micros=50_000_000, max_train_tokens=40_000)
    request = street.request(job="first", dataset="first", budget=budget, differential_privacy=asked)
    await street.app.jobs.create_tuning_job(rita, request)
    job = await street.rest()
    assert job.decision.allowed, [o.message for o in job.decision.outcomes if o.outcome != policy_pb2.OUTCOME_PASS]
    record = next(r for r in street.app.ledger.records("credit", NAME, -1, 99) if r.type == "training.ordered")
    ordered = json.loads(record.body)["statement"]["predicate"]["differential_privacy"]
    assert {k: v if k == "unit" else float(v) for k, v in ordered.items()} == {
        "epsilon": 4, "delta": 0.000001, "unit": "row",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("ordered", "wrong"),
    [
        (True, "none"),
        (False, {"epsilon": "1.0", "delta": "0.00001", "unit": "row"}),
        (True, {"delta": "0.5"}),
        (True, {"unit": "user"}),
        (True, {"noise_multiplier": "1.0"}),
        (True, {"epsilon": "90.0"}),
        (True, {"sampling_rate": "0.001"}),
        (True, {"steps": 10_000}),
        (True, {"epsilon": "little"}),
    ],
    ids=["none", "not ordered", "delta", "unit", "noise", "epsilon", "rate", "steps", "unread"],
)
async def test_a_claim_of_another_differential_privacy_than_ordered_is_refused(
    street: Street, ordered: bool, wrong: str | dict[str, Any]
) -> None:
    """The audit accounts for what is claimed: a delta of one half makes every epsilon small."""
    asked = {
        "differential_privacy": policy_input_pb2.DifferentialPrivacy(noise_multiplier=1.1, delta=0.00001),
        "hyperparameters": pb.Hyperparameters(epochs=1.5, batch_size=16),
    }
    await street.ask(asked=asked if ordered else None, privacy=wrong)
    job = await street.rest()
    assert job.state == pb.TuningJob.STATE_FAILED and job.reason.startswith("PRIVACY_CLAIM"), job.reason
    assert "training.completed" not in street.types(NAME)


async def test_a_noise_multiplier_reserves_what_it_spends_at_most_and_is_ordered_as_it_stands(street: Street) -> None:
    privacy = policy_input_pb2.DifferentialPrivacy(noise_multiplier=1.1, delta=0.00001)
    hyper = pb.Hyperparameters(epochs=1.5, batch_size=16)
    job = await street.rest(await street.ask(asked={"differential_privacy": privacy, "hyperparameters": hyper}))
    epsilon = most_epsilon(1.1, Sampling.of(420, 16, 1.5), 0.00001)
    records = {r.type: read(r.body).predicate for r in street.app.ledger.records(None, NAME, -1, 99)}
    for kind in ("intake.decided", "training.ordered"):
        said = {k: float(v) for k, v in records[kind]["differential_privacy"].items() if k != "unit"}
        assert said == {"epsilon": epsilon, "noise_multiplier": 1.1, "delta": 0.00001}, kind
        assert records[kind]["differential_privacy"]["unit"] == "row"
    assert job.differential_privacy == privacy and "training.completed" in records
    (reserved,) = await street.app.store.fetch(lambda c: store_rows.select_all(c, BudgetRow))
    assert epsilon * 1e6 <= reserved.epsilon_micros < epsilon * 1e6 + 1


async def test_users_are_protected_where_they_can_be_told_and_one_budget_is_of_one_unit(street: Street) -> None:
    sheet = dataset_pb2.Datasheet()
    sheet.CopyFrom(SHEET)
    sheet.group_field = "customer"
    privacy = policy_input_pb2.DifferentialPrivacy(noise_multiplier=2.0, delta=0.00001, unit="user")
    hyper = pb.Hyperparameters(epochs=0.5)
    asked = {"differential_privacy": privacy, "hyperparameters": hyper}
    first = await street.rest(await street.ask(sheet=sheet, subjects=["anna@example.org"], asked=asked))
    assert first.decision.allowed, first.reason
    epsilon = most_epsilon(2.0, Sampling.of(90, 8, 0.5), 0.00001)
    records = {r.type: read(r.body).predicate for r in street.app.ledger.records(None, NAME, -1, 99)}
    for kind in ("intake.decided", "training.ordered"):
        said = records[kind]["differential_privacy"]
        assert said["unit"] == "user" and float(said["epsilon"]) == epsilon, kind
    (reserved,) = await street.app.store.fetch(lambda c: store_rows.select_all(c, BudgetRow))
    assert (reserved.privacy_unit, reserved.epsilon_micros) == ("user", math.ceil(epsilon * 1e6))
    rita = await street.caller("rita")
    of_rows = policy_input_pb2.DifferentialPrivacy(epsilon=1, delta=0.00001)
    again = street.request(job="second", dataset="first", hyperparameters=hyper, differential_privacy=of_rows)
    await street.app.jobs.create_tuning_job(rita, again)
    second = await street.rest("units/credit/tuningJobs/second")
    assert [o.rule_id for o in second.decision.outcomes if o.outcome == policy_pb2.OUTCOME_FAIL] == [
        "BASE-EPSILON-UNIT"
    ]
    third = await street.rest(await street.ask("third", asked=asked))
    fired = [o.rule_id for o in third.decision.outcomes if o.outcome == policy_pb2.OUTCOME_FAIL]
    assert sorted(fired) == ["BASE-DP-USER", "BASE-DP-USER-ROWS", "BASE-EPSILON"]
    assert {s.after for s in third.decision.minimal_fix.steps} >= {"row"} and not third.decision.minimal_fix.left


async def test_too_little_noise_is_denied_and_the_fix_is_more_noise_or_fewer_epochs(street: Street) -> None:
    privacy = policy_input_pb2.DifferentialPrivacy(noise_multiplier=0.4, delta=0.00001)
    job = await street.rest(await street.ask(asked={"differential_privacy": privacy}))
    assert [o.rule_id for o in job.decision.outcomes if o.outcome == policy_pb2.OUTCOME_FAIL] == ["BASE-EPSILON"]
    (step,) = job.decision.minimal_fix.steps
    assert (step.field, step.after) == ("request.differential_privacy.noise_multiplier", "1")
