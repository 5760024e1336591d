"""How much memory an expression may build, worked out from its checked syntax tree before anybody is judged by it.

An evaluation inside this process cannot be given a limit of its own, and the engine's budget counts steps and not
bytes: four loops of joins in 212 characters built 5 GiB. So each part of an expression is bounded from above by the
size of its value and by what evaluating it builds, in bytes. Inputs are capped (:mod:`policies.inputs`) and cost
nothing to read. Inside a loop the sizes of a list's elements are not known but add up to the size of the list; so both
bounds are linear forms in the size of one element of each loop around: ``{"": 32.0, "1": 2.0}`` is 32 bytes and twice
an element of loop 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from policies.cel_ast import Node
from policies.inputs import MAX_BYTES, MAX_ITEMS, MAX_STRING

MAX_BUILT = 256 << 20
"""Most bytes that one expression may build."""

_BUDGET = 10_000  # turns of all loops of an evaluation together; the engine's own
_CELL = 96  # one value of the engine, seen as 72 bytes in a list of numbers
_COPIED = 40  # an entry of a list that a loop copies when it adds one more, which it does every turn; seen as 28
_TEXT = 4 * MAX_STRING
_ACCUMULATOR = "@"
_JOIN, _CHOICE, _ENTRY = "_+_", "_?_:_", "_[_]"

Form = Mapping[str, float]


@dataclass(frozen=True)
class _Bound:
    """Of one part: the size of its value, what evaluating it builds, its entries where it is a list, and its source."""

    size: Form
    built: Form
    entries: float = 1.0
    given: bool = False


def most_built(tree: Node) -> float:
    """Most bytes that one evaluation of an expression builds beside its inputs."""
    return _bound(tree, {}, 1.0).built.get("", 0.0)


def _bound(node: Node, scope: Mapping[str, _Bound], turns: float) -> _Bound:
    """Bounds a part that is evaluated ``turns`` times at most; ``scope`` holds the variables of the loops around."""
    if node.kind == "comprehension":
        return _loop(node, scope, turns)
    if node.kind == "const":
        length = len(node.value) if isinstance(node.value, str | bytes) else 0
        return _Bound({"": _CELL + 4.0 * length}, {}, given=True)
    if node.kind == "ident":
        if node.type == "number":
            return _Bound({"": _CELL}, {}, given=True)
        name = _ACCUMULATOR if str(node.value).startswith(_ACCUMULATOR) else str(node.value)
        return scope.get(name) or _given(node, {})
    parts = [_bound(child, scope, turns) for child in node.children]
    built = _sum(part.built for part in parts)
    if node.kind == "select" or (node.kind == "call" and node.value == _ENTRY):
        return _inside(node, parts[0], built)
    whole = _sum(part.size for part in parts)
    if node.kind in ("list", "struct"):
        size = _sum((whole, {"": _CELL * (len(parts) + 1.0)}))
        return _Bound(size, _sum((built, size)), float(len(parts)))
    if node.value == _CHOICE:
        return _Bound(_most(part.size for part in parts[1:]), built, max(part.entries for part in parts[1:]))
    if node.type in ("text", "list", "other"):
        entries = sum(part.entries for part in parts) if node.value == _JOIN else _BUDGET
        return _Bound(whole, _sum((built, whole)), entries)
    return _Bound({"": _CELL}, built)


def _inside(node: Node, owner: _Bound, built: Form) -> _Bound:
    """A field of a message or an entry of a list: no larger than what it lies in, and capped where that was given."""
    if node.test_only or node.type == "number":
        return _Bound({"": _CELL}, built)
    if owner.given and not any(owner.size.get(key) for key in owner.size if key):
        return _given(node, built)
    return _Bound(owner.size, built, MAX_ITEMS if owner.given else _BUDGET, owner.given)


def _given(node: Node, built: Form) -> _Bound:
    """A part of the question or a limit, by its type."""
    size = {"number": _CELL, "text": _TEXT}.get(node.type, MAX_BYTES + MAX_ITEMS * _CELL)
    return _Bound({"": float(size)}, built, MAX_ITEMS, given=True)


def _loop(node: Node, scope: Mapping[str, _Bound], turns: float) -> _Bound:
    over, start = (_bound(child, scope, turns) for child in node.children[:2])
    count = min(over.entries, _BUDGET / turns)
    # Two loops around each other may call their elements alike; the number of variables around tells them apart.
    key = str(len(scope) + 1)
    element = _Bound({key: 1.0}, {}, MAX_ITEMS if over.given else _BUDGET, over.given)
    inner = {**scope, f"#{key}": element, str(node.value): element, _ACCUMULATOR: _Bound({}, {}, 0.0)}
    check, step = (_bound(child, inner, turns * count) for child in node.children[2:4])

    def together(one: Form) -> Form:
        """Over all turns: what does not depend on the element once a turn, the elements once the whole list."""
        rest = {name: count * amount for name, amount in one.items() if name != key}
        return _sum((rest, _times(over.size, one.get(key, 0.0))))

    size = _sum((start.size, together(step.size)))
    copied = count * over.entries / 2 * _COPIED if node.children[3].type == "list" else 0.0
    built = _sum((over.built, start.built, together(step.built), together(check.built), {"": copied}))
    whole = _Bound(size, {}, start.entries + count * step.entries)
    result = _bound(node.children[4], {**scope, _ACCUMULATOR: whole}, turns)
    return _Bound(result.size, _sum((built, result.built)), result.entries, result.given)


def _sum(forms: Iterable[Form]) -> Form:
    out: dict[str, float] = {}
    for form in forms:
        for name, amount in form.items():
            out[name] = out.get(name, 0.0) + amount
    return out


def _most(forms: Iterable[Form]) -> Form:
    out: dict[str, float] = {}
    for form in forms:
        for name, amount in form.items():
            out[name] = max(out.get(name, 0.0), amount)
    return out


def _times(form: Form, factor: float) -> Form:
    return {name: amount * factor for name, amount in form.items()}
