"""Batched generation with a key-value cache: greedy, or sampling that a seed repeats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from audit.probes.clock import Clock
from audit.probes.passages import Decoding, shared_opening
from audit.probes.roomy import give_room

if TYPE_CHECKING:
    from audit.probes.model import TunedModel
    from audit.probes.openings import Openings

TOP_K = 40
"""Sampling draws from the 40 likeliest tokens at temperature 1, as Carlini et al. (USENIX Security 2021) extract."""
_WORTH_MOVING = 7 / 8
_HELD_TOKENS = 65_536
_MASKED = 1024 * _HELD_TOKENS
"""Tokens of a batch whose keys and values are held at once, and places of its mask: of sixty-four texts of 1,024."""


def generate(
    model: TunedModel, prompts: Sequence[Sequence[int]], decoding: Decoding, *, adapter: bool, clock: Clock
) -> list[list[int]]:
    """Writes on from each prompt, no further than the model's context; in the prompts' order and without the prompts.

    Raises:
        IntegrityError: ``MODEL_NOT_FINITE``.
        ExhaustedError: ``AUDIT_TIME_LIMIT``.
    """
    if not prompts:
        return []
    # Equal prompts end up side by side, so that each is read once and its samples share the reading.
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), tuple(prompts[i]), i))
    # Behind a shared opening there is padding before shorter rests; without one it comes first, where nothing looks.
    shared = shared_opening(prompts, min(len(p) for p in prompts) - 1) if model.bridges else 0
    out: list[list[int]] = [[] for _ in prompts]
    with model.using(adapter):
        opening = model.openings([prompts[0][:shared]]) if shared else None
        start = 0
        while start < len(order):
            batch = _batch(
                order[start:], [len(p) for p in prompts], model.batches.rows, model.context - decoding.tokens
            )
            reading = _read(model, [tuple(prompts[i]) for i in batch], shared, opening)
            room = max(0, min(decoding.tokens, model.context - len(prompts[batch[-1]])))
            written = _write(model, reading, replace(decoding, tokens=room), _generator(model, decoding, start), clock)
            for i, ids in zip(batch, written, strict=True):
                out[i] = ids
            start += len(batch)
    return out


def _batch(order: Sequence[int], lengths: Sequence[int], rows: int, whole: int) -> list[int]:
    """The first of texts in order of length that are written side by side.

    Fewer of long ones, which hold more keys and a larger mask, and none that leaves room for less than a whole answer
    (longer than ``whole``) beside a shorter one, which would be cut with it.
    """
    size, most = 1, min(rows, len(order))
    while size < most:
        longest = lengths[order[size]]
        tokens = (size + 1) * longest
        apart = longest > max(whole, lengths[order[0]])
        if apart or tokens > _HELD_TOKENS or tokens * longest > _MASKED:
            break
        size += 1
    return list(order[:size])


@dataclass
class _Reading:
    """A batch of texts so far: logits of the next token, keys and values, which places are real, and the last position.

    Shapes: logits (rows, vocabulary), mask (rows, length), position (rows, 1).
    """

    logits: torch.Tensor
    cache: Any
    mask: torch.Tensor
    position: torch.Tensor

    def keep(self, rows: list[int]) -> None:
        """Keeps these rows, in this order; a row may be repeated."""
        index = torch.tensor(rows, device=self.mask.device)
        self.cache.batch_select_indices(index)
        self.logits, self.mask, self.position = self.logits[index], self.mask[index], self.position[index]


def _read(model: TunedModel, prompts: Sequence[tuple[int, ...]], shared: int, opening: Openings | None) -> _Reading:
    """Runs each distinct prompt once: the shared opening, padding, then the rest of it."""
    distinct = list(dict.fromkeys(prompts))
    rests = [p[shared:] for p in distinct]
    width = max(len(r) for r in rests)
    ids = torch.tensor([[*[0] * (width - len(r)), *r] for r in rests], device=model.device)
    real = [[*[1] * shared, *[0] * (width - len(r)), *[1] * len(r)] for r in rests]
    mask = torch.tensor(real, device=model.device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, shared:]
    state = model.decoder(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=opening.cache([0] * len(distinct)) if opening is not None else None,
        use_cache=True,
    )
    logits = model.next_logits(state.last_hidden_state[:, -1])[0]
    reading = _Reading(logits, state.past_key_values, mask, positions[:, -1:])
    if len(distinct) < len(prompts):
        place = {p: k for k, p in enumerate(distinct)}
        reading.keep([place[p] for p in prompts])
    return reading


def _write(
    model: TunedModel, reading: _Reading, decoding: Decoding, generator: torch.Generator | None, clock: Clock
) -> list[list[int]]:
    """Writes on token by token; rows that have ended leave the batch once there are enough of them."""
    written: list[list[int]] = [[] for _ in reading.logits]
    rows = list(range(len(written)))
    ended: set[int] = set()
    give_room(reading.cache, decoding.tokens)
    for turn in range(decoding.tokens):
        clock.check()
        chosen = dict(zip(rows, _pick(reading.logits, generator), strict=True))
        ended |= {row for row, token in chosen.items() if token in decoding.stops}
        going = [row for row in rows if row not in ended]
        for row in going:
            written[row].append(chosen[row])
        if not going or turn + 1 == decoding.tokens:
            break
        if len(going) <= _WORTH_MOVING * len(rows):
            reading.keep([k for k, row in enumerate(rows) if row not in ended])
            rows = going
        reading.mask = torch.cat([reading.mask, torch.ones_like(reading.mask[:, :1])], dim=1)
        reading.position = reading.position + 1
        state = model.decoder(
            input_ids=torch.tensor([[chosen[row]] for row in rows], device=model.device),
            attention_mask=reading.mask,
            position_ids=reading.position,
            past_key_values=reading.cache,
            use_cache=True,
        )
        reading.cache = state.past_key_values
        reading.logits = model.next_logits(state.last_hidden_state[:, -1])[0]
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
