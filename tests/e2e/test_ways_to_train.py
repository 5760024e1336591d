"""Other ways to train than one process and an adapter, on the real weights and through real services."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import pytest
from e2e_world import Bank, State, chat_rows

from assay import dsse, provenance
from assay.v1 import policy_pb2, tuning_job_pb2

NUMBERS = {"epochs": 1.0, "batch_size": 16, "seed": 3}
WITH_ADAPTER = {**NUMBERS, "learning_rate": 1e-3, "lora_rank": 4}


def judged(
    bank: Bank, name: str, method: str, numbers: dict[str, Any]
) -> tuple[tuning_job_pb2.TuningJob, dict[str, Any]]:
    """A job that was trained, audited and judged, what its loss is better by, and its records by type."""
    bank.upload(name, chat_rows(200))
    made = bank.create(name, name, method=method, hyperparameters=numbers)
    job = bank.rest(made.name, 3000)
    assert job.state in (State.STATE_AWAITING_APPROVAL, State.STATE_QUARANTINED), (job.reason, bank.log_tail())
    found = {m.name: m for m in job.audit.measurements}
    print(name, State.Name(job.state), job.reason, found["quality.test_loss_delta"].value)
    assert found["quality.test_loss_delta"].value < 0
    return job, {r["type"]: r["statement"]["predicate"] for r in bank.records(made.name)}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_weight_of_the_blocks_is_tuned_audited_and_judged(bank: Bank):
    """425 MB go from the train worker to the audit."""
    job, records = judged(bank, "whole", "full", NUMBERS)
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
    job, records = judged(bank, "four-bits", "qlora", WITH_ADAPTER)
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
    _, records = judged(own_bank, "shared-out", "lora", WITH_ADAPTER)
    signed = dsse.read_statement(dsse.envelope_payload(records["training.completed"]["statement"]))
    claim = provenance.read_training(signed)["claim"]
    assert (claim["processes"], claim["process_backend"]) == (2, "gloo"), claim
