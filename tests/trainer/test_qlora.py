"""An adapter trained on base weights in four bits: against NF4 written out, against LoRA, and without the library."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from assay.errors import InvalidInputError, PreconditionError
from assay.modelfiles import ADAPTER_WEIGHTS, check_adapter_folder, read_base_manifest, verify_base_files
from assay.pinned import assay_home
from assay.worker.task import TaskContext, TaskPaused
from audit.probes import model as audit_model
from audit.probes.clock import Clock
from audit.probes.passages import Passage
from tests.trainer.test_kill import in_process
from tests.trainer.test_methods import chat, tune
from tests.trainer.test_objectives import context, continued, decisions
from tests.trainer.test_packs import rows_to_learn
from tests.trainer.test_search import searching
from tests.trainer.tiny_models import BASE_MODEL, tiny_models, tuned_a_little
from trainer import task
from trainer.device import Device
from trainer.recipes import four_bit
from trainer.recipes.lora import TunedModel, load
from trainer.recipes.objectives import objective_of, row_losses
from trainer.recipes.rows import Encoder, read_rows
from trainer.settings import Settings

CPU = Device("cpu", "float32", "")
NUMBERS = {"epochs": 3.0, "learning_rate": 0.02, "batch_size": 8, "lora_rank": 4}
# Dettmers et al. 2023, appendix E.
NF4 = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
]  # fmt: skip


@pytest.fixture(scope="module")
def library() -> str:
    """Skips where bitsandbytes is not, and fails instead where ``ASSAY_REQUIRE_QLORA`` is set."""
    if importlib.util.find_spec("bitsandbytes") is None:
        text = "bitsandbytes is not installed, so the method qlora was NOT TESTED: run `make qlora`"
        (pytest.fail if os.environ.get("ASSAY_REQUIRE_QLORA") else pytest.skip)(text)
    return four_bit.demand(CPU)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models(tmp_path_factory.mktemp("models"))


class _Without:
    """A finder of modules and distributions that finds all but one library, as where that was never installed."""

    def __init__(self, finder: Any) -> None:
        self._finder = finder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._finder, name)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        return None if name.partition(".")[0] == "bitsandbytes" else self._finder.find_spec(name, path, target)

    def find_distributions(self, *arguments: Any, **more: Any) -> Any:
        find = getattr(self._finder, "find_distributions", lambda *_, **__: ())
        return [found for found in find(*arguments, **more) if found.metadata["Name"] != "bitsandbytes"]


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process as one in which bitsandbytes was never installed."""
    for name in [n for n in sys.modules if n.partition(".")[0] == "bitsandbytes"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_Without(finder) for finder in sys.meta_path])


def qlora(models: Path, folder: Path, **order: Any) -> TaskContext:
    return context(models, folder, decisions(48), "qlora", **{"hyperparameters": NUMBERS, **order})


