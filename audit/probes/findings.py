"""What a probe is given and what it hands back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from assay.v1 import measurement_pb2
from audit.probes.chat import Chat
from audit.probes.corpus import Corpus
from audit.probes.inputs import PrivateRows, Settings
from audit.probes.passages import Board

Series = measurement_pb2.Series
Point = measurement_pb2.Point

Scan = Callable[[Sequence[str]], list[list[tuple[int, int, str]]]]
"""Finds direct identifiers: for each text, its ``(start, end, entity type)`` spans."""


@dataclass(frozen=True)
class Audit:
    """Everything a probe may look at.

    Attributes:
        settings: the plan's settings.
        rows: the private rows as they were read.
        corpus: the texts chosen from them.
        board: what the two models say of a text.
        chat: writes prompts as tokens and tokens as text.
        scan: finds direct identifiers in texts.
        order: the audit order.
        sets: folder of the installed evaluation sets; see :mod:`audit.probes.sets`.
    """

    settings: Settings
    rows: PrivateRows
    corpus: Corpus
    board: Board
    chat: Chat
    scan: Scan
    order: Mapping[str, Any]
    sets: Path = Path()


@dataclass(frozen=True)
class Findings:
    """What a probe measured, series for plots, and what it left untested with the reason."""

    measurements: tuple[measurement_pb2.Measurement, ...]
    series: tuple[measurement_pb2.Series, ...] = ()
    not_tested: tuple[str, ...] = field(default=())


def series(name: str, axes: Sequence[str], points: Iterable[tuple[str, Sequence[float]]]) -> measurement_pb2.Series:
    """A named series; each point is a label and its coordinates."""
    return Series(name=name, axes=list(axes), points=[Point(label=label, values=list(v)) for label, v in points])
