"""Ports for the services of the demo and of tests, and what is said where they cannot run."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from demo import processes, run
from demo.processes import ServicesEnded, free_ports, lacking, services

POPEN = subprocess.Popen
_MISSING = ("namespaces", False, "bwrap: no permissions", "allow user namespaces")


def test_two_who_look_at_once_do_not_find_the_same_ports() -> None:
    found = {free_ports(6) for _ in range(12)}
    assert len(found) >= 11, "looked for one after the other, without binding any"
    assert all(20_000 <= first <= 32_000 - 6 for first in found)


def test_ports_in_use_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    first = free_ports(2)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first))
        draws = iter([first - 20_000, first - 20_001, first - 20_000 + 7])
        monkeypatch.setattr("demo.processes.secrets.randbelow", lambda _: next(draws))
        assert free_ports(2) == first + 7


def test_a_machine_that_cannot_make_the_sandbox_is_told_so_before_anything_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert lacking([("limits", True, "bound", "")]) == ""
    monkeypatch.setattr(run, "diagnose", lambda: [("bubblewrap", True, "bubblewrap 0.8.0", ""), _MISSING])
    monkeypatch.setattr(run, "OUT", tmp_path / "out")
    monkeypatch.setattr(run, "STATE", tmp_path / "state")
    with pytest.raises(SystemExit) as ended:
        run.main()
    said = str(ended.value.code)
    assert "namespaces: bwrap: no permissions\n  remedy: allow user namespaces" in said
    assert "bubblewrap 0.8.0" not in said and "isolation.md#when-it-does-not-start" in said
    assert not list(tmp_path.iterdir())


def serve_as(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Has ``assay serve`` be a program of ours."""

    def popen(command: list[str], **options: object) -> object:
        return POPEN([sys.executable, "-c", program, *command[-1:]], **options)  # type: ignore[call-overload]

    monkeypatch.setattr(processes.subprocess, "Popen", popen)


def test_services_that_do_not_start_end_with_the_log_and_its_remedies(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = "print('ISOLATION_MISSING: x\\n  remedy: install it'); [print('line', i) for i in range(40)]"
    serve_as(monkeypatch, program)
    with pytest.raises(ServicesEnded) as ended, services(tmp_path, f"127.0.0.1:{free_ports(1)}", tmp_path / "log"):
        pytest.fail("they never came up")
    said = str(ended.value).splitlines()
    assert said[0].endswith(f"last lines of {tmp_path / 'log'}:") and said[1:16] == [f"line {i}" for i in range(25, 40)]
    assert said[16:] == ["and before them:", "remedy: install it"]


class Failed(grpc.RpcError):
    """A call that ended with a status."""

    def __init__(self, code: grpc.StatusCode) -> None:
        super().__init__()
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code


def test_a_call_that_fails_since_a_service_was_given_up_tells_of_the_service(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    port = free_ports(1)
    listen = f"import socket; s = socket.create_server(('127.0.0.1', {port})); s.accept(); print('remedy: mend it')"
    serve_as(monkeypatch, listen)
    with (
        pytest.raises(ServicesEnded, match="remedy: mend it"),
        services(tmp_path, f"127.0.0.1:{port}", tmp_path / "log"),
    ):
        raise Failed(grpc.StatusCode.UNAVAILABLE)
    serve_as(monkeypatch, listen.replace("print('remedy: mend it')", "import time; time.sleep(60)"))
    for code, within in ((grpc.StatusCode.UNAVAILABLE, 0.1), (grpc.StatusCode.PERMISSION_DENIED, 600.0)):
        monkeypatch.setattr(processes, "_ENDS_WITHIN", within)
        with pytest.raises(Failed), services(tmp_path, f"127.0.0.1:{port}", tmp_path / "log"):
            raise Failed(code)
