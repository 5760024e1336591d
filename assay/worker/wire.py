"""Errors on the worker's wire: those of :mod:`assay.status`, and that of a worker which does not answer."""

from __future__ import annotations

from typing import Any, NoReturn

import grpc

from assay import status
from assay.errors import AssayError, InternalError, UnavailableError

DOMAIN = "assay.dev"


async def abort(context: Any, error: AssayError) -> NoReturn:
    """Ends a call with an error."""
    await context.abort_with_status(status.to_status(error, DOMAIN))
    raise error


def from_rpc_error(error: grpc.aio.AioRpcError) -> AssayError:
    """Rebuilds the error at the client's end; a transport fault becomes ``WORKER_UNREACHABLE``."""
    code, sent = error.code(), status.read(error)
    if sent is not None:
        return sent
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED):
        return UnavailableError("WORKER_UNREACHABLE", f"the worker does not answer: {code.name}")
    return InternalError("WORKER_ERROR", f"the worker answered {code.name}")
