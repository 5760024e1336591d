"""Release policy: gates first, then the boolean rules, which may lean on what the gates said."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Collection, Mapping, Sequence

from assay.v1 import measurement_pb2, policy_input_pb2, policy_pb2
from policies import artefacts, asking, gates, inputs
from policies.cel import Activation, EvaluationError
from policies.gates import Judgement, Reading
from policies.rule import AT_RELEASE, SHARED, Pack, Rule
from policies.template import number

_SEVERITY = (policy_pb2.OUTCOME_FAIL, policy_pb2.OUTCOME_ERROR, policy_pb2.OUTCOME_INCONCLUSIVE)
_UNDECIDED = (policy_pb2.OUTCOME_INCONCLUSIVE, policy_pb2.OUTCOME_ERROR)


def outcomes(
    pack: Pack,
    question: policy_input_pb2.ReleaseInput,
    day: dt.date,
    always_true: str = "",
    stages: Collection[str] = AT_RELEASE,
) -> list[policy_pb2.RuleOutcome]:
    """Every rule's outcome in the pack's order; a rule with several gates has one a gate."""
    limits = pack.limits.bindings(question.request.audit_profile)
    planned = question.plan.gates
    measurements = inputs.labelled(question.measurements, question.plan)
    by_gate = gates.judge_all(planned, measurements, lambda gate, reading: _passes(pack, gate, reading, limits))
    by_measurement = {judgement.gate.measurement: judgement for judgement in by_gate}
    there = artefacts.at_release(question)
    activation = pack.release.bind({
        **inputs.shared_bindings(question),
        "artefacts": list(there),
        "live": question.live,
        "plan": question.plan,
        # The engine reads maps of messages only as plain dicts.
        "measurements": measurements,
        "run": question.run,
        **limits,
    })  # fmt: skip

    def missing(name: str) -> tuple[policy_pb2.Outcome, str]:
        reason = inputs.missing_measurement(measurements, name)
        if reason:
            return policy_pb2.OUTCOME_ERROR, reason
        judged = by_measurement.get(name)
        if judged is not None and judged.outcome in _UNDECIDED:
            return judged.outcome, "its own gate could not decide"
        return policy_pb2.OUTCOME_PASS, ""

    out: list[policy_pb2.RuleOutcome] = []
    for rule in pack.rules:
        if rule.stage not in stages:
            continue
        if rule.id == always_true:
            out.append(asking.describe(rule, policy_pb2.OUTCOME_PASS))
        elif rule.gate is not None:
            mine = [judgement for judgement in by_gate if judgement.gate.rule_id == rule.id]
            out += [_gate_outcome(pack, rule, judgement, limits) for judgement in mine]
            out += [] if mine else [_unplanned(pack, rule, question, day, limits)]
        elif not rule.in_force(day):
            out.append(asking.not_in_force(rule, day))
        else:
            out.append(asking.ask(rule, activation, missing, there))
    known = {rule.id for rule in pack.rules if rule.gate is not None}
    if "pre_deploy" in stages:
        out += [_orphan(judgement) for judgement in by_gate if judgement.gate.rule_id not in known]
    return out


def combine(found: Sequence[policy_pb2.RuleOutcome]) -> policy_pb2.Outcome:
    """FAIL if any failed, else ERROR, else INCONCLUSIVE; PASS only if one passed and nothing stands against it."""
    answers = {outcome.outcome for outcome in found}
    for worst in _SEVERITY:
        if worst in answers:
            return worst
    rest = answers - {policy_pb2.OUTCOME_NOT_APPLICABLE, policy_pb2.OUTCOME_WARN}
    return policy_pb2.OUTCOME_PASS if rest == {policy_pb2.OUTCOME_PASS} else policy_pb2.OUTCOME_ERROR


def _passes(pack: Pack, gate: measurement_pb2.PlannedGate, reading: Reading, limits: Mapping[str, object]) -> bool:
    """The PASS condition as the pack prints it, in CEL, on the limit that the plan fixed."""
    rule = pack.rule(gate.rule_id)
    if rule is None or rule.gate is None:
        return False
    at_most = gate.side == measurement_pb2.LIMIT_SIDE_AT_MOST
    try:
        return rule.gate.at_most == at_most and rule.check.holds(_bind_gate(pack, reading, limits))
    except EvaluationError:
        return False


def _bind_gate(pack: Pack, reading: Reading, limits: Mapping[str, object]) -> Activation:
    return pack.gate.bind({
        "gate.value": reading.value,
        "gate.lower": reading.lower,
        "gate.upper": reading.upper,
        "gate.limit": reading.limit,
        "gate.n": reading.n,
        **limits,
    })  # fmt: skip


def _gate_outcome(pack: Pack, rule: Rule, judgement: Judgement, limits: Mapping[str, object]) -> policy_pb2.RuleOutcome:
    gate, reading = judgement.gate, judgement.reading
    if reading is None:
        fix = "Measure it: a number that is missing never passes."
        out = asking.describe(rule, judgement.outcome, judgement.reason, fix)
    else:
        activation = _bind_gate(pack, reading, limits)
        lead = f"{rule.message.render(activation)}: " if judgement.outcome == policy_pb2.OUTCOME_FAIL else ""
        message = f"{lead}{_numbers(gate, reading)}"
        out = asking.describe(rule, judgement.outcome, message + (f"; {judgement.reason}" if judgement.reason else ""))
        if judgement.outcome != policy_pb2.OUTCOME_PASS:
            out.fix = " ".join(filter(None, (_advice(gate, judgement), rule.fix.render(activation))))
    out.measurement, out.limit, out.side = gate.measurement, gate.limit, gate.side
    if judgement.n_required is not None:
        out.n_required = judgement.n_required
    return out


def _numbers(gate: measurement_pb2.PlannedGate, reading: Reading) -> str:
    side = "at most" if gate.side == measurement_pb2.LIMIT_SIDE_AT_MOST else "at least"
    ends = f"[{_end(reading.lower)}, {_end(reading.upper)}]"
    level = f"{100 * (1 - gate.alpha):g} %"
    return (
        f"{gate.measurement} is {number(reading.value)}, {ends} at {level}, n = {reading.n:,}; "
        f"must be {side} {number(gate.limit)}"
    )


def _advice(gate: measurement_pb2.PlannedGate, judgement: Judgement) -> str:
    if judgement.outcome != policy_pb2.OUTCOME_INCONCLUSIVE:
        return ""
    if judgement.n_required is None:
        return "The estimate lies on the limit or no practicable sample decides."
    if judgement.towards_failure:
        return f"If the estimate stays, n = {judgement.n_required:,} would decide, and the gate would fail."
    return f"If the estimate stays, n = {judgement.n_required:,} would decide, and the gate would pass."


def _unplanned(
    pack: Pack,
    rule: Rule,
    question: policy_input_pb2.ReleaseInput,
    day: dt.date,
    limits: Mapping[str, object],
) -> policy_pb2.RuleOutcome:
    """A gate that the plan lacks: not applicable, unless the release itself shows that it should be there."""
    if not rule.in_force(day):
        return asking.not_in_force(rule, day)
    read = {name for name in rule.applies.names() if not name.startswith("limits.")}
    if not read <= set(SHARED):
        return asking.describe(rule, policy_pb2.OUTCOME_NOT_APPLICABLE, "the plan found it not applicable to the data")
    try:
        applies = rule.applies.holds(pack.intake.bind({**inputs.shared_bindings(question), "artefacts": [], **limits}))
    except EvaluationError as error:
        return asking.failed(rule, error.message)
    if not applies:
        return asking.describe(rule, policy_pb2.OUTCOME_NOT_APPLICABLE, "its conditions do not hold for this request")
    return asking.failed(rule, "the gate applies, but the audit plan lacks it: it was fixed under other rules")


def _orphan(judgement: Judgement) -> policy_pb2.RuleOutcome:
    gate = judgement.gate
    return policy_pb2.RuleOutcome(
        rule_id=gate.rule_id,
        title="A gate of the plan",
        outcome=policy_pb2.OUTCOME_ERROR,
        message="POLICY_EVALUATION_FAILED: the plan names a gate that the policy in force lacks",
        fix="Ask for a new job under the policy in force.",
        measurement=gate.measurement,
        limit=gate.limit,
        side=gate.side,
    )


def _end(value: float) -> str:
    return number(value) if math.isfinite(value) else "no bound"
