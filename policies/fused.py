"""Many rules in one evaluation: a list of answers, one a rule, for the common case in which nothing goes wrong.

Most of what a small CEL expression costs is the call into the engine. So the rules of a question are compiled once more
as one list expression whose n-th entry says what the n-th rule says. An error in any of them makes the whole list an
error; then, and for every rule that does not simply hold, the rule is asked by itself (:mod:`policies.asking`), and
that answer counts. Here nothing is decided that asking one by one would decide otherwise, which the tests show.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from assay.v1 import policy_pb2
from policies import asking, bounds
from policies.cel import Activation, CompileError, Environment, EvaluationError, Expression
from policies.rule import Rule

NOT_APPLICABLE, HOLDS, FAILS = 0, 1, 2
_KEPT = 256
_CHUNK = 40
"""Rules in one list: the iteration budget of the engine is shared by them, and its parser has a limit on length."""


@dataclass(frozen=True)
class Fused:
    """Rules compiled together.

    Attributes:
        rules: in order.
        chunks: list expressions over them; empty where they could not be compiled together, or may build too much.
        passed: the outcome of each when it holds, as the wire bytes of one entry of ``Decision.outcomes``.
        passed_over: the same for when its conditions do not hold.
        others: outcomes of the rules that are not in force, already written.
        plain: whether a rule asks for no fact and no artefact beside its condition.
        written: outcomes already written, by answers in which every rule held or did not apply, and by the artefacts at
            hand, whose digests outcomes quote.
        more: places of the rules that ask for facts or artefacts.
    """

    rules: tuple[Rule, ...]
    chunks: tuple[Expression, ...]
    passed: tuple[bytes, ...]
    passed_over: tuple[bytes, ...]
    others: bytes
    plain: tuple[bool, ...]
    written: dict[tuple[Any, ...], bytes] = field(default_factory=dict, repr=False, compare=False)
    more: tuple[int, ...] = ()

    def keep(self, answers: tuple[Any, ...], outcomes: bytes) -> None:
        """Keeps the outcomes of a question in which every rule held or did not apply; ``answers`` as in ``written``."""
        if len(self.written) >= _KEPT:
            self.written.clear()
        self.written[answers] = outcomes

    @classmethod
    def of(cls, rules: Sequence[Rule], environment: Environment, others: bytes = b"") -> Fused:
        """Compiles boolean rules together."""
        try:
            chunks = tuple(environment.compile(_list(part), cap=False) for part in _batched(rules))
        except CompileError:
            chunks = ()
        if any(bounds.most_built(chunk.tree) > bounds.MAX_BUILT for chunk in chunks):
            chunks = ()
        return cls(
            tuple(rules),
            chunks,
            tuple(entry(asking.describe(rule, policy_pb2.OUTCOME_PASS)) for rule in rules),
            tuple(entry(asking.not_applicable(rule)) for rule in rules),
            others,
            tuple(not rule.needs and not rule.artefacts for rule in rules),
            more=tuple(i for i, rule in enumerate(rules) if rule.needs or rule.artefacts),
        )

    def answers(self, activation: Activation) -> list[int] | None:
        """What each rule says; None when one of them cannot be evaluated, or says something odd."""
        if not self.chunks:
            return None
        try:
            out = [answer for chunk in self.chunks for answer in chunk.value(activation)]
        except EvaluationError:
            return None
        return out if len(out) == len(self.rules) else None


def entry(outcome: policy_pb2.RuleOutcome) -> bytes:
    """The wire bytes of one entry of ``Decision.outcomes`` (field 2, length-delimited)."""
    return policy_pb2.Decision(outcomes=[outcome]).SerializeToString()


def _list(rules: Sequence[Rule]) -> str:
    # The line end closes a comment that an expression may end with.
    return "[" + ",".join(_entry(rule) for rule in rules) + "]"


def _entry(rule: Rule) -> str:
    body = f"(({rule.check.source}\n) ? {HOLDS} : {FAILS})"
    return body if rule.applies.source == "true" else f"(({rule.applies.source}\n) ? {body} : {NOT_APPLICABLE})"


def _batched(rules: Sequence[Rule]) -> Iterator[Sequence[Rule]]:
    for start in range(0, len(rules), _CHUNK):
        yield rules[start : start + _CHUNK]
