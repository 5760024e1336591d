"""Errors on the worker's wire: one :class:`~assay.errors.AssayError` in, the same kind out, never a stack trace."""

from __future__ import annotations

from typing import Any, NoReturn

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from assay import errors
from assay.errors import AssayError, FieldViolation

DOMAIN = "assay.dev"
_KINDS: dict[str, type[AssayError]] = {
    kind.code: kind
    for kind in (
        errors.InvalidInputError,
        errors.PreconditionError,
        errors.NotFoundError,
        errors.AlreadyExistsError,
        errors.PermissionDeniedError,
        errors.UnauthenticatedError,
        errors.AbortedError,
        errors.ExhaustedError,
        errors.UnavailableError,
        errors.IntegrityError,
        errors.InternalError,
    )
}


def to_status(error: AssayError) -> grpc.Status:
    """Maps an error to a status with one ErrorInfo and, if there are violations, one BadRequest."""
    metadata = {**error.metadata, "remedy": error.remedy} if error.remedy else dict(error.metadata)
    details = [_packed(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata))]
    if error.violations:
        fields = [
            error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.description)
            for v in error.violations[:50]
        ]
        details.append(_packed(error_details_pb2.BadRequest(field_violations=fields)))
    message = status_pb2.Status(code=code_pb2.Code.Value(error.code), message=error.message, details=details)
    return rpc_status.to_status(message)


async def abort(context: Any, error: AssayError) -> NoReturn:
    """Ends a call with an error."""
    await context.abort_with_status(to_status(error))
    raise error


def from_rpc_error(error: grpc.aio.AioRpcError) -> AssayError:
    """Rebuilds the error at the client's end; a transport fault becomes ``WORKER_UNREACHABLE``."""
    try:
        status = rpc_status.from_call(error)  # type: ignore[arg-type]
    except ValueError:
        status = None
    kind = _KINDS.get(error.code().name)
    if status is not None and kind is not None:
        info, violations = error_details_pb2.ErrorInfo(), []
        for detail in status.details:
            if detail.Unpack(info):
                continue
            bad = error_details_pb2.BadRequest()
            if detail.Unpack(bad):
                violations = [FieldViolation(v.field, v.description) for v in bad.field_violations]
        if info.reason:
            facts = dict(info.metadata)
            remedy = facts.pop("remedy", "")
            return kind(info.reason, status.message, remedy=remedy, violations=violations, metadata=facts)
    if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED):
        return errors.UnavailableError("WORKER_UNREACHABLE", f"the worker does not answer: {error.code().name}")
    return errors.InternalError("WORKER_ERROR", f"the worker answered {error.code().name}")


def _packed(message: Any) -> any_pb2.Any:
    out = any_pb2.Any()
    out.Pack(message)
    return out
