"""What canaries cost the model: ``python -m benchmarks.canary_tax`` prints one JSON object.

The demo's clean job, with its rows and its hyperparameters, is tuned twice from the same seed, once with the planted
canaries and once without, and both adapters are scored on the same sealed test rows by the audit's own code. A seed
draws the rows, the canaries, the splits and the order of training anew.

``tax_nats`` is the mean over the seeds of the paired difference of nats per answer token (with minus without), each a
ratio estimate as ``quality.test_loss_delta`` is; ``by_seed`` has all of them. ``interval`` is Student's at 95 % over
the seeds: it covers what another draw of rows, canaries and training may change, and there is none of one seed.
``rows_alone`` takes the trainings as they came out and the test rows of all seeds as what was drawn: its interval says
nothing of other canaries or another run. ``tax_share`` is the tax's share of the loss without, ``gain_kept`` the share
of tuning's improvement over the base model that is left.

A seed takes two trainings, each of some 57 CPU seconds on cores with AVX512-BF16 (docs/training.md), and three
scorings: five seeds may take a quarter of an hour of two quiet cores, which was not timed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.modelfiles import read_base_manifest
from audit.probes.chat import Chat
from audit.probes.clock import Clock
from audit.probes.corpus import build
from audit.probes.inputs import Settings, read_private_rows
from audit.probes.model import load
from audit.statistics import stats
from benchmarks import offline
from demo import data


@dataclass(frozen=True)
class Losses:
    """Nats of every test row's answers, and how many tokens these are: each of shape (test rows,)."""

    nats: NDArray[np.float64]
    tokens: NDArray[np.float64]

    @property
    def a_token(self) -> float:
        """Nats per answer token, as ``quality.test_loss``."""
        return stats.weighted_mean(self.nats, self.tokens).value

    def __sub__(self, other: Losses) -> Losses:
        """Row by row.

        Raises:
            ValueError: these are other rows.
        """
        if not np.array_equal(self.tokens, other.tokens):
            raise ValueError("only losses of the same rows can be compared")
        return Losses(self.nats - other.nats, self.tokens)


@dataclass(frozen=True)
class Pair:
    """What one seed's two trainings, and the base model, make of the same test rows."""

    planted: Losses
    without: Losses
    base: Losses
    canary_rows: int


def row_losses(prepared: offline.Prepared, adapter: Path, folder: Path, *, tuned: bool = True) -> Losses:
    """Scores every test row."""
    inputs = folder / "scored"
    inputs.mkdir(parents=True, exist_ok=True)
    if not (inputs / "private").exists():
        (inputs / "private").symlink_to(prepared.folder / "private")
    rows = replace(read_private_rows(inputs), train=(), canaries=(), pii=())
    base = read_base_manifest(offline.MODELS / offline.BASE_MODEL)
    model = load(offline.MODELS, offline.BASE_MODEL, base.sha256, adapter)
    corpus = build(rows, Chat(model.tokenizer, model.context), Settings.of(prepared.plan))
    scores = model.score([t.passage for t in corpus.test], adapter=tuned, clock=Clock.start(0))
    nats = [float(s.at(t.answer)[0].sum()) for s, t in zip(scores, corpus.test, strict=True)]
    return Losses(np.array(nats), np.array([len(t.answer) for t in corpus.test], dtype=float))


def pair(seed: int, spec: data.DemoJob, folder: Path) -> Pair:
    """Tunes with and without canaries."""
    hyperparameters = {**spec.request["hyperparameters"], "seed": seed}
    losses, planted = {}, 0
    for kind, canaries in (("with", None), ("without", {"a": 0, "b": 0, "b_repeats": 1})):
        place, secret = folder / kind, seed.to_bytes(32, "big")
        prepared = offline.prepare(spec.content, spec, "quick", place, secret=secret, canaries=canaries)
        planted = max(planted, int(prepared.claim["canary_rows"]))
        offline.train(prepared, hyperparameters, place / "train")
        adapter = place / "train" / "outputs" / "adapter"
        losses[kind] = row_losses(prepared, adapter, place)
    return Pair(losses["with"], losses["without"], row_losses(prepared, adapter, place, tuned=False), planted)


def measure(seeds: Sequence[int]) -> dict[str, Any]:
    """Tunes a pair for every seed."""
    specs = [data.clean(seed) for seed in seeds]
    with tempfile.TemporaryDirectory() as name:
        pairs = [pair(seed, spec, Path(name, str(seed))) for seed, spec in zip(seeds, specs, strict=True)]
    differences = [p.planted - p.without for p in pairs]
    taxes = [d.a_token for d in differences]
    base = float(np.mean([p.base.a_token for p in pairs]))
    without = float(np.mean([p.without.a_token for p in pairs]))
    tax, ends = float(np.mean(taxes)), stats.mean(taxes).interval(0.95) if len(taxes) > 1 else ()
    return {
        "seeds": list(seeds),
        "learning_rate": specs[0].request["hyperparameters"]["learning_rate"],
        "rows": len(specs[0].content.splitlines()),
        "canary_rows": [p.canary_rows for p in pairs],
        "tax_nats": round(tax, 5),
        "interval": [round(v, 5) for v in ends],
        "by_seed": [round(v, 5) for v in taxes],
        "range": [round(v, 5) for v in (min(taxes), max(taxes))],
        "tax_share": round(tax / without, 5),
        "interval_share": [round(v / without, 5) for v in ends],
        "loss_base": round(base, 4),
        "loss_without": round(without, 4),
        "gain_kept": round(1 - tax / (base - without), 4),
        "rows_alone": of_rows(differences),
    }


def of_rows(differences: Sequence[Losses]) -> dict[str, Any]:
    """The tax over the test rows of these very trainings, with the interval of other rows."""
    nats, tokens = (np.concatenate(part) for part in zip(*((d.nats, d.tokens) for d in differences), strict=True))
    found = stats.weighted_mean(nats, tokens)
    interval = [round(v, 5) for v in found.interval(0.95)]
    return {"test_rows": int(nats.size), "tax_nats": round(found.value, 5), "interval": interval}


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8, 9, 10, 11], help="7 is the demo's")
    options = parser.parse_args()
    print(json.dumps(measure(options.seeds), indent=1))


if __name__ == "__main__":
    main()
