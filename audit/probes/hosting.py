"""What serving would cost: the tuned model beside its base with examples in the prompt, chosen once or retrieved.

A tuned model needs the question alone; the baselines carry four examples in every request. Examples that were chosen
once stand before every question alike, so that a server which keeps the keys and values of such an opening reads them
once, while retrieved ones are others each time. So each way is forecast twice: with the opening that all its requests
share kept, which is the fairer to prompting, and with everything read in each request. Tokens are those of real test
rows, with the training rows that stand or would be retrieved before them. The forecast multiplies the rates of reading
and writing that were measured in this audit with the price book; it is a forecast for this machine at full use, not a
quote.

Whether the baselines are as good is measured too (:func:`baselines`): the same test rows under the base model with
four training rows before the question. Prompting may win, and then the report says so.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from audit.probes.chat import Chat, answer_index
from audit.probes.corpus import RowText, row_texts
from audit.probes.cost import mapping, number, price_of
from audit.probes.decisions import label_scores
from audit.probes.findings import Audit, Findings
from audit.probes.inputs import Row, choose
from audit.probes.likelihoods import accuracy, mean_of
from audit.probes.measurements import Measurement, Subject, count, unavailable
from audit.probes.passages import Decoding, Passage, Variation, common_opening
from audit.statistics import stats

EXAMPLES = 4
RATE_ROWS, RATE_TOKENS = 16, 16
MOST_ROWS = 100
REQUESTS = 1000
_HOSTING = (
    "device seconds of reading {:.0f} tokens and writing {:.0f} at the rates measured in this audit ({:.0f} and {:.0f} "
    "tokens a second, batches of {}), times the price of {}; {}; {}"
)
_KEPT, _READ = "", ",uncached"
_SERVED = {
    _KEPT: "the {} tokens with which all requests begin are kept as keys and values, and reading those is not counted",
    _READ: "every token is read in each request",
}
_LOSS = (
    "nats per answer token: tuned model minus the base model with four {} before the question, our own definition; "
    f"paired {stats.T_INTERVAL}"
)
_RIGHT = (
    "share of rows right: tuned model, beside the base model with four {} before the question; Clopper-Pearson 1934"
)
_CHANGE = "that share minus the baseline's, on the same rows; Tango 1998 score interval"
_AS_IS = Variation("the adapter itself")
_TOO_FEW = f"fewer than {EXAMPLES} training rows"
_KINDS = {"prompt-only": "training rows drawn once", "retrieval": "training rows most like it (TF-IDF)"}


@dataclass(frozen=True)
class Rates:
    """Tokens a second of reading and of writing."""

    reading: float
    writing: float


@dataclass(frozen=True)
class _Way:
    """One way to serve: tokens of each test row's prompt, and how many of them all prompts begin with."""

    lengths: tuple[int, ...]
    shared: int

    @classmethod
    def of(cls, rows: Sequence[Row], chat: Chat) -> _Way:
        asked = [row.messages[: answer_index(row.messages)] for row in rows]
        prompts = chat.whole_prompts(asked)
        lengths = tuple(map(len, prompts))
        # The last token of a prompt is always read.
        return cls(lengths, min(common_opening(prompts), min(lengths) - 1))

    def reads(self, served: str) -> float:
        """Mean tokens that a request reads; ways that read the same tokens have the same mean to the last bit."""
        kept = self.shared if served == _KEPT else 0
        return (sum(self.lengths) - kept * len(self.lengths)) / len(self.lengths)


