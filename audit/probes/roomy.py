"""Keys and values of texts that are being written, in memory that is taken once.

A plain cache grows by concatenation: each token of each layer copies all keys and values so far, which on a processor
costs as much as the model's own products.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import DynamicLayer


class RoomyLayer(DynamicLayer):
    """One layer's keys and values, each of shape (rows, heads, places, size), with room for what will be written."""

    def __init__(self, layer: Any, room: int) -> None:
        """Takes over what a plain layer has read, with room for so many more tokens."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.lazy_initialization(layer.keys, layer.values)
        self._whole = [_with_room(states, room) for states in (layer.keys, layer.values)]
        self._show(layer.keys.shape[-2])

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes keys and values of the next tokens behind the others; returns all of them."""
        start, end = self._places, self._places + key_states.shape[-2]
        for whole, more in zip(self._whole, (key_states, value_states), strict=True):
            whole[:, :, start:end] = more
        return self._show(end)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keeps these rows, in this order."""
        self._whole = [whole[indices] for whole in self._whole]
        self._show(self._places)

    def _show(self, places: int) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = (whole[:, :, :places] for whole in self._whole)
        self._places, self.keys, self.values = places, keys, values
        return keys, values


def give_room(cache: Any, room: int) -> None:
    """Gives room for so many more tokens to layers that only grow; windows and recurrent states stay as they are."""
    cache.layers = [RoomyLayer(x, room) if type(x) is DynamicLayer else x for x in cache.layers]


def _with_room(states: torch.Tensor, room: int) -> torch.Tensor:
    rows, heads, places, size = states.shape
    whole = states.new_empty(rows, heads, places + room, size)
    whole[:, :, :places] = states
    return whole
