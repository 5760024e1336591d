"""Chat rows to tokens: which tokens the model reads, and which of them the loss looks at.

A row is what users of the OpenAI fine-tuning API already have: ``messages`` with roles and content, an optional 0/1
``weight`` on assistant messages and an optional weight on the row. Only assistant messages with weight 1 are scored,
from the first token of their content to the end-of-turn token.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from os.path import commonprefix
from pathlib import Path
from typing import Any

from assay.chat_template import ChatTemplate, Content
from assay.errors import InvalidInputError

MAX_LINE_BYTES = 4 << 20


@dataclass(frozen=True)
class EncodedRow:
    """One row.

    Attributes:
        tokens: token ids.
        scored: for each token, whether the loss looks at it; never true for the first token, which nothing predicts.
        weight: factor of the row's loss.
    """

    tokens: tuple[int, ...]
    scored: tuple[bool, ...]
    weight: float

    @property
    def length(self) -> int:
        """Tokens that a pass over the row trains."""
        return len(self.tokens)

    @property
    def longest(self) -> int:
        """Tokens of its longest sequence."""
        return len(self.tokens)

    @property
    def plain(self) -> EncodedRow:
        """The row as supervised tuning reads it."""
        return self


@dataclass(frozen=True)
class EncodedPair:
    """Two answers to one prompt, of which the first is preferred."""

    chosen: EncodedRow
    rejected: EncodedRow
    weight: float

    @property
    def length(self) -> int:
        """Tokens that a pass over the row trains: both sequences."""
        return self.chosen.length + self.rejected.length

    @property
    def longest(self) -> int:
        """Tokens of its longest sequence."""
        return max(self.chosen.length, self.rejected.length)

    @property
    def plain(self) -> EncodedRow:
        """The row as supervised tuning reads it."""
        return self.chosen


@dataclass(frozen=True)
class EncodedChoice:
    """One prompt with every label as its answer; ``right`` is the index of the row's own."""

    candidates: tuple[EncodedRow, ...]
    right: int
    weight: float

    @property
    def length(self) -> int:
        """Tokens that a pass over the row trains: its own tokens once for each label."""
        return len(self.candidates) * self.plain.length

    @property
    def longest(self) -> int:
        """Tokens of its longest sequence."""
        return max(row.length for row in self.candidates)

    @property
    def plain(self) -> EncodedRow:
        """The row as supervised tuning reads it."""
        return self.candidates[self.right]


Row = EncodedRow | EncodedPair | EncodedChoice


@dataclass(frozen=True)
class EncodedRows:
    """The rows of a split that can be trained on, in file order, and what was left out or cut.

    Attributes:
        rows: rows with at least one scored token.
        read: rows in the file.
        cut: numbers, from 1, of rows that were longer than the limit and lost tokens at the front.
        without_target: numbers of rows without a scored token (no assistant message, weights of 0, or cut away), left
            out.
        users: for each of ``rows`` the number of the user whose it is; empty where the file does not say.
        all_users: users of all rows of the file, also of those left out.
    """

    rows: tuple[Row, ...]
    read: int
    cut: tuple[int, ...]
    without_target: tuple[int, ...]
    users: tuple[int, ...] = ()
    all_users: int = 0

    @property
    def tokens(self) -> int:
        """Tokens in one pass over the rows."""
        return sum(row.length for row in self.rows)


