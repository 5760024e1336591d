"""Canonical JSON bytes: RFC 8785 restricted to a subset in which C-speed ``json.dumps`` is already canonical.

Allowed: objects with ASCII keys, valid Unicode strings, integers with ``abs(n) < 2**53``, booleans, null, arrays, at
most ``MAX_DEPTH`` levels deep. No floats: a rate or metric is a decimal string, money is an integer of millionths. In
this subset ``json.dumps(sort_keys, compact, ensure_ascii=False)`` equals RFC 8785 byte for byte (UTF-16 and code-point
key order agree on ASCII keys). Reading is strict: duplicates, NaN, floats and any byte that re-encoding would change
are refused.
"""

from __future__ import annotations

import base64
import functools
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn

from assay.errors import InvalidInputError

MAX_INTEGER = 2**53 - 1
# Fixed, so that what is canonical does not depend on how deep the reader's own stack is.
MAX_DEPTH = 100


def encode(value: Any, levels: int = MAX_DEPTH) -> bytes:
    """Encodes a value of the subset, of at most ``levels`` objects and arrays inside one another.

    Raises:
        InvalidInputError: ``NOT_CANONICAL`` when the value lies outside the subset.
    """
    if not _is_plain(value, levels):
        _check(value, "$", 1, levels)
    try:
        return _ENCODER.encode(value).encode()
    except UnicodeEncodeError:
        _check(value, "$", 1, levels)
        raise


