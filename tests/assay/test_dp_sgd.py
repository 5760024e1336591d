"""What is reserved before a private run, held against the accountants that come after it."""

from __future__ import annotations

import itertools
import warnings

import pytest

from assay.dp_sgd import Sampling, most_epsilon

UNITS, BATCH, EPOCHS, DELTA = (12, 400, 60_000), (1, 8, 256), (0.5, 3), (1e-3, 1e-6)


def test_steps_and_rate_are_those_of_the_epochs() -> None:
    assert Sampling.of(40, 8, 2.0) == Sampling(0.2, 5, 10)
    assert Sampling.of(5, 8, 1.5) == Sampling(1.0, 1, 1)
    assert Sampling.of(100, 32, 1.0) == Sampling(0.32, 4, 3), "a fourth step would train 1.28 of the rows"
    assert Sampling.of(41, 8, 0.001).steps == 1


@pytest.mark.parametrize("noise", [0.5, 1.0, 4.0, 100.0])
def test_no_accountant_ever_states_more_than_what_was_reserved(noise: float) -> None:
    """Opacus, whose number stands in the statement, and dp-accounting, by which the auditor checks it."""
    from opacus.accountants import PRVAccountant

    from audit.probes.accounting import Mechanism

    compared = 0
    for units, batch, epochs, delta in itertools.product(UNITS, BATCH, EPOCHS, DELTA):
        sampling = Sampling.of(units, batch, epochs)
        reserved = most_epsilon(noise, sampling, delta)
        if reserved > 50 or sampling.steps > 20_000:
            continue
        accountant = PRVAccountant()
        accountant.history = [(noise, sampling.rate, sampling.steps)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            stated = accountant.get_epsilon(delta)
        assert stated <= reserved, (units, batch, epochs, delta)
        compared += 1
        if compared % 12 == 0:
            checked = Mechanism(noise, sampling.rate, sampling.steps, delta, stated).accounted()
            assert checked <= reserved, (units, batch, epochs, delta)
    assert compared >= 8


@pytest.mark.parametrize(
    ("noise", "units", "batch", "steps", "delta"),
    [(1.0, 1000, 128, 24, 5e-5), (0.83, 2000, 64, 94, 5e-5), (1.1, 5000, 64, 240, 1e-5), (2.0, 640, 64, 100, 1e-6)],
)
def test_the_reserve_is_near_what_is_spent(noise: float, units: int, batch: int, steps: int, delta: float) -> None:
    from opacus.accountants import PRVAccountant

    accountant = PRVAccountant()
    accountant.history = [(noise, batch / units, steps)]
    stated = accountant.get_epsilon(delta)
    assert stated < most_epsilon(noise, Sampling(batch / units, 1, steps), delta) < 1.33 * stated


def test_nothing_overflows_at_the_ends_of_the_range() -> None:
    for noise, sampling in itertools.product((0.1, 100.0), (Sampling(1e-6, 1, 1), Sampling(1.0, 1, 100_000))):
        assert 0 < most_epsilon(noise, sampling, 1e-12) < 1e9
