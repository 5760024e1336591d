"""The product's recipe for differential privacy, really run on a small model: audited is never above accounted.

And the same recipe whose noise is nothing, though it states it as before, is refuted: so the audit is not blind to what
these runs would give away. ``pytest -s`` shows noise, steps, accounted epsilon and audited bound of each.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assay.worker.task import TaskContext
from audit.probes import accounting
from audit.probes.inputs import Canary
from audit.probes.privacy import score_canaries

from .conftest import BASE, RANK, base_digest, conversation, secrets

CANARIES, BATCH, EPOCHS = 128, 32, 40
"""About every second canary is a row, so that a step draws about one in two and there are some 80 steps."""
DELTA, NOISES = 1e-4, (2.0, 8.0)


def canaries(seed: int) -> list[Canary]:
    coins = np.random.default_rng(100 + seed).random(CANARIES) < 0.5
    return [
        Canary(i, "A", bool(coin), 1, "number", tuple(conversation(f"code of {i}", f"it is {secret}")), secret)
        for i, (coin, secret) in enumerate(zip(coins, secrets(CANARIES, seed=seed), strict=True))
    ]


def tuned_privately(models: Path, folder: Path, planted: list[Canary], noise: float) -> dict[str, Any]:
    """What the train task states of a private run on the included canaries; the adapter lies under ``out/adapter``."""
    pytest.importorskip("opacus")
    from trainer import task

    for name in ("in", "out", "work"):
        (folder / name).mkdir(parents=True)
    rows = [json.dumps({"messages": c.messages}) for c in planted if c.included]
    (folder / "in" / "train.jsonl").write_text("\n".join(rows), "utf-8")
    (folder / "in" / "validation.jsonl").write_bytes(b"")
    order = {
        "base_model": BASE,
        "base_sha256": base_digest(models),
        "hyperparameters": {
            "epochs": EPOCHS, "learning_rate": "0.02", "batch_size": BATCH, "lora_rank": RANK, "seed": 5,
        },
        "differential_privacy": {"epsilon": "90", "delta": str(DELTA), "noise_multiplier": str(noise)},
        "max_train_tokens": 10**9,
    }  # fmt: skip
    context = TaskContext(
        task_id="t", kind="train", order=order, inputs=folder / "in", outputs=folder / "out", work=folder / "work",
        models=models, secret=b"", pause_flag=folder / "pause", send=lambda line: None, work_key=bytes(32),
    )  # fmt: skip
    said: dict[str, Any] = task.run(context)["differential_privacy"]
    return said


@pytest.fixture
def audited(models: Path, load_model: Callable[..., Any], audit_of: Callable[..., Any], tmp_path: Path) -> Any:
    """Tunes with so much noise and holds the audited bound against the accounting of what the recipe states."""
    pytest.importorskip("dp_accounting")

    def run(noise: float, seed: int) -> tuple[float, float]:
        """The accounted epsilon and the lower bound at 95 %."""
        planted = canaries(seed)
        claim = tuned_privately(models, tmp_path, planted, noise)
        rows = sum(c.included for c in planted)
        assert float(claim["noise_multiplier"]) == noise and float(claim["delta"]) == DELTA
        assert float(claim["sampling_rate"]) == pytest.approx(BATCH / rows) and claim["steps"] == EPOCHS * rows // BATCH
        audit = audit_of(load_model(tmp_path / "out" / "adapter"), canaries=planted)
        found = {m.name: m.value for m in accounting.check(claim, score_canaries(audit), (0.9, 0.95))}
        assert abs(found["privacy.epsilon_claim_gap"]) < 0.2, "another accountant agrees with the recipe's"
        accounted = found["privacy.epsilon_accounted"]
        bound = accounted + found["privacy.epsilon_excess"]
        print(f"noise {noise:g}, {rows} rows, {claim['steps']} steps: accounted {accounted:.2f}, audited {bound:.2f}")
        return accounted, bound

    return run


@pytest.mark.slow
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("seed", range(3))
def test_audited_never_exceeds_accounted(audited: Any, noise: float, seed: int) -> None:
    accounted, bound = audited(noise, seed)
    assert bound <= accounted, "the audit refutes the accounting"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_the_same_recipe_without_its_noise_is_refuted(audited: Any, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Draws, clipping, steps and statement are those of the private run of the same canaries."""
    monkeypatch.setattr(
        "trainer.recipes.secret_noise.normals", lambda stream, like, deviation: like.new_zeros(like.shape)
    )
    accounted, bound = audited(max(NOISES), seed)
    assert bound > accounted > 0.5
