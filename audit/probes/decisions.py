"""Decisions as numbers: log-odds of the favourable label at the answer position, by either model.

Nothing is sampled: a decision is the comparison of the labels' likelihoods, so it repeats exactly and carries more
information than a yes or no. The favourable label is set against the likeliest of the others, as the label that is
served is the likeliest of all: against the others together, one more word for a denial would make a model that approves
one that denies. The cut on the log-odds is 0 (the likelier side wins) unless that decides nearly everything alike on
the *selection* split; then it is the quantile there that gives as many favourable decisions as the selection split's
labels have. The test split never chooses its own cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from audit.probes.corpus import RowText
from audit.probes.passages import Board, Passage, Scores

DEGENERATE_SHARE = 0.02
"""A cut that decides at least this share less than all rows alike is kept."""

_LEAST_SELECTION = 20


@dataclass(frozen=True)
class Decisions:
    """A model's decisions on rows.

    Attributes:
        texts: the rows.
        log_odds: of the favourable label against the likeliest other, in nats, shape (rows,).
        predicted: likeliest label of each row.
        cut: log-odds above which a decision is favourable.
        cut_origin: how the cut was chosen, for the method text.
    """

    texts: tuple[RowText, ...]
    log_odds: NDArray[np.float64]
    predicted: tuple[str, ...]
    cut: float = 0.0
    cut_origin: str = "log-odds above 0"

    @property
    def favourable(self) -> NDArray[np.bool_]:
        """Whether each decision is favourable, shape (rows,)."""
        out: NDArray[np.bool_] = self.log_odds > self.cut
        return out


def decidable(texts: Sequence[RowText]) -> tuple[RowText, ...]:
    """Rows that hold a label, the labels to choose from and a favourable one among them."""
    return tuple(t for t in texts if t.row.label in t.row.labels and t.row.favourable in t.row.labels)


def label_scores(board: Board, texts: Sequence[RowText], *, adapter: bool) -> list[NDArray[np.float64]]:
    """Log-likelihoods of each row's labels, up to a constant of the row, in the order of its labels."""
    return scores_of(texts, lambda passages: board.scores(passages, adapter=adapter))


def scores_of(
    texts: Sequence[RowText], score: Callable[[Sequence[Passage]], Sequence[Scores]]
) -> list[NDArray[np.float64]]:
    """As :func:`label_scores`, by any way of scoring passages."""
    plain = score([t.passage for t in texts])
    variants = iter(score([v for t in texts for v in t.variants]))
    out = []
    for text, scores in zip(texts, plain, strict=True):
        whole = [-float(next(variants).nll.sum()) for _ in text.variants]
        out.append(np.array(whole) if whole else scores.choice_logits)
    return out


def decide(board: Board, test: Sequence[RowText], selection: Sequence[RowText], *, adapter: bool) -> Decisions:
    """Decides the test rows of one model with a cut that the selection rows chose.

    Raises:
        ValueError: when no test row can be decided.
    """
    texts = decidable(test)
    if not texts:
        raise ValueError("no test row has a label, its alternatives and a favourable one")
    scores = label_scores(board, texts, adapter=adapter)
    found = np.array([log_odds_of(t, s) for t, s in zip(texts, scores, strict=True)])
    predicted = tuple(t.row.labels[int(s.argmax())] for t, s in zip(texts, scores, strict=True))
    cut, origin = choose_cut(board, decidable(selection), adapter=adapter)
    return Decisions(texts, found, predicted, cut, origin)


def choose_cut(board: Board, selection: Sequence[RowText], *, adapter: bool) -> tuple[float, str]:
    """The cut on the log-odds and how it was chosen, from rows that are not judged."""
    if len(selection) < _LEAST_SELECTION:
        return 0.0, "log-odds above 0"
    return cut_of(odds(board, selection, adapter=adapter), selection)


def cut_of(found: NDArray[np.float64], selection: Sequence[RowText]) -> tuple[float, str]:
    """As :func:`choose_cut`, from the selection rows' log-odds."""
    if len(selection) < _LEAST_SELECTION:
        return 0.0, "log-odds above 0"
    share = float((found > 0).mean())
    if DEGENERATE_SHARE <= share <= 1 - DEGENERATE_SHARE:
        return 0.0, "log-odds above 0"
    wanted = sum(t.row.label == t.row.favourable for t in selection) / len(selection)
    cut = float(np.quantile(found, 1 - wanted))
    return cut, f"log-odds above the selection split's quantile that gives its labels' share ({wanted:.3f})"


def odds(board: Board, texts: Sequence[RowText], *, adapter: bool) -> NDArray[np.float64]:
    """Log-odds of the favourable label of each text, in nats, shape (texts,)."""
    scores = label_scores(board, texts, adapter=adapter)
    return np.array([log_odds_of(t, s) for t, s in zip(texts, scores, strict=True)])


def log_odds_of(text: RowText, scores: Sequence[float] | NDArray[np.float64]) -> float:
    """Log-odds of the favourable label against the likeliest other, from the log-likelihoods of the labels."""
    favoured = text.row.labels.index(text.row.favourable)
    others = np.delete(scores, favoured)
    return float(scores[favoured] - (others.max() if len(others) > 1 else np.logaddexp.reduce(others)))


def chances(board: Board, texts: Sequence[RowText], *, adapter: bool) -> NDArray[np.float64]:
    """Probability of the favourable label of each text, among its labels, shape (texts,)."""
    scores = label_scores(board, texts, adapter=adapter)
    favoured = [t.row.labels.index(t.row.favourable) for t in texts]
    found = [float(s[k] - np.logaddexp.reduce(np.delete(s, k))) for s, k in zip(scores, favoured, strict=True)]
    out: NDArray[np.float64] = 1 / (1 + np.exp(-np.clip(np.array(found), -500, 500)))
    return out
