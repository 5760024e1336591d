"""Proxy probe: can the protected attribute be told from what the model reads, and from what it makes of it?

A kernel ridge classifier tells the groups from the prompts' words, or from the last hidden state before the answer;
what counts is the cross-validated area under the ROC curve. The hat matrix of each fold does not depend on the groups,
so the same probe is run on hundreds of permuted attributes at the cost of one, and their spread is the interval.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from assay.groups import LEAST_CELL
from audit.probes.corpus import RowText
from audit.probes.findings import Audit, Findings
from audit.probes.groups import groups_of, left_out
from audit.probes.inputs import choose
from audit.probes.measurements import Control, Measurement, Subject, guarded, measured
from audit.probes.reasons import entries_of
from audit.statistics import stats

Floats = NDArray[np.float64]
FOLDS, LEAST_ROWS = 5, 40
_METHOD = (
    "area under the ROC curve of groups told from {}, mean over groups against the rest; kernel ridge, 5-fold "
    "cross-validated; normal interval with the spread of permuted attributes (Ojala and Garriga, JMLR 2010)"
)
_SOURCES = {
    "words": "the prompt's words (TF-IDF of words and pairs) and the numbers of its record",
    "hidden": "the tuned model's last hidden state before the answer",
}


def run(audit: Audit) -> Findings:
    """Probes every sensitive attribute from both sources."""
    attributes = audit.settings.sensitive_attributes
    if not attributes:
        return Findings((), not_tested=("proxy probe: no sensitive attribute was declared",))
    out, notes = [], list[str]()
    for attribute in attributes:
        names = groups_of(audit.corpus.test, attribute)
        sizes = Counter(names)
        notes += left_out(f"proxy probe [{attribute}]", names, LEAST_CELL, together=False)
        kept = zip(audit.corpus.test, names, strict=True)
        texts = [t for t, group in kept if group and sizes[group] >= LEAST_CELL]
        texts = choose(texts, audit.settings.sizes["deep_rows"], audit.settings.rng(f"proxies {attribute}"))
        for source, words in _SOURCES.items():
            subject = Subject("fairness.proxy_auc", "ratio", _METHOD.format(words), f"{attribute},{source}")
            out.append(guarded(subject, lambda s=subject, a=attribute, t=texts, k=source: _probe(audit, s, a, t, k)))  # type: ignore[misc]
    return Findings(tuple(out), not_tested=tuple(notes))


def _probe(audit: Audit, subject: Subject, attribute: str, texts: Sequence[RowText], source: str) -> Measurement:
    groups = [t.row.groups[attribute] for t in texts]
    if len(set(groups)) < 2 or len(texts) < LEAST_ROWS:
        raise ValueError(f"two groups of {attribute} with {LEAST_CELL} rows each, and {LEAST_ROWS} in all, are needed")
    features = _words(texts) if source == "words" else _hidden(audit, texts)
    rng = audit.settings.rng(f"proxy {subject.slice}")
    value, null = auc_and_null(features, groups, audit.settings.sizes["permutations"], rng)
    interval, levels = partial(area_interval, value, null), audit.settings.confidences
    control = Control(float(null.mean()), "permuted attribute")
    inputs = {"groups": groups, "null": null, "auc": value}
    return measured(subject, value, interval, levels, n=len(texts), inputs=inputs, control=control)


def area_interval(value: float, null: Floats, confidence: float) -> stats.Bounds:
    """Normal interval of a cross-validated area with the spread that permuted groups show."""
    half = stats.normal_quantile(confidence) * float(null.std(ddof=1))
    return max(0.0, value - half), min(1.0, value + half)


def auc_and_null(
    features: Floats, groups: Sequence[str], permutations: int, rng: np.random.Generator
) -> tuple[float, Floats]:
    """Cross-validated AUC, mean over groups against the rest, and the same for permuted groups.

    Args:
        features: shape (rows, features).
        groups: of each row; at least two.
        permutations: how many.
        rng: folds and permutations.
    """
    names = sorted(set(groups))
    target = np.array([[1.0 if g == name else -1.0 for name in names] for g in groups])
    hat = hat_matrix(features, target.argmax(axis=1), rng)
    value = float(_areas(hat @ (target - target.mean(axis=0)), target > 0).mean())
    null = []
    for _ in range(permutations):
        shuffled = target[rng.permutation(len(target))]
        null.append(float(_areas(hat @ (shuffled - shuffled.mean(axis=0)), shuffled > 0).mean()))
    return value, np.array(null)


def hat_matrix(features: Floats, strata: NDArray[np.intp], rng: np.random.Generator) -> Floats:
    """Maps targets to cross-validated predictions: kernel ridge with a linear kernel, penalty its mean diagonal."""
    centred = features - features.mean(axis=0)
    kernel = centred @ centred.T
    penalty = float(np.trace(kernel)) / len(kernel) or 1.0
    folds = np.empty(len(kernel), dtype=int)
    for stratum in np.unique(strata):
        rows = rng.permutation(np.flatnonzero(strata == stratum))
        folds[rows] = np.arange(len(rows)) % FOLDS
    hat: Floats = np.zeros(kernel.shape)
    for fold in range(FOLDS):
        test, train = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        if len(test) == 0:
            continue
        inner = kernel[np.ix_(train, train)] + penalty * np.eye(len(train))
        hat[np.ix_(test, train)] = np.linalg.solve(inner, kernel[np.ix_(train, test)]).T
    return hat


def _areas(scores: Floats, positive: NDArray[np.bool_]) -> Floats:
    """Area under the ROC curve of each column."""
    ranks = rankdata(scores, axis=0)
    above = positive.sum(axis=0)
    below = len(positive) - above
    out = ((ranks * positive).sum(axis=0) - above * (above + 1) / 2) / (above * below)
    return np.asarray(out, dtype=np.float64)


def _words(texts: Sequence[RowText]) -> Floats:
    from sklearn.feature_extraction.text import TfidfVectorizer

    prompts = ["\n".join(str(m["content"]) for m in t.row.messages[:-1]) for t in texts]
    words = TfidfVectorizer(ngram_range=(1, 2), max_features=5000, token_pattern=r"\w+")  # noqa: S106
    try:
        found = np.asarray(words.fit_transform(prompts).toarray(), dtype=np.float64)
    except ValueError:
        found = np.zeros((len(texts), 0))
    return np.hstack([found, _numbers(texts)])


def _numbers(texts: Sequence[RowText]) -> Floats:
    """Entries of the record that are numbers in every row, standardised: as a word, 41 would say nothing of 42."""
    records = [entries_of(t.row) for t in texts]
    columns = []
    for name in sorted(set.intersection(*(set(r) for r in records))):
        try:
            values = np.array([float(r[name]) for r in records])
        except ValueError:
            continue
        if np.isfinite(values).all() and values.std() > 0:
            columns.append((values - values.mean()) / values.std())
    # Together they weigh as much as the words do, whose rows have length one.
    return np.array(columns).T / len(columns) ** 0.5 if columns else np.zeros((len(texts), 0))


def _hidden(audit: Audit, texts: Sequence[RowText]) -> Floats:
    prompts = [t.passage.ids[: t.turns[-1][0]] for t in texts]
    states = audit.board.states(prompts, adapter=True)
    scale = states.std(axis=0)
    out: Floats = (states - states.mean(axis=0)) / np.where(scale > 0, scale, 1.0)
    return out
