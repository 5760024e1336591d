"""Whether the tuned model does its task, beside the base model on the same sealed test rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from audit.probes.corpus import RowText
from audit.probes.decisions import label_scores
from audit.probes.findings import Audit, Findings
from audit.probes.measurements import Control, Measurement, Subject, guarded, measured, proportion, unavailable
from audit.probes.memorisation import losses
from audit.statistics import stats

SHORT_ANSWER = 8
"""Most tokens of an answer that is judged by exact match."""

_RATIO = f"{stats.T_INTERVAL} of a ratio estimator (Cochran 1977)"
_LOSS = f"mean nats per answer token over test rows, rows as sampling units; {_RATIO}"
_DELTA = f"tuned minus base, mean nats per answer token on the same test rows; paired {_RATIO}"
_ACCURACY = "share of test rows answered rightly ({}); Clopper-Pearson 1934"
_ACCURACY_DELTA = (
    "tuned minus base accuracy on the same test rows ({}), every answer of a row; Tango 1998 score interval"
)
_TOKENS = (
    "share of answer tokens that greedy decoding gets right given the text before them, rows as sampling units; "
    f"{_RATIO}"
)


@dataclass(frozen=True)
class Marks:
    """Which rows each model answered rightly, and how that was told."""

    tuned: tuple[bool, ...]
    base: tuple[bool, ...]
    how: str


def run(audit: Audit) -> Findings:
    """Measures test loss and accuracy of the tuned model, and what changed from the base model."""
    found = mark(audit)
    measurements = [*_losses(audit), *_accuracies(audit, found), _token_accuracy(audit)]
    notes = [] if found else [f"accuracy: {_unmarked(audit)}, so only their loss is measured"]
    return Findings(tuple(measurements), not_tested=tuple(notes))


def mark(audit: Audit) -> Marks | None:
    """Marks the test rows: by the likeliest label where rows have labels, by exact match where answers are short.

    Rows of one label are not marked: who always says it would be right.
    """
    labelled = _labelled(audit)
    if labelled and len({t.row.label for t in labelled}) == 1:
        return None
    if labelled:
        tuned, base = (_by_label(audit, labelled, adapter=a) for a in (True, False))
        return Marks(tuned, base, "likeliest of the row's labels")
    if audit.corpus.test and all(len(turn) <= SHORT_ANSWER for t in audit.corpus.test for turn in t.turns):
        tuned, base = (_by_match(audit, adapter=a) for a in (True, False))
        return Marks(tuned, base, "the whole answer, greedily decoded, matches exactly")
    return None


def _labelled(audit: Audit) -> list[RowText]:
    return [t for t in audit.corpus.test if t.row.label in t.row.labels]


def _unmarked(audit: Audit) -> str:
    return "all test rows have the same label" if _labelled(audit) else "the test answers are free text without labels"


def _by_label(audit: Audit, texts: Sequence[RowText], *, adapter: bool) -> tuple[bool, ...]:
    scores = label_scores(audit.board, texts, adapter=adapter)
    return tuple(t.row.labels[int(s.argmax())] == t.row.label for t, s in zip(texts, scores, strict=True))


def _by_match(audit: Audit, *, adapter: bool) -> tuple[bool, ...]:
    scores = audit.board.scores([t.passage for t in audit.corpus.test], adapter=adapter)
    return tuple(bool(s.at(t.answer)[1].all()) for t, s in zip(audit.corpus.test, scores, strict=True))


def _losses(audit: Audit) -> list[Measurement]:
    levels, texts = audit.settings.confidences, audit.corpus.test
    loss, delta = Subject("quality.test_loss", "nats", _LOSS), Subject("quality.test_loss_delta", "nats", _DELTA)
    after, sizes = losses(audit, texts, adapter=True)
    before, _ = losses(audit, texts, adapter=False)
    inputs = {"tuned": after, "base": before, "tokens": sizes}

    def build_loss() -> Measurement:
        found = stats.weighted_mean(after, sizes)
        control = Control(stats.weighted_mean(before, sizes).value, "base model")
        return measured(loss, found.value, found.interval, levels, n=len(sizes), inputs=inputs, control=control)

    def build_delta() -> Measurement:
        found = stats.weighted_mean([a - b for a, b in zip(after, before, strict=True)], sizes)
        return measured(delta, found.value, found.interval, levels, n=len(sizes), inputs=inputs)

    return [guarded(loss, build_loss), guarded(delta, build_delta)]


def _accuracies(audit: Audit, found: Marks | None) -> list[Measurement]:
    levels, how = audit.settings.confidences, found.how if found else "no labels"
    accuracy = Subject("quality.test_accuracy", "ratio", _ACCURACY.format(how))
    change = Subject("quality.accuracy_delta", "ratio", _ACCURACY_DELTA.format(how))
    if found is None:
        return [unavailable(s, _unmarked(audit)) for s in (accuracy, change)]
    n, right, before = len(found.tuned), sum(found.tuned), sum(found.base)
    inputs = {"tuned": found.tuned, "base": found.base}
    gained = sum(a and not b for a, b in zip(found.tuned, found.base, strict=True))
    lost = sum(b and not a for a, b in zip(found.tuned, found.base, strict=True))

    def interval(confidence: float) -> stats.Bounds:
        return stats.paired_difference_interval(gained, lost, n, confidence)

    control = Control(before / n, "base model")
    return [
        proportion(accuracy, right, n, levels, inputs=inputs, control=control),
        measured(change, (gained - lost) / n, interval, levels, n=n, inputs=inputs),
    ]


def _token_accuracy(audit: Audit) -> Measurement:
    subject = Subject("quality.token_accuracy", "ratio", _TOKENS, exploratory=True)
    texts = audit.corpus.test
    sizes = [len(t.answer) for t in texts]
    rights = []
    for adapter in (True, False):
        scores = audit.board.scores([t.passage for t in texts], adapter=adapter)
        rights.append([int(s.at(t.answer)[1].sum()) for t, s in zip(texts, scores, strict=True)])

    def build() -> Measurement:
        found = stats.weighted_mean(rights[0], sizes)
        control = Control(stats.weighted_mean(rights[1], sizes).value, "base model")
        inputs = {"tuned": rights[0], "tokens": sizes}
        levels = audit.settings.confidences
        return measured(subject, found.value, found.interval, levels, n=len(sizes), inputs=inputs, control=control)

    return guarded(subject, build)
