"""What a Ray cluster must be before anything is sent to it. The cluster itself is real in test_engines.py."""

from __future__ import annotations

import threading
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import pytest

from assay.errors import AssayError, PreconditionError, UnavailableError
from assay.worker.ray_jobs import RayClient

TOKEN = "0123456789abcdef" * 4


class AnswersAnybody(BaseHTTPRequestHandler):
    """A job service without authentication, which is Ray's default."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"[]")

    def log_message(self, *arguments: object) -> None:
        """Says nothing."""


class SendsElsewhere(BaseHTTPRequestHandler):
    """Redirects whoever comes, and keeps what it was shown."""

    shown: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.shown.append(self.headers.get("Authorization", ""))
        self.send_response(307)
        self.send_header("Location", f"http://127.0.0.1:{self.server.server_address[1]}/elsewhere")  # type: ignore[misc]
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Says nothing."""


@contextmanager
def served(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def open_service() -> Iterator[str]:
    with served(AnswersAnybody) as address:
        yield address


def test_the_token_follows_no_redirect_and_goes_to_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    SendsElsewhere.shown.clear()
    with served(SendsElsewhere) as address, pytest.raises(urllib.error.HTTPError):
        RayClient(address, TOKEN)._call("GET", "/api/jobs/x")
    assert SendsElsewhere.shown == [f"Bearer {TOKEN}"]
    with served(SendsElsewhere) as proxy:
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.delenv("no_proxy", raising=False)
        with pytest.raises(UnavailableError):
            RayClient("http://127.0.0.1:1", TOKEN)._call("GET", "/api/jobs/x")
    assert len(SendsElsewhere.shown) == 1


def test_a_cluster_that_answers_anybody_is_refused(open_service: str) -> None:
    with pytest.raises(PreconditionError, match="answers without its token") as caught:
        RayClient(open_service, TOKEN).status("x")
    assert caught.value.reason == "RAY_UNPROTECTED"


@pytest.mark.parametrize(("status", "reason"), [
    (401, ""), (403, ""),
    (429, "RAY_UNREACHABLE"), (500, "RAY_UNREACHABLE"), (502, "RAY_UNREACHABLE"), (503, "RAY_UNREACHABLE"),
    (404, "RAY_UNPROTECTED"), (400, "RAY_UNPROTECTED"),
])  # fmt: skip
def test_who_answers_a_call_without_the_token_and_how(status: int, reason: str) -> None:
    class Answers(AnswersAnybody):
        def do_GET(self) -> None:
            self.send_response(404 if self.headers.get("Authorization") and not reason else status)
            self.end_headers()

    with served(Answers) as address:
        client = RayClient(address, TOKEN)
        if not reason:
            assert client.status("x") is None
            return
        with pytest.raises(AssayError) as caught:
            client.status("x")
        assert caught.value.reason == reason


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b"{}", b'{"status": 7}'])
def test_an_answer_that_is_not_the_service_s_says_nothing_of_a_job(answer: bytes) -> None:
    class Answers(AnswersAnybody):
        def do_GET(self) -> None:
            self.send_response(200 if self.headers.get("Authorization") else 401)
            self.end_headers()
            self.wfile.write(answer)

    with served(Answers) as address, pytest.raises(UnavailableError) as caught:
        RayClient(address, TOKEN).status("x")
    assert caught.value.reason == "RAY_UNREACHABLE"


@pytest.mark.parametrize(
    ("address", "token", "why"),
    [
        ("http://ray.bank.example:8265", TOKEN, "neither https nor this machine's loopback"),
        ("http://127.0.0.1.bank.example:8265", TOKEN, "neither https nor this machine's loopback"),
        ("https://ray.bank.example", "short", "fewer than 32 characters"),
        ("https://ray.bank.example", "", "fewer than 32 characters"),
    ],
)
def test_an_address_in_the_clear_or_no_token_is_refused(address: str, token: str, why: str) -> None:
    with pytest.raises(PreconditionError, match=why):
        RayClient(address, token)


def test_a_cluster_that_is_away_is_unavailable() -> None:
    with pytest.raises(UnavailableError) as caught:
        RayClient("http://127.0.0.1:1", TOKEN).status("x")
    assert caught.value.reason == "RAY_UNREACHABLE"
