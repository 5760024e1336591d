"""The tree as stored: full tiles of 256 hashes with their interior, and the right edge that is not yet a tile.

Tile ``(L, n)`` covers nodes of level ``8L`` from ``256 n`` on. It is written once, when its 256th hash arrives, as
511 hashes: the 256, then 128 of the level above, and so on up to its root, so that a proof needs no rehashing and its
first 8,192 bytes are the hash tile of c2sp.org/tlog-tiles. What is not yet in a full tile, at most 255 hashes a
level, is kept in memory and rebuilt at start.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from assay.errors import InternalError
from audit.ledger.tree import HASH_SIZE, Node

TILE_WIDTH = 256
TILE_BYTES = 511 * HASH_SIZE

LoadTile = Callable[[int, int], bytes]


@dataclass(frozen=True)
class Tile:
    """A full tile: its level, number and 511 hashes."""

    level: int
    n: int
    hashes: bytes


@dataclass(frozen=True)
class Edge:
    """The tree at one size: a tile level's hashes that are in no full tile yet. Immutable: threads may share it."""

    size: int = 0
    levels: tuple[tuple[bytes, ...], ...] = ()

    def extend(self, leaves: Sequence[bytes]) -> tuple[Edge, list[Tile]]:
        """Appends leaf hashes; returns the new edge and the tiles that became full, in an order fit for insertion."""
        levels = [list(level) for level in self.levels] or [[]]
        tiles: list[Tile] = []
        size, taken = self.size, 0
        while taken < len(leaves):
            part = leaves[taken : taken + TILE_WIDTH - len(levels[0])]
            levels[0].extend(part)
            taken += len(part)
            size += len(part)
            depth = 0
            while len(levels[depth]) == TILE_WIDTH:
                tile = Tile(depth, (size >> (8 * (depth + 1))) - 1, full_tile(levels[depth]))
                tiles.append(tile)
                levels[depth] = []
                if depth + 1 == len(levels):
                    levels.append([])
                levels[depth + 1].append(tile.hashes[-HASH_SIZE:])
                depth += 1
        return Edge(size, tuple(tuple(level) for level in levels)), tiles


class TreeReader:
    """Reads perfect nodes of a tree at one size, from full tiles and the edge."""

    def __init__(self, edge: Edge, load_tile: LoadTile) -> None:
        self._edge = edge
        self._load_tile = load_tile

    def read(self, nodes: Sequence[Node]) -> list[bytes]:
        """Hashes of the nodes, in order.

        Raises:
            InternalError: ``NODE_UNKNOWN`` for a node that reaches beyond the tree.
        """
        return [self._node(level, index) for level, index in nodes]

    def _node(self, level: int, index: int) -> bytes:
        depth, row = divmod(level, 8)
        n = index >> (8 - row)
        place = index - (n << (8 - row))
        if n < self._edge.size >> (8 * (depth + 1)):
            start = ((512 - (512 >> row)) + place) * HASH_SIZE
            return self._load_tile(depth, n)[start : start + HASH_SIZE]
        entries: Sequence[bytes] = self._edge.levels[depth] if depth < len(self._edge.levels) else ()
        part = entries[place << row : (place + 1) << row]
        if n != self._edge.size >> (8 * (depth + 1)) or len(part) != 1 << row:
            raise InternalError("NODE_UNKNOWN", f"node ({level}, {index}) is not in a tree of {self._edge.size}")
        return fold(part)


def full_tile(hashes: Sequence[bytes]) -> bytes:
    """The 511 hashes of a tile from its 256."""
    return b"".join([b"".join(row) for row in _rows(hashes)])


def fold(hashes: Sequence[bytes]) -> bytes:
    """Root over a power of two of hashes."""
    *_, last = _rows(hashes)
    return last[0]


def _rows(hashes: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    row, sha256 = hashes, hashlib.sha256
    yield row
    while len(row) > 1:
        # node_hash without the call: every record of the log passes here.
        row = [sha256(b"\x01" + left + right).digest() for left, right in zip(row[::2], row[1::2], strict=True)]
        yield row
