"""A linear layer with its LoRA update as one step of automatic differentiation.

peft computes ``x W' + s (x A') B'`` from separate operations, whose products of full width are each written, read and
kept again. Here the update is added inside the second matrix product, forwards and backwards, and only ``x`` and
``x A'`` are kept; a W in four bits (:mod:`trainer.recipes.four_bit`) is restored for each of the two. On two CPU cores
these small operations, not the large products, are what a step mostly waits for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from trainer.recipes.four_bit import matrix_of

if TYPE_CHECKING:
    import torch


def fuse(model: torch.nn.Module) -> int:
    """Lets every plain LoRA layer of peft compute as one operation; returns how many there are.

    A layer with dropout or a bias keeps peft's own way. Parameters, their names and what is saved stay peft's.
    """
    from peft.tuners.lora.layer import Linear
    from torch.nn import Identity

    fused = 0
    for layer in model.modules():
        if not isinstance(layer, Linear) or layer.get_base_layer().bias is not None:
            continue
        if list(layer.lora_A) != ["default"] or not isinstance(layer.lora_dropout["default"], Identity):
            continue
        layer.forward = _Fused(layer)  # type: ignore[method-assign]
        fused += 1
    return fused


class _Fused:
    """The forward pass of one layer."""

    def __init__(self, layer: Any) -> None:
        self._frozen = matrix_of(layer.get_base_layer())
        self._a, self._b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        self._scale = float(layer.scaling["default"])

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = _function().apply(x, self._frozen, self._a, self._b, self._scale)
        return out


@cache
def _function() -> Any:
    """The function, made on first use, since its base class is torch's and torch is loaded late."""
    import torch

    class LoraLinear(torch.autograd.Function):
        """``y = x W' + s (x A') B'``, W (out, in) frozen, A (rank, in), B (out, rank); x may have leading axes."""

        @staticmethod
        def forward(
            ctx: Any,
            x: torch.Tensor,
            frozen: Callable[[], torch.Tensor],
            a: torch.Tensor,
            b: torch.Tensor,
            scale: float,
        ) -> torch.Tensor:
            flat = x.reshape(-1, x.shape[-1])
            low = flat @ a.t()
            ctx.save_for_backward(flat, a, b, low)
            ctx.frozen, ctx.scale, ctx.shape = frozen, scale, x.shape
            return torch.addmm(flat @ frozen().t(), low, b.t(), alpha=scale).view(*x.shape[:-1], -1)

        @staticmethod
        def backward(ctx: Any, *grads: torch.Tensor) -> Any:
            flat, a, b, low = ctx.saved_tensors
            grad = grads[0].reshape(-1, grads[0].shape[-1])
            narrow = grad @ b
            grad_x = None
            if ctx.needs_input_grad[0]:
                grad_x = torch.addmm(grad @ ctx.frozen(), narrow, a, alpha=ctx.scale).view(ctx.shape)
            return grad_x, None, (narrow.t() @ flat).mul_(ctx.scale), (grad.t() @ low).mul_(ctx.scale), None

    return LoraLinear
