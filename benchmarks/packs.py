"""What rows in packs save in training: ``python -m benchmarks.packs`` prints one JSON object.

``ratio_packs`` is, by method, the seconds of a step on padded rows over those of the same step on rows in packs: loss
and gradients, on the embedded base model's real weights, both ways in turns in one process, the median of the steps
with its range. ``lora`` reads the demo's questions on privacy policies, whose rows share a system prompt;
``classification`` the demo's mortgage decisions with both labels; ``dpo`` the questions with the right answer
preferred to the wrong one. ``loss_difference`` is the largest between the two ways.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks import offline
from demo import data, texts
from trainer.device import Device, choose_device
from trainer.recipes.lora import TunedModel, load
from trainer.recipes.objectives import Objective, objective_of
from trainer.recipes.plan import plan_batches
from trainer.recipes.rows import Encoder, Row
from trainer.settings import Settings

SETTINGS = Settings(batch_size=8, epochs=1.0, seed=7)
LABELS = ("approve", "deny")


def questions() -> Iterator[dict[str, Any]]:
    """The demo's questions with the other answer as the rejected one."""
    other = {"True": "False", "False": "True"}
    for line in data.clean(7).content.decode().splitlines():
        row = json.loads(line)
        yield {**row, "rejected": other[row["messages"][-1]["content"]]}


def decisions() -> Iterator[dict[str, Any]]:
    """The demo's decisions as chats."""
    for record in csv.DictReader(io.StringIO(data.decision(7).content.decode())):
        words = "\n".join(f"{k}: {v}" for k, v in record.items() if k not in ("decision", "race", "sex"))
        yield data.chat(texts.POLICY_SYSTEM, words, record["decision"])


def rows_of(method: str, tokenizer: Any) -> tuple[Row, ...]:
    """Rows as a method reads them."""
    encoder = Encoder(tokenizer, 512, pairs=method == "dpo", labels=LABELS if method == "classification" else ())
    return encoder.encode(decisions() if method == "classification" else questions()).rows


def timed(model: TunedModel, objective: Objective, rows: Sequence[Row], device: Device) -> tuple[float, float]:
    """Seconds of loss and gradients of one step, and the loss."""
    start = time.perf_counter()
    loss = objective.losses(model, rows, device).mean()
    loss.backward()
    model.collect_gradients()
    seconds = time.perf_counter() - start
    return seconds, float(loss.detach())


def compare(method: str, model: TunedModel, tokenizer: Any, device: Device, steps: int) -> dict[str, Any]:
    """Ratio and largest difference of a method over its first steps."""
    rows = rows_of(method, tokenizer)
    batches = plan_batches([row.length for row in rows], SETTINGS).batches[: steps + 1]
    ways = {"packs": model, "padded": dataclasses.replace(model, packs=False)}
    objective = objective_of(method)
    objective.prepare(model, [rows[i] for batch in batches for i in batch], device)
    ratios, differences = [], []
    for n, batch in enumerate(batches):
        chosen = [rows[i] for i in batch]
        order = list(ways) if n % 2 else list(reversed(ways))
        found = {way: timed(ways[way], objective, chosen, device) for way in order}
        differences.append(abs(found["packs"][1] - found["padded"][1]))
        if n:  # the first meets kernels that are not there yet
            ratios.append(found["padded"][0] / found["packs"][0])
    return {
        "ratio": round(statistics.median(ratios), 3),
        "range": [round(min(ratios), 3), round(max(ratios), 3)],
        "steps": len(ratios),
        "loss_difference": max(differences),
    }


def main() -> None:
    """Prints the figures."""
    from transformers import AutoTokenizer

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=7)
    options = parser.parse_args()
    device = choose_device()
    files = offline.MODELS / offline.BASE_MODEL / "files"
    tokenizer = AutoTokenizer.from_pretrained(files, local_files_only=True)
    model = load(files, SETTINGS, device, 256)
    model.backbone.train()
    methods = ("lora", "classification", "dpo")
    found = {method: compare(method, model, tokenizer, device, options.steps) for method in methods}
    out = {"ratio_packs": found, "device": device.kind, "dtype": device.dtype}
    print(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
