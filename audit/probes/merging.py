"""An adapter added into the weights it changes, for as long as it is on.

A plain LoRA layer runs three products and two sums where one product would do, which on a processor costs a sixth of
reading and more than that of writing. In fp32 the sum of weight and change rounds at the seventh digit, as the
products do. In bf16 it would lose small changes altogether, so there the layers stay as peft made them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

_ADAPTER = "default"


def merge(wrapped: Any) -> int:
    """Lets every plain fp32 LoRA layer of a peft model run as one product; returns how many do.

    The base weights are kept beside, and used while peft's ``disable_adapter`` holds. Whoever changes LoRA's matrices
    afterwards calls :func:`refresh`.
    """
    merged = 0
    for layer in _plain(wrapped):
        layer.forward = _Merged(layer)
        merged += 1
    return merged


def refresh(wrapped: Any) -> None:
    """Adds LoRA's matrices, as they are now, to the base weights anew."""
    for layer in _plain(wrapped):
        if isinstance(layer.forward, _Merged):
            layer.forward.add()


def _plain(wrapped: Any) -> Iterator[Any]:
    """LoRA layers over a linear layer in fp32, with one adapter and without anything that a product cannot say."""
    from peft.tuners.lora.layer import Linear

    for layer in wrapped.modules():
        if not isinstance(layer, Linear) or type(layer.get_base_layer()) is not torch.nn.Linear:
            continue
        matrices = [m[_ADAPTER] for m in (layer.lora_A, layer.lora_B) if list(m) == [_ADAPTER]]
        plain = len(matrices) == 2 and all(type(m) is torch.nn.Linear and m.bias is None for m in matrices)
        ordinary = not layer.use_dora.get(_ADAPTER, False) and not layer.fan_in_fan_out
        if plain and ordinary and all(w.weight.dtype == torch.float32 for w in (layer.get_base_layer(), *matrices)):
            yield layer


class _Merged:
    """A layer's forward pass: its own weight with the change in it, or without."""

    def __init__(self, layer: Any) -> None:
        self._layer, self._base = layer, layer.get_base_layer()
        self._a, self._b = (m[_ADAPTER].weight for m in (layer.lora_A, layer.lora_B))
        self._weight = torch.empty_like(self._base.weight)
        self.add()

    def add(self) -> None:
        """Computes ``W + s B A``."""
        with torch.no_grad():
            torch.addmm(self._base.weight, self._b, self._a, alpha=self._layer.scaling[_ADAPTER], out=self._weight)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        weight = self._base.weight if self._layer.disable_adapters else self._weight
        return torch.nn.functional.linear(x, weight, self._base.bias)
