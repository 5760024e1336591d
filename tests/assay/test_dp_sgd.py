"""What is reserved before a private run, held against the accountants that come after it."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import pytest

from assay.dp_sgd import Sampling, demand_claim, most_epsilon
from assay.errors import IntegrityError

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


def test_a_log_of_an_earlier_release_still_verifies() -> None:
    """It made up the last, partly drawn pass: 53 steps for 420 rows in eights, where the epochs allow 52."""
    order = {**ORDER, "hyperparameters": {"batch_size": 8, "epochs": "1.0"}}
    claim = {**CLAIM, "sampling_rate": str(8 / 420), "steps": 53}
    assert refusal(claim, order, 0) == "" and "allow 52" in refusal(claim, order, 420)
    assert "allow 53" in refusal({**claim, "steps": 54}, order, 0)


def test_nothing_overflows_at_the_ends_of_the_range() -> None:
    for noise, sampling in itertools.product((0.1, 100.0), (Sampling(1e-6, 1, 1), Sampling(1.0, 1, 100_000))):
        assert 0 < most_epsilon(noise, sampling, 1e-12) < 1e9


ORDER = {
    "differential_privacy": {"epsilon": "3.0", "delta": "1e-05", "unit": "row"},
    "hyperparameters": {"batch_size": 8, "epochs": "2.0"},
}
CLAIM = {
    "unit": "row", "epsilon": "2.99", "delta": "0.00001", "noise_multiplier": "0.9", "sampling_rate": "0.02",
    "steps": 100,
}  # fmt: skip


def refusal(privacy: Any, order: dict[str, Any], units: int, **claim: Any) -> str:
    """Why a claim is refused; empty where it is not."""
    said = {**claim, **({"differential_privacy": privacy} if privacy is not None else {})}
    try:
        demand_claim(order, said, units)
    except IntegrityError as error:
        assert error.reason == "PRIVACY_CLAIM"
        return error.message
    return ""


@pytest.mark.parametrize("units", [400, 0])
@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, ""),
        ({"steps": 40}, ""),
        ({"steps": "100"}, ""),
        ({"unit": ""}, ""),
        ({"epsilon": "-0.001"}, ""),
        ({"delta": "0.5"}, "delta is 0.5"),
        ({"delta": "NaN"}, "delta is nan"),
        ({"unit": "user"}, "another unit"),
        ({"epsilon": "3.001"}, "at most 3 was ordered"),
        ({"epsilon": "Infinity"}, "not those of Poisson"),
        ({"noise_multiplier": "-1.0"}, "not those of Poisson"),
        ({"sampling_rate": "1.5"}, "not those of Poisson"),
        ({"steps": 101}, "the epochs allow 100"),
        ({"steps": 0}, "the epochs allow 100"),
        ({"steps": "many"}, "cannot be read"),
        ({"delta": None}, "cannot be read"),
    ],
)
def test_a_claim_is_held_against_its_order(change: dict[str, Any], why: str, units: int) -> None:
    found = refusal({**CLAIM, **change}, ORDER, units)
    assert why in found and bool(why) == bool(found)


def test_how_often_a_unit_is_drawn_follows_from_how_many_there_are() -> None:
    """A lower rate makes epsilon small; with so few steps more it looks like the same epochs."""
    rarely = {**CLAIM, "sampling_rate": "0.01", "steps": 200}
    assert refusal(rarely, ORDER, 0) == ""
    assert "chance 0.01" in refusal(rarely, ORDER, 400)
    assert refusal(rarely, ORDER, 800) == ""


def test_a_rate_that_no_step_could_be_counted_by_is_refused_and_not_stumbled_over() -> None:
    assert "cannot be read" in refusal({**CLAIM, "sampling_rate": "5e-324"}, ORDER, 0)


def test_no_less_noise_than_ordered() -> None:
    order = {**ORDER, "differential_privacy": {**ORDER["differential_privacy"], "noise_multiplier": "1.1"}}
    assert "1.1 was ordered" in refusal(CLAIM, order, 400)
    for enough in ("1.1", "1.2"):
        assert refusal({**CLAIM, "noise_multiplier": enough}, order, 400) == ""


@pytest.mark.parametrize("claimed", [[], "much", 7])
def test_what_is_no_claim_of_privacy_is_refused_and_not_stumbled_over(claimed: Any) -> None:
    assert refusal(claimed, ORDER, 400)


def test_privacy_is_claimed_where_it_was_ordered_and_nowhere_else() -> None:
    plain = {"hyperparameters": ORDER["hyperparameters"]}
    assert refusal(None, plain, 400) == ""
    assert "has none" in refusal(None, ORDER, 400) and "has none" in refusal(CLAIM, plain, 400)
    assert refusal(CLAIM, ORDER, 400, steps=100) == ""
    assert "1000 were made" in refusal(CLAIM, ORDER, 400, steps=1000)
