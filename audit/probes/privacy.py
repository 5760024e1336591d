"""Canaries: what one training run reveals about secrets whose inclusion was decided by coins.

Every statistic compares secrets that were trained on with secrets of the same kind that were held out, so that none
needs a shadow model. The score of a secret is ``NLL_base - NLL_tuned`` summed over the secret's tokens alone: with
the base model as reference it beat every reference-free signal in our trials. Stratum A (one repeat) is the
record-level claim; stratum B (repeated) is a stress test and is never mixed with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from assay.v1 import measurement_pb2
from audit.probes import one_run, stats
from audit.probes.findings import Audit, Findings, series
from audit.probes.inputs import Canary
from audit.probes.measurements import Control, Measurement, Subject, guarded, measured, proportion

_AUC = (
    "AUC of included against held-out canaries by NLL(base) - NLL(tuned) on the secret's tokens; DeLong interval on "
    "the logit scale, Newcombe 2006 method 5 where that degenerates"
)
_EPSILON = (
    "one-run lower bound, Steinke, Nasr and Jagielski 2023 (arXiv 2305.08846), top and bottom quarter guessed, "
    "delta = 1/(10 N); one-sided: each level's lower end holds with that probability, there is no upper end; the "
    "value is the bound at 95 %"
)
_EXPOSURE = (
    "mean exposure in bits of included canaries among the held-out ones (Carlini et al. 2019) minus the leave-one-out "
    "exposure of the held-out ones; Welch interval"
)
_EXTRACTION = "share of included secrets that greedy decoding writes verbatim after the true text; Clopper-Pearson"


@dataclass(frozen=True)
class ScoredCanary:
    """A canary with its score in nats and whether greedy decoding reproduces its secret."""

    canary: Canary
    score: float
    extracted: bool


def run(audit: Audit) -> Findings:
    """Measures membership, epsilon, exposure and extraction of the canaries of both strata."""
    scored = score_canaries(audit)
    levels = audit.settings.confidences
    strata = {s: [c for c in scored if c.canary.stratum == s] for s in ("A", "B")}
    held_out = [c for c in scored if not c.canary.included]
    measurements = [
        auc_of(Subject("privacy.canary_auc", "ratio", _AUC), strata["A"], levels),
        auc_of(Subject("privacy.canary_auc_repeated", "ratio", _AUC), strata["B"], levels),
        epsilon_of(strata["A"], delta(audit, len(scored)), levels),
    ]
    for stratum, label in (("A", ""), ("B", "stratum=B")):
        measurements.append(exposure_of(label, strata[stratum], held_out, levels))
        measurements.append(extraction_of(label, strata[stratum], levels))
    notes = [f"stratum {s}: no canaries were planted" for s, members in strata.items() if not members]
    return Findings(tuple(measurements), _plots(scored, held_out), tuple(notes))


def score_canaries(audit: Audit) -> list[ScoredCanary]:
    """Scores every canary that fits the longest text, with both models."""
    texts = audit.corpus.canaries
    passages = [t.passage for t in texts]
    tuned = audit.board.scores(passages, adapter=True)
    base = audit.board.scores(passages, adapter=False)
    out = []
    for text, after, before in zip(texts, tuned, base, strict=True):
        nll, greedy = after.at(text.places)
        score = float(before.at(text.places)[0].sum() - nll.sum())
        if isinstance(text.source, Canary):
            out.append(ScoredCanary(text.source, score, bool(greedy.all())))
    return out


def delta(audit: Audit, canaries: int) -> float:
    """``1 / (10 N)`` with N the rows trained on; where the statement does not tell, the sample size: stricter."""
    claim = (audit.order.get("prepare") or {}).get("claim") or {}
    told = [claim.get("canary_rows"), (claim.get("split_rows") or {}).get("train")]
    known = sum(int(n) for n in told if isinstance(n, int) and n > 0)
    return 1 / (10 * max(known, len(audit.rows.train), canaries, 1))


def auc_of(subject: Subject, scored: Sequence[ScoredCanary], levels: Sequence[float]) -> Measurement:
    """Area under the curve of one stratum; n is included plus held out."""
    inside, outside = _split(scored)

    def build() -> Measurement:
        area = stats.auc(inside, outside)
        inputs = {"included": inside, "held_out": outside}
        chance = Control(0.5, "chance")
        return measured(subject, area.value, area.interval, levels, n=len(scored), inputs=inputs, control=chance)

    return guarded(subject, build)


def epsilon_of(scored: Sequence[ScoredCanary], small_delta: float, levels: Sequence[float]) -> Measurement:
    """Lower bound on epsilon from stratum A."""
    subject = Subject("privacy.epsilon_lower_bound", "nats", _EPSILON)

    def build() -> Measurement:
        scores = [c.score for c in scored]
        coins = [c.canary.included for c in scored]
        names = [f"{c.canary.index}:{c.canary.secret}" for c in scored]
        guesses = one_run.guess(scores, coins, names)
        inputs = {"scores": scores, "included": coins, "delta": small_delta, "correct": guesses.correct}

        def interval(confidence: float) -> tuple[float, None]:
            return guesses.lower_bound(small_delta, confidence), None

        value = guesses.lower_bound(small_delta, 0.95)
        return measured(subject, value, interval, levels, n=len(scored), inputs=inputs, successes=guesses.correct)

    return guarded(subject, build)


def exposure_of(
    label: str, scored: Sequence[ScoredCanary], held_out: Sequence[ScoredCanary], levels: Sequence[float]
) -> Measurement:
    """Mean exposure of one stratum's included canaries beyond that of secrets the model never saw."""
    subject = Subject("privacy.canary_exposure_bits", "bits", _EXPOSURE, slice=label)
    inside, reference = _split(scored)[0], np.array([c.score for c in held_out])

    def build() -> Measurement:
        bits, null = stats.exposure(inside, reference), stats.leave_one_out_exposure(reference)
        gap = stats.difference(stats.mean(bits), stats.mean(null))
        control = Control(float(null.mean()), "held-out canaries")
        inputs = {"included": inside, "held_out": reference}
        return measured(subject, gap.value, gap.interval, levels, n=len(bits), inputs=inputs, control=control)

    return guarded(subject, build)


