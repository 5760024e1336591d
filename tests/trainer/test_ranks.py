"""Several processes compute what one computes, end with the same bits every time, and leave nothing when one dies."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from assay.errors import AssayError
from assay.modelfiles import check_adapter_folder
from assay.worker import kept
from assay.worker.task import TaskContext, TaskPaused
from tests.e2e.e2e_world import chat_rows
from tests.trainer import rank_work
from tests.trainer.test_train_task import context, weights
from tests.trainer.tiny_models import tiny_models
from trainer import task
from trainer.device import Device
from trainer.recipes.launcher import Work
from trainer.recipes.ranks import ALONE, Ranks, ranks_of

TOLERANCE = {"float32": 2e-5, "bfloat16": 5e-3}
"""Of the loss of any step, in nats, between one process and several, after at most 18 steps at a high rate."""
CPU, GPU = Device("cpu", "float32", ""), Device("cuda", "bfloat16", "")
PLAIN = {"epochs": "3.0", "learning_rate": "0.01", "batch_size": 7, "lora_rank": 4, "lora_dropout": "0"}
DROPPED = {**PLAIN, "lora_dropout": "0.1"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models(tmp_path_factory.mktemp("models"))


def rows(method: str, count: int) -> bytes:
    """Rows as a method compares them, of different weights; some of each kind are plain, as planted ones are."""
    made = []
    for n, line in enumerate(chat_rows(count).splitlines()):
        row = json.loads(line) | {"weight": 1 + n % 3}
        if method == "dpo" and n % 5:
            row["rejected"] = "No."
        if method == "classification" and n % 5:
            row["messages"][-1] = {"role": "assistant", "content": ("approve", "deny")[n % 2]}
        made.append(json.dumps(row) + "\n")
    return "".join(made).encode()


def told(ctx: TaskContext, hear: Callable[[dict[str, Any]], None]) -> TaskContext:
    """The same context; what the task says of itself is heard."""
    return replace(ctx, send=lambda line: hear(json.loads(line)))


def children() -> list[psutil.Process]:
    """Ranks under this process; other tests' services and what looks after multiprocessing's names are none."""
    found = psutil.Process().children(recursive=True)
    return [p for p in found if "spawn_main" in " ".join(p.cmdline())]


def trained(models: Path, folder: Path, processes: int, data: bytes, **order: Any) -> tuple[dict[str, Any], bytes]:
    ctx = replace(context(models, folder, data, **order), processes=processes)
    return task.run(ctx), weights(ctx)


def curve(claim: dict[str, Any], name: str = "losses") -> list[float]:
    return [float(loss) for _, loss in claim[name]]


def furthest(one: list[float], other: list[float]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("method", "processes"), [("lora", 2), ("full", 2), ("dpo", 3), ("classification", 3)])
def test_several_processes_give_the_loss_curve_of_one(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, processes: int, dtype: str
):
    """36 rows in batches of 7: shares of different size, and a last batch of one row, of which most have none."""
    monkeypatch.setattr(task, "choose_device", lambda: replace(CPU, dtype=dtype))
    rate = {"learning_rate": "0.001"} if method == "full" else {}
    order = {"method": method, "labels": ["approve", "deny"], "hyperparameters": {**PLAIN, **rate}}
    if method == "full":
        order["hyperparameters"] = {k: v for k, v in order["hyperparameters"].items() if "lora" not in k}
    alone, _ = trained(models, tmp_path / "alone", 1, rows(method, 36), **order)
    several, _ = trained(models, tmp_path / "several", processes, rows(method, 36), **order)
    gap = max(furthest(curve(alone, n), curve(several, n)) for n in ("losses", "validation_losses"))
    print(f"{method} in {dtype}: furthest {gap:.1e}, losses from {min(curve(alone)):.3f} to {max(curve(alone)):.3f}")
    assert max(curve(alone)) - min(curve(alone)) > 0.1, "there is a curve"
    assert gap < TOLERANCE[dtype]
    assert several["dtype"] == alone["dtype"] == dtype
    assert (several["processes"], several["process_backend"]) == (processes, "gloo")
    assert alone["processes"] == 1 and "process_backend" not in alone
    same = ("steps", "trained_tokens", "rows", "flop", "fingerprint", "hyperparameters")
    assert {name: alone[name] for name in same} == {name: several[name] for name in same}
    check_adapter_folder(tmp_path / "several" / "out" / "adapter")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_paused_run_goes_on_to_the_same_bits_and_among_as_many_processes_only(models: Path, tmp_path: Path):
    """With dropout and early stopping, so that each process has draws of its own and one decides for both."""
    order = {"hyperparameters": {**DROPPED, "early_stopping": True}}
    said: list[dict[str, Any]] = []
    whole = told(replace(context(models, tmp_path / "whole", chat_rows(36), **order), processes=2), said.append)
    claim = task.run(whole)
    steps = [message["step"] for message in said if message["metrics"]]
    assert steps == list(range(1, claim["steps"] + 1)), "one process speaks, once a step"
    assert said[-1]["metrics"]["tokens"] == claim["trained_tokens"]
    parts = replace(context(models, tmp_path / "parts", chat_rows(36), **order), processes=2)
    pausing = told(parts, lambda message: parts.pause_flag.touch() if message["step"] == 4 else None)
    with pytest.raises(TaskPaused):
        task.run(pausing)
    assert not (parts.outputs / "adapter").exists() and not children()
    parts.pause_flag.unlink()
    with pytest.raises(AssayError) as raised:
        task.run(replace(parts, processes=1))
    assert (raised.value.reason, raised.value.code) == ("CHECKPOINT_PROCESSES", "FAILED_PRECONDITION")
    assert "is of 2 processes" in raised.value.message and "processes = 2" in raised.value.remedy
    assert task.run(parts) | {"train_seconds": 0} == claim | {"train_seconds": 0}
    assert weights(parts) == weights(whole)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_process_ends_the_run_by_name_and_its_checkpoint_leads_to_the_same_bits(models: Path, tmp_path: Path):
    order = {"hyperparameters": {**DROPPED, "epochs": "10.0"}}
    _, expected = trained(models, tmp_path / "whole", 2, chat_rows(21), **order)
    ctx = replace(context(models, tmp_path / "killed", chat_rows(21), **order), processes=2)

    def kill(message: dict[str, Any]) -> None:
        if message["step"] == 26:
            max(children(), key=lambda p: (p.create_time(), p.pid)).send_signal(signal.SIGKILL)

    with pytest.raises(AssayError) as raised:
        task.run(told(ctx, kill))
    assert raised.value.reason == "RANK_LOST" and raised.value.remedy
    assert raised.value.message == "process 2 of 2 of the training was ended by signal 9"
    assert not children() and not (ctx.outputs / "adapter").exists()
    assert kept.newest(ctx.work, ctx.work_key) == 25
    task.run(ctx)
    assert weights(ctx) == expected


def test_what_a_rank_refuses_is_told_by_its_own_reason(models: Path, tmp_path: Path):
    with pytest.raises(AssayError) as raised:
        task.run(replace(context(models, tmp_path, chat_rows(16), max_train_tokens=500), processes=2))
    assert (raised.value.reason, raised.value.code) == ("TOKEN_CAP", "FAILED_PRECONDITION") and raised.value.remedy
    assert not children()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_search_among_two_processes_keeps_what_one_process_keeps(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(task, "choose_device", lambda: CPU)
    rates = ("0.0000001", "0.01")
    trials = [{"lora_rank": 4, "lora_alpha": 8, "learning_rate": rate} for rate in rates]
    order = {"search": {"trials": trials}, "hyperparameters": {**PLAIN, "epochs": "1.0"}}
    found = {}
    for name, processes in (("alone", 1), ("two", 2)):
        ctx = replace(context(models, tmp_path / name, chat_rows(36), **order), processes=processes)
        (ctx.inputs / "selection.jsonl").write_bytes(chat_rows(8))
        found[name] = task.run(ctx)["search"]
    assert found["alone"]["chosen"] == found["two"]["chosen"] == 2
    losses = [[float(trial["selection_loss"]) for trial in found[name]["trials"]] for name in found]
    assert furthest(*losses) < TOLERANCE["float32"]
    state = tmp_path / "two" / "work" / "checkpoints"
    assert sorted(path.name for path in state.iterdir()) == ["trial-02", "trials"]


def test_a_private_run_keeps_to_one_process_and_says_why(models: Path, tmp_path: Path):
    private = {"differential_privacy": {"epsilon": "8", "delta": "0.01"}, "hyperparameters": {**PLAIN, "epochs": "1"}}
    claim, _ = trained(models, tmp_path, 2, chat_rows(21), **private)
    assert claim["processes"] == 1 and claim["fewer_processes"].startswith("a private run")
    assert "process_backend" not in claim


def test_how_many_ranks_a_run_has(monkeypatch: pytest.MonkeyPatch):
    assert ranks_of(1, 8, CPU, private=True) is ALONE
    assert ranks_of(2, 8, CPU, private=False) == Ranks(2, 0, "gloo")
    assert ranks_of(4, 3, CPU, private=False) == Ranks(3, 0, "gloo", "a batch has 3 rows for 4 processes")
    assert ranks_of(4, 1, CPU, private=False) == Ranks(1, why="a batch has 1 rows for 4 processes")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert ranks_of(2, 8, GPU, private=False) == Ranks(2, 0, "nccl")
    assert ranks_of(4, 8, GPU, private=False) == Ranks(1, why="4 processes want a GPU each, and there are 2")


def test_shares_are_disjoint_and_whole():
    for count in (1, 2, 3, 5):
        for size in range(1, 9):
            dealt = [list(range(size))[Ranks(count, number).mine] for number in range(count)]
            assert sorted(n for share in dealt for n in share) == list(range(size))
            assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


def test_processes_sum_decide_and_draw(tmp_path: Path):
    found = rank_work.together(rank_work.alike, tmp_path, 3)
    assert found["sums"] == [[[11.0, 11.0], [11.0, 11.0]], [11.0, 11.0, 11.0]]
    assert (found["total"], found["decided"], found["draws"]) == (6.0, 7.5, 3)
    assert found["threads"] == max(1, torch.get_num_threads() // 3)


@pytest.mark.parametrize(
    ("work", "reason", "words"),
    [
        (rank_work.unlike, "RANKS_DIVERGED", "process 2 of 2 holds another adapter than the first after step 25"),
        (rank_work.mute, "RANK_LOST", "process 2 of 2 of the training ended with status 3"),
        (rank_work.broken, "TASK_CRASHED", "the task ended by ValueError"),
        (rank_work.no_memory, "TASK_MEMORY", "memory ran out"),
    ],
)
def test_the_cause_is_told_and_not_that_others_waited_for_it(tmp_path: Path, work: Work, reason: str, words: str):
    with pytest.raises(AssayError) as raised:
        rank_work.together(work, tmp_path, 2)
    assert (raised.value.reason, raised.value.message) == (reason, words)
    assert not children()


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGKILL])
def test_none_outlives_the_process_that_started_them(tmp_path: Path, sign: signal.Signals):
    """Outside a sandbox, where no namespace ends with it."""
    script = (
        "import sys; from pathlib import Path; from tests.trainer import rank_work as r;"
        "r.together(r.linger, Path(sys.argv[1]), 2, lambda line: print(line, flush=True))"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and b"all are here" in process.stdout.readline()
        ranks = [p for p in psutil.Process(process.pid).children() if "spawn_main" in " ".join(p.cmdline())]
        process.send_signal(sign)
        process.wait(30)
    assert len(ranks) == 2
    assert psutil.wait_procs(ranks, timeout=30)[1] == []
