"""``assay serve``: witness, gateway and both workers as children of one process, which restarts what dies.

What dies takes nobody else with it, unless it could never be started.
"""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
import time
from pathlib import Path

from assay.identity import Layout
from gateway.settings import Settings

BACKOFF_SECONDS = 2.0
MOST_BACKOFF_SECONDS = 60.0
STOP_SECONDS = 15.0
SOON_SECONDS = 30.0
MOST_SOON = 5
"""A service that ended so often in turn, each time so soon after its start, and never stood, is not started again."""
_PR_SET_PDEATHSIG = 1


class _Child:
    """One service and how often it had to be started lately."""

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        self._command = command
        self._soon = 0
        self._stood = False
        self._again_at = 0.0
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        self._started = time.monotonic()
        return subprocess.Popen(self._command, preexec_fn=_die_with_parent)

    def tend(self) -> bool:
        """Restarts a dead child, later each time; tells whether that is still worth it.

        One that has stood before is waited for, however long that takes: what it lacks may come back, and the others
        need not end for it. One that never stood has settings or keys that a restart does not mend.
        """
        if self.process.poll() is None:
            return True
        now = time.monotonic()
        if not self._again_at:
            soon = now - self._started < SOON_SECONDS
            self._stood = self._stood or not soon
            self._soon = self._soon + 1 if soon else 1
            if self._soon >= MOST_SOON and not self._stood:
                return False
            pause = min(BACKOFF_SECONDS * 2.0 ** min(self._soon - 1, 10), MOST_BACKOFF_SECONDS)
            self._again_at = now + pause
            print(f"{self.name} ended ({self.process.returncode}); it is started again in {pause:.0f} s",
                  file=sys.stderr)  # fmt: skip
        elif now >= self._again_at:
            self._again_at, self.process = 0.0, self._start()
        return True

    def stop(self) -> None:
        """Asks the child to end."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def reap(self, deadline: float) -> None:
        """Waits for the child, and kills it when it does not end in time."""
        try:
            self.process.wait(timeout=max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def run(directory: Path, *, workers: bool = True) -> int:
    """Runs until SIGTERM or Ctrl-C; returns the exit code.

    Raises:
        AssayError: when the settings cannot be read.
    """
    Settings.load(directory)
    layout = Layout(directory)
    commands = {"gateway": [sys.executable, "-m", "gateway.rpc", str(directory)]}
    if workers and (layout.witness / "witness.toml").exists():
        commands["witness"] = [sys.executable, "-m", "audit.ledger.witness", str(layout.witness)]
    if workers:
        for name in ("train-worker", "audit-worker"):
            commands[name] = [sys.executable, "-m", "assay.worker", "--dir", str(layout.service(name))]
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    children = [_Child(name, command) for name, command in commands.items()]
    code = 0
    while not stopping:
        time.sleep(0.2)
        for child in children:
            if not stopping and not child.tend():
                print(f"{child.name} ends at once each time; see its log above", file=sys.stderr)
                stopping, code = True, 1
    for child in children:
        child.stop()
    deadline = time.monotonic() + STOP_SECONDS
    for child in children:
        child.reap(deadline)
    return code


def _die_with_parent() -> None:
    """So that killing ``assay serve`` leaves no service behind."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
