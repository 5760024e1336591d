"""Texts to score and what a model says of them; how they are put into batches. No model library here."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from audit.probes.clock import Clock

_SHARED_LEAST = 12
_SHARED_TEXTS = 4


@dataclass(frozen=True)
class Passage:
    """A text to score.

    Attributes:
        ids: its tokens.
        marks: places whose token is scored given everything before it, ascending, each at least 1.
        choice_at: place at which ``choices`` are compared; 0 for none. Must be one of ``marks``.
        choices: token ids whose logits at ``choice_at`` are wanted.
        moments: whether mean and spread of the log-probability over the vocabulary are wanted at the marks.
    """

    ids: tuple[int, ...]
    marks: tuple[int, ...]
    choice_at: int = 0
    choices: tuple[int, ...] = ()
    moments: bool = False


@dataclass(frozen=True)
class Scores:
    """What a model says of a passage.

    Attributes:
        places: the scored places.
        nll: negative log-likelihood of the token at each place, in nats.
        greedy: whether greedy decoding, given the true text before it, would write the token at each place; a tie for
            the first rank, which bf16 logits often have, counts.
        choice_logits: logits of the passage's choices; empty without choices.
        surprise: ``(log p - mean) / sd`` of the token at each place, mean and standard deviation of log p over the
            vocabulary under p (Min-K%++, arXiv 2404.02936, equation 3); empty unless the passage asks for moments.
    """

    places: tuple[int, ...]
    nll: NDArray[np.float64]
    greedy: NDArray[np.bool_]
    choice_logits: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    surprise: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    def at(self, places: Sequence[int]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Scores of some of the places."""
        index = self._index(places)
        return self.nll[index], self.greedy[index]

    def surprise_at(self, places: Sequence[int]) -> NDArray[np.float64]:
        """Standardised log-probability at some of the places; the passage must have asked for moments."""
        return self.surprise[self._index(places)]

    def _index(self, places: Sequence[int]) -> NDArray[np.intp]:
        return np.searchsorted(np.asarray(self.places), np.asarray(places))


@dataclass(frozen=True)
class BatchPlan:
    """How texts are put together, which decides the bits of what a model says of them.

    Attributes:
        tokens: tokens of one forward pass; larger batches gain nothing on a CPU.
        rows: texts written side by side.
    """

    tokens: int = 2048
    rows: int = 64


@dataclass(frozen=True)
class Decoding:
    """How to write on.

    Attributes:
        tokens: most new tokens a text.
        stops: tokens that end a text; they are not part of it.
        seed: seed of the samples; None for greedy decoding.
    """

    tokens: int
    stops: frozenset[int]
    seed: int | None = None


class Model(Protocol):
    """A tuned model whose adapter can be switched off to get the base model."""

    def score(self, passages: Sequence[Passage], *, adapter: bool, clock: Clock) -> list[Scores]:
        """Scores passages, in their order."""
        ...

    def write(
        self, prompts: Sequence[Sequence[int]], decoding: Decoding, *, adapter: bool, clock: Clock
    ) -> list[list[int]]:
        """Writes on from each prompt, in their order, without the prompts."""
        ...

    def states(self, texts: Sequence[Sequence[int]], *, adapter: bool, clock: Clock) -> NDArray[np.float64]:
        """Last hidden state of each text's last token, shape (texts, width)."""
        ...

    def varied(self, variation: Variation) -> AbstractContextManager[None]:
        """Varies the adapter for as long as the block runs."""
        ...

    @property
    def rank(self) -> int:
        """Rank of the adapter; 0 where it holds whole modules."""
        ...


@dataclass(frozen=True)
class Variation:
    """An adapter made weaker or simpler: what a less discriminatory alternative may be found among.

    Attributes:
        name: as the report names it.
        scale: factor on the adapter's change; 1 is the adapter itself.
        rank: rank that the change is cut to by its singular values; 0 keeps it.
    """

    name: str
    scale: float = 1.0
    rank: int = 0


class Keep(Protocol):
    """Where scores of the base model are kept, since every adapter on the same texts needs the same ones."""

    def load(self, passages: Sequence[Passage]) -> list[Scores] | None:
        """Scores of exactly these passages in this order, None when they were never kept."""
        ...

    def store(self, passages: Sequence[Passage], scores: Sequence[Scores]) -> None:
        """Keeps them."""
        ...


