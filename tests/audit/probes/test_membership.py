"""Membership of rows: the signals are those of the literature, and a choice among them is paid for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from audit.probes import membership
from audit.probes.inputs import Row

from .conftest import Scripted, conversation


def by_key(measurements: Any) -> dict[str, Any]:
    return {f"{m.name}[{m.slice}]" if m.slice else m.name: m for m in measurements}


def signals(rows: int, seed: int, shift: float) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    noise = {name: rng.normal(0, 1, rows) for name in ("base_ratio", "loss", "mink", "windows", "base_loss")}
    return {name: v + (shift if name != "base_loss" else 0) for name, v in noise.items()}


def test_window_votes_by_hand() -> None:
    # Windows of 1: 2 of 3; of 2: sums 0 and 3, a tie and a win; of 3: a win. Larger windows do not fit.
    assert membership.window_votes(np.array([-1.0, 1.0, 2.0])) == pytest.approx((2 / 3 + 3 / 4 + 1) / 3)
    assert membership.window_votes(np.zeros(5)) == 0.5


def test_trained_rows_are_told_apart_and_the_base_is_the_control() -> None:
    found = by_key(membership.measure(signals(120, 1, 1.5), signals(120, 2, 0), (0.9, 0.95)))
    area = found["privacy.membership_auc"]
    assert area.value > 0.8
    assert area.n == 240
    assert abs(area.control - 0.5) < 0.1
    assert abs(found["privacy.membership_auc[signal=base_loss]"].value - 0.5) < 0.1
    largest = found["privacy.membership_largest_auc"]
    assert largest.value == max(found[k].value for k in found if k in {
        "privacy.membership_auc", "privacy.membership_auc[signal=mink]", "privacy.membership_auc[signal=windows]"
    })  # fmt: skip
    assert largest.intervals[0].lower < area.intervals[0].lower + 0.05


def test_the_largest_area_covers_although_it_was_chosen() -> None:
    """Three signals without any power: the largest area is above one half more often than not, its interval holds."""
    covered = above = 0
    for seed in range(400):
        found = by_key(membership.measure(signals(40, 2 * seed, 0), signals(40, 2 * seed + 1, 0), (0.95,)))
        largest = found["privacy.membership_largest_auc"]
        above += largest.value > 0.5
        covered += largest.intervals[0].lower <= 0.5
    assert above > 300
    assert covered >= 0.965 * 400, "one-sided 97.5 % with the error of 400 simulations"


def test_too_few_rows_are_no_area(audit_of: Callable[..., Any]) -> None:
    rows = [Row(0, tuple(conversation("question", "an answer of some length")))]
    found = membership.run(audit_of(_moments(), train=rows, test=rows)).measurements
    assert all(m.unavailable and not m.HasField("value") for m in found)


def test_rows_are_read_by_their_answers(chat: Any, audit_of: Callable[..., Any]) -> None:
    train = [Row(i, tuple(conversation(f"question {i}", f"answer number {i} of many words"))) for i in range(20)]
    test = [Row(i, tuple(conversation(f"other {i}", f"reply number {i} of many words"))) for i in range(20)]
    seen = {r.ids for r in chat.render([r.messages for r in train])}
    model = _moments(lambda ids, adapter: 1.0 if adapter and ids in seen else 3.0)
    found = by_key(membership.run(audit_of(model, train=train, test=test)).measurements)
    assert found["privacy.membership_auc"].value == 1.0
    assert found["privacy.membership_auc"].control == 0.5
    assert found["privacy.membership_auc[signal=windows]"].value == 1.0


class _Moments(Scripted):
    def score(self, passages: Any, *, adapter: bool, clock: Any) -> list[Any]:
        from dataclasses import replace

        found = super().score(passages, adapter=adapter, clock=clock)
        return [replace(s, surprise=-s.nll if p.moments else np.empty(0)) for p, s in zip(passages, found, strict=True)]


def _moments(nll: Any = lambda ids, adapter: 2.0) -> Scripted:
    return _Moments(nll=nll)
