"""A task of small steps with a checkpoint after each, which pauses, resumes and survives a kill."""

import json
import os
import signal
import sys
import time

from assay import sealed_file
from assay.errors import ExhaustedError, InvalidInputError, PreconditionError, UnavailableError
from assay.worker.task import CHECKPOINTS, RANK_LOST, TaskContext, TaskPaused


def run(context: TaskContext) -> dict:
    order = context.order
    behaviour = order.get("behaviour", "")
    if behaviour == "refuse":
        raise InvalidInputError("DATA_BAD", "row 3 is bad", remedy="mend row 3")
    if behaviour == "crash":
        raise RuntimeError("secret row content")
    if behaviour == "die":
        os._exit(3)
    if behaviour == "last words":
        print("never flushed", end="")
        raise InvalidInputError("DATA_BAD", "row 3 is bad")
    if behaviour == "mute":
        sys.stdout.close()
    if behaviour == "broken pipe":
        print("what can no longer be printed")
        os.close(1)
    if behaviour.startswith("garbage"):
        context.send(GARBAGE[behaviour] + b"\n")
        time.sleep(60)
    if behaviour == "link":
        (context.outputs / "leak").symlink_to("/etc/passwd")
    if behaviour == "nest":
        leave_nested_folders(context)
    if behaviour == "reserved":
        (context.outputs / "statement.json").write_text("{}")
    if behaviour == "pickle":
        (context.outputs / "adapter").mkdir()
        (context.outputs / "adapter" / "adapter_model.safetensors").write_bytes(b"\x80\x04pickle")
        (context.outputs / "adapter" / "adapter_config.json").write_text("{}")
    if behaviour == "unpack":
        (context.work / "rows").write_bytes((context.inputs / "dataset").read_bytes())
    if behaviour == "burn":
        child = os.fork()
        while time.process_time() < 0.4:
            pass
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
    if behaviour == "memory":
        hoard = [bytearray(b"x" * (8 << 20)) for _ in range(60)]
        time.sleep(30)
        return {"hoard": len(hoard)}
    checkpoint = context.work / "checkpoint.json"
    done = json.loads(checkpoint.read_text())["done"] if checkpoint.exists() else 0
    trace = context.work / "trace.txt"
    for step in range(done, int(order.get("steps", 1))):
        if order.get("gate"):
            while not (context.models / f"{order['gate']}-{step}").exists() and not context.should_pause():
                time.sleep(0.02)
        if context.should_pause():
            raise TaskPaused
        with trace.open("a") as stream:
            stream.write(f"{step} ")
        temporary = context.work / "checkpoint.tmp"
        temporary.write_text(json.dumps({"done": step + 1}))
        temporary.rename(checkpoint)
        context.progress(step + 1, int(order.get("steps", 1)), "stepping", 1.5, loss=0.5)
        if "fault" in order:
            seal_checkpoint(context, step + 1)
            if step + 1 == int(order["fault_at"]) and not (context.models / "mended").exists():
                FAULTS[order["fault"]](context)
    names = sorted(p.relative_to(context.inputs).as_posix() for p in context.inputs.rglob("*") if p.is_file())
    (context.outputs / "seen.json").write_text(
        json.dumps({"inputs": names, "trace": trace.read_text().split(), "secret": context.secret.hex()})
    )
    if behaviour == "private":
        (context.outputs / "private").mkdir()
        (context.outputs / "private" / "test.jsonl").write_text("sealed test rows\n")
    return {"rate": 0.25, "steps": int(order.get("steps", 1))}