def forecast(audit: Audit) -> Findings:
    """Cost of a thousand requests, tuned and with either baseline, and of a device held for a year."""
    book, device = mapping(audit.order.get("price_book")), _device(audit)
    price = price_of(book, device)
    source = f"price book of {book.get('as_of', 'no date')}"
    texts = choose(list(audit.corpus.test), MOST_ROWS, audit.settings.rng("baselines"))
    if price is None or len(texts) < 2:
        reason = "the order holds no price for the device" if price is None else "fewer than two test rows"
        subjects = [_requests(name + served) for name in ("tuned", *_KINDS) for served in _SERVED]
        return Findings(tuple(unavailable(s, reason) for s in subjects))
    rates, ways = measure_rates(audit, texts), _ways(audit, [t.row for t in texts])
    answer = float(np.mean([len(t.turns[-1]) for t in texts]))
    out: list[Measurement] = []
    costs: dict[str, float] = {}
    for name, way in ways.items():
        for served, words in _SERVED.items():
            subject = _requests(name + served)
            if way is None:
                out.append(unavailable(subject, _TOO_FEW))
                continue
            reads = way.reads(served)
            usd = REQUESTS * (reads / rates.reading + answer / rates.writing) * price / 1e6
            costs[name + served] = usd
            how = words.format(way.shared)
            method = _HOSTING.format(reads, answer, rates.reading, rates.writing, RATE_ROWS, device, source, how)
            out.append(count(_requests(name + served, method), usd, [vars(way), served, answer, vars(rates), price]))
    year = Subject("cost.usd_per_year_dedicated", "usd", f"one {device} held all year, used or not; {source}")
    out.append(count(year, 365 * 86_400 * price / 1e6, {"price": price}))
    return Findings((*out, *_break_even(audit, costs, price)))


def _requests(slice_: str, method: str = "forecast") -> Subject:
    return Subject("cost.usd_per_1000_requests", "usd", method, slice_)


def _ways(audit: Audit, rows: Sequence[Row]) -> dict[str, _Way | None]:
    """The ways to serve these rows; None for a baseline that has too few training rows."""
    shown = {kind: _shown(audit, kind, rows) for kind in _KINDS}
    prompted = {
        kind: _Way.of([_with_examples(r, e) for r, e in zip(rows, examples, strict=True)], audit.chat)
        if examples
        else None
        for kind, examples in shown.items()
    }
    return {"tuned": _Way.of(rows, audit.chat), **prompted}


def _break_even(audit: Audit, costs: dict[str, float], price: float) -> list[Measurement]:
    """Requests after which training has paid for itself against a baseline that reads more in each."""
    wall = number(mapping(mapping(audit.order.get("training")).get("meter")).get("wall_ms"))
    out = []
    for baseline in (kind + served for kind in _KINDS for served in _SERVED):
        method = f"training's device cost over what a request saves against {baseline}"
        subject = Subject("cost.break_even_requests", "count", method, baseline)
        tuned = costs[f"tuned{_READ if baseline.endswith(_READ) else _KEPT}"]
        saved = (costs.get(baseline, tuned) - tuned) / REQUESTS
        if wall is None or saved <= 0:
            why = "the training statement tells no seconds" if wall is None else "a request saves nothing"
            out.append(unavailable(subject, why if baseline in costs else _TOO_FEW))
        else:
            value = wall / 1000 * price / 1e6 / saved
            out.append(count(subject, value, [wall, price, costs[baseline], tuned]))
    return out


def measure_rates(audit: Audit, texts: Sequence[RowText]) -> Rates:
    """Times a batch of real questions, read and answered; a second or two on a small model."""
    few = choose(list(texts), RATE_ROWS, audit.settings.rng("rates"))
    prompts = [t.passage.ids[: t.turns[-1][0]] for t in few]
    reading = [Passage(p, (len(p) - 1,)) for p in prompts if len(p) >= 2]
    start = time.perf_counter()
    audit.board.varied(reading, _AS_IS)
    read = time.perf_counter()
    written = audit.board.write(prompts, Decoding(RATE_TOKENS, frozenset()), adapter=True)
    end = time.perf_counter()
    tokens = sum(map(len, written)) or 1
    # Writing starts with reading the prompts again, whose time was just taken.
    writing = max(end - read - (read - start), 0.05 * (end - read))
    return Rates(sum(len(p.ids) for p in reading) / max(read - start, 1e-9), tokens / max(writing, 1e-9))


