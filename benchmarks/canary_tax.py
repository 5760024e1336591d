"""What canaries cost the model: ``python -m benchmarks.canary_tax`` prints one JSON object.

The demo's clean job, with its rows and its hyperparameters, is tuned twice from the same seed, once with the planted
canaries and once without, and both adapters are scored on the same sealed test rows by the audit's own code.
``tax_nats`` is the mean paired difference of nats per answer token (with minus without) with its 95 % interval,
``tax_share`` its share of the loss without, ``gain_kept`` the share of tuning's improvement over the base model that is
left.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from assay.modelfiles import read_base_manifest
from audit.probes.chat import Chat
from audit.probes.clock import Clock
from audit.probes.corpus import build
from audit.probes.inputs import Settings, read_private_rows
from audit.probes.model import load
from audit.statistics import stats
from benchmarks import offline
from demo import data


def row_losses(prepared: offline.Prepared, adapter: Path, folder: Path, *, tuned: bool = True) -> np.ndarray[Any, Any]:
    """Nats per answer token of every test row."""
    inputs = folder / "scored"
    inputs.mkdir(parents=True, exist_ok=True)
    if not (inputs / "private").exists():
        (inputs / "private").symlink_to(prepared.folder / "private")
    rows = replace(read_private_rows(inputs), train=(), canaries=(), pii=())
    base = read_base_manifest(offline.MODELS / offline.BASE_MODEL)
    model = load(offline.MODELS, offline.BASE_MODEL, base.sha256, adapter)
    corpus = build(rows, Chat(model.tokenizer, model.context), Settings.of(prepared.plan))
    scores = model.score([t.passage for t in corpus.test], adapter=tuned, clock=Clock.start(0))
    return np.array([s.at(t.answer)[0].mean() for s, t in zip(scores, corpus.test, strict=True)])


def measure(seeds: Sequence[int]) -> dict[str, Any]:
    """Tunes with and without canaries for every seed, by which rows are sampled and training is seeded."""
    differences, without, base = [], [], []
    specs = [data.clean(seed) for seed in seeds]
    with tempfile.TemporaryDirectory() as name:
        for seed, spec in zip(seeds, specs, strict=True):
            folder = Path(name, str(seed))
            hyperparameters = {**spec.request["hyperparameters"], "seed": seed}
            losses, planted = {}, 0
            for kind, canaries in (("with", None), ("without", {"a": 0, "b": 0, "b_repeats": 1})):
                place = folder / kind
                prepared = offline.prepare(spec.content, spec, "quick", place, canaries=canaries)
                planted = max(planted, int(prepared.claim["canary_rows"]))
                offline.train(prepared, hyperparameters, place / "train")
                adapter = place / "train" / "outputs" / "adapter"
                losses[kind] = row_losses(prepared, adapter, place)
                if kind == "without":
                    base.append(row_losses(prepared, adapter, place, tuned=False))
            differences.append(losses["with"] - losses["without"])
            without.append(losses["without"])
    paired, plain, untuned = (np.concatenate(part) for part in (differences, without, base))
    tax = stats.mean(paired)
    low, high = tax.interval(0.95)
    return {
        "seeds": list(seeds),
        "learning_rate": specs[0].request["hyperparameters"]["learning_rate"],
        "rows": len(specs[0].content.splitlines()),
        "canary_rows": planted,
        "test_rows": int(paired.size),
        "tax_nats": round(tax.value, 5),
        "interval": [round(low, 5), round(high, 5)],
        "tax_share": round(tax.value / float(plain.mean()), 5),
        "interval_share": [round(v / float(plain.mean()), 5) for v in (low, high)],
        "loss_base": round(float(untuned.mean()), 4),
        "loss_without": round(float(plain.mean()), 4),
        "gain_kept": round(1 - tax.value / float(untuned.mean() - plain.mean()), 4),
    }


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[7], help="7 is the demo's")
    options = parser.parse_args()
    print(json.dumps(measure(options.seeds), indent=1))


if __name__ == "__main__":
    main()
