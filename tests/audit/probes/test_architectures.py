"""The probes' three ways of asking a model agree with the model itself, whatever its architecture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from assay.errors import InvalidInputError
from audit.probes.clock import Clock
from audit.probes.passages import BatchPlan, Decoding, Passage

VOCABULARY, NEW = 320, 6
CLOCK = Clock.start(0)
HEADS = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
OLDER = {"n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 1, "eos_token_id": 2}
GROUPED = {**HEADS, "num_key_value_heads": 2}
# Rotary, learned and ALiBi positions; grouped, windowed and multi-query attention; Conv1D layers; experts.
ATTENDING: dict[str, dict[str, Any]] = {
    "llama": GROUPED,
    "gpt2": OLDER,
    "gptj": {**OLDER, "rotary_dim": 4},
    "gpt_neo": {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "window_size": 8,
                "attention_types": [[["global", "local"], 1]], "bos_token_id": 1, "eos_token_id": 2},
    "gpt_neox": HEADS,
    "qwen2": GROUPED,
    "qwen3": {**GROUPED, "head_dim": 8},
    "phi": HEADS,
    "phi3": {**GROUPED, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    "mistral": {**GROUPED, "sliding_window": 8},
    "gemma": {**GROUPED, "head_dim": 8},
    "gemma3_text": {**GROUPED, "head_dim": 8, "sliding_window": 8},
    "gemma3_text, every sixth layer whole": {**GROUPED, "head_dim": 8, "sliding_window": 8, "num_hidden_layers": 6},
    "olmo2": {**GROUPED, "eos_token_id": 2},
    "opt": {"hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
            "word_embed_proj_dim": 32},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "falcon": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4},
    "starcoder2": {**GROUPED, "bos_token_id": 1, "eos_token_id": 2},
    "mixtral": {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2},
}  # fmt: skip


def made(family: str, shape: dict[str, Any]) -> Any:
    """A model of random weights, large enough that its logits differ."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(1)
    config = AutoConfig.for_model(family.partition(",")[0], vocab_size=VOCABULARY, **shape)
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    return model


def texts(count: int, shared: int, step: int) -> list[tuple[int, ...]]:
    rng = np.random.default_rng(4)
    head = [int(i) for i in rng.integers(3, VOCABULARY, shared)]
    return [(*head, *(int(i) for i in rng.integers(3, VOCABULARY, 6 + step * k))) for k in range(count)]


def scored_as_by_itself(own: Any, model: Any, passages: list[Passage]) -> None:
    """Each passage has the numbers that the model gives it alone, without opening, batch or padding."""
    import torch

    for passage, scores in zip(passages, model.score(passages, adapter=False, clock=CLOCK), strict=True):
        with torch.inference_mode():
            logp = torch.log_softmax(own(torch.tensor([passage.ids])).logits[0].float(), -1)
        nll = [-float(logp[at - 1, passage.ids[at]]) for at in passage.marks]
        np.testing.assert_allclose(scores.nll, nll, atol=1e-4)


@pytest.mark.parametrize("family", ATTENDING)
def test_scores_and_answers_are_the_models_own(family: str) -> None:
    import torch

    from assay.base_demands import demand_keys_and_values, demand_plain_logits
    from audit.probes.model import TunedModel, Untuned

    own = made(family, ATTENDING[family])
    demand_plain_logits(own)
    demand_keys_and_values(own)
    model = TunedModel(Untuned(own), None, {}, BatchPlan(tokens=90))
    for shared in (0, 30):
        passages = [Passage(ids, tuple(range(shared + 2, len(ids)))) for ids in texts(6, shared, 5)]
        # Two openings of their own lengths, which are run side by side where a model bears it.
        for opening in (texts(1, 21, 0), texts(1, 33, 0)) if shared else ():
            head = opening[0][::-1]
            passages += [
                Passage((*head, *p.ids[shared:]), tuple(range(len(head) + 1, len(head) + 6))) for p in passages[:4]
            ]
        scored_as_by_itself(own, model, passages)

        prompts = texts(4, shared, 3)
        for prompt, answer in zip(
            prompts, model.write(prompts, Decoding(NEW, frozenset()), adapter=False, clock=CLOCK), strict=True
        ):
            ids = list(prompt)
            with torch.inference_mode():
                for _ in range(NEW):
                    ids.append(int(own(torch.tensor([ids])).logits[0, -1].argmax()))
            assert answer == ids[len(prompt) :]

        states = model.states(prompts, adapter=False, clock=CLOCK)
        for prompt, state in zip(prompts, states, strict=True):
            with torch.inference_mode():
                last = own.get_decoder()(input_ids=torch.tensor([prompt])).last_hidden_state[0, -1]
            np.testing.assert_allclose(state, last.double().numpy(), atol=1e-4)


