"""Record membership inference: can rows that were trained on be told from rows that were not?

Four signals, fixed before any is seen. The base model as reference is the pre-registered one; the others are measured
beside it, and the largest of the three with a power of their own carries a correction for having been chosen. The
control is the base model's loss: it saw neither split, so what it tells apart is the splits and not the training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from audit.probes.corpus import RowText
from audit.probes.findings import Audit, Findings
from audit.probes.measurements import Control, Measurement, Subject, guarded, measured
from audit.statistics import stats

Floats = NDArray[np.float64]

LOWEST_SHARE = 0.2
"""Share of the lowest standardised token scores that Min-K%++ averages."""

WINDOWS = (1, 2, 3, 4, 6, 9, 13, 18, 25, 32)
"""Window sizes in tokens of the window-based comparison, about geometric."""

CHOSEN = ("base_ratio", "mink", "windows")
"""Signals over which the largest area is taken."""

_METHODS: Mapping[str, str] = {
    "base_ratio": "NLL(base) - NLL(tuned) per answer token, a loss that a reference calibrates (Watson et al. 2022)",
    "loss": "minus NLL(tuned) per answer token (Yeom et al. 2018)",
    "mink": f"mean of the lowest {LOWEST_SHARE:.0%} of (log p - mean)/sd over the answer, Min-K%++ (arXiv 2404.02936)",
    "windows": "share of sliding windows in which the tuned model's loss is the lower (arXiv 2601.02751)",
    "base_loss": "minus NLL(base) per answer token, which no training on these rows can move",
}
_AUC = "AUC of training rows against test rows by {}; DeLong 1988 interval on the logit scale"
_LARGEST = (
    "largest AUC of training rows against test rows over base ratio, Min-K%++ and windows; lower end Bonferroni-"
    "corrected for the choice, upper end the largest of the three; DeLong 1988 intervals on the logit scale"
)


def run(audit: Audit) -> Findings:
    """Measures every signal, and the largest of the pre-registered three."""
    signals = [signals_of(audit, part) for part in (audit.corpus.train, audit.corpus.test)]
    return Findings(tuple(measure(signals[0], signals[1], audit.settings.confidences)))


def signals_of(audit: Audit, texts: Sequence[RowText]) -> dict[str, Floats]:
    """Every signal of every row, higher meaning likelier to have been trained on; shape (rows,) each."""
    passages = [t.passage for t in texts]
    tuned = audit.board.scores(passages, adapter=True)
    base = audit.board.scores(passages, adapter=False)
    rows: dict[str, list[float]] = {name: [] for name in _METHODS}
    for text, after, before in zip(texts, tuned, base, strict=True):
        new, old = after.at(text.answer)[0], before.at(text.answer)[0]
        z = np.sort(after.surprise_at(text.answer))
        rows["base_ratio"].append(float((old - new).mean()))
        rows["loss"].append(-float(new.mean()))
        rows["mink"].append(float(z[: max(1, round(LOWEST_SHARE * z.size))].mean()))
        rows["windows"].append(window_votes(old - new))
        rows["base_loss"].append(-float(old.mean()))
    return {name: np.array(values) for name, values in rows.items()}


def window_votes(gain: Floats) -> float:
    """Mean over window sizes of the share of windows whose summed gain is positive; ties count half."""
    total = np.concatenate([[0.0], np.cumsum(gain)])
    votes = []
    for size in WINDOWS:
        if size > gain.size:
            break
        sums = total[size:] - total[:-size]
        votes.append(float((sums > 0).mean() + (sums == 0).mean() / 2))
    return float(np.mean(votes))


def measure(train: Mapping[str, Floats], test: Mapping[str, Floats], levels: Sequence[float]) -> list[Measurement]:
    """Areas by signal; n is training rows plus test rows."""
    n = len(train["loss"]) + len(test["loss"])
    out = []
    for name, words in _METHODS.items():
        label = "" if name == "base_ratio" else f"signal={name}"
        subject = Subject("privacy.membership_auc", "ratio", _AUC.format(words), label)

        def build(subject: Subject = subject, name: str = name) -> Measurement:
            area = stats.auc(train[name], test[name])
            control = Control(stats.auc(train["base_loss"], test["base_loss"]).value, "base model's loss")
            inputs = {"train": train[name], "test": test[name]}
            return measured(subject, area.value, area.interval, levels, n=n, inputs=inputs, control=control)

        out.append(guarded(subject, build))
    largest = Subject("privacy.membership_largest_auc", "ratio", _LARGEST)

    def build_largest() -> Measurement:
        areas = [stats.auc(train[name], test[name]) for name in CHOSEN]

        def interval(confidence: float) -> stats.Bounds:
            strict = 1 - (1 - confidence) / len(areas)
            return max(a.interval(strict)[0] for a in areas), max(a.interval(confidence)[1] for a in areas)

        control = Control(stats.auc(train["base_loss"], test["base_loss"]).value, "base model's loss")
        inputs = {"train": {s: train[s] for s in CHOSEN}, "test": {s: test[s] for s in CHOSEN}}
        value = max(a.value for a in areas)
        return measured(largest, value, interval, levels, n=n, inputs=inputs, control=control)

    return [*out, guarded(largest, build_largest)]
