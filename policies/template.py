"""Messages with values in them: text in which ``{...}`` is a typed CEL expression.

``{data.rows}`` prints a number, ``{request.quote_usd_micros | usd}`` money, ``{data.pii_row_share | percent}`` a
share, and ``{... | sorted}`` a list in order: the keys of a map come in another one each time, and an answer's words
must not. A placeholder is compiled when the pack is loaded, so a typo is an error with a line and not an ugly message
years later.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from policies.cel import Activation, CompileError, Environment, EvaluationError, Expression

MAX_ITEMS = 10
MAX_TEXT = 120
_FILTER = re.compile(r"^(?P<expression>.*\S)\s+\|\s+(?P<filter>[a-z]+)$", re.DOTALL)
_HOLE = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class _Hole:
    expression: Expression
    write: Callable[[Any], str]


@dataclass(frozen=True)
class Template:
    """Text and holes in turn; the first and last parts are text, possibly empty."""

    source: str
    texts: tuple[str, ...]
    holes: tuple[_Hole, ...]

    @classmethod
    def compile(cls, source: str, environment: Environment) -> Template:
        """Compiles every placeholder.

        Raises:
            CompileError: a placeholder does not compile, has an unknown filter, or a brace stands alone.
        """
        texts, holes, end = [], [], 0
        for match in _HOLE.finditer(source):
            texts.append(source[end : match.start()])
            holes.append(_hole(match[1], environment, source.count("\n", 0, match.start()) + 1))
            end = match.end()
        texts.append(source[end:])
        if any("{" in text or "}" in text for text in texts):
            raise CompileError("a brace stands alone; placeholders are written {expression} or {expression | filter}")
        return cls(source, tuple(texts), tuple(holes))

    @property
    def outline(self) -> str:
        """The text with an ellipsis for every value, for people who read the rule and not an answer."""
        return "…".join(self.texts).strip()

    def render(self, activation: Activation) -> str:
        """Writes the text; a placeholder that cannot be computed prints ``(not known)`` and never fails the answer."""
        parts = [self.texts[0]]
        for hole, text in zip(self.holes, self.texts[1:], strict=True):
            try:
                parts.append(hole.write(hole.expression.value(activation)))
            except (EvaluationError, ArithmeticError, ValueError):
                parts.append("(not known)")
            parts.append(text)
        return "".join(parts).strip()


def number(value: float) -> str:
    """Writes a double with at most four significant digits, and never in exponents where people would not."""
    return f"{value:.4g}" if value == 0 or 1e-4 <= abs(value) < 1e6 else f"{value:.3g}"


def _hole(text: str, environment: Environment, line: int) -> _Hole:
    match = _FILTER.match(text.strip())
    source, name = (match["expression"], match["filter"]) if match else (text.strip(), "")
    if name not in _FILTERS:
        raise CompileError(f"no filter {name!r}; known are {', '.join(sorted(n for n in _FILTERS if n))}", line)
    try:
        return _Hole(environment.compile(source), _FILTERS[name])
    except CompileError as error:
        raise CompileError(f"in {{{text}}}: {error}", line + error.line - 1) from error


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, list):
        shown = ", ".join(_plain(item) for item in value[:MAX_ITEMS])
        more = f" and {len(value) - MAX_ITEMS:,} more" if len(value) > MAX_ITEMS else ""
        return (shown + more) or "none"
    text = "".join(c if c.isprintable() else " " for c in str(value))
    text = text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 3] + "..."
    return text or "(empty)"


def _percent(value: Any) -> str:
    return f"{100 * float(value):.3g} %"


def _usd(value: Any) -> str:
    micros = int(value)
    return f"${micros / 1_000_000:,.6f}".rstrip("0") if micros % 10_000 else f"${micros / 1_000_000:,.2f}"


def _sorted(value: Any) -> str:
    return _plain(sorted(value))


_FILTERS: dict[str, Callable[[Any], str]] = {"": _plain, "percent": _percent, "usd": _usd, "sorted": _sorted}
