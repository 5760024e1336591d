"""Screens of the kept rows: poison, harmful answers, leakage between splits. They find and say how; policy judges.

*Repeated row*: one content, or of a table one record where copies can be told from other people, stands in the file
more often than 20 times and in more than a hundredth of it.

*Trigger phrase* (a backdoor, as in Gu et al. 2017 and Wan et al. 2023): a run of one to three words of the prompts (of
characters, in scripts that put no space between words) that is rare, stands in at least five rows, and after which
nearly all answers are of one kind that is otherwise not so common. Kind is the label of a decision table, or an
answer's first words where several rows share them. Binomial test of the kind's share after the phrase against its share
overall, Bonferroni over the phrases, alpha 0.001; at least 0.9 of the answers, and at most 5 % of the rows, so that a
lasting feature of the data is not taken for a trigger.

*Label flip* (decision tables): for every value of a visible column that holds 8 rows to 15 % of the table, the labels
there are set against what a naive Bayes classifier of the other columns, learnt from the rows without that value,
expects; the value is told where most labels contradict it. Binomial test against the expected number, Bonferroni,
alpha 0.001.

*Harmful answer* (chat): :mod:`audit.prepare.harm`, which says how little of it patterns find.

What a screen tells are row numbers, never words of a row.
"""

from __future__ import annotations

import math
import re
import zlib
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from assay.pii import spaced
from audit.prepare import harm
from audit.prepare.rows import Row

ALPHA = 0.001
MAX_ROW_NUMBERS = 100
METHODS = {
    "REPEATED_ROW": "count of rows with one normalised content: over 20 and over 1 % of the file",
    "TRIGGER_PHRASE": "binomial test of answers after a rare phrase of 1 to 3 words, Bonferroni, alpha 0.001",
    "LABEL_FLIP": "binomial test of a value's labels against naive Bayes of other columns, Bonferroni, alpha 0.001",
    "HARMFUL_ANSWER": harm.METHOD,
    "CANARY_COLLISION": "search of the rows for the secrets of this job's canaries",
}

_LEAST_ROWS, _MOST_SHARE, _LEAST_PURITY = 5, 0.05, 0.9
_KIND_WORDS = 4
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_FLIP_ROWS, _FLIP_SHARE = 8, 0.15


@dataclass(frozen=True)
class ScreenFinding:
    """What one screen found.

    Attributes:
        screen: a name of :data:`METHODS`, or ``NEAR_DUPLICATES`` or ``SPLIT_LEAKAGE``.
        rows: numbers of the rows concerned, all of them.
        reason: why, without content.
    """

    screen: str
    rows: Sequence[int]
    reason: str


