"""Keys and values of opening words that texts share, run once; several openings side by side, however long each is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from audit.probes.model import TunedModel

_SHORT, _LONG, _MORE = 4, 40, 4


@dataclass(frozen=True)
class Openings:
    """Keys and values of openings, by layer, each of shape (openings, heads, longest, size).

    Attributes:
        layers: keys and values; a shorter opening is followed by places that mean nothing.
        lengths: tokens of each opening.
    """

    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    lengths: tuple[int, ...]

    @property
    def longest(self) -> int:
        """Places that every opening takes up."""
        return int(self.layers[0][0].shape[-2])

    def cache(self, owners: Sequence[int]) -> Any:
        """A cache of one row a text, each beginning with the opening that it owns."""
        from transformers import DynamicCache

        cache = DynamicCache()
        index = torch.tensor(list(owners), device=self.layers[0][0].device)
        for i, (keys, values) in enumerate(self.layers):
            cache.update(keys[index], values[index], i)
        return cache

    def options(self, owners: Sequence[int], width: int) -> dict[str, Any]:
        """What a decoder needs to go on from the openings with ``width`` more tokens a text."""
        out: dict[str, Any] = {"use_cache": True, "past_key_values": self.cache(owners)}
        if min(self.lengths) == self.longest:
            return out
        device = self.layers[0][0].device
        lengths = torch.tensor([self.lengths[k] for k in owners], device=device)[:, None]
        places = torch.arange(self.longest + width, device=device)[None, :]
        # Padding on the right needs no mask, since causal attention never looks there; the gap after an opening does.
        out["attention_mask"] = ((places < lengths) | (places >= self.longest)).long()
        out["position_ids"] = lengths + torch.arange(width, device=device)[None, :]
        return out


def bridges_gaps(model: TunedModel) -> bool:
    """Tells whether places that a mask leaves out may lie between an opening and what follows it.

    They may where attention goes by the positions that it is told. A window of places would lose real tokens to the
    gap, and distances counted by place (MPT's ALiBi) would grow by it. A window may be longer than what is tried here,
    so it is read from the configuration; the rest the model is asked by an opening beside a longer one.
    """
    config = model.config
    if any(getattr(config, name, None) for name in ("sliding_window", "window_size", "attention_chunk_size")):
        return False
    ids = [1 + i % (min(config.vocab_size, 32) - 1) for i in range(_LONG)]
    with model.using(False):
        whole = model.decoder(input_ids=torch.tensor([ids[: _SHORT + _MORE]], device=model.device), use_cache=False)
        beside = model.openings([ids[:_SHORT], ids]).options([0], _MORE)
        more = torch.tensor([ids[_SHORT : _SHORT + _MORE]], device=model.device)
        try:
            found = model.decoder(input_ids=more, **beside).last_hidden_state.float()
        except TypeError:  # it takes no positions
            return False
    expected = whole.last_hidden_state[:, _SHORT:].float()
    return bool((found - expected).abs().mean() < 0.05 * expected.std())