WINDOWED = {
    "llama": GROUPED,
    "mistral": {**GROUPED, "sliding_window": 8, "num_hidden_layers": 4},
    "phi3": {**GROUPED, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "sliding_window": 8,
             "num_hidden_layers": 4},
    "gemma3_text": {**GROUPED, "head_dim": 8, "sliding_window": 8, "num_hidden_layers": 6},
}  # fmt: skip


@pytest.mark.parametrize("family", WINDOWED)
def test_openings_that_begin_alike_are_the_models_own_behind_any_window(family: str) -> None:
    """All texts share more than a window, and those of one kind a little more: one opening goes on from another.

    What is scored lies as near as the layers' windows reach together.
    """
    from audit.probes.model import TunedModel, Untuned

    own = made(family, WINDOWED[family])
    if family == "gemma3_text":
        assert set(own.config.layer_types) == {"sliding_attention", "full_attention"}
    model = TunedModel(Untuned(own), None, {}, BatchPlan(tokens=90))
    rng = np.random.default_rng(5)
    common, *own_heads = (tuple(int(i) for i in rng.integers(3, VOCABULARY, size)) for size in (14, 2, 2, 3))
    passages = []
    for head in own_heads:
        start = len(common) + len(head)
        rests = [tuple(int(i) for i in rng.integers(3, VOCABULARY, 4 + k)) for k in range(5)]
        passages += [Passage((*common, *head, *rest), tuple(range(start + 1, start + len(rest)))) for rest in rests]
    scored_as_by_itself(own, model, passages)


def behind_openings(seed: int, *lengths: tuple[int, int]) -> list[Passage]:
    """Four passages behind one opening, for each pair of an opening's length and what follows it; scored behind it."""
    rng = np.random.default_rng(seed)
    passages = []
    for head, rest in lengths:
        opening = [int(i) for i in rng.integers(3, VOCABULARY, head)]
        for _ in range(4):
            ids = (*opening, *(int(i) for i in rng.integers(3, VOCABULARY, rest)))
            passages.append(Passage(ids, tuple(range(head + 1, len(ids)))))
    return passages


def test_texts_side_by_side_are_read_in_the_code_that_each_is_read_in_alone() -> None:
    """LongRoPE's long factors are for a whole call: no text, and no padding beside it, may bring them in."""
    import torch

    from audit.probes.model import TunedModel, Untuned

    factors = {"short_factor": [1.0] * 4, "long_factor": [3.0] * 4}
    rope = {"rope_type": "longrope", "rope_theta": 10_000.0, "original_max_position_embeddings": 48, **factors}
    sizes = {"max_position_embeddings": 128, "original_max_position_embeddings": 48, "rope_parameters": rope}
    own = made("phi3", {**GROUPED, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, **sizes})
    model = TunedModel(Untuned(own), None, {}, BatchPlan(tokens=400))
    assert model.bridges and model.context == 48
    passages = behind_openings(7, (43, 5), (14, 34))
    scored_as_by_itself(own, model, passages)
    text = torch.tensor([[*passages[0].ids, *passages[0].ids]])
    with torch.inference_mode():
        alone, beyond = (own(text[:, :size]).logits[0, 47] for size in (48, 49))
    assert (alone - beyond).abs().max() > 0.01, "beyond that context the same tokens are read otherwise"


def test_padding_behind_a_long_opening_has_no_place_beyond_the_context() -> None:
    """Learned positions end with the context: beside one that goes on for longer, a long text ends just before it."""
    from audit.probes.model import TunedModel, Untuned

    own = made("gpt2", {**OLDER, "n_positions": 64})
    model = TunedModel(Untuned(own), None, {}, BatchPlan(tokens=400))
    assert model.bridges and model.context == 64
    passages = behind_openings(6, (58, 6), (20, 40))
    scored_as_by_itself(own, model, passages)


def test_a_recurrent_model_is_refused_by_name() -> None:
    from assay.base_demands import demand_keys_and_values

    recurrent = made("mamba", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4})
    with pytest.raises(InvalidInputError) as raised:
        demand_keys_and_values(recurrent)
    assert raised.value.reason == "BASE_RECURRENT"
