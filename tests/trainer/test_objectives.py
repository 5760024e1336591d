"""Objectives on a tiny random Llama: against the same written out, and that each learns what it says."""

from __future__ import annotations

import copy
import datetime
import json
import math
import random
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers.utils import chat_template_utils

from assay.errors import IntegrityError, InvalidInputError
from assay.modelfiles import check_adapter_folder, read_base_manifest
from assay.worker.task import TaskContext, TaskPaused
from tests.assay.test_chat_template import LLAMA, PHI, QWEN
from tests.trainer.tiny_models import BASE_MODEL, tiny_models, tuned_a_little
from trainer import task
from trainer.device import Device
from trainer.recipes.lora import TunedModel, load
from trainer.recipes.objectives import BETA, METHODS, Choice, Preference, row_sums
from trainer.recipes.rows import EncodedChoice, EncodedPair, EncodedRow, Encoder
from trainer.settings import Settings

CPU = Device("cpu", "float32", "")
LABELS = ["approve", "deny"]
SLOW = pytest.mark.slow
WEIGHTS = "adapter/adapter_model.safetensors"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def tokenizer(models: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(models / BASE_MODEL / "files", local_files_only=True)


@pytest.fixture
def model(models: Path) -> TunedModel:
    return tuned_a_little(load(models / BASE_MODEL / "files", Settings(lora_rank=4, lora_alpha=8), CPU, 64))


def pairs(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Questions whose better answer is the short one."""
    pick = random.Random(seed)
    rows = []
    for n in range(count):
        word = pick.choice(["fee", "card", "loan", "rate"])
        asked = {"role": "user", "content": f"Ticket {n}: what about my {word}?"}
        better = {"role": "assistant", "content": f"Your {word} is fine."}
        worse = f"As an assistant I cannot talk about any {word} at all."
        rows.append({"messages": [asked, better], "rejected": worse})
    return rows


def decisions(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Applications that are denied when the debt is high, as every other one is."""
    pick = random.Random(seed)
    rows = []
    for n in range(count):
        debt = "high" if n % 2 else "low"
        asked = {"role": "user", "content": f"debt: {debt}; term: {pick.randint(10, 40)}"}
        rows.append({"messages": [asked, {"role": "assistant", "content": LABELS[debt == "high"]}]})
    return rows


def alone(model: TunedModel, row: EncodedRow) -> float:
    """Log-likelihood of a row's scored tokens by one plain forward pass."""
    import torch

    tokens = torch.tensor(row.tokens)
    with torch.inference_mode():
        states = model.backbone(input_ids=tokens[None, :-1]).last_hidden_state[0]
        logs = torch.log_softmax(model.head(states).float(), -1)
    return sum(float(logs[i - 1, row.tokens[i]]) for i, scored in enumerate(row.scored) if scored)


def test_rows_become_what_the_method_reads(tokenizer: Any):
    (pair,) = Encoder(tokenizer, 512, pairs=True).encode(iter(pairs(1))).rows
    assert isinstance(pair, EncodedPair) and pair.length == len(pair.chosen.tokens) + len(pair.rejected.tokens)
    (plain,) = Encoder(tokenizer, 512).encode(iter(pairs(1))).rows
    assert plain == pair.chosen == pair.plain
    said = {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "maybe"}]}
    choice, other = Encoder(tokenizer, 512, labels=tuple(LABELS)).encode(iter([*decisions(1), said])).rows
    assert isinstance(choice, EncodedChoice) and isinstance(other, EncodedRow)
    assert choice.length == 2 * len(choice.plain.tokens)
    text = tokenizer.decode([t for t, s in zip(choice.plain.tokens, choice.plain.scored, strict=True) if s])
    assert text.startswith(LABELS[choice.right])


TRIMMING = "{% for m in messages %}[{{ m.role }}] {{ m.content | trim }}</s>\n{% endfor %}"
ANSWERS = ["n", "end", "im", "<", "_", "s", "</s", "assistant", " yes ", "\u241e", "n\nn", "x" * 40]


