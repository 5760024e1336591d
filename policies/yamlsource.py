"""Strict YAML with positions: what a rule author wrote, where, and nothing that YAML guesses.

A pack is read by people who will be held to it, so a repeated key, an alias, an unknown key or a value of another
kind than the schema names is an error with file, line and column, never a default.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from assay.errors import InvalidInputError

MAX_BYTES = 1 << 20
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The C parser where PyYAML was built with it: packs are read at every start, and it takes a tenth of the time."""
_WHOLE = re.compile(r"^-?(0|[1-9][0-9]*)$")

Where = tuple[str | int, ...]


@dataclass(frozen=True)
class Position:
    """1-based place in a file; ``indent`` is the column at which the lines of a literal block start."""

    line: int
    column: int
    indent: int = 0


@dataclass(frozen=True)
class Document:
    """One parsed file.

    Attributes:
        name: file name, as printed in errors.
        data: plain dicts, lists and scalars.
        positions: place of every value, by its path of keys and indices.
    """

    name: str
    data: Any
    positions: dict[Where, Position] = field(repr=False)

    def position(self, where: Where) -> Position:
        """Place of a value, or of the nearest thing that holds it."""
        while where and where not in self.positions:
            where = where[:-1]
        return self.positions.get(where, Position(1, 1))

    def error(
        self, where: Where, reason: str, message: str, *, rule: str = "", offset: tuple[int, int] = (1, 1)
    ) -> InvalidInputError:
        """Builds the error for a value; ``offset`` is a 1-based line and column inside a multi-line expression."""
        at = self.position(where)
        line, column = offset
        if at.indent:
            place = (at.line + line, at.indent + column - 1)
        else:
            place = (at.line + line - 1, at.column + column - 1 if line == 1 else column)
        metadata = {"file": self.name, "line": str(place[0]), "column": str(place[1]), "rule": rule}
        label = f"{self.name}:{place[0]}:{place[1]}: {rule + ': ' if rule else ''}{message}"
        return InvalidInputError(reason, label, metadata=metadata, remedy="mend the file; nothing of it was loaded")


