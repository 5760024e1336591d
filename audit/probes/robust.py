"""Decisions asked again with the labels in the other order and in other spellings: what should change nothing.

A decision's log-odds are then ``logsumexp`` over the spellings of the favourable label minus that over those of the
likeliest other, averaged over both orders of the labels in the question. Labels whose spellings share a first token are
compared as they are written, over their whole length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from assay.groups import LEAST_CELL, pooled
from audit.probes.corpus import RowText, row_texts
from audit.probes.decisions import cut_of, decidable, log_odds_of, odds
from audit.probes.findings import Audit, Findings
from audit.probes.groups import groups_of, left_out, method_of
from audit.probes.inputs import Row, choose
from audit.probes.measurements import Control, Measurement, Subject, guarded, measured, proportion, unavailable
from audit.probes.passages import Passage
from audit.statistics import extremes, stats

Floats = NDArray[np.float64]
_SEPARATOR = ", "
_ORDER = "share of decisions that change when the question names the labels in the other order; Clopper-Pearson 1934"
_SPELLING = "share of decisions that change when other spellings of the labels count as well; Clopper-Pearson 1934"
_RATIO = (
    "impact ratio of decisions by log-odds over spellings, mean of both orders, our own definition; bounds over all "
    "pairs of groups (MOVER, Donner and Zou 2012)"
)


@dataclass(frozen=True)
class Asked:
    """Log-odds of the same rows asked in three ways, shape (rows,) each; ``spelt`` is ``plain`` where none are told."""

    plain: Floats
    spelt: Floats
    turned: Floats


def run(audit: Audit) -> Findings:
    """Asks every test row in both orders and all spellings."""
    most = audit.settings.sizes["deep_rows"]
    texts = tuple(choose(decidable(audit.corpus.test), most, audit.settings.rng("label order")))
    subjects = {
        "order": Subject("fairness.label_order_flip_rate", "ratio", _ORDER),
        "spelling": Subject("fairness.label_spelling_flip_rate", "ratio", _SPELLING),
    }
    if not texts:
        return Findings((), not_tested=("label order and spelling: the test rows hold no decisions",))
    selection = tuple(choose(decidable(audit.corpus.selection), most // 2, audit.settings.rng("label order cut")))
    try:
        asked, chosen = ask(audit, texts, adapter=True), ask(audit, selection, adapter=True)
        before = ask(audit, texts, adapter=False)
    except ValueError as error:
        return Findings(tuple(unavailable(s, str(error)) for s in subjects.values()))
    cut, cut_spelt = cut_of(chosen.plain, selection)[0], cut_of(chosen.spelt, selection)[0]
    flips = {
        # Both with spellings, so that nothing differs but the order.
        "order": ((asked.spelt > cut_spelt) != (asked.turned > cut_spelt), (before.spelt > 0) != (before.turned > 0)),
        "spelling": ((asked.plain > cut) != (asked.spelt > cut_spelt), (before.plain > 0) != (before.spelt > 0)),
    }
    levels = audit.settings.confidences
    out = [
        proportion(
            subjects[name],
            int(now.sum()),
            len(texts),
            levels,
            inputs=[now.tolist(), base.tolist()],
            control=Control(float(base.mean()), "base model"),
        )
        for name, (now, base) in flips.items()
    ]
    both = (asked.spelt + asked.turned) / 2
    if len(selection):
        cut = cut_of((chosen.spelt + chosen.turned) / 2, selection)[0]
    plain = asked.plain > cut_of(chosen.plain, selection)[0]
    notes: list[str] = []
    for attribute in audit.settings.sensitive_attributes:
        groups = groups_of(texts, attribute)
        notes += left_out(f"label order and spelling [{attribute}]", groups, LEAST_CELL)
        out.append(_ratio(audit, attribute, pooled(groups, attribute, LEAST_CELL), both > cut, plain))
    return Findings(tuple(out), not_tested=tuple(notes))


def ask(audit: Audit, texts: Sequence[RowText], *, adapter: bool) -> Asked:
    """Asks rows as they are, with spellings, and with the labels turned round (with spellings too).

    Raises:
        ValueError: a question does not name its labels in a row, so there is no order to turn.
    """
    if not texts:
        return Asked(*(np.empty(0) for _ in range(3)))
    turned = row_texts([turned_round(t.row) for t in texts], audit.chat)
    if len(turned) != len(texts):
        raise ValueError("a row is too long to be scored with its labels turned round")
    plain = odds(audit.board, texts, adapter=adapter)
    return Asked(plain, _spelt(audit, texts, adapter=adapter), _spelt(audit, turned, adapter=adapter))


def turned_round(row: Row) -> Row:
    """The row with the labels in its question in reverse order.

    Raises:
        ValueError: no message names all labels in a row.
    """
    for at, message in enumerate(row.messages[:-1]):
        content = str(message["content"])
        for labels in (row.labels, row.labels[::-1]):
            named = _SEPARATOR.join(labels)
            if named in content:
                other = {**message, "content": content.replace(named, _SEPARATOR.join(labels[::-1]))}
                return replace(row, messages=(*row.messages[:at], other, *row.messages[at + 1 :]))
    raise ValueError("the question does not name the labels one after another, so they have no order")


def spellings(label: str) -> tuple[str, ...]:
    """A label as written, in lower case, capitalised and in upper case."""
    return tuple(dict.fromkeys((label, label.lower(), label.capitalize(), label.upper())))


def _spelt(audit: Audit, texts: Sequence[RowText], *, adapter: bool) -> Floats:
    if any(t.variants for t in texts):
        return odds(audit.board, texts, adapter=adapter)
    tokens = _first_tokens(audit, texts[0])
    passages = []
    for t in texts:
        wanted = tuple(i for label in t.row.labels for i in tokens[label])
        passages.append(Passage(t.passage.ids, t.passage.marks, t.turns[-1][0], wanted))
    scores = audit.board.scores(passages, adapter=adapter)
    out = []
    for text, found in zip(texts, scores, strict=True):
        sizes = np.cumsum([len(tokens[label]) for label in text.row.labels])[:-1]
        parts = [float(np.logaddexp.reduce(p)) for p in np.split(found.choice_logits, sizes)]
        out.append(log_odds_of(text, parts))
    return np.array(out)


def _first_tokens(audit: Audit, text: RowText) -> Mapping[str, tuple[int, ...]]:
    """First tokens of each label's spellings; one that two labels share counts for neither."""
    forms = {label: spellings(label) for label in text.row.labels}
    rows = [
        replace(text.row, messages=(*text.row.messages[:-1], {**text.row.messages[-1], "content": s}), labels=())
        for label in forms
        for s in forms[label]
    ]
    firsts = iter(t.passage.ids[t.turns[-1][0]] for t in row_texts(rows, audit.chat))
    found = {label: {next(firsts) for _ in forms[label]} for label in forms}
    shared = {i for a, mine in found.items() for b, theirs in found.items() if a != b for i in mine & theirs}
    return {label: tuple(sorted(ids - shared)) or tuple(sorted(ids)) for label, ids in found.items()}


def _ratio(
    audit: Audit, attribute: str, groups: Sequence[str], favourable: NDArray[np.bool_], plain: NDArray[np.bool_]
) -> Measurement:
    method = method_of(_RATIO, groups, attribute)
    subject = Subject("fairness.impact_ratio_both_orders", "ratio", method, attribute)

    def build() -> Measurement:
        found, before = _cells(groups, favourable), _cells(groups, plain)
        value = extremes.lowest_ratio(found)

        def interval(confidence: float) -> stats.Bounds:
            return extremes.lowest_ratio_interval(found, confidence)

        control = Control(extremes.lowest_ratio(before), "as the question stands")
        inputs = [[c.name, c.successes, c.n] for c in found]
        n = min(c.n for c in found)
        return measured(subject, value, interval, audit.settings.confidences, n=n, inputs=inputs, control=control)

    return guarded(subject, build)


def _cells(groups: Sequence[str], favourable: NDArray[np.bool_]) -> list[extremes.Cell]:
    names = np.array(groups)
    found = [(g, names == g) for g in sorted(set(groups) - {""})]
    return [extremes.Cell(g, int(favourable[r].sum()), int(r.sum())) for g, r in found if r.sum() >= LEAST_CELL]
