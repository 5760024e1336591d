"""A task of small steps with a checkpoint after each, which pauses, resumes and survives a kill."""

import json
import os
import time

from assay.errors import InvalidInputError
from assay.worker.task import TaskContext, TaskPaused


def run(context: TaskContext) -> dict:
    order = context.order
    behaviour = order.get("behaviour", "")
    if behaviour == "refuse":
        raise InvalidInputError("DATA_BAD", "row 3 is bad", remedy="mend row 3")
    if behaviour == "crash":
        raise RuntimeError("secret row content")
    if behaviour == "die":
        os._exit(3)
    if behaviour == "garbage":
        context.send(b"not json\n")
        time.sleep(60)
    if behaviour == "link":
        (context.outputs / "leak").symlink_to("/etc/passwd")
    if behaviour == "reserved":
        (context.outputs / "statement.json").write_text("{}")
    if behaviour == "pickle":
        (context.outputs / "adapter").mkdir()
        (context.outputs / "adapter" / "adapter_model.safetensors").write_bytes(b"\x80\x04pickle")
        (context.outputs / "adapter" / "adapter_config.json").write_text("{}")
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
    names = sorted(p.relative_to(context.inputs).as_posix() for p in context.inputs.rglob("*") if p.is_file())
    (context.outputs / "seen.json").write_text(
        json.dumps({"inputs": names, "trace": trace.read_text().split(), "secret": context.secret.hex()})
    )
    if behaviour == "private":
        (context.outputs / "private").mkdir()
        (context.outputs / "private" / "test.jsonl").write_text("sealed test rows\n")
    return {"rate": 0.25, "steps": int(order.get("steps", 1))}
