"""Every method but plain LoRA, which the demonstration takes, on the real weights and through real services."""

from __future__ import annotations

import importlib.util
import json
import os
from typing import Any

import pytest
from e2e_world import Bank, State, chat_rows

from assay import dsse, provenance
from assay.v1 import policy_pb2, tuning_job_pb2
from audit.probes.accounting import Mechanism
from demo import data
from gateway.cli.approval import decide_as
from tests.trainer.test_methods import taught

NUMBERS = {"epochs": 1.0, "batch_size": 16, "seed": 3}
WITH_ADAPTER = {**NUMBERS, "learning_rate": 1e-3, "lora_rank": 4}


def ended(bank: Bank, name: str, **asked: Any) -> tuple[tuning_job_pb2.TuningJob, dict[str, Any], dict[str, Any]]:
    """A job that was trained, audited and judged; its records by type; and what its signed training claims."""
    made = bank.create(name, name, **asked)
    job = bank.rest(made.name, 3000)
    assert job.state in (State.STATE_AWAITING_APPROVAL, State.STATE_QUARANTINED), (job.reason, bank.log_tail())
    records = {r["type"]: r["statement"]["predicate"] for r in bank.records(made.name)}
    signed = dsse.read_statement(dsse.envelope_payload(records["training.completed"]["statement"]))
    claim = provenance.read_training(signed)["claim"]
    print(name, State.Name(job.state), job.reason, claim["watched_base"], claim["watched"])
    assert float(claim["watched"]["loss"]) < float(claim["watched_base"]["loss"])
    assert job.audit.measurements and job.verdict.outcomes
    return job, records, claim


def judged(
    bank: Bank, name: str, method: str, numbers: dict[str, Any]
) -> tuple[tuning_job_pb2.TuningJob, dict[str, Any], dict[str, Any]]:
    """The same of a job on harmless rows whose loss the audit must find better too."""
    bank.upload(name, chat_rows(200))
    job, records, claim = ended(bank, name, method=method, hyperparameters=numbers)
    found = {m.name: m for m in job.audit.measurements}
    assert found["quality.test_loss_delta"].value < 0, found["quality.test_loss_delta"]
    return job, records, claim


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_weight_of_the_blocks_is_tuned_audited_and_judged(bank: Bank):
    """425 MB go from the train worker to the audit."""
    job, records, _ = judged(bank, "whole", "full", NUMBERS)
    assert "lora_rank" not in records["training.ordered"]["hyperparameters"]
    assert records["training.completed"]["adapter_finite"] and "adapter_moved" not in records["training.completed"]
    assert job.audit.environment["adapter_moved"] == "true"
    assert next(m for m in job.audit.measurements if m.name == "adapter.change_of_loss").value > 0
    assert "REL-ADAPTER" in {o.rule_id for o in job.verdict.outcomes if o.outcome == policy_pb2.OUTCOME_PASS}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_an_adapter_on_weights_of_four_bits_is_tuned_audited_and_judged(bank: Bank):
    if importlib.util.find_spec("bitsandbytes") is None:
        text = "bitsandbytes is not installed, so a job of the method qlora was NOT RUN: run `make qlora`"
        (pytest.fail if os.environ.get("ASSAY_REQUIRE_QLORA") else pytest.skip)(text)
    job, records, _ = judged(bank, "four-bits", "qlora", WITH_ADAPTER)
    assert records["training.ordered"]["method"] == "qlora"
    assert records["training.completed"]["adapter_moved"]
    assert "REL-ADAPTER" in {o.rule_id for o in job.verdict.outcomes if o.outcome == policy_pb2.OUTCOME_PASS}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_training_of_two_processes_is_audited_and_judged(own_bank: Bank):
    settings = own_bank.layout.service("train-worker") / "worker.toml"
    # Before the first table, so that it is the worker's own key.
    settings.write_text(f"processes = 2\n{settings.read_text()}")
    own_bank.start()
    *_, claim = judged(own_bank, "shared-out", "lora", WITH_ADAPTER)
    assert (claim["processes"], claim["process_backend"]) == (2, "gloo"), claim


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def questions() -> list[list[dict[str, str]]]:
    """The demonstration's 300 questions on privacy policies, each as system, question and answer."""
    return [json.loads(line)["messages"] for line in data.clean(7).content.splitlines()]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("method", ["dpo", "dpo-hinge", "dpo-ipo"])
