"""What a process of ours writes to its log: one JSON object a line, and of an exception where it came from.

The text of an exception may quote what was being read: a row, a name, a value. Of a foreign exception the log therefore
holds what :func:`assay.errors.origin` says, never its text.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from assay.errors import origin

_FIELDS = ("rpc", "code", "reason", "job", "task", "state", "index")


def to_stderr() -> None:
    """Has this process write its log to stderr, from INFO on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, known fields and facts, and the trace in force."""

    def format(self, record: logging.LogRecord) -> str:
        """Formats one record; of an exception :func:`origin`."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **{k: getattr(record, k) for k in _FIELDS if hasattr(record, k)},
            **getattr(record, "facts", {}),
        }
        trace = sys.modules.get("opentelemetry.trace")  # a process that never imported it, as a witness, has no span
        span = trace.get_current_span().get_span_context() if trace is not None else None
        if span is not None and span.is_valid:
            line["trace_id"] = f"{span.trace_id:032x}"
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = origin(record.exc_info[1])
        return json.dumps(line, default=str)
