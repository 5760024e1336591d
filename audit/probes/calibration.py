"""Calibration: whether a decision made with 80 % is right in 80 % of cases, on the whole and by group.

The expected calibration error uses ten bins of equal mass (Nixon et al., CVPR workshops 2019). Its estimate is biased
upwards in small samples, so it is not given below a hundred rows, and a resampled interval carries the bias along.
:meth:`Binned.interval` bounds the noise instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from audit.probes import bootstrap, stats
from audit.probes.corpus import RowText
from audit.probes.decisions import label_scores, odds
from audit.probes.extremes import LEAST_CELL
from audit.probes.findings import Audit, Findings, Series, series
from audit.probes.measurements import Control, Measurement, Subject, guarded, measured, unavailable

Floats = NDArray[np.float64]
BINS, LEAST_ROWS = 10, 100
_ECE = "expected calibration error of the likeliest label, ten bins of equal mass; interval by bounds of its noise"
_DELTA = "the same of the tuned minus that of the base model, on the same rows; from both intervals (Bonferroni)"
_GAP = "mean favourable probability minus share of favourable labels; paired t interval"


def run(audit: Audit) -> Findings:
    """Measures calibration where rows have labels."""
    texts = [t for t in audit.corpus.test if t.row.label in t.row.labels]
    subjects = {
        "error": Subject("quality.calibration_error", "ratio", _ECE),
        "delta": Subject("quality.calibration_error_delta", "ratio", _DELTA),
    }
    if len(texts) < LEAST_ROWS:
        reason = f"{len(texts)} labelled test rows; {LEAST_ROWS} are needed"
        return Findings(tuple(unavailable(s, reason) for s in subjects.values()))
    tuned, base = (confidences(audit, texts, adapter=a) for a in (True, False))
    found = _errors(audit, subjects, tuned, base)
    return Findings((*found, *_groups(audit, texts)), (_plot(*tuned),))


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


def _groups(audit: Audit, texts: Sequence[RowText]) -> list[Measurement]:
    """Calibration in the large by group: it needs no bins, so it holds for small groups."""
    texts = [t for t in texts if t.row.favourable in t.row.labels]
    if not texts:
        return []
    chance = 1 / (1 + np.exp(-np.clip(odds(audit.board, texts, adapter=True), -500, 500)))
    before = 1 / (1 + np.exp(-np.clip(odds(audit.board, texts, adapter=False), -500, 500)))
    truth = np.array([float(t.row.label == t.row.favourable) for t in texts])
    out = []
    for attribute in audit.settings.sensitive_attributes:
        groups = np.array([t.row.groups.get(attribute, "") for t in texts])
        largest: list[tuple[str, stats.Estimate]] = []
        for group in sorted(set(groups.tolist()) - {""}):
            rows = groups == group
            if rows.sum() < LEAST_CELL:
                continue
            largest.append((group, stats.mean((chance - truth)[rows])))
            subject = Subject("fairness.calibration_gap", "ratio", _GAP, f"{attribute}={group}")
            found = largest[-1][1]
            control = Control(float((before - truth)[rows].mean()), "base model")
            inputs = {"chance": chance[rows], "truth": truth[rows]}
            levels = audit.settings.confidences
            out.append(
                measured(
                    subject, found.value, found.interval, levels, n=int(rows.sum()), inputs=inputs, control=control
                )
            )
        out.append(_difference(audit, attribute, largest))
    return out


def _difference(audit: Audit, attribute: str, found: Sequence[tuple[str, stats.Estimate]]) -> Measurement:
    """Largest difference of two groups' calibration gaps, Bonferroni-corrected for the pairs."""
    method = "largest difference of two groups' calibration gaps; Welch, Bonferroni over all pairs of groups"
    subject = Subject("fairness.calibration_difference", "ratio", method, attribute)

    def build() -> Measurement:
        if len(found) < 2:
            raise ValueError(f"two groups of {attribute} with {LEAST_CELL} rows are needed")
        pairs = [stats.difference(a, b) for i, (_, a) in enumerate(found) for _, b in found[i + 1 :]]
        pairs = [p if p.value >= 0 else stats.Estimate(-p.value, p.error, p.freedom) for p in pairs]
        top = max(pairs, key=lambda p: p.value)

        def interval(confidence: float) -> stats.Bounds:
            wide = 1 - (1 - confidence) / len(pairs)
            bounds = [p.interval(wide) for p in pairs]
            return max(0.0, *(low for low, _ in bounds)), max(high for _, high in bounds)

        n = int(min(e.freedom for _, e in found)) + 1
        inputs = [[g, e.value, e.error] for g, e in found]
        return measured(subject, top.value, interval, audit.settings.confidences, n=n, inputs=inputs)

    return guarded(subject, build)


def _plot(top: Floats, right: Floats) -> Series:
    order = np.argsort(top, kind="stable")
    edges = np.linspace(0, len(top), BINS + 1).round().astype(int)
    parts = [order[a:b] for a, b in pairwise(edges)]
    points = [("tuned", (float(top[p].mean()), float(right[p].mean()))) for p in parts if len(p)]
    points += [("perfect", (float(top[p].mean()), float(top[p].mean()))) for p in parts if len(p)]
    return series("calibration", ("probability of the likeliest label", "share that is right"), points)
