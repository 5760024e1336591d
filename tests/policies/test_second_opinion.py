"""Another implementation of CEL evaluates every rule on every question of the packs' tables, and must agree.

Ours is Google's C++ engine, typed on protobuf; the other is cel-python, written in Python and untyped, so messages are
handed to it as maps: a field with presence that was never set is absent, every other field is there. An error of both
is no agreement: where a rule is asked and no case expects an error, each must answer.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import celpy
import pytest
from celpy import celtypes
from celpy.evaluation import CELEvalError

from assay.v1 import dataset_pb2, policy_pb2
from policies import artefacts, inputs, testing
from policies.cel import Activation, EvaluationError, Expression
from policies.pack import load
from policies.planning import Planner
from policies.rule import AT_INTAKE, Pack, Rule

ERROR = "error"
_FUNCTIONS = {
    "floor": lambda _, x: celtypes.DoubleType(float(x) // 1),
    "round": lambda _, x: celtypes.DoubleType(float(int(abs(float(x)) + 0.5)) * (1 if x >= 0 else -1)),
    "least": lambda _, x, y: min(x, y),
    "ceil": lambda _, x: celtypes.DoubleType(-(-float(x) // 1)),
}
"""The engine's math extension, whose functions are called as methods of ``math``."""
_ENUMS = {
    "LegalBasis": dict(dataset_pb2.LegalBasis.items()), "PiiAction": dict(dataset_pb2.PiiAction.items()), "math": {},
}  # fmt: skip


@pytest.fixture(scope="module")
def bundle() -> Pack:
    return load()


def value(field: Any, item: Any) -> Any:
    """One value of a field as cel-python's type."""
    if field.message_type is not None:
        return message(item)
    if isinstance(item, bool):
        return celtypes.BoolType(item)
    if isinstance(item, int):
        return celtypes.IntType(item)
    return celtypes.DoubleType(item) if isinstance(item, float) else celtypes.StringType(item)


