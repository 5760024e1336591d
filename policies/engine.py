"""The policy engine: what may be trained, what will be measured, and what may be released.

An engine is one pack, frozen. It keeps no state between questions, reads no clock but for the day, and never raises
because of what a question says: a question that cannot be judged is denied.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from google.protobuf.message import Message

from assay import canonical, digests
from assay.errors import AssayError, InvalidInputError, NotFoundError
from assay.v1 import identity_pb2, policy_input_pb2, policy_pb2
from policies import artefacts, asking, inputs, verdicts
from policies.cel import Activation, Expression
from policies.deciding import ENGINE
from policies.fused import FAILS, HOLDS, NOT_APPLICABLE, Fused, entry
from policies.limits import PROFILES
from policies.pack import load, today
from policies.planning import Planner
from policies.reading import ROLES
from policies.rule import ACCOUNT, AT_INTAKE, AT_LIFE, AT_RELEASE, GOOD, LAW, USE, Pack, Rule

_KEPT_DAYS = 16
_GOOD = frozenset(GOOD)


@dataclass(frozen=True)
class _View:
    """What one choice of packs is judged by; ``by_day`` keeps the rules in force compiled together."""

    pack: Pack
    planner: Planner
    by_day: dict[tuple[dt.date, bool], Fused]
    by_profile: dict[str, dict[str, Any]]

    def limits(self, profile: str) -> dict[str, Any]:
        """Values of the limits that a decision reads, by CEL name; not to be changed."""
        known = profile if profile in PROFILES else "strict"
        if known not in self.by_profile:
            asked = [rule.names() for rule in self.pack.rules if rule.stage in AT_INTAKE]
            planned = [rule.applies.names() for rule in self.pack.rules if rule.gate is not None]
            bound = self.pack.limits.bindings(known)
            read = bound.keys() & frozenset().union(*asked, *planned)
            self.by_profile[known] = {name: bound[name] for name in read}
        return self.by_profile[known]

    def fused(self, day: dt.date, *, rows: bool) -> Fused:
        """The intake rules in force on a day; without ``rows`` only those that need none of their facts."""
        found = self.by_day.get((day, rows))
        if found is None:
            stages = AT_INTAKE if rows else AT_INTAKE[:1]
            asked = [rule for rule in self.pack.rules if rule.stage in stages]
            rules = [rule for rule in asked if rule.in_force(day)]
            others = [entry(asking.not_in_force(rule, day)) for rule in asked if not rule.in_force(day)]
            if len(self.by_day) >= _KEPT_DAYS:
                self.by_day.clear()
            found = self.by_day[(day, rows)] = Fused.of(rules, self.pack.intake, b"".join(others))
        return found


class PolicyEngine:
    """Judges by one bundle; which of its packs are asked depends on what the unit has chosen.

    Args:
        pack: loaded and checked.
        as_of: day whose rules apply where a question names none; None for today, asked anew each time.
        always_true: id of a rule to take for granted; only the mutation check of :mod:`policies.testing` sets it.
        packs: names of the packs that every unit is asked, whatever it chose; only for tests and replays.
    """

    def __init__(
        self,
        pack: Pack,
        as_of: dt.date | None = None,
        *,
        always_true: str = "",
        packs: frozenset[str] | None = None,
    ) -> None:
        self.pack = pack
        self._as_of = as_of
        self._always_true = always_true
        self._packs = packs
        self._planner = Planner(pack)
        self._views: dict[frozenset[str], _View] = {}

    @classmethod
    def load(cls, pack_dir: Path | None = None, as_of: dt.date | None = None, *, held: str = "") -> PolicyEngine:
        """Loads a pack and runs its own tests.

        Args:
            pack_dir: folder of the pack or bundle; the packaged one where there is none.
            as_of: as for the engine.
            held: :func:`policies.testing.standing` of when they last held; they are not run again for the same.

        Raises:
            InvalidInputError: ``PACK_*`` when the pack is faulty, ``PACK_TESTS_FAILED`` when its tests are.
        """
        from policies import testing

        engine = cls(load(pack_dir), as_of)
        if not held or testing.standing(engine.pack) != held:
            testing.demand(engine.pack)
        return engine

    def decide(self, question: policy_input_pb2.IntakeInput) -> policy_pb2.Decision:
        """Intake policy's answer, with the audit plan when it is yes or could become yes by a waiver.

        Raises:
            InvalidInputError: ``AS_OF`` when the day named is none.
        """
        return self._intake(question, rows=True)

    def preflight(self, question: policy_input_pb2.IntakeInput) -> policy_pb2.Decision:
        """What intake policy can say before the rows were opened: only the rules of that stage.

        ``allowed`` means that none of those denies; it is no promise about the others, and there is no plan.

        Raises:
            InvalidInputError: as :meth:`decide`.
        """
        return self._intake(question, rows=False)

    def read_use(self, question: policy_input_pb2.IntakeInput) -> policy_pb2.UseReading:
        """How the declared use is read, and which of the installation's packs the unit's choice leaves out."""
        read, chosen = inputs.shared_bindings(question), self._chosen(question.request.unit)
        names = [part.name for part in self.pack.parts]
        return policy_pb2.UseReading(
            places=read["places"],
            unknown_places=read["unknown_places"],
            uses=filter(None, read["uses"]),
            decides=read["about_people"],
            high_risk_by=read["high_risk_by"],
            packs=[name for name in names if name in chosen],
            packs_not_chosen=[name for name in names if name not in chosen],
        )

    def judge(self, question: policy_input_pb2.ReleaseInput) -> policy_pb2.Verdict:
        """Release policy's answer.

        Raises:
            InvalidInputError: ``AS_OF`` when the day named is none.
        """
        return self._release(question, AT_RELEASE)

    def renew(self, question: policy_input_pb2.ReleaseInput) -> policy_pb2.Verdict:
        """What is said each time a permit is asked for: the rules of stage ``live``.

        PASS also when no such rule is in force for the unit: the verdict before it is what allowed the model.

        Raises:
            InvalidInputError: ``AS_OF`` when the day named is none.
        """
        verdict = self._release(question, AT_LIFE)
        if all(outcome.outcome in GOOD for outcome in verdict.outcomes):
            verdict.outcome = policy_pb2.OUTCOME_PASS
        return verdict

    def same_rules(self, stages: Sequence[str], unit: str, first: dt.date, second: dt.date) -> bool:
        """Whether the same rules of some stages are in force for a unit on two days; then they answer the same."""
        asked = [rule for rule in self._view(unit).pack.rules if rule.stage in stages]
        return all(rule.in_force(first) == rule.in_force(second) for rule in asked)

    def reaches_back(self, rule_id: str) -> bool:
        """Whether a rule of intake that was not asked before training is asked of the model that came of it.

        Law, guidance and what a model is used for do; the institution's own demands on data and training do not, nor
        does anything that was used up by training.
        """
        rule = self.pack.rule(rule_id)
        if rule is None or ACCOUNT in rule.names():
            return False
        return rule.status in LAW or not USE.isdisjoint(rule.names())

    def policy(self) -> policy_pb2.Policy:
        """The pack as the wire shows it; ``publish_time`` is the installation's to fill."""
        return policy_pb2.Policy(
            name=f"policies/{self.pack.name}",
            version=self.pack.version,
            bundle_sha256=self.pack.bundle_sha256,
            limits_sha256=self.pack.limits_sha256,
            rules=[rule.message_type() for rule in self.pack.rules],
        )

    def explain(self, rule_id: str, sees: Callable[[str], bool] | None = None) -> policy_pb2.ExplainPolicyResponse:
        """One rule in words, with the limits that it reads.

        Args:
            rule_id: of a rule of any pack.
            sees: whether whoever asks may know of a unit, and of the law that it chose; None where all may be named.

        Raises:
            NotFoundError: ``RULE_NOT_FOUND``.
        """
        rule = self.pack.rule(rule_id)
        if rule is None:
            raise NotFoundError("RULE_NOT_FOUND", f"no rule {rule_id!r} in {self.pack.name} {self.pack.version}")
        limits = {name: self.pack.limits.by_name[name].text() for name in rule.limit_names()}
        reasons = [f"{name}: {self.pack.limits.by_name[name].why}" for name in rule.limit_names()]
        units = sorted(unit for unit in self.pack.units if rule.pack in self.pack.chosen(unit))
        seen = units if sees is None else list(filter(sees, units))
        nobody = "no unit yet" if sees is None else "no unit of yours"
        asked = "every unit" if rule.pack == self.pack.parts[0].name else ", ".join(seen) or nobody
        silent = [sentence for part in self.pack.parts if part.name == rule.pack for sentence in part.not_asked]
        parts = [
            rule.why,
            f"Pack {rule.pack}, asked of {asked}.",
            f"When it does not pass: {rule.fix.outline}",
            *([f"Limits. {' '.join(reasons)}"] if reasons else []),
            *([f"Law that pack {rule.pack} knows of and does not ask: {' '.join(silent)}"] if silent else []),
        ]
        return policy_pb2.ExplainPolicyResponse(rule=rule.message_type(), limits=limits, explanation="\n".join(parts))

    def value(self, question: policy_input_pb2.IntakeInput, expression: Expression) -> Any:
        """What an expression of a pack says about a question; no rule is asked.

        Raises:
            EvaluationError: it cannot be evaluated.
        """
        view = self._view(question.request.unit)
        there = artefacts.at_intake(question)
        every = self.pack.limits.bindings(question.request.audit_profile)
        return expression.value(self._bind(view, question, self._day(question.as_of), there, every))

    def preparation(self, profile: str) -> dict[str, int]:
        """Canaries that the prepare task must derive: ``a`` and ``b`` in all (planted and held out), ``b_repeats``.

        An unknown profile gets the strictest numbers.
        """
        return self._planner.preparation(profile, self._day(""))

    def days(self, limit: str) -> int:
        """A limit of the bundle that counts days and that the gateway reads, such as ``appeal_days``."""
        return round(self.pack.limits.number(limit, "strict"))

    def most(self, limit: str, profile: str) -> int | None:
        """A limit that counts and that the gateway reads before policy is asked; None in a bundle without it."""
        known = self.pack.limits.by_name.get(limit)
        value = known.value(profile) if known is not None else None
        return value if isinstance(value, int) else None

    @property
    def replay_tolerance(self) -> float:
        """Nats a token by which the validation losses of one run in two environments may differ."""
        return self.pack.limits.number("replay_tolerance", "strict")

    def quorum(self) -> tuple[identity_pb2.Role, ...]:
        """Roles that must sign, each by another subject."""
        words = self.pack.limits.by_name["quorum_roles"].value("strict")
        # A value of the enum is an int at run time; the stub calls it Role.
        return tuple(cast(identity_pb2.Role, identity_pb2.Role.Value(ROLES[word])) for word in words)

    def _release(self, question: policy_input_pb2.ReleaseInput, stages: Sequence[str]) -> policy_pb2.Verdict:
        day, pack = self._day(question.as_of), self._view(question.request.unit).pack
        faults, digest = _digest(question)
        if faults:
            rules = [rule for rule in pack.rules if rule.stage in stages]
            outcomes = [asking.failed(rule, faults[0]) for rule in rules]
        else:
            outcomes = verdicts.outcomes(pack, question, day, self._always_true, stages)
        return policy_pb2.Verdict(
            outcome=verdicts.combine(outcomes),
            outcomes=outcomes,
            bundle_sha256=self.pack.bundle_sha256,
            limits_sha256=self.pack.limits_sha256,
            input_sha256=digest,
            engine=ENGINE,
            as_of=day.isoformat(),
        )

    def _chosen(self, unit: str) -> frozenset[str]:
        return self._packs if self._packs is not None else self.pack.chosen(unit)

    def _view(self, unit: str) -> _View:
        names = self._chosen(unit)
        view = self._views.get(names)
        if view is None:
            pack = self.pack.only(names)
            view = self._views[names] = _View(pack, Planner(pack), {}, {})
        return view

    def _intake(self, question: policy_input_pb2.IntakeInput, *, rows: bool) -> policy_pb2.Decision:
        day, view = self._day(question.as_of), self._view(question.request.unit)
        faults, digest = _digest(question)
        decision = policy_pb2.Decision(
            bundle_sha256=self.pack.bundle_sha256,
            limits_sha256=self.pack.limits_sha256,
            input_sha256=digest,
            engine=ENGINE,
            as_of=day.isoformat(),
        )
        stages = AT_INTAKE if rows else AT_INTAKE[:1]
        if faults:
            asked = [rule for rule in view.pack.rules if rule.stage in stages]
            decision.outcomes.extend(asking.failed(rule, "; ".join(faults[:3])) for rule in asked)
            return decision
        there = artefacts.at_intake(question)
        activation = self._bind(view, question, day, there, view.limits(question.request.audit_profile))
        written, simple = self._outcomes(view, question, activation, day, there, rows=rows)
        decision.MergeFromString(written)
        # Where no rule was asked by itself, all passed or did not apply, and there is nothing to look through.
        answers = _GOOD if simple else {outcome.outcome for outcome in decision.outcomes}
        decision.allowed = answers <= _GOOD and policy_pb2.OUTCOME_PASS in answers
        # A denial that people may waive has a plan too: a waiver must not lead to a job that could never be judged.
        waivable = policy_pb2.OUTCOME_FAIL in answers and all(map(_waivable, decision.outcomes))
        if rows and (decision.allowed or waivable):
            try:
                decision.audit_plan.CopyFrom(view.planner.plan(question, activation, day, digest))
            except AssayError as error:
                decision.allowed = False
                decision.outcomes.append(_unplannable(error))
        return decision

    def _outcomes(
        self,
        view: _View,
        question: policy_input_pb2.IntakeInput,
        activation: Activation,
        day: dt.date,
        there: Mapping[str, str],
        *,
        rows: bool,
    ) -> tuple[bytes, bool]:
        """The outcomes of one question as wire bytes: all rules at once, and by itself each that does not just hold.

        The second value tells that at least one rule passed and none was asked by itself.
        """
        fused, out = view.fused(day, rows=rows), []

        def lacks(name: str) -> str:
            return inputs.missing_fact(question, name)

        def satisfied(rule: Rule) -> bool:
            return not any(map(lacks, rule.needs)) and set(rule.artefacts) <= there.keys()

        def missing(name: str) -> tuple[policy_pb2.Outcome, str]:
            reason = lacks(name)
            return (policy_pb2.OUTCOME_ERROR, reason) if reason else (policy_pb2.OUTCOME_PASS, "")

        alone, proven, papers = 0, False, tuple(there.items())
        answers = fused.answers(activation) if not self._always_true else None
        if answers is not None:
            known = fused.written.get((*answers, *papers))
            if known is not None and all(satisfied(fused.rules[i]) for i in fused.more if answers[i] == HOLDS):
                return known, True
        for i, answer in enumerate(answers if answers is not None else [FAILS] * len(fused.rules)):
            if answer == HOLDS and (fused.plain[i] or satisfied(fused.rules[i])):
                bare = not fused.plain[i] and asking.declared(fused.rules[i], there)
                out.append(entry(asking.held(fused.rules[i], there)) if bare else fused.passed[i])
                proven = proven or not bare
            elif answer == NOT_APPLICABLE:
                out.append(fused.passed_over[i])
            elif fused.rules[i].id == self._always_true:
                out.append(fused.passed[i])
            else:
                alone += 1
                out.append(entry(asking.ask(fused.rules[i], activation, missing, there)))
        simple = answers is not None and proven and alone == 0
        whole = b"".join((*out, fused.others))
        if simple and answers is not None:
            fused.keep((*answers, *papers), whole)
        return whole, simple

    def _bind(
        self,
        view: _View,
        question: policy_input_pb2.IntakeInput,
        day: dt.date,
        there: Mapping[str, str],
        limits: Mapping[str, Any],
    ) -> Activation:
        needed = view.planner.needed(question, day)
        return self.pack.intake.bind({
            **inputs.shared_bindings(question),
            "artefacts": list(there),
            "data": question.data,
            "account": question.account,
            "base_model": question.base_model,
            "known.pii_spans": view.planner.known_pii_spans(question),
            "known.pii_rows": view.planner.known_pii_rows(question),
            "known.prompts": view.planner.known_prompts(question, day),
            "known.protected_columns": view.planner.known_columns(question, "protected_columns"),
            "known.special_category_columns": view.planner.known_columns(question, "special_category_columns"),
            "known.age_columns": view.planner.known_columns(question, "age_columns"),
            "needed.test_rows": needed["test_rows"],
            "needed.canaries": needed["canaries"],
            "needed.canaries_included": needed["canaries_included"],
            "needed.pii_spans": needed["pii_spans"],
            "needed.generations": needed["generations"],
            "needed.group_rows": needed["group_rows"],
            **limits,
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
    return outcome.outcome in GOOD or (outcome.outcome == policy_pb2.OUTCOME_FAIL and outcome.waivable_by != "")


def _digest(question: Message) -> tuple[tuple[str, ...], str]:
    """What makes the question unfit, and the SHA-256 of its canonical JSON; the digest is empty when it is unfit."""
    small = question.ByteSize() <= inputs.MAX_ITEMS
    faults = () if small else inputs.faults(question)
    if faults:
        return faults, ""
    try:
        text = canonical.encode_message(question)
        # In a message of so few bytes only a number that is none can be at fault, and it would be spelled out.
        if small and (b'"NaN"' in text or b'Infinity"' in text) and (faults := inputs.faults(question)):
            return faults, ""
        return (), digests.sha256_bytes(text)
    except AssayError as error:
        return (error.message,), ""
