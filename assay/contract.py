"""Every field of a message that another process sent, against the rules that stand in the contract."""

from __future__ import annotations

import protovalidate
from google.protobuf.message import Message

from assay.errors import FieldViolation, InternalError, InvalidInputError

MAX_VIOLATIONS = 20


def check(request: Message) -> None:
    """Refuses a message that breaks a rule of its ``.proto``.

    Raises:
        InvalidInputError: ``INVALID_FIELDS`` naming each field and what it must be; values are not repeated.
        InternalError: ``CONTRACT_BROKEN``.
    """
    try:
        protovalidate.validate(request)
    except protovalidate.ValidationError as error:
        violations = [_violation(v) for v in list(error.violations)[:MAX_VIOLATIONS]]
        raise InvalidInputError(
            "INVALID_FIELDS", f"{request.DESCRIPTOR.name} has invalid fields", violations=violations
        ) from None
    except protovalidate.CompilationError as error:
        raise InternalError("CONTRACT_BROKEN", "the contract's own rules do not compile") from error


def _violation(violation: protovalidate.Violation) -> FieldViolation:
    proto = violation.proto
    elements = proto.field.elements if proto.field is not None else []
    path = ".".join(e.field_name for e in elements)
    return FieldViolation(path or "(message)", proto.message or proto.rule_id)
