"""The smallest change of a request that would pass: found by asking again, never guessed.

A rule names moves that may mend it (``repair``); here they are tried. A number is moved no further than it must be, by
bisection over questions that are really asked; a step without which the request would pass as well is left out. What a
move does to the facts of the rows is worked out below; that it does so in the file itself, the preparation will show.

Words that would pass are not words that are true. No pack has a move for how sensitive the data is or where it must
stay, and a step that declares anything else says whom it would be false of, were it written to pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from assay.v1 import policy_input_pb2, policy_pb2
from policies import inputs
from policies.artefacts import HANDED_IN, KINDS
from policies.cel import EvaluationError
from policies.engine import PolicyEngine
from policies.rule import GOOD, Repair, Rule
from policies.template import number

Question = policy_input_pb2.IntakeInput
Derive = Callable[[Question], None]
"""Works out again what follows from a changed request: planned tokens, quote, facts of another base model."""

MAX_QUESTIONS = 2000
_MOST_ROWS = 1 << 20
_NO_DOCUMENT = "0" * 64
_ROW_MOVES = ("redact_rows", "drop_rows", "drop_invalid", "add_rows")
_KINDS = {
    "set": policy_pb2.FixStep.KIND_DECLARE,
    "clear": policy_pb2.FixStep.KIND_DECLARE,
    "lower": policy_pb2.FixStep.KIND_LOWER_NUMBER,
    "raise": policy_pb2.FixStep.KIND_RAISE_NUMBER,
    "redact_rows": policy_pb2.FixStep.KIND_REDACT_SPANS,
    "drop_rows": policy_pb2.FixStep.KIND_DROP_ROWS,
    "drop_invalid": policy_pb2.FixStep.KIND_DROP_ROWS,
    "add_rows": policy_pb2.FixStep.KIND_ADD_ROWS,
    "artefact": policy_pb2.FixStep.KIND_ADD_ARTEFACT,
}


@dataclass(frozen=True)
class Step:
    """One move with its amount: the value to set, the number to reach, the rows concerned, or the kinds to hand in."""

    rule: Rule
    repair: Repair
    amount: Any


def planned_tokens(question: Question) -> None:
    """The least that follows from a change: tokens from epochs and trials, and a quote that keeps its price a token."""
    request, before = question.request, question.request.planned_train_tokens
    passes = request.epochs * inputs.trials(request.search)
    request.planned_train_tokens = math.ceil(question.data.train_tokens * passes)
    if before:
        request.quote_usd_micros = math.ceil(request.quote_usd_micros * request.planned_train_tokens / before)


def minimal_fix(engine: PolicyEngine, question: Question, derive: Derive = planned_tokens) -> policy_pb2.MinimalFix:
    """Searches the smallest change by which ``question`` would be allowed; empty when it is allowed already."""
    return _Search(engine, question, derive).run()


def apply(question: Question, steps: Sequence[Step], derive: Derive = planned_tokens) -> Question:
    """The question after some steps."""
    out = Question()
    out.CopyFrom(question)
    for step in steps:
        _move(out, step)
        derive(out)
    return out


@dataclass
class _Search:
    engine: PolicyEngine
    question: Question
    derive: Derive
    asked: int = 0
    steps: list[Step] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def run(self) -> policy_pb2.MinimalFix:
        fired = self._fired(self.steps)
        while fired and self.asked < MAX_QUESTIONS:
            rule = next((r for r in self.engine.pack.rules if r.id in fired and r.id not in self.left), None)
            if rule is None:
                break
            found = self._repair(rule, fired)
            if found is None:
                self.left.append(rule.id)
            else:
                self.steps.append(found)
            fired = self._fired(self.steps)
        known = {rule.id for rule in self.engine.pack.rules}
        # What no rule says, such as that no audit can be planned, no step mends.
        self.left += [name for name in sorted(fired) if name not in self.left and name not in known]
        self._prune(fired)
        out = policy_pb2.MinimalFix(left=self.left, questions=self.asked)
        before = self.question
        for i, step in enumerate(self.steps):
            out.steps.append(_describe(before, step, self._mended(i)))
            before = apply(self.question, self.steps[: i + 1], self.derive)
        return out

    def _fired(self, steps: Sequence[Step]) -> frozenset[str]:
        self.asked += 1
        decision = self.engine.decide(apply(self.question, steps, self.derive))
        return frozenset(outcome.rule_id for outcome in decision.outcomes if outcome.outcome not in GOOD)

    def _repair(self, rule: Rule, fired: frozenset[str]) -> Step | None:
        """The first move that makes the rule pass and nothing else fire; else the first that makes it pass."""
        fallback: Step | None = None
        tried = {(step.rule.id, step.repair) for step in self.steps}
        for repair in rule.repairs:
            step = self._sized(rule, repair) if (rule.id, repair) not in tried else None
            if step is None:
                continue
            after = self._fired([*self.steps, step])
            if rule.id not in after and after <= fired:
                return step
            if rule.id not in after and fallback is None:
                fallback = step
        return fallback

    def _sized(self, rule: Rule, repair: Repair) -> Step | None:
        now = apply(self.question, self.steps, self.derive)

        def passes(amount: Any) -> bool:
            return rule.id not in self._fired([*self.steps, Step(rule, repair, amount)])

        if repair.move == "artefact":
            kinds = tuple(kind for kind in rule.artefacts if kind in HANDED_IN)
            return Step(rule, repair, kinds) if kinds else None
        if repair.move == "clear":
            return Step(rule, repair, None)
        if repair.move == "set":
            try:
                return Step(rule, repair, self.engine.value(now, repair.to)) if repair.to is not None else None
            except EvaluationError:
                return None
        found: float | None
        if repair.move in ("lower", "raise") and not _stated(now, repair.field):
            return None
        if repair.move in _ROW_MOVES:
            most = _most_rows(now, repair.move)
            found = _smallest(passes, 1, most) if most > 0 else None
        elif repair.move == "raise":
            found = _smallest(passes, int(_read(now, repair.field)) + 1, 1 << 52)
        else:
            found = _largest(passes, _read(now, repair.field))
        return Step(rule, repair, found) if found is not None else None

    def _prune(self, fired: frozenset[str]) -> None:
        """Leaves out steps that turned out not to be needed, the oldest first."""
        for step in list(self.steps):
            rest = [other for other in self.steps if other is not step]
            if self._fired(rest) <= fired:
                self.steps = rest

    def _mended(self, index: int) -> list[str]:
        """Rules that stand in the way without the step, and do not with it."""
        without = [step for i, step in enumerate(self.steps) if i != index]
        return sorted(self._fired(without) - self._fired(self.steps))


def _smallest(passes: Callable[[int], bool], low: int, high: int) -> int | None:
    """Smallest whole number that passes, taking it that larger ones do too; None where none below ``high`` does."""
    width = 1
    while not passes(min(low + width - 1, high)):
        if low + width - 1 >= high:
            return None
        low, width = low + width, 2 * width
    top = min(low + width - 1, high)
    while low < top:
        middle = (low + top) // 2
        low, top = (low, middle) if passes(middle) else (middle + 1, top)
    return top


def _largest(passes: Callable[[Any], bool], now: float | int) -> float | int | None:
    """Largest number below ``now`` that passes, to three digits; None where not even a hundredth of it does."""
    whole = isinstance(now, int)
    low, high = now / 100, float(now)
    if not passes(int(low) if whole else low):
        return None
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if passes(int(middle) if whole else middle) else (low, middle)
    if whole:
        return int(low)
    digits = 2 - math.floor(math.log10(low)) if low > 0 else 2
    rounded = math.floor(low * 10**digits) / 10**digits
    return rounded if rounded > 0 and passes(rounded) else low


def _move(question: Question, step: Step) -> None:
    move, amount, data = step.repair.move, step.amount, question.data
    if move in ("set", "lower", "raise"):
        _write(question, step.repair.field, amount)
    elif move == "clear":
        owner, name = _owner(question, step.repair.field)
        owner.ClearField(name)
    elif move == "artefact":
        known = {item.kind for item in question.request.use.artefacts}
        for kind in amount:
            if kind not in known:
                question.request.use.artefacts.add(kind=kind, sha256=_NO_DOCUMENT)
    elif move == "redact_rows":
        data.pii_row_share = max(0, _flagged(question) - amount) / max(1, data.valid_rows)
        del data.pii_rows[:amount]
    elif move == "drop_invalid":
        data.rows, data.invalid_rows = data.rows - amount, data.invalid_rows - amount
        del data.findings[:amount]
    elif move == "drop_rows":
        flagged = _flagged(question)
        _resize(data, -amount)
        data.pii_row_share = max(0, flagged - amount) / max(1, data.valid_rows)
        del data.pii_rows[:amount]
    else:
        _resize(data, amount)


def _resize(data: policy_input_pb2.DataFacts, by: int) -> None:
    """Adds or takes away valid rows; splits, tokens and counts keep their proportions, rounded down.

    Where rows are added and the facts tell the plan of the splits, it decides: a small split that has more than its
    share, since splits have floors, gets no more until its share is reached.
    """
    old = max(1, data.valid_rows - data.duplicate_rows)
    ratio = max(0, old + by) / old
    data.rows, data.valid_rows = max(0, data.rows + by), max(0, data.valid_rows + by)
    for name in ("train_rows", "validation_rows", "selection_rows", "test_rows", "train_tokens"):
        share = data.split_shares.get(name.removesuffix("_rows"), 0.0) if by > 0 else 0.0
        now = getattr(data, name)
        setattr(data, name, max(now, math.floor(share * (old + by))) if share else math.floor(now * ratio))
    for counts in (data.label_counts, data.group_counts, data.test_group_counts):
        for key in list(counts):
            counts[key] = math.floor(counts[key] * ratio)


def _flagged(question: Question) -> int:
    return round(question.data.pii_row_share * question.data.valid_rows)


def _most_rows(question: Question, move: str) -> int:
    if move == "add_rows":
        return _MOST_ROWS
    return int(question.data.invalid_rows) if move == "drop_invalid" else _flagged(question)


def _owner(question: Message, path: str) -> tuple[Any, str]:
    *steps, name = path.split(".")
    owner: Any = question
    for step in steps:
        owner = getattr(owner, step)
    return owner, name


def _read(question: Question, path: str) -> Any:
    owner, name = _owner(question, path)
    return getattr(owner, name)


def _stated(question: Question, path: str) -> bool:
    """A number that was left open is neither lowered nor raised."""
    owner, name = _owner(question, path)
    return not owner.DESCRIPTOR.fields_by_name[name].has_presence or owner.HasField(name)


def _write(question: Question, path: str, value: Any) -> None:
    owner, name = _owner(question, path)
    if owner.DESCRIPTOR.fields_by_name[name].is_repeated:
        owner.ClearField(name)
        getattr(owner, name).extend(value)
    elif isinstance(value, Message):
        getattr(owner, name).CopyFrom(value)
    else:
        setattr(owner, name, value)


def _describe(before: Question, step: Step, mended: Sequence[str]) -> policy_pb2.FixStep:
    move, name = step.repair.move, step.repair.field
    out = policy_pb2.FixStep(kind=_KINDS[move], field=name, rule_ids=mended or [step.rule.id])
    if move == "artefact":
        out.field = ", ".join(step.amount)
        out.after = "handed in"
        out.words = f"Hand in {', '.join(f'{kind} ({KINDS[kind]})' for kind in step.amount)}."
    elif move in _ROW_MOVES:
        out.field, out.after = "data.rows", str(step.amount)
        listed = before.data.pii_rows if move in ("redact_rows", "drop_rows") else [f.row for f in before.data.findings]
        out.rows.extend([] if move == "add_rows" else listed[: min(100, step.amount)])
        out.words = _ROW_WORDS[move].format(step.amount)
    else:
        out.before = _text(before, name, _read(before, name)) if _stated(before, name) else "nothing"
        out.after = "" if move == "clear" else _text(before, name, step.amount)
        out.words = _said(move, name, out.before, out.after)
    return out


def _said(move: str, name: str, before: str, after: str) -> str:
    """A change of one field in words; where it states a fact, with who answers for it."""
    if move == "clear":
        return f"Do not ask for {name}."
    answers = next((who for owned, who in _DECLARED.items() if name.startswith(owned)), "")
    word = {"lower": "Lower", "raise": "Raise"}.get(move, "Declare" if answers else "Set")
    true = f", where it is true; {answers} answers for it" if answers else ""
    return f"{word} {name}: {before} now, {after} would pass{true}."


_DECLARED = {
    "datasheet.": "the owner of the data",
    **dict.fromkeys(("request.purpose", "request.use.", "request.teacher."), "whoever asks"),
}
"""Fields that state a fact, and who answers for it; what else a request holds is what somebody wants."""
_ROW_WORDS = {
    "redact_rows": "Redact the personal data in {:,} of the flagged rows.",
    "drop_rows": "Leave {:,} of the flagged rows out.",
    "drop_invalid": "Mend or leave out {:,} of the rows that could not be read.",
    "add_rows": "Add {:,} distinct rows of the same kind.",
}


def _text(question: Message, path: str, value: Any) -> str:
    owner, name = _owner(question, path)
    described: FieldDescriptor = owner.DESCRIPTOR.fields_by_name[name]
    if described.enum_type is not None and not described.is_repeated:
        return str(described.enum_type.values_by_number[value].name)
    if described.is_repeated:
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, Message):
        return ", ".join(f"{field.name} {_text(value, field.name, item)}" for field, item in value.ListFields())
    if isinstance(value, bool):
        return "true" if value else "false"
    return number(value) if isinstance(value, float) else str(value) or "nothing"