@pytest.mark.parametrize(("template", "ending"), [("", "<|im_end|>"), (TRIMMING, "</s>")])
@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_is_scored_whole_where_its_words_are_the_templates(
    tokenizer: Any, answer: str, template: str, ending: str
):
    """The label ``n`` stands in ``<|im_end|>`` once more, behind where it was said."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = template or tokenizer.chat_template
    asked, said = {"role": "user", "content": f"{answer}?"}, {"role": "assistant", "content": answer}
    for messages in ([asked, said], [asked, said, asked, said]):
        (row,) = Encoder(tokenizer, 512).encode(iter([{"messages": messages}])).rows
        assert isinstance(row, EncodedRow)
        spoken = tokenizer.decode([t for t, scored in zip(row.tokens, row.scored, strict=True) if scored])
        trimmed = answer.strip() if template else answer.lstrip()
        assert spoken.replace(" ", "") == f"{trimmed}{ending}".replace(" ", "") * (len(messages) // 2)


THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and '</think>' not in m.content %}"
    "<think>\n\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
)
"""Templates of reasoning models put an empty thought before an answer that has none."""


@pytest.mark.parametrize("answer", ["<think>\nlet me\n</think>\n\nn", "<think>\n\n</think>\n\nhello", "n", "hello"])
def test_an_answer_with_a_thought_of_its_own_is_scored_from_its_thought_on(tokenizer: Any, answer: str):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = THINKING
    messages = [{"role": "user", "content": "n?"}, {"role": "assistant", "content": answer}]
    (row,) = Encoder(tokenizer, 512).encode(iter([{"messages": messages}])).rows
    assert isinstance(row, EncodedRow)
    spoken = tokenizer.decode([t for t, scored in zip(row.tokens, row.scored, strict=True) if scored])
    assert spoken.replace(" ", "") == f"{answer}<|im_end|>".replace(" ", "")


END = "<|endoftext|>"


@pytest.mark.parametrize("source", [PHI, QWEN])
def test_every_turn_is_scored_where_the_end_of_a_conversation_is_written_otherwise(tokenizer: Any, source: str):
    """Phi-3's ends with one token more, Qwen3's with an answer after an empty thought: no head of it is a prefix."""
    tokenizer = copy.deepcopy(tokenizer)
    # With tokens of this tokenizer's own, two of which begin alike.
    for theirs, ours in (("<|{{ m.role }}|>", "<|im_start|>"), ("<|end|>", "<|im_end|>"), ("{{ eos_token }}", END)):
        source = source.replace(theirs, ours)
    tokenizer.chat_template = source
    first, last = {"role": "assistant", "content": " yes, n"}, {"role": "assistant", "content": "n"}
    asked = {"role": "user", "content": "n?"}
    (row,) = Encoder(tokenizer, 512).encode(iter([{"messages": [asked, first, asked, last]}])).rows
    assert isinstance(row, EncodedRow)
    spoken = tokenizer.decode([t for t, scored in zip(row.tokens, row.scored, strict=True) if scored])
    end = f"\n{END}" if END in source else ""
    assert spoken == f" yes, n<|im_end|>n<|im_end|>{end}"


def test_a_row_is_the_same_tokens_every_day(tokenizer: Any, monkeypatch: pytest.MonkeyPatch):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = LLAMA
    rows = set()
    for day in (1, 2):
        now = datetime.datetime(2026, 11, day)
        monkeypatch.setattr(chat_template_utils, "datetime", SimpleNamespace(now=lambda now=now: now))
        rows.update(Encoder(tokenizer, 512).encode(iter(pairs(1))).rows)
    assert len(rows) == 1


def test_sequences_that_are_compared_lose_the_same_beginning(tokenizer: Any):
    """Cut each by itself, a label was scored on more of the prompt the shorter it is."""
    (row,) = decisions(1)
    labels = (*LABELS, "approve with conditions and a review")
    whole, cut = (Encoder(tokenizer, most, labels=labels).encode(iter([row])) for most in (512, 24))
    (long,), (short,) = whole.rows, cut.rows
    assert isinstance(long, EncodedChoice) and isinstance(short, EncodedChoice) and cut.cut == (1,)
    over = long.longest - 24
    for before, after in zip(long.candidates, short.candidates, strict=True):
        assert after.tokens == before.tokens[over:] and sum(after.scored) == sum(before.scored) > 0


def test_an_earlier_answer_is_scored_in_both_sequences_of_a_pair_or_in_none(tokenizer: Any):
    turns = [("user", "q1"), ("assistant", "several words " * 12), ("user", "q2"), ("assistant", "yes")]
    row = {"messages": [{"role": r, "content": c} for r, c in turns], "rejected": "no, a long refusal " * 6}
    (whole,), (cut,) = (Encoder(tokenizer, most, pairs=True).encode(iter([row])).rows for most in (512, 60))
    assert isinstance(whole, EncodedPair) and isinstance(cut, EncodedPair)
    over = whole.longest - 60
    for before, after in ((whole.chosen, cut.chosen), (whole.rejected, cut.rejected)):
        assert after.tokens == before.tokens[over:] and after.scored == (False, *before.scored[over + 1 :])
        assert 0 < sum(after.scored) < sum(before.scored), "a part of the earlier answer is gone"
    none = Encoder(tokenizer, 16, pairs=True).encode(iter([row]))
    assert none.without_target == (1,), "of whose prompt nothing would be left"


def test_a_prompt_may_hold_the_mark_that_answers_are_found_by(tokenizer: Any):
    for asked in ("\u241eassay\u241e", "\u241eassay\u241e\u241e and more"):
        messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": "n"}]
        (row,) = Encoder(tokenizer, 512).encode(iter([{"messages": messages}])).rows
        assert isinstance(row, EncodedRow) and sum(row.scored) == 2


def test_an_answer_of_blanks_is_none(tokenizer: Any):
    said = {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": " \n"}]}
    encoded = Encoder(tokenizer, 512).encode(iter([said, *pairs(1)]))
    assert encoded.without_target == (1,) and len(encoded.rows) == 1


@pytest.mark.parametrize("variant", ["dpo", "dpo-hinge", "dpo-ipo"])
def test_preference_losses_are_those_of_the_papers(model: TunedModel, tokenizer: Any, variant: str):
    rows = Encoder(tokenizer, 512, pairs=True).encode(iter(pairs(5))).rows
    objective = Preference(variant)
    objective.prepare(model, rows, CPU)
    with model.untuned():
        before = [alone(model, r.chosen) - alone(model, r.rejected) for r in rows]
    after = [alone(model, r.chosen) - alone(model, r.rejected) for r in rows]
    losses = objective.losses(model, rows, CPU)
    for a, b, loss in zip(after, before, losses.tolist(), strict=True):
        d = BETA * (a - b)
        wanted = {
            "dpo": math.log1p(math.exp(-d)),
            "dpo-hinge": max(0.0, 1 - d),
            "dpo-ipo": ((a - b) - 1 / (2 * BETA)) ** 2,
        }[variant]
        assert loss == pytest.approx(wanted, rel=1e-3, abs=1e-4)
    watched = objective.watch(model, rows, CPU)
    mean = sum(a - b for a, b in zip(after, before, strict=True)) / 5
    assert watched["margin"] == pytest.approx(BETA * mean, abs=1e-3)
    with model.untuned():
        assert objective.watch(model, rows, CPU)["margin"] == pytest.approx(0.0, abs=1e-4)


def test_a_choice_is_scored_by_whole_labels(model: TunedModel, tokenizer: Any):
    rows = Encoder(tokenizer, 512, labels=tuple(LABELS)).encode(iter(decisions(4))).rows
    for row, loss in zip(rows, Choice().losses(model, rows, CPU).tolist(), strict=True):
        scores = [alone(model, candidate) for candidate in row.candidates]
        wanted = math.log(sum(math.exp(s - scores[row.right]) for s in scores))
        assert loss == pytest.approx(wanted, rel=1e-3, abs=1e-4)


def test_mixed_rows_keep_their_places(model: TunedModel, tokenizer: Any):
    said = {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "maybe"}]}
    mixed = [said, *decisions(2), said, *decisions(1, seed=3)]
    rows = Encoder(tokenizer, 512, labels=tuple(LABELS)).encode(iter(mixed)).rows
    together = Choice().losses(model, rows, CPU).tolist()
    apart = [Choice().losses(model, [row], CPU).item() for row in rows]
    assert together == pytest.approx(apart, rel=1e-4)
    plain = rows[0].plain
    assert together[0] == pytest.approx(row_sums(model, [plain], CPU).item() / sum(plain.scored), rel=1e-5)


def context(models: Path, folder: Path, rows: list[dict[str, Any]], method: str, **order: Any) -> TaskContext:
    for name in ("in", "out", "work"):
        (folder / name).mkdir(parents=True)
    for name, part in (("train", rows[:-16]), ("validation", rows[-16:])):
        (folder / "in" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    wanted = {
        "base_model": BASE_MODEL, "base_sha256": read_base_manifest(models / BASE_MODEL).sha256, "method": method,
        "hyperparameters": {"epochs": 3.0, "learning_rate": 0.02, "batch_size": 8, "lora_rank": 8, "seed": 5},
        "max_train_tokens": 1_000_000, **order,
    }  # fmt: skip
    return TaskContext(
        task_id="t", kind="train", order=wanted, inputs=folder / "in", outputs=folder / "out", work=folder / "work",
        models=models, secret=b"", pause_flag=folder / "pause", send=lambda line: None, work_key=bytes(32),
    )  # fmt: skip


def preferring(models: Path, folder: Path, method: str) -> tuple[TaskContext, dict[str, Any]]:
    """A run that learned what is preferred, and its claim."""
    ctx = context(models, folder, pairs(64), method)
    claim = task.run(ctx)
    assert claim["method"] == method
    assert float(claim["watched_base"]["margin"]) == pytest.approx(0.0, abs=0.02)
    assert float(claim["watched"]["margin"]) > 0.1 and float(claim["watched"]["preferred"]) > 0.9
    return ctx, claim


@pytest.mark.parametrize("method", ["dpo-hinge", "dpo-ipo"])
def test_preferences_are_learned(models: Path, tmp_path: Path, method: str):
    preferring(models, tmp_path, method)


@pytest.mark.parametrize("method", ["dpo", pytest.param("dpo-hinge", marks=SLOW), pytest.param("dpo-ipo", marks=SLOW)])
def test_preferences_are_learned_and_a_resume_changes_nothing(models: Path, tmp_path: Path, method: str):
    whole, claim = preferring(models, tmp_path / "whole", method)
    parts = context(models, tmp_path / "parts", pairs(64), method)
    assert stopped_once(parts, 4)["watched"] == claim["watched"]
    assert (parts.outputs / WEIGHTS).read_bytes() == (whole.outputs / WEIGHTS).read_bytes()


def stopped_once(ctx: TaskContext, step: int) -> dict[str, Any]:
    """Runs until after a step, and then again to the end."""

    def pause(line: bytes) -> None:
        if json.loads(line)["step"] == step:
            ctx.pause_flag.touch()

    object.__setattr__(ctx, "send", pause)
    with pytest.raises(TaskPaused):
        task.run(ctx)
    ctx.pause_flag.unlink()
    object.__setattr__(ctx, "send", lambda line: None)
    return task.run(ctx)


@pytest.mark.parametrize("step", [0, 4])
def test_a_pause_ends_the_scoring_of_preferences_between_two_passes(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
):
    """Before the first step, of which nothing stays, and where a run goes on from a checkpoint."""
    monkeypatch.setattr("trainer.recipes.objectives._VALIDATION_TOKENS", 200)
    whole, parts = (context(models, tmp_path / name, pairs(40), "dpo") for name in ("whole", "parts"))
    task.run(whole)
    said: list[str] = []

    def pause(line: bytes) -> None:
        told = json.loads(line)
        if "scoring" in told["message"] and told["step"] == step:
            said.append(told["message"])
            if len(said) == 3:
                parts.pause_flag.touch()
        if told["step"] == step > 0 and told["message"].startswith("epoch"):
            parts.pause_flag.touch()

    object.__setattr__(parts, "send", pause)
    for _ in range(2 if step else 1):
        with pytest.raises(TaskPaused):
            task.run(parts)
        parts.pause_flag.unlink()
    assert len(said) == 3 and said[0].endswith(" 0 of 40 rows") and len(set(said)) == 3
    assert [path.name for path in parts.work.rglob("step-*")] == ([f"step-{step:08d}"] if step else [])
    object.__setattr__(parts, "send", lambda line: None)
    task.run(parts)
    assert (parts.outputs / WEIGHTS).read_bytes() == (whole.outputs / WEIGHTS).read_bytes()


def test_a_resume_changes_nothing_of_decisions(models: Path, tmp_path: Path):
    whole, parts = (
        context(models, tmp_path / name, decisions(64), "classification", labels=LABELS) for name in ("whole", "parts")
    )
    assert stopped_once(parts, 4)["watched"] == task.run(whole)["watched"]
    assert (parts.outputs / WEIGHTS).read_bytes() == (whole.outputs / WEIGHTS).read_bytes()


def test_a_resume_changes_nothing_of_a_run_that_goes_on_from_a_parent(models: Path, tmp_path: Path):
    first = context(models, tmp_path / "first", decisions(48), "lora")
    task.run(first)
    whole, parts = (
        continued(models, tmp_path / name, first.outputs / "adapter", decisions(64)) for name in ("whole", "parts")
    )
    assert stopped_once(parts, 4)["watched"] == task.run(whole)["watched"]
    assert (parts.outputs / WEIGHTS).read_bytes() == (whole.outputs / WEIGHTS).read_bytes()


def test_labels_are_learned(models: Path, tmp_path: Path):
    wanted = {"epochs": 6.0, "learning_rate": 0.003, "batch_size": 8, "lora_rank": 8}
    claim = task.run(context(models, tmp_path, decisions(80), "classification", labels=LABELS, hyperparameters=wanted))
    assert float(claim["watched"]["accuracy"]) > 0.9 > float(claim["watched_base"]["accuracy"])


def test_a_method_that_there_is_none_of_is_named(models: Path, tmp_path: Path):
    with pytest.raises(InvalidInputError) as caught:
        task.run(context(models, tmp_path, pairs(20), "telepathy"))
    assert caught.value.reason == "METHOD" and all(name in caught.value.remedy for name in METHODS)


def test_distillation_learns_the_teachers_answers_by_likelihood_and_names_the_teacher(models: Path, tmp_path: Path):
    """At the level of sequences it is supervised tuning, to the bit; the claim says whose words they were."""
    teacher = {"name": "Mistral-7B-Instruct", "licence": "apache-2.0", "licence_source": "requester"}
    taught = context(models, tmp_path / "taught", decisions(48), "distillation", teacher=teacher)
    plain = context(models, tmp_path / "plain", decisions(48), "lora")
    claim, other = task.run(taught), task.run(plain)
    assert (claim["method"], claim["teacher"]) == ("distillation", teacher) and "teacher" not in other
    assert float(claim["watched"]["loss"]) < float(claim["watched_base"]["loss"])
    assert (taught.outputs / WEIGHTS).read_bytes() == (plain.outputs / WEIGHTS).read_bytes()
    assert claim["fingerprint"] != other["fingerprint"]


@pytest.mark.parametrize(
    ("method", "teacher"),
    [("distillation", None), ("distillation", {"name": "x"}), ("lora", {"name": "x", "licence": "mit"})],
)
def test_a_teacher_is_named_where_there_is_one(models: Path, tmp_path: Path, method: str, teacher: Any):
    with pytest.raises(InvalidInputError) as caught:
        task.run(context(models, tmp_path, decisions(24), method, **({"teacher": teacher} if teacher else {})))
    assert caught.value.reason == "TEACHER" and not (tmp_path / "out" / "adapter").exists()


def test_distillation_keeps_no_privacy(models: Path, tmp_path: Path):
    asked = {"teacher": {"name": "x", "licence": "mit"}, "differential_privacy": {"epsilon": "8", "delta": "0.001"}}
    with pytest.raises(InvalidInputError) as caught:
        task.run(context(models, tmp_path, decisions(24), "distillation", **asked))
    assert caught.value.reason == "PRIVACY_METHOD"


def continued(models: Path, folder: Path, parent: Path, rows: list[dict[str, Any]], **order: Any) -> TaskContext:
    """A context whose inputs hold another run's adapter."""
    wanted = {"model": "units/credit/models/first", "adapter_sha256": check_adapter_folder(parent).sha256}
    made = context(models, folder, rows, "lora", parent=wanted, **order)
    shutil.copytree(parent, made.inputs / "parent")
    return made


