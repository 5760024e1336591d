"""The fused LoRA layer computes what peft's computes, forwards and backwards."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.trainer.tiny_models import BASE_MODEL, tiny_models
from trainer.device import Device
from trainer.recipes import lora, lora_linear
from trainer.settings import Settings


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models(tmp_path_factory.mktemp("models")) / BASE_MODEL / "files"


def gradients(
    files: Path, monkeypatch: pytest.MonkeyPatch, *, fused: bool, longest: int = 64, **settings: float
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Loss and gradients of one step on fixed tokens, with B set so that A has a gradient too."""
    with monkeypatch.context() as patch:
        if not fused:
            patch.setattr(lora, "fuse", lambda model: 0)
        chosen = Settings(lora_rank=4, seed=3, **settings)
        model = lora.load(files, chosen, Device("cpu", "float32", "test"), longest)
    generator = torch.Generator().manual_seed(1)
    for name, master in model.masters.items():
        if "lora_B" in name:
            master.data = torch.randn(master.shape, generator=generator) * 0.1
    model.publish_masters()
    model.backbone.train()
    tokens = torch.randint(0, 49_000, (3, 24), generator=generator)
    hidden = model.backbone(input_ids=tokens[:, :-1], use_cache=False).last_hidden_state
    loss = torch.nn.functional.cross_entropy(model.head(hidden).flatten(0, 1), tokens[:, 1:].flatten())
    loss.backward()
    return loss.detach(), {n: p.grad for n, p in model.adapter.items() if p.grad is not None}


def test_every_layer_is_fused_and_computes_the_same(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loss, ours = gradients(files, monkeypatch, fused=True)
    reference, theirs = gradients(files, monkeypatch, fused=False)
    assert torch.allclose(loss, reference, rtol=1e-6)
    assert set(ours) == set(theirs) and len(ours) == 2 * 2 * 7
    for name, grad in theirs.items():
        assert grad.abs().max() > 0, name
        assert torch.allclose(ours[name], grad, rtol=1e-4, atol=1e-7 + 1e-4 * float(grad.abs().max())), name


def test_attention_for_long_rows_computes_the_same(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, short = gradients(files, monkeypatch, fused=True)
    _, long = gradients(files, monkeypatch, fused=True, longest=4096)
    for name, grad in short.items():
        assert torch.allclose(long[name], grad, rtol=1e-3, atol=1e-6 + 1e-3 * float(grad.abs().max())), name


def test_a_layer_with_dropout_stays_as_it_was(files: Path) -> None:
    settings = Settings(lora_rank=4, seed=3, lora_dropout=0.5)
    model = lora.load(files, settings, Device("cpu", "float32", "test"), 64)
    assert lora_linear.fuse(model.backbone) == 0
