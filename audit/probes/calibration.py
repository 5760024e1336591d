"""Calibration: whether a decision made with 80 % is right in 80 % of cases, on the whole and by group.

The expected calibration error uses ten bins of equal mass (Nixon et al., CVPR workshops 2019). Its estimate is biased
upwards in small samples, so it is not given below a hundred rows, and a change is measured on the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
_ECE = "expected calibration error of the likeliest label, ten bins of equal mass; bootstrap over rows, basic interval"
_DELTA = "the same of the tuned minus that of the base model, on the same rows; paired bootstrap, basic interval"
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


def expected_error(top: Floats, right: Floats, weights: Floats | None = None) -> Floats:
    """Expected calibration error for each row of ``weights``, shape (replicates, rows), or of the rows themselves."""
    order = np.argsort(top, kind="stable")
    edges = np.linspace(0, len(top), BINS + 1).round().astype(int)
    w = np.ones((1, len(top))) if weights is None else weights
    gaps = (top - right)[order]
    found = np.zeros(len(w))
    for start, end in pairwise(edges):
        found += np.abs(w[:, order[start:end]] @ gaps[start:end])
    out: Floats = found / w.sum(axis=1)
    return out


def _errors(
    audit: Audit, subjects: dict[str, Subject], tuned: tuple[Floats, Floats], base: tuple[Floats, Floats]
) -> list[Measurement]:
    n, rng = len(tuned[0]), audit.settings.rng("calibration")
    weights = rng.multinomial(n, np.full(n, 1 / n), size=audit.settings.sizes["bootstrap"]).astype(float)
    after, before = expected_error(*tuned, weights), expected_error(*base, weights)
    value, control = float(expected_error(*tuned)[0]), float(expected_error(*base)[0])
    reachable = [c for c in audit.settings.confidences if len(weights) * (1 - c) / 2 >= bootstrap.LEAST_BEYOND]
    inputs = {"tuned": tuned, "base": base}

    def build_error() -> Measurement:
        bounds = _clipped(basic(value, after))
        beside = Control(control, "base model")
        return measured(subjects["error"], value, bounds, reachable, n=n, inputs=inputs, control=beside)

    def build_delta() -> Measurement:
        return measured(
            subjects["delta"], value - control, basic(value - control, after - before), reachable, n=n, inputs=inputs
        )

    return [guarded(subjects["error"], build_error), guarded(subjects["delta"], build_delta)]


def basic(value: float, resampled: Floats) -> Callable[[float], stats.Bounds]:
    """Basic bootstrap interval (Davison and Hinkley 1997, section 5.2): it mirrors the resampling bias.

    The value itself always lies inside.
    """
    percentile = bootstrap.percentile(resampled)

    def interval(confidence: float) -> stats.Bounds:
        lower, upper = percentile(confidence)
        return min(value, 2 * value - upper), max(value, 2 * value - lower)

    return interval


def _clipped(interval: Callable[[float], stats.Bounds]) -> Callable[[float], stats.Bounds]:
    def inside(confidence: float) -> stats.Bounds:
        lower, upper = interval(confidence)
        return max(0.0, lower), min(1.0, upper)

    return inside


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
