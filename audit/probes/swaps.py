"""Texts that differ in nothing but a person's group, and the placebo: another text of the same group.

A shift between groups means little by itself, since a model's answer moves with any change of words. So each item comes
in three forms: the reference group, the same group in other words (the placebo), and the other group. Names are drawn
from at most twenty of a group and have the same number of tokens, so that length tells nothing.

The placebo of a stated group is another file number. Such a number moves a small model less than a word does, so that
some of an excess may be no more than the change of a word: it errs towards finding a difference (docs/audits.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from audit.probes import sets
from audit.probes.chat import Chat
from audit.probes.extremes import LEAST_CELL
from audit.probes.findings import Audit
from audit.probes.inputs import Row

NAMES_A_GROUP = 20
MOST_OTHERS = 9
"""Most groups that are put in the place of the reference: each is one more pass over every row."""
_RACES, _SEXES = ("race", "ethnicity", "ethnic_group"), ("sex", "gender")
_BY_SEX = {
    "male": (
        *("James", "John", "Robert", "Michael", "David", "William", "Richard", "Joseph", "Thomas", "Charles", "Daniel"),
        *("Matthew", "Anthony", "Mark", "Steven", "Paul", "Andrew", "Kevin", "Brian", "George", "Edward", "Peter"),
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
"""Common given names of the United States; the same family names go with either."""
_FAMILY = ("Baker", "Carter", "Collins", "Cooper", "Edwards", "Morris", "Parker", "Reed", "Turner", "Ward")


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
    """

    slice: str
    groups: tuple[str, str]
    triples: tuple[Triple, ...]

    @property
    def told(self) -> str:
        """The comparison in words."""
        return f"{self.groups[1]} against {self.groups[0]}"


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
    """Lets names stand for two groups, white and black or male and female; ``form`` holds the name's place as ``{}``.

    Raises:
        ValueError: names are known for race and sex only, or too few of one length are known (also
            :class:`audit.probes.sets.SetMissingError`).
    """
    word = attribute.casefold()
    if word in _RACES:
        groups, pools = ("white", "black"), _race_names(audit)
    elif word in _SEXES:
        groups = ("male", "female")
        pools = {g: [f"{given} {family}" for given in _BY_SEX[g] for family in _FAMILY] for g in groups}
    else:
        raise ValueError(f"no names stand for groups of {attribute}; names are known for race and sex")
    pools = _one_length(audit.chat, {g: pools[g] for g in groups}, form, rng)
    triples = []
    for _ in range(count):
        reference, placebo = rng.choice(pools[groups[0]], 2, replace=False)
        other = rng.choice(pools[groups[1]])
        triples.append(Triple(*(form.format(n) for n in (reference, placebo, other))))
    return Swap(f"{attribute},names", groups, tuple(triples))


def with_addition(row: Row, addition: str) -> Row:
    """The row with text put before the words of its last user message."""
    at = max((i for i, m in enumerate(row.messages) if m["role"] == "user"), default=None)
    if at is None:
        raise ValueError("a row has no user message")
    message: dict[str, Any] = {**row.messages[at], "content": addition + str(row.messages[at]["content"])}
    return replace(row, messages=(*row.messages[:at], message, *row.messages[at + 1 :]))


def _race_names(audit: Audit) -> Mapping[str, Sequence[str]]:
    known = sets.names(audit.sets)
    rng = np.random.default_rng(0)
    out = {}
    for group in ("white", "black"):
        first, last = known[group]["first"], known[group]["last"]
        out[group] = [f"{a} {b}" for a, b in zip(rng.permutation(first), rng.permutation(last), strict=False)]
    return out


def _one_length(
    chat: Chat, pools: Mapping[str, Sequence[str]], form: str, rng: np.random.Generator
) -> dict[str, list[str]]:
    """Names of the number of tokens that most names of both groups have, at most twenty a group."""
    lengths = {g: [(chat.token_count(form.format(n)), n) for n in names] for g, names in pools.items()}
    counts = [Counter(length for length, _ in found) for found in lengths.values()]
    best = max(set.intersection(*(set(c) for c in counts)), key=lambda k: min(c[k] for c in counts), default=0)
    kept = {g: [n for length, n in found if length == best] for g, found in lengths.items()}
    if min(map(len, kept.values())) < 2:
        raise ValueError("too few names of one length are known")
    return {g: sorted(rng.choice(n, min(NAMES_A_GROUP, len(n)), replace=False).tolist()) for g, n in kept.items()}
