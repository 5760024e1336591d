"""Which rows go into which step: a pure function of lengths and seed, so that a resume needs no stored order."""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import add
from typing import TypeVar

from assay import token_plan
from trainer.settings import Settings

_WINDOW_BATCHES = 8
_T = TypeVar("_T")


@dataclass(frozen=True)
class BatchPlan:
    """Batches of row indices for every step of the run, in order."""

    batches: tuple[tuple[int, ...], ...]
    steps_per_epoch: int

    @property
    def steps(self) -> int:
        """Optimiser steps in all."""
        return len(self.batches)


def plan_batches(lengths: Sequence[int], settings: Settings) -> BatchPlan:
    """Plans every epoch: shuffle, then batch rows of similar length within a window of a few batches.

    Each epoch visits every row once; sorting only inside windows keeps the order random while padding stays small. A
    fractional epoch ends before the step that would train more than its share of the tokens, since intake planned that
    share and no more; one step is always done, if need be of fewer rows.

    Args:
        lengths: tokens of each row; at least one row.
        settings: batch size, epochs and seed.
    """
    size = settings.batch_size
    batches: list[tuple[int, ...]] = []
    for epoch in range(math.ceil(settings.epochs)):
        batches += _epoch(lengths, size, random.Random(f"{settings.seed}/{epoch}"))
    share = token_plan.share(sum(lengths), settings.epochs)
    steps = _fitting((sum(lengths[i] for i in batch) for batch in batches), share)
    if not steps:
        rows = _fitting((lengths[i] for i in batches[0]), share)
        batches, steps = [batches[0][: max(1, rows)]], 1
    return BatchPlan(tuple(batches[:steps]), math.ceil(len(lengths) / size))


def _fitting(tokens: Iterable[int], most: int) -> int:
    """How many, from the first on, are together no more than so many tokens."""
    return bisect_right(list(accumulate(tokens)), most)


def _epoch(lengths: Sequence[int], size: int, rng: random.Random) -> list[tuple[int, ...]]:
    order = list(range(len(lengths)))
    rng.shuffle(order)
    window = size * _WINDOW_BATCHES
    batches: list[tuple[int, ...]] = []
    for start in range(0, len(order), window):
        chosen = sorted(order[start : start + window], key=lambda i: lengths[i])
        batches += [tuple(chosen[i : i + size]) for i in range(0, len(chosen), size)]
    rng.shuffle(batches)
    return batches


def in_parts(items: Sequence[_T], sizes: Callable[[_T], tuple[int, ...]], most: tuple[int, ...]) -> list[list[_T]]:
    """Items in their order, in as many as fit together; one that is too large is a part of its own.

    Args:
        items: rows, or the rows of units; maybe none.
        sizes: of an item, such as its tokens.
        most: of each size, how much a part may hold in all; 0 for no bound.
    """
    parts: list[list[_T]] = []
    held: tuple[int, ...] = ()
    for item in items:
        more = tuple(map(add, held, sizes(item)))
        if not parts or any(bound and total > bound for total, bound in zip(more, most, strict=True)):
            parts.append([])
            more = sizes(item)
        parts[-1].append(item)
        held = more
    return parts


def learning_rate(step: int, steps: int, settings: Settings) -> float:
    """Rate of step ``step`` (0-based) of ``steps``: linear warm-up, then linear decay to zero after the last."""
    warmup = max(1, round(settings.warmup_share * steps))
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    return settings.learning_rate * (steps - step) / max(1, steps - warmup)
