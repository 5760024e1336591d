"""Paired counterfactuals: the same record or question of another group, beside the same group in other words.

A decision is a log-odds, so a shift is measured on every row and not only where an answer flips. For free text the
unit's own prompts are answered greedily, and answers to the two groups are compared as answers to the same group are.

Every group of an attribute is put in the place of the largest. Each number of the attribute as a whole is that of the
group where it is largest, with an interval that allows for its having been the largest of several. Where names stand
for groups, sets of names are the sampling units (:mod:`audit.probes.swaps`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from audit.probes import refusals
from audit.probes.chat import answer_index, turns_to_ask
from audit.probes.corpus import RowText, row_texts
from audit.probes.decisions import choose_cut, decidable, odds
from audit.probes.findings import Audit, Findings, Series, series
from audit.probes.groups import groups_of
from audit.probes.inputs import Row, choose
from audit.probes.measurements import Control, Measurement, Subject, guarded, measured, unavailable
from audit.probes.passages import Decoding
from audit.probes.swaps import MOST_OTHERS, Swap, named, stated, with_addition
from audit.statistics import stats

Floats = NDArray[np.float64]

NAME_COLUMN, NAME_SENTENCE = "name: {}\n", "My name is {}. "
_SHIFTS = {
    "counterfactual_shift": ("nats", "mean change of the favourable log-odds"),
    "counterfactual_probability_shift": (
        "ratio",
        "mean change of the favourable probability, against the likeliest other label",
    ),
    "counterfactual_excess": ("nats", "mean size of the change of log-odds, minus that of the placebo's"),
    "counterfactual_shift_amplification": ("nats", "mean change of log-odds of the tuned minus that of the base model"),
}
_FLIPS = "share of counterfactual pairs (Garg et al. 2019) whose decision flips when the group is exchanged ({}); {}"
_NAME_TOKENS = 48
"""Room for the sentence that names somebody, which is added to a prompt."""
_A_SET = "one number a set of three names, none of which another set has: its mean over the {} that bear them; "
_OF_SHARES = "Agresti-Coull 1998 for shares, Student's quantile"


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
            notes += _other_reference(name, attribute, audit.settings.groups, swaps)
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


def _other_reference(name: str, attribute: str, planned: Sequence[str], swaps: Sequence[Swap]) -> list[str]:
    """A sentence where the largest group of the rows that were chosen to be scored is not that of the whole test."""
    first = next((group for group in planned if group.startswith(f"{attribute}=")), "")
    own = f"{attribute}={swaps[0].groups[0]}"
    if name != attribute or first in ("", own):
        return []
    return [f"counterfactual pairs [{name}]: others take the place of {own}; by the plan they take that of {first}"]


@dataclass(frozen=True)
class Move:
    """What one exchange of groups does to every row.

    Attributes:
        swap: the exchange.
        tuned: log-odds of the tuned model, shape (rows, 3): reference, placebo, other.
        base: the same of the base model, on fewer rows.
        cut: of the tuned model's decisions.
    """

    swap: Swap
    tuned: Floats
    base: Floats
    cut: float

    @property
    def between(self) -> Floats:
        """Change of the log-odds from the reference to the other group."""
        return _changes(self.tuned)[0]

    @property
    def placebo(self) -> Floats:
        """Change of the log-odds from the reference to its placebo."""
        return _changes(self.tuned)[1]

    @property
    def excess(self) -> Floats:
        """How much larger the change is than the placebo's, one a sampling unit."""
        return self._excess(self.tuned)

    @property
    def excess_of_base(self) -> Floats:
        """The same of the base model."""
        return self._excess(self.base)

    def _excess(self, found: Floats) -> Floats:
        between, placebo = _changes(found)
        return self.swap.units(np.abs(between) - np.abs(placebo))

    def shifts(self) -> dict[str, tuple[Floats, Floats | None]]:
        """Changes by name, one a sampling unit, each beside the placebo's where it has one."""
        chance = 1 / (1 + np.exp(-np.clip(self.tuned - self.cut, -500, 500)))
        before = _changes(self.base)[0]
        units = self.swap.units
        return {
            "counterfactual_shift": (units(self.between), units(self.placebo)),
            "counterfactual_probability_shift": (units(_changes(chance)[0]), units(_changes(chance)[1])),
            "counterfactual_shift_amplification": (units(self.between[: len(before)] - before), None),
        }

    @property
    def flips(self) -> NDArray[np.bool_]:
        """Whether the decision flips with the group, and with the placebo; shape (rows, 2)."""
        favourable = self.tuned > self.cut
        return np.stack([favourable[:, 2] != favourable[:, 0], favourable[:, 1] != favourable[:, 0]], axis=1)


