"""Search for a less discriminatory alternative: the same adapter weaker, or cut to a lower rank.

Candidates are the adapter's change scaled to a quarter, a half and three quarters (Wortsman et al., CVPR 2022) and cut
to half and a quarter of its rank. The choice is made on the *selection* split: the highest impact ratio among
candidates whose accuracy is at most two points below the adapter's. Only then is the winner measured once on the sealed
test, so that its gain is not the gain of a lucky draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from assay.groups import LEAST_CELL, pooled
from audit.probes.corpus import RowText
from audit.probes.decisions import cut_of, decidable, log_odds_of, scores_of
from audit.probes.findings import Audit, Findings, Series, series
from audit.probes.groups import groups_of, left_out
from audit.probes.inputs import choose
from audit.probes.measurements import Control, Measurement, Subject, guarded, measured, unavailable
from audit.probes.passages import Variation
from audit.statistics import extremes, stats
from audit.statistics.extremes import Cell

Floats = NDArray[np.float64]
ACCURACY_ROOM = 0.02
"""Accuracy that a candidate may lose on the selection split; a definition of "as good", not a limit of a verdict."""
_RATIO = (
    "impact ratio of the best candidate ({}) on the selection split, among {} candidates; pairs of groups (MOVER, "
    "Donner and Zou 2012)"
)
_GAIN = (
    "selection difference of the adapter minus that of {}, on the sealed test; from both intervals (MOVER, Zou and "
    "Donner 2008; Bonferroni)"
)
_DELTA = "accuracy of {} minus that of the adapter, on the sealed test; Tango 1998 score interval"


@dataclass(frozen=True)
class Candidate:
    """A variation with what it decides: favourable or not, and rightly or not, for each row."""

    name: str
    favourable: NDArray[np.bool_]
    right: NDArray[np.bool_]

    @property
    def accuracy(self) -> float:
        """Share of rows decided rightly."""
        return float(self.right.mean())


def variations(rank: int) -> list[Variation]:
    """The adapter itself first, then what is tried instead."""
    out = [Variation("the adapter itself")]
    out += [Variation(f"change scaled to {s:g}", scale=s) for s in (0.75, 0.5, 0.25)]
    return out + [Variation(f"rank cut to {r}", rank=r) for r in (rank // 2, rank // 4) if r >= 1]


def run(audit: Audit) -> Findings:
    """Searches for every sensitive attribute."""
    attributes = audit.settings.sensitive_attributes
    most = audit.settings.sizes["deep_rows"]
    selection = tuple(choose(decidable(audit.corpus.selection), most // 2, audit.settings.rng("alternatives")))
    test = tuple(choose(decidable(audit.corpus.test), most, audit.settings.rng("alternatives tested")))
    if not attributes or not test:
        return Findings((), not_tested=("alternatives: no decisions with a sensitive attribute",))
    if not any(t.row.groups for t in selection):
        reason = "the selection split tells no groups"
        return Findings(tuple(unavailable(s, reason) for a in attributes for s in _subjects(a, "none", 0)))
    found = {v.name: (v, _candidate(audit, selection, v, selection)) for v in variations(audit.board.rank)}
    measurements: list[Measurement] = []
    plots: list[Series] = []
    notes: list[str] = []
    for attribute in attributes:
        made, plot = _search(audit, attribute, found, selection, test)
        measurements += made
        plots += plot
        for texts, rows in ((selection, "selection rows"), (test, "test rows")):
            notes += left_out(f"alternatives [{attribute}]", groups_of(texts, attribute), LEAST_CELL, rows)
    return Findings(tuple(measurements), tuple(plots), tuple(notes))


def _search(
    audit: Audit,
    attribute: str,
    found: dict[str, tuple[Variation, Candidate]],
    selection: Sequence[RowText],
    test: Sequence[RowText],
) -> tuple[list[Measurement], list[Series]]:
    ours = next(iter(found.values()))[1]
    ratios = {name: _ratio(selection, c.favourable, attribute) for name, (_, c) in found.items()}
    mine = ratios[ours.name]
    near = [n for n, (_, c) in found.items() if c.accuracy >= ours.accuracy - ACCURACY_ROOM]
    best = max((n for n in near if ratios[n] is not None), key=lambda n: ratios[n] or 0.0, default=ours.name)
    points = [(n, (c.accuracy, ratios[n] or 0.0)) for n, (_, c) in found.items() if ratios[n] is not None]
    axes = ("accuracy on the selection split", "impact ratio on the selection split")
    plot = series(f"alternatives[{attribute}]", axes, points)
    subjects = _subjects(attribute, best, len(found))
    if mine is None:
        reason = f"two groups of {attribute} with {LEAST_CELL} selection rows and a favourable decision are needed"
        return [unavailable(s, reason) for s in subjects], []
    winner, cells = found[best], _cells(selection, found[best][1].favourable, attribute)
    inputs = [[c.name, c.successes, c.n] for c in cells]

    def interval(confidence: float) -> stats.Bounds:
        return extremes.lowest_ratio_interval(cells, confidence)

    levels, control = audit.settings.confidences, Control(mine, "the adapter itself")
    n = min(c.n for c in cells)
    value = extremes.lowest_ratio(cells)
    out = [measured(subjects[0], value, interval, levels, n=n, inputs=inputs, control=control)]
    if best == ours.name:
        reason = "no candidate had a higher impact ratio at an accuracy within two points"
        return [*out, *(unavailable(s, reason) for s in subjects[1:])], [plot]
    kept = tuple(_candidate(audit, test, v, selection) for v in (Variation(ours.name), winner[0]))
    return [*out, *_gains(audit, attribute, subjects[1:], test, kept[0], kept[1])], [plot]


def _gains(
    audit: Audit,
    attribute: str,
    subjects: Sequence[Subject],
    test: Sequence[RowText],
    ours: Candidate,
    winner: Candidate,
) -> list[Measurement]:
    """What the winner gains and loses on the sealed test."""
    cells = (_cells(test, ours.favourable, attribute), _cells(test, winner.favourable, attribute))

    def build_gain() -> Measurement:
        value = extremes.largest_difference([cells[0]]) - extremes.largest_difference([cells[1]])
        inputs = [[[c.name, c.successes, c.n] for c in part] for part in cells]
        n, levels = min(c.n for c in cells[0]), audit.settings.confidences
        return measured(subjects[0], value, extremes.change_interval(*cells), levels, n=n, inputs=inputs)

    gained, lost = int((winner.right & ~ours.right).sum()), int((ours.right & ~winner.right).sum())
    n = len(test)

    def interval(confidence: float) -> stats.Bounds:
        return stats.paired_difference_interval(gained, lost, n, confidence)

    inputs, levels = {"gained": gained, "lost": lost, "rows": n}, audit.settings.confidences
    delta = measured(subjects[1], (gained - lost) / n, interval, levels, n=n, inputs=inputs)
    return [guarded(subjects[0], build_gain), delta]


def _candidate(audit: Audit, texts: Sequence[RowText], variation: Variation, selection: Sequence[RowText]) -> Candidate:
    """What a variation decides; its cut on the log-odds is chosen on the selection split, as the adapter's is."""
    scores = _scores(audit, texts, variation)
    odds = _odds(texts, scores)
    cut = cut_of(odds if texts is selection else _odds(selection, _scores(audit, selection, variation)), selection)[0]
    right = [t.row.labels[int(s.argmax())] == t.row.label for t, s in zip(texts, scores, strict=True)]
    return Candidate(variation.name, odds > cut, np.array(right, dtype=bool))


