"""The audit task: runs the planned probes inside the sandbox and writes ``report.json``.

A probe that fails or runs out of time costs its own measurements and no others; each is reported as unavailable with
the reason, since a measurement that silently went missing could be read as a clean one. Faults of the model itself
(another base, a NaN) end the audit: no number about it would mean anything.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from assay import canonical, digests, durable, groups
from assay.errors import AssayError, IntegrityError, InvalidInputError
from assay.v1 import measurement_pb2
from assay.worker.task import TaskContext, TaskPaused
from audit.probes import (
    accounting,
    alternatives,
    calibration,
    cost,
    counterfactual,
    fairness,
    hosting,
    inference,
    instruments,
    leakage,
    membership,
    memorisation,
    privacy,
    proxies,
    quality,
    reasons,
    regression,
    robust,
    safety,
    sanity,
    sets,
    stereotypes,
    tail_exposure,
)
from audit.probes.chat import Chat
from audit.probes.clock import Clock
from audit.probes.corpus import build
from audit.probes.findings import Audit, Findings, Scan
from audit.probes.inputs import Settings, check_commitments, check_splits, committed, read_private_rows
from audit.probes.kept_scores import KeptScores
from audit.probes.measurements import Measurement, Subject, unavailable
from audit.probes.passages import BatchPlan, Board, Model

REPORT = "report.json"
CANARIES = "canaries.json"
_DIGEST = 64
"""Characters of a hex SHA-256."""
NO_ADAPTER = "none"
"""What an order says of its ``adapter`` to have the base model audited by itself."""

NOT_TESTED = (
    "membership inference by shadow models (LiRA, RMIA): none are trained",
    "jailbreaks and prompt injection",
    "what the model writes without a prompt, or to prompts that are not of its own rows",
    "what people would say of long answers: everything here is a likelihood, an exact match or a count",
    "languages other than those of the test rows, and prompts written by an adversary",
    "composition with other adapters, quantised serving and agent tools",
    "a train worker whose code was changed to know canaries by their words: the digests of the code that ran stand in "
    "the statement of training",
)
"""What no probe here looks at; printed on the card so that nobody reads silence as a pass."""


@dataclass(frozen=True)
class Probe:
    """A probe and the measurements that it answers for when it cannot run.

    Attributes:
        name: as the plan names it.
        step: what is shown while it runs.
        measures: prefixes of the measurement names that it owns.
        run: the probe.
    """

    name: str
    step: str
    measures: tuple[str, ...]
    run: Callable[[Audit], Findings]


_SWAPS = ("fairness.counterfactual_", "fairness.generation_", "fairness.answer_likelihood_")
_MEMORISED = ("privacy.verbatim_", "privacy.near_verbatim_", "overfitting.")
_SANITY = ("adapter.", "overfitting.near_duplicate_", "overfitting.test_overlap_")
_GROUPS = tuple(
    f"fairness.{name}"
    for name in (
        *("selection_", "impact_ratio", "label_impact_ratio", "tpr_", "fpr_", "equalized_odds_", "left_out_"),
        *("true_positive_", "false_positive_", "accuracy"),
    )
)
PROBES = (
    Probe("cost", "reading the bill", ("cost.",), cost.run),
    Probe("quality", "comparing with the base model", ("quality.",), quality.run),
    Probe("cost", "forecasting", ("cost.usd_per_", "cost.break_even_"), hosting.forecast),
    Probe("quality", "checking the adapter", _SANITY, sanity.run),
    Probe("quality", "calibration", ("quality.calibration_", "fairness.calibration_"), calibration.run),
    Probe("fairness", "comparing groups", _GROUPS, fairness.run),
    Probe("privacy", "scoring canaries", ("privacy.canary_", "privacy.epsilon_"), privacy.run),
    Probe("privacy", "checking the privacy accounting", ("privacy.epsilon_acc",), accounting.run),
    Probe("privacy", "completing identifiers", ("privacy.pii_extraction_",), leakage.reconstruction),
    Probe("privacy", "counting identifiers", ("privacy.pii_identifiers_",), leakage.tried),
    Probe("membership", "telling trained rows from others", ("privacy.membership_",), membership.run),
    Probe("memorisation", "looking for memorised rows", _MEMORISED, memorisation.run),
    Probe("inference", "choosing among identifiers", ("privacy.pii_inf", "privacy.association_"), inference.run),
    Probe("privacy", "reading generations", ("privacy.pii_generation_", "privacy.pii_any_"), leakage.generations),
    Probe("privacy", "comparing with random secrets", ("privacy.canary_tail_",), tail_exposure.run),
    Probe("counterfactual", "exchanging groups", _SWAPS, counterfactual.run),
    Probe("robustness", "turning labels round", ("fairness.label_", "fairness.impact_ratio_both"), robust.run),
    Probe("proxies", "looking for proxies", ("fairness.proxy_",), proxies.run),
    Probe("reasons", "reversing stated reasons", ("fairness.reason_",), reasons.run),
    Probe("alternatives", "trying alternatives", ("fairness.alternative_",), alternatives.run),
    Probe("baselines", "prompting the base", ("quality.prompt_only_", "quality.retrieval_"), hosting.baselines),
    Probe("regression", "comparing abilities", ("regression.",), regression.run),
    Probe("regression", "comparing refusals", ("safety.",), safety.run),
    Probe("stereotypes", "comparing stereotypes", ("fairness.stereotype_",), stereotypes.run),
)
"""In running order: cheap and judged first, so that a short clock costs the least."""
_SECONDS = {
    "comparing with the base model": (0.15, "test_rows"),
    "forecasting": (5.0, ""),
    "comparing groups": (5.0, ""),
    "scoring canaries": (15.0, ""),
    "completing identifiers": (0.04, "pii_spans"),
    "telling trained rows from others": (0.05, "train_rows"),
    "choosing among identifiers": (1.5, "inference_spans"),
    "reading generations": (0.7, "generations"),
    "comparing with random secrets": (6.0, "exposure_canaries"),
    "exchanging groups": (0.4, "counterfactual_rows"),
    "turning labels round": (0.1, "deep_rows"),
    "looking for proxies": (0.05, "deep_rows"),
    "reversing stated reasons": (0.5, "reason_rows"),
    "trying alternatives": (0.2, "deep_rows"),
    "prompting the base": (25.0, ""),
    "comparing abilities": (2.5, "evaluation_items"),
    "comparing refusals": (0.4, "evaluation_items"),
    "comparing stereotypes": (0.4, "evaluation_items"),
}
"""Seconds of a step on one core, of each of a sample size where one is named: for the proportions of what is left."""


def run(context: TaskContext) -> dict[str, Any]:
    """Runs the audit; the claim names the digests of report, adapter, plan and rows, and the seconds of each probe.

    Raises:
        InvalidInputError: ``AUDIT_ORDER_MALFORMED``, ``PRIVATE_ROWS_MALFORMED``, ``ADAPTER_OTHER_BASE`` ...
        IntegrityError: ``CANARY_MANIFEST_OTHER``, ``PRIVATE_ROWS_OTHER``, ``MODEL_NOT_FINITE`` ...
    """
    plan = _plan(context.order)
    settings = Settings.of(plan)
    clock = Clock.start(settings.time_limit)
    context.progress(0, len(PROBES) + 1, "loading the model")
    check_commitments(context.inputs, plan, context.order)
    rows = read_private_rows(context.inputs)
    check_splits(rows)
    model, chat, environment = _load(context, settings.batches)
    corpus = build(rows, chat, settings)
    board = Board(model, clock, KeptScores(context.work / "base-scores", environment))
    folder = context.models / sets.FOLDER
    audit = Audit(settings, rows, corpus, board, chat, _scanner(), context.order, folder)
    report = assemble(plan, audit, clock, _Desk(context, plan, environment))
    report.environment.update(environment)
    (context.outputs / REPORT).write_text(report_json(report), encoding="utf-8")
    reveal(context.inputs, context.outputs)
    return {
        "report_sha256": digests.sha256_file(context.outputs / REPORT),
        "adapter_sha256": environment.get("adapter_sha256", ""),
        "plan_sha256": plan_sha256(context.order),
        **({"private_commitment": committed(context.order)} if committed(context.order) else {}),
        "probe_seconds": {name: f"{seconds:.3f}" for name, seconds in sorted(report.probe_seconds.items())},
        "measurements": len(report.measurements),
        "unavailable": sum(bool(m.unavailable) for m in report.measurements),
    }


def plan_sha256(order: Mapping[str, Any]) -> str:
    """Digest of an order's plan, as the gateway records it."""
    return digests.sha256_bytes(canonical.encode(canonical.float_free(order["plan"])))


