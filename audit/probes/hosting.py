"""What serving would cost: the tuned model beside its base with examples in the prompt, chosen once or retrieved.

A tuned model needs the question alone; a prompt-only baseline carries four examples in every request, and so does one
that retrieves them, so both read more tokens each time. The forecast multiplies the rates of reading and writing that
were measured in this audit with the price book; it is a forecast for this machine at full use, not a quote.

Whether the baselines are as good is measured too (:func:`baselines`): the same test rows under the base model with
four training rows before the question. Prompting may win, and then the report says so.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from audit.probes.corpus import RowText, row_texts
from audit.probes.cost import mapping, number, price_of
from audit.probes.decisions import label_scores
from audit.probes.findings import Audit, Findings
from audit.probes.inputs import Row, choose
from audit.probes.likelihoods import accuracy, mean_of
from audit.probes.measurements import Measurement, Subject, count, unavailable
from audit.probes.passages import Decoding, Passage, Variation

EXAMPLES = 4
RATE_ROWS, RATE_TOKENS = 16, 16
MOST_ROWS = 100
REQUESTS = 1000
_HOSTING = (
    "device seconds of reading {} tokens and writing {} at the rates measured in this audit ({:.0f} and {:.0f} tokens "
    "a second, batches of {}), times the price of {}; {}"
)
_LOSS = "nats per answer token: tuned model minus the base model with four {} before the question; paired t interval"
_RIGHT = "share of rows right: tuned model, beside the base model with four {} before the question; Clopper-Pearson"
_CHANGE = "that share minus the baseline's, on the same rows; Tango 1998 score interval"
_AS_IS = Variation("the adapter itself")
_KINDS = {"prompt-only": "training rows drawn once", "retrieval": "training rows most like it (TF-IDF)"}


@dataclass(frozen=True)
class Rates:
    """Tokens a second of reading and of writing, and mean tokens of a question, an answer and an example."""

    reading: float
    writing: float
    question: float
    answer: float
    example: float


def forecast(audit: Audit) -> Findings:
    """Cost of a thousand requests, tuned and with either baseline, and of a device held for a year."""
    names = ("tuned", *_KINDS)
    book, device = mapping(audit.order.get("price_book")), _device(audit)
    price = price_of(book, device)
    source = f"price book of {book.get('as_of', 'no date')}"
    texts = audit.corpus.test
    if price is None or len(texts) < 2:
        reason = "the order holds no price for the device" if price is None else "fewer than two test rows"
        subjects = [Subject("cost.usd_per_1000_requests", "usd", "forecast", n) for n in names]
        return Findings(tuple(unavailable(s, reason) for s in subjects))
    rates = measure_rates(audit, texts)
    extra = {"tuned": 0.0, **dict.fromkeys(_KINDS, EXAMPLES * rates.example)}
    out: list[Measurement] = []
    costs = {}
    for name, more in extra.items():
        reads = rates.question + more
        seconds = REQUESTS * (reads / rates.reading + rates.answer / rates.writing)
        method = _HOSTING.format(
            round(reads), round(rates.answer), rates.reading, rates.writing, RATE_ROWS, device, source
        )
        subject = Subject("cost.usd_per_1000_requests", "usd", method, name)
        costs[name] = seconds * price / 1e6
        out.append(count(subject, costs[name], {"usd": costs[name]}))
    year = Subject("cost.usd_per_year_dedicated", "usd", f"one {device} held all year, used or not; {source}")
    out.append(count(year, 365 * 86_400 * price / 1e6, {"price": price}))
    out += _break_even(audit, costs, price)
    return Findings(tuple(out))


def _break_even(audit: Audit, costs: dict[str, float], price: float) -> list[Measurement]:
    """Requests after which training has paid for itself against a baseline that reads more in each."""
    wall = number(mapping(mapping(audit.order.get("training")).get("meter")).get("wall_ms"))
    out = []
    for name in _KINDS:
        method = f"training's device cost over what a request saves against {name}"
        subject = Subject("cost.break_even_requests", "count", method, name)
        saved = (costs[name] - costs["tuned"]) / REQUESTS
        if wall is None or saved <= 0:
            out.append(unavailable(subject, "the training statement tells no seconds, or a request saves nothing"))
        else:
            value = wall / 1000 * price / 1e6 / saved
            out.append(count(subject, value, {"requests": value}))
    return out


def measure_rates(audit: Audit, texts: Sequence[RowText]) -> Rates:
    """Times a batch of real questions, read and answered; a second or two on a small model."""
    few = choose(list(texts), RATE_ROWS, audit.settings.rng("rates"))
    prompts = [t.passage.ids[: t.answer[0]] for t in few]
    reading = [Passage(p, (len(p) - 1,)) for p in prompts if len(p) >= 2]
    start = time.perf_counter()
    audit.board.varied(reading, _AS_IS)
    read = time.perf_counter()
    written = audit.board.write(prompts, Decoding(RATE_TOKENS, frozenset()), adapter=True)
    end = time.perf_counter()
    tokens = sum(map(len, written)) or 1
    # Writing starts with reading the prompts again, whose time was just taken.
    writing = max(end - read - (read - start), 0.05 * (end - read))
    examples = [len(t.passage.ids) for t in audit.corpus.train] or [len(t.passage.ids) for t in texts]
    return Rates(
        reading=sum(len(p.ids) for p in reading) / max(read - start, 1e-9),
        writing=tokens / max(writing, 1e-9),
        question=float(np.mean([t.answer[0] for t in texts])),
        answer=float(np.mean([len(t.answer) for t in texts])),
        example=float(np.mean(examples)),
    )


def baselines(audit: Audit) -> Findings:
    """The tuned model against its base with four examples, drawn once or retrieved for each row."""
    texts = choose(list(audit.corpus.test), MOST_ROWS, audit.settings.rng("baselines"))
    pool = [t.row for t in audit.corpus.train]
    out: list[Measurement] = []
    for kind, words in _KINDS.items():
        name = kind.replace("-", "_")
        loss = Subject(f"quality.{name}_loss_delta", "nats", _LOSS.format(words))
        if len(pool) < EXAMPLES or len(texts) < 2:
            out.append(unavailable(loss, f"fewer than {EXAMPLES} training rows or two test rows"))
            continue
        shown = _drawn(audit, pool, len(texts)) if kind == "prompt-only" else _nearest(pool, [t.row for t in texts])
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


def _drawn(audit: Audit, pool: Sequence[Row], count_: int) -> list[list[Row]]:
    chosen = choose(list(pool), EXAMPLES, audit.settings.rng("examples"))
    return [chosen] * count_


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
