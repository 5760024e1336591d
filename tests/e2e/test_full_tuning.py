"""Full tuning of the real weights through real services: 425 MB go from train worker to audit and are judged."""

from __future__ import annotations

import pytest
from e2e_world import Bank, State, chat_rows

from assay.v1 import policy_pb2


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_weight_of_the_blocks_is_tuned_audited_and_judged(bank: Bank):
    bank.upload("whole", chat_rows(200))
    numbers = {"epochs": 1.0, "batch_size": 16, "seed": 3}
    made = bank.create("whole", "whole", method="full", hyperparameters=numbers)
    job = bank.rest(made.name, 3000)
    assert job.state in (State.STATE_AWAITING_APPROVAL, State.STATE_QUARANTINED), (job.reason, bank.log_tail())
    records = {r["type"]: r["statement"]["predicate"] for r in bank.records(made.name)}
    assert "lora_rank" not in records["training.ordered"]["hyperparameters"]
    assert records["training.completed"]["adapter_finite"] and "adapter_moved" not in records["training.completed"]
    assert job.audit.environment["adapter_moved"] == "true"
    found = {m.name: m for m in job.audit.measurements}
    assert found["adapter.change_of_loss"].value > 0 and found["quality.test_loss_delta"].value < 0
    passed = {o.rule_id for o in job.verdict.outcomes if o.outcome == policy_pb2.OUTCOME_PASS}
    print(State.Name(job.state), job.reason, found["quality.test_loss_delta"].value)
    assert "REL-ADAPTER" in passed
