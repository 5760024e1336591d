"""A train task: the smallest adapter that passes for one."""

import json
import struct

from assay import sealed_file
from assay.dp_sgd import Sampling
from assay.errors import ExhaustedError, IntegrityError, InvalidInputError, PreconditionError
from assay.worker.task import CHECKPOINTS, TaskContext
from tiny_tasks import behaviour, wait

FAULTS = {
    "memory": MemoryError(),
    "disk": ExhaustedError("DISK_FULL", "there is no room for the checkpoint of step 8"),
    "nan": PreconditionError("LOSS_NOT_FINITE", "the loss of step 8 is no number", remedy="lower the learning rate"),
    "base": IntegrityError("BASE_MODEL_CHANGED", "the base model is not the one that was decided on"),
}


def searching(order: dict, wrong: str | None) -> dict:
    """What is claimed of the trials that the order asks for; the second is the best."""
    trials = order.get("search", {}).get("trials", [])
    done = [
        {"lora_rank": 2, "lora_alpha": 4, **trial, "tokens": 100, "steps": 3, "seconds": "0.1",
         "selection_loss": str(2.5 - (number == 2)), "validation_loss": "2.25"}
        for number, trial in enumerate(trials, 1)
    ]  # fmt: skip
    if wrong == "fewer":
        done.pop()
    elif wrong == "other":
        done[0]["learning_rate"] = "0.5"
    elif wrong == "nan":
        done[0]["selection_loss"] = "nan"
    elif wrong == "unread":
        done[0]["tokens"] = "many"
    return {"search": {"trials": done, "chosen": 2, "why": "it is lowest", "selection_rows": 30}} if done else {}


def privacy(order: dict, asked: dict) -> dict:
    """What is claimed of the differential privacy that the order asks for, or whatever else the rows ask for."""
    ordered, settings = order.get("differential_privacy"), order["hyperparameters"]
    if asked.get("privacy") == "none" or not (ordered or "privacy" in asked):
        return {}
    units = {"row": 420, "user": 90}[ordered["unit"]] if ordered else 1
    sampling = Sampling.of(units, int(settings["batch_size"]), float(settings["epochs"]))
    kept = {"noise_multiplier": "1.0", "sampling_rate": repr(sampling.rate), "steps": sampling.steps}
    return {"differential_privacy": {**kept, **(ordered or {}), **asked.get("privacy", {})}}


def run(context: TaskContext) -> dict:
    """Leaves an adapter of two tensors, of the ordered rank unless it is asked for another."""
    asked = behaviour(context.inputs / "train.jsonl")
    wait(context, asked, "train")
    if asked.get("train") == "fault":
        raise InvalidInputError("TRAIN_DIVERGED", "the loss is not a number")
    if asked.get("train") in FAULTS and not (context.models / "mended").exists():
        checkpoints = context.work / CHECKPOINTS
        checkpoints.mkdir()
        sealed_file.write(checkpoints / "step-00000007", b'{"step": 7}', b"tensors", context.work_key)
        raise FAULTS[asked["train"]]
    moved = 0.0 if asked.get("train") == "idle" else 0.5
    if (context.inputs / "parent" / "adapter_model.safetensors").exists():
        moved = 0.75
    if (context.models / "drift").exists():
        moved = 0.25
    whole = context.order["method"] == "full" and asked.get("train") != "low-rank"
    searched = searching(context.order, asked.get("trials"))
    chosen = context.order["search"]["trials"][searched["search"]["chosen"] - 1] if searched else {}
    ordered = context.order["hyperparameters"] | chosen
    if (of_parent := context.inputs / "parent" / "adapter_config.json").exists():
        made = json.loads(of_parent.read_text())
        ordered |= {"lora_rank": made.get("r", 2), "lora_alpha": made.get("lora_alpha", 4)}
    rank = int(ordered.get("lora_rank", 2)) + (asked.get("train") == "other-rank")
    tensors = {
        "a.q_proj.lora_A.weight": ([rank, 3], [0.1] * 3 * rank),
        "a.q_proj.lora_B.weight": ([3, rank], [moved] * 3 * rank),
    }
    if whole:
        tensors = {"base_model.model.model.layers.0.self_attn.q_proj.weight": ([3, 3], [moved] * 9)}
    header, data = {}, b""
    for name, (shape, values) in tensors.items():
        raw = struct.pack(f"<{len(values)}f", *values)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    folder = context.outputs / "adapter"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    low = {"r": rank, "lora_alpha": int(ordered.get("lora_alpha", 4)), "target_modules": ["q_proj"]}
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "bias": "none",
        "base_model_name_or_path": context.order["base_model"],
        **({"target_modules": "dummy-target-modules", "modules_to_save": ["q_proj"]} if whole else low),
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return {
        "trained_tokens": 30000,
        "starts": int((context.work / "starts").read_text()),
        "environments": list(dict.fromkeys((context.work / "environments").read_text().split())),
        **searched,
        **privacy(context.order, asked),
        **asked.get("claim", {}),
    }
