"""Calibration: whether a decision made with 80 % is right in 80 % of cases, on the whole and by group.

The expected calibration error uses ten bins of equal mass (Nixon et al., CVPR workshops 2019). Its estimate is biased
upwards in small samples, so it is not given below a hundred rows, and a resampled interval carries the bias along.
:meth:`Binned.interval` bounds the noise instead. By group there are no bins (:class:`Gap`), so that small groups have
numbers too; but labels that are all alike have none, since whoever says that one label would look calibrated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise, permutations

import numpy as np
from numpy.typing import NDArray

from assay.groups import LEAST_CELL, pooled
from audit.probes import bootstrap
from audit.probes.corpus import RowText
from audit.probes.decisions import chances, label_scores
from audit.probes.findings import Audit, Findings, Series, series
from audit.probes.groups import groups_of, left_out, method_of
from audit.probes.measurements import Control, Measurement, Subject, guarded, measured, unavailable
from audit.statistics import stats

Floats = NDArray[np.float64]
BINS, LEAST_ROWS = 10, 100
_ECE = (
    "expected calibration error (Guo et al. 2017) of the likeliest label, ten bins of equal mass (Nixon et al. 2019); "
    "interval by bounds of its noise, our own definition"
)
_DELTA = (
    "expected calibration error (Guo et al. 2017; Nixon et al. 2019) of the tuned minus that of the base model, on the "
    "same rows; from both intervals (Bonferroni)"
)
_GAP = (
    "mean favourable probability minus share of favourable labels; Agresti-Coull 1998 for the rows' differences, "
    "Student's quantile"
)
_BETWEEN = (
    "largest difference of two groups' calibration gaps; intersection-union bounds (Berger 1982) over all pairs of "
    "groups, square-and-add of both intervals (Zou and Donner 2008), Bonferroni on the far side"
)


def run(audit: Audit) -> Findings:
    """Measures calibration where rows have labels."""
    texts = [t for t in audit.corpus.test if t.row.label in t.row.labels]
    subjects = {
        "error": Subject("quality.calibration_error", "ratio", _ECE),
        "delta": Subject("quality.calibration_error_delta", "ratio", _DELTA),
    }
    reason = f"{len(texts)} labelled test rows; {LEAST_ROWS} are needed" if len(texts) < LEAST_ROWS else ""
    if len({t.row.label for t in texts}) == 1:
        reason = reason or "all test rows have the same label"
    if reason:
        missing = [_between(attribute) for attribute in audit.settings.sensitive_attributes]
        notes = (f"calibration by group: {reason}",) if missing else ()
        return Findings(tuple(unavailable(s, reason) for s in (*subjects.values(), *missing)), not_tested=notes)
    tuned, base = (confidences(audit, texts, adapter=a) for a in (True, False))
    found = _errors(audit, subjects, tuned, base)
    groups = _groups(audit, texts)
    return Findings((*found, *groups.measurements), (_plot(*tuned),), groups.not_tested)


def confidences(audit: Audit, texts: Sequence[RowText], *, adapter: bool) -> tuple[Floats, Floats]:
    """Probability of each row's likeliest label, and whether that label is right (0 or 1)."""
    scores = label_scores(audit.board, texts, adapter=adapter)
    top = np.array([float(1 / np.exp(s - s.max()).sum()) for s in scores])
    right = np.array([float(t.row.labels[int(s.argmax())] == t.row.label) for t, s in zip(texts, scores, strict=True)])
    return top, right


