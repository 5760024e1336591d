"""Each hardening of the engine beside the failure that it closes: first the raw engine says yes, then ours does not."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import celpy
import pytest

from assay.errors import InvalidInputError
from assay.v1 import measurement_pb2, policy_input_pb2, policy_pb2
from policies import bounds, guards, inputs
from policies.cel import CompileError, Environment, EvaluationError
from policies.engine import PolicyEngine
from policies.pack import load
from policies.rule import INTAKE, RELEASE
from policies.template import Template
from policies.testing import Case, release_question
from tests.policies.packs import one_rule_pack, replace

RAW = Environment.of(INTAKE)
RAW_RELEASE = Environment.of(RELEASE)


def raw(source: str, environment: Environment = RAW, **values: object) -> object:
    """What the engine by itself says, without lint, needs or caps."""
    bound: dict[str, object] = {"request": policy_input_pb2.RequestFacts(), "data": policy_input_pb2.DataFacts()}
    return environment.compile(source, cap=False).value(environment.bind({**bound, **values}))


def test_a_mistyped_field_is_silently_true_in_an_untyped_engine_and_does_not_compile(tmp_path: Path) -> None:
    source = "!has(request.residncy)"  # meant: the request names no residency
    untyped = celpy.Environment()
    asked = {"request": celpy.json_to_cel({"residency": "eu"})}
    assert untyped.program(untyped.compile(source)).evaluate(asked)
    with pytest.raises(InvalidInputError) as caught:
        load(one_rule_pack(tmp_path, f'expression: "{source}"'))
    assert caught.value.reason == "PACK_COMPILE" and "undefined field" in caught.value.message


def test_a_number_never_set_reads_as_zero_and_lint_refuses_it(tmp_path: Path) -> None:
    source = "request.differential_privacy.epsilon <= 8.0"
    assert raw(source) is True
    with pytest.raises(InvalidInputError) as caught:
        load(one_rule_pack(tmp_path, f"expression: {source}"))
    assert caught.value.reason == "PACK_UNGUARDED"


def test_all_of_nothing_holds_and_lint_refuses_it(tmp_path: Path) -> None:
    source = "data.findings.all(f, f.row == 12345)"
    assert raw(source) is True
    with pytest.raises(InvalidInputError) as caught:
        load(one_rule_pack(tmp_path, f"expression: {source}"))
    assert caught.value.reason == "PACK_UNGUARDED"


def test_nan_is_not_above_a_limit_and_needs_refuse_it(tmp_path: Path, chat: policy_input_pb2.IntakeInput) -> None:
    source = "!(data.pii_row_share > 0.1)"
    assert raw(source, data=policy_input_pb2.DataFacts(pii_row_share=math.nan)) is True
    chat.data.pii_row_share = math.nan
    (outcome,) = PolicyEngine(load(one_rule_pack(tmp_path, f'expression: "{source}"'))).decide(chat).outcomes
    assert outcome.outcome == policy_pb2.OUTCOME_ERROR and "not a finite number" in outcome.message


@pytest.mark.parametrize("state", ["absent", "nan", "unavailable", "exploratory"])
def test_a_measurement_that_is_none_denies_before_the_rule_is_asked(
    tmp_path: Path, engine: PolicyEngine, cases: dict[str, Case], state: str
) -> None:
    name = "privacy.epsilon_lower_bound"
    source = f"!('{name}' in measurements && has(measurements['{name}'].value) && measurements['{name}'].value > 1.0)"
    question = release_question(engine, cases["a clean chat model passes"])
    if state == "absent":
        del question.measurements[name]
    else:
        # Each of these would be refused above the limit, were it a number that counts.
        odd = {"nan": {"value": math.nan}, "unavailable": {"unavailable": "no"}, "exploratory": {"exploratory": True}}
        question.measurements[name].CopyFrom(measurement_pb2.Measurement(name=name, **odd[state]))
    seen = {"measurements": dict(question.measurements.items())}
    assert raw(source, RAW_RELEASE, **seen) is True
    folder = one_rule_pack(tmp_path, f'expression: "{source}"\n    needs: [{name}]')
    replace(folder / "rules.yaml", "stage: pre_train", "stage: pre_deploy")
    outcomes = PolicyEngine(load(folder)).judge(question).outcomes
    assert [o.outcome for o in outcomes if o.rule_id == "ONE"] == [policy_pb2.OUTCOME_ERROR]


def test_a_measurement_whose_gate_is_undecided_decides_nothing_else(
    engine: PolicyEngine, release: policy_input_pb2.ReleaseInput
) -> None:
    name = "privacy.canary_auc"
    found = release.measurements[name]
    found.value = 0.66
    for interval in found.intervals:
        interval.lower, interval.upper = 0.55, 0.77
    source = f"'{name}' in measurements && has(measurements['{name}'].value) && measurements['{name}'].value < 0.70"
    assert raw(source, RAW_RELEASE, measurements=dict(release.measurements.items())) is True
    verdict = engine.judge(release)
    assert verdict.outcome == policy_pb2.OUTCOME_INCONCLUSIVE


def test_a_field_without_end_is_computed_with_and_the_cap_refuses_it_unasked(
    tmp_path: Path, chat: policy_input_pb2.IntakeInput
) -> None:
    chat.request.purpose = "a" * (1 << 20)
    source = "size(" + " + ".join(["request.purpose"] * 20) + ") > 0"
    assert raw(source, request=chat.request) is True  # twenty megabytes, in this process
    (outcome,) = PolicyEngine(load(one_rule_pack(tmp_path, f"expression: {source}"))).decide(chat).outcomes
    assert outcome.outcome == policy_pb2.OUTCOME_ERROR and f"at most {inputs.MAX_STRING:,}" in outcome.message


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"columns": ["c"] * (inputs.MAX_ITEMS + 1)}, f"at most {inputs.MAX_ITEMS:,}"),
        ({"group_counts": {"g" * (inputs.MAX_STRING + 1): 1}}, "a key of data.group_counts"),
        ({"columns": ["c" * 4000] * 600}, f"at most {inputs.MAX_BYTES:,}"),
    ],
)
def test_lists_maps_and_questions_without_end_are_judged_raw_and_the_caps_refuse_them(
    tmp_path: Path, chat: policy_input_pb2.IntakeInput, facts: dict[str, object], words: str
) -> None:
    source = "size(data.columns) + size(data.group_counts) > 0"
    assert raw(source, data=policy_input_pb2.DataFacts(**facts)) is True
    chat.data.MergeFrom(policy_input_pb2.DataFacts(**facts))
    (outcome,) = PolicyEngine(load(one_rule_pack(tmp_path, f"expression: {source}"))).decide(chat).outcomes
    assert outcome.outcome == policy_pb2.OUTCOME_ERROR and words in outcome.message


def test_loops_in_loops_in_loops_run_and_lint_refuses_them(tmp_path: Path) -> None:
    inner = "data.pii_rows.exists(c, a == b && b == c && c < 0)"
    source = f"!data.pii_rows.exists(a, data.pii_rows.exists(b, {inner}))"
    assert raw(source, data=policy_input_pb2.DataFacts(pii_rows=range(15))) is True
    assert any("nest" in finding.message for finding in guards.check(RAW.compile(source).tree))
    with pytest.raises(InvalidInputError):
        load(one_rule_pack(tmp_path, f'expression: "size(data.pii_rows) > 0 && {source}"'))


GROWTH = """
import sys
from pathlib import Path
from assay.v1 import policy_input_pb2
from policies.cel import Environment
from policies.rule import INTAKE
environment = Environment.of(INTAKE)
finding = policy_input_pb2.RowFinding(field="\\U0001d11e" * 250, code="\\U0001d11e" * 250)
question = {
    "request": policy_input_pb2.RequestFacts(purpose="\\U0001d11e" * 4096),
    "data": policy_input_pb2.DataFacts(pii_rows=range(2000), findings=[finding] * 1000, columns=["c"] * 2000),
}
expression = environment.compile(sys.argv[1], cap=False)
most = lambda: int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
before = most()
expression.value(environment.bind(question))
print(most() - before)
"""


def grown(source: str) -> int:
    """Bytes by which one evaluation on the largest question made a process of its own grow."""
    done = subprocess.run([sys.executable, "-c", GROWTH, source], check=True, capture_output=True, text=True)
    return int(done.stdout) << 10


def joined(name: str, times: int) -> str:
    return "+".join([name] * times)


GROWING = (
    f"[request.purpose].map(a, {joined('a', 16)}).map(b, {joined('b', 16)}).map(c, {joined('c', 16)})",
    f"data.pii_rows.map(r, {joined('data.pii_rows', 2)})",
    f"data.pii_rows.map(r, {joined('request.purpose', 8)})",
)
"""Each in fewer than two hundred characters, a nesting of one and fewer than two thousand steps."""


@pytest.mark.parametrize("source", GROWING)
def test_what_loops_join_fills_the_memory_and_does_not_compile(tmp_path: Path, source: str) -> None:
    assert grown(f"size({source}) >= 0") > bounds.MAX_BUILT
    with pytest.raises(InvalidInputError) as caught:
        load(one_rule_pack(tmp_path, f'expression: "size({source}) >= 0"'))
    assert caught.value.reason == "PACK_COMPILE" and "MiB" in caught.value.message
    with pytest.raises(CompileError):
        Template.compile(f"Rows {{{source}}}.", RAW)


@pytest.mark.parametrize(
    "source",
    [
        f"[request.purpose].map(a, {joined('a', 16)}).map(b, {joined('b', 8)})",
        "data.findings.map(f, f.field + ' and ' + f.code + ' of ' + string(f.row))",
        "data.pii_rows.map(r, [r, r + 1, r + 2]).filter(l, size(l) > 0)",
        "data.pii_rows.filter(r, r >= 0)",
        "data.columns.map(c, [c]).filter(l, size(l) > 0)",
        joined("data.pii_rows", 4),
    ],
)
def test_what_compiles_builds_no_more_than_its_bound(source: str) -> None:
    bound = bounds.most_built(RAW.compile(source).tree)
    found = grown(f"size({source}) >= 0")
    print(f"at most {bound / (1 << 20):.1f} MiB, grew {found / (1 << 20):.1f}: {source[:60]}")
    assert found <= bound + (4 << 20)


def test_every_rule_that_ships_builds_little() -> None:
    pack = load()
    for rule in pack.rules:
        for part in (rule.applies, rule.check):
            assert bounds.most_built(part.tree) < bounds.MAX_BUILT / 2, rule.id


def test_an_error_value_is_true_to_python_and_denies(tmp_path: Path, chat: policy_input_pb2.IntakeInput) -> None:
    source = "!(1 / data.rows == 1)"
    compiled = RAW.compile(source)
    bound = RAW.bind({"data": policy_input_pb2.DataFacts()})
    # Who asks the engine's value for its truth is told yes: an error is an object like any other.
    assert bool(compiled.handle.eval(bound.handle).value())
    with pytest.raises(EvaluationError):
        compiled.holds(bound)
    chat.data.rows = 0
    (outcome,) = PolicyEngine(load(one_rule_pack(tmp_path, f'expression: "{source}"'))).decide(chat).outcomes
    assert outcome.outcome == policy_pb2.OUTCOME_ERROR


def test_a_number_is_true_to_python_and_no_rule(tmp_path: Path) -> None:
    assert bool(raw("data.rows + 1"))
    with pytest.raises(EvaluationError):
        RAW.compile("data.rows + 1").holds(RAW.bind({"data": policy_input_pb2.DataFacts()}))
    with pytest.raises(InvalidInputError) as caught:
        load(one_rule_pack(tmp_path, "expression: data.rows + 1"))
    assert caught.value.reason == "PACK_NOT_BOOLEAN"


def test_money_as_a_double_would_not_add_up_and_does_not_compile(tmp_path: Path) -> None:
    assert raw("0.1 + 0.2 <= 0.3") is False
    with pytest.raises(InvalidInputError) as caught:
        load(one_rule_pack(tmp_path, "expression: request.quote_usd_micros <= 0.3"))
    assert caught.value.reason == "PACK_COMPILE"
