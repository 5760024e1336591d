"""Texts that differ in nothing but a person's group, and the placebo: another text of the same group.

A shift between groups means little by itself, since a model's answer moves with any change of words. So each item comes
in three forms: the reference group, the same group in other words (the placebo), and the other group. Names have the
same number of tokens, so that length tells nothing.

What one name does is alike in every row, and names differ more than rows do: seen on the untuned base model, 1 nat
between names against 0.03 between rows. So names are the sampling units: they come in sets of three, none of which
shares a given name with another, the rows take the sets in turn, and a set counts once.

The placebo of a stated group is another file number. Such a number moves a small model less than a word does, so that
some of an excess may be no more than the change of a word: it errs towards finding a difference (docs/audits.md).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.groups import LEAST_CELL
from audit.probes import sets
from audit.probes.chat import Chat
from audit.probes.findings import Audit
from audit.probes.inputs import Row

Floats = NDArray[np.float64]

SETS_OF_NAMES = 20
"""Most sets of names."""
MOST_OTHERS = 9
"""Most groups that are put in the place of the reference: each is one more pass over every row."""
_RACES, _SEXES = ("race", "ethnicity", "ethnic_group"), ("sex", "gender")
_BY_SEX = {
    "male": (
        *("James", "John", "Robert", "Michael", "David", "William", "Richard", "Joseph", "Thomas", "Charles", "Daniel"),
        *("Matthew", "Anthony", "Mark", "Steven", "Paul", "Andrew", "Kevin", "Brian", "George", "Edward", "Peter"),
        *("Joshua", "Kenneth", "Ronald", "Timothy", "Jason", "Jeffrey", "Ryan", "Jacob", "Gary", "Nicholas", "Eric"),
        *("Jonathan", "Stephen", "Larry", "Justin", "Scott", "Brandon", "Benjamin", "Samuel", "Gregory", "Frank"),
    ),
    "female": (
        *(
            "Mary",
            "Patricia",
            "Jennifer",
            "Linda",
            "Elizabeth",
            "Barbara",
            "Susan",
            "Jessica",
            "Sarah",
            "Karen",
            "Lisa",
        ),
        *("Nancy", "Betty", "Sandra", "Margaret", "Ashley", "Emily", "Donna", "Michelle", "Carol", "Amanda", "Helen"),
    ),
}
"""Common given names of the United States, twice as many of the reference, whose placebo is another of its names; the
same family names go with either."""
_FAMILY = ("Baker", "Carter", "Collins", "Cooper", "Edwards", "Morris", "Parker", "Reed", "Turner", "Ward")
_LINE = re.compile(r"(?P<key>[^:\n]+): (?P<value>[^\n]*)\n")


@dataclass(frozen=True)
class Triple:
    """One item's three additions: the reference group, the same group in other words, the other group."""

    reference: str
    placebo: str
    other: str


@dataclass(frozen=True)
class Swap:
    """How groups of one attribute are exchanged.

    Attributes:
        slice: ``race=black`` where the group is stated, ``race,names`` where names stand for it.
        groups: reference and other group.
        triples: one for each item.
        sets: how many sets of names the items take in turn; 0 where the group is stated.
    """

    slice: str
    groups: tuple[str, str]
    triples: tuple[Triple, ...]
    sets: int = 0

    @property
    def told(self) -> str:
        """The comparison in words."""
        return f"{self.groups[1]} against {self.groups[0]}"

    def units(self, values: Floats | NDArray[np.bool_]) -> Floats:
        """One number for each sampling unit, given one for each item, shape (items,).

        A set of names has the mean of its items, shape (sets,); where the group is stated an item is a unit.
        """
        if not self.sets:
            return values.astype(np.float64, copy=False)
        turn = np.arange(len(values)) % self.sets
        means: Floats = np.bincount(turn, values) / np.bincount(turn)
        return means