@dataclass(frozen=True)
class Binned:
    """Rows in bins of equal mass, by the probability of their likeliest label.

    Attributes:
        gaps: mean probability minus share that is right, of each bin.
        errors: standard error of each gap, given the probabilities.
        shares: of the rows, of each bin.
    """

    gaps: Floats
    errors: Floats
    shares: Floats

    @classmethod
    def of(cls, top: Floats, right: Floats) -> Binned:
        """Bins rows; the error is of a share that two right and two wrong rows were added to (Agresti, Coull 1998)."""
        order = np.argsort(top, kind="stable")
        edges = np.linspace(0, len(top), BINS + 1).round().astype(int)
        parts = [order[a:b] for a, b in pairwise(edges)]
        sizes = np.array([len(p) for p in parts], dtype=float)
        shares = np.array([(right[p].sum() + 2) / (len(p) + 4) for p in parts])
        gaps = np.array([float((top - right)[p].mean()) for p in parts])
        return cls(gaps, np.sqrt(shares * (1 - shares) / sizes), sizes / len(top))

    @property
    def error(self) -> float:
        """The expected calibration error."""
        return float(self.shares @ np.abs(self.gaps))

    def interval(self, noise: Floats) -> Callable[[float], stats.Bounds]:
        """Bounds of the error of the same bins without noise.

        Let theta be that error, and e_b a bin's noise. The estimate T is the sum of ``w_b |g_b + e_b|``. It is at least
        ``theta + sum w_b s_b e_b`` with the signs ``s_b`` of the gaps ``g_b``, a normal variable around theta; so T and
        a normal quantile bound theta from above. And it is at most ``theta + sum w_b |e_b|``; so T less a quantile of
        that sum bounds theta from below. Both hold whatever the gaps are.

        Args:
            noise: standard normal, shape (replicates, bins).
        """
        scale = self.shares * self.errors
        most = bootstrap.percentile(np.abs(noise) @ scale)
        spread = math.sqrt(float(scale @ scale))

        def bounds(confidence: float) -> stats.Bounds:
            upper = self.error + stats.normal_quantile(confidence) * spread
            return max(0.0, self.error - most(confidence)[1]), min(1.0, upper)

        return bounds


def _errors(
    audit: Audit, subjects: dict[str, Subject], tuned: tuple[Floats, Floats], base: tuple[Floats, Floats]
) -> list[Measurement]:
    n, replicates = len(tuned[0]), audit.settings.sizes["bootstrap"]
    noise = audit.settings.rng("calibration").normal(size=(replicates, BINS))
    after, before = Binned.of(*tuned), Binned.of(*base)
    of_after, of_before = after.interval(noise), before.interval(noise)
    inputs = {"tuned": tuned, "base": base}

    def reachable(parts: int) -> list[float]:
        levels = audit.settings.confidences
        return [c for c in levels if replicates * (1 - c) / 2 / parts >= bootstrap.LEAST_BEYOND]

    def build_error() -> Measurement:
        beside, levels = Control(before.error, "base model"), reachable(1)
        return measured(subjects["error"], after.error, of_after, levels, n=n, inputs=inputs, control=beside)

    def build_delta() -> Measurement:
        value, bounds = after.error - before.error, stats.apart(of_after, of_before)
        return measured(subjects["delta"], value, bounds, reachable(2), n=n, inputs=inputs)

    return [guarded(subjects["error"], build_error), guarded(subjects["delta"], build_delta)]


@dataclass(frozen=True)
class Gap:
    """Calibration in the large of one group: it needs no bins.

    Attributes:
        group: such as ``race=black``.
        chance: favourable probability of each row.
        truth: whether the row's label is the favourable one (0 or 1).
    """

    group: str
    chance: Floats
    truth: Floats

    @property
    def value(self) -> float:
        """Mean favourable probability minus share of favourable labels."""
        return float((self.chance - self.truth).mean())

    def interval(self, confidence: float) -> stats.Bounds:
        """Interval that is no point where all rows say and have the same: both labels are added to them.

        They are added at the mean probability. Where all rows have that one, this is Agresti and Coull's interval of a
        share.
        """
        mean = float(self.chance.mean())
        low, high = stats.mean_between(self.chance - self.truth, mean - 1, mean, confidence)
        return max(low, -1.0), min(high, 1.0)


def largest_difference(gaps: Sequence[Gap]) -> float:
    """Largest difference of two groups' gaps."""
    return max(g.value for g in gaps) - min(g.value for g in gaps)


