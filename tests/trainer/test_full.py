"""Full tuning on a tiny random Llama: what is trained and kept, that it is exact, and that the audit sees the same."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from assay import sealed_file
from assay.errors import IntegrityError, InvalidInputError
from assay.modelfiles import ADAPTER_CONFIG, ADAPTER_WEIGHTS, check_adapter_folder, check_fits_base, read_base_manifest
from assay.worker.task import TaskContext, TaskPaused
from audit.probes import model as audit_model
from audit.probes.clock import Clock
from audit.probes.passages import Passage
from audit.probes.states import whole_weights
from tests.trainer.test_kill import in_process
from tests.trainer.test_objectives import context, continued, decisions
from tests.trainer.test_packs import rows_to_learn
from tests.trainer.test_search import searching
from tests.trainer.tiny_models import BASE_MODEL, tiny_models
from trainer import task
from trainer.device import Device
from trainer.recipes import loop, lora
from trainer.recipes.lora import TunedModel, load
from trainer.recipes.objectives import row_losses
from trainer.settings import Settings

CPU = Device("cpu", "float32", "")
NUMBERS = {"epochs": 2.0, "learning_rate": 0.004, "batch_size": 8}
WEIGHTS = f"adapter/{ADAPTER_WEIGHTS}"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models(tmp_path_factory.mktemp("models"))


def full(models: Path, folder: Path, **order: Any) -> TaskContext:
    return context(models, folder, decisions(48), "full", **{"hyperparameters": NUMBERS, **order})


@pytest.fixture(scope="module")
def tuned(models: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """An adapter folder and its claim."""
    made = full(models, tmp_path_factory.mktemp("tuned"))
    claim = task.run(made)
    return made.outputs / "adapter", claim


@pytest.fixture
def in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the audit loads has the format of what it is compared with, also where the processor multiplies bf16."""
    import torch

    monkeypatch.setattr(audit_model, "choose_device", lambda: (torch.device("cpu"), torch.float32, ""))


def loaded(models: Path, adapter: Path) -> audit_model.TunedModel:
    return audit_model.load(models, BASE_MODEL, read_base_manifest(models / BASE_MODEL).sha256, adapter)


