"""Canonical JSON bytes: RFC 8785 restricted to a subset in which C-speed ``json.dumps`` is already canonical.

Allowed: objects with ASCII keys, valid Unicode strings, integers with ``abs(n) < 2**53``, booleans, null, arrays, at
most ``MAX_DEPTH`` levels deep. No floats: a rate or metric is a decimal string, money is an integer of millionths. In
this subset ``json.dumps(sort_keys, compact, ensure_ascii=False)`` equals RFC 8785 byte for byte (UTF-16 and code-point
key order agree on ASCII keys). Reading is strict: duplicates, NaN, floats and any byte that re-encoding would change
are refused.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn

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
    from google.protobuf.timestamp_pb2 import Timestamp

    if isinstance(message, Timestamp):
        return message.ToJsonString()
    out: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            kind = field.message_type.fields_by_name["value"]
            out[field.name] = {str(k): _scalar(kind, v) for k, v in value.items()}
        elif field.is_repeated:
            out[field.name] = [_scalar(field, v) for v in value]
        else:
            out[field.name] = _scalar(field, value)
    return out


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


def _scalar(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return from_message(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known is not None else int(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return float_free(value)


def _is_plain(value: Any, levels: int) -> bool:
    """True when only JSON's own types of the subset are there, lone surrogates aside; False says nothing.

    A loop over one level at a time, since this is on the way of every record.
    """
    level = [value]
    for _ in range(levels + 1):
        below: list[Any] = []
        nested = False
        for item in level:
            kind = type(item)
            if kind is str or kind is bool or item is None:
                continue
            if kind is int:
                if not -MAX_INTEGER <= item <= MAX_INTEGER:
                    return False
            elif kind is dict:
                nested = True
                for key in item:
                    if type(key) is not str or not key.isascii():
                        return False
                below.extend(item.values())
            elif kind is list:
                nested = True
                below.extend(item)
            else:
                return False
        if not nested:
            return True
        level = below
    return False


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
