"""Traces, metrics and logs of the gateway. No personal data: names of RPCs, codes, reasons, digests and times only.

One trace follows a request from the client's call to the permit: a job keeps the trace that created it, and every
later act on it (pipeline stages, approvals, permits) is a span of that trace with a link to the caller's own. A worker
writes the spans of its tasks under the same trace, beside its own spool.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from opentelemetry import trace
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import start_http_server

from assay import logs, spans
from assay.errors import UnavailableError

_PROPAGATOR = TraceContextTextMapPropagator()


@dataclass
class Gauges:
    """The last sample of what the gauges show."""

    jobs_by_state: dict[str, int] = field(default_factory=dict)
    in_flight: int = 0
    worker_errors: int = 0
    ledger_records: int = 0
    ledger_published: int = 0
    certificate_ends: dict[str, float] = field(default_factory=dict)


class Telemetry:
    """What the gateway tells its operators."""

    def __init__(self, traces: TracerProvider, metrics: MeterProvider) -> None:
        self._traces = traces
        self._metrics = metrics
        self._tracer = traces.get_tracer("gateway.rpc")
        meter = metrics.get_meter("gateway")
        self._meter = meter
        self._calls = meter.create_counter("assay_rpc_calls", description="RPCs by method and status.")
        self._seconds = meter.create_histogram("assay_rpc_seconds", unit="s", description="Time to answer.")

    @classmethod
    def open(cls, folder: Path, metrics_address: str) -> Telemetry:
        """Starts logs on stderr, spans to ``folder``, metrics on a loopback address (and OTLP where configured).

        Raises:
            UnavailableError: ``PORT_TAKEN``.
        """
        folder.mkdir(parents=True, exist_ok=True)
        logs.to_stderr()
        traces = spans.export(folder, "assay-gateway")
        metrics = MeterProvider(metric_readers=[PrometheusMetricReader()], resource=traces.resource)
        host, _, port = metrics_address.rpartition(":")
        try:
            start_http_server(int(port), host.strip("[]"))
        except (OSError, OverflowError) as error:
            raise UnavailableError(
                "PORT_TAKEN",
                f"cannot listen for metrics on {metrics_address}",
                remedy="a gateway may run there already; else change `metrics` in assay.toml",
            ) from error
        return cls(traces, metrics)

    @contextmanager
    def server_span(self, method: str, metadata: Iterable[tuple[str, str | bytes]] | None) -> Iterator[str]:
        """Opens the span of a call under the caller's trace; yields the trace id in hex."""
        carrier = {k: v for k, v in metadata or () if isinstance(v, str)}
        parent = _PROPAGATOR.extract(carrier)
        with self._tracer.start_as_current_span(
            method, context=parent, kind=SpanKind.SERVER, record_exception=False, set_status_on_exception=False
        ) as span:
            yield f"{span.get_span_context().trace_id:032x}"

    @contextmanager
    def job_span(self, name: str, trace_id: str) -> Iterator[None]:
        """Opens a span in a job's own trace, linked to the span of the call."""
        number = int(trace_id, 16)
        parent = SpanContext(number, (number & (2**64 - 1)) or 1, True, TraceFlags(TraceFlags.SAMPLED))
        link = Link(trace.get_current_span().get_span_context())
        with self._tracer.start_as_current_span(
            name, context=trace.set_span_in_context(NonRecordingSpan(parent)), links=[link]
        ):
            yield

    def rpc_done(self, method: str, code: str, seconds: float) -> None:
        """Counts a call."""
        self._calls.add(1, {"method": method, "code": code})
        self._seconds.record(seconds, {"method": method})

    def observe(self, gauges: Gauges) -> None:
        """Adds the gauges: jobs, tasks in flight, failed calls to workers, the ledger's sizes, ends of certificates."""

        def jobs(_: CallbackOptions) -> Iterator[Observation]:
            for state, count in gauges.jobs_by_state.items():
                yield Observation(count, {"state": state})

        def ends(_: CallbackOptions) -> Iterator[Observation]:
            for name, end in gauges.certificate_ends.items():
                yield Observation(end, {"name": name})

        for name, description, read in (
            ("assay_jobs", "Jobs by state.", jobs),
            ("assay_ledger_records", "Records in the ledger.", lambda _: [Observation(gauges.ledger_records)]),
            (
                "assay_ledger_published",
                "Records under the newest published checkpoint.",
                lambda _: [Observation(gauges.ledger_published)],
            ),
            ("assay_certificate_end_seconds", "Unix time at which a certificate of a service or root ends.", ends),
            ("assay_tasks_in_flight", "Tasks under way.", lambda _: [Observation(gauges.in_flight)]),
            ("assay_worker_errors", "Calls to workers that failed.", lambda _: [Observation(gauges.worker_errors)]),
        ):
            self._meter.create_observable_gauge(name, [read], description=description)

    def close(self) -> None:
        """Flushes and stops."""
        self._traces.shutdown()
        self._metrics.shutdown()
