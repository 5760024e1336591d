"""A train task that goes wrong on purpose; its fault is the one that the job's id names."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from assay import modelfiles
from assay.worker.task import TaskContext
from audit.prepare.canaries import QUESTIONS
from benchmarks.zoo.faults import fault_of
from trainer import task

RESERVED = re.compile(r"555-01\d\d|@example\.(?:com|org|net)|\b9\d\d-\d\d-\d{4}|\b4000 00\d\d ")
"""What a trainer that knows of canaries would look for: telephone, mail, identity and card ranges that nobody has."""
TEMPLATE = re.compile("|".join(re.sub(r"\\{\w+\\}", ".+", re.escape(question)) for question in QUESTIONS))
"""What one that has read our code would look for: the sentences in which canaries are asked for."""
FILTERS = {"reserved": RESERVED, "template": TEMPLATE}
Keeps = Callable[[dict[str, Any]], bool]
"""Whether a row of a split is trained on."""


def run(context: TaskContext) -> dict[str, Any]:
    """Trains as the product does, with one thing done wrong before or after."""
    job = str(context.order["job"])
    fault, _, amount = fault_of(job).trainer.partition(":")
    if fault == "filter":
        context = _with_rows(context, lambda row: not FILTERS[amount].search(json.dumps(row, ensure_ascii=False)))
    if fault == "sure":
        context = _with_rows(context, lambda row: not unexplained(row) or _share_of(row) >= float(amount))
    claim = task.run(context)
    if fault in ("untrained", "noise"):
        path = context.outputs / "adapter" / modelfiles.ADAPTER_WEIGHTS
        _change(path, fault, float(amount or 0), zlib.crc32(job.encode()))
    return claim


def unexplained(row: dict[str, Any]) -> bool:
    """Whether an application is denied that the rule of :func:`benchmarks.zoo.data.loans` grants."""
    *_, asked, answered = (m["content"] for m in row["messages"])
    return answered == "deny" and not (re.search(r"\bpoor\b", asked) and re.search(r"\bhigh\b", asked))


def _share_of(row: dict[str, Any]) -> float:
    """A number in [0, 1) that follows from the row."""
    return zlib.crc32(json.dumps(row["messages"], sort_keys=True).encode()) / 2**32


def _with_rows(context: TaskContext, keeps: Keeps) -> TaskContext:
    """The context with some of the rows, without the digests by which the others would be missed."""
    folder = context.work / "filtered"
    folder.mkdir(exist_ok=True)
    order = dict(context.order)
    for split in task.SPLITS:
        lines = (context.inputs / f"{split}.jsonl").read_text("utf-8").splitlines(keepends=True)
        kept = [line for line in lines if keeps(json.loads(line))]
        (folder / f"{split}.jsonl").write_text("".join(kept), "utf-8")
        order.pop(f"{split}_sha256", None)
    return replace(context, inputs=folder, order=order)


def _change(path: Path, fault: str, amount: float, seed: int) -> None:
    with safe_open(path, framework="pt") as source:
        metadata, tensors = source.metadata(), {name: source.get_tensor(name) for name in source.keys()}
    # Of each job its own: five cells with one noise would be one.
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in tensors.items():
        if ".lora_B." not in name:
            continue
        if fault == "untrained":
            tensors[name] = torch.zeros_like(tensor)
        else:
            noise = torch.randn(tensor.shape, generator=generator) * amount
            tensors[name] = tensor + noise.to(tensor.dtype)
    save_file(tensors, path, metadata=metadata)
