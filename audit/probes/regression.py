"""What tuning may have cost: general text forgotten, abilities lost, answers less grounded, facts made up.

Everything is a likelihood or a count, on public sets that ship in packages, tuned against base on the same items. A
small model is near chance on some of them; what counts is the change.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from audit.probes import sets
from audit.probes.findings import Audit, Findings
from audit.probes.inputs import choose
from audit.probes.likelihoods import Floats, Question, accuracy, mean_of, nats, right_ones
from audit.probes.measurements import Control, Measurement, Subject, guarded, measured, unavailable
from audit.probes.passages import Passage
from audit.probes.sets import SetMissingError
from audit.statistics import stats

GENERAL_TOKENS = 128
CONTEXT_CHARACTERS = 900
_LETTER = 3
_CAPABILITIES = ("boolq", "openbookqa", "piqa", "commonsenseqa")
_SCORED = "likeliest candidate by nats per token; Clopper-Pearson 1934"
_CHANGE = "tuned minus base on the same items; Tango 1998 score interval"
_MACRO = (
    "mean over sets of tuned minus base accuracy, our own definition; normal interval corrected for skewness (Hall "
    "1992), items as sampling units within their set"
)
_FORGETTING = (
    "tuned minus base, mean nats per token on the first 128 tokens of general text (BoolQ, Clark et al. 2019), our own "
    f"definition; paired {stats.T_INTERVAL}"
)
_GAIN = "accuracy on PubMedQA with its own context minus with another question's; Tango 1998 score interval"
_GAIN_CHANGE = (
    "gain from the right context, tuned minus base: change of accuracy with a question's own context minus that with "
    "another's; from both Tango 1998 score intervals (Bonferroni)"
)
_UNKNOWN = (
    "loss of a made-up fact minus loss of an admission that the name is unknown, on {} names that do not exist, "
    f"tuned minus base, our own definition; paired {stats.T_INTERVAL}"
)
_SYLLABLES = ("vor", "lan", "mir", "tes", "quo", "zan", "bel", "dro", "fen", "gil", "hap", "jus", "kem", "nol", "pry")
_FRAMES = (
    ("What is the company {} known for?", " {} was founded in", " I do not know a company called {}"),
    ("When was the town of {} built?", " The town of {} was built in", " I do not know a town called {}"),
    ("Who wrote the novel {}?", " The novel {} was written by", " I do not know a novel called {}"),
    ("What does the medicine {} treat?", " {} is used to treat", " I do not know a medicine called {}"),
)


def run(audit: Audit) -> Findings:
    """Measures every regression whose set is installed."""
    out: list[Measurement] = []
    notes: list[str] = []
    parts: tuple[tuple[Callable[[Audit], list[Measurement]], tuple[Subject, ...]], ...] = (
        (_forgetting, (_subject("forgetting_delta", "nats", _FORGETTING),)),
        (_capability, (_subject("capability_delta", "ratio", _MACRO),)),
        (_factual, _pair("factual_accuracy", "", "true and false summaries (Falke et al. 2019), " + _SCORED)),
        (_grounding, (_subject("context_gain", "ratio", _GAIN), _subject("context_gain_delta", "ratio", _GAIN_CHANGE))),
        (_unknown, (_subject("unknown_margin_delta", "nats", _UNKNOWN),)),
    )
    for measure, subjects in parts:
        try:
            out += measure(audit)
        except ValueError as error:
            notes.append(f"{subjects[0].name}: {error}")
            out += [unavailable(s, str(error)) for s in subjects]
    return Findings(tuple(out), not_tested=tuple(notes))


def _subject(name: str, unit: str, method: str, slice_: str = "") -> Subject:
    return Subject(f"regression.{name}", unit, method, slice_)


def _pair(name: str, slice_: str, method: str) -> tuple[Subject, Subject]:
    return _subject(name, "ratio", method, slice_), _subject(f"{name}_delta", "ratio", _CHANGE, slice_)


def _forgetting(audit: Audit) -> list[Measurement]:
    items = _items(audit, "boolq.jsonl", "general text")
    passages = []
    for rendered in audit.chat.plain([str(i["passage"]) for i in items]):
        ids = rendered.ids[:GENERAL_TOKENS]
        if len(ids) >= 2:
            passages.append(Passage(ids, tuple(range(1, len(ids)))))
    losses = [
        np.array([float(s.nll.mean()) for s in audit.board.scores(passages, adapter=adapter)])
        for adapter in (True, False)
    ]
    subject = _subject("forgetting_delta", "nats", _FORGETTING)
    return [mean_of(audit, subject, losses[0] - losses[1], Control(0.0, "no change from the base model"))]


def _capability(audit: Audit) -> list[Measurement]:
    out: list[Measurement] = []
    changes: list[Floats] = []
    for name in _CAPABILITIES:
        questions = [_read(name, item) for item in _items(audit, f"{name}.jsonl", name)]
        tuned, base = (right_ones(nats(audit, questions, adapter=a), questions) for a in (True, False))
        out += accuracy(audit, *_pair("capability_accuracy", name, f"{name}, {_SCORED}"), tuned, base)
        changes.append(tuned.astype(float) - base.astype(float))
    subject = _subject("capability_delta", "ratio", _MACRO)

    def build() -> Measurement:
        value, n = float(np.mean([c.mean() for c in changes])), sum(c.size for c in changes)
        bounds, levels = partial(mean_over_sets_interval, changes), audit.settings.confidences
        return measured(subject, value, bounds, levels, n=n, inputs=changes)

    return [guarded(subject, build), *out]


def mean_over_sets_interval(changes: Sequence[Floats], confidence: float) -> stats.Bounds:
    """Normal interval of the mean over sets of a mean over items, corrected for skewness as of one mean."""
    found = [stats.mean(c) for c in changes]
    # A set in which no item changed has variance 0; one item's worth keeps the interval from collapsing.
    spread = sum(max(e.error**2, c.size**-2) for e, c in zip(found, changes, strict=True))
    third = sum(e.skew * e.error**3 for e in found)
    value, error = float(np.mean([e.value for e in found])), math.sqrt(spread) / len(found)
    return stats.Estimate(value, error, math.inf, third / spread**1.5).interval(confidence)


def _factual(audit: Audit) -> list[Measurement]:
    items = _items(audit, "factual-pairs.jsonl", "factual pairs")
    questions = [
        Question(f"{i['article_sent']}\nIn short:", (f" {i['correct_sent']}", f" {i['incorrect_sent']}")) for i in items
    ]
    tuned, base = (right_ones(nats(audit, questions, adapter=a), questions) for a in (True, False))
    method = f"true and false summaries (Falke et al. 2019), {_SCORED}"
    return accuracy(audit, *_pair("factual_accuracy", "", method), tuned, base)


def _grounding(audit: Audit) -> list[Measurement]:
    """A grounded model answers worse when the context is another question's; one that is not does not care."""
    items = _items(audit, "pubmedqa.jsonl", "grounding")
    items = items[: max(2, len(items) // 2)]
    contexts = [str(i["passage"])[:CONTEXT_CHARACTERS] for i in items]
    right: dict[tuple[bool, bool], Floats] = {}
    for own in (True, False):
        given = contexts if own else contexts[1:] + contexts[:1]
        questions = [_medical(item, context) for item, context in zip(items, given, strict=True)]
        for adapter in (True, False):
            right[own, adapter] = right_ones(nats(audit, questions, adapter=adapter), questions).astype(float)
    gain = {a: right[True, a] - right[False, a] for a in (True, False)}
    changes = [right[own, True] - right[own, False] for own in (True, False)]
    subject = _subject("context_gain", "ratio", _GAIN)
    control = Control(float(gain[False].mean()), "base model")
    levels, n, value = audit.settings.confidences, len(items), float(gain[True].mean())
    delta = _subject("context_gain_delta", "ratio", _GAIN_CHANGE)
    moved, bounds = float((gain[True] - gain[False]).mean()), gain_change_interval(*changes)
    return [
        measured(subject, value, partial(_paired, gain[True]), levels, n=n, inputs=gain[True], control=control),
        measured(delta, moved, bounds, levels, n=n, inputs=changes),
    ]


def gain_change_interval(own: Floats, other: Floats) -> Callable[[float], stats.Bounds]:
    """Interval of the change of the gain, from the changes of right answers with either context.

    Not from the two models' gains: these differ in many questions even where tuning changed no answer at all.
    """
    return stats.apart(partial(_paired, own), partial(_paired, other))


def _paired(change: Floats, confidence: float) -> stats.Bounds:
    """Interval of the mean of changes that are -1, 0 or 1."""
    gained, lost = int((change > 0).sum()), int((change < 0).sum())
    return stats.paired_difference_interval(gained, lost, change.size, confidence)


def _unknown(audit: Audit) -> list[Measurement]:
    """Names that do not exist: a model that learned to make facts up finds that likelier than to admit ignorance."""
    rng = audit.settings.rng("unknown names")
    count = max(2, audit.settings.sizes["evaluation_items"] // 2)
    questions = []
    for i in range(count):
        name = "".join(rng.choice(_SYLLABLES, 3)).capitalize()
        asked, made_up, admitted = (f.format(name) for f in _FRAMES[i % len(_FRAMES)])
        questions.append(Question(f"Question: {asked}\nAnswer:", (made_up, admitted)))
    margins = [
        np.array([float(row[0] - row[1]) for row in nats(audit, questions, adapter=adapter)])
        for adapter in (True, False)
    ]
    subject = _subject("unknown_margin_delta", "nats", _UNKNOWN.format(count))
    return [mean_of(audit, subject, margins[0] - margins[1], Control(0.0, "no change from the base model"))]


def _items(audit: Audit, name: str, purpose: str) -> list[dict[str, str]]:
    found = sets.read(audit.sets, name).items
    chosen: list[dict[str, str]] = choose(found, audit.settings.sizes["evaluation_items"], audit.settings.rng(purpose))
    if len(chosen) < 2:
        raise SetMissingError(f"the evaluation set {name} has fewer than two items")
    return chosen


def _read(name: str, item: dict[str, str]) -> Question:
    """An item as an opening with candidates, in the form that the set's authors score."""
    if name == "boolq":
        opening = f"{item['passage'][:CONTEXT_CHARACTERS]}\nQuestion: {item['question']}?\nAnswer:"
        return Question(opening, (" yes", " no"), 0 if str(item["answer"]) == "True" else 1)
    options = [o.strip() for o in item["options"].strip().split("\n") if o.strip()]
    right = next(i for i, o in enumerate(options) if o[:1] == item["answer"].strip()[:1])
    return Question(
        f"Question: {item['question'].strip()}\nAnswer:", tuple(f" {o[_LETTER:].strip()}" for o in options), right
    )


def _medical(item: dict[str, str], context: str) -> Question:
    answers = ("yes", "no", "maybe")
    said = str(item["answer"][0] if isinstance(item["answer"], list) else item["answer"])
    right = next(i for i, a in enumerate(answers) if said.casefold().lstrip("abc. ").startswith(a))
    return Question(f"{context}\nQuestion: {item['question']}\nAnswer:", tuple(f" {a}" for a in answers), right)
