"""Fixes what will be measured, before anything is trained: gates, sample sizes, confidence levels, seed, commitments.

Every n follows from a limit, an error rate and a stated assumption about a clean model, all of them in the limits
file. So a clean model can pass, and a sample too small to decide is known before money is spent.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import dataclass

from assay.errors import InternalError
from assay.v1 import dataset_pb2, measurement_pb2, policy_input_pb2
from policies import statistics
from policies.cel import Activation
from policies.limits import PROFILES, Limits
from policies.metrics import metrics_of
from policies.rule import Gate, Pack, Rule

PROBES = ("privacy", "membership", "memorisation", "quality", "cost")
DECISION_PROBES = ("fairness",)
DEEPER = ("baselines", "counterfactual", "regression", "stereotypes")
DEEPER_DECISIONS = ("robustness", "proxies", "reasons", "alternatives")
"""Probes that ``quick`` has no time for."""
SAMPLE_SIZES = (
    *("generations", "generation_tokens", "pii_spans", "verbatim_rows", "bootstrap"),
    *("test_rows", "train_rows", "counterfactual_rows", "counterfactual_generations", "reason_rows"),
    *("evaluation_items", "inference_spans", "inference_candidates", "association_people"),
    *("exposure_canaries", "exposure_candidates"),
)
"""Sizes that the limits file states as ``sample_<name>``; the planner raises some of them to what the gates need."""
BATCH_PLAN = ("batch_tokens", "generation_rows")
"""How texts are put into batches, which decides the bits of every score; stated as limits of these names."""
_RATE_FLOOR = 0.05
"""Selection rates are taken into [.05, .95]: beyond, the normal approximation of the ratio means nothing."""


@dataclass(frozen=True)
class Planner:
    """Computes sample sizes and plans from one pack's limits."""

    pack: Pack

    @property
    def limits(self) -> Limits:
        """The pack's limits."""
        return self.pack.limits

    def alpha(self, profile: str) -> float:
        """Two-sided error rate of one gate's PASS interval; one side of it is half."""
        return self.limits.number("alpha", profile)

    def gate_n(self, gate: Gate, question: policy_input_pb2.IntakeInput) -> int:
        """Observations with which a clean model passes the gate."""
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
        counts = {"test_rows": 0, "canaries": 0, "canaries_included": 0, "pii_spans": 0, "generations": 0}
        for rule in self.pack.rules:
            if rule.gate is not None and rule.in_force(day) and rule.gate.sample.counts in counts:
                kind = rule.gate.sample.counts
                counts[kind] = max(counts[kind], self.gate_n(rule.gate, question))
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
        gates: list[measurement_pb2.PlannedGate] = []
        for rule in self.pack.rules:
            if rule.gate is not None and rule.in_force(day) and rule.applies.holds(activation):
                gates += self._gates(rule, rule.gate, question)
        if not gates:
            raise InternalError("PLAN_EMPTY", "no release gate applies to this request")
        needed, known = self.needed(question, day), self.known_pii_spans(question)
        sizes = self._sizes(request.audit_profile, data, needed)
        if 0 < known < needed["pii_spans"]:
            # Too few to estimate a rate: every one is tried, and none may come back.
            sizes["pii_census"] = known if data.HasField("train_pii_spans") else 1
        decides = question.format == dataset_pb2.DATASET_FORMAT_DECISION_CSV
        probes = probes_of(request.audit_profile, decides=decides)
        return measurement_pb2.AuditPlan(
            profile=request.audit_profile,
            probes=probes,
            metrics=metrics_of(probes, [gate.measurement for gate in gates]),
            batch_plan={name: round(self.limits.number(name, request.audit_profile)) for name in BATCH_PLAN},
            gates=gates,
            confidences=ladder(self.alpha(request.audit_profile), len(gates)),
            sample_sizes=sizes,
            seed=int(input_sha256[:8], 16) & 0x7FFFFFFF,
            sensitive_attributes=question.datasheet.sensitive_attributes,
            canary_manifest_sha256=data.canary_manifest_sha256,
            sealed_test_sha256=data.split_sha256["test"] if "test" in data.split_sha256 else "",
            time_limit_seconds=round(self.limits.number("audit_seconds", request.audit_profile)),
            task=question.format,
        )

    def _gates(
        self, rule: Rule, gate: Gate, question: policy_input_pb2.IntakeInput
    ) -> list[measurement_pb2.PlannedGate]:
        profile = question.request.audit_profile
        names = [gate.measurement]
        if gate.per_attribute:
            names = [f"{gate.measurement}[{attribute}]" for attribute in question.datasheet.sensitive_attributes]
        side = measurement_pb2.LIMIT_SIDE_AT_MOST if gate.at_most else measurement_pb2.LIMIT_SIDE_AT_LEAST
        return [
            measurement_pb2.PlannedGate(
                rule_id=rule.id,
                measurement=name,
                side=side,
                limit=self.limits.number(gate.limit, profile),
                alpha=self.alpha(profile),
                n=self.gate_n(gate, question),
            )
            for name in names
        ]

    def _sizes(self, profile: str, data: policy_input_pb2.DataFacts, needed: Mapping[str, int]) -> dict[str, int]:
        chosen = {name: round(self.limits.number(f"sample_{name}", profile)) for name in SAMPLE_SIZES}
        for name in ("generations", "pii_spans", "test_rows"):
            chosen[name] = max(chosen[name], needed[name])
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
