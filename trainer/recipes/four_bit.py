"""QLoRA's base model: the blocks' linear layers in four bits while the adapter is trained.

A weight matrix is cut into blocks of 64; each is divided by its largest magnitude and rounded to the sixteen levels of
NF4, quantiles of a normal distribution, and the magnitudes are kept in eight bits by blocks of 256 in turn (double
quantisation; Dettmers et al. 2023, arXiv 2305.14314): about 4.13 bits a weight. The matrix exists in the model's format
for the moment of a product only. bitsandbytes rounds and restores; the products are our own, so that a resumed run
meets the same kernels. The base model's files stay as they are: the adapter belongs to the model as published.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from assay.errors import PreconditionError
from trainer.device import Device

if TYPE_CHECKING:
    import torch

METHODS = ("qlora",)
"""Methods whose base model is quantised while they train."""
BLOCK, SCALE_BLOCK = 64, 256
_LIBRARY = "bitsandbytes"


@dataclass(frozen=True)
class Quantisation:
    """What was quantised, and by what.

    Attributes:
        layers: linear layers.
        weights: elements of their matrices.
        bytes: that they take: levels, magnitudes and the tables of both.
        library: distribution and version, such as ``bitsandbytes 0.50.2``.
    """

    layers: int
    weights: int
    bytes: int
    library: str

    def claim(self) -> dict[str, Any]:
        """The same for a statement, with the format."""
        return {
            "format": "nf4",
            "block": BLOCK,
            "double": True,
            "scale_block": SCALE_BLOCK,
            "layers": self.layers,
            "weights": self.weights,
            "bytes": self.bytes,
            "library": self.library,
        }

    def words(self) -> str:
        """The same for people."""
        return f"NF4 in blocks of {BLOCK} with double quantisation ({self.library})"


def demand(device: Device) -> str:
    """Shows that weights can be quantised and restored here, on a small matrix; returns the library with its version.

    Raises:
        PreconditionError: ``QUANTISATION_MISSING`` where the library is not installed or does not run.
    """
    import torch

    try:
        functional = importlib.import_module(f"{_LIBRARY}.functional")
        version = importlib.metadata.version(_LIBRARY)
    except (ImportError, importlib.metadata.PackageNotFoundError) as error:
        raise _missing("is not installed on the train worker") from error
    levels = torch.linspace(-1, 1, BLOCK * BLOCK, dtype=device.torch_dtype(), device=device.torch_device())
    try:
        restored = FourBit(levels.reshape(BLOCK, BLOCK), functional)()
    except (RuntimeError, NotImplementedError, AttributeError, OSError) as error:
        raise _missing(f"{version} does not run on the train worker ({type(error).__name__})") from error
    # The widest gap between two of NF4's levels is 0.304, and rounding goes to the nearer one.
    if not bool(((restored.flatten() - levels).abs() < 0.16).all()):
        raise _missing(f"{version} does not restore what it rounded on the train worker")
    return f"{_LIBRARY} {version}"


def _missing(why: str) -> PreconditionError:
    return PreconditionError(
        "QUANTISATION_MISSING",
        f"the method needs four-bit weights, and {_LIBRARY} {why}",
        remedy="pip install -c constraints.txt '.[qlora]' there and start the worker again, or ask for a new job with "
        "the method lora",
    )


class FourBit:
    """A frozen matrix in four bits; called, it restores the matrix in the format that it was quantised from.

    Args:
        weight: shape ``(out, in)``, on the device where it will be used.
        functional: the library's module.
    """

    def __init__(self, weight: torch.Tensor, functional: Any) -> None:
        self._restore = functional.dequantize_4bit
        self._levels, self._state = functional.quantize_4bit(
            weight.contiguous(), blocksize=BLOCK, compress_statistics=True, quant_type="nf4"
        )
        if self._state.state2.blocksize != SCALE_BLOCK:
            raise _missing("keeps magnitudes in other blocks than this recipe says")

    def __call__(self) -> torch.Tensor:
        """The matrix."""
        out: torch.Tensor = self._restore(self._levels, self._state)
        return out

    @property
    def bytes(self) -> int:
        """Memory that it takes."""
        second = self._state.state2
        parts = (self._levels, self._state.absmax, self._state.code, second.absmax, second.code, self._state.offset)
        return sum(part.numel() * part.element_size() for part in parts)


def quantise(base: Any, device: Device) -> Quantisation:
    """Puts every linear layer of a causal language model's blocks into four bits, in place.

    One matrix at a time goes to the device, so that the device never holds the model in full.

    Args:
        base: the model, still where it was loaded.
        device: where its matrices will be used.

    Raises:
        PreconditionError: ``QUANTISATION_MISSING``.
    """
    import torch

    library = demand(device)
    functional = importlib.import_module(f"{_LIBRARY}.functional")
    layers = weights = size = 0
    with torch.no_grad():
        for layer in _linear_layers(base):
            frozen = FourBit(layer.weight.detach().to(device.torch_device()), functional)
            layers, weights, size = layers + 1, weights + layer.weight.numel(), size + frozen.bytes
            empty = torch.empty(0, dtype=layer.weight.dtype, device=device.torch_device())
            layer.weight = torch.nn.Parameter(empty, requires_grad=False)
            layer.forward = _Frozen(frozen, layer)
    return Quantisation(layers, weights, size, library)


def matrix_of(layer: Any) -> Callable[[], torch.Tensor]:
    """Gives a linear layer's matrix whenever it is called: restored where it is in four bits, else the very tensor."""
    if isinstance(layer.forward, _Frozen):
        return layer.forward.matrix
    weight = layer.weight
    return lambda: weight


def _linear_layers(base: Any) -> Iterator[Any]:
    import torch

    yield from (m for m in base.get_decoder().layers.modules() if isinstance(m, torch.nn.Linear))


class _Frozen:
    """The forward pass of a linear layer whose matrix is in four bits."""

    def __init__(self, matrix: FourBit, layer: Any) -> None:
        self.matrix, self._layer = matrix, layer

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = _function().apply(x, self.matrix)
        return out if self._layer.bias is None else out + self._layer.bias


@cache
def _function() -> Any:
    """The function, made on first use, since its base class is torch's and torch is loaded late."""
    import torch

    class FrozenLinear(torch.autograd.Function):
        """``y = x W'``, W restored for either pass and kept by neither."""

        @staticmethod
        def forward(ctx: Any, x: torch.Tensor, matrix: FourBit) -> torch.Tensor:
            ctx.matrix = matrix
            return x @ matrix().t()

        @staticmethod
        def backward(ctx: Any, *grads: torch.Tensor) -> Any:
            return (grads[0] @ ctx.matrix() if ctx.needs_input_grad[0] else None), None

    return FrozenLinear
