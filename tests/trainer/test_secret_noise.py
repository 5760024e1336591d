"""Noise from a key: that it is normal, that all of the key counts, and that no key is used twice.

Keys are fixed, so that what is tested of samples holds every time.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from scipy import stats

from trainer.recipes.secret_noise import SecretNoiseOptimizer, key_stream, normals

KEY = bytes(range(32))
COUNT = 1_000_001
"""Odd, so that one number of the last pair is left over."""


@pytest.fixture(scope="module")
def sample() -> Any:
    """A million numbers of deviation 3 over 3."""
    return normals(key_stream(KEY), torch.zeros(COUNT), 3.0).numpy().astype("float64") / 3.0


def test_the_noise_is_normal_of_the_asked_deviation(sample: Any) -> None:
    """Within four standard errors, of which mean, deviation, skewness and kurtosis have 1, 1/2, 6 and 24 over n."""
    errors = [4 * math.sqrt(variance / COUNT) for variance in (1, 0.5, 6, 24)]
    found = [sample.mean(), sample.std() - 1, stats.skew(sample), stats.kurtosis(sample)]
    assert all(abs(value) < most for value, most in zip(found, errors, strict=True)), found
    assert stats.kstest(sample, "norm").pvalue > 0.01
    # The tails, of which a test of the whole says little.
    for at in (3.0, 4.0):
        expected = 2 * stats.norm.sf(at) * COUNT
        assert abs((abs(sample) > at).sum() - expected) < 4 * math.sqrt(expected)


def test_the_two_of_a_pair_are_independent_in_sign_and_in_size(sample: Any) -> None:
    first, second = sample[: COUNT // 2], sample[(COUNT + 1) // 2 :]
    for one, other in ((first, second), (first**2, second**2), (sample[:-1], sample[1:])):
        assert abs(stats.pearsonr(one, other).statistic) < 4 / math.sqrt(len(one))


def test_a_number_is_the_sum_of_four_normals_by_the_formula() -> None:
    """The same written out: eight numbers of 53 bits from the key stream, Box and Muller, half the sum of four."""
    drawn = Cipher(algorithms.AES256(KEY), modes.CTR(bytes(16))).encryptor().update(bytes(64))
    bits = [int.from_bytes(drawn[i : i + 8], "little") % 2**53 for i in range(0, 64, 8)]
    u, v = ([(b + 1) / 2**53 for b in part] for part in (bits[:4], bits[4:]))
    sizes = [math.sqrt(-2 * math.log(x)) for x in u]
    turns = [(math.cos(2 * math.pi * y), math.sin(2 * math.pi * y)) for y in v]
    expected = [1.5 * sum(r * turn[i] for r, turn in zip(sizes, turns, strict=True)) / 2 for i in (0, 1)]
    found = normals(key_stream(KEY), torch.zeros(2, 1), 1.5)
    assert found.shape == (2, 1) and found.dtype == torch.float32
    assert found.flatten().tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("bit", [0, 31, 32, 63, 64, 255])
def test_every_bit_of_the_key_changes_the_noise(bit: int) -> None:
    other = (int.from_bytes(KEY, "big") ^ 1 << bit).to_bytes(32, "big")
    first, second = (normals(key_stream(key), torch.zeros(64), 1.0) for key in (KEY, other))
    assert bool((first != second).all())
    assert torch.equal(first, normals(key_stream(KEY), torch.zeros(64), 1.0))


def test_a_key_serves_one_step_and_tensors_differ_within_it() -> None:
    parameters = [torch.nn.Parameter(torch.zeros(4, 3)) for _ in range(2)]
    optimizer = SecretNoiseOptimizer(
        torch.optim.SGD(parameters, lr=1.0), noise_multiplier=2.0, max_grad_norm=0.5, expected_batch_size=1
    )

    def add() -> list[torch.Tensor]:
        for parameter in parameters:
            parameter.summed_grad = torch.zeros(4, 3)  # type: ignore[attr-defined]
        optimizer.add_noise()
        return [parameter.grad.clone() for parameter in parameters if parameter.grad is not None]

    optimizer.noise_key = KEY
    first, second = add()
    assert bool((first != second).all())
    with pytest.raises(ValueError, match="32 bytes"):
        add()
    optimizer.noise_key = KEY
    assert torch.equal(add()[0], first)


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes, not of 16"):
        key_stream(bytes(16))