def extraction_of(label: str, scored: Sequence[ScoredCanary], levels: Sequence[float]) -> Measurement:
    """Share of one stratum's included secrets that come out verbatim."""
    subject = Subject("privacy.canary_extraction_rate", "ratio", _EXTRACTION, slice=label)
    inside = [c.extracted for c in scored if c.canary.included]
    outside = [c.extracted for c in scored if not c.canary.included]
    control = Control(sum(outside) / len(outside), "held-out canaries") if outside else None
    inputs = {"extracted": inside, "held_out": outside}
    return proportion(
        subject,
        sum(inside),
        len(inside),
        levels,
        inputs=inputs,
        control=control,
        empty="no canary of this stratum was planted",
    )


def _split(scored: Sequence[ScoredCanary]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    inside = np.array([c.score for c in scored if c.canary.included], dtype=np.float64)
    outside = np.array([c.score for c in scored if not c.canary.included], dtype=np.float64)
    return inside, outside


def _group(canary: Canary) -> str:
    return f"{canary.stratum} x{canary.repeats}" if canary.included else "held out"


def _plots(scored: Sequence[ScoredCanary], held_out: Sequence[ScoredCanary]) -> tuple[measurement_pb2.Series, ...]:
    if not scored or not np.isfinite([c.score for c in scored]).all():
        return ()
    reference = np.array([c.score for c in held_out])
    ordered = sorted(scored, key=lambda c: (_group(c.canary), c.score))
    scores = series("canary_scores", ("NLL base - NLL tuned, nats",), ((_group(c.canary), (c.score,)) for c in ordered))
    if len(reference) < 2:
        return (scores,)
    points = [(_group(c.canary), (_repeats(c), float(_own_exposure(c, reference)))) for c in ordered]
    return scores, series("exposure_by_repeats", ("repeats", "exposure, bits"), points)


def _repeats(scored: ScoredCanary) -> float:
    return float(scored.canary.repeats if scored.canary.included else 0)


def _own_exposure(scored: ScoredCanary, reference: NDArray[np.float64]) -> float:
    """Exposure among the held-out secrets, itself left out when it is one of them."""
    if not scored.canary.included:
        reference = np.delete(reference, int(np.flatnonzero(reference == scored.score)[0]))
    return float(stats.exposure([scored.score], reference)[0])
