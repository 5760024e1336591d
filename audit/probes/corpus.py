"""The audit's texts: which rows are scored, and where in each the answer, a secret or an identifier stands.

A row of the training sample may carry an identifier and serve the loss, the memorisation and the PII probe at once.
Its places are therefore collected from all of them before the passage is made, so that each text is run once through
each model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from assay.errors import InvalidInputError
from assay.pii import is_unspaced_name
from audit.probes.chat import Chat, Message, Rendered, answer_index, target_indices
from audit.probes.inputs import Canary, PiiSpan, PrivateRows, Row, Settings, choose
from audit.probes.passages import Passage


@dataclass(frozen=True)
class RowText:
    """A row to score.

    Attributes:
        row: the row.
        passage: its tokens and every place that any probe scores.
        turns: places of each answer that training aims at, with the token that ends it; of a decision its last alone.
        variants: for a decision whose labels begin with the same token, one passage for each label, else empty; each
            is scored over its whole answer.
    """

    row: Row
    passage: Passage
    turns: tuple[tuple[int, ...], ...]
    variants: tuple[Passage, ...] = ()

    @property
    def answer(self) -> tuple[int, ...]:
        """Places of all its answers: a row is learned at every turn, so none of them may be left out."""
        return _union(self.turns)


@dataclass(frozen=True)
class MarkedText:
    """A canary's secret or a row's identifier at ``places`` of a passage; ``answer`` is a canary's whole answer."""

    source: Canary | PiiSpan
    passage: Passage
    places: tuple[int, ...]
    answer: tuple[int, ...] = ()


@dataclass(frozen=True)
class Corpus:
    """Every text of the audit. ``skipped`` counts what could not be scored, by reason."""

    test: tuple[RowText, ...]
    train: tuple[RowText, ...]
    selection: tuple[RowText, ...]
    canaries: tuple[MarkedText, ...]
    pii_train: tuple[MarkedText, ...]
    pii_test: tuple[MarkedText, ...]
    skipped: Mapping[str, int]


def build(rows: PrivateRows, chat: Chat, settings: Settings) -> Corpus:
    """Chooses the rows that the plan's sample sizes allow, and marks the places in them.

    Raises:
        InvalidInputError: ``LABELS_MERGE`` when two labels are the same tokens.
    """
    sizes = settings.sizes
    test = choose(rows.test, sizes["test_rows"], settings.rng("test rows"))
    train = choose(rows.train, sizes["train_rows"], settings.rng("train rows"))
    spans = distinct_spans(s for s in rows.pii if s.split == "train")
    targets = choose(spans, sizes["pii_spans"], settings.rng("pii spans"))
    scored_rows = {_key(r.messages) for r in test}
    controls = distinct_spans(s for s in rows.pii if s.split == "test" and _key(s.messages) in scored_rows)
    controls = choose(controls, sizes["pii_spans"], settings.rng("pii controls"))
    desk = _Desk(chat)
    for row in (*test, *train, *rows.selection):
        desk.add(row.messages)
    for source in (*rows.canaries, *targets, *controls):
        desk.add(source.messages)
    desk.render()
    desk.compare((*test, *train))
    kept = {name: desk.rows(part) for name, part in (("test", test), ("train", train), ("sel", rows.selection))}
    marked = {
        "canaries": desk.marked(rows.canaries),
        "pii_train": desk.marked(targets),
        "pii_test": desk.marked(controls),
    }
    made = {name: tuple(desk.row_text(row, turns) for row, turns in part) for name, part in kept.items()}
    return Corpus(
        test=made["test"],
        train=made["train"],
        selection=made["sel"],
        canaries=tuple(desk.marked_text(*m) for m in marked["canaries"]),
        pii_train=tuple(desk.marked_text(*m) for m in marked["pii_train"]),
        pii_test=tuple(desk.marked_text(*m) for m in marked["pii_test"]),
        skipped=dict(desk.skipped),
    )


def row_texts(rows: Sequence[Row], chat: Chat) -> tuple[RowText, ...]:
    """Rows that a probe made up (a record with a name added, say) as texts to score.

    Raises:
        InvalidInputError: ``LABELS_MERGE`` when two labels are the same tokens.
    """
    desk = _Desk(chat)
    for row in rows:
        desk.add(row.messages)
    desk.render()
    return tuple(desk.row_text(row, turns) for row, turns in desk.rows(rows))


def distinct_spans(spans: Iterable[PiiSpan]) -> list[PiiSpan]:
    """The first span of each (type, value) that does not already stand in its own conversation before it.

    A name that the prompt mentions and the answer repeats is copied from the context, not remembered.
    """
    first: dict[tuple[str, str], PiiSpan] = {}
    for span in spans:
        key = (span.entity_type, normal(span.value))
        if key not in first and normal(span.value) not in normal(text_before(span)):
            first[key] = span
    return list(first.values())


def normal(text: str) -> str:
    """Text for comparing identifiers: case-folded, with single spaces."""
    return " ".join(text.casefold().split())


def is_full_name(name: str) -> bool:
    """Whether a person's name is more than a lone given name: two words, or one where a script has no spaces."""
    return " " in name.strip() or is_unspaced_name(name)


def text_before(span: PiiSpan) -> str:
    """Everything the conversation says before the span."""
    earlier = [str(m["content"]) for m in span.messages[: span.message_index]]
    return "\n".join([*earlier, str(span.messages[span.message_index]["content"])[: span.start]])


