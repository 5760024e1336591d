"""What base weights in four bits cost and save: ``python -m benchmarks.qlora`` prints one JSON object.

The demo's questions are learned from the embedded base model. ``ratio_step`` is the seconds of a step's loss and
gradients by ``qlora`` over those by ``lora``, both in turns in one process, the median with its range. Then either
method trains in a process of its own on the same rows with the same seed and first adapter: ``peak_bytes`` is the
largest resident memory of the run; ``weight_bytes`` what the blocks' linear layers take in the model; ``losses`` the
curve; ``validation`` the loss on validation rows before and after; and ``on_the_published_base`` what the adapter of
``qlora`` has there on weights that are not rounded.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import offline
from benchmarks.packs import questions

METHODS = ("lora", "qlora")
VALIDATION = 64


def run(method: str, steps: int) -> dict[str, Any]:
    """Trains by one method in this process."""
    from transformers import AutoTokenizer

    from assay.modelfiles import ADAPTER_WEIGHTS, read_base_manifest
    from trainer.device import choose_device
    from trainer.recipes import lora
    from trainer.recipes.four_bit import matrix_of
    from trainer.recipes.loop import TuneJob, tune
    from trainer.recipes.objectives import objective_of
    from trainer.recipes.rows import Encoder
    from trainer.settings import Settings

    files, device = offline.MODELS / offline.BASE_MODEL / "files", choose_device()
    encoder = Encoder(AutoTokenizer.from_pretrained(files, local_files_only=True), 512)
    settings = Settings(batch_size=8, epochs=1.0, seed=7)
    rows = [{"messages": row["messages"]} for row in questions()]
    train, held = encoder.encode(iter(rows[: 8 * steps])), encoder.encode(iter(rows[-VALIDATION:]))
    with tempfile.TemporaryDirectory() as name:
        job = TuneJob(
            base=read_base_manifest(files.parent), base_files=files, train=train, validation=held, method=method,
            parent=None, settings=settings, device=device, checkpoints=Path(name, "checkpoints"),
            fingerprint="0" * 64, max_tokens=1 << 40, row_tokens=512, on_pause=RuntimeError, key=bytes(32),
        )  # fmt: skip
        result = tune(job, _Silent())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        found = {
            "peak_bytes": peak,
            "weight_bytes": sum(_bytes(matrix_of(layer)) for layer in _layers(result.model)),
            "losses": [round(loss, 4) for _, loss in result.state.curve],
            "validation": [round(result.watched_base["loss"], 4), round(result.state.watched["loss"], 4)],
            "tokens": result.state.tokens,
            "device": device.kind,
            "dtype": device.dtype,
        }
        if result.model.quantisation is not None:
            adapter = Path(name, "adapter")
            lora.save_adapter(result.model, settings, offline.BASE_MODEL, adapter)
            plain = lora.load(files, settings, device, 512, parent=adapter / ADAPTER_WEIGHTS)
            plain.publish_masters()
            plain.backbone.eval()
            watched = objective_of("lora").watch(plain, held.rows, device)
            found |= {"on_the_published_base": round(watched["loss"], 4), "library": result.model.quantisation.library}
    return found


class _Silent:
    """A control that nobody looks at."""

    def progress(self, *arguments: Any, **more: Any) -> None:
        """Says nothing."""

    def should_pause(self) -> bool:
        """Never."""
        return False


def _layers(model: Any) -> list[Any]:
    return [m for n, m in model.backbone.named_modules() if n.endswith(".base_layer")]


def _bytes(matrix: Any) -> int:
    held = getattr(matrix, "bytes", None)
    if held is None:
        weight = matrix()
        held = weight.numel() * weight.element_size()
    return int(held)


def in_turns(steps: int) -> dict[str, Any]:
    """Seconds of a step of ``qlora`` over those of the same step of ``lora``, both models in this process."""
    from transformers import AutoTokenizer

    from benchmarks.packs import SETTINGS, rows_of, timed
    from trainer.device import choose_device
    from trainer.recipes.lora import load
    from trainer.recipes.objectives import objective_of
    from trainer.recipes.plan import plan_batches

    files, device = offline.MODELS / offline.BASE_MODEL / "files", choose_device()
    rows = rows_of("lora", AutoTokenizer.from_pretrained(files, local_files_only=True))
    models = {method: load(files, SETTINGS, device, 256, quantised=method == "qlora") for method in METHODS}
    for model in models.values():
        model.backbone.train()
    ratios = []
    for n, batch in enumerate(plan_batches([row.length for row in rows], SETTINGS).batches[: steps + 1]):
        chosen = [rows[i] for i in batch]
        order = METHODS if n % 2 else METHODS[::-1]
        found = {method: timed(models[method], objective_of(method), chosen, device)[0] for method in order}
        if n:  # the first meets kernels that are not there yet
            ratios.append(found["qlora"] / found["lora"])
    limits = [round(min(ratios), 3), round(max(ratios), 3)]
    return {"ratio_step": round(statistics.median(ratios), 3), "range": limits, "timed_steps": len(ratios)}


def main() -> int:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--one", choices=METHODS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run(options.one, options.steps)))
        return 0
    if importlib.util.find_spec("bitsandbytes") is None:
        print(json.dumps({"run": False, "why": "bitsandbytes is not installed: make qlora"}))
        return 0
    out: dict[str, Any] = {}
    # First, while this process is small: a child's largest memory begins with its parent's.
    for method in METHODS:
        command = [sys.executable, "-m", "benchmarks.qlora", "--one", method, "--steps", str(options.steps)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        out[method] = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(out | in_turns(options.steps), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
