"""Scores of the base model on disk, by digest: another adapter on the same texts needs the same ones.

Scoring in another batch gives other bits, so what is kept is the whole call, under the digest of everything that
decides its bits: base model, number format, processor, libraries, batch plan, and the passages in their order.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from assay import digests, durable
from audit.probes.passages import Passage, Scores

_ADAPTER_FACTS = frozenset({"adapter_sha256", "adapter_moved"})


@dataclass(frozen=True)
class KeptScores:
    """Base scores in a folder.

    Attributes:
        folder: where; made when the first scores are kept.
        environment: what decides the bits, beside the passages; facts of the adapter are left out.
    """

    folder: Path
    environment: Mapping[str, str]

    def load(self, passages: Sequence[Passage]) -> list[Scores] | None:
        """Scores of exactly these passages in this order; None when they were never kept or the file is damaged."""
        path = self._path(passages)
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as kept:
                nll, greedy, choice, surprise = (kept[name] for name in ("nll", "greedy", "choice", "surprise"))
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
            return None
        marks = np.cumsum([len(p.marks) for p in passages])
        choices = np.cumsum([len(p.choices) for p in passages])
        moments = np.cumsum([len(p.marks) if p.moments else 0 for p in passages])
        if (nll.size, greedy.size, choice.size, surprise.size) != (marks[-1], marks[-1], choices[-1], moments[-1]):
            return None
        cut = (np.split(nll, marks), np.split(greedy, marks), np.split(choice, choices), np.split(surprise, moments))
        return [Scores(p.marks, *(part[i] for part in cut)) for i, p in enumerate(passages)]

    def store(self, passages: Sequence[Passage], scores: Sequence[Scores]) -> None:
        """Keeps them; a reader sees the whole file or none."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self._path(passages)
        with durable.replacing(path) as out:
            np.savez(
                out,
                nll=np.concatenate([s.nll for s in scores]),
                greedy=np.concatenate([s.greedy for s in scores]),
                choice=np.concatenate([s.choice_logits for s in scores]),
                surprise=np.concatenate([s.surprise for s in scores]),
            )

    def _path(self, passages: Sequence[Passage]) -> Path:
        facts = {k: v for k, v in self.environment.items() if k not in _ADAPTER_FACTS}
        texts = [[p.ids, p.marks, p.choice_at, p.choices, p.moments] for p in passages]
        return self.folder / f"{digests.sha256_bytes(json.dumps([facts, texts], sort_keys=True).encode())}.npz"
