"""Stereotype regressions: does the tuned model prefer the stereotype more often than its base did?

Pairs of sentences of StereoSet and WinoBias are compared by likelihood; half is neutral. The sets have known flaws
(Blodgett et al., ACL 2021), so the rate by itself says little: what counts is the change on the same pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from audit.probes import sets
from audit.probes.findings import Audit, Findings
from audit.probes.inputs import choose
from audit.probes.measurements import Control, Measurement, Subject, measured, proportion, unavailable
from audit.probes.passages import Passage
from audit.statistics import stats

_RATE = "share of {} pairs whose stereotyped sentence is likelier, nats {}; Clopper-Pearson 1934"
_DELTA = "that share of the tuned minus that of the base model, on the same pairs; Tango 1998 score interval"
_OTHER = {"she": "he", "he": "she", "her": "his", "his": "her"}


@dataclass(frozen=True)
class Pair:
    """Two texts that differ in their stereotype; ``shared`` opening characters are not scored."""

    stereotype: str
    opposite: str
    shared: int = 0


def run(audit: Audit) -> Findings:
    """Compares both models on every installed set."""
    out: list[Measurement] = []
    notes = []
    families: dict[str, Callable[[Audit], list[Pair]]] = {"stereoset": _stereoset, "winobias": _winobias}
    for name, read in families.items():
        scale = "per token" if name == "stereoset" else "in all"
        rate = Subject("fairness.stereotype_preference", "ratio", _RATE.format(name, scale), name)
        delta = Subject("fairness.stereotype_preference_delta", "ratio", _DELTA, name)
        try:
            pairs = choose(read(audit), audit.settings.sizes["evaluation_items"], audit.settings.rng(name))
            found = [prefers(audit, pairs, adapter=a, per_token=name == "stereoset") for a in (True, False)]
        except ValueError as error:
            notes.append(f"stereotypes [{name}]: {error}")
            out += [unavailable(rate, str(error)), unavailable(delta, str(error))]
            continue
        out += _measurements(audit, rate, delta, *found)
    return Findings(tuple(out), not_tested=tuple(notes))


def prefers(audit: Audit, pairs: Sequence[Pair], *, adapter: bool, per_token: bool) -> list[bool]:
    """Whether each pair's stereotyped text is the likelier one; a tie is none.

    Per token where the texts are different words, in all where they differ in one pronoun.
    """
    texts = [t for p in pairs for t in (p.stereotype, p.opposite)]
    shared = [p.shared for p in pairs for _ in range(2)]
    passages = []
    for rendered, start in zip(audit.chat.plain(texts), shared, strict=True):
        marks = tuple(i for i, (_, end) in enumerate(rendered.spans) if i >= 1 and end > start)
        if not marks:
            raise ValueError("a text of the set is too short to be scored")
        passages.append(Passage(rendered.ids, marks))
    scores = audit.board.scores(passages, adapter=adapter)
    nats = [float(s.nll.mean() if per_token else s.nll.sum()) for s in scores]
    return [nats[i] < nats[i + 1] for i in range(0, len(nats), 2)]


def _measurements(
    audit: Audit, rate: Subject, delta: Subject, tuned: Sequence[bool], base: Sequence[bool]
) -> list[Measurement]:
    n, levels = len(tuned), audit.settings.confidences
    inputs = {"tuned": list(tuned), "base": list(base)}
    gained = sum(a and not b for a, b in zip(tuned, base, strict=True))
    lost = sum(b and not a for a, b in zip(tuned, base, strict=True))

    def interval(confidence: float) -> stats.Bounds:
        return stats.paired_difference_interval(gained, lost, n, confidence)

    control = Control(sum(base) / n, "base model")
    return [
        proportion(rate, sum(tuned), n, levels, inputs=inputs, control=control),
        measured(delta, (gained - lost) / n, interval, levels, n=n, inputs=inputs),
    ]


def _stereoset(audit: Audit) -> list[Pair]:
    out = []
    for item in sets.read(audit.sets, "stereoset.jsonl").items:
        lead = f"{item['context']} " if item["type"] == "intersentence" else ""
        out.append(Pair(lead + item["stereotype"], lead + item["anti-stereotype"], len(lead)))
    return out


def _winobias(audit: Audit) -> list[Pair]:
    out = []
    for item in sets.read(audit.sets, "winobias.jsonl").items:
        text, pronoun = item["text"].strip(), item["pro_stereotyped"]
        if pronoun in _OTHER and text.count("[MASK]") == 1:
            start = text.index("[MASK]")
            out.append(Pair(text.replace("[MASK]", pronoun), text.replace("[MASK]", _OTHER[pronoun]), start))
    return out
