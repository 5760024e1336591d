"""One table from an error to a gRPC status with details (AIP-193). No trace and no foreign text reaches a client."""

from __future__ import annotations

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from assay.errors import AssayError, InternalError

DOMAIN = "assay.v1"
_FAULTS = frozenset({"INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
# Bytes of the caller's that do not hold; by code they look like bytes of ours.
_THE_CALLERS = frozenset({
    "DIGEST_MISMATCH", "SIGNATURE_BAD", "KEY_MISMATCH", "CERTIFICATE_BAD", "WEBAUTHN_BAD",
    "COMMITMENT_MISMATCH", "COMMITMENT_SALT", "KEY_NOT_IN_FORCE",
})  # fmt: skip


def is_refusal(error: AssayError) -> bool:
    """Whether it is about what a caller did or may not do; faults of ours are metrics and logs, not refusals."""
    return error.code not in _FAULTS or error.reason in _THE_CALLERS


def to_status(error: AssayError) -> status_pb2.Status:
    """Maps an error to ``google.rpc.Status`` with at most one detail of each type."""
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)
    if error.remedy:
        info.metadata["remedy"] = error.remedy
    details: list[Message] = [info]
    if error.violations and error.code == "INVALID_ARGUMENT":
        fields = [
            error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.description)
            for v in error.violations
        ]
        details.append(error_details_pb2.BadRequest(field_violations=fields))
    elif error.violations:
        broken = [
            error_details_pb2.PreconditionFailure.Violation(
                type=error.reason, subject=v.field, description=v.description
            )
            for v in error.violations
        ]
        details.append(error_details_pb2.PreconditionFailure(violations=broken))
    packed = []
    for detail in details:
        box = AnyMessage()
        box.Pack(detail)
        packed.append(box)
    code = code_pb2.Code.Value(error.code) if error.code in code_pb2.Code.keys() else code_pb2.INTERNAL
    return status_pb2.Status(code=code, message=error.message, details=packed)


def unexpected() -> InternalError:
    """What a client hears of a fault that nobody foresaw; the log has the rest under the trace id."""
    return InternalError(
        "INTERNAL",
        "the gateway failed; nothing was half-written",
        remedy="try again; quote the trace id to the operator",
    )
