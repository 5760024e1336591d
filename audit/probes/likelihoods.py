"""Candidate continuations of plain text by likelihood: the building block of judge-free evaluation.

A question and its candidate answers share their opening, which is run once where that is faster: candidates of one
token are one text. A tie is decided for the earlier candidate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from audit.probes.findings import Audit
from audit.probes.measurements import Control, Measurement, Subject, guarded, measured, proportion
from audit.probes.passages import Passage, Scores
from audit.statistics import stats

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Question:
    """An opening, the candidates to go on with, and the index of the right one."""

    opening: str
    candidates: tuple[str, ...]
    right: int = 0


def nats(audit: Audit, questions: Sequence[Question], *, adapter: bool) -> list[Floats]:
    """Loss of every candidate given its opening, in nats per token; one array a question.

    Raises:
        ValueError: a candidate is too long to be scored with its opening.
    """
    texts = [q.opening + c for q in questions for c in q.candidates]
    starts = [len(q.opening) for q in questions for _ in q.candidates]
    whole = []
    for rendered, start in zip(audit.chat.plain(texts), starts, strict=True):
        marks = tuple(i for i, (_, end) in enumerate(rendered.spans) if i >= 1 and end > start)
        if not marks or rendered.cut:
            raise ValueError("an item of the set is too long to be scored, or too short")
        whole.append(Passage(rendered.ids, marks))
    ends = np.cumsum([len(q.candidates) for q in questions])
    asked = [_together(whole[end - len(q.candidates) : end]) for q, end in zip(questions, ends, strict=True)]
    scores = iter(audit.board.scores([p for some in asked for p in some], adapter=adapter))
    return [_losses([next(scores) for _ in some]) for some in asked]


def _together(candidates: Sequence[Passage]) -> list[Passage]:
    """One text for candidates that are one token each after the same others; else they themselves."""
    first, tokens = candidates[0], tuple(p.ids[-1] for p in candidates)
    place = len(first.ids) - 1
    alike = all(p.marks == (place,) and p.ids[:-1] == first.ids[:-1] for p in candidates)
    return [replace(first, choice_at=place, choices=tokens)] if alike and len(candidates) > 1 else list(candidates)


def _losses(scores: Sequence[Scores]) -> Floats:
    """Loss of every candidate; of those that are one text, by what their logits differ from the first one's."""
    if len(scores) == 1 and scores[0].choice_logits.size:
        [one] = scores
        return np.asarray(one.nll[0] + one.choice_logits[0] - one.choice_logits, dtype=np.float64)
    return np.array([float(s.nll.mean()) for s in scores])


def right_ones(losses: Sequence[Floats], questions: Sequence[Question]) -> NDArray[np.bool_]:
    """Whether the right candidate is the likeliest, for each question."""
    return np.array([int(row.argmin()) == q.right for row, q in zip(losses, questions, strict=True)], dtype=bool)


def accuracy(
    audit: Audit, rate: Subject, delta: Subject, tuned: NDArray[np.bool_], base: NDArray[np.bool_]
) -> list[Measurement]:
    """Share of right items with the base model's beside it, and the change on the same items."""
    n, levels = len(tuned), audit.settings.confidences
    gained, lost = int((tuned & ~base).sum()), int((base & ~tuned).sum())
    inputs = {"tuned": tuned, "base": base}

    def interval(confidence: float) -> stats.Bounds:
        return stats.paired_difference_interval(gained, lost, n, confidence)

    control = Control(float(base.mean()), "base model")
    return [
        proportion(rate, int(tuned.sum()), n, levels, inputs=inputs, control=control),
        measured(delta, (gained - lost) / n, interval, levels, n=n, inputs=inputs),
    ]


def mean_of(audit: Audit, subject: Subject, values: Floats, control: Control | None = None) -> Measurement:
    """Mean of one value an item, with the interval of :class:`audit.statistics.stats.Estimate`."""

    def build() -> Measurement:
        found = stats.mean(values)
        levels = audit.settings.confidences
        return measured(subject, found.value, found.interval, levels, n=values.size, inputs=values, control=control)

    return guarded(subject, build)
