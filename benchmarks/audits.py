"""What scoring costs: ``python benchmarks/audits.py`` prints one JSON object.

``ratio_plain`` compares the audit's scoring with the plain way on the same canaries: one conversation at a time through
the base model's own class, with the logits of every position, once with the adapter and once without. Both run
alternately on the installed base model with a random adapter, so that other load meets both; the median of the rounds
is given with its range. ``bootstrap_ratio`` is that of :mod:`benchmarks.bootstrap`. Rates in
tokens a second belong to this machine and moment, and are informative only.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from assay import modelfiles
from audit.probes.chat import Chat
from audit.probes.clock import Clock
from audit.probes.model import TunedModel, load
from audit.probes.passages import Decoding, Passage
from benchmarks import bootstrap

CLOCK = Clock.start(0)
RANK = 16
MODULES = ("q_proj", "v_proj")


def write_adapter(base_files: Path, base_model: str, folder: Path) -> Path:
    """A random LoRA adapter that fits the base model: what it says does not matter, what it costs does."""
    from safetensors.torch import save_file

    config = json.loads((base_files / "config.json").read_text(encoding="utf-8"))
    heads, width = config["num_attention_heads"], config["hidden_size"]
    narrow = width // heads * config["num_key_value_heads"]
    tensors: dict[str, torch.Tensor] = {}
    generator = torch.Generator().manual_seed(0)
    for layer in range(config["num_hidden_layers"]):
        for module, outside in zip(MODULES, (width, narrow), strict=True):
            stem = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            tensors[f"{stem}.lora_A.weight"] = torch.randn(RANK, width, generator=generator) / width**0.5
            tensors[f"{stem}.lora_B.weight"] = torch.randn(outside, RANK, generator=generator) * 1e-3
    folder.mkdir()
    save_file({k: v.bfloat16() for k, v in tensors.items()}, folder / modelfiles.ADAPTER_WEIGHTS)
    facts = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "bias": "none", "inference_mode": True}
    facts |= {"base_model_name_or_path": base_model, "r": RANK, "lora_alpha": 32, "target_modules": list(MODULES)}
    (folder / modelfiles.ADAPTER_CONFIG).write_text(json.dumps(facts), encoding="utf-8")
    return folder


def canaries(chat: Chat, count: int) -> list[Passage]:
    """Conversations with a nine-digit secret each, of which the secret alone is scored."""
    rng = random.Random(1)
    system = {"role": "system", "content": "You answer customers of a bank, briefly and politely, from their record."}
    rows, secrets = [], []
    for i in range(count):
        secret = "".join(rng.choice("0123456789") for _ in range(9))
        question = {
            "role": "user",
            "content": f"Please confirm the reference of customer number {rng.randrange(10**5)}.",
        }
        answer = {"role": "assistant", "content": f"Certainly. For request {i} we hold the reference {secret}."}
        rows.append([system, question, answer])
        secrets.append(secret)
    out = []
    for rendered, row, secret in zip(chat.render(rows), rows, secrets, strict=True):
        start = row[2]["content"].index(secret)
        out.append(Passage(rendered.ids, rendered.content_places(2, start, start + len(secret))))
    return out


def ours(model: TunedModel, passages: Sequence[Passage]) -> list[float]:
    """Score of each secret as the audit computes it: NLL(base) - NLL(tuned)."""
    tuned = model.score(passages, adapter=True, clock=CLOCK)
    base = model.score(passages, adapter=False, clock=CLOCK)
    return [float(b.nll.sum() - t.nll.sum()) for t, b in zip(tuned, base, strict=True)]


def plain(model: TunedModel, causal: Any, passages: Sequence[Passage]) -> list[float]:
    """The same scores one conversation at a time, with full logits."""
    out = []
    for p in passages:
        nll = []
        for adapter in (True, False):
            with model.using(adapter):
                logits = causal(input_ids=torch.tensor([p.ids], device=model.device), use_cache=False).logits[0].float()
            logp = torch.log_softmax(logits, -1)
            nll.append(-sum(float(logp[place - 1, p.ids[place]]) for place in p.marks))
        out.append(nll[1] - nll[0])
    return out


def forward_tokens_per_s(model: TunedModel, rows: int = 64, length: int = 96) -> float:
    """Whole texts with every second token scored, as for test losses."""
    rng = random.Random(2)
    texts = [tuple(rng.randrange(100, 30_000) for _ in range(length)) for _ in range(rows)]
    passages = [Passage(t, tuple(range(length // 2, length))) for t in texts]
    start = time.perf_counter()
    model.score(passages, adapter=True, clock=CLOCK)
    return rows * length / (time.perf_counter() - start)


def new_tokens_per_s(model: TunedModel, rows: int = 64, tokens: int = 24) -> float:
    """Sampled generations on prompts of 48 tokens."""
    rng = random.Random(3)
    prompts = [tuple(rng.randrange(100, 30_000) for _ in range(48)) for _ in range(rows)]
    start = time.perf_counter()
    written = model.write(prompts, Decoding(tokens, frozenset(), 1), adapter=True, clock=CLOCK)
    return sum(map(len, written)) / (time.perf_counter() - start)


def timed(function: Any, *arguments: Any) -> tuple[float, list[float]]:
    """Seconds and result."""
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


def main() -> None:
    """Runs the comparison and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    home = Path(os.environ.get("ASSAY_HOME") or Path.home() / ".cache" / "assay")
    parser.add_argument("--models", type=Path, default=home / "models", help="folder of installed base models")
    parser.add_argument("--base", default="smollm2-135m-instruct")
    parser.add_argument("--canaries", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    manifest = modelfiles.read_base_manifest(options.models / options.base)
    with tempfile.TemporaryDirectory() as folder:
        files = options.models / options.base / modelfiles.BASE_FILES
        adapter = write_adapter(files, options.base, Path(folder, "adapter"))
        model = load(options.models, options.base, manifest.sha256, adapter)
    passages = canaries(Chat(model.tokenizer), options.canaries)
    causal = model._wrapped.get_base_model()
    ratios, differences = [], []
    for _ in range(options.rounds):
        quick, scores = timed(ours, model, passages)
        slow, expected = timed(plain, model, causal, passages)
        ratios.append(slow / quick)
        differences += [abs(a - b) for a, b in zip(scores, expected, strict=True)]
    print(
        json.dumps(
            {
                "ratio_plain": {
                    "median": round(statistics.median(ratios), 2),
                    "low": round(min(ratios), 2),
                    "high": round(max(ratios), 2),
                },
                "score_difference_nats": {
                    "mean": round(statistics.mean(differences), 4),
                    "largest": round(max(differences), 4),
                },
                "forward_tokens_per_s": round(forward_tokens_per_s(model)),
                "new_tokens_per_s": round(new_tokens_per_s(model)),
                **bootstrap.measure(),
                "canaries": options.canaries,
                "tokens_a_canary": round(statistics.mean(len(p.ids) for p in passages)),
                "environment": {k: model.environment[k] for k in ("device", "dtype", "processor", "torch", "threads")},
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
