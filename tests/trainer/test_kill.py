"""Killed at random moments, a run ends bit for bit as one that was left alone.

Each case runs in a process of its own that ends itself with SIGKILL at a seeded moment: before or after a step, or
inside the writing of a checkpoint (half-written file, before and after the rename, before old ones are removed).
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.tiny_models import tiny_models

POINTS = 24
STEPS = 15
EVERY = 2
MOMENTS = ("step", "write", "half", "rename", "remove")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dying(original: Callable[..., Any], when: Callable[[], bool], *, after: bool) -> Callable[..., Any]:
    """A function that is the last thing its process does, once ``when`` says so."""

    def call(*arguments: Any, **more: Any) -> Any:
        now = when()
        if now and not after:
            die()
        answer = original(*arguments, **more)
        if now:
            die()
        return answer

    return call


def train(models: str, folder: str, moment: str, count: int, method: str = "lora") -> None:
    """Runs the train task in this process; ``moment`` and ``count`` say where it ends itself, an empty one nowhere."""
    from assay import sealed_file
    from tests.e2e.e2e_world import chat_rows
    from tests.trainer.test_train_task import context
    from trainer import task
    from trainer.recipes import checkpoints, loop

    loop.CHECKPOINT_STEPS = loop.WHOLE_CHECKPOINT_STEPS = EVERY
    left = [count]

    def due() -> bool:
        left[0] -= 1
        return left[0] == 0

    def half_written(path: Path, head: bytes, body: bytes, key: bytes) -> None:
        write(path, head, body, key)
        if due():
            os.truncate(path, path.stat().st_size // 2)
            die()

    write, run_step = sealed_file.write, loop.Run.step
    if moment == "step":
        loop.Run.step = dying(run_step, due, after=count % 2 == 0)  # type: ignore[method-assign]
    elif moment == "write":
        sealed_file.write = dying(write, due, after=False)
    elif moment == "half":
        sealed_file.write = half_written
    elif moment == "rename":
        Path.rename = dying(Path.rename, due, after=count % 2 == 0)  # type: ignore[method-assign]
    elif moment == "remove":
        checkpoints.os.unlink = dying(os.unlink, due, after=count % 2 == 0)  # type: ignore[attr-defined]
    settings = {
        "epochs": "3.0", "learning_rate": "0.01", "batch_size": 8, "lora_rank": 4, "lora_dropout": "0.1",
        "early_stopping": False,
    }  # fmt: skip
    task.run(context(Path(models), Path(folder), chat_rows(40), hyperparameters=settings, method=method))


def in_process(*arguments: Any) -> int:
    """Exit status of :func:`train` in a fork of a server that has loaded the libraries; negative for a signal."""
    method = multiprocessing.get_context("forkserver")
    method.set_forkserver_preload(["tests.trainer.test_train_task", "transformers", "peft"])
    process = method.Process(target=train, args=arguments)
    process.start()
    process.join(300)
    if process.is_alive():
        process.kill()
        process.join()
    return process.exitcode if process.exitcode is not None else 1


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "out" / "adapter" / "adapter_model.safetensors").read_bytes()).hexdigest()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_random_points_a_run_ends_as_one_that_was_left_alone(tmp_path: Path) -> None:
    models = str(tiny_models(tmp_path / "models"))
    assert in_process(models, str(tmp_path / "whole"), "", 0) == 0
    expected = digest(tmp_path / "whole")
    pick = random.Random(20)
    killed: dict[str, int] = dict.fromkeys(MOMENTS, 0)
    for point in range(POINTS):
        moment = MOMENTS[point % len(MOMENTS)]
        count = pick.randint(1, STEPS if moment == "step" else STEPS // EVERY - 2)
        folder = tmp_path / f"point-{point}"
        code = in_process(models, str(folder), moment, count)
        assert code == -signal.SIGKILL, (moment, count, code)
        killed[moment] += 1
        assert not (folder / "out" / "adapter").exists()
        assert in_process(models, str(folder), "", 0) == 0, (moment, count)
        assert digest(folder) == expected, (moment, count)
        claim = json.loads((folder / "out" / "training.json").read_text())
        assert claim["steps"] == STEPS and claim["damaged_checkpoints"] == 0
    print("killed", killed)
    assert sum(killed.values()) == POINTS >= 20 and min(killed.values()) >= 4
