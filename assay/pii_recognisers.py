"""Recognisers of personal data by pattern: what they share, and those that are Presidio's.

A recogniser is data: patterns with a score each, words that raise it, a check that settles it. The loop over them is
ours, since Presidio's spends more time on explaining a match than on finding it; patterns, checks and context words
of its recognisers are taken as they are. Everything here is linear in the text for windows of bounded length.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from assay.pii import Span

_CONTEXT_BEFORE = 100
_CONTEXT_AFTER = 40
_CONTEXT_GAIN = 0.35
_CONTEXT_FLOOR = 0.4


@dataclass(frozen=True)
class Pattern:
    """A compiled expression and the score of what it matches; the group ``v`` is the value where there is one."""

    regex: Any
    score: float


@dataclass(frozen=True)
class Recogniser:
    """Finds one entity type.

    Attributes:
        entity_type: what it finds.
        patterns: tried in order; all matches count.
        cues: the recogniser runs only where the small-lettered text holds one of them; empty for always.
        gate: a cheap expression that the text must hold; None for none.
        context: words near a match that raise its score by 0.35, to at least 0.4; None for none.
        check: True makes a match certain, False refuses it, None leaves its score.
        labelled: a value must hold a digit.
    """

    entity_type: str
    patterns: tuple[Pattern, ...]
    cues: tuple[str, ...] = ()
    gate: re.Pattern[str] | None = None
    context: re.Pattern[str] | None = None
    check: Callable[[str], bool | None] | None = None
    labelled: bool = False

    def find(self, text: str, small: str) -> Iterator[Span]:
        """Yields the matches; ``small`` is ``text.lower()``."""
        if self.cues and not any(cue in small for cue in self.cues):
            return
        if self.gate is not None and self.gate.search(text) is None:
            return
        for pattern in self.patterns:
            named = "v" in pattern.regex.groupindex
            for match in pattern.regex.finditer(text):
                start, end = match.span("v") if named else match.span()
                if start < end and (span := self._span(text, small, start, end, pattern.score)) is not None:
                    yield span

    def _span(self, text: str, small: str, start: int, end: int, score: float) -> Span | None:
        value = text[start:end]
        if self.labelled and not any(map(str.isdigit, value)):
            return None
        if self.check is not None:
            verdict = self.check(value)
            if verdict is False:
                return None
            score = 1.0 if verdict else score
        if self.context is not None and score < 1 and len(small) == len(text):
            near = small[max(0, start - _CONTEXT_BEFORE) : start] + " " + small[end : end + _CONTEXT_AFTER]
            if self.context.search(near):
                score = min(1.0, max(score + _CONTEXT_GAIN, _CONTEXT_FLOOR))
        return Span(start, end, self.entity_type, round(score, 4))


def words(*starts: str) -> re.Pattern[str]:
    """An expression for words that start so; for context, tried on small letters."""
    return re.compile(r"(?<![^\W\d_])(?:" + "|".join(map(re.escape, starts)) + ")")


def labelled(entity_type: str, labels: str, value: str, *cues: str, score: float = 0.85) -> Recogniser:
    """A recogniser of values that stand shortly after the words that name them, in the same sentence.

    Args:
        entity_type: what it finds.
        labels: an expression for the naming words.
        value: an expression for the value; it must hold a digit to count.
        cues: small-lettered strings, one of which any label holds.
        score: of a match.
    """
    between = r"(?:[^\n.;!?]|\.(?=\S)|(?<=no)\.|(?<=nr)\.|(?<=num)\.){0,32}?"
    regex = re.compile(rf"\b(?i:{labels})(?![^\W\d_]){between}(?<![\w-])(?P<v>(?=[^\s]*\d){value})(?![\w-])")
    return Recogniser(entity_type, (Pattern(regex, score),), cues, _DIGIT, labelled=True)


_DIGIT = re.compile(r"\d")
_SIX_DIGITS = re.compile(r"\d(?:[\s.-]?\d){5}")
_EIGHT_DIGITS = re.compile(r"\d(?:[\s.-]?\d){7}")
_QUAD = re.compile(r"\d\.\d{1,3}\.\d")
_COLONS = re.compile(r"[0-9A-Fa-f]:[0-9A-Fa-f:]|::")


def find_all(recognisers: Sequence[Recogniser], text: str) -> Iterable[Span]:
    """Yields what every recogniser finds."""
    small = text.lower()
    for recogniser in recognisers:
        yield from recogniser.find(text, small)


@cache
def from_presidio() -> tuple[Recogniser, ...]:
    """Presidio's own patterns, checks and context words for the types whose recognisers it ships."""
    from presidio_analyzer import predefined_recognizers as p

    ip: Any = p.IpRecognizer()
    four = [x for x in ip.patterns if x.name == "IPv4"]
    six = [x for x in ip.patterns if x.name.startswith("IPv6") and x.score > 0.4]
    return (
        _adapt(p.UsSsnRecognizer(), _EIGHT_DIGITS),
        _adapt(p.UsItinRecognizer(), _EIGHT_DIGITS),
        _adapt(p.UsPassportRecognizer(), _EIGHT_DIGITS),
        _adapt(p.UsLicenseRecognizer(), _DIGIT),
        _adapt(p.UsBankRecognizer(), _EIGHT_DIGITS),
        _adapt(p.UkNinoRecognizer(), _SIX_DIGITS),
        Recogniser("IP_ADDRESS", _compiled(four), gate=_QUAD, check=_address),
        Recogniser("IP_ADDRESS", _compiled(six), gate=_COLONS, check=_address),
    )


def _compiled(patterns: Iterable[Any]) -> tuple[Pattern, ...]:
    import regex

    flags = regex.DOTALL | regex.MULTILINE | regex.IGNORECASE
    return tuple(Pattern(regex.compile(x.regex, flags), float(x.score)) for x in patterns)


def _adapt(recogniser: Any, gate: re.Pattern[str]) -> Recogniser:
    def check(value: str) -> bool | None:
        if recogniser.invalidate_result(value):
            return False
        verdict: bool | None = recogniser.validate_result(value)
        return verdict

    context = words(*(w.lower().rstrip("#") for w in recogniser.context))
    return Recogniser(
        recogniser.supported_entities[0], _compiled(recogniser.patterns), gate=gate, context=context, check=check
    )


def _address(value: str) -> bool | None:
    try:
        ipaddress.ip_interface(value)
    except ValueError:
        return False
    return None