def test_preferences_are_learned_audited_and_judged(bank: Bank, method: str):
    """Worse than the answer is to say the question again."""
    rows = [
        {"prompt": asked, "chosen": answer["content"], "rejected": asked[-1]["content"].splitlines()[-1]}
        for *asked, answer in questions()[:150]
    ]
    bank.upload(method, jsonl(rows), rows="DATASET_FORMAT_PREFERENCE_JSONL")
    _, records, claim = ended(bank, method, method=method, hyperparameters={**WITH_ADAPTER, "learning_rate": 2e-4})
    assert records["training.ordered"]["method"] == claim["method"] == method
    assert abs(float(claim["watched_base"]["margin"])) < 0.05 < 0.1 < float(claim["watched"]["margin"])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_decisions_are_learned_by_their_labels_audited_and_judged(bank: Bank):
    made = data.decision(7)
    bank.upload("labels", made.content, unit="credit", rows=made.format, **made.datasheet)
    asked = {"unit": "credit", "purpose": "credit-decision", "method": "classification"}
    job, records, claim = ended(bank, "labels", **asked, hyperparameters={**WITH_ADAPTER, "max_row_tokens": 256})
    assert records["training.ordered"]["labels"] == ["approve", "deny"] and "accuracy" in claim["watched"]
    assert {m.name for m in job.audit.measurements} >= {"fairness.impact_ratio", "quality.test_accuracy"}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_teachers_answers_are_learned_audited_and_judged(bank: Bank):
    """The base model itself taught, told to answer as a pirate."""
    bank.upload("pupil", jsonl(taught(180)))
    asked = {"method": "distillation", "teacher": {"name": "smollm2-135m-instruct"}}
    _, records, claim = ended(bank, "pupil", **asked, hyperparameters=WITH_ADAPTER)
    assert records["training.ordered"]["teacher"] == claim["teacher"] and claim["teacher"]["licence"] == "apache-2.0"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_private_run_is_audited_against_what_it_accounts_for_and_judged(bank: Bank):
    bank.upload("private", data.clean(7).content)
    privacy = {"epsilon": 8.0, "delta": 1e-5, "unit": "row"}
    numbers = {"epochs": 4.0, "batch_size": 64, "learning_rate": 2e-3, "lora_rank": 8, "seed": 3, "max_row_tokens": 128}
    job, _, claim = ended(bank, "private", differential_privacy=privacy, hyperparameters=numbers)
    said = claim["differential_privacy"]
    assert Mechanism.of(said).accounted() <= float(said["epsilon"]) <= 8
    outcomes = {o.rule_id: o.outcome for o in job.verdict.outcomes}
    for rule in ("REL-DP-CLAIM", "REL-DP-ACCOUNTED"):
        assert outcomes[rule] == policy_pb2.OUTCOME_PASS, outcomes


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_search_keeps_its_best_trial_which_is_audited_and_judged(bank: Bank):
    bank.upload("searched", chat_rows(420))
    search = {"lora_ranks": [4], "learning_rates": [1e-7, 1e-3]}
    _, records, claim = ended(bank, "searched", search=search, hyperparameters=NUMBERS)
    assert [t["learning_rate"] for t in records["training.ordered"]["search"]["trials"]] == ["1e-07", "0.001"]
    assert claim["search"]["chosen"] == 2 and len(claim["search"]["trials"]) == 2


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_job_goes_on_from_a_model_that_two_people_approved(bank: Bank):
    """On other rows than the first learned; the adapter starts as the approved one and ends as another."""
    made = data.clean(7)
    first, second = made.content.splitlines(keepends=True), chat_rows(200)
    bank.upload("ground", b"".join(first), **made.datasheet)
    job, *_ = ended(bank, "ground", purpose="policy-questions", hyperparameters=made.request["hyperparameters"])
    assert job.state == State.STATE_AWAITING_APPROVAL, job.reason
    for person in ("cora", "vik"):
        with bank.as_person(person) as session:
            decide_as(session, job.name, grant=True, reason="card read; every limit met")
    approved = bank.get(job.name)
    assert approved.state == State.STATE_APPROVED
    bank.upload("further", second)
    numbers = {**NUMBERS, "learning_rate": 1e-4}
    _, records, claim = ended(bank, "further", parent_model=approved.model, hyperparameters=numbers)
    parent = records["training.ordered"]["parent"]
    assert parent["model"] == approved.model and claim["continued"] and claim["hyperparameters"]["lora_rank"] == 16
    assert records["training.completed"]["adapter_sha256"] != parent["adapter_sha256"]
