"""The checked syntax tree of a CEL expression, as plain frozen nodes.

The engine hands out compiled expressions as ``cel.expr.CheckedExpr`` bytes but ships no classes to read them, so the
few messages needed are declared here, with the field numbers of ``cel/expr/syntax.proto`` and
``cel/expr/checked.proto`` (github.com/google/cel-spec, Apache-2.0). Fields left out are skipped by the parser.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory

_F = descriptor_pb2.FieldDescriptorProto
_MESSAGES: dict[str, tuple[tuple[str, int, Any, bool], ...]] = {
    "Constant": (
        ("bool_value", 2, _F.TYPE_BOOL, False),
        ("int64_value", 3, _F.TYPE_INT64, False),
        ("uint64_value", 4, _F.TYPE_UINT64, False),
        ("double_value", 5, _F.TYPE_DOUBLE, False),
        ("string_value", 6, _F.TYPE_STRING, False),
        ("bytes_value", 7, _F.TYPE_BYTES, False),
    ),
    "Ident": (("name", 1, _F.TYPE_STRING, False),),
    "Select": (
        ("operand", 1, "Expr", False),
        ("field", 2, _F.TYPE_STRING, False),
        ("test_only", 3, _F.TYPE_BOOL, False),
    ),
    "Call": (("target", 1, "Expr", False), ("function", 2, _F.TYPE_STRING, False), ("args", 3, "Expr", True)),
    "CreateList": (("elements", 1, "Expr", True),),
    "Entry": (
        ("field_key", 2, _F.TYPE_STRING, False),
        ("map_key", 3, "Expr", False),
        ("value", 4, "Expr", False),
    ),
    "CreateStruct": (("message_name", 1, _F.TYPE_STRING, False), ("entries", 2, "Entry", True)),
    "Comprehension": (
        ("iter_var", 1, _F.TYPE_STRING, False),
        ("iter_range", 2, "Expr", False),
        ("accu_var", 3, _F.TYPE_STRING, False),
        ("accu_init", 4, "Expr", False),
        ("loop_condition", 5, "Expr", False),
        ("loop_step", 6, "Expr", False),
        ("result", 7, "Expr", False),
    ),
    "Expr": (
        ("id", 2, _F.TYPE_INT64, False),
        ("const_expr", 3, "Constant", False),
        ("ident_expr", 4, "Ident", False),
        ("select_expr", 5, "Select", False),
        ("call_expr", 6, "Call", False),
        ("list_expr", 7, "CreateList", False),
        ("struct_expr", 8, "CreateStruct", False),
        ("comprehension_expr", 9, "Comprehension", False),
    ),
    "Position": (("key", 1, _F.TYPE_INT64, False), ("value", 2, _F.TYPE_INT32, False)),
    "SourceInfo": (("positions", 4, "Position", True),),
    "ListType": (),
    "MapType": (),
    "Type": (
        ("primitive", 3, _F.TYPE_INT32, False),
        ("list_type", 6, "ListType", False),
        ("map_type", 7, "MapType", False),
        ("message_type", 9, _F.TYPE_STRING, False),
    ),
    "TypeEntry": (("key", 1, _F.TYPE_INT64, False), ("value", 2, "Type", False)),
    "CheckedExpr": (
        ("type_map", 3, "TypeEntry", True),
        ("expr", 4, "Expr", False),
        ("source_info", 5, "SourceInfo", False),
    ),
}
_TEXTS = (5, 6)  # STRING and BYTES of cel.expr.Type.PrimitiveType
_KINDS = ("const_expr", "ident_expr", "select_expr", "call_expr", "list_expr", "struct_expr", "comprehension_expr")


@dataclass(frozen=True)
class Node:
    """One node.

    Attributes:
        kind: ``const``, ``ident``, ``select``, ``call``, ``list``, ``struct`` or ``comprehension``.
        value: the constant, the identifier, the field, the function, or a comprehension's variable.
        children: operands; for a call the target (if any) before the arguments; for a comprehension the range, the
            initial value, the condition, the step and the result.
        offset: 0-based code-point offset in the source, for positions in errors.
        test_only: a select written as ``has(...)``.
        message_type: full name, where the node's type is a message.
        type: ``number`` (booleans and enums too), ``text`` (bytes too), ``list``, ``map``, or ``other``.
    """

    kind: str
    value: Any
    children: tuple[Node, ...]
    offset: int
    test_only: bool = False
    message_type: str = ""
    type: str = "other"

    @property
    def is_map(self) -> bool:
        """The node's type is a map."""
        return self.type == "map"

    @property
    def key(self) -> tuple[Any, ...]:
        """What the node says, without where it stands: equal keys mean equal text."""
        value = (type(self.value).__name__, self.value)
        return (self.kind, value, self.test_only, tuple(child.key for child in self.children))

    def walk(self) -> Iterator[Node]:
        """This node and everything under it."""
        yield self
        for child in self.children:
            yield from child.walk()


