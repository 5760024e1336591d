"""Rows in packs: the layout, and that a model says and learns the same as from rows by themselves."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.tiny_models import BASE_MODEL, tiny_models, tuned_a_little
from trainer.device import Device
from trainer.recipes import lora
from trainer.recipes.lora import TunedModel, load
from trainer.recipes.objectives import row_losses, row_sums
from trainer.recipes.packs import Packs, pack, understands_packs
from trainer.recipes.rows import EncodedRow
from trainer.settings import Settings

CPU = Device("cpu", "float32", "")
ROWS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models(tmp_path_factory.mktemp("models"))


def tuned(models: Path, packs: bool, monkeypatch: pytest.MonkeyPatch, dropout: float = 0.0) -> TunedModel:
    """The same adapter either way."""
    if not packs:
        monkeypatch.setattr(lora, "understands_packs", lambda *_: False)
    chosen = Settings(lora_rank=4, lora_alpha=8, lora_dropout=dropout)
    made = load(models / BASE_MODEL / "files", chosen, CPU, 64)
    monkeypatch.undo()
    return tuned_a_little(made)


def ancestors(parents: tuple[int, ...], place: int) -> Iterator[int]:
    while place >= 0:
        yield place
        place = parents[place]


def as_packed(packs: Packs) -> list[list[int]]:
    """Rows read back by walking from their last token up."""
    out = []
    for n, places in packs.rows:
        up = list(ancestors(packs.parents[n], places[-1]))
        assert list(reversed(up)) == list(places)
        out.append([packs.tokens[n][place] for place in places])
    return out


@given(rows=ROWS)
@settings(max_examples=200)
def test_every_row_is_read_whole_and_what_rows_share_is_there_once(rows: list[list[int]]) -> None:
    packs = pack(rows)
    assert as_packed(packs) == rows
    for n, (tokens, parents) in enumerate(zip(packs.tokens, packs.parents, strict=True)):
        paths = {tuple(tokens[a] for a in ancestors(parents, place)) for place in range(len(tokens))}
        assert len(paths) == len(tokens), "a beginning stands in one pack twice"
        assert all(parent < place for place, parent in enumerate(parents))
        begun = {tuple(row[: k + 1][::-1]) for row, (m, _) in zip(rows, packs.rows, strict=True) if m == n
                 for k in range(len(row))}  # fmt: skip
        assert paths == begun


def test_long_rows_get_packs_of_their_own_and_short_ones_share() -> None:
    pick = random.Random(1)
    long_rows = [[pick.randrange(1000) for _ in range(900)] for _ in range(4)]
    assert len(pack(long_rows).tokens) == 4
    short = [[1, 2, 3, *(pick.randrange(1000) for _ in range(20))] for _ in range(6)]
    packs = pack(short)
    assert len(packs.tokens) == 1
    assert len(packs.tokens[0]) == 3 + 6 * 20
    assert packs.width % 16 == 0


def rows_to_learn(seed: int) -> list[EncodedRow]:
    """Rows that share a prompt, rows that share nothing, one within another, and two that are the same."""
    pick = random.Random(seed)
    opening = [pick.randrange(200) for _ in range(9)]
    tokens = [[*opening, *(pick.randrange(200) for _ in range(pick.randrange(3, 20)))] for _ in range(4)]
    tokens += [[pick.randrange(200) for _ in range(7)], tokens[0], tokens[1][:-2]]
    return [EncodedRow(tuple(t), (False,) * 4 + (True,) * (len(t) - 4), 1.0) for t in tokens]


def test_losses_and_gradients_are_those_of_padded_rows(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    rows = rows_to_learn(3)
    found: dict[bool, Any] = {}
    for packs in (True, False):
        model = tuned(models, packs, monkeypatch)
        assert model.packs is packs
        losses = row_losses(model, rows, CPU)
        (losses * torch.arange(1.0, len(rows) + 1)).sum().backward()
        model.collect_gradients()
        found[packs] = (
            losses.detach(),
            row_sums(model, rows, CPU).detach(),
            {n: m.grad for n, m in model.masters.items()},
        )
    for one, other in zip(found[True][:2], found[False][:2], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    for name, gradient in found[False][2].items():
        torch.testing.assert_close(found[True][2][name], gradient, rtol=1e-3, atol=1e-5)
    assert any(float(g.abs().max()) > 1e-3 for g in found[False][2].values())


def test_dropout_keeps_rows_apart(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not tuned(models, True, monkeypatch, dropout=0.1).packs


def test_an_adapter_whose_rows_are_accounted_for_one_by_one_keeps_them_apart(models: Path) -> None:
    assert not load(models / BASE_MODEL / "files", Settings(lora_rank=4, lora_alpha=8), CPU, 64, fused=False).packs


def test_models_that_see_something_else_are_not_asked_to(models: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, MambaConfig, MambaForCausalLM, MistralConfig

    where = torch.device("cpu")
    small: dict[str, Any] = {"vocab_size": 128, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    torch.manual_seed(0)
    plain: Any = AutoModelForCausalLM.from_config(LlamaConfig(**small, **heads))
    assert understands_packs(plain.eval().model, where)
    windowed: Any = AutoModelForCausalLM.from_config(MistralConfig(**small, **heads, sliding_window=8))
    assert not understands_packs(windowed.eval().model, where)
    whole: Any = AutoModelForCausalLM.from_config(MistralConfig(**small, **heads, sliding_window=None))
    assert understands_packs(whole.eval().model, where)
    recurrent = MambaForCausalLM(MambaConfig(vocab_size=128, hidden_size=32, num_hidden_layers=2, state_size=4))
    assert not understands_packs(recurrent.eval().backbone, where)
