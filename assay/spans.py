"""Where a process of ours leaves its spans: a file of JSON lines, and a collector where one is named."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

FILE = "spans.jsonl"
MAX_BYTES = 64 << 20
_LOG = logging.getLogger(__name__)


class FileSpanExporter(SpanExporter):
    """Appends spans as JSON lines: the embedded default, where no collector runs.

    Args:
        path: of the file; once it is full it becomes ``PATH.1``, in place of the one before, and another is begun.
        max_bytes: from which it is full.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        self._path, self._max_bytes = path, max_bytes
        self._stream = path.open("a", encoding="utf-8")

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Writes one line a span."""
        for span in spans:
            context = span.get_span_context()
            if context is None:
                continue
            line = {
                "trace_id": f"{context.trace_id:032x}",
                "span_id": f"{context.span_id:016x}",
                "parent_id": f"{span.parent.span_id:016x}" if span.parent else "",
                "name": span.name,
                "start_ns": span.start_time,
                "end_ns": span.end_time,
                "attributes": dict(span.attributes or {}),
            }
            self._stream.write(json.dumps(line, default=str) + "\n")
        self._stream.flush()
        if self._stream.tell() >= self._max_bytes:
            self._stream.close()
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))
            self._stream = self._path.open("a", encoding="utf-8")
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Closes the file."""
        self._stream.close()


def export(folder: Path, service: str) -> TracerProvider:
    """Lets every span of this process go to ``folder`` and, where ``OTEL_EXPORTER_OTLP_ENDPOINT`` is https, by OTLP.

    Args:
        folder: gets :data:`FILE`; made where it is missing.
        service: name of the process in its spans.
    """
    folder.mkdir(parents=True, exist_ok=True)
    traces = TracerProvider(resource=Resource.create({"service.name": service}))
    traces.add_span_processor(BatchSpanProcessor(FileSpanExporter(folder / FILE)))
    _add_otlp(traces)
    trace.set_tracer_provider(traces)
    return traces


def _add_otlp(traces: TracerProvider) -> None:
    endpoint = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    if not endpoint.startswith("https://"):
        if endpoint:
            _LOG.warning("OTEL_EXPORTER_OTLP_ENDPOINT is no https address: spans go to their file alone")
        return
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
