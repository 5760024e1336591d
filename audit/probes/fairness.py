"""Group fairness of a decision model: rates by group, their ratios and differences, and the same on the data's labels.

Point values come from fairlearn's MetricFrame. Intervals of rates are exact; those of ratios and differences between
groups hold for small groups and any number of them (:mod:`audit.statistics.extremes`). Groups with fewer rows than the
least cell are compared together, or left out and named where they are too few for that too: three rows could only make
every comparison undecidable. So is a group with too few rows of the outcome that a TPR or FPR conditions on, and one of
which the test has no row though other rows of the audit are of it. The share of the rows that is not compared, for that
or because they tell no group or no decision, is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from assay.groups import least_of, pooled, slices
from audit.probes.decisions import Decisions, decide
from audit.probes.findings import Audit, Findings, Series, series
from audit.probes.groups import groups_of, lacking, left_out, method_of
from audit.probes.measurements import Control, Measurement, Subject, guarded, measured, proportion, unavailable
from audit.statistics import extremes, stats
from audit.statistics.extremes import Cell

LEAST_OUTCOMES = 5
"""Fewest rows of a group with the outcome that a TPR or FPR conditions on."""

_EXTREME = (
    "intersection-union bounds (Berger 1982) over all pairs of groups with Wilson-based limits (MOVER, {}), Bonferroni "
    "on the far side"
)
_OF_RATIOS, _OF_DIFFERENCES = _EXTREME.format("Donner and Zou 2012"), _EXTREME.format("Zou and Donner 2008")
_CHANGE = (
    "our own definition, from the intervals of both over all pairs of groups (MOVER, Zou and Donner 2008; Bonferroni)"
)
_RATES = {
    "selection_rate": "share of favourable decisions",
    "true_positive_rate": "share of favourable decisions among rows with the favourable label",
    "false_positive_rate": "share of favourable decisions among rows with another label",
    "accuracy": "share of decisions that are favourable if and only if the row's label is",
}
_LEFT_OUT = "share of the scored test rows that no group's selection rate counts; Clopper-Pearson 1934"


@dataclass(frozen=True)
class Table:
    """Decisions of one model by group of one attribute or intersection.

    Attributes:
        slice: ``race``, ``race,sex`` or ``race,sex,age``.
        groups: group of each row, such as ``race=black``.
        favourable: decision of each row.
        deserved: whether each row's own label is the favourable one.
        least: fewest rows of a group that is compared.
    """

    slice: str
    groups: tuple[str, ...]
    favourable: NDArray[np.bool_]
    deserved: NDArray[np.bool_]
    least: int

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Group of each row, the ones too small to be compared as one."""
        return pooled(self.groups, self.slice, self.least)

    def cells(self, where: NDArray[np.bool_] | None = None, of: NDArray[np.bool_] | None = None) -> list[Cell]:
        """Count of favourable decisions (or of ``of``) by group, over the rows ``where`` holds.

        Groups that even together are below the least number of rows, or with fewer than :data:`LEAST_OUTCOMES` rows in
        ``where``, are left out; :meth:`left_out` names them.
        """
        names = np.array(self.names)
        within = np.ones(len(names), dtype=bool) if where is None else where
        outcome = self.favourable if of is None else of
        out = []
        for name in sorted(set(self.names)):
            rows = names == name
            chosen = rows & within
            if rows.sum() >= self.least and chosen.sum() >= (LEAST_OUTCOMES if where is not None else 1):
                out.append(Cell(name, int(outcome[chosen].sum()), int(chosen.sum())))
        return out

    def rates(self) -> dict[str, list[Cell]]:
        """By measurement, the cells of every group that is large enough for it."""
        return {
            "selection_rate": self.cells(),
            "true_positive_rate": self.cells(self.deserved),
            "false_positive_rate": self.cells(~self.deserved),
            "accuracy": self.cells(of=self.favourable == self.deserved),
        }

    def left_out(self) -> list[str]:
        """Sentences about the groups that the TPR, the FPR and so the equalized odds do not compare."""
        what, out = f"group fairness [{self.slice}]", []
        compared = {c.name for c in self.cells()}
        for rate, label, where in (("TPR", "the favourable", self.deserved), ("FPR", "another", ~self.deserved)):
            few = sorted(compared - {c.name for c in self.cells(where)})
            if few:
                reason = f"fewer than {LEAST_OUTCOMES} test rows with {label} label"
                out.append(f"{what}: {rate} and equalized odds without groups of {reason}: {'; '.join(few)}")
        return out


