"""The tree as stored: full tiles of 256 hashes with their interior, and the right edge that is not yet a tile.

Tile ``(L, n)`` covers nodes of level ``8L`` from ``256 n`` on. It is written once, when its 256th hash arrives, as
511 hashes: the 256, then 128 of the level above, and so on up to its root, so that a proof needs no rehashing and its
first 8,192 bytes are the hash tile of c2sp.org/tlog-tiles. What is not yet in a full tile, at most 255 hashes a
level and what lies above them, is kept in memory and rebuilt at start.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from assay.errors import InternalError
from audit.ledger.tree import HASH_SIZE, Node, fold_peaks

TILE_WIDTH = 256
TILE_BYTES = 511 * HASH_SIZE

LoadTile = Callable[[int, int], bytes]
# The rows of a tile, however full: up to 256 hashes, what is known of the 128 above them, and so on up to the root.
Rows = tuple[tuple[bytes, ...], ...]
_NO_ROWS: Rows = ((),) * 9


@dataclass(frozen=True)
class Tile:
    """A full tile: its level, number and 511 hashes."""

    level: int
    n: int
    hashes: bytes


@dataclass(frozen=True)
class Edge:
    """The tree at one size: the rows of the tile of each level that is not full. Immutable: threads may share it."""

    size: int = 0
    levels: tuple[Rows, ...] = ()

    @classmethod
    def of(cls, size: int, levels: Sequence[Sequence[bytes]]) -> Edge:
        """The edge from the hashes at the foot of each level's tile, fewer than 256 a level."""
        return cls(size, tuple(_grow(_NO_ROWS, hashes) for hashes in levels))

    def extend(self, leaves: Sequence[bytes]) -> tuple[Edge, list[Tile]]:
        """Appends leaf hashes; returns the new edge and the tiles that became full, in an order fit for insertion."""
        levels = list(self.levels)
        tiles: list[Tile] = []
        size, taken = self.size, 0
        while taken < len(leaves):
            fresh = leaves[taken : taken + TILE_WIDTH - size % TILE_WIDTH]
            taken += len(fresh)
            size += len(fresh)
            depth = 0
            while fresh:
                if depth == len(levels):
                    levels.append(_NO_ROWS)
                rows = levels[depth] = _grow(levels[depth], fresh)
                fresh = rows[-1]
                if fresh:
                    n = (size >> (8 * (depth + 1))) - 1
                    tiles.append(Tile(depth, n, b"".join([b"".join(row) for row in rows])))
                    levels[depth] = _NO_ROWS
                    depth += 1
        return Edge(size, tuple(levels)), tiles

    def root(self) -> bytes:
        """Root of the tree: every peak ends a row of odd length."""
        return fold_peaks([row[-1] for rows in reversed(self.levels) for row in reversed(rows) if len(row) & 1])


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
        full = self._edge.size >> (8 * (depth + 1))
        if n < full:
            start = ((512 - (512 >> row)) + place) * HASH_SIZE
            return self._load_tile(depth, n)[start : start + HASH_SIZE]
        known = self._edge.levels[depth][row] if n == full and depth < len(self._edge.levels) else ()
        if place >= len(known):
            raise InternalError("NODE_UNKNOWN", f"node ({level}, {index}) is not in a tree of {self._edge.size}")
        return known[place]


def _grow(rows: Rows, fresh: Sequence[bytes]) -> Rows:
    """The rows after hashes were added at the foot, and above them whatever they complete."""
    sha256, grown = hashlib.sha256, [rows[0] + tuple(fresh)]
    for height, row in enumerate(rows[1:], 1):
        below = grown[-1][2 * len(row) :]
        if len(below) < 2:
            return (*grown, *rows[height:])
        # node_hash without the call: every record of the log passes here.
        pairs = zip(below[::2], below[1::2], strict=False)
        grown.append(row + tuple([sha256(b"\x01" + left + right).digest() for left, right in pairs]))
    return tuple(grown)