def stated(attribute: str, rows: Sequence[Row], count: int, rng: np.random.Generator) -> list[Swap]:
    """States each group in the place of the largest one; the placebo changes a file number instead.

    Groups with fewer rows than a comparison of rates needs are left out, except that there are always two. All swaps
    share reference and placebo.

    Raises:
        ValueError: the rows hold fewer than two groups.
    """
    known = Counter(r.groups[attribute] for r in rows if r.groups.get(attribute))
    if len(known) < 2:
        raise ValueError(f"the test rows hold fewer than two groups of {attribute}")
    ordered = sorted(known, key=lambda group: (-known[group], group))
    first, others = ordered[0], [g for i, g in enumerate(ordered[1:]) if i == 0 or known[g] >= LEAST_CELL]
    files = [rng.choice(np.arange(100, 1000), 2, replace=False) for _ in range(count)]
    out = []
    for group in others[:MOST_OTHERS]:
        triples = []
        for one, two in files:
            forms = [f"{attribute}: {g}\nfile: {k}\n" for g, k in ((first, one), (first, two), (group, one))]
            triples.append(Triple(*forms))
        out.append(Swap(f"{attribute}={group}", (first, group), tuple(triples)))
    return out


def named(attribute: str, audit: Audit, count: int, rng: np.random.Generator, form: str) -> Swap:
    """Lets names stand for two groups, white and black or male and female.

    Args:
        attribute: race or sex.
        audit: its evaluation sets and tokenizer.
        count: items, which take the sets of names in turn.
        rng: draws the names.
        form: holds the name's place as ``{}``.

    Raises:
        ValueError: names are known for race and sex only, or too few of one length are known (also
            :class:`audit.probes.sets.SetMissingError`).
    """
    word = attribute.casefold()
    if word in _RACES:
        groups, people = ("white", "black"), _race_names(audit)
    elif word in _SEXES:
        groups = ("male", "female")
        people = {
            group: [[f"{given} {family}" for family in rng.permutation(_FAMILY)] for given in _BY_SEX[group]]
            for group in groups
        }
    else:
        raise ValueError(f"no names stand for groups of {attribute}; names are known for race and sex")
    references, others = _one_length(audit.chat, [people[g] for g in groups], form)
    sets_ = min(SETS_OF_NAMES, len(references) // 2, len(others))
    if sets_ < 2:
        raise ValueError("too few names of one length are known")
    own, foreign = (rng.permutation(names).tolist() for names in (references, others))
    drawn = zip(own[:sets_], own[sets_:], foreign[:sets_], strict=False)
    triples = [Triple(*(form.format(name) for name in names)) for names in drawn]
    return Swap(f"{attribute},names", groups, tuple(triples[i % sets_] for i in range(count)), sets_)


def with_addition(row: Row, addition: str) -> Row:
    """The row with words added to its last user message.

    A line ``key: value`` takes the place of the lines of that key that the message has; all else is put before it.
    """
    at = max((i for i, m in enumerate(row.messages) if m["role"] == "user"), default=None)
    if at is None:
        raise ValueError("a row has no user message")
    text, before = str(row.messages[at]["content"]), addition
    for line in _LINE.finditer(addition):
        own = rf"(?im)^[ \t]*{re.escape(line['key'])}[ \t]*:.*$"
        text, stated_before = re.subn(own, lambda _, line=line: line[0].rstrip("\n"), text)  # type: ignore[misc]
        before = before.replace(line[0], "") if stated_before else before
    message: dict[str, Any] = {**row.messages[at], "content": before + text}
    return replace(row, messages=(*row.messages[:at], message, *row.messages[at + 1 :]))


def _race_names(audit: Audit) -> Mapping[str, Sequence[Sequence[str]]]:
    known = sets.names(audit.sets)
    rng = np.random.default_rng(0)
    out = {}
    for group in ("white", "black"):
        first, last = known[group]["first"], known[group]["last"]
        out[group] = [[f"{a} {b}"] for a, b in zip(rng.permutation(first), rng.permutation(last), strict=False)]
    return out


def _one_length(chat: Chat, people: Sequence[Sequence[Sequence[str]]], form: str) -> tuple[list[str], ...]:
    """Of reference and other group, a name of everybody who has one of the length that gives most sets.

    Args:
        chat: counts tokens.
        people: of each group, the names that each given name may be part of; the last of the length is taken.
        form: holds the name's place.
    """
    lengths = [[{chat.token_count(form.format(n)): n for n in names} for names in group] for group in people]
    references, others = (Counter(length for person in group for length in person) for group in lengths)
    best = max(references.keys() & others.keys(), key=lambda k: (min(references[k] // 2, others[k]), -k), default=0)
    return tuple([person[best] for person in group if best in person] for group in lengths)
