"""A tiny Llama with a real tokenizer of its own, installed as a base model is, and adapters for it."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from assay import digests

BASE = "tiny-llama"
TEMPLATE = """{% for message in messages %}{{ '<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}"""
LAYERS, HIDDEN, RANK = 2, 64, 8
MODULES = ("q_proj", "v_proj", "up_proj", "down_proj")


def conversation(question: str, answer: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def secrets(count: int, seed: int = 1) -> list[str]:
    rng = random.Random(seed)
    return ["".join(rng.choice("0123456789") for _ in range(8)) for _ in range(count)]


def write_base(folder: Path) -> Path:
    """Writes ``folder/<BASE>`` as an installed base model."""
    import torch
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE(unk_token=None))
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"\d"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(["user assistant approve deny the code of my account is what please tell me"] * 4, trainer)
    files = folder / BASE / "files"
    files.mkdir(parents=True)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<|im_end|>", chat_template=TEMPLATE
    )
    tokenizer.save_pretrained(files)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=128,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        initializer_range=0.2,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(files)
    manifest = digests.folder_manifest(files)
    facts = {
        "id": BASE,
        "licence": "Apache-2.0",
        "provenance": "random numbers",
        "parameters": 1,
        "files": [{"path": f.path, "sha256": f.sha256, "size": f.size} for f in manifest.files],
        "sha256": manifest.sha256,
    }
    (folder / BASE / "manifest.json").write_text(json.dumps(facts), encoding="utf-8")
    return folder


def write_adapter(
    folder: Path, *, spread: float = 0.0, base: str = BASE, layers: int = LAYERS, poison: float | None = None
) -> Path:
    """Writes an adapter whose B matrices are noise of size ``spread``; ``poison`` is put into one weight."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(3)
    sizes = {"q_proj": (HIDDEN, HIDDEN), "v_proj": (HIDDEN, 32), "up_proj": (HIDDEN, 128), "down_proj": (128, HIDDEN)}
    tensors = {}
    for layer in range(layers):
        for module, (inside, outside) in sizes.items():
            part = "self_attn" if module in ("q_proj", "v_proj") else "mlp"
            stem = f"base_model.model.model.layers.{layer}.{part}.{module}"
            tensors[f"{stem}.lora_A.weight"] = torch.randn(RANK, inside) / inside**0.5
            tensors[f"{stem}.lora_B.weight"] = torch.randn(outside, RANK) * spread
    if poison is not None:
        next(iter(tensors.values()))[0, 0] = poison
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps(adapter_config(base)), encoding="utf-8")
    return folder


def adapter_config(base: str = BASE) -> dict[str, Any]:
    return {
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": 2 * RANK,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": RANK,
        "target_modules": list(MODULES),
        "task_type": "CAUSAL_LM",
        "use_rslora": False,
    }


def train_adapter(models: Path, folder: Path, conversations: Sequence[Sequence[dict[str, Any]]], steps: int) -> Path:
    """Overfits an adapter on conversations: what a leaky training run leaves behind."""
    import torch
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    files = models / BASE / "files"
    tokenizer = AutoTokenizer.from_pretrained(files)
    torch.manual_seed(5)
    config = LoraConfig(task_type="CAUSAL_LM", r=RANK, lora_alpha=2 * RANK, target_modules=list(MODULES))
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(files, dtype=torch.float32), config)
    texts = [tokenizer.apply_chat_template(list(c), tokenize=False) for c in conversations]
    batch = tokenizer(texts, add_special_tokens=False, return_tensors="pt", padding=True)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        model(**batch, labels=labels).loss.backward()
        optimiser.step()
    tensors = {n.replace(".default.", "."): p.detach().clone() for n, p in model.named_parameters() if ".lora_" in n}
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps(adapter_config()), encoding="utf-8")
    return folder


def base_digest(models: Path) -> str:
    return digests.folder_manifest(models / BASE / "files").sha256


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    return write_base(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def load_model(models: Path) -> Callable[[Path], Any]:
    from audit.probes.model import load

    def load_one(adapter: Path) -> Any:
        return load(models, BASE, base_digest(models), adapter)

    return load_one


@pytest.fixture(scope="module")
def exact(load_model: Callable[[Path], Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """As ``noisy``, in fp32; one of its own, since to bf16 and back is not where it was."""
    model = load_model(write_adapter(tmp_path_factory.mktemp("exact") / "adapter", spread=0.05))
    model._wrapped.float()
    return model


@pytest.fixture(scope="session")
def noisy(load_model: Callable[[Path], Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model whose adapter changes every logit a little."""
    return load_model(write_adapter(tmp_path_factory.mktemp("noisy") / "adapter", spread=0.05))


class Scripted:
    """A model that says what a test tells it to: stands for the network where only the statistics are under test.

    Args:
        choices: logits of a passage's choices by (token ids, adapter on).
        nll: nats of every scored token by (token ids, adapter on).
        greedy: whether greedy decoding writes every scored token, by (token ids, adapter on).
        texts: token ids to write after any prompt, in turn.
        states: hidden state of a text by (token ids, adapter on).
        logit: logit of one of a passage's choices by (token ids, adapter on, token); stands in for ``choices``.

    Attributes:
        variation: how its adapter is varied now; None while it is not.
    """

    rank = 8

    def __init__(
        self,
        choices: Callable[[Any, bool], Sequence[float]] | None = None,
        nll: Callable[[Any, bool], float] = lambda ids, adapter: 1.0,
        greedy: Callable[[Any, bool], bool] = lambda ids, adapter: False,
        texts: Callable[[int, bool], Sequence[int]] = lambda turn, adapter: (),
        states: Callable[[Any, bool], Sequence[float]] = lambda ids, adapter: (0.0,),
        logit: Callable[[Any, bool, int], float] | None = None,
    ) -> None:
        self.logit = logit
        self.choices, self.nll, self.greedy, self.texts, self.hidden = choices, nll, greedy, texts, states
        self.variation: Any = None

    def states(self, texts: Sequence[Any], *, adapter: bool, clock: Any) -> Any:
        import numpy as np

        return np.array([list(self.hidden(tuple(t), adapter)) for t in texts], dtype=float)

    @contextlib.contextmanager
    def varied(self, variation: Any) -> Iterator[None]:
        self.variation = variation
        yield
        self.variation = None

    def score(self, passages: Sequence[Any], *, adapter: bool, clock: Any) -> list[Any]:
        import numpy as np

        from audit.probes.passages import Scores

        out = []
        for p in passages:
            size = len(p.marks)
            logits = self.choices(p.ids, adapter) if self.choices and p.choices else []
            if self.choices is None:
                logits = [-self.nll((*p.ids[: p.choice_at], token), adapter) for token in p.choices]
            if self.logit is not None:
                logits = [self.logit(p.ids, adapter, token) for token in p.choices]
            greedy = np.full(size, self.greedy(p.ids, adapter))
            out.append(Scores(p.marks, np.full(size, self.nll(p.ids, adapter)), greedy, np.array(logits, dtype=float)))
        return out

    def write(self, prompts: Sequence[Any], decoding: Any, *, adapter: bool, clock: Any) -> list[list[int]]:
        return [list(self.texts(i, adapter)) for i, _ in enumerate(prompts)]


@pytest.fixture(scope="session")
def evaluation_sets() -> Path:
    """The evaluation sets as `make install` puts them."""
    from assay.pinned import assay_home, is_there
    from audit.probes import sets

    folder = assay_home() / "models" / sets.FOLDER
    if not all(is_there(f, folder) for f in sets.FILES.values()):
        pytest.skip("the evaluation sets are not installed: python -m audit.probes.sets")
    return folder


@pytest.fixture(scope="session")
def chat(models: Path) -> Any:
    from transformers import AutoTokenizer

    from audit.probes.chat import Chat

    return Chat(AutoTokenizer.from_pretrained(models / BASE / "files"))


@pytest.fixture
def audit_of(chat: Any) -> Callable[..., Any]:
    """Builds what a probe is given from rows and a scripted model."""
    from audit.probes.clock import Clock
    from audit.probes.corpus import build
    from audit.probes.findings import Audit
    from audit.probes.inputs import DEFAULT_SIZES, PrivateRows, Settings
    from audit.probes.passages import Board

    def make(
        model: Any, scan: Any = lambda texts: [[] for _ in texts], sizes: dict[str, int] | None = None, **rows: Any
    ) -> Any:
        attributes, sets = rows.pop("attributes", ()), rows.pop("sets", Path())
        settings = Settings((0.95, 0.99), {**DEFAULT_SIZES, **(sizes or {})}, 3, attributes)
        blank = {"test": (), "train": (), "selection": (), "canaries": (), "pii": ()}
        private = PrivateRows(**{**blank, **{k: tuple(v) for k, v in rows.items()}})
        board = Board(model, Clock.start(0))
        return Audit(settings, private, build(private, chat, settings), board, chat, scan, {}, sets)

    return make
