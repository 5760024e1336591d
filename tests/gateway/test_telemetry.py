"""Telemetry as a process shows it: spans reach an OTLP collector, metrics a scraper, logs hold known fields only."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from assay.errors import UnavailableError
from assay.identity import Authority, load_certificate, pem, subject_of
from assay.spans import FileSpanExporter
from demo.processes import free_ports
from gateway.rpc.__main__ import watch_certificates
from gateway.settings import Settings
from gateway.telemetry import Gauges, Telemetry

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PROCESS = """
import logging, sys, urllib.request
from pathlib import Path
from gateway.telemetry import Gauges, Telemetry

folder, address = Path(sys.argv[1]), sys.argv[2]
telemetry = Telemetry.open(folder, address)
telemetry.observe(Gauges({"TRAINING": 2}, 3, 1, 45, 44, {"gateway": 1800000000.0}))
metadata = [("traceparent", "00-TRACE-00f067aa0ba902b7-01"), ("bin", b"x")]
with telemetry.server_span("/assay.v1.X/Y", metadata) as trace_id:
    logging.getLogger("gateway").info("refused", extra={"rpc": "X", "code": "NOT_FOUND", "row": "jane@example.com"})
telemetry.rpc_done("/assay.v1.X/Y", "OK", 0.01)
page = urllib.request.urlopen(f"http://{address}/metrics").read().decode()
telemetry.close()
print(trace_id)
print(page)
""".replace("TRACE", TRACE)


@dataclass
class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """What an OTLP collector does with spans: takes them, over TLS."""

    spans: list[Any] = field(default_factory=list)

    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:
        for resource in request.resource_spans:
            service = {a.key: a.value.string_value for a in resource.resource.attributes}["service.name"]
            self.spans += [(service, span) for scope in resource.scope_spans for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()


def certificate() -> tuple[bytes, bytes]:
    """Key and self-signed certificate of a collector on the loopback."""
    key, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "collector")])
    built = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - dt.timedelta(hours=1)).not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private, built.public_bytes(pem)


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[tuple[Collector, str, Path]]:
    key, pem = certificate()
    root = tmp_path / "collector.pem"
    root.write_bytes(pem)
    server, found = grpc.server(futures.ThreadPoolExecutor(2)), Collector()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(found, server)
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, pem)]))
    server.start()
    yield found, f"127.0.0.1:{port}", root
    server.stop(None).wait()


def run(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    address = f"127.0.0.1:{free_ports(1)}"
    command = [sys.executable, "-c", PROCESS, str(folder), address]
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(p for p in sys.path if p), **environment}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    return done


def test_spans_reach_a_collector_over_tls_under_the_callers_trace(
    collector: tuple[Collector, str, Path], tmp_path: Path
) -> None:
    found, address, root = collector
    run(tmp_path / "t", OTEL_EXPORTER_OTLP_ENDPOINT=f"https://{address}", OTEL_EXPORTER_OTLP_CERTIFICATE=str(root))
    [(service, span)] = found.spans
    assert service == "assay-gateway" and span.name == "/assay.v1.X/Y"
    assert span.trace_id.hex() == TRACE and span.parent_span_id.hex() == "00f067aa0ba902b7"
    assert not span.events  # no exception text, which could quote a row


def test_nothing_is_exported_in_the_clear(collector: tuple[Collector, str, Path], tmp_path: Path) -> None:
    found, address, _ = collector
    done = run(tmp_path / "t", OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{address}")
    assert found.spans == [] and done.stderr.count("OTEL_EXPORTER_OTLP_ENDPOINT is no https address") == 1


def test_the_file_of_spans_is_kept_small(tmp_path: Path) -> None:
    traces = TracerProvider()
    traces.add_span_processor(SimpleSpanProcessor(FileSpanExporter(tmp_path / "spans.jsonl", 2000)))
    for number in range(50):
        traces.get_tracer("t").start_span(f"span {number}").end()
    traces.shutdown()
    files = [tmp_path / "spans.jsonl.1", tmp_path / "spans.jsonl"]
    assert sorted(tmp_path.iterdir()) == sorted(files) and all(path.stat().st_size < 2500 for path in files)
    kept = [json.loads(line)["name"] for path in files for line in path.read_text().splitlines()]
    assert kept == [f"span {number}" for number in range(50)][-len(kept) :]


def test_spans_are_files_where_no_collector_runs(tmp_path: Path) -> None:
    done = run(tmp_path / "t")
    assert done.stdout.splitlines()[0] == TRACE
    [span] = [json.loads(line) for line in (tmp_path / "t" / "spans.jsonl").read_text().splitlines()]
    assert (span["trace_id"], span["parent_id"], span["attributes"]) == (TRACE, "00f067aa0ba902b7", {})


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for port in (taken.getsockname()[1], 99999):
            with pytest.raises(UnavailableError) as caught:
                Telemetry.open(tmp_path / "t", f"127.0.0.1:{port}")
            assert caught.value.reason == "PORT_TAKEN" and f":{port}" in caught.value.message


def test_metrics_are_scraped(tmp_path: Path) -> None:
    page = run(tmp_path / "t").stdout
    samples = {
        (re.sub(r'otel_scope_[a-z_]+="[^"]*",?', "", name).replace(",}", "}").replace("{}", ""), value)
        for name, _, value in (line.rpartition(" ") for line in page.splitlines() if line.startswith("assay_"))
    }
    assert samples >= {
        ('assay_jobs{state="TRAINING"}', "2.0"),
        ("assay_ledger_records", "45.0"),
        ("assay_ledger_published", "44.0"),
        ('assay_certificate_end_seconds{name="gateway"}', "1.8e+09"),
        ("assay_tasks_in_flight", "3.0"),
        ("assay_worker_errors", "1.0"),
        ('assay_rpc_calls_total{code="OK",method="/assay.v1.X/Y"}', "1.0"),
        ('assay_rpc_seconds_count{method="/assay.v1.X/Y"}', "1.0"),
    }


def test_a_log_line_is_json_with_its_trace_and_known_fields_only(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in run(tmp_path / "t").stderr.splitlines() if line.startswith("{")]
    [line] = [found for found in lines if found["logger"] == "gateway"]
    assert (line["rpc"], line["code"], line["trace_id"]) == ("X", "NOT_FOUND", TRACE)
    assert "jane" not in json.dumps(line)


async def test_certificates_are_shown_and_those_that_end_soon_are_told(
    pristine: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(pristine, tmp_path / "dir")
    settings = Settings.load(tmp_path / "dir")
    path, layout, gauges = settings.folder / "tls.crt", settings.layout, Gauges()
    old = load_certificate(path)
    authority = Authority.load(layout.authority / "services-ca.key", layout.authority / "services-ca.crt")
    path.write_bytes(pem(authority.issue(subject_of(old), old.public_key(), server=True, days=29)))  # type: ignore[arg-type]
    watching = asyncio.create_task(watch_certificates(settings, gauges))
    async with asyncio.timeout(20):
        while not caplog.records:
            await asyncio.sleep(0.01)
    watching.cancel()
    (told,) = [r.getMessage() for r in caplog.records]
    assert told.startswith("certificate of gateway: ends soon, until ") and "assay identity renew" in told
    assert {"gateway", "train-worker", "pdf", "services-root"} <= set(gauges.certificate_ends)
    assert not any("people/" in name for name in gauges.certificate_ends), "a person's name is no label"
    assert gauges.certificate_ends["gateway"] == load_certificate(path).not_valid_after_utc.timestamp()
