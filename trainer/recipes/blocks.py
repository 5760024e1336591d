"""Which layers of a base model an adapter is put on, read from the model: what is claimed of them must be so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from assay.errors import InvalidInputError, PreconditionError


def demand_importable(files: Path) -> None:
    """Refuses a model that no job could tune, by its configuration alone: no weights are read.

    Weights are read before the first step, and this is asked again.

    Args:
        files: of the base model, scanned.

    Raises:
        InvalidInputError: ``BASE_ARCHITECTURE`` where transformers knows no such model, or none of these sizes.
        PreconditionError: ``ARCHITECTURE``.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        # Without a type, transformers would guess one from the folder's name.
        json.loads((files / "config.json").read_text())["model_type"]
        config = AutoConfig.from_pretrained(files, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            base = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    # No heads, a size below 0, a text for a number, a padding token beyond the vocabulary: each raises another kind.
    except Exception as error:
        raise InvalidInputError(
            "BASE_ARCHITECTURE",
            "the installed transformers makes no causal language model of its config.json",
            remedy="choose a model of transformers' own architectures; code of a repository is never run",
        ) from error
    demand_blocks(base)
    linear_layers(base)


def demand_blocks(base: Any) -> None:
    """Demands a model of the usual parts: ``model`` with a list of blocks, and ``lm_head`` over it.

    Raises:
        PreconditionError: ``ARCHITECTURE``.
    """
    decoder = getattr(base, "model", None)
    if decoder is None or base.get_decoder() is not decoder or not hasattr(base, "lm_head"):
        raise _unknown(base, "has other parts than blocks in `model` and a head `lm_head`")
    if not hasattr(decoder, "layers"):
        raise _unknown(base, "keeps its blocks elsewhere than in `model.layers`")


def linear_layers(base: Any) -> tuple[str, ...]:
    """Names of the blocks' linear layers, sorted; peft finds by them every linear layer of the blocks and no other.

    Args:
        base: a causal language model of transformers that :func:`demand_blocks` accepts.

    Raises:
        PreconditionError: ``ARCHITECTURE`` where a matrix of the blocks belongs to something else, such as experts that
            share one tensor: an adapter on the linear layers would leave it out, and nobody would see; full tuning
            keeps whole modules, and such a tensor is none.
    """
    import torch

    blocks = base.model.layers
    linear = {name: module for name, module in blocks.named_modules() if isinstance(module, torch.nn.Linear)}
    held = {id(parameter) for module in linear.values() for parameter in module.parameters()}
    for name, parameter in blocks.named_parameters():
        if parameter.dim() > 1 and id(parameter) not in held:
            raise _unknown(base, f"has weights in its blocks that are no linear layer's ({name})")
    names = {name.rpartition(".")[2] for name in linear}
    inside = {id(module) for module in linear.values()}
    for name, module in base.named_modules():
        if name.rpartition(".")[2] in names and id(module) not in inside:
            raise _unknown(base, f"has another module by the name of a linear layer in its blocks ({name})")
    return tuple(sorted(names))


def _unknown(base: Any, why: str) -> PreconditionError:
    return PreconditionError(
        "ARCHITECTURE",
        f"the base model's architecture, {type(base).__name__}, {why}",
        remedy="ask for a new job with a base model of dense blocks, such as Llama, Mistral, Qwen2 or Phi-3",
    )
