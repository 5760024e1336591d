"""Checkpoints of a run: everything a bit-exact resume needs, in safetensors and JSON, never pickle, and encrypted.

A checkpoint is one file ``step-<n>``: position, curve and counters as JSON, and the tensors (masters, both AdamW
moments, the random generators' states, the best adapter so far, a private run's secret and noise), sealed with
AES-256-GCM under the task's key. It appears by one rename after everything is on the disk, so a killed run finds either
the old one or the new one.
The one before is kept: a run whose newest checkpoint is damaged goes on from there, and says so.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from assay import digests, durable, sealed_file
from assay.errors import ExhaustedError, IntegrityError, UnavailableError

if TYPE_CHECKING:
    import torch

_KEPT = 2
_DAMAGED = "damaged-"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


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
        tensors_sha256: digest of the tensors of the checkpoint that was written last.
        damaged: checkpoints that were found damaged and passed over.
        processes: that the run shares its rows out to; a resume among another number would round otherwise.
        environments: digests of the environment locks that the run was computed in, in order; one, unless it was
            resumed on a machine that differs or had been changed.
        micro_batch_tokens: tokens of rows that one pass may hold, 0 for no bound; of the machine that began the run,
            since parts of another size would be rounded otherwise.
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
    tensors_sha256: str = ""
    damaged: int = 0
    processes: int = 1
    environments: list[str] = field(default_factory=list)
    micro_batch_tokens: int = 0

    def compute_in(self, environment: str) -> None:
        """Notes where the steps to come are computed."""
        if environment and environment not in self.environments:
            self.environments.append(environment)


def save(folder: Path, state: RunState, tensors: Mapping[str, torch.Tensor], key: bytes) -> None:
    """Stores a checkpoint and removes those before the last.

    Raises:
        ExhaustedError: ``DISK_FULL``; the checkpoint before is whole.
    """
    from safetensors.torch import save as encode

    final = folder / f"step-{state.step:08d}"
    # A run that ends at a step which is stored already would name a digest of tensors that lie nowhere.
    if final.exists():
        return
    data = encode({k: t.detach().contiguous().cpu() for k, t in sorted(tensors.items())})
    state.tensors_sha256 = digests.sha256_bytes(data)
    put(final, json.dumps(asdict(state)).encode(), data, key, f"the checkpoint of step {state.step}")
    for old in _steps(folder)[:-_KEPT]:
        os.unlink(old)


def put(final: Path, head: bytes, body: bytes, key: bytes, what: str) -> None:
    """Stores a sealed file by one rename; ``what`` names it in the error.

    Raises:
        ExhaustedError: ``DISK_FULL``; what was there before is whole.
    """
    folder = final.parent
    staging = folder / ".partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sealed_file.write(staging, head, body, key)
        durable.sync(staging)
        staging.rename(final)
        durable.sync(folder)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        staging.unlink(missing_ok=True)
        raise ExhaustedError(
            "DISK_FULL",
            f"there is no room for {what}",
            remedy="free space on the worker's disk; the checkpoint before is whole",
        ) from error


def load(folder: Path, fingerprint: str, key: bytes) -> tuple[RunState, dict[str, torch.Tensor]] | None:
    """Reads the newest whole checkpoint; None where there is none at all.

    Raises:
        IntegrityError: ``CHECKPOINT_DAMAGED`` when there are some and none is whole, ``CHECKPOINT_FOREIGN`` when it
            belongs to another run.
        UnavailableError: ``CHECKPOINT_UNREADABLE``.
    """
    from safetensors.torch import load as decode

    found = _steps(folder)
    for damaged, path in enumerate(reversed(found)):
        try:
            head, data = opened(path, key)
        except IntegrityError:
            continue
        state = RunState(**json.loads(head))
        if state.fingerprint != fingerprint:
            raise IntegrityError("CHECKPOINT_FOREIGN", f"checkpoint {path.name} belongs to another run")
        for passed in found[len(found) - damaged :]:
            set_aside(passed)
        # A checkpoint of an earlier release has only its own count.
        state.damaged = max(state.damaged, set_aside_in(folder))
        state.curve = [(int(s), float(v)) for s, v in state.curve]
        state.validation = [(int(s), float(v)) for s, v in state.validation]
        return state, decode(data)
    if found:
        raise IntegrityError("CHECKPOINT_DAMAGED", "no checkpoint of this run is whole", remedy="ask for the job again")
    return None


def opened(path: Path, key: bytes) -> tuple[bytes, bytes]:
    """Head and body of a sealed file of a run; one that a disk or a limit keeps from being read is not a damaged one.

    Raises:
        IntegrityError: ``SEALED_FILE``, as :func:`assay.sealed_file.read`.
        UnavailableError: ``CHECKPOINT_UNREADABLE``.
    """
    try:
        return sealed_file.read(path, key)
    except OSError as error:
        raise UnavailableError(
            "CHECKPOINT_UNREADABLE",
            f"{path.name} cannot be read: {os.strerror(error.errno or 0)}",
            remedy="look at the worker's disk and at its limit of open files, then let the job go on",
        ) from error


def set_aside(path: Path) -> None:
    """Takes a damaged file out of the way, of which its name stays: a count that is kept elsewhere could be lost."""
    aside = path.with_name(f"{_DAMAGED}{set_aside_in(path.parent) + 1}")
    path.rename(aside)
    # Nothing can be read of it, and of full tuning it has more than a gigabyte.
    os.truncate(aside, 0)


def set_aside_in(folder: Path) -> int:
    """How many files of a folder were found damaged so far."""
    return len(list(folder.glob(f"{_DAMAGED}*")))


def _steps(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*")) if folder.is_dir() else []