def reveal(inputs: Path, outputs: Path) -> None:
    """Opens the commitment: the canary manifest leaves in clear, now that nothing can be trained any more."""
    manifest = inputs / "private" / CANARIES
    if manifest.is_file():
        shutil.copyfile(manifest, outputs / CANARIES)


def assemble(
    plan: measurement_pb2.AuditPlan, audit: Audit, clock: Clock, desk: _Desk | None = None
) -> measurement_pb2.AuditReport:
    """Runs every planned probe and completes the report, so that each planned gate has its measurement."""
    # What no probe looks at comes first: a record has room for the first sentences alone.
    report = measurement_pb2.AuditReport(not_tested=NOT_TESTED)
    wanted, earlier = set(audit.settings.probes) or {p.name for p in PROBES}, 0.0
    for unknown in sorted(wanted - {p.name for p in PROBES}):
        report.not_tested.append(f"{unknown}: this auditor has no such probe")
    for step, probe in enumerate(PROBES, 1):
        if probe.name not in wanted:
            report.not_tested.append(f"{probe.name} ({probe.step}): not in the audit plan")
            continue
        if desk is not None:
            desk.before(step, probe, clock)
        before = clock.elapsed
        findings, seconds = desk.kept(probe) if desk is not None else (None, 0.0)
        earlier += seconds
        if findings is None:
            findings = _attempt(probe, audit, clock)
            if desk is not None:
                desk.keep(probe, findings, clock.elapsed - before)
        report.measurements.extend(findings.measurements)
        report.series.extend(findings.series)
        report.not_tested.extend(findings.not_tested)
        report.probe_seconds[probe.name] += seconds + clock.elapsed - before
    report.measurements.append(cost.audit_seconds(earlier + clock.elapsed))
    report.measurements.extend(_missing_gates(plan, report))
    for m in report.measurements:
        # What the plan did not name was added after it, whatever the probe says of itself.
        added = bool(plan.metrics and m.name not in audit.settings.metrics) or groups.unplanned(plan, m.name, m.slice)
        m.exploratory = m.exploratory or added
    report.not_tested.extend(_missing_groups(plan, report))
    report.not_tested.extend(f"{count} {why}" for why, count in sorted(audit.corpus.skipped.items()))
    return report


