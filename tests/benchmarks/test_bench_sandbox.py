"""The benchmark of the sandbox's start runs; what it measures is no test's business."""

from __future__ import annotations

import pytest

from benchmarks.sandbox import sandbox_start_ms


@pytest.mark.isolation
def test_a_start_is_timed() -> None:
    found = sandbox_start_ms(2)
    assert found["starts"] == 2
    assert 0 < found["sandbox_start_ms"] <= found["sandbox_start_ms_max"]