def _union(turns: Iterable[Sequence[int]]) -> tuple[int, ...]:
    """Places of several answers, ascending, each once."""
    return tuple(sorted({place for turn in turns for place in turn}))


def _key(messages: Sequence[Message]) -> tuple[tuple[str, str], ...]:
    return tuple((str(m["role"]), str(m["content"])) for m in messages)


class _Desk:
    """Renders each conversation once and collects the places that are asked of it."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._waiting: dict[tuple[tuple[str, str], ...], Sequence[Message]] = {}
        self._rendered: dict[tuple[tuple[str, str], ...], Rendered] = {}
        self._marks: dict[tuple[tuple[str, str], ...], set[int]] = {}
        self._compared: set[tuple[tuple[str, str], ...]] = set()
        self.skipped: dict[str, int] = {}

    def add(self, messages: Sequence[Message]) -> None:
        """Asks for a conversation to be rendered."""
        self._waiting.setdefault(_key(messages), messages)

    def compare(self, rows: Iterable[Row]) -> None:
        """Asks for moments at the places of these rows, which membership inference reads."""
        self._compared.update(_key(r.messages) for r in rows)

    def render(self) -> None:
        """Renders all that was asked for, in one call of the tokenizer."""
        keys = list(self._waiting)
        done = self._chat.render([self._waiting[k] for k in keys])
        self._rendered.update(zip(keys, done, strict=True))
        self._waiting.clear()

    def rows(self, rows: Sequence[Row]) -> list[tuple[Row, tuple[tuple[int, ...], ...]]]:
        """Rows with the places of their answers; one without an answer, or longer than texts may be, is skipped."""
        kept = []
        for row in rows:
            rendered, targets = self._rendered[_key(row.messages)], target_indices(row.messages)
            # A decision is the last answer: examples before it are others'.
            targets = targets[-1:] if row.labels else targets
            # Another label than the row's own is no more tokens than bytes.
            most = len(rendered.ids) + max((len(label.encode()) for label in row.labels), default=0)
            found = [rendered.answer_places(at) for at in targets] if most <= self._chat.longest else []
            turns = tuple(places for places in found if places)
            why = f"rows without an answer, or longer than {self._chat.longest:,} tokens"
            if self._mark(row.messages, _union(turns), why):
                kept.append((row, turns))
        return kept

    def marked(self, sources: Sequence[Canary] | Sequence[PiiSpan]) -> list[tuple[Canary | PiiSpan, tuple[int, ...]]]:
        """Canaries and identifiers with their places; one that was cut away is skipped."""
        kept: list[tuple[Canary | PiiSpan, tuple[int, ...]]] = []
        for source in sources:
            rendered = self._rendered[_key(source.messages)]
            if isinstance(source, Canary):
                start = str(source.messages[-1]["content"]).index(source.secret)
                places = rendered.content_places(len(source.messages) - 1, start, start + len(source.secret))
                if places:
                    self._mark(source.messages, self._answer(source), "")
            else:
                places = rendered.content_places(source.message_index, source.start, source.end)
            if self._mark(source.messages, places, "secrets or identifiers beyond the longest text"):
                kept.append((source, places))
        return kept

    def row_text(self, row: Row, turns: tuple[tuple[int, ...], ...]) -> RowText:
        """The row as a passage, with its labels to choose from where it has some."""
        passage = self._passage(row.messages)
        if not row.labels:
            return RowText(row, passage, turns)
        first = turns[-1][0]
        variants = self._label_variants(row, first)
        tokens = tuple(v.ids[first] for v in variants)
        if len(set(tokens)) == len(tokens):
            return RowText(row, replace(passage, choice_at=first, choices=tokens), turns)
        return RowText(row, passage, turns, variants)

    def marked_text(self, source: Canary | PiiSpan, places: tuple[int, ...]) -> MarkedText:
        """The source as a passage that it may share with a row."""
        answer = self._answer(source) if isinstance(source, Canary) else ()
        return MarkedText(source, self._passage(source.messages), places, answer)

    def _answer(self, canary: Canary) -> tuple[int, ...]:
        return self._rendered[_key(canary.messages)].answer_places(len(canary.messages) - 1)

    def _label_variants(self, row: Row, first: int) -> tuple[Passage, ...]:
        """The row once with each label as its answer, up to the end of that answer."""
        at = answer_index(row.messages)
        if at is None:
            raise InvalidInputError("PRIVATE_ROWS_MALFORMED", "a decision row has no answer")
        forms = [
            [*row.messages[:at], {**row.messages[at], "content": label}, *row.messages[at + 1 :]]
            for label in row.labels
        ]
        variants = []
        for rendered in self._chat.render(forms):
            places = rendered.answer_places(at)
            if not places or places[0] != first:
                raise InvalidInputError("LABELS_MERGE", "a label's first token depends on the text before the answer")
            variants.append(Passage(rendered.ids[: places[-1] + 1], places))
        if len({v.ids for v in variants}) != len(variants):
            raise InvalidInputError("LABELS_MERGE", "two labels are the same tokens, so no decision can be told")
        return tuple(variants)

    def _mark(self, messages: Sequence[Message], places: tuple[int, ...], why: str) -> bool:
        if places:
            self._marks.setdefault(_key(messages), set()).update(places)
        else:
            self.skipped[why] = self.skipped.get(why, 0) + 1
        return bool(places)

    def _passage(self, messages: Sequence[Message]) -> Passage:
        key = _key(messages)
        return Passage(self._rendered[key].ids, tuple(sorted(self._marks[key])), moments=key in self._compared)
