"""Re-decides questions that were decided before, under another bundle or on another day, and says what would change."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass

from assay.v1 import policy_input_pb2, policy_pb2
from policies.engine import PolicyEngine
from policies.rule import GOOD


@dataclass(frozen=True)
class Decided:
    """A question as it was stored, and what it was answered.

    Attributes:
        name: resource name of the job.
        question: as policy was asked.
        passed: it was allowed, or its verdict was PASS.
        fired: ids of the rules that stood in the way.
        as_of: day whose rules were applied.
    """

    name: str
    question: policy_input_pb2.IntakeInput | policy_input_pb2.ReleaseInput
    passed: bool
    fired: frozenset[str]
    as_of: str

    @classmethod
    def of(
        cls,
        name: str,
        question: policy_input_pb2.IntakeInput | policy_input_pb2.ReleaseInput,
        answer: policy_pb2.Decision | policy_pb2.Verdict,
    ) -> Decided:
        """From a stored question and its stored answer."""
        allowed = answer.allowed if isinstance(answer, policy_pb2.Decision) else _passed(answer)
        return cls(name, question, allowed, _fired(answer), answer.as_of)

    @property
    def moment(self) -> str:
        """``decision`` before training, or ``verdict`` after the audits."""
        return "decision" if isinstance(self.question, policy_input_pb2.IntakeInput) else "verdict"


@dataclass(frozen=True)
class Change:
    """One question that is answered otherwise.

    Attributes:
        name: of the job.
        moment: ``decision`` or ``verdict``.
        before, after: whether it passed.
        started: rules that stand in the way now and did not.
        stopped: rules that stood in the way and do not now.
    """

    name: str
    moment: str
    before: bool
    after: bool
    started: tuple[str, ...]
    stopped: tuple[str, ...]

    @property
    def flipped(self) -> bool:
        """The answer itself changes, and not only its reasons."""
        return self.before != self.after


@dataclass(frozen=True)
class Replayed:
    """How many questions were asked again, and which are answered otherwise."""

    questions: int
    changes: tuple[Change, ...]

    @property
    def flips(self) -> tuple[Change, ...]:
        """Changes of the answer itself."""
        return tuple(change for change in self.changes if change.flipped)


def replay(engine: PolicyEngine, decided: Iterable[Decided], as_of: dt.date | None = None) -> Replayed:
    """Asks every question again.

    Args:
        engine: of the bundle to decide by.
        decided: stored questions with their answers.
        as_of: day whose rules apply; None for each question's own day.
    """
    count, changes = 0, []
    for item in decided:
        count += 1
        question = type(item.question)()
        question.CopyFrom(item.question)  # type: ignore[arg-type]  # the two are of one type
        question.as_of = as_of.isoformat() if as_of is not None else item.as_of
        answer: policy_pb2.Decision | policy_pb2.Verdict
        if isinstance(question, policy_input_pb2.IntakeInput):
            answer = engine.decide(question)
        else:
            answer = engine.renew(question) if question.HasField("live") else engine.judge(question)
        now = Decided.of(item.name, question, answer)
        if (now.passed, now.fired) != (item.passed, item.fired):
            started, stopped = sorted(now.fired - item.fired), sorted(item.fired - now.fired)
            changes.append(Change(item.name, item.moment, item.passed, now.passed, tuple(started), tuple(stopped)))
    return Replayed(count, tuple(changes))


def _passed(verdict: policy_pb2.Verdict) -> bool:
    return bool(verdict.outcome == policy_pb2.OUTCOME_PASS)


def _fired(answer: policy_pb2.Decision | policy_pb2.Verdict) -> frozenset[str]:
    return frozenset(outcome.rule_id for outcome in answer.outcomes if outcome.outcome not in GOOD)
