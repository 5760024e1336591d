"""One run of one trainer in a process of its own, for ``benchmarks/training.py``: prints one JSON line.

``ours`` runs the product's train task, ``trl`` runs TRL's SFTTrainer on the same rows with the same adapter shape,
rate, schedule and batch size, ``score`` measures an adapter's loss on the validation rows by the same code for both,
``count`` counts the floating-point operations of our own step. Only the process that is timed knows how much memory it
took, so that none of them shares one.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import offline
from trainer.recipes.rows import EncodedRow, Encoder, read_rows

MATRIX = 2048
_ROUNDS = 12


def encoded(split: Path, longest: int) -> tuple[EncodedRow, ...]:
    """The rows of a split as both trainers see them."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(offline.MODELS / offline.BASE_MODEL / "files", local_files_only=True)
    return tuple(row.plain for row in Encoder(tokenizer, longest).encode(read_rows(split)).rows)


def ours(
    prepared: Path, settings: Mapping[str, Any], folder: Path, pause_at: int = 0, epsilon: float = 0.0
) -> dict[str, Any]:
    """The product's train task, without sandbox.

    Args:
        prepared: folder with the rows.
        settings: hyperparameters.
        folder: to work in.
        pause_at: step after which it is stopped and resumed once; 0 for none.
        epsilon: at which it trains with DP-SGD, for rows at delta 1e-5; 0 for without.
    """
    from assay.worker.task import TaskContext, TaskPaused
    from trainer import task

    def watch(line: bytes) -> None:
        if json.loads(line)["step"] == pause_at and pause_at and not paused.exists():
            paused.touch()
            plain.pause_flag.touch()

    paused = folder / "paused"
    order = offline.order(settings)
    if epsilon:
        order["differential_privacy"] = {"epsilon": epsilon, "delta": 1e-5, "unit": "row"}
    plain = offline.context("train", order, prepared, folder)
    context = TaskContext(**{**vars(plain), "send": watch})
    stopped = False
    try:
        claim = task.run(context)
    except TaskPaused:
        stopped = True
        context.pause_flag.unlink()
        claim = task.run(context)
    if bool(pause_at) != stopped:
        raise SystemExit(f"the run was to be stopped after step {pause_at} and had no step after it")
    return {
        "seconds": float(claim["train_seconds"]),
        "tokens": claim["trained_tokens"],
        "peak_mib": peak_mib(),
        "matmul_flops": matmul_flops(claim["dtype"]),
        "dtype": claim["dtype"],
        "adapter": str(context.outputs / "adapter"),
    }


def trl(prepared: Path, settings: Mapping[str, Any], folder: Path, variant: Mapping[str, Any]) -> dict[str, Any]:
    """TRL's trainer; ``variant`` holds what is not left at its default."""
    import datasets
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    datasets.disable_progress_bars()
    rows = [row["messages"] for row in read_rows(prepared / "train.jsonl")]
    pairs = datasets.Dataset.from_list([{"prompt": m[:-1], "completion": m[-1:]} for m in rows])
    arguments = {
        "output_dir": str(folder / "trl"),
        "num_train_epochs": float(settings["epochs"]),
        "learning_rate": float(settings["learning_rate"]),
        "per_device_train_batch_size": int(settings["batch_size"]),
        "max_length": int(settings["max_row_tokens"]),
        "warmup_steps": 0.06,
        "seed": int(settings["seed"]),
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
    }
    trainer = SFTTrainer(
        model=str(offline.MODELS / offline.BASE_MODEL / "files"),
        args=SFTConfig(**{**arguments, **variant}),
        train_dataset=pairs,
        peft_config=LoraConfig(
            task_type="CAUSAL_LM",
            r=int(settings["lora_rank"]),
            lora_alpha=int(settings["lora_alpha"]),
            target_modules="all-linear",
        ),
    )
    begin = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - begin
    peak = peak_mib()
    trainer.save_model(str(folder / "adapter"))
    return {"seconds": seconds, "peak_mib": peak, "adapter": str(folder / "adapter")}


def score(prepared: Path, longest: int, adapter: Path) -> dict[str, Any]:
    """Nats per answer token on the validation rows, in fp32, by peft and plain torch."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(
        offline.MODELS / offline.BASE_MODEL / "files", dtype=torch.float32, local_files_only=True
    )
    model = PeftModel.from_pretrained(base, adapter).eval()
    total, count = 0.0, 0
    with torch.inference_mode():
        for row in encoded(prepared / "validation.jsonl", longest):
            tokens = torch.tensor(row.tokens)
            chosen = torch.tensor(row.scored)[1:]
            logits = model(input_ids=tokens[None]).logits[0, :-1][chosen]
            total += float(torch.nn.functional.cross_entropy(logits, tokens[1:][chosen], reduction="sum"))
            count += int(chosen.sum())
    return {"validation_loss": total / count, "answer_tokens": count}


def count(prepared: Path, settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Floating-point operations of matrix products per trained token, counted by torch as they are dispatched.

    Without validation rows: what reads them is in a run's seconds and not in its trained tokens.
    """
    from torch.utils.flop_counter import FlopCounterMode

    from trainer import task

    rows = folder / "rows"
    rows.mkdir()
    (rows / "train.jsonl").write_bytes((prepared / "train.jsonl").read_bytes())
    (rows / "validation.jsonl").write_bytes(b"")
    order = offline.order({**settings, "epochs": 1.0})
    with FlopCounterMode(display=False) as counter:
        claim = task.run(offline.context("train", order, rows, folder))
    return {"flop_per_token": counter.get_total_flops() / claim["trained_tokens"]}


def matmul_flops(dtype: str) -> float:
    """Rate of a large square matrix product in this process, operations a second; the best of several."""
    import torch

    a, b = (torch.randn(MATRIX, MATRIX, dtype=getattr(torch, dtype)) for _ in range(2))
    times = []
    for _ in range(_ROUNDS):
        begin = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - begin)
    return 2 * MATRIX**3 / min(times)


def peak_mib() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one kind and prints what it measured, with the CPU seconds of the whole process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("ours", "trl", "score", "count"))
    parser.add_argument("--prepared", type=Path, required=True, help="folder with train.jsonl and validation.jsonl")
    parser.add_argument("--folder", type=Path, required=True, help="folder to work in")
    parser.add_argument("--settings", type=json.loads, required=True, help="hyperparameters as JSON")
    parser.add_argument("--variant", type=json.loads, default={}, help="SFTConfig fields as JSON")
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--pause-at", type=int, default=0, help="step after which to stop and resume once")
    parser.add_argument("--epsilon", type=float, default=0.0, help="train with DP-SGD at this epsilon")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    match options.kind:
        case "ours":
            found = ours(options.prepared, options.settings, options.folder, options.pause_at, options.epsilon)
        case "trl":
            found = trl(options.prepared, options.settings, options.folder, options.variant)
        case "count":
            found = count(options.prepared, options.settings, options.folder)
        case _:
            found = score(options.prepared, int(options.settings["max_row_tokens"]), options.adapter)
    print(json.dumps({**found, "cpu_seconds": sum(os.times()[:2])}))


if __name__ == "__main__":
    main()
