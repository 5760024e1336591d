"""Other families of base models: an adapter is on every linear layer of the blocks, or the model is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from assay.errors import InvalidInputError, PreconditionError
from assay.modelfiles import check_adapter_folder
from tests.e2e.e2e_world import chat_rows
from tests.trainer.test_train_task import context
from tests.trainer.tiny_models import BASE_MODEL, tiny_models
from trainer import task
from trainer.base_sources import Described, from_folder
from trainer.device import Device
from trainer.recipes.lora import load
from trainer.settings import Settings

LLAMA = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")
PHI = ("down_proj", "gate_up_proj", "o_proj", "qkv_proj")
IMPOSSIBLE = (
    {"model_type": "llama", "num_attention_heads": 0},
    {"model_type": "llama", "hidden_size": -8, "num_attention_heads": 1},
    {"model_type": "llama", "hidden_size": 10**12},
    {"model_type": "llama", "rms_norm_eps": "small"},
    {"model_type": "llama", "pad_token_id": 10**6},
    {"model_type": "llama", "attn_implementation": "flash_attention_2"},
)
"""Configurations that transformers knows and makes no model of, each failing in a way of its own."""


@pytest.mark.parametrize(("kind", "names"), [("llama", LLAMA), ("qwen2", LLAMA), ("phi3", PHI)])
def test_an_adapter_is_on_every_linear_layer_of_the_blocks(tmp_path: Path, kind: str, names: tuple[str, ...]) -> None:
    import torch

    models = tiny_models(tmp_path / "models", kind=kind)
    model = load(models / BASE_MODEL / "files", Settings(), Device("cpu", "float32", ""), 100, fused=False)
    assert model.targets == names, "of the embedded default the very list that its adapters always had"
    blocks = model.backbone.layers
    frozen = {n for n, m in blocks.named_modules() if isinstance(m, torch.nn.Linear) and ".lora_" not in n}
    adapted = {n.rpartition(".lora_A")[0] for n in model.adapter if ".lora_A." in n}
    assert {f"base_model.model.model.layers.{n.removesuffix('.base_layer')}" for n in frozen} == adapted
    ctx = context(models, tmp_path, chat_rows(16))
    assert "every linear layer" in task.run(ctx)["adapter"]
    assert check_adapter_folder(ctx.outputs / "adapter").target_modules == names


@pytest.mark.parametrize(
    ("kind", "changes", "method", "why"),
    [
        ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4}, "lora", "other parts"),
        ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4}, "full", "other parts"),
        ("mixtral", {"num_local_experts": 2}, "lora", "no linear layer's"),
        ("mixtral", {"num_local_experts": 2}, "full", "no linear layer's"),
    ],
)
def test_another_architecture_is_refused_by_name_before_a_step(
    tmp_path: Path, kind: str, changes: dict[str, int], method: str, why: str
) -> None:
    ctx = context(tiny_models(tmp_path / "models", kind=kind, **changes), tmp_path, chat_rows(16), method=method)
    with pytest.raises(PreconditionError) as raised:
        task.run(ctx)
    assert raised.value.reason == "ARCHITECTURE" and why in raised.value.message and "Llama" in raised.value.remedy
    assert not (ctx.outputs / "adapter").exists()


def test_an_import_refuses_experts_that_share_a_tensor(tmp_path: Path) -> None:
    mixed = tiny_models(tmp_path / "made", kind="mixtral", num_local_experts=2) / BASE_MODEL / "files"
    with pytest.raises(PreconditionError) as refused:
        from_folder(mixed, Described("mixed", "MIT"), tmp_path)
    assert refused.value.reason == "ARCHITECTURE" and "(0.mlp.gate.weight)" in refused.value.message
    assert not list((tmp_path / "models").iterdir())


def test_an_import_refuses_what_no_job_could_tune(tmp_path: Path) -> None:
    other = tiny_models(tmp_path / "models", kind="gpt2", n_embd=32, n_layer=2, n_head=4) / BASE_MODEL / "files"
    with pytest.raises(PreconditionError) as refused:
        from_folder(other, Described("other", "MIT"), tmp_path)
    assert refused.value.reason == "ARCHITECTURE"
    # Without a type, transformers would take one that stands in the path, such as this `gpt2`.
    other = other.rename(tmp_path / "gpt2")
    for config in ({"model_type": "of-nobody", "vocab_size": 8}, {"vocab_size": 8}, *IMPOSSIBLE):
        (other / "config.json").write_text(json.dumps(config))
        with pytest.raises(InvalidInputError) as unknown:
            from_folder(other, Described("gpt2", "MIT"), tmp_path)
        assert unknown.value.reason == "BASE_ARCHITECTURE"
    assert [path.name for path in (tmp_path / "models").iterdir()] == [BASE_MODEL]