def run(audit: Audit) -> Findings:
    """Measures the fairness of the tuned model's decisions, with the base model's and the labels' as controls."""
    attributes = audit.settings.sensitive_attributes
    if not attributes:
        return Findings((), not_tested=("group fairness: no sensitive attribute was declared",))
    try:
        tuned, base = (decide(audit.board, audit.corpus.test, audit.corpus.selection, adapter=a) for a in (True, False))
    except ValueError as error:
        missing = [unavailable(s, str(error)) for a in attributes for s in _subjects(a, "")]
        return Findings(tuple(missing), not_tested=(f"group fairness: {error}",))
    measurements: list[Measurement] = []
    plots: list[Series] = []
    undecided = len(audit.corpus.test) - len(tuned.texts)
    notes = [f"group fairness: {undecided} of {len(audit.corpus.test)} test rows hold no decision"] if undecided else []
    for attribute in slices(attributes):
        tables = [table_of(decisions, attribute) for decisions in (tuned, base)]
        measurements += _attribute(audit, tables[0], tables[1], tuned.cut_origin)
        measurements += [] if "," in attribute else _left_out(audit, tables[0])
        notes += left_out(f"group fairness [{attribute}]", groups_of(tuned.texts, attribute), tables[0].least)
        notes += lacking(f"group fairness [{attribute}]", attribute, audit.rows)
        notes += tables[0].left_out()
        if tables[0].cells():
            plots.append(_plot(tables[0], max(audit.settings.confidences)))
    if len(attributes) > 3:
        notes.append("group fairness: of more than three attributes only pairs are compared together, not three")
    plots.append(_odds_plot(tuned))
    return Findings(tuple(measurements), tuple(plots), tuple(notes))


def table_of(decisions: Decisions, attribute: str) -> Table:
    """Groups the decisions; rows without a value of the attribute (or of one of several) are not compared."""
    groups = groups_of(decisions.texts, attribute)
    known = [bool(group) for group in groups]
    texts = [t for t, keep in zip(decisions.texts, known, strict=True) if keep]
    return Table(
        slice=attribute,
        groups=tuple(group for group in groups if group),
        favourable=decisions.favourable[np.array(known, dtype=bool)],
        deserved=np.array([t.row.label == t.row.favourable for t in texts], dtype=bool),
        least=least_of(attribute),
    )


def metric_frame(table: Table) -> Mapping[str, Mapping[str, float]]:
    """Selection rate, TPR and FPR by group from fairlearn's MetricFrame: metric, then group, then value."""
    from fairlearn.metrics import MetricFrame, false_positive_rate, selection_rate, true_positive_rate

    frame = MetricFrame(
        metrics={"selection": selection_rate, "tpr": true_positive_rate, "fpr": false_positive_rate},
        y_true=table.deserved.astype(int),
        y_pred=table.favourable.astype(int),
        sensitive_features=np.array(table.names),
    )
    return {name: {str(g): float(v) for g, v in column.items()} for name, column in frame.by_group.items()}


