"""Training with differential privacy, really run on a small model: audited is never above accounted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audit.probes import accounting, privacy
from audit.probes.inputs import Canary
from audit.probes.privacy import score_canaries

from .conftest import BASE, MODULES, RANK, adapter_config, conversation, secrets, train_adapter

CANARIES, STEPS, RATE, DELTA, CLIP = 128, 24, 0.25, 1e-4, 1.0


def dp_adapter(models: Path, folder: Path, rows: list[Any], sigma: float, seed: int) -> Path:
    """DP-SGD on LoRA (Abadi et al. 2016): Poisson sampling, each row's gradient clipped to 1, Gaussian noise."""
    import torch
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    files = models / BASE / "files"
    tokenizer = AutoTokenizer.from_pretrained(files)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    config = LoraConfig(task_type="CAUSAL_LM", r=RANK, lora_alpha=2 * RANK, target_modules=list(MODULES))
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(files, dtype=torch.float32), config)
    weights = [p for p in model.parameters() if p.requires_grad]
    texts = [tokenizer.apply_chat_template(list(c), tokenize=False) for c in rows]
    ids = [torch.tensor([tokenizer(t, add_special_tokens=False)["input_ids"]]) for t in texts]
    optimiser = torch.optim.Adam(weights, lr=1e-2)
    for _ in range(STEPS):
        total = [torch.zeros_like(w) for w in weights]
        for i in np.flatnonzero(rng.random(len(ids)) < RATE):
            gradients = torch.autograd.grad(model(input_ids=ids[i], labels=ids[i]).loss, weights)
            norm = float(sum(g.square().sum() for g in gradients)) ** 0.5
            for t, g in zip(total, gradients, strict=True):
                t += g * min(1.0, CLIP / max(norm, 1e-12))
        for w, t in zip(weights, total, strict=True):
            w.grad = (t + torch.randn_like(t) * sigma * CLIP) / (RATE * len(ids))
        optimiser.step()
    tensors = {n.replace(".default.", "."): p.detach().clone() for n, p in model.named_parameters() if ".lora_" in n}
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps(adapter_config()), encoding="utf-8")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [0.7, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_audited_never_exceeds_accounted(
    models: Path, load_model: Callable[..., Any], audit_of: Callable[..., Any], tmp_path: Path, sigma: float, seed: int
) -> None:
    pytest.importorskip("dp_accounting")
    coins = np.random.default_rng(100 + seed).random(CANARIES) < 0.5
    planted = [
        Canary(i, "A", bool(coin), 1, "number", tuple(conversation(f"code of {i}", f"it is {secret}")), secret)
        for i, (coin, secret) in enumerate(zip(coins, secrets(CANARIES, seed=seed), strict=True))
    ]
    rows = [c.messages for c in planted if c.included]
    model = load_model(dp_adapter(models, tmp_path / "adapter", rows, sigma, seed))
    audit = audit_of(model, canaries=planted)
    mechanism = accounting.Mechanism(sigma, RATE, STEPS, DELTA, 0.0)
    claim = {
        "noise_multiplier": str(sigma), "sampling_rate": str(RATE), "steps": STEPS, "delta": str(DELTA),
        "epsilon": str(mechanism.accounted()),
    }  # fmt: skip
    found = {m.name: m for m in accounting.check(claim, score_canaries(audit), (0.9, 0.95))}
    assert found["privacy.epsilon_accounted"].value > 0.5
    assert found["privacy.epsilon_excess"].value <= 0, "the audit refutes the accounting"
    assert abs(found["privacy.epsilon_claim_gap"].value) < 1e-9


@pytest.mark.slow
def test_the_same_audit_sees_the_same_canaries_trained_without_noise(
    models: Path, load_model: Callable[..., Any], audit_of: Callable[..., Any], tmp_path: Path
) -> None:
    """So that a bound of nothing in the private runs is the noise's doing and not the audit's blindness."""
    coins = np.random.default_rng(7).random(CANARIES) < 0.5
    planted = [
        Canary(i, "A", bool(coin), 1, "number", tuple(conversation(f"code of {i}", f"it is {secret}")), secret)
        for i, (coin, secret) in enumerate(zip(coins, secrets(CANARIES, seed=9), strict=True))
    ]
    rows = [c.messages for c in planted if c.included]
    model = load_model(train_adapter(models, tmp_path / "adapter", rows, steps=200))
    found = {m.name: m for m in privacy.run(audit_of(model, canaries=planted)).measurements if not m.slice}
    assert found["privacy.epsilon_lower_bound"].value > 0.5
