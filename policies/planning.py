"""Fixes what will be measured, before anything is trained: gates, sample sizes, confidence levels, seed, commitments.

Every n follows from a limit, an error rate and a stated assumption about a clean model, all of them in the limits
file. So a clean model can pass, and a sample too small to decide is known before money is spent: rules of intake
read it as ``needed``.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar, cast

from assay.errors import InternalError
from assay.groups import LEAST_CELL
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
LATER_SIZES = ("permutations",)
"""Likewise, but limits of bundles before they were added lack them: the probes' own number is in force there."""
ABILITY_SETS = 4
"""Public sets over which the change of abilities is averaged."""
_NEEDED = ("test_rows", "canaries", "canaries_included", "pii_spans", "generations")
_DEEPER_NEEDED = ("counterfactual_rows", "evaluation_items", "all_items")
BATCH_PLAN = ("batch_tokens", "generation_rows")
"""How texts are put into batches, which decides the bits of every score; stated as limits of these names."""
_OF_GROUPS = ("impact_ratio", "rate_gap", "largest_mean")
"""Methods whose n depends on how many groups are compared; of the first two, on the share of favourable rows too."""
_KEPT = 1000
_T = TypeVar("_T")
_RATE_FLOOR = 0.05
"""Selection rates are taken into [.05, .95]: beyond, a few rows of the file would settle n."""
MOST_OTHERS = 9
"""Most groups that the audit puts in the place of the largest one."""
MOST_IDENTIFIERS = 400
"""Most identifiers of training rows that the preparation hands over with their rows, to be prompted for."""
MOST_TRAINING_PROMPTS = 200
"""Most training rows that the preparation hands over to be asked; an audit of a profile may take fewer."""
_ASSURANCE = 0.99
"""Chance that the test rows drawn for scoring hold the n of the smallest group."""


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

    def gate_n(self, gate: Gate, question: policy_input_pb2.IntakeInput, attribute: str = "") -> int:
        """Observations with which a clean model passes the gate; of a gate on groups, those of ``attribute``."""
        between = gate.sample.method in _OF_GROUPS
        rate, groups = (favourable_rate(question), len(group_shares(question, attribute))) if between else (0.0, 0)
        profile = question.request.audit_profile
        return self._kept(("n", gate.measurement, profile, rate, groups), lambda: self._n(gate, profile, rate, groups))

    def _kept(self, key: tuple[Any, ...], work: Callable[[], _T]) -> _T:
        """What the same question was answered before; what is kept follows from limits alone, and is bounded."""
        if key not in self._counted:
            if len(self._counted) >= _KEPT:
                self._counted.clear()
            self._counted[key] = work()
        return cast(_T, self._counted[key])

    def _n(self, gate: Gate, profile: str, rate: float, groups: int) -> int:
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
        if method == "largest_mean":
            others = min(groups - 1, MOST_OTHERS)
            return statistics.n_for_largest_mean(limit, given["assumed"], given["sd"], others, alpha, power)
        if method == "two_means":
            return statistics.n_for_two_means(limit, given["assumed"], given["sd"], alpha, power)
        if method == "impact_ratio":
            return statistics.n_for_impact_ratio(limit, given["assumed"], rate, groups, alpha, power)
        # True and false positive rates must both pass, each among the rows of one true outcome; at one half they vary
        # most.
        return statistics.n_for_rate_gap(limit, 0.5, groups, alpha, power, (rate, 1 - rate))

    def needed(self, question: policy_input_pb2.IntakeInput, day: dt.date) -> dict[str, int]:
        """Largest n of each kind over all gates in force, whether or not they will apply; ``needed.*`` for rules.

        Its ``group_rows`` are test rows, so many that the smallest group of every attribute has its n.
        """
        key = (question.request.audit_profile, favourable_rate(question), _compared(question), day)
        return self._kept(("needed", *key), lambda: self._needed(question, day))

    def _needed(self, question: policy_input_pb2.IntakeInput, day: dt.date) -> dict[str, int]:
        gates = [r.gate for r in self.pack.rules if r.gate is not None and r.in_force(day)]
        return {**self._largest(gates, question), "group_rows": self._rows_of_groups(question, gates)}

    def _largest(self, gates: Iterable[Gate], question: policy_input_pb2.IntakeInput) -> dict[str, int]:
        counts = dict.fromkeys((*_NEEDED, *_DEEPER_NEEDED), 0)
        for gate in gates:
            kind = gate.sample.counts
            if kind in counts:
                of = question.datasheet.sensitive_attributes if gate.per_attribute else ()
                counts[kind] = max(counts[kind], *(self.gate_n(gate, question, attribute) for attribute in of or ("",)))
        return counts

    def known_pii_spans(self, question: policy_input_pb2.IntakeInput) -> int:
        """Direct identifiers of the train split; estimated from the whole file where they were not counted by split."""
        data = question.data
        if data.HasField("train_pii_spans"):
            return data.train_pii_spans
        direct = set(self.limits.by_name["direct_identifiers"].value(question.request.audit_profile))
        return sum(finding.count for finding in data.pii if finding.entity_type in direct)

    def known_pii_rows(self, question: policy_input_pb2.IntakeInput) -> int:
        """Rows of the train split with a direct identifier, each one trial; estimated from the whole file's share.

        Where rows say whose they are, one trial is a person's rows together, and preparation has counted them. No more
        than identifiers, of which each is tried in one row only. Where a census could not try them all, or no share is
        told, identifiers stand for rows: an audit that finds too few rows is INCONCLUSIVE.
        """
        known, data = self.known_pii_spans(question), question.data
        if data.HasField("train_pii_units") and known <= MOST_IDENTIFIERS:
            return min(known, data.train_pii_units)
        # A share that is no number is no estimate.
        rows = math.ceil(data.pii_row_share * data.train_rows) if 0 < data.pii_row_share <= 1 else 0
        return min(known, rows) if rows and known <= MOST_IDENTIFIERS else known

    def known_prompts(self, question: policy_input_pb2.IntakeInput, day: dt.date) -> int:
        """Most prompts that the audit may ask for answers: those of test, selection and sampled training rows.

        Rows that share a prompt are one, which nobody has counted yet: no file of so many rows could have more.
        """
        data, profile = question.data, question.request.audit_profile
        chosen = self._kept(("sizes", profile), lambda: self._chosen(profile))["train_rows"]
        sampled = max(chosen, self.needed(question, day)["test_rows"])
        return data.test_rows + data.selection_rows + min(data.train_rows, sampled, MOST_TRAINING_PROMPTS)

    def known_columns(self, question: policy_input_pb2.IntakeInput, limit: str) -> list[str]:
        """Columns of a table whose name is listed in a limit, without case, spaces, underscores and hyphens.

        None in a bundle that states no such limit.
        """
        stated = self.limits.by_name.get(limit)
        if stated is None or not question.data.columns:
            return []
        profile = question.request.audit_profile
        listed = self._kept(("listed", limit, profile), lambda: frozenset(map(_folded, stated.value(profile))))
        return [column for column in question.data.columns if _folded(column) in listed]

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
        needed, known = self.needed(question, day)["pii_spans"], self.known_pii_spans(question)
        sizes = self._sizes(question, applying)
        if 0 < self.known_pii_rows(question) < needed:
            # Too few to estimate a rate: every one is tried, and none may come back.
            sizes["pii_spans"] = max(sizes["pii_spans"], known)
            sizes["pii_census"] = known if data.HasField("train_pii_spans") else 1
        # What gates and profile settle is the same for every request that they are the same for.
        names = tuple(rule.id for rule, _ in applying)
        key = (request.audit_profile, question.format, names, _compared(question), favourable_rate(question))
        settled = self._kept(("plan", *key), partial(self._settled, question, applying))
        gates = [gate for _, gate in applying]
        of_groups = self._kept(("groups", *key), partial(self._rows_of_groups, question, gates))
        sizes["test_rows"] = min(max(sizes["test_rows"], of_groups), data.test_rows)
        plan = measurement_pb2.AuditPlan.FromString(settled)
        if not plan.gates:
            raise InternalError("PLAN_EMPTY", "no release gate applies to this request")
        plan.sample_sizes.update(sizes)
        plan.seed = int(input_sha256[:8], 16) & 0x7FFFFFFF
        plan.sensitive_attributes.extend(question.datasheet.sensitive_attributes)
        plan.groups.extend(data.compared_groups)
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
        profile = question.request.audit_profile
        if not gate.per_attribute:
            return [self._gate(rule, gate, gate.measurement, profile, self.gate_n(gate, question))]
        return [
            self._gate(rule, gate, f"{gate.measurement}[{attribute}]", profile, self.gate_n(gate, question, attribute))
            for attribute in question.datasheet.sensitive_attributes
        ]

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
        stated = (*SAMPLE_SIZES, *(name for name in LATER_SIZES if f"sample_{name}" in self.limits.by_name))
        return {name: round(self.limits.number(f"sample_{name}", profile)) for name in stated}

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
        return chosen

    def _rows_of_groups(self, question: policy_input_pb2.IntakeInput, gates: Iterable[Gate]) -> int:
        """Test rows to score so that the smallest group of every attribute has the n of its gates; 0 without any."""
        return max(
            (
                statistics.draws_for(
                    self.gate_n(gate, question, attribute), group_shares(question, attribute)[0], _ASSURANCE
                )
                for gate in gates
                if gate.sample.counts == "group_rows"
                for attribute in question.datasheet.sensitive_attributes
            ),
            default=0,
        )


