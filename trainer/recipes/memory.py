"""How many tokens one pass through the model may hold, from the model's shape and the memory that there is.

What a backward pass keeps grows with the tokens it reads, and a batch of long rows would end most machines. So a batch
is read in micro-batches, whose gradients add up to the batch's (gradient accumulation); a batch that fits is read at
once. The estimate counts what a block of a gated transformer keeps for its gradients, as Korthikanti et al. 2022 (arXiv
2205.05198, section 4.1) do for GPT, with fp32 norms as transformers computes them, and the logits of every token, as if
all were scored.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.device import Device
from trainer.recipes.lora import keeps_attention
from trainer.recipes.whole import METHODS as WHOLE

_GIB = 1 << 30
_INTERPRETER = _GIB
"""Python, torch and its kernels, before any weight."""
_SHARE = 0.6
"""Of the memory; the rest is for what the estimate does not see, such as temporary copies and other kernels' space."""
_WHOLE_COPIES = 11
"""Full tuning holds for two bytes of a bf16 weight 22: itself, its start, gradient, fp32 master and AdamW's moments."""
_FP32 = 4


@dataclass(frozen=True)
class Shape:
    """What decides how much a token keeps.

    Attributes:
        layers: blocks.
        hidden: width of the residual stream.
        inner: width inside the feed-forward part.
        heads: of attention.
        attended: width of queries, keys and values together.
        vocabulary: tokens that the head scores.
    """

    layers: int
    hidden: int
    inner: int
    heads: int
    attended: int
    vocabulary: int

    @classmethod
    def read(cls, files: Path) -> Shape:
        """From the configuration in ``files/`` of a base model; what it does not say is taken to be as usual."""
        from transformers import AutoConfig

        config: Any = AutoConfig.from_pretrained(files, local_files_only=True).get_text_config()
        hidden, heads = int(config.hidden_size), int(config.num_attention_heads)
        head = int(getattr(config, "head_dim", None) or hidden // heads)
        keys = int(getattr(config, "num_key_value_heads", None) or heads)
        return cls(
            layers=int(config.num_hidden_layers),
            hidden=hidden,
            inner=int(getattr(config, "intermediate_size", None) or 4 * hidden),
            heads=heads,
            attended=head * (heads + 2 * keys),
            vocabulary=int(config.vocab_size),
        )


def bytes_of_token(shape: Shape, number: int, width: int) -> int:
    """Bytes that a token keeps until its gradient is known.

    Args:
        shape: of the model.
        number: bytes of a number of the model's format.
        width: tokens that it may attend to where attention's weights are kept; 0 where a kernel recomputes them.
    """
    norms = 2 * (2 * _FP32 + number) * shape.hidden
    attention = number * (2 * shape.attended + 2 * shape.hidden) + shape.heads * width * (2 * number + _FP32)
    feed_forward = number * (4 * shape.inner + 2 * shape.hidden)
    logits = shape.vocabulary * (number + 3 * _FP32)
    return shape.layers * (norms + attention + feed_forward) + logits


def most_tokens(shape: Shape, memory: int, weights: int, number: int, width: int, *, whole: bool) -> int:
    """Tokens of rows that one pass may hold: a power of two, so that machines that are nearly alike choose alike.

    A longer row is read by itself all the same. Zero, which is no bound, where nothing is known of the memory.

    Args:
        shape: of the model.
        memory: bytes that the process may use; 0 where nobody says.
        weights: bytes of the base model's weights in the format that they are trained in.
        number: as of :func:`bytes_of_token`.
        width: likewise.
        whole: whether the blocks themselves are trained.
    """
    if not memory:
        return 0
    held = weights * (_WHOLE_COPIES if whole else 1)
    fits = int((memory * _SHARE - _INTERPRETER - held) // bytes_of_token(shape, number, width))
    return 1 << max(0, fits.bit_length() - 1) if fits > 0 else 1


def why(tokens: int) -> str:
    """The reason for what :func:`most_tokens` said, in words that hold of a run that went on elsewhere too."""
    if not tokens:
        return "nothing said how much memory there was, so nothing bounds a pass"
    source = "by the model's shape and number format (Korthikanti et al. 2022, arXiv 2205.05198)"
    room = f"into {100 * _SHARE:.0f} % of the memory where the run began, less interpreter and weights, {source}"
    if tokens == 1:
        return f"no more than one token fits {room}, so each row is read by itself"
    return f"the largest power of two of tokens that fits {room}"


def of_process(device: Device, given: int, processes: int) -> int:
    """Bytes that one process of a training may use: of its GPU, or its part of what the worker gives a task.

    Args:
        device: of the run.
        given: to the whole task, of the machine's memory; 0 where nobody says.
        processes: that share it.
    """
    if device.kind != "cuda":
        return given // processes
    import torch

    return int(torch.cuda.get_device_properties(0).total_memory)


def fitting(files: Path, device: Device, method: str, parameters: int, longest: int, memory: int) -> int:
    """What :func:`most_tokens` says of a run.

    Args:
        files: ``files/`` of the base model.
        device: of the run.
        method: of the run.
        parameters: of the base model.
        longest: tokens of the longest row.
        memory: bytes, as of :func:`of_process`.
    """
    number = device.torch_dtype().itemsize
    width = longest if keeps_attention(device, longest) else 0
    return most_tokens(Shape.read(files), memory, parameters * number, number, width, whole=method in WHOLE)
