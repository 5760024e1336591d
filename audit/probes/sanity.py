"""Is the adapter an adapter, and are the splits apart? What would make every other number about it meaningless.

The loader already refuses an adapter for another base, with other tensors, or with a number that is not finite
(:mod:`audit.probes.model`). Here it is measured that the adapter does something, and that training and test rows are
not the same rows in other words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.pii import spaced
from audit.probes.findings import Audit, Findings
from audit.probes.inputs import Row
from audit.probes.measurements import Control, Measurement, Subject, guarded, measured, proportion
from audit.statistics import stats

SHINGLE, NEAR = 5, 0.8
_CHANGED = "mean absolute change of a test row's loss by switching the adapter on, nats per token, our own definition; "
_CHANGED += stats.T_INTERVAL
_NEAR = "share of sampled training rows with a near-duplicate among {} (Jaccard of 5-word shingles at least 0.8; Broder"
_NEAR += " 1997; a character is a word where a script has no spaces, and equal rows of a table are different people);"
_NEAR += " Clopper-Pearson 1934"


def run(audit: Audit) -> Findings:
    """Measures whether the adapter changes anything, and near-duplicates within training and across the split."""
    texts = audit.corpus.test
    subject = Subject("adapter.change_of_loss", "nats", _CHANGED)

    def build() -> Measurement:
        losses = [
            np.array([float(s.at(t.answer)[0].mean()) for t, s in zip(texts, found, strict=True)])
            for found in (audit.board.scores([t.passage for t in texts], adapter=a) for a in (True, False))
        ]
        moved = np.abs(losses[0] - losses[1])
        found = stats.mean(moved)
        control = Control(0.0, "an adapter that does nothing")
        levels = audit.settings.confidences
        return measured(subject, found.value, found.interval, levels, n=moved.size, inputs=moved, control=control)

    train = [t.row for t in audit.corpus.train]
    rows = [t.row for t in texts]
    twins = near_duplicates(train, rows)
    out = [guarded(subject, build)]
    for name, where, hits in (
        ("near_duplicate_rate", "the other sampled training rows", twins[0]),
        ("test_overlap_rate", "the test rows", twins[1]),
    ):
        method = _NEAR.format(where)
        inputs: dict[str, Any] = {"hits": hits}
        out.append(
            proportion(
                Subject(f"overfitting.{name}", "ratio", method),
                int(hits.sum()),
                len(hits),
                audit.settings.confidences,
                inputs=inputs,
                empty="no training row was sampled",
            )
        )
    return Findings(tuple(out))


def near_duplicates(train: Sequence[Row], test: Sequence[Row]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """For each training row: has it a near-duplicate among the other training rows, and among the test rows?

    Rows of a decision table whose cells are equal are different people, and no duplicates.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    if not train:
        return np.zeros(0, dtype=bool), np.zeros(0, dtype=bool)
    words = CountVectorizer(ngram_range=(SHINGLE, SHINGLE), binary=True, tokenizer=_words, token_pattern=None)
    try:
        matrix = words.fit_transform([_said(r) for r in (*train, *test)]).astype(np.int32)
    except ValueError:
        # No text has five words: then none can share five.
        return np.zeros(len(train), dtype=bool), np.zeros(len(train), dtype=bool)
    shared = (matrix[: len(train)] @ matrix.T).toarray()
    sizes = np.asarray(matrix.sum(axis=1)).ravel()
    union = sizes[: len(train), None] + sizes[None, :] - shared
    alike = np.divide(shared, union, out=np.zeros(shared.shape), where=union > 0) >= NEAR
    known: dict[Any, int] = {}
    who = np.array([known.setdefault(_prompt(r) if r.labels else i, i) for i, r in enumerate((*train, *test))])
    alike &= who[: len(train), None] != who
    return alike[:, : len(train)].any(axis=1), alike[:, len(train) :].any(axis=1)


def _prompt(row: Row) -> str:
    return "\n".join(str(m["content"]) for m in row.messages[:-1])


def _words(text: str) -> list[str]:
    return spaced(text).split()


def _said(row: Row) -> str:
    """What the row says apart from its system prompt, which all rows may share."""
    return "\n".join(str(m["content"]) for m in row.messages if m["role"] != "system")
