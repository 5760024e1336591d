"""Asks one boolean rule about one question, and turns whatever happens into an outcome.

The order is fixed: in force, applicable, facts there, condition. Whatever goes wrong on the way is an ERROR, which
denies.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence

from assay.v1 import policy_pb2
from policies.artefacts import HANDED_IN, KINDS
from policies.cel import Activation, EvaluationError
from policies.rule import STATUSES, Rule

MAX_ROWS = 100
DECLARED = "DECLARED: "
"""How the message begins of a rule that holds by nothing but a digest that the requester named."""

Missing = Callable[[str], tuple[policy_pb2.Outcome, str]]
"""Tells what stands against a needed fact: PASS and nothing, or ERROR or INCONCLUSIVE and why."""


def describe(rule: Rule, outcome: policy_pb2.Outcome, message: str = "", fix: str = "") -> policy_pb2.RuleOutcome:
    """An outcome with everything that the rule says of itself."""
    return policy_pb2.RuleOutcome(
        rule_id=rule.id,
        title=rule.title,
        outcome=outcome,
        message=message,
        citation=source(rule),
        status=STATUSES[rule.status],
        fix=fix,
        waivable_by=rule.waivable_by,
        caveat=rule.caveat,
        waiver_days=rule.waiver_days,
        appealable=rule.appealable,
    )


def source(rule: Rule) -> str:
    """Instrument and article, and where the article was read; one line for people."""
    return f"{rule.instrument}, {rule.reference}. {rule.citation}" if rule.reference else rule.citation


def not_applicable(rule: Rule) -> policy_pb2.RuleOutcome:
    """The outcome of a rule whose conditions do not hold."""
    return describe(rule, policy_pb2.OUTCOME_NOT_APPLICABLE, "its conditions do not hold for this request")


def not_in_force(rule: Rule, day: dt.date) -> policy_pb2.RuleOutcome:
    """The outcome of a rule on a day outside its dates."""
    ends = rule.effective_to is not None and day > rule.effective_to
    words = f"ended on {rule.effective_to}" if ends else f"takes effect on {rule.effective_from}"
    return describe(rule, policy_pb2.OUTCOME_NOT_APPLICABLE, f"{words}; judged as of {day}")


def failed(rule: Rule, reason: str) -> policy_pb2.RuleOutcome:
    """The outcome of a rule that could not be evaluated: it denies."""
    fix = "Nothing in the request mends this by itself: show the message to the owner of the policy."
    return describe(rule, policy_pb2.OUTCOME_ERROR, f"POLICY_EVALUATION_FAILED: {reason}", fix)


def declared(rule: Rule, there: Mapping[str, str]) -> list[str]:
    """Kinds of artefacts that the rule asks for and that only the requester's word shows."""
    return [kind for kind in rule.artefacts if there.get(kind)]


def held(rule: Rule, there: Mapping[str, str]) -> policy_pb2.RuleOutcome:
    """The outcome of a rule whose condition and artefacts are there: PASS, or WARN where it rests on a bare digest.

    Any 64 hex digits would do for the digest, and policy cannot see what they are of; people can.
    """
    kinds = declared(rule, there)
    if not kinds:
        return describe(rule, policy_pb2.OUTCOME_PASS)
    words = "; ".join(f"{kind} ({KINDS[kind]}), SHA-256 {there[kind]}" for kind in kinds)
    message = f"{DECLARED}{words}. The requester named it by its digest; the document was not seen here."
    fix = f"Show {' and '.join(kinds)} to whoever approves, who compares each document's SHA-256 with the one given."
    return describe(rule, policy_pb2.OUTCOME_WARN, message, fix)


def ask(rule: Rule, activation: Activation, missing: Missing, there: Mapping[str, str]) -> policy_pb2.RuleOutcome:
    """Evaluates a boolean rule that is in force; ``there`` are the artefacts at hand (:mod:`policies.artefacts`)."""
    try:
        if not rule.applies.holds(activation):
            return not_applicable(rule)
        for name in rule.needs:
            outcome, reason = missing(name)
            if outcome != policy_pb2.OUTCOME_PASS:
                return describe(rule, outcome, f"needs {name}: {reason}", rule.fix.render(activation))
        gaps = [kind for kind in rule.artefacts if kind not in there]
        if gaps:
            out = describe(rule, _weighed(rule), _gap(gaps), _mend(rule, gaps, activation))
            out.artefacts_missing.extend(gaps)
            return out
        if rule.check.holds(activation):
            return held(rule, there)
        out = describe(rule, _weighed(rule), rule.message.render(activation), rule.fix.render(activation))
        _name_rows(rule, activation, out)
        return out
    except EvaluationError as error:
        return failed(rule, error.message)


def _weighed(rule: Rule) -> policy_pb2.Outcome:
    """What a rule that does not hold leads to."""
    return policy_pb2.OUTCOME_FAIL if rule.severity == "deny" else policy_pb2.OUTCOME_WARN


def _gap(kinds: Sequence[str]) -> str:
    words = "; ".join(f"{kind} ({KINDS[kind]})" for kind in kinds)
    return f"GAP: neither made on the way nor handed in: {words}."


def _mend(rule: Rule, kinds: Sequence[str], activation: Activation) -> str:
    """How to close a gap: what can be handed in, and the rule's own words for what only the house can make."""
    wanted = [kind for kind in kinds if kind in HANDED_IN]
    made = [kind for kind in kinds if kind not in HANDED_IN]
    parts = [f"Hand in {' and '.join(wanted)}: --artefact {wanted[0]}=FILE, or kind and sha256 under use.artefacts."
             ] if wanted else []  # fmt: skip
    parts += [f"{' and '.join(made)} cannot be handed in. {rule.fix.render(activation)}"] if made else []
    return " ".join(parts)


def _name_rows(rule: Rule, activation: Activation, out: policy_pb2.RuleOutcome) -> None:
    if rule.rows is None:
        return
    rows = [int(row) for row in rule.rows.value(activation)]
    out.rows.extend(rows[:MAX_ROWS])
    out.row_count = int(rule.row_count.value(activation)) if rule.row_count is not None else len(rows)