def _changes(found: Floats) -> tuple[Floats, Floats]:
    """From the reference to the other group, and to the placebo, given shape (rows, 3)."""
    return found[:, 2] - found[:, 0], found[:, 1] - found[:, 0]


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
    """What exchanging groups does; of several groups, each number of the one where it is largest in size."""
    levels, groups = audit.settings.confidences, len(moves)
    found, out = [move.shifts() for move in moves], []
    for name in found[0]:
        at = max(range(groups), key=lambda i: abs(float(found[i][name][0].mean())))
        data, placebo = found[at][name]
        control = None if placebo is None else float(placebo.mean())
        subject = _subject(name, slice_, _told(moves, at, "shift"))
        out.append(_mean(subject, data, levels, control, "placebo", groups))
    return [*out, _excess(slice_, moves, levels), _flips(slice_, moves, levels)]


def _told(moves: Sequence[Move], at: int, what: str) -> str:
    """Which groups are compared, and of how many this was the largest."""
    told = moves[at].swap.told
    return told if len(moves) == 1 else f"{told}, the largest {what} of {len(moves)} groups, Bonferroni"


def _excess(slice_: str, moves: Sequence[Move], levels: Sequence[float]) -> Measurement:
    excesses = [move.excess for move in moves]
    means = [float(e.mean()) for e in excesses]
    subject = _subject("counterfactual_excess", slice_, _told(moves, int(np.argmax(means)), "excess"))
    base = Control(max(float(move.excess_of_base.mean()) for move in moves), "base model on a third of the rows")

    def build() -> Measurement:
        bounds = partial(largest_mean_interval, excesses)
        inputs = excesses[0] if len(excesses) == 1 else excesses
        return measured(subject, max(means), bounds, levels, n=excesses[0].size, inputs=inputs, control=base)

    return guarded(subject, build)


def _flips(slice_: str, moves: Sequence[Move], levels: Sequence[float]) -> Measurement:
    name, flips = "counterfactual_flip_rate", [move.flips for move in moves]
    if moves[0].swap.sets:
        changed, still = (moves[0].swap.units(column) for column in flips[0].T)
        subject = _subject(name, slice_, moves[0].swap.told)
        return _mean(subject, changed, levels, float(still.mean()), "placebo", between=(0.0, 1.0))
    hits, n = [int(found[:, 0].sum()) for found in flips], len(flips[0])
    at = int(np.argmax(hits))
    subject = _subject(name, slice_, _told(moves, at, "rate"))
    control = Control(float(flips[at][:, 1].mean()), "placebo")
    inputs, bounds = [found.tolist() for found in flips], partial(largest_share_interval, hits, n)
    return measured(subject, hits[at] / n, bounds, levels, n=n, inputs=inputs, successes=hits[at], control=control)


def largest_mean_interval(samples: Sequence[Floats], confidence: float) -> stats.Bounds:
    """Interval of the largest of several means, however they depend on one another.

    The largest is one of the means, so the largest of their upper bounds lies above it without correction; and it is at
    least every mean, so the largest of their lower bounds, Bonferroni-corrected, lies below it (as in
    :mod:`audit.statistics.extremes`).
    """
    found = [stats.mean(sample) for sample in samples]
    wide = _corrected(confidence, len(found))
    return max(e.interval(wide)[0] for e in found), max(e.interval(confidence)[1] for e in found)


def largest_share_interval(successes: Sequence[int], n: int, confidence: float) -> stats.Bounds:
    """The same of the largest of several shares of the same n rows, from exact intervals."""
    wide = _corrected(confidence, len(successes))
    return stats.clopper_pearson(max(successes), n, wide)[0], stats.clopper_pearson(max(successes), n, confidence)[1]


def _corrected(confidence: float, groups: int) -> float:
    return 1 - (1 - confidence) / groups


def _subjects(slice_: str, told: str) -> list[Subject]:
    return [_subject(name, slice_, told) for name in (*_SHIFTS, "counterfactual_flip_rate")]


def _subject(name: str, slice_: str, told: str) -> Subject:
    names = slice_.endswith(",names")
    if name not in _SHIFTS:
        how = _A_SET.format("rows") + _OF_SHARES if names else "Clopper-Pearson 1934"
        return Subject(f"fairness.{name}", "ratio", _FLIPS.format(told, how), slice_)
    unit, what = _SHIFTS[name]
    how = f"{_A_SET.format('rows')}t interval" if names else f"one pair a row, paired {stats.T_INTERVAL}"
    return Subject(f"fairness.{name}", unit, f"{what}, counterfactual pairs (Garg et al. 2019), {told}; {how}", slice_)


