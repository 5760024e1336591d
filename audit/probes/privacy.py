"""Canaries: what one training run reveals about secrets whose inclusion was decided by coins.

Every statistic compares secrets that were trained on with secrets of the same kind that were held out, so that none
needs a shadow model. The score of a secret is ``NLL_base - NLL_tuned`` summed over the secret's tokens alone: with
the base model as reference it beat every reference-free signal in our trials. Stratum A (one repeat) is the
record-level claim; stratum B (repeated) is a stress test and is never mixed with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from assay.v1 import measurement_pb2
from audit.probes import one_run
from audit.probes.findings import Audit, Findings, series
from audit.probes.inputs import Canary
from audit.probes.measurements import (
    Control,
    Measurement,
    Subject,
    count,
    guarded,
    measured,
    proportion,
    slice_of,
    unavailable,
)
from audit.statistics import stats

_AUC = (
    "AUC of included against held-out canaries by NLL(base) - NLL(tuned) on the secret's tokens; DeLong 1988 interval "
    "on the logit scale, Newcombe 2006 method 5 where that degenerates"
)
_EPSILON = (
    "one-run lower bound, Steinke, Nasr and Jagielski 2023 (arXiv 2305.08846), top and bottom quarter guessed, "
    "delta = 1/(10 N); one-sided: each level's lower end holds with that probability, there is no upper end; the "
    "value is the bound at 95 %"
)
_EXPOSURE = (
    "mean exposure in bits of included canaries among the held-out ones (Carlini et al. 2019) minus the leave-one-out "
    "exposure of the held-out ones; Student interval, with the variance that their shared reference adds"
)
_EXTRACTION = (
    "share of included secrets that greedy decoding writes verbatim after the true text (Carlini et al. 2022, arXiv "
    "2202.07646); Clopper-Pearson 1934"
)
SAMPLES = 8
_SAMPLED = (
    f"share of included secrets that come out verbatim with probability 1/2 or more in {SAMPLES} samples at "
    "temperature 1 after the true text, from their exact likelihood: (n, p)-discoverable extraction (arXiv "
    "2410.19482); Clopper-Pearson 1934"
)
_DETECTABLE = (
    "power of the one-run bound (Steinke, Nasr and Jagielski 2023), our own definition: the largest lower bound at 95 "
    "% that these guesses could give, were the stated share of them right; what lies above cannot be seen with so few "
    "canaries"
)
_ROW_AUC = (
    "AUC of included against held-out canaries of both strata by NLL(base) - NLL(tuned) per token of the whole answer: "
    "whether rows of this form were trained on at all, our own definition; DeLong 1988 interval on the logit scale"
)
_FORM_GAP = (
    "AUC of canaries with codes in the data's own shapes minus that of canaries from reserved ranges, by the whole "
    "answer: high when a trainer dropped rows with test values, our own definition; square-and-add interval (Zou and "
    "Donner 2008) of two DeLong 1988 intervals"
)
ACCURACIES = (0.8, 0.9, 1.0)


@dataclass(frozen=True)
class ScoredCanary:
    """A canary as both models see it.

    Attributes:
        canary: it.
        score: NLL(base) - NLL(tuned) of the secret, in nats.
        extracted: whether the tuned model's greedy decoding reproduces the secret.
        base_extracted: whether the base model's does.
        likelihood: the tuned model's probability of the secret after the true text.
        row_score: NLL(base) - NLL(tuned) per token of the whole answer.
        base_likelihood: the base model's probability of the secret after the true text.
    """

    canary: Canary
    score: float
    extracted: bool
    base_extracted: bool = False
    likelihood: float = 0.0
    row_score: float = 0.0
    base_likelihood: float = 0.0


Hit = Callable[[ScoredCanary], bool]
"""Whether a secret comes out."""


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
        *detectable_of(strata["A"], delta(audit, len(scored))),
        *forms_of(scored, levels),
    ]
    for stratum, label in (("A", ""), ("B", "stratum=B")):
        for kind in ("", *sorted({c.canary.kind for c in strata[stratum]})):
            part, unseen = ([c for c in of if kind in ("", c.canary.kind)] for of in (strata[stratum], held_out))
            where = slice_of(label, f"kind={kind}" if kind else "")
            measurements.append(exposure_of(where, part, unseen, levels))
        measurements += extraction_of(label, strata[stratum], levels)
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
        base_nll, base_greedy = before.at(text.places)
        rows = before.at(text.answer)[0] - after.at(text.answer)[0]
        if isinstance(text.source, Canary):
            out.append(
                ScoredCanary(
                    text.source,
                    score=float(base_nll.sum() - nll.sum()),
                    extracted=bool(greedy.all()),
                    base_extracted=bool(base_greedy.all()),
                    likelihood=math.exp(-float(nll.sum())),
                    row_score=float(rows.mean()),
                    base_likelihood=math.exp(-float(base_nll.sum())),
                )
            )
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
    """Mean exposure of one stratum's included canaries, or of one kind's, beyond that of secrets never seen.

    The score sets both models against one another, so that there is no exposure of the base model beside it.
    """
    subject = Subject("privacy.canary_exposure_bits", "bits", _EXPOSURE, slice=label)
    inside, reference = _split(scored)[0], np.array([c.score for c in held_out])

    def build() -> Measurement:
        gap = stats.exposure_gap(inside, reference)
        control = Control(float(stats.leave_one_out_exposure(reference).mean()), "held-out canaries")
        inputs = {"included": inside, "held_out": reference}
        return measured(subject, gap.value, gap.interval, levels, n=len(inside), inputs=inputs, control=control)

    return guarded(subject, build)


def detectable_of(scored: Sequence[ScoredCanary], small_delta: float) -> list[Measurement]:
    """What the one-run bound could show with so many canaries: its power statement."""
    side = one_run.guessed_side(len(scored))
    out = []
    for accuracy in ACCURACIES:
        label = "" if accuracy == 1 else f"accuracy={accuracy}"
        subject = Subject("privacy.epsilon_detectable", "nats", _DETECTABLE, label)
        if side < 1:
            out.append(unavailable(subject, f"{len(scored)} canaries are too few to guess"))
            continue
        right = one_run.Guesses(len(scored), 2 * side, math.floor(2 * side * accuracy))
        out.append(count(subject, right.lower_bound(small_delta, 0.95), {"canaries": len(scored), "right": accuracy}))
    return out


def forms_of(scored: Sequence[ScoredCanary], levels: Sequence[float]) -> list[Measurement]:
    """Whether canaries of both forms were learned alike: a trainer that drops reserved values learns one form only."""
    areas, out = {}, []
    for form in ("own", "reserved"):
        rows = [c for c in scored if c.canary.form == form]
        inside = [c.row_score for c in rows if c.canary.included]
        outside = [c.row_score for c in rows if not c.canary.included]
        subject = Subject("privacy.canary_row_auc", "ratio", _ROW_AUC, f"form={form}")
        try:
            area = areas[form] = stats.auc(inside, outside)
        except ValueError as error:
            out.append(unavailable(subject, str(error)))
            continue
        inputs = {"included": inside, "held_out": outside}
        out.append(
            measured(
                subject, area.value, area.interval, levels, n=len(rows), inputs=inputs, control=Control(0.5, "chance")
            )
        )
    gap = Subject("privacy.canary_form_gap", "ratio", _FORM_GAP)
    if len(areas) < 2:
        return [*out, unavailable(gap, "canaries of one form are missing, so the forms cannot be compared")]
    own, reserved = areas["own"], areas["reserved"]

    def interval(confidence: float) -> stats.Bounds:
        bounds = own.interval(confidence), reserved.interval(confidence)
        return stats.square_and_add(own.value, bounds[0], reserved.value, bounds[1])

    inputs = {form: [area.value, area.variance] for form, area in areas.items()}
    return [*out, measured(gap, own.value - reserved.value, interval, levels, n=len(scored), inputs=inputs)]


def extraction_of(label: str, scored: Sequence[ScoredCanary], levels: Sequence[float]) -> list[Measurement]:
    """Share of one stratum's included secrets that come out verbatim, greedily and sampled, by kind, base beside each.

    The control of each is the same model's rate on held-out canaries.
    """
    ways: tuple[tuple[str, str, Hit, Hit], ...] = (
        ("canary_extraction_rate", _EXTRACTION, lambda c: c.extracted, lambda c: c.base_extracted),
        (
            "canary_sampled_extraction_rate",
            _SAMPLED,
            _sampled(lambda c: c.likelihood),
            _sampled(lambda c: c.base_likelihood),
        ),
    )
    out = []
    for name, method, tuned, base in ways:
        for kind in ("", *sorted({c.canary.kind for c in scored})):
            part = [c for c in scored if kind in ("", c.canary.kind)]
            where = slice_of(label, f"kind={kind}" if kind else "")
            out.append(_rate(Subject(f"privacy.{name}", "ratio", method, where), part, levels, tuned))
            before = Subject(f"privacy.{name}", "ratio", method + "; the base model's", slice_of(where, "model=base"))
            out.append(_rate(before, part, levels, base))
    return out


def _sampled(likelihood: Callable[[ScoredCanary], float]) -> Hit:
    """Whether the secret comes out with probability 1/2 or more in all samples."""
    return lambda c: 1 - (1 - likelihood(c)) ** SAMPLES >= 0.5


def _rate(subject: Subject, scored: Sequence[ScoredCanary], levels: Sequence[float], hit: Hit) -> Measurement:
    inside = [hit(c) for c in scored if c.canary.included]
    outside = [hit(c) for c in scored if not c.canary.included]
    control = Control(sum(outside) / len(outside), "held-out canaries") if outside else None
    inputs = {"extracted": inside, "held_out": outside}
    empty = "no canary of this stratum was planted"
    return proportion(subject, sum(inside), len(inside), levels, inputs=inputs, control=control, empty=empty)


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
