"""How many tokens a run trains at most, from counts alone: what intake plans, and what the trainer keeps to.

A run ends before the step that would take it past its epochs' share of the tokens, but does one step at least, if only
of one row. So the quote and the cap are held against what the trainer stops at, whatever the rows' order and lengths.
"""

from __future__ import annotations

import math

_SLACK = 1e-9
"""A product that rounding left just below a whole number is that number."""


def share(tokens_of_pass: int, epochs: float) -> int:
    """Tokens that one run may train; its one step may train more where no smaller one can be."""
    return math.floor(tokens_of_pass * epochs + _SLACK)


def most(tokens_of_pass: int, epochs: float, least_step: int, runs: int = 1) -> int:
    """Tokens that all runs together train at most.

    Args:
        tokens_of_pass: that one pass over the train split reads.
        epochs: of each run.
        least_step: that no step can be kept below, whatever its rows; 0 where it is not known yet.
        runs: trials of a search, else 1.
    """
    return max(math.ceil(tokens_of_pass * epochs * runs - _SLACK), runs * min(tokens_of_pass, least_step))