@pytest.fixture(scope="module")
def tuned(library: str, models: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """An adapter folder and its claim."""
    made = qlora(models, tmp_path_factory.mktemp("tuned"))
    claim = task.run(made)
    return made.outputs / "adapter", claim


def quantised(models: Path, **settings: Any) -> TunedModel:
    return load(models / BASE_MODEL / "files", Settings(lora_rank=4, **settings), CPU, 64, quantised=True)


def layers_of(model: TunedModel) -> dict[str, Any]:
    """Every linear layer of the blocks beneath its adapter."""
    return {n: m for n, m in model.backbone.named_modules() if n.endswith(".base_layer")}


def test_without_the_library_the_task_ends_by_name_and_leaves_nothing(models: Path, tmp_path: Path, absent: None):
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("bitsandbytes")
    made = qlora(models, tmp_path)
    with pytest.raises(PreconditionError) as caught:
        task.run(made)
    assert caught.value.reason == "QUANTISATION_MISSING" and "bitsandbytes is not installed" in caught.value.message
    assert "-c constraints.txt '.[qlora]'" in caught.value.remedy and "method lora" in caught.value.remedy
    assert not list(made.outputs.iterdir()) and not list(made.work.rglob("step-*"))


def test_without_the_library_other_methods_train(models: Path, tmp_path: Path, absent: None):
    claim = task.run(context(models, tmp_path, decisions(32), "lora", hyperparameters={"epochs": 1.0}))
    assert "quantisation" not in claim and "NF4" not in claim["adapter"]


@pytest.mark.parametrize("fault", ["raises", "wrong"])
def test_a_library_that_is_there_and_does_not_work_is_named(
    library: str, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
):
    def broken(levels: torch.Tensor, state: Any) -> torch.Tensor:
        if fault == "raises":
            raise RuntimeError("no kernel image is available for execution on the device")
        return torch.zeros(state.shape)

    monkeypatch.setattr(importlib.import_module("bitsandbytes.functional"), "dequantize_4bit", broken)
    with pytest.raises(PreconditionError) as caught:
        task.run(qlora(models, tmp_path))
    assert caught.value.reason == "QUANTISATION_MISSING"
    assert ("does not run" if fault == "raises" else "does not restore") in caught.value.message
    assert "kernel image" not in caught.value.message


def test_a_matrix_is_rounded_as_the_paper_says(library: str):
    weight = torch.randn(96, 128, generator=torch.Generator().manual_seed(3)) * 0.05
    restored = four_bit.FourBit(weight, importlib.import_module("bitsandbytes.functional"))()
    blocks, found = weight.reshape(-1, four_bit.BLOCK), restored.reshape(-1, four_bit.BLOCK)
    largest = blocks.abs().amax(1, keepdim=True)
    table = torch.tensor(NF4)
    nearest = table[(blocks / largest).unsqueeze(-1).sub(table).abs().argmin(-1)]
    # Double quantisation keeps each block's magnitude in eight bits, so that a whole block is off by one factor.
    scale = (found * nearest).sum(1, keepdim=True) / (nearest**2).sum(1, keepdim=True)
    assert float((scale / largest - 1).abs().max()) < 0.06 and float((scale / largest - 1).abs().max()) > 0
    same = (found - scale * nearest).abs() < 1e-4 * largest
    # Elements half-way between two levels may go to either.
    assert float(same.float().mean()) > 0.999
    assert float((restored - weight).norm() / weight.norm()) < 0.12


def test_the_blocks_linear_layers_are_in_four_bits_and_nothing_else(library: str, models: Path):
    model = quantised(models)
    facts = model.quantisation
    assert facts is not None and facts.layers == len(layers_of(model)) == 14
    assert all(layer.weight.numel() == 0 for layer in layers_of(model).values())
    kept = {n for n, p in model.backbone.named_parameters() if p.numel() and ".lora_" not in n}
    assert kept == {n for n in kept if "norm" in n or "embed_tokens" in n} and "embed_tokens.weight" in kept
    # Half a byte a weight, a byte for each block of 64, four for 256 of those, and the tables of 16 and 256 levels.
    assert facts.weights / 2 < facts.bytes < facts.weights * 4.2 / 8 + 14 * 1200
    plain = load(models / BASE_MODEL / "files", Settings(), CPU, 64)
    assert model.parameters == plain.parameters and facts.weights == sum(
        layer.weight.numel() for layer in layers_of(plain).values()
    )


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_losses_and_gradients_are_those_of_the_restored_matrices(library: str, models: Path, dropout: float):
    """The reference is peft on an ordinary model whose matrices were rounded and restored."""
    model = tuned_a_little(quantised(models, lora_dropout=dropout))
    reference = tuned_a_little(
        load(models / BASE_MODEL / "files", Settings(lora_rank=4, lora_dropout=dropout), CPU, 64, fused=False)
    )
    with torch.no_grad():
        for name, layer in layers_of(reference).items():
            layer.weight.copy_(four_bit.matrix_of(layers_of(model)[name])())
    rows, found = rows_to_learn(4), []
    for one in (model, reference):
        one.backbone.train()
        torch.manual_seed(5)
        losses = row_losses(one, rows, CPU)
        losses.sum().backward()
        one.collect_gradients()
        found.append((losses.detach(), {n: m.grad for n, m in one.masters.items()}))
    (ours, ours_by), (theirs, theirs_by) = found
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    for name, gradient in theirs_by.items():
        assert gradient is not None and float(gradient.abs().max()) > 0
        torch.testing.assert_close(ours_by[name], gradient, rtol=1e-3, atol=1e-3 * float(gradient.abs().max()))


def test_it_learns_as_lora_does_and_says_what_it_changed(
    library: str, models: Path, tmp_path: Path, tuned: tuple[Path, dict[str, Any]]
):
    folder, claim = tuned
    assert float(claim["watched"]["loss"]) < float(claim["watched_base"]["loss"])
    plain = task.run(context(models, tmp_path, decisions(48), "lora", hyperparameters=NUMBERS))
    assert "quantisation" not in plain
    # Rounding moves the start; from there both fall alike, within a twentieth of what LoRA's loss falls.
    fall = float(plain["watched_base"]["loss"]) - float(plain["watched"]["loss"])
    assert fall > 0.2
    assert abs(float(claim["watched"]["loss"]) - float(plain["watched"]["loss"])) < 0.05 * fall
    assert claim["quantisation"] == {
        "format": "nf4", "block": 64, "double": True, "scale_block": 256, "layers": 14, "library": library,
        "weights": claim["quantisation"]["weights"], "bytes": claim["quantisation"]["bytes"],
    }  # fmt: skip
    assert (
        claim["method"] == "qlora" and library in claim["adapter"] and "belongs to the base model" in claim["adapter"]
    )
    facts = check_adapter_folder(folder)
    assert not facts.whole and facts.rank == 4 and facts.base_model == BASE_MODEL


def test_only_the_adapter_moves_and_the_base_model_stays_as_it_was(library: str, models: Path, tmp_path: Path):
    seen: list[TunedModel] = []
    before: list[dict[str, torch.Tensor]] = []
    made = qlora(models, tmp_path)
    original = load

    def noted(*arguments: Any, **more: Any) -> TunedModel:
        seen.append(original(*arguments, **more))
        before.append({n: four_bit.matrix_of(layer)() for n, layer in layers_of(seen[-1]).items()})
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.recipes.loop.load", noted)
        task.run(made)
    (model,) = seen
    after = {n: four_bit.matrix_of(layer)() for n, layer in layers_of(model).items()}
    assert all(torch.equal(after[n], matrix) for n, matrix in before[0].items()) and len(after) == 14
    assert {n for n, p in model.backbone.named_parameters() if p.requires_grad} == {
        n.removeprefix("base_model.model.model.")
        .replace(".lora_A.", ".lora_A.default.")
        .replace(".lora_B.", ".lora_B.default.")
        for n in model.adapter
    }
    verify_base_files(models / BASE_MODEL, read_base_manifest(models / BASE_MODEL))


def test_the_audit_measures_it_on_the_base_model_as_published(models: Path, tuned: tuple[Path, dict[str, Any]]):
    manifest = read_base_manifest(models / BASE_MODEL)
    audited = audit_model.load(models, BASE_MODEL, manifest.sha256, tuned[0])
    assert audited.environment["adapter_moved"] == "true" and audited.rank == 4
    numbers = Settings(lora_rank=4, lora_alpha=8)
    plain = load(models / BASE_MODEL / "files", numbers, CPU, 64, parent=tuned[0] / ADAPTER_WEIGHTS)
    plain.publish_masters()
    plain.backbone.eval()
    ids = torch.arange(5, 60).reshape(1, -1)
    with torch.inference_mode(), audited.using(True):
        theirs = audited.head(audited.decoder(input_ids=ids).last_hidden_state)
        ours = plain.head(plain.backbone(input_ids=ids).last_hidden_state)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    passage = Passage(tuple(range(5, 40)), (10, 20))
    (on,), (off,) = (audited.score([passage], adapter=a, clock=Clock.start(0)) for a in (True, False))
    assert abs(on.nll - off.nll).max() > 0.01


def test_a_paused_run_ends_bit_for_bit_as_an_uninterrupted_one(
    models: Path, tmp_path: Path, tuned: tuple[Path, dict[str, Any]]
):
    parts = qlora(models, tmp_path)
    object.__setattr__(parts, "send", lambda line: json.loads(line)["step"] == 4 and parts.pause_flag.touch())
    with pytest.raises(TaskPaused):
        task.run(parts)
    parts.pause_flag.unlink()
    object.__setattr__(parts, "send", lambda line: None)
    claim = task.run(parts)
    assert (parts.outputs / "adapter" / ADAPTER_WEIGHTS).read_bytes() == (tuned[0] / ADAPTER_WEIGHTS).read_bytes()
    assert claim["checkpoint_sha256"] == tuned[1]["checkpoint_sha256"]


@pytest.mark.timeout(300)
def test_killed_and_taken_up_again_it_ends_as_one_that_was_left_alone(library: str, tmp_path: Path):
    models = str(tiny_models(tmp_path / "models"))
    for folder, at, times, code in (("whole", "", 0, 0), ("parts", "step", 7, -signal.SIGKILL), ("parts", "", 0, 0)):
        assert in_process(models, str(tmp_path / folder), at, times, "qlora") == code
    whole, parts = ((tmp_path / name / "out" / "adapter" / ADAPTER_WEIGHTS).read_bytes() for name in ("whole", "parts"))
    assert whole == parts


def test_it_goes_on_from_lora_and_searches_over_ranks(models: Path, tmp_path: Path, tuned: tuple[Path, dict[str, Any]]):
    further = continued(models, tmp_path / "further", tuned[0], decisions(48), hyperparameters=NUMBERS)
    further.order["method"] = "lora"
    claim = task.run(further)
    assert claim["continued"] and float(claim["losses"][0][1]) < float(tuned[1]["losses"][0][1])
    claim = task.run(searching(models, tmp_path / "ranks", method="qlora", hyperparameters=NUMBERS))
    assert claim["quantisation"]["layers"] == 14 and all(trial["lora_rank"] for trial in claim["search"]["trials"])


def test_it_keeps_no_privacy(library: str, models: Path, tmp_path: Path):
    with pytest.raises(InvalidInputError) as caught:
        task.run(qlora(models, tmp_path, differential_privacy={"epsilon": "8", "delta": "0.001"}))
    assert caught.value.reason == "PRIVACY_METHOD"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_on_the_real_weights_the_adapter_helps_the_rounded_and_the_published_base(library: str, tmp_path: Path):
    """What is audited and permitted is the second, so that the first is no proof of anything by itself."""
    from transformers import AutoTokenizer

    claim = tune(tmp_path, chat(96), "qlora", epochs=2.0)
    before, after = (float(claim[name]["loss"]) for name in ("watched_base", "watched"))
    assert after < before
    assert claim["quantisation"]["layers"] == 210 and claim["quantisation"]["weights"] == 106_168_320
    assert 8 * claim["quantisation"]["bytes"] / claim["quantisation"]["weights"] < 4.2
    published = assay_home() / "models" / BASE_MODEL
    verify_base_files(published, read_base_manifest(published))
    files, weights = published / "files", tmp_path / "out" / "adapter" / ADAPTER_WEIGHTS
    model = load(files, Settings(), CPU, 256, parent=weights)
    model.publish_masters()
    model.backbone.eval()
    rows = Encoder(AutoTokenizer.from_pretrained(files, local_files_only=True), 256).encode(
        read_rows(tmp_path / "in" / "validation.jsonl")
    )
    on = objective_of("lora").watch(model, rows.rows, CPU)["loss"]
    with model.untuned():
        off = objective_of("lora").watch(model, rows.rows, CPU)["loss"]
    print("rounded", before, after, "published", off, on)
    assert on < off
