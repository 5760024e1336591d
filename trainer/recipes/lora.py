"""A base model with its adapter: LoRA on every linear layer of the blocks, or for full tuning the blocks themselves.

The adapter exists twice. The *masters* are fp32 and are what the optimiser changes; before each step they are rounded
into the model's own tensors, so that every matrix product runs in the model's format (a bf16 adapter updated in place
would lose updates below 2**-9 of a weight). What is saved is what the model computed with.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay import durable
from assay.base_demands import demand_keys_and_values, demand_plain_logits
from assay.errors import InvalidInputError
from assay.modelfiles import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from assay.safetensors_header import read_header
from trainer.device import Device
from trainer.recipes import four_bit, whole
from trainer.recipes.blocks import demand_blocks, linear_layers
from trainer.recipes.four_bit import Quantisation
from trainer.recipes.lora_linear import fuse
from trainer.recipes.packs import understands_packs
from trainer.settings import Settings

if TYPE_CHECKING:
    import torch

_SHORT_ROW = 256
_FORMATS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def keeps_attention(device: Device, longest_row: int) -> bool:
    """Whether attention's weights are computed and kept.

    torch's fused attention, which does neither, costs several times the plain products on a CPU where rows are short.
    """
    return device.kind == "cpu" and longest_row <= _SHORT_ROW


@dataclass(frozen=True)
class TunedModel:
    """A base model with its adapter attached.

    Attributes:
        backbone: the transformer blocks; maps token ids to hidden states.
        head: maps hidden states to logits.
        adapter: the trainable tensors by the name they are saved under, in the model's format.
        masters: the same tensors in fp32, in the same order.
        base: what makes the model compute as the base model does, by name: zero for LoRA's B, the base model's own
            weights for whole modules.
        parameters: number of parameters of the base model, tied weights counted once.
        packs: whether rows may be read in packs, see :mod:`trainer.recipes.packs`.
        whole: whether the adapter is the blocks themselves, see :mod:`trainer.recipes.whole`.
        quantisation: of the base model's weights; None where they are as the base model has them.
        targets: names of the modules that LoRA is on, sorted; none of a whole adapter.
    """

    backbone: torch.nn.Module
    head: torch.nn.Module
    adapter: Mapping[str, torch.nn.Parameter]
    masters: Mapping[str, torch.nn.Parameter]
    base: Mapping[str, torch.Tensor]
    parameters: int
    packs: bool = False
    whole: bool = False
    quantisation: Quantisation | None = None
    targets: tuple[str, ...] = ()

    def publish_masters(self) -> None:
        """Rounds the masters into the model."""
        import torch

        with torch.no_grad():
            for name, parameter in self.adapter.items():
                parameter.copy_(self.masters[name])

    @contextmanager
    def untuned(self) -> Iterator[None]:
        """Lets the model compute as the base model does."""
        import torch

        with torch.no_grad():
            for name, value in self.base.items():
                self.adapter[name].copy_(value)
        try:
            yield
        finally:
            self.publish_masters()

    def collect_gradients(self) -> None:
        """Moves the model's gradients to the masters, widened to fp32, and adds them to those that are there."""
        for name, parameter in self.adapter.items():
            if parameter.grad is None:
                continue
            master, grad = self.masters[name], parameter.grad.float()
            master.grad = grad if master.grad is None else master.grad + grad
            parameter.grad = None


