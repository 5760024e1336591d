"""What a GPU does inside the sandbox: ``python -m benchmarks.gpu_check`` prints one JSON object.

A real train worker with keys of its own runs the product's train task: twice whole and once paused and resumed. The
object says whether the cut-off was proven with the device bound in, whether the three adapters have the same bits, how
fast it trained beside a large matrix product of the same process, what the driver's energy counter said, and how far
the GPU's losses are from the CPU's; where bitsandbytes is installed the same of ``qlora``, and the most memory that a
step of either method took on the device. Where there are two GPUs, a worker that trains in two processes runs twice
more, and the object says how far its loss curve is from one process's. ``failed`` names what must hold and does not, on
a GPU also its energy counter and bf16. The exit status is 0 where it names nothing, 1 where it names something, and 2
where nothing was run: without a GPU the check says so and measures nothing, unless ``--device cpu`` asks to try the
check itself. It measures an installed base model, or the same
architecture with random weights (``--random-weights FILES``, a folder with config and tokenizer), which tunes equally
fast and means nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import io
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from assay import bundle, canonical, digests, dsse, provenance
from assay.digests import sha256_bytes
from assay.identity import raw_public, write_key
from assay.modelfiles import read_base_manifest
from assay.pinned import assay_home
from assay.worker.sandbox import TaskModule
from assay.worker.settings import TASK_MODULES, WorkerKeys, WorkerSettings
from assay.worker.spool import State
from assay.worker.supervisor import Snapshot, Supervisor
from trainer.base_models import DEFAULT_BASE_MODEL

JOB = "units/check/tuningJobs/gpu"
LOSS_TOLERANCE = 0.05
"""Of a step's loss in nats between one process and two; bf16, whose own rounding of a mean loss is a third of it."""
NOT_RUN = 2
"""Exit status of a check that measured nothing, which proves nothing."""
_WORDS = (
    "account balance branch card cheque clause client credit customer deposit fee form interest letter loan month "
    "mortgage note number office order paper payment policy question rate reply request review rule statement sum "
    "term ticket transfer week year"
).split()


@dataclass(frozen=True)
class Scale:
    """How large the run is: rows, words an answer, epochs and rows a step."""

    rows: int
    words: int
    epochs: float
    batch: int


class Worker:
    """A train worker in a folder, its gateway's keys, and tasks sealed to it."""

    def __init__(self, folder: Path, models: Path, processes: int = 1) -> None:
        self.folder, self.permit, self.sealing = folder, Ed25519PrivateKey.generate(), X25519PrivateKey.generate()
        folder.mkdir(parents=True)
        write_key(folder / "statement.key", Ed25519PrivateKey.generate())
        write_key(folder / "seal.key", X25519PrivateKey.generate())
        public = {"permit_key": raw_public(self.permit).hex(), "sealing_key": raw_public(self.sealing).hex()}
        (folder / "gateway.pub").write_text(json.dumps(public))
        (folder / "worker.toml").write_text(
            'listen = "127.0.0.1:0"\nsubject = "spiffe://check.local/services/train-worker"\nkinds = ["train"]\n'
            f'slot_file = "slot"\nmodels_dir = "{models}"\nprocesses = {processes}\n'
        )
        self.keys = WorkerKeys.load(folder)
        table = {"train": TaskModule.installed(TASK_MODULES["train"])}
        self.supervisor = Supervisor(folder, WorkerSettings.load(folder), self.keys, table)

    async def submit(self, task_id: str, files: dict[str, bytes], order: dict[str, Any]) -> None:
        """Seals a task and hands it in."""
        facts = {
            "job": JOB,
            "train_sha256": sha256_bytes(files["train.jsonl"]),
            "validation_sha256": sha256_bytes(files["validation.jsonl"]),
            **order,
        }
        signed = dsse.sign_service(canonical.encode(dsse.statement("work-order", facts, [])), self.permit)
        manifest = {"task_id": task_id, "kind": "train", "job": JOB, "unit": "check", "order": {"order": signed}}
        out = io.BytesIO()
        bundle.seal(files, manifest, self.keys.seal.public_key(), self.permit, out)
        path = self.supervisor.incoming()
        path.write_bytes(out.getvalue())
        await self.supervisor.submit(task_id, "train", sha256_bytes(out.getvalue()), path)

    async def follow(self, task_id: str, see: Callable[[Snapshot], None] = lambda snapshot: None) -> Snapshot:
        """Watches a task to its end or pause."""
        last: Snapshot | None = None
        async for last in self.supervisor.watch(task_id):
            see(last)
        if last is None:
            raise RuntimeError("the worker said nothing of the task")
        return last

    def result(self, task_id: str, into: Path) -> dict[str, Any]:
        """Opens a result and returns the members of the worker's statement."""
        signer = self.keys.statement.public_key()
        with self.supervisor.result(task_id).open("rb") as stream:
            bundle.unseal(stream, self.sealing, signer, into, max_bytes=1 << 34)
        envelope = canonical.decode((into / "statement.json").read_bytes())
        return provenance.read_training(dsse.verify_service(envelope, signer).statement)