def base_of(models: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    files = models / BASE_MODEL / "files"
    return AutoModelForCausalLM.from_pretrained(files, dtype=torch.float32, local_files_only=True).eval()


def changed(folder: Path, into: Path, change: Any) -> Path:
    """A copy of an adapter whose tensors ``change`` was let at."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / ADAPTER_WEIGHTS)
    change(tensors)
    into.mkdir()
    save_file(tensors, into / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    (into / ADAPTER_CONFIG).write_bytes((folder / ADAPTER_CONFIG).read_bytes())
    return into


def test_it_learns_and_says_what_it_changed(models: Path, tuned: tuple[Path, dict[str, Any]]):
    folder, claim = tuned
    assert float(claim["watched"]["loss"]) < float(claim["watched_base"]["loss"])
    facts = check_adapter_folder(folder)
    blocks = {n for n, _ in base_of(models).named_parameters() if ".layers." in n}
    assert {t.name for t in facts.tensors} == {f"base_model.model.{n}" for n in blocks} and facts.whole
    assert claim["method"] == "full" and f"every weight of the blocks ({facts.parameters} of " in claim["adapter"]
    assert not [name for name in claim["hyperparameters"] if name.startswith("lora_")]
    check_fits_base(facts, models / BASE_MODEL / "files")


def test_every_weight_of_the_blocks_moves_and_no_other(models: Path, tuned: tuple[Path, dict[str, Any]]):
    import torch
    from safetensors.torch import load_file

    base, found = dict(base_of(models).named_parameters()), load_file(tuned[0] / ADAPTER_WEIGHTS)
    assert all(not torch.equal(t, base[n.removeprefix("base_model.model.")]) for n, t in found.items())
    assert {n for n in base if f"base_model.model.{n}" not in found} == {
        "model.embed_tokens.weight", "model.norm.weight"
    }  # fmt: skip


@pytest.mark.usefixtures("in_fp32")
def test_the_audit_scores_what_was_trained_and_switched_off_the_base_bit_for_bit(
    models: Path, tuned: tuple[Path, dict[str, Any]]
):
    import torch

    audited, base = loaded(models, tuned[0]), base_of(models)
    trained = load(models / BASE_MODEL / "files", Settings(), CPU, 300, full=True, parent=tuned[0] / ADAPTER_WEIGHTS)
    ids = torch.arange(5, 60).reshape(1, -1)
    with trained.untuned(), torch.inference_mode():
        trained.backbone.eval()
        untuned = trained.head(trained.backbone(input_ids=ids).last_hidden_state)
    with torch.inference_mode():
        ours = trained.head(trained.backbone(input_ids=ids).last_hidden_state)
        plain = base(input_ids=ids).logits
    logits = {}
    for adapter in (True, False, True):
        with audited.using(adapter):
            logits[adapter] = audited.head(audited.decoder(input_ids=ids).last_hidden_state)
    assert torch.equal(logits[True], ours) and torch.equal(logits[False], plain) and torch.equal(untuned, plain)
    assert not torch.allclose(ours, plain, atol=1e-3)
    assert audited.environment["adapter_moved"] == "true" and audited.rank == 0
    passage = Passage(tuple(range(5, 40)), (10, 20))
    (on,), (off,) = (audited.score([passage], adapter=a, clock=Clock.start(0)) for a in (True, False))
    assert abs(on.nll - off.nll).max() > 0.01


def test_whole_modules_that_nobody_changed_are_told_apart(
    models: Path, tmp_path: Path, tuned: tuple[Path, dict[str, Any]]
):
    base = dict(base_of(models).named_parameters())

    def undo(tensors: dict[str, Any]) -> None:
        for name in tensors:
            tensors[name] = base[name.removeprefix("base_model.model.")].detach().clone()

    same = changed(tuned[0], tmp_path / "same", undo)
    assert check_adapter_folder(same).whole and loaded(models, same).environment["adapter_moved"] == "false"


@pytest.mark.usefixtures("in_fp32")
@pytest.mark.parametrize("scale", [0.0, 0.25, 0.5, 0.75])
def test_a_weaker_change_lies_between_base_and_tuned_and_is_taken_back(
    models: Path, tuned: tuple[Path, dict[str, Any]], scale: float
):
    import torch

    from audit.probes.alternatives import variations
    from audit.probes.passages import Variation

    audited = loaded(models, tuned[0])
    pairs = whole_weights(audited._wrapped)
    before = [t.detach().clone() for t, _ in pairs]
    assert len(pairs) == 2 * 9
    with audited.varied(Variation("weaker", scale=scale)):
        for (now, original), full_weight in zip(pairs, before, strict=True):
            torch.testing.assert_close(now, original + scale * (full_weight - original), rtol=1e-5, atol=1e-6)
    assert all(torch.equal(now, then) for (now, _), then in zip(pairs, before, strict=True))
    with audited.varied(Variation("as it is")):
        assert all(torch.equal(now, then) for (now, _), then in zip(pairs, before, strict=True))
    assert [v.scale for v in variations(audited.rank)] == [1.0, 0.75, 0.5, 0.25]


Q = "base_model.model.model.layers.1.self_attn.q_proj.weight"


def missing(tensors: dict[str, Any]) -> None:
    del tensors[Q]


def shorter(tensors: dict[str, Any]) -> None:
    tensors[Q] = tensors[Q][:8].contiguous()


def with_head(tensors: dict[str, Any]) -> None:
    tensors["base_model.model.lm_head.weight"] = tensors[Q].clone()


def with_low_rank(tensors: dict[str, Any]) -> None:
    tensors[Q.replace(".weight", ".lora_A.weight")] = tensors[Q].clone()


def everywhere(name: str, change: Any) -> Any:
    """The same change in every block, so that only the base model can tell."""

    def apply(tensors: dict[str, Any]) -> None:
        for found in [n for n in tensors if f".{name}." in n]:
            change(tensors, found)

    return apply


def last_block_gone(tensors: dict[str, Any]) -> None:
    for name in [n for n in tensors if ".layers.1." in n]:
        del tensors[name]


def narrower(tensors: dict[str, Any], name: str) -> None:
    tensors[name] = tensors[name][:, :-1].contiguous()


def with_bias(tensors: dict[str, Any], name: str) -> None:
    tensors[name.replace(".weight", ".bias")] = tensors[name][:, 0].contiguous()


@pytest.mark.parametrize("change", [missing, shorter, with_head, with_low_rank])
def test_a_mutilated_one_is_refused_without_the_base_model(
    models: Path, tmp_path: Path, tuned: tuple[Path, dict[str, Any]], change: Any
):
    with pytest.raises(InvalidInputError) as caught:
        check_adapter_folder(changed(tuned[0], tmp_path / "a", change))
    assert caught.value.reason == "ADAPTER_TENSORS"


@pytest.mark.parametrize(
    "change", [last_block_gone, everywhere("gate_proj", narrower), everywhere("up_proj", with_bias)]
)
def test_what_fits_itself_and_not_the_base_model_is_refused_by_the_audit(
    models: Path, tmp_path: Path, tuned: tuple[Path, dict[str, Any]], change: Any
):
    folder = changed(tuned[0], tmp_path / "a", change)
    assert check_adapter_folder(folder).whole
    with pytest.raises(InvalidInputError) as caught:
        loaded(models, folder)
    assert caught.value.reason == "ADAPTER_OTHER_BASE"


def test_a_number_that_is_none_is_refused_by_the_audit(
    models: Path, tmp_path: Path, tuned: tuple[Path, dict[str, Any]]
):
    folder = changed(tuned[0], tmp_path / "a", lambda tensors: tensors[Q].view(-1)[3:4].fill_(float("nan")))
    with pytest.raises(IntegrityError) as caught:
        loaded(models, folder)
    assert caught.value.reason == "ADAPTER_NOT_FINITE"


def test_packs_give_the_losses_and_gradients_of_padded_rows(models: Path, monkeypatch: pytest.MonkeyPatch):
    import torch

    rows, found = rows_to_learn(4), {}
    for packs in (True, False):
        if not packs:
            monkeypatch.setattr(lora, "understands_packs", lambda *_: False)
        model: TunedModel = load(models / BASE_MODEL / "files", Settings(), CPU, 64, full=True)
        assert model.packs is packs and model.whole
        losses = row_losses(model, rows, CPU)
        losses.sum().backward()
        model.collect_gradients()
        found[packs] = losses.detach(), {n: m.grad for n, m in model.masters.items()}
    torch.testing.assert_close(found[True][0], found[False][0], rtol=1e-5, atol=1e-5)
    for name, gradient in found[False][1].items():
        assert gradient is not None and float(gradient.abs().max()) > 0
        torch.testing.assert_close(found[True][1][name], gradient, rtol=1e-3, atol=1e-5)


def test_a_paused_run_ends_bit_for_bit_as_an_uninterrupted_one(
    models: Path, tmp_path: Path, tuned: tuple[Path, dict[str, Any]]
):
    parts = full(models, tmp_path)
    object.__setattr__(parts, "send", lambda line: json.loads(line)["step"] == 4 and parts.pause_flag.touch())
    with pytest.raises(TaskPaused):
        task.run(parts)
    assert not (parts.outputs / "adapter").exists()
    parts.pause_flag.unlink()
    object.__setattr__(parts, "send", lambda line: None)
    claim = task.run(parts)
    assert (parts.outputs / WEIGHTS).read_bytes() == (tuned[0] / ADAPTER_WEIGHTS).read_bytes()
    assert claim["checkpoint_sha256"] == tuned[1]["checkpoint_sha256"]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("moment", "count"), [("half", 2), ("step", 7)])
def test_killed_and_taken_up_again_it_ends_as_one_that_was_left_alone(tmp_path: Path, moment: str, count: int):
    models = str(tiny_models(tmp_path / "models"))
    for folder, at, times, code in (
        ("whole", "", 0, 0), ("parts", moment, count, -signal.SIGKILL), ("parts", "", 0, 0)
    ):  # fmt: skip
        assert in_process(models, str(tmp_path / folder), at, times, "full") == code
    whole, parts = ((tmp_path / name / "out" / WEIGHTS).read_bytes() for name in ("whole", "parts"))
    assert whole == parts and check_adapter_folder(tmp_path / "parts" / "out" / "adapter").whole


def test_checkpoints_are_written_less_often_for_they_hold_every_weight(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(loop, "CHECKPOINT_STEPS", 2)
    monkeypatch.setattr(loop, "WHOLE_CHECKPOINT_STEPS", 3)
    written: list[str] = []
    rename = Path.rename
    monkeypatch.setattr(Path, "rename", lambda a, b: (written.append(Path(b).name), rename(a, b))[1])
    made = full(models, tmp_path)
    claim = task.run(made)
    assert claim["steps"] == 8
    assert [n for n in written if n.startswith("step-")] == ["step-00000003", "step-00000006", "step-00000008"]
    newest = max(made.work.rglob("step-*"))
    _, body = sealed_file.read(newest, bytes(32))
    facts = check_adapter_folder(made.outputs / "adapter")
    assert len(body) > 12 * facts.parameters and os.path.getsize(newest) > len(body)


def test_it_goes_on_from_a_fully_tuned_model_and_from_no_other(
    models: Path, tmp_path: Path, tuned: tuple[Path, dict[str, Any]]
):
    further = continued(models, tmp_path / "further", tuned[0], decisions(48), hyperparameters=NUMBERS)
    further.order["method"] = "full"
    claim = task.run(further)
    assert claim["continued"] and float(claim["losses"][0][1]) < float(tuned[1]["losses"][0][1])
    low = context(models, tmp_path / "low", decisions(24), "lora")
    task.run(low)
    for name, parent, method in (("a", low.outputs / "adapter", "full"), ("b", tuned[0], "lora")):
        mixed = continued(models, tmp_path / name, parent, decisions(24), hyperparameters=NUMBERS)
        mixed.order["method"] = method
        with pytest.raises(InvalidInputError) as caught:
            task.run(mixed)
        assert caught.value.reason == "PARENT_KIND" and not (mixed.outputs / "adapter").exists()


def test_a_search_is_over_rates_and_its_trials_have_no_rank(models: Path, tmp_path: Path):
    trials = [{"learning_rate": "1e-07"}, {"learning_rate": "0.004"}]
    claim = task.run(searching(models, tmp_path / "rates", trials, method="full", hyperparameters=NUMBERS))
    assert claim["search"]["chosen"] == 2
    assert all("lora_rank" not in trial and "lora_alpha" not in trial for trial in claim["search"]["trials"])
    with pytest.raises(InvalidInputError) as caught:
        task.run(searching(models, tmp_path / "ranks", method="full", hyperparameters=NUMBERS))
    assert caught.value.reason == "SEARCH_AND_FULL"


def test_it_keeps_no_privacy(models: Path, tmp_path: Path):
    with pytest.raises(InvalidInputError) as caught:
        task.run(full(models, tmp_path, differential_privacy={"epsilon": "8", "delta": "0.001"}))
    assert caught.value.reason == "PRIVACY_METHOD"
