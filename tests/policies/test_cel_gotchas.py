"""Every way in which CEL was seen to say yes by accident, or to fail, ends in a no."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from assay.errors import InvalidInputError
from assay.v1 import measurement_pb2, policy_input_pb2, policy_pb2
from policies import guards
from policies.asking import ask
from policies.cel import MAX_EXPRESSION, CompileError, Environment, EvaluationError, Expression
from policies.engine import PolicyEngine
from policies.pack import load
from tests.policies.packs import one_rule_pack

VARIABLES = {
    "request": "assay.v1.RequestFacts",
    "measurements": "map<string, assay.v1.Measurement>",
    "limits.share": "double",
    "limits.names": "list<string>",
    "limits.ceiling": "map<string, double>",
    "number": "int",
}


@pytest.fixture(scope="module")
def environment() -> Environment:
    return Environment.of(VARIABLES)


def evaluate(environment: Environment, source: str, **values: object) -> object:
    bound: dict[str, object] = {
        "request": policy_input_pb2.RequestFacts(),
        "measurements": {},
        "limits.share": 0.5,
        "limits.names": ["a"],
        "limits.ceiling": {"public": 0.1},
        "number": 3,
    }
    bound.update({name.replace("__", "."): value for name, value in values.items()})
    return environment.compile(source).holds(environment.bind(bound))


@pytest.mark.parametrize(
    ("source", "line", "column", "words"),
    [
        ("number >", 1, 9, "Syntax error"),
        ("request.purpos == ''", 1, 8, "undefined field 'purpos'"),
        ("number > 0 &&\n  request.purpos == ''", 2, 10, "undefined field"),
        ("limits.share <= 1", 1, 14, "no matching overload"),
        ("limits.nothing <= 1.0", 1, 7, "undeclared reference to 'limits.nothing'"),
        ("measurements[?'x'].value > 1.0", 1, 1, "unsupported syntax"),
        ("true" + " " * MAX_EXPRESSION, 1, 1, "longer than"),
    ],
)
def test_the_first_channel_compilation_names_line_and_column(
    environment: Environment, source: str, line: int, column: int, words: str
) -> None:
    with pytest.raises(CompileError, match=words) as caught:
        environment.compile(source)
    assert (caught.value.line, caught.value.column) == (line, column)


@pytest.mark.parametrize(
    "source",
    [
        "1 / (number - 3) == 0",
        "9223372036854775807 + number > 0",
        "measurements['privacy.canary_auc'].value <= 1.0",
        "limits.ceiling['secret'] <= 1.0",
        "limits.names[7] == 'a'",
        "int('twelve') > 0",
    ],
)
def test_the_second_channel_an_error_value_is_not_a_yes(environment: Environment, source: str) -> None:
    with pytest.raises(EvaluationError) as caught:
        evaluate(environment, source)
    assert caught.value.reason == "POLICY_EVALUATION_FAILED"


def test_the_third_channel_evaluation_may_raise_and_is_not_a_yes(environment: Environment) -> None:
    source = "limits.names.all(a, limits.names.all(b, a == b)) || true"
    with pytest.raises(EvaluationError, match="budget"):
        evaluate(environment, source, limits__names=["x"] * 200)


def test_a_variable_without_a_value_is_not_a_yes(environment: Environment) -> None:
    with pytest.raises(EvaluationError):
        environment.compile("number > 0").holds(environment.bind({}))


def test_a_rule_that_answers_with_something_else_than_a_boolean_is_not_a_yes(environment: Environment) -> None:
    with pytest.raises(EvaluationError, match="answered with a int"):
        environment.compile("number + 1").holds(environment.bind({"number": 1}))


def test_an_engine_that_returns_a_truthy_value_is_not_believed() -> None:
    class Odd:
        def eval(self, activation: object) -> Odd:
            return self

        def type(self) -> str:
            return "BOOL"

        def plain_value(self) -> int:
            return 1

    tree = Environment.of({}).compile("true").tree
    with pytest.raises(EvaluationError):
        Expression("true", tree, "BOOL", Odd()).holds(Environment.of({}).bind({}))


def test_absorption_keeps_a_false_false_and_never_makes_an_error_true(environment: Environment) -> None:
    assert evaluate(environment, "false && 1 / (number - 3) == 0") is False
    with pytest.raises(EvaluationError):
        evaluate(environment, "true && 1 / (number - 3) == 0")


@pytest.mark.parametrize("comparison", ["<= 0.7", ">= 0.7", "< 0.7", "> 0.7", "== 0.7"])
def test_nan_compares_false_on_every_side(environment: Environment, comparison: str) -> None:
    nan = measurement_pb2.Measurement(value=math.nan)
    source = f"has(measurements['m'].value) && measurements['m'].value {comparison}"
    assert evaluate(environment, source, measurements={"m": nan}) is False


def test_a_hostile_regular_expression_ends(environment: Environment) -> None:
    text = policy_input_pb2.RequestFacts(purpose="a" * 60 + "!")
    assert evaluate(environment, "request.purpose.matches('^(a+)+$')", request=text) is False


def test_deep_nesting_is_refused_and_does_not_crash(environment: Environment) -> None:
    with pytest.raises(CompileError, match="recursion"):
        environment.compile("(" * 500 + "true" + ")" * 500)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("request.differential_privacy.epsilon <= 8.0", "epsilon"),
        ("number > 0 && request.differential_privacy.epsilon <= 8.0", "epsilon"),
        ("!has(request.differential_privacy.epsilon) && request.differential_privacy.epsilon <= 8.0", "epsilon"),
        ("has(request.differential_privacy.delta) && request.differential_privacy.epsilon <= 8.0", "epsilon"),
        ("has(request.differential_privacy.epsilon) || request.differential_privacy.epsilon <= 8.0", "epsilon"),
        ("'m' in measurements && measurements['m'].value <= 1.0", "value"),
        ("has(measurements['m'].value) && measurements['m'].value <= 1.0", "key in map"),
        ("'n' in measurements && has(measurements['m'].value) && measurements['m'].value <= 1.0", "key in map"),
        ("limits.ceiling['public'] <= 1.0", "key in map"),
        ("limits.names.all(n, n != '')", "empty list"),
        ("size(limits.names) >= 0 && limits.names.all(n, n != '')", "empty list"),
        ("size(limits.names) == 0 && limits.names.all(n, n != '')", "empty list"),
        ("size(measurements) > 0 && limits.names.all(n, n != '')", "empty list"),
        ("!limits.names.exists(n, n == '')", "empty list"),
        ("limits.names.exists(a, limits.names.exists(b, limits.names.exists(c, a == b && b == c)))", "nest"),
    ],
)
def test_silent_truths_are_refused_before_anybody_is_judged(environment: Environment, source: str, words: str) -> None:
    assert any(words in finding.message for finding in guards.check(environment.compile(source).tree))


@pytest.mark.parametrize(
    "source",
    [
        "has(request.differential_privacy.epsilon) && request.differential_privacy.epsilon <= 8.0",
        "request.differential_privacy.epsilon <= 8.0 && has(request.differential_privacy.epsilon)",
        "!has(request.differential_privacy.epsilon) || request.differential_privacy.epsilon <= 8.0",
        "has(request.differential_privacy.epsilon) ? request.differential_privacy.epsilon <= 8.0 : false",
        "!has(request.differential_privacy.epsilon) ? false : request.differential_privacy.epsilon <= 8.0",
        "'m' in measurements && has(measurements['m'].value) && measurements['m'].value <= 1.0",
        "size(limits.names) > 0 && limits.names.all(n, n != '')",
        "limits.names.size() != 0 && limits.names.all(n, n != '')",
        "size(limits.names) == 0 || limits.names.all(n, n != '')",
        "size(limits.names) > 0 && !limits.names.exists(n, n == '')",
        "limits.names.exists(a, limits.names.exists(b, a == b))",
        "[1, 2].all(n, n > 0)",
        "number in [1, 2] && request.epochs > 0.0",
    ],
)
def test_reads_that_looked_first_are_accepted(environment: Environment, source: str) -> None:
    assert guards.check(environment.compile(source).tree) == ()


def test_without_the_guard_a_number_never_set_would_have_passed(environment: Environment) -> None:
    # The failure that the guard closes, shown to be real.
    assert evaluate(environment, "request.differential_privacy.epsilon <= 8.0") is True
    assert evaluate(environment, "limits.names.all(n, n == 'never')", limits__names=[]) is True


def test_a_rule_whose_evaluation_fails_denies_and_says_so(tmp_path: Path, chat: policy_input_pb2.IntakeInput) -> None:
    engine = PolicyEngine(load(one_rule_pack(tmp_path, "expression: 1 / (data.rows - data.rows) == 1")))
    decision = engine.decide(chat)
    assert not decision.allowed
    (outcome,) = decision.outcomes
    assert outcome.outcome == policy_pb2.OUTCOME_ERROR
    assert outcome.message.startswith("POLICY_EVALUATION_FAILED")
    assert not decision.HasField("audit_plan")


def test_a_condition_that_cannot_be_evaluated_denies_and_does_not_exempt(
    tmp_path: Path, chat: policy_input_pb2.IntakeInput
) -> None:
    text = "applies: 1 / (data.rows - data.rows) == 1\n    expression: 'true'"
    decision = PolicyEngine(load(one_rule_pack(tmp_path, text))).decide(chat)
    assert [outcome.outcome for outcome in decision.outcomes] == [policy_pb2.OUTCOME_ERROR]


def test_a_message_that_cannot_be_written_does_not_change_the_answer(
    tmp_path: Path, chat: policy_input_pb2.IntakeInput
) -> None:
    text = "expression: 'false'"
    folder = one_rule_pack(tmp_path, text, message='"{1 / (data.rows - data.rows)} rows"')
    (outcome,) = PolicyEngine(load(folder)).decide(chat).outcomes
    assert (outcome.outcome, outcome.message) == (policy_pb2.OUTCOME_FAIL, "(not known) rows")


def test_rows_that_cannot_be_named_deny_like_everything_else(
    tmp_path: Path, chat: policy_input_pb2.IntakeInput
) -> None:
    text = "expression: 'false'\n    rows: '[1 / (data.rows - data.rows)]'"
    (outcome,) = PolicyEngine(load(one_rule_pack(tmp_path, text))).decide(chat).outcomes
    assert outcome.outcome == policy_pb2.OUTCOME_ERROR


def test_a_needed_fact_is_looked_for_before_the_condition(tmp_path: Path, chat: policy_input_pb2.IntakeInput) -> None:
    pack = load(one_rule_pack(tmp_path, "expression: 'true'\n    needs: [request.differential_privacy.epsilon]"))
    decision = PolicyEngine(pack).decide(chat)
    assert [outcome.outcome for outcome in decision.outcomes] == [policy_pb2.OUTCOME_ERROR]
    assert "is not there" in decision.outcomes[0].message


def test_asking_needs_no_engine(tmp_path: Path) -> None:
    pack = load(one_rule_pack(tmp_path, "expression: 'true'"))
    out = ask(pack.rules[0], pack.intake.bind({}), lambda name: (policy_pb2.OUTCOME_PASS, ""), [])
    assert out.outcome == policy_pb2.OUTCOME_PASS


def test_a_non_boolean_rule_does_not_load(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError) as caught:
        load(one_rule_pack(tmp_path, "expression: data.rows + 1"))
    assert caught.value.reason == "PACK_NOT_BOOLEAN"
