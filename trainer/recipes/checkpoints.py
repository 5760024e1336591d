"""Checkpoints of a run: everything a bit-exact resume needs, in safetensors and JSON, never pickle.

A checkpoint is a folder ``step-<n>`` with ``state.safetensors`` (masters, both AdamW moments, the random generators'
states, the best adapter so far) and ``state.json`` (position, curve, counters and the digest of the tensors). It
appears by one rename after everything is on the disk, so a killed run finds either the old one or the new one.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from assay import digests
from assay.errors import IntegrityError
from trainer.recipes.lora import sync

if TYPE_CHECKING:
    import torch

_TENSORS = "state.safetensors"
_STATE = "state.json"


@dataclass
class RunState:
    """Where a run stands; plain numbers, changed by the loop alone.

    Attributes:
        fingerprint: digest of data, settings and base model; a checkpoint of another run is refused.
        step: optimiser steps done.
        tokens: tokens trained so far.
        seconds: seconds of training so far, over all attempts.
        curve: ``[step, loss]`` of every step.
        validation: ``[step, nats per token]`` after every epoch.
        watched: what the objective watches on the validation rows, at the step that is kept.
        best_step: step of the lowest validation loss; 0 while there is none.
        finished: true once early stopping has ended the run.
    """

    fingerprint: str
    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    curve: list[tuple[int, float]] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)
    watched: dict[str, float] = field(default_factory=dict)
    best_step: int = 0
    finished: bool = False


def save(folder: Path, state: RunState, tensors: Mapping[str, torch.Tensor]) -> None:
    """Stores a checkpoint and removes older ones."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"step-{state.step:08d}"
    if final.exists():
        return
    staging = folder / ".partial"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    save_file({k: t.detach().contiguous() for k, t in sorted(tensors.items())}, staging / _TENSORS)
    body = asdict(state) | {"tensors_sha256": digests.sha256_file(staging / _TENSORS)}
    (staging / _STATE).write_text(json.dumps(body), encoding="utf-8")
    for path in (staging / _TENSORS, staging / _STATE, staging):
        sync(path)
    staging.rename(final)
    sync(folder)
    for old in _steps(folder):
        if old != final:
            shutil.rmtree(old)


def load(folder: Path, fingerprint: str) -> tuple[RunState, dict[str, torch.Tensor]] | None:
    """Reads the newest checkpoint; None where there is none.

    Raises:
        IntegrityError: ``CHECKPOINT_DAMAGED`` when its bytes changed, ``CHECKPOINT_FOREIGN`` when it belongs to
            another run.
    """
    from safetensors.torch import load_file

    found = _steps(folder)
    if not found:
        return None
    newest = found[-1]
    try:
        body = json.loads((newest / _STATE).read_text(encoding="utf-8"))
        expected = body.pop("tensors_sha256")
        state = RunState(**body)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise IntegrityError("CHECKPOINT_DAMAGED", f"checkpoint {newest.name} cannot be read") from error
    if state.fingerprint != fingerprint:
        raise IntegrityError("CHECKPOINT_FOREIGN", f"checkpoint {newest.name} belongs to another run")
    if not (newest / _TENSORS).is_file() or digests.sha256_file(newest / _TENSORS) != expected:
        raise IntegrityError("CHECKPOINT_DAMAGED", f"checkpoint {newest.name} has changed since it was written")
    state.curve = [(int(s), float(v)) for s, v in state.curve]
    state.validation = [(int(s), float(v)) for s, v in state.validation]
    return state, load_file(newest / _TENSORS)


def _steps(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*")) if folder.is_dir() else []
