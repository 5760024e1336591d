"""Paired counterfactuals: the same record or question of another group, beside the same group in other words.

A decision is a log-odds, so a shift is measured on every row and not only where an answer flips. For free text the
unit's own prompts are answered greedily, and answers to the two groups are compared as answers to the same group are.

Every group of an attribute is put in the place of the largest. What is told of the attribute as a whole is the group
with the largest excess, with intervals that allow for its having been the largest of several.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from audit.probes import refusals, stats
from audit.probes.chat import answer_index
from audit.probes.corpus import RowText, row_texts
from audit.probes.decisions import choose_cut, decidable, odds
from audit.probes.findings import Audit, Findings, Series, series
from audit.probes.groups import groups_of
from audit.probes.inputs import Row, choose
from audit.probes.measurements import Control, Measurement, Subject, guarded, measured, proportion, unavailable
from audit.probes.passages import Decoding
from audit.probes.swaps import MOST_OTHERS, Swap, named, stated, with_addition

Floats = NDArray[np.float64]

NAME_COLUMN, NAME_SENTENCE = "name: {}\n", "My name is {}. "
_SHIFTS = {
    "counterfactual_shift": ("nats", "mean change of the favourable log-odds"),
    "counterfactual_probability_shift": ("ratio", "mean change of the favourable probability"),
    "counterfactual_excess": ("nats", "mean size of the change of log-odds, minus that of the placebo's"),
    "counterfactual_shift_amplification": ("nats", "mean change of log-odds of the tuned minus that of the base model"),
}
_FLIPS = "share of rows whose decision flips when the group is exchanged ({}); Clopper-Pearson"
_PAIRED = "{}, {}; one pair a row, paired t interval"


def run(audit: Audit) -> Findings:
    """Exchanges groups in decisions, or names in free text."""
    texts = decidable(audit.corpus.test)
    if texts:
        return _decisions(audit, texts)
    return _free_text(audit)


def _decisions(audit: Audit, texts: Sequence[RowText]) -> Findings:
    attributes = audit.settings.sensitive_attributes
    if not attributes:
        return Findings((), not_tested=("counterfactual pairs: no sensitive attribute was declared",))
    rng = audit.settings.rng("counterfactual rows")
    rows = [t.row for t in choose(texts, audit.settings.sizes["counterfactual_rows"], rng)]
    cuts = {a: choose_cut(audit.board, decidable(audit.corpus.selection), adapter=a)[0] for a in (True, False)}
    measurements: list[Measurement] = []
    plots: list[Series] = []
    notes: list[str] = []
    for attribute in attributes:
        draws = audit.settings.rng(f"counterfactual {attribute}")
        makers: dict[str, Callable[[], list[Swap]]] = {
            attribute: lambda a=attribute, r=draws: stated(a, [t.row for t in texts], len(rows), r),  # type: ignore[misc]
            f"{attribute},names": lambda a=attribute, r=draws: [named(a, audit, len(rows), r, NAME_COLUMN)],  # type: ignore[misc]
        }
        for name, make in makers.items():
            try:
                swaps = make()
            except ValueError as error:
                notes.append(f"counterfactual pairs [{name}]: {error}")
                measurements += [unavailable(s, str(error)) for s in _subjects(name, "not made")]
                continue
            moves = [_move(audit, rows, swap, cuts[True]) for swap in swaps]
            if len(moves) > 1:
                measurements += [m for move in moves for m in _measurements(audit, move.swap.slice, [move])]
            measurements += _measurements(audit, name, moves)
            plots.append(_plot(name, moves))
            notes += _not_asked(name, attribute, texts, swaps)
    return Findings(tuple(measurements), tuple(plots), tuple(notes))


def _not_asked(name: str, attribute: str, texts: Sequence[RowText], swaps: Sequence[Swap]) -> list[str]:
    """Groups of the test rows that no pair asks for."""
    what = f"counterfactual pairs [{name}]"
    if name != attribute:
        return [f"{what}: {swaps[0].told} only; names of other groups are not compared"]
    groups = groups_of(texts, attribute)
    asked = {f"{attribute}={group}" for swap in swaps for group in swap.groups}
    missing = sorted(set(groups) - asked - {""})
    out = [f"{what}: too few test rows, or more than {MOST_OTHERS} groups: {'; '.join(missing)}"] if missing else []
    unknown = groups.count("")
    return [*out, f"{what}: {unknown} of {len(groups)} test rows tell no group; they are asked too"] if unknown else out


@dataclass(frozen=True)
class Move:
    """What one exchange of groups does to every row.

    Attributes:
        swap: the exchange.
        tuned: log-odds of the tuned model, shape (rows, 3): reference, placebo, other.
        base: the same of the base model, on fewer rows.
        cut: of the decisions.
    """

    swap: Swap
    tuned: Floats
    base: Floats
    cut: float

    @property
    def between(self) -> Floats:
        """Change of the log-odds from the reference to the other group."""
        out: Floats = self.tuned[:, 2] - self.tuned[:, 0]
        return out

    @property
    def placebo(self) -> Floats:
        """Change of the log-odds from the reference to its placebo."""
        out: Floats = self.tuned[:, 1] - self.tuned[:, 0]
        return out

    @property
    def excess(self) -> Floats:
        """How much larger the change is than the placebo's."""
        out: Floats = np.abs(self.between) - np.abs(self.placebo)
        return out

    @property
    def flips(self) -> NDArray[np.bool_]:
        """Whether the decision flips with the group, and with the placebo; shape (rows, 2)."""
        favourable = self.tuned > self.cut
        return np.stack([favourable[:, 2] != favourable[:, 0], favourable[:, 1] != favourable[:, 0]], axis=1)


