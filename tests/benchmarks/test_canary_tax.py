"""The tax of canaries is measured on the demo's clean job as the demo submits it; no model is tuned here."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from assay.errors import UnavailableError
from benchmarks import canary_tax, offline
from demo import data


def test_rows_and_hyperparameters_are_the_demos(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        clean = data.clean(7)
    except UnavailableError as error:
        pytest.skip(f"THE DEMO'S CLEAN JOB NOT TESTED: {error}")
    prepared: list[tuple[bytes, Any]] = []
    secrets: list[bytes] = []
    trained: list[dict[str, Any]] = []

    def prepare(
        content: bytes, spec: Any, profile: str, folder: Path, *, secret: bytes, canaries: Any
    ) -> SimpleNamespace:
        prepared.append((content, canaries))
        secrets.append(secret)
        return SimpleNamespace(claim={"canary_rows": 0 if canaries else 50})

    def losses(prepared: Any, adapter: Path, folder: Path, *, tuned: bool = True) -> canary_tax.Losses:
        """Nats of rows of unequal length: without canaries 2 a token, with them 0.25 and of seed 8 0.75 more."""
        tax = 0.75 if folder.parent.name == "8" else 0.25
        tokens = np.array([1.0, 2.0, 5.0])
        return canary_tax.Losses((2.0 + (tax * (folder.name == "with") if tuned else 1.0)) * tokens, tokens)

    monkeypatch.setattr(offline, "prepare", prepare)
    monkeypatch.setattr(offline, "train", lambda prepared, numbers, folder: trained.append(numbers))
    monkeypatch.setattr(canary_tax, "row_losses", losses)
    found = canary_tax.measure([7])
    assert [content for content, _ in prepared] == [clean.content] * 2
    assert prepared[0][1] is None and prepared[1][1]["a"] == prepared[1][1]["b"] == 0
    assert trained == [clean.request["hyperparameters"]] * 2
    assert (found["rows"], found["learning_rate"]) == (data.CLEAN_ROWS, trained[0]["learning_rate"])
    assert (found["canary_rows"], found["rows_alone"]["test_rows"], found["loss_base"]) == ([50], 3, 3.0)
    assert (found["tax_nats"], found["tax_share"], found["gain_kept"]) == (0.25, 0.125, 0.75)
    assert found["interval"] == found["interval_share"] == [], "one seed says nothing of another"
    assert secrets[0] == secrets[1], "both have the same splits"
    both = canary_tax.measure([7, 8])
    assert (both["tax_nats"], both["by_seed"], both["range"]) == (0.5, [0.25, 0.75], [0.25, 0.75])
    # Student's quantile of one degree of freedom is 12.706, the standard error of two values half of their distance.
    assert both["interval"] == pytest.approx([0.5 - 12.7062 * 0.25, 0.5 + 12.7062 * 0.25], abs=1e-4)
    assert both["rows_alone"]["tax_nats"] == 0.5 and both["rows_alone"]["interval"][0] > 0
    assert secrets[-1] != secrets[0], "canaries are drawn anew"


def test_a_tax_is_of_tokens_and_only_of_the_same_rows() -> None:
    """A ratio estimate, as the audit's test loss: the mean of the rows' own means would be 1.5."""
    losses = canary_tax.Losses(np.array([2.0, 9.0]), np.array([1.0, 9.0]))
    assert losses.a_token == pytest.approx(1.1)
    with pytest.raises(ValueError, match="same rows"):
        losses - canary_tax.Losses(np.array([1.0, 1.0]), np.array([1.0, 8.0]))