def read(path: Path, label: str = "") -> Document:
    """Reads one file; ``label`` stands before its name in errors.

    Raises:
        InvalidInputError: ``PACK_UNREADABLE`` when it is missing, too long, not UTF-8 or not YAML; ``PACK_AMBIGUOUS``
            for an alias, a tag, a merge key or a repeated key.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InvalidInputError(
            "PACK_UNREADABLE", f"{label}{path.name}: {error.strerror or 'cannot be read'}"
        ) from error
    if len(raw) > MAX_BYTES:
        raise InvalidInputError("PACK_UNREADABLE", f"{label}{path.name}: longer than {MAX_BYTES} bytes")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInputError("PACK_UNREADABLE", f"{label}{path.name}: not UTF-8 at byte {error.start}") from error
    return parse(label + path.name, text)


def parse(name: str, text: str) -> Document:
    """Parses YAML text; see :func:`read` for the errors."""
    document = Document(name, None, {})
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                document.positions[()] = _at(event.start_mark)
                raise document.error((), "PACK_AMBIGUOUS", "aliases and anchors are not allowed: write the value out")
        node = yaml.compose(text, Loader=_LOADER)
    except (yaml.YAMLError, RecursionError) as error:
        document.positions[()] = _at(getattr(error, "problem_mark", None))
        problem = getattr(error, "problem", None) or type(error).__name__
        raise document.error((), "PACK_UNREADABLE", f"not YAML: {problem}") from error
    builder = _Builder(document, text.splitlines())
    try:
        data = builder.build(node, ()) if node is not None else None
    except RecursionError as error:
        raise document.error((), "PACK_UNREADABLE", "nested too deeply") from error
    return Document(name, data, document.positions)


def _at(mark: Any) -> Position:
    return Position(mark.line + 1, mark.column + 1) if mark is not None else Position(1, 1)


@dataclass(frozen=True)
class _Builder:
    document: Document
    lines: list[str]

    def build(self, node: yaml.Node, where: Where) -> Any:
        self.document.positions[where] = self._position(node)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, where)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(child, (*where, i)) for i, child in enumerate(node.value)]
        return self._scalar(node, where)

    def _mapping(self, node: yaml.MappingNode, where: Where) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str) or key_node.tag == "tag:yaml.org,2002:merge":
                raise self.document.error(where, "PACK_AMBIGUOUS", "keys must be plain words")
            self.document.positions[(*where, key)] = self._position(key_node)
            if key in out:
                raise self.document.error((*where, key), "PACK_AMBIGUOUS", f"{key!r} is written twice")
            out[key] = self.build(value_node, (*where, key))
        return out

    def _scalar(self, node: yaml.Node, where: Where) -> Any:
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        text = str(node.value)
        if kind == "str":
            return text
        if kind == "null":
            return None
        if kind == "bool" and text in ("true", "false"):
            return text == "true"
        try:
            if kind == "int" and _WHOLE.match(text):
                return int(text)
            if kind == "float":
                return float(text)
            if kind == "timestamp":
                return dt.date.fromisoformat(text)
        except ValueError:
            pass
        message = f"{text!r} would be read as a {kind}; write it in quotes, or as true, false, 12, 0.5 or 2026-01-31"
        raise self.document.error(where, "PACK_AMBIGUOUS", message)

    def _position(self, node: yaml.Node) -> Position:
        mark = node.start_mark
        style = getattr(node, "style", None)
        if style in ("|", ">"):
            body = self.lines[mark.line + 1 : mark.line + 40]
            indents = (len(line) - len(line.lstrip()) for line in body if line.strip())
            return Position(mark.line + 1, mark.column + 1, next(indents, 0) + 1)
        quoted = 1 if style in ("'", '"') else 0
        return Position(mark.line + 1, mark.column + 1 + quoted)


@dataclass(frozen=True)
class Section:
    """A mapping under a strict schema: every key is asked for by kind, and what was not asked for is an error."""

    document: Document
    where: Where
    rule: str = ""

    @property
    def data(self) -> dict[str, Any]:
        """The mapping itself.

        Raises:
            InvalidInputError: ``PACK_SCHEMA`` when it is something else.
        """
        value = self._value()
        if not isinstance(value, dict):
            raise self.error("", "PACK_SCHEMA", "must be a mapping")
        return value

    def error(self, key: str | int, reason: str, message: str, offset: tuple[int, int] = (1, 1)) -> InvalidInputError:
        """Error at one key of this mapping, or at the mapping when the key is empty."""
        where = self.where if key == "" else (*self.where, key)
        return self.document.error(where, reason, message, rule=self.rule, offset=offset)

    def fill(self, given: dict[str, Any] | Any, where: Where) -> None:
        """Takes values from another mapping of the document for keys that are not written here."""
        for key, value in given.items():
            if key not in self.data:
                self.data[key] = value
                self.document.positions[(*self.where, key)] = self.document.position((*where, key))

    def only(self, required: Iterable[str], optional: Iterable[str] = ()) -> None:
        """Demands every required key and refuses any other than the optional ones."""
        wanted, allowed = tuple(required), {*required, *optional}
        for key in self.data:
            if key not in allowed:
                known = ", ".join(sorted(allowed))
                raise self.error(key, "PACK_UNKNOWN_KEY", f"unknown key {key!r}; known are {known}")
        for key in wanted:
            if key not in self.data:
                raise self.error("", "PACK_MISSING_KEY", f"{key!r} is missing")

    def text(self, key: str, default: str | None = None, *, empty: bool = False) -> str:
        """A string; empty only where ``empty`` says so."""
        value = self.data.get(key, default)
        if not isinstance(value, str) or (not empty and not value.strip()):
            raise self.error(key, "PACK_SCHEMA", f"{key!r} must be {'a' if empty else 'a non-empty'} string")
        return value.strip() if not empty else value

    def flag(self, key: str, default: bool) -> bool:
        """``true`` or ``false``."""
        value = self.data.get(key, default)
        if not isinstance(value, bool):
            raise self.error(key, "PACK_SCHEMA", f"{key!r} must be true or false")
        return value

    def date(self, key: str) -> dt.date | None:
        """A date, or None where it is null or absent."""
        value = self.data.get(key)
        if value is not None and not isinstance(value, dt.date):
            raise self.error(key, "PACK_DATE", f"{key!r} must be a day such as 2026-01-31")
        return value

    def choice(self, key: str, names: Iterable[str]) -> str:
        """One of a few words."""
        value, known = self.data.get(key), tuple(names)
        if value not in known:
            raise self.error(key, "PACK_SCHEMA", f"{key!r} must be one of {', '.join(known)}")
        return str(value)

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of non-empty strings; absent means none."""
        value = self.data.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            raise self.error(key, "PACK_SCHEMA", f"{key!r} must be a list of words")
        return tuple(value)

    def items(self, key: str, rule: str = "") -> list[Section]:
        """A non-empty list of mappings."""
        value = self.data.get(key)
        if not isinstance(value, list) or not value:
            raise self.error(key, "PACK_SCHEMA", f"{key!r} must be a list with at least one entry")
        return [Section(self.document, (*self.where, key, i), rule) for i in range(len(value))]

    def child(self, key: str) -> Section:
        """The mapping under ``key``."""
        return Section(self.document, (*self.where, key), self.rule)

    def _value(self) -> Any:
        value = self.document.data
        for step in self.where:
            value = value[step]
        return value