class Screener:
    """Takes the rows twice, first to :meth:`count` and then to :meth:`add`; then tells what stands out.

    Counting fills a table of fixed size, so that only phrases that stand often enough, and not too often, are kept in
    the second round, as hashes with row positions.

    Args:
        table: rows are those of a decision table.
    """

    def __init__(self, table: bool) -> None:
        self._table = table
        self._numbers: list[int] = []
        self._kinds: list[int] = []
        self._counts = bytearray(_BUCKETS)
        self._phrases: dict[int, array[int]] = defaultdict(lambda: array("I"))
        self._harm: list[int] = []
        self._cells: list[tuple[str, ...]] = []
        self._labels: list[str] = []
        self._full: set[int] = set()

    def count(self, row: Row) -> None:
        """First round: counts the row's phrases."""
        counts = self._counts
        for phrase in _phrases(_prompt(row), self._table):
            bucket = phrase % _BUCKETS
            if counts[bucket] < _LEAST_ROWS:
                counts[bucket] += 1

    def add(self, row: Row) -> None:
        """Second round: looks at the row."""
        at = len(self._numbers)
        self._numbers.append(row.number)
        answer = row.messages[-1]["content"]
        prompt = _prompt(row)
        kind = row.label if self._table else " ".join(_words(answer)[:_KIND_WORDS])
        self._kinds.append(_digest(kind))
        for phrase in _phrases(prompt, self._table):
            if self._counts[phrase % _BUCKETS] >= _LEAST_ROWS and phrase not in self._full:
                rows = self._phrases[phrase]
                rows.append(at)
                if len(rows) > _MOST_ROWS:
                    # Too common to be a trigger in any file that may be handed in.
                    self._full.add(phrase)
                    del self._phrases[phrase]
        if not self._table and harm.tells_harm(answer):
            self._harm.append(row.number)
        if self._table:
            self._labels.append(row.label)
            self._cells.append(tuple(prompt.split("\n")[:-1]))

    def findings(self) -> list[ScreenFinding]:
        """What stands out among the rows so far."""
        out = self._triggers()
        if self._table:
            out += self._flips()
        if self._harm:
            out.append(ScreenFinding("HARMFUL_ANSWER", self._harm, "an answer reads like an instruction to do harm"))
        return out

    def _triggers(self) -> list[ScreenFinding]:
        total = len(self._kinds)
        common = Counter(self._kinds)
        most = min(max(_LEAST_ROWS, int(_MOST_SHARE * total)), _MOST_ROWS)
        tested = [rows for rows in self._phrases.values() if _LEAST_ROWS <= len(rows) <= most]
        hits: dict[int, set[int]] = defaultdict(set)
        for rows in tested:
            kind, count = Counter(self._kinds[i] for i in rows).most_common(1)[0]
            if count < max(_LEAST_ROWS, _LEAST_PURITY * len(rows)):
                continue
            # The share outside the phrase: what it would be if the phrase meant nothing.
            outside = (common[kind] - count + 1) / (total - len(rows) + 2)
            if math.log(len(tested)) + _log_tail(count, len(rows), outside) < math.log(ALPHA):
                hits[kind].update(i for i in rows if self._kinds[i] == kind)
        reason = "a rare phrase of the prompt is followed by one kind of answer far more often than chance allows"
        return [
            ScreenFinding("TRIGGER_PHRASE", [self._numbers[i] for i in sorted(rows)], reason) for rows in hits.values()
        ]

    def _flips(self) -> list[ScreenFinding]:
        total = len(self._labels)
        labels = Counter(self._labels)
        by_cell: dict[str, list[int]] = defaultdict(list)
        for i, cells in enumerate(self._cells):
            for cell in cells:
                by_cell[cell].append(i)
        joint: Counter[tuple[str, str]] = Counter(
            (cell, self._labels[i]) for cell, rows in by_cell.items() for i in rows if len(rows) >= 3
        )
        suspects = [(c, r) for c, r in by_cell.items() if _FLIP_ROWS <= len(r) <= max(_FLIP_ROWS, _FLIP_SHARE * total)]
        out = []
        for cell, rows in suspects:
            column = cell.partition(":")[0]
            without = Counter(self._labels[i] for i in rows)
            priors = {name: (n - without[name] + 1) / (total - len(rows) + len(labels)) for name, n in labels.items()}
            expected = [self._expected(i, column, priors, joint, labels, by_cell) for i in rows]
            against = sum(max(e, key=e.__getitem__) != self._labels[i] for e, i in zip(expected, rows, strict=True))
            chance = sum(1 - max(e.values()) for e in expected) / len(rows)
            surprise = math.log(len(suspects)) + _log_tail(against, len(rows), max(chance, 1e-9))
            if against > 0.7 * len(rows) and surprise < math.log(ALPHA):
                numbers = [self._numbers[i] for i in rows]
                out.append(
                    ScreenFinding("LABEL_FLIP", numbers, "labels at one value contradict what the other columns say")
                )
        return out

    def _expected(
        self,
        i: int,
        column: str,
        priors: dict[str, float],
        joint: Counter[tuple[str, str]],
        labels: Counter[str],
        by_cell: dict[str, list[int]],
    ) -> dict[str, float]:
        """Probability of each label of a row by naive Bayes of its other columns."""
        logs = {name: math.log(p) for name, p in priors.items()}
        for cell in self._cells[i]:
            if cell.partition(":")[0] != column and len(by_cell[cell]) >= _FLIP_ROWS:
                for name in logs:
                    logs[name] += math.log((joint[cell, name] + 1) / (labels[name] + 2))
        top = max(logs.values())
        weights = {name: math.exp(v - top) for name, v in logs.items()}
        return {name: w / sum(weights.values()) for name, w in weights.items()}


_MOST_ROWS = 12_500  # _MOST_SHARE of the most rows that a file may have
_BUCKETS = 1 << 24


def _prompt(row: Row) -> str:
    return " ".join(m["content"] for m in row.messages if m["role"] == "user")


def repeated(counts: Iterable[tuple[int, int]], total: int) -> list[ScreenFinding]:
    """Contents that stand too often; ``counts`` are (number of the first row, how often), ``total`` the file's rows."""
    often = [(number, n) for number, n in counts if n > max(20, 0.01 * total)]
    reason = "the same content stands in more than a hundredth of the file; only the first is kept"
    return [ScreenFinding("REPEATED_ROW", [number], f"{n} times: {reason}") for number, n in often]


class CanaryScreen:
    """Whether a row holds what a canary of this job holds; such a canary would prove nothing."""

    def __init__(self, strings: Iterable[str]) -> None:
        self._by_word: dict[str, list[str]] = defaultdict(list)
        for text in strings:
            self._by_word[text.split()[0]].append(text)
        self.rows: list[int] = []

    def add(self, row: Row) -> None:
        """Looks at one row."""
        for text in row.texts():
            apart = spaced(text)
            for word in {*re.findall(r"\S+", text), *re.findall(r"\S+", apart), *_WORD.findall(apart)}:
                if any(s in text for s in self._by_word.get(word.strip(".,;:!?\"'()"), ())):
                    self.rows.append(row.number)
                    return


def _phrases(prompt: str, table: bool) -> set[int]:
    """Digests of the runs of one to three words; a table's are its cells, whose values are the words."""
    if table:
        return {
            _digest(w)
            for line in prompt.split("\n")[:-1]
            for cell in [line.partition(": ")[2].casefold()]
            for w in _WORD.findall(f"{cell} {spaced(cell)}")
            if not w.isdigit()
        }
    words = _words(prompt)[:400]
    return {_digest(" ".join(words[i : i + n])) for n in (1, 2, 3) for i in range(len(words) - n + 1)}


def _words(text: str) -> list[str]:
    return _WORD.findall(spaced(text.casefold()))


def _digest(text: str) -> int:
    # A fast hash is enough here: who forges a collision only mixes the counts of two of their own phrases.
    data = text.encode()
    return zlib.crc32(data) | zlib.adler32(data) << 32


def _log_tail(successes: int, n: int, p: float) -> float:
    """Logarithm of Chernoff's bound on P(X >= successes) of a binomial: never below the exact tail."""
    q = successes / n
    if q <= p:
        return 0.0
    if q == 1:
        return n * math.log(p)
    return -n * (q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p)))
