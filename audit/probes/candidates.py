"""Values that could stand where an identifier stands: what an attacker who knows the form would have to choose from."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np

from audit.probes.corpus import normal

_TRIES = 50
_ALPHABETS: dict[str, str] = {
    "Lu": "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "Ll": "abcdefghijklmnopqrstuvwxyz",
    "Nd": "0123456789",
}


def alike(value: str, rng: np.random.Generator) -> str:
    """A random value of the same form: each letter or digit replaced by one of its own kind and script.

    Letters outside ASCII are replaced by neighbours of the same Unicode category within sixteen code points, so that
    a name in Greek stays one in Greek; everything else stays.
    """
    return "".join(_like(c, rng) for c in value)


def candidates(value: str, pool: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
    """``count`` distinct alternatives to ``value``: drawn from the pool, the rest made up in the value's own form.

    Fewer when the form has no more values to give.
    """
    taken = {normal(value)}
    out: list[str] = []
    order = [pool[int(i)] for i in rng.permutation(len(pool))]
    made = (alike(value, rng) for _ in range(_TRIES * count))
    for other in _chain(order, made):
        if len(out) == count:
            break
        if normal(other) not in taken:
            taken.add(normal(other))
            out.append(other)
    return out


def _chain(first: Iterable[str], second: Iterable[str]) -> Iterable[str]:
    yield from first
    yield from second


def _like(c: str, rng: np.random.Generator) -> str:
    category = unicodedata.category(c)
    if c.isascii():
        alphabet = _ALPHABETS.get(category, "")
    elif category[0] == "L" or category == "Nd":
        near = (chr(k) for k in range(max(128, ord(c) - 16), ord(c) + 17))
        alphabet = "".join(n for n in near if unicodedata.category(n) == category)
    else:
        alphabet = ""
    return alphabet[int(rng.integers(len(alphabet)))] if alphabet else c
