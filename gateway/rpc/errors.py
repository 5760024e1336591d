"""Which errors are refusals, and what a client hears of a fault; :mod:`assay.status` has them on the wire."""

from __future__ import annotations

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


def unexpected() -> InternalError:
    """What a client hears of a fault that nobody foresaw; the log has the rest under the trace id."""
    return InternalError(
        "INTERNAL",
        "the gateway failed; nothing was half-written",
        remedy="try again; quote the trace id to the operator",
    )
