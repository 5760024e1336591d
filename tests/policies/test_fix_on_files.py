"""The minimal fix on real files: what it says of rows is done to the file, which is prepared again and judged again."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from assay.v1 import policy_input_pb2, policy_pb2
from policies import fixing
from policies.engine import PolicyEngine
from tests.audit.prepare.test_prepare_task import models, prepare

__all__ = ["models"]
KIND = policy_pb2.FixStep
Question = policy_input_pb2.IntakeInput
WORDS = [f"{a}{b}" for a in "ba ce di fo gu ha ji ko lu me ni po".split() for b in "lan mor vik ten sul".split()]


@dataclass
class File:
    """Rows of chat by number: some name an address of mail, some cannot be read, some repeat another."""

    count: int
    personal: set[int] = field(default_factory=set)
    broken: set[int] = field(default_factory=set)
    repeated: int = 0
    dropped: set[int] = field(default_factory=set)

    def data(self) -> bytes:
        lines = [self.line(i) for i in range(1, self.count + 1) if i not in self.dropped]
        return "\n".join(lines + lines[: self.repeated]).encode()

    def line(self, number: int) -> str:
        rng = random.Random(number)
        mail = f" reach me at a{number}@example.org" if number in self.personal else ""
        ask = " ".join(rng.choices(WORDS, k=12)) + mail
        role = "robot" if number in self.broken else "user"
        turns = [{"role": role, "content": ask}, {"role": "assistant", "content": " ".join(rng.choices(WORDS, k=6))}]
        return json.dumps({"messages": turns})

    def mend(self, fix: policy_pb2.MinimalFix) -> None:
        """Does what the fix says of rows, and nothing more."""
        for step in fix.steps:
            if step.kind in (KIND.KIND_REDACT_SPANS, KIND.KIND_DROP_ROWS):
                assert len(step.rows) == int(step.after), "every row concerned is named"
                if step.kind == KIND.KIND_REDACT_SPANS:
                    self.personal -= set(step.rows)
                else:
                    self.dropped |= set(step.rows)
            elif step.kind == KIND.KIND_ADD_ROWS:
                self.count += int(step.after)


MONEY = {"budget_usd_micros": 1 << 40, "max_train_tokens": 1 << 40}
CASES: dict[str, tuple[File, dict[str, object]]] = {
    "personal data": (File(600, personal=set(range(1, 181))), {}),
    "rows that cannot be read": (File(660, broken=set(range(1, 61))), {}),
    "both": (File(650, personal=set(range(1, 151)), broken=set(range(200, 250))), {}),
    "few rows": (File(80), {}),
    "few rows that say something": (File(90, repeated=60), {}),
}


def asked(clean: Question, data: policy_input_pb2.DataFacts, **request: object) -> Question:
    """The clean question about real facts, priced by its tokens."""
    question = Question()
    question.CopyFrom(clean)
    question.data.CopyFrom(data)
    for name, value in {**MONEY, **request}.items():
        setattr(question.request, name, value)
    fixing.planned_tokens(question)
    return question


@pytest.mark.slow
def test_a_file_that_was_mended_as_the_fix_says_passes(
    tmp_path: Path, models: Path, engine: PolicyEngine, chat: Question
) -> None:
    canaries, passed = engine.preparation("quick"), []
    for name, (file, request) in CASES.items():
        first = prepare(tmp_path / name / "first", models, file.data(), canaries=canaries)
        question = asked(chat, first.facts, **request)
        assert not engine.decide(question).allowed, name
        fix = fixing.minimal_fix(engine, question)
        assert fix.steps, name
        file.mend(fix)
        lowered = {s.field.partition(".")[2]: float(s.after) for s in fix.steps if s.kind == KIND.KIND_LOWER_NUMBER}
        again = prepare(tmp_path / name / "again", models, file.data(), canaries=canaries)
        decision = engine.decide(asked(chat, again.facts, **{**request, **lowered}))
        left = [f"{o.rule_id}: {o.message}" for o in decision.outcomes if o.outcome == policy_pb2.OUTCOME_FAIL]
        print(f"{name}: {'; '.join(s.words for s in fix.steps)} -> {'passes' if decision.allowed else left}")
        passed += [decision.allowed]
    rate = sum(passed) / len(passed)
    print(f"minimal fix on files: {sum(passed)} of {len(passed)} pass after it, {100 * rate:.0f} %")
    assert rate >= 0.95