def _scores(audit: Audit, texts: Sequence[RowText], variation: Variation) -> list[Floats]:
    return scores_of(texts, lambda passages: audit.board.varied(passages, variation))


def _odds(texts: Sequence[RowText], scores: Sequence[Floats]) -> Floats:
    return np.array([log_odds_of(t, s) for t, s in zip(texts, scores, strict=True)])


def _cells(texts: Sequence[RowText], favourable: NDArray[np.bool_], attribute: str) -> list[Cell]:
    groups = np.array(pooled(groups_of(texts, attribute), attribute, LEAST_CELL))
    cells = [
        Cell(g, int(favourable[groups == g].sum()), int((groups == g).sum())) for g in sorted(set(groups.tolist()))
    ]
    return [c for c in cells if c.name and c.n >= LEAST_CELL]


def _ratio(texts: Sequence[RowText], favourable: NDArray[np.bool_], attribute: str) -> float | None:
    try:
        return extremes.lowest_ratio(_cells(texts, favourable, attribute))
    except ValueError:
        return None


def _subjects(attribute: str, winner: str, tried: int) -> list[Subject]:
    return [
        Subject("fairness.alternative_impact_ratio", "ratio", _RATIO.format(winner, tried), attribute),
        Subject("fairness.alternative_gain", "ratio", _GAIN.format(winner), attribute),
        Subject("fairness.alternative_accuracy_delta", "ratio", _DELTA.format(winner), attribute),
    ]