def report_json(report: measurement_pb2.AuditReport) -> str:
    """The report as protobuf JSON with the contract's own field names, keys sorted."""
    text = json_format.MessageToDict(report, preserving_proto_field_name=True)
    return json.dumps(text, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"


def _attempt(probe: Probe, audit: Audit, clock: Clock) -> Findings:
    """Runs a probe; its failure becomes words, a fault of the model goes on up."""
    try:
        clock.check()
        return probe.run(audit)
    except IntegrityError:
        raise
    except AssayError as error:
        reason = f"{error.reason}: {error.message}"
    except ValueError as error:
        # A statistic that the data cannot give, such as too few rows; what it says is meant for people.
        reason = str(error)
    return Findings((), not_tested=(f"{probe.name} ({probe.step}): {reason}",))


def _missing_gates(plan: measurement_pb2.AuditPlan, report: measurement_pb2.AuditReport) -> Iterator[Measurement]:
    """A measurement without a number for every planned gate that no probe answered."""
    there = {f"{m.name}[{m.slice}]" if m.slice else m.name for m in report.measurements}
    for gate in dict.fromkeys(g.measurement for g in plan.gates):
        if gate not in there:
            name, _, rest = gate.partition("[")
            subject = Subject(name, "ratio", "not measured", rest.removesuffix("]"))
            yield unavailable(subject, _why_missing(name, report.not_tested))


def _missing_groups(plan: measurement_pb2.AuditPlan, report: measurement_pb2.AuditReport) -> Iterator[str]:
    """A sentence about the planned groups of which nothing was measured."""
    there = {m.slice for m in report.measurements if m.HasField("value")}
    if missing := [group for group in plan.groups if group not in there]:
        yield f"groups that the plan names and that were not compared by themselves: {'; '.join(missing)}"


def _why_missing(name: str, notes: Iterable[str]) -> str:
    owner = next((p for p in PROBES if name.startswith(p.measures)), None)
    if owner is None:
        return "this auditor does not know the measurement"
    mark = f"{owner.name} ({owner.step}): "
    told = [note.removeprefix(mark) for note in notes if note.startswith(mark)]
    return told[0] if told else "its probe did not measure this slice"


class _Desk:
    """Progress for people, pauses, and results kept in the work folder so that a restart does not measure again."""

    def __init__(
        self, context: TaskContext, plan: measurement_pb2.AuditPlan, environment: Mapping[str, str] | None = None
    ) -> None:
        self._context = context
        self._wanted, self._sizes = set(plan.probes) or {p.name for p in PROBES}, Settings.of(plan).sizes
        self._again = 0.0
        # Also of the code: after an upgrade the results of two releases would stand in one report.
        order = json.dumps([context.order, dict(environment or {})], sort_keys=True, default=str)
        self._identity = digests.sha256_bytes(order.encode() + plan.SerializeToString(deterministic=True))

    def before(self, step: int, probe: Probe, clock: Clock) -> None:
        """Tells how far the audit is; leaves here when a pause was asked for."""
        if self._context.should_pause():
            raise TaskPaused
        done, in_all = (sum(map(self._expected, probes)) - self._again for probes in (PROBES[: step - 1], PROBES))
        left = clock.elapsed * (in_all - done) / done if done > 0 else None
        if clock.limit and left is not None:
            left = min(left, max(0.0, clock.limit - clock.elapsed))
        self._context.progress(step, len(PROBES) + 1, probe.step, left)

    def _expected(self, probe: Probe) -> float:
        seconds, size = _SECONDS.get(probe.step, (0.0, ""))
        return seconds * (self._sizes[size] if size else 1) if probe.name in self._wanted else 0.0

    def keep(self, probe: Probe, findings: Findings, seconds: float) -> None:
        """Keeps a finished probe's findings behind their digest: cut short they would be a report of fewer findings."""
        part = measurement_pb2.AuditReport(
            measurements=findings.measurements,
            series=findings.series,
            not_tested=findings.not_tested,
            probe_seconds={probe.name: seconds},
        )
        content = part.SerializeToString(deterministic=True)
        durable.write(self._path(probe), digests.sha256_bytes(content).encode() + content)

    def kept(self, probe: Probe) -> tuple[Findings | None, float]:
        """Findings of an earlier attempt at the same order and their seconds, None when there are no whole ones."""
        path = self._path(probe)
        if not path.is_file():
            return None, 0.0
        kept = path.read_bytes()
        digest, content = kept[:_DIGEST], kept[_DIGEST:]
        if digest != digests.sha256_bytes(content).encode():
            return None, 0.0
        self._again += self._expected(probe)
        part = measurement_pb2.AuditReport.FromString(content)
        findings = Findings(tuple(part.measurements), tuple(part.series), tuple(part.not_tested))
        return findings, part.probe_seconds[probe.name]

    def _path(self, probe: Probe) -> Path:
        name = f"{self._identity}-{probe.name}-{probe.step}".replace(" ", "-")
        return self._context.work / f"{digests.sha256_bytes(name.encode())[:32]}.probe"


def _plan(order: Mapping[str, Any]) -> measurement_pb2.AuditPlan:
    for name in ("plan", "base_model", "base_sha256"):
        if not order.get(name):
            raise InvalidInputError("AUDIT_ORDER_MALFORMED", f"the audit order has no {name}")
    try:
        return json_format.ParseDict(order["plan"], measurement_pb2.AuditPlan(), ignore_unknown_fields=True)
    except json_format.ParseError as error:
        raise InvalidInputError("AUDIT_ORDER_MALFORMED", "the audit order's plan is not an AuditPlan") from error


def _load(context: TaskContext, batches: BatchPlan) -> tuple[Model, Chat, dict[str, str]]:
    # Deferred: the model libraries take seconds to import, and progress should be on the screen by then.
    from audit.probes.model import load

    order = context.order
    # Only where the order says so: an adapter that went missing must not pass as a base model that learned nothing.
    adapter = None if order.get("adapter") == NO_ADAPTER else context.inputs / "adapter"
    model = load(context.models, str(order["base_model"]), str(order["base_sha256"]), adapter, batches)
    others = instruments.identities(context.models / sets.FOLDER) | {"python": sys.version.split()[0]}
    return model, Chat(model.tokenizer, model.context), {**model.environment, **others}


def _scanner() -> Scan:
    """Presidio under our own settings, loaded when the first text is scanned; direct identifiers only."""
    from assay.pii import PiiScanner, is_direct_identifier

    scanner = PiiScanner()

    def scan(texts: Sequence[str]) -> list[list[tuple[int, int, str]]]:
        found = zip(texts, scanner.scan(texts), strict=True)
        return [[(s.start, s.end, s.entity_type) for s in spans if is_direct_identifier(s, t)] for t, spans in found]

    return scan
