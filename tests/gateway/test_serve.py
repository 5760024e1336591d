"""What ``assay serve`` does with a service that dies: the others go on, and it is started again, later each time."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from gateway import serve
from gateway.serve import _Child


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "BACKOFF_SECONDS", 0.01)
    monkeypatch.setattr(serve, "MOST_BACKOFF_SECONDS", 0.1)
    monkeypatch.setattr(serve, "SOON_SECONDS", 0.5)


def child(tmp_path: Path, body: str) -> tuple[_Child, Path]:
    """A service that writes a line at each start, and then does as it is told."""
    starts = tmp_path / "starts"
    script = f"open({str(starts)!r}, 'a').write('x')\n{body}"
    return _Child("gateway", [sys.executable, "-S", "-c", script]), starts


def tended(made: _Child, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not made.tend():
            return False
        time.sleep(0.01)
    made.stop()
    made.process.wait()
    return True


def test_a_service_that_can_never_start_is_given_up(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    made, starts = child(tmp_path, "raise SystemExit(3)")
    assert tended(made, 20) is False
    assert len(starts.read_text()) == serve.MOST_SOON
    assert "gateway ended (3); it is started again in" in capfd.readouterr().err


def test_a_service_that_stood_is_waited_for(tmp_path: Path) -> None:
    """It stood for a while at its first start, and then fails at once each time: a database that is away."""
    made, starts = child(
        tmp_path,
        f"import time\nif len(open({str(tmp_path / 'starts')!r}).read()) == 1: time.sleep(1)\nraise SystemExit(1)",
    )
    assert tended(made, 8) is True
    assert len(starts.read_text()) > serve.MOST_SOON
