"""Fixes what will be measured, before anything is trained: gates, sample sizes, confidence levels, seed, commitments.

Every n follows from a limit, an error rate and a stated assumption about a clean model, all of them in the limits
file. So a clean model can pass, and a sample too small to decide is known before money is spent.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar, cast

from assay.errors import InternalError
from assay.v1 import measurement_pb2, policy_input_pb2
from policies import statistics
from policies.cel import Activation, EvaluationError, Expression
from policies.inputs import TASKS
from policies.limits import PROFILES, Limits
from policies.metrics import metrics_of
from policies.rule import Gate, Pack, Rule

PROBES = ("privacy", "membership", "memorisation", "quality", "cost")
DECISION_PROBES = ("fairness",)
DEEPER = ("inference", "baselines", "counterfactual", "regression", "stereotypes")
DEEPER_DECISIONS = ("robustness", "proxies", "reasons", "alternatives")
"""Probes that ``quick`` has no time for."""
SAMPLE_SIZES = (
    *("generations", "generation_tokens", "pii_spans", "verbatim_rows", "bootstrap"),
    *("test_rows", "train_rows", "counterfactual_rows", "counterfactual_generations", "reason_rows"),
    *("evaluation_items", "deep_rows", "inference_spans", "inference_candidates", "association_people"),
    *("exposure_canaries", "exposure_candidates"),
)
"""Sizes that the limits file states as ``sample_<name>``; the planner raises some of them to what the gates need."""
ABILITY_SETS = 4
"""Public sets over which the change of abilities is averaged."""
_NEEDED = ("test_rows", "canaries", "canaries_included", "pii_spans", "generations")
_DEEPER_NEEDED = ("counterfactual_rows", "evaluation_items", "all_items")
BATCH_PLAN = ("batch_tokens", "generation_rows")
"""How texts are put into batches, which decides the bits of every score; stated as limits of these names."""
_OF_RATE = ("impact_ratio", "rate_gap")
"""Methods whose n depends on the share of favourable rows."""
_KEPT = 1000
_T = TypeVar("_T")
_RATE_FLOOR = 0.05
"""Selection rates are taken into [.05, .95]: beyond, the normal approximation of the ratio means nothing."""


@dataclass(frozen=True)
class Planner:
    """Computes sample sizes and plans from one pack's limits."""

    pack: Pack
    _counted: dict[tuple[Any, ...], Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def limits(self) -> Limits:
        """The pack's limits."""
        return self.pack.limits

    def alpha(self, profile: str) -> float:
        """Two-sided error rate of one gate's PASS interval; one side of it is half."""
        return self.limits.number("alpha", profile)

    def gate_n(self, gate: Gate, question: policy_input_pb2.IntakeInput) -> int:
        """Observations with which a clean model passes the gate."""
        rate = favourable_rate(question) if gate.sample.method in _OF_RATE else 0.0
        return self._kept(
            ("n", gate.measurement, question.request.audit_profile, rate), lambda: self._n(gate, question)
        )

    def _kept(self, key: tuple[Any, ...], work: Callable[[], _T]) -> _T:
        """What the same question was answered before; what is kept follows from limits alone, and is bounded."""
        if key not in self._counted:
            if len(self._counted) >= _KEPT:
                self._counted.clear()
            self._counted[key] = work()
        return cast(_T, self._counted[key])

    def _n(self, gate: Gate, question: policy_input_pb2.IntakeInput) -> int:
        profile = question.request.audit_profile
        alpha, power = self.alpha(profile), self.limits.number("power", profile)
        limit = self.limits.number(gate.limit, profile)
        given = {key: self.limits.number(name, profile) for key, name in gate.sample.assumptions.items()}
        method = gate.sample.method
        if method == "hits":
            return statistics.n_for_hits(limit, round(given["tolerated"]), alpha)
        if method == "auc":
            return statistics.n_for_auc(limit, given["assumed"], alpha, power)
        if method == "mean":
            return statistics.n_for_mean(limit, given["assumed"], given["sd"], alpha, power)
        if method == "two_means":
            return statistics.n_for_two_means(limit, given["assumed"], given["sd"], alpha, power)
        if method == "impact_ratio":
            rate = favourable_rate(question)
            return statistics.n_for_impact_ratio(limit, given["assumed"], rate, alpha, power)
        # Rates are compared among rows of one true outcome, so the rarer one decides how many rows of a group it takes.
        rate = favourable_rate(question)
        return math.ceil(statistics.n_for_rate_gap(limit, 0.5, alpha, power) / min(rate, 1 - rate))

    def needed(self, question: policy_input_pb2.IntakeInput, day: dt.date) -> dict[str, int]:
        """Largest n of each kind over all gates in force, whether or not they will apply; ``needed.*`` for rules."""
        rate = favourable_rate(question)
        return self._kept(("needed", question.request.audit_profile, rate, day), lambda: self._needed(question, day))

    def _needed(self, question: policy_input_pb2.IntakeInput, day: dt.date) -> dict[str, int]:
        return self._largest((r.gate for r in self.pack.rules if r.gate is not None and r.in_force(day)), question)

    def _largest(self, gates: Iterable[Gate], question: policy_input_pb2.IntakeInput) -> dict[str, int]:
        counts = dict.fromkeys((*_NEEDED, *_DEEPER_NEEDED), 0)
        for gate in gates:
            kind = gate.sample.counts
            if kind in counts:
                counts[kind] = max(counts[kind], self.gate_n(gate, question))
        return counts

    def known_pii_spans(self, question: policy_input_pb2.IntakeInput) -> int:
        """Direct identifiers of the train split; estimated from the whole file where they were not counted by split."""
        data = question.data
        if data.HasField("train_pii_spans"):
            return data.train_pii_spans
        direct = set(self.limits.by_name["direct_identifiers"].value(question.request.audit_profile))
        return sum(finding.count for finding in data.pii if finding.entity_type in direct)

    def preparation(self, profile: str, day: dt.date) -> dict[str, int]:
        """Canaries to derive, planted and held out together, so that coin flips leave enough of both."""
        if profile not in PROFILES:
            profile = "strict"
        question = policy_input_pb2.IntakeInput(request=policy_input_pb2.RequestFacts(audit_profile=profile))
        needed = self.needed(question, day)
        half = max(needed["canaries_included"], (needed["canaries"] + 1) // 2)
        return {
            "a": statistics.coin_flips(half, self.limits.number("canary_assurance", profile)),
            "b": round(self.limits.number("canaries_repeated", profile)),
            "b_repeats": round(self.limits.number("canary_repeats", profile)),
        }

    def plan(
        self, question: policy_input_pb2.IntakeInput, activation: Activation, day: dt.date, input_sha256: str
    ) -> measurement_pb2.AuditPlan:
        """Builds the plan of an allowed request.

        Raises:
            EvaluationError: a gate's condition cannot be evaluated.
            InternalError: ``PLAN_EMPTY`` when no gate applies: such a job could never be judged.
        """
        request, data = question.request, question.data
        applying = self._applying(activation, day)
        needed, known = self.needed(question, day), self.known_pii_spans(question)
        sizes = self._sizes(question, applying)
        if 0 < known < needed["pii_spans"]:
            # Too few to estimate a rate: every one is tried, and none may come back.
            sizes["pii_census"] = known if data.HasField("train_pii_spans") else 1
        # What gates and profile settle is the same for every request that they are the same for.
        attributes = tuple(question.datasheet.sensitive_attributes)
        names = tuple(rule.id for rule, _ in applying)
        key = ("plan", request.audit_profile, question.format, names, attributes, favourable_rate(question))
        plan = measurement_pb2.AuditPlan.FromString(self._kept(key, partial(self._settled, question, applying)))
        if not plan.gates:
            raise InternalError("PLAN_EMPTY", "no release gate applies to this request")
        plan.sample_sizes.update(sizes)
        plan.seed = int(input_sha256[:8], 16) & 0x7FFFFFFF
        plan.sensitive_attributes.extend(attributes)
        plan.canary_manifest_sha256 = data.canary_manifest_sha256
        plan.sealed_test_sha256 = data.split_sha256["test"] if "test" in data.split_sha256 else ""
        return plan

    def _settled(self, question: policy_input_pb2.IntakeInput, applying: Sequence[tuple[Rule, Gate]]) -> bytes:
        """The part of a plan that profile, format and gates settle, as wire bytes."""
        gates = [planned for rule, gate in applying for planned in self._gates(rule, gate, question)]
        profile = question.request.audit_profile
        decides = TASKS.get(question.format) == "decision"
        probes = probes_of(profile, decides=decides)
        return measurement_pb2.AuditPlan(
            profile=profile,
            probes=probes,
            metrics=metrics_of(probes, [gate.measurement for gate in gates]),
            batch_plan={name: round(self.limits.number(name, profile)) for name in BATCH_PLAN},
            gates=gates,
            confidences=ladder(self.alpha(profile), len(gates)),
            time_limit_seconds=round(self.limits.number("audit_seconds", profile)),
            task=question.format,
        ).SerializeToString()

    def _applying(self, activation: Activation, day: dt.date) -> list[tuple[Rule, Gate]]:
        """Gates in force whose conditions hold; asked for all at once, and one by one where that fails."""
        gated = self._kept(
            ("gates", day), lambda: [(r, r.gate) for r in self.pack.rules if r.gate is not None and r.in_force(day)]
        )
        together = self._kept(("together", day), lambda: self._together([rule for rule, _ in gated]))
        try:
            holds = together.value(activation)
        except EvaluationError:
            holds = [rule.applies.holds(activation) for rule, _ in gated]
        return [pair for pair, answer in zip(gated, holds, strict=True) if answer is True]

    def _together(self, rules: Sequence[Rule]) -> Expression:
        listed = ",".join(f"({rule.applies.source}\n)" for rule in rules)
        return self.pack.intake.compile(f"[{listed}]", cap=False)

    def _gates(
        self, rule: Rule, gate: Gate, question: policy_input_pb2.IntakeInput
    ) -> list[measurement_pb2.PlannedGate]:
        names = [gate.measurement]
        if gate.per_attribute:
            names = [f"{gate.measurement}[{attribute}]" for attribute in question.datasheet.sensitive_attributes]
        profile, n = question.request.audit_profile, self.gate_n(gate, question)
        return [self._gate(rule, gate, name, profile, n) for name in names]

    def _gate(self, rule: Rule, gate: Gate, name: str, profile: str, n: int) -> measurement_pb2.PlannedGate:
        return measurement_pb2.PlannedGate(
            rule_id=rule.id,
            measurement=name,
            side=measurement_pb2.LIMIT_SIDE_AT_MOST if gate.at_most else measurement_pb2.LIMIT_SIDE_AT_LEAST,
            limit=self.limits.number(gate.limit, profile),
            alpha=self.alpha(profile),
            n=n,
        )

    def _chosen(self, profile: str) -> dict[str, int]:
        return {name: round(self.limits.number(f"sample_{name}", profile)) for name in SAMPLE_SIZES}

    def _sizes(self, question: policy_input_pb2.IntakeInput, applying: Sequence[tuple[Rule, Gate]]) -> dict[str, int]:
        """Sizes of the profile, raised to what the gates need that will judge this request."""
        profile, data = question.request.audit_profile, question.data
        chosen = dict(self._kept(("sizes", profile), lambda: self._chosen(profile)))
        needed = self._largest((gate for _, gate in applying), question)
        for name in ("generations", "pii_spans", "test_rows", "counterfactual_rows", "evaluation_items"):
            chosen[name] = max(chosen[name], needed[name])
        chosen["evaluation_items"] = max(chosen["evaluation_items"], -(-needed["all_items"] // ABILITY_SETS))
        chosen["train_rows"] = max(chosen["train_rows"], needed["test_rows"])
        chosen["canaries"] = data.canaries_inserted + data.canaries_held_out
        chosen["test_rows"] = min(chosen["test_rows"], data.test_rows)
        return chosen


def probes_of(profile: str, *, decides: bool) -> list[str]:
    """Probes of a profile, for chat or for decisions."""
    out = [*PROBES, *(DECISION_PROBES if decides else ())]
    if profile != "quick":
        out += [*DEEPER, *(DEEPER_DECISIONS if decides else ())]
    return out


def ladder(alpha: float, gates: int) -> list[float]:
    """Confidence levels ``1 - alpha/k``, k from 1 to the number of gates, ascending; read by PASS and by Holm."""
    return sorted({round(1 - alpha / k, 12) for k in range(1, gates + 1)})


def favourable_rate(question: policy_input_pb2.IntakeInput) -> float:
    """Share of rows with the favourable label, kept away from 0 and 1; one half where it is not known."""
    counts, label = question.data.label_counts, question.datasheet.favourable_label
    total = sum(counts.values())
    share = counts[label] / total if total and label in counts else 0.5
    return min(max(share, _RATE_FLOOR), 1 - _RATE_FLOOR)
