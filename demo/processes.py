"""The services as child processes, and the memory that they all take."""

from __future__ import annotations

import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import grpc
import psutil

from assay.worker.diagnosis import Finding

_TAIL = 15
_ENDS_WITHIN = 25.0
"""Seconds in which ``assay serve``, once it gives a service up, has stopped the others and ends itself."""
_FIRST_PORT, _PORTS, _DRAWS = 20_000, 12_000, 1_000


def free_ports(count: int) -> int:
    """The first of ``count`` neighbouring loopback ports that are free now, drawn at random.

    The services bind them seconds later: who looked from a fixed place would find those of somebody who looked just
    before, such as another test process. Ports from 32,768 on are the kernel's for outgoing connections.
    """
    for _ in range(_DRAWS):
        first = _FIRST_PORT + secrets.randbelow(_PORTS - count)
        sockets = []
        try:
            for port in range(first, first + count):
                one = socket.socket()
                sockets.append(one)
                one.bind(("127.0.0.1", port))
            return first
        except OSError:
            continue
        finally:
            for one in sockets:
                one.close()
    raise RuntimeError("no free ports on the loopback")


class MemoryWatch:
    """Samples the resident memory of this process and all its descendants once a second."""

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="memory-watch")

    @property
    def peak_mib(self) -> int:
        """Highest sum seen so far; memory shared between processes is counted in each, so it errs upwards."""
        return round(self.peak_bytes / 2**20)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        me = psutil.Process()
        while not self._stop.wait(1.0):
            total = 0
            for process in [me, *me.children(recursive=True)]:
                try:
                    total += process.memory_info().rss
                except psutil.Error:
                    continue
            self.peak_bytes = max(self.peak_bytes, total)


class ServicesEnded(RuntimeError):
    """A service ended at its start or kept ending; the message has the log's last lines and every remedy in it."""


def lacking(found: Sequence[Finding]) -> str:
    """What the sandbox lacks on this machine, each with its remedy; empty where it can be made."""
    parts = [f"{name}: {detail}\n  remedy: {remedy}" for name, ok, detail, remedy in found if not ok]
    if not parts:
        return ""
    told = "No task runs without its sandbox, and here it cannot be made (docs/isolation.md#when-it-does-not-start):"
    return "\n".join([told, *parts])


@contextmanager
def services(directory: Path, address: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Runs ``assay serve DIRECTORY`` until the block ends; waits until the gateway answers.

    Raises:
        ServicesEnded: when it does not come up, or gave up a service while a call was under way.
    """
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway.cli", "serve", str(directory)], stdout=stream, stderr=subprocess.STDOUT
        )
    try:
        _await(process, address, log)
        yield process
    except grpc.RpcError as error:
        if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
            raise
        # A call fails when the gateway goes, which may be because another service could not start.
        try:
            process.wait(timeout=_ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            raise error from None
        raise ServicesEnded(_told(log)) from error
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await(process: subprocess.Popen[bytes], address: str, log: Path, seconds: float = 60.0) -> None:
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with socket.create_connection((host, int(port)), timeout=1):
                return
        except OSError:
            time.sleep(0.2)
    raise ServicesEnded(_told(log))


def _told(log: Path) -> str:
    """The end of a log, and the remedies further up, which the other services' last words may have pushed out of it."""
    lines = log.read_text("utf-8", "replace").splitlines()
    remedies = dict.fromkeys(line.strip() for line in lines[:-_TAIL] if line.strip().startswith("remedy:"))
    ended = [f"a service ended; last lines of {log}:", *lines[-_TAIL:]]
    return "\n".join([*ended, *(["and before them:", *remedies] if remedies else [])])