def load(
    base_files: Path,
    settings: Settings,
    device: Device,
    longest_row: int,
    *,
    parent: Path | None = None,
    fused: bool = True,
    full: bool = False,
    quantised: bool = False,
) -> TunedModel:
    """Loads a base model from its ``files/`` folder and attaches an adapter, fresh from the settings' seed or a copy.

    Args:
        base_files: the folder.
        settings: rank, scale, dropout and seed of the adapter.
        device: where, and in which format.
        longest_row: tokens of the longest row that will be read.
        parent: weights of an adapter of the same shape to start from.
        fused: let a LoRA layer compute as one operation, and rows be read in packs; not where each row's own gradient
            is wanted.
        full: train the blocks themselves instead of low-rank matrices.
        quantised: hold the blocks' linear layers in four bits; not together with ``full``.

    Raises:
        InvalidInputError: ``ADAPTER_TENSORS`` when the parent's tensors are not those of the adapter,
            ``BASE_LOGITS_ALTERED``, ``BASE_RECURRENT``.
        PreconditionError: ``ARCHITECTURE``, ``QUANTISATION_MISSING``.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    base = AutoModelForCausalLM.from_pretrained(
        base_files,
        dtype=device.torch_dtype(),
        local_files_only=True,
        use_safetensors=True,
        attn_implementation="eager" if keeps_attention(device, longest_row) else "sdpa",
    )
    parameters = sum(p.numel() for p in base.parameters())
    demand_blocks(base)
    linear = linear_layers(base)
    targets = () if full else linear
    quantisation = four_bit.quantise(base, device) if quantised else None
    base.to(device.torch_device())  # type: ignore[arg-type]
    _leave_files(base, base_files)
    # The audit asks this too, after hours that it saves here.
    demand_plain_logits(base)
    demand_keys_and_values(base)
    if full:
        adapter = whole.open_blocks(base)
        untuned = {name: p.detach().clone() for name, p in adapter.items()}
    else:
        adapter = _attach(base, settings, targets, fused=fused)
        untuned = {name: torch.zeros(()) for name in adapter if ".lora_B." in name}
    masters = {n: torch.nn.Parameter(p.detach().float().clone()) for n, p in adapter.items()}
    if parent is not None:
        _copy(parent, masters)
    inner: Any = base
    # Dropout would treat a shared token alike for all its rows.
    packs = fused and (full or not settings.lora_dropout) and understands_packs(inner.model, device.torch_device())
    return TunedModel(
        inner.model, inner.lm_head, adapter, masters, untuned, parameters, packs, full, quantisation, targets
    )


def _leave_files(base: torch.nn.Module, base_files: Path) -> None:
    """Copies weights on the CPU in a number format of the files: they are views of them, and would change with them.

    The others were converted, and copying them too would only take memory.
    """
    headers = [read_header(path) for path in base_files.glob("*.safetensors")]
    stored = {_FORMATS[tensor.dtype] for header in headers for tensor in header.tensors if tensor.dtype in _FORMATS}
    for parameter in base.parameters():
        if parameter.device.type == "cpu" and str(parameter.dtype).removeprefix("torch.") in stored:
            parameter.data = parameter.data.clone()


def _attach(base: Any, settings: Settings, targets: Sequence[str], *, fused: bool) -> dict[str, torch.nn.Parameter]:
    """Puts a fresh LoRA adapter on a base model, in place; gives its tensors by the names they are saved under."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(settings.seed)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=list(targets),
    )
    wrapped = get_peft_model(base, config, autocast_adapter_dtype=False)
    if fused:
        fuse(wrapped)
    return {n.replace(".default.", "."): p for n, p in wrapped.named_parameters() if p.requires_grad}


def _copy(parent: Path, masters: Mapping[str, torch.nn.Parameter]) -> None:
    """Fills the masters from an adapter file."""
    import torch
    from safetensors.torch import load_file

    found = load_file(parent)
    if {n: t.shape for n, t in found.items()} != {n: m.shape for n, m in masters.items()}:
        raise InvalidInputError("ADAPTER_TENSORS", "the adapter to go on from has other tensors than this base model's")
    with torch.no_grad():
        for name, master in masters.items():
            master.copy_(found[name])


def save_adapter(model: TunedModel, settings: Settings, base_model: str, folder: Path) -> None:
    """Writes the adapter as :func:`assay.modelfiles.check_adapter_folder` wants it, by a rename of the finished folder.

    The configuration names the base model by its registry id: a path or hub name would tell a loader to fetch
    something.
    """
    from safetensors.torch import save_file

    staging = folder.with_name(f".{folder.name}.partial")
    staging.mkdir(parents=True)
    tensors = {name: p.detach().contiguous().cpu() for name, p in sorted(model.adapter.items())}
    save_file(tensors, staging / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    config = {
        "base_model_name_or_path": base_model,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "use_rslora": False,
        **(whole.peft_config(tensors) if model.whole else _peft_config(settings, model.targets)),
    }
    (staging / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    for name in (ADAPTER_WEIGHTS, ADAPTER_CONFIG):
        (staging / name).chmod(0o644)
        durable.sync(staging / name)
    staging.rename(folder)


def _peft_config(settings: Settings, targets: Sequence[str]) -> dict[str, Any]:
    return {
        "lora_alpha": settings.lora_alpha,
        "lora_dropout": settings.lora_dropout,
        "r": settings.lora_rank,
        "target_modules": list(targets),
    }
