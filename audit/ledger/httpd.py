"""A small HTTP/1.1 server for the witness and the tiles: the standard library's, bounded in size, time and threads.

Each connection has a thread of its own, and there are only so many: one more is closed at once. A request has a
deadline from its first byte to its last, however slowly it drips; the TLS handshake has one too and happens in the
connection's thread, so that nobody who is slow keeps others out.
"""

from __future__ import annotations

import contextlib
import io
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any

from cryptography import x509

from assay.errors import AssayError, UnavailableError
from assay.identity import service_tls, subject_of

MAX_CONNECTIONS = 64
REQUEST_SECONDS = 15.0
MAX_PATH = 512
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """A request as read; ``subject`` is what the client's certificate names, empty without one.

    The certificate lies under one of the roots that the server trusts; under which, only who asks can tell.
    """

    method: str
    path: str
    body: bytes
    subject: str
    certificate: x509.Certificate | None = None


@dataclass(frozen=True)
class Answer:
    """What is answered."""

    status: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)


Handle = Callable[[Request], Answer]


@dataclass(frozen=True)
class Limits:
    """What one client may take."""

    max_body: int = 0
    max_connections: int = MAX_CONNECTIONS
    request_seconds: float = REQUEST_SECONDS


def tls_context(folder: Path, roots: bytes, *, demand: bool) -> ssl.SSLContext:
    """A server's TLS: ``tls.key`` and ``tls.crt`` of a folder; client certificates under ``roots``.

    Args:
        folder: of the service.
        roots: PEM of the roots whose holders are known; empty to ask nobody for a certificate.
        demand: whether a client without a certificate is refused in the handshake.

    Raises:
        InvalidInputError: what :func:`assay.identity.service_tls` says.
    """
    service_tls(folder, ())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    if roots:
        context.load_verify_locations(cadata=roots.decode("ascii"))
        context.verify_mode = ssl.CERT_REQUIRED if demand else ssl.CERT_OPTIONAL
    return context


class Server:
    """Serves ``handle`` on an address until it is closed."""

    def __init__(self, listen: str, handle: Handle, tls: ssl.SSLContext | None, limits: Limits | None = None) -> None:
        """Binds the port.

        Raises:
            UnavailableError: ``PORT_TAKEN``.
        """
        host, _, port = listen.rpartition(":")
        try:
            self._server = _Bounded((host.strip("[]"), int(port)), handle, tls, limits or Limits())
        except OSError as error:
            raise UnavailableError(
                "PORT_TAKEN", f"cannot listen on {listen}", remedy="another service may run there; change the address"
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, name=f"http {listen}", daemon=True)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Starts answering."""
        self._thread.start()

    def close(self) -> None:
        """Stops listening and ends every connection."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()
        self._server.end_connections()


class _Bounded(ThreadingMixIn, HTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], handle: Handle, tls: ssl.SSLContext | None, limits: Limits) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)
        self.handle = handle
        self.limits = limits
        self._tls = tls
        self._places = threading.BoundedSemaphore(limits.max_connections)
        self._open: set[socket.socket] = set()

    def end_connections(self) -> None:
        """Cuts whoever is still connected; a kept-alive connection would go on being served."""
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def server_bind(self) -> None:
        # HTTPServer asks the resolver for its own name here, which may take seconds and is used nowhere.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def finish_request(self, request: Any, client_address: Any) -> None:
        request.settimeout(self.limits.request_seconds)
        if self._tls is None:
            self._converse(request, client_address)
            return
        with self._tls.wrap_socket(request, server_side=True, do_handshake_on_connect=False) as wrapped:
            wrapped.do_handshake()
            self._converse(wrapped, client_address)

    def _converse(self, connection: Any, client_address: Any) -> None:
        self._open.add(connection)
        try:
            _Handler(connection, client_address, self)
        finally:
            self._open.discard(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        _logger.debug("a connection ended badly", exc_info=True)


class _Timed(io.RawIOBase):
    """Reads a socket until a deadline that moves with each request, not with each byte."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self._connection = connection
        self._seconds = seconds
        self.restart()

    def restart(self) -> None:
        """Begins a new request's time."""
        self._deadline = time.monotonic() + self._seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the request took too long")
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "assay"
    sys_version = ""
    error_message_format = "%(code)d %(message)s\n"
    error_content_type = "text/plain; charset=utf-8"
    server: _Bounded

    def setup(self) -> None:
        super().setup()
        self._timed = _Timed(self.connection, self.server.limits.request_seconds)
        self.rfile = io.BufferedReader(self._timed)

    def handle_one_request(self) -> None:
        self._timed.restart()
        super().handle_one_request()

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_GET

    def _serve(self) -> None:
        answer = self._answer()
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def _answer(self) -> Answer:
        refusal = self._body_refused()
        if refusal:
            self.close_connection = True
            return _status(refusal)
        length = int(self.headers.get("Content-Length", "0"))
        body = self.rfile.read(length)
        if len(body) != length:
            self.close_connection = True
            return _status(HTTPStatus.BAD_REQUEST)
        try:
            return self.server.handle(Request(self.command, self.path, body, *self._client()))
        except AssayError as error:
            return Answer(_STATUS.get(error.code, 500), f"{error.reason}: {error.message}\n".encode())
        except Exception:
            _logger.exception("an HTTP request failed")
            return _status(HTTPStatus.INTERNAL_SERVER_ERROR)

    def _body_refused(self) -> int:
        """The status to refuse a request with for its size or framing; 0 when it may be read."""
        length = self.headers.get("Content-Length")
        if len(self.path) > MAX_PATH:
            return HTTPStatus.REQUEST_URI_TOO_LONG
        if self.headers.get("Transfer-Encoding") is not None or (self.command == "POST" and length is None):
            return HTTPStatus.LENGTH_REQUIRED
        if length is not None and not (length.isascii() and length.isdigit() and len(length) < 12):
            return HTTPStatus.BAD_REQUEST
        if int(length or 0) > (self.server.limits.max_body if self.command == "POST" else 0):
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        return 0

    def _client(self) -> tuple[str, x509.Certificate | None]:
        """The subject that the client's certificate names, and the certificate."""
        der = self.connection.getpeercert(binary_form=True) if isinstance(self.connection, ssl.SSLSocket) else None
        if der is None:
            return "", None
        certificate = x509.load_der_x509_certificate(der)
        return subject_of(certificate), certificate

    def log_message(self, format: str, *args: Any) -> None:
        _logger.debug(format, *args)


# What a refusal of ours means over HTTP.
_STATUS = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "UNAVAILABLE": 503,
    "RESOURCE_EXHAUSTED": 429,
}


def _status(status: int) -> Answer:
    return Answer(status, f"{status} {HTTPStatus(status).phrase}\n".encode())
