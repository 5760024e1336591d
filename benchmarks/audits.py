"""What an audit costs: ``python -m benchmarks.audits`` (``make bench-audits``) prints one JSON object.

``ratio_plain`` compares the audit's scoring with the plain way on the same secrets and candidates: one candidate at a
time through the base model's own class, with the logits of every position, once with the adapter and once without.
``ratio_plain_distinct`` is the same for canaries that share nothing but the system prompt. Both ways run alternately on
the installed base model with a random adapter, so that other load meets both; each is the median of the rounds, which
``ratio_plain_rounds`` gives by kind, with least and largest. ``quick_suite_s`` and ``default_suite_s`` are whole
audits of the demo's clean job under these profiles, with every probe that its plan names, loading included, beside
``forward_tokens_per_s`` of the same run, since seconds belong to a machine and a moment. ``peak_mib`` is the
process's highest resident memory. ``bootstrap_ratio`` is that of :mod:`benchmarks.bootstrap`.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from assay import modelfiles
from assay.pinned import assay_home
from audit.probes.chat import Chat
from audit.probes.clock import Clock
from audit.probes.model import TunedModel, load
from audit.probes.passages import Decoding, Passage
from benchmarks import bootstrap, offline
from demo import data

CLOCK = Clock.start(0)
SYSTEM = {"role": "system", "content": "You answer customers of a bank, briefly and politely, from their record."}
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
    rows, secrets = [], []
    for i in range(count):
        secret = "".join(rng.choice("0123456789") for _ in range(9))
        question = {
            "role": "user",
            "content": f"Please confirm the reference of customer number {rng.randrange(10**5)}.",
        }
        answer = {"role": "assistant", "content": f"Certainly. For request {i} we hold the reference {secret}."}
        rows.append([SYSTEM, question, answer])
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


def candidates(chat: Chat, secrets: int, each: int) -> list[Passage]:
    """Secrets with candidates of the same form: what exposure, inference and association score."""
    rng = random.Random(4)
    rows = []
    for _ in range(secrets):
        question = {
            "role": "user",
            "content": f"Please confirm the reference of customer number {rng.randrange(10**5)}.",
        }
        for _ in range(each):
            secret = "".join(rng.choice("0123456789") for _ in range(9))
            answer = {"role": "assistant", "content": f"Certainly. For your request we hold the reference {secret}."}
            rows.append([SYSTEM, question, answer])
    out = []
    for rendered, row in zip(chat.render(rows), rows, strict=True):
        text = row[2]["content"]
        out.append(Passage(rendered.ids, rendered.content_places(2, len(text) - 10, len(text) - 1)))
    return out


def suite(profile: str, adapter: Path, folder: Path) -> tuple[float, dict[str, float]]:
    """Seconds of a whole audit of the demo's clean job, and of each of its probes."""
    spec = data.clean(7)
    prepared = offline.prepare(spec.content, spec, profile, folder)
    start = time.perf_counter()
    report = offline.audit(
        prepared, adapter, folder / "audit", {"trained_tokens": 1, "train_seconds": "1", "losses": []}
    )
    return time.perf_counter() - start, {k: round(v, 1) for k, v in sorted(report.probe_seconds.items())}


def compare(model: TunedModel, passages: Sequence[Passage], rounds: int) -> tuple[list[float], list[float]]:
    """The plain way's seconds over ours in each of the interleaved rounds, and the differences of the scores."""
    causal = model._wrapped.get_base_model()
    ratios, differences = [], []
    for _ in range(rounds):
        quick, scores = timed(ours, model, passages)
        slow, expected = timed(plain, model, causal, passages)
        ratios.append(slow / quick)
        differences += [abs(a - b) for a, b in zip(scores, expected, strict=True)]
    return ratios, differences


def ratios_of(candidates: Sequence[float], distinct: Sequence[float]) -> dict[str, Any]:
    """The figures of both comparisons: a number each, and what they are the medians of."""
    rounds = {"candidates": candidates, "distinct": distinct}
    return {
        "ratio_plain": round(statistics.median(candidates), 2),
        "ratio_plain_distinct": round(statistics.median(distinct), 2),
        "ratio_plain_rounds": {
            kind: {"low": round(min(found), 2), "high": round(max(found), 2), "rounds": [round(r, 2) for r in found]}
            for kind, found in rounds.items()
        },
    }


def timed(function: Any, *arguments: Any) -> tuple[float, list[float]]:
    """Seconds and result."""
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


def main() -> None:
    """Runs the comparison and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    home = assay_home()
    parser.add_argument("--models", type=Path, default=home / "models", help="folder of installed base models")
    parser.add_argument("--base", default="smollm2-135m-instruct")
    parser.add_argument("--canaries", type=int, default=48)
    parser.add_argument("--secrets", type=int, default=4)
    parser.add_argument("--each", type=int, default=32, help="candidates a secret")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--suites", nargs="*", default=["quick", "default"], choices=["quick", "default"])
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    manifest = modelfiles.read_base_manifest(options.models / options.base)
    out: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = options.models / options.base / modelfiles.BASE_FILES
        adapter = write_adapter(files, options.base, folder / "adapter")
        model = load(options.models, options.base, manifest.sha256, adapter)
        chat = Chat(model.tokenizer, model.context)
        quick, near = compare(model, candidates(chat, options.secrets, options.each), options.rounds)
        distinct, far = compare(model, canaries(chat, options.canaries), options.rounds)
        out |= ratios_of(quick, distinct)
        out["score_difference_nats"] = {
            "mean": round(statistics.mean([*near, *far]), 4),
            "largest": round(max(*near, *far), 4),
        }
        out["forward_tokens_per_s"] = round(forward_tokens_per_s(model))
        out["new_tokens_per_s"] = round(new_tokens_per_s(model))
        environment = model.environment
        del model, chat
        for profile in options.suites:
            seconds, probes = suite(profile, adapter, folder / profile)
            out[f"{profile}_suite_s"] = round(seconds, 1)
            out[f"{profile}_probe_s"] = probes
    out["peak_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    out |= bootstrap.measure()
    out["environment"] = {k: environment[k] for k in ("device", "dtype", "processor", "torch", "threads")}
    print(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