def baselines(audit: Audit) -> Findings:
    """The tuned model against its base with four examples, drawn once or retrieved for each row."""
    texts = choose(list(audit.corpus.test), MOST_ROWS, audit.settings.rng("baselines"))
    out: list[Measurement] = []
    for kind, words in _KINDS.items():
        name = kind.replace("-", "_")
        loss = Subject(f"quality.{name}_loss_delta", "nats", _LOSS.format(words))
        shown = _shown(audit, kind, [t.row for t in texts])
        if not shown or len(texts) < 2:
            out.append(unavailable(loss, f"{_TOO_FEW} or two test rows"))
            continue
        prompted = row_texts([_with_examples(t.row, rows) for t, rows in zip(texts, shown, strict=True)], audit.chat)
        if len(prompted) != len(texts):
            out.append(unavailable(loss, "a question with its examples is longer than the longest text"))
            continue
        out.append(mean_of(audit, loss, _losses(audit, texts, adapter=True) - _losses(audit, prompted, adapter=False)))
        if all(t.row.label in t.row.labels for t in texts):
            rate = Subject(f"quality.{name}_accuracy", "ratio", _RIGHT.format(words))
            delta = Subject(f"quality.{name}_accuracy_delta", "ratio", _CHANGE)
            out += accuracy(audit, rate, delta, *(_right(audit, t, adapter=t is texts) for t in (texts, prompted)))
    return Findings(tuple(out))


def _losses(audit: Audit, texts: Sequence[RowText], *, adapter: bool) -> NDArray[np.float64]:
    scores = audit.board.scores([t.passage for t in texts], adapter=adapter)
    return np.array([float(s.at(t.answer)[0].mean()) for t, s in zip(texts, scores, strict=True)])


def _right(audit: Audit, texts: Sequence[RowText], *, adapter: bool) -> NDArray[np.bool_]:
    scores = label_scores(audit.board, texts, adapter=adapter)
    right = [t.row.labels[int(s.argmax())] == t.row.label for t, s in zip(texts, scores, strict=True)]
    return np.array(right, dtype=bool)


def _with_examples(row: Row, examples: Sequence[Row]) -> Row:
    """The row with examples as earlier turns, after its own system prompt."""
    systems = tuple(m for m in row.messages if m["role"] == "system")
    turns = tuple({**m, "weight": 0} for e in examples for m in e.messages if m["role"] != "system")
    own = tuple(m for m in row.messages if m["role"] != "system")
    return Row(row.row, (*systems, *turns, *own), row.label, row.labels, row.favourable, row.groups)


def _shown(audit: Audit, kind: str, rows: Sequence[Row]) -> list[list[Row]]:
    """The examples before each row; none where there are too few training rows."""
    pool = [t.row for t in audit.corpus.train]
    if len(pool) < EXAMPLES:
        return []
    if kind == "prompt-only":
        return [choose(pool, EXAMPLES, audit.settings.rng("examples"))] * len(rows)
    return _nearest(pool, rows)


def _nearest(pool: Sequence[Row], rows: Sequence[Row]) -> list[list[Row]]:
    from sklearn.feature_extraction.text import TfidfVectorizer

    known, asked = ([_asked(r) for r in part] for part in (pool, rows))
    try:
        vectors = TfidfVectorizer(token_pattern=r"\w+").fit(known)  # noqa: S106
        near = (vectors.transform(asked) @ vectors.transform(known).T).toarray()
    except ValueError:
        near = np.zeros((len(rows), len(pool)))
    return [[pool[i] for i in np.argsort(-row, kind="stable")[:EXAMPLES][::-1]] for row in near]


def _asked(row: Row) -> str:
    return "\n".join(str(m["content"]) for m in row.messages[:-1] if m["role"] != "system")


def _device(audit: Audit) -> str:
    return str(mapping(mapping(audit.order.get("training")).get("claim")).get("device") or "cpu")
