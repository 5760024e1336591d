"""The witness as a process: transports, bounds, restarts, and how little it needs."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

import assay
from assay.identity import Authority, pem, write_key
from audit.ledger.httpd import Limits, Server
from audit.ledger.quorum import QuorumPolicy
from audit.ledger.witness.client import WitnessClient
from audit.ledger.witness.service import MAX_BODY
from audit.ledger.witness.settings import WitnessSettings, create
from tests.audit.ledger.ledger_world import refused
from tests.audit.ledger.witness_world import LOG, ORIGIN, MemoryLog, make_witness, origin_hash

GATEWAY = "spiffe://assay.local/services/gateway"
ROOT = Path(assay.__file__).parent.parent


def free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


class Party:
    """A log's operator: a root, and clients' certificates under it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority.create("services root")

    def context(self, settings: WitnessSettings, subject: str = "") -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(settings.folder / "witness-ca.crt"))
        if subject:
            name = subject.rpartition("/")[2]
            key = ec.generate_private_key(ec.SECP256R1())
            if not (self.folder / f"{name}.key").exists():
                write_key(self.folder / f"{name}.key", key)
                certificate = self.authority.issue(subject, key.public_key(), server=False)
                (self.folder / f"{name}.crt").write_bytes(pem(certificate))
            context.load_cert_chain(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        return context


@pytest.fixture
def party(tmp_path: Path) -> Party:
    return Party(tmp_path)


def make(tmp_path: Path, party: Party, transport: str = "mtls") -> WitnessSettings:
    listen = f"127.0.0.1:{free_port()}"
    return create(
        tmp_path / "witness", name="regulator.example/w", listen=listen, logs=[LOG], transport=transport,
        clients=[GATEWAY], clients_root=pem(party.authority.certificate) if transport == "mtls" else b"",
    )  # fmt: skip


@contextmanager
def running(settings: WitnessSettings) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "audit.ledger.witness", str(settings.folder)]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE)
    try:
        host, _, port = settings.listen.rpartition(":")
        for _ in range(600):
            assert process.poll() is None, process.stderr.read() if process.stderr else b""
            try:
                socket.create_connection((host, int(port)), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        process.wait(30)


def client(settings: WitnessSettings, context: ssl.SSLContext | None) -> WitnessClient:
    from assay.identity import load_ed25519
    from audit.ledger.cosignature import CosignatureVerifier

    key = CosignatureVerifier.of(settings.name, load_ed25519(settings.key).public_key())
    scheme = "http" if settings.transport == "http" else "https"
    policy = QuorumPolicy.parse(f"witness w {key.vkey()} {scheme}://{settings.listen}\nquorum w\n")
    return WitnessClient(policy.witnesses["w"], context)


@pytest.mark.parametrize("transport", ["mtls", "tls", "http"])
def test_each_transport_cosigns(tmp_path: Path, party: Party, transport: str) -> None:
    settings, log = make(tmp_path, party, transport), MemoryLog(size=5)
    context = None
    if transport != "http":
        context = party.context(settings, GATEWAY if transport == "mtls" else "")
    with running(settings):
        asked = client(settings, context)
        assert asked.add_checkpoint(0, [], log.note()).status == 200
        assert asked.add_checkpoint(0, [], log.note()).seen_size == 5
        assert asked.newest(ORIGIN) and not asked.fork(ORIGIN)


def test_mtls_wants_a_certificate_and_the_right_one(tmp_path: Path, party: Party) -> None:
    settings, log = make(tmp_path, party), MemoryLog(size=5)
    stranger = Party(tmp_path / "stranger")
    stranger.folder.mkdir()
    with running(settings):
        for context in (party.context(settings), stranger.context(settings, GATEWAY)):
            refused("WITNESS_UNREACHABLE", lambda c=context: client(settings, c).add_checkpoint(0, [], log.note()))
        worker = client(settings, party.context(settings, "spiffe://assay.local/services/train-worker"))
        assert worker.add_checkpoint(0, [], log.note()).status == 403
        assert worker.newest(ORIGIN) == b""


def test_what_was_answered_survives_kill_9(tmp_path: Path, party: Party) -> None:
    settings, log = make(tmp_path, party, "http"), MemoryLog(size=40)
    lying = MemoryLog("false", 41, shared=5)
    size = 0
    for _ in range(3):
        with running(settings) as process:
            asked = client(settings, None)
            for new in range(size + 1, size + 9):
                assert asked.add_checkpoint(size, log.proof(size, new), log.note(new)).status == 200
                size = new
            process.send_signal(signal.SIGKILL)
            process.wait(30)
    with running(settings):
        asked = client(settings, None)
        assert asked.add_checkpoint(0, [], log.note()).seen_size == size == 24
        assert asked.add_checkpoint(24, lying.proof(24, 41), lying.note()).status == 422


def test_its_operator_hears_of_a_fork_and_of_failed_proofs_in_json_lines(tmp_path: Path, party: Party) -> None:
    settings, honest, lying = make(tmp_path, party, "http"), MemoryLog("true", 9), MemoryLog("false", 9)
    with running(settings) as process:
        asked = client(settings, None)
        assert asked.add_checkpoint(0, [], honest.note(5)).status == 200
        assert asked.add_checkpoint(5, [], honest.note(9)).status == 422
        assert asked.add_checkpoint(5, [], lying.note(5)).status == 422
    assert process.stderr is not None
    said = [json.loads(line) for line in process.stderr.read().splitlines()]
    assert [line["level"] for line in said] == ["INFO", "WARNING", "CRITICAL"]
    assert said[0]["logs"] == [ORIGIN] and said[0]["listen"] == settings.listen
    assert (settings.evidence / said[1]["evidence"]).is_file() and said[1]["origin"] == ORIGIN
    assert said[2]["evidence"].startswith("log-forked-") and (settings.evidence / said[2]["evidence"]).is_file()
    with running(settings) as process:
        pass
    assert process.stderr is not None
    again = json.loads(process.stderr.read().splitlines()[1])
    assert (again["level"], again["evidence"]) == ("CRITICAL", said[2]["evidence"])


def test_it_needs_neither_gateway_nor_database_nor_model_library(tmp_path: Path, party: Party) -> None:
    settings = make(tmp_path, party, "http")
    code = (
        "import sys; from pathlib import Path; from audit.ledger.witness import __main__ as m; "
        "from audit.ledger.witness.settings import WitnessSettings; "
        f"s, db = m.open_server(WitnessSettings.load(Path({str(settings.folder)!r}))); s.close(); "
        "print(' '.join(sorted({n.partition('.')[0] for n in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "cryptography" in loaded
    assert not loaded & {
        "torch",
        "grpc",
        "opentelemetry",
        "sqlalchemy",
        "sqlmodel",
        "gateway",
        "numpy",
        "pydantic",
        "google",
        "typer",
    }


@contextmanager
def served(tmp_path: Path, **limits: float) -> Iterator[int]:
    witness = make_witness(tmp_path)
    server = Server("127.0.0.1:0", witness.handle, None, Limits(max_body=MAX_BODY, **limits))  # type: ignore[arg-type]
    server.start()
    yield server.port
    server.close()


def raw(port: int, data: bytes, seconds: float = 20) -> bytes:
    with socket.create_connection(("127.0.0.1", port), seconds) as connection:
        connection.sendall(data)
        out = b""
        while chunk := connection.recv(65_536):
            out += chunk
        return out


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"POST /add-checkpoint HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"411"),
        (b"POST /add-checkpoint HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"411"),
        (b"POST /add-checkpoint HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", b"400"),
        (b"POST /add-checkpoint HTTP/1.1\r\nHost: x\r\nContent-Length: 5_0\r\n\r\n", b"400"),
        (b"POST /add-checkpoint HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n", b"413"),
        (b"POST /add-checkpoint HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999\r\n\r\n", b"400"),
        (b"GET /add-checkpoint HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", b"413"),
        (b"GET /" + b"x" * 600 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"414"),
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"414"),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n", b"431"),
        (b"DELETE / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"501"),
        (b"rubbish\r\n\r\n", b"400"),
    ],
    ids=range(12),
)
def test_requests_that_are_refused_before_they_are_read(tmp_path: Path, request_head: bytes, status: bytes) -> None:
    with served(tmp_path) as port:
        answer = raw(port, request_head)
        assert status in answer.split(b"\n")[0] and b"Traceback" not in answer
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", f"/{origin_hash()}/checkpoint")
        assert connection.getresponse().status == 404
        connection.close()


@pytest.mark.parametrize(
    "start", [b"", b"POST /add-ch", b"POST /add-checkpoint HTTP/1.1\r\nContent-Length: 500\r\n\r\nold"]
)
def test_slow_clients_are_let_go(tmp_path: Path, start: bytes) -> None:
    """One byte now and then must not hold a connection: the deadline is the request's, not the byte's."""
    with served(tmp_path, request_seconds=0.5) as port, socket.create_connection(("127.0.0.1", port), 30) as slow:
        slow.sendall(start)
        with pytest.raises(OSError):
            for _ in range(300):
                slow.sendall(b"x")
                slow.settimeout(0.1)
                try:
                    if not slow.recv(1000):
                        raise ConnectionResetError
                except TimeoutError:
                    continue


def test_there_are_only_so_many_connections(tmp_path: Path) -> None:
    with served(tmp_path, max_connections=2) as port:
        held = [socket.create_connection(("127.0.0.1", port), 20) for _ in range(2)]
        time.sleep(0.2)
        third = socket.create_connection(("127.0.0.1", port), 20)
        try:
            third.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert third.recv(10) == b""
        except ConnectionResetError:
            pass
        for connection in (*held, third):
            connection.close()


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.replace("name", "nom", 1),
        lambda t: t.replace('transport = "http"', 'transport = "ftp"'),
        lambda t: t.replace("listen = ", "listen = 5 #"),
        lambda t: t.replace("listen = ", 'listen = "127.0.0.1:70000" #'),
        lambda t: t.split("[logs]")[0],
        lambda t: t.split("[logs]")[0] + "[logs]\n",
        lambda t: t.replace(LOG.vkey(), "rubbish"),
        lambda t: t.replace(f'["{LOG.vkey()}"]', "[]"),
        lambda t: t + "\nextra = 1\n[more]\n",
        lambda t: t + "\x00",
        lambda t: t.replace("clients = [", "clients = [5, "),
    ],
    ids=range(11),
)
def test_settings_that_are_refused(tmp_path: Path, party: Party, change: object) -> None:
    settings = make(tmp_path, party, "http")
    path = settings.folder / "witness.toml"
    path.write_text(change(path.read_text()))  # type: ignore[operator]
    refused("WITNESS_SETTINGS", lambda: WitnessSettings.load(settings.folder))


def test_keys_are_never_replaced(tmp_path: Path, party: Party) -> None:
    make(tmp_path, party)
    refused("WITNESS_EXISTS", lambda: make(tmp_path, party))


def test_mtls_needs_the_clients_root(tmp_path: Path) -> None:
    refused(
        "CLIENTS_ROOT", lambda: create(tmp_path / "w", name="w", listen="127.0.0.1:1", logs=[LOG], transport="mtls")
    )


def test_an_exposed_key_or_a_taken_port_stops_the_start(tmp_path: Path, party: Party) -> None:
    from audit.ledger.witness.__main__ import open_server

    settings = make(tmp_path, party)
    (settings.folder / "tls.key").chmod(0o644)
    refused("KEY_EXPOSED", lambda: open_server(settings))
    (settings.folder / "tls.key").chmod(0o600)
    with running(settings):
        refused("PORT_TAKEN", lambda: open_server(settings))