NO_ROWS = EncodedRows((), 0, (), ())


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the rows of a JSON-lines file that the audit worker's prepare task wrote.

    Raises:
        InvalidInputError: ``ROW_MALFORMED`` naming the line, never its content.
    """
    with path.open("rb") as stream:
        number = 0
        while line := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                raise InvalidInputError(
                    "ROW_MALFORMED", f"{path.name} line {number} is longer than {MAX_LINE_BYTES} bytes"
                )
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InvalidInputError("ROW_MALFORMED", f"{path.name} line {number} is not JSON") from error
            if not isinstance(row, dict) or not isinstance(row.get("messages"), list) or not row["messages"]:
                raise InvalidInputError("ROW_MALFORMED", f"{path.name} line {number} has no messages")
            yield row


@dataclass(frozen=True)
class Encoder:
    """Encodes rows with the base model's chat template, as a method reads them.

    Attributes:
        tokenizer: a fast tokenizer of transformers with a chat template.
        max_tokens: longest sequence; a row with a longer one is cut at the front, all its sequences alike.
        pairs: whether a rejected answer makes a row a pair.
        labels: where given, a row whose answer is one of them becomes a choice among them.
    """

    tokenizer: Any
    max_tokens: int
    pairs: bool = False
    labels: tuple[str, ...] = ()

    def encode(self, rows: Iterator[dict[str, Any]]) -> EncodedRows:
        """Encodes the rows of a split, see :func:`read_rows`."""
        encoded: list[Row] = []
        users: list[int] = []
        named: set[int] = set()
        cut: list[int] = []
        without: list[int] = []
        read = 0
        for row in rows:
            read += 1
            user = _user(row, read, expected=bool(named) if read > 1 else None)
            named.update({user} - {0})
            one = self._row(row, read)
            if one.longest > self.max_tokens:
                cut.append(read)
                one = _cut(one, one.longest - self.max_tokens)
            if one.weight > 0 and all(any(part.scored) for part in _parts(one)):
                encoded.append(one)
                users.append(user)
            else:
                without.append(read)
        whose = tuple(users) if named else ()
        return EncodedRows(tuple(encoded), read, tuple(cut), tuple(without), whose, len(named))

    def _row(self, row: Mapping[str, Any], number: int) -> Row:
        answer = row["messages"][-1].get("content") if isinstance(row["messages"][-1], dict) else None
        own = encode_row(row, self.tokenizer, number)
        if self.pairs and isinstance(row.get("rejected"), str) and row["rejected"]:
            return EncodedPair(own, self._answered(row, row["rejected"], number), own.weight)
        if answer in self.labels:
            others = [own if label == answer else self._answered(row, label, number) for label in self.labels]
            return EncodedChoice(tuple(others), self.labels.index(str(answer)), own.weight)
        return own

    def _answered(self, row: Mapping[str, Any], answer: str, number: int) -> EncodedRow:
        """The row with another last answer; answers before it are scored in both, so a comparison cancels them."""
        return encode_row(
            {**row, "messages": [*row["messages"][:-1], {**row["messages"][-1], "content": answer}]},
            self.tokenizer,
            number,
        )


def _user(row: Mapping[str, Any], number: int, expected: bool | None) -> int:
    """The number of the user whose a row is, 0 where no row says so; ``expected`` is what the rows before it do."""
    user: Any = row.get("user", 0)
    valid = isinstance(user, int) and not isinstance(user, bool) and (user > 0 or "user" not in row)
    if not valid or expected not in (None, user > 0):
        raise InvalidInputError("ROW_MALFORMED", f"row {number}: every row or none names its user by a number from 1")
    return int(user)


def _parts(row: Row) -> Sequence[EncodedRow]:
    if isinstance(row, EncodedPair):
        return row.chosen, row.rejected
    return row.candidates if isinstance(row, EncodedChoice) else (row,)


def _cut(row: Row, over: int) -> Row:
    """The row without its first ``over`` tokens: sequences that are compared stay answers to one prompt.

    Where nothing of the prompt would remain there is nothing to compare, and no token is left.
    """
    if over >= len(commonprefix([part.tokens for part in _parts(row)])):  # noqa: RUF071 (token by token)
        over = row.longest
    if isinstance(row, EncodedPair):
        return EncodedPair(_short(row.chosen, over), _short(row.rejected, over), row.weight)
    if isinstance(row, EncodedChoice):
        return EncodedChoice(tuple(_short(c, over) for c in row.candidates), row.right, row.weight)
    return _short(row, over)


def _short(row: EncodedRow, over: int) -> EncodedRow:
    tokens = row.tokens[over:]
    return EncodedRow(tokens, (False, *row.scored[over + 1 :])[: len(tokens)], row.weight)


def encode_row(row: Mapping[str, Any], tokenizer: Any, number: int) -> EncodedRow:
    """Encodes one row; ``number`` names it in errors.

    Raises:
        InvalidInputError: ``ROW_MALFORMED`` for messages that the template cannot carry, a weight that is not 0 or 1
            on a message, or a row weight that is not a finite number of at least 0.
    """
    messages = [_message(m, number) for m in row["messages"]]
    weight = row.get("weight", 1)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
        raise InvalidInputError("ROW_MALFORMED", f"row {number}: weight must be a finite number of at least 0")
    targets, template = _targets(row["messages"], number), ChatTemplate.of(tokenizer)
    try:
        text = template.write(messages)
        places = [template.find(messages, i, text) for i in targets]
        turns = [template.turn_end(messages, i, text, at) for i, at in zip(targets, places, strict=True)]
    except InvalidInputError as error:
        raise InvalidInputError("ROW_MALFORMED", f"row {number}: {error.message}", remedy=error.remedy) from error
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    offsets = encoding["offset_mapping"]
    spans = [_span(text, at, turn, offsets) for at, turn in zip(places, turns, strict=True)]
    scored = [any(start < high and low < end for low, high in spans) for start, end in offsets]
    return EncodedRow(tuple(encoding["input_ids"]), (False, *scored[1:]), float(weight))


def _message(message: Any, number: int) -> dict[str, str]:
    role, content = (message.get("role"), message.get("content")) if isinstance(message, dict) else (None, None)
    if not isinstance(role, str) or not isinstance(content, str):
        raise InvalidInputError("ROW_MALFORMED", f"row {number}: every message needs a role and text content")
    return {"role": role, "content": content}


def _targets(messages: Sequence[Mapping[str, Any]], number: int) -> list[int]:
    for message in messages:
        if message.get("weight", 1) not in (0, 1):
            raise InvalidInputError("ROW_MALFORMED", f"row {number}: a message's weight must be 0 or 1")
    return [
        i
        for i, m in enumerate(messages)
        if m["role"] == "assistant" and m.get("weight", 1) == 1 and m["content"].strip()
    ]


def _span(text: str, at: Content, turn: int, offsets: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Characters of one assistant message, from its first word on, and of the tokens that end its turn."""
    end = max((end for _, end in offsets if at.end <= end <= turn), default=at.end)
    return at.end - len(text[at.start : at.end].lstrip()), len(text[:end].rstrip("\n"))
