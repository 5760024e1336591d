"""Keys and values with room: what a plain cache holds, without its copies."""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicSlidingWindowLayer

from audit.probes.roomy import RoomyLayer, give_room

ROWS, HEADS, SIZE, LAYERS = 5, 2, 4, 3


def states(places: int, rows: int = ROWS) -> torch.Tensor:
    return torch.randn(rows, HEADS, places, SIZE)


def read(places: int) -> Any:
    cache = DynamicCache()
    for layer in range(LAYERS):
        cache.update(states(places), states(places), layer)
    return cache


def copy_of(cache: Any) -> Any:
    other = DynamicCache()
    for i, layer in enumerate(cache.layers):
        other.update(layer.keys.clone(), layer.values.clone(), i)
    return other


def test_room_changes_nothing_that_is_read() -> None:
    plain = read(7)
    roomy = copy_of(plain)
    give_room(roomy, 6)
    rows = ROWS
    for turn in range(6):
        if turn == 3:
            kept = torch.tensor([4, 0, 2])
            plain.batch_select_indices(kept)
            roomy.batch_select_indices(kept)
            rows = len(kept)
        for layer in range(LAYERS):
            keys, values = states(1, rows), states(1, rows)
            expected, found = plain.update(keys, values, layer), roomy.update(keys, values, layer)
            assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
        assert roomy.get_seq_length() == plain.get_seq_length() == 8 + turn


def test_memory_is_taken_once() -> None:
    roomy = read(7)
    give_room(roomy, 3)
    before = [layer.keys.data_ptr() for layer in roomy.layers]
    for _ in range(3):
        for layer in range(LAYERS):
            roomy.update(states(1), states(1), layer)
    assert [layer.keys.data_ptr() for layer in roomy.layers] == before


def test_layers_that_do_not_only_grow_stay_as_they_are() -> None:
    cache = read(7)
    window = DynamicSlidingWindowLayer(sliding_window=4)
    cache.layers[1] = window
    give_room(cache, 3)
    assert [type(layer) for layer in cache.layers] == [RoomyLayer, DynamicSlidingWindowLayer, RoomyLayer]
    assert cache.layers[1] is window