class Board:
    """Scores of passages, each asked of each model once: several probes read the same texts.

    Args:
        model: the model.
        clock: cuts the work at the time limit.
        keep: where base scores are kept across audits; None keeps them for this audit alone.
    """

    def __init__(self, model: Model, clock: Clock, keep: Keep | None = None) -> None:
        self._model = model
        self._clock = clock
        self._keep = keep
        self._known: dict[tuple[Passage, bool], Scores] = {}

    def scores(self, passages: Sequence[Passage], *, adapter: bool) -> list[Scores]:
        """Scores by the tuned model (``adapter``) or the base model, in the order of the passages."""
        missing = [p for p in dict.fromkeys(passages) if (p, adapter) not in self._known]
        if missing:
            keep = None if adapter else self._keep
            found = keep.load(missing) if keep is not None else None
            if found is None:
                found = self._model.score(missing, adapter=adapter, clock=self._clock)
                if keep is not None:
                    keep.store(missing, found)
            self._known.update(((p, adapter), s) for p, s in zip(missing, found, strict=True))
        return [self._known[p, adapter] for p in passages]

    def states(self, texts: Sequence[Sequence[int]], *, adapter: bool) -> NDArray[np.float64]:
        """Last hidden state of each text's last token, shape (texts, width)."""
        return self._model.states(texts, adapter=adapter, clock=self._clock)

    def varied(self, passages: Sequence[Passage], variation: Variation) -> list[Scores]:
        """Scores by the tuned model with its adapter varied; not kept."""
        if not passages:
            return []
        with self._model.varied(variation):
            return self._model.score(passages, adapter=True, clock=self._clock)

    @property
    def rank(self) -> int:
        """Rank of the adapter."""
        return self._model.rank

    def write(self, prompts: Sequence[Sequence[int]], decoding: Decoding, *, adapter: bool) -> list[list[int]]:
        """Writes on from prompts; not kept."""
        return self._model.write(prompts, decoding, adapter=adapter, clock=self._clock)


def plan_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Groups indices by length so that rows times the longest row stays within ``budget`` tokens a batch."""
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= budget:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


def by_opening(passages: Sequence[Passage]) -> list[tuple[int, list[int]]]:
    """Groups passages that say the same before their first scored place, such as candidates for one secret.

    Returns:
        For each group how many opening tokens its passages share and may be run once (at least ``_SHARED_LEAST``), and
        the indices of its passages; passages that share too little come last, in one group with what all of *them*
        share.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, p in enumerate(passages):
        groups.setdefault(p.ids[: p.marks[0] - 1], []).append(i)
    out, rest = [], []
    for opening, members in groups.items():
        if len(members) >= _SHARED_TEXTS and len(opening) >= _SHARED_LEAST:
            out.append((len(opening), members))
        else:
            rest += members
    if rest:
        out.append((shared_length([passages[i] for i in rest]), sorted(rest)))
    return out


def bundles(groups: Sequence[tuple[int, list[int]]], budget: int) -> list[list[tuple[int, list[int]]]]:
    """Puts groups of like openings together so that openings times the longest stay within ``budget`` tokens.

    The last group of :func:`by_opening`, whose passages share little, stays alone.
    """
    alone = [[g] for g in groups if len(g[1]) < _SHARED_TEXTS or g[0] < _SHARED_LEAST]
    out: list[list[tuple[int, list[int]]]] = []
    for group in sorted((g for g in groups if [g] not in alone), key=lambda g: (-g[0], g[1])):
        if out and out[-1][0][0] * (len(out[-1]) + 1) <= budget:
            out[-1].append(group)
        else:
            out.append([group])
    return out + alone


def shared_length(passages: Sequence[Passage]) -> int:
    """How many opening tokens all passages share before their first scored place; 0 when too few to be worth it."""
    return shared_opening([p.ids for p in passages], min((p.marks[0] for p in passages), default=0) - 1)


def shared_opening(texts: Sequence[Sequence[int]], most: int) -> int:
    """How many opening tokens all texts share, at most ``most``; 0 when too few to be worth it."""
    if len(texts) < _SHARED_TEXTS:
        return 0
    length = min(common_opening(texts), most)
    return length if length >= _SHARED_LEAST else 0


def common_opening(texts: Sequence[Sequence[int]]) -> int:
    """How many opening tokens all texts share, however few."""
    tuples = [tuple(t) for t in texts]
    least, last = min(tuples), max(tuples)
    return next((k for k, (a, b) in enumerate(zip(least, last, strict=False)) if a != b), min(len(least), len(last)))
