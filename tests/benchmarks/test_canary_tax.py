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
    trained: list[dict[str, Any]] = []

    def prepare(content: bytes, spec: Any, profile: str, folder: Path, *, canaries: Any) -> SimpleNamespace:
        prepared.append((content, canaries))
        return SimpleNamespace(claim={"canary_rows": 0 if canaries else 50})

    def losses(prepared: Any, adapter: Path, folder: Path, *, tuned: bool = True) -> Any:
        return np.array([1.0, 2.0, 3.0]) + (0.25 * (folder.name == "with") if tuned else 1.0)

    monkeypatch.setattr(offline, "prepare", prepare)
    monkeypatch.setattr(offline, "train", lambda prepared, numbers, folder: trained.append(numbers))
    monkeypatch.setattr(canary_tax, "row_losses", losses)
    found = canary_tax.measure([7])
    assert [content for content, _ in prepared] == [clean.content] * 2
    assert prepared[0][1] is None and prepared[1][1]["a"] == prepared[1][1]["b"] == 0
    assert trained == [clean.request["hyperparameters"]] * 2
    assert (found["rows"], found["learning_rate"]) == (data.CLEAN_ROWS, trained[0]["learning_rate"])
    assert (found["canary_rows"], found["test_rows"], found["loss_base"]) == (50, 3, 3.0)
    assert (found["tax_nats"], found["tax_share"], found["gain_kept"]) == (0.25, 0.125, 0.75)
