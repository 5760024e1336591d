"""Personal data in the rows: tallies by type for policy, and a keyed sample of spans for the extraction probe."""

from __future__ import annotations

import hashlib
import heapq
import hmac
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from assay.pii import PiiScanner, Span, is_direct_identifier
from audit.prepare.rows import Row
from audit.prepare.splits import TEST, TRAIN

MAX_ROW_NUMBERS = 100
TRAIN_SPANS = 400
TEST_SPANS = 200
_BLOCK_ROWS = 256
# Test spans whose value training holds too are no control; this many times the cap is kept until that is known.
_SPARE = 3


@dataclass
class TypeTally:
    """One entity type: spans, rows with at least one, the first row numbers."""

    count: int = 0
    rows: int = 0
    row_numbers: list[int] = field(default_factory=list)


@dataclass
class PiiTally:
    """What the scan of all valid rows found.

    Attributes:
        types: by Presidio entity type.
        direct_rows: rows with at least one direct identifier.
        direct_row_numbers: the first of them, at most :data:`MAX_ROW_NUMBERS`.
        rows: rows scanned.
    """

    types: dict[str, TypeTally] = field(default_factory=dict)
    direct_rows: int = 0
    direct_row_numbers: list[int] = field(default_factory=list)
    rows: int = 0

    @property
    def direct_share(self) -> float:
        """Share of rows with a direct identifier; 0 when there is no row."""
        return self.direct_rows / self.rows if self.rows else 0.0

    def add(self, number: int, spans: Iterable[tuple[Span, bool]]) -> None:
        """Counts one row's spans, each with whether it is a direct identifier."""
        self.rows += 1
        found = list(spans)
        for entity_type, count in Counter(s.entity_type for s, _ in found).items():
            tally = self.types.setdefault(entity_type, TypeTally())
            tally.count += count
            tally.rows += 1
            if len(tally.row_numbers) < MAX_ROW_NUMBERS:
                tally.row_numbers.append(number)
        if any(direct for _, direct in found):
            self.direct_rows += 1
            if len(self.direct_row_numbers) < MAX_ROW_NUMBERS:
                self.direct_row_numbers.append(number)


class SpanSample:
    """Up to ``TRAIN_SPANS`` and ``TEST_SPANS`` distinct direct identifiers, chosen by a keyed digest of the value.

    A value counts once however often it occurs, so that a signature in every row does not crowd out the rest.
    """

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.digest(secret, b"assay/pii-sample/v1", hashlib.sha256)
        self._heaps: dict[str, list[tuple[bytes, dict[str, Any]]]] = {TRAIN: [], TEST: []}
        self._held: dict[str, set[bytes]] = {TRAIN: set(), TEST: set()}
        self._train_values: set[bytes] = set()

    def offer(self, row: Row, split: str, message_index: int, span: Span) -> None:
        """Considers one span of a row of the train or the test split."""
        text = row.messages[message_index]["content"][span.start : span.end]
        value = f"{span.entity_type}\x1f{' '.join(text.casefold().split())}"
        # Inverted, since heapq keeps the smallest on top and the top is what gets replaced.
        rank = bytes(255 - b for b in hmac.digest(self._key, value.encode(), hashlib.sha256)[:16])
        if split == TRAIN:
            self._train_values.add(rank)
        heap, held = self._heaps[split], self._held[split]
        room = TRAIN_SPANS if split == TRAIN else TEST_SPANS * _SPARE
        if rank in held or (len(heap) >= room and rank <= heap[0][0]):
            return
        item = {
            "row": row.number,
            "split": split,
            "entity_type": span.entity_type,
            "messages": list(row.messages),
            "message_index": message_index,
            "start": span.start,
            "end": span.end,
        }
        held.add(rank)
        if len(heap) < room:
            heapq.heappush(heap, (rank, item))
        else:
            held.discard(heapq.heapreplace(heap, (rank, item))[0])

    @property
    def train_values(self) -> int:
        """Distinct direct identifiers of the train split, beyond the cap too."""
        return len(self._train_values)

    def items(self) -> list[dict[str, Any]]:
        """The sample, train first, each part in keyed order; no test value occurs in training."""
        train = [item for _, item in sorted(self._heaps[TRAIN], key=lambda h: h[0], reverse=True)]
        test = [
            i for r, i in sorted(self._heaps[TEST], key=lambda h: h[0], reverse=True) if r not in self._train_values
        ]
        return train + test[:TEST_SPANS]


def scan_rows(
    rows: Iterator[Row],
    total: int,
    scanner: PiiScanner,
    split_of: Mapping[int, str],
    sample: SpanSample,
    progress: Callable[[int, float], None],
) -> PiiTally:
    """Scans every message of every row.

    Args:
        rows: the valid rows, duplicates included.
        total: how many there are.
        scanner: detector.
        split_of: row number to split; a dropped duplicate has none.
        sample: takes direct identifiers of user and assistant messages in train and test rows.
        progress: called after each block with rows done and seconds left.

    Returns:
        The tallies.
    """
    tally, started = PiiTally(), time.monotonic()
    while block := list(islice(rows, _BLOCK_ROWS)):
        for row, found in zip(block, _scan_block(block, scanner), strict=True):
            marked = []
            for index, spans in enumerate(found):
                message = row.messages[index]
                for span in spans:
                    direct = is_direct_identifier(span, message["content"])
                    marked.append((span, direct))
                    split = split_of.get(row.number)
                    if direct and split in (TRAIN, TEST) and message["role"] != "system":
                        sample.offer(row, split, index, span)
            tally.add(row.number, marked)
        per_row = (time.monotonic() - started) / tally.rows
        progress(tally.rows, per_row * (total - tally.rows))
    return tally


def _scan_block(block: Sequence[Row], scanner: PiiScanner) -> list[list[list[Span]]]:
    """Spans by row and message; a text that rows share, such as a system prompt, is scanned once a block."""
    texts = list(dict.fromkeys(m["content"] for row in block for m in row.messages))
    spans = dict(zip(texts, scanner.scan(texts), strict=True))
    return [[spans[m["content"]] for m in row.messages] for row in block]
