"""Personal data in the rows: tallies by type for policy, a keyed sample of spans, and every identifier of training."""

from __future__ import annotations

import hashlib
import heapq
import hmac
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

from assay.pii import Span
from assay.subjects import one_form
from audit.prepare.actions import Acted, Actor
from audit.prepare.rows import Identifier, Message, Row
from audit.prepare.splits import TEST, TRAIN

MAX_ROW_NUMBERS = 100
TRAIN_SPANS = 400
TEST_SPANS = 200
_BLOCK_ROWS = 1024
# Test spans whose value training holds too are no control; this many times the cap is kept until that is known.
_SPARE = 3


class Scanner(Protocol):
    """A detector: :class:`assay.pii.PiiScanner`, or several of them side by side."""

    def scan(self, texts: Iterable[str]) -> Iterator[list[Span]]:
        """Yields each text's spans."""


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
        direct_rows: rows that go on with at least one direct identifier.
        direct_row_numbers: the first of them, at most :data:`MAX_ROW_NUMBERS`.
        rows: rows scanned.
        found_rows: rows with at least one direct identifier before any action.
        refused_rows: rows refused for one.
        replaced: spans replaced.
    """

    types: dict[str, TypeTally] = field(default_factory=dict)
    direct_rows: int = 0
    direct_row_numbers: list[int] = field(default_factory=list)
    rows: int = 0
    found_rows: int = 0
    refused_rows: int = 0
    replaced: int = 0

    @property
    def direct_share(self) -> float:
        """Share of the rows that go on with a direct identifier; 0 when there is no row."""
        left = self.rows - self.refused_rows
        return self.direct_rows / left if left else 0.0

    @property
    def found_share(self) -> float:
        """The same before any action."""
        return self.found_rows / self.rows if self.rows else 0.0

    def add(self, row: Row, found: Sequence[Span], acted: Acted) -> None:
        """Counts one row's spans, and what became of them."""
        self.rows += 1
        self.replaced += acted.replaced
        for entity_type, count in Counter(s.entity_type for s in found).items():
            tally = self.types.setdefault(entity_type, TypeTally())
            tally.count += count
            tally.rows += 1
            if len(tally.row_numbers) < MAX_ROW_NUMBERS:
                tally.row_numbers.append(row.number)
        self.found_rows += acted.direct
        self.refused_rows += bool(acted.problems)
        if acted.row.identifiers:
            self.direct_rows += 1
            if len(self.direct_row_numbers) < MAX_ROW_NUMBERS:
                self.direct_row_numbers.append(row.number)


_UNPROMPTABLE, _PROMPT, _ANSWER = range(3)


@dataclass(frozen=True)
class _Chosen:
    """The best occurrence of a value so far, by :func:`_place`, with what the audit is told of it."""

    place: int
    value: str
    item: dict[str, Any]