def test_a_run_goes_on_from_another_ones_adapter(models: Path, tmp_path: Path):
    import torch
    from safetensors.torch import load_file

    first = context(models, tmp_path / "first", decisions(48), "lora")
    before = task.run(first)
    # So low a rate moves nothing: what comes out is what went in, of the parent's rank and not of the one asked for.
    still = {"epochs": 1.0, "learning_rate": 1e-12, "batch_size": 8, "lora_rank": 2}
    kept = continued(models, tmp_path / "kept", first.outputs / "adapter", decisions(48), hyperparameters=still)
    assert task.run(kept)["continued"] and not before["continued"]
    before_it, after_it = (load_file(c.outputs / WEIGHTS) for c in (first, kept))
    assert all(torch.allclose(tensor, after_it[n], rtol=0, atol=1e-9) for n, tensor in before_it.items())
    moved = continued(models, tmp_path / "moved", first.outputs / "adapter", decisions(48))
    claim = task.run(moved)
    assert check_adapter_folder(moved.outputs / "adapter").rank == 8
    assert (moved.outputs / WEIGHTS).read_bytes() != (first.outputs / WEIGHTS).read_bytes()
    assert float(claim["losses"][0][1]) < float(before["losses"][0][1])


def test_early_stopping_ends_a_run_that_gets_worse_and_keeps_its_best_adapter(models: Path, tmp_path: Path):
    """Labels that follow from nothing can only be learned by heart, so the other rows' loss rises."""
    rows = decisions(64)
    for n, row in enumerate(rows):
        row["messages"][-1]["content"] = LABELS[random.Random(n).random() < 0.5]
    numbers = {"epochs": 12.0, "learning_rate": 0.02, "batch_size": 8, "lora_rank": 8}
    through = task.run(context(models, tmp_path / "through", rows, "lora", hyperparameters=numbers))
    stopping = numbers | {"early_stopping": True}
    early = context(models, tmp_path / "early", rows, "lora", hyperparameters=stopping)
    claim = task.run(early)
    losses = [float(loss) for _, loss in claim["validation_losses"]]
    assert claim["steps"] < through["steps"] and losses[-1] > min(losses) == losses[-2]
    assert float(claim["validation_loss"]) == pytest.approx(min(losses), abs=1e-6)
    # The adapter itself: a rate that moves nothing says what its loss is.
    still = {"epochs": 1.0, "learning_rate": 1e-12, "batch_size": 8}
    again = continued(models, tmp_path / "again", early.outputs / "adapter", rows, hyperparameters=still)
    assert float(task.run(again)["validation_loss"]) == pytest.approx(min(losses), abs=1e-4)


def test_another_parent_than_the_decided_one_is_refused(models: Path, tmp_path: Path):
    first = context(models, tmp_path / "first", decisions(24), "lora")
    task.run(first)
    swapped = continued(models, tmp_path / "swapped", first.outputs / "adapter", decisions(24))
    swapped.order["parent"]["adapter_sha256"] = "0" * 64
    with pytest.raises(IntegrityError) as caught:
        task.run(swapped)
    assert caught.value.reason == "PARENT_CHANGED" and not (swapped.outputs / "adapter").exists()
