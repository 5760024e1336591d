"""Checks a question before any rule sees it: sizes, numbers that are none, and the facts that a rule needs.

Rules run inside this process, where a limit on memory cannot be set for one evaluation. What bounds it instead: the
caps here on every string, list and map and on the whole message, and what :mod:`policies.bounds` allows an expression
to build from them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf.message import Message

from assay import groups
from assay.v1 import dataset_pb2, measurement_pb2, policy_input_pb2
from policies import uses

MAX_BYTES = 2 << 20
MAX_STRING = 4096
MAX_ITEMS = 2000

_DEFERRED = frozenset({"measurements"})
"""Fields whose numbers are judged one by one later: a NaN there is that gate's error, not the whole question's."""

TASKS = {
    dataset_pb2.DATASET_FORMAT_CHAT_JSONL: "chat",
    dataset_pb2.DATASET_FORMAT_PROMPT_COMPLETION_JSONL: "chat",
    dataset_pb2.DATASET_FORMAT_PREFERENCE_JSONL: "chat",
    dataset_pb2.DATASET_FORMAT_DECISION_CSV: "decision",
    dataset_pb2.DATASET_FORMAT_DECISION_PARQUET: "decision",
}


def faults(message: Message) -> tuple[str, ...]:
    """Returns what makes a question unfit to be judged, as sentences without its content; empty when it is fit."""
    size = message.ByteSize()
    if size > MAX_BYTES:
        return (f"the question has {size:,} bytes; at most {MAX_BYTES:,} are judged",)
    # A message of so few bytes holds no string and no list that is too long.
    return tuple(_walk(message, "", small=size <= MAX_ITEMS))


def shared_bindings(question: Any) -> dict[str, Any]:
    """Variables that intake and release rules share."""
    name = dataset_pb2.Classification.Name(question.datasheet.classification)
    word, task = name.removeprefix("CLASSIFICATION_").lower(), TASKS.get(question.format, "")
    return {
        "request": question.request,
        "datasheet": question.datasheet,
        "task": task,
        "classification": "" if word == "unspecified" else word,
        "trials": trials(question.request.search),
        "private": question.request.HasField("differential_privacy"),
        **uses.bindings(question.request, task),
    }


def trials(search: policy_input_pb2.Search) -> int:
    """Runs that a search asks for, one for every pair; 1 where nothing is searched for."""
    return max(1, len(search.lora_ranks)) * max(1, len(search.learning_rates))


def missing_fact(question: Message, path: str) -> str:
    """Says why a needed fact is not there, or nothing.

    A field with presence must be set, a string, list or map must not be empty, a number must be finite, a count above
    zero.
    """
    value: Any = question
    for step in path.split("."):
        field = value.DESCRIPTOR.fields_by_name[step]
        if field.has_presence and not value.HasField(step):
            return f"{path} is not there"
        value = getattr(value, step)
    if isinstance(value, bool) or isinstance(value, Message):
        return ""
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"{path} is not a finite number"
    if isinstance(value, int):
        return "" if value > 0 else f"{path} is not there"
    return "" if len(value) else f"{path} is not there"


def missing_measurement(measurements: Mapping[str, measurement_pb2.Measurement], name: str) -> str:
    """Says why a needed measurement cannot be judged, or nothing."""
    found = measurements.get(name) if name in measurements else None
    if found is None:
        return f"{name} was not measured"
    if found.exploratory:
        return f"{name} was not in the audit plan"
    if found.unavailable:
        return f"{name} is unavailable: {found.unavailable[:200]}"
    if not found.HasField("value") or not math.isfinite(found.value):
        return f"{name} is not a number"
    return ""


def labelled(
    measurements: Mapping[str, measurement_pb2.Measurement], plan: measurement_pb2.AuditPlan
) -> dict[str, measurement_pb2.Measurement]:
    """The measurements, those exploratory that the plan did not name before training, whatever the worker calls them.

    A plan that lists no metrics, of a policy before they were listed, is judged by the worker's word; so is one that
    names no groups, of facts before they were told, about groups.
    """
    named = set(plan.metrics) | {gate.measurement.partition("[")[0] for gate in plan.gates}
    out = {}
    for key, found in measurements.items():
        name, _, rest = key.partition("[")
        if (plan.metrics and name not in named) or groups.unplanned(plan, name, rest.removesuffix("]")):
            found = measurement_pb2.Measurement.FromString(found.SerializeToString())
            found.exploratory = True
        out[key] = found
    return out


def _walk(message: Message, prefix: str, *, small: bool) -> Iterator[str]:
    for field, value in message.ListFields():
        kind = _kind(field)
        if kind == _SAFE or (small and not _has_doubles(field)):
            continue
        path = f"{prefix}{field.name}"
        if field.is_repeated and len(value) > MAX_ITEMS:
            yield f"{path} has {len(value):,} entries; at most {MAX_ITEMS:,} are judged"
        elif kind == _MAP:
            yield from _walk_map(field, value, path, small=small)
        elif kind == _LATER:
            continue
        elif kind == _LIST:
            for item in value:
                yield from _scalar(field, item, path, small=small)
        else:
            yield from _scalar(field, value, path, small=small)


@functools.cache
def _has_doubles(field: Any, depth: int = 0) -> bool:
    """True where a number that may be none can stand in the field or anywhere under it."""
    if field.message_type is None:
        return bool(field.cpp_type in (field.CPPTYPE_DOUBLE, field.CPPTYPE_FLOAT))
    # Deeper than any message here: then it is looked at.
    return depth > 8 or any(_has_doubles(inner, depth + 1) for inner in field.message_type.fields)


_SAFE, _MAP, _LATER, _LIST, _ONE = range(5)


@functools.cache
def _kind(field: Any) -> int:
    """What there is to check of a field; a whole number, a boolean or an enum that stands alone cannot be unfit."""
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return _MAP
    if field.name in _DEFERRED:
        return _LATER
    if field.is_repeated:
        return _LIST
    checked = (field.CPPTYPE_MESSAGE, field.CPPTYPE_STRING, field.CPPTYPE_DOUBLE, field.CPPTYPE_FLOAT)
    return _ONE if field.cpp_type in checked else _SAFE


def _walk_map(field: Any, value: Mapping[Any, Any], path: str, *, small: bool) -> Iterator[str]:
    kind = field.message_type.fields_by_name["value"]
    for key, item in value.items():
        if isinstance(key, str):
            yield from _text(key, f"a key of {path}")
        if path not in _DEFERRED:
            yield from _scalar(kind, item, path, small=small)


def _scalar(field: Any, value: Any, path: str, *, small: bool) -> Iterator[str]:
    if field.message_type is not None:
        yield from _walk(value, f"{path}.", small=small)
    elif isinstance(value, str):
        yield from _text(value, path)
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{path} is not a finite number"


def _text(value: str, path: str) -> Iterator[str]:
    if len(value) > MAX_STRING:
        yield f"{path} has {len(value):,} characters; at most {MAX_STRING:,} are judged"
