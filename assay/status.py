"""Errors on the wire (AIP-193): one :class:`~assay.errors.AssayError` in, the same kind out at the other end.

Gateway and workers, and their clients, share this one mapping. No trace and no foreign text goes over it.
"""

from __future__ import annotations

from typing import Any

import grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from assay import errors
from assay.errors import AssayError, FieldViolation

KINDS: dict[str, type[AssayError]] = {
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
"""The error of each gRPC status that is ever sent."""


def to_status(error: AssayError, domain: str) -> grpc.Status:
    """The status of an error, with at most one detail of each type; ``domain`` tells whose reasons they are."""
    code = error.code if error.code in KINDS else "INTERNAL"
    status = status_pb2.Status(code=code_pb2.Code.Value(code), message=error.message)
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=domain, metadata=error.metadata)
    if error.remedy:
        info.metadata["remedy"] = error.remedy
    status.details.add().Pack(info)
    bad, broken = error_details_pb2.BadRequest(), error_details_pb2.PreconditionFailure()
    for v in error.violations:
        if error.code == "INVALID_ARGUMENT":
            bad.field_violations.add(field=v.field, description=v.description)
        else:
            broken.violations.add(type=error.reason, subject=v.field, description=v.description)
    if error.violations:
        status.details.add().Pack(bad if error.code == "INVALID_ARGUMENT" else broken)
    return rpc_status.to_status(status)


def read(failed: Any) -> AssayError | None:
    """The error that the other end sent; None where it sent none of ours, since gRPC itself ended the call.

    Args:
        failed: the ``grpc.RpcError`` or ``grpc.aio.AioRpcError`` of the call.
    """
    try:
        status = rpc_status.from_call(failed)
    except ValueError:
        status = None
    kind = KINDS.get(failed.code().name)
    if status is None or kind is None:
        return None
    info = error_details_pb2.ErrorInfo()
    bad, broken = error_details_pb2.BadRequest(), error_details_pb2.PreconditionFailure()
    for detail in status.details:
        for known in (info, bad, broken):
            detail.Unpack(known)
    if not info.reason:
        return None
    violations = [FieldViolation(v.field, v.description) for v in bad.field_violations]
    violations += [FieldViolation(v.subject, v.description) for v in broken.violations]
    facts = dict(info.metadata)
    remedy = facts.pop("remedy", "")
    return kind(info.reason, status.message, remedy=remedy, violations=violations, metadata=facts)
