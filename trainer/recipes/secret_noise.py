"""Gaussian noise that follows from a secret key and from nothing less: of a key another one tells nothing.

Opacus draws noise from torch's generator, which on a CPU (mt19937) takes 32 bits of a seed and on a GPU (Philox) 64,
and which foretells the rest of its numbers to who knows some of them; for noise it has ``torchcsprng``, which does not
exist for this torch. Here the numbers are the key stream of AES-256 in counter mode, on every device, and become
normals by Box and Muller's transform (1958), 53 bits a number.

A normal of floating-point numbers has gaps, by which an output may tell what the noise was added to (Mironov 2012).
As Opacus does in ``secure_mode``, four normals are added up for each that is used (Holohan and Braghin 2021, arXiv
2107.10138): here in fp64, and only their sum is rounded to fp32.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from opacus.optimizers import DPOptimizer
from opacus.optimizers.optimizer import _check_processed_flag, _mark_as_processed

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers import CipherContext

_SUMMED = 4
_BITS = 53
"""Of a number in fp64."""


class SecretNoiseOptimizer(DPOptimizer):  # type: ignore[misc]  # published without types
    """Opacus's optimizer with noise from a key.

    Attributes:
        noise_key: 32 bytes for the next step that adds noise, and for no other: equal noise would cancel out.
    """

    noise_key = b""

    def add_noise(self) -> None:
        """Adds noise to the clipped sums.

        Raises:
            ValueError: no key was set since the last step.
        """
        stream, self.noise_key = key_stream(self.noise_key), b""
        for parameter in self.params:
            clipped = parameter.summed_grad
            _check_processed_flag(clipped)
            parameter.grad = clipped + normals(stream, clipped, self.noise_multiplier * self.max_grad_norm)
            _mark_as_processed(clipped)


def key_stream(key: bytes) -> CipherContext:
    """The bytes that a key of 32 stands for: what this encrypts of zeros.

    Raises:
        ValueError: for a key of another length.
    """
    if len(key) != 32:
        raise ValueError(f"noise needs a key of 32 bytes, not of {len(key)}")
    # A key is used once, so its counter may begin at nought.
    return Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()


def normals(stream: CipherContext, like: torch.Tensor, deviation: float) -> torch.Tensor:
    """Independent normals of mean 0 from the next bytes of a stream, in shape, format and place of a tensor."""
    half = math.ceil(like.numel() / 2)
    drawn = bytearray(stream.update(bytes(2 * _SUMMED * half * 8)))
    words = torch.frombuffer(drawn, dtype=torch.int64).to(like.device)
    # Above nought, of which there is no logarithm, up to and with one.
    uniform = words.bitwise_and_((1 << _BITS) - 1).add_(1).double().mul_(2.0**-_BITS)
    first, second = uniform.view(2, _SUMMED, half)
    radius, angle = first.log_().mul_(-2).sqrt_(), second.mul_(2 * math.pi)
    # The two normals of a pair go to two places: added up in one they would be one again.
    summed = torch.cat([(radius * angle.cos()).sum(0), (radius * angle.sin()).sum(0)])
    return (summed[: like.numel()] * (deviation / math.sqrt(_SUMMED))).to(like.dtype).view_as(like)
