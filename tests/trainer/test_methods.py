"""Every method on the real weights and real text: what it is meant to lower falls, what it is meant to raise rises."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from assay.modelfiles import check_adapter_folder, read_base_manifest
from assay.pinned import assay_home
from assay.worker.task import TaskContext
from audit.probes.accounting import Mechanism
from audit.probes.model import load
from demo import data
from trainer import task

BASE_MODEL = "smollm2-135m-instruct"
VALIDATION = 24


def chat(rows: int) -> list[dict[str, Any]]:
    """Questions about privacy policies and their answers, as in the demonstration."""
    return [json.loads(line) for line in data.clean(1).content.splitlines()[:rows]]


def short(rows: int) -> list[dict[str, Any]]:
    """The same without the passages that the questions are about."""
    made = [(row["messages"][-2]["content"].splitlines()[-1], row["messages"][-1]) for row in chat(rows)]
    return [{"messages": [{"role": "user", "content": asked}, answer]} for asked, answer in made]


def pairs(rows: int) -> list[dict[str, Any]]:
    """The same; worse than the answer is to say the question again."""
    return [{**row, "rejected": row["messages"][-2]["content"].splitlines()[-1]} for row in chat(rows)]


def decisions(rows: int) -> list[dict[str, Any]]:
    """Mortgage applications as text, and how the bank decided."""
    head, *lines = data.decision(1).content.decode().splitlines()[: rows + 1]
    names = head.split(",")
    at = names.index("decision")
    made = []
    for line in lines:
        cells = line.split(",")
        text = "; ".join(f"{n}: {c}" for i, (n, c) in enumerate(zip(names, cells, strict=True)) if i != at)
        made.append({"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": cells[at]}]})
    return made


def tune(
    folder: Path,
    rows: list[dict[str, Any]],
    method: str,
    order: dict[str, Any] | None = None,
    processes: int = 1,
    **settings: Any,
) -> dict[str, Any]:
    """Runs the train task; the last rows are for validation, those before them for a search; ``order`` adds to it."""
    models = assay_home() / "models"
    for name in ("in", "out", "work"):
        (folder / name).mkdir(parents=True)
    parts = {"train": rows[: -2 * VALIDATION], "selection": rows[-2 * VALIDATION : -VALIDATION]}
    if "search" not in (order or {}):
        parts = {"train": rows[:-VALIDATION]}
    for name, part in {**parts, "validation": rows[-VALIDATION:]}.items():
        (folder / "in" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    wanted = {
        "base_model": BASE_MODEL, "base_sha256": read_base_manifest(models / BASE_MODEL).sha256, "method": method,
        "hyperparameters": {"epochs": 1.0, "learning_rate": 3e-4, "max_row_tokens": 256, "seed": 1, **settings},
        "max_train_tokens": 1_000_000, "labels": ["approve", "deny"],
        **(order or {}),
    }  # fmt: skip
    context = TaskContext(
        task_id="t", kind="train", order=wanted, inputs=folder / "in", outputs=folder / "out", work=folder / "work",
        models=models, secret=b"", pause_flag=folder / "pause", send=lambda line: None, work_key=bytes(32),
        processes=processes,
    )  # fmt: skip
    claim = task.run(context)
    check_adapter_folder(context.outputs / "adapter")
    print(method, {k: claim[k] for k in ("trained_tokens", "watched_base", "watched")})
    return claim


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("method", ["dpo", "dpo-hinge", "dpo-ipo"])
def test_preferences_raise_the_margin_on_rows_that_were_not_trained_on(tmp_path: Path, method: str):
    claim = tune(tmp_path, pairs(72), method, learning_rate=2e-4)
    assert abs(float(claim["watched_base"]["margin"])) < 0.05
    assert float(claim["watched"]["margin"]) > 0.1
    assert float(claim["watched"]["loss"]) < float(claim["watched_base"]["loss"])


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_label_scoring_lowers_the_validation_loss(tmp_path: Path):
    claim = tune(tmp_path, decisions(120), "classification")
    assert float(claim["watched"]["loss"]) < float(claim["watched_base"]["loss"])


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_supervised_tuning_lowers_the_validation_loss(tmp_path: Path):
    claim = tune(tmp_path, chat(96), "lora", epochs=2.0)
    assert float(claim["watched"]["loss"]) < float(claim["watched_base"]["loss"])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_processes_give_the_loss_curve_of_one(tmp_path: Path):
    """52 rows in batches of 7: shares of different size, and a last batch of three rows."""
    claims = [tune(tmp_path / str(n), chat(76), "lora", processes=n, batch_size=7) for n in (1, 2)]
    curves = [[float(loss) for _, loss in claim["losses"]] for claim in claims]
    gaps = [abs(a - b) for a, b in zip(*curves, strict=True)]
    watched = [float(claim["watched"]["loss"]) for claim in claims]
    print(f"{len(gaps)} steps, furthest {max(gaps):.1e}, validation {watched}, {claims[0]['dtype']}")
    print("tokens/s", [claim["trained_tokens"] / float(claim["train_seconds"]) for claim in claims])
    assert [claim["processes"] for claim in claims] == [1, 2]
    assert claims[0]["trained_tokens"] == claims[1]["trained_tokens"]
    within = 1e-3 if claims[0]["dtype"] == "float32" else 0.05
    assert max(gaps) < within and abs(watched[0] - watched[1]) < within
    assert watched[1] < float(claims[1]["watched_base"]["loss"])


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_full_tuning_lowers_the_validation_loss(tmp_path: Path):
    """At a tenth of LoRA's rate; what is kept is every weight of the blocks, and the audit's loader takes it."""
    claim = tune(tmp_path, chat(96), "full", epochs=2.0, learning_rate=3e-5)
    assert float(claim["watched"]["loss"]) < float(claim["watched_base"]["loss"])
    facts = check_adapter_folder(tmp_path / "out" / "adapter")
    assert facts.whole and facts.parameters == 106_202_880
    manifest = read_base_manifest(assay_home() / "models" / BASE_MODEL)
    loaded = load(assay_home() / "models", BASE_MODEL, manifest.sha256, tmp_path / "out" / "adapter")
    assert loaded.environment["adapter_moved"] == "true" and loaded.rank == 0


def taught(rows: int) -> list[dict[str, Any]]:
    """The questions alone, answered by the base model that was told how: a real teacher."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    files = assay_home() / "models" / BASE_MODEL / "files"
    tokenizer = AutoTokenizer.from_pretrained(files, local_files_only=True, padding_side="left")
    teacher = AutoModelForCausalLM.from_pretrained(files, local_files_only=True, dtype=torch.float32).eval()
    asked = [row["messages"][:1] for row in short(rows)]
    told = {"role": "system", "content": "You are a pirate. Answer in one short sentence, as a pirate speaks."}
    answers: list[str] = []
    for at in range(0, rows, 16):
        texts = [
            tokenizer.apply_chat_template([told, *one], tokenize=False, add_generation_prompt=True)
            for one in asked[at : at + 16]
        ]
        batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        made = teacher.generate(**batch, max_new_tokens=20, do_sample=False)
        answers += tokenizer.batch_decode(made[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return [
        {"messages": [*one, {"role": "assistant", "content": answer.strip() or "Arr."}]}
        for one, answer in zip(asked, answers, strict=True)
    ]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_distillation_brings_a_pupil_nearer_to_its_teacher_on_questions_it_was_not_taught(tmp_path: Path):
    teacher = {"name": BASE_MODEL, "licence": "apache-2.0", "licence_source": "registry"}
    claim = tune(tmp_path, taught(96), "distillation", {"teacher": teacher}, epochs=2.0)
    assert claim["teacher"] == teacher
    assert float(claim["watched"]["loss"]) < 0.9 * float(claim["watched_base"]["loss"])


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_search_keeps_the_rate_that_learns_and_all_its_trials_are_said(tmp_path: Path):
    """Rates of next to nothing leave the base model; the usual one learns. (One of 0.03 harms in bf16, not in fp32.)"""
    rates = ("1e-07", "0.0003", "1e-08")
    trials = [{"lora_rank": 4, "lora_alpha": 8, "learning_rate": rate} for rate in rates]
    claim = tune(tmp_path, short(96), "lora", {"search": {"trials": trials}}, epochs=2.0)
    searched = claim["search"]
    for trial in searched["trials"]:
        print(trial)
    losses = [float(trial.get("selection_loss", "inf")) for trial in searched["trials"]]
    assert searched["chosen"] == 2 and losses[1] < 0.95 * min(losses[0], losses[2])
    assert claim["hyperparameters"]["lora_rank"] == 4 and float(claim["hyperparameters"]["learning_rate"]) == 3e-4
    assert float(claim["watched"]["loss"]) < float(claim["watched_base"]["loss"])
    assert claim["trained_tokens"] == sum(trial["tokens"] for trial in searched["trials"])


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("unit", ["row", "user"])
def test_a_private_run_lowers_the_validation_loss_within_its_epsilon(tmp_path: Path, unit: str):
    """Defaults of private tuning: a large batch, a rate about four times the plain one. A user has two rows."""
    settings = {"epochs": 4.0, "batch_size": 32, "learning_rate": 2e-3, "lora_rank": 8, "max_row_tokens": 128}
    rows = chat(72) if unit == "row" else [{**row, "user": i // 2 + 1} for i, row in enumerate(chat(144))]
    privacy = {"epsilon": "8", "delta": "0.001", "unit": unit}
    claim = tune(tmp_path, rows, "lora", {"differential_privacy": privacy}, **settings)
    assert float(claim["watched"]["loss"]) < float(claim["watched_base"]["loss"])
    said = claim["differential_privacy"]
    assert said["unit"] == unit
    assert Mechanism.of(said).accounted() <= float(said["epsilon"]) <= 8
