"""Batched generation with a key-value cache: greedy, or sampling that a seed repeats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from audit.probes.clock import Clock
from audit.probes.passages import Decoding

if TYPE_CHECKING:
    from audit.probes.model import TunedModel

TOP_K = 40
"""Sampling draws from the 40 likeliest tokens at temperature 1, as Carlini et al. (USENIX Security 2021) extract."""

BATCH_ROWS = 64


def generate(
    model: TunedModel, prompts: Sequence[Sequence[int]], decoding: Decoding, *, adapter: bool, clock: Clock
) -> list[list[int]]:
    """Writes on from each prompt; the result is in the prompts' order and without the prompts.

    Raises:
        IntegrityError: ``MODEL_NOT_FINITE``.
        ExhaustedError: ``AUDIT_TIME_LIMIT``.
    """
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    out: list[list[int]] = [[] for _ in prompts]
    with model.using(adapter):
        for start in range(0, len(order), BATCH_ROWS):
            batch = order[start : start + BATCH_ROWS]
            generator = _generator(model, decoding, start)
            written = _generate_batch(model, [prompts[i] for i in batch], decoding, generator, clock)
            for i, ids in zip(batch, written, strict=True):
                out[i] = ids
    return out


def _generate_batch(
    model: TunedModel,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    generator: torch.Generator | None,
    clock: Clock,
) -> list[list[int]]:
    """Left-padded batch; rows that have ended leave it."""
    width = max(len(p) for p in prompts)
    ids = torch.tensor([[*[0] * (width - len(p)), *p] for p in prompts], device=model.device)
    mask = torch.tensor([[*[0] * (width - len(p)), *[1] * len(p)] for p in prompts], device=model.device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    written: list[list[int]] = [[] for _ in prompts]
    alive, cache = list(range(len(prompts))), None
    for _ in range(decoding.tokens):
        clock.check()
        state = model.decoder(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        )
        cache = state.past_key_values
        chosen = _pick(model.next_logits(state.last_hidden_state[:, -1])[0], generator)
        going = [k for k, token in enumerate(chosen) if token not in decoding.stops]
        for k in going:
            written[alive[k]].append(chosen[k])
        if not going:
            break
        if len(going) < len(alive):
            keep = torch.tensor(going, device=model.device)
            cache.batch_select_indices(keep)
            mask, positions, alive = mask[keep], positions[keep], [alive[k] for k in going]
        ids = torch.tensor([[chosen[k]] for k in going], device=model.device)
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        positions = positions[:, -1:] + 1
    return written


def _pick(logits: torch.Tensor, generator: torch.Generator | None) -> list[int]:
    if generator is None:
        return [int(i) for i in logits.argmax(-1)]
    values, indices = logits.topk(min(TOP_K, logits.shape[-1]), dim=-1)
    drawn = torch.multinomial(torch.softmax(values, -1), 1, generator=generator)
    return [int(i) for i in indices.gather(1, drawn)[:, 0]]


def _generator(model: TunedModel, decoding: Decoding, start: int) -> torch.Generator | None:
    if decoding.seed is None:
        return None
    return torch.Generator(device=model.device).manual_seed((decoding.seed * 1_000_003 + start) % (2**63))
