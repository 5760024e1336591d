"""Where base models and public data lie: one answer for gateway, workers and benchmarks."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay.pinned import assay_home


@pytest.mark.parametrize(
    ("given", "expected"), [("", "~/.cache/assay"), ("~/models", "~/models"), ("/srv/a", "/srv/a")]
)
def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch, given: str, expected: str) -> None:
    monkeypatch.setenv("ASSAY_HOME", given)
    assert assay_home() == Path(expected).expanduser()