def _attribute(audit: Audit, tuned: Table, base: Table, origin: str) -> list[Measurement]:
    levels = audit.settings.confidences
    subjects = {s.name: s for s in _subjects(tuned.slice, origin)}
    subjects = {n: replace(s, method=method_of(s.method, tuned.names, tuned.slice)) for n, s in subjects.items()}
    if len(set(tuned.groups)) < 2:
        reason = f"the test rows hold fewer than two groups of {tuned.slice}"
        return [unavailable(s, reason) for s in subjects.values()]
    frame = metric_frame(tuned)
    out = _rates(audit, tuned, base, origin)
    labels = tuned.cells(of=tuned.deserved)
    out.append(_ratio(subjects["fairness.impact_ratio"], tuned.cells(), base.cells(), levels))
    by_labels = subjects["fairness.label_impact_ratio"]
    if len(set(tuned.deserved)) < 2:
        out.append(unavailable(by_labels, "the test rows are all favourable by their labels, or none is"))
    else:
        out.append(_ratio(by_labels, labels, None, levels))
    families: dict[str, Callable[[Table], list[list[Cell]]]] = {
        "fairness.selection_difference": lambda t: [t.cells()],
        "fairness.tpr_difference": lambda t: [t.cells(t.deserved)],
        "fairness.fpr_difference": lambda t: [t.cells(~t.deserved)],
        "fairness.equalized_odds_difference": lambda t: [t.cells(t.deserved), t.cells(~t.deserved)],
    }
    metrics = {"selection_difference": ["selection"], "tpr_difference": ["tpr"], "fpr_difference": ["fpr"]}
    for name, family in families.items():
        used = metrics.get(name.removeprefix("fairness."), ["tpr", "fpr"])
        rates = [[frame[m][c.name] for c in cells] for m, cells in zip(used, family(tuned), strict=True)]
        out.append(_difference(subjects[name], (family(tuned), family(base)), rates, tuned, levels))
    amplified = subjects["fairness.selection_difference_amplification"]
    out.append(_amplification(audit, amplified, tuned, tuned.favourable, base.favourable))
    amplified = subjects["fairness.selection_difference_over_labels"]
    out.append(_amplification(audit, amplified, tuned, tuned.favourable, tuned.deserved))
    out.append(_fisher(subjects["fairness.impact_ratio_p"], tuned.cells()))
    return out


def _rates(audit: Audit, tuned: Table, base: Table, origin: str) -> list[Measurement]:
    """Rates of each group, of which the largest difference alone says neither whose is low nor how low.

    An earlier plan names the selection rate alone.
    """
    named, before, out = audit.settings.metrics, base.rates(), []
    for rate, cells in tuned.rates().items():
        name, others = f"fairness.{rate}", {c.name: c for c in before[rate]}
        if named and name not in named and rate != "selection_rate":
            continue
        for cell in cells:
            subject = Subject(name, "ratio", f"{_RATES[rate]}, {origin}; Clopper-Pearson 1934", cell.name)
            inputs, control = {"cell": [cell.successes, cell.n]}, Control(others[cell.name].rate, "base model")
            levels = audit.settings.confidences
            out.append(proportion(subject, cell.successes, cell.n, levels, inputs=inputs, control=control))
    return out


def _left_out(audit: Audit, table: Table) -> list[Measurement]:
    """The share of the test rows that an attribute's comparison leaves out; an earlier plan does not name it."""
    subject, named = Subject("fairness.left_out_share", "ratio", _LEFT_OUT, table.slice), audit.settings.metrics
    if named and subject.name not in named:
        return []
    n, cells = len(audit.corpus.test), table.cells()
    if len(cells) < 2:
        return [unavailable(subject, f"two groups of {table.slice} with {table.least} rows are needed")]
    left = n - sum(c.n for c in cells)
    return [proportion(subject, left, n, audit.settings.confidences, inputs=[left, n])]


def _fisher(subject: Subject, cells: Sequence[Cell]) -> Measurement:
    """The smallest two-sided Fisher p-value of any pair of groups, Bonferroni-corrected; exact, so without interval."""

    def build() -> Measurement:
        extremes.lowest_ratio(cells)
        pairs = list(combinations(cells, 2))
        value = min(1.0, len(pairs) * min(stats.fisher(a.successes, a.n, b.successes, b.n) for a, b in pairs))
        return measured(subject, value, None, (), n=min(c.n for c in cells), inputs=_inputs([cells]))

    return guarded(subject, build)


def _ratio(
    subject: Subject, cells: Sequence[Cell], before: Sequence[Cell] | None, levels: Sequence[float]
) -> Measurement:
    def build() -> Measurement:
        value = extremes.lowest_ratio(cells)
        control = None
        if before and max(c.rate for c in before) > 0:
            control = Control(extremes.lowest_ratio(before), "base model")

        def interval(confidence: float) -> stats.Bounds:
            return extremes.lowest_ratio_interval(cells, confidence)

        n = min(c.n for c in cells)
        return measured(subject, value, interval, levels, n=n, inputs=_inputs([cells]), control=control)

    return guarded(subject, build)