def chat_rows(count: int, words: int, seed: int) -> bytes:
    """Chat rows of invented sentences."""
    pick = random.Random(seed)
    lines = []
    for n in range(count):
        asked, answer = (" ".join(pick.choices(_WORDS, k=k)) for k in (words // 3, words))
        messages = [
            {"role": "user", "content": f"Ticket {n}: {asked}?"},
            {"role": "assistant", "content": f"{answer}."},
        ]
        lines.append(json.dumps({"messages": messages}))
    return ("\n".join(lines) + "\n").encode()


def random_base(files: Path, models: Path) -> str:
    """Installs a base model of a folder's configuration and tokenizer with random weights; returns its id."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder = models / DEFAULT_BASE_MODEL
    (folder / "files").mkdir(parents=True)
    for path in files.iterdir():
        if path.suffix != ".safetensors":
            (folder / "files" / path.name).write_bytes(path.read_bytes())
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(files)).to(torch.bfloat16)
    model.save_pretrained(folder / "files", safe_serialization=True)
    for path in (folder / "files").iterdir():
        path.chmod(0o644)  # the sandbox reads it under a uid of its own
    found = digests.folder_manifest(folder / "files")
    manifest = {
        "id": DEFAULT_BASE_MODEL,
        "licence": "Apache-2.0",
        "provenance": "random weights, for a check of the machine",
        "parameters": sum(p.numel() for p in model.parameters()),
        "files": [{"path": f.path, "sha256": f.sha256, "size": f.size} for f in found.files],
        "sha256": found.sha256,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return DEFAULT_BASE_MODEL


async def runs(folder: Path, models: Path, scale: Scale, method: str = "lora") -> dict[str, Any]:
    """Trains whole, whole again, and with a pause in the middle."""
    worker, names = Worker(folder / "worker", models), ("first", "second", "paused")
    found = await _all(worker, folder, names, models, scale, "0.1", method)
    first, statements = found["first"], [f["statement"] for f in found.values()]
    claim, meter = first["statement"]["claim"], first["statement"]["meter"]
    return {
        "isolation_proven": all(s["isolation"]["proven"] for s in statements),
        "isolation_probes": len(first["statement"]["isolation"]["probes"]),
        "device": claim["device"],
        "device_name": claim["device_name"],
        "dtype": claim["dtype"],
        "trained_tokens": claim["trained_tokens"],
        "tokens_per_s": round(claim["trained_tokens"] / float(claim["train_seconds"]), 1),
        "steps": claim["steps"],
        "first_loss": claim["losses"][0][1],
        "last_loss": claim["losses"][-1][1],
        "two_runs_bit_equal": first["adapter"] == found["second"]["adapter"],
        "resumed_bit_equal": first["adapter"] == found["paused"]["adapter"],
        "resumed_after_step": found["paused"]["paused_at"],
        "adapter_sha256": first["adapter"],
        "wall_ms": meter["wall_ms"],
        "cpu_ms": meter["cpu_ms"],
        "energy_uwh": meter["energy_uwh"],
        "energy_method": meter["energy_method"],
        "peak_mib": round(meter["max_rss_bytes"] / 2**20),
    }


async def two_processes(folder: Path, models: Path, scale: Scale) -> dict[str, Any]:
    """Trains in one process and twice in two, without dropout, whose draws each process makes for itself."""
    one = await _all(Worker(folder / "one-process", models), folder, ("alone",), models, scale, "0")
    two = await _all(Worker(folder / "two-processes", models, 2), folder, ("two", "two-again"), models, scale, "0")
    alone, shared = one["alone"]["statement"]["claim"], two["two"]["statement"]["claim"]
    curves = [[float(loss) for _, loss in claim["losses"]] for claim in (alone, shared)]
    speeds = [claim["trained_tokens"] / float(claim["train_seconds"]) for claim in (alone, shared)]
    return {
        "processes": shared["processes"],
        "backend": shared.get("process_backend", ""),
        "isolation_proven": all(run["statement"]["isolation"]["proven"] for run in two.values()),
        "two_runs_bit_equal": two["two"]["adapter"] == two["two-again"]["adapter"],
        "furthest_loss": round(max(abs(a - b) for a, b in zip(*curves, strict=True)), 6),
        "tokens_per_s": [round(speed, 1) for speed in speeds],
    }


async def _all(
    worker: Worker,
    folder: Path,
    names: Sequence[str],
    models: Path,
    scale: Scale,
    dropout: str,
    method: str = "lora",
) -> dict[str, dict[str, Any]]:
    """Runs of one order on one worker, by name."""
    files = {"train.jsonl": chat_rows(scale.rows, scale.words, 1), "validation.jsonl": chat_rows(16, scale.words, 2)}
    order = {
        "method": method,
        "base_model": DEFAULT_BASE_MODEL,
        "base_sha256": read_base_manifest(models / DEFAULT_BASE_MODEL).sha256,
        "hyperparameters": {
            "epochs": str(scale.epochs),
            "learning_rate": "0.0002",
            "batch_size": scale.batch,
            "lora_rank": 16,
            "lora_dropout": dropout,
            "seed": 7,
        },
        "max_train_tokens": 1 << 40,
    }
    await worker.supervisor.start()
    try:
        return {name: await _one(worker, folder, name, files, order) for name in names}
    finally:
        await worker.supervisor.stop()


async def _one(
    worker: Worker, folder: Path, name: str, files: dict[str, bytes], order: dict[str, Any]
) -> dict[str, Any]:
    """One run; the one called ``paused`` is asked to stop after its second step and then goes on."""
    paused_at = 0

    def ask(snapshot: Snapshot) -> None:
        running = snapshot.record.state is State.RUNNING
        if name == "paused" and running and snapshot.progress.step >= 2 and not snapshot.record.pause_requested:
            worker.supervisor.pause(name)

    await worker.submit(name, files, order)
    last = await worker.follow(name, ask)
    if last.record.state is State.PAUSED:
        paused_at = last.progress.step
        worker.supervisor.resume(name)
        last = await worker.follow(name)
    if last.record.state is not State.DONE:
        raise SystemExit(f"the {name} run ended {last.record.state.value}: {last.record.reason}")
    statement = worker.result(name, folder / name)
    return {
        "statement": statement,
        "adapter": digests.sha256_file(folder / name / "adapter" / "adapter_model.safetensors"),
        "paused_at": paused_at,
    }


def device_facts(device: str) -> dict[str, Any]:
    """The accelerator as torch sees it, and the rate of a large bf16 matrix product in teraflop a second."""
    import torch

    size, rounds = (8192, 20) if device == "cuda" else (1024, 5)
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    _finish(device)
    begin = time.perf_counter()
    for _ in range(rounds):
        a @ b
    _finish(device)
    rate = 2 * size**3 * rounds / (time.perf_counter() - begin) / 1e12
    facts: dict[str, Any] = {"torch": torch.__version__, "matmul_bf16_tflops": round(rate, 1)}
    if device == "cuda":
        facts |= {"cuda": torch.version.cuda, "capability": list(torch.cuda.get_device_capability(0))}
    return facts


def loss_difference(models: Path, device: str, words: int) -> dict[str, Any]:
    """How far row losses on the device are from fp32 on the CPU, in nats a token: the declared tolerance's evidence."""
    import torch
    from transformers import AutoTokenizer

    from trainer.device import Device
    from trainer.recipes.lora import load
    from trainer.recipes.objectives import row_losses
    from trainer.recipes.rows import Encoder
    from trainer.settings import Settings

    files = models / DEFAULT_BASE_MODEL / "files"
    tokenizer = AutoTokenizer.from_pretrained(files, local_files_only=True)
    lines = chat_rows(16, words, 3).splitlines()
    rows = [row.plain for row in Encoder(tokenizer, 1024).encode(json.loads(line) for line in lines).rows]
    losses = []
    for place in (Device("cpu", "float32", ""), Device(device, "bfloat16", "")):
        model = load(files, Settings(), place, max(len(row.tokens) for row in rows))
        model.backbone.eval()
        with torch.inference_mode():
            losses.append(row_losses(model, rows, place).float().cpu())
    gap = (losses[0] - losses[1]).abs()
    return {"rows": len(rows), "mean": round(float(gap.mean()), 5), "largest": round(float(gap.max()), 5)}


def qlora(folder: Path, models: Path, device: str, scale: Scale) -> dict[str, Any] | str:
    """The runs with base weights in four bits, and the device's memory beside LoRA's; words where the library lacks."""
    if importlib.util.find_spec("bitsandbytes") is None:
        return "not run: bitsandbytes is not installed (make qlora)"
    found = asyncio.run(runs(folder, models, scale, "qlora"))
    memory = {method: step_bytes(models, device, scale, method) for method in ("lora", "qlora")}
    return {**found, "device_bytes_of_a_step": memory}


def step_bytes(models: Path, device: str, scale: Scale, method: str) -> int | None:
    """The most memory that a step takes on the device, weights included; None on a CPU, which does not count it."""
    import torch
    from transformers import AutoTokenizer

    from trainer.device import choose_device
    from trainer.recipes.lora import load
    from trainer.recipes.objectives import row_losses
    from trainer.recipes.rows import Encoder
    from trainer.settings import Settings

    if device != "cuda":
        return None
    files, place = models / DEFAULT_BASE_MODEL / "files", choose_device()
    tokenizer = AutoTokenizer.from_pretrained(files, local_files_only=True)
    lines = chat_rows(scale.batch, scale.words, 3).splitlines()
    rows = [row.plain for row in Encoder(tokenizer, 1024).encode(json.loads(line) for line in lines).rows]
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    model = load(files, Settings(), place, max(len(row.tokens) for row in rows), quantised=method == "qlora")
    row_losses(model, rows, place).mean().backward()
    return int(torch.cuda.max_memory_allocated())


def _two(device: str) -> bool:
    """Whether two processes can train here, each on a device of its own."""
    import torch

    return device == "cpu" or torch.cuda.device_count() >= 2


def _finish(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def failed(found: dict[str, Any], device: str) -> list[str]:
    """What must hold and does not, in words: the check's verdict, empty where it passed.

    Args:
        found: the object that the check prints.
        device: that was asked for.
    """
    out = [] if found["device"] == device else [f"trained on {found['device']}, not on {device}"]
    for method in ("lora", "qlora"):
        one = found if method == "lora" else found[method]
        if isinstance(one, dict):
            held = ("isolation_proven", "two_runs_bit_equal", "resumed_bit_equal")
            out += [f"{method}: {member} is false" for member in held if not one[member]]
            if device == "cuda" and "NVML" not in one["energy_method"]:
                out.append(f"{method}: the GPU's energy was not measured: pip install -c constraints.txt '.[gpu]'")
            if device == "cuda" and one["dtype"] != "bfloat16":
                out.append(f"{method}: trained in {one['dtype']}, not in bfloat16")
    two = found["two_processes"]
    if isinstance(two, dict):
        out += [f"two_processes: {m} is false" for m in ("isolation_proven", "two_runs_bit_equal") if not two[m]]
        if two["processes"] != 2:
            out.append(f"two_processes: {two['processes']} trained")
        if not two["furthest_loss"] < LOSS_TOLERANCE:
            out.append(f"two_processes: losses differ by {two['furthest_loss']}, at most {LOSS_TOLERANCE} is expected")
    return out


def main() -> int:
    """Runs and prints; exit status 1 when something that must hold does not, :data:`NOT_RUN` when nothing was run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--random-weights", type=Path, metavar="FILES", help="config and tokenizer to fill at random")
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--words", type=int, default=120)
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--batch", type=int, default=32)
    options = parser.parse_args()
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        print(json.dumps({"run": False, "why": "torch sees no CUDA device on this machine"}))
        return NOT_RUN
    scale = Scale(options.rows, options.words, options.epochs, options.batch)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = assay_home() / "models"
        if options.random_weights:
            models = folder / "models"
            random_base(options.random_weights, models)
        found = {
            "run": True,
            "weights": "random" if options.random_weights else DEFAULT_BASE_MODEL,
            **device_facts(options.device),
            **asyncio.run(runs(folder, models, scale)),
            "two_processes": asyncio.run(two_processes(folder, models, scale)) if _two(options.device) else "not run",
            "loss_difference_to_cpu_fp32": loss_difference(models, options.device, options.words),
            "qlora": qlora(folder / "qlora", models, options.device, scale),
        }
    found["failed"] = failed(found, options.device)
    print(json.dumps(found, indent=1))
    return 1 if found["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
