"""Every field of a message that another process sent, against the rules that stand in the contract."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import protovalidate
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from assay.errors import FieldViolation, InternalError, InvalidInputError

MAX_VIOLATIONS = 20
_LOOKED_THROUGH = 1000
"""Messages within one, in search of the fields that it should not have; a message of 4 MiB can hold millions."""
_TOLD_WHOLE_BYTES = 8 << 10
"""Of a larger message the first violation is told: each takes 40 µs, and a message of 4 MiB can hold millions."""


def check(request: Message) -> None:
    """Refuses a message that says what this release does not know, or breaks a rule of its ``.proto``.

    protobuf keeps fields that it does not know and shows them to nobody: a condition, or a stricter bound, that a newer
    client sent would count for nothing. Whether there are any is asked without Python's looking at each message.

    Raises:
        InvalidInputError: ``UNKNOWN_FIELDS`` naming each message and the numbers of its fields, or ``INVALID_FIELDS``
            naming each field and what it must be; values are not repeated.
        InternalError: ``CONTRACT_BROKEN``.
    """
    known = type(request)()
    known.CopyFrom(request)
    known.DiscardUnknownFields()
    unknown = request.ByteSize() - known.ByteSize()
    if unknown:
        raise InvalidInputError(
            "UNKNOWN_FIELDS",
            f"{request.DESCRIPTOR.name} has fields that this release does not know; nothing was done",
            remedy="whoever asks is newer: upgrade the gateway before its clients, and the workers before the gateway",
            violations=_unknown(request, unknown),
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


def _unknown(request: Message, size: int) -> list[FieldViolation]:
    """Where within are fields that the contract does not know, and their numbers: the first few, if they lie early.

    Of more than 8 KiB only how many bytes they are: protobuf takes 0.8 µs to list one field, of 3 bytes.
    """
    if size > _TOLD_WHOLE_BYTES:
        return [FieldViolation("(message)", f"{size} bytes of fields not known here")]
    told = defaultdict[str, set[int]](set)
    for path, message in islice(_within(request, ""), _LOOKED_THROUGH):
        fields = UnknownFieldSet(message)
        numbers = {fields[at].field_number for at in range(min(len(fields), MAX_VIOLATIONS))}
        if numbers:
            told[path or "(message)"] |= numbers
        if sum(map(len, told.values())) >= MAX_VIOLATIONS:
            break
    return [
        FieldViolation(path, f"not known here: field {', '.join(map(str, sorted(numbers)))}")
        for path, numbers in told.items()
    ] or [FieldViolation("(message)", f"fields not known here lie behind its first {_LOOKED_THROUGH} parts")]


def _within(message: Message, path: str) -> Iterator[tuple[str, Message]]:
    """A message and all that it holds, each with its path."""
    yield path, message
    for field, value in message.ListFields():
        for inner in _messages(field, value):
            yield from _within(inner, f"{path}.{field.name}" if path else field.name)


def _messages(field: FieldDescriptor, value: Any) -> Iterable[Message]:
    if field.message_type is None:
        return ()
    if not field.is_repeated:
        return (value,)
    if isinstance(value, Mapping):
        return value.values() if field.message_type.fields_by_name["value"].message_type is not None else ()
    return value  # type: ignore[no-any-return]


def _violation(violation: protovalidate.Violation) -> FieldViolation:
    proto = violation.proto
    elements = proto.field.elements if proto.field is not None else []
    path = ".".join(e.field_name for e in elements)
    return FieldViolation(path or "(message)", proto.message or proto.rule_id)
