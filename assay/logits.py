"""What every loss and every score takes for granted of a base model: its output layer has the last word."""

from __future__ import annotations

from typing import Any

from assay.errors import InvalidInputError


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