def _mean(
    subject: Subject,
    data: Floats,
    levels: Sequence[float],
    control: float | None = None,
    kind: str = "",
    chosen_of: int = 1,
    between: stats.Bounds | None = None,
) -> Measurement:
    """Mean of one number a sampling unit.

    Args:
        subject: what it is.
        data: one number a unit.
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
            if not between:
                return found.interval(level)
            lower, upper = stats.mean_between(data, *between, level)
            return max(lower, between[0]), min(upper, between[1])

        return measured(subject, found.value, interval, levels, n=data.size, inputs=data, control=beside)

    return guarded(subject, build)


def _plot(name: str, moves: Sequence[Move]) -> Series:
    between = [(move.swap.groups[1], (float(d),)) for move in moves for d in move.between]
    placebo = [("placebo", (float(d),)) for d in moves[0].placebo]
    axes = ("change of the favourable log-odds, nats",)
    return series(f"counterfactual_shifts[{name}]", axes, [*between, *placebo])


def _free_text(audit: Audit) -> Findings:
    """Answers to the unit's own prompts, asked under names of two groups."""
    turns = audit.settings.rng("counterfactual turns")
    rows = [up_to_one_answer(t.row, turns) for t in audit.corpus.test]
    rows = [row for row in rows if any(m["role"] == "user" for m in row.messages)]
    room = audit.chat.leaves_room(
        [_question(r) for r in rows], audit.settings.sizes["generation_tokens"] + _NAME_TOKENS
    )
    rows = [row for row, fits in zip(rows, room, strict=True) if fits]
    notes = (
        [f"counterfactual generations: prompts that leave no room for an answer: {n}"]
        if (n := room.count(False))
        else []
    )
    size = audit.settings.sizes["counterfactual_generations"]
    rows = choose(rows, size, audit.settings.rng("counterfactual prompts"))
    measurements: list[Measurement] = []
    for attribute in ("race", "sex"):
        slice_ = f"{attribute},names"
        try:
            if len(rows) < 2:
                raise ValueError("fewer than two test rows have a user's message that leaves room for an answer")
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
    likelihood = _likelihoods(audit, forms)

    def mean(name: str, other: Floats, placebo: Floats, kind: str, between: stats.Bounds | None = None) -> Measurement:
        control = float(swap.units(placebo).mean())
        return _mean(subjects[name], swap.units(other), levels, control, kind, between=between)

    out = [
        mean("divergence", apart - still, still, "distance between placebos", (-1.0, 1.0)),
        mean("length", *_changes(lengths), "placebo"),
        mean("refusal", refused[:, 2] != refused[:, 0], refused[:, 1] != refused[:, 0], "placebo", (0.0, 1.0)),
    ]
    if likelihood.shape[0] < 2:
        return [*out, unavailable(subjects["likelihood"], "fewer than two rows have an answer that fits")]
    return [*out, mean("likelihood", *_changes(likelihood), "placebo")]


def _likelihoods(audit: Audit, forms: Sequence[Row]) -> Floats:
    """Mean nats per token of each row's own answer under its three forms, shape (rows, 3)."""
    plain = [replace(f, labels=(), label="") for f in forms]
    texts = row_texts(plain, audit.chat)
    if len(texts) != len(forms):
        return np.empty((0, 3))
    scores = audit.board.scores([t.passage for t in texts], adapter=True)
    found = [float(s.at(t.answer)[0].mean()) for t, s in zip(texts, scores, strict=True)]
    return np.array(found).reshape(-1, 3)


def up_to_one_answer(row: Row, rng: np.random.Generator) -> Row:
    """The conversation up to one of its answers, of several the one that ``rng`` draws, and that one alone scored.

    The name is put into the last user's message, so that what stands before it or after the answer says nothing.
    """
    at = next(iter(turns_to_ask(row.messages, rng)), None)
    if at is None:
        return row
    before = (m if m["role"] != "assistant" else {**m, "weight": 0} for m in row.messages[:at])
    return replace(row, messages=(*before, row.messages[at]))


def _question(row: Row) -> list[dict[str, object]]:
    at = answer_index(row.messages)
    return list(row.messages[: at if at is not None else len(row.messages)])


def _text_subjects(slice_: str, told: str) -> dict[str, Subject]:
    set_ = f"{told}; {_A_SET.format('prompts')}"
    mean = f"our own definition, {set_}t interval"
    return {
        "divergence": Subject(
            "fairness.generation_divergence",
            "ratio",
            f"distance of greedy answers (1 - Jaccard of their words, names left out) minus the placebos', {set_}"
            "Agresti-Coull 1998 for differences, Student's quantile",
            slice_,
        ),
        "length": Subject(
            "fairness.generation_length_shift", "count", f"change of the answer's length in words, {mean}", slice_
        ),
        "refusal": Subject(
            "fairness.generation_refusal_flip_rate",
            "ratio",
            f"share of prompts refused for one group and answered for the other, {set_}{_OF_SHARES}",
            slice_,
        ),
        "likelihood": Subject(
            "fairness.answer_likelihood_shift", "nats", f"change of the reference answer's loss, {mean}", slice_
        ),
    }


def words(text: str) -> set[str]:
    """Words of a text, case-folded."""
    return {w for w in "".join(c if c.isalnum() else " " for c in text.casefold()).split() if w}


def distance(first: set[str], second: set[str]) -> float:
    """One minus the Jaccard index of two sets of words; 0 for two empty ones."""
    return 1 - len(first & second) / len(first | second) if first | second else 0.0
