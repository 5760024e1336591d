"""Every field of a message that another process sent, against the rules that stand in the contract."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import protovalidate
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from assay.errors import FieldViolation, InternalError, InvalidInputError

MAX_VIOLATIONS = 20
_TOLD_WHOLE_BYTES = 8 << 10
"""Of a larger message the first violation is told: each takes 40 µs, and a message of 4 MiB can hold millions."""


def check(request: Message) -> None:
    """Refuses a message that says what this release does not know, or breaks a rule of its ``.proto``.

    protobuf keeps fields that it does not know and shows them to nobody: a condition, or a stricter bound, that a newer
    client sent would count for nothing. Costs 35 µs beside the rules' 55 for a chunk of 256 KiB.

    Raises:
        InvalidInputError: ``UNKNOWN_FIELDS`` naming each message and the numbers of its fields, or ``INVALID_FIELDS``
            naming each field and what it must be; values are not repeated.
        InternalError: ``CONTRACT_BROKEN``.
    """
    unknown = list(dict.fromkeys(_unknown(request, "")))[:MAX_VIOLATIONS]
    if unknown:
        raise InvalidInputError(
            "UNKNOWN_FIELDS",
            f"{request.DESCRIPTOR.name} has fields that this release does not know; nothing was done",
            remedy="whoever asks is newer: upgrade the gateway before its clients, and the workers before the gateway",
            violations=unknown,
        )
    try:
        protovalidate.validate(request, fail_fast=True)
    except protovalidate.ValidationError as error:
        found = error.violations
        if request.ByteSize() <= _TOLD_WHOLE_BYTES:
            found = protovalidate.collect_violations(request)
        raise InvalidInputError(
            "INVALID_FIELDS",
            f"{request.DESCRIPTOR.name} has invalid fields",
            violations=[_violation(v) for v in found[:MAX_VIOLATIONS]],
        ) from None
    except protovalidate.CompilationError as error:
        raise InternalError("CONTRACT_BROKEN", "the contract's own rules do not compile") from error


def _unknown(message: Message, path: str) -> Iterator[FieldViolation]:
    """Each message within that has fields which the contract does not, by its path and their numbers."""
    fields = UnknownFieldSet(message)
    numbers = sorted({fields[at].field_number for at in range(len(fields))})
    if numbers:
        told = ", ".join(str(number) for number in numbers[:MAX_VIOLATIONS])
        yield FieldViolation(path or "(message)", f"not known here: field {told}")
    for field, value in message.ListFields():
        for inner in _messages(field, value):
            yield from _unknown(inner, f"{path}.{field.name}" if path else field.name)


def _messages(field: FieldDescriptor, value: Any) -> Iterable[Message]:
    if field.message_type is None:
        return ()
    if not field.is_repeated:
        return (value,)
    if isinstance(value, Mapping):
        return [one for one in value.values() if isinstance(one, Message)]
    return value  # type: ignore[no-any-return]


def _violation(violation: protovalidate.Violation) -> FieldViolation:
    proto = violation.proto
    elements = proto.field.elements if proto.field is not None else []
    path = ".".join(e.field_name for e in elements)
    return FieldViolation(path or "(message)", proto.message or proto.rule_id)
