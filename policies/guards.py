"""What the type checker cannot see: reads that are silently true.

In CEL on protobuf an optional number that was never set reads as 0, a list that is empty satisfies every
``.all(...)``, and so does the negation of ``.exists(...)``. Each of these turns a missing fact into a pass. A missing
map key fails closed, but with words that help nobody. So a rule must show, in the same conjunction, that it looked
first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from policies.cel_ast import Node

MAX_NESTING = 2
"""Comprehensions inside comprehensions; two over capped lists stay near the engine's iteration budget."""

Fact = tuple[Any, ...]
_NOTHING: frozenset[Fact] = frozenset()


@dataclass(frozen=True)
class Finding:
    """One unguarded read, at a 0-based offset of the source."""

    message: str
    offset: int


def check(tree: Node) -> tuple[Finding, ...]:
    """Finds every unguarded read and every comprehension nested too deep."""
    return (*_reads(tree, _NOTHING), *_nesting(tree, 0))


def _reads(node: Node, known: frozenset[Fact]) -> Iterator[Finding]:
    if node.kind == "call" and node.value in ("_&&_", "_||_"):
        parts = list(_flatten(node, node.value))
        proof = _shown if node.value == "_&&_" else _denied
        for i, part in enumerate(parts):
            others = frozenset().union(*(proof(p) for j, p in enumerate(parts) if j != i), known)
            yield from _reads(part, others)
        return
    if node.kind == "call" and node.value == "_?_:_":
        condition, yes, no = node.children
        yield from _reads(condition, known)
        yield from _reads(yes, known | _shown(condition))
        yield from _reads(no, known | _denied(condition))
        return
    if node.kind == "comprehension" and _is_all(node):
        yield from _size(node, known, ".all(...)")
    if node.kind == "call" and node.value == "!_" and _is_exists(node.children[0]):
        yield from _size(node.children[0], known, "a negated .exists(...)")
    if node.kind == "select" and not node.test_only and _optional(node):
        if ("has", node.children[0].key, node.value) not in known:
            yield Finding(f"reads {node.value!r} without has(...): never set, it would read as zero", node.offset)
    if node.kind == "call" and node.value == "_[_]" and node.children[0].is_map:
        container, key = node.children
        if ("in", key.key, container.key) not in known:
            yield Finding("reads a map entry without `key in map`: it may not be there", node.offset)
    for child in node.children:
        yield from _reads(child, known)


def _size(loop: Node, known: frozenset[Fact], what: str) -> Iterator[Finding]:
    items = loop.children[0]
    if items.kind == "list" and items.children:
        return
    if ("size", items.key) not in known:
        yield Finding(f"{what} is true of an empty list: add `size(...) > 0 &&` before it", loop.offset)


def _nesting(node: Node, depth: int) -> Iterator[Finding]:
    if node.kind != "comprehension":
        for child in node.children:
            yield from _nesting(child, depth)
        return
    if depth == MAX_NESTING:
        yield Finding(f"comprehensions nest more than {MAX_NESTING} deep", node.offset)
        return
    items, *body = node.children
    yield from _nesting(items, depth)
    for child in body:
        yield from _nesting(child, depth + 1)


def _shown(node: Node) -> frozenset[Fact]:
    """Facts that hold where ``node`` is true."""
    if node.kind == "select" and node.test_only:
        return frozenset({("has", node.children[0].key, node.value)})
    if node.kind != "call":
        return _NOTHING
    if node.value == "_&&_":
        return frozenset().union(*(_shown(part) for part in node.children))
    if node.value == "!_":
        return _denied(node.children[0])
    if node.value == "@in":
        return frozenset({("in", node.children[0].key, node.children[1].key)})
    floor = {"_>_": 0, "_>=_": 1, "_==_": 1}.get(str(node.value))
    if floor is not None:
        return _counted(node, floor)
    if node.value == "_!=_" and _constant(node.children[1]) == 0:
        return _counted(node, 0)
    return _NOTHING


def _denied(node: Node) -> frozenset[Fact]:
    """Facts that hold where ``node`` is false."""
    if node.kind != "call":
        return _NOTHING
    if node.value == "!_":
        return _shown(node.children[0])
    if node.value == "_||_":
        return frozenset().union(*(_denied(part) for part in node.children))
    if node.value == "_==_" and _constant(node.children[1]) == 0:
        return _counted(node, 0)
    if node.value == "_<_":
        return _counted(node, 1)
    return _NOTHING


def _counted(node: Node, floor: int) -> frozenset[Fact]:
    """``size(X)`` compared with a constant of at least ``floor`` shows that X is not empty."""
    left, right = node.children
    bound = _constant(right)
    if left.kind == "call" and left.value == "size" and bound is not None and bound >= floor:
        return frozenset({("size", left.children[0].key)})
    return _NOTHING


def _constant(node: Node) -> int | None:
    is_number = node.kind == "const" and isinstance(node.value, int) and not isinstance(node.value, bool)
    return int(node.value) if is_number else None


def _flatten(node: Node, operator: str) -> Iterator[Node]:
    if node.kind == "call" and node.value == operator:
        for child in node.children:
            yield from _flatten(child, operator)
    else:
        yield node


def _is_all(node: Node) -> bool:
    start, step = node.children[1], node.children[3]
    return start.kind == "const" and start.value is True and step.kind == "call" and step.value == "_&&_"


def _is_exists(node: Node) -> bool:
    if node.kind != "comprehension":
        return False
    start, step = node.children[1], node.children[3]
    return start.kind == "const" and start.value is False and step.kind == "call" and step.value == "_||_"


def _optional(node: Node) -> bool:
    """True for a scalar field with presence, such as ``optional double epsilon``."""
    owner = node.children[0].message_type
    if not owner:
        return False
    descriptor: Descriptor = descriptor_pool.Default().FindMessageTypeByName(owner)
    field = descriptor.fields_by_name.get(str(node.value))
    return field is not None and field.has_presence and field.type != FieldDescriptor.TYPE_MESSAGE
