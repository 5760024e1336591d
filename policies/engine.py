"""The policy engine: what may be trained, what will be measured, and what may be released.

An engine is one pack, frozen. It keeps no state between questions, reads no clock but for the day, and never raises
because of what a question says: a question that cannot be judged is denied.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from google.protobuf.message import Message

from assay import canonical, digests
from assay.errors import AssayError, InvalidInputError, NotFoundError
from assay.v1 import identity_pb2, policy_input_pb2, policy_pb2
from policies import asking, inputs, verdicts
from policies.cel import ENGINE, Activation
from policies.pack import BASELINE, ROLES, load, today
from policies.planning import Planner
from policies.rule import Pack, Rule

_GOOD = (policy_pb2.OUTCOME_PASS, policy_pb2.OUTCOME_NOT_APPLICABLE)


class PolicyEngine:
    """Judges by one pack.

    Args:
        pack: loaded and checked.
        as_of: day whose rules apply where a question names none; None for today, asked anew each time.
        always_true: id of a rule to take for granted; only the mutation check of :mod:`policies.testing` sets it.
    """

    def __init__(self, pack: Pack, as_of: dt.date | None = None, *, always_true: str = "") -> None:
        self.pack = pack
        self._as_of = as_of
        self._always_true = always_true
        self._planner = Planner(pack)

    @classmethod
    def load(cls, pack_dir: Path | None = None, as_of: dt.date | None = None) -> PolicyEngine:
        """Loads a pack and runs its own tests.

        Raises:
            InvalidInputError: ``PACK_*`` when the pack is faulty, ``PACK_TESTS_FAILED`` when its tests are.
        """
        from policies import testing

        engine = cls(load(pack_dir or BASELINE), as_of)
        testing.demand(engine.pack)
        return engine

    def decide(self, question: policy_input_pb2.IntakeInput) -> policy_pb2.Decision:
        """Intake policy's answer, with the audit plan when it is yes or could become yes by a waiver.

        Raises:
            InvalidInputError: ``AS_OF`` when the day named is none.
        """
        return self._intake(question, [rule for rule in self.pack.rules if rule.stage == "intake"], plan=True)

    def preflight(self, question: policy_input_pb2.IntakeInput) -> policy_pb2.Decision:
        """What intake policy can say before the rows were opened: only the rules that read no fact about them.

        ``allowed`` means that none of those denies; it is no promise about the others, and there is no plan.

        Raises:
            InvalidInputError: as :meth:`decide`.
        """
        rules = [rule for rule in self.pack.rules if rule.stage == "intake" and not rule.needs_rows()]
        return self._intake(question, rules, plan=False)

    def judge(self, question: policy_input_pb2.ReleaseInput) -> policy_pb2.Verdict:
        """Release policy's answer.

        Raises:
            InvalidInputError: ``AS_OF`` when the day named is none.
        """
        day = self._day(question.as_of)
        faults, digest = _digest(question)
        if faults:
            rules = [rule for rule in self.pack.rules if rule.stage == "release"]
            outcomes = [asking.failed(rule, faults[0]) for rule in rules]
        else:
            outcomes = verdicts.outcomes(self.pack, question, day, self._always_true)
        return policy_pb2.Verdict(
            outcome=verdicts.combine(outcomes),
            outcomes=outcomes,
            bundle_sha256=self.pack.bundle_sha256,
            limits_sha256=self.pack.limits_sha256,
            input_sha256=digest,
            engine=ENGINE,
            as_of=day.isoformat(),
        )

    def policy(self) -> policy_pb2.Policy:
        """The pack as the wire shows it; ``publish_time`` is the installation's to fill."""
        return policy_pb2.Policy(
            name=f"policies/{self.pack.name}",
            version=self.pack.version,
            bundle_sha256=self.pack.bundle_sha256,
            limits_sha256=self.pack.limits_sha256,
            rules=[rule.message_type() for rule in self.pack.rules],
        )

    def explain(self, rule_id: str) -> policy_pb2.ExplainPolicyResponse:
        """One rule in words, with the limits that it reads.

        Raises:
            NotFoundError: ``RULE_NOT_FOUND``.
        """
        rule = self.pack.rule(rule_id)
        if rule is None:
            raise NotFoundError("RULE_NOT_FOUND", f"no rule {rule_id!r} in {self.pack.name} {self.pack.version}")
        limits = {name: self.pack.limits.by_name[name].text() for name in rule.limit_names()}
        reasons = [f"{name}: {self.pack.limits.by_name[name].why}" for name in rule.limit_names()]
        parts = [
            rule.why,
            f"When it does not pass: {rule.fix.outline}",
            *([f"Limits. {' '.join(reasons)}"] if reasons else []),
        ]
        return policy_pb2.ExplainPolicyResponse(rule=rule.message_type(), limits=limits, explanation="\n".join(parts))

    def preparation(self, profile: str, format: object = None) -> dict[str, int]:
        """Canaries that the prepare task must derive: ``a`` and ``b`` in all (planted and held out), ``b_repeats``.

        The same for every format; an unknown profile gets the strictest numbers.
        """
        return self._planner.preparation(profile, self._day(""))

    def quorum(self, purpose: str) -> tuple[identity_pb2.Role, ...]:
        """Roles that must sign, each by another subject; the same for every purpose in this version."""
        words = self.pack.limits.by_name["quorum_roles"].value("strict")
        # A value of the enum is an int at run time; the stub calls it Role.
        return tuple(cast(identity_pb2.Role, identity_pb2.Role.Value(ROLES[word])) for word in words)

    def _intake(
        self, question: policy_input_pb2.IntakeInput, rules: Sequence[Rule], *, plan: bool
    ) -> policy_pb2.Decision:
        day = self._day(question.as_of)
        faults, digest = _digest(question)
        decision = policy_pb2.Decision(
            bundle_sha256=self.pack.bundle_sha256,
            limits_sha256=self.pack.limits_sha256,
            input_sha256=digest,
            engine=ENGINE,
            as_of=day.isoformat(),
        )
        if faults:
            decision.outcomes.extend(asking.failed(rule, "; ".join(faults[:3])) for rule in rules)
            return decision
        activation = self._bind(question, day)
        decision.outcomes.extend(self._ask(rule, question, activation, day) for rule in rules)
        answers = [outcome.outcome for outcome in decision.outcomes]
        decision.allowed = all(answer in _GOOD for answer in answers) and policy_pb2.OUTCOME_PASS in answers
        # A denial that people may waive has a plan too: a waiver must not lead to a job that could never be judged.
        waivable = policy_pb2.OUTCOME_FAIL in answers and all(map(_waivable, decision.outcomes))
        if plan and (decision.allowed or waivable):
            try:
                decision.audit_plan.CopyFrom(self._planner.plan(question, activation, day, digest))
            except AssayError as error:
                decision.allowed = False
                decision.outcomes.append(_unplannable(error))
        return decision

    def _ask(
        self, rule: Rule, question: policy_input_pb2.IntakeInput, activation: Activation, day: dt.date
    ) -> policy_pb2.RuleOutcome:
        if rule.id == self._always_true:
            return asking.describe(rule, policy_pb2.OUTCOME_PASS)
        if not rule.in_force(day):
            return asking.not_in_force(rule, day)

        def missing(name: str) -> tuple[policy_pb2.Outcome, str]:
            reason = inputs.missing_fact(question, name)
            return (policy_pb2.OUTCOME_ERROR, reason) if reason else (policy_pb2.OUTCOME_PASS, "")

        return asking.ask(rule, activation, missing)

    def _bind(self, question: policy_input_pb2.IntakeInput, day: dt.date) -> Activation:
        needed = self._planner.needed(question, day)
        return self.pack.intake.bind({
            **inputs.shared_bindings(question),
            "data": question.data,
            "base_model": question.base_model,
            "known.pii_spans": self._planner.known_pii_spans(question),
            "needed.test_rows": needed["test_rows"],
            "needed.canaries": needed["canaries"],
            "needed.canaries_included": needed["canaries_included"],
            "needed.pii_spans": needed["pii_spans"],
            **self.pack.limits.bindings(question.request.audit_profile),
        })  # fmt: skip

    def _day(self, asked: str) -> dt.date:
        if not asked:
            return self._as_of or today()
        try:
            return dt.date.fromisoformat(asked)
        except ValueError as error:
            raise InvalidInputError("AS_OF", "as_of must be a day such as 2026-01-31") from error


def _unplannable(error: AssayError) -> policy_pb2.RuleOutcome:
    return policy_pb2.RuleOutcome(
        rule_id="AUDIT-PLAN",
        title="An audit can be planned",
        outcome=policy_pb2.OUTCOME_ERROR,
        message=f"POLICY_EVALUATION_FAILED: {error.message}",
        fix="Nothing in the request mends this by itself: show the message to the owner of the policy.",
        status=policy_pb2.RULE_STATUS_INTERNAL,
        citation="Internal standard",
    )


def _waivable(outcome: policy_pb2.RuleOutcome) -> bool:
    return outcome.outcome in _GOOD or (outcome.outcome == policy_pb2.OUTCOME_FAIL and outcome.waivable_by != "")


def _digest(question: Message) -> tuple[tuple[str, ...], str]:
    """What makes the question unfit, and the SHA-256 of its canonical JSON; the digest is empty when it is unfit."""
    faults = inputs.faults(question)
    if faults:
        return faults, ""
    try:
        return (), digests.sha256_bytes(canonical.encode(canonical.from_message(question)))
    except AssayError as error:
        return (error.message,), ""