def message(item: Any) -> Any:
    """A message as a map."""
    out = {}
    for field in item.DESCRIPTOR.fields:
        known = getattr(item, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            kind = field.message_type.fields_by_name["value"]
            found: Any = celtypes.MapType({plain(k): value(kind, v) for k, v in known.items()})
        elif field.is_repeated:
            found = celtypes.ListType([value(field, v) for v in known])
        elif field.has_presence and field.message_type is None and not item.HasField(field.name):
            continue
        else:
            found = value(field, known)
        out[celtypes.StringType(field.name)] = found
    return celtypes.MapType(out)


def plain(item: Any) -> Any:
    """A plain Python value, or a message, as cel-python's type."""
    if hasattr(item, "DESCRIPTOR"):
        return message(item)
    if isinstance(item, Mapping):
        return celtypes.MapType({plain(k): plain(v) for k, v in item.items()})
    return celpy.json_to_cel(item) if not isinstance(item, list) else celtypes.ListType([plain(v) for v in item])


def nested(bound: Mapping[str, Any]) -> dict[str, Any]:
    """``limits.power`` as a member of ``limits``."""
    out: dict[str, Any] = {name: plain(item) for name, item in _ENUMS.items()}
    for name, item in bound.items():
        head, _, rest = name.partition(".")
        if rest:
            out.setdefault(head, celtypes.MapType())[celtypes.StringType(rest)] = plain(item)
        else:
            out[head] = plain(item)
    return out


@functools.cache
def program(source: str) -> Any:
    environment = celpy.Environment()
    return environment.program(environment.compile(source), functions=_FUNCTIONS)


def theirs(source: str, context: Mapping[str, Any]) -> Any:
    try:
        answer = program(source).evaluate(dict(context))
    except CELEvalError:
        return ERROR
    if isinstance(answer, celtypes.BoolType):
        return bool(answer)
    return [int(item) for item in answer] if isinstance(answer, celtypes.ListType) else int(answer)


def ours(expression: Expression, activation: Activation) -> Any:
    try:
        return expression.value(activation)
    except EvaluationError:
        return ERROR


def parts(rule: Rule) -> list[Expression]:
    found = [rule.applies, rule.check if rule.gate is None else None, rule.rows, rule.row_count]
    return [part for part in found if part is not None]


def bindings(bundle: Pack, case: testing.Case) -> tuple[Mapping[str, Any], Any, tuple[str, ...]]:
    """What rules see of a case, its environment, and the stages asked."""
    if case.release is None:
        question = testing._dated(case)
        planner, day = Planner(bundle), dt.date.fromisoformat(question.as_of or "2026-11-01")
        needed = planner.needed(question, day)
        seen = {
            **inputs.shared_bindings(question),
            "artefacts": list(artefacts.at_intake(question)),
            "data": question.data, "account": question.account, "base_model": question.base_model,
            "known.pii_spans": planner.known_pii_spans(question),
            "known.pii_rows": planner.known_pii_rows(question),
            "known.prompts": planner.known_prompts(question, day),
            "known.protected_columns": planner.known_columns(question, "protected_columns"),
            "known.special_category_columns": planner.known_columns(question, "special_category_columns"),
            "known.age_columns": planner.known_columns(question, "age_columns"),
            **{f"needed.{k}": v for k, v in needed.items() if f"needed.{k}" in bundle.intake.variables},
        }  # fmt: skip
        asked, environment, profile = AT_INTAKE, bundle.intake, question.request.audit_profile
    else:
        release = testing.release_question(testing.engine_of(bundle, case.pack), case)
        seen = {
            **inputs.shared_bindings(release),
            "artefacts": list(artefacts.at_release(release)),
            "live": release.live, "plan": release.plan, "run": release.run,
            "measurements": dict(release.measurements.items()),
        }  # fmt: skip
        stages = ("live",) if case.life else ("post_train", "pre_deploy")
        asked, environment, profile = stages, bundle.release, release.request.audit_profile
    bound = {**seen, **bundle.limits.bindings(profile)}
    # One that is left out makes an error of every rule that reads it, here and there.
    assert bound.keys() >= environment.variables.keys()
    return bound, environment, asked


def is_asked(rule: Rule, part: Expression, activation: Activation) -> bool:
    """Whether the engine comes to a part of a rule: to its condition always, to the rest where that holds."""
    return part is rule.applies or ours(rule.applies, activation) is True


def test_every_rule_says_the_same_in_another_implementation(bundle: Pack) -> None:
    disagreements, silent, evaluated, rules = [], [], 0, set()
    for case in testing.read_cases(bundle):
        bound, environment, asked = bindings(bundle, case)
        activation, context = environment.bind(bound), nested(bound)
        for rule in bundle.rules:
            # A gate's condition reads what intake's rules read.
            stage = "pre_train" if rule.gate is not None else rule.stage
            if rule.pack != case.pack or stage not in asked:
                continue
            for part in parts(rule):
                mine, other = ours(part, activation), theirs(part.source, context)
                evaluated += 1
                rules.add(rule.id)
                if mine != other:
                    disagreements.append((case.name, rule.id, part.source, mine, other))
                expected = case.fires.get(rule.id) == policy_pb2.OUTCOME_ERROR
                if mine == ERROR and not expected and is_asked(rule, part, activation):
                    silent.append((case.name, rule.id, part.source))
    assert disagreements == [] and silent == []
    assert rules == {rule.id for rule in bundle.rules}
    print(f"{evaluated} evaluations of {len(rules)} rules, {len(disagreements)} disagreements")
    page = (Path(__file__).parents[2] / "docs" / "policies.md").read_text("utf-8")
    assert f"{evaluated:,} evaluations of {len(rules)} rules, no disagreement" in page


@pytest.mark.parametrize("upper", [0.0, 0.5, 0.500001, 1.0, float("inf"), float("nan")])
def test_gates_say_the_same(bundle: Pack, upper: float) -> None:
    bound = {"gate.value": 0.1, "gate.lower": 0.0, "gate.upper": upper, "gate.limit": 0.5, "gate.n": 9,
             **bundle.limits.bindings("quick")}  # fmt: skip
    for rule in bundle.rules:
        if rule.gate is not None:
            assert ours(rule.check, bundle.gate.bind(bound)) == theirs(rule.check.source, nested(bound))


def test_a_disagreement_would_be_seen(bundle: Pack) -> None:
    # The other implementation is not asked the same engine: a wrong value is answered otherwise.
    rule = bundle.rule("BASE-RETENTION")
    assert rule is not None
    case = next(iter(testing.read_cases(bundle)))
    bound, environment, _ = bindings(bundle, case)
    other = dict(nested(bound))
    other["datasheet"] = celtypes.MapType({**other["datasheet"], celtypes.StringType("retention_days"): plain(0)})
    assert ours(rule.check, environment.bind(bound)) is True and theirs(rule.check.source, other) is False
