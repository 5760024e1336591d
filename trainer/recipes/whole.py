"""Full tuning: every weight of the blocks is trained, and kept as an adapter of whole modules.

What is saved is what peft calls ``modules_to_save``: the blocks' linear layers and norms as they are after training,
under their own names. peft puts them beside the originals, so that permits bind the adapter and its base as they do for
LoRA, and an audit switches the adapter off to measure the base model. Embedding, head (which many models tie) and the
last norm stay the base model's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from assay.modelfiles import NO_TARGETS

if TYPE_CHECKING:
    import torch

METHODS = ("full",)
"""Methods whose adapter is whole."""
_PREFIX = "base_model.model."


def open_blocks(base: Any) -> dict[str, torch.nn.Parameter]:
    """Freezes a causal language model but for its blocks; gives their parameters by the names they are saved under."""
    blocks = {id(p) for p in base.get_decoder().layers.parameters()}
    for parameter in base.parameters():
        parameter.requires_grad_(id(parameter) in blocks)
    return {_PREFIX + name: p for name, p in base.named_parameters() if p.requires_grad}


def peft_config(names: Iterable[str]) -> dict[str, Any]:
    """What peft's configuration says of whole modules, from the tensors' names."""
    return {"target_modules": NO_TARGETS, "modules_to_save": sorted({name.split(".")[-2] for name in names})}
