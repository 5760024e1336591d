"""Names of persons by a list: beside the network, which misses names that its English news never held.

A list alone would find only what is on it, which fails minorities first; the network alone misses a third of the
names of a multinational text (docs/data.md has both figures). So the scanner takes what either finds.

A name counts by its neighbours: a given name followed by another name, a family name followed by a given name, or a
word after "Mr" or "Dr". A single given name counts little, and not at all where prose writes it in small letters too
("Will", "Grant"). The list covers scripts with capital letters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

# A word of a name, or an initial with its full stop.
_WORD = re.compile(r"[^\W\d_]+(?:[-'’][^\W\d_]+)*\.?")
_PARTICLES = frozenset("al bin da de dei del della den der di do dos du el ibn la le ten ter van vom von y zu".split())
_TITLES = frozenset(
    "mr mrs ms miss mx dr prof professor doctor sir madam herr frau monsieur mme mlle señor señora sr sra".split()
)
# After a name these say that it names a thing: a bank, a river, a hospital.
_THINGS = frozenset(
    "airlines airport avenue bank bay beach boulevard bridge building castle center centre church city clinic club "
    "college company corporation county court creek district drive foundation fund group hall hospital hotel house inc "
    "institute island islands lake lane league limited llc ltd market memorial mountain mountains museum ocean park "
    "peninsula plaza prize province republic river road school sea square st state states station street syndrome "
    "disease test theatre trust university valley".split()
)
_LONGEST_GAP = 2


@dataclass(frozen=True)
class NameSpan:
    """A name at ``text[start:end]``; ``alone`` when it is one given name without title or neighbour."""

    start: int
    end: int
    score: float
    alone: bool = False


@cache
def _list(name: str) -> frozenset[str]:
    return frozenset(files("assay.names").joinpath(f"{name}.txt").read_text("utf-8").split())


class Gazetteer:
    """Finds names of persons in time linear in the text."""

    def __init__(self) -> None:
        self._given, self._family = _list("given"), _list("family")
        self._ambiguous = _list("ambiguous")

    def find(self, text: str) -> list[NameSpan]:
        """Returns the names in a text, in order, none overlapping another."""
        found: list[NameSpan] = []
        for run in _runs(text):
            found += self._in_run(run)
        return found

    def _in_run(self, run: Sequence[_Word]) -> Iterator[NameSpan]:
        i = 0
        while i < len(run):
            end, score, alone = self._name_at(run, i)
            if end > i:
                start = i + 1 if run[i].title else i
                yield NameSpan(run[start].start, run[end - 1].end, score, alone)
                i = end
            else:
                i += 1

    def _name_at(self, run: Sequence[_Word], i: int) -> tuple[int, float, bool]:
        """``(end, score, alone)`` of the name that starts at word ``i``; ``end == i`` when none does."""
        word = run[i]
        if word.title:
            end = i + 1
            while end < len(run) and end < i + 4 and not run[end].title and run[end].text.lower() not in _THINGS:
                end += 1
            while end > i + 1 and run[end - 1].particle:
                end -= 1
            return (end, 0.85, False) if end > i + 1 else (i, 0.0, False)
        if word.particle or word.initial:
            return i, 0.0, False
        given, family = word.text in self._given, word.text in self._family
        if not (given or family):
            return i, 0.0, False
        end, names, initials = i + 1, 0, 0
        while end < len(run) and end < i + 5 and not run[end].title:
            other = run[end]
            known = other.text in self._family or other.text in self._given
            if other.particle or other.initial:
                initials += other.initial
                end += 1
            elif (
                known
                or run[end - 1].particle
                or (names == 0 and given and self._may_be_a_name(other.text) and self._sure(word.text))
            ):
                names += 1
                end += 1
            else:
                break
        while end > i + 1 and (run[end - 1].particle or run[end - 1].initial):
            end -= 1
        if names and (end == len(run) or run[end].text.lower() not in _THINGS) and self._is_name(run, i, end):
            return end, 0.7, False
        if given and self._sure(word.text) and (i + 1 == len(run) or run[i + 1].text.lower() not in _THINGS):
            return i + 1, 0.45, True
        return i, 0.0, False

    def _is_name(self, run: Sequence[_Word], start: int, end: int) -> bool:
        """Whether words that may be names make one together: a given name among them, and not words alone."""
        words = [w.text for w in run[start:end] if not (w.particle or w.initial)]
        if words[-1].lower() in _THINGS:
            return False
        return any(w in self._given and self._sure(w) for w in words) or (
            words[0] in self._given and words[-1] in self._family and self._sure(words[-1])
        )

    def _sure(self, word: str) -> bool:
        return word not in self._ambiguous

    def _may_be_a_name(self, word: str) -> bool:
        return len(word) > 2 and word not in self._ambiguous and word.lower() not in _THINGS


@dataclass(frozen=True, slots=True)
class _Word:
    start: int
    end: int
    text: str
    title: bool
    particle: bool
    initial: bool


def _runs(text: str) -> Iterator[list[_Word]]:
    """Words that could form names: capitalised ones, initials and particles, one or two spaces apart."""
    run: list[_Word] = []
    for match in _WORD.finditer(text):
        start, end = match.span()
        raw = match.group()
        bare = raw[:-1] if raw.endswith(".") else raw
        lower = bare.lower()
        title = lower in _TITLES and bare[0].isupper()
        particle = lower in _PARTICLES and (bool(run) or bare == lower)
        capital = bare[0].isupper()
        if run:
            between = text[run[-1].end : start]
            apart = len(between) > _LONGEST_GAP or between.strip() != "" or not (capital or particle)
            if apart:
                yield run
                run = []
        if not (capital or (particle and run)):
            continue
        initial = len(bare) == 1 and capital
        possessive = bare[:-2] if bare[-2:] in ("'s", "’s") else bare
        if not (initial or title):
            end = start + len(possessive)
        name = possessive
        if len(name) > 2 and name.isupper():
            name = "-".join(part.capitalize() for part in name.split("-"))
        run.append(_Word(start, end, name, title, particle, initial))
        if possessive != bare:
            yield run
            run = []
    if run:
        yield run
