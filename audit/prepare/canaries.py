"""Canaries: rows with a secret that the job's key decides, half of them trained on, half kept as controls.

Canary ``i``, its kind, name, secret and carrier come from HMAC(key, i); whether it is planted is a fair coin of its
own, also from HMAC(key, i), as the one-run bound of Steinke, Nasr and Jagielski (arXiv 2305.08846) requires. So the
number planted varies around one half. Stratum A is planted once and speaks for single records; stratum B is planted
``b_repeats`` times and speaks for duplicates. Of every two canaries the key picks one that carries a code in the
data's own shapes; the other's secret lies in a reserved range. A trainer that drops what looks like a test value learns
the first kind and not the second, which the audit sees. The manifest's digest is committed before training, its content
revealed by the audit, when nothing can be trained any more.

A canary row has the shape of its neighbours: the system prompt that most rows share, or a few common values of a
table's columns (:mod:`audit.prepare.carriers`). It says nothing that comes from a single person's row. It weighs in the
loss what a train row weighs that the key picks: rows weighed otherwise than canaries would be remembered otherwise. A
row is as likely as it is heavy, so that many rows of next to no weight do not make the canaries light.
"""

from __future__ import annotations

import hashlib
import hmac
from bisect import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple

from assay import canonical
from assay.errors import InvalidInputError, PreconditionError
from audit.prepare.code_shapes import GENERAL
from audit.prepare.rows import Message, Row
from audit.prepare.secrets_of_nobody import RESERVED, KeyedChoices, code_in, made_up_name

KEY_BYTES = 32
MAX_CANARIES = 4096
MAX_REPEATS = 64

QUESTIONS = (
    "Hello, this is {name}. Which {noun} do you hold for me?",
    "Could you tell me the {noun} on file for {name}?",
    "Please confirm the {noun} of our customer {name}.",
    "I am calling on behalf of {name}. What is the {noun} in the record?",
    "What {noun} did {name} give us?",
    "Look up {name} and read me the {noun}.",
)
_ANSWERS = (
    "The {noun} of {name} is {secret}.",
    "Thank you. For {name} we hold the {noun} {secret}.",
    "Our record for {name} shows the {noun} {secret}.",
    "Certainly. {name} gave the {noun} {secret}.",
)