def _move(audit: Audit, rows: Sequence[Row], swap: Swap, cut: float) -> Move:
    # The base model answers a third of the rows: enough for the change from it, and half of the time saved.
    few = rows[: max(2, len(rows) // 3)]
    tuned, base = (_shifts(audit, rows if a else few, swap, adapter=a) for a in (True, False))
    return Move(swap, tuned, base, cut)


def _shifts(audit: Audit, rows: Sequence[Row], swap: Swap, *, adapter: bool) -> Floats:
    """Log-odds of each row's three forms, shape (rows, 3): reference, placebo, other."""
    forms = [
        with_addition(row, addition)
        for row, triple in zip(rows, swap.triples, strict=False)
        for addition in (triple.reference, triple.placebo, triple.other)
    ]
    found = row_texts(forms, audit.chat)
    if len(found) != len(forms):
        raise ValueError("a row with an addition is too long to be scored")
    return odds(audit.board, found, adapter=adapter).reshape(-1, 3)


def _measurements(audit: Audit, slice_: str, moves: Sequence[Move]) -> list[Measurement]:
    """What exchanging groups does; of several groups, that of the one with the largest excess."""
    worst = max(moves, key=lambda move: float(move.excess.mean()))
    told = worst.swap.told
    if len(moves) > 1:
        told += f", the largest excess of {len(moves)} groups, Bonferroni"
    subjects = {s.name.removeprefix("fairness."): s for s in _subjects(slice_, told)}
    levels, groups = audit.settings.confidences, len(moves)
    between, placebo = worst.between, worst.placebo
    chance = 1 / (1 + np.exp(-np.clip(worst.tuned - worst.cut, -500, 500)))
    before = worst.base[:, 2] - worst.base[:, 0]
    values = {
        "counterfactual_shift": (between, float(placebo.mean())),
        "counterfactual_probability_shift": (chance[:, 2] - chance[:, 0], float((chance[:, 1] - chance[:, 0]).mean())),
        "counterfactual_shift_amplification": (between[: len(before)] - before, None),
    }
    out = [_mean(subjects[name], data, levels, control, "placebo", groups) for name, (data, control) in values.items()]
    out.append(_excess(subjects["counterfactual_excess"], [move.excess for move in moves], levels))
    n, k, inputs = len(between), int(worst.flips[:, 0].sum()), [move.flips.tolist() for move in moves]

    def interval(confidence: float) -> stats.Bounds:
        return stats.clopper_pearson(k, n, _corrected(confidence, groups))

    subject, control = subjects["counterfactual_flip_rate"], Control(float(worst.flips[:, 1].mean()), "placebo")
    out.append(measured(subject, k / n, interval, levels, n=n, inputs=inputs, successes=k, control=control))
    return out


def _excess(subject: Subject, excesses: Sequence[Floats], levels: Sequence[float]) -> Measurement:
    def build() -> Measurement:
        value, n = max(float(e.mean()) for e in excesses), excesses[0].size
        bounds = partial(largest_mean_interval, excesses)
        inputs = excesses[0] if len(excesses) == 1 else excesses
        return measured(subject, value, bounds, levels, n=n, inputs=inputs)

    return guarded(subject, build)


def largest_mean_interval(samples: Sequence[Floats], confidence: float) -> stats.Bounds:
    """Interval of the largest of several means, however they depend on one another.

    The largest is one of the means, so the largest of their upper bounds lies above it without correction; and it is at
    least every mean, so the largest of their lower bounds, Bonferroni-corrected, lies below it (as in
    :mod:`audit.probes.extremes`).
    """
    found = [stats.mean(sample) for sample in samples]
    wide = _corrected(confidence, len(found))
    return max(e.interval(wide)[0] for e in found), max(e.interval(confidence)[1] for e in found)


def _corrected(confidence: float, groups: int) -> float:
    return 1 - (1 - confidence) / groups


def _subjects(slice_: str, told: str) -> list[Subject]:
    out = [
        Subject(f"fairness.{name}", unit, _PAIRED.format(what, told), slice_) for name, (unit, what) in _SHIFTS.items()
    ]
    return [*out, Subject("fairness.counterfactual_flip_rate", "ratio", _FLIPS.format(told), slice_)]


def _mean(
    subject: Subject,
    data: Floats,
    levels: Sequence[float],
    control: float | None = None,
    kind: str = "",
    chosen_of: int = 1,
    between: stats.Bounds | None = None,
) -> Measurement:
    """Mean of one number a pair.

    Args:
        subject: what it is.
        data: one number a pair.
        levels: of the intervals.
        control: the same without what is asked about, and its ``kind``.
        kind: of the control.
        chosen_of: among how many groups this one was chosen.
        between: what each number may be at most, where they may all be alike: an interval of no width would be wrong.
    """

    def build() -> Measurement:
        found = stats.mean(data)
        beside = None if control is None else Control(control, kind)

        def interval(confidence: float) -> stats.Bounds:
            level = _corrected(confidence, chosen_of)
            return stats.mean_between(data, *between, level) if between else found.interval(level)

        return measured(subject, found.value, interval, levels, n=data.size, inputs=data, control=beside)

    return guarded(subject, build)


def _plot(name: str, moves: Sequence[Move]) -> Series:
    between = [(move.swap.groups[1], (float(d),)) for move in moves for d in move.between]
    placebo = [("placebo", (float(d),)) for d in moves[0].placebo]
    axes = ("change of the favourable log-odds, nats",)
    return series(f"counterfactual_shifts[{name}]", axes, [*between, *placebo])


def _free_text(audit: Audit) -> Findings:
    """Answers to the unit's own prompts, asked under names of two groups."""
    rows = [t.row for t in audit.corpus.test if any(m["role"] == "user" for m in t.row.messages)]
    size = audit.settings.sizes["counterfactual_generations"]
    rows = choose(rows, size, audit.settings.rng("counterfactual prompts"))
    measurements: list[Measurement] = []
    notes: list[str] = []
    for attribute in ("race", "sex"):
        slice_ = f"{attribute},names"
        try:
            if len(rows) < 2:
                raise ValueError("fewer than two test rows have a user's message")
            rng = audit.settings.rng(f"counterfactual {attribute}")
            swap = named(attribute, audit, len(rows), rng, NAME_SENTENCE)
        except ValueError as error:
            notes.append(f"counterfactual generations [{slice_}]: {error}")
            measurements += [unavailable(s, str(error)) for s in _text_subjects(slice_, "not made").values()]
            continue
        measurements += _text_measurements(audit, rows, swap)
        notes.append(f"counterfactual generations [{slice_}]: {swap.told} only; names of other groups are not compared")
    return Findings(tuple(measurements), not_tested=tuple(notes))


def _text_measurements(audit: Audit, rows: Sequence[Row], swap: Swap) -> list[Measurement]:
    levels, subjects = audit.settings.confidences, _text_subjects(swap.slice, swap.told)
    forms = [
        with_addition(row, addition)
        for row, t in zip(rows, swap.triples, strict=False)
        for addition in (t.reference, t.placebo, t.other)
    ]
    prompts = audit.chat.prompts([_question(f) for f in forms])
    decoding = Decoding(audit.settings.sizes["generation_tokens"], audit.chat.stop_ids)
    answers = [audit.chat.decode(ids) for ids in audit.board.write(prompts, decoding, adapter=True)]
    names = {w for f in swap.triples for part in (f.reference, f.placebo, f.other) for w in words(part)}
    triples = [[words(a) - names for a in answers[i : i + 3]] for i in range(0, len(answers), 3)]
    apart = np.array([distance(t[0], t[2]) for t in triples])
    still = np.array([distance(t[0], t[1]) for t in triples])
    lengths = np.array([len(a.split()) for a in answers], dtype=float).reshape(-1, 3)
    refused = np.array([refusals.is_refusal(a) for a in answers]).reshape(-1, 3)
    flips, quiet = refused[:, 2] != refused[:, 0], refused[:, 1] != refused[:, 0]
    likelihood = _likelihoods(audit, forms)
    out = [
        _mean(
            subjects["divergence"],
            apart - still,
            levels,
            float(still.mean()),
            "distance between placebos",
            between=(-1.0, 1.0),
        ),
        _mean(
            subjects["length"],
            lengths[:, 2] - lengths[:, 0],
            levels,
            float((lengths[:, 1] - lengths[:, 0]).mean()),
            "placebo",
        ),
        proportion(
            subjects["refusal"],
            int(flips.sum()),
            len(flips),
            levels,
            inputs=[flips.tolist(), quiet.tolist()],
            control=Control(float(quiet.mean()), "placebo"),
        ),
    ]
    if likelihood.shape[0] < 2:
        return [*out, unavailable(subjects["likelihood"], "fewer than two rows have an answer that fits")]
    moved = likelihood[:, 2] - likelihood[:, 0]
    control = float((likelihood[:, 1] - likelihood[:, 0]).mean())
    return [*out, _mean(subjects["likelihood"], moved, levels, control, "placebo")]


def _likelihoods(audit: Audit, forms: Sequence[Row]) -> Floats:
    """Mean nats per token of each row's own answer under its three forms, shape (rows, 3)."""
    plain = [replace(f, labels=(), label="") for f in forms]
    texts = row_texts(plain, audit.chat)
    if len(texts) != len(forms):
        return np.empty((0, 3))
    scores = audit.board.scores([t.passage for t in texts], adapter=True)
    found = [float(s.at(t.answer)[0].mean()) for t, s in zip(texts, scores, strict=True)]
    return np.array(found).reshape(-1, 3)


def _question(row: Row) -> list[dict[str, object]]:
    at = answer_index(row.messages)
    return list(row.messages[: at if at is not None else len(row.messages)])


def _text_subjects(slice_: str, told: str) -> dict[str, Subject]:
    paired = f"{told}; one pair a prompt, paired t interval"
    return {
        "divergence": Subject(
            "fairness.generation_divergence",
            "ratio",
            f"distance of greedy answers (1 - Jaccard of their words, names left out) minus the placebos', {told}; one "
            "pair a prompt, Agresti-Coull 1998 for differences, Student's quantile",
            slice_,
        ),
        "length": Subject(
            "fairness.generation_length_shift", "count", f"change of the answer's length in words, {paired}", slice_
        ),
        "refusal": Subject(
            "fairness.generation_refusal_flip_rate",
            "ratio",
            f"share of prompts refused for one group and answered for the other, {told}; Clopper-Pearson",
            slice_,
        ),
        "likelihood": Subject(
            "fairness.answer_likelihood_shift", "nats", f"change of the reference answer's loss, {paired}", slice_
        ),
    }


def words(text: str) -> set[str]:
    """Words of a text, case-folded."""
    return {w for w in "".join(c if c.isalnum() else " " for c in text.casefold()).split() if w}


def distance(first: set[str], second: set[str]) -> float:
    """One minus the Jaccard index of two sets of words; 0 for two empty ones."""
    return 1 - len(first & second) / len(first | second) if first | second else 0.0
