"""Rows that nearly say the same, found in time linear in the rows, and tied together so that no split is leaked to.

Method: MinHash (Broder 1997; the library datasketch) of 64 permutations over runs of three words, or of three
characters in scripts that put no space between words, cut into bands of four for locality-sensitive hashing. A row is
compared with the first row of each of its buckets and with no other, so a thousand copies cost a thousand comparisons
and not half a million. A pair counts from an estimated Jaccard similarity of 0.8 on; bands find a pair of that
similarity with probability above 0.999.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from assay.pii import spaced

THRESHOLD = 0.8
METHOD = "MinHash of 64 permutations over runs of three words, bands of 4, Jaccard 0.8 and more"
_PERMUTATIONS = 64
_BAND = 4
_RUN = 3
_MOST_WORDS = 4000
_SEED = 1
LARGEST_SHARE = 0.05
"""A family of more rows than this share, and than 20, is a form that the rows fill in: it is told, and not tied."""


@dataclass(frozen=True)
class Families:
    """Which rows nearly say the same.

    Attributes:
        root: for every row the position of the first row of its family; its own where it stands alone.
        met: roots of the families of which some row nearly says what one of the ``others`` says.
    """

    root: Sequence[int]
    met: Collection[int] = frozenset()

    def tied(self, rows: int = 20, share: float = LARGEST_SHARE) -> list[int]:
        """Like ``root``, with the rows of oversized families, of more than ``rows`` and ``share``, on their own."""
        small = self._small(rows, share)
        return [r if r in small else i for i, r in enumerate(self.root)]

    def met_rows(self) -> list[int]:
        """Positions of the rows of families that were met, those of oversized ones left out as for ties."""
        small = self._small(20, LARGEST_SHARE)
        return [i for i, r in enumerate(self.root) if r in self.met and r in small]

    def _small(self, rows: int, share: float) -> set[int]:
        most = max(rows, int(share * len(self.root)))
        return {root for root, size in Counter(self.root).items() if size <= most}

    def members(self) -> list[int]:
        """Positions of the rows that are not alone."""
        sizes = Counter(self.root)
        return [i for i, r in enumerate(self.root) if sizes[r] > 1]


def equals(digests: Iterable[bytes]) -> Families:
    """The families of rows whose digests are equal."""
    first: dict[bytes, int] = {}
    return Families([first.setdefault(digest, i) for i, digest in enumerate(digests)])


def families(texts: Iterable[str], others: Iterable[str] = ()) -> Families:
    """Finds the families of near duplicates; holds 256 bytes and 16 bucket entries of each text, not the text.

    Args:
        texts: those of the rows.
        others: texts of elsewhere, of which nothing is kept: they make no family, and tell which ones they are like.
    """
    import numpy as np

    parent: list[int] = []
    signatures: list[Any] = []
    buckets: dict[bytes, int] = {}

    def find(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i, signature in enumerate(_signatures(texts)):
        parent.append(i)
        signatures.append(signature)
        seen = set()
        for key in _bands(signature):
            first = buckets.setdefault(key, i)
            if first != i and first not in seen:
                seen.add(first)
                if np.count_nonzero(signatures[first] == signature) >= THRESHOLD * _PERMUTATIONS:
                    a, b = find(first), find(i)
                    parent[max(a, b)] = min(a, b)
    met = set()
    for signature in _signatures(others):
        for first in {buckets[key] for key in _bands(signature) if key in buckets}:
            if np.count_nonzero(signatures[first] == signature) >= THRESHOLD * _PERMUTATIONS:
                met.add(find(first))
    return Families([find(i) for i in range(len(parent))], met)


def _bands(signature: Any) -> Iterator[bytes]:
    for band in range(0, _PERMUTATIONS, _BAND):
        yield bytes([band]) + signature[band : band + _BAND].tobytes()


def _signatures(texts: Iterable[str]) -> Iterator[Any]:
    import numpy as np
    from datasketch import MinHash

    blank = MinHash(num_perm=_PERMUTATIONS, seed=_SEED, hashfunc=_hash)
    for text in texts:
        one = blank.copy()
        one.update_batch(_runs(text))
        yield one.hashvalues.astype(np.uint32)


def _hash(run: bytes) -> int:
    import zlib

    # A fast hash is enough: MinHash permutes it, and whoever forges a collision ties two of their own rows together.
    return zlib.crc32(run)


def _runs(text: str) -> list[bytes]:
    words = spaced(unicodedata.normalize("NFKC", text).casefold()).split()[:_MOST_WORDS]
    if len(words) <= _RUN:
        return [" ".join(words).encode()]
    return list({" ".join(words[i : i + _RUN]).encode() for i in range(len(words) - _RUN + 1)})