def largest_difference_interval(gaps: Sequence[Gap], confidence: float) -> stats.Bounds:
    """Interval of the largest difference, by the argument of :mod:`audit.statistics.extremes`."""
    pairs = list(permutations(range(len(gaps)), 2))
    wide = 1 - (1 - confidence) / (len(pairs) / 2)

    def differences(level: float) -> list[stats.Bounds]:
        bounds = [g.interval(level) for g in gaps]
        return [stats.square_and_add(gaps[a].value, bounds[a], gaps[b].value, bounds[b]) for a, b in pairs]

    lower = max(low for low, _ in differences(wide))
    return max(0.0, lower), max(high for _, high in differences(confidence))


def _groups(audit: Audit, texts: Sequence[RowText]) -> Findings:
    rows = [t for t in texts if t.row.favourable in t.row.labels]
    attributes, notes = audit.settings.sensitive_attributes, list[str]()
    if attributes and len(rows) < len(texts):
        notes.append(
            f"calibration by group: {len(texts) - len(rows)} of {len(texts)} test rows have no favourable label"
        )
    truth = np.array([float(t.row.label == t.row.favourable) for t in rows])
    if len(set(truth.tolist())) < 2:
        reason = "all test rows have the favourable label, or none has"
        return Findings(tuple(unavailable(_between(a), reason) for a in attributes), not_tested=tuple(notes))
    chance, before = (chances(audit.board, rows, adapter=a) for a in (True, False))
    out = []
    for attribute in attributes:
        names = groups_of(rows, attribute)
        notes += left_out(f"calibration by group [{attribute}]", names, LEAST_CELL)
        names = pooled(names, attribute, LEAST_CELL)
        gaps, of_base = [], []
        for group in sorted(set(names) - {""}):
            where = np.array(names) == group
            if where.sum() >= LEAST_CELL:
                gaps.append(Gap(group, chance[where], truth[where]))
                of_base.append(Gap(group, before[where], truth[where]))
                out.append(_gap(audit, gaps[-1], of_base[-1].value))
        out.append(_difference(audit, attribute, gaps, of_base))
    return Findings(tuple(out), not_tested=tuple(notes))


def _gap(audit: Audit, gap: Gap, before: float) -> Measurement:
    subject = Subject("fairness.calibration_gap", "ratio", _GAP, gap.group)
    inputs, control = {"chance": gap.chance, "truth": gap.truth}, Control(before, "base model")
    levels, n = audit.settings.confidences, len(gap.truth)
    return measured(subject, gap.value, gap.interval, levels, n=n, inputs=inputs, control=control)


def _between(attribute: str) -> Subject:
    return Subject("fairness.calibration_difference", "ratio", _BETWEEN, attribute)


def _difference(audit: Audit, attribute: str, gaps: Sequence[Gap], of_base: Sequence[Gap]) -> Measurement:
    between = _between(attribute)
    subject = replace(between, method=method_of(between.method, [g.group for g in gaps], attribute))
    if len(gaps) < 2:
        return unavailable(subject, f"two groups of {attribute} with {LEAST_CELL} rows are needed")
    n, inputs = min(len(g.truth) for g in gaps), [[g.group, g.chance, g.truth] for g in gaps]
    bounds, control = partial(largest_difference_interval, gaps), Control(largest_difference(of_base), "base model")
    levels = audit.settings.confidences
    return measured(subject, largest_difference(gaps), bounds, levels, n=n, inputs=inputs, control=control)


def _plot(top: Floats, right: Floats) -> Series:
    order = np.argsort(top, kind="stable")
    edges = np.linspace(0, len(top), BINS + 1).round().astype(int)
    parts = [order[a:b] for a, b in pairwise(edges)]
    points = [("tuned", (float(top[p].mean()), float(right[p].mean()))) for p in parts if len(p)]
    points += [("perfect", (float(top[p].mean()), float(top[p].mean()))) for p in parts if len(p)]
    return series("calibration", ("probability of the likeliest label", "share that is right"), points)
