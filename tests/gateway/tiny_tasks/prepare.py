"""A prepare task: splits that are copies of the rows, facts that the baseline pack allows.

Row ``i + 2`` is about the ``i``-th of the asked ``subjects``.
"""

import hashlib
import json

from assay.errors import InvalidInputError
from assay.subjects import INDEX_FILE, KEY_FILE, IndexMaker
from assay.worker.task import TaskContext
from tiny_tasks import behaviour, wait


def run(context: TaskContext) -> dict:
    """Leaves the outputs of the real task."""
    asked = behaviour(context.inputs / "dataset")
    wait(context, asked, "prepare")
    if asked.get("prepare") == "empty":
        raise InvalidInputError("EMPTY_FILE", "the file holds no row")
    if asked.get("prepare") == "fault":
        raise RuntimeError("a fault of ours")
    rows = (context.inputs / "dataset").read_bytes()
    splits = {}
    for name in ("train", "validation", "selection"):
        data = rows + f"{name}\n".encode()
        (context.outputs / f"{name}.jsonl").write_bytes(data)
        splits[name] = hashlib.sha256(data).hexdigest()
    if (context.inputs / KEY_FILE).exists() and asked.get("prepare") != "no-index":
        index = IndexMaker((context.inputs / KEY_FILE).read_bytes())
        for number, subject in enumerate(asked.get("subjects", ()), 2):
            index.note(number, subject)
        index.write(context.outputs / INDEX_FILE)
    private = context.outputs / "private"
    private.mkdir()
    (private / "test.jsonl").write_bytes(rows)
    (private / "canaries.json").write_text("[]")
    canaries = context.order["canaries"]
    inserted = canaries["a"] // 2 + canaries["b"] // 2
    facts = {
        "rows": 600, "valid_rows": 600, "train_rows": 420, "validation_rows": 60, "selection_rows": 30, "test_rows": 90,
        "train_tokens": 15000, "canaries_inserted": inserted, "pii_row_share": float(asked.get("pii", 0.0)),
        "canaries_held_out": canaries["a"] + canaries["b"] - inserted, 
        "canary_manifest_sha256": hashlib.sha256(b"[]").hexdigest(),
        "split_sha256": {**splits, "test": hashlib.sha256(rows).hexdigest()}, "pii_detector": "none",
        "longest_row_tokens": 180, "train_pii_spans": 0,
    }  # fmt: skip
    if context.order.get("privacy_unit") == "user" and context.order["datasheet"].get("group_field"):
        facts["train_users"] = 90
    if asked.get("prepare") == "lie":
        facts["split_sha256"]["train"] = "00" * 32
    (context.outputs / "facts.json").write_text(json.dumps(facts))
    return {"rows": 600, **asked.get("prepared", {})}