def probes_of(profile: str, *, decides: bool) -> list[str]:
    """Probes of a profile, for chat or for decisions."""
    out = [*PROBES, *(DECISION_PROBES if decides else ())]
    if profile != "quick":
        out += [*DEEPER, *(DEEPER_DECISIONS if decides else ())]
    return out


def ladder(alpha: float, gates: int) -> list[float]:
    """Confidence levels ``1 - alpha/k``, k from 1 to the number of gates, ascending; read by PASS and by Holm."""
    return sorted({round(1 - alpha / k, 12) for k in range(1, gates + 1)})


def _folded(name: str) -> str:
    return "".join(c for c in name.casefold() if c not in " _-")


def favourable_rate(question: policy_input_pb2.IntakeInput) -> float:
    """Share of rows with the favourable label, kept away from 0 and 1; one half where it is not known."""
    counts, label = question.data.label_counts, question.datasheet.favourable_label
    total = sum(counts.values())
    share = counts[label] / total if total and label in counts else 0.5
    return min(max(share, _RATE_FLOOR), 1 - _RATE_FLOOR)


def _compared(question: policy_input_pb2.IntakeInput) -> tuple[tuple[str | float, ...], ...]:
    """Every sensitive attribute with the shares of its groups, on which the n of gates on groups depends."""
    return tuple((name, *group_shares(question, name)) for name in question.datasheet.sensitive_attributes)


def group_shares(question: policy_input_pb2.IntakeInput, attribute: str) -> list[float]:
    """Shares of the rows of the groups that the audit will compare, ascending; two halves where they were not counted.

    Every split has its share of every group, unless the facts count the test rows themselves. Groups with fewer than
    :data:`assay.groups.LEAST_CELL` test rows are compared as one, or left out where together they have fewer too.
    """
    found = (question.data.test_group_counts or question.data.group_counts).items()
    counts = sorted(n for key, n in found if key.startswith(f"{attribute}=") and n > 0)
    rows, tested = sum(counts), question.data.test_rows
    few = [n for n in counts if n * tested < LEAST_CELL * rows]
    groups = [sum(few), *counts[len(few) :]]
    shares = sorted(n / rows for n in groups if n * tested >= LEAST_CELL * rows and n > 0)
    return shares if len(shares) > 1 else [0.5, 0.5]