def _difference(
    subject: Subject,
    both: tuple[Sequence[Sequence[Cell]], Sequence[Sequence[Cell]]],
    rates: Sequence[Sequence[float]],
    table: Table,
    levels: Sequence[float],
) -> Measurement:
    """Largest difference over groups; n is the number of rows of the smallest group compared."""
    families, before = both

    def build() -> Measurement:
        extremes.largest_difference(families)
        value = max(max(r) - min(r) for r in rates)
        control = None
        if all(len(cells) > 1 for cells in before):
            control = Control(extremes.largest_difference(before), "base model")

        def interval(confidence: float) -> stats.Bounds:
            return extremes.largest_difference_interval(families, confidence)

        n = min(table.names.count(c.name) for cells in families for c in cells)
        return measured(subject, value, interval, levels, n=n, inputs=_inputs(families), control=control)

    return guarded(subject, build)


def _amplification(
    audit: Audit, subject: Subject, table: Table, later: NDArray[np.bool_], earlier: NDArray[np.bool_]
) -> Measurement:
    """How much wider the selection gap of one outcome is than that of another, on the same rows."""

    def build() -> Measurement:
        after_cells, before_cells = table.cells(of=later), table.cells(of=earlier)
        value = extremes.largest_difference([after_cells]) - extremes.largest_difference([before_cells])
        interval = extremes.change_interval(after_cells, before_cells)
        inputs, levels = _inputs([after_cells, before_cells]), audit.settings.confidences
        return measured(subject, value, interval, levels, n=min(c.n for c in after_cells), inputs=inputs)

    return guarded(subject, build)


def _subjects(attribute: str, origin: str) -> list[Subject]:
    decided = f"decisions by {origin or 'log-odds'}"
    texts = {
        "impact_ratio": f"lowest over highest selection rate (29 CFR 1607.4, 1978), {decided}; {_OF_RATIOS}",
        "label_impact_ratio": f"lowest over highest share of favourable labels in the test rows; {_OF_RATIOS}",
        "selection_difference": f"largest difference of selection rates, {decided}; {_OF_DIFFERENCES}",
        "tpr_difference": f"largest difference of true positive rates (Hardt et al. 2016), {decided}; "
        + _OF_DIFFERENCES,
        "fpr_difference": f"largest difference of false positive rates (Hardt et al. 2016), {decided}; "
        + _OF_DIFFERENCES,
        "equalized_odds_difference": "equalized odds (Hardt et al. 2016), the larger of the TPR and FPR differences, "
        f"{decided}; {_OF_DIFFERENCES}",
    }
    out = [Subject(f"fairness.{name}", "ratio", method, attribute) for name, method in texts.items()]
    method = "selection difference of the tuned minus that of {}; {}"
    twins = {"amplification": "the base model", "over_labels": "the test rows' own labels"}
    for name, other in twins.items():
        full = f"fairness.selection_difference_{name}"
        out.append(Subject(full, "ratio", method.format(other, _CHANGE), attribute))
    method = (
        "smallest two-sided p-value of Fisher's exact test (1935) on selection, Bonferroni over all pairs of groups"
    )
    return [*out, Subject("fairness.impact_ratio_p", "ratio", method, attribute)]


def _inputs(families: Sequence[Sequence[Cell]]) -> list[list[tuple[str, int, int]]]:
    return [[(c.name, c.successes, c.n) for c in cells] for cells in families]


def _plot(table: Table, confidence: float) -> Series:
    points = [
        (c.name, (c.rate, *stats.clopper_pearson(c.successes, c.n, confidence), float(c.n))) for c in table.cells()
    ]
    return series(f"selection_rates[{table.slice}]", ("selection rate", "lower", "upper", "rows"), points)


def _odds_plot(decisions: Decisions) -> Series:
    rows = zip(decisions.texts, decisions.log_odds, strict=True)
    points = sorted((t.row.label, (float(odds),)) for t, odds in rows)
    return series("log_odds", ("log-odds of the favourable decision, nats",), points)