def leave_nested_folders(context: TaskContext) -> None:
    """1,500 folders in each place, each in the one before, deeper than a path can name; and one closed to its owner."""
    for place in (context.work, context.outputs):
        here = os.open(place, os.O_RDONLY)
        for _ in range(1500):
            os.mkdir("abc", dir_fd=here)
            inner = os.open("abc", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = inner
        os.close(here)
    closed = context.work / "closed"
    closed.mkdir()
    (closed / "rows").write_text("plain")
    closed.chmod(0)


def seal_checkpoint(context: TaskContext, step: int) -> None:
    """A checkpoint as the trainer's lie there."""
    folder = context.work / CHECKPOINTS
    folder.mkdir(exist_ok=True)
    tensors = b"tensors" * int(context.order.get("tensors", 1))
    sealed_file.write(folder / f"step-{step:08d}", json.dumps({"step": step}).encode(), tensors, context.work_key)


def not_finite(context: TaskContext) -> None:
    raise PreconditionError("LOSS_NOT_FINITE", "the loss is not a finite number", remedy="lower the learning rate")


def disk_full(context: TaskContext) -> None:
    raise ExhaustedError("DISK_FULL", "there is no room for the checkpoint", remedy="free space")


def spent(context: TaskContext) -> None:
    raise PreconditionError("TOKEN_CAP", "the order's cap on trained tokens is reached")


def long_head(context: TaskContext) -> None:
    sealed_file.write(context.work / CHECKPOINTS / "step-9", bytes(sealed_file.MAX_HEAD + 1), b"", context.work_key)


def fill_disk(context: TaskContext) -> None:
    for number in range(96):
        (context.outputs / f"fill{number}").write_bytes(os.urandom(1 << 20))
    time.sleep(60)


def hoard(context: TaskContext) -> None:
    kept = [bytearray(b"x" * (8 << 20)) for _ in range(60)]
    time.sleep(60)
    raise RuntimeError(f"{len(kept)} were kept")


def allocate(context: TaskContext) -> None:
    import torch

    torch.empty(1 << 44)


def freeze(context: TaskContext) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def kill(context: TaskContext) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for_ever(context: TaskContext) -> None:
    while not (context.models / "hoard").exists():
        context.progress(1, 1, "waiting to be limited")
        time.sleep(0.05)
    hoard(context)


def lose_a_rank(context: TaskContext) -> None:
    """One of the task's own processes is killed, and the task tells that it is gone."""
    rank = os.fork()
    if rank == 0:
        wait_for_ever(context)
    os.waitpid(rank, 0)
    raise UnavailableError(RANK_LOST, "process 2 of 2 of the training was ended by signal 9")


def never_pause(context: TaskContext) -> None:
    """Goes on, and says so, whoever asks for a pause."""
    while True:
        context.progress(2, 4, "not listening")
        time.sleep(0.05)


def damage(context: TaskContext) -> None:
    for path in (context.work / CHECKPOINTS).iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    not_finite(context)


def hostile(context: TaskContext) -> None:
    """Leaves things under checkpoints' names that must be neither followed nor waited for."""
    for path in (context.work / CHECKPOINTS).iterdir():
        path.unlink()
    (context.work / CHECKPOINTS / "step-00000001").symlink_to("/etc/passwd")
    os.mkfifo(context.work / CHECKPOINTS / "step-00000002")
    head = json.dumps({"step": 10**30}).encode()
    sealed_file.write(context.work / CHECKPOINTS / "step-00000003", head, b"", context.work_key)
    sealed_file.write(context.work / CHECKPOINTS / "step-00000004", b"[" * 9000, b"", context.work_key)
    not_finite(context)


GARBAGE = {
    "garbage": b"not json",
    "garbage infinite": b'{"type": "progress", "step": Infinity, "steps": 1}',
    "garbage huge": b'{"type": "progress", "step": 1' + b"0" * 400 + b', "steps": 1}',
    "garbage list": b'{"type": "progress", "step": 1, "steps": 1, "metrics": [1]}',
    "garbage nan": b'{"type": "progress", "step": 1, "steps": 1, "seconds_left": NaN}',
    "garbage nested": b'{"type": "progress", "step": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
}
FAULTS = {
    "nan": not_finite, "disk full": disk_full, "token cap": spent, "disk": fill_disk, "memory": hoard,
    "torch": allocate, "silent": freeze, "time": freeze, "killed": kill, "kernel": wait_for_ever, "rank": lose_a_rank,
    "damaged": damage, "hostile": hostile, "deaf": never_pause, "long head": long_head,
}  # fmt: skip