def decode(data: bytes, levels: int = MAX_DEPTH) -> Any:
    """Decodes bytes that must be canonical: parses strictly, then demands that re-encoding gives the same bytes.

    Raises:
        InvalidInputError: ``NOT_CANONICAL`` otherwise.
    """
    try:
        value = _DECODER.decode(data.decode("utf-8", "strict"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError, ValueError) as error:
        raise InvalidInputError("NOT_CANONICAL", f"not canonical JSON: {type(error).__name__}") from error
    if encode(value, levels) != data:
        raise InvalidInputError("NOT_CANONICAL", "re-encoding gives other bytes")
    return value


def from_message(message: Any) -> Any:
    """Maps a protobuf message to the subset: enums by name, bytes as base64, timestamps as RFC 3339.

    Doubles become decimal strings. Fields that are not set are left out, so that an addition to the
    contract does not change old bytes.
    """
    if message.DESCRIPTOR.full_name == "google.protobuf.Timestamp":
        return message.ToJsonString()
    return {(writer := _writer(field)).name: writer.write(value) for field, value in message.ListFields()}


def encode_message(message: Any) -> bytes:
    """Encodes a protobuf message: the bytes of ``encode(from_message(message))``, written in one pass.

    Raises:
        InvalidInputError: ``NOT_CANONICAL`` as :func:`encode`, such as for a map key that is not ASCII.
    """
    return _text_of(message).encode()


def _text_of(message: Any) -> str:
    if message.DESCRIPTOR.full_name == "google.protobuf.Timestamp":
        return _quoted(message.ToJsonString())
    parts = []
    for name, lead, write, presence in _text_table(message.DESCRIPTOR):
        if presence:
            if message.HasField(name):
                parts.append(lead + write(getattr(message, name)))
            continue
        value = getattr(message, name)
        # Set means non-zero here; a negative zero is not the default.
        if value or (type(value) is float and math.copysign(1, value) < 0):
            parts.append(lead + write(value))
    return "{" + ",".join(parts) + "}"


class _TextField(NamedTuple):
    """How one field is written: what stands before its value, and whether it knows being set."""

    name: str
    lead: str
    write: Callable[[Any], str]
    presence: bool


@functools.cache
def _text_table(descriptor: Any) -> tuple[_TextField, ...]:
    fields = sorted(descriptor.fields, key=lambda field: field.name)
    return tuple(_TextField(f.name, f'"{f.name}":', _text_writer(f), f.has_presence) for f in fields)


def _text_writer(field: Any) -> Callable[[Any], str]:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        one = _text_scalar(field.message_type.fields_by_name["value"])

        def pairs(value: Mapping[Any, Any]) -> str:
            keyed = sorted([(str(k), v) for k, v in value.items()])
            for key, _ in keyed:
                if not key.isascii():
                    _refuse(f"$.{field.name}", "a key that is not ASCII")
            return "{" + ",".join([f"{_quoted(k)}:{one(v)}" for k, v in keyed]) + "}"

        return pairs
    one = _text_scalar(field)
    return (lambda value: "[" + ",".join([one(v) for v in value]) + "]") if field.is_repeated else one


def _text_scalar(field: Any) -> Callable[[Any], str]:
    if field.message_type is not None:
        return _text_of
    if field.enum_type is not None:
        names = {number: _quoted(value.name) for number, value in field.enum_type.values_by_number.items()}
        return lambda value: names.get(value) or str(value)
    if field.type == field.TYPE_BYTES:
        return lambda value: _quoted(base64.b64encode(value).decode())
    if field.cpp_type == field.CPPTYPE_STRING:
        return _quoted
    if field.cpp_type == field.CPPTYPE_BOOL:
        return lambda value: "true" if value else "false"
    if field.cpp_type in (field.CPPTYPE_DOUBLE, field.CPPTYPE_FLOAT):
        return lambda value: f'"{decimal(value)}"'
    return lambda value: str(value) if abs(value) <= MAX_INTEGER else f'"{value}"'


_quoted: Callable[[str], str] = json.encoder.encode_basestring


def decimal(value: float) -> str:
    """Writes a double as the shortest decimal string that reads back to it; non-finite values are spelled out."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return repr(float(value))


def float_free(value: Any) -> Any:
    """Copies plain JSON-like data with every float written by :func:`decimal` and every wide integer as a string."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return value if abs(value) <= MAX_INTEGER else str(value)
    if isinstance(value, float):
        return decimal(value)
    if isinstance(value, Mapping):
        return {str(k): float_free(v) for k, v in value.items()}
    return [float_free(v) for v in value]


class _Writer(NamedTuple):
    """How one field of a message is written; looked up once a field, since this is on the way of every decision."""

    name: str
    write: Callable[[Any], Any]


@functools.cache
def _writer(field: Any) -> _Writer:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        one = _scalar(field.message_type.fields_by_name["value"])
        return _Writer(field.name, lambda value: {str(k): one(v) for k, v in value.items()})
    one = _scalar(field)
    return _Writer(field.name, (lambda value: [one(v) for v in value]) if field.is_repeated else one)


def _scalar(field: Any) -> Callable[[Any], Any]:
    if field.message_type is not None:
        return from_message
    if field.enum_type is not None:
        names = {number: value.name for number, value in field.enum_type.values_by_number.items()}
        return lambda value: names.get(value, value)
    if field.cpp_type == field.CPPTYPE_STRING:
        return lambda value: base64.b64encode(value).decode() if isinstance(value, bytes) else value
    return float_free


def _is_plain(value: Any, levels: int) -> bool:
    """True when only JSON's own types of the subset are there, lone surrogates aside; False says nothing.

    One call an object or array, and one look at all keys together, since this is on the way of every record.
    """
    kind = type(value)
    if kind is dict:
        try:
            if not "".join(value).isascii():
                return False
        except TypeError:
            return False
        items = value.values()
    elif kind is list:
        items = value
    else:
        items, levels = (value,), levels + 1
    if levels < 1:
        return False
    for item in items:
        kind = type(item)
        if kind is dict or kind is list:
            if not _is_plain(item, levels - 1):
                return False
        elif kind is int:
            if not -MAX_INTEGER <= item <= MAX_INTEGER:
                return False
        elif kind is not str and kind is not bool and item is not None:
            return False
    return True


def _check(value: Any, where: str, level: int, levels: int) -> None:
    """The rule itself, one value at a time, with the place of what breaks it."""
    if isinstance(value, dict | list | tuple) and level > levels:
        _refuse("the value", f"more than {levels} levels")
    if isinstance(value, str):
        try:
            value.encode("utf-8", "strict")
        except UnicodeEncodeError:
            _refuse(where, "a lone surrogate")
    elif isinstance(value, bool) or value is None:
        return
    elif isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            _refuse(where, "an integer of 2**53 or more")
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str) or not key.isascii():
                _refuse(where, "a key that is not ASCII text")
            _check(item, f"{where}.{key}", level + 1, levels)
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _check(item, f"{where}[{i}]", level + 1, levels)
    else:
        _refuse(where, f"a {type(value).__name__}")


def _refuse(where: str, what: str) -> NoReturn:
    raise InvalidInputError("NOT_CANONICAL", f"{where} holds {what}, which canonical JSON here does not allow")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("duplicate key")
    return out


def _refuse_float(text: str) -> NoReturn:
    raise ValueError("float")


# Made once: json.dumps and json.loads make their own at every call. _is_plain or _check has bounded the depth before.
_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, check_circular=False
)
_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_refuse_float, parse_constant=_refuse_float)
