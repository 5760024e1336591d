"""A tiny random Llama with the real tokenizer, for the trainer's plumbing; end-to-end tests use the real weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from assay import digests
from assay.modelfiles import read_base_manifest
from assay.pinned import assay_home

if TYPE_CHECKING:
    from trainer.recipes.lora import TunedModel

BASE_MODEL = "smollm2-135m-instruct"


def tiny_models(folder: Path, *, template: bool = True, kind: str = "llama", **changes: int) -> Path:
    """Models whose base is a tiny random Llama with the real tokenizer: for plumbing, not for measuring.

    Args:
        folder: gets the model; must not hold one.
        template: whether the tokenizer has its chat template.
        kind: another family of transformers instead of Llama.
        **changes: members of the model's configuration, such as ``vocab_size``.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    real = assay_home() / "models" / BASE_MODEL
    files = folder / BASE_MODEL / "files"
    files.mkdir(parents=True)
    names = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
    for name in names if template else (n for n in names if n != "chat_template.jinja"):
        shutil.copyfile(real / "files" / name, files / name)
    known = json.loads((real / "files" / "config.json").read_text())
    torch.manual_seed(0)
    sizes = {
        "vocab_size": known["vocab_size"], "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048,
    } | changes  # fmt: skip
    special = {name: known.get(name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = AutoConfig.for_model(kind, **sizes, **special, tie_word_embeddings=True)
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(files)
    for path in files.iterdir():
        path.chmod(0o644)  # safetensors writes for its owner only
    manifest = json.loads((real / "manifest.json").read_text())
    found = digests.folder_manifest(files)
    manifest["files"] = [{"path": f.path, "sha256": f.sha256, "size": f.size} for f in found.files]
    manifest["sha256"] = found.sha256
    manifest["parameters"] = sum(1 for _ in found.files)
    (folder / BASE_MODEL / "manifest.json").write_text(json.dumps(manifest))
    read_base_manifest(folder / BASE_MODEL)
    folder.chmod(0o755)  # a sandbox runs as nobody, and pytest's folders are private
    return folder


def word_tokenizer(
    folder: Path, vocabulary: int, template: str = "{% for m in messages %}{{ m.content }}{% endfor %}"
) -> None:
    """Files of a tokenizer of so many words with a chat template, as a publisher lays them out."""
    from tokenizers import Tokenizer, models

    Tokenizer(models.WordLevel({f"w{i}": i for i in range(vocabulary)}, "w0")).save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def tuned_a_little(model: TunedModel) -> TunedModel:
    """The same model, its LoRA's B no longer zero, as if it had learned something."""
    import torch

    with torch.no_grad():
        for name, master in model.masters.items():
            if ".lora_B." in name:
                master.normal_(std=0.5, generator=torch.Generator().manual_seed(len(name)))
    model.publish_masters()
    model.backbone.eval()
    return model
