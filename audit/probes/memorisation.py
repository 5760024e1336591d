"""What was learned by heart: training text written verbatim, and a loss lower on training rows than on test rows."""

from __future__ import annotations

from collections.abc import Sequence

from audit.probes.corpus import RowText
from audit.probes.findings import Audit, Findings, Series, series
from audit.probes.inputs import choose
from audit.probes.measurements import Control, Measurement, Subject, guarded, measured, proportion
from audit.statistics import stats

CONTINUATION = 32
"""Most tokens that must come out verbatim after the first half of an answer."""

_LEAST_CONTINUATION = 8

_VERBATIM = (
    "share of training rows of whose longest answer greedy decoding writes the next tokens (32, or the rest of at "
    "least 8) verbatim after the true first half, (k, l)-extractability of Carlini et al. 2022 (arXiv 2202.07646); "
    "Clopper-Pearson 1934"
)
NEAR_SHARE = 0.9
_NEAR = (
    "share of training rows of whose longest answer at least nine in ten of the next tokens are the likeliest, given "
    "the true text before each, our own definition; Clopper-Pearson 1934"
)
_SHORT = "no answer of the rows is long enough"
_EXCESS = "verbatim rate of the longest answers of training rows minus that of test rows; Newcombe 1998 method 10"
_GAP = "mean nats per answer token, test rows minus training rows, rows as sampling units; Welch 1947, "
_GAP += "of 30 rows and more corrected for skewness (Hall and Martin 1988)"
_RATIO = (
    "mean nats per answer token, test rows over training rows; delta method on the log scale of two ratio estimators "
    "(Cochran 1977)"
)


def run(audit: Audit) -> Findings:
    """Measures the verbatim rate and the loss gap between test and training rows, on the tuned model."""
    return Findings((*verbatim(audit), *loss_gap(audit)), (_plot(audit),))


def verbatim(audit: Audit) -> list[Measurement]:
    """Verbatim rates of training rows by both models, test rows as the control, and the tuned model's difference."""
    levels, most = audit.settings.confidences, audit.settings.sizes["verbatim_rows"]
    chosen = []
    for name, texts in (("train", audit.corpus.train), ("test", audit.corpus.test)):
        long_enough = [t for t in texts if continuation(t)]
        chosen.append(choose(long_enough, most, audit.settings.rng(f"verbatim {name}")))
    train, test = (reproduced(audit, texts) for texts in chosen)
    excess = Subject("privacy.verbatim_excess", "ratio", _EXCESS)
    inputs, control = {"train": train, "test": test}, _on_test_rows(test)

    def build() -> Measurement:
        if not train or not test:
            raise ValueError(_SHORT)

        def interval(confidence: float) -> stats.Bounds:
            return stats.difference_interval(sum(train), len(train), sum(test), len(test), confidence)

        value = sum(train) / len(train) - sum(test) / len(test)
        return measured(excess, value, interval, levels, n=len(train), inputs=inputs, control=control)

    out = []
    for name, method, share in (("verbatim_rate", _VERBATIM, 1.0), ("near_verbatim_rate", _NEAR, NEAR_SHARE)):
        for words, label, adapter in (("", "", True), ("; the base model's", "model=base", False)):
            hits, others = (reproduced(audit, texts, adapter=adapter, share=share) for texts in chosen)
            subject = Subject(f"privacy.{name}", "ratio", method + words, label)
            told = {"train": hits, "test": others}
            beside = _on_test_rows(others)
            out.append(proportion(subject, sum(hits), len(hits), levels, inputs=told, control=beside, empty=_SHORT))
    return [*out, guarded(excess, build)]


def _on_test_rows(hits: Sequence[bool]) -> Control | None:
    return Control(sum(hits) / len(hits), "test rows") if hits else None


def continuation(text: RowText) -> tuple[int, ...]:
    """Places that must come out verbatim after the first half of the row's longest answer; empty if that is short."""
    answer = max(text.turns, key=len)
    half = len(answer) // 2
    places = answer[half : half + CONTINUATION]
    return places if len(places) >= _LEAST_CONTINUATION else ()


def reproduced(audit: Audit, texts: Sequence[RowText], *, adapter: bool = True, share: float = 1.0) -> list[bool]:
    """Whether at least ``share`` of each text's continuation are the likeliest tokens; all of them: verbatim."""
    scores = audit.board.scores([t.passage for t in texts], adapter=adapter)
    return [bool(s.at(continuation(t))[1].mean() >= share) for s, t in zip(scores, texts, strict=True)]


def losses(audit: Audit, texts: Sequence[RowText], *, adapter: bool) -> tuple[list[float], list[int]]:
    """Nats of each row's answer and its number of tokens."""
    scores = audit.board.scores([t.passage for t in texts], adapter=adapter)
    totals = [float(s.at(t.answer)[0].sum()) for s, t in zip(scores, texts, strict=True)]
    return totals, [len(t.answer) for t in texts]


def loss_gap(audit: Audit) -> list[Measurement]:
    """Gap and ratio of the losses; n is the number of test rows.

    The control is the base model's: it saw neither split, so its gap is how much harder the test rows happen to be.
    """
    levels, n = audit.settings.confidences, len(audit.corpus.test)
    gap, ratio = Subject("overfitting.loss_gap", "nats", _GAP), Subject("overfitting.loss_ratio", "ratio", _RATIO)
    test, train = losses(audit, audit.corpus.test, adapter=True), losses(audit, audit.corpus.train, adapter=True)
    inputs = {"test": test, "train": train}

    def of_base() -> list[float]:
        splits = [losses(audit, part, adapter=False) for part in (audit.corpus.test, audit.corpus.train)]
        return [stats.weighted_mean(*split).value for split in splits]

    def build_gap() -> Measurement:
        found = stats.difference(stats.weighted_mean(*test), stats.weighted_mean(*train))
        before = of_base()
        control = Control(before[0] - before[1], "base model")
        return measured(gap, found.value, found.interval, levels, n=n, inputs=inputs, control=control)

    def build_ratio() -> Measurement:
        first, second = stats.weighted_mean(*test), stats.weighted_mean(*train)
        if second.value <= 0:
            raise ValueError("the loss on training rows is zero")

        def interval(confidence: float) -> stats.Bounds:
            return stats.log_ratio_interval(first, second, confidence)

        before = of_base()
        control = Control(before[0] / before[1], "base model") if before[1] > 0 else None
        return measured(ratio, first.value / second.value, interval, levels, n=n, inputs=inputs, control=control)

    return [guarded(gap, build_gap), guarded(ratio, build_ratio)]


def _plot(audit: Audit) -> Series:
    points = []
    for name, texts in (("train", audit.corpus.train), ("test", audit.corpus.test)):
        totals, sizes = losses(audit, texts, adapter=True)
        points += [(name, (t / n,)) for t, n in sorted(zip(totals, sizes, strict=True), key=lambda p: p[0] / p[1])]
    return series("row_losses", ("nats per answer token",), points)