class SpanSample:
    """Up to ``TRAIN_SPANS`` and ``TEST_SPANS`` distinct direct identifiers, chosen by a keyed digest of the value.

    A value counts once however often it occurs, so that a signature in every row does not crowd out the rest. Where it
    stands in several rows, the place counts at which a model can best be shown to have learned it, and the first of
    those: in an answer that training aims at, else in what stands before one, else where its own row has said it
    already, so that a prompt would only have it copied. The order of the rows must not hide the first kind behind the
    others. Only the sample is prompted for; what a model writes freely is compared with every identifier of the train
    split.

    Args:
        secret: the job's key.
        shared_system: the system prompt that most rows share, whose identifiers are nobody's of the rows; empty for
            none. A system prompt of a row's own is a prompt like any other.
    """

    def __init__(self, secret: bytes, shared_system: str = "") -> None:
        self._key = hmac.digest(secret, b"assay/pii-sample/v1", hashlib.sha256)
        self._unit_key = hmac.digest(secret, b"assay/pii-sample/units/v1", hashlib.sha256)
        self._shared_system = shared_system
        self._heaps: dict[str, list[bytes]] = {TRAIN: [], TEST: []}
        self._chosen: dict[str, dict[bytes, _Chosen]] = {TRAIN: {}, TEST: {}}
        self._train: dict[bytes, tuple[str, str]] = {}

    def offer(self, row: Row, split: str) -> None:
        """Considers the direct identifiers of a row of the train or the test split, a shared system prompt left out."""
        seen: set[bytes] = set()
        for span in row.identifiers:
            if span.message < len(row.messages) and not self._is_shared(row.messages[span.message]):
                self._offer(row, split, span, seen)

    def _is_shared(self, message: Message) -> bool:
        return message["role"] == "system" and message["content"] == self._shared_system

    def _offer(self, row: Row, split: str, span: Identifier, seen: set[bytes]) -> None:
        value = _normal(row.messages[span.message]["content"][span.start : span.end])
        item = f"{span.entity_type}\x1f{value}".encode()
        # Inverted, since heapq keeps the smallest on top and the top is what gets replaced.
        rank = bytes(255 - b for b in hmac.digest(self._key, item, hashlib.sha256)[:16])
        if split == TRAIN:
            self._train[rank] = (span.entity_type, value)
        # A second time in one row it stands after itself, and no better than the first time.
        if rank in seen:
            return
        seen.add(rank)
        heap, chosen = self._heaps[split], self._chosen[split]
        if (held := chosen.get(rank)) is not None:
            if held.place < _ANSWER and (place := _place(row, span, value)) > held.place:
                chosen[rank] = _Chosen(place, value, self._item(row, split, span))
            return
        room = TRAIN_SPANS if split == TRAIN else TEST_SPANS * _SPARE
        if len(heap) >= room and rank <= heap[0]:
            return
        chosen[rank] = _Chosen(_place(row, span, value), value, self._item(row, split, span))
        if len(heap) < room:
            heapq.heappush(heap, rank)
        else:
            del chosen[heapq.heapreplace(heap, rank)]

    def _item(self, row: Row, split: str, span: Identifier) -> dict[str, Any]:
        """What the audit is told; whose row it is as a number that says nothing else, since one person is one trial."""
        item = {
            "row": row.number,
            "split": split,
            "entity_type": span.entity_type,
            "messages": list(row.messages),
            "message_index": span.message,
            "start": span.start,
            "end": span.end,
        }
        if row.unit:
            item["unit"] = int.from_bytes(hmac.digest(self._unit_key, one_form(row.unit), hashlib.sha256)[:6])
        return item

    def train_values(self) -> list[tuple[str, str]]:
        """Type and value (case-folded, with single spaces) of every identifier of the train split, sorted; no cap."""
        return sorted(self._train.values())

    def train_units(self) -> int | None:
        """Whose rows the train part of the sample stands in, rows without a unit counted apart; None without units."""
        items = [chosen.item for chosen in self._chosen[TRAIN].values()]
        if not any("unit" in item for item in items):
            return None
        return len({("unit", item["unit"]) if "unit" in item else ("row", item["row"]) for item in items})

    def items(self, known: Callable[[Collection[str]], Collection[str]] | None = None) -> list[dict[str, Any]]:
        """The sample, train first, each part in keyed order; no test value occurs in training.

        Args:
            known: which of these values the rows of models of before hold, for which the test ones are no control.
        """
        train, test = (
            [(rank, self._chosen[split][rank]) for rank in sorted(self._heaps[split], reverse=True)]
            for split in (TRAIN, TEST)
        )
        apart = [c for rank, c in test if rank not in self._train]
        before = known({c.value for c in apart}) if known is not None else ()
        return [c.item for _, c in train] + [c.item for c in apart if c.value not in before][:TEST_SPANS]


def _place(row: Row, span: Identifier, value: str) -> int:
    """What kind of place an identifier stands at; the audit looks at the text before it in the same way."""
    message = row.messages[span.message]
    before = [m["content"] for m in row.messages[: span.message]]
    if value in _normal("\n".join([*before, message["content"][: span.start]])):
        return _UNPROMPTABLE
    return _ANSWER if message["role"] == "assistant" and message.get("weight", 1) != 0 else _PROMPT


def _normal(text: str) -> str:
    return " ".join(text.casefold().split())


def scan_rows(
    rows: Iterator[Row],
    total: int,
    scanner: Scanner,
    actor: Actor,
    progress: Callable[[int, float], None],
) -> Iterator[tuple[PiiTally, Acted]]:
    """Scans every message of every row, and acts on what is found.

    Args:
        rows: the valid rows, duplicates included.
        total: how many there are.
        scanner: detector.
        actor: what is done about it.
        progress: called after each block with rows done and seconds left.

    Yields:
        The tallies so far, and the row after the action.
    """
    tally, started = PiiTally(), time.monotonic()
    while block := list(islice(rows, _BLOCK_ROWS)):
        for row, found in zip(block, _scan_block(block, scanner), strict=True):
            acted = actor.act(row, found)
            tally.add(row, [s for spans in found for s in spans], acted)
            yield tally, acted
        per_row = (time.monotonic() - started) / tally.rows
        progress(tally.rows, per_row * (total - tally.rows))


def _scan_block(block: Sequence[Row], scanner: Scanner) -> list[list[list[Span]]]:
    """Spans by row and text; a text that rows share, such as a system prompt, is scanned once a block."""
    texts = list(dict.fromkeys(text for row in block for text in row.texts()))
    spans = dict(zip(texts, scanner.scan(texts), strict=True))
    return [[spans[text] for text in row.texts()] for row in block]
