"""Rows that models of before were trained on: such a row tests nothing, so none may lie in another split than train.

A job that goes on from an own model, or whose answers an own model wrote, is handed the train files of that model's job
and of those before it. A row is known again by its content digest, with personal data as it stands in the file and as
``REDACT`` leaves it, and with every stand-in as its kind alone: the codes of ``PSEUDONYMISE`` differ from job to job.
Near duplicates are known by their texts as they stand. A parent's canaries stand in no file, so they match nothing.

What is rendered otherwise is not known again: a table of which other columns are shown, or rows that were reworded.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from assay.errors import InvalidInputError
from assay.pii import Span
from audit.prepare.actions import Acted, Actor, PiiAction
from audit.prepare.rows import Entry, Message, Row
from audit.prepare.splits import keyed_order

FOLDER = "parents"
"""Folder of the train files among a task's inputs: ``1.jsonl`` and so on."""

_STAND_IN = re.compile(r"\[([A-Z][A-Z0-9_]*)(?:-[0-9a-f]{10}| (?:90\+|\d{3}\*\*|\d{4}))\]")
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Parents:
    """The train files of models of before; none for a job that starts from a base model."""

    files: Sequence[Path] = ()

    @classmethod
    def among(cls, inputs: Path, count: int) -> Parents:
        """Those of a task.

        Raises:
            InvalidInputError: ``PREPARE_ORDER`` where one is missing that the order counts.
        """
        files = [inputs / FOLDER / f"{number}.jsonl" for number in range(1, count + 1)]
        if not all(path.is_file() for path in files):
            raise InvalidInputError("PREPARE_ORDER", f"the order counts {count} files of rows of parents")
        return cls(files)

    def __bool__(self) -> bool:
        return bool(self.files)

    def rows(self) -> Iterator[Row]:
        """Every row of every file, canaries among them."""
        for path in self.files:
            yield from _rows(path)

    def seen(self) -> Mapping[bytes, int]:
        """How often each content stands in the file that holds it most often, by :func:`likeness`."""
        most: Counter[bytes] = Counter()
        for path in self.files:
            most |= Counter(map(likeness, _rows(path)))
        return most

    def holding(self, values: Collection[str]) -> set[str]:
        """Which of these values, case-folded and with single spaces, stand in one of the rows."""
        found: set[str] = set()
        for block in self._blocks():
            found |= {value for value in values if value not in found and value in block}
        return found

    def _blocks(self) -> Iterator[str]:
        """All texts in large pieces: a value is sought in a piece as fast as in a row."""
        held: list[str] = []
        size = 0
        for row in self.rows():
            # No value holds a line break, so none is found across two texts.
            held += [" ".join(text.casefold().split()) for text in row.texts()]
            size += sum(map(len, row.texts()))
            if size >= _BLOCK:
                yield "\n".join(held)
                held, size = [], 0
        yield "\n".join(held)


class Recogniser(Actor):
    """An actor that notes which rows models of before were trained on.

    Args:
        action: what to do about personal data.
        key: of the job.
        seen: as :meth:`Parents.seen` says.

    Attributes:
        known: digest of :attr:`seen` by row number, of the rows that are known again.
    """

    def __init__(self, action: PiiAction, key: bytes, seen: Mapping[bytes, int]) -> None:
        super().__init__(action, key)
        self._redacting = Actor(PiiAction.REDACT, key)
        self._seen = seen
        self.known: dict[int, bytes] = {}

    def act(self, row: Row, spans: Sequence[Sequence[Span]]) -> Acted:
        """Applies the action."""
        forms = [row, self._redacting.act(row, spans).row] if any(spans) else [row]
        known = next((digest for digest in map(likeness, forms) if digest in self._seen), None)
        if known is not None:
            self.known[row.number] = known
        return super().act(row, spans)

    def positions(
        self, entries: Sequence[Entry], unique: Sequence[Entry], common: Collection[int] | None, secret: bytes
    ) -> list[int]:
        """Positions of the kept rows that a model of before was trained on.

        Of equal rows of a table, which are different people's, as many are taken as stand in the train file of one
        model, in keyed order: the file does not say whose they were. Of rows that so many are equal to that they are
        spread over the splits, none is taken: they are combinations of cells that most people share, and a test
        without them would be a sample of the rare ones.

        Args:
            entries: all valid rows, copies included.
            unique: the rows that are kept.
            common: of a decision table the positions of the rows that so many are equal to; None for other rows.
            secret: the job's key.
        """
        if common is None:
            same = {e.identity for e in entries if e.number in self.known}
            return [i for i, e in enumerate(unique) if e.identity in same]
        left = Counter(self._seen)
        found = [i for i, e in enumerate(unique) if e.number in self.known and i not in common]
        out = []
        for i in sorted(found, key=lambda i: keyed_order(secret, FOLDER, unique[i].digest)):
            digest = self.known[unique[i].number]
            if left[digest]:
                left[digest] -= 1
                out.append(i)
        return sorted(out)


def likeness(row: Row) -> bytes:
    """:meth:`Row.content_digest` with every stand-in for personal data as its kind alone."""
    messages: list[Message] = [{**m, "content": _plain(m["content"])} for m in row.messages]
    return replace(row, messages=messages, rejected=_plain(row.rejected)).content_digest()


def _plain(text: str) -> str:
    return _STAND_IN.sub(r"[\1]", text)


def _rows(path: Path) -> Iterator[Row]:
    with path.open("rb") as lines:
        for line in lines:
            value = json.loads(line)
            yield Row(0, value["messages"], rejected=value.get("rejected", ""))