def decode(serialized: bytes) -> Node:
    """Reads what ``cel.Expression.serialize()`` wrote: a ``google.protobuf.Any`` around a ``CheckedExpr``."""
    packed = any_pb2.Any.FromString(serialized)
    checked = _checked_class().FromString(packed.value)
    types = {entry.key: entry.value for entry in checked.type_map}
    offsets = {entry.key: entry.value for entry in checked.source_info.positions}
    return _node(checked.expr, types, offsets)


def _node(expr: Any, types: dict[int, Any], offsets: dict[int, int]) -> Node:
    kind = next((k for k in _KINDS if expr.HasField(k)), "const_expr")
    part = getattr(expr, kind)
    children: list[Any] = []
    value: Any = None
    test_only = False
    if kind == "const_expr":
        chosen = next((f.name for f, _ in part.ListFields()), "")
        value = getattr(part, chosen) if chosen else None
    elif kind == "ident_expr":
        value = part.name
    elif kind == "select_expr":
        value, test_only, children = part.field, part.test_only, [part.operand]
    elif kind == "call_expr":
        value = part.function
        children = [*([part.target] if part.HasField("target") else []), *part.args]
    elif kind == "list_expr":
        children = list(part.elements)
    elif kind == "struct_expr":
        value = part.message_name
        for entry in part.entries:
            children += [entry.map_key, entry.value] if entry.HasField("map_key") else [entry.value]
    else:
        value = part.iter_var
        children = [part.iter_range, part.accu_init, part.loop_condition, part.loop_step, part.result]
    type_ = types.get(expr.id)
    return Node(
        kind=kind.removesuffix("_expr"),
        value=value,
        children=tuple(_node(child, types, offsets) for child in children),
        offset=offsets.get(expr.id, 0),
        test_only=test_only,
        message_type=type_.message_type if type_ is not None else "",
        type=_type(type_) if type_ is not None else "other",
    )


def _type(type_: Any) -> str:
    if type_.HasField("list_type") or type_.HasField("map_type"):
        return "list" if type_.HasField("list_type") else "map"
    if not type_.HasField("primitive"):
        return "other"
    return "text" if type_.primitive in _TEXTS else "number"


@functools.cache
def _checked_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="policies/cel_ast.proto", package="policies.ast", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field_name, number, kind, repeated in fields:
            label = _F.LABEL_REPEATED if repeated else _F.LABEL_OPTIONAL
            field = message.field.add(name=field_name, number=number, label=label)
            if isinstance(kind, str):
                field.type, field.type_name = _F.TYPE_MESSAGE, f".policies.ast.{kind}"
            elif not repeated:
                # A one-member oneof gives presence, so that `false`, `0` and `""` constants are seen.
                field.type, field.proto3_optional = kind, True
                field.oneof_index = len(message.oneof_decl)
                message.oneof_decl.add(name=f"_{field_name}")
            else:
                field.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("policies.ast.CheckedExpr"))