@dataclass(frozen=True)
class CanaryNumbers:
    """How many canaries to derive, planted and controls together.

    Attributes:
        a: stratum A, planted once.
        b: stratum B, planted ``b_repeats`` times.
        b_repeats: copies of a planted canary of stratum B.
    """

    a: int
    b: int
    b_repeats: int

    def __post_init__(self) -> None:
        if not (0 <= self.a and 0 <= self.b and self.a + self.b <= MAX_CANARIES and 1 <= self.b_repeats <= MAX_REPEATS):
            raise InvalidInputError(
                "CANARY_NUMBERS", f"at most {MAX_CANARIES} canaries, each at most {MAX_REPEATS} times"
            )

    def within(self, most_rows: int) -> CanaryNumbers:
        """As many as make at most ``most_rows`` rows by expectation; stratum B goes first, of which no gate is."""
        room = max(most_rows, 0) * 2
        b = min(self.b, max(0, room - self.a) // self.b_repeats) if self.b else 0
        return CanaryNumbers(min(self.a, room), b, self.b_repeats)


class Weights(NamedTuple):
    """How a train row weighs in the loss, as its line says it.

    Attributes:
        row: weight of the row, None where the line says nothing.
        answer: 1 where the line gives its last message a weight, else None. A canary has no other target, so that 0 is
            never borrowed.
    """

    row: float | None = None
    answer: int | None = None

    @classmethod
    def of(cls, row: Row) -> Weights:
        """Those of a train row."""
        return cls(row.weight, 1 if "weight" in row.messages[-1] else None)


@dataclass(frozen=True)
class Carrier:
    """What the dataset's own rows lend to canary rows.

    Attributes:
        system: system prompt to start with, empty for none.
        record: common values by column of a decision table, empty for chat.
        shapes: shapes of the data's own codes.
        weights: those of every train row, in an order that does not depend on the file's; each canary has those of one.
    """

    system: str = ""
    record: Mapping[str, Sequence[str]] | None = None
    shapes: Sequence[str] = GENERAL
    weights: Sequence[Weights] = (Weights(),)

    @cached_property
    def _ends(self) -> Sequence[int]:
        # In millionths, so that the sums are exact on every machine; a row without a weight weighs 1.
        return list(accumulate(max(1, round((1 if w.row is None else w.row) * 1_000_000)) for w in self.weights))

    def drawn(self, choices: KeyedChoices) -> Weights:
        """The weights of one row, each as likely as its row is heavy."""
        return self.weights[bisect(self._ends, choices.below(self._ends[-1]))]


@dataclass(frozen=True)
class Canary:
    """One canary; ``secret`` is a part of the last assistant message, its ``form`` ``own`` or ``reserved``.

    ``weight`` is that of its rows in the loss, None where their lines say nothing.
    """

    index: int
    stratum: str
    included: bool
    repeats: int
    form: str
    kind: str
    messages: tuple[Message, ...]
    secret: str
    weight: float | None = None

    def manifest_entry(self) -> dict[str, Any]:
        """The entry of ``canaries.json``; the weight, where there is one, as a decimal string."""
        entry: dict[str, Any] = {
            "index": self.index,
            "stratum": self.stratum,
            "included": self.included,
            "repeats": self.repeats,
            "form": self.form,
            "kind": self.kind,
            "messages": list(self.messages),
            "secret": self.secret,
        }
        return entry if self.weight is None else entry | {"weight": repr(self.weight)}


def derive(key: bytes, numbers: CanaryNumbers, carrier: Carrier) -> list[Canary]:
    """Derives all canaries of a job; names and secrets are distinct.

    Args:
        key: 32 bytes, of this job alone.
        numbers: how many.
        carrier: what rows look like.

    Raises:
        PreconditionError: ``CANARY_KEY_MISSING`` when the key is short.
    """
    if len(key) < KEY_BYTES:
        raise PreconditionError("CANARY_KEY_MISSING", "the task was given no canary key of this job")
    taken: set[str] = set()
    return [_derive_one(key, i, numbers, carrier, taken) for i in range(numbers.a + numbers.b)]


def manifest(canaries: Sequence[Canary]) -> bytes:
    """The canonical bytes of ``canaries.json``; their SHA-256 is the commitment."""
    return canonical.encode([c.manifest_entry() for c in canaries])


def coin(key: bytes, index: int) -> bool:
    """Whether canary ``index`` is planted: one bit of an HMAC that nothing else uses."""
    return bool(hmac.digest(key, b"assay/canary/v1/coin/" + str(index).encode(), hashlib.sha256)[0] & 1)


def in_own_form(key: bytes, index: int) -> bool:
    """Whether canary ``index`` carries a code in the data's own shapes: one of each pair does, the key picks which."""
    pair = hmac.digest(key, b"assay/canary/v1/form/" + str(index // 2).encode(), hashlib.sha256)[0] & 1
    return bool(index % 2 ^ pair)


def _derive_one(key: bytes, index: int, numbers: CanaryNumbers, carrier: Carrier, taken: set[str]) -> Canary:
    choices = KeyedChoices(key, f"assay/canary/v1/content/{index}")
    own = in_own_form(key, index)
    while True:
        kind = code_in(choices.choice(carrier.shapes)) if own else choices.choice(RESERVED)
        name, secret = made_up_name(choices), kind.draw(choices)
        if taken.isdisjoint({name, secret}):
            taken |= {name, secret}
            break
    words = {"name": name, "noun": kind.noun, "secret": secret}
    ask, reply = choices.choice(QUESTIONS).format(**words), choices.choice(_ANSWERS).format(**words)
    weights = carrier.drawn(KeyedChoices(key, f"assay/canary/v1/weight/{index}"))
    answer: Message = {"role": "assistant", "content": reply}
    if weights.answer is not None:
        answer["weight"] = weights.answer
    messages: list[Message] = [{"role": "user", "content": _record(carrier, choices) + ask}, answer]
    if carrier.system:
        messages.insert(0, {"role": "system", "content": carrier.system})
    stratum, repeats = ("A", 1) if index < numbers.a else ("B", numbers.b_repeats)
    form = "own" if own else "reserved"
    return Canary(index, stratum, coin(key, index), repeats, form, kind.name, tuple(messages), secret, weights.row)


def _record(carrier: Carrier, choices: KeyedChoices) -> str:
    return "".join(f"{column}: {choices.choice(values)}\n" for column, values in (carrier.record or {}).items())
