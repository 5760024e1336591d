"""A job service that answers as Ray's does and starts each job as a process of this machine.

What only a cluster shows (resources, a head and nodes that die) is in test_engines.py; this one holds, loses and
refuses when a test says so, without Ray.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shlex
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import psutil


class JobService:
    """One cluster with room for every job, until :attr:`full`. Every process ends with :meth:`close`.

    Attributes:
        answers: status of every answer, as a proxy before the service gives it; 0 for the service's own.
        full: a job that is submitted waits for :meth:`place`.
        submitted: ids, in order.
    """

    def __init__(self) -> None:
        self.token = secrets.token_hex(32)
        self.answers, self.full = 0, False
        self.submitted: list[str] = []
        self._waiting: dict[str, str] = {}
        self._jobs: dict[str, subprocess.Popen[bytes]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def place(self) -> None:
        """A node is free: what waited starts."""
        while self._waiting:
            self._start(*self._waiting.popitem())

    def lose(self) -> None:
        """The nodes die, each with everything under it, at once."""
        for job in self._jobs.values():
            _kill(job)

    def terminate(self) -> None:
        """Every job is asked to end, as Ray asks."""
        for job in self._jobs.values():
            job.terminate()

    def close(self) -> None:
        """Ends every process and the service."""
        self.lose()
        self._server.shutdown()
        self._server.server_close()

    def get(self, name: str) -> tuple[int, Any]:
        """Answer to a question after one job, or after all."""
        if name in self._waiting:
            return 200, {"status": "PENDING"}
        if name not in self._jobs:
            return (404, "no such job") if name else (200, [])
        return 200, {"status": {None: "RUNNING", 0: "SUCCEEDED"}.get(self._jobs[name].poll(), "FAILED")}

    def post(self, name: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Takes a job, or stops one."""
        if name:
            self._waiting.pop(name, None)
            if name in self._jobs:
                self._jobs[name].terminate()
            return 200, {}
        self.submitted.append(body["submission_id"])
        self._waiting[body["submission_id"]] = body["entrypoint"]
        if not self.full:
            self.place()
        return 200, {}

    def _start(self, name: str, command: str) -> None:
        self._jobs[name] = subprocess.Popen(shlex.split(command), stderr=subprocess.DEVNULL)


def _handler(service: JobService) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(lambda name, body: service.get(name))

        def do_POST(self) -> None:
            self._answer(service.post)

        def _answer(self, found: Any) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
            status: int
            answer: Any
            if service.answers:
                status, answer = service.answers, {}
            elif self.headers.get("Authorization") != f"Bearer {service.token}":
                status, answer = 401, {}
            else:
                name = self.path.removeprefix("/api/jobs/").removesuffix("/stop")
                status, answer = found(name, body)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *arguments: object) -> None:
            """Says nothing."""

    return Handler


def _kill(job: subprocess.Popen[bytes]) -> None:
    if job.poll() is None:
        tree = [*psutil.Process(job.pid).children(recursive=True), psutil.Process(job.pid)]
        for process in tree:
            # A node that is ending its sandbox by itself may have been faster.
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(tree, timeout=20)
        job.wait()
