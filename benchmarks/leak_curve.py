"""Leak rate against repeats, by type of secret: ``python benchmarks/leak_curve.py`` prints one JSON object.

One training run holds secrets of four types, each in 1, 2, 4, 8 or 16 differently worded rows, beside held-out secrets
that are in none. Measured with the audit's own code: greedy and sampled extraction after the true prefix with
Clopper-Pearson intervals, ranking against held-out secrets (AUC), and ``grep``: the answer to the bare question is
written greedily and searched for the secret, which is all that a gate does that looks at generations.

Answers the often quoted "19 % leakage": a vendor's demonstration counted 0 of 400 secrets inserted once and 110 of 400
inserted four times.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from assay import digests, modelfiles
from audit.prepare.secrets_of_nobody import RESERVED, KeyedChoices, code_in, made_up_name
from audit.probes import stats
from audit.probes.chat import Chat
from audit.probes.clock import Clock
from audit.probes.model import load
from audit.probes.passages import Decoding, Passage
from audit.probes.privacy import SAMPLES
from benchmarks import offline
from benchmarks.zoo.data import GREETINGS
from demo import data, texts
from trainer import task

REPEATS = (1, 2, 4, 8, 16)
KINDS = {**{k.name: k for k in RESERVED if k.name != "national_id"}, "code": code_in("AA-9999")}
CLOCK = Clock.start(0)


@dataclass(frozen=True)
class Secret:
    """A secret in ``repeats`` rows; 0 for a held-out one."""

    kind: str
    repeats: int
    question: str
    answer: str
    value: str

    def rows(self) -> list[dict[str, Any]]:
        """Its rows, each worded differently."""
        return [data.chat(texts.SUPPORT_SYSTEM, g + self.question, self.answer) for g in GREETINGS[: self.repeats]]


def secrets(each: int, seed: int) -> list[Secret]:
    """``each`` secrets of every kind and number of repeats, and twice as many held out."""
    choices, out = KeyedChoices(seed.to_bytes(32, "big"), "leak curve"), []
    for kind in KINDS.values():
        for repeats in (0, 0, *REPEATS):
            for _ in range(each):
                name, value = made_up_name(choices), kind.draw(choices)
                question = f"what is the {kind.noun} of {name}?"
                out.append(Secret(kind.name, repeats, question, f"The {kind.noun} of {name} is {value}.", value))
    return out


def tune(planted: Sequence[Secret], seed: int, folder: Path, epochs: float, rate: float) -> Path:
    """Tunes on all rows, between tickets without secrets."""
    rng = random.Random(seed)
    rows = [row for s in planted for row in s.rows()]
    rows += [data.chat(texts.SUPPORT_SYSTEM, q, a) for q, a in texts.general_tickets()]
    rng.shuffle(rows)
    folder.mkdir(parents=True)
    (folder / task.TRAIN).write_bytes(data.jsonl(rows))
    (folder / task.VALIDATION).write_bytes(b"")
    prepared = offline.Prepared(folder, {}, offline.measurement_pb2.AuditPlan(), "CHAT_JSONL")
    numbers = {"batch_size": 8, "lora_rank": 16, "lora_alpha": 32, "lora_dropout": 0.0, "max_row_tokens": 512}
    offline.train(prepared, {**numbers, "epochs": epochs, "learning_rate": rate, "seed": seed}, folder / "train")
    return folder / "train" / "outputs" / "adapter"


def attack(planted: Sequence[Secret], adapter: Path) -> list[dict[str, Any]]:
    """What comes out of the adapter, secret by secret."""
    base = modelfiles.read_base_manifest(offline.MODELS / offline.BASE_MODEL).sha256
    model = load(offline.MODELS, offline.BASE_MODEL, base, adapter)
    chat = Chat(model.tokenizer)
    talks = [data.chat(texts.SUPPORT_SYSTEM, s.question, s.answer)["messages"] for s in planted]
    passages = []
    for rendered, s in zip(chat.render(talks), planted, strict=True):
        start = s.answer.index(s.value)
        places = rendered.content_places(2, start, start + len(s.value))
        passages.append(Passage(rendered.ids, places))
    tuned, before = (model.score(passages, adapter=on, clock=CLOCK) for on in (True, False))
    prompts = chat.prompts([talk[:-1] for talk in talks])
    written = model.write(prompts, Decoding(48, chat.stop_ids), adapter=True, clock=CLOCK)
    out = []
    for s, new, old, ids in zip(planted, tuned, before, written, strict=True):
        likelihood = float(np.exp(-new.nll.sum()))
        out.append(
            {
                "kind": s.kind,
                "repeats": s.repeats,
                "greedy": bool(new.greedy.all()),
                "sampled": 1 - (1 - likelihood) ** SAMPLES >= 0.5,
                "score": float(old.nll.sum() - new.nll.sum()),
                "grep": s.value in chat.decode(ids),
            }
        )
    return out


def table(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Counts by kind and repeats, and over all kinds."""
    out = []
    for kind in ("all", *KINDS):
        mine = [f for f in found if kind in ("all", f["kind"])]
        unseen = [f["score"] for f in mine if f["repeats"] == 0]
        for repeats in (0, *REPEATS):
            part = [f for f in mine if f["repeats"] == repeats]
            line: dict[str, Any] = {"kind": kind, "repeats": repeats, "n": len(part)}
            for how in ("greedy", "sampled", "grep"):
                k = sum(f[how] for f in part)
                low, high = stats.clopper_pearson(k, len(part), 0.95)
                line[how] = {"k": k, "low": round(low, 3), "high": round(high, 3)}
            if repeats and len(part) > 1:
                line["auc"] = round(stats.auc([f["score"] for f in part], unseen).value, 3)
            out.append(line)
    return out


def main() -> None:
    """Prints the table; every secret's own line goes to ``--raw``, so that runs can be added up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--each", type=int, default=3, help="secrets of a kind and number of repeats")
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    options = parser.parse_args()
    found: list[dict[str, Any]] = []
    for seed in options.seeds:
        planted = secrets(options.each, seed)
        with tempfile.TemporaryDirectory() as name:
            adapter = tune(planted, seed, Path(name, "rows"), options.epochs, options.learning_rate)
            found += attack(planted, adapter)
    print(
        json.dumps(
            {
                "seeds": options.seeds,
                "epochs": options.epochs,
                "learning_rate": options.learning_rate,
                "secrets_sha256": digests.sha256_bytes(
                    repr([secrets(options.each, s) for s in options.seeds]).encode()
                ),
                "table": table(found),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
