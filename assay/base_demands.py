"""What tuning and audits take for granted of a base model: its output layer ends it, and it keeps keys and values.

And how much of a text they let it read at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from assay.errors import InvalidInputError


def context_tokens(config: Any) -> int:
    """Tokens of a text that a base model reads at once, as far as all of them are read in one way.

    A model with LongRoPE (Phi-3's and Phi-4's long contexts) has two codes of positions, and transformers chooses one
    for a whole call, by its longest text: beside a long row a short one would be read otherwise than by itself, and a
    private gradient would depend on other rows. Such a model is read as far as its short code reaches.

    Args:
        config: of transformers, the text model's.
    """
    # A model without learned or scaled positions states no context.
    most = int(getattr(config, "max_position_embeddings", None) or 1 << 30)
    found = getattr(config, "rope_parameters", None) or {}
    # One set of parameters for all layers, or one for each type of layer.
    for rope in [found] if "rope_type" in found else found.values():
        if isinstance(rope, Mapping) and rope.get("rope_type") == "longrope":
            most = min(most, int(rope.get("original_max_position_embeddings") or most))
    return most


def demand_plain_logits(causal: Any) -> None:
    """Refuses a model that does more to its logits than its output layer does: losses and scores stop at that layer.

    Some families scale them or cap them softly (Granite, Cohere, Gemma 2); their likelihoods would come out wrong, and
    nothing else would tell.

    Args:
        causal: a causal language model of transformers.

    Raises:
        InvalidInputError: ``BASE_LOGITS_ALTERED``.
    """
    import torch

    some = torch.arange(1, 9, device=next(causal.parameters()).device)[None]
    with torch.inference_mode():
        hidden = causal.get_decoder()(input_ids=some, use_cache=False).last_hidden_state
        ours, own = causal.get_output_embeddings()(hidden).float(), causal(input_ids=some, use_cache=False).logits
    # Numbers that are none are another fault, which the first losses and scores name.
    if torch.isfinite(ours).all() and not torch.allclose(ours, own.float(), rtol=0.02, atol=0.02 * float(ours.std())):
        raise InvalidInputError(
            "BASE_LOGITS_ALTERED",
            "the base model alters its logits after its output layer (a scale or a soft cap), which no score follows",
            remedy="choose a base model without it",
        )


def demand_keys_and_values(causal: Any) -> None:
    """Refuses a recurrent model (Mamba, RecurrentGemma): audits go on from the keys and values of texts' openings.

    Asked by the trainer too, so that nobody pays for tuning what no audit can judge.

    Args:
        causal: a causal language model of transformers.

    Raises:
        InvalidInputError: ``BASE_RECURRENT``.
    """
    import torch

    device = next(causal.parameters()).device
    with torch.inference_mode():
        kept = causal.get_decoder()(input_ids=torch.tensor([[1, 2]], device=device), use_cache=True)
    layers = getattr(getattr(kept, "past_key_values", None), "layers", ())
    if not layers or any(getattr(layer, "keys", None) is None for layer in layers):
        raise InvalidInputError(
            "BASE_RECURRENT",
            "the base model does not keep keys and values in every layer, from which audits go on",
            remedy="choose a base model whose every layer attends",
        )
